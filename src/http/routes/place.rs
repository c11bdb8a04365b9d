//! Stands between the templates of an operation and the places that a request's path names.
//!
//! Invariant: a part of a key that follows from the document's id is always computed from it, and nobody can ask
//! for another one.

use std::num::NonZeroU16;

use lanekeeper_actors::model::address::{InvalidPartitionKey, KeyPart};
use lanekeeper_actors::model::document::KeyPath;
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::policy::container::Container;

use crate::http::path;
use crate::manifest::{DocumentAt, PathTemplate, Segment, Template};

/// Where a document is.
#[derive(Debug)]
pub struct At {
    /// The partition key.
    pub partition: Key,
    /// The id.
    pub id: Value,
}

/// A partition key, or the beginning of one.
#[derive(Debug)]
pub struct Key {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// The value, or the bucket that it falls into.
    Of(Value, KeyPath),
    /// The bucket that the document's id falls into.
    OfId(NonZeroU16),
}

/// A text that the manifest gives, or a segment of the path.
#[derive(Debug)]
pub enum Value {
    /// This text.
    Literal(String),
    /// The segment of this number.
    Segment(usize),
}

/// Parts of partition keys that a path fixes, where requests name keys themselves.
#[derive(Debug)]
pub struct Fixed {
    parts: Vec<(usize, Value, KeyPath)>,
}

/// The fixed parts for one request, with their numbers in the key.
pub(in crate::http) type FixedParts = Vec<(usize, KeyPart)>;

/// The path of a document, as pieces.
#[derive(Debug)]
pub struct Location {
    pieces: Vec<Piece>,
    /// Parts of the partition key that this path does not lead to any other of.
    fixed: Vec<(usize, String)>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    /// The part of the partition key with this number.
    Part(usize),
    Id,
}

/// The number of the segment that holds a parameter.
pub(super) fn segment_number(name: &str, route: &PathTemplate) -> usize {
    let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(found) if found == name);
    // A manifest is refused when a parameter is not in the path.
    route.segments.iter().position(is_it).unwrap_or(usize::MAX)
}

/// Which template gives which part of the key: those that follow from the id have none.
fn assigned<'t>(
    templates: &'t [Template],
    container: &'t Container,
) -> impl Iterator<Item = (usize, &'t KeyPath, &'t Template)> {
    let named = container.rules.key.iter().enumerate().filter(|(_, path)| !path.is_bucket_of_id());
    named.zip(templates).map(|((number, path), template)| (number, path, template))
}

impl Value {
    pub(super) fn new(template: &Template, route: &PathTemplate) -> Self {
        match template {
            Template::Literal(text) => Self::Literal(text.clone()),
            Template::Parameter(name) => Self::Segment(segment_number(name, route)),
        }
    }

    /// The text, for a request with these segments.
    pub fn of<'a>(&'a self, segments: &'a [String]) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Segment(number) => segments.get(*number).map_or("", String::as_str),
        }
    }
}

impl At {
    pub(super) fn new(at: &DocumentAt, container: &Container, route: &PathTemplate) -> Self {
        Self { partition: Key::whole(&at.partition, container, route), id: Value::new(&at.id, route) }
    }
}

impl Key {
    /// All parts of a container's key.
    pub(super) fn whole(templates: &[Template], container: &Container, route: &PathTemplate) -> Self {
        let mut templates = templates.iter();
        let part = |path: &KeyPath| match path.buckets {
            Some(buckets) if path.is_bucket_of_id() => Some(Part::OfId(buckets)),
            // A manifest is refused when a part has no template.
            Some(_) | None => templates.next().map(|text| Part::Of(Value::new(text, route), path.clone())),
        };
        Self { parts: container.rules.key.iter().filter_map(part).collect() }
    }

    /// The first parts of a container's key, as many as there are templates.
    pub(super) fn front(templates: &[Template], container: &Container, route: &PathTemplate) -> Self {
        let part = |(_, path, template): (usize, &KeyPath, &Template)| {
            Part::Of(Value::new(template, route), path.clone())
        };
        Self { parts: assigned(templates, container).map(part).collect() }
    }

    /// The parts, for a request with these segments about this document.
    ///
    /// # Errors
    /// A segment is too long.
    pub fn of(
        &self,
        segments: &[String],
        id: Option<&DocumentId>,
    ) -> Result<Vec<KeyPart>, InvalidPartitionKey> {
        let part = |part: &Part| match part {
            Part::Of(value, path) => Ok(path.part(KeyPart::string(value.of(segments))?)),
            Part::OfId(buckets) => {
                Ok(id.map_or(KeyPart::Undefined, |id| KeyPart::String(id.to_string()).bucket(*buckets)))
            }
        };
        self.parts.iter().map(part).collect()
    }
}

