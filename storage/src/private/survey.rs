//! What is checked before anything is changed: a start that cannot succeed leaves everything as it was.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::binaries::Binaries;
use super::nameless::Name;
use super::user::ServerUser;
use super::{DATA, HOME, PrivateError};
use crate::folder;

/// PostgreSQL cuts paths at 1,023 bytes, and puts names of its own behind the folder's.
const DATA_PATH_MAX: usize = 900;

/// A data folder that a private PostgreSQL can be started in, as far as can be seen.
#[derive(Debug)]
pub(super) struct Survey {
    /// The cluster's folder, which may have to be made. Its path has no links in it.
    pub home: PathBuf,
    /// As whom PostgreSQL will run.
    pub user: ServerUser,
    /// Of the version that made the data, or the newest.
    pub binaries: Binaries,
    /// How `initdb` will know the user, if there is no data yet.
    pub to_make: Option<Name>,
}

impl Survey {
    /// Looks, and touches nothing.
    pub fn of(data_dir: &Path) -> Result<Self, PrivateError> {
        let data_dir = resolved(data_dir)?;
        if data_dir.join("PG_VERSION").exists() {
            return Err(PrivateError::ACluster(data_dir));
        }
        let home = data_dir.join(HOME);
        let data = home.join(DATA);
        check_path(&data)?;
        let user = ServerUser::find()?;
        user.check_owner(&home)?;
        user.check_reach(&home)?;
        let made_by = version_of(&data)?;
        let binaries = Binaries::find(made_by)?;
        let to_make = match made_by {
            Some(_) => {
                user.check_owns(&data)?;
                None
            }
            None => Some(Name::of(user.uid())?),
        };
        Ok(Self {
            home,
            user,
            binaries,
            to_make,
        })
    }
}

/// The path without links, as far as it exists.
fn resolved(data_dir: &Path) -> Result<PathBuf, PrivateError> {
    let failed = |source| PrivateError::Folder {
        path: data_dir.to_path_buf(),
        source,
    };
    let whole = std::path::absolute(data_dir).map_err(failed)?;
    let missing = folder::missing(&whole)?;
    let existing = missing
        .first()
        .and_then(|outermost| outermost.parent())
        .unwrap_or(&whole);
    let real = existing.canonicalize().map_err(failed)?;
    let rest = whole.strip_prefix(existing).unwrap_or(Path::new(""));
    // Joined with nothing, a path would get a slash at its end.
    Ok(if rest.as_os_str().is_empty() {
        real
    } else {
        real.join(rest)
    })
}

fn check_path(data: &Path) -> Result<(), PrivateError> {
    let bytes = data.as_os_str().as_bytes();
    let what = if bytes.len() > DATA_PATH_MAX {
        "is too long a path for PostgreSQL"
    } else if bytes.iter().any(u8::is_ascii_control) {
        "has a control character in its path, which PostgreSQL cannot use"
    } else {
        return Ok(());
    };
    Err(PrivateError::UnusablePath {
        path: data.to_path_buf(),
        what,
    })
}

/// The major version that made the data; `None` if there is none yet.
fn version_of(data: &Path) -> Result<Option<u32>, PrivateError> {
    let path = data.join("PG_VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(PrivateError::NotACluster(data.to_path_buf())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_empty = match std::fs::read_dir(data) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            if is_empty {
                Ok(None)
            } else {
                Err(PrivateError::NotACluster(data.to_path_buf()))
            }
        }
        Err(source) => Err(PrivateError::Folder { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H3, H4
    #[test]
    fn what_cannot_work_is_told_before_anything_is_made() {
        let stage = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let home = stage.path().join("data").join(HOME);
        let told = |path: &Path| Survey::of(path).unwrap_err().to_string();

        let long = stage.path().join("long/".repeat(200));
        assert!(told(&long).contains("too long a path"));
        assert!(told(&stage.path().join("a\nb")).contains("control character"));
        let file = stage.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(told(&file).contains("is not a folder"), "{}", told(&file));

        std::fs::create_dir_all(home.join(DATA)).unwrap();
        std::fs::write(home.join(DATA).join("letter"), "").unwrap();
        assert!(told(&stage.path().join("data")).contains(home.join(DATA).to_str().unwrap()));
        std::fs::write(home.join(DATA).join("PG_VERSION"), "9\n").unwrap();
        assert!(told(&stage.path().join("data")).contains("postgresql-9"));
        let data = home.join(DATA);
        assert!(told(&data).contains("the data of a PostgreSQL itself"));
        assert_eq!(stage.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let stage = tempfile::tempdir().unwrap();
        let real = stage.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolved(&real.join("link/a/b")).unwrap(), real.join("a/b"));
        assert_eq!(resolved(&real.join("link")).unwrap(), real);
        let relative = resolved(Path::new("nowhere/yet")).unwrap();
        assert!(relative.is_absolute() && relative.ends_with("nowhere/yet"));
    }
}
