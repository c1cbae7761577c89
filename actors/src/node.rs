//! The node, as its sessions and the replies written for them see it.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::NodeId;

use crate::answers::Answers;
use crate::busy::Busy;
use crate::pool::PoolHandle;
use crate::ports::MessageStore;
use crate::tenant::Tenants;
use crate::visitors::Visitors;
use crate::writer::WriterHandle;

/// Settings of every session.
#[derive(Clone, Copy, Debug)]
pub struct SessionSettings {
    /// How long it stays in memory without a device.
    pub idle_timeout: Duration,
    /// Shortest time between two deltas to a device.
    pub flush_interval: Duration,
    /// How long a device may take nothing before it is cut.
    pub stalled_device: Duration,
    /// Most devices at once.
    pub max_devices: usize,
    /// Most messages waiting for their answer.
    pub max_questions: usize,
}

/// What they need of it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: SessionSettings,
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) writer: WriterHandle,
    pub(crate) pool: PoolHandle,
    pub(crate) answers: Answers,
    pub(crate) tenants: Tenants,
    pub(crate) visitors: Visitors,
    pub(crate) busy: Busy,
}
