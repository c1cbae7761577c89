//! Floods over HTTP.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use hubbub_protocol::SessionId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::attack::{Outcome, Stop, Target};

/// Twenty at once, each every 40 ms: 2,400 in five seconds.
const WORKERS: usize = 20;
const POST_EVERY: Duration = Duration::from_millis(40);

/// Ten at once, a hundred a second.
const BOMB_WORKERS: usize = 10;
const BOMB_EVERY: Duration = Duration::from_millis(100);

/// Bodies that are begun and not ended, and how soon another takes the place of one that was refused.
const HALF_POSTS: usize = 1_200;
const COME_BACK: Duration = Duration::from_secs(1);

/// Messages in sessions of its own.
pub async fn posts(target: Target, stop: Stop) -> Outcome {
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", target.address);
    let worker = || async {
        let mut outcome = Outcome::default();
        let mut session = None::<SessionId>;
        let mut turns = tokio::time::interval(POST_EVERY);
        while !stop.is_told() {
            turns.tick().await;
            let (url, body) = match session {
                Some(session) => (
                    url(&format!("/v1/sessions/{session}/messages")),
                    json!({"text": "and?"}),
                ),
                None => (url("/v1/sessions"), json!({"bot": target.bot})),
            };
            let posting = client.post(url).bearer_auth(&target.token).json(&body);
            let Ok(answer) = posting.send().await else {
                outcome.closed += 1;
                continue;
            };
            match answer.status().as_u16() {
                201 if session.is_none() => {
                    let opened: Value = answer.json().await.unwrap();
                    session = opened["id"].as_str().unwrap().parse().ok();
                }
                201 => outcome.taken += 1,
                429 | 503 => outcome.told += 1,
                other => panic!("{other}"),
            }
        }
        outcome
    };
    sum(join_all((0..WORKERS).map(|_| worker())).await)
}

/// Tickets for the widget, as fast as they come.
pub async fn tickets(target: Target, stop: Stop) -> Outcome {
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/widget/{}/tickets", target.address, target.bot);
    let mut outcome = Outcome::default();
    while !stop.is_told() {
        let body = json!({"visitor_token": target.token});
        match client.post(&url).json(&body).send().await {
            Ok(answer) if answer.status() == 201 => outcome.taken += 1,
            Ok(_) => outcome.told += 1,
            Err(_) => outcome.closed += 1,
        }
    }
    outcome
}

/// Posts to the public route of 50 KB that unpack to 50 MB.
pub async fn bombs(target: Target, stop: Stop) -> Outcome {
    let bomb = zipped_zeros();
    assert!(bomb.len() < 64 * 1024);
    let url = format!("http://{}/v1/widget/{}/tickets", target.address, target.bot);
    let client = reqwest::Client::new();
    let worker = || async {
        let mut outcome = Outcome::default();
        let mut turns = tokio::time::interval(BOMB_EVERY);
        while !stop.is_told() {
            turns.tick().await;
            let post = client
                .post(&url)
                .header("content-type", "application/json")
                .header("content-encoding", "gzip")
                .body(bomb.clone());
            match post.send().await {
                Ok(answer) if answer.status().is_client_error() => outcome.told += 1,
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => outcome.closed += 1,
            }
        }
        outcome
    };
    sum(join_all((0..BOMB_WORKERS).map(|_| worker())).await)
}

fn zipped_zeros() -> Vec<u8> {
    let zip = Command::new("sh")
        .args(["-c", "head -c 50000000 /dev/zero | gzip -9"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(zip.status.success(), "{zip:?}");
    zip.stdout
}

/// Posts to the public route whose bodies are announced and do not come.
pub async fn half_posts(target: Target, stop: Stop) -> Outcome {
    let head = format!(
        "POST /v1/widget/{}/tickets HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 10000\r\n\r\n{{",
        target.bot, target.address
    );
    let one = |n: usize| {
        let (target, stop, head) = (&target, &stop, &head);
        async move {
            let mut outcome = Outcome::default();
            // Not all at the same moment: the kernel would drop what it cannot queue.
            tokio::time::sleep(Duration::from_millis(u64::try_from(n).unwrap())).await;
            while !stop.is_told() {
                let Ok(mut stream) = TcpStream::connect(target.address).await else {
                    outcome.closed += 1;
                    continue;
                };
                let _closed = stream.write_all(head.as_bytes()).await;
                let mut answer = [0; 12];
                tokio::select! {
                    read = stream.read(&mut answer) => match read {
                        Ok(read) if read > 0 => outcome.told += 1,
                        _ => outcome.closed += 1,
                    },
                    () = stop.told() => {}
                }
                tokio::time::sleep(COME_BACK).await;
            }
            outcome
        }
    };
    sum(join_all((0..HALF_POSTS).map(one)).await)
}

fn sum(outcomes: Vec<Outcome>) -> Outcome {
    let mut sum = Outcome::default();
    for outcome in outcomes {
        sum.add(&outcome);
    }
    sum
}
