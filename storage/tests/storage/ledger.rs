//! The ledger: written once, reckoned to the micro-cent, added to its budgets; and what budgets leave to spend.

use std::time::Duration;

use hubbub_actors::ports::{
    Append, AppendRefusal, Attempt, AttemptOutcome, Claim, FinishedReply, MessageStore as _,
    NewMessage, NewSession, ReplyEnd, Reservation, UsageLedger as _, UsageSource,
};
use hubbub_protocol::usage::{UsageBy, UsageReport, UsageTotals};
use hubbub_protocol::{NodeId, ReplyId, Seq, SessionId, Timestamp, Usage, VisitorId};
use hubbub_storage::budgets::{self, BudgetScope, Period};
use hubbub_storage::prices::Price;
use hubbub_storage::usage::{self, UsageFilter};

use crate::fixture::{Fixture, append_one, end, page, question};

const WHOLE: ReplyEnd = ReplyEnd::Completed { cut: None };

/// Prices are the whole server's, which other tests use too.
fn named(f: &Fixture, upstream: &str) -> String {
    format!("{upstream} of {}", f.tenant)
}

fn attempt(f: &Fixture, upstream: &str, [input, cached, output]: [u64; 3]) -> Attempt {
    Attempt {
        bot: f.bot,
        visitor: None,
        upstream: named(f, upstream),
        model: "m".to_owned(),
        usage: Usage {
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached,
            estimated: false,
        },
        source: UsageSource::Reported,
        outcome: AttemptOutcome::Answered,
        started_at: Timestamp::now(),
    }
}

/// Dollars for a million tokens of prompt, cached prompt and answer, as micro-cents.
async fn price(f: &Fixture, upstream: &str, model: &str, rates: [u64; 3], from: Option<Timestamp>) {
    let price = Price {
        upstream: named(f, upstream),
        model: model.to_owned(),
        input: rates[0],
        cached_input: rates[1],
        output: rates[2],
        valid_from: from,
    };
    f.storage.set_price(&price).await.unwrap();
}

async fn asked(f: &Fixture, session: SessionId) -> NewMessage {
    let asked = question(f.tenant, session, NodeId::generate());
    append_one(&f.store, Append::Message(asked.clone()))
        .await
        .unwrap();
    asked
}

async fn ended(f: &Fixture, asked: &NewMessage, attempts: Vec<Attempt>) -> FinishedReply {
    let end = FinishedReply {
        attempts,
        ..end(asked, WHOLE)
    };
    append_one(&f.store, Append::Reply(end.clone()))
        .await
        .unwrap();
    end
}

async fn sum(f: &Fixture, by: UsageBy) -> UsageReport {
    let filter = UsageFilter {
        to: Timestamp::from_unix_ms(Timestamp::now().unix_ms() + 60_000),
        ..UsageFilter::this_month()
    };
    let scope = f.storage.scope(f.tenant).await.unwrap();
    usage::sum(&scope, filter, by, 10).await.unwrap()
}

/// What each budget's owner has spent, and the sum of the attempts it covers.
async fn spent(f: &Fixture) -> Vec<(String, i64, i64)> {
    let owner = f.database.owner().await;
    let query = "SELECT b.scope, s.spent, (SELECT sum(a.cost)::int8 FROM attempts a WHERE a.tenant_id = b.tenant_id \
           AND a.ended_at >= s.period_start AND s.subject_id IN (a.tenant_id, a.bot_id, a.visitor_id)) \
         FROM spending s JOIN budgets b ON b.tenant_id = s.tenant_id AND b.id = s.budget_id \
         WHERE s.tenant_id = $1 ORDER BY b.scope, s.subject_id";
    let rows = owner.query(query, &[&f.tenant.0]).await.unwrap();
    let read = |row: tokio_postgres::Row| (row.get(0), row.get(1), row.get(2));
    rows.into_iter().map(read).collect()
}

