//! Bounds: everything has one, and who meets it is told.

use std::time::Duration;

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::{ClientMessageId, ErrorCode, ServerFrame};
use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::client::{Caller, Device, Gone, message};
use crate::server::{Setup, TestServer, quick};

async fn start(setup: Setup) -> TestServer {
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

async fn connect(server: &TestServer) -> Result<Device, u16> {
    let key = crate::client::Credentials::Bearer(server.demo.api_key.clone());
    Device::connect_as(server.address, &key)
        .await
        .map_err(|error| match error {
            tungstenite::Error::Http(response) => response.status().as_u16(),
            other => panic!("{other}"),
        })
}

// R013, R016
#[tokio::test]
async fn connections_sessions_and_frames_over_their_limits_are_refused_by_name() {
    let setup = Setup::new()
        .set("limits.connections_per_tenant", 3)
        .set("limits.sessions", 4)
        .set("limits.sessions_per_connection", 2)
        .set("limits.devices_per_session", 2)
        .set("limits.messages_per_second", 20)
        .set("limits.messages_burst", 10)
        .set("session.idle_timeout_ms", 300);
    let server = start(setup).await;
    let caller = Caller::new(&server);

    // R016: connections of a tenant; one that closes makes room.
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(connect(&server).await.unwrap());
    }
    let mut request = caller.request("GET", "/v1/connect");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "hubbub.v1"),
    ] {
        request = request.header(name, value);
    }
    let refused = Caller::try_send(request).await.unwrap();
    let problem = refused.problem();
    assert_eq!(problem.code, ErrorCode::RateLimited);
    assert!(problem.retry_after_ms.is_some() && refused.headers.contains_key("retry-after"));
    // Another tenant is none the worse for it.
    let (key, _) = crate::tenants::another_tenant(&server).await;
    let key = crate::client::Credentials::Bearer(key);
    let neighbour = Device::connect_as(server.address, &key).await.unwrap();
    neighbour.close().await;
    devices.pop().unwrap().close().await;
    let mut third = loop {
        match connect(&server).await {
            Ok(device) => break device,
            Err(status) => assert_eq!(status, 429),
        }
    };

    // Sessions of a connection, devices of a session.
    let [first, second] = devices.as_mut_slice() else {
        panic!()
    };
    let bot = server.demo.bot;
    let session = first.open(bot).await.session;
    first.open(bot).await;
    let join = || hubbub_protocol::client::Join {
        bot: Some(bot),
        ..Default::default()
    };
    let refused = first.try_join(join()).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::Forbidden);
    second.join(session).await;
    let refused = third
        .try_join(crate::client::of(session))
        .await
        .unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::RateLimited);

    // R013: live sessions, by every door.
    second.open(bot).await;
    let last = third.open(bot).await.session;
    let refused = third.try_join(join()).await.unwrap_err();
    assert!(
        matches!(
            refused.error.code,
            ErrorCode::Overloaded | ErrorCode::RateLimited
        ),
        "{refused:?}"
    );
    assert!(refused.error.retry_after_ms.is_some());
    assert_eq!(
        first.ask(session, "still served?").await.unwrap().session,
        session
    );

    // Frames of a connection: refused within the rate, told when to come back, and served then.
    let mut refusals = Vec::new();
    for _ in 0..30 {
        let id = ClientMessageId::generate();
        third
            .send(&message(last, id, "flood", Some("f")))
            .await
            .unwrap();
    }
    for _ in 0..30 {
        let answer = third.until(|frame| match frame {
            ServerFrame::Ack(_) => Some(None),
            ServerFrame::Error(error) => Some(Some(error.error)),
            _ => None,
        });
        refusals.extend(answer.await);
    }
    assert!(
        refusals
            .iter()
            .any(|error| error.code == ErrorCode::RateLimited),
        "{refusals:?}"
    );
    let wait = refusals
        .iter()
        .filter_map(|error| error.retry_after_ms)
        .max()
        .unwrap();
    assert!(
        refusals.iter().all(|error| error.retry_after_ms.is_some()),
        "{refusals:?}"
    );
    tokio::time::sleep(Duration::from_millis(wait.min(2_000))).await;
    third.try_join(crate::client::of(last)).await.unwrap();

    // Nonsense over the rate is not even answered.
    let mut rude = third;
    for _ in 0..100 {
        if rude
            .send_raw(tungstenite::Message::text("{"))
            .await
            .is_err()
        {
            break;
        }
    }
    assert!(matches!(rude.end().await, Gone::Closed(1008) | Gone::Cut));
}

// R013
#[tokio::test]
async fn a_session_takes_only_so_many_questions_ahead_and_idle_sessions_make_room() {
    let setup = Setup::default()
        .upstream(
            "sim",
            Behaviour {
                ttft_ms: 300,
                ..quick()
            },
        )
        .set("limits.pending_replies_per_session", 2)
        .set("limits.sessions", 2)
        .set("session.idle_timeout_ms", 200);
    let server = start(setup).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.say(session, "one").await.unwrap();
    device.say(session, "two").await.unwrap();
    let id = ClientMessageId::generate();
    let refused = device.say_as(session, id, "three").await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::RateLimited);
    assert!(refused.error.retry_after_ms.is_some());
    device.reply_end().await.unwrap();
    device.reply_end().await.unwrap();
    // What was refused was not stored: the same id is taken now.
    let ack = device.say_as(session, id, "three").await.unwrap();
    assert_eq!((ack.seq.0, ack.duplicate), (5, false));
    device.reply_end().await.unwrap();
    device.close().await;

    // Ten more than the limit, one after the other: each leaves memory and makes room.
    let caller = Caller::new(&server);
    let mut refusals = 0;
    for n in 0..12 {
        let opened = caller
            .post("/v1/sessions", &json!({"bot": server.demo.bot}))
            .await;
        assert_eq!(opened.status, 201, "{opened:?}");
        let opened: serde_json::Value = opened.json();
        let path = format!("/v1/sessions/{}/messages", opened["id"].as_str().unwrap());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let posted = caller.post(&path, &json!({"text": format!("{n}")})).await;
            if posted.status == 201 {
                break;
            }
            refusals += 1;
            assert_eq!(posted.problem().code, ErrorCode::Overloaded);
            assert!(std::time::Instant::now() < deadline, "no session made room");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("{refusals} refusals until idle sessions had left");
    assert!(refusals > 0, "the limit was never met");
}
