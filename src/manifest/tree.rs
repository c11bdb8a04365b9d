//! Stands between YAML text and the readers: a plain tree in which every node knows its place.
//!
//! Invariant: whatever the text, the tree is at most [`DEPTH_MAX`] deep, aliases add at most
//! [`ALIAS_NODES_MAX`] nodes to it, and no mapping holds a key twice. The events of the parser are read one by
//! one with a stack of our own, because a recursive loader meets the depth of a hostile text before any limit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::{Place, Report, quoted};

/// How deep mappings and lists may be nested.
pub(super) const DEPTH_MAX: usize = 64;
/// Nodes that all aliases of one text may add together.
pub(super) const ALIAS_NODES_MAX: usize = 10_000;

/// A value and the place where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node holds, by the core schema of YAML 1.2 (section 10.3).
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping. Its order has no meaning in a manifest, so it is kept sorted.
pub(super) type Map = BTreeMap<String, Field>;

/// The value of a key, and the place of the key.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) key: Place,
    pub(super) node: Node,
}

impl Node {
    /// An empty mapping.
    pub(super) fn empty(place: Place) -> Self {
        Self { place, value: Value::Map(Map::new()) }
    }

    /// What the node is, for a message.
    pub(super) fn kind(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => quoted(&value.to_string()),
            Value::Integer(value) => quoted(&value.to_string()),
            Value::Float(value) => quoted(&value.to_string()),
            Value::Text(value) => quoted(value),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Number of nodes in this tree and its depth. The depth of a tree is bounded, so this may recurse.
    fn measure(&self) -> (usize, usize) {
        let mut size = 1;
        let mut depth = 0;
        let mut add = |node: &Self| {
            let (nodes, below) = node.measure();
            size += nodes;
            depth = depth.max(below);
        };
        match &self.value {
            Value::List(list) => list.iter().for_each(&mut add),
            Value::Map(map) => map.values().for_each(|field| add(&field.node)),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                return (1, 0);
            }
        }
        (size, depth + 1)
    }
}

/// Reads one YAML document whose first character is at `start`. An empty text is `Null`.
///
/// Returns `None` when the text is not YAML or passes a bound; that is then in the report.
pub(super) fn parse(text: &str, start: Place, report: &mut Report) -> Option<Node> {
    let mut builder =
        Builder { start, report, open: Vec::new(), anchors: BTreeMap::new(), aliased: 0, root: None };
    let mut parser = Parser::new_from_str(text);
    match builder.read(&mut parser) {
        Ok(()) => Some(builder.root.unwrap_or(Node { place: start, value: Value::Null })),
        Err(Stop { place, message }) => {
            report.unreadable(place, message);
            None
        }
    }
}

/// Why the rest of a text cannot be read.
struct Stop {
    place: Place,
    message: String,
}

/// A collection whose end was not read yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, in a mapping; without a name where it was refused.
    key: Option<(Place, Option<String>)>,
}

struct Builder<'r> {
    start: Place,
    report: &'r mut Report,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn read(&mut self, parser: &mut Parser<'_, StrInput<'_>>) -> Result<(), Stop> {
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| Stop {
                place: self.place(error.marker().line(), error.marker().col()),
                message: format!("this is not YAML: {}", error.info()),
            })?;
            self.take(event, span)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = self.place(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => Err(Stop {
                place,
                message: "a manifest is one YAML document, here begins a second".to_owned(),
            }),
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(place, tag.as_deref());
                let value = scalar(&text, style, tag.as_deref());
                self.insert(Node { place, value }, anchor, Some(&text))
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Node { place, value: Value::List(Vec::new()) }, anchor, tag.as_deref())
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Node { place, value: Value::Map(Map::new()) }, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.insert(node, anchor, None),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(place, anchor),
        }
    }

    fn begin(&mut self, node: Node, anchor: usize, tag: Option<&Tag>) -> Result<(), Stop> {
        self.refuse_tag(node.place, tag);
        if self.open.len() >= DEPTH_MAX {
            return Err(Stop {
                place: node.place,
                message: format!("nested deeper than {DEPTH_MAX} levels"),
            });
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a copy of what an anchor names at the place of the alias.
    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), Stop> {
        let Some(original) = self.anchors.get(&anchor) else {
            return Err(Stop { place, message: "this alias stands inside what it names".to_owned() });
        };
        let (nodes, depth) = original.measure();
        self.aliased += nodes;
        if self.aliased > ALIAS_NODES_MAX {
            return Err(Stop { place, message: format!("aliases add more than {ALIAS_NODES_MAX} values") });
        }
        if self.open.len() + depth > DEPTH_MAX {
            return Err(Stop { place, message: format!("nested deeper than {DEPTH_MAX} levels") });
        }
        let copy = Node { place, value: original.value.clone() };
        let text = match &copy.value {
            Value::Text(text) => Some(text.clone()),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => None,
        };
        self.insert(copy, 0, text.as_deref())
    }

    /// Adds a finished node to the collection around it. `text` is how a scalar is written, for use as a key.
    fn insert(&mut self, node: Node, anchor: usize, text: Option<&str>) -> Result<(), Stop> {
        if anchor > 0 {
            self.remember(anchor, &node)?;
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.value {
            Value::List(list) => list.push(node),
            Value::Map(map) => match parent.key.take() {
                None => {
                    if text.is_none() {
                        self.report.add(node.place, "a key must be plain text");
                    }
                    parent.key = Some((node.place, text.map(str::to_owned)));
                }
                Some((_, None)) => {}
                Some((key, Some(name))) => match map.entry(name) {
                    Entry::Vacant(slot) => {
                        slot.insert(Field { key, node });
                    }
                    Entry::Occupied(slot) => {
                        let first = self.report.locate(slot.get().key, key);
                        let message = format!("key {} is given twice, first at {first}", quoted(slot.key()));
                        self.report.add(key, message);
                    }
                },
            },
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
        Ok(())
    }

    /// Keeps a copy for aliases. Nested anchors copy their insides again, so copies are counted like aliases.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Stop> {
        self.aliased += node.measure().0;
        if self.aliased > ALIAS_NODES_MAX {
            let message = format!("anchors and aliases hold more than {ALIAS_NODES_MAX} values");
            return Err(Stop { place: node.place, message });
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn refuse_tag(&mut self, place: Place, tag: Option<&Tag>) {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema()
        {
            self.report.add(place, format!("tag {} has no meaning in a manifest", quoted(&tag.to_string())));
        }
    }

    fn place(&self, line: usize, column: usize) -> Place {
        let line = u32::try_from(line.max(1)).unwrap_or(u32::MAX);
        let column = u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1);
        Place { source: self.start.source, line, column }
    }
}

/// Resolves a scalar as the core schema says. Only plain ones can be anything but text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let forced = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || forced {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(integer) = text.parse() {
        return Value::Integer(integer);
    }
    let numeric = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    match text.parse::<f64>() {
        Ok(float) if numeric && float.is_finite() => Value::Float(float),
        Ok(_) | Err(_) => Value::Text(text.to_owned()),
    }
}
