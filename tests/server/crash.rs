//! The server killed in the middle of its work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::{Behaviour, answer_text};
use hubbub_protocol::client::Join;
use hubbub_protocol::http::MessagePage;
use hubbub_protocol::{
    BotId, ClientMessageId, MessageFrame, Role, Seq, ServerFrame, SessionHandler, SessionId,
};
use hubbub_storage::NODE_LEASE;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::client::{Caller, Credentials, Device, Gone, is_end, message, of};
use crate::server::{Setup, TOKENS, TestServer, quick};

pub const CONNECTIONS: usize = 20;
const CHATS_EACH: usize = 10;

/// Of each session, the seq and text of every acknowledged message.
pub type Acknowledged = HashMap<SessionId, Vec<(Seq, String)>>;

/// Chats in several sessions over one connection until it ends. Every question is unlike every other,
/// so that answers tell what they answer.
pub async fn chat_until_gone(
    address: std::net::SocketAddr,
    key: String,
    bot: BotId,
    ready: std::sync::Arc<tokio::sync::Barrier>,
) -> (Acknowledged, Gone) {
    let mut device = Device::connect_as(address, &Credentials::Bearer(key))
        .await
        .unwrap();
    let mut acknowledged = Acknowledged::new();
    for _ in 0..CHATS_EACH {
        acknowledged.insert(device.open(bot).await.session, Vec::new());
    }
    ready.wait().await;
    let mut open = HashMap::new();
    let mut asked = 0;
    for session in acknowledged.keys() {
        if ask(&mut device, *session, &mut asked, &mut open)
            .await
            .is_err()
        {
            return (acknowledged, Gone::Cut);
        }
    }
    loop {
        let session = match device.next().await {
            Ok(ServerFrame::Ack(ack)) => {
                let text = open.remove(&ack.id).unwrap();
                acknowledged
                    .get_mut(&ack.session)
                    .unwrap()
                    .push((ack.seq, text));
                continue;
            }
            Ok(ServerFrame::Message(message)) if message.role == Role::Assistant => message.session,
            Ok(ServerFrame::Reply(reply)) if is_end(&reply.state) => reply.session,
            // What was asked meanwhile had no answer to wait for.
            Ok(ServerFrame::Handler(frame)) if frame.handler == SessionHandler::Bot => {
                frame.session
            }
            Ok(ServerFrame::Error(refused)) => panic!("{refused:?}"),
            Ok(ServerFrame::Bye(_)) => return (acknowledged, device.end().await),
            Ok(_) => continue,
            Err(gone) => return (acknowledged, gone),
        };
        if ask(&mut device, session, &mut asked, &mut open)
            .await
            .is_err()
        {
            return (acknowledged, Gone::Cut);
        }
    }
}

async fn ask(
    device: &mut Device,
    session: SessionId,
    asked: &mut u32,
    open: &mut HashMap<ClientMessageId, String>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    *asked += 1;
    let (id, text) = (
        ClientMessageId::generate(),
        format!("{session} asks {asked}"),
    );
    device.send(&message(session, id, &text, None)).await?;
    open.insert(id, text);
    Ok(())
}

/// Starts ten chats on each of so many connections and waits until all of them run.
pub async fn start_chats(server: &TestServer, connections: usize) -> JoinSet<(Acknowledged, Gone)> {
    let ready = std::sync::Arc::new(tokio::sync::Barrier::new(connections + 1));
    let mut chats = JoinSet::new();
    for _ in 0..connections {
        let (key, bot) = (server.demo.api_key.clone(), server.demo.bot);
        chats.spawn(chat_until_gone(server.address, key, bot, ready.clone()));
    }
    ready.wait().await;
    chats
}

/// Every acknowledged message is there, in order; every visitor message has exactly one end.
pub async fn assert_kept(server: &TestServer, acknowledged: &Acknowledged) -> (usize, usize) {
    let caller = Caller::new(server);
    let (mut questions, mut failed) = (0, 0);
    for (session, acked) in acknowledged {
        let page = caller.transcript(*session).await;
        for (seq, text) in acked {
            let stored = &page.messages[usize::try_from(seq.0).unwrap() - 1];
            assert_eq!((stored.seq, &stored.text), (*seq, text));
        }
        for question in page
            .messages
            .iter()
            .filter(|message| message.role == Role::Visitor)
        {
            assert_eq!(ends_of(question, &page), 1, "{question:?} of {page:#?}");
            questions += 1;
        }
        failed += page.ended.len();
    }
    (questions, failed)
}

