//! Quarantine: a message that kills its actor three times is not tried a fourth time.

use dashmap::DashMap;
use hubbub_protocol::{ClientMessageId, ErrorCode};

use crate::capacity;
use crate::rejection::Rejection;

/// Deaths after which a message is refused.
const STRIKES: u32 = 3;

/// Messages that were being handled when their session died.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(DashMap<ClientMessageId, u32>);

impl Quarantine {
    /// Refuses a message that killed its actor too often.
    pub(crate) fn check(&self, id: ClientMessageId) -> Result<(), Rejection> {
        match self.0.get(&id) {
            Some(strikes) if *strikes >= STRIKES => Err(Rejection::new(
                ErrorCode::Invalid,
                "this message cannot be handled",
            )),
            _ => Ok(()),
        }
    }

    /// Notes that a session died while this message was being handled.
    pub(crate) fn note(&self, id: ClientMessageId) {
        // Forgetting everything costs a poison message three more deaths, and memory stays bounded.
        if self.0.len() >= capacity::QUARANTINE_ENTRIES {
            self.0.clear();
        }
        let mut strikes = self.0.entry(id).or_insert(0);
        *strikes += 1;
        tracing::error!(message = %id, strikes = *strikes, "a session died handling a message");
    }
}
