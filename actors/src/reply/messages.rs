//! What a reply tells the session it is written for.

use actix::prelude::*;
use hubbub_protocol::ReplyId;

use crate::pool::Place;
use crate::ports::{Fence, ReplyEnd};

/// How far a reply is.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplyProgress {
    pub(crate) reply: ReplyId,
    pub(crate) fence: Fence,
    pub(crate) step: ReplyStep,
}

pub(crate) enum ReplyStep {
    Queued(Place),
    /// A model is asked.
    Started(String),
    /// It is at work, and has nothing to show yet.
    Thinking,
    Text(String),
    /// How sure the model says it is of its answer, from 0 to 100.
    Scored(u8),
    Ended(ReplyEnd),
}
