//! Reads settings one by one, and remembers what it saw.
//!
//! Why not `config` or serde alone: serde stops at the first error and knows neither source nor
//! bounds. Here one call defines a setting (key, default, bounds, documentation) and reads it, so the
//! errors, `check-config`, the example file and the validation cannot drift apart. The raw form the
//! validated structs are made from is this module's [`Layers`], private to `config`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use toml::Value;

use super::problem::{ConfigErrors, ConfigProblem, Source};
use super::source::{Given, Layers};
use super::suggestion;

/// One setting as it turned out.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) section: String,
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) allowed: String,
    /// The effective value in TOML; `None` is unset.
    pub(super) value: Option<String>,
    /// What the example file shows.
    pub(super) example: String,
    pub(super) source: Source,
}

/// One setting's definition: what does not depend on its type.
#[derive(Clone, Copy)]
pub(super) struct Key {
    name: &'static str,
    doc: &'static str,
    /// Shown in the example file instead of the default, where that depends on the machine.
    example: Option<&'static str>,
}

/// A setting called `name` in the current section, explained by `doc`.
pub(super) const fn key(name: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        example: None,
    }
}

impl Key {
    pub(super) const fn example(mut self, toml: &'static str) -> Self {
        self.example = Some(toml);
        self
    }
}

