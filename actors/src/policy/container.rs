//! What a container asks of its documents: keys, what must be unique, what is indexed, how long a
//! document lives. Parsed once from the manifest; everything that decides about documents reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::throughput::Throughput;
use super::ttl::{ContainerTtl, ItemTtl};
use crate::model::address::EncodedPartition;
use crate::model::document::{DocumentRules, KeyPath};
use crate::model::ids::Name;
use crate::model::time::Timestamp;

/// Names of properties from the root of a document.
pub type Path = Vec<String>;

/// A container as its manifest declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: Name,
    /// Whether each tenant has a space of its own.
    pub isolated: bool,
    /// What a body must be, and where its partition key stands.
    pub rules: DocumentRules,
    /// Each constraint's paths: within a partition no two documents have the same values there.
    pub unique: Vec<Vec<Path>>,
    /// Declared indexes.
    pub indexes: Vec<Index>,
    /// How long a document lives.
    pub ttl: ContainerTtl,
    /// What may be spent in it; `None` is without a budget.
    pub throughput: Option<Throughput>,
    /// How long its changes stay in the log.
    pub retention: Duration,
}

/// A declared index: entries are ordered by the values at its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The paths, the first counts most.
    pub paths: Vec<Path>,
}

impl Index {
    /// A number that stands for these paths in keys, on every node and for ever.
    pub fn id(&self) -> u32 {
        paths_id(&self.paths)
    }
}

/// A number that stands for paths: equal lists of paths have equal numbers.
pub fn paths_id(paths: &[Path]) -> u32 {
    let mut text = Vec::new();
    for path in paths {
        for name in path {
            text.extend_from_slice(name.as_bytes());
            text.push(0);
        }
        text.push(1);
    }
    // The upper half is as good as the lower one.
    u32::try_from(twox_hash::XxHash3_64::oneshot(&text) >> 32).unwrap_or(u32::MAX)
}

impl Container {
    /// A container that asks for nothing but a partition key.
    pub fn plain(name: Name, rules: DocumentRules) -> Self {
        Self {
            name,
            isolated: false,
            rules,
            unique: Vec::new(),
            indexes: Vec::new(),
            ttl: ContainerTtl::Off,
            throughput: None,
            retention: Duration::ZERO,
        }
    }

    /// Whether rows are made from the contents of its documents, so that a write must know what the
    /// document was before.
    pub fn has_derived_rows(&self) -> bool {
        !self.unique.is_empty() || !self.indexes.is_empty()
    }

    /// The paths of the unique key that a row of the table of unique keys stands for, for a message.
    pub fn unique_text(&self, row: &[u8], partition: &EncodedPartition) -> String {
        let id = row.get(partition.as_bytes().len()..).and_then(|rest| rest.first_chunk());
        let found = self.unique.iter().find(|paths| Some(&paths_id(paths).to_be_bytes()) == id);
        let paths = found.into_iter().flatten().map(|path| format!("`/{}`", path.join("/")));
        paths.collect::<Vec<_>>().join(", ")
    }

    /// Whether a document that was written `at`, with this time to live of its own, is gone by now.
    pub fn is_expired(&self, at: Timestamp, ttl: ItemTtl, now: Timestamp) -> bool {
        super::ttl::is_expired(now, at, ttl, self.ttl)
    }
}

/// All containers of a process, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    containers: Arc<BTreeMap<Name, Arc<Container>>>,
}

impl Catalog {
    /// A catalog of these.
    pub fn new(containers: impl IntoIterator<Item = Container>) -> Self {
        let named = |container: Container| (container.name.clone(), Arc::new(container));
        Self { containers: Arc::new(containers.into_iter().map(named).collect()) }
    }

    /// The container of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Container>> {
        self.containers.get(name)
    }

    /// The container of a partition. One that is not declared asks for nothing.
    pub fn of(&self, partition: &EncodedPartition) -> Arc<Container> {
        let name = partition.container();
        let undeclared = || {
            let rules =
                DocumentRules { key: vec![KeyPath::default()], max_bytes: usize::MAX, max_depth: 128 };
            Arc::new(Container::plain(name.into(), rules))
        };
        self.get(name).cloned().unwrap_or_else(undeclared)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values()
    }
}
