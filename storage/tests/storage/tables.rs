//! Each table's functions.

use std::time::Duration;

use hubbub_actors::Who;
use hubbub_actors::ports::{Append, MessageStore as _, NewSession, PageSize, StoreError};
use hubbub_protocol::{BotId, Seq, SessionId, VisitorId};
use hubbub_storage::bots::BotChanges;
use hubbub_storage::sessions::SessionFilter;
use hubbub_storage::tickets::Ticket;
use hubbub_storage::visitors::Visitor;
use hubbub_storage::{api_keys, bots, sessions, tickets, visitors};

use crate::fixture::{Fixture, message, new_bot, page, seed};

#[tokio::test]
async fn bots_are_listed_by_page_and_changed_in_part() {
    let f = Fixture::new().await;
    let scope = f.storage.scope(f.tenant).await.unwrap();
    for _ in 0..4 {
        bots::insert(&scope, &new_bot(BotId::generate()))
            .await
            .unwrap();
    }
    let first = bots::list(&scope, None, 3).await.unwrap();
    let second = bots::list(&scope, first.last().map(|bot| bot.id), 3)
        .await
        .unwrap();
    assert_eq!((first.len(), second.len()), (3, 2));
    assert!(first.iter().chain(&second).is_sorted_by_key(|bot| bot.id));

    let set = BotChanges {
        model: Some(Some(String::from("m"))),
        replies: Some(false),
        ..BotChanges::default()
    };
    let changed = bots::update(&scope, f.bot, &set).await.unwrap().unwrap();
    assert_eq!(
        (
            changed.model.as_deref(),
            changed.replies,
            changed.name.as_str()
        ),
        (Some("m"), false, "Robo")
    );
    let unset = BotChanges {
        model: Some(None),
        ..BotChanges::default()
    };
    assert_eq!(
        bots::update(&scope, f.bot, &unset)
            .await
            .unwrap()
            .unwrap()
            .model,
        None
    );
    assert!(
        bots::update(&scope, BotId::generate(), &unset)
            .await
            .unwrap()
            .is_none()
    );
    scope.commit().await.unwrap();
    assert!(
        !f.store
            .find_bot(f.tenant, f.bot)
            .await
            .unwrap()
            .unwrap()
            .replies
    );
    let (other, _) = seed(&f.storage).await;
    assert!(f.store.find_bot(other, f.bot).await.unwrap().is_none());
    let widget = f.storage.find_widget_bot(f.bot).await.unwrap().unwrap();
    assert_eq!((widget.tenant, widget.allowed_origins.len()), (f.tenant, 1));
}

#[tokio::test]
async fn a_scope_that_is_not_committed_changes_nothing_and_gives_its_connection_back() {
    let f = Fixture::new().await;
    for _ in 0..40 {
        let scope = f.storage.scope(f.tenant).await.unwrap();
        bots::insert(&scope, &new_bot(BotId::generate()))
            .await
            .unwrap();
    }
    let scope = f.storage.scope(f.tenant).await.unwrap();
    assert_eq!(bots::list(&scope, None, 100).await.unwrap().len(), 1);
    assert!(f.storage.status().app.in_use <= 1 + 1);
}

#[tokio::test]
async fn api_keys_are_found_by_id_until_revoked() {
    let f = Fixture::new().await;
    let scope = f.storage.scope(f.tenant).await.unwrap();
    api_keys::insert(&scope, "k1", &[7; 32], "ci")
        .await
        .unwrap();
    api_keys::insert(&scope, "in use", &[8; 32], "ci")
        .await
        .unwrap();
    api_keys::update_last_used(&scope, "k1").await.unwrap();
    scope.commit().await.unwrap();
    let key = f.storage.find_api_key("k1").await.unwrap().unwrap();
    assert_eq!(
        (key.tenant, key.secret_sha256, key.revoked_at),
        (f.tenant, vec![7; 32], None)
    );
    let scope = f.storage.scope(f.tenant).await.unwrap();
    assert!(api_keys::revoke(&scope, "k1").await.unwrap());
    assert!(!api_keys::revoke(&scope, "k1").await.unwrap());
    scope.commit().await.unwrap();
    assert!(
        f.storage
            .find_api_key("k1")
            .await
            .unwrap()
            .unwrap()
            .revoked_at
            .is_some()
    );
    assert!(f.storage.find_api_key("k2").await.unwrap().is_none());
    let asked = ["k1", "k2", "in use"].map(Box::from);
    let mut unusable = f.storage.list_unusable_keys(&asked).await.unwrap();
    unusable.sort();
    assert_eq!(unusable, ["k1", "k2"]);
}

#[tokio::test]
async fn visitors_are_known_again_by_token_and_by_the_tenants_own_id() {
    let f = Fixture::new().await;
    let scope = f.storage.scope(f.tenant).await.unwrap();
    let ada = Visitor {
        id: VisitorId::generate(),
        name: String::from("Ada"),
        bot: Some(f.bot),
    };
    visitors::insert(&scope, &ada, Some(&[1; 32]))
        .await
        .unwrap();
    assert_eq!(
        visitors::find_by_token(&scope, &[1; 32]).await.unwrap(),
        Some(ada)
    );
    assert_eq!(
        visitors::find_by_token(&scope, &[2; 32]).await.unwrap(),
        None
    );
    let first = visitors::upsert_external(&scope, VisitorId::generate(), "u-1", "Bob")
        .await
        .unwrap();
    let again = visitors::upsert_external(&scope, VisitorId::generate(), "u-1", "Rob")
        .await
        .unwrap();
    assert_eq!((again.id, again.name.as_str()), (first.id, "Rob"));
}

