//! An upstream whose answer depends on the question: a few quick words, or none.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A question with this word is thought about and never answered.
pub const THINK: &str = "ponder";
/// A question with this word gets an end and nothing before it.
pub const NOTHING: &str = "silence";

const NEXT_WORD: Duration = Duration::from_millis(5);
const WORDS: usize = 12;

/// Starts it on a thread of its own, which ends with the process; its base URL. The first word comes after
/// so long.
pub fn start(first_word: Duration) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, first_word));
            }
        });
    });
    url
}

async fn answer(mut stream: TcpStream, first_word: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let question = read(&mut stream).await?;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    tokio::time::sleep(first_word).await;
    let (delta, reason) = if question.contains(THINK) {
        (
            Some(r#"{"content":null,"reasoning_content":"hm"}"#),
            "length",
        )
    } else if question.contains(NOTHING) {
        (None, "stop")
    } else {
        (Some(r#"{"content":"word "}"#), "stop")
    };
    for _ in 0..WORDS {
        let Some(delta) = delta else { break };
        let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
        stream
            .write_all(format!("data: {chunk}\n\n").as_bytes())
            .await?;
        tokio::time::sleep(NEXT_WORD).await;
    }
    let end = format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
    let end = format!("data: {end}\n\ndata: [DONE]\n\n");
    stream.write_all(end.as_bytes()).await
}

/// The last question of a request.
async fn read(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let turns = body["messages"].as_array().unwrap();
            return Ok(turns.last().unwrap()["content"].to_string());
        }
    }
}
