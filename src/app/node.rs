//! Who this node is: a new identity at each start, noted in the data folder for its successor.
//!
//! Whoever holds the folder's lock knows that the node before it is dead, and need not wait for that
//! node's lease to run out before its replies are ended.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use hubbub_protocol::NodeId;

use hubbub_storage::folder;

/// This node, which holds the data folder while it lives.
pub(super) struct Node {
    /// Its identity.
    pub(super) id: NodeId,
    /// The node that held the folder last.
    pub(super) predecessor: Option<NodeId>,
    file: File,
}

impl Node {
    /// Takes the data folder.
    ///
    /// # Errors
    /// Another server holds it, or it cannot be written.
    pub(super) fn take(data_dir: &Path) -> anyhow::Result<Self> {
        folder::make(data_dir)?;
        let path = data_dir.join("node");
        let unusable = || format!("{} cannot be used", path.display());
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            // Whoever may open it may lock it.
            .mode(0o600)
            .open(&path)
            .with_context(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another server runs with the data folder {}: stop it, or choose another folder \
                 with --data-dir",
                data_dir.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        let mut noted = Vec::new();
        file.read_to_end(&mut noted).with_context(unusable)?;
        let noted = String::from_utf8_lossy(&noted);
        Ok(Self {
            id: NodeId::generate(),
            // One that was cut short names nobody: then the lease has to run out.
            predecessor: noted.trim().parse().ok(),
            file,
        })
    }

    /// Notes this node for its successor, once the predecessor's replies are free to be taken.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn note(&mut self) -> std::io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        writeln!(self.file, "{}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_node_at_a_time_which_knows_the_one_before() {
        let folder = std::env::temp_dir().join(format!("hubbub-node-{}", NodeId::generate()));
        let mut first = Node::take(&folder).unwrap();
        assert_eq!(first.predecessor, None);
        assert!(Node::take(&folder).is_err());
        let id = first.id;
        first.note().unwrap();
        drop(first);
        // Not noted: it died before it had taken anything over.
        assert_eq!(Node::take(&folder).unwrap().predecessor, Some(id));
        let second = Node::take(&folder).unwrap();
        assert_eq!(second.predecessor, Some(id));
        drop(second);
        std::fs::write(folder.join("node"), [0xFF, 0]).unwrap();
        assert_eq!(Node::take(&folder).unwrap().predecessor, None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
