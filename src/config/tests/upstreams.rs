use std::time::Duration;

use super::*;

fn dialect(keys: &str) -> UpstreamDialect {
    let (config, _) = load(&format!("{UPSTREAM}{keys}")).unwrap();
    config.upstreams[0].dialect.clone()
}

// M11
#[test]
fn requests_can_be_written_in_another_form() {
    assert_eq!(dialect(""), UpstreamDialect::default());
    let keys = "output_bound = 'max_completion_tokens'\nstream_options = false\napi_key_header = 'Api-Key'\n\
        query = '?api-version=2024-10-21'\nextra_body = { temperature = 0.5, stop = ['x'] }\n\
        headers = { X-Title = 'Hubbub' }\n";
    let set = dialect(keys);
    assert_eq!(set.output_bound, OutputBound::MaxCompletionTokens);
    assert!(!set.stream_options);
    assert_eq!(set.api_key_header, ApiKeyHeader::Plain("api-key".into()));
    assert_eq!(set.query.unwrap().expose(), "api-version=2024-10-21");
    let body = serde_json::json!({"temperature": 0.5, "stop": ["x"]});
    assert_eq!(Some(&set.extra_body), body.as_object());
    assert_eq!(set.headers["x-title"].expose(), "Hubbub");

    let tables = "[upstreams.extra_body]\ntemperature = 0.5\n[upstreams.extra_body.provider]\norder = ['a']\n\
        [upstreams.headers]\nx-title = 'Hubbub'\n";
    let set = dialect(tables);
    assert_eq!(set.extra_body["provider"]["order"][0], "a");
    assert_eq!(set.headers.len(), 1);
}

// M11
#[test]
fn the_form_of_requests_can_be_set_by_the_environment() {
    let file = file(UPSTREAM);
    let variable = |name: &str| format!("HUBBUB__UPSTREAMS__0__{name}");
    let inputs = Inputs::none()
        .with_file(file.path())
        .with_variable(&variable("EXTRA_BODY"), "{\"temperature\": 0.5}")
        .with_variable(&variable("HEADERS"), "{\"X-Title\": \"Hubbub\"}")
        .with_variable(&variable("QUERY"), "api-version=1")
        .with_variable(&variable("OUTPUT_BOUND"), "none")
        .with_variable(&variable("STREAM_OPTIONS"), "false")
        .with_variable(&variable("API_KEY_HEADER"), "api-key")
        .with_variable(&variable("ANSWER_TIMEOUT_MS"), "120_000");
    let (config, _) = Config::load(&inputs).unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.dialect.extra_body["temperature"], 0.5);
    assert_eq!(upstream.dialect.headers["x-title"].expose(), "Hubbub");
    assert_eq!(upstream.dialect.output_bound, OutputBound::None);
    assert_eq!(upstream.timeouts.answer, Duration::from_mins(2));
    assert_eq!(upstream.timeouts.first_token, Duration::from_secs(30));
}

// M11
#[test]
fn a_base_url_may_have_a_query() {
    let with_url = |url: &str| UPSTREAM.replace("http://127.0.0.1:9/v1/", url);
    let azure = with_url(
        "https://x.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21&key=canary",
    );
    let (config, effective) = load(&azure).unwrap();
    let upstream = &config.upstreams[0];
    let base = "https://x.openai.azure.com/openai/deployments/gpt";
    assert_eq!(upstream.base_url, BaseUrl::Http(base.into()));
    let query = upstream.dialect.query.as_ref().unwrap();
    assert_eq!(query.expose(), "api-version=2024-10-21&key=canary");
    let shown = effective.to_string();
    assert!(shown.contains("?api-version=2024-10-21&key=***"), "{shown}");
    assert!(!shown.contains("canary") && !format!("{config:?}").contains("canary"));

    let whole = with_url("http://127.0.0.1:9/v1/chat/completions");
    let (config, _) = load(&whole).unwrap();
    assert_eq!(
        config.upstreams[0].base_url,
        BaseUrl::Http("http://127.0.0.1:9/v1".into())
    );
    assert_eq!(problems(&with_url("http://127.0.0.1:9/v1#x")).len(), 1);
}

// M11
#[test]
fn what_contradicts_itself_is_refused_at_once() {
    let keys = "api_key = 'sk-canary'\nquery = 'a=1'\n\
        extra_body = { stream = false, max_tokens = 5, stream_options = {}, n = 2, temperature = 1 }\n\
        headers = { Authorization = 'Bearer canary', Content-Type = 'text/plain', X-Ok = 'ok' }\n";
    let text = format!("{UPSTREAM}{keys}").replace("/v1/'", "/v1?b=2'");
    let found = problems(&text).join("\n");
    for line in [
        "upstreams.0.query (file): is given twice",
        "upstreams.0.extra_body (file): names stream;",
        "upstreams.0.extra_body (file): names max_tokens;",
        "upstreams.0.extra_body (file): names stream_options;",
        "upstreams.0.extra_body (file): names n;",
        "upstreams.0.headers (file): names authorization;",
        "upstreams.0.headers (file): names content-type;",
    ] {
        assert!(found.contains(line), "{line}\nis not in\n{found}");
    }
    assert_eq!(found.lines().count(), 7, "{found}");
    assert!(!found.contains("canary"), "{found}");
    // Neither is ours to set then.
    let free = "output_bound = 'none'\nstream_options = false\n\
        extra_body = { max_tokens = 5, stream_options = {} }\n";
    assert_eq!(dialect(free).extra_body.len(), 2);
}

#[test]
fn wrong_forms_are_refused() {
    for wrong in [
        "output_bound = 'max'",
        "stream_options = 'false'",
        "extra_body = 'temperature'",
        "extra_body = '[1]'",
        "extra_body = 5",
        "headers = { 'a b' = 'c' }",
        "headers = { a = \"b\\nc\" }",
        "headers = { a = 5 }",
        "headers = { a = 'b', A = 'c' }",
        "query = 'a b'",
        "query = ''",
        "api_key_header = 'a b'",
        "answer_timeout_ms = 0",
    ] {
        let found = problems(&format!("{UPSTREAM}{wrong}\n"));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
    }
}
