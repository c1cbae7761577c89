//! Why there is no private PostgreSQL. Each sentence says what is wrong, where, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::folder::FolderError;

/// Why the private PostgreSQL is not there.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// No usable binaries.
    #[error("no PostgreSQL{} found in PATH or /usr/lib/postgresql; install the Debian package \
             postgresql{} or configure a database", version(*.0), package(*.0))]
    NoBinaries(Option<u32>),
    /// We are root, PostgreSQL refuses to be, and there is no other user.
    #[error(
        "PostgreSQL does not run as root and there is no user postgres; install the Debian \
             package postgresql, start hubbub as another user, or configure a database"
    )]
    NoUser,
    /// `initdb` refuses a user without a name.
    #[error(
        "the user with the number {0} has no entry in /etc/passwd, without which PostgreSQL cannot make \
             its data; add one, install the Debian package libnss-wrapper, or configure a database"
    )]
    Nameless(u32),
    /// The folder's parents shut the postgres user out.
    #[error("{} cannot be entered by the user postgres, as whom PostgreSQL runs; choose another data \
             folder with --data-dir, start hubbub as another user, or configure a database", .0.display())]
    Unreachable(PathBuf),
    /// It is somebody else's, who would be locked out.
    #[error("{} belongs to the user {owner}, but PostgreSQL would run as the user {user}; start hubbub as \
             the owner, choose another data folder with --data-dir, or hand this one over with chown -R",
            .path.display())]
    ForeignOwner {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: String,
        /// Who wants it.
        user: String,
    },
    /// PostgreSQL cannot work under this path.
    #[error("{} {what}; choose another data folder with --data-dir", .path.display())]
    UnusablePath {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is something in the place of the data.
    #[error("{} is not the data of a PostgreSQL; move it away, or choose another data folder with \
             --data-dir", .0.display())]
    NotACluster(PathBuf),
    /// The data folder is the data of a PostgreSQL.
    #[error("{} is the data of a PostgreSQL itself; choose another data folder with --data-dir", .0.display())]
    ACluster(PathBuf),
    /// The data folder is none.
    #[error(transparent)]
    DataFolder(#[from] FolderError),
    /// A file or folder cannot be used.
    #[error("{} cannot be used: {source}", .path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another hubbub is using it.
    #[error("{} is in use by another running hubbub", .0.display())]
    InUse(PathBuf),
    /// Another hubbub holds the folder, and its PostgreSQL does not answer.
    #[error("another hubbub holds {}, but its PostgreSQL does not answer; try again, or stop it", .0.display())]
    Silent(PathBuf),
    /// The data could not be made.
    #[error("no PostgreSQL can be made in {}: {reason}", .home.display())]
    NotMade {
        /// Where.
        home: PathBuf,
        /// What `initdb` said.
        reason: String,
    },
    /// The server ended at once.
    #[error("PostgreSQL does not start in {}: {reason}", .home.display())]
    NotStarted {
        /// Where.
        home: PathBuf,
        /// What it said.
        reason: String,
    },
    /// It did not answer in time.
    #[error("PostgreSQL did not answer within {0:?}; see {path}", path = .1.display())]
    NotReady(Duration, PathBuf),
    /// One that was left behind does not end.
    #[error("a PostgreSQL left behind in {} does not end; end its processes and try again", .0.display())]
    LeftBehind(PathBuf),
    /// It answers, but its database could not be made.
    #[error("the database could not be made: {0}")]
    Database(String),
}

impl PrivateError {
    /// Whether something of an earlier server was in the way, which clearing up may help against.
    pub(super) fn is_in_the_way(&self) -> bool {
        let Self::NotStarted { reason, .. } = self else {
            return false;
        };
        ["lock file", "shared memory block", "Address already in use"]
            .iter()
            .any(|sign| reason.contains(sign))
    }
}

fn version(major: Option<u32>) -> String {
    major
        .map(|major| format!(" {major}, which made the existing data,"))
        .unwrap_or_default()
}

fn package(major: Option<u32>) -> String {
    major.map(|major| format!("-{major}")).unwrap_or_default()
}
