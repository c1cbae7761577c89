//! The ledger and budgets, from what an upstream says to what an administrator reads.

use std::time::Duration;

use hubbub_protocol::client::Stop;
use hubbub_protocol::usage::{UsageReport, UsageTotals};
use hubbub_protocol::{ClientFrame, ErrorCode, ReplyState, ServerFrame, SessionId};
use serde_json::{Value, json};

use crate::client::{Caller, Device};
use crate::scripted::{Script, Scripted, events, finish, refusal, text};
use crate::server::{Setup, TestServer, shared};
use crate::tenant::{json_beside, run_beside};

/// An event that counts what the request took until now.
fn counted(input: u64, cached: u64, output: u64) -> String {
    json!({"choices": [], "usage": {
        "prompt_tokens": input, "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": cached}
    }})
    .to_string()
}

/// Answers with 100 tokens read, 40 of them from a cache, and 7 written. What begins with "hang" never ends.
fn answer(request: &Value) -> Script {
    let said = request["messages"].as_array().unwrap().last().unwrap();
    if said["content"].as_str().unwrap().starts_with("hang") {
        let mut script = events(&[&text("Well, "), &counted(100, 0, 2)]);
        script.push((Duration::from_mins(10), String::new()));
        return script;
    }
    events(&[
        &text("Yes."),
        &finish("stop"),
        &counted(100, 40, 7),
        "[DONE]",
    ])
}

async fn server(upstreams: [(&str, &Scripted); 2]) -> TestServer {
    let upstreams = upstreams.map(|(name, upstream)| upstream.config(name));
    let upstreams = format!("[{}]", upstreams.join(", "));
    tokio::task::spawn_blocking(move || Setup::default().set("upstreams", upstreams).start())
        .await
        .unwrap()
}

