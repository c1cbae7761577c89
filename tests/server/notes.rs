//! Notes between operators, which no visitor sees.

use hubbub_protocol::note::Note;
use hubbub_protocol::{ClientFrame, ClientMessageId, ErrorCode, NoteFrame, ServerFrame, SessionId};
use serde_json::{Value, json};

use crate::client::{Caller, Credentials, Device, message};
use crate::server::shared;
use crate::takeover::operator;

fn note(session: SessionId, id: ClientMessageId, text: &str) -> ClientFrame {
    ClientFrame::Note(Note {
        reference: Some("n".into()),
        session,
        id,
        text: text.into(),
    })
}

async fn answer(device: &mut Device) -> ServerFrame {
    device
        .until(|frame| match frame {
            ServerFrame::Ack(_) | ServerFrame::Error(_) => Some(frame),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_note_is_durable_and_operators_alone_are_told() {
    let server = shared().await;
    let caller = Caller::new(server);
    let bot = caller.bot(&[]).await;
    let (ticket, token) = caller.visitor(bot).await;
    let mut visitor = Device::connect_as(server.address, &Credentials::Ticket(ticket))
        .await
        .unwrap();
    let session = visitor.open(bot).await.session;
    visitor.say(session, "hello").await.unwrap();
    let mut olga = operator(server, "olga", "agent").await;
    let mut vera = operator(server, "vera", "viewer").await;
    for device in [&mut olga, &mut vera] {
        device.join(session).await;
    }
    let id = ClientMessageId::generate();
    for duplicate in [false, true] {
        olga.send(&note(session, id, "He wrote in May."))
            .await
            .unwrap();
        let ServerFrame::Ack(ack) = answer(&mut olga).await else {
            panic!("no ack")
        };
        assert_eq!((ack.id, ack.seq.0, ack.duplicate), (id, 0, duplicate));
    }
    let told: NoteFrame = vera
        .until(|frame| match frame {
            ServerFrame::Note(note) => Some(note),
            _ => None,
        })
        .await;
    assert_eq!((told.follows.0, &*told.author), (1, "Olga"));
    assert_eq!(told.text, "He wrote in May.");

    // Another text under the same id, a viewer, a visitor.
    olga.send(&note(session, id, "She did.")).await.unwrap();
    vera.send(&note(session, ClientMessageId::generate(), "x"))
        .await
        .unwrap();
    visitor
        .send(&note(session, ClientMessageId::generate(), "x"))
        .await
        .unwrap();
    for (device, code) in [
        (&mut olga, ErrorCode::Conflict),
        (&mut vera, ErrorCode::Forbidden),
        (&mut visitor, ErrorCode::Forbidden),
    ] {
        let ServerFrame::Error(refused) = answer(device).await else {
            panic!("not refused")
        };
        assert_eq!(refused.error.code, code);
        assert_eq!(refused.reference.as_deref(), Some("n"));
    }
    // The visitor's numbers go on, and nothing of the note came before them.
    let again = message(session, ClientMessageId::generate(), "still there?", None);
    visitor.send(&again).await.unwrap();
    let seen = visitor
        .until(|frame| match frame {
            ServerFrame::Note(note) => panic!("{note:?}"),
            ServerFrame::Message(message) if message.seq.0 == 2 => Some(message),
            _ => None,
        })
        .await;
    assert_eq!(seen.text, "still there?");

    let path = format!("/v1/sessions/{session}/notes");
    let listed: Value = caller.get(&path).await.json();
    assert_eq!(listed["items"], json!([told]));
    let refused = Caller::with(server, Some(&token)).get(&path).await;
    assert_eq!(refused.problem().code, ErrorCode::Forbidden);
    let (key, _) = crate::tenant::another_tenant(server).await;
    let stranger = Caller::with(server, Some(&key)).get(&path).await;
    assert_eq!(stranger.problem().code, ErrorCode::NotFound);
}
