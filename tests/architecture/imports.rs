//! Which file imports which, within one crate.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::sources;

/// From each file of a crate, as a module path, to those that it imports. What it takes from the modules around
/// it is left out: a file and the folder beside it are one room.
pub fn file_imports(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let module_of = |path: &str| {
        let path = path.strip_prefix(folder)?.strip_suffix(".rs")?;
        Some(path.replace('/', "::"))
    };
    let all = sources();
    let all: Vec<_> = all.iter().filter(|source| !source.is_test()).collect();
    let files: BTreeSet<String> = all
        .iter()
        .filter_map(|source| module_of(&source.path))
        .collect();
    let mut imports = BTreeMap::new();
    for source in all {
        let Some(module) = module_of(&source.path) else {
            continue;
        };
        let named = source.imports().flat_map(|import| paths(&import));
        let named = named.filter_map(|path| resolve(&module, &path, &files));
        let is_around =
            |other: &String| *other == module || module.starts_with(&format!("{other}::"));
        let named: BTreeSet<String> = named.filter(|other| !is_around(other)).collect();
        imports.insert(module, named);
    }
    imports
}

/// The paths of a `use` statement, one for each name.
fn paths(import: &str) -> Vec<String> {
    let tree = import.trim_start_matches("use ").trim();
    let Some((before, rest)) = tree.split_once('{') else {
        return vec![tree.to_owned()];
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    let of_part = |part: &&str| paths(&format!("{before}{}", part.trim()));
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(of_part)
        .collect()
}

/// The file that a path of this module leads to, if it is one of the crate's.
fn resolve(module: &str, path: &str, files: &BTreeSet<String>) -> Option<String> {
    let mut at: Vec<&str> = module.split("::").collect();
    let mut segments = path.split("::").peekable();
    match *segments.peek()? {
        "crate" => {
            segments.next();
            at.clear();
        }
        "self" => drop(segments.next()),
        "super" => {
            while segments.next_if_eq(&"super").is_some() {
                at.pop();
            }
        }
        // A module of its own, or another crate.
        _ => {}
    }
    let segments: Vec<&str> = segments.collect();
    (0..=segments.len()).rev().find_map(|taken| {
        let path = [at.as_slice(), &segments[..taken]].concat().join("::");
        files.get(&path).cloned()
    })
}
