//! Why storage could not.

/// Storage could not do it. The cause is in the log, where it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting, or did not answer in time.
    #[error("storage is unavailable")]
    Unavailable,
    /// The database is known to take nothing for a while: trying again at once is of no use.
    #[error("storage is down")]
    Down,
    /// The tenant has no such bot.
    #[error("no such bot")]
    NoBot,
    /// The database refused a statement, or a row cannot be read: a fault in the server.
    #[error("storage failed")]
    Internal,
}
