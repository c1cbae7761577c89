use std::io::Write as _;

use proptest::prelude::*;

use super::*;

mod upstreams;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str) -> Result<(Config, EffectiveConfig), ConfigErrors> {
    Config::load(&Inputs::none().with_file(file(text).path()))
}

fn problems(text: &str) -> Vec<String> {
    load(text)
        .unwrap_err()
        .0
        .iter()
        .map(ToString::to_string)
        .collect()
}

const UPSTREAM: &str =
    "[[upstreams]]\nname = 'a'\nbase_url = 'http://127.0.0.1:9/v1/'\nmodel = 'm'\n";

#[test]
fn example_file_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/hubbub.example.toml");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        committed,
        example(),
        "run `hubbub example-config > hubbub.example.toml`"
    );
}

#[test]
fn example_file_loads_as_it_is_and_with_every_key_uncommented() {
    let (config, _) = load(&example()).unwrap();
    assert!(config.upstreams.is_empty() && config.model.enabled);
    assert_eq!(config.llm.default_route, [EMBEDDED_UPSTREAM]);

    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    let uncommented: Vec<_> = example()
        .lines()
        .map(|line| {
            Some(line)
                .filter(is_setting)
                .map_or(line, |line| &line[1..])
                .to_owned()
        })
        .collect();
    let (config, _) = load(&uncommented.join("\n")).unwrap();
    assert_eq!(config.upstreams[0].name, "openai");
    assert_eq!(
        config.server.public_url.as_deref(),
        Some("https://chat.example.com")
    );
    assert!(config.database.url.is_some());
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = file("[session]\nflush_ms = 10\nidle_timeout_ms = 2000\nheartbeat_ms = 3000\n");
    let inputs = Inputs::none()
        .with_file(file.path())
        .with_variable("HUBBUB__SESSION__FLUSH_MS", "20")
        .with_variable("HUBBUB__SESSION__IDLE_TIMEOUT_MS", "4_000")
        .with_flag("session.flush_ms", "30");
    let (config, effective) = Config::load(&inputs).unwrap();
    assert_eq!(config.session.flush.as_millis(), 30);
    assert_eq!(config.session.idle_timeout.as_millis(), 4_000);
    assert_eq!(config.session.heartbeat.as_millis(), 3_000);
    assert_eq!(config.session.stalled_device.as_millis(), 10_000);
    let source = |key| effective.source(key).unwrap().to_string();
    assert_eq!(source("session.flush_ms"), "flag");
    assert_eq!(
        source("session.idle_timeout_ms"),
        "env HUBBUB__SESSION__IDLE_TIMEOUT_MS"
    );
    assert_eq!(source("session.heartbeat_ms"), "file");
    assert_eq!(source("session.stalled_device_ms"), "default");
}

