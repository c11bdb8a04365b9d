//! Takes away documents whose time to live is over, and records of requests that nobody repeats any more.
//!
//! Documents with a time of their own have a row in the order of their ends. Those that live as long as
//! their container says end in the order in which they were written, so the order of changes leads to them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{StepFailed, Suspect, Upkeep};
use crate::model::address::{EncodedPartition, PartitionAddress, partition_len};
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Lsn, Name};
use crate::model::time::Timestamp;
use crate::policy::container::Container;
use crate::policy::idempotency::Record;
use crate::policy::ttl::{ContainerTtl, ItemTtl};
use crate::shard::ShardHandle;

/// Rows looked at in one step.
const CHUNK: usize = 256;
/// Bytes of documents, about.
const CHUNK_BYTES: usize = 4 << 20;
/// How long a record stays after its end: nobody writes it anew at the moment when it goes.
const GRACE_MS: u64 = 600_000;
/// What the keys of rows about records begin with: the space of no container.
const RECORDS: &[u8] = &[0];

/// How far each container was looked at.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last row of those with a time of their own, while there are more that are due.
    own: BTreeMap<Name, Bytes>,
    /// The order of changes.
    inherited: BTreeMap<Name, Pass>,
}

/// A way through the changes of a container.
#[derive(Debug, Default, Clone, Copy)]
struct Pass {
    /// All before has gone, or has a time of its own, or could not go.
    reached: Lsn,
    /// Where the first stands that could not go: the next pass begins there.
    again: Option<Lsn>,
}

/// What was found in one step.
struct Found {
    due: Vec<Suspect>,
    /// Rows that stand for nothing.
    stale: Vec<Bytes>,
    /// The last row or position that was looked at and is due or needs no second look.
    last: Option<Bytes>,
    reached: Lsn,
    /// Whether there may be more that is due.
    more: bool,
}

