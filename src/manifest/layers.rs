//! Stands between the sources of a manifest and its readers: one tree, in which the stronger source won.
//!
//! Invariant: every node of the merged tree still knows the source that it came from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::problem::{Place, Report, quoted};
use super::tree::{self, DEPTH_MAX, Field, Map, Node, Value};
use super::{DEFAULT, Source, Sources, fields, units};

/// Largest manifest file, in bytes.
const FILE_MAX: u64 = units::MIB;
/// Files that one load may read, included ones counted as often as they are included.
const FILES_MAX: usize = 64;
/// The version of the format that this build reads.
const VERSION: i64 = 1;
/// How the environment variables begin that set values, and what separates their levels.
const PREFIX: &str = "LANEKEEPER__";
const SEPARATOR: &str = "__";

/// Merges all sources, the strongest last.
pub(super) fn merge(sources: &Sources, report: &mut Report) -> Node {
    let start = report.open("config/default.yaml");
    let mut layers = Layers { root: Node::empty(start), report, chain: Vec::new(), files: 0 };
    layers.text(DEFAULT, start, None);
    layers.sources(&sources.files);
    layers.environment(&sources.environment);
    layers.flag("--listen", "listen", sources.flags.listen.as_deref());
    layers.flag("--admin", "admin", sources.flags.admin.as_deref());
    layers.root
}

/// Merges what an operator wrote, without the defaults and what environment and flags add.
pub(super) fn merge_files(files: &[Source], report: &mut Report) -> Node {
    let start = report.open("manifest");
    let mut layers = Layers { root: Node::empty(start), report, chain: Vec::new(), files: 0 };
    layers.sources(files);
    layers.root
}

/// Whether a text includes other files.
pub(super) fn includes(text: &str) -> bool {
    let mut attempt = Report::default();
    let start = attempt.open("manifest");
    let root = tree::parse(text, start, &mut attempt);
    root.is_some_and(|root| matches!(&root.value, Value::Map(map) if map.contains_key("include")))
}

/// Refuses a version of the format that this build does not read.
pub(super) fn check_version(version: &Node, report: &mut Report) {
    if !matches!(version.value, Value::Integer(VERSION)) {
        let message = format!(
            "expected `manifest: {VERSION}`, the one format of this version, found {}",
            version.kind()
        );
        report.add(version.place, message);
    }
}

struct Layers<'r> {
    root: Node,
    report: &'r mut Report,
    /// The real paths of the files being read, each included by the one before it.
    chain: Vec<PathBuf>,
    files: usize,
}

impl Layers<'_> {
    fn sources(&mut self, files: &[Source]) {
        for source in files {
            match source {
                Source::File(path) => self.file(path, None),
                Source::Text { name, text } => {
                    let start = self.report.open(name);
                    self.text(text, start, None);
                }
            }
        }
    }

    /// Adds a file; `asked` is the place that includes it.
    fn file(&mut self, path: &Path, asked: Option<Place>) {
        self.files += 1;
        if self.files > FILES_MAX {
            let place = asked.unwrap_or_else(|| self.report.open(path.display().to_string()));
            self.report.unreadable(place, format!("more than {FILES_MAX} manifest files"));
            return;
        }
        let text = match read_file(path) {
            Ok(text) => text,
            Err(cause) => {
                let (place, what) = match asked {
                    Some(place) => (place, format!("{} cannot be read", quoted(&path.display().to_string()))),
                    None => (self.report.open(path.display().to_string()), "cannot be read".to_owned()),
                };
                self.report.unreadable(place, format!("{what}: {cause}"));
                return;
            }
        };
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.chain.contains(&real) {
            let place = asked.unwrap_or_else(|| self.report.open(path.display().to_string()));
            self.report.add(place, format!("{} includes itself", quoted(&path.display().to_string())));
            return;
        }
        let start = self.report.open(path.display().to_string());
        let text = match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let place = place_after(error.as_bytes().get(..valid).unwrap_or_default(), start);
                self.report.unreadable(place, "this byte is not UTF-8");
                return;
            }
        };
        self.chain.push(real);
        self.text(&text, start, Some((path, asked.is_some())));
        self.chain.pop();
    }

    /// Adds a text; `file` is the file it was read from, and whether another one includes that.
    fn text(&mut self, text: &str, start: Place, file: Option<(&Path, bool)>) {
        let Some(mut layer) = tree::parse(text, start, self.report) else { return };
        if matches!(layer.value, Value::Null) {
            layer = Node::empty(start);
        }
        let Value::Map(map) = &mut layer.value else {
            fields::expected::<()>(&layer, "a mapping", self.report);
            return;
        };
        match map.remove("manifest") {
            Some(version) => check_version(&version.node, self.report),
            None if file.is_some_and(|(_, included)| included) => {}
            None => self.report.add(start, format!("missing key `manifest`: write `manifest: {VERSION}`")),
        }
        // In a text the key stays, and is refused with what was merged.
        if let Some((path, _)) = file
            && let Some(include) = map.remove("include")
        {
            self.include(path, &include.node);
        }
        overlay(&mut self.root, layer);
    }

    /// Adds the files that a file includes. They are weaker than the file itself.
    fn include(&mut self, from: &Path, include: &Node) {
        let Some(paths) = fields::distinct_texts(include, self.report) else { return };
        for (path, node) in paths {
            let path = from.parent().unwrap_or(Path::new("")).join(path);
            // Going over the components drops the `.` in the middle of `config/./more.yaml`.
            self.file(&path.components().collect::<PathBuf>(), Some(node.place));
        }
    }

    fn environment(&mut self, environment: &[(String, String)]) {
        let mut settings: Vec<_> = environment
            .iter()
            .filter(|(name, _)| {
                name.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
            })
            .collect();
        // Sorted, a variable for a whole mapping comes before those for its parts, and the order is always the same.
        settings.sort();
        for (name, text) in settings {
            let place = self.report.open(name);
            let path: Vec<&str> = name.split(SEPARATOR).skip(1).collect();
            if path.len() > DEPTH_MAX || path.iter().any(|segment| segment.is_empty()) {
                self.report.add(place, "this variable does not name a key: LANEKEEPER__SERVER__LISTEN would");
                continue;
            }
            let value = environment_value(text, place);
            set(&mut self.root, &path, value);
        }
    }

    fn flag(&mut self, flag: &str, key: &str, text: Option<&str>) {
        let Some(text) = text else { return };
        let place = self.report.open(flag);
        let node = Node { place, value: Value::Text(text.to_owned()) };
        match only_listener(&mut self.root, key) {
            // It says where; what is spoken there stays as it was.
            Some(listener) => {
                listener.insert("addr".to_owned(), Field { key: place, node });
            }
            None => set(&mut self.root, &["server", key], node),
        }
    }
}

