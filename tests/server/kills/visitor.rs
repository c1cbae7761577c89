//! A visitor with several sessions, who writes down everything that was sent, acknowledged and seen.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hubbub_loadtest::simllm::answer_text;
use hubbub_protocol::client::Join;
use hubbub_protocol::server::{Ack, Delta, ErrorFrame, Joined};
use hubbub_protocol::{
    BotId, ClientMessageId, Epoch, ErrorCode, MessageFrame, Role, Seq, ServerFrame, SessionId,
};
use tokio::sync::Barrier;

use super::points::{Sight, Trigger};
use crate::client::{Caller, Credentials, Device, Gone, in_time, is_end, message, of};
use crate::crash::Acknowledged;
use crate::server::TOKENS;

/// Messages of a session that wait for their answer at once.
const AHEAD: usize = 2;

/// What every check of a promise says when it fails.
pub const BROKEN: &str = "the server broke its word";

/// UTF-16 code units of an answer: every answer is as long.
static ANSWER: LazyLock<u64> =
    LazyLock::new(|| answer_text("", TOKENS).encode_utf16().count() as u64);

struct Sent {
    id: ClientMessageId,
    text: String,
    /// Its number, once it is acknowledged.
    seq: Option<Seq>,
}

/// One session, as its visitor knows it.
struct Chat {
    epoch: Epoch,
    /// In the order of sending.
    sent: Vec<Sent>,
    /// Every durable message seen, in the order of seeing.
    seen: Vec<(Seq, ClientMessageId)>,
}

pub struct Visitor {
    credentials: Credentials,
    chats: BTreeMap<SessionId, Chat>,
    trigger: Arc<Trigger>,
    repeats: usize,
}

impl Visitor {
    /// Opens sessions and, at the second meeting with everybody, chats in all of them until the server is gone.
    pub async fn chat_until_gone(
        address: SocketAddr,
        key: String,
        (bot, sessions): (BotId, usize),
        ready: Arc<Barrier>,
        trigger: Arc<Trigger>,
    ) -> Self {
        let credentials = Credentials::Bearer(key);
        let mut device = Device::connect_as(address, &credentials).await.unwrap();
        let mut visitor = Self {
            credentials,
            chats: BTreeMap::new(),
            trigger,
            repeats: 0,
        };
        for _ in 0..sessions {
            let joined = device.open(bot).await;
            let chat = Chat {
                epoch: joined.epoch,
                sent: Vec::new(),
                seen: Vec::new(),
            };
            visitor.chats.insert(joined.session, chat);
        }
        in_time(ready.wait()).await;
        in_time(ready.wait()).await;
        let sessions: Vec<SessionId> = visitor.chats.keys().copied().collect();
        let mut is_there = true;
        for session in sessions.repeat(AHEAD) {
            is_there = is_there && visitor.ask(&mut device, session).await;
        }
        while is_there {
            is_there = match device.next().await {
                Ok(frame) => match visitor.note(frame) {
                    Some(session) => visitor.ask(&mut device, session).await,
                    None => true,
                },
                Err(Gone::Cut) => false,
                Err(closed) => panic!("{closed:?}"),
            };
        }
        visitor
    }

    /// Sends the next message; whether there is anybody to send it to.
    async fn ask(&mut self, device: &mut Device, session: SessionId) -> bool {
        let chat = self.chats.get_mut(&session).unwrap();
        let text = format!("{session} asks {}", chat.sent.len());
        let id = ClientMessageId::generate();
        let frame = message(session, id, &text, None);
        // Perhaps sent, even if this fails.
        chat.sent.push(Sent {
            id,
            text,
            seq: None,
        });
        let is_there = device.send(&frame).await.is_ok();
        self.trigger.see(Sight::Sent);
        is_there
    }

    /// Writes a frame down; answers the session whose reply it ends.
    fn note(&mut self, frame: ServerFrame) -> Option<SessionId> {
        match frame {
            ServerFrame::Ack(ack) => self.note_ack(&ack),
            ServerFrame::Delta(delta) => self.note_delta(&delta),
            ServerFrame::Message(message) => {
                self.note_message(&message);
                if message.role == Role::Assistant {
                    self.trigger.see(Sight::Answered);
                    return Some(message.session);
                }
            }
            ServerFrame::Reply(reply) if is_end(&reply.state) => return Some(reply.session),
            ServerFrame::Error(error) => panic!("{error:?}"),
            _ => {}
        }
        None
    }

    fn note_ack(&mut self, ack: &Ack) {
        let chat = self.chats.get_mut(&ack.session).unwrap();
        let sent = chat.sent.iter_mut().find(|sent| sent.id == ack.id).unwrap();
        let seq = *sent.seq.get_or_insert(ack.seq);
        assert_eq!(seq, ack.seq, "{BROKEN}: two numbers of {ack:?}");
        self.trigger.see(Sight::Acknowledged);
    }

    fn note_delta(&self, delta: &Delta) {
        let end = delta.offset + delta.text.encode_utf16().count() as u64;
        self.trigger.see(match delta.offset {
            _ if end == *ANSWER => Sight::LastDelta,
            0 => Sight::FirstDelta,
            _ => Sight::MidStream,
        });
    }

