//! What was asked of the server and what it answered, kept outside of it.
//!
//! Invariant: a write is noted before it is sent, so whatever the server shows later is either known here or invented.

use std::collections::{BTreeMap, BTreeSet};

/// Names the one event that a write makes: its token, or `gone:<id>` for a delete.
pub(crate) type EventKey = String;

/// A write on its way.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) event: EventKey,
    pub(crate) lane: String,
    pub(crate) id: String,
    /// The token of the body afterwards; `None` when the document is deleted.
    pub(crate) after: Option<String>,
}

/// What may be read of a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Token of the last body that was acknowledged; `None` when there is none.
    pub(crate) sure: Option<String>,
    /// A write whose outcome nobody knows. Nothing is sent for this document after it.
    pub(crate) unknown: Option<Intent>,
}

/// Documents and events as they must be.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By lane and id.
    pub(crate) documents: BTreeMap<(String, String), Expected>,
    /// Events of all writes that were ever sent, with the subject that they must have.
    pub(crate) attempted: BTreeMap<EventKey, String>,
    /// Events of writes that were acknowledged.
    pub(crate) acknowledged: BTreeSet<EventKey>,
    /// Events of writes that were refused, which must not exist.
    pub(crate) refused: BTreeSet<EventKey>,
}

impl Ledger {
    /// Notes a write that is about to be sent.
    pub(crate) fn begin(&mut self, intent: &Intent) {
        self.attempted.insert(intent.event.clone(), format!("{}/{}", intent.lane, intent.id));
    }

    /// The server said that it was done.
    pub(crate) fn acknowledge(&mut self, intent: &Intent) {
        self.document(intent).sure.clone_from(&intent.after);
        self.acknowledged.insert(intent.event.clone());
    }

    /// The server said that it was not done.
    pub(crate) fn refuse(&mut self, intent: &Intent) {
        self.document(intent);
        self.refused.insert(intent.event.clone());
    }

    /// Nobody knows.
    pub(crate) fn lose(&mut self, intent: &Intent) {
        self.document(intent).unknown = Some(intent.clone());
    }

    fn document(&mut self, intent: &Intent) -> &mut Expected {
        self.documents.entry((intent.lane.clone(), intent.id.clone())).or_default()
    }
}
