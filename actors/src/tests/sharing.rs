//! Answers once for many.

use std::time::Duration;

use hubbub_protocol::{BotId, ClientMessageId, SessionId, TenantId};

use super::node::{Node, caller, pass, post, run};
use crate::ports::{TenantLimits, UpstreamError};
use crate::testing::{ScriptedUpstream, Step};

fn sharing(node: &Node, tenant: TenantId, bot: BotId) {
    let hour = Duration::from_hours(1);
    node.store
        .change_bot(tenant, bot, |bot| bot.answer_cache = hour);
}

async fn ask(node: &Node, tenant: TenantId, bot: BotId, text: &str) -> SessionId {
    let ann = caller(tenant, "ann");
    let session = node.hub.open_session(&ann, bot).await.unwrap();
    say(node, tenant, session, text).await;
    session
}

async fn say(node: &Node, tenant: TenantId, session: SessionId, text: &str) {
    let handle = node.hub.session(tenant, session).unwrap();
    let message = post(ClientMessageId::generate(), text);
    let ann = caller(tenant, "ann");
    handle.post_message(ann, message).await.unwrap();
}

fn start() -> (std::sync::Arc<ScriptedUpstream>, Node) {
    let upstream = ScriptedUpstream::new("one", 8);
    let node = Node::start_on(std::slice::from_ref(&upstream), |_| {});
    sharing(&node, node.tenant, node.bot);
    (upstream, node)
}

fn answer(node: &Node, session: SessionId) -> String {
    node.store.messages(session)[1].text.clone()
}

// R024
#[test]
fn a_first_question_is_answered_once_for_all_who_ask_it_at_once_or_later() {
    run(async || {
        let (upstream, node) = start();
        let mut sessions = Vec::new();
        for _ in 0..5 {
            sessions.push(ask(&node, node.tenant, node.bot, "Open on Sunday?").await);
        }
        pass(1).await;
        sessions.push(ask(&node, node.tenant, node.bot, "Open on Sunday?").await);
        pass(1).await;
        assert_eq!(upstream.requests().len(), 1);
        let mut shared = 0;
        for session in sessions {
            assert_eq!(answer(&node, session), "Hello, world.");
            let attempts = node.store.attempts(session);
            assert_eq!(attempts.len(), 1, "on the bill");
            if attempts[0].upstream == "(shared)" {
                assert_eq!(attempts[0].usage, hubbub_protocol::Usage::default());
                shared += 1;
            }
        }
        assert_eq!(shared, 5, "for nothing");
    });
}

// R024
#[test]
fn what_is_not_the_same_is_not_shared() {
    run(async || {
        let (upstream, node) = start();
        let session = ask(&node, node.tenant, node.bot, "Open on Sunday?").await;
        pass(1).await;
        // Another text; a second question; another tenant; a bot that has changed; one that shares nothing.
        ask(&node, node.tenant, node.bot, "open on sunday?").await;
        pass(1).await;
        say(&node, node.tenant, session, "Open on Sunday?").await;
        pass(1).await;
        assert_eq!(upstream.requests().len(), 3);
        let tenant = node.store.add_tenant(TenantLimits::default());
        let bot = node.store.add_bot(tenant);
        sharing(&node, tenant, bot);
        ask(&node, tenant, bot, "Open on Sunday?").await;
        pass(1).await;
        assert_eq!(upstream.requests().len(), 4);
        node.store.change_bot(node.tenant, node.bot, |bot| {
            bot.prompt = "Be exact.".to_owned();
        });
        node.hub.bot_changed(node.tenant, node.bot).await;
        ask(&node, node.tenant, node.bot, "Open on Sunday?").await;
        pass(1).await;
        assert_eq!(upstream.requests().len(), 5);
        let plain = node.store.add_bot(node.tenant);
        ask(&node, node.tenant, plain, "Open on Sunday?").await;
        ask(&node, node.tenant, plain, "Open on Sunday?").await;
        pass(1).await;
        assert_eq!(upstream.requests().len(), 7);
    });
}

// R024
#[test]
fn whoever_waits_for_an_answer_that_fails_or_is_stopped_asks_for_itself() {
    run(async || {
        let (upstream, node) = start();
        upstream.usually(Step::answer(&["a", "b"], Duration::from_secs(1)));
        let first = ask(&node, node.tenant, node.bot, "Open on Sunday?").await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let second = ask(&node, node.tenant, node.bot, "Open on Sunday?").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        node.handle(first).stop_reply(node.caller()).await.unwrap();
        pass(5).await;
        assert_eq!(upstream.requests().len(), 2);
        assert_eq!(answer(&node, second), "ab");

        upstream.then(vec![Step::text("Well"), Step::Fail(UpstreamError::Failed)]);
        let third = ask(&node, node.tenant, node.bot, "And on Monday?").await;
        let fourth = ask(&node, node.tenant, node.bot, "And on Monday?").await;
        pass(5).await;
        assert_eq!(node.store.ended(third).len(), 1);
        assert_eq!(answer(&node, fourth), "ab");
        assert_eq!(upstream.requests().len(), 4);
    });
}
