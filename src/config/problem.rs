//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it is the default.
    Default,
    /// The configuration file.
    File,
    /// This environment variable.
    Environment(String),
    /// A command-line flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// One thing to correct. Never contains the value that was given: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The dotted key, such as `server.listen`.
    pub key: String,
    /// Where the value was set.
    pub source: Source,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub allowed: String,
}

impl ConfigProblem {
    pub(super) fn new(key: &str, source: Source, message: &str, allowed: &str) -> Self {
        Self {
            key: key.to_owned(),
            source,
            message: message.to_owned(),
            allowed: allowed.to_owned(),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            source,
            message,
            allowed,
        } = self;
        write!(f, "{key} ({source}): {message}; allowed: {allowed}")
    }
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

impl ConfigErrors {
    pub(super) fn one(problem: ConfigProblem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} error(s):", self.0.len())?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
