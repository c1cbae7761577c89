//! As whom PostgreSQL runs: it refuses root, so root drops to the user `postgres`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use tokio::process::Command;

use super::PrivateError;

/// The user PostgreSQL runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    /// Ourselves, or `postgres` if we are root.
    pub fn find() -> Result<Self, PrivateError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        find_in(&passwd)
            .map(|ids| Self(Some(ids)))
            .ok_or(PrivateError::NoUser)
    }

    /// Makes a command run as this user.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder to this user, closed to everybody else.
    pub fn own(self, path: &Path, mode: u32) -> Result<(), PrivateError> {
        let folder = |source| PrivateError::Folder {
            path: path.to_path_buf(),
            source,
        };
        if let Some((uid, gid)) = self.0 {
            chown(path, Some(uid), Some(gid)).map_err(folder)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(folder)
    }

    /// Whether this user can get to `path`: every folder above it must let them through.
    pub fn check_reach(self, path: &Path) -> Result<(), PrivateError> {
        let Some((uid, gid)) = self.0 else {
            return Ok(());
        };
        for folder in path.ancestors().skip(1) {
            let meta = std::fs::metadata(folder).map_err(|source| PrivateError::Folder {
                path: folder.to_path_buf(),
                source,
            })?;
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

fn find_in(passwd: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
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
}
