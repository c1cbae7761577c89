//! Giving an answer that there is already, in place of having one written.

use std::sync::Arc;

use super::messages::ReplyStep;
use super::tab::Asked;
use super::{Prompt, Stopped, Work};
use crate::answers::{Question, Shared, Unshared};
use crate::pool::Route;
use crate::ports::{AttemptOutcome, ReplyEnd};

/// What answers in place of an upstream where an answer is there already. No upstream can be called so.
const SHARED: &str = "(shared)";

impl Work {
    /// Answers a question that others may have asked before, or ask at this moment.
    pub(super) async fn share(
        &self,
        question: Question,
        route: Route,
        prompt: &Prompt,
    ) -> Result<ReplyEnd, Stopped> {
        // What came of it, if it was us who had it written.
        let mut own = None;
        let writing = async {
            let answered = self.generate(route.clone(), prompt).await;
            let shared = match &answered {
                Ok((ReplyEnd::Completed { cut: None }, shared)) => Ok(Arc::new(shared.clone())),
                _ => Err(Unshared),
            };
            own = Some(answered);
            shared
        };
        let shared = self.node.answers.answer(question, writing).await;
        match (own, shared) {
            (Some(answered), _) => answered.map(|(end, _)| end),
            (None, Some(shared)) => self.repeat(&shared).await,
            // Whoever was asked for it had no luck.
            (None, None) => self.generate(route, prompt).await.map(|(end, _)| end),
        }
    }

    /// Gives an answer that there is. It is on the bill, and costs nothing.
    async fn repeat(&self, shared: &Shared) -> Result<ReplyEnd, Stopped> {
        let entry = self.task.tab.open(Asked {
            bot: self.task.bot.bot,
            visitor: self.task.visitor,
            upstream: SHARED.to_owned(),
            model: shared.model.clone(),
            prompt_tokens: 0,
        });
        self.tell(ReplyStep::Started(shared.model.clone())).await?;
        self.tell(ReplyStep::Text(shared.text.clone())).await?;
        self.tell_score(shared.score).await?;
        entry.close(AttemptOutcome::Answered);
        metrics::counter!("hubbub_answers_shared_total").increment(1);
        Ok(ReplyEnd::Completed { cut: None })
    }
}
