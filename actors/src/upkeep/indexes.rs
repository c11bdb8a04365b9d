//! Makes the entries of declared indexes for documents that were there before them.
//!
//! Whatever is written meanwhile makes its own entries. An entry that is made here for a version that is
//! just being replaced stands for nothing, and readers pass over it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{StepFailed, Upkeep};
use crate::directory::{forget_row, ready_row, ready_rows};
use crate::model::address::PartitionAddress;
use crate::model::change::{Mutation, Table};
use crate::model::document;
use crate::model::ids::Name;
use crate::partition::index_rows;
use crate::policy::container::{Container, Index, Path};
use crate::shard::ShardReadError;
use crate::store::{Page, ViewReadError};

/// Documents looked at in one step.
const CHUNK: usize = 256;
/// Bytes of them, about.
const CHUNK_BYTES: usize = 4 << 20;

/// What is being built.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether everything was looked at once, and nothing is left.
    done: bool,
    /// The index that is built now: its container, its number, and the last key that has its entries.
    building: Option<(Name, u32, Option<Vec<u8>>)>,
}

impl Upkeep {
    /// Goes on with the first index that is not ready; true while there is one.
    pub(super) async fn build_indexes(&mut self) -> Result<bool, StepFailed> {
        if self.indexes.done {
            return Ok(false);
        }
        if self.indexes.building.is_none() {
            self.forget_undeclared().await?;
            self.note_ready().await?;
        }
        let Some((container, index)) = self.next_index() else {
            self.indexes.done = true;
            return Ok(false);
        };
        let after = match self.indexes.building.take() {
            Some((name, id, after)) if name == container.name && id == index.id() => after,
            Some(_) | None => {
                tracing::info!(shard = %self.shard.id(), container = %container.name, "index is being built");
                None
            }
        };
        let (of, paths, from) = (container.name.clone(), index.paths.clone(), after.clone());
        self.indexes.building = Some((container.name.clone(), index.id(), after));
        let (rows, last, more) = self
            .read(move |shard| {
                let prefix = PartitionAddress::container_prefix(&of);
                let page = shard.scan(&prefix, from.as_deref(), CHUNK, CHUNK_BYTES)?;
                let last = page.documents.last().map(|found| found.key.to_vec());
                Ok((entries(&paths, &page)?, last, page.more))
            })
            .await?;
        // If this fails, the same documents are looked at again.
        self.commit(rows).await?;
        if more {
            self.indexes.building = Some((container.name.clone(), index.id(), last));
            return Ok(true);
        }
        self.commit(vec![ready_row(&container.name, index.id())]).await?;
        self.indexes.building = None;
        self.directory.indexes().set_ready(self.shard.id(), container.name.clone(), index.id());
        tracing::info!(shard = %self.shard.id(), container = %container.name, "index is ready");
        Ok(true)
    }

    fn next_index(&self) -> Option<(std::sync::Arc<Container>, Index)> {
        let states = self.directory.indexes();
        self.directory.catalog().iter().find_map(|container| {
            let missing = |index: &&Index| !states.is_ready(self.shard.id(), &container.name, index.id());
            let index = container.indexes.iter().find(missing)?;
            Some((container.clone(), index.clone()))
        })
    }

    /// Indexes that are not declared any more lose their state: what changes from now on has no entry, so
    /// they must be built anew if they are ever declared again.
    async fn forget_undeclared(&self) -> Result<(), StepFailed> {
        let mut declared = BTreeSet::new();
        for container in self.directory.catalog().iter() {
            declared.extend(container.indexes.iter().map(|index| (container.name.clone(), index.id())));
        }
        let rows = ready_rows(&self.shard)?;
        let gone = rows.into_iter().filter(|(_, name, id)| !declared.contains(&(name.clone(), *id)));
        self.commit(gone.map(|(key, _, _)| forget_row(&key)).collect()).await
    }

    /// Writes down what was found ready because its container was empty.
    async fn note_ready(&self) -> Result<(), StepFailed> {
        let known: BTreeSet<_> =
            ready_rows(&self.shard)?.into_iter().map(|(_, name, id)| (name, id)).collect();
        let states = self.directory.indexes();
        let mut rows = Vec::new();
        for container in self.directory.catalog().iter() {
            for index in &container.indexes {
                let ready = states.is_ready(self.shard.id(), &container.name, index.id());
                if ready && !known.contains(&(container.name.clone(), index.id())) {
                    rows.push(ready_row(&container.name, index.id()));
                }
            }
        }
        self.commit(rows).await
    }
}

/// The entries of documents.
fn entries(paths: &[Path], page: &Page) -> Result<Vec<Mutation>, ShardReadError> {
    let mut rows = Vec::with_capacity(page.documents.len());
    for found in &page.documents {
        // Without its entry a document would be missed in silence: such an index is never ready.
        let document = document::read(&found.document.body).map_err(|_| ViewReadError::Corrupt)?;
        let made = index_rows(&found.partition(), paths, &found.document.id, &document);
        let put = |(key, value): (Bytes, Bytes)| Mutation::Put { table: Table::Index, key, value };
        rows.extend(made.into_iter().map(put));
    }
    Ok(rows)
}
