//! An upstream that breaks at each position of its answer: no text is doubled or lost, and there is one end.

use std::time::Duration;

use hubbub_protocol::http::Bot;
use hubbub_protocol::{ReplyState, Role};
use serde_json::{Value, json};

use crate::client::{Caller, Device};
use crate::scripted::{Script, Scripted, events, finish, text};
use crate::server::Setup;

const WORDS: [&str; 6] = ["One", " two", " three", " four", " five", " six"];
const WAYS: [&str; 4] = ["dies", "hangs", "errs", "repeats"];

/// The answer up to a position, and then what the model is called after: `dies-3` dies after three words.
fn script(model: &str) -> Script {
    let (way, position) = model.rsplit_once('-').unwrap();
    let position: usize = position.parse().unwrap();
    let mut said: Vec<String> = WORDS[..position].iter().map(|word| text(word)).collect();
    match way {
        "errs" => said.push(json!({"error": {"message": "out of memory"}}).to_string()),
        // All of it once more, as a message of its own.
        "repeats" => {
            said = WORDS.iter().map(|word| text(word)).collect();
            let message = json!({"role": "assistant", "content": WORDS.concat()});
            said.push(json!({"choices": [{"message": message}]}).to_string());
            said.extend([finish("stop"), "[DONE]".to_owned()]);
        }
        _ => {}
    }
    let mut script = events(&said.iter().map(String::as_str).collect::<Vec<_>>());
    if way == "hangs" {
        script.push((Duration::from_mins(1), String::new()));
    }
    script
}

// R022, R027
#[tokio::test]
async fn an_upstream_that_dies_hangs_errs_or_repeats_at_every_word_doubles_and_loses_nothing() {
    let breaking = Scripted::start(|_, request| script(request["model"].as_str().unwrap())).await;
    let whole = Scripted::start(|_, _| {
        let said: Vec<String> = WORDS.iter().map(|word| text(word)).collect();
        let end = finish("stop");
        let mut all: Vec<&str> = said.iter().map(String::as_str).collect();
        all.extend([end.as_str(), "[DONE]"]);
        events(&all)
    })
    .await;
    let cases: Vec<(&str, usize)> = WAYS
        .iter()
        .flat_map(|way| (0..WORDS.len()).map(|position| (*way, position)))
        .collect();
    // Each has its own upstream, so that its pauses are nobody else's.
    let mut configs = vec![whole.config("whole")];
    for (way, position) in &cases {
        let config = breaking.config(&format!("{way}-{position}"));
        let impatient = ", first_token_timeout_ms = 400, token_timeout_ms = 400 }";
        configs.push(config.replace(" }", impatient));
    }
    let setup = Setup::default()
        .set("upstreams", format!("[{}]", configs.join(", ")))
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let caller = Caller::new(&server);
    for (way, position) in cases {
        let name = format!("{way}-{position}");
        let body = json!({"name": "Fern", "model": name, "route": [name, "whole"]});
        let bot: Bot = caller.post("/v1/bots", &body).await.json();
        let mut device = Device::connect(&server).await;
        let session = device.open(bot.id).await.session;
        let end = device.ask(session, "count").await;
        let page = caller.transcript(session).await;
        let answers = page
            .messages
            .iter()
            .filter(|message| message.role == Role::Assistant);
        let answers: Vec<&str> = answers.map(|message| message.text.as_str()).collect();
        let usage: Value = caller
            .get(&format!("/v1/usage?by=session&session={session}"))
            .await
            .json();
        let attempts = usage["total"]["attempts"].as_u64().unwrap();
        if position == 0 || way == "repeats" {
            // Nothing was shown: another answers, or this one did.
            assert_eq!(end.unwrap().text, WORDS.concat(), "{name}");
            assert_eq!(answers, [WORDS.concat()], "{name}");
            assert!(page.ended.is_empty(), "{name}");
            assert_eq!(attempts, if way == "repeats" { 1 } else { 2 }, "{name}");
        } else {
            let Err(ReplyState::Failed { .. }) = end else {
                panic!("{name}: {end:?}")
            };
            assert!(answers.is_empty(), "{name}: {answers:?}");
            let texts: Vec<&str> = page.ended.iter().map(|ended| ended.text.as_str()).collect();
            assert_eq!(texts, [WORDS[..position].concat()], "{name}");
            assert_eq!(attempts, 1, "{name}");
        }
    }
}
