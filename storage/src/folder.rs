//! Folders the server makes for itself, with the same mode whatever umask it was started under.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// For the server's user alone.
const PRIVATE: u32 = 0o700;

/// As root: also to be passed through by the user PostgreSQL runs as, who owns a folder inside.
const PASSABLE: u32 = 0o711;

/// Why a folder is not there. The sentences end with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Something else is in its place.
    #[error("{} is not a folder; choose another data folder with --data-dir", .0.display())]
    NotAFolder(PathBuf),
    /// A link in its place leads nowhere.
    #[error(
        "{} is a link to something that does not exist; make that folder, or choose another data \
             folder with --data-dir", .0.display()
    )]
    Dangling(PathBuf),
    /// The system refuses.
    #[error("the folder {} cannot be made: {source}; choose another data folder with --data-dir", .path.display())]
    NotMade {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is missing of `path`, the outermost folder first. Changes nothing.
///
/// # Errors
/// [`FolderError`] if the folder is not there and could not be made either.
pub fn missing(path: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let not_made = |path: &Path, source| FolderError::NotMade {
        path: path.to_path_buf(),
        source,
    };
    let whole = std::path::absolute(path).map_err(|source| not_made(path, source))?;
    let mut missing = Vec::new();
    for folder in whole.ancestors() {
        match std::fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => return Err(FolderError::NotAFolder(folder.to_path_buf())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if folder.symlink_metadata().is_ok() {
                    return Err(FolderError::Dangling(folder.to_path_buf()));
                }
                missing.push(folder.to_path_buf());
            }
            // A file further up, which is found there.
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(source) => return Err(not_made(folder, source)),
        }
    }
    missing.reverse();
    Ok(missing)
}

/// Makes a folder with everything that is missing above it. What is there already stays as it is.
///
/// # Errors
/// [`FolderError`], which names the path and says what to do.
pub fn make(path: &Path) -> Result<(), FolderError> {
    let mode = if rustix::process::geteuid().is_root() {
        PASSABLE
    } else {
        PRIVATE
    };
    for folder in missing(path)? {
        let made = match std::fs::create_dir(&folder) {
            // Another server that starts at the same time was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => std::fs::set_permissions(&folder, Permissions::from_mode(mode)),
        };
        made.map_err(|source| FolderError::NotMade {
            path: folder,
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // H4, H8
    #[test]
    fn a_folder_is_made_whole_or_the_culprit_is_named() {
        let stage = tempfile::tempdir().unwrap();
        let deep = stage.path().join("a b/c,d/'e'");
        assert_eq!(missing(&deep).unwrap().len(), 3);
        make(&deep).unwrap();
        make(&deep).unwrap();
        for folder in [deep.as_path(), &stage.path().join("a b")] {
            let mode = folder.metadata().unwrap().permissions().mode() & 0o777;
            assert!(mode == PRIVATE || mode == PASSABLE, "{mode:o}");
        }

        let file = stage.path().join("file");
        std::fs::write(&file, "").unwrap();
        let dangling = stage.path().join("dangling");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        for (path, culprit) in [
            (file.clone(), &file),
            (file.join("below"), &file),
            (dangling.join("below"), &dangling),
        ] {
            let told = make(&path).unwrap_err().to_string();
            assert!(told.contains(culprit.to_str().unwrap()), "{told}");
            assert!(told.contains("--data-dir"), "{told}");
        }
        let link = stage.path().join("link");
        std::os::unix::fs::symlink(&deep, &link).unwrap();
        make(&link.join("below")).unwrap();
        assert!(deep.join("below").is_dir());
        let told = make(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(told.contains("/proc/nowhere"), "{told}");
    }
}