fn run(server: &TestServer, arguments: &[&str]) -> String {
    let output = run_beside(server, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn usage(caller: &Caller, query: &str) -> UsageReport {
    let response = caller.get(&format!("/v1/usage{query}")).await;
    assert_eq!(response.status, 200, "{query}");
    response.json()
}

/// Asks, and stops the answer once some of it is there.
async fn ask_and_stop(device: &mut Device, session: SessionId) {
    device.say(session, "hang on").await.unwrap();
    device
        .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;
    // The count comes in a packet of its own.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stop = Stop {
        reference: None,
        session,
    };
    device.send(&ClientFrame::Stop(stop)).await.unwrap();
    assert!(matches!(
        device.reply_end().await,
        Err(ReplyState::Cancelled)
    ));
}

// R027, R028, R155
#[tokio::test]
async fn every_attempt_is_on_the_bill_and_a_budget_ends_it() {
    let failing = Scripted::start(|_, _| refusal(500, "{}")).await;
    let answering = Scripted::start(|_, request| answer(request)).await;
    let server = server([("one", &failing), ("two", &answering)]).await;
    // $1 a million tokens read, half of that from the cache, $4 a million written.
    let price = [
        "price",
        "set",
        "--upstream",
        "two",
        "--input",
        "1",
        "--cached-input",
        "0.5",
        "--output",
        "4",
    ];
    assert!(run(&server, &price).contains("two  all models  input 1.00000000"));
    let caller = Caller::new(&server);
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    for _ in 0..3 {
        let message = device.ask(session, "Is it?").await.unwrap();
        assert_eq!(message.usage.unwrap().cached_input_tokens, 40);
    }
    ask_and_stop(&mut device, session).await;

    let query = format!("?by=session&session={session}");
    let report = usage(&caller, &query).await;
    // Three of 60 x 100 + 40 x 50 + 7 x 400 micro-cents, and a stopped one of 100 x 100 + 2 x 400.
    let cost = 3 * (6_000 + 2_000 + 2_800) + 10_800;
    assert_eq!(report.total.cost_microcents, cost);
    assert_eq!(
        (report.total.input_tokens, report.total.output_tokens),
        (400, 23)
    );
    assert_eq!(
        (report.total.cached_input_tokens, report.total.estimated),
        (120, 0)
    );
    assert_eq!(
        (report.items.len(), report.items[0].totals),
        (1, report.total)
    );
    let by_model = usage(&caller, "?by=model").await;
    let failed = by_model
        .items
        .iter()
        .find(|item| item.key == "one/m")
        .unwrap();
    assert!(failed.totals.attempts > 0, "failed attempts are told too");
    assert_eq!(failed.totals.cost_microcents, 0);
    for by in ["tenant", "bot", "visitor", "day"] {
        let report = usage(&caller, &format!("?by={by}")).await;
        let sum = report
            .items
            .iter()
            .map(|item| item.totals)
            .fold(UsageTotals::default(), |a, b| a + b);
        assert_eq!(
            (report.total, sum),
            (by_model.total, by_model.total),
            "{by}"
        );
    }
    let csv = caller.get("/v1/usage?by=bot&format=csv").await;
    let line = format!("\"{}\",{}", server.demo.bot, by_model.total.attempts);
    assert!(
        csv.text.lines().nth(1).unwrap().starts_with(&line),
        "{}",
        csv.text
    );
    let told: UsageReport =
        serde_json::from_value(json_beside(&server, &["usage", "--json"])).unwrap();
    assert_eq!(told.total, by_model.total);

    // 43,200 micro-cents are spent. An answer may cost its prompt and 100 tokens.
    let tenant = server.demo.tenant.to_string();
    let budget = [
        "budget",
        "set",
        "--tenant",
        &tenant,
        "--period",
        "month",
        "--dollars",
    ];
    let id = run(&server, &[&budget[..], &["0.00050000"]].concat());
    let ended = device.ask(session, "Is it?").await.unwrap_err();
    let ReplyState::Failed { error } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(error.code, ErrorCode::QuotaExceeded);
    assert_eq!(answering.requests().len(), 4, "no model was asked");
    assert_eq!(run(&server, &[&budget[..], &["1"]].concat()), id);
    device.ask(session, "Is it?").await.unwrap();
    let listed = json_beside(&server, &["budget", "list", "--tenant", &tenant, "--json"]);
    assert_eq!(listed[0]["spent"], cost + 10_800);
    let table = run(&server, &["usage", "--tenant", &tenant, "--by", "bot"]);
    assert!(
        table.lines().last().unwrap().ends_with("0.00054000"),
        "{table}"
    );
    run(
        &server,
        &["budget", "remove", "--tenant", &tenant, id.trim()],
    );
}

#[tokio::test]
async fn usage_is_for_administrators_and_says_what_is_wrong_with_a_query() {
    let server = shared().await;
    let caller = Caller::new(server);
    let (_, token) = caller.visitor(server.demo.bot).await;
    let visitor = Caller::with(server, Some(&token));
    assert_eq!(
        visitor.get("/v1/usage").await.problem().code,
        ErrorCode::Forbidden
    );
    for (query, named) in [
        ("by=week", "by"),
        ("from=yesterday", "from"),
        ("limit=0", "limit"),
        ("from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("colour=red", "colour"),
        ("format=xml", "format"),
    ] {
        let problem = caller.get(&format!("/v1/usage?{query}")).await.problem();
        assert_eq!(problem.code, ErrorCode::Invalid, "{query}");
        let part = &problem.errors[0];
        assert_eq!(part.parameter.as_deref(), Some(named), "{query}: {part:?}");
    }
    let nobody = "019aa3c2-7c10-7a3e-9f52-1b2c3d4e5f60";
    for (arguments, said) in [
        (&["usage", "--by", "bot"][..], "name the tenant"),
        (&["usage", "--by", "week"], "must be one of"),
        (&["usage", "--tenant", nobody], "there is no tenant"),
        (
            &["budget", "list", "--tenant", nobody],
            "there is no tenant",
        ),
        (
            &[
                "price",
                "set",
                "--upstream",
                "x",
                "--input",
                "-1",
                "--output",
                "1",
            ],
            "input",
        ),
    ] {
        let output = run_beside(server, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(said),
            "{arguments:?}: {error}"
        );
    }
}
