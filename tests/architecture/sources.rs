//! The Rust sources, as the rules read them.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where sources are.
const FOLDERS: &[&str] = &[
    "src", "protocol", "actors", "storage", "model", "loadtest", "tests",
];

/// A source file.
pub struct Source {
    /// From the workspace's folder.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// The files of a module of the server.
    pub fn of_module(module: &str) -> Vec<Self> {
        let (file, folder) = (format!("src/{module}.rs"), format!("src/{module}/"));
        let of: Vec<Self> = sources()
            .into_iter()
            .filter(|source| source.path == file || source.path.starts_with(&folder))
            .collect();
        assert!(!of.is_empty(), "there is no module {module} any more");
        of
    }

    /// Whether it is compiled for tests only.
    pub fn is_test(&self) -> bool {
        let path = &self.path;
        path.split('/')
            .any(|part| part == "tests" || part == "tests.rs")
    }

    /// Its lines of code, numbered from 1: no comments, and nothing after `#[cfg(test)] mod`.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut lines = self.text.lines().peekable();
        let mut number = 0;
        std::iter::from_fn(move || {
            let line = lines.next()?;
            number += 1;
            let next = lines.peek().map_or("", |next| next.trim_start());
            if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
                return None;
            }
            Some((number, line))
        })
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Its `use` statements, each as one line.
    pub fn imports(&self) -> impl Iterator<Item = String> {
        let code: Vec<&str> = self.code().map(|(_, line)| line).collect();
        let code = code.join("\n");
        let starts: Vec<usize> = code.match_indices("use ").map(|(at, _)| at).collect();
        let statements: Vec<String> = starts
            .into_iter()
            .filter_map(|at| Some(code.get(at..)?.split(';').next()?.replace('\n', " ")))
            .collect();
        statements.into_iter()
    }

    /// Names of the metrics that its macros record.
    pub fn recorded_metrics(&self) -> Vec<String> {
        let code: Vec<&str> = self.code().map(|(_, line)| line).collect();
        let code = code.join("\n");
        ["counter!(", "gauge!(", "histogram!("]
            .iter()
            .flat_map(|call| code.split(call).skip(1))
            .filter_map(|after| {
                let name = after.trim_start().strip_prefix('"')?;
                Some(name.split('"').next()?.to_owned())
            })
            .collect()
    }
}

/// Every source file of the workspace.
pub fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut found);
    }
    assert!(
        found.len() > 100,
        "the search for sources finds only {}",
        found.len()
    );
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Fails if any code contains one of the words as a whole path.
pub fn forbid(sources: &[Source], words: &[&str], why: &str) {
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            for word in words {
                let is_there = line.match_indices(word).any(|(at, _)| {
                    let after = line
                        .get(at + word.len()..)
                        .unwrap_or_default()
                        .chars()
                        .next();
                    !after.is_some_and(|next| next.is_alphanumeric() || next == '_')
                });
                assert!(
                    !is_there,
                    "{}:{number}: {word} ({why}): {line}",
                    source.path
                );
            }
        }
    }
}

/// Texts in quotes that look like a metric's name.
pub fn metric_names(text: &str) -> impl Iterator<Item = String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with("hubbub_"))
        .map(str::to_owned)
}
