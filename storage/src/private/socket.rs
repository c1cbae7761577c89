//! The folder of the server's socket, and how to get there although a socket's path is short.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::user::ServerUser;
use super::{PrivateError, RUN, SOCKET};
use crate::DatabaseUrl;

/// `sockaddr_un` holds 108 bytes with the final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The folder, open as long as anybody may connect.
#[derive(Clone, Debug)]
pub(super) struct SocketFolder {
    path: PathBuf,
    is_near: bool,
    open: Arc<File>,
}

impl SocketFolder {
    /// Makes it in the cluster's folder, for the server's user alone.
    pub fn make(home: &Path, user: ServerUser) -> Result<Self, PrivateError> {
        let path = home.join(RUN);
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(PrivateError::Folder { path, source });
            }
            _ => {}
        }
        user.own(&path, 0o700)?;
        Self::open(home)
    }

    /// The one that is there.
    pub fn open(home: &Path) -> Result<Self, PrivateError> {
        let path = home.join(RUN);
        let open = File::open(&path).map_err(|source| PrivateError::Folder {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            is_near: path.join(SOCKET).as_os_str().len() <= SOCKET_PATH_MAX,
            path,
            open: Arc::new(open),
        })
    }

    /// Where clients in this process find the socket: a path that is too long is entered through the open
    /// folder.
    pub fn path(&self) -> PathBuf {
        if self.is_near {
            self.path.clone()
        } else {
            PathBuf::from(format!("/proc/self/fd/{}", self.open.as_raw_fd()))
        }
    }

    /// As PostgreSQL reads it: a list, whose separators count unless they are quoted. From a folder with
    /// too long a path it goes the short way, for it works in its data.
    pub fn setting(&self) -> std::ffi::OsString {
        use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
        let path = if self.is_near {
            self.path.clone()
        } else {
            Path::new("..").join(RUN)
        };
        let mut quoted = vec![b'"'];
        for byte in path.as_os_str().as_bytes() {
            if *byte == b'"' {
                quoted.push(b'"');
            }
            quoted.push(*byte);
        }
        quoted.push(b'"');
        std::ffi::OsString::from_vec(quoted)
    }

    /// How to reach one of the databases.
    pub fn url(&self, user: &str, database: &str) -> DatabaseUrl {
        DatabaseUrl::on_socket(self.path(), user, database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H4
    #[test]
    fn the_path_is_quoted_and_a_long_one_is_entered_through_the_folder() {
        let stage = tempfile::tempdir().unwrap();
        let home = stage.path().join("a, \"b\"");
        std::fs::create_dir_all(home.join(RUN)).unwrap();
        let folder = SocketFolder::open(&home).unwrap();
        assert_eq!(folder.path(), home.join(RUN));
        let expected = format!("\"{}/a, \"\"b\"\"/run\"", stage.path().display());
        assert_eq!(folder.setting(), expected.as_str());

        let long = stage.path().join("x".repeat(150));
        std::fs::create_dir_all(long.join(RUN)).unwrap();
        std::fs::write(long.join(RUN).join(SOCKET), "found").unwrap();
        let folder = SocketFolder::open(&long).unwrap();
        let path = folder.path().join(SOCKET);
        assert!(path.as_os_str().len() <= SOCKET_PATH_MAX);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "found");
        assert_eq!(folder.setting(), "\"../run\"");
    }
}
