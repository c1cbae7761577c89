//! Two customers on one server: nothing of the one is there for the other.

use hubbub_protocol::ErrorCode;
use serde_json::{Value, json};

use crate::client::{Caller, Credentials, Device, of};
use crate::server::shared;
pub use crate::tenant::another_tenant;

// P9
#[tokio::test]
async fn another_tenants_things_are_not_found_by_any_door() {
    let server = shared().await;
    let (key, other_bot) = another_tenant(server).await;
    let mut device = Device::connect(server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "private").await.unwrap();

    let bearer = Credentials::Bearer(key.clone());
    let mut other = Device::connect_as(server.address, &bearer).await.unwrap();
    assert_ne!(other.welcome.tenant, server.demo.tenant);
    assert_eq!(
        other.try_join(of(session)).await.unwrap_err().error.code,
        ErrorCode::NotFound
    );
    let foreign = hubbub_protocol::client::Join {
        bot: Some(server.demo.bot),
        ..hubbub_protocol::client::Join::default()
    };
    assert_eq!(
        other.try_join(foreign).await.unwrap_err().error.code,
        ErrorCode::NotFound
    );
    let unjoined = other.say(session, "x").await.unwrap_err();
    assert_eq!(unjoined.error.code, ErrorCode::NotFound);

    let caller = Caller::with(server, Some(&key));
    let bot = server.demo.bot;
    for path in [
        format!("/v1/sessions/{session}"),
        format!("/v1/sessions/{session}/messages"),
        format!("/v1/bots/{bot}"),
    ] {
        assert_eq!(
            caller.get(&path).await.problem().code,
            ErrorCode::NotFound,
            "{path}"
        );
    }
    let rows = [
        (
            "POST",
            format!("/v1/sessions/{session}/messages"),
            json!({"text": "x"}),
        ),
        (
            "POST",
            format!("/v1/sessions/{session}/messages"),
            json!({"text": "x", "stream": true}),
        ),
        ("POST", "/v1/sessions".to_owned(), json!({"bot": bot})),
        ("PATCH", format!("/v1/bots/{bot}"), json!({"name": "mine"})),
    ];
    for (method, path, body) in rows {
        let answer = caller.send(method, &path, &body).await;
        assert_eq!(
            answer.problem().code,
            ErrorCode::NotFound,
            "{method} {path}"
        );
    }
    let sessions: Value = caller.get("/v1/sessions").await.json();
    assert_eq!(sessions["items"], json!([]));
    let bots: Value = caller.get("/v1/bots").await.json();
    let ids: Vec<_> = bots["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bot| &bot["id"])
        .collect();
    assert_eq!(ids, [&json!(other_bot)]);

    // And its own work.
    let own = other.open(other_bot).await.session;
    other.ask(own, "hello").await.unwrap();
    assert_eq!(
        Caller::new(server).transcript(session).await.messages.len(),
        2
    );
}
