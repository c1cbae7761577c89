//! What is accepted is read back as it was sent, to the byte, by everybody and at every door; what could
//! not be is refused, and nothing of it is stored.

#[path = "as_sent/json_text.rs"]
mod json_text;

use std::collections::HashMap;

use hubbub_protocol::{
    ClientFrame, ClientMessageId, ErrorCode, MessageFrame, Metadata, ServerFrame, SessionId, limits,
};
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Caller, Device, Response, message, of};
use crate::server::{Setup, TestServer, shared};
use json_text::{json_object, spelled};

/// A message as a client spells it.
#[derive(Clone, Debug)]
struct Sent {
    id: ClientMessageId,
    /// JSON, with its quotes.
    text: String,
    metadata: Option<String>,
}

impl Sent {
    fn new(text: &str, metadata: Option<&str>) -> Self {
        Self {
            id: ClientMessageId::generate(),
            text: text.to_owned(),
            metadata: metadata.map(str::to_owned),
        }
    }

    fn fields(&self) -> String {
        let metadata = self.metadata.as_ref();
        let metadata = metadata.map_or(String::new(), |m| format!(r#","metadata":{m}"#));
        format!(r#""id":"{}","text":{}{metadata}"#, self.id, self.text)
    }

    /// Whether the server should store it.
    fn is_fine(&self) -> bool {
        let text = serde_json::from_str::<String>(&self.text);
        let is_text = text.is_ok_and(|text| !text.trim().is_empty() && !text.contains('\0'));
        let metadata = self.metadata.as_deref().map(Metadata::from_json);
        is_text && metadata.is_none_or(|m| m.is_ok_and(|m| m.violation().is_none()))
    }
}

/// Says it over the WebSocket.
async fn send(device: &mut Device, session: SessionId, sent: &Sent) -> Result<(), ErrorCode> {
    let fields = sent.fields();
    let frame = format!(r#"{{"type":"send","ref":"r","session":"{session}",{fields}}}"#);
    device.send_raw(Message::text(frame)).await.unwrap();
    device
        .until(|frame| match frame {
            ServerFrame::Ack(ack) => {
                assert_eq!(ack.id.to_string(), sent.id.to_string());
                Some(Ok(()))
            }
            ServerFrame::Error(refused) => {
                assert_eq!(refused.reference.as_deref(), Some("r"), "{sent:?}");
                Some(Err(refused.error.code))
            }
            _ => None,
        })
        .await
}

/// Posts it over HTTP.
async fn post(caller: &Caller, session: SessionId, sent: &Sent) -> Response {
    let request = caller
        .request("POST", &format!("/v1/sessions/{session}/messages"))
        .header("content-type", "application/json")
        .body(format!("{{{}}}", sent.fields()));
    Caller::try_send(request).await.unwrap()
}

/// Says each by one of the doors in turn, and looks for all of them from everywhere.
async fn everywhere(server: &TestServer, messages: Vec<Sent>) {
    let caller = Caller::new(server);
    let mut sender = Device::connect(server).await;
    let session = sender.open(caller.bot(&[]).await).await.session;
    let mut other = Device::connect(server).await;
    other.join(session).await;
    let (mut stored, mut live) = (Vec::new(), Vec::new());
    for (n, sent) in messages.into_iter().enumerate() {
        let taken = if n % 2 == 0 {
            send(&mut sender, session, &sent).await
        } else {
            let response = post(&caller, session, &sent).await;
            match response.status {
                201 => Ok(()),
                _ => Err(response.problem().code),
            }
        };
        assert_eq!(taken.is_ok(), sent.is_fine(), "{taken:?}: {sent:?}");
        if let Err(code) = taken {
            let is_clear = matches!(code, ErrorCode::Invalid | ErrorCode::TooLarge);
            assert!(is_clear, "{code}: {sent:?}");
        } else {
            stored.push(sent);
            live.push(other.next_message().await);
        }
    }
    // By another device as it came, by page, and by joining in steps.
    same(&stored, &live);
    same(&stored, &caller.transcript(session).await.messages);
    let mut joined = Vec::new();
    while joined.len() < stored.len() {
        let after = joined
            .last()
            .map_or(0, |message: &MessageFrame| message.seq.0);
        let join = hubbub_protocol::client::Join {
            after: Some(hubbub_protocol::Seq(after)),
            limit: Some(200),
            ..of(session)
        };
        joined.extend(sender.try_join(join).await.unwrap().messages);
    }
    same(&stored, &joined);
}

fn same(sent: &[Sent], read: &[MessageFrame]) {
    assert_eq!(sent.len(), read.len());
    for (sent, read) in sent.iter().zip(read) {
        assert_eq!(read.id.to_string(), sent.id.to_string());
        let text: String = serde_json::from_str(&sent.text).unwrap();
        assert_eq!(read.text, text);
        let metadata = read.metadata.as_ref().map(Metadata::as_str);
        assert_eq!(metadata, sent.metadata.as_deref());
    }
}

// S1
#[tokio::test]
async fn nasty_values_are_read_back_or_refused() {
    let nested = |depth| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let metadata = [
        r#"{"x":1.7976931348623157e308}"#.to_owned(),
        r#"{"x":24.066300012702502}"#.to_owned(),
        r#"{"x":[-0.0,0.1e1,1E5,1.0,1e-400,12345678901234567890123]}"#.to_owned(),
        r#"{"x":1e400}"#.to_owned(),
        r#"{"b":1,"a":2,"b":3}"#.to_owned(),
        "{ \"x\" :\n\t[ 1 , 2 ]\r\n}".to_owned(),
        r#"{"\u0065\u0301":"\u00e9\/\\\ud83d\ude00é"}"#.to_owned(),
        r#"{"x":"\ud83d"}"#.to_owned(),
        r#"{"x\u0000":"a"}"#.to_owned(),
        r#"{"x":"\u0000"}"#.to_owned(),
        nested(99),
        nested(100),
        nested(1_500),
        "[1]".to_owned(),
        "null".to_owned(),
        format!(r#"{{"x":"{}"}}"#, "x".repeat(4_088)),
        format!(r#"{{"x":"{}"}}"#, "x".repeat(4_089)),
        format!(r#"{{"x":"{}"}}"#, "\\u00e9".repeat(682)),
    ];
    let texts = [
        r#""  leading and trailing \n""#,
        r#""a\u0001\u001b\u007f\ufffe\u202e""#,
        r#""a\u0000b""#,
        r#""\ud83d""#,
        r#"" \u00a0 ""#,
    ];
    let with = metadata.iter().map(|m| Sent::new("\"x\"", Some(m)));
    let plain = texts.iter().map(|text| Sent::new(text, None));
    // `null` is none.
    let all: Vec<Sent> = with
        .chain(plain)
        .map(|sent| Sent {
            metadata: sent.metadata.filter(|m| m != "null"),
            ..sent
        })
        .collect();
    // Once by each door.
    let again: Vec<Sent> = all
        .iter()
        .rev()
        .map(|sent| Sent {
            id: ClientMessageId::generate(),
            ..sent.clone()
        })
        .collect();
    everywhere(shared().await, [all, again].concat()).await;
}

// S1
#[tokio::test]
async fn whatever_json_is_sent_is_read_back_or_refused() {
    let mut runner = TestRunner::default();
    let strategy = (spelled(), proptest::option::of(json_object()));
    let messages = (0..200).map(|_| {
        let (text, metadata) = strategy.new_tree(&mut runner).unwrap().current();
        Sent::new(&text, metadata.as_deref())
    });
    everywhere(shared().await, messages.collect()).await;
}

// X5
#[tokio::test]
async fn an_anonymous_visitor_cannot_spoil_a_session_with_a_number() {
    let server = shared().await;
    let caller = Caller::new(server);
    let (_, token) = caller.visitor(server.demo.bot).await;
    let visitor = crate::client::Credentials::Bearer(token);
    let mut device = Device::connect_as(server.address, &visitor).await.unwrap();
    let session = device.open(server.demo.bot).await.session;
    let sent = Sent::new("\"hi\"", Some(r#"{"x":1.7976931348623157e308}"#));
    send(&mut device, session, &sent).await.unwrap();
    assert!(!device.reply_end().await.unwrap().text.is_empty());
    assert_eq!(device.join(session).await.messages.len(), 2);
    let page = caller
        .get(&format!("/v1/sessions/{session}/messages"))
        .await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains(r#"{"x":1.7976931348623157e308}"#));
}

// S1
#[tokio::test]
async fn a_row_that_cannot_be_read_hides_no_other() {
    let server = tokio::task::spawn_blocking(|| Setup::new().start())
        .await
        .unwrap();
    let caller = Caller::new(&server);
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "one").await.unwrap();
    let database = server.database().await;
    // A value that another version of the program may have written.
    let spoil = "ALTER TABLE messages DROP CONSTRAINT messages_role_check; \
        UPDATE messages SET role = 9 WHERE session_id = ";
    database
        .batch_execute(&format!("{spoil}'{session}' AND seq = 1"))
        .await
        .unwrap();
    let page = caller.transcript(session).await.messages;
    assert_eq!(
        (page.len(), page[0].role),
        (2, hubbub_protocol::Role::System)
    );
    assert_eq!(device.join(session).await.messages, page);
    device.ask(session, "two").await.unwrap();
}

// S3
#[tokio::test]
async fn the_longest_text_is_taken_however_it_is_spelled() {
    let server = shared().await;
    let metadata = format!(r#"{{"x":"{}"}}"#, "x".repeat(4_088));
    let spellings = [
        "\\u0436",
        "\\ud83d\\ude00",
        "ж",
        "😀",
        "\\n",
        "\\u0001",
        "x",
    ];
    let longest = |letter: &str| {
        // Not blank, so that it is a text.
        format!("\"x{}\"", letter.repeat(limits::TEXT_CHARS - 1))
    };
    let messages = spellings.iter().flat_map(|letter| {
        let text = longest(letter);
        [
            Sent::new(&text, None),
            Sent::new(&text, None),
            Sent::new(&text, Some(&metadata)),
        ]
    });
    everywhere(server, messages.collect()).await;

    let caller = Caller::new(server);
    let mut device = Device::connect(server).await;
    assert_eq!(device.welcome.limits.frame_bytes, limits::FRAME_BYTES);
    let session = device.open(caller.bot(&[]).await).await.session;
    for letter in spellings {
        let text = format!("\"x{}\"", letter.repeat(limits::TEXT_CHARS));
        let sent = Sent::new(&text, None);
        assert_eq!(
            send(&mut device, session, &sent).await,
            Err(ErrorCode::TooLarge)
        );
        let refused = post(&caller, session, &sent).await;
        assert_eq!(refused.problem().code, ErrorCode::TooLarge);
    }
    assert!(caller.transcript(session).await.messages.is_empty());
}

// S5
#[tokio::test]
async fn an_id_comes_back_as_its_writer_spelled_it() {
    let server = shared().await;
    let caller = Caller::new(server);
    let mut sender = Device::connect(server).await;
    let session = sender.open(caller.bot(&[]).await).await.session;
    let mut other = Device::connect(server).await;
    other.join(session).await;
    let mut expected: HashMap<u64, String> = HashMap::new();
    for (n, by_http) in [false, true].into_iter().cycle().take(10).enumerate() {
        let id = ClientMessageId::generate().uuid();
        let spellings = [
            id.to_string(),
            id.to_string().to_uppercase(),
            id.simple().to_string().to_uppercase(),
            format!("{{{}}}", id.to_string().to_uppercase()),
            format!("urn:uuid:{id}"),
        ];
        let first = spellings[n / 2].clone();
        // The first is stored; the others are repeats of it, each answered in its own spelling.
        for (repeat, spelling) in [&first].into_iter().chain(&spellings).enumerate() {
            let (seq, duplicate, echo) = if by_http {
                let path = format!("/v1/sessions/{session}/messages");
                let body = json!({"id": spelling, "text": "x"});
                let posted: serde_json::Value = caller.post(&path, &body).await.json();
                let echo = posted["id"].as_str().unwrap().to_owned();
                (
                    posted["seq"].as_u64().unwrap(),
                    posted["duplicate"].as_bool().unwrap(),
                    echo,
                )
            } else {
                let id: ClientMessageId = spelling.parse().unwrap();
                let ack = sender.say_as(session, id, "x").await.unwrap();
                (ack.seq.0, ack.duplicate, ack.id.to_string())
            };
            assert_eq!(&echo, spelling);
            assert_eq!(duplicate, repeat > 0, "{spelling}");
            let known = expected.entry(seq).or_insert_with(|| first.clone());
            assert_eq!(*known, first);
        }
        let told = other.next_message().await;
        assert_eq!(told.id.to_string(), first);
    }
    assert_eq!(expected.len(), 10);
    let read = |messages: Vec<MessageFrame>| -> HashMap<u64, String> {
        let ids = messages.iter().map(|m| (m.seq.0, m.id.to_string()));
        ids.collect()
    };
    assert_eq!(read(caller.transcript(session).await.messages), expected);
    assert_eq!(read(other.join(session).await.messages), expected);
}

// S5
#[tokio::test]
async fn ids_of_the_server_are_understood_in_either_case_and_written_in_lower_case() {
    let server = shared().await;
    let caller = Caller::new(server);
    let bot = caller.bot(&[]).await;
    let mut device = Device::connect(server).await;
    let upper = |id: String| id.to_uppercase();
    let join = format!(
        r#"{{"type":"join","ref":"r","bot":"{}"}}"#,
        upper(bot.to_string())
    );
    device.send_raw(Message::text(join)).await.unwrap();
    let opened = device.until(|frame| match frame {
        ServerFrame::Joined(joined) => Some(*joined),
        _ => None,
    });
    let session = opened.await.session;
    let id = upper(session.to_string());
    let ClientFrame::Send(said) = message(session, ClientMessageId::generate(), "x", None) else {
        panic!("not a send")
    };
    let frame = format!(
        r#"{{"type":"send","session":"{id}","id":"{}","text":"x"}}"#,
        said.id
    );
    device.send_raw(Message::text(frame)).await.unwrap();
    let ack = device.until(|frame| match frame {
        ServerFrame::Ack(ack) => Some(ack),
        _ => None,
    });
    assert_eq!(ack.await.session, session);
    let page = caller.get(&format!("/v1/sessions/{id}/messages")).await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains(&id) && page.text.contains(&session.to_string()));
}
