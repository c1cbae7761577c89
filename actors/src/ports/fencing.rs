//! Two counters that keep late words out. They are compared for different reasons, so they are two types.

/// Who handles a session: rises whenever that changes. What was begun under an older one is not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

impl Fence {
    /// Of the next handler.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Who writes a reply: rises whenever another node takes it over. Only the newest claim ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim(pub u64);

impl Claim {
    /// Of the node that stored the question.
    pub const FIRST: Self = Self(0);

    /// Of the node that takes the reply over.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