#[test]
fn all_errors_are_reported_at_once_with_key_source_and_what_is_allowed() {
    let file = file(
        "[server]\nlisten = 'here'\nworker = 3\n[limits]\nframe_bytes = 300000\n[nope]\nx = 1\n",
    );
    let inputs = Inputs::none()
        .with_file(file.path())
        .with_variable("HUBBUB__LOG__FORMAT", "xml")
        .with_variable("HUBBUB__SESION__FLUSH_MS", "1")
        .with_variable("HUBBUB__MODEL__ENABLED", "yes");
    let text = Config::load(&inputs).unwrap_err().to_string();
    for line in [
        "server.listen (file): is not valid; allowed: IP:PORT",
        "server.worker (file): unknown key; allowed: listen, data_dir, workers,",
        "limits.frame_bytes (file): is not valid; allowed: an integer from 1024 to 200192",
        "nope.x (file): unknown key; allowed: sections server, database,",
        "log.format (env HUBBUB__LOG__FORMAT): is not valid; allowed: json, pretty",
        "sesion.flush_ms (env HUBBUB__SESION__FLUSH_MS): unknown key",
        "model.enabled (env HUBBUB__MODEL__ENABLED): is not valid; allowed: true or false",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    assert!(
        text.starts_with("the configuration has 7 error(s):"),
        "{text}"
    );
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    assert_eq!(problems("[server]\nworkers = '2'\n").len(), 1);
    assert_eq!(problems("[server]\nworkers = 2.0\n").len(), 1);
    assert_eq!(problems("[server]\nlisten = 8080\n").len(), 1);
    assert_eq!(
        problems("[server]\ntrusted_origins = 'https://a.example'\n").len(),
        1
    );
    assert_eq!(problems("server = 5\n").len(), 1);
    assert_eq!(problems("[limits]\nconnections = -1\n").len(), 1);
}

#[test]
fn secrets_appear_nowhere() {
    let text = format!(
        "{UPSTREAM}api_key = 'sk-canary'\nheaders = {{ a = 'canary' }}\nquery = 'key=canary'\n[database]\nurl = 'postgres://u:canary@h/d'\n"
    );
    let (config, effective) = load(&text).unwrap();
    assert!(!format!("{config:?}").contains("canary"));
    assert!(!effective.to_string().contains("canary"));
    assert!(effective.to_string().contains("api_key = \"***\""));
    assert!(
        effective
            .to_string()
            .contains("headers = '{\"a\":\"***\"}'")
    );
    assert_eq!(
        config.upstreams[0].api_key.as_ref().unwrap().expose(),
        "sk-canary"
    );

    let wrong = "[database]\nurl = 'mysql://u:canary@h/d'\n";
    assert!(!problems(wrong).join("\n").contains("canary"));
    let broken = "[database]\nurl = 'postgres://u:canary@h/d\n";
    let message = problems(broken).join("\n");
    assert!(
        !message.contains("canary") && message.contains("line 2"),
        "{message}"
    );
}

#[test]
fn upstreams_come_from_file_and_environment_together() {
    let file = file(UPSTREAM);
    let inputs = Inputs::none()
        .with_file(file.path())
        .with_variable("HUBBUB__UPSTREAMS__0__SLOTS", "7")
        .with_variable("HUBBUB__UPSTREAMS__1__NAME", "b")
        .with_variable("HUBBUB__UPSTREAMS__1__BASE_URL", "unix:/run/b.sock")
        .with_variable("HUBBUB__UPSTREAMS__1__MODEL", "m");
    let (config, _) = Config::load(&inputs).unwrap();
    assert_eq!(
        config.upstreams[0].base_url,
        BaseUrl::Http("http://127.0.0.1:9/v1".into())
    );
    assert_eq!(config.upstreams[0].slots, 7..=7);
    assert_eq!(
        config.upstreams[1].base_url,
        BaseUrl::Unix("/run/b.sock".into())
    );
    assert_eq!(config.llm.default_route, ["a", "b"]);
    assert!(!config.model.enabled);
}

#[test]
fn upstreams_must_be_complete_unique_and_routes_known() {
    assert_eq!(problems("[[upstreams]]\nslots = 1\n").len(), 3);
    let found_out = format!("{UPSTREAM}slots = 9\nmin_slots = 3\ngroup = 'gpu'\n");
    let upstream = &load(&found_out).unwrap().0.upstreams[0];
    assert_eq!(
        (upstream.slots.clone(), upstream.group.as_deref()),
        (3..=9, Some("gpu"))
    );
    let wrong = problems(&format!("{UPSTREAM}slots = 9\nmin_slots = 10\n"));
    assert!(wrong[0].contains("min_slots"), "{wrong:?}");
    assert!(problems(&format!("{UPSTREAM}{UPSTREAM}"))[0].contains("upstreams.1.name (file)"));
    let routed = format!("{UPSTREAM}[llm]\ndefault_route = ['a', 'z']\n");
    assert!(problems(&routed)[0].contains("names no upstream: z; allowed: a"));
    assert_eq!(problems(&UPSTREAM.replace("'a'", "'embedded'")).len(), 1);
    assert_eq!(
        problems(&UPSTREAM.replace("http://", "http://user:pw@")).len(),
        1
    );
    assert_eq!(
        problems(&UPSTREAM.replace("http://127.0.0.1:9/v1/", "unix:relative")).len(),
        1
    );
}

#[test]
fn cache_folder_follows_the_environment() {
    let cache = |inputs: Inputs| Config::load(&inputs).unwrap().0.model.cache_dir;
    let home = Inputs::none().with_variable("HOME", "/home/v");
    assert_eq!(cache(home.clone()), Some("/home/v/.cache/hubbub".into()));
    assert_eq!(
        cache(home.with_variable("XDG_CACHE_HOME", "/c")),
        Some("/c/hubbub".into())
    );
    assert_eq!(cache(Inputs::none()), None);
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let inputs = Inputs::none().with_variable(
        "HUBBUB__SERVER__TRUSTED_ORIGINS",
        "https://Shop.example:443, http://a:81/",
    );
    let (config, _) = Config::load(&inputs).unwrap();
    assert_eq!(
        config.server.trusted_origins,
        ["https://shop.example", "http://a:81"]
    );
    for wrong in [
        "https://a/path",
        "null",
        "*",
        "ftp://a",
        "https://u@a",
        "a.example",
    ] {
        let inputs = Inputs::none().with_variable("HUBBUB__SERVER__TRUSTED_ORIGINS", wrong);
        assert!(Config::load(&inputs).is_err(), "{wrong}");
    }
}

// H14
#[test]
fn a_level_must_be_one_and_a_filter_is_kept_as_it_was_meant() {
    let level = |text: &str| {
        let inputs = Inputs::none().with_variable("HUBBUB__LOG__LEVEL", text);
        Config::load(&inputs).map(|(config, _)| config.log.level)
    };
    for (text, meant) in [
        ("info", "info"),
        ("WARN", "WARN"),
        ("off", "off"),
        ("info, hubbub::llm = debug", ""),
        (" info , hubbub::llm=debug", "info,hubbub::llm=debug"),
        ("hubbub=trace,actix_http=off", "hubbub=trace,actix_http=off"),
        ("info,[llm.attempt]=debug", "info,[llm.attempt]=debug"),
    ] {
        assert_eq!(level(text).ok().as_deref().unwrap_or(""), meant, "{text}");
    }
    for wrong in [
        "verbose",
        "",
        " ",
        "informational",
        "info,",
        "info,debg",
        "hubbub",
        "hubbub=",
        "=info",
        "hubbub=loud",
        "info debug",
        "hubbub=info=debug",
    ] {
        let told = level(wrong).unwrap_err().to_string();
        assert!(
            told.contains("allowed: off, error, warn"),
            "{wrong}: {told}"
        );
    }
}

// H14
#[test]
fn values_that_could_never_work_are_refused_where_they_are_read() {
    for wrong in [
        "[server]\npublic_url = 'https://a.example/chat?x=1'\n",
        "[server]\npublic_url = 'https://a.example/a b'\n",
        "[server]\npublic_url = 'https://a.example//x'\n",
        "[server]\npublic_url = 'a.example'\n",
        "[server]\ntrusted_origins = ['https://*.example.com']\n",
        "[server]\ndata_dir = \"a\\u0000b\"\n",
        "[database]\nurl = 'postgres://'\n",
        "[database]\nurl = 'postgresql:///hubbub'\n",
        "[database]\nca_file = ''\n",
    ] {
        assert_eq!(problems(wrong).len(), 1, "{wrong}");
    }
    load("[database]\nurl = 'postgres:///hubbub?host=/run/postgresql'\n").unwrap();
}

// H10
#[test]
fn a_public_url_may_have_a_path() {
    for (text, origin, path) in [
        ("https://Chat.example:443", "https://chat.example", ""),
        ("https://chat.example/", "https://chat.example", ""),
        ("http://a:81/chat/", "http://a:81", "/chat"),
        ("https://a/help/chat", "https://a", "/help/chat"),
    ] {
        let inputs = Inputs::none().with_flag("server.public_url", text);
        let server = Config::load(&inputs).unwrap().0.server;
        assert_eq!(server.public_origin(), Some(origin), "{text}");
        assert_eq!(server.base_path(), path, "{text}");
    }
    let server = Config::load(&Inputs::none()).unwrap().0.server;
    assert_eq!((server.public_origin(), server.base_path()), (None, ""));
}

// H16
#[test]
fn a_variable_that_is_nearly_ours_is_warned_of_with_the_one_meant() {
    let warned = |name: &str, value: &str| {
        let (config, effective) = Config::load(&Inputs::none().with_variable(name, value)).unwrap();
        for warning in &config.warnings {
            assert!(effective.to_string().contains(warning.as_str()));
            assert!(!warning.contains("canary"));
        }
        config.warnings.join("\n")
    };
    for (name, meant) in [
        ("HUBBUB_SERVER_LISTEN", "HUBBUB__SERVER__LISTEN"),
        ("HUBBUB_SERVER__LISTEN", "HUBBUB__SERVER__LISTEN"),
        ("hubbub__server__listen", "HUBBUB__SERVER__LISTEN"),
        ("Hubbub__Server__Listen", "HUBBUB__SERVER__LISTEN"),
        ("HUBBUB_DATABASE_URL", "HUBBUB__DATABASE__URL"),
        ("HUBBUB_LOG_LEVL", "HUBBUB__LOG__LEVEL"),
        (
            "HUBBUB_UPSTREAMS_0_API_KEY",
            "HUBBUB__UPSTREAMS__0__API_KEY",
        ),
        (
            "HUBBUB_UPSTREAMS_2_API_KEY",
            "HUBBUB__UPSTREAMS__2__API_KEY",
        ),
    ] {
        let warning = warned(name, "canary");
        let expected = format!("{name} is not read; did you mean {meant}?");
        assert!(warning.contains(&expected), "{warning}");
    }
    assert!(warned("HUBBUB_XYZZY", "canary").contains("HUBBUB__SECTION__KEY"));
    // What an orchestrator makes for a service of our name.
    for (name, value) in [
        ("HUBBUB_SERVICE_HOST", "10.0.0.1"),
        ("HUBBUB_SERVICE_PORT_HTTP", "80"),
        ("HUBBUB_PORT", "tcp://10.0.0.1:80"),
        ("HUBBUB_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("HUBBUBBLE", "1"),
        ("PATH", "/bin"),
    ] {
        assert_eq!(warned(name, value), "", "{name}");
    }
}

// H16
#[test]
fn an_unknown_key_is_refused_with_the_one_meant() {
    for (name, meant) in [
        ("HUBBUB__SERVER__LISTN", "server.listen"),
        ("HUBBUB__SERVER_LISTEN", "server.listen"),
        ("HUBBUB__SERVR__LISTEN", "server.listen"),
        ("HUBBUB__UPSTREAM__0__NAME", "upstreams.0.name"),
        (
            "HUBBUB__LIMITS__MESSAGES_PER_SECONDS",
            "limits.messages_per_second",
        ),
    ] {
        let inputs = Inputs::none().with_variable(name, "x");
        let told = Config::load(&inputs).unwrap_err().to_string();
        assert!(told.contains("unknown key"), "{told}");
        assert!(told.contains(&format!("did you mean {meant}?")), "{told}");
    }
    assert!(!problems("[nope]\nx = 1\n")[0].contains("did you mean"));
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Config::load(&Inputs::none().with_file("/nonexistent/hubbub.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/hubbub.toml (file): cannot be read")
    );
}

proptest! {
    #[test]
    fn whatever_the_file_says_loading_answers(text in "[\\[\\]a-z0-9_.='\"\n ]{0,200}") {
        drop(load(&text));
    }

    #[test]
    fn effective_values_load_as_themselves(flush in 5_u64..=1_000, connections in 1_usize..=10_000_000) {
        let text = format!("[session]\nflush_ms = {flush}\n[limits]\nconnections = {connections}\n");
        let (_, effective) = load(&text).unwrap();
        let (config, _) = load(&effective.to_string()).unwrap();
        prop_assert_eq!(config.session.flush.as_millis(), u128::from(flush));
        prop_assert_eq!(config.limits.connections, connections);
    }
}
