//! Talking: order, streaming, idempotency, isolation.

use std::time::Duration;

use futures_util::future::join_all;
use hubbub_protocol::{
    BotId, ClientMessageId, ErrorCode, ReplyState, Role, Seq, ServerFrame, SessionId, VisitorId,
};

use super::node::{Node, caller, join_request, pass, post, run};
use super::view::End;
use crate::ports::{TenantLimits, TurnRole};
use crate::testing::{Step, channel_outlet};
use crate::{Caller, OperatorRole, Rejection, Who};

#[test]
fn three_devices_get_identical_frames_and_a_reply_streams_to_one_end() {
    run(async || {
        let node = Node::start();
        let pieces = ["Grüße 👋", "🏽, wie ", "geht's? ", "🧑‍🚀🚀"];
        node.upstream
            .usually(Step::answer(&pieces, Duration::from_millis(70)));
        let session = node.open().await;
        let mut devices = Vec::new();
        for _ in 0..3 {
            devices.push(node.join(session).await);
        }
        let posted = node.post(session, "Hallo").await.unwrap();
        assert_eq!((posted.seq, posted.duplicate), (Seq(1), false));
        let reply = posted.reply.unwrap();
        for device in &mut devices {
            device.until_end_of(reply).await;
            device.settle().await;
        }
        let first = devices[0].shared_frames();
        assert!(devices.iter().all(|device| device.shared_frames() == first));

        let view = devices[0].view();
        let whole = pieces.concat();
        assert_eq!(
            view.messages,
            vec![(Seq(1), "Hallo".into()), (Seq(2), whole.clone())]
        );
        assert_eq!(view.ends, vec![(reply, End::Completed(whole.clone()))]);
        let frames = &devices[0].frames;
        let deltas = frames
            .iter()
            .filter_map(|frame| match frame {
                ServerFrame::Delta(delta) => Some(delta.text.as_str()),
                _ => None,
            })
            .collect::<Vec<_>>();
        assert_eq!(deltas.concat(), whole, "all of it was streamed");
        assert!(deltas.len() > 1, "and not at once");
        let started = frames.iter().position(|frame| {
            matches!(frame, ServerFrame::Reply(r)
                if r.reply == reply && matches!(&r.state, ReplyState::Started { model, .. } if model == "one"))
        });
        let text = frames
            .iter()
            .position(|f| matches!(f, ServerFrame::Delta(_)));
        assert!(started.unwrap() < text.unwrap());
        assert_eq!(node.upstream.abandoned(), 0);
    });
}

#[test]
fn the_model_reads_the_instructions_and_the_conversation_so_far() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.chat(session, "first").await;
        node.chat(session, "second").await;
        let request = node.upstream.requests().pop().unwrap();
        let turns: Vec<_> = request
            .turns
            .iter()
            .map(|turn| (turn.role, turn.text.as_str()))
            .collect();
        assert_eq!(
            turns,
            vec![
                (TurnRole::System, "Be brief."),
                (TurnRole::User, "first"),
                (TurnRole::Assistant, "Hello, world."),
                (TurnRole::User, "second"),
            ]
        );
    });
}

#[test]
fn the_same_message_sent_often_is_stored_and_answered_once() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let id = ClientMessageId::generate();
        let at_once = join_all((0..3).map(|_| node.post_as(session, id, "hi"))).await;
        let later = [
            node.post_as(session, id, "hi").await,
            node.post_as(session, id, "hi").await,
        ];
        let acks: Vec<_> = at_once
            .into_iter()
            .chain(later)
            .map(Result::unwrap)
            .collect();
        assert!(acks.iter().all(|ack| ack.seq == Seq(1)));
        assert!(acks.iter().all(|ack| ack.at == acks[0].at));
        assert!(acks.iter().all(|ack| ack.reply == acks[0].reply));
        assert_eq!(acks.iter().filter(|ack| !ack.duplicate).count(), 1);
        device.settle().await;
        // Also when its answer is long finished.
        assert!(node.post_as(session, id, "hi").await.unwrap().duplicate);
        device.settle().await;
        let view = device.view();
        assert_eq!(view.seqs(), vec![1, 2]);
        assert_eq!(view.ends.len(), 1);
        assert_eq!(node.upstream.requests().len(), 1);
        assert_eq!(node.store.messages(session).len(), 2);
    });
}