// R027
#[tokio::test]
async fn every_attempt_is_reckoned_once_to_the_micro_cent() {
    let f = Fixture::new().await;
    let (past, soon) = (
        Timestamp::from_unix_ms(0),
        Timestamp::from_unix_ms(4_102_444_800_000),
    );
    // $0.15, $0.075 and $0.60 a million; one model has its own price; another begins in 2100.
    price(
        &f,
        "one",
        "",
        [15_000_000, 7_500_000, 60_000_000],
        Some(past),
    )
    .await;
    price(&f, "two", "", [1, 1, 1], Some(past)).await;
    price(&f, "two", "m", [100, 100, 333_333], Some(past)).await;
    price(
        &f,
        "two",
        "m",
        [9_000_000, 9_000_000, 9_000_000],
        Some(soon),
    )
    .await;
    let session = f.session().await;
    let question = asked(&f, session).await;
    let failed = Attempt {
        outcome: AttemptOutcome::Failed,
        source: UsageSource::Estimated,
        ..attempt(&f, "two", [0, 0, 7])
    };
    let attempts = vec![
        failed,
        attempt(&f, "one", [1_000, 400, 33]),
        attempt(&f, "nobody's", [5, 0, 5]),
    ];
    let end = ended(&f, &question, attempts).await;
    // 7 x 333,333 / 1,000,000 rounds to 2; 600 x 15 + 400 x 7.5 + 33 x 60 = 13,980.
    let expected = UsageTotals {
        attempts: 3,
        estimated: 1,
        input_tokens: 1_005,
        cached_input_tokens: 400,
        output_tokens: 45,
        cost_microcents: 13_982,
    };
    assert_eq!(sum(&f, UsageBy::Tenant).await.total, expected);
    // The batch was sent again, also under another end.
    let again = append_one(&f.store, Append::Reply(end.clone())).await;
    assert!(again.is_ok());
    let other = FinishedReply {
        end: ReplyEnd::Cancelled,
        ..end.clone()
    };
    let refused = append_one(&f.store, Append::Reply(other)).await;
    assert_eq!(refused.unwrap_err(), AppendRefusal::StaleClaim);
    let by_session = sum(&f, UsageBy::Session).await;
    assert_eq!(by_session.total, expected);
    assert_eq!(by_session.items.len(), 1);
    assert_eq!(by_session.items[0].key, session.to_string());
    let by_model = sum(&f, UsageBy::Model).await;
    let keys: Vec<&str> = by_model.items.iter().map(|item| &*item.key).collect();
    let expected = ["one", "two", "nobody's"].map(|upstream| named(&f, upstream) + "/m");
    assert_eq!(keys, expected, "the dearest first");
    // Read back with the message, too.
    let page = f
        .store
        .list_before(f.tenant, session, None, page(10))
        .await
        .unwrap();
    let usage = page.messages.last().unwrap().usage.unwrap();
    assert_eq!(usage.cached_input_tokens, 2);
}

#[tokio::test]
async fn what_was_used_is_on_the_ledger_though_its_reply_is_not_ours_or_not_there() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let question = asked(&f, session).await;
    let of_nobody = FinishedReply {
        claim: Claim::FIRST.next(),
        attempts: vec![attempt(&f, "one", [10, 0, 1])],
        ..end(&question, WHOLE)
    };
    let refused = append_one(&f.store, Append::Reply(of_nobody.clone())).await;
    assert_eq!(refused.unwrap_err(), AppendRefusal::StaleClaim);
    ended(&f, &question, vec![attempt(&f, "one", [10, 0, 2])]).await;
    let of_deleted = FinishedReply {
        session: SessionId::generate(),
        reply: ReplyId::generate(),
        ..of_nobody
    };
    let refused = append_one(&f.store, Append::Reply(of_deleted)).await;
    assert_eq!(refused.unwrap_err(), AppendRefusal::NoSession);
    let total = sum(&f, UsageBy::Tenant).await.total;
    assert_eq!((total.attempts, total.output_tokens), (3, 4));
}

#[tokio::test]
async fn numbers_out_of_all_proportion_harm_nobodys_batch() {
    let f = Fixture::new().await;
    price(&f, "one", "", [1_000_000_000_000; 3], None).await;
    let session = f.session().await;
    let question = asked(&f, session).await;
    let absurd = attempt(&f, "one", [u64::MAX, u64::MAX, u64::MAX]);
    let more_cached_than_read = attempt(&f, "one", [5, 9, 0]);
    ended(&f, &question, vec![absurd, more_cached_than_read]).await;
    let total = sum(&f, UsageBy::Tenant).await.total;
    assert_eq!(total.attempts, 2);
}

/// A visitor with a session.
struct Spender {
    visitor: VisitorId,
    session: SessionId,
}

impl Spender {
    async fn new(f: &Fixture) -> Self {
        let (visitor, session) = (VisitorId::generate(), SessionId::generate());
        let new = NewSession {
            tenant: f.tenant,
            session,
            bot: f.bot,
            visitor: Some(visitor),
        };
        f.store.open_session(new).await.unwrap();
        Self { visitor, session }
    }

    /// An answer is given to this question, of so many tokens at a micro-cent each.
    async fn spend(&self, f: &Fixture, asked: &NewMessage, output: u64) {
        let attempt = Attempt {
            visitor: Some(self.visitor),
            ..attempt(f, "one", [0, 0, output])
        };
        ended(f, asked, vec![attempt]).await;
    }

    /// Whether so much may be set aside; if not, until when.
    async fn reserve(&self, f: &Fixture, asked: &NewMessage, output: u64) -> Option<Duration> {
        let reservation = Reservation {
            tenant: f.tenant,
            session: self.session,
            reply: asked.reply.unwrap().reply,
            bot: f.bot,
            visitor: Some(self.visitor),
            models: vec![(named(f, "one"), "m".to_owned())],
            input_tokens: 10,
            output_tokens: output,
        };
        let reserved = f.store.reserve(reservation).await.unwrap();
        reserved.map(|exhausted| exhausted.resets_in)
    }
}

