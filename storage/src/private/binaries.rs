//! Where PostgreSQL's programs are, and what they are told of the world: next to nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::PrivateError;

/// Where Debian, Ubuntu and others put versions side by side.
const VERSIONED: &str = "/usr/lib/postgresql";
/// Oldest major version the schema is written for.
const OLDEST: u32 = 14;

/// All that PostgreSQL's programs get of our environment: where programs and libraries are, and a name for
/// a user who has none (see `nameless.rs`). Anything else would be settings that nobody made for them, such
/// as PGPORT or LC_ALL, or secrets.
const PASSED_ON: &[&str] = &[
    "PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NSS_WRAPPER_PASSWD",
    "NSS_WRAPPER_GROUP",
];

/// A folder with `initdb` and `postgres` of one version.
#[derive(Clone, Debug)]
pub(super) struct Binaries(PathBuf);

impl Binaries {
    /// The newest ones, or those of the version that made the existing data.
    pub fn find(major: Option<u32>) -> Result<Self, PrivateError> {
        let mut found: Vec<(u32, PathBuf)> = versioned().chain(on_path()).collect();
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        found
            .into_iter()
            .find(|(version, _)| major.map_or(*version >= OLDEST, |major| *version == major))
            .map(|(_, folder)| Self(folder))
            .ok_or(PrivateError::NoBinaries(major))
    }

    /// One of the programs, in a clean environment and with nothing to read.
    pub fn command(&self, name: &str) -> Command {
        let mut command = clean_command(self.0.join(name));
        command.stdin(Stdio::null());
        command
    }
}

/// A command that sees the environment PostgreSQL's programs may see.
pub(super) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // The same on every machine: what the programs say, and the zone that a new cluster notes.
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

fn versioned() -> impl Iterator<Item = (u32, PathBuf)> {
    std::fs::read_dir(VERSIONED)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            usable(&entry.path().join("bin")).map(|folder| (version, folder))
        })
}

fn on_path() -> impl Iterator<Item = (u32, PathBuf)> {
    // Where programs are is the system's word, not a setting of ours.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|folder| {
            // Links lead to the real folder, which has all programs of the version.
            let program = folder.join("postgres").canonicalize().ok()?;
            let folder = usable(program.parent()?)?;
            Some((version_of(&folder)?, folder))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn usable(folder: &Path) -> Option<PathBuf> {
    ["initdb", "postgres"]
        .iter()
        .all(|name| folder.join(name).is_file())
        .then(|| folder.to_path_buf())
}

/// Asks the program, because a folder on the PATH does not tell its version.
fn version_of(folder: &Path) -> Option<u32> {
    let mut command = clean_command(folder.join("postgres")).into_std();
    let output = command.arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<u32> {
    // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    let number = text.split_whitespace().nth(2)?;
    number
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_program_says() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0)\n"),
            Some(15)
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta2"), Some(19));
        assert_eq!(parse_version("postgres"), None);
    }

    #[test]
    fn a_version_that_is_not_installed_is_named() {
        let error = Binaries::find(Some(9)).unwrap_err().to_string();
        assert!(error.contains("postgresql-9"), "{error}");
    }
}
