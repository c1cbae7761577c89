//! What becomes of responses that are no answer, and what the log says of them.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::*;

#[tokio::test]
async fn statuses_become_typed_errors() {
    let wait = |ms| UpstreamError::Busy(Some(Duration::from_millis(ms)));
    for (status, headers, expected) in [
        ("429 Slow", "retry-after: 3\r\n", wait(3_000)),
        (
            "429 Slow",
            "retry-after: 3\r\nretry-after-ms: 250\r\n",
            wait(250),
        ),
        ("503 Full", "retry-after: -1\r\n", UpstreamError::Busy(None)),
        ("503 Full", "", UpstreamError::Busy(None)),
        ("529 Full", "", UpstreamError::Busy(None)),
        (
            "429 Slow",
            "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:20 GMT\r\n",
            wait(20_000),
        ),
        (
            "429 Slow",
            "retry-after: 1e300\r\n",
            UpstreamError::Busy(None),
        ),
        ("400 Bad", "", UpstreamError::Refused),
        // M9
        ("401 Who", "", UpstreamError::Misconfigured),
        ("404 What", "", UpstreamError::Misconfigured),
        (
            "302 Found",
            "location: http://169.254.169.254/\r\n",
            UpstreamError::Misconfigured,
        ),
        ("500 Oh", "", UpstreamError::Failed),
        ("502 Oh", "", UpstreamError::Failed),
        ("504 Oh", "", UpstreamError::TimedOut),
        (
            "200 OK",
            "content-encoding: gzip\r\n",
            UpstreamError::Misconfigured,
        ),
        // Nothing that is known: it may be the beginning of an answer.
        (
            "200 OK",
            "content-type: application/json\r\n",
            UpstreamError::Cut,
        ),
    ] {
        let response = format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\n\r\n{{}}");
        let answer = answered(response.into_bytes()).await;
        assert_eq!(answer, [Err(expected)], "{status} {headers}");
    }
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    assert_eq!(answered(empty).await, [Err(UpstreamError::Garbage)]);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the log says, as JSON, of a request that is answered like this.
async fn logged(response: &str) -> Vec<serde_json::Value> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    drop(answered(response.as_bytes().to_vec()).await);
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

// H12, M9
#[tokio::test]
async fn a_refusal_is_one_warning_with_the_status_and_the_words_of_the_upstream() {
    let body = r#"{"error":{"message":"Incorrect API key provided: sk-canary\nfor: be brief, hi","type":"invalid_request_error","code":"invalid_api_key"}}"#;
    let length = body.len();
    let response = format!("HTTP/1.1 401 No\r\ncontent-length: {length}\r\n\r\n{body}");
    let lines = logged(&response).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["upstream"], "test");
    assert_eq!(line["outcome"], "misconfigured");
    assert_eq!(line["status"], 401);
    let said = line["said"].as_str().unwrap();
    assert!(
        said.starts_with("invalid_api_key invalid_request_error: Incorrect API key provided: ***"),
        "{said}"
    );
    assert!(!line.to_string().contains("canary"), "{line}");
}

// H12, M14
#[tokio::test]
async fn an_answer_that_is_none_is_one_warning_with_its_beginning() {
    let page = "<!DOCTYPE html>\n<title>Sign in</title>\n";
    let response = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n{page}");
    let lines = logged(&response).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0]["outcome"], "misconfigured");
    let said = lines[0]["said"].as_str().unwrap();
    assert!(
        said.contains("a page") && said.contains("<!DOCTYPE html>"),
        "{said}"
    );

    let error = "data: {\"error\":{\"message\":\"CUDA out of memory\",\"code\":500}}\n\n";
    let lines = logged(&format!("{HEAD}{error}")).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0]["said"], "500: CUDA out of memory");
}
