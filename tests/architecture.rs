//! The rules of the house, read off the house itself: who depends on whom, where SQL and the
//! environment may be, how files look, and that what the documents name exists.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by panicking, in its functions too"
)]

#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/sources.rs"]
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use sources::{Source, forbid, root, sources};

/// The workspace's packages, each with those of the workspace that it needs outside its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(name)
            .filter(|dependency| ours.contains(dependency))
            .collect()
    };
    packages
        .iter()
        .map(|package| (name(package), needs(package)))
        .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn packages_depend_in_one_direction() {
    let allowed = BTreeMap::from([
        ("hubbub-protocol".to_owned(), set([])),
        ("hubbub-model".to_owned(), set([])),
        ("hubbub-actors".to_owned(), set(["hubbub-protocol"])),
        (
            "hubbub-storage".to_owned(),
            set(["hubbub-actors", "hubbub-protocol"]),
        ),
        ("hubbub-loadtest".to_owned(), set(["hubbub-protocol"])),
        (
            "hubbub".to_owned(),
            set(["hubbub-actors", "hubbub-protocol", "hubbub-storage"]),
        ),
    ]);
    assert_eq!(dependencies(), allowed);
}

#[test]
fn configuration_and_telemetry_import_no_sibling() {
    let siblings = |own: &str| {
        let modules = [
            "app", "cli", "config", "http", "identity", "llm", "realtime",
        ];
        let others = modules
            .into_iter()
            .chain(["telemetry"])
            .filter(move |name| *name != own);
        others
            .map(|name| format!("crate::{name}"))
            .collect::<Vec<_>>()
    };
    for module in ["config", "telemetry"] {
        let names = siblings(module);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        forbid(&Source::of_module(module), &names, "these two stand alone");
    }
}

#[test]
fn siblings_are_imported_one_by_one() {
    // Grouped or relative, they would slip through the rules of this file.
    let all = sources();
    let server = all.iter().filter(|source| source.path.starts_with("src/"));
    for source in server {
        for (number, line) in source.code() {
            let is_hidden = line.contains("crate::{") || line.contains("super::super::super");
            assert!(!is_hidden, "{}:{number}: {line}", source.path);
        }
    }
}

/// From each module of a crate to those of it that it names; what tests name tells nothing.
fn imports(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let Some(path) = source.path.strip_prefix(folder) else {
            continue;
        };
        let module = path.split(['/', '.']).next().unwrap().to_owned();
        if source.is_test() || ["lib", "main", "testing"].contains(&module.as_str()) {
            continue;
        }
        for (_, line) in source.code() {
            let named = line.split("crate::").skip(1);
            let named = named.filter_map(|path| path.split_once("::").map(|(module, _)| module));
            for other in named.filter(|other| *other != module) {
                let of = imports.entry(module.clone()).or_default();
                of.insert(other.to_owned());
            }
        }
    }
    imports
}

#[test]
fn modules_import_each_other_without_a_circle() {
    let known = [
        ("actors/src/", "session", "reply"),
        ("src/", "http", "identity"),
        ("storage/src/", "store", "scope"),
    ];
    for (folder, module, other) in known {
        let mut imports = imports(folder);
        assert!(imports[module].contains(other), "nothing is read");
        keep_circles(&mut imports);
        assert!(imports.is_empty(), "a circle in {folder}: {imports:#?}");
    }
}

#[test]
fn files_import_each_other_without_a_circle() {
    let known = [
        ("actors/src/", "pool::state", "pool::classes"),
        ("src/", "http::tickets", "http::origin"),
        ("storage/src/", "error", "cause"),
        ("protocol/src/", "client", "note"),
        ("loadtest/src/", "harness::noisy", "harness::chats"),
        ("model/src/", "serve", "http"),
    ];
    for (folder, file, other) in known {
        let mut imports = imports::file_imports(folder);
        assert!(
            imports[file].contains(other),
            "nothing is read: {imports:#?}"
        );
        keep_circles(&mut imports);
        assert!(imports.is_empty(), "a circle in {folder}: {imports:#?}");
    }
}

/// Takes out whoever imports nothing that is left, and whoever is imported by nobody that is left.
fn keep_circles(imports: &mut BTreeMap<String, BTreeSet<String>>) {
    loop {
        let before = imports.len();
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        for of in imports.values_mut() {
            of.retain(|other| left.contains(other));
        }
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        imports.retain(|one, of| !of.is_empty() && imported.contains(one));
        if imports.len() == before {
            break;
        }
    }
}

