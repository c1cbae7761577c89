//! The Markdown documents, as the rules read them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::sources::root;

/// A document.
pub struct Document {
    /// From the workspace's folder.
    pub path: String,
    text: String,
}

/// The project's documents.
pub fn all() -> Vec<Document> {
    let mut paths = vec![
        "README.md".to_owned(),
        "CONTRIBUTING.md".into(),
        "CHANGELOG.md".into(),
    ];
    for folder in ["docs", "docs/adr"] {
        let names = names_in(folder)
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|of| of == "md"));
        paths.extend(names.map(|name| format!("{folder}/{name}")));
    }
    paths
        .into_iter()
        .map(|path| Document {
            text: read(&path),
            path,
        })
        .collect()
}

/// A file of the workspace.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of the files and folders in a folder, in order.
pub fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_str().unwrap().to_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

impl Document {
    /// Targets of its links to files of the project.
    pub fn links(&self) -> Vec<String> {
        let after = self.text.split("](").skip(1);
        let targets = after.filter_map(|rest| rest.split(')').next());
        let is_ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
        targets.filter(is_ours).map(str::to_owned).collect()
    }

    /// What stands in backticks and starts with a folder of the workspace.
    pub fn named_paths(&self) -> Vec<String> {
        let folders: Vec<String> = names_in("")
            .into_iter()
            .filter(|name| root().join(name).is_dir() && !is_made(name))
            .map(|name| format!("{name}/"))
            .collect();
        let mut in_block = false;
        let mut named = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            } else if !in_block {
                let quoted = line.split('`').skip(1).step_by(2);
                let of_ours = |text: &&str| {
                    let is_path = !text.contains([' ', '*', '{', '<', '…']);
                    is_path && !text.contains("NNNN") && folders.iter().any(|f| text.starts_with(f))
                };
                named.extend(quoted.filter(of_ours).map(str::to_owned));
            }
        }
        named
    }
}

/// Whether a folder is made by building or running, and not part of the project.
fn is_made(name: &str) -> bool {
    matches!(name, "target" | "data" | "node_modules") || name.starts_with('.')
}

/// Whether a path, from the workspace's folder, is there. Built files are only as good as their build.
pub fn exists(path: &str) -> bool {
    path.starts_with("widget/dist") || root().join(path).exists()
}

/// Whether a link of a document leads to a file, and to a heading of it if it names one.
pub fn resolves(document: &str, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(document).parent().unwrap();
    let target = match file {
        "" => PathBuf::from(document),
        file => normal(&folder.join(file)),
    };
    if !root().join(&target).exists() {
        return false;
    }
    heading.is_empty() || anchors(&read(target.to_str().unwrap())).any(|anchor| anchor == heading)
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// The names that a heading is linked by.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}
