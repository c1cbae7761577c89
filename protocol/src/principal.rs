//! Who a connection speaks for.

use serde::{Deserialize, Serialize};

/// Who the connection speaks for. Known from the credentials alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// What kind of caller.
    pub kind: PrincipalKind,
    /// Stable id within its kind.
    pub id: String,
    /// For people to read; may be empty.
    pub name: String,
}

/// Kinds of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person who chats through a widget.
    Visitor,
    /// A person known to the tenant's own site.
    User,
    /// A person of the tenant.
    Operator,
    /// A program of the tenant.
    ApiKey,
}
