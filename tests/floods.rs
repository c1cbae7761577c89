//! One anonymous visitor, whatever it sends, beside visitors who measure what they notice of it.
//!
//! Each test measures what the victims meet in quiet, then under the flood, then after it. They compare
//! times, so they run one after the other; nothing else should run beside them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test says what is wrong by panicking, and measures in real time"
)]

#[path = "support/caller.rs"]
mod caller;
#[path = "support/client.rs"]
mod client;
#[path = "support/server.rs"]
mod server;
#[path = "support/tenant.rs"]
mod tenant;
#[path = "support/watchdog.rs"]
mod watchdog;

#[path = "floods/attack.rs"]
mod attack;
#[path = "floods/bench.rs"]
mod bench;
#[path = "floods/http.rs"]
mod http;
#[path = "floods/sockets.rs"]
mod sockets;
#[path = "floods/upstream.rs"]
mod upstream;

use std::time::Duration;

use attack::{Outcome, Stop, Target, launch};
use bench::Bench;
use tokio::sync::Mutex;

/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(6);

/// However many threads there are, one flood at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What victims meet while one visitor floods the server is much like what they meet in quiet.
async fn withstand<F>(flood: impl FnOnce(Target, Stop) -> F + Send + 'static)
where
    F: Future<Output = Outcome>,
{
    let _alone = ALONE.lock().await;
    let bench = Bench::start(Duration::from_millis(20), 1).await;
    let quiet = bench.quiet().await;
    let attack = launch(bench.target().await, flood);
    let under = bench.measure(FLOOD).await;
    bench.judge(&quiet, &under, &attack.stop()).await;
}

// X10
#[tokio::test]
async fn pongs_at_line_rate() {
    withstand(sockets::pongs).await;
}

// X10
#[tokio::test]
async fn typing_at_line_rate_reading_the_errors() {
    withstand(sockets::typing_and_reading).await;
}

// X10
#[tokio::test]
async fn typing_at_line_rate_reading_nothing() {
    withstand(sockets::typing_without_reading).await;
}

// X8
#[tokio::test]
async fn posts_over_http() {
    withstand(http::posts).await;
}

// X8
#[tokio::test]
async fn twenty_connections_with_thirty_two_sessions_each() {
    withstand(sockets::sessions_without_end).await;
}

// X8
#[tokio::test]
async fn twelve_hundred_connections() {
    withstand(sockets::connections).await;
}

// X6
#[tokio::test]
async fn zipped_bodies_that_unpack_to_much_more() {
    withstand(http::bombs).await;
}

// X9
#[tokio::test]
async fn bodies_that_never_end() {
    withstand(http::half_posts).await;
}

// M1
#[tokio::test]
async fn prompts_that_are_answered_without_a_word() {
    withstand(sockets::worst_prompts).await;
}

// R154, X8
#[tokio::test]
async fn a_script_with_bad_manners() {
    withstand(sockets::bad_manners).await;
}

/// Beside an upstream that takes as long as models do, and long enough for a p99.
// R154
#[tokio::test]
#[ignore = "five minutes, by hand: cargo test --release --test floods -- --ignored --nocapture"]
async fn nobody_waits_a_tenth_longer_beside_a_script_with_bad_manners() {
    let _alone = ALONE.lock().await;
    let bench = Bench::start(Duration::from_millis(800), 5).await;
    let (phase, mut worst) = (Duration::from_mins(1), 0.0_f64);
    bench.measure(Duration::from_secs(5)).await;
    for _ in 0..2 {
        let quiet = bench.measure(phase).await;
        let attack = launch(bench.target().await, sockets::bad_manners);
        let under = bench.measure(phase).await;
        let outcome = attack.stop();
        println!("quiet: {}", quiet.summary());
        println!("flood: {}", under.summary());
        println!("the flooding visitor: {outcome:?}");
        let (now, before) = (under.first_word_p99(), quiet.first_word_p99());
        worst = worst.max(now.div_duration_f64(before) - 1.0);
    }
    assert!(worst < 0.1, "{:.1} % longer", worst * 100.0);
}
