//! Who has not joined a session says nothing in it, and a connection joins only so many.

use hubbub_protocol::{ErrorCode, ServerFrame, SessionId};

use crate::client::{Caller, Credentials, Device};
use crate::raw::{Raw, Received, TEXT, masked};
use crate::server::{TestServer, shared};

/// A new visitor of the demo's bot: token and device.
async fn visitor(server: &TestServer) -> (String, Device) {
    let (_, token) = Caller::new(server).visitor(server.demo.bot).await;
    let credentials = Credentials::Bearer(token.clone());
    let device = Device::connect_as(server.address, &credentials)
        .await
        .unwrap();
    (token, device)
}

fn frames(texts: &[String]) -> Vec<u8> {
    let frames = texts.iter().map(|text| masked(TEXT, text.as_bytes()));
    frames.collect::<Vec<_>>().concat()
}

async fn connect(server: &TestServer, token: &str) -> Raw {
    let mut raw = Raw::connect(server.address, token, None).await;
    assert!(
        matches!(raw.next().await, Received::Frame(f) if matches!(*f, ServerFrame::Welcome(_)))
    );
    raw
}

async fn next(raw: &mut Raw) -> ServerFrame {
    match raw.next().await {
        Received::Frame(frame) => *frame,
        other => panic!("{other:?}"),
    }
}

// X13
#[tokio::test]
async fn a_stranger_says_nothing_in_a_session_that_it_may_not_join() {
    let server = shared().await;
    let (_, mut victim) = visitor(server).await;
    let session = victim.open(server.demo.bot).await.session;
    let (token, _) = visitor(server).await;
    let mut stranger = connect(server, &token).await;
    let verbs = [
        format!(r#"{{"type":"join","ref":"join","session":"{session}","after":0}}"#),
        format!(r#"{{"type":"typing","session":"{session}","on":true}}"#),
        format!(r#"{{"type":"read","session":"{session}","seq":999999}}"#),
        format!(
            r#"{{"type":"send","ref":"send","session":"{session}","id":"{}","text":"x"}}"#,
            SessionId::generate()
        ),
        format!(r#"{{"type":"stop","ref":"stop","session":"{session}"}}"#),
    ];
    for _ in 0..2 {
        stranger.write(&frames(&verbs)).await;
        for _ in &verbs {
            let ServerFrame::Error(refused) = next(&mut stranger).await else {
                panic!("not refused")
            };
            assert_eq!(refused.error.code, ErrorCode::NotFound, "{refused:?}");
            assert_eq!(refused.session, Some(session));
        }
    }
    // Whatever it had been told would have come before the end of its own question.
    victim.say(session, "anybody there?").await.unwrap();
    let mut seen = Vec::new();
    victim
        .until(|frame| {
            seen.push(frame.kind());
            matches!(frame, ServerFrame::Message(m) if m.reply.is_some()).then_some(())
        })
        .await;
    assert!(
        !seen.contains(&"typing") && !seen.contains(&"read"),
        "{seen:?}"
    );
    let messages = Caller::new(server).transcript(session).await.messages;
    assert_eq!(messages.len(), 2);
}

// X13
#[tokio::test]
async fn what_is_sent_right_behind_a_join_counts_if_the_join_does() {
    let server = shared().await;
    let (token, mut other) = visitor(server).await;
    let session = other.open(server.demo.bot).await.session;
    let mut device = connect(server, &token).await;
    let id = SessionId::generate();
    let verbs = [
        format!(r#"{{"type":"join","ref":"join","session":"{session}"}}"#),
        format!(r#"{{"type":"typing","session":"{session}","on":true}}"#),
        format!(r#"{{"type":"read","session":"{session}","seq":999999}}"#),
        format!(r#"{{"type":"send","ref":"s","session":"{session}","id":"{id}","text":"x"}}"#),
    ];
    device.write(&frames(&verbs)).await;
    loop {
        match next(&mut device).await {
            ServerFrame::Error(refused) => panic!("{refused:?}"),
            ServerFrame::Ack(ack) => break assert_eq!(ack.id.to_string(), id.to_string()),
            _ => {}
        }
    }
    let (mut typed, mut read) = (false, None);
    other
        .until(|frame| {
            match frame {
                ServerFrame::Typing(typing) => typed = typing.on,
                ServerFrame::Read(seen) => read = Some(seen.seq.0),
                ServerFrame::Message(_) => return Some(()),
                _ => {}
            }
            None
        })
        .await;
    assert!(typed);
    // Nothing was written yet.
    assert_eq!(read, Some(0));
}

// X15
#[tokio::test]
async fn of_forty_sessions_opened_at_once_a_connection_joins_its_limit() {
    let server = shared().await;
    let mut device = connect(server, &server.demo.api_key).await;
    let bot = Caller::new(server).bot(&[]).await;
    let joins: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"type":"join","ref":"{n}","bot":"{bot}"}}"#))
        .collect();
    device.write(&frames(&joins)).await;
    let (mut joined, mut refused) = (Vec::new(), 0);
    while joined.len() + refused < joins.len() {
        match next(&mut device).await {
            ServerFrame::Joined(frame) => joined.push(frame.session),
            ServerFrame::Error(error) => {
                assert_eq!(error.error.code, ErrorCode::Forbidden);
                refused += 1;
            }
            _ => {}
        }
    }
    assert_eq!((joined.len(), refused), (32, 8));
    // Nor were more opened.
    let listed = Caller::new(server)
        .get(&format!("/v1/sessions?bot={bot}&limit=200"))
        .await;
    let listed: serde_json::Value = listed.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 32);
    // Whoever leaves makes room, for as many as left.
    let again = [
        format!(r#"{{"type":"leave","ref":"l","session":"{}"}}"#, joined[0]),
        format!(r#"{{"type":"join","ref":"a","bot":"{bot}"}}"#),
        format!(r#"{{"type":"join","ref":"b","bot":"{bot}"}}"#),
    ];
    device.write(&frames(&again)).await;
    let (mut left, mut joined, mut refused) = (0, 0, 0);
    while left + joined + refused < 3 {
        match next(&mut device).await {
            ServerFrame::Left(_) => left += 1,
            ServerFrame::Joined(_) => joined += 1,
            ServerFrame::Error(_) => refused += 1,
            _ => {}
        }
    }
    assert_eq!((left, joined, refused), (1, 1, 1));
}