#[tokio::test]
async fn of_a_thousand_redeemers_one_gets_the_ticket() {
    let f = Fixture::new().await;
    let ticket = Ticket {
        who: Who::Key {
            id: String::from("k"),
        },
        name: String::from("A program"),
        origin: Some(String::from("https://acme.example")),
        key: None,
    };
    let scope = f.storage.scope(f.tenant).await.unwrap();
    tickets::insert(&scope, &[1; 32], &ticket, Duration::from_secs(30))
        .await
        .unwrap();
    tickets::insert(&scope, &[2; 32], &ticket, Duration::ZERO)
        .await
        .unwrap();
    scope.commit().await.unwrap();
    let attempts: Vec<_> = (0..1_000)
        .map(|_| {
            let storage = f.storage.clone();
            tokio::spawn(async move { storage.redeem_ticket(&[1; 32]).await.unwrap() })
        })
        .collect();
    let mut redeemed = Vec::new();
    for attempt in attempts {
        redeemed.extend(attempt.await.unwrap());
    }
    assert_eq!(redeemed, [(f.tenant, ticket)]);
    assert_eq!(f.storage.delete_expired_tickets().await.unwrap(), 1);
    assert_eq!(f.storage.redeem_ticket(&[2; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_needs_a_bot_of_its_tenant_and_opens_twice_as_one() {
    let f = Fixture::new().await;
    let (other, _) = seed(&f.storage).await;
    let new = NewSession {
        tenant: f.tenant,
        session: SessionId::generate(),
        bot: f.bot,
        visitor: None,
    };
    let stolen = NewSession {
        tenant: other,
        ..new.clone()
    };
    assert_eq!(
        f.store.open_session(stolen).await.unwrap_err(),
        StoreError::NoBot
    );
    let one = f.store.open_session(new.clone()).await.unwrap();
    let two = f.store.open_session(new.clone()).await.unwrap();
    assert_eq!(
        (one.session, one.head, one.epoch),
        (two.session, Seq::ZERO, two.epoch)
    );
    assert!(
        f.store
            .load_session(other, new.session)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn sessions_are_listed_last_active_first_and_filtered() {
    let f = Fixture::new().await;
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(f.session().await);
    }
    f.store
        .touch(vec![
            (f.tenant, opened[0]),
            (f.tenant, SessionId::generate()),
        ])
        .await
        .unwrap();
    let scope = f.storage.scope(f.tenant).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = sessions::list(&scope, SessionFilter::default(), after, 2)
            .await
            .unwrap();
        seen.extend(page.items.iter().map(|session| session.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<_> = [0, 4, 3, 2, 1]
        .iter()
        .map(|index: &usize| opened[*index])
        .collect();
    assert_eq!(seen, expected);
    let by_bot = SessionFilter {
        bot: Some(f.bot),
        visitor: None,
    };
    assert_eq!(
        sessions::list(&scope, by_bot, None, 10)
            .await
            .unwrap()
            .items
            .len(),
        5
    );
    let nobody = SessionFilter {
        bot: Some(f.bot),
        visitor: Some(VisitorId::generate()),
    };
    assert!(
        sessions::list(&scope, nobody, None, 10)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn history_pages_meet_at_both_ends() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let batch = (1..=7).map(|n| Append::Message(message(f.tenant, session, &n.to_string())));
    f.store.append(batch.collect()).await.unwrap();
    for (after, limit, expected, more) in [
        (0, 3, vec![1, 2, 3], true),
        (3, 4, vec![4, 5, 6, 7], false),
        (7, 3, vec![], false),
    ] {
        let page = f
            .store
            .list_after(f.tenant, session, Seq(after), page(limit))
            .await
            .unwrap();
        let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq.0).collect();
        assert_eq!((seqs, page.more), (expected, more), "after {after}");
    }
    for (before, limit, expected, more) in [
        (None, 3, vec![5, 6, 7], true),
        (Some(5), 4, vec![1, 2, 3, 4], false),
        (Some(3), 1, vec![2], true),
        (Some(1), 3, vec![], false),
    ] {
        let page = f
            .store
            .list_before(f.tenant, session, before.map(Seq), page(limit))
            .await
            .unwrap();
        let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq.0).collect();
        assert_eq!((seqs, page.more), (expected, more), "before {before:?}");
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_holds_at_least_one_message() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let text = "ü".repeat(50);
    let batch = (1..=7).map(|_| Append::Message(message(f.tenant, session, &text)));
    f.store.append(batch.collect()).await.unwrap();
    for (bytes, messages, first, last) in [
        (1, 5, vec![1], vec![7]),
        (200, 5, vec![1, 2], vec![6, 7]),
        (201, 5, vec![1, 2, 3], vec![5, 6, 7]),
        (10_000, 2, vec![1, 2], vec![6, 7]),
    ] {
        let size = PageSize { messages, bytes };
        let up = f.store.list_after(f.tenant, session, Seq::ZERO, size);
        let down = f.store.list_before(f.tenant, session, None, size);
        for (page, expected) in [(up.await.unwrap(), first), (down.await.unwrap(), last)] {
            let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq.0).collect();
            assert_eq!((seqs, page.more), (expected, true), "{size:?}");
        }
    }
    let all = PageSize {
        messages: 7,
        bytes: 601,
    };
    let whole = f.store.list_before(f.tenant, session, None, all).await;
    assert_eq!(
        whole.map(|page| (page.messages.len(), page.more)),
        Ok((7, false))
    );
}
