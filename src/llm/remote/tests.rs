//! Against real sockets: what the upstream says is written byte by byte here.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hubbub_actors::ports::{
    ChatRequest, ChatTurn, Finish, TurnRole, Upstream, UpstreamError, UpstreamEvent,
};
use hubbub_protocol::Usage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::decoder::{Decoder, Events};
use super::*;
use crate::config::{Api, BaseUrl, Secret, UpstreamDialect, UpstreamTimeouts};

mod dialect;
mod refusals;
mod timeouts;

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const ANSWER: &str = concat!(
    ": hello\n\n",
    r#"data: {"id":"1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
    "\r\n\r\n",
    r#"data: {"model":"m-1","choices":[{"index":0,"delta":{"content":"Dobrý \"den\" "},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"choices":[{"delta":{"content":"🐎\n"}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

type Answered = Vec<Result<UpstreamEvent, UpstreamError>>;

fn config(base_url: BaseUrl) -> UpstreamConfig {
    UpstreamConfig {
        name: "test".into(),
        base_url,
        model: "default-model".into(),
        api_key: Some(Secret::new("sk-canary")),
        group: None,
        slots: 4..=4,
        context_tokens: 1_000,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_secs(2),
            first_token: Duration::from_secs(5),
            token: Duration::from_secs(5),
            answer: Duration::from_mins(1),
        },
        dialect: UpstreamDialect::default(),
    }
}

fn request() -> ChatRequest {
    let turn = |role, text: &str| ChatTurn {
        role,
        text: text.into(),
    };
    ChatRequest {
        model: None,
        turns: vec![
            turn(TurnRole::System, "be brief"),
            turn(TurnRole::User, "hi"),
        ],
        max_output_tokens: 64,
        request_id: "reply-1".into(),
    }
}

async fn listen() -> (TcpListener, UpstreamConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    (listener, config(BaseUrl::Http(url)))
}

/// Reads one request, head and body.
async fn read_request(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse::<usize>().unwrap() {
                return text;
            }
        }
        assert_ne!(
            socket.read_buf(&mut bytes).await.unwrap(),
            0,
            "no request: {text}"
        );
    }
}

/// Answers one request with these bytes and closes; what the upstream made of it.
async fn answered(response: Vec<u8>) -> Answered {
    let (listener, config) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        // The other side may have seen enough.
        drop(socket.write_all(&response).await);
        drop(socket.shutdown().await);
    });
    let answer = RemoteUpstream::new(config)
        .unwrap()
        .stream(request())
        .collect()
        .await;
    server.await.unwrap();
    answer
}

fn text(answer: &Answered) -> String {
    answer
        .iter()
        .filter_map(|event| match event {
            Ok(UpstreamEvent::Text(text)) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[expect(clippy::unnecessary_wraps, reason = "compared with items of a stream")]
fn finished() -> Result<UpstreamEvent, UpstreamError> {
    let usage = Some(Usage {
        input_tokens: 9,
        output_tokens: 3,
        estimated: false,
        cached_input_tokens: 0,
    });
    Ok(UpstreamEvent::Finished {
        finish: Finish::Complete,
        model: Some("m-1".into()),
        usage,
    })
}

#[test]
fn counts_in_mid_answer_are_told_unless_text_came_after_them() {
    let token = r#"data: {"choices":[{"delta":{"content":"a "}}]}"#;
    let counted = r#"data: {"choices":[{"delta":{"content":"b "}}],
data: "usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let usage = Usage {
        input_tokens: 9,
        output_tokens: 2,
        cached_input_tokens: 4,
        estimated: false,
    };
    let (mut decoder, mut events) = (Decoder::new(Api::OpenAi), Events::new());
    for (lines, expected) in [
        (vec![token], vec![UpstreamEvent::Text("a ".into())]),
        (
            vec![counted],
            vec![UpstreamEvent::Text("b ".into()), UpstreamEvent::Used(usage)],
        ),
        (
            vec![counted, token],
            vec![UpstreamEvent::Text("b a ".into())],
        ),
    ] {
        let bytes = lines.join("\n\n") + "\n\n";
        decoder.feed(bytes.as_bytes(), &mut events);
        let told: Vec<_> = events.drain(..).map(Result::unwrap).collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn an_answer_is_streamed_and_the_request_is_of_the_dialect() {
    let (listener, config) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let request = read_request(&mut socket).await;
        socket
            .write_all(format!("{HEAD}{ANSWER}").as_bytes())
            .await
            .unwrap();
        request
    });
    let answer: Answered = RemoteUpstream::new(config)
        .unwrap()
        .stream(request())
        .collect()
        .await;
    assert_eq!(text(&answer), "Dobrý \"den\" 🐎\n");
    assert_eq!(answer.last(), Some(&finished()));

    let request = server.await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("authorization: Bearer sk-canary\r\n"),
        "{head}"
    );
    assert!(head.contains("x-request-id: reply-1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "model": "default-model", "stream": true, "max_tokens": 64,
            "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
            ],
        })
    );
}

#[tokio::test]
async fn a_unix_socket_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let request = read_request(&mut socket).await;
        assert!(request.starts_with("POST /v1/chat/completions"));
        socket
            .write_all(format!("{HEAD}{ANSWER}").as_bytes())
            .await
            .unwrap();
    });
    let upstream = RemoteUpstream::new(config(BaseUrl::Unix(path))).unwrap();
    let answer: Answered = upstream.stream(request()).collect().await;
    assert_eq!(answer.last(), Some(&finished()));
    server.await.unwrap();
}