#[test]
fn documented_routes_are_the_routes() {
    let source = sources()
        .into_iter()
        .find(|source| source.path == "src/http.rs")
        .unwrap();
    let mut routes = BTreeSet::new();
    // What is in a scope of its own begins with `/v1`.
    let at_the_top = ["/livez", "/readyz", "/metrics", "/version"];
    for resource in source.text.split("path(\"").skip(1) {
        let (pattern, rest) = resource.split_once('"').unwrap();
        let handlers = rest.split(".service").next().unwrap();
        for (call, method) in [
            (".get(", "GET"),
            (".post(", "POST"),
            (".patch(", "PATCH"),
            (".upgrade(", "GET"),
        ] {
            let is_page = !at_the_top.contains(&pattern)
                && (pattern == "/"
                    || pattern.starts_with("/widget")
                    || pattern.starts_with("/demo"));
            if handlers.contains(call) && !is_page {
                let scope = if at_the_top.contains(&pattern) {
                    ""
                } else {
                    "/v1"
                };
                routes.insert(format!("{method} {scope}{pattern}"));
            }
        }
    }
    assert!(routes.len() > 10, "{routes:?}");
    let api = documents::read("docs/api.md");
    let rows = api.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split_once('`')?.0))
        .filter(|route| {
            route.contains(" /v1/") || at_the_top.iter().any(|top| route.ends_with(top))
        })
        // It stands for itself: it is public, and in no scope.
        .filter(|route| *route != "POST /v1/widget/{bot}/tickets")
        .map(str::to_owned)
        .collect();
    assert_eq!(routes, documented, "src/http.rs and docs/api.md");
}

#[test]
fn statements_of_sql_are_written_out() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
        let code = code.join("\n");
        for call in code.split("format!(").skip(1) {
            let text = call.split(';').next().unwrap();
            let is_sql = [
                "SELECT ",
                "INSERT INTO ",
                "DELETE FROM ",
                " SET ",
                "CREATE ",
                "ALTER ",
            ]
            .iter()
            .any(|word| text.contains(word));
            assert!(!is_sql, "{}: SQL by format!: {text}", source.path);
        }
    }
}

#[test]
fn upstreams_never_see_the_edge() {
    let edge = [
        "crate::http",
        "crate::realtime",
        "crate::app",
        "actix_web",
        "hubbub_storage",
    ];
    forbid(
        &Source::of_module("llm"),
        &edge,
        "ports are implemented without the edge, and an upstream stores nothing",
    );
}

#[test]
fn the_edge_asks_sessions_through_handles_only() {
    for module in ["http", "realtime"] {
        // Whatever names an address of the actors' crate, by path or in a list of imports.
        for source in Source::of_module(module) {
            for import in source
                .imports()
                .filter(|import| import.contains("hubbub_actors"))
            {
                assert!(!import.contains("Addr"), "{}: {import}", source.path);
            }
        }
        let addresses = [
            "Addr<Session",
            "Addr<Reply",
            "Addr<Tenant",
            "Recipient<PostMessage",
        ];
        forbid(
            &Source::of_module(module),
            &addresses,
            "a session has a handle",
        );
    }
    let worlds = ["hubbub_storage", "tokio_postgres", "crate::config"];
    forbid(
        &Source::of_module("realtime"),
        &worlds,
        "a live session is changed by its handle",
    );
}

#[test]
fn composition_is_at_the_top() {
    for module in ["http", "realtime", "llm", "config", "telemetry", "identity"] {
        forbid(
            &Source::of_module(module),
            &["crate::app", "crate::cli"],
            "app composes them",
        );
    }
}

#[test]
fn behaviour_knows_no_sockets_database_or_environment() {
    let world = [
        "std::net",
        "tokio::net",
        "tokio_postgres",
        "deadpool",
        "reqwest",
        "actix_web",
        "std::env",
        "std::fs",
        "tokio::fs",
    ];
    let of = |folder: &str| -> Vec<Source> {
        sources()
            .into_iter()
            .filter(|source| source.path.starts_with(folder))
            .collect()
    };
    forbid(&of("actors/src/"), &world, "the world is behind ports");
    forbid(&of("protocol/src/"), &world, "words do nothing");
}

