//! A node under test, and its devices.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::client::SendMode;
use hubbub_protocol::{
    BotId, ClientMessageId, ConnectionId, NodeId, ReplyClass, Seq, ServerFrame, SessionId,
    TenantId, VisitorId,
};
use tokio::time::timeout;

use super::recorder::Counters;
use super::view::View;
use crate::ports::{TenantLimits, Upstream};
use crate::testing::{DeviceLog, MemoryStore, ScriptedUpstream, channel_outlet};
use crate::{
    Caller, DefaultLimits, Hub, HubConfig, JoinRequest, OperatorRole, PoolConfig, Post, Posted,
    Rejection, SessionHandle, SessionSettings, VisitorLimits, Who,
};

/// Longer than anything that is waited for, in virtual time.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs a test on virtual time, and checks that no actor panicked.
pub(super) fn run(test: impl AsyncFnOnce()) {
    let panics = run_and_count(test);
    assert_eq!(panics, 0, "an actor panicked");
}

/// Runs a test that makes actors panic; answers how often they did.
pub(super) fn run_and_count(test: impl AsyncFnOnce()) -> u64 {
    let counters = Counters::default();
    metrics::with_local_recorder(&counters, || {
        actix_rt::System::new().block_on(async {
            tokio::time::pause();
            test().await;
        });
    });
    counters.get("hubbub_actor_panics_total")
}

/// A node with one tenant, one bot and, unless told otherwise, one upstream.
pub(super) struct Node {
    pub(super) hub: Hub,
    pub(super) store: Arc<MemoryStore>,
    pub(super) upstream: Arc<ScriptedUpstream>,
    pub(super) tenant: TenantId,
    pub(super) bot: BotId,
}

/// Settings that get in nobody's way.
pub(super) fn config(upstreams: &[Arc<ScriptedUpstream>]) -> HubConfig {
    HubConfig {
        node: NodeId::generate(),
        session: SessionSettings {
            idle_timeout: Duration::from_mins(1),
            flush_interval: Duration::from_millis(40),
            stalled_device: Duration::from_secs(10),
            max_devices: 16,
            max_questions: 4,
        },
        pool: PoolConfig {
            upstreams: upstreams
                .iter()
                .map(|upstream| upstream.clone() as Arc<dyn Upstream>)
                .collect(),
            default_route: Vec::new(),
            queue_len: 8,
            queue_wait: Duration::from_secs(30),
            first_sign_wait: Duration::from_mins(1),
            hedge_after: None,
        },
        tenant: DefaultLimits {
            connections: 1_000,
            sessions: 10_000,
            messages_per_second: 1_000_000,
        },
        visitor: VisitorLimits {
            messages_per_second: 1_000_000,
            messages_burst: 1_000_000,
            connections: 1_000,
            replies: 1_000,
        },
        max_sessions: 10_000,
    }
}

impl Node {
    pub(super) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(super) fn start_with(change: impl FnOnce(&mut HubConfig)) -> Self {
        Self::start_on(&[ScriptedUpstream::new("one", 8)], change)
    }

    pub(super) fn start_on(
        upstreams: &[Arc<ScriptedUpstream>],
        change: impl FnOnce(&mut HubConfig),
    ) -> Self {
        let store = MemoryStore::new();
        let tenant = store.add_tenant(TenantLimits::default());
        let bot = store.add_bot(tenant);
        let mut config = config(upstreams);
        change(&mut config);
        Self {
            hub: Hub::start(config, store.clone()),
            store,
            upstream: upstreams[0].clone(),
            tenant,
            bot,
        }
    }

    /// A new session of an API key.
    pub(super) async fn open(&self) -> SessionId {
        self.open_for(None).await
    }

    pub(super) async fn open_for(&self, visitor: Option<VisitorId>) -> SessionId {
        let caller = match visitor {
            Some(visitor) => self.visitor(visitor),
            None => self.caller(),
        };
        self.hub.open_session(&caller, self.bot).await.unwrap()
    }

    pub(super) fn handle(&self, session: SessionId) -> SessionHandle {
        self.hub.session(self.tenant, session).unwrap()
    }

    pub(super) fn caller(&self) -> Caller {
        caller(self.tenant, "ann")
    }

    /// A visitor on the page of the node's bot.
    pub(super) fn visitor(&self, id: VisitorId) -> Caller {
        let bot = self.bot;
        Caller {
            who: Who::Visitor { id, bot },
            ..self.caller()
        }
    }

    pub(super) fn operator(&self, role: OperatorRole) -> Caller {
        Caller {
            who: Who::Operator {
                id: "olga".to_owned(),
                role,
            },
            ..self.caller()
        }
    }

    pub(super) async fn post(&self, session: SessionId, text: &str) -> Result<Posted, Rejection> {
        self.post_as(session, ClientMessageId::generate(), text)
            .await
    }

    pub(super) async fn post_as(
        &self,
        session: SessionId,
        id: ClientMessageId,
        text: &str,
    ) -> Result<Posted, Rejection> {
        let handle = self.hub.session(self.tenant, session)?;
        handle.post_message(self.caller(), post(id, text)).await
    }

    /// Stores messages that nobody answers.
    pub(super) async fn note(&self, session: SessionId, text: &str) -> Posted {
        let note = post(ClientMessageId::generate(), text);
        let operator = self.operator(OperatorRole::Agent);
        let handle = self.handle(session);
        handle.post_message(operator, note).await.unwrap()
    }

    /// Joins with room for everything.
    pub(super) async fn join(&self, session: SessionId) -> Device {
        self.join_after(session, Some(Seq::ZERO)).await
    }

