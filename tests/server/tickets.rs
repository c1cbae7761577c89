//! What a ticket opens: the bot of the page it was issued to, and nothing else.

use hubbub_protocol::client::Join;
use hubbub_protocol::{BotId, ErrorCode};
use serde_json::{Value, json};

use crate::client::{Caller, Credentials, Device, of};
use crate::server::{TestServer, shared};

/// A device with a ticket of a bot's widget, for the visitor of a token.
async fn connect(server: &TestServer, bot: BotId, token: Option<&str>) -> (Device, String) {
    let path = format!("/v1/widget/{bot}/tickets");
    let body = token.map_or(json!({}), |token| json!({ "visitor_token": token }));
    let minted = Caller::with(server, None).post(&path, &body).await;
    assert_eq!(minted.status, 201, "{minted:?}");
    let minted: Value = minted.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    let device = Device::connect_as(server.address, &ticket).await.unwrap();
    let token = minted["visitor"]["token"].as_str().unwrap().to_owned();
    (device, token)
}

fn new_of(bot: BotId) -> Join {
    Join {
        bot: Some(bot),
        ..Join::default()
    }
}

// R034
#[tokio::test]
async fn a_ticket_of_one_bots_widget_opens_and_joins_sessions_of_no_other() {
    let server = shared().await;
    let (bot, other) = (server.demo.bot, Caller::new(server).bot(&["sim"]).await);
    let (mut device, token) = connect(server, bot, None).await;
    let session = device.open(bot).await.session;
    for wrong in [other, BotId::generate()] {
        let refused = device.try_join(new_of(wrong)).await.unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::Forbidden);
    }

    // The same person, on the page of the other bot.
    let (mut elsewhere, again) = connect(server, other, Some(&token)).await;
    assert_eq!(again, token);
    let refused = elsewhere.try_join(of(session)).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::NotFound);
    elsewhere.open(other).await;
    // Neither was harmed by the asking.
    device.ask(session, "still mine?").await.unwrap();
}

#[tokio::test]
async fn a_ticket_of_a_key_is_bound_to_no_bot() {
    let server = shared().await;
    let caller = Caller::new(server);
    let other = caller.bot(&["sim"]).await;
    let body = json!({"user": {"id": "u-any-bot"}});
    let minted: Value = caller.post("/v1/tickets", &body).await.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    let mut device = Device::connect_as(server.address, &ticket).await.unwrap();
    device.open(server.demo.bot).await;
    device.open(other).await;
}
