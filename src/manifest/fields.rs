//! Stands between the tree and the sections of the manifest: takes the keys that a section knows, and values of
//! the type that it expects.
//!
//! Invariant: every key of a mapping is either asked for by its section, or reported as not built yet or unknown.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Place, Report, closest, quoted};
use super::tree::{Map, Node, Value};
use super::units;

/// Longest name of a container, topic, tenant and so on.
const NAME_MAX: usize = 63;

/// The keys of one mapping, while its section asks for them.
pub(super) struct Fields<'t> {
    place: Place,
    map: &'t Map,
    asked: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// Opens a mapping, or reports that the node is none.
    pub(super) fn open(node: &'t Node, report: &mut Report) -> Option<Self> {
        let map = mapping(node, report)?;
        Some(Self { place: node.place, map, asked: Vec::new() })
    }

    /// The value of a key that may be absent.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<&'t Node> {
        self.asked.push(key);
        self.map.get(key).map(|field| &field.node)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &'static str, report: &mut Report) -> Option<&'t Node> {
        let node = self.optional(key);
        // A source that could not be read to its end may have held the key, and so may one that wrote it wrongly.
        if node.is_none() && report.is_whole() {
            report.add(self.place, format!("missing key `{key}`"));
        }
        node
    }

    /// Whether a key is there, without asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The place of a key, or of the mapping when it is absent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.map.get(key).map_or(self.place, |field| field.key)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, not_built: &[&'static str], report: &mut Report) {
        for (key, field) in self.map {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            if not_built.contains(&key.as_str()) {
                report.not_built(field.key, key);
                continue;
            }
            let known = self.asked.iter().chain(not_built).copied();
            report.suggest(field.key, format!("unknown key {}", quoted(key)), closest(key, known));
        }
    }

    /// A required whole number; the least allowed one stands in for a wrong one.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
        report: &mut Report,
    ) -> usize {
        let node = self.required(key, report);
        let least = *range.start();
        node.and_then(|node| count(node, range, report)).unwrap_or(least)
    }

    /// A required duration; the shortest allowed one stands in for a wrong one.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        report: &mut Report,
    ) -> Duration {
        let node = self.required(key, report);
        let least = *range.start();
        node.and_then(|node| duration(node, range, report)).unwrap_or(least)
    }

    /// A required size in bytes; the smallest allowed one stands in for a wrong one.
    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>, report: &mut Report) -> u64 {
        let node = self.required(key, report);
        let least = *range.start();
        node.and_then(|node| size(node, range, report)).unwrap_or(least)
    }
}

/// A key, its place and its value.
pub(super) type Named<'t> = (&'t str, Place, &'t Node);

/// Opens a mapping from names to things, each name checked.
pub(super) fn named<'t>(node: &'t Node, report: &mut Report) -> Vec<Named<'t>> {
    let entries = entries(node, report);
    for (name, place, _) in &entries {
        check_name(name, *place, report);
    }
    entries
}

/// Opens a mapping whose keys are free.
pub(super) fn entries<'t>(node: &'t Node, report: &mut Report) -> Vec<Named<'t>> {
    let Some(map) = mapping(node, report) else { return Vec::new() };
    map.iter().map(|(name, field)| (name.as_str(), field.key, &field.node)).collect()
}

/// Reports a value that is not what was expected.
pub(super) fn expected<T>(node: &Node, what: &str, report: &mut Report) -> Option<T> {
    report.add(node.place, format!("expected {what}, found {}", node.kind()));
    None
}

/// Any text.
pub(super) fn text<'t>(node: &'t Node, report: &mut Report) -> Option<&'t str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
            expected(node, "text, which a number, `true` or `false` is only in quotes", report)
        }
        Value::Null | Value::List(_) | Value::Map(_) => expected(node, "text", report),
    }
}

/// The name of a thing of the manifest, or of a tenant.
pub(super) fn name(node: &Node, report: &mut Report) -> Option<String> {
    let text = text(node, report)?;
    check_name(text, node.place, report).then(|| text.to_owned())
}

