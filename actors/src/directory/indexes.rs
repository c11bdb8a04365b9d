//! Which declared indexes hold every document, shard by shard.
//!
//! Invariant: an index is ready only when an entry was made for every document that was there before
//! it was declared; until then queries do without. What is written while it is not declared makes no
//! entries, so it is forgotten in the log before anything of that kind stands there.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::model::address::PartitionAddress;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Name, ShardId};
use crate::policy::container::Catalog;
use crate::shard::{ShardHandle, ShardReadError};

/// What the keys of the rows begin with, in the table of the system of each shard.
const ROWS: &[u8] = b"index/";
/// Rows that are read at most: as many as there can be declared indexes.
const MOST: usize = 65_536;
const READY: &[u8] = b"ready";

/// An index of a container in a shard.
type Place = (ShardId, Name, u32);

/// The states of all indexes, shared by who builds them and who reads them.
#[derive(Debug, Clone, Default)]
pub struct IndexStates(Arc<RwLock<BTreeSet<Place>>>);

impl IndexStates {
    /// What the shards say. An index of a container that is empty in a shard is ready there at once.
    pub(super) fn load(shards: &[ShardHandle], catalog: &Catalog) -> Result<Self, ShardReadError> {
        let states = Self::default();
        for shard in shards {
            forget_undeclared(shard, catalog)?;
            let view = shard.view()?;
            let ready: BTreeSet<Bytes> =
                view.rows(Table::System, ROWS, None, MOST)?.into_iter().map(|(key, _)| key).collect();
            for container in catalog.iter().filter(|container| !container.indexes.is_empty()) {
                let prefix = PartitionAddress::container_prefix(&container.name);
                let empty = shard.scan(&prefix, None, 1, 1)?.documents.is_empty();
                for index in &container.indexes {
                    let known = ready.contains(row_key(&container.name, index.id()).as_slice());
                    if known || empty {
                        states.set_ready(shard.id(), container.name.clone(), index.id());
                    }
                }
            }
        }
        Ok(states)
    }

    /// Whether the index holds every document of its container in a shard.
    pub fn is_ready(&self, shard: ShardId, container: &Name, index: u32) -> bool {
        let ready = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ready.contains(&(shard, container.clone(), index))
    }

    /// Notes that it does.
    pub fn set_ready(&self, shard: ShardId, container: Name, index: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert((shard, container, index));
    }
}

/// Indexes that are not declared any more lose their state: what changes from now on has no entry, so
/// they must be built anew if they are ever declared again.
fn forget_undeclared(shard: &ShardHandle, catalog: &Catalog) -> Result<(), ShardReadError> {
    let is_declared = |name: &Name, id: u32| {
        catalog.get(name).is_some_and(|container| container.indexes.iter().any(|index| index.id() == id))
    };
    let rows = ready_rows(shard)?.into_iter().filter(|(_, name, id)| !is_declared(name, *id));
    let gone: Vec<_> = rows.map(|(key, _, _)| forget_row(&key)).collect();
    // Nobody waits for the answer: the log keeps the order in which it was asked, and no write of a
    // document was asked for yet. A shard that takes no writes is asked again by the upkeep.
    if !gone.is_empty() && shard.commit(gone).is_err() {
        tracing::warn!(shard = %shard.id(), "undeclared indexes not forgotten yet");
    }
    Ok(())
}

/// The row that says that an index is ready.
pub fn ready_row(container: &str, index: u32) -> Mutation {
    let key = [ROWS, &row_key(container, index)].concat().into();
    Mutation::Put { table: Table::System, key, value: Bytes::from_static(READY) }
}

/// Takes the row away of an index that is not declared any more.
pub fn forget_row(key: &[u8]) -> Mutation {
    Mutation::Delete { table: Table::System, key: [ROWS, key].concat().into() }
}

/// Rows of indexes that a shard calls ready: what [`forget_row`] takes, and the index.
pub fn ready_rows(shard: &ShardHandle) -> Result<Vec<(Bytes, Name, u32)>, ShardReadError> {
    let rows = shard.view()?.rows(Table::System, ROWS, None, MOST)?;
    let parsed = |(key, _): (Bytes, Bytes)| {
        let (name, id) = key.split_last_chunk::<4>()?;
        let name = std::str::from_utf8(name.strip_suffix(&[0])?).ok()?;
        Some((key.clone(), Name::from(name), u32::from_be_bytes(*id)))
    };
    Ok(rows.into_iter().filter_map(parsed).collect())
}

fn row_key(container: &str, index: u32) -> Vec<u8> {
    [container.as_bytes(), &[0], &index.to_be_bytes()].concat()
}
