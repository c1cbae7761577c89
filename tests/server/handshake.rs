//! WebSocket handshakes, byte by byte.

use std::fmt::Write as _;

use hubbub_protocol::ErrorCode;

use crate::auth::connect;
use crate::client::Caller;
use crate::plain::{Answer, exchange};
use crate::server::{TestServer, shared};

const GOOD: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A good handshake with a ticket, with one header given other values, and what follows the head.
async fn with(
    server: &TestServer,
    ticket: &str,
    name: &str,
    values: &[&str],
    rest: &str,
) -> Answer {
    let mut request = String::from("GET /v1/connect HTTP/1.1\r\nHost: x\r\n");
    let kept = GOOD.into_iter().filter(|(header, _)| *header != name);
    let given = values.iter().map(|value| (name, *value));
    for (name, value) in kept.chain(given) {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    let protocols = format!("hubbub.v1, ticket.{ticket}");
    write!(request, "Sec-WebSocket-Protocol: {protocols}\r\n\r\n{rest}").unwrap();
    exchange(server.address, request).await
}

// X12
#[tokio::test]
async fn what_is_no_handshake_to_the_letter_is_refused_and_uses_no_ticket_up() {
    let server = shared().await;
    let (ticket, _) = Caller::with(server, None).visitor(server.demo.bot).await;
    let version = "Sec-WebSocket-Version";
    let key = "Sec-WebSocket-Key";
    for (name, values, rest, expected) in [
        (version, &["8"][..], "", 426),
        (version, &["7"], "", 426),
        (version, &["13, 8"], "", 426),
        (version, &["12"], "", 426),
        (version, &["13", "8"], "", 400),
        (version, &[], "", 400),
        (
            key,
            &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZg=="],
            "",
            400,
        ),
        (key, &["c2hvcnQ="], "", 400),
        (key, &["dGhlIHNhbXBsZSBub25jZSBhbmQgbW9yZQ=="], "", 400),
        (key, &["****************"], "", 400),
        (key, &[], "", 400),
        ("Content-Length", &["5"], "hello", 400),
        (
            "Transfer-Encoding",
            &["chunked"],
            "5\r\nhello\r\n0\r\n\r\n",
            400,
        ),
        ("Connection", &["keep-alive"], "", 400),
        ("Upgrade", &["h2c"], "", 400),
    ] {
        let answer = with(server, &ticket, name, values, rest).await;
        assert_eq!(answer.status, expected, "{name} {values:?}: {answer:?}");
        let told = answer.header("sec-websocket-version");
        assert_eq!(told, (expected == 426).then_some("13"), "{answer:?}");
        if answer.header("content-type") == Some("application/problem+json") {
            let code = ["invalid", "upgrade_required"][usize::from(expected == 426)];
            assert!(
                answer.body.contains(&format!("\"code\":\"{code}\"")),
                "{answer:?}"
            );
        } else {
            // Refused by the library before it is a request of ours.
            assert_eq!(answer.status, 400, "{name}");
        }
    }
    let old = format!(
        "GET /v1/connect HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: hubbub.v1, ticket.{ticket}\r\n\r\n"
    );
    assert_eq!(exchange(server.address, old).await.status, 400);
    // What browsers send, in their spelling; and none of the others used the ticket.
    let browser = with(server, &ticket, "Connection", &["keep-alive, Upgrade"], "").await;
    assert_eq!(browser.status, 101, "{browser:?}");
}

// X12
#[tokio::test]
async fn who_is_nobody_is_told_so_first() {
    let server = shared().await;
    let head = "GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 8\r\n";
    let nobody = exchange(server.address, format!("{head}\r\n")).await;
    assert_eq!(nobody.status, 401, "{nobody:?}");
    let key = &server.demo.api_key;
    let somebody = format!("{head}Authorization: Bearer {key}\r\n\r\n");
    assert_eq!(exchange(server.address, somebody).await.status, 426);
    let plain = Caller::new(server).get("/v1/connect").await;
    assert_eq!(plain.problem().code, ErrorCode::Invalid);
    // Honest clients are unharmed.
    let (ticket, _) = Caller::with(server, None).visitor(server.demo.bot).await;
    connect(server, &ticket).await.assert_works().await;
}