/// A name that must be one of `known`, the names of all things of that kind.
pub(super) fn reference(
    node: &Node,
    kind: &str,
    known: &BTreeSet<&str>,
    report: &mut Report,
) -> Option<String> {
    let name = text(node, report)?;
    if !known.contains(name) && report.is_whole() {
        let message = format!("there is no {kind} {}", quoted(name));
        report.suggest(node.place, message, closest(name, known.iter().copied()));
        return None;
    }
    Some(name.to_owned())
}

/// A list, with its items.
pub(super) fn list<'t>(node: &'t Node, report: &mut Report) -> Option<&'t [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => expected(node, "a list", report),
    }
}

/// A list of at least one text, none of them twice.
pub(super) fn distinct_texts<'t>(node: &'t Node, report: &mut Report) -> Option<Vec<(&'t str, &'t Node)>> {
    let items = list(node, report)?;
    if items.is_empty() {
        return expected(node, "at least one entry in this list", report);
    }
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    for item in items {
        let Some(value) = text(item, report) else { continue };
        if seen.insert(value) {
            texts.push((value, item));
        } else {
            report.add(item.place, format!("{} is listed twice", quoted(value)));
        }
    }
    Some(texts)
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node, report: &mut Report) -> Option<bool> {
    match node.value {
        Value::Bool(value) => Some(value),
        Value::Null
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => expected(node, "`true` or `false`", report),
    }
}

/// A whole number within bounds.
pub(super) fn count(node: &Node, range: RangeInclusive<usize>, report: &mut Report) -> Option<usize> {
    if let Value::Integer(value) = node.value
        && let Ok(value) = usize::try_from(value)
        && range.contains(&value)
    {
        return Some(value);
    }
    expected(node, &format!("a whole number from {} to {}", range.start(), range.end()), report)
}

/// A number within bounds.
pub(super) fn number(node: &Node, range: RangeInclusive<f64>, report: &mut Report) -> Option<f64> {
    let value = match node.value {
        Value::Float(value) => Some(value),
        Value::Integer(value) => i32::try_from(value).ok().map(f64::from),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
    };
    match value {
        Some(value) if range.contains(&value) => Some(value),
        Some(_) | None => {
            expected(node, &format!("a number from {} to {}", range.start(), range.end()), report)
        }
    }
}

/// A duration within bounds, such as `250ms` or `24h`.
pub(super) fn duration(
    node: &Node,
    range: RangeInclusive<Duration>,
    report: &mut Report,
) -> Option<Duration> {
    if let Value::Text(text) = &node.value
        && let Some(value) = units::duration(text)
        && range.contains(&value)
    {
        return Some(value);
    }
    let (least, most) = (units::write_duration(*range.start()), units::write_duration(*range.end()));
    expected(node, &format!("a duration from `{least}` to `{most}` (units ms, s, m, h, d)"), report)
}

/// A size within bounds, in bytes, such as `64KiB`.
pub(super) fn size(node: &Node, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
    if let Value::Text(text) = &node.value
        && let Some(value) = units::size(text)
        && range.contains(&value)
    {
        return Some(value);
    }
    let (least, most) = (units::write_size(*range.start()), units::write_size(*range.end()));
    expected(node, &format!("a size from `{least}` to `{most}` (units B, KiB, MiB, GiB)"), report)
}

/// One of several words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    choices: &[(&str, T)],
    not_built: &[&str],
    report: &mut Report,
) -> Option<T> {
    let word = text(node, report)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
        return Some(*value);
    }
    if not_built.contains(&word) {
        report.not_built(node.place, word);
        return None;
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let message = format!("expected one of `{}`, found {}", names.join("`, `"), quoted(word));
    report.suggest(node.place, message, closest(word, names.into_iter().chain(not_built.iter().copied())));
    None
}

fn mapping<'t>(node: &'t Node, report: &mut Report) -> Option<&'t Map> {
    match &node.value {
        Value::Map(map) => Some(map),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_) => expected(node, "a mapping", report),
    }
}

fn check_name(name: &str, place: Place, report: &mut Report) -> bool {
    let fits = name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character));
    if !fits {
        let message = format!(
            "{} is not a name: 1 to {NAME_MAX} letters, digits, `_` and `-`, with a letter or digit first",
            quoted(name)
        );
        report.add(place, message);
    }
    fits
}
