//! What is sent, as configured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::config::{ApiKeyHeader, OutputBound};

/// The requests that an upstream with this dialect gets, head and body, while it gives these responses.
async fn requests(
    dialect: UpstreamDialect,
    responses: &[&str],
) -> (Vec<(String, Value)>, Answered) {
    let (listener, mut config) = listen().await;
    config.dialect = dialect;
    let responses: Vec<String> = responses.iter().map(ToString::to_string).collect();
    let server = tokio::spawn(async move {
        let mut requests = Vec::new();
        for response in responses {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = read_request(&mut socket).await;
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            requests.push((head.to_owned(), serde_json::from_str(body).unwrap()));
            socket.write_all(response.as_bytes()).await.unwrap();
            drop(socket.shutdown().await);
        }
        requests
    });
    let upstream = RemoteUpstream::new(config).unwrap();
    let answer = upstream.stream(request()).collect().await;
    (server.await.unwrap(), answer)
}

// M11
#[tokio::test]
async fn requests_are_written_as_their_upstream_takes_them() {
    let dialect = UpstreamDialect {
        output_bound: OutputBound::MaxCompletionTokens,
        stream_options: false,
        extra_body: json!({"temperature": 0.5, "stop": ["\n"]})
            .as_object()
            .unwrap()
            .clone(),
        headers: BTreeMap::from([("x-title".to_owned(), Secret::new("Hubbub"))]),
        query: Some(Secret::new("api-version=2024-10-21")),
        api_key_header: ApiKeyHeader::Plain("api-key".to_owned()),
        ..UpstreamDialect::default()
    };
    let (requests, answer) = requests(dialect, &[&format!("{HEAD}{ANSWER}")]).await;
    assert_eq!(answer.last(), Some(&finished()));
    let (head, body) = &requests[0];
    assert!(
        head.starts_with("POST /v1/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\napi-key: sk-canary"), "{head}");
    assert!(head.contains("\r\nx-title: Hubbub"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    let expected = json!({
        "model": "default-model", "stream": true, "max_completion_tokens": 64,
        "temperature": 0.5, "stop": ["\n"],
        "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
        ],
    });
    assert_eq!(*body, expected);
}

// M11
#[tokio::test]
async fn no_bound_is_sent_where_none_is_wanted() {
    let dialect = UpstreamDialect {
        output_bound: OutputBound::None,
        ..UpstreamDialect::default()
    };
    let (requests, _) = requests(dialect, &[&format!("{HEAD}{ANSWER}")]).await;
    let body = &requests[0].1;
    assert!(body.get("max_tokens").is_none() && body.get("max_completion_tokens").is_none());
}

// M11
#[tokio::test]
async fn the_field_that_bounds_an_answer_is_learnt_from_a_refusal() {
    let refusal = |field: &str| {
        let body = json!({"error": {
            "message": format!("Unsupported parameter: '{field}' is not supported with this model."),
            "code": "unsupported_parameter",
        }});
        let body = body.to_string();
        format!(
            "HTTP/1.1 400 Bad\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = format!("{HEAD}{ANSWER}");
    let (seen, answered) = requests(
        UpstreamDialect::default(),
        &[&refusal("max_tokens"), &answer],
    )
    .await;
    assert_eq!(answered.last(), Some(&finished()));
    assert_eq!(
        (
            &seen[0].1["max_tokens"],
            &seen[1].1["max_completion_tokens"]
        ),
        (&json!(64), &json!(64))
    );
    assert!(seen[1].1.get("max_tokens").is_none());

    // Where it is configured, it is not guessed.
    let fixed = UpstreamDialect {
        output_bound: OutputBound::MaxTokens,
        ..UpstreamDialect::default()
    };
    let (seen, answered) = requests(fixed, &[&refusal("max_tokens")]).await;
    assert_eq!(
        (seen.len(), answered),
        (1, vec![Err(UpstreamError::Misconfigured)])
    );
}
