use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn rendered(record: impl FnOnce(&Metrics)) -> String {
    let recorder = builder().unwrap().build_recorder();
    let handle = MetricsHandle(recorder.handle());
    ::metrics::with_local_recorder(&recorder, || {
        describe();
        begin();
        record(&Metrics {
            handle: handle.clone(),
        });
    });
    handle.render()
}

#[test]
fn histograms_have_buckets_in_seconds_and_a_description() {
    let text = rendered(|_| {
        ::metrics::histogram!("hubbub_llm_attempt_seconds", "upstream" => "a").record(0.3);
    });
    assert!(
        text.contains("# HELP hubbub_llm_attempt_seconds From sending"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE hubbub_llm_attempt_seconds histogram"),
        "{text}"
    );
    let bucket = "hubbub_llm_attempt_seconds_bucket{upstream=\"a\",le=\"0.5\"} 1";
    assert!(text.contains(bucket), "{text}");
}

#[test]
fn names_follow_the_conventions() {
    for (name, kind, text) in METRICS {
        let unit = match kind {
            Kind::Counter => name.ends_with("_total"),
            Kind::Gauge => !name.ends_with("_total"),
            Kind::Histogram => name.ends_with("_seconds"),
        };
        assert!(
            name.starts_with("hubbub_") && unit && text.ends_with('.'),
            "{name}"
        );
    }
}

// H18
#[test]
fn every_metric_of_the_table_exists_at_zero_before_anything_was_recorded() {
    let text = rendered(|metrics| {
        metrics.know_upstreams(&["a".to_owned()]);
        metrics.know_routes(&["/livez"]);
    });
    let series = Series::read(&text);
    for (name, kind, _) in METRICS {
        let name = match kind {
            Kind::Histogram => format!("{name}_count"),
            _ => (*name).to_owned(),
        };
        let of = series.of(&name);
        assert!(!of.is_empty(), "{name} is not in\n{text}");
        for (labels, value) in of {
            let expected = f64::from(u8::from(name == "hubbub_build_info"));
            assert!((value - expected).abs() < f64::EPSILON, "{name}{labels:?}");
        }
    }
    let panics = series.of("hubbub_actor_panics_total");
    assert!(panics.len() >= 7, "{panics:?}");
    let attempts = series.of("hubbub_llm_attempts_total");
    assert!(
        attempts
            .keys()
            .all(|labels| labels.contains_key("upstream"))
    );
}

// H18
#[test]
fn what_is_rendered_follows_the_rules_of_the_format() {
    let text = rendered(|metrics| {
        metrics.know_upstreams(&["a".to_owned(), "b-2".to_owned()]);
        metrics.know_routes(&["/v1/bots/{bot}", "/"]);
        ::metrics::histogram!(BY_ROUTE, "route" => "/", "status" => "2xx").record(0.3);
    });
    assert_eq!(lint(&text), Vec::<String>::new(), "{text}");
}

// H18
#[test]
fn codes_of_refused_frames_are_those_of_the_contract() {
    let (.., codes) = SERIES
        .iter()
        .find(|(name, ..)| *name == "hubbub_frames_refused_total")
        .unwrap();
    let known: BTreeSet<&str> = codes.iter().copied().collect();
    // Those of HTTP alone are never a frame's.
    let of_http = [
        "method_not_allowed",
        "unsupported_media",
        "timeout",
        "upgrade_required",
    ];
    let contract: BTreeSet<&str> = hubbub_protocol::ErrorCode::ALL
        .iter()
        .map(|code| code.as_str())
        .filter(|code| !of_http.contains(code))
        .collect();
    assert_eq!(known, contract);
}

#[test]
fn the_process_is_described() {
    let text = rendered(|_| ());
    let value = |name: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_cpu_seconds_total") >= 0.0);
    // After 2020, and not in the future.
    let now = hubbub_protocol::Timestamp::now().unix_ms() / 1_000;
    let now = f64::from(u32::try_from(now).unwrap());
    let started = value("process_start_time_seconds");
    assert!(started > 1.6e9 && started < now + 2.0, "{started}");
}

#[tokio::test]
async fn upkeep_ends_when_told() {
    let recorder = builder().unwrap().build_recorder();
    let metrics = Metrics {
        handle: MetricsHandle(recorder.handle()),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(metrics.run_upkeep(stop.clone()));
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    stop.cancel();
    tokio::time::timeout(UPKEEP, task).await.unwrap().unwrap();
}

type Labels = BTreeMap<String, String>;

/// Samples by name and labels.
struct Series(BTreeMap<(String, Labels), f64>);

impl Series {
    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty());
        let samples = lines.filter(|line| !line.starts_with('#'));
        Self(samples.map(|line| sample(line).unwrap()).collect())
    }

    fn of(&self, name: &str) -> BTreeMap<Labels, f64> {
        let of = self.0.iter().filter(|((known, _), _)| known == name);
        of.map(|((_, labels), value)| (labels.clone(), *value))
            .collect()
    }
}

