//! The main job: chats, streamed, on every device.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::answer_text;
use hubbub_protocol::client::{Join, Leave, Stop, Typing};
use hubbub_protocol::{
    ClientFrame, ClientMessageId, ErrorCode, MessageFrame, Principal, ReplyState, Role, ServerFrame,
};

use crate::client::{Caller, Credentials, DEADLINE, Device, Gone, message, of};
use crate::server::{TOKENS, shared};

// R001, R004
#[tokio::test]
async fn a_question_is_acknowledged_and_its_answer_streams_whole_and_in_order() {
    let server = shared().await;
    let mut device = Device::connect(server).await;
    assert_eq!(device.welcome.tenant, server.demo.tenant);
    assert_eq!(device.welcome.limits.frame_bytes, 200_192);
    let opened = device.open(server.demo.bot).await;
    assert!(opened.messages.is_empty() && opened.replying.is_none() && !opened.more);

    let (session, id) = (opened.session, ClientMessageId::generate());
    let question = "What does a tent cost? 😀";
    device
        .send(&message(session, id, question, Some("q1")))
        .await
        .unwrap();
    let (mut acked, mut asked, mut reply, mut text) = (None, None, None, String::new());
    let answer = loop {
        match device.next().await.unwrap() {
            ServerFrame::Ack(ack) => {
                assert_eq!((ack.reference.as_deref(), ack.id), (Some("q1"), id));
                assert!(!ack.duplicate);
                acked = Some(ack.seq);
            }
            ServerFrame::Message(message) if message.role == Role::Visitor => {
                asked = Some((message.seq, message.id, message.text));
            }
            ServerFrame::Reply(frame) => {
                assert_eq!(Some(frame.to), asked.as_ref().map(|(seq, ..)| *seq));
                reply = Some(frame.reply);
            }
            ServerFrame::Delta(delta) => {
                assert_eq!(Some(delta.reply), reply);
                assert_eq!(delta.offset, text.encode_utf16().count() as u64);
                assert!(!delta.text.is_empty());
                text.push_str(&delta.text);
            }
            ServerFrame::Message(message) => break message,
            ServerFrame::Presence(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let asked = asked.expect("the question was not sent back");
    assert_eq!((asked.0.0, asked.1, asked.2.as_str()), (1, id, question));
    assert_eq!(answer.role, Role::Assistant);
    assert_eq!((answer.seq.0, answer.reply), (2, reply));
    assert_eq!(answer.text, answer_text(question, TOKENS));
    assert_eq!(answer.text, text, "the stream and the message differ");
    assert_eq!(answer.usage.unwrap().output_tokens, u64::from(TOKENS));
    if acked.is_none() {
        acked = Some(
            device
                .until(|frame| match frame {
                    ServerFrame::Ack(ack) => Some(ack.seq),
                    _ => None,
                })
                .await,
        );
    }
    assert_eq!(acked.unwrap().0, 1);

    let stored = Caller::new(server).transcript(session).await;
    let texts: Vec<&str> = stored
        .messages
        .iter()
        .map(|message| message.text.as_str())
        .collect();
    assert_eq!(texts, [question, text.as_str()]);
}

// R003
#[tokio::test]
async fn the_first_word_comes_soon_after_the_upstream_wrote_it() {
    let server = shared().await;
    let mut device = Device::connect(server).await;
    let session = device.open(server.demo.bot).await.session;
    let mut added = Vec::new();
    for n in 0..20 {
        let started = Instant::now();
        device.say(session, &format!("question {n}")).await.unwrap();
        device
            .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
            .await;
        // The upstream takes 10 ms; commit and everything else is the server's.
        added.push(started.elapsed().saturating_sub(Duration::from_millis(10)));
        device.reply_end().await.unwrap();
    }
    added.sort();
    println!(
        "added to the first word: median {:?}, worst {:?}",
        added[10], added[19]
    );
    assert!(added[10] < Duration::from_millis(300), "{added:?}");
}

// R002
#[tokio::test]
async fn a_thousand_messages_in_a_burst_arrive_in_order_one_document_a_frame() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&[]).await;
    let mut reader = Device::connect(server).await;
    let session = reader.open(bot).await.session;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20 {
        let mut device = Device::connect(server).await;
        device.join(session).await;
        writers.spawn(async move {
            let mut open = std::collections::HashMap::new();
            for n in 0..50 {
                let id = ClientMessageId::generate();
                let text = format!("{writer}/{n}");
                let frame = message(session, id, &text, Some(&id.to_string()));
                device.send(&frame).await.unwrap();
                open.insert(id, frame);
            }
            while !open.is_empty() {
                match device.next().await.unwrap() {
                    ServerFrame::Ack(ack) => assert!(open.remove(&ack.id).is_some()),
                    // Told, not dropped: it is sent again under the same id.
                    ServerFrame::Error(refused) => {
                        let code = refused.error.code;
                        assert!(
                            matches!(code, ErrorCode::Overloaded | ErrorCode::RateLimited),
                            "{refused:?}"
                        );
                        let wait = refused.error.retry_after_ms.unwrap().min(200);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        let id = refused.reference.unwrap().parse().unwrap();
                        device.send(&open[&id]).await.unwrap();
                    }
                    _ => {}
                }
            }
            device
        });
    }
    for expected in 1..=1_000 {
        let message = reader.next_message().await;
        assert_eq!(message.seq.0, expected);
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    assert_eq!(
        Caller::new(server).transcript(session).await.messages.len(),
        1_000
    );
}

// R007
#[tokio::test]
async fn three_devices_see_the_same_and_closing_one_leaves_two() {
    let server = shared().await;
    let mut first = Device::connect(server).await;
    let mut second = Device::connect(server).await;
    let mut third = Device::connect(server).await;
    let ids: HashSet<_> = [&first, &second, &third]
        .map(|device| device.welcome.connection)
        .into_iter()
        .collect();
    assert_eq!(ids.len(), 3);
    let session = first.open(server.demo.bot).await.session;
    second.join(session).await;
    third.join(session).await;

    let ask = |text| message(session, ClientMessageId::generate(), text, None);
    first.send(&ask("one")).await.unwrap();
    let of_first = durable_and_streamed(&mut first, 2).await;
    assert_eq!(of_first.1, answer_text("one", TOKENS));
    assert_eq!(durable_and_streamed(&mut second, 2).await, of_first);
    assert_eq!(durable_and_streamed(&mut third, 2).await, of_first);

    third.close().await;
    second.send(&ask("two")).await.unwrap();
    let of_first = durable_and_streamed(&mut first, 4).await;
    assert_eq!(durable_and_streamed(&mut second, 4).await, of_first);
    assert_eq!(of_first.1, answer_text("two", TOKENS));
    second.assert_works().await;
}

/// The durable messages up to a seq, and the text that streamed; both as this device saw them.
async fn durable_and_streamed(device: &mut Device, until: u64) -> (Vec<MessageFrame>, String) {
    let (mut messages, mut text) = (Vec::new(), String::new());
    while messages
        .last()
        .is_none_or(|message: &MessageFrame| message.seq.0 < until)
    {
        match device.next().await.unwrap() {
            ServerFrame::Message(message) => messages.push(message),
            ServerFrame::Delta(delta) => text.push_str(&delta.text),
            _ => {}
        }
    }
    (messages, text)
}

#[tokio::test]
async fn a_stopped_reply_ends_at_once_on_every_device_and_the_next_question_is_answered() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&["steady"]).await;
    let mut device = Device::connect(server).await;
    let mut other = Device::connect(server).await;
    let session = device.open(bot).await.session;
    other.join(session).await;
    device.say(session, "long").await.unwrap();
    device
        .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;
    device
        .send(&ClientFrame::Stop(Stop {
            reference: None,
            session,
        }))
        .await
        .unwrap();
    let stopped = Instant::now();
    assert_eq!(device.reply_end().await, Err(ReplyState::Cancelled));
    assert_eq!(other.reply_end().await, Err(ReplyState::Cancelled));
    assert!(
        stopped.elapsed() < Duration::from_millis(900),
        "{:?}",
        stopped.elapsed()
    );

    let page = Caller::new(server).transcript(session).await;
    assert_eq!((page.messages.len(), page.ended.len()), (1, 1));
    let written = &page.ended[0].text;
    assert!(!written.is_empty() && answer_text("long", 60).starts_with(written.as_str()));
    let answer = device.ask(session, "short").await.unwrap();
    assert_eq!(answer.text, answer_text("short", 60));
}

