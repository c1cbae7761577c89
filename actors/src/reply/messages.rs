//! What a reply tells the session it is written for.

use actix::prelude::*;
use hubbub_protocol::{ReplyId, Usage};

use crate::pool::Place;
use crate::ports::ReplyEnd;

/// How far a reply is.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplyProgress {
    pub(crate) reply: ReplyId,
    pub(crate) fence: u64,
    pub(crate) step: ReplyStep,
}

pub(crate) enum ReplyStep {
    Queued(Place),
    Started { model: String },
    Text(String),
    Ended { end: ReplyEnd, usage: Option<Usage> },
}