#[tokio::test]
async fn broken_answers_become_typed_errors() {
    let cut = Err(UpstreamError::Cut);
    let half = &ANSWER[..ANSWER.find("{\"choices\":[{\"delta\":{},").unwrap()];
    let answer = answered(format!("{HEAD}{half}").into_bytes()).await;
    assert_eq!(text(&answer), "Dobrý \"den\" 🐎\n", "what was said is told");
    assert_eq!(answer.last(), Some(&cut), "half a stream");

    let answer = answered(format!("{HEAD}data: {{\"choi\n\n").into_bytes()).await;
    assert_eq!(answer, [Err(UpstreamError::Garbage)], "not JSON");
    let answer = answered([HEAD.as_bytes(), b"data: \xff\n\n"].concat()).await;
    assert_eq!(
        answer.last(),
        Some(&Err(UpstreamError::Garbage)),
        "not UTF-8"
    );
    let endless = format!("{HEAD}data: {}", "x".repeat(2 * 1024 * 1024));
    assert_eq!(
        answered(endless.into_bytes()).await,
        [Err(UpstreamError::Garbage)],
        "an endless line"
    );
    assert_eq!(
        answered(HEAD.into()).await,
        [Err(UpstreamError::Cut)],
        "nothing"
    );

    let error = "data: {\"error\":{\"message\":\"secret\"}}\n\n";
    let answer = answered(format!("{HEAD}{error}{ANSWER}").into_bytes()).await;
    assert_eq!(answer, [Err(UpstreamError::Failed)]);

    let chunked = HEAD.replace("connection: close", "transfer-encoding: chunked");
    let answer = answered(format!("{chunked}ff\r\ndata: ").into_bytes()).await;
    assert_eq!(
        answer,
        [Err(UpstreamError::Unreachable)],
        "the connection broke"
    );
}

#[tokio::test]
async fn an_answer_without_done_is_complete_after_its_finish_reason() {
    let without = ANSWER.replace("data: [DONE]\n\n", "");
    let answer = answered(format!("{HEAD}{without}").into_bytes()).await;
    assert_eq!(answer.last(), Some(&finished()));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let (listener, config) = listen().await;
    drop(listener);
    let upstream = RemoteUpstream::new(config).unwrap();
    let answer: Answered = upstream.stream(request()).collect().await;
    assert_eq!(answer, [Err(UpstreamError::Unreachable)]);
}

#[tokio::test]
async fn dropping_the_stream_closes_the_request() {
    let (listener, config) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        let token = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        socket
            .write_all(format!("{HEAD}{token}").as_bytes())
            .await
            .unwrap();
        // 0 is the end of what the client sends: it hung up.
        socket.read(&mut [0; 16]).await
    });
    let mut stream = RemoteUpstream::new(config).unwrap().stream(request());
    assert_eq!(
        stream.next().await,
        Some(Ok(UpstreamEvent::Text("a".into())))
    );
    drop(stream);
    let end = tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

async fn write_chunk(socket: &mut TcpStream, data: &str) {
    let chunk = format!("{:x}\r\n{data}\r\n", data.len());
    socket.write_all(chunk.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn connections_are_used_again() {
    let (listener, config) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_request(&mut socket).await;
            let head = HEAD.replace("connection: close", "transfer-encoding: chunked");
            socket.write_all(head.as_bytes()).await.unwrap();
            write_chunk(&mut socket, ANSWER).await;
            socket.write_all(b"0\r\n\r\n").await.unwrap();
        }
    });
    let upstream = RemoteUpstream::new(config).unwrap();
    for _ in 0..3 {
        let answer: Answered = upstream.stream(request()).collect().await;
        assert_eq!(answer.last(), Some(&finished()));
    }
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_of_10_megabytes_is_not_buffered() {
    const EVENTS: usize = 10 * 1024;
    let (listener, config) = listen().await;
    let (written, progress) = tokio::sync::watch::channel(0_usize);
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        socket.write_all(HEAD.as_bytes()).await.unwrap();
        let text = "x".repeat(1_024);
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        for count in 1..=EVENTS {
            socket.write_all(event.as_bytes()).await.unwrap();
            written.send_replace(count);
        }
        socket.write_all(b"data: [DONE]\n\n").await.unwrap();
    });
    let mut stream = RemoteUpstream::new(config).unwrap().stream(request());
    assert!(matches!(
        stream.next().await,
        Some(Ok(UpstreamEvent::Text(_)))
    ));
    // Nobody reads now: the writer must come to a stop before its end, held by the sockets' buffers.
    let mut seen = 0;
    while *progress.borrow() != seen {
        seen = *progress.borrow();
        drop(tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await);
    }
    assert!(
        seen < EVENTS * 8 / 10,
        "{seen} of {EVENTS} events were taken while nobody read"
    );
    let rest: Answered = stream.collect().await;
    assert!(matches!(
        rest.last(),
        Some(Ok(UpstreamEvent::Finished { .. }))
    ));
    let largest = rest.iter().map(|event| match event {
        Ok(UpstreamEvent::Text(text)) => text.len(),
        _ => 0,
    });
    assert!(largest.max().unwrap() < 1024 * 1024);
    server.await.unwrap();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn decoding_a_token_costs_little() {
    let event = concat!(
        r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"#,
        r#""model":"gpt-4.1-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"#,
        r#""delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#,
        "\n\n",
    );
    let (mut decoder, mut events) = (Decoder::new(Api::OpenAi), Events::new());
    let begin = Instant::now();
    for _ in 0..100_000 {
        decoder.feed(event.as_bytes(), &mut events);
        assert!(matches!(
            events.pop_front(),
            Some(Ok(UpstreamEvent::Text(_)))
        ));
    }
    let each = begin.elapsed() / 100_000;
    println!("decoding a token takes {each:?}");
    // 25,000 tokens a second within a tenth of a core is 4 µs; a busy machine may be thrice as slow.
    assert!(each < Duration::from_micros(12), "{each:?}");
}
