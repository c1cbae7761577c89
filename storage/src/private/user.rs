//! As whom PostgreSQL runs: it refuses root, so root drops to the user `postgres`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use tokio::process::Command;

use super::PrivateError;

/// Whom root becomes.
const POSTGRES: &str = "postgres";

/// The user PostgreSQL runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser {
    uid: u32,
    /// The ids to drop to, if we are root.
    drop_to: Option<(u32, u32)>,
}

impl ServerUser {
    /// Ourselves, or `postgres` if we are root.
    pub fn find() -> Result<Self, PrivateError> {
        let own = rustix::process::geteuid();
        if !own.is_root() {
            return Ok(Self {
                uid: own.as_raw(),
                drop_to: None,
            });
        }
        let ids = find_in(&passwd()).ok_or(PrivateError::NoUser)?;
        Ok(Self {
            uid: ids.0,
            drop_to: Some(ids),
        })
    }

    /// Its number.
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// Makes a command run as this user.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.drop_to {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder to this user, closed to everybody else.
    pub fn own(self, path: &Path, mode: u32) -> Result<(), PrivateError> {
        let folder = |source| PrivateError::Folder {
            path: path.to_path_buf(),
            source,
        };
        if let Some((uid, gid)) = self.drop_to {
            chown(path, Some(uid), Some(gid)).map_err(folder)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(folder)
    }

    /// Whether `path` may be this user's: it is already, or it is root's and we are root. Nothing that
    /// belongs to anybody else is taken over: its owner could not use it any more.
    pub fn check_owner(self, path: &Path) -> Result<(), PrivateError> {
        let may_give = self.drop_to.is_some();
        self.check(path, |owner| may_give && owner == 0)
    }

    /// Whether `path` is this user's, as PostgreSQL demands of its data.
    pub fn check_owns(self, path: &Path) -> Result<(), PrivateError> {
        self.check(path, |_| false)
    }

    fn check(self, path: &Path, may_be: impl Fn(u32) -> bool) -> Result<(), PrivateError> {
        // What is not there yet will be made by us.
        let Ok(meta) = std::fs::metadata(path) else {
            return Ok(());
        };
        if meta.uid() == self.uid || may_be(meta.uid()) {
            return Ok(());
        }
        Err(PrivateError::ForeignOwner {
            path: path.to_path_buf(),
            owner: name_of(meta.uid()),
            user: name_of(self.uid),
        })
    }

    /// Whether this user can get to `path`: every folder above it that exists must let them through.
    pub fn check_reach(self, path: &Path) -> Result<(), PrivateError> {
        let Some((uid, gid)) = self.drop_to else {
            return Ok(());
        };
        for folder in path.ancestors().skip(1) {
            let meta = match std::fs::metadata(folder) {
                Ok(meta) => meta,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => {
                    let path = folder.to_path_buf();
                    return Err(PrivateError::Folder { path, source });
                }
            };
            let needed = if meta.uid() == uid {
                0o100
            } else if meta.gid() == gid {
                0o010
            } else {
                0o001
            };
            if meta.mode() & needed == 0 {
                return Err(PrivateError::Unreachable(folder.to_path_buf()));
            }
        }
        Ok(())
    }
}

/// The system's own list of users; those of a directory service are not in it.
pub(super) fn passwd() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// How a user is called, for people.
fn name_of(uid: u32) -> String {
    let passwd = passwd();
    let mut entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then_some(name)
    });
    entries
        .next()
        .map_or_else(|| format!("with the number {uid}"), str::to_owned)
}

fn find_in(passwd: &str) -> Option<(u32, u32)> {
    let mut lines = passwd.lines();
    let line = lines.find(|line| line.split(':').next() == Some(POSTGRES))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    // An entry that maps it to root helps nobody.
    (uid != 0).then_some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_read_from_passwd() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:PG:/var/lib/postgresql:/bin/sh\n";
        assert_eq!(find_in(passwd), Some((101, 104)));
        assert_eq!(
            find_in("root:x:0:0::/root:/bin/sh\npostgresql:x:1:1::/:/bin/sh"),
            None
        );
        assert_eq!(find_in("postgres:x:0:0::/:/bin/sh"), None);
    }

    #[test]
    fn a_user_without_a_name_is_told_by_number() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(4_000_111), "with the number 4000111");
    }
}
