//! Notes: durable, once, and seen by operators alone.

use hubbub_protocol::{ClientMessageId, ErrorCode, ServerFrame};

use super::node::{Node, run};
use crate::caller::OperatorRole;

#[test]
fn a_note_is_stored_once_and_told_to_operators_alone() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.note(session, "hello").await;
        let mut visitor = node.join(session).await;
        let mut operator = node
            .join_as(session, node.operator(OperatorRole::Viewer))
            .await;
        let handle = node.handle(session);
        let writer = node.operator(OperatorRole::Agent);
        let id = ClientMessageId::generate();
        let add = |text: &str| handle.note(writer.clone(), id, text.to_owned());
        let (note, duplicate) = add("He wrote before.").await.unwrap();
        assert_eq!((note.follows.0, duplicate), (1, false));
        assert_eq!(add("He wrote before.").await.unwrap(), (note.clone(), true));
        let refused = add("She wrote before.").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let told = operator
            .until(|frame| matches!(frame, ServerFrame::Note(_)))
            .await;
        assert_eq!(told, ServerFrame::Note(note));
        // Numbers go on without a hole, and what comes after a note reaches everybody.
        node.note(session, "again").await;
        for device in [&mut visitor, &mut operator] {
            device.until_seq(hubbub_protocol::Seq(2)).await;
            device.settle().await;
        }
        assert!(!format!("{:?}", visitor.shared_frames()).contains("wrote before"));
        for caller in [node.caller(), node.operator(OperatorRole::Viewer)] {
            let id = ClientMessageId::generate();
            let refused = handle.note(caller, id, "x".to_owned()).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Forbidden);
        }
    });
}