// P5
#[tokio::test]
async fn a_message_sent_five_times_is_stored_once() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&[]).await;
    let mut device = Device::connect(server).await;
    let mut other = Device::connect(server).await;
    let session = device.open(bot).await.session;
    other.join(session).await;
    let id = ClientMessageId::generate();
    let first = device.say_as(session, id, "once").await.unwrap();
    assert!(!first.duplicate);
    for _ in 0..2 {
        let again = device.say_as(session, id, "once").await.unwrap();
        assert!(again.duplicate);
        assert_eq!((again.seq, again.at), (first.seq, first.at));
    }
    // Also on two sockets at once, for a message that is new to both.
    let id = ClientMessageId::generate();
    let (one, two) = tokio::join!(
        device.say_as(session, id, "twice"),
        other.say_as(session, id, "twice")
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.seq, two.seq);
    assert_ne!(one.duplicate, two.duplicate);

    let conflict = device
        .say_as(session, id, "another text")
        .await
        .unwrap_err();
    assert_eq!(conflict.error.code, ErrorCode::Conflict);
    let page = Caller::new(server).transcript(session).await;
    let texts: Vec<_> = page
        .messages
        .iter()
        .map(|message| message.text.as_str())
        .collect();
    assert_eq!(texts, ["once", "twice"]);
}

