//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use super::PrivateError;

/// Where Debian, Ubuntu and others put versions side by side.
const VERSIONED: &str = "/usr/lib/postgresql";
/// Oldest major version the schema is written for.
const OLDEST: u32 = 14;

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

    /// The program's path.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
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
    let output = std::process::Command::new(folder.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
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
