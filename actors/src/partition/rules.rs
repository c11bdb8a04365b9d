//! Whether a write may happen, given what is there: pure.

use crate::model::change::ChangeKind;
use crate::model::ids::{Etag, Lsn, Position, ShardId};
use crate::policy::precondition::Precondition;
use crate::protocol::partition::{Operation, WriteError};

/// What is there before a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Current {
    /// Nothing.
    Absent,
    /// A committed version.
    Committed(Lsn),
    /// A version made earlier in the same batch, by its mutation number. It has no tag yet.
    Fresh(u32),
}

/// What a write may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It only looks.
    Read,
    /// It does this to the document.
    Change(ChangeKind),
}

/// What the write does to the document, or why it may not.
///
/// A document that must exist and does not is *not found* before any condition is asked
/// (RFC 9110 section 13.2.1).
pub(super) fn decide(
    operation: &Operation,
    precondition: &Precondition,
    current: Current,
    shard: ShardId,
) -> Result<Fate, WriteError> {
    let tag = match current {
        Current::Absent => None,
        Current::Committed(lsn) => Some(Etag(Position { shard, lsn }).to_string()),
        Current::Fresh(_) => Some(String::new()),
    };
    let tag = tag.as_deref();
    let kind = match (operation, tag) {
        (
            Operation::Replace(_)
            | Operation::Patch(_)
            | Operation::Read
            | Operation::Delete
            | Operation::Sweep,
            None,
        ) => return Err(WriteError::NotFound),
        (Operation::Create(_), Some(_)) => return Err(WriteError::Exists),
        (Operation::Upsert(_), _) => {
            precondition.check_upsert(tag)?;
            let kind = if tag.is_some() { ChangeKind::Replace } else { ChangeKind::Create };
            return Ok(Fate::Change(kind));
        }
        // There is no version that a condition could be about.
        (Operation::Create(_), None) => return Ok(Fate::Change(ChangeKind::Create)),
        (Operation::Replace(_) | Operation::Patch(_), Some(_)) => ChangeKind::Replace,
        (Operation::Delete | Operation::Sweep, Some(_)) => ChangeKind::Delete,
        (Operation::Read, Some(_)) => {
            precondition.check(tag)?;
            return Ok(Fate::Read);
        }
    };
    precondition.check(tag)?;
    Ok(Fate::Change(kind))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::policy::precondition::Failed;
    use crate::policy::ttl::ItemTtl;
    use crate::protocol::partition::Content;

    #[test]
    fn each_operation_meets_each_state_as_promised() {
        let there = Current::Committed(Lsn(10));
        let fresh = Current::Fresh(0);
        let body = Content { body: Bytes::from_static(b"{}"), ttl: ItemTtl::Inherit, properties: 0 };
        let (create, upsert) = (Operation::Create(body.clone()), Operation::Upsert(body.clone()));
        let (replace, delete) = (Operation::Replace(body), Operation::Delete);
        let conflict = Err(WriteError::Exists);
        let missing = Err(WriteError::NotFound);
        let changed = Err(WriteError::Precondition(Failed::Changed));
        let present = Err(WriteError::Precondition(Failed::Present));
        for (operation, if_match, if_none_match, current, expected) in [
            (&create, None, None, Current::Absent, Ok(ChangeKind::Create)),
            (&create, None, None, there, conflict.clone()),
            (&create, None, Some("*"), there, conflict.clone()),
            (&create, None, None, fresh, conflict),
            (&upsert, None, None, Current::Absent, Ok(ChangeKind::Create)),
            (&upsert, None, None, there, Ok(ChangeKind::Replace)),
            (&upsert, Some("\"0-9\""), None, Current::Absent, Ok(ChangeKind::Create)),
            (&upsert, Some("\"0-9\""), None, there, changed.clone()),
            (&upsert, None, Some("*"), there, present),
            (&replace, None, None, Current::Absent, missing.clone()),
            (&replace, Some("*"), None, Current::Absent, missing.clone()),
            (&replace, Some("\"0-a\""), None, there, Ok(ChangeKind::Replace)),
            (&replace, Some("\"0-9\""), None, there, changed.clone()),
            (&replace, Some("\"0-9\", \"0-a\""), None, there, Ok(ChangeKind::Replace)),
            (&replace, Some("*"), None, fresh, Ok(ChangeKind::Replace)),
            (&replace, Some("\"0-a\""), None, fresh, changed.clone()),
            (&delete, None, None, there, Ok(ChangeKind::Delete)),
            (&delete, None, None, Current::Absent, missing),
            (&delete, Some("\"1-a\""), None, there, changed),
        ] {
            let precondition = Precondition::parse(if_match, if_none_match).unwrap();
            let decided = decide(operation, &precondition, current, ShardId(0));
            assert_eq!(
                decided,
                expected.map(Fate::Change),
                "{operation:?} {if_match:?} {if_none_match:?} {current:?}"
            );
        }
    }
}
