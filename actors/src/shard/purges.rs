//! Partitions that were deleted as a whole, and whose documents are still in the tables.
//!
//! Invariant: once a purge is committed, no reader sees a document that it covers, although the upkeep
//! takes them away one after the other, over minutes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use crate::model::change::{Mutation, Table};
use crate::model::ids::Lsn;
use crate::store::{View, ViewReadError};

/// What the keys of the rows begin with, in the table of the system.
const ROWS: &[u8] = b"purge/";
/// Bytes of the position at the end of a row's key.
const POSITION: usize = 8;
/// Purges under way in one shard.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Purges {
    /// How many there are, so that readers seldom meet the lock.
    active: AtomicUsize,
    prefixes: RwLock<BTreeMap<Vec<u8>, Lsn>>,
}

impl Purges {
    /// Takes over what was under way when the process ended.
    pub(super) fn load(&self, view: &View) -> Result<(), ViewReadError> {
        for (prefix, position) in view.rows(Table::System, ROWS, None, MOST)? {
            let position = position.as_ref().try_into().map_err(|_| ViewReadError::Corrupt)?;
            let prefix = prefix.get(..prefix.len().saturating_sub(POSITION)).unwrap_or_default();
            self.begin(prefix.to_vec(), Lsn(u64::from_be_bytes(position)));
        }
        Ok(())
    }

    pub(super) fn begin(&self, prefix: Vec<u8>, upto: Lsn) {
        let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
        let position = prefixes.entry(prefix).or_insert(upto);
        *position = upto.max(*position);
        self.active.store(prefixes.len(), Ordering::Release);
    }

    /// Ends a purge, unless the prefix was deleted once more since.
    pub(super) fn end(&self, prefix: &[u8], upto: Lsn) {
        let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
        if prefixes.get(prefix).is_some_and(|position| *position <= upto) {
            prefixes.remove(prefix);
        }
        self.active.store(prefixes.len(), Ordering::Release);
    }

    /// Whether the document with this key was deleted when it had this version.
    pub(super) fn cover(&self, key: &[u8], lsn: Lsn) -> bool {
        if self.active.load(Ordering::Acquire) == 0 {
            return false;
        }
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        prefixes.iter().any(|(prefix, upto)| lsn <= *upto && key.starts_with(prefix))
    }

    pub(super) fn all(&self) -> Vec<(Vec<u8>, Lsn)> {
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        prefixes.iter().map(|(prefix, upto)| (prefix.clone(), *upto)).collect()
    }

    pub(super) fn is_full(&self) -> bool {
        self.active.load(Ordering::Acquire) >= MOST
    }
}

/// The row of a purge. One that covers more has a row of its own, so that the end of the first does not
/// take it away.
pub(super) fn row(prefix: &[u8], upto: Lsn) -> Mutation {
    let value = Bytes::copy_from_slice(&upto.0.to_be_bytes());
    Mutation::Put { table: Table::System, key: key(prefix, upto), value }
}

/// Rows of the purges of a prefix that are at their end.
pub(super) fn rows_gone(view: &View, prefix: &[u8], upto: Lsn) -> Result<Vec<Mutation>, ViewReadError> {
    let begin = [ROWS, prefix].concat();
    let rows = view.rows(Table::System, &begin, None, MOST)?.into_iter();
    let own = rows.filter_map(|(rest, _)| Some(Lsn(u64::from_be_bytes(rest.as_ref().try_into().ok()?))));
    let gone = |position| Mutation::Delete { table: Table::System, key: key(prefix, position) };
    Ok(own.filter(|position| *position <= upto).map(gone).collect())
}

fn key(prefix: &[u8], upto: Lsn) -> Bytes {
    [ROWS, prefix, &upto.0.to_be_bytes()].concat().into()
}
