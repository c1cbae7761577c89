//! An upstream that gives bytes it was told to give, and keeps what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What one request is answered with: a pause, then bytes, and so on; then the connection is closed.
pub type Script = Vec<(Duration, String)>;

/// The upstream. Ends when dropped.
pub struct Scripted {
    /// Up to and without `/chat/completions`.
    pub base_url: String,
    requests: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Answers the n-th request, from 0, with `script(n, its body)`.
    pub async fn start(script: impl Fn(usize, &Value) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let (seen, script) = (requests.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, script) = (seen.clone(), script.clone());
                tokio::spawn(async move {
                    let _gone = serve(socket, &seen, &*script).await;
                });
            }
        });
        Self {
            base_url,
            requests,
            task,
        }
    }

    /// Bodies of the requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }

    /// As an element of `upstreams` in the configuration.
    pub fn config(&self, name: &str) -> String {
        format!(
            "{{ name = \"{name}\", base_url = \"{}\", model = \"m\" }}",
            self.base_url
        )
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A refusal with that status.
pub fn refusal(status: u16, body: &str) -> Script {
    let head = format!(
        "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    vec![(Duration::ZERO, head + body)]
}

/// A stream of these events, then the end of the connection.
pub fn events(events: &[&str]) -> Script {
    let mut script = vec![(
        Duration::ZERO,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            .to_owned(),
    )];
    let lines = events.iter().map(|event| format!("data: {event}\n\n"));
    script.extend(lines.map(|line| (Duration::ZERO, line)));
    script
}

/// An event with a piece of text.
pub fn text(piece: &str) -> String {
    serde_json::json!({"choices": [{"delta": {"content": piece}}]}).to_string()
}

/// An event with a reason to finish.
pub fn finish(reason: &str) -> String {
    serde_json::json!({"choices": [{"delta": {}, "finish_reason": reason}]}).to_string()
}

async fn serve(
    mut socket: TcpStream,
    seen: &Mutex<Vec<Value>>,
    script: &(impl Fn(usize, &Value) -> Script + ?Sized),
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let body = loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        if body.len() >= length {
            break serde_json::from_str(body).unwrap();
        }
    };
    let script = {
        let mut seen = seen.lock().unwrap();
        let script = script(seen.len(), &body);
        seen.push(body);
        script
    };
    for (pause, bytes) in script {
        tokio::time::sleep(pause).await;
        socket.write_all(bytes.as_bytes()).await?;
    }
    socket.shutdown().await
}
