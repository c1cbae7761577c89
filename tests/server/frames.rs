//! Frames that are wrong: told where the connection can go on, closed with the right code where not.

use hubbub_protocol::{ClientMessageId, ErrorCode, ServerFrame, SessionId, limits};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Device, message};
use crate::raw::{Raw, Received, TEXT, header, masked};
use crate::server::{Setup, shared};

async fn raw() -> Raw {
    let server = shared().await;
    let mut raw = Raw::connect(server.address, &server.demo.api_key, None).await;
    let Received::Frame(first) = raw.next().await else {
        panic!("no welcome")
    };
    assert!(matches!(*first, ServerFrame::Welcome(_)));
    raw
}

// P8
#[tokio::test]
async fn a_frame_that_is_not_understood_is_told_and_the_connection_goes_on() {
    let server = shared().await;
    let mut device = Device::connect(server).await;
    let nest = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let session = SessionId::generate();
    let id = ClientMessageId::generate();
    let send =
        |field: &str| format!(r#"{{"type":"send","ref":"r","session":"{session}",{field}}}"#);
    let long = "x".repeat(16_001);
    let rows = [
        (String::new(), ErrorCode::BadFrame),
        ("{".to_owned(), ErrorCode::BadFrame),
        ("[1,2]".to_owned(), ErrorCode::BadFrame),
        ("{}".to_owned(), ErrorCode::BadFrame),
        (
            r#"{"type":"dance","ref":"r"}"#.to_owned(),
            ErrorCode::BadFrame,
        ),
        (r#"{"type":7}"#.to_owned(), ErrorCode::BadFrame),
        (nest.clone(), ErrorCode::BadFrame),
        (send(&format!(r#""metadata":{nest}"#)), ErrorCode::Invalid),
        (send(r#""text":"no id""#), ErrorCode::Invalid),
        (send(&format!(r#""id":"{id}""#)), ErrorCode::Invalid),
        (
            send(&format!(r#""id":"{id}","text":" ""#)),
            ErrorCode::Invalid,
        ),
        (
            send(&format!(r#""id":"{id}","text":"a\u0000b""#)),
            ErrorCode::Invalid,
        ),
        (
            send(&format!(r#""id":"{id}","text":"{long}""#)),
            ErrorCode::TooLarge,
        ),
        (
            r#"{"type":"join","ref":"r"}"#.to_owned(),
            ErrorCode::Invalid,
        ),
        (
            r#"{"type":"join","ref":"r","session":"x"}"#.to_owned(),
            ErrorCode::Invalid,
        ),
        // Out of order: nothing was joined.
        (
            send(&format!(r#""id":"{id}","text":"x""#)),
            ErrorCode::NotFound,
        ),
        (
            format!(r#"{{"type":"stop","ref":"r","session":"{session}"}}"#),
            ErrorCode::NotFound,
        ),
        (
            format!(r#"{{"type":"leave","ref":"r","session":"{session}"}}"#),
            ErrorCode::NotFound,
        ),
    ];
    for (text, expected) in rows {
        let shown: String = text.chars().take(80).collect();
        let has_reference = text.contains(r#""ref":"r""#);
        device.send_raw(Message::text(text)).await.unwrap();
        let ServerFrame::Error(refused) = device.next().await.unwrap() else {
            panic!("{shown}")
        };
        assert_eq!(refused.error.code, expected, "{shown}");
        assert_eq!(refused.reference.is_some(), has_reference, "{shown}");
    }
    device.assert_works().await;
}

#[tokio::test]
async fn a_frame_against_the_websocket_protocol_is_closed_with_its_code() {
    let text = br#"{"type":"dance"}"#;
    let mut unmasked = vec![TEXT, text.len() as u8];
    unmasked.extend(text);
    let rows = [
        ("not UTF-8", masked(TEXT, b"\xff\xfe{}"), 1007),
        ("binary", masked(0x82, text), 1003),
        ("a reserved bit", masked(TEXT | 0x40, text), 1002),
        ("a reserved opcode", masked(0x83, text), 1002),
        ("not masked", unmasked, 1002),
        ("a continuation of nothing", masked(0x80, text), 1002),
        ("a fragmented ping", masked(0x09, b"x"), 1002),
        ("a ping with too much", masked(0x89, &[b'x'; 126]), 1002),
        (
            "too big",
            masked(TEXT, &vec![b'x'; limits::FRAME_BYTES + 1]),
            1009,
        ),
        ("a fragmented binary", masked(0x02, text), 1003),
        (
            "fragments that are not UTF-8",
            [masked(0x01, b"\xff"), masked(0x80, b"{}")].concat(),
            1007,
        ),
        (
            "fragments that are too big together",
            [
                masked(0x01, &vec![b'x'; 120_000]),
                masked(0x80, &vec![b'x'; 120_000]),
            ]
            .concat(),
            1009,
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, expected) in rows {
        let mut raw = raw().await;
        raw.write(&bytes).await;
        let code = match raw.next().await {
            Received::Close(code) => code,
            other => {
                wrong.push(format!("{what}: {other:?}"));
                continue;
            }
        };
        if code != expected {
            wrong.push(format!("{what}: {code}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_text_in_fragments_is_one_frame_also_with_a_ping_in_between() {
    let mut raw = raw().await;
    raw.frame(0x01, br#"{"type":"dance","#).await;
    raw.frame(0x89, b"ping").await;
    raw.frame(0x00, br#""ref":"#).await;
    // Bytes one by one: the frame's header is cut, too.
    for byte in masked(0x80, br#""r"}"#) {
        raw.write(&[byte]).await;
    }
    let Received::Frame(frame) = raw.next().await else {
        panic!("no answer")
    };
    let ServerFrame::Error(refused) = *frame else {
        panic!("{frame:?}")
    };
    assert_eq!(refused.error.code, ErrorCode::BadFrame);
    assert_eq!(refused.reference.as_deref(), Some("r"));
    raw.frame(TEXT, b"{}").await;
    assert!(
        matches!(raw.next().await, Received::Frame(_)),
        "the connection still works"
    );
}

#[tokio::test]
async fn a_frame_of_16_gib_is_refused_when_it_is_announced() {
    let server = tokio::task::spawn_blocking(|| Setup::new().start())
        .await
        .unwrap();
    let token = server.demo.api_key.clone();
    let mut raws = Vec::new();
    for _ in 0..10 {
        raws.push(Raw::connect(server.address, &token, None).await);
    }
    let before = server.rss_kib();
    for raw in &mut raws {
        raw.write(&header(TEXT, 16 << 30)).await;
        // And as much of it as it would take.
        raw.write(&vec![b'x'; 32 * 1024]).await;
    }
    for raw in &mut raws {
        let code = loop {
            match raw.next().await {
                Received::Frame(_) => {}
                Received::Close(code) => break code,
                // A reset, because of the bytes that came after the header.
                Received::End => break 1009,
            }
        };
        assert_eq!(code, 1009);
    }
    let grown = server.rss_kib().saturating_sub(before);
    println!("10 announced frames of 16 GiB: {grown} KiB more");
    assert!(grown < 8 * 1024, "{grown} KiB");

    let mut raw = Raw::connect(server.address, &token, None).await;
    raw.write(&header(TEXT, 16 << 30)).await;
    assert_eq!(raw.close_code().await, 1009);
    Device::connect(&server).await.assert_works().await;
}

#[tokio::test]
async fn a_message_of_the_longest_text_and_the_largest_frame_are_taken() {
    let server = shared().await;
    let bot = crate::client::Caller::new(server).bot(&[]).await;
    let mut device = Device::connect(server).await;
    let session = device.open(bot).await.session;
    let text = "界".repeat(16_000);
    device.say(session, &text).await.unwrap();
    let frame = serde_json::to_string(&message(session, ClientMessageId::generate(), "x", None));
    let mut frame = frame.unwrap();
    let padding = limits::FRAME_BYTES - frame.len();
    frame.push_str(&" ".repeat(padding));
    device.send_raw(Message::text(frame)).await.unwrap();
    device
        .until(|frame| matches!(frame, ServerFrame::Ack(_)).then_some(()))
        .await;
    let stored = crate::client::Caller::new(server).transcript(session).await;
    assert_eq!(stored.messages[0].text, text);
}