/// Reads one section after the other.
pub(super) struct Reader {
    layers: Layers,
    section: String,
    known: BTreeSet<String>,
    pub(super) settings: Vec<Setting>,
    /// `(section, documentation)` in the order of reading.
    pub(super) sections: Vec<(String, &'static str)>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        let (known, settings, sections) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self {
            layers,
            section: String::new(),
            known,
            settings,
            sections,
        }
    }

    /// What follows is read from this section.
    pub(super) fn section(&mut self, name: impl Into<String>, doc: &'static str) {
        self.section = name.into();
        self.sections.push((self.section.clone(), doc));
    }

    /// How many members the array of tables `name` has: the highest index that is set, plus one.
    pub(super) fn members(&self, name: &str) -> usize {
        let prefix = format!("{name}.");
        let index = |key: &String| -> Option<usize> {
            key.strip_prefix(&prefix)?.split('.').next()?.parse().ok()
        };
        // A gap is refused through the missing member's required keys; the bound keeps a stray
        // `upstreams.4000000000.name` from making us look for that many.
        self.layers
            .values
            .keys()
            .filter_map(index)
            .map(|index| index + 1)
            .max()
            .unwrap_or(0)
            .min(64)
    }

    /// An integer within `range`.
    pub(super) fn integer(&mut self, key: Key, default: u64, range: RangeInclusive<u64>) -> u64 {
        let allowed = format!("an integer from {} to {}", range.start(), range.end());
        let parse = |given: &Given| {
            let number = match given {
                Given::Toml(value) => u64::try_from(value.as_integer()?).ok()?,
                Given::Text(text) => text.replace('_', "").parse().ok()?,
            };
            range.contains(&number).then_some(number)
        };
        self.read(key, allowed, Some(default), parse, u64::to_string)
            .unwrap_or(default)
    }

    /// An integer that fits 32 bits.
    pub(super) fn count(&mut self, key: Key, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.integer(key, default.into(), range)).unwrap_or(default)
    }

    /// A size or capacity.
    pub(super) fn size(&mut self, key: Key, default: u32, range: RangeInclusive<u32>) -> usize {
        self.count(key, default, range) as usize
    }

    /// A duration given in milliseconds; the key ends in `_ms`.
    pub(super) fn millis(
        &mut self,
        key: Key,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        debug_assert!(key.name.ends_with("_ms"), "the unit belongs in the name");
        Duration::from_millis(self.integer(key, default, range))
    }

    /// A duration given in seconds; the key ends in `_s`.
    pub(super) fn seconds(
        &mut self,
        key: Key,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        debug_assert!(key.name.ends_with("_s"), "the unit belongs in the name");
        Duration::from_secs(self.integer(key, default, range))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: Key, default: bool) -> bool {
        let parse = |given: &Given| match given {
            Given::Toml(value) => value.as_bool(),
            Given::Text(text) => text.parse().ok(),
        };
        self.read(
            key,
            "true or false".to_owned(),
            Some(default),
            parse,
            bool::to_string,
        )
        .unwrap_or(default)
    }

    /// A text that `parse` turns into what it stands for. `None` if unset without a default.
    pub(super) fn parsed<T>(
        &mut self,
        key: Key,
        allowed: &str,
        default: Option<T>,
        parse: impl Fn(&str) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let parse = |given: &Given| text(given).and_then(&parse);
        self.read(key, allowed.to_owned(), default, parse, |value| {
            quote(&show(value))
        })
    }

    /// Several texts: an array in TOML, separated by commas elsewhere.
    pub(super) fn list(
        &mut self,
        key: Key,
        allowed: &str,
        parse: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let parse = |given: &Given| match given {
            Given::Toml(value) => value
                .as_array()?
                .iter()
                .map(|item| parse(item.as_str()?))
                .collect(),
            Given::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(&parse)
                .collect::<Option<Vec<_>>>(),
        };
        let show = |items: &Vec<String>| {
            let items: Vec<_> = items.iter().map(|item| quote(item)).collect();
            format!("[{}]", items.join(", "))
        };
        self.read(key, allowed.to_owned(), Some(Vec::new()), parse, show)
            .unwrap_or_default()
    }

    /// Named values: a table in TOML, or a JSON object in a text.
    pub(super) fn object<T>(
        &mut self,
        key: Key,
        allowed: &str,
        parse: impl Fn(Map<String, Json>) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let parse = |given: &Given| {
            let object = match given {
                Given::Toml(table @ Value::Table(_)) => serde_json::to_value(table).ok()?,
                given => serde_json::from_str(text(given)?).ok()?,
            };
            match object {
                Json::Object(object) => parse(object),
                _ => None,
            }
        };
        // A literal string of TOML, where it can be one: JSON is full of quotes.
        let show = |value: &T| match show(value) {
            json if json.contains('\'') => quote(&json),
            json => format!("'{json}'"),
        };
        self.read(key, allowed.to_owned(), None, parse, show)
    }

    /// Where the current section's `name` was set.
    pub(super) fn source(&self, section: &str, name: &str) -> Source {
        let key = format!("{section}.{name}");
        self.layers
            .values
            .get(&key)
            .map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Adds a problem that only several settings together show.
    pub(super) fn refuse(&mut self, section: &str, name: &str, message: &str, allowed: &str) {
        let source = self.source(section, name);
        let key = format!("{section}.{name}");
        self.layers
            .problems
            .push(ConfigProblem::new(&key, source, message, allowed));
    }

    /// Refuses what nobody asked for, and answers every problem if there is any.
    pub(super) fn finish(mut self, every_key: &[String]) -> Result<Self, ConfigErrors> {
        for (key, (value, source)) in &self.layers.values {
            let empty_array = matches!(value, Given::Toml(Value::Array(items)) if items.is_empty());
            let is_section =
                self.sections.iter().any(|(name, _)| name == key) || key == "upstreams";
            if self.known.contains(key) || (is_section && empty_array) {
                continue;
            }
            let section = key.rsplit_once('.').map_or("", |(section, _)| section);
            let mut allowed = self.siblings(section);
            if let Some(meant) = suggestion::nearest(key, every_key) {
                allowed.push_str("; did you mean ");
                allowed.push_str(&meant);
                allowed.push('?');
            }
            let problem = ConfigProblem::new(key, source.clone(), "unknown key", &allowed);
            self.layers.problems.push(problem);
        }
        if self.layers.problems.is_empty() {
            return Ok(self);
        }
        Err(ConfigErrors(self.layers.problems))
    }

    /// The dotted key of every setting that was read.
    pub(super) fn keys(&self) -> Vec<String> {
        self.known.iter().cloned().collect()
    }

    /// What is of no effect, though somebody seems to have meant something by it.
    pub(super) fn warnings(&self, every_key: &[String]) -> Vec<String> {
        let strangers = self.layers.strangers.iter();
        strangers
            .map(|name| suggestion::unread_variable(name, every_key))
            .collect()
    }

    /// The keys of a section, or the sections when there is no such section.
    fn siblings(&self, section: &str) -> String {
        let keys: Vec<_> = self
            .settings
            .iter()
            .filter(|e| e.section == section)
            .collect();
        if keys.is_empty() {
            let names: Vec<_> = self
                .sections
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            return format!("sections {}, upstreams.N", names.join(", "));
        }
        keys.iter()
            .map(|setting| setting.name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn read<T>(
        &mut self,
        key: Key,
        allowed: String,
        default: Option<T>,
        parse: impl Fn(&Given) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let path = format!("{}.{}", self.section, key.name);
        let example = key
            .example
            .map(str::to_owned)
            .or_else(|| default.as_ref().map(&show));
        let (value, source) = match self.layers.values.get(&path) {
            None => (default, Source::Default),
            Some((given, source)) => {
                let value = parse(given);
                if value.is_none() {
                    let problem =
                        ConfigProblem::new(&path, source.clone(), "is not valid", &allowed);
                    self.layers.problems.push(problem);
                }
                (value.or(default), source.clone())
            }
        };
        self.settings.push(Setting {
            section: self.section.clone(),
            name: key.name,
            doc: key.doc,
            allowed,
            value: value.as_ref().map(show),
            example: example.unwrap_or_default(),
            source,
        });
        self.known.insert(path);
        value
    }
}

fn text(given: &Given) -> Option<&str> {
    match given {
        Given::Toml(value) => value.as_str(),
        Given::Text(text) => Some(text),
    }
}

/// A TOML string. Debug's escapes (`\"`, `\\`, `\n`) are TOML's too; others do not occur in what
/// the checks let through, and a basic string is for people to read here, not to be parsed again.
fn quote(text: &str) -> String {
    format!("{text:?}")
}
