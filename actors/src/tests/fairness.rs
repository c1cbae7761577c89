//! Fair shares of the models: who asks for much does not keep those waiting who ask for little.

use std::time::Duration;

use hubbub_protocol::{BotId, ClientMessageId, ErrorCode, SessionId, TenantId};

use super::node::{Node, caller, pass, post, run};
use crate::ports::TenantLimits;
use crate::testing::{ScriptedUpstream, Step};

struct Tenant {
    id: TenantId,
    bot: BotId,
}

fn tenant(node: &Node, weight: u32) -> Tenant {
    let limits = TenantLimits {
        weight: Some(weight),
        ..TenantLimits::default()
    };
    let id = node.store.add_tenant(limits);
    let bot = node.store.add_bot(id);
    Tenant { id, bot }
}

/// Asks in a session of its own.
async fn ask(node: &Node, tenant: &Tenant, text: &str) -> SessionId {
    let ann = caller(tenant.id, "ann");
    let session = node.hub.open_session(&ann, tenant.bot).await.unwrap();
    let handle = node.hub.session(tenant.id, session).unwrap();
    let message = post(ClientMessageId::generate(), text);
    handle.post_message(ann, message).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    session
}

/// The questions in the order in which the model was asked.
fn asked(upstream: &ScriptedUpstream) -> Vec<String> {
    let requests = upstream.requests().into_iter();
    let questions = requests.filter_map(|request| Some(request.turns.last()?.text.clone()));
    questions.collect()
}

// R020
#[test]
fn who_asks_for_little_is_not_behind_all_that_others_ask_for() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(Step::answer(&["a"], Duration::from_secs(2)));
        let node = Node::start_on(std::slice::from_ref(&upstream), |_| {});
        let (greedy, modest) = (tenant(&node, 1), tenant(&node, 1));
        for n in 0..6 {
            ask(&node, &greedy, &format!("greedy {n}")).await;
        }
        ask(&node, &modest, "modest").await;
        pass(30).await;
        let asked = asked(&upstream);
        assert_eq!(asked.len(), 7);
        assert_eq!(asked[..2], ["greedy 0", "modest"]);
    });
}

// R020
#[test]
fn whoever_has_more_than_its_share_of_a_full_queue_makes_room_and_is_told() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(Step::answer(&["a"], Duration::from_secs(2)));
        let node = Node::start_on(std::slice::from_ref(&upstream), |config| {
            config.pool.queue_len = 4;
        });
        let (greedy, modest) = (tenant(&node, 1), tenant(&node, 1));
        let mut sessions = Vec::new();
        for n in 0..5 {
            sessions.push(ask(&node, &greedy, &format!("greedy {n}")).await);
        }
        let session = ask(&node, &modest, "modest").await;
        pass(30).await;
        assert_eq!(node.store.messages(session).len(), 2, "it was answered");
        let newest = node.store.ended(sessions[4]);
        let [ended] = &newest[..] else {
            panic!("{newest:?}")
        };
        let hubbub_protocol::ReplyState::Failed { error } = &ended.state else {
            panic!("{ended:?}")
        };
        assert_eq!(error.code, ErrorCode::Overloaded);
        let told = error.retry_after_ms;
        assert!(told > Some(5_000), "{told:?}: as long as the queue is");
        for session in &sessions[..4] {
            assert_eq!(node.store.messages(*session).len(), 2);
        }
    });
}

// R020
#[test]
fn slots_divide_as_weights_do() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(Step::answer(&["a"], Duration::from_secs(1)));
        let node = Node::start_on(std::slice::from_ref(&upstream), |config| {
            config.pool.queue_len = 100;
            config.pool.queue_wait = Duration::from_mins(5);
        });
        let (one, three) = (tenant(&node, 1), tenant(&node, 3));
        for _ in 0..40 {
            ask(&node, &one, "one").await;
            ask(&node, &three, "three").await;
        }
        pass(40).await;
        let asked = asked(&upstream);
        let of_three = asked.iter().filter(|text| *text == "three").count();
        let share = 100 * of_three / asked.len();
        assert!((70..=80).contains(&share), "{share} %: {asked:?}");
    });
}