#[tokio::test]
async fn typing_is_told_to_others_and_a_device_that_left_hears_no_more() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&[]).await;
    let mut device = Device::connect(server).await;
    let mut other = Device::connect(server).await;
    let session = device.open(bot).await.session;
    other.join(session).await;
    device
        .send(&ClientFrame::Typing(Typing { session, on: true }))
        .await
        .unwrap();
    let typing = other.until(|frame| match frame {
        ServerFrame::Typing(typing) => Some(typing),
        _ => None,
    });
    assert!(typing.await.on);

    let leave = Leave {
        reference: Some("bye".into()),
        session,
    };
    other.send(&ClientFrame::Leave(leave)).await.unwrap();
    other
        .until(|frame| matches!(frame, ServerFrame::Left(_)).then_some(()))
        .await;
    device.say(session, "are you there?").await.unwrap();
    let refused = other.say(session, "no").await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::NotFound);
    // What it hears next is the answer to its own question, not the session's.
    let joined = other
        .try_join(Join {
            limit: Some(1),
            ..of(session)
        })
        .await
        .unwrap();
    assert_eq!((joined.head.0, joined.messages.len()), (1, 1));
}

#[tokio::test]
async fn who_is_there_is_told_also_of_one_who_vanishes_without_a_word() {
    let server = shared().await;
    let (ticket, _) = Caller::with(server, None).visitor(server.demo.bot).await;
    let ticket = Credentials::Ticket(ticket);
    let mut visitor = Device::connect_as(server.address, &ticket).await.unwrap();
    let session = visitor.open(server.demo.bot).await.session;
    let who = visitor.welcome.principal.clone();
    let mut device = Device::connect(server).await;
    device.join(session).await;
    let told = |person: Principal, is_online| {
        move |frame| match frame {
            ServerFrame::Presence(told) => {
                (told.who == person && told.online == is_online).then_some(told.devices)
            }
            _ => None,
        }
    };
    let key = device.welcome.principal.clone();
    assert_eq!(visitor.until(told(key, true)).await, 2);
    // Cut, without a close.
    drop(visitor);
    assert_eq!(device.until(told(who, false)).await, 1);
}

#[tokio::test]
async fn a_device_that_closes_is_answered_with_a_close() {
    let server = shared().await;
    let mut device = Device::connect(server).await;
    let close = tokio_tungstenite::tungstenite::Message::Close(None);
    device.send_raw(close).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, device.end()).await.unwrap();
    assert!(matches!(ended, Gone::Closed(1000) | Gone::Cut), "{ended:?}");
}
