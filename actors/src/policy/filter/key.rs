//! What filters ask for: keys, and the table that gives each key of a topic's filters a small number.
//!
//! Stands between the filters of a topic and the facts of its events. Invariant: the number of a key is a
//! hint and never the reason for a wrong answer, because a key is found by its number **and** its id, and no
//! id is used twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// Most names in a path; deeper data than this is asked for by nobody.
pub const MAX_DEPTH: usize = 32;

/// What one condition asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// An attribute, in lower case.
    Attribute(Box<str>),
    /// A value in the data: names from its root. No names: the data itself.
    Data(Box<[Box<str>]>),
}

/// One key of a table. It leaves the table when the last filter that asks for it is gone.
#[derive(Debug)]
pub(super) struct Key {
    id: u64,
    /// Its place among the keys of its kind.
    slot: usize,
    what: What,
}

impl Key {
    pub(super) fn what(&self) -> &What {
        &self.what
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Attribute(name) => f.write_str(name),
            What::Data(path) => path.iter().try_fold(f.write_str("data")?, |(), name| write!(f, ".{name}")),
        }
    }
}

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Nothing, or more than [`MAX_KEY`] or [`MAX_DEPTH`].
    #[error("a key has 1 to {MAX_KEY} bytes, and at most {MAX_DEPTH} names")]
    Length,
    /// Neither an attribute's name nor a path into the data.
    #[error("a key is the name of an attribute (letters and digits), or `data.` and names parted by dots")]
    Form,
}

impl What {
    fn parse(key: &str) -> Result<Self, KeyFault> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(KeyFault::Length);
        }
        let mut names = key.split('.');
        let head = names.next().unwrap_or_default();
        if !head.eq_ignore_ascii_case("data") {
            let plain = !key.contains('.') && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return if plain {
                Ok(Self::Attribute(key.to_ascii_lowercase().into()))
            } else {
                Err(KeyFault::Form)
            };
        }
        let path: Box<[Box<str>]> = names.map(Into::into).collect();
        if path.len() > MAX_DEPTH {
            return Err(KeyFault::Length);
        }
        if path.iter().any(|name| name.is_empty()) { Err(KeyFault::Form) } else { Ok(Self::Data(path)) }
    }
}

/// The keys that the filters of one topic ask for. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct KeyTable(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<Keys>,
    /// What events are read with; made again when it is asked for after a key was added.
    shape: ArcSwapOption<Shape>,
}

#[derive(Debug, Default)]
struct Keys {
    by_what: HashMap<What, Weak<Key>>,
    attributes: Slots,
    paths: Slots,
    /// Keys added since the dead ones were last looked for.
    added: usize,
}

#[derive(Debug, Default)]
struct Slots {
    places: Vec<Weak<Key>>,
    free: Vec<usize>,
}

/// Dead keys are looked for when so many have been added, or half as many as there are if that is more.
const SWEEP: usize = 64;

impl KeyTable {
    /// A table without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key that a filter writes like this.
    pub(super) fn intern(&self, key: &str) -> Result<Arc<Key>, KeyFault> {
        let what = What::parse(key)?;
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.by_what.get(&what).and_then(Weak::upgrade) {
            return Ok(key);
        }
        if keys.added >= SWEEP.max(keys.by_what.len() / 2) {
            keys.sweep();
        }
        let key = keys.add(what);
        self.0.shape.store(None);
        Ok(key)
    }

    /// What events are read with from now on.
    pub(super) fn shape(&self) -> Arc<Shape> {
        if let Some(shape) = &*self.0.shape.load() {
            return shape.clone();
        }
        // Under the lock, so that no key is added between the making and the storing.
        let keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = Arc::new(Shape::new(&keys));
        self.0.shape.store(Some(shape.clone()));
        shape
    }
}

impl Keys {
    fn add(&mut self, what: What) -> Arc<Key> {
        /// Ids are never used twice in a process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let slots = match &what {
            What::Attribute(_) => &mut self.attributes,
            What::Data(_) => &mut self.paths,
        };
        let slot = slots.free.pop().unwrap_or(slots.places.len());
        let key = Arc::new(Key { id: NEXT.fetch_add(1, Ordering::Relaxed), slot, what: what.clone() });
        match slots.places.get_mut(slot) {
            Some(place) => *place = Arc::downgrade(&key),
            None => slots.places.push(Arc::downgrade(&key)),
        }
        self.by_what.insert(what, Arc::downgrade(&key));
        self.added += 1;
        key
    }

    fn sweep(&mut self) {
        self.by_what.retain(|_, key| key.strong_count() > 0);
        for slots in [&mut self.attributes, &mut self.paths] {
            let places = slots.places.iter().enumerate();
            slots.free = places.filter(|(_, key)| key.strong_count() == 0).map(|(slot, _)| slot).collect();
        }
        self.added = 0;
    }
}

/// The keys of a table at one time, arranged for reading an event.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Attributes by slot, with the key's id; `None` where no filter asks any more.
    attributes: Vec<Option<(u64, Box<str>)>>,
    /// Ids of the paths, by slot.
    paths: Vec<Option<u64>>,
    root: Node,
}

/// A place in the data that some filter asks for, or passes.
#[derive(Debug, Default)]
pub(super) struct Node {
    slot: Option<usize>,
    /// By name, as bytes, because that is how names are read.
    children: BTreeMap<Box<[u8]>, Self>,
}

impl Shape {
    fn new(keys: &Keys) -> Self {
        let mut shape = Self::default();
        for place in &keys.attributes.places {
            let named = place.upgrade().and_then(|key| match &key.what {
                What::Attribute(name) => Some((key.id, name.clone())),
                What::Data(_) => None,
            });
            shape.attributes.push(named);
        }
        for place in &keys.paths.places {
            let key = place.upgrade();
            if let Some(key) = &key
                && let What::Data(path) = &key.what
            {
                shape.root.add(path, key.slot);
            }
            shape.paths.push(key.map(|key| key.id));
        }
        shape
    }

    /// A shape that has only one path, at the first slot.
    pub(super) fn of_path(path: &[Box<str>]) -> Self {
        let mut shape = Self { paths: vec![None], ..Self::default() };
        shape.root.add(path, 0);
        shape
    }

    /// The attributes that are asked for, by slot.
    pub(super) fn attributes(&self) -> impl Iterator<Item = Option<&str>> {
        self.attributes.iter().map(|named| named.as_ref().map(|(_, name)| &**name))
    }

    /// How many slots paths have.
    pub(super) fn paths(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// The slot of a key, if this shape has the key.
    pub(super) fn slot(&self, key: &Key) -> Option<usize> {
        let id = match &key.what {
            What::Attribute(_) => self.attributes.get(key.slot)?.as_ref().map(|(id, _)| *id),
            What::Data(_) => *self.paths.get(key.slot)?,
        };
        (id == Some(key.id)).then_some(key.slot)
    }
}

impl Node {
    fn add(&mut self, path: &[Box<str>], slot: usize) {
        match path.split_first() {
            None => self.slot = Some(slot),
            Some((name, rest)) => self.children.entry(name.as_bytes().into()).or_default().add(rest, slot),
        }
    }

    pub(super) fn slot(&self) -> Option<usize> {
        self.slot
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        self.children.values()
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    pub(super) fn child(&self, name: &[u8]) -> Option<&Self> {
        self.children.get(name)
    }
}