fn sample(line: &str) -> Option<((String, Labels), f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    // None of ours has a comma or a quote in it.
    let pairs = labels.split(',').filter(|pair| !pair.is_empty());
    let labels = pairs
        .map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.strip_suffix('"')?.to_owned()))
        })
        .collect::<Option<Labels>>()?;
    Some(((name.to_owned(), labels), value.parse().ok()?))
}

/// What `promtool check metrics` complains about, and what the text form forbids.
fn lint(text: &str) -> Vec<String> {
    let (mut wrong, mut types, mut helped) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.insert(rest.split(' ').next().unwrap().to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            if types.insert(name.to_owned(), kind.to_owned()).is_some() {
                wrong.push(format!("{name} has two types"));
            }
        } else if line.starts_with('#') {
            wrong.push(format!("a comment: {line}"));
        } else {
            let Some(((name, labels), _)) = sample(line) else {
                wrong.push(format!("no sample: {line}"));
                continue;
            };
            if !seen.insert((name.clone(), labels.clone())) {
                wrong.push(format!("twice: {line}"));
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| types.get(*family).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(&name);
            match types.get(family).map(String::as_str) {
                None => wrong.push(format!("no type before {line}")),
                Some("counter") if !family.ends_with("_total") => {
                    wrong.push(format!("a counter without _total: {family}"));
                }
                Some("gauge") if family.ends_with("_total") => {
                    wrong.push(format!("a gauge with _total: {family}"));
                }
                Some(_) => {}
            }
            if !helped.contains(family) {
                wrong.push(format!("no help: {family}"));
            }
            let is_name = |text: &str| {
                text.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            };
            if !is_name(&name) || !labels.keys().all(|label| is_name(label)) {
                wrong.push(format!("not snake case: {line}"));
            }
            if ["_milliseconds", "_ms", "_kib", "_minutes"]
                .iter()
                .any(|unit| family.ends_with(unit))
            {
                wrong.push(format!("not a base unit: {family}"));
            }
        }
    }
    for (name, kind) in &types {
        if kind == "histogram" {
            wrong.extend(wrong_buckets(name, &Series::read(text)));
        }
    }
    wrong
}

/// Buckets must grow up to `+Inf`, which is the count.
fn wrong_buckets(name: &str, series: &Series) -> Vec<String> {
    let mut by_series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in series.of(&format!("{name}_bucket")) {
        let le = labels.remove("le").unwrap();
        by_series
            .entry(labels)
            .or_default()
            .push((le.parse().unwrap(), count));
    }
    let counts = series.of(&format!("{name}_count"));
    let mut wrong = Vec::new();
    for (labels, mut buckets) in by_series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = buckets.last().unwrap();
        let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        if !grows || last.0.is_finite() || counts.get(&labels) != Some(&last.1) {
            wrong.push(format!("buckets of {name}{labels:?}: {buckets:?}"));
        }
    }
    wrong
}