async fn set_budget(f: &Fixture, of: BudgetScope, amount: u64) -> uuid::Uuid {
    let scope = f.storage.scope(f.tenant).await.unwrap();
    let id = budgets::set(&scope, of, Period::Day, amount).await.unwrap();
    scope.commit().await.unwrap();
    id
}

async fn has_budget(f: &Fixture, session: SessionId) -> bool {
    let read = f.store.list_prompt(f.tenant, session, Seq(1), page(9));
    read.await.unwrap().has_budget
}

// R028, R155
#[tokio::test]
async fn budgets_hold_for_tenants_bots_and_visitors_and_equal_the_ledger() {
    let f = Fixture::new().await;
    price(&f, "one", "", [0, 0, 1_000_000], None).await;
    let spender = Spender::new(&f).await;
    let session = spender.session;
    let early = asked(&f, session).await;
    spender.spend(&f, &early, 40).await;
    assert!(!has_budget(&f, session).await);
    let all = [
        BudgetScope::Tenant,
        BudgetScope::Bot(f.bot),
        BudgetScope::Visitor,
    ];
    for of in all {
        let id = set_budget(&f, of, 1_000).await;
        assert_eq!(id, set_budget(&f, of, 100).await, "the same, changed");
    }
    assert!(has_budget(&f, session).await);
    // 40 are spent. 50 are set aside, and 20 more would be too much, until the 50 turn out to be 10.
    let (first, second) = (asked(&f, session).await, asked(&f, session).await);
    assert_eq!(spender.reserve(&f, &first, 50).await, None);
    assert_eq!(spender.reserve(&f, &first, 50).await, None, "again");
    let resets_in = spender.reserve(&f, &second, 20).await.unwrap();
    assert!(resets_in <= Duration::from_hours(24), "{resets_in:?}");
    spender.spend(&f, &first, 10).await;
    assert_eq!(spender.reserve(&f, &second, 20).await, None);
    spender.spend(&f, &second, 20).await;
    let spent = spent(&f).await;
    assert_eq!(spent.len(), 3, "{spent:?}");
    for (scope, spent, ledger) in spent {
        assert_eq!((spent, ledger), (70, 70), "{scope}");
    }
    let scope = f.storage.scope(f.tenant).await.unwrap();
    let listed = budgets::list(&scope).await.unwrap();
    let listed = listed.iter().map(|b| (&*b.scope, b.amount, b.spent));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [
            ("bot", 100, Some(70)),
            ("tenant", 100, Some(70)),
            ("visitor", 100, None)
        ]
    );
}

#[tokio::test]
async fn a_visitors_budget_is_each_visitors_own() {
    let f = Fixture::new().await;
    price(&f, "one", "", [0, 0, 1_000_000], None).await;
    let (one, two) = (Spender::new(&f).await, Spender::new(&f).await);
    let id = set_budget(&f, BudgetScope::Visitor, 100).await;
    let first = asked(&f, one.session).await;
    one.spend(&f, &first, 90).await;
    let (again, other) = (asked(&f, one.session).await, asked(&f, two.session).await);
    assert!(one.reserve(&f, &again, 11).await.is_some());
    assert_eq!(two.reserve(&f, &other, 11).await, None);
    let scope = f.storage.scope(f.tenant).await.unwrap();
    assert!(budgets::remove(&scope, id).await.unwrap());
    assert!(!budgets::remove(&scope, id).await.unwrap());
    scope.commit().await.unwrap();
    assert_eq!(one.reserve(&f, &again, 1_000).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_that_race_never_exceed_a_budget() {
    let f = Fixture::new().await;
    price(&f, "one", "", [0, 0, 1_000_000], None).await;
    let scope = f.storage.scope(f.tenant).await.unwrap();
    budgets::set(&scope, BudgetScope::Tenant, Period::Month, 100)
        .await
        .unwrap();
    scope.commit().await.unwrap();
    let mut racing = Vec::new();
    for _ in 0..20 {
        let session = f.session().await;
        let asked = asked(&f, session).await;
        let reservation = Reservation {
            tenant: f.tenant,
            session,
            reply: asked.reply.unwrap().reply,
            bot: f.bot,
            visitor: None,
            models: vec![(named(&f, "one"), "m".to_owned())],
            input_tokens: 0,
            output_tokens: 30,
        };
        let store = f.store.clone();
        racing.push(tokio::spawn(async move {
            store.reserve(reservation).await.unwrap()
        }));
    }
    let mut granted = 0;
    for one in racing {
        granted += u32::from(one.await.unwrap().is_none());
    }
    assert_eq!(granted, 3, "of 30 each, within 100");
}
