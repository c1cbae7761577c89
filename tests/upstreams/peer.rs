//! An upstream that serves the shapes: the model that a request asks for is the name of one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::shape::{After, Shape};

/// A running one; stops when dropped.
pub struct Peer {
    /// For the configuration.
    pub base_url: String,
    requests: Arc<Mutex<BTreeMap<String, u32>>>,
    serving: JoinHandle<()>,
}

impl Peer {
    /// Serves these on a port of its own.
    pub async fn start(shapes: &[Shape]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shapes: Arc<BTreeMap<String, Shape>> = Arc::new(
            shapes
                .iter()
                .map(|shape| (shape.name.clone(), shape.clone()))
                .collect(),
        );
        let requests = Arc::new(Mutex::new(BTreeMap::new()));
        let counts = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, Arc::clone(&shapes), Arc::clone(&counts)));
            }
        });
        Self {
            base_url,
            requests,
            serving,
        }
    }

    /// How many requests asked for this shape.
    pub fn requests(&self, name: &str) -> u32 {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.get(name).copied().unwrap_or(0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request: read, answered, and the connection ended as the shape says.
async fn serve(
    mut socket: TcpStream,
    shapes: Arc<BTreeMap<String, Shape>>,
    requests: Arc<Mutex<BTreeMap<String, u32>>>,
) {
    let Some(model) = read_model(&mut socket).await else {
        return;
    };
    *requests.lock().unwrap().entry(model.clone()).or_default() += 1;
    let shape = &shapes[&model];
    let mut head = format!("HTTP/1.1 {} Shape\r\nconnection: close\r\n", shape.status);
    for header in &shape.headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let response = [head.as_bytes(), &shape.body].concat();
    // Who has seen enough hangs up.
    if socket.write_all(&response).await.is_err() {
        return;
    }
    match shape.after {
        After::Close => drop(socket.shutdown().await),
        After::Reset => {
            // What is sent must be read before the reset, or it is lost with the connection.
            tokio::time::sleep(Duration::from_millis(200)).await;
            socket2::SockRef::from(&socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }
}

async fn read_model(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<serde_json::Value>(body)
        {
            return body["model"].as_str().map(str::to_owned);
        }
    }
}
