//! Stands between the publisher and the ledger: every document that was ever sent, and what the server said to it.
//! Invariant: a document is in the book before it is sent, so whatever a subscriber shows later is known here or invented.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::clock::Clock;
use crate::document::Template;
use crate::schedule::DocumentKey;

/// What is known of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was sent, and nobody knows.
    Unknown,
    /// The server said that it is stored.
    Acknowledged,
    /// The server said that it is not.
    Refused,
}

/// An entry: in which partition, and what became of it. The number is the place in the book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) lane: u32,
    pub(crate) fate: Fate,
}

/// The book of one stage.
pub(crate) struct Book {
    run: u32,
    template: Template,
    clock: Clock,
    entries: Mutex<Vec<Entry>>,
}

impl Book {
    /// An empty book whose documents have `size` bytes.
    pub(crate) fn new(size: usize, clock: Clock) -> Self {
        let run = fastrand::u32(..);
        Self { run, template: Template::new(run, size), clock, entries: Mutex::default() }
    }

    /// Enters a new document of this partition.
    pub(crate) fn enter(&self, lane: u32) -> DocumentKey {
        self.with(|entries| {
            let number = entries.len() as u64;
            entries.push(Entry { lane, fate: Fate::Unknown });
            DocumentKey { number, partition: lane }
        })
    }

    /// Enters documents that another part of the tool has sent, and that were acknowledged.
    pub(crate) fn enter_acknowledged(&self, lanes: impl Iterator<Item = u32>) {
        let fate = Fate::Acknowledged;
        self.with(|entries| entries.extend(lanes.map(|lane| Entry { lane, fate })));
    }

    /// The number that the next document gets.
    pub(crate) fn next(&self) -> u64 {
        self.with(|entries| entries.len() as u64)
    }

    /// A document as it is sent now.
    pub(crate) fn document(&self, key: DocumentKey) -> Bytes {
        let now = self.clock.now();
        self.template.body(key, now, now)
    }

    /// Its id.
    pub(crate) fn id(&self, key: DocumentKey) -> String {
        self.template.id(key)
    }

    /// A template like its own.
    pub(crate) fn template(&self) -> Template {
        Template::new(self.run, self.template.size())
    }

    /// Notes what the server said.
    pub(crate) fn note(&self, number: u64, fate: Fate) {
        self.with(|entries| {
            if let Some(entry) = usize::try_from(number).ok().and_then(|at| entries.get_mut(at)) {
                entry.fate = fate;
            }
        });
    }

    /// All entries.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.with(|entries| entries.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
