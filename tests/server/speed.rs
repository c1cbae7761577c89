//! Answers are as fast as whoever reads them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Caller, in_time};
use crate::server::shared;

/// How long as many bytes take over a bare socket.
async fn bare(bytes: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (reader, accepted) = tokio::join!(connecting, listener.accept());
    let (mut reader, mut writer) = (reader.unwrap(), accepted.unwrap().0);
    let started = Instant::now();
    let sending = async move { writer.write_all(&vec![7; bytes]).await };
    let mut received = Vec::with_capacity(bytes);
    let (sent, _) = tokio::join!(sending, reader.read_to_end(&mut received));
    sent.unwrap();
    started.elapsed()
}

// H24
#[tokio::test]
async fn a_large_answer_comes_as_fast_as_it_is_read() {
    let server = shared().await;
    let caller = Caller::new(server);
    let session = crate::http::open(&caller, caller.bot(&[]).await).await;
    let path = format!("/v1/sessions/{session}/messages");
    // Six bytes of JSON each, so that a page of half a megabyte of text is 3 MB.
    let text = "\u{1}".repeat(15_000);
    for _ in 0..35 {
        let posted = caller.post(&path, &json!({"text": text})).await;
        assert_eq!(posted.status, 201, "{posted:?}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET {path}?limit=200 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        server.demo.api_key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1];
    in_time(stream.read_exact(&mut answer)).await.unwrap();
    let started = Instant::now();
    in_time(stream.read_to_end(&mut answer)).await.unwrap();
    let took = started.elapsed();
    assert!(answer.len() > 2_800_000, "{}", answer.len());
    let bare = bare(answer.len()).await;
    println!(
        "{} bytes in {took:?}, over a bare socket {bare:?}",
        answer.len()
    );
    // It took 2 s, a thousand times as long as a bare socket. The allowance is for a busy machine.
    assert!(
        took < bare * 20 + Duration::from_millis(400),
        "{took:?}, {bare:?}"
    );
}