    pub(super) async fn join_after(&self, session: SessionId, after: Option<Seq>) -> Device {
        let join = join_request(after);
        self.try_join(session, join, 4_096).await.unwrap()
    }

    /// A device that takes one delivery, its `joined`, and no more until it is read.
    pub(super) async fn join_unread(&self, session: SessionId) -> Device {
        let join = join_request(Some(Seq::ZERO));
        self.try_join(session, join, 1).await.unwrap()
    }

    pub(super) async fn try_join(
        &self,
        session: SessionId,
        join: JoinRequest,
        capacity: usize,
    ) -> Result<Device, Rejection> {
        self.try_join_as(self.caller(), session, join, capacity)
            .await
    }

    /// Joins as somebody else, with room for everything.
    pub(super) async fn join_as(&self, session: SessionId, caller: Caller) -> Device {
        let join = join_request(Some(Seq::ZERO));
        let joined = self.try_join_as(caller, session, join, 4_096);
        joined.await.unwrap()
    }

    async fn try_join_as(
        &self,
        caller: Caller,
        session: SessionId,
        join: JoinRequest,
        capacity: usize,
    ) -> Result<Device, Rejection> {
        let handle = self.hub.session(self.tenant, session)?;
        let (outlet, log) = channel_outlet(capacity);
        let (id, after) = (join.device, join.after);
        handle.join(caller, join, Box::new(outlet)).await?;
        Ok(Device {
            id,
            log,
            handle,
            after: after.unwrap_or_default(),
            frames: Vec::new(),
        })
    }

    /// Posts, and waits for the end of the reply on a device of its own.
    pub(super) async fn chat(&self, session: SessionId, text: &str) -> Vec<ServerFrame> {
        let mut device = self.join(session).await;
        let posted = self.post(session, text).await.unwrap();
        let reply = posted.reply.unwrap();
        device.until_end_of(reply).await;
        device.frames
    }
}

pub(super) fn caller(tenant: TenantId, name: &str) -> Caller {
    Caller {
        tenant,
        who: Who::Key {
            id: name.to_owned(),
        },
        name: name.to_owned(),
    }
}

pub(super) fn post(id: ClientMessageId, text: &str) -> Post {
    Post {
        id,
        text: text.to_owned(),
        metadata: None,
        mode: SendMode::Queue,
        class: ReplyClass::Live,
    }
}

pub(super) fn join_request(after: Option<Seq>) -> JoinRequest {
    JoinRequest {
        device: ConnectionId::generate(),
        reference: None,
        after,
        epoch: None,
        limit: 200,
    }
}

/// A joined device and everything it was handed.
pub(super) struct Device {
    pub(super) id: ConnectionId,
    pub(super) log: DeviceLog,
    pub(super) handle: SessionHandle,
    pub(super) frames: Vec<ServerFrame>,
    after: Seq,
}

impl Device {
    /// Reads until a frame satisfies the condition, and answers that frame.
    pub(super) async fn until(&mut self, is_it: impl Fn(&ServerFrame) -> bool) -> ServerFrame {
        loop {
            let next = timeout(PATIENCE, self.log.next()).await;
            let Ok(Some(frame)) = next else {
                panic!("never came; had {:#?}", self.frames);
            };
            self.frames.push(frame.clone());
            if is_it(&frame) {
                return frame;
            }
        }
    }

    pub(super) async fn until_end_of(&mut self, reply: hubbub_protocol::ReplyId) -> ServerFrame {
        self.until(|frame| ends(frame, reply)).await
    }

    pub(super) async fn until_seq(&mut self, seq: Seq) {
        self.until(|frame| matches!(frame, ServerFrame::Message(m) if m.seq == seq))
            .await;
    }

    pub(super) async fn until_text(&mut self) {
        self.until(|frame| matches!(frame, ServerFrame::Delta(_)))
            .await;
    }

    /// Reads until nothing came for a while.
    pub(super) async fn settle(&mut self) {
        while let Ok(Some(frame)) = timeout(Duration::from_secs(8), self.log.next()).await {
            self.frames.push(frame);
        }
    }

    /// The device's picture of the session, checked.
    pub(super) fn view(&self) -> View {
        View::of(&self.frames, self.after)
    }

    /// The text of every delta.
    pub(super) fn shown(&self) -> String {
        let deltas = self.frames.iter().filter_map(|frame| match frame {
            ServerFrame::Delta(delta) => Some(delta.text.as_str()),
            _ => None,
        });
        deltas.collect()
    }

    /// What everybody sees alike: all but presence.
    pub(super) fn shared_frames(&self) -> Vec<String> {
        let shared = self
            .frames
            .iter()
            .filter(|frame| !matches!(frame, ServerFrame::Presence(_) | ServerFrame::Joined(_)));
        shared.map(ServerFrame::encode).collect()
    }

    pub(super) fn joined(&self) -> &hubbub_protocol::server::Joined {
        match &self.frames[0] {
            ServerFrame::Joined(joined) => joined,
            other => panic!("{other:?} came first"),
        }
    }
}

pub(super) fn ends(frame: &ServerFrame, reply: hubbub_protocol::ReplyId) -> bool {
    use hubbub_protocol::ReplyState::{Cancelled, Failed};
    match frame {
        ServerFrame::Message(message) => message.reply == Some(reply),
        ServerFrame::Reply(r) => r.reply == reply && matches!(r.state, Cancelled | Failed { .. }),
        _ => false,
    }
}

/// Lets virtual time pass.
pub(super) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