#[test]
fn the_same_id_with_another_text_is_a_conflict() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let id = ClientMessageId::generate();
        node.post_as(session, id, "hi").await.unwrap();
        let refused = node.post_as(session, id, "ho").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        // The same id in another session is another message.
        let other = node.open().await;
        assert!(!node.post_as(other, id, "ho").await.unwrap().duplicate);
    });
}

#[test]
fn questions_asked_together_are_answered_one_after_the_other_in_order() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let posted = join_all(["a", "b", "c"].map(|text| node.post(session, text))).await;
        let replies: Vec<_> = posted
            .into_iter()
            .map(|posted| posted.unwrap().reply.unwrap())
            .collect();
        device.settle().await;
        let ended: Vec<_> = device
            .view()
            .ends
            .into_iter()
            .map(|(reply, _)| reply)
            .collect();
        assert_eq!(ended, replies);
        assert_eq!(node.upstream.most_running(), 1);
        assert_eq!(device.view().seqs(), (1..=6).collect::<Vec<_>>());
    });
}

#[test]
fn messages_of_operators_are_not_answered() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let posted = node.note(session, "I am listening").await;
        assert_eq!(posted.reply, None);
        assert!(node.store.pending(session).is_empty());
        assert_eq!(node.store.messages(session)[0].role, Role::Operator);
    });
}

#[test]
fn a_bot_that_does_not_reply_is_only_a_mailbox() {
    run(async || {
        let node = Node::start();
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.replies = false);
        let session = node.open().await;
        let mut device = node.join(session).await;
        assert_eq!(node.post(session, "hi").await.unwrap().reply, None);
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1]);
        assert!(node.upstream.requests().is_empty());
    });
}

#[test]
fn a_changed_bot_answers_the_next_message_differently() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.chat(session, "one").await;
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.model = Some("big".into()));
        node.hub.bot_changed(node.tenant, node.bot).await;
        node.chat(session, "two").await;
        assert_eq!(node.upstream.requests()[1].model.as_deref(), Some("big"));
        // Changed by another node: noticed without being told.
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.model = None);
        super::node::pass(6).await;
        node.chat(session, "three").await;
        assert_eq!(node.upstream.requests()[2].model, None);
    });
}

#[test]
fn a_deleted_bot_refuses_messages_and_new_sessions() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.chat(session, "hi").await;
        node.store.delete_bot(node.tenant, node.bot);
        node.hub.bot_changed(node.tenant, node.bot).await;
        let refused = node.post(session, "still there?").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound);
        let opened = node.hub.open_session(&node.caller(), node.bot).await;
        assert_eq!(opened, Err(Rejection::no_bot()));
        assert_eq!(node.store.messages(session).len(), 2);
    });
}

#[test]
fn who_came_for_one_bot_opens_no_session_of_another() {
    run(async || {
        let node = Node::start();
        let ann = node.visitor(VisitorId::generate());
        let other = node.store.add_bot(node.tenant);
        let refused = node.hub.open_session(&ann, other).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden);
        // Whether there is such a bot at all is not told either.
        let refused = node.hub.open_session(&ann, BotId::generate()).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden);
        assert!(node.hub.open_session(&ann, node.bot).await.is_ok());
    });
}