impl Fixed {
    /// The parts that have templates, the first ones of those that do not follow from the id.
    pub(super) fn new(templates: &[Template], container: &Container, route: &PathTemplate) -> Self {
        let part = |(number, path, template): (usize, &KeyPath, &Template)| {
            (number, Value::new(template, route), path.clone())
        };
        Self { parts: assigned(templates, container).map(part).collect() }
    }

    /// The parts, for a request with these segments.
    ///
    /// # Errors
    /// A segment is too long.
    pub fn of(&self, segments: &[String]) -> Result<FixedParts, InvalidPartitionKey> {
        let part = |(number, value, path): &(usize, Value, KeyPath)| {
            Ok((*number, path.part(KeyPart::string(value.of(segments))?)))
        };
        self.parts.iter().map(part).collect()
    }
}

/// How many values name a partition key of this container: the buckets of the id are computed.
pub(in crate::http) fn named_parts(container: &Container) -> usize {
    container.rules.key.iter().filter(|path| !path.is_bucket_of_id()).count()
}

/// The partition key of the document `id`, from values for all parts that do not follow from the id; `None` when
/// there are more or fewer values.
pub(in crate::http) fn named_key(
    container: &Container,
    values: &[KeyPart],
    id: &DocumentId,
) -> Option<Vec<KeyPart>> {
    let mut values = values.iter();
    let key = whole_key(container, id, |_, path| values.next().map(|value| path.part(value.clone())))?;
    values.next().is_none().then_some(key)
}

/// The partition key of the document `id`, where the path fixes all other parts.
pub(in crate::http) fn fixed_key(
    container: &Container,
    fixed: &FixedParts,
    id: &DocumentId,
) -> Option<Vec<KeyPart>> {
    let part = |number| fixed.iter().find(|(found, _)| *found == number).map(|(_, part)| part.clone());
    whole_key(container, id, |number, _| part(number))
}

fn whole_key(
    container: &Container,
    id: &DocumentId,
    mut named: impl FnMut(usize, &KeyPath) -> Option<KeyPart>,
) -> Option<Vec<KeyPart>> {
    let part = |(number, path): (usize, &KeyPath)| match path.buckets {
        Some(buckets) if path.is_bucket_of_id() => Some(KeyPart::String(id.to_string()).bucket(buckets)),
        Some(_) | None => named(number, path),
    };
    container.rules.key.iter().enumerate().map(part).collect()
}

impl Location {
    /// The path of the document with this key and id; `None` when it cannot be written as a path.
    pub fn of(&self, key: &[KeyPart], id: &str) -> Option<String> {
        let text = |number: usize| match key.get(number) {
            Some(KeyPart::String(text)) => Some(text.as_str()),
            // A path is text, and what is no text would come back as another key.
            Some(KeyPart::Undefined | KeyPart::Null | KeyPart::Bool(_) | KeyPart::Number(_)) | None => None,
        };
        if !self.fixed.iter().all(|(number, fixed)| text(*number) == Some(fixed)) {
            return None;
        }
        let mut out = String::new();
        for piece in &self.pieces {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Part(number) => text(*number)?,
                Piece::Id => id,
            };
            if !path::can_be_segment(text) {
                return None;
            }
            out.push('/');
            out.push_str(&path::encode(text));
        }
        Some(out)
    }

    pub(super) fn new(route: &PathTemplate, at: &DocumentAt, container: &Container) -> Option<Self> {
        let named = |template: &Template, name: &String| matches!(template, Template::Parameter(found) if found == name);
        let part = |name: &String| {
            let mut assigned = assigned(&at.partition, container);
            assigned.find(|(_, _, template)| named(template, name)).map(|(number, ..)| number)
        };
        let piece = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(Piece::Literal(text.clone())),
            Segment::Parameter(name) if named(&at.id, name) => Some(Piece::Id),
            Segment::Parameter(name) => part(name).map(Piece::Part),
        };
        let pieces = route.segments.iter().map(piece).collect::<Option<Vec<_>>>()?;
        let fixed = assigned(&at.partition, container).filter_map(|(number, _, template)| match template {
            Template::Literal(text) => Some((number, text.clone())),
            Template::Parameter(_) => None,
        });
        let fixed = fixed.collect();
        pieces.iter().any(|piece| matches!(piece, Piece::Id)).then_some(Self { pieces, fixed })
    }
}
