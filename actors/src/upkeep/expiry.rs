//! Takes away documents whose time to live is over, and records of requests that nobody repeats any more.
//!
//! Documents with a time of their own have a row in the order of their ends. Those that live as long as
//! their container says end in the order in which they were written, so the order of changes leads to them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{StepFailed, Upkeep};
use crate::model::address::{EncodedPartition, PartitionAddress, partition_len};
use crate::model::change::{Mutation, Table};
use crate::model::ids::{DocumentId, Lsn, Name};
use crate::policy::container::Container;
use crate::policy::idempotency::Record;
use crate::policy::ttl::{ContainerTtl, ItemTtl};
use crate::store::KeyedDocument;

/// Rows looked at in one step.
const CHUNK: usize = 256;
/// Bytes of documents, about.
const CHUNK_BYTES: usize = 4 << 20;
/// How long a record stays after its end: nobody writes it anew at the moment when it goes.
const GRACE_MS: u64 = 600_000;
/// What the keys of rows about records begin with: the space of no container.
const RECORDS: &[u8] = &[0];

/// How far the order of changes was looked at, for each container. All before has gone, or has a time of
/// its own.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<Name, Lsn>);

impl Upkeep {
    /// Looks for documents that have expired; true when there may be more.
    pub(super) async fn expire(&mut self) -> Result<bool, StepFailed> {
        let containers: Vec<_> = self.directory.catalog().iter().cloned().collect();
        let mut busy = false;
        for container in containers.iter().filter(|container| container.ttl != ContainerTtl::Off) {
            busy |= self.expire_own(container).await?;
            if matches!(container.ttl, ContainerTtl::Seconds(_)) {
                busy |= self.expire_inherited(container).await?;
            }
        }
        Ok(busy)
    }

    async fn expire_own(&self, container: &Container) -> Result<bool, StepFailed> {
        let prefix = PartitionAddress::container_prefix(&container.name);
        let now = self.clock.now();
        let rows = self.shard.view()?.rows(Table::Expiry, &prefix, None, CHUNK).map_err(store)?;
        let mut due = Vec::new();
        let mut stale = Vec::new();
        let full = rows.len() == CHUNK;
        for (row, _) in rows {
            let Some((end, rest)) = row.split_first_chunk::<8>() else { continue };
            if u64::from_be_bytes(*end) > now.0 {
                break;
            }
            let key: Bytes = [prefix.as_slice(), rest].concat().into();
            match self.document_at(&key)? {
                Some(found) => due.push(found),
                None => stale.push(row.clone()),
            }
        }
        let busy = full && due.len() + stale.len() == CHUNK;
        self.sweep(&due).await?;
        let gone = |row: Bytes| Mutation::Delete {
            table: Table::Expiry,
            key: [prefix.as_slice(), &row].concat().into(),
        };
        self.commit(stale.into_iter().map(gone).collect()).await?;
        Ok(busy)
    }

    async fn expire_inherited(&mut self, container: &Container) -> Result<bool, StepFailed> {
        let prefix = PartitionAddress::container_prefix(&container.name);
        let now = self.clock.now();
        let mut reached = self.expiry.0.get(&container.name).copied().unwrap_or(Lsn::ZERO);
        let mut taken = 0;
        loop {
            let page = self.shard.view()?.changes(&prefix, reached, CHUNK, CHUNK_BYTES).map_err(store)?;
            let mut due = Vec::new();
            let mut young = false;
            for found in page.documents {
                // What was stored was checked before.
                let ttl = ItemTtl::from_i32(found.document.ttl).unwrap_or_default();
                let lsn = found.document.lsn;
                if container.is_expired(found.document.at, ttl, now) {
                    due.push(found);
                } else if ttl == ItemTtl::Inherit {
                    // All that follow were written later.
                    young = true;
                    break;
                }
                reached = lsn;
            }
            taken += due.len();
            self.sweep(&due).await?;
            self.expiry.0.insert(container.name.clone(), reached);
            if young || !page.more {
                return Ok(false);
            }
            if taken >= self.settings.batch {
                return Ok(true);
            }
        }
    }

    /// Forgets the answers of requests that are not repeated any more.
    pub(super) async fn expire_records(&self) -> Result<bool, StepFailed> {
        let now = self.clock.now();
        let view = self.shard.view()?;
        let rows = view.rows(Table::Expiry, RECORDS, None, CHUNK).map_err(store)?;
        let full = rows.len() == CHUNK;
        let mut gone = Vec::new();
        for (row, _) in rows {
            let Some((end, key)) = row.split_first_chunk::<8>() else { continue };
            if u64::from_be_bytes(*end).saturating_add(GRACE_MS) > now.0 {
                break;
            }
            let stored = view.row(Table::Idempotency, key).map_err(store)?;
            let record = stored.as_ref().and_then(|stored| Record::decode(stored.get(8..)?).ok());
            if record.is_none_or(|record| record.expires.0.saturating_add(GRACE_MS) <= now.0) {
                let key = Bytes::copy_from_slice(key);
                gone.push(Mutation::Delete { table: Table::Idempotency, key });
            }
            let key = [RECORDS, &row].concat().into();
            gone.push(Mutation::Delete { table: Table::Expiry, key });
        }
        let busy = full && gone.len() >= CHUNK;
        drop(view);
        self.commit(gone).await?;
        Ok(busy)
    }

    fn document_at(&self, key: &Bytes) -> Result<Option<KeyedDocument>, StepFailed> {
        let parts = partition_len(key).and_then(|at| key.split_at_checked(at));
        let Some((partition, id)) = parts else { return Ok(None) };
        let id = std::str::from_utf8(id).ok().and_then(|id| DocumentId::new(id).ok());
        let partition = EncodedPartition::from_bytes(Bytes::copy_from_slice(partition));
        let Some(id) = id else { return Ok(None) };
        let found = self.shard.document(&partition, &id)?;
        Ok(found.map(|document| KeyedDocument { key: key.clone(), document }))
    }

    pub(super) async fn commit(&self, mutations: Vec<Mutation>) -> Result<(), StepFailed> {
        if mutations.is_empty() {
            return Ok(());
        }
        let reply = self.shard.commit(mutations)?;
        reply.await.unwrap_or(Err(crate::shard::CommitError::Unknown))?;
        Ok(())
    }
}

fn store(error: crate::store::ViewReadError) -> StepFailed {
    StepFailed::Read(error.into())
}
