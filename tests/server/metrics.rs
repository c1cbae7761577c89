//! `/metrics` of a server that has done nothing yet, and of one that has.

use hubbub::http::ROUTES;

use crate::client::{Caller, Device};
use crate::server::Setup;

/// The value of a series, by all of its name and labels.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line?.trim().parse().ok()
}

// H18
#[tokio::test]
async fn a_fresh_server_shows_every_series_at_zero_and_then_what_happened() {
    let server = tokio::task::spawn_blocking(|| Setup::new().start());
    let server = server.await.unwrap();
    let watch = Caller::with(&server, None);
    let fresh = watch.get("/metrics").await.text;
    for series in [
        "hubbub_panics_total",
        "hubbub_actor_panics_total{actor=\"session\"}",
        "hubbub_http_requests_total{status=\"5xx\"}",
        "hubbub_frames_refused_total{code=\"rate_limited\"}",
        "hubbub_replies_total{end=\"failed\"}",
        "hubbub_llm_tokens_total{type=\"input\"}",
        "hubbub_llm_tokens_total{type=\"output\"}",
        "hubbub_llm_attempts_total{upstream=\"sim\",outcome=\"finished\"}",
        "hubbub_llm_attempt_seconds_count{upstream=\"sim\"}",
        "hubbub_db_outages_total{reason=\"disk_full\"}",
        "hubbub_log_lines_lost_total",
        "hubbub_http_request_seconds_count{route=\"/v1/bots/{bot}\",status=\"5xx\"}",
    ] {
        assert_eq!(value(&fresh, series), Some(0.0), "{series} in\n{fresh}");
    }
    let build = format!(
        "hubbub_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&fresh, &build), Some(1.0));
    assert_eq!(value(&fresh, "hubbub_db_up"), Some(1.0));
    assert!(value(&fresh, "process_start_time_seconds").unwrap() > 1.6e9);

    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "count this").await.unwrap();
    let caller = Caller::new(&server);
    caller.get(&format!("/v1/sessions/{session}")).await;
    caller.get("/v1/nothing").await;
    caller.get("/nothing").await;
    let after = watch.get("/metrics").await.text;
    let ended = "hubbub_replies_total{end=\"completed\"}";
    assert_eq!(value(&after, ended), Some(1.0));
    for kind in ["input", "output"] {
        let series = format!("hubbub_llm_tokens_total{{type=\"{kind}\"}}");
        assert!(value(&after, &series).unwrap() > 0.0, "{series}");
    }
    let shown =
        "hubbub_http_request_seconds_count{route=\"/v1/sessions/{session}\",status=\"2xx\"}";
    assert_eq!(value(&after, shown), Some(1.0));
    // The routes are a closed set, whatever is asked for.
    let routes = after.lines().filter_map(|line| {
        let (_, labels) = line.split_once("{route=\"")?;
        labels.split('"').next()
    });
    for route in routes {
        assert!(ROUTES.contains(&route), "{route}");
    }
}
