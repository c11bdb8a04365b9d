//! A topic: where events come from, and what they are called.

use std::sync::Arc;

use super::change::ChangeKind;
use super::ids::Name;

/// Topic of the events that the system tells of itself. Nobody else publishes to it.
pub const SYSTEM_TOPIC: &str = "lanekeeper.system";

/// A topic. Equal topics make equal events of the same facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Name,
    /// Where its events come from.
    pub source: TopicSource,
    /// Names of the properties that lead to the tenant whom a document is about. Without one, the
    /// tenant is that of the document's isolated container, or whoever published the event.
    pub tenant_path: Option<Arc<[String]>>,
}

/// Where the events of a topic come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSource {
    /// The changes of a container.
    Changes {
        /// The container.
        container: Name,
        /// How its changes are called.
        types: EventTypes,
    },
    /// Whoever publishes to it.
    Published,
}

/// Which kinds of change become events of a topic, and their types. `None`: no event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypes {
    /// Type of a create.
    pub created: Option<Name>,
    /// Type of a replace.
    pub replaced: Option<Name>,
    /// Type of a delete.
    pub deleted: Option<Name>,
}

impl EventTypes {
    /// The type of an event of this kind, if the topic has one.
    pub fn of(&self, kind: ChangeKind) -> Option<&Name> {
        match kind {
            ChangeKind::Create => self.created.as_ref(),
            ChangeKind::Replace => self.replaced.as_ref(),
            ChangeKind::Delete | ChangeKind::Expire => self.deleted.as_ref(),
        }
    }
}

impl Topic {
    /// The topic of a container's changes.
    pub fn of_changes(name: Name, container: Name, types: EventTypes) -> Self {
        Self { name, source: TopicSource::Changes { container, types }, tenant_path: None }
    }

    /// A topic that is published to.
    pub fn published(name: Name) -> Self {
        Self { name, source: TopicSource::Published, tenant_path: None }
    }
}
