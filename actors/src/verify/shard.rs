//! One shard: its log end to end, its view row by row, and the view as the sum of the log.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::disk::StillDisk;
use super::{ShardSummary, derived, subscriptions};
use crate::log::file::{FileLog, LogSettings};
use crate::log::{CommitLog, LogReader};
use crate::model::address::EncodedPartition;
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange, Mutation, Table};
use crate::model::ids::{DocumentId, Lsn, ShardId};
use crate::store::superblock::DataDirectory;
use crate::store::{View, ViewReadError};

/// Page cache of the view while it is checked.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of the log that are held at once.
const READ_BYTES: usize = 1 << 20;
/// Rows that are held at once.
const ROWS: usize = 1_024;

/// Takes one problem.
pub(super) type Report<'r> = dyn FnMut(String) + 'r;

/// Checks a shard and reports each problem; `None` when log or view cannot be opened at all.
pub(super) fn check(
    shard: ShardId,
    directory: &DataDirectory,
    report: &mut Report<'_>,
) -> Option<ShardSummary> {
    let settings = LogSettings { prepare_ahead: false, ..LogSettings::default() };
    let log = FileLog::open(StillDisk::new(&directory.log(shard.0)), settings, None)
        .map_err(|error| report(error.to_string()));
    let view = View::open(&*StillDisk::new(&directory.shard(shard.0)), CACHE_BYTES)
        .map_err(|error| report(error.to_string()));
    // Both are tried before giving up, so that damage in both is told at once.
    let (log, view) = (log.ok()?, view.ok()?);
    let reader = log.reader();
    let checkpoint = view.applied();
    let mut summary = ShardSummary {
        shard,
        first: reader.first(),
        tail: reader.tail(),
        groups: 0,
        mutations: 0,
        checkpoint,
        documents: 0,
        deliveries: 0,
        dead_letters: 0,
    };
    if checkpoint > summary.tail {
        report(format!(
            "the view is at {checkpoint} but the log ends at {}: the log lost its end",
            summary.tail
        ));
    }
    let replayed = replay(&*reader, &view, &mut summary, report);
    match view.verify(report) {
        Ok(documents) => summary.documents = documents,
        Err(error) => report(error.to_string()),
    }
    // Against a view that lacks the log's end, every document of that end would be reported.
    if replayed && checkpoint <= summary.tail {
        compare(&*reader, &view, report);
    }
    derived::check(&view, report);
    let owed = subscriptions::check(shard, &*reader, &view, report);
    (summary.deliveries, summary.dead_letters) = (owed.deliveries, owed.dead_letters);
    Some(summary)
}

/// Goes through the whole log, until `visit` has enough. Says whether the end was reached.
fn walk(
    reader: &dyn LogReader,
    report: &mut Report<'_>,
    visit: &mut dyn FnMut(&[CommittedGroup], &mut Report<'_>) -> ControlFlow<()>,
) -> bool {
    let mut from = reader.first();
    loop {
        let groups = match reader.read(from, READ_BYTES) {
            Ok(groups) => groups,
            Err(error) => {
                report(error.to_string());
                return false;
            }
        };
        let Some(last) = groups.last().map(CommittedGroup::last) else {
            let missing = from <= reader.tail();
            if missing {
                report(format!("the log has nothing at {from}, but ends at {}", reader.tail()));
            }
            return !missing;
        };
        if visit(&groups, report).is_break() {
            return false;
        }
        from = last.next();
    }
}

/// Reads the log, checks its order, and applies to the view what it lacks, as a start would.
fn replay(reader: &dyn LogReader, view: &View, summary: &mut ShardSummary, report: &mut Report<'_>) -> bool {
    let checkpoint = view.applied();
    let mut before = Lsn::ZERO;
    let mut is_joined = summary.first <= checkpoint.next() || checkpoint == summary.tail;
    if !is_joined {
        report(format!("the view is at {checkpoint}, but the log begins at {} only", summary.first));
    }
    walk(reader, report, &mut |groups, report| {
        for group in groups {
            summary.groups += 1;
            summary.mutations += group.mutations.len() as u64;
            if group.first <= before {
                report(format!("the group at {} does not follow {before}", group.first));
                return ControlFlow::Break(());
            }
            before = group.last();
        }
        if is_joined && let Err(error) = view.apply(groups) {
            report(error.to_string());
            is_joined = false;
        }
        ControlFlow::Continue(())
    }) && is_joined
}

/// What a mutation was about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Document(EncodedPartition, DocumentId),
    Row(Table, Bytes),
}

