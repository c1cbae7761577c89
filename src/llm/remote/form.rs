//! What every dialect is written from, and what its events come to.

use std::borrow::Cow;

use hubbub_actors::ports::{ChatTurn, TurnRole};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Api;

/// How a request is written.
pub(super) struct Form<'a> {
    pub(super) api: Api,
    /// The model to ask for when the request names none.
    pub(super) default_model: &'a str,
    /// Which field of OpenAI's bounds the answer; `None` sends no bound, where the dialect has a choice.
    pub(super) bound_field: Option<&'static str>,
    /// Whether counts are asked for.
    pub(super) stream_options: bool,
    /// Further fields, as configured.
    pub(super) extra: &'a Map<String, Value>,
}

/// A turn as all of them write it.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> From<&'a ChatTurn> for Turn<'a> {
    fn from(turn: &'a ChatTurn) -> Self {
        let role = match turn.role {
            TurnRole::System => "system",
            TurnRole::User => "user",
            TurnRole::Assistant => "assistant",
        };
        Self {
            role,
            content: &turn.text,
        }
    }
}

/// What an event comes to.
pub(super) enum Translated<'a> {
    /// This event of OpenAI's.
    Event(Cow<'a, Value>),
    /// The answer is over.
    Done,
    /// Nothing, but a sign of life.
    Nothing,
}