/// Everything that can be asked of a session.
async fn ask_all(node: &Node, caller: &Caller, session: SessionId) -> Vec<Rejection> {
    let Ok(handle) = node.hub.session(caller.tenant, session) else {
        return vec![Rejection::no_session()];
    };
    let (outlet, log) = channel_outlet(8);
    let join = join_request(None);
    let joined = handle.join(caller.clone(), join, Box::new(outlet)).await;
    assert_eq!(log.waiting(), 0, "nothing was told");
    let post = post(ClientMessageId::generate(), "let me in");
    let posted = handle.post_message(caller.clone(), post).await;
    let stopped = handle.stop_reply(caller.clone()).await;
    vec![
        joined.unwrap_err(),
        posted.unwrap_err(),
        stopped.unwrap_err(),
    ]
}

#[test]
fn a_session_of_another_tenant_or_visitor_or_of_nobody_does_not_exist() {
    run(async || {
        let node = Node::start();
        let ann = VisitorId::generate();
        let session = node.open_for(Some(ann)).await;
        let other_tenant = node.store.add_tenant(TenantLimits::default());
        let stranger = caller(other_tenant, "eve");
        let other_visitor = node.visitor(VisitorId::generate());
        // Ann herself, on the page of another bot.
        let elsewhere = Caller {
            who: Who::Visitor {
                id: ann,
                bot: node.store.add_bot(node.tenant),
            },
            ..node.caller()
        };
        for is_live in [false, true] {
            if is_live {
                node.note(session, "hello").await;
            }
            for who in [&stranger, &other_visitor, &elsewhere] {
                let refused = ask_all(&node, who, session).await;
                assert!(
                    refused.iter().all(|r| *r == Rejection::no_session()),
                    "{refused:?}"
                );
            }
        }
        let refused = ask_all(&node, &node.caller(), SessionId::generate()).await;
        assert!(refused.iter().all(|r| *r == Rejection::no_session()));
        let owner = node.visitor(ann);
        let (outlet, mut log) = channel_outlet(8);
        let handle = node.handle(session);
        handle
            .join(owner, join_request(None), Box::new(outlet))
            .await
            .unwrap();
        assert!(matches!(log.next().await, Some(ServerFrame::Joined(_))));
        assert_eq!(node.store.messages(session).len(), 1);
    });
}

#[test]
fn an_operator_who_only_reads_along_writes_and_stops_nothing() {
    run(async || {
        let node = Node::start();
        let session = node.open_for(Some(VisitorId::generate())).await;
        let handle = node.handle(session);
        let viewer = node.operator(OperatorRole::Viewer);
        let (outlet, mut log) = channel_outlet(8);
        let join = join_request(None);
        let joined = handle.join(viewer.clone(), join, Box::new(outlet)).await;
        assert!(joined.is_ok(), "every session of the tenant is to be read");
        assert!(matches!(log.next().await, Some(ServerFrame::Joined(_))));
        let post = post(ClientMessageId::generate(), "hello");
        let posted = handle.post_message(viewer.clone(), post).await;
        assert_eq!(posted.unwrap_err().code, ErrorCode::Forbidden);
        node.upstream.then(vec![Step::text("so"), Step::Hang]);
        node.post(session, "hi").await.unwrap();
        pass(1).await;
        let stopped = handle.stop_reply(viewer.clone()).await;
        assert_eq!(stopped.unwrap_err().code, ErrorCode::Forbidden);
        let opened = node.hub.open_session(&viewer, node.bot).await;
        assert_eq!(opened.unwrap_err().code, ErrorCode::Forbidden);
    });
}

#[test]
fn a_stranger_who_asks_for_a_session_does_not_lock_its_owner_out() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let other_tenant = node.store.add_tenant(TenantLimits::default());
        let stranger = node.hub.session(other_tenant, session).unwrap();
        let (outlet, _log) = channel_outlet(8);
        let caller = caller(other_tenant, "eve");
        let refused = stranger
            .join(caller, join_request(None), Box::new(outlet))
            .await;
        assert_eq!(refused, Err(Rejection::no_session()));
        assert!(node.post(session, "mine").await.is_ok());
    });
}