/// The view must be what the log adds up to. A mutation that a later one overtook does not match the
/// view, so a subject counts only by its last mutation.
fn compare(reader: &dyn LogReader, view: &View, report: &mut Report<'_>) {
    let mut differing = HashSet::new();
    let finished = walk(reader, report, &mut |groups, report| {
        for group in groups {
            for (lsn, mutation) in (0..).map(|step| group.first.plus(step)).zip(group.mutations.iter()) {
                for (subject, agrees) in agreement(view, lsn, mutation) {
                    match agrees {
                        Ok(true) => {
                            differing.remove(&subject);
                        }
                        Ok(false) => {
                            differing.insert(subject);
                        }
                        // View::verify has reported what cannot be read; once more with its name.
                        Err(error) => report(format!("{subject:?}: {error}")),
                    }
                }
            }
        }
        ControlFlow::Continue(())
    });
    if finished {
        for subject in differing {
            report(format!("the view differs from the log at {subject:?}"));
        }
    }
}

/// Each subject of a mutation, and whether the view has of it what the mutation says.
fn agreement(view: &View, lsn: Lsn, mutation: &Mutation) -> Vec<(Subject, Result<bool, ViewReadError>)> {
    let row = |table: Table, key: &Bytes, value: Option<&Bytes>| {
        let agrees = view.row(table, key).map(|row| row.as_ref() == value);
        (Subject::Row(table, key.clone()), agrees)
    };
    match mutation {
        Mutation::Document(change) => {
            let subject = Subject::Document(change.partition.clone(), change.id.clone());
            let beside = change.rows.iter().map(|it| row(it.table, &it.key, it.stored(lsn).as_ref()));
            [(subject, document_agrees(view, lsn, change))].into_iter().chain(beside).collect()
        }
        Mutation::Event(event) => {
            event.mark.iter().map(|mark| row(Table::Published, mark, Some(&Bytes::new()))).collect()
        }
        Mutation::Put { table, key, value } => vec![row(*table, key, Some(value))],
        Mutation::Delete { table, key } => vec![row(*table, key, None)],
    }
}

fn document_agrees(view: &View, lsn: Lsn, change: &DocumentChange) -> Result<bool, ViewReadError> {
    let found = view.document(&change.partition, &change.id)?;
    Ok(match change.kind {
        ChangeKind::Create | ChangeKind::Replace => {
            found.is_some_and(|found| found.lsn == lsn && found.body == change.body && found.at == change.at)
        }
        ChangeKind::Delete | ChangeKind::Expire => found.is_none(),
    })
}

/// Calls `visit` with key and value of each row of a table, and counts them.
pub(super) fn each_row(
    view: &View,
    table: Table,
    report: &mut Report<'_>,
    visit: &mut dyn FnMut(&Bytes, &Bytes, &mut Report<'_>),
) -> u64 {
    let mut total = 0;
    let mut after: Option<Bytes> = None;
    loop {
        match view.rows(table, &[], after.as_deref(), ROWS) {
            Ok(rows) => {
                for (key, value) in &rows {
                    visit(key, value, report);
                }
                total += rows.len() as u64;
                let Some((key, _)) = rows.into_iter().next_back() else { return total };
                after = Some(key);
            }
            Err(error) => {
                report(format!("{table:?}: {error}"));
                return total;
            }
        }
    }
}
