//! What an answer comes to, and how its bytes stopped coming.

use std::collections::VecDeque;

use hubbub_actors::ports::{UpstreamError, UpstreamEvent};

/// What is to be told, in order.
pub type Events = VecDeque<Result<UpstreamEvent, UpstreamError>>;

/// How the bytes of an answer stopped coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The body is over.
    Over,
    /// The connection broke.
    Broken,
}
