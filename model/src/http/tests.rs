use super::*;
use crate::engine::testing::ScriptedEngine;
use crate::sampling::SamplingConfig;
use actix_web::body::to_bytes;
use actix_web::http::StatusCode;
use actix_web::{App, test};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

fn state(engine: ScriptedEngine, queue_timeout: Duration) -> Data<HttpState> {
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let workers = Workers::start(&engine, 1, 1).unwrap();
    Data::new(HttpState {
        engine,
        workers,
        queue_timeout,
    })
}

fn saying(answer: &str) -> Data<HttpState> {
    state(ScriptedEngine::saying(answer), Duration::from_secs(30))
}

/// A request body with more fields than the two it needs.
fn body(more: &Value) -> Vec<u8> {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string().into_bytes()
}

async fn post(state: &Data<HttpState>, body: Vec<u8>) -> HttpResponse {
    let app = test::init_service(App::new().app_data(state.clone()).configure(routes)).await;
    let request = test::TestRequest::post()
        .uri("/v1/chat/completions")
        .set_payload(body)
        .to_request();
    test::call_service(&app, request)
        .await
        .into_parts()
        .1
        .map_into_boxed_body()
}

async fn text(response: HttpResponse) -> String {
    String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
}

async fn json_of(response: HttpResponse) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[actix_web::test]
async fn whole_answer_has_text_reason_and_usage() {
    let response = post(&saying("Grüß Gott"), body(&json!({}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let value = json_of(response).await;
    assert_eq!(value["object"], "chat.completion");
    assert_eq!(value["choices"][0]["message"]["content"], "Grüß Gott");
    assert_eq!(value["choices"][0]["finish_reason"], "stop");
    let usage = &value["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + 12
    );
}

#[actix_web::test]
async fn stream_is_opening_deltas_closing_usage_and_done() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = post(&saying("añb"), body(&options)).await;
    assert_eq!(
        response.headers().get("content-type").unwrap(),
        "text/event-stream; charset=utf-8"
    );
    let text = text(response).await;
    let events: Vec<&str> = text
        .split_terminator("\n\n")
        .map(|e| e.strip_prefix("data: ").unwrap())
        .collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect();
    let delta = |chunk: &Value| chunk["choices"][0]["delta"].clone();
    assert_eq!(
        delta(&chunks[0]),
        json!({"role": "assistant", "content": ""})
    );
    let said: Vec<Value> = chunks[1..4]
        .iter()
        .map(|c| delta(c)["content"].clone())
        .collect();
    assert_eq!(said, [json!("a"), json!("ñ"), json!("b")]);
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"]["completion_tokens"], 5);
    assert_eq!(chunks.len(), 6);
}

#[actix_web::test]
async fn limit_of_tokens_is_told() {
    let value = json_of(post(&saying("abcdef"), body(&json!({"max_tokens": 2}))).await).await;
    assert_eq!(value["choices"][0]["message"]["content"], "ab");
    assert_eq!(value["choices"][0]["finish_reason"], "length");
}

#[actix_web::test]
async fn wrong_requests_get_openais_error_object() {
    let state = saying("x");
    let long = json!({"messages": [{"role": "user", "content": "a".repeat(500)}]});
    let cases = [
        (b"{".to_vec(), 400, Value::Null, Value::Null),
        (
            body(&json!({"messages": []})),
            400,
            json!("messages"),
            Value::Null,
        ),
        (
            body(&json!({"messages": [{"role": "wizard", "content": "a"}]})),
            400,
            json!("messages"),
            Value::Null,
        ),
        (
            long.to_string().into_bytes(),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
        ),
        (vec![b' '; BODY_LIMIT + 1], 413, Value::Null, Value::Null),
    ];
    for (body, status, param, code) in cases {
        let response = post(&state, body).await;
        assert_eq!(response.status().as_u16(), status);
        let error = json_of(response).await["error"].clone();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&param, &code),
            "{error}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
}

#[actix_web::test]
async fn other_addresses_and_methods_are_refused_and_health_and_models_answer() {
    let app = App::new().app_data(saying("x")).configure(routes);
    let app = test::init_service(app).await;
    for (uri, status) in [
        ("/health", 200),
        ("/v1/models", 200),
        ("/v1/chat/completions", 405),
        ("/v2", 404),
    ] {
        let response =
            test::call_service(&app, test::TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status().as_u16(), status, "{uri}");
        let value: Value = test::read_body_json(response).await;
        assert_eq!(value.get("error").is_some(), status >= 400, "{uri}");
    }
}

/// Fills the one worker and the one place in the queue; both answers stay open.
async fn occupied(
    state: &Data<HttpState>,
) -> (HttpResponse, impl Future<Output = HttpResponse> + use<>) {
    let streamed = body(&json!({"stream": true}));
    let first = post(state, streamed.clone()).await;
    assert_eq!(first.status(), StatusCode::OK);
    let state = state.clone();
    (first, async move { post(&state, streamed).await })
}

#[actix_web::test]
async fn full_queue_is_answered_503_with_a_time_to_come_back() {
    let (engine, permits) = ScriptedEngine::gated("abc");
    let state = state(engine, Duration::from_secs(30));
    let stream = json!({"stream": true});
    let first = post(&state, body(&stream)).await;
    let sampling = SamplingConfig {
        temperature: 0.0,
        top_p: 1.0,
        seed: 1,
    };
    let (events, mut second) = mpsc::channel(event_capacity(9));
    let job = Job {
        prompt: vec![1],
        max_tokens: 9,
        sampling,
        stop: Vec::new(),
        events,
    };
    state.workers.submit(job).unwrap();
    let refused = post(&state, body(&stream)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(json_of(refused).await["error"]["code"], "overloaded");
    drop(permits);
    assert!(text(first).await.ends_with("data: [DONE]\n\n"));
    assert_eq!(second.recv().await, Some(Event::Started));
}

#[actix_web::test]
async fn too_long_a_wait_in_the_queue_is_answered_503() {
    let (engine, permits) = ScriptedEngine::gated("abc");
    let state = state(engine, Duration::from_millis(200));
    let (first, second) = occupied(&state).await;
    assert_eq!(second.await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(permits);
    assert!(text(first).await.ends_with("data: [DONE]\n\n"));
}

#[actix_web::test]
async fn leaving_client_ends_the_work_within_a_step() {
    let (engine, permits) = ScriptedEngine::gated(&"a".repeat(200));
    let steps = engine.steps();
    let state = state(engine, Duration::from_secs(30));
    let (first, second) = occupied(&state).await;
    drop(first);
    drop(permits);
    assert!(text(second.await).await.ends_with("data: [DONE]\n\n"));
    // The second took one step for the prompt and 200 for its tokens. Of the first there is at
    // most the step that was under way when it left, and a second if it had just begun.
    let steps = steps.load(Ordering::SeqCst);
    assert!((201..=203).contains(&steps), "{steps}");
}

#[actix_web::test]
async fn panic_in_the_model_is_a_typed_failure_and_the_worker_lives() {
    let state = state(ScriptedEngine::panicking(), Duration::from_secs(30));
    for _ in 0..2 {
        let response = post(&state, body(&json!({}))).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let streamed = text(post(&state, body(&json!({"stream": true}))).await).await;
        assert!(
            streamed.contains("\"error\"") && !streamed.contains("[DONE]"),
            "{streamed}"
        );
    }
}
