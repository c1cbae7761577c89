//! How soon an answer is wanted.

use serde::{Deserialize, Serialize};

/// How soon an answer is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyClass {
    /// A person is waiting for it.
    #[default]
    Live,
    /// It helps somebody who works for the tenant.
    Assist,
    /// It has time.
    Batch,
}

impl ReplyClass {
    /// All of them, the soonest first.
    pub const ALL: [Self; 3] = [Self::Live, Self::Assist, Self::Batch];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Assist => "assist",
            Self::Batch => "batch",
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature serde asks for"
    )]
    pub(crate) fn is_live(&self) -> bool {
        *self == Self::Live
    }
}