/// Reads a file of bounded size. A directory, a device without end and a missing file are errors.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_MAX) {
        return Ok(bytes);
    }
    Err(format!("it is larger than {}", units::write_size(FILE_MAX)))
}

/// The place right behind `bytes`, which are UTF-8.
fn place_after(bytes: &[u8], start: Place) -> Place {
    let text = String::from_utf8_lossy(bytes);
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Place { source: start.source, line: number(line), column: number(column) }
}

/// The value of a variable: YAML where it is, else the text. `[::1]:8080` is an address and not YAML.
fn environment_value(text: &str, place: Place) -> Node {
    let mut attempt = Report::default();
    match tree::parse(text, place, &mut attempt) {
        Some(node) if attempt.count() == 0 => node,
        Some(_) | None => Node { place, value: Value::Text(text.to_owned()) },
    }
}

/// Lays a stronger tree over a weaker one. A mapping left empty says nothing about what is below it.
fn overlay(below: &mut Node, above: Node) {
    match (&mut below.value, above.value) {
        (Value::Map(_), Value::Null) => {}
        (Value::Map(kept), Value::Map(map)) => {
            below.place = above.place;
            for (key, field) in map {
                match kept.get_mut(&key) {
                    Some(weaker) => {
                        weaker.key = field.key;
                        overlay(&mut weaker.node, field.node);
                    }
                    None => {
                        kept.insert(key, field);
                    }
                }
            }
        }
        (_, value) => *below = Node { place: above.place, value },
    }
}

/// The one listener of a key of `server`, if it has more than an address.
fn only_listener<'r>(root: &'r mut Node, key: &str) -> Option<&'r mut Map> {
    let Value::Map(root) = &mut root.value else { return None };
    let Value::Map(server) = &mut root.get_mut("server")?.node.value else { return None };
    let mut value = &mut server.get_mut(key)?.node.value;
    if let Value::List(items) = value {
        let [one] = items.as_mut_slice() else { return None };
        value = &mut one.value;
    }
    match value {
        Value::Map(map) => Some(map),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_) => None,
    }
}

/// Lays a value over what is at the end of a path, going through keys that are there as far as possible.
fn set(root: &mut Node, path: &[&str], value: Node) {
    let place = value.place;
    let mut node = root;
    for segment in path {
        if !matches!(node.value, Value::Map(_)) {
            *node = Node::empty(place);
        }
        let Value::Map(map) = &mut node.value else { return };
        let key = existing_key(map, segment).unwrap_or_else(|| segment.to_ascii_lowercase());
        let field = map.entry(key).or_insert_with(|| Field { key: place, node: Node::empty(place) });
        field.key = place;
        node = &mut field.node;
    }
    overlay(node, value);
}

/// The key that a segment of a variable's name means.
fn existing_key(map: &Map, segment: &str) -> Option<String> {
    if map.contains_key(segment) {
        return Some(segment.to_owned());
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wanted = plain(segment);
    map.keys().find(|key| plain(key) == wanted).cloned()
}
