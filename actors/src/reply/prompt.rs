//! The prompt: the bot's instructions and as much of the conversation as the model can read. Pure.

use std::borrow::Cow;

use hubbub_protocol::{Role, Seq};

use super::{score, turns};
use crate::ports::{BotConfig, ChatTurn, PageSize, Said};

/// Messages read for a prompt; a window of tokens rarely holds more.
const MOST_MESSAGES: u32 = 100;

/// Bytes of text that count as one token.
const TOKEN_BYTES: u32 = 3;

/// Tokens around each turn: role and separators.
const TURN_OVERHEAD: usize = 6;

/// Estimates the tokens of a text, rather too many than too few: about three bytes a token, where
/// English has more than four and scripts of several bytes a character have fewer characters a token.
pub(crate) fn estimate_tokens(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES as usize) + TURN_OVERHEAD
}

/// Told to the bot where people answered before it: they look like answers of its own.
const HANDED_BACK: &str = "Some of the answers in this conversation were written by people of the team, who \
    handled it for a while. It is yours again: keep to what they said and go on from there.";

/// Before what they left it.
const SUMMARY: &str = "They leave you this, which the visitor does not see: ";

/// The bot's instructions for this conversation, with what people left it who handled it before.
fn instructions<'a>(bot: &'a BotConfig, summary: Option<&str>, said: &[Said]) -> Cow<'a, str> {
    let mut instructions = Cow::Borrowed(bot.prompt.as_str());
    if summary.is_some() || said.iter().any(|said| said.role == Role::Operator) {
        turns::join(instructions.to_mut(), HANDED_BACK);
    }
    if let Some(summary) = summary {
        turns::join(instructions.to_mut(), SUMMARY);
        instructions.to_mut().push_str(summary);
    }
    if bot.escalation.below_score.is_some() {
        turns::join(instructions.to_mut(), score::INSTRUCTIONS);
    }
    instructions
}

/// What to read for a window of tokens: more would not fit in it.
pub(crate) fn page_size(window: u32) -> PageSize {
    PageSize {
        messages: MOST_MESSAGES,
        bytes: window.saturating_mul(TOKEN_BYTES),
    }
}

/// The turns to send, oldest first, of what [fits](fitting).
pub(crate) fn build(
    bot: &BotConfig,
    summary: Option<&str>,
    said: &[Said],
    to: Seq,
    window: u32,
) -> Option<Vec<ChatTurn>> {
    let fitting = fitting(bot, summary, said, to, window)?;
    Some(turns::turns(&instructions(bot, summary, fitting), fitting))
}

/// As much of a [conversation](turns::conversation) as goes into a prompt, ending with the question at `to`.
/// `None` if not even the question fits in the window beside the instructions and the answer.
pub(crate) fn fitting<'a>(
    bot: &BotConfig,
    summary: Option<&str>,
    said: &'a [Said],
    to: Seq,
    window: u32,
) -> Option<&'a [Said]> {
    let answer = usize::try_from(bot.max_output_tokens).unwrap_or(usize::MAX);
    let window = usize::try_from(window).unwrap_or(usize::MAX);
    let instructions = match instructions(bot, summary, said).as_ref() {
        "" => 0,
        instructions => estimate_tokens(instructions),
    };
    let mut left = window.checked_sub(answer)?.checked_sub(instructions)?;

    let mut from = said.len();
    for (at, said) in said.iter().enumerate().rev() {
        let Some(rest) = left.checked_sub(estimate_tokens(&said.text)) else {
            break;
        };
        left = rest;
        from = at;
    }
    let fitting = said.get(from..).unwrap_or_default();
    let has_question = fitting.last().is_some_and(|said| said.at == to);
    has_question.then_some(fitting)
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{BotId, Escalation};
    use proptest::prelude::*;

    use super::*;
    use crate::ports::TurnRole;

    fn bot(prompt: &str, max_output_tokens: u32) -> BotConfig {
        BotConfig {
            answer_cache: std::time::Duration::ZERO,
            bot: BotId::generate(),
            name: "Bot".into(),
            prompt: prompt.into(),
            route: vec![],
            model: None,
            replies: true,
            max_output_tokens,
            escalation: Escalation::default(),
        }
    }

    fn said(at: u64, text: &str) -> Said {
        Said {
            at: Seq(at),
            role: if at % 2 == 1 {
                Role::Visitor
            } else {
                Role::Assistant
            },
            answers: false,
            filtered: false,
            text: text.into(),
        }
    }

    proptest! {
        /// The prompt is the instructions and a suffix of the conversation from a question on, and never
        /// over the window.
        #[test]
        fn the_prompt_fits_and_keeps_the_newest(
            texts in prop::collection::vec("[a-z]{1,200}", 1..40), window in 100u32..2_000,
        ) {
            let all: Vec<_> =
                texts.iter().enumerate().map(|(n, text)| said(n as u64 + 1, text)).collect();
            if let Some(turns) = build(&bot("Be kind.", 64), None, &all, Seq(texts.len() as u64), window) {
                let tokens: usize = turns.iter().map(|turn| estimate_tokens(&turn.text)).sum();
                prop_assert!(tokens + 64 <= window as usize);
                prop_assert_eq!(turns[0].role, TurnRole::System);
                let said: Vec<_> = turns[1..].iter().map(|turn| turn.text.clone()).collect();
                prop_assert!(texts.ends_with(&said));
                prop_assert!(turns.get(1).is_none_or(|turn| turn.role == TurnRole::User));
            }
        }
    }

    #[test]
    fn a_bot_is_told_that_people_answered_before_it() {
        let mut all = vec![said(1, "Hi"), said(2, "I am Olga."), said(3, "And now?")];
        let system = |summary, all: &[Said]| {
            let turns = build(&bot("Be kind.", 64), summary, all, Seq(3), 1_000).unwrap();
            turns[0].text.clone()
        };
        let told = format!("Be kind.\n\n{HANDED_BACK}");
        let summed_up = format!("{told}\n\n{SUMMARY}It is free.");
        assert_eq!(system(None, &all), "Be kind.");
        assert_eq!(system(Some("It is free."), &all), summed_up);
        all[1].role = Role::Operator;
        assert_eq!(system(None, &all), told);
        assert_eq!(system(Some("It is free."), &all), summed_up);
    }

    #[test]
    fn a_message_larger_than_the_window_has_no_prompt() {
        let large = vec![said(1, &"x".repeat(4_000))];
        assert_eq!(build(&bot("", 100), None, &large, Seq(1), 1_000), None);
        let small = vec![said(1, "x")];
        assert_eq!(build(&bot("", 2_000), None, &small, Seq(1), 1_000), None);
    }
}
