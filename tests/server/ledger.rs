//! The ledger against the upstreams' own count.

use std::time::Duration;

use hubbub_loadtest::simllm::{self, Behaviour, Counters, SimLlm};
use hubbub_protocol::client::Stop;
use hubbub_protocol::usage::UsageReport;
use hubbub_protocol::{ClientFrame, ServerFrame, SessionId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{Caller, Device, is_end};
use crate::server::{Setup, TestServer};
use crate::tenant::run_beside;

const SEED: u64 = 8;
const TOKENS: u32 = 8;
const INTERVAL_MS: u64 = 40;

/// An upstream that counts as it goes, and dies half-way, fails and refuses now and then.
async fn upstream(seed: u64) -> SimLlm {
    let behaviour = Behaviour {
        ttft_ms: 20,
        token_interval_ms: INTERVAL_MS,
        tokens: TOKENS,
        error_rate: 0.08,
        busy_rate: 0.04,
        half_rate: 0.08,
        seed,
        ..Behaviour::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    simllm::serve(listener, behaviour).unwrap()
}

async fn start(upstreams: &[SimLlm; 2]) -> TestServer {
    let config = upstreams.iter().zip(["one", "two"]).map(|(upstream, name)| {
        format!(
            "{{ name = \"{name}\", base_url = \"{}\", model = \"m\", slots = 64, stream_options = false, \
             extra_body = {{ stream_options = {{ include_usage = true, continuous_usage_stats = true }} }} }}",
            upstream.base_url()
        )
    });
    let config = format!("[{}]", config.collect::<Vec<_>>().join(", "));
    let setup = Setup::default()
        .set("upstreams", config)
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000);
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Asks, and one time in three stops the answer between two tokens. Returns whether it was stopped.
async fn turn(device: &mut Device, session: SessionId, n: u32, rng: &mut StdRng) -> bool {
    device.say(session, &format!("question {n}")).await.unwrap();
    let stops = rng.random_bool(0.3);
    let tokens_later: u64 = rng.random_range(0..3);
    let mut is_stopped = false;
    loop {
        match device.next().await.unwrap() {
            ServerFrame::Delta(_) if stops && !is_stopped => {
                is_stopped = true;
                let wait = tokens_later * INTERVAL_MS + INTERVAL_MS / 3;
                tokio::time::sleep(Duration::from_millis(wait)).await;
                let reference = None;
                let stop = ClientFrame::Stop(Stop { reference, session });
                device.send(&stop).await.unwrap();
            }
            ServerFrame::Message(message) if message.reply.is_some() => return is_stopped,
            ServerFrame::Reply(reply) if is_end(&reply.state) => return is_stopped,
            _ => {}
        }
    }
}

// R027, P13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_the_upstreams_own_count_whatever_became_of_their_answers() {
    check(12, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten thousand turns: by hand, alone"]
async fn the_ledger_is_the_upstreams_own_count_of_ten_thousand_turns() {
    check(100, 100).await;
}

async fn check(visitors: u64, turns: u32) {
    println!("seed {SEED}");
    let upstreams = [upstream(SEED).await, upstream(SEED + 1).await];
    let server = start(&upstreams).await;
    for name in ["one", "two"] {
        let price = [
            "price",
            "set",
            "--upstream",
            name,
            "--input",
            "1",
            "--output",
            "4",
        ];
        assert!(run_beside(&server, &price).status.success());
    }
    let mut devices = JoinSet::new();
    for n in 0..visitors {
        let mut device = Device::connect(&server).await;
        let bot = server.demo.bot;
        devices.spawn(async move {
            let mut rng = StdRng::seed_from_u64(SEED * 1_000 + n);
            let mut stops = 0;
            let session = device.open(bot).await.session;
            for n in 0..turns {
                stops += u64::from(turn(&mut device, session, n, &mut rng).await);
            }
            stops
        });
    }
    let stops: u64 = devices.join_all().await.into_iter().sum();
    // A request that was closed is counted out when its upstream notices.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let counters = upstreams.each_ref().map(SimLlm::counters);
    let all = |of: fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    let (input, output) = (all(|c| c.prompt_tokens), all(|c| c.tokens));
    let report: UsageReport = Caller::new(&server).get("/v1/usage").await.json();
    let total = report.total;
    println!(
        "{} attempts: {} answered, {stops} stopped, {} spoiled, {} refused; {input} tokens read, {output} written, \
         {} on the ledger",
        total.attempts,
        all(|c| c.completed),
        all(|c| c.spoiled),
        all(|c| c.refused),
        total.output_tokens
    );
    let asked = visitors * u64::from(turns);
    assert!(
        stops > asked / 6 && all(|c| c.spoiled) > asked / 15 && all(|c| c.refused) > asked / 100
    );
    assert_eq!(
        total.attempts,
        all(|c| c.started),
        "one row for each request"
    );
    assert_eq!((total.input_tokens, total.estimated), (input, 0));
    // What was written and not read yet when a request was closed is known to the upstream alone.
    let unread = output - total.output_tokens;
    assert!(
        unread <= stops / 20,
        "{unread} tokens of {stops} stopped answers"
    );
    assert_eq!(
        total.cost_microcents,
        100 * total.input_tokens + 400 * total.output_tokens
    );
}