fn ends_of(question: &MessageFrame, page: &MessagePage) -> usize {
    let answer = answer_text(&question.text, TOKENS);
    let answers = page
        .messages
        .iter()
        .filter(|message| message.text == answer);
    answers.count()
        + page
            .ended
            .iter()
            .filter(|ended| ended.to == question.seq)
            .count()
}

/// Waits on a device until a session's last question has its end.
pub async fn wait_for_ends(device: &mut Device, session: SessionId) {
    let joined = device.join(session).await;
    assert!(!joined.more, "too many messages for one page");
    let mut page = MessagePage {
        messages: joined.messages,
        ended: joined.ended,
        more: false,
    };
    let is_open = |page: &MessagePage| {
        let mut asked = page
            .messages
            .iter()
            .filter(|message| message.role == Role::Visitor);
        asked.any(|question| ends_of(question, page) == 0)
    };
    while is_open(&page) {
        match device.next().await.unwrap() {
            ServerFrame::Message(message) if message.session == session => {
                page.messages.push(message);
            }
            ServerFrame::Reply(reply) if reply.session == session && is_end(&reply.state) => {
                let (reply, to, state) = (reply.reply, reply.to, reply.state);
                let text = String::new();
                page.ended.push(hubbub_protocol::EndedReply {
                    reply,
                    to,
                    state,
                    text,
                    text_bytes: None,
                });
            }
            _ => {}
        }
    }
}

// R009, P1
#[tokio::test]
async fn a_server_killed_during_200_chats_keeps_its_word() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let behaviour = Behaviour {
        token_interval_ms: 10,
        ..quick()
    };
    let setup = Setup::default().upstream("sim", behaviour);
    let setup = setup
        .set("limits.messages_per_second", 1_000)
        .set("limits.messages_burst", 1_000);
    let mut server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut device = Device::connect(&server).await;
    let before = device.open(server.demo.bot).await;
    let chats = start_chats(&server, CONNECTIONS).await;
    let moment = StdRng::seed_from_u64(seed).random_range(200..1_500);
    tokio::time::sleep(Duration::from_millis(moment)).await;
    server.kill();
    let killed = Instant::now();
    let mut acknowledged = Acknowledged::new();
    for (chat, _) in chats.join_all().await {
        acknowledged.extend(chat);
    }
    let acked: usize = acknowledged.values().map(Vec::len).sum();
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let server = server.await.unwrap();
    println!(
        "killed after {moment} ms and {acked} acks; back after {:?}",
        killed.elapsed()
    );
    assert_eq!(acknowledged.len(), CONNECTIONS * CHATS_EACH);
    assert!(acked > 0, "nothing was acknowledged before the kill");

    let mut devices = JoinSet::new();
    let sessions: Vec<SessionId> = acknowledged.keys().copied().collect();
    for sessions in sessions.chunks(CHATS_EACH) {
        let (mut device, sessions) = (Device::connect(&server).await, sessions.to_vec());
        devices.spawn(async move {
            // One after the other: an end that came meanwhile is in what `joined` tells.
            for session in sessions {
                wait_for_ends(&mut device, session).await;
            }
        });
    }
    // Sooner than the dead server's lease runs out: the new one knows that it is dead.
    let all = tokio::time::timeout(NODE_LEASE / 2, devices.join_all()).await;
    all.expect("replies without an end long after the restart");
    println!(
        "every reply had its end {:?} after the kill",
        killed.elapsed()
    );
    let (questions, failed) = assert_kept(&server, &acknowledged).await;
    println!("{questions} questions, {failed} of their replies ended without a message");
    assert!(questions >= acked);

    // It goes on, in the same log: who was there before needs nothing again.
    let mut device = Device::connect(&server).await;
    let (after, epoch) = (Some(Seq(0)), Some(before.epoch));
    let join = Join {
        after,
        epoch,
        ..of(before.session)
    };
    assert!(!device.try_join(join).await.unwrap().resync);
    device.ask(before.session, "and now?").await.unwrap();
}