#[test]
fn statements_of_sql_are_in_storage() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let path = &source.path;
        if path.starts_with("storage/") {
            continue;
        }
        for (number, line) in source.code() {
            let is_update = line.contains("UPDATE ") && line.contains(" SET ");
            let is_sql = ["SELECT ", "INSERT INTO", "DELETE FROM"]
                .iter()
                .any(|w| line.contains(w));
            assert!(
                !is_update && !is_sql,
                "{path}:{number}: SQL outside storage: {line}"
            );
        }
    }
}

/// Files beside `src/config` that read the environment, with the reason.
const READS_ENVIRONMENT: &[(&str, &str)] = &[(
    "storage/src/private/binaries.rs",
    "PATH is where programs are, not configuration of ours",
)];

#[test]
fn the_environment_is_read_in_configuration() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let path = &source.path;
        let is_allowed = READS_ENVIRONMENT.iter().any(|(allowed, _)| allowed == path);
        if is_allowed
            || path.starts_with("src/config")
            || !(path.starts_with("src/") || path.starts_with("storage/src/"))
        {
            continue;
        }
        for (number, line) in source.code() {
            assert!(
                !line.contains("env::var"),
                "{path}:{number}: the environment is read in src/config: {line}"
            );
        }
    }
}

/// Most lines of a file; a test, which lists what is so, may be longer.
const LINES: usize = 400;
const TEST_LINES: usize = 500;

#[test]
fn files_are_short_and_say_what_they_are() {
    for source in sources() {
        let path = source.path.clone();
        assert!(
            !path.ends_with("/mod.rs"),
            "{path}: foo.rs and foo/, never mod.rs"
        );
        let most = if source.is_test() { TEST_LINES } else { LINES };
        let lines = source.text.lines().count();
        assert!(lines <= most, "{path}: {lines} lines, not {most}");
        if !source.is_test() {
            assert!(
                source.text.starts_with("//! "),
                "{path}: a file opens with what it stands for"
            );
        }
    }
}

#[test]
fn every_metric_is_described_and_every_described_metric_is_recorded() {
    let table = "src/telemetry/metrics/table.rs";
    let all = sources();
    let described = all.iter().find(|source| source.path == table).unwrap();
    let described: BTreeSet<String> = sources::metric_names(&described.text).collect();
    let recorded: BTreeSet<String> = all
        .iter()
        .filter(|source| !source.is_test() && source.path != table)
        .flat_map(Source::recorded_metrics)
        .collect();
    assert!(
        recorded.len() > 10,
        "the search for metrics finds none: {recorded:?}"
    );
    assert_eq!(recorded, described);
}

#[test]
fn every_decision_is_in_the_index() {
    let index = documents::read("docs/adr/README.md");
    let mut numbers = BTreeSet::new();
    for name in documents::names_in("docs/adr") {
        if name == "README.md" {
            continue;
        }
        assert!(
            index.contains(&format!("({name})")),
            "docs/adr/README.md does not list {name}"
        );
        let (number, _) = name.split_once('-').unwrap();
        assert!(
            number.len() == 4 && number.parse::<u32>().is_ok(),
            "{name}: NNNN-what.md"
        );
        assert!(
            numbers.insert(number.to_owned()),
            "two decisions have the number {number}"
        );
        let text = documents::read(&format!("docs/adr/{name}"));
        for heading in ["## Context", "## Decision", "## Consequences"] {
            assert!(text.contains(heading), "docs/adr/{name} lacks {heading}");
        }
    }
    assert!(numbers.len() >= 10, "{numbers:?}");
}

#[test]
fn links_between_documents_resolve() {
    for document in documents::all() {
        for link in document.links() {
            assert!(
                documents::resolves(&document.path, &link),
                "{}: the link {link} leads nowhere",
                document.path
            );
        }
    }
}

#[test]
fn paths_that_documents_name_exist() {
    let mut found = 0;
    for document in documents::all() {
        for path in document.named_paths() {
            found += 1;
            assert!(
                documents::exists(&path),
                "{}: `{path}` does not exist",
                document.path
            );
        }
    }
    assert!(found > 20, "the search for paths finds few: {found}");
}
