//! Behind a proxy that offers the server below a path.

use hubbub_protocol::ErrorCode;
use serde_json::Value;

use crate::client::{Caller, Credentials, Device};
use crate::server::{Setup, TestServer};

async fn start() -> TestServer {
    let setup = Setup::new().set("server.public_url", "\"https://shop.example/chat/\"");
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

// H10: the proxy may take the path off or leave it on.
#[tokio::test]
async fn every_route_is_there_with_the_path_and_without() {
    let server = start().await;
    let caller = Caller::new(&server);
    assert_eq!(server.demo.url, "https://shop.example/chat");
    let bot = server.demo.bot;
    for path in [
        "/livez",
        "/readyz",
        "/version",
        "/v1/bots?limit=1",
        "/widget.js",
        "/",
    ] {
        let (with, without) = (
            caller.get(&format!("/chat{path}")).await,
            caller.get(path).await,
        );
        assert_eq!(with.status, without.status, "{path}");
        assert_eq!(with.text.len(), without.text.len(), "{path}");
    }
    assert_eq!(caller.get("/chatter/livez").await.status, 404);
    // A page of the public origin gets a ticket, and connects with it.
    let tickets = format!("/chat/v1/widget/{bot}/tickets");
    let request = caller
        .request("POST", &tickets)
        .header("origin", "https://shop.example")
        .json(&serde_json::json!({}));
    let minted = Caller::try_send(request).await.unwrap();
    assert_eq!(minted.status, 201, "{minted:?}");
    let stranger = caller
        .request("POST", &tickets)
        .header("origin", "https://shop.example.evil")
        .json(&serde_json::json!({}));
    let refused = Caller::try_send(stranger).await.unwrap();
    assert_eq!(refused.problem().code, ErrorCode::Forbidden);
    let frame = caller.get(&format!("/chat/widget/{bot}")).await;
    if frame.status == 200 {
        // What the frame needs is asked for below the path, too.
        assert!(!frame.text.contains("\"/widget/"), "{}", frame.text);
        assert!(frame.text.contains("\"/chat/widget/"), "{}", frame.text);
    }
    let key = Credentials::Bearer(server.demo.api_key.clone());
    let connected = Device::connect_below(server.address, "/chat", &key).await;
    connected.unwrap().assert_works().await;
    let metrics = caller.get("/chat/metrics").await.text;
    assert!(
        metrics.contains("route=\"/livez\",status=\"2xx\""),
        "{metrics}"
    );
    assert!(!metrics.contains("route=\"/chat"), "{metrics}");
    let _ready: Value = caller.get("/chat/readyz").await.json();
}
