//! A name for a user who has none, as in containers that run under any number: `initdb` insists on an
//! entry in the list of users. The library nss_wrapper shows it one; the server itself needs none.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::binaries::clean_command;
use super::{PrivateError, user};

/// The library of the Debian package libnss-wrapper.
const LIBRARY: &str = "libnss_wrapper.so";

/// Where libraries are, and one level below it.
const LIBRARY_FOLDERS: &[&str] = &["/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// What `initdb` has to be shown.
#[derive(Debug)]
pub(super) enum Name {
    /// Nothing: the user has a name.
    Known,
    /// An entry, through this library.
    Shown { library: PathBuf, uid: u32 },
}

impl Name {
    /// Looks whether the user has a name, or can be given one.
    pub fn of(uid: u32) -> Result<Self, PrivateError> {
        if is_in(&user::passwd(), uid) || is_known_to_the_system(uid) {
            return Ok(Self::Known);
        }
        find_library()
            .map(|library| Self::Shown { library, uid })
            .ok_or(PrivateError::Nameless(uid))
    }

    /// Shows a command the name, by files in `folder`.
    pub fn show(&self, command: &mut Command, folder: &Path) -> Result<(), PrivateError> {
        let Self::Shown { library, uid } = self else {
            return Ok(());
        };
        let gid = rustix::process::getegid().as_raw();
        let users = format!(
            "{}\nhubbub:x:{uid}:{gid}:Hubbub:/:/bin/false\n",
            user::passwd()
        );
        let groups = format!("hubbub:x:{gid}:\n");
        for (variable, name, text) in [
            ("NSS_WRAPPER_PASSWD", "initdb.passwd", users),
            ("NSS_WRAPPER_GROUP", "initdb.group", groups),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|source| PrivateError::Folder {
                path: path.clone(),
                source,
            })?;
            command.env(variable, path);
        }
        command.env("LD_PRELOAD", library);
        Ok(())
    }
}

fn is_in(passwd: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    passwd
        .lines()
        .any(|line| line.split(':').nth(2) == Some(uid.as_str()))
}

/// Also by a directory service.
fn is_known_to_the_system(uid: u32) -> bool {
    let mut command = clean_command("getent").into_std();
    command
        .arg("passwd")
        .arg(uid.to_string())
        .output()
        .is_ok_and(|output| output.status.success())
}

fn find_library() -> Option<PathBuf> {
    let tops = LIBRARY_FOLDERS.iter().map(PathBuf::from);
    let below = tops.clone().flat_map(|top| {
        let entries = std::fs::read_dir(top).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    });
    tops.chain(below)
        .map(|folder| folder.join(LIBRARY))
        .find(|library| library.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    // H8
    #[test]
    fn a_user_is_known_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert!(is_in(passwd, 1000));
        assert!(!is_in(passwd, 100));
        assert!(matches!(Name::of(0), Ok(Name::Known)));
        match Name::of(4_000_111) {
            Ok(Name::Shown { uid, .. }) => assert_eq!(uid, 4_000_111),
            Err(error) => assert!(error.to_string().contains("4000111"), "{error}"),
            Ok(Name::Known) => panic!("nobody has this number"),
        }
    }
}