impl Upkeep {
    /// Looks for documents that have expired; true when there may be more.
    pub(super) async fn expire(&mut self) -> Result<bool, StepFailed> {
        let containers: Vec<_> = self.directory.catalog().iter().cloned().collect();
        let (mut busy, mut failed) = (false, None);
        for container in containers.iter().filter(|container| container.ttl != ContainerTtl::Off) {
            let own = self.expire_own(container).await;
            let inherited = match container.ttl {
                ContainerTtl::Seconds(_) => self.expire_inherited(container).await,
                ContainerTtl::Off | ContainerTtl::NoDefault => Ok(false),
            };
            // One that cannot be read keeps no other from its turn.
            for done in [own, inherited] {
                match done {
                    Ok(more) => busy |= more,
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(busy), Err)
    }

    async fn expire_own(&mut self, container: &Container) -> Result<bool, StepFailed> {
        let prefix = PartitionAddress::container_prefix(&container.name);
        let after = self.expiry.own.remove(&container.name);
        let found = own_due(&self.shard, &prefix, after.as_deref(), self.clock.now())?;
        let gone = |row: Bytes| Mutation::Delete { table: Table::Expiry, key: row };
        self.commit(found.stale.into_iter().map(gone).collect()).await?;
        // What cannot go now has its row, and its turn when all others had theirs.
        self.sweep(found.due).await;
        if let Some(last) = found.last.filter(|_| found.more) {
            self.expiry.own.insert(container.name.clone(), last);
        }
        Ok(found.more)
    }

    async fn expire_inherited(&mut self, container: &Container) -> Result<bool, StepFailed> {
        let mut pass = self.expiry.inherited.get(&container.name).copied().unwrap_or_default();
        let mut taken = 0;
        let busy = loop {
            // Mostly nothing is due, and one document says so.
            let count = if taken == 0 { 1 } else { CHUNK };
            let found = self.inherited_due(container.clone(), self.clock.now(), pass.reached, count).await?;
            taken += count;
            pass.reached = found.reached;
            let kept = self.sweep(found.due).await.into_iter().map(|kept| Lsn(kept.lsn.0.saturating_sub(1)));
            pass.again = pass.again.into_iter().chain(kept).min();
            if !found.more {
                pass.reached = pass.again.take().unwrap_or(pass.reached);
                break false;
            }
            if taken >= self.settings.batch {
                break true;
            }
        };
        self.expiry.inherited.insert(container.name.clone(), pass);
        Ok(busy)
    }

    async fn inherited_due(
        &self,
        container: Container,
        now: Timestamp,
        from: Lsn,
        count: usize,
    ) -> Result<Found, StepFailed> {
        let read = move |shard: &ShardHandle| {
            let prefix = PartitionAddress::container_prefix(&container.name);
            let page = shard.view()?.changes(&prefix, from, count, CHUNK_BYTES)?;
            let (mut due, mut reached, mut more) = (Vec::new(), from, page.more);
            for found in &page.documents {
                // What was stored was checked before.
                let ttl = ItemTtl::from_i32(found.document.ttl).unwrap_or_default();
                if container.is_expired(found.document.at, ttl, now) {
                    due.push(Suspect::new(found));
                } else if ttl == ItemTtl::Inherit {
                    // All that follow were written later.
                    more = false;
                    break;
                }
                reached = found.document.lsn;
            }
            Ok(Found { due, stale: Vec::new(), last: None, reached, more })
        };
        if count > 1 { self.read(read).await } else { read(&self.shard) }
    }

    /// Forgets the answers of requests that are not repeated any more.
    pub(super) async fn expire_records(&self) -> Result<bool, StepFailed> {
        let (gone, busy) = records_due(&self.shard, self.clock.now())?;
        self.commit(gone).await?;
        Ok(busy)
    }
}

/// Documents whose own time is over, in the order of their ends.
fn own_due(
    shard: &ShardHandle,
    prefix: &[u8],
    after: Option<&[u8]>,
    now: Timestamp,
) -> Result<Found, StepFailed> {
    let view = shard.view()?;
    let rows = view.rows(Table::Expiry, prefix, after, CHUNK)?;
    let more = rows.len() == CHUNK;
    let mut found = Found { due: Vec::new(), stale: Vec::new(), last: None, reached: Lsn::ZERO, more };
    for (row, _) in rows {
        let Some((end, rest)) = row.split_first_chunk::<8>() else { continue };
        if u64::from_be_bytes(*end) > now.0 {
            found.more = false;
            break;
        }
        // Both are asked of the view, in which a document and its row go together.
        let suspect = Suspect::at(&[prefix, rest].concat().into(), Lsn::ZERO);
        match suspect {
            Some(suspect) if view.version(&suspect.partition, &suspect.id)?.is_some() => {
                found.due.push(suspect);
            }
            Some(_) | None => found.stale.push([prefix, &row].concat().into()),
        }
        found.last = Some(row);
    }
    Ok(found)
}

/// What must be deleted of records that have expired, and whether there may be more.
fn records_due(shard: &ShardHandle, now: Timestamp) -> Result<(Vec<Mutation>, bool), StepFailed> {
    let rows = shard.view()?.rows(Table::Expiry, RECORDS, None, CHUNK)?;
    let mut busy = rows.len() == CHUNK;
    let mut gone = Vec::new();
    for (row, _) in rows {
        let Some((end, key)) = row.split_first_chunk::<8>() else { continue };
        if u64::from_be_bytes(*end).saturating_add(GRACE_MS) > now.0 {
            busy = false;
            break;
        }
        let key = Bytes::copy_from_slice(key);
        // One that was made anew a moment ago is not in the view yet.
        let partition = partition_len(&key).map(|end| EncodedPartition::from_bytes(key.slice(..end)));
        let stored = match partition {
            Some(partition) => shard.row(&partition, Table::Idempotency, &key)?,
            None => None,
        };
        let record = stored.as_ref().and_then(|stored| Record::decode(stored.get(8..)?).ok());
        if record.is_none_or(|record| record.expires.0.saturating_add(GRACE_MS) <= now.0) {
            gone.push(Mutation::Delete { table: Table::Idempotency, key });
        }
        gone.push(Mutation::Delete { table: Table::Expiry, key: [RECORDS, &row].concat().into() });
    }
    Ok((gone, busy))
}