    fn note_message(&mut self, message: &MessageFrame) {
        let seen = &mut self.chats.get_mut(&message.session).unwrap().seen;
        let next = seen.last().map_or(Seq(1), |(seq, _)| seq.next());
        assert_eq!(message.seq, next, "{BROKEN}: gap or repeat at {message:?}");
        seen.push((message.seq, message.id));
    }

    /// Comes back to the restarted server: joins where it was, and sends again what was not acknowledged,
    /// and in each session the last message that was.
    pub async fn come_back(&mut self, address: SocketAddr) {
        let mut device = Device::connect_as(address, &self.credentials)
            .await
            .unwrap();
        let sessions: Vec<SessionId> = self.chats.keys().copied().collect();
        for session in sessions {
            let joined = self.rejoin(&mut device, session).await;
            assert!(!joined.resync && !joined.more, "{joined:?}");
            for message in &joined.messages {
                self.note_message(message);
            }
            let chat = &self.chats[&session];
            let first = chat.sent.iter().position(|sent| sent.seq.is_none());
            let first = first.unwrap_or(chat.sent.len());
            for at in first.saturating_sub(1)..chat.sent.len() {
                self.repeat(&mut device, session, at).await;
            }
        }
        let is_behind = |chat: &Chat| {
            let acknowledged = chat.sent.last().and_then(|sent| sent.seq);
            acknowledged > chat.seen.last().map(|(seq, _)| *seq)
        };
        while self.chats.values().any(is_behind) {
            self.note(device.next().await.unwrap());
        }
    }

    async fn rejoin(&mut self, device: &mut Device, session: SessionId) -> Joined {
        let chat = &self.chats[&session];
        let after = chat.seen.last().map_or(Seq(0), |(seq, _)| *seq);
        let join = Join {
            after: Some(after),
            epoch: Some(chat.epoch),
            limit: Some(200),
            ..of(session)
        };
        device
            .send(&hubbub_protocol::ClientFrame::Join(join))
            .await
            .unwrap();
        loop {
            match device.next().await.unwrap() {
                ServerFrame::Joined(joined) if joined.session == session => return *joined,
                other => drop(self.note(other)),
            }
        }
    }

    /// Sends a message again, as often as it is refused for a while.
    async fn repeat(&mut self, device: &mut Device, session: SessionId, at: usize) {
        let sent = &self.chats[&session].sent[at];
        let (id, before) = (sent.id, sent.seq);
        let frame = message(session, id, &sent.text, None);
        loop {
            device.send(&frame).await.unwrap();
            match self.answer_to(device, id).await {
                Ok(ack) => {
                    let is_known = before.is_none() || ack.duplicate;
                    assert!(is_known, "{BROKEN}: stored a second time, {ack:?}");
                    self.repeats += usize::from(before.is_none() && ack.duplicate);
                    return;
                }
                Err(refused) => {
                    let is_passing = matches!(
                        refused.error.code,
                        ErrorCode::Unavailable | ErrorCode::Overloaded
                    );
                    assert!(is_passing, "{refused:?}");
                    // As told; the pace of a client.
                    let pause = refused.error.retry_after_ms.unwrap_or(100).min(500);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    async fn answer_to(
        &mut self,
        device: &mut Device,
        id: ClientMessageId,
    ) -> Result<Ack, ErrorFrame> {
        loop {
            match device.next().await.unwrap() {
                ServerFrame::Error(refused) => return Err(refused),
                ServerFrame::Ack(ack) if ack.id == id => {
                    self.note_ack(&ack);
                    return Ok(ack);
                }
                other => drop(self.note(other)),
            }
        }
    }

    /// Compares what was sent and seen with what the server has: each message once, in order.
    pub async fn check(&self, caller: &Caller) {
        for (session, chat) in &self.chats {
            let stored = caller.transcript(*session).await.messages;
            let by_visitor = stored.iter().filter(|held| held.role == Role::Visitor);
            let held: Vec<_> = by_visitor
                .map(|held| (held.id, Some(held.seq), &held.text))
                .collect();
            let sent: Vec<_> = chat
                .sent
                .iter()
                .map(|sent| (sent.id, sent.seq, &sent.text))
                .collect();
            assert_eq!(held, sent, "{BROKEN} in {session}");
            let ids: HashMap<Seq, ClientMessageId> =
                stored.iter().map(|held| (held.seq, held.id)).collect();
            for (seq, id) in &chat.seen {
                assert_eq!(
                    ids.get(seq),
                    Some(id),
                    "{BROKEN}: seen and lost in {session}"
                );
            }
        }
    }

    /// Messages that were not acknowledged and turned out to be stored.
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    /// Everything that was acknowledged.
    pub fn acknowledged(&self) -> Acknowledged {
        let of_chat = |chat: &Chat| {
            let sent = chat.sent.iter();
            sent.map(|sent| (sent.seq.unwrap(), sent.text.clone()))
                .collect()
        };
        self.chats
            .iter()
            .map(|(session, chat)| (*session, of_chat(chat)))
            .collect()
    }
}
