//! Methods of a path: those it has, HEAD and OPTIONS, and the others.

use hubbub_protocol::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Caller, Response, in_time};
use crate::server::{TestServer, shared};

async fn ask(server: &TestServer, method: &str, path: &str) -> Response {
    let caller = Caller::new(server);
    Caller::try_send(caller.request(method, path))
        .await
        .unwrap()
}

/// Every path that answers GET without an upgrade.
async fn readable(server: &TestServer) -> Vec<String> {
    let bot = server.demo.bot;
    let session = crate::http::open(&Caller::new(server), bot).await;
    let mut paths: Vec<String> = ["/livez", "/readyz", "/metrics", "/version", "/"]
        .into_iter()
        .chain(["/demo/demo.css", "/widget.js", "/v1/bots", "/v1/sessions"])
        .map(str::to_owned)
        .collect();
    paths.push(format!("/widget/{bot}"));
    paths.push(format!("/v1/bots/{bot}"));
    paths.push(format!("/v1/sessions/{session}"));
    paths.push(format!("/v1/sessions/{session}/messages"));
    // What is not there is not there for HEAD either.
    paths.push("/nothing".to_owned());
    paths.push(format!("/v1/bots/{session}"));
    paths
}

// H1
#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = shared().await;
    for path in readable(server).await {
        let (got, head) = (
            ask(server, "GET", &path).await,
            ask(server, "HEAD", &path).await,
        );
        assert_eq!(head.status, got.status, "{path}");
        assert_eq!(head.text, "", "{path}");
        assert_eq!(
            head.headers.get("content-type"),
            got.headers.get("content-type"),
            "{path}"
        );
        // What a scrape or a list says may have grown meanwhile.
        if got.status == 200 && path != "/metrics" && !path.starts_with("/v1") {
            assert_eq!(
                head.headers["content-length"].to_str().unwrap(),
                got.text.len().to_string(),
                "{path}"
            );
        }
    }
}

// H1: not one byte of the body is sent, or it would be taken for the next answer.
#[tokio::test]
async fn the_connection_goes_on_behind_a_head() {
    let server = shared().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let two = b"HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(two).await.unwrap();
    let mut answers = Vec::new();
    in_time(stream.read_to_end(&mut answers)).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let (_, behind) = answers.split_once("\r\n\r\n").unwrap();
    assert!(behind.starts_with("HTTP/1.1 200"), "{answers}");
    assert!(behind.ends_with(r#"{"live":true}"#), "{answers}");
}

// H1
#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let server = shared().await;
    let (bot, session) = (server.demo.bot, hubbub_protocol::SessionId::generate());
    let readable = "GET, HEAD, OPTIONS";
    for (method, path, allow) in [
        ("POST", "/livez".to_owned(), readable),
        ("DELETE", "/readyz".to_owned(), readable),
        ("PUT", "/metrics".to_owned(), readable),
        ("POST", "/widget.js".to_owned(), readable),
        ("BREW", "/version".to_owned(), readable),
        ("PUT", "/v1/bots".to_owned(), "GET, HEAD, POST, OPTIONS"),
        (
            "DELETE",
            format!("/v1/bots/{bot}"),
            "GET, HEAD, PATCH, OPTIONS",
        ),
        ("POST", format!("/v1/sessions/{session}"), readable),
        (
            "PATCH",
            format!("/v1/sessions/{session}/messages"),
            "GET, HEAD, POST, OPTIONS",
        ),
        ("GET", "/v1/tickets".to_owned(), "POST, OPTIONS"),
        ("HEAD", "/v1/tickets".to_owned(), "POST, OPTIONS"),
        // It would use a ticket up, for nothing.
        ("HEAD", "/v1/connect".to_owned(), "GET, OPTIONS"),
    ] {
        let refused = ask(server, method, &path).await;
        assert_eq!(refused.status, 405, "{method} {path}: {refused:?}");
        assert_eq!(refused.headers["allow"], allow, "{method} {path}");
        if method != "HEAD" {
            assert_eq!(refused.problem().code, ErrorCode::MethodNotAllowed);
        }
    }
    let nowhere = ask(server, "DELETE", "/nothing").await;
    assert_eq!(nowhere.problem().code, ErrorCode::NotFound);
    // Who is asking comes first.
    let stranger = Caller::with(server, None);
    let refused = Caller::try_send(stranger.request("DELETE", "/v1/bots")).await;
    assert_eq!(refused.unwrap().status, 401);
}

// H1
#[tokio::test]
async fn options_tells_the_methods_of_a_path() {
    let server = shared().await;
    let told = ask(server, "OPTIONS", "/livez").await;
    assert_eq!((told.status, told.text.as_str()), (204, ""));
    assert_eq!(told.headers["allow"], "GET, HEAD, OPTIONS");
    let told = ask(server, "OPTIONS", "/v1/bots").await;
    assert_eq!(told.headers["allow"], "GET, HEAD, POST, OPTIONS");
    assert_eq!(ask(server, "OPTIONS", "/nothing").await.status, 404);
}
