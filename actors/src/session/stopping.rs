//! Stopping: the running reply ends because somebody asks for it, or because the node is about to stop.

use actix::prelude::*;
use hubbub_protocol::ErrorCode;

use super::{Answer, Session};
use crate::caller::{Caller, Permission};
use crate::ending::failed;
use crate::ports::ReplyEnd;
use crate::rejection::Rejection;

/// Stops the running reply; what was written is kept with it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StopReply {
    pub(super) caller: Caller,
    pub(super) answer: Answer<()>,
}

/// Ends what is being answered; what waits has its turn, and its end, after it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndReplies;

impl Handler<StopReply> for Session {
    type Result = ();

    fn handle(&mut self, StopReply { caller, answer }: StopReply, ctx: &mut Self::Context) {
        self.serve(&caller, answer, ctx, |live, answer, ctx| {
            let may = caller.check(Permission::Chat);
            let stopped = may.and_then(|()| live.end_answer(ReplyEnd::Cancelled, ctx));
            drop(answer.send(stopped));
        });
    }
}

impl Handler<EndReplies> for Session {
    type Result = ();

    fn handle(&mut self, _: EndReplies, ctx: &mut Self::Context) {
        let stopping = Rejection::later(
            ErrorCode::Unavailable,
            "the server is restarting, please ask again",
            1_000,
        );
        self.dispatch(ctx, |live, ctx| {
            // Nothing is being answered: nothing is to be ended.
            drop(live.end_answer(failed(&stopping), ctx));
        });
    }
}
