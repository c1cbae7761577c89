//! Conversations keep to the upstream that has read them.

use std::time::Duration;

use hubbub_loadtest::simllm::{self, Behaviour, Counters, SimLlm};
use hubbub_protocol::BotId;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{Caller, Device};
use crate::server::{Setup, TestServer};

const CHATS: usize = 60;
const TURNS: usize = 20;
const SLOTS: u32 = 8;

async fn upstream() -> SimLlm {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behaviour = Behaviour {
        ttft_ms: 20,
        token_interval_ms: 3,
        tokens: 20,
        prefix_cache: true,
        prompt_token_us: 100,
        ..Behaviour::default()
    };
    simllm::serve(listener, behaviour).unwrap()
}

fn config(name: &str, upstream: &SimLlm, slots: u32, group: &str) -> String {
    format!(
        "{{ name = \"{name}\", base_url = \"{}\", model = \"sim\", slots = {slots}, \
         group = \"{group}\", context_tokens = 100000 }}",
        upstream.base_url()
    )
}

/// Conversations at once, more than there are slots.
async fn chats(server: &TestServer, bot: BotId) {
    let mut chats = JoinSet::new();
    for chat in 0..CHATS {
        let mut device = Device::connect(server).await;
        let session = device.open(bot).await.session;
        chats.spawn(async move {
            for turn in 0..TURNS {
                let text = format!("chat {chat} turn {turn}: {}", "word ".repeat(20));
                device.ask(session, &text).await.unwrap();
            }
        });
    }
    while let Some(chat) = chats.join_next().await {
        chat.unwrap();
    }
}

// R153
#[tokio::test]
async fn nineteen_in_twenty_tokens_that_can_come_from_a_cache_do_with_three_upstreams_as_with_one()
{
    let (alone, a, b, c) = tokio::join!(upstream(), upstream(), upstream(), upstream());
    let configs = [
        config("alone", &alone, 3 * SLOTS, "one"),
        config("a", &a, SLOTS, "three"),
        config("b", &b, SLOTS, "three"),
        config("c", &c, SLOTS, "three"),
    ];
    let setup = Setup::default()
        .set("upstreams", format!("[{}]", configs.join(", ")))
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000)
        .set("limits.sessions_per_minute_per_ip", 10_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let caller = Caller::new(&server);
    let bots = (
        caller.bot(&["alone"]).await,
        caller.bot(&["a", "b", "c"]).await,
    );
    chats(&server, bots.0).await;
    chats(&server, bots.1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let could_be = alone.counters();
    let three: Vec<Counters> = [&a, &b, &c].iter().map(|one| one.counters()).collect();
    let sum = |of: fn(&Counters) -> u64| three.iter().map(of).sum::<u64>();
    let (read, cached) = (sum(|one| one.prompt_tokens), sum(|one| one.cached_tokens));
    println!(
        "prompt tokens {read} and {}, cached {cached} of {}; requests {:?}",
        could_be.prompt_tokens,
        could_be.cached_tokens,
        three.iter().map(|one| one.started).collect::<Vec<_>>()
    );
    assert_eq!(read, could_be.prompt_tokens);
    assert!(could_be.cached_tokens * 2 > read);
    assert!(cached * 100 >= could_be.cached_tokens * 95);
    // Nobody idles for it: each does about a third.
    assert!(
        three
            .iter()
            .all(|one| one.started * 5 >= (CHATS * TURNS) as u64)
    );
}
