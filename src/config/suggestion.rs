//! What somebody may have meant: the setting whose name is nearest to one that does not exist.

/// Environment variables that start with this are settings: `HUBBUB__SECTION__KEY`.
pub(super) const PREFIX: &str = "HUBBUB__";

/// How alike two names must be, from 0 to 1, for one to be offered instead of the other.
const ALIKE: f64 = 0.7;

/// Whether a variable that is not ours was probably meant to be: our name, but one underscore, or another
/// case. What an orchestrator makes for a service called hubbub is not.
pub(super) fn looks_like_ours(name: &str, value: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_service_link = upper.ends_with("_SERVICE_HOST")
        || upper.contains("_SERVICE_PORT")
        || upper.contains("_PORT_")
        || value.starts_with("tcp://")
        || value.starts_with("udp://");
    upper.starts_with("HUBBUB_") && !is_service_link
}

/// The known key that is nearest to a dotted one.
pub(super) fn nearest(key: &str, known: &[String]) -> Option<String> {
    let wanted = letters(key);
    let likeness = |known: &String| {
        let known = with_index_of(known, key);
        let likeness = strsim::normalized_damerau_levenshtein(&letters(&known), &wanted);
        (likeness, known)
    };
    let best = known
        .iter()
        .map(likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE)
        .map(|(_, key)| key)
}

/// A warning about a variable that nothing reads, with the one that was probably meant.
pub(super) fn unread_variable(name: &str, known: &[String]) -> String {
    let rest = name.get("HUBBUB_".len()..).unwrap_or_default();
    let rest = rest.trim_start_matches('_').to_ascii_lowercase();
    match nearest(&rest.replace("__", "."), known) {
        Some(key) => format!(
            "the environment variable {name} is not read; did you mean {}?",
            variable(&key)
        ),
        None => format!(
            "the environment variable {name} is not read; settings are named {PREFIX}SECTION__KEY"
        ),
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Known members of a list are those of index 0: the index of the key asked for is put in its place.
fn with_index_of(known: &str, key: &str) -> String {
    let index = key
        .split(|c: char| !c.is_ascii_digit())
        .find(|digits| !digits.is_empty());
    match index {
        Some(index) => known.replace(".0.", &format!(".{index}.")),
        None => known.to_owned(),
    }
}

/// How parts are joined is what is easily mistaken, so it does not count.
fn letters(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).collect()
}
