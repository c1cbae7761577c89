//! Where settings come from, laid over each other: file < environment < flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use toml::{Table, Value};

use super::problem::{ConfigErrors, ConfigProblem, Source};
use super::suggestion::{self, PREFIX};

/// What a configuration is loaded from. Nothing else is read, so a test can give all of it.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<(String, String)>,
}

impl Inputs {
    /// The defaults alone.
    pub fn none() -> Self {
        Self::default()
    }

    /// `file` (from `--config`) under the environment of this process.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: std::env::vars_os().collect(),
            flags: Vec::new(),
        }
    }

    /// Reads this file.
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Adds one environment variable.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a command-line flag for a dotted key, such as `server.listen`. It beats everything.
    pub fn with_flag(mut self, key: &str, value: impl Into<String>) -> Self {
        self.flags.push((key.to_owned(), value.into()));
        self
    }

    /// A variable that is not ours, such as `HOME`; `None` when unset, empty or not Unicode.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.environment.iter().find(|(key, _)| key == name)?;
        value.to_str().filter(|value| !value.is_empty())
    }

    /// Everything that is set, by dotted key, the strongest source of each.
    pub(super) fn layers(&self) -> Result<Layers, ConfigErrors> {
        let mut layers = Layers::default();
        if let Some(path) = &self.file {
            let table = read_file(path)?;
            flatten("", table, &mut layers.values);
        }
        for (name, value) in &self.environment {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with(PREFIX) {
                if suggestion::looks_like_ours(name, value.to_str().unwrap_or_default()) {
                    layers.strangers.push(name.to_owned());
                }
                continue;
            }
            let source = Source::Environment(name.to_owned());
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            match value.to_str() {
                Some(text) => layers.set(key, Given::Text(text.to_owned()), source),
                None => layers.problems.push(ConfigProblem::new(
                    &key,
                    source,
                    "is not Unicode",
                    "UTF-8 text",
                )),
            }
        }
        for (key, value) in &self.flags {
            layers.set(key.clone(), Given::Text(value.clone()), Source::Flag);
        }
        Ok(layers)
    }
}

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// By TOML, with its type.
    Toml(Value),
    /// By the environment or a flag: text, whatever it stands for.
    Text(String),
}

/// Everything that is set.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// By dotted key; members of an array of tables have their index as a part: `upstreams.0.name`.
    pub(super) values: BTreeMap<String, (Given, Source)>,
    /// What could not even be read.
    pub(super) problems: Vec<ConfigProblem>,
    /// Environment variables that are not ours and yet look as if they were meant to be.
    pub(super) strangers: Vec<String>,
}

impl Layers {
    fn set(&mut self, key: String, value: Given, source: Source) {
        self.values.insert(key, (value, source));
    }
}

fn read_file(path: &std::path::Path) -> Result<Table, ConfigErrors> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        ConfigErrors::one(ConfigProblem::new(
            &name,
            Source::File,
            &message,
            "a readable TOML file",
        ))
    })?;
    text.parse::<Table>().map_err(|error| {
        // The parser's own rendering quotes the offending line, which may hold a secret.
        let line = error.span().map_or(0, |span| {
            1 + text
                .bytes()
                .take(span.start)
                .filter(|byte| *byte == b'\n')
                .count()
        });
        let message = format!("is not TOML: line {line}: {}", error.message());
        ConfigErrors::one(ConfigProblem::new(
            &name,
            Source::File,
            &message,
            "TOML 1.0",
        ))
    })
}

fn flatten(prefix: &str, table: Table, into: &mut BTreeMap<String, (Given, Source)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(inner) if !is_one_value(&key) => flatten(&key, inner, into),
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
                for (index, item) in items.into_iter().enumerate() {
                    if let Value::Table(inner) = item {
                        flatten(&format!("{key}.{index}"), inner, into);
                    }
                }
            }
            other => {
                into.insert(key, (Given::Toml(other), Source::File));
            }
        }
    }
}

/// Whether the table with this key is a value of its own, whose names are the user's.
fn is_one_value(key: &str) -> bool {
    key.strip_prefix("upstreams.")
        .and_then(|member| member.split_once('.'))
        .is_some_and(|(_, name)| matches!(name, "extra_body" | "headers"))
}
