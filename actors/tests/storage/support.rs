//! Small things that every module here needs: mutations, settings, seeds, a shard in miniature.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lanekeeper_actors::log::disk::Disk;
use lanekeeper_actors::log::file::LogSettings;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::log::{CommitLog, LogReader};
use lanekeeper_actors::model::address::{EncodedPartition, KeyPart, PartitionAddress};
use lanekeeper_actors::model::change::{
    ChangeKind, CommittedGroup, DocumentChange, Mutation, Previous, Table,
};
use lanekeeper_actors::model::ids::{DocumentId, Lsn};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::store::{View, ViewReadError};

/// Pages of the view that are kept in memory: few, so that most reads reach the disk.
pub(crate) const CACHE: usize = 64 << 10;

/// A seeded source of chance; set `LANEKEEPER_TEST_SEED` to run another course.
pub(crate) fn chance(what: &str) -> fastrand::Rng {
    let seed = std::env::var("LANEKEEPER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_250_117);
    println!("{what}: LANEKEEPER_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Segments so small that a handful of records fills one, and no helper thread.
pub(crate) fn tiny() -> LogSettings {
    LogSettings {
        segment_bytes: 4_096,
        first_segment_bytes: 1_024,
        max_record_bytes: 6_144,
        prepare_ahead: false,
    }
}

/// One segment that is never full.
pub(crate) fn roomy() -> LogSettings {
    LogSettings { first_segment_bytes: 64 << 10, ..LogSettings::default() }
}

pub(crate) fn partition(name: &str) -> EncodedPartition {
    let key = vec![KeyPart::String(name.into())];
    PartitionAddress { container: "loads".into(), tenant: None, key }.encode()
}

pub(crate) fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

/// A document in the partition `p`, created.
pub(crate) fn create(name: &str, body: impl Into<Bytes>) -> Mutation {
    change(ChangeKind::Create, "p", name, None, body.into())
}

pub(crate) fn change(
    kind: ChangeKind,
    place: &str,
    name: &str,
    previous: Option<Previous>,
    body: Bytes,
) -> Mutation {
    Mutation::Document(DocumentChange {
        kind,
        partition: partition(place),
        id: id(name),
        at: Timestamp(1_700_000_000_000),
        previous,
        body,
        traceparent: None,
        within: 0,
        ttl: 0,
        rows: Vec::new(),
    })
}

/// A group of one document whose body tells its number.
pub(crate) fn group(number: usize) -> Vec<Mutation> {
    vec![create(&format!("d{number}"), format!("{{\"number\":{number},\"fill\":\"{:0>120}\"}}", number))]
}

/// All groups of a log from `from`, read in small steps.
pub(crate) fn read_all(reader: &dyn LogReader, from: Lsn) -> Vec<CommittedGroup> {
    let mut groups: Vec<CommittedGroup> = Vec::new();
    let mut next = from;
    loop {
        let more = reader.read(next, 300).unwrap();
        let Some(last) = more.last() else { return groups };
        next = last.last().next();
        groups.extend(more);
    }
}

/// The mutations of all groups with their positions.
pub(crate) fn flat(groups: &[CommittedGroup]) -> Vec<(Lsn, Mutation)> {
    let mut out = Vec::new();
    for group in groups {
        for (i, mutation) in group.mutations.iter().enumerate() {
            out.push((group.first.plus(i as u64), mutation.clone()));
        }
    }
    out
}

/// Appends a group at the tail and says where it went.
pub(crate) fn append(log: &mut dyn CommitLog, mutations: &[Mutation]) -> Lsn {
    log.append(log.tail(), mutations).unwrap()
}

/// The disk with one file of these bytes more.
pub(crate) fn with_file(disk: &SimDisk, name: &str, bytes: Vec<u8>) {
    let file = disk.create(name).unwrap();
    file.write_at(0, &bytes).unwrap();
    file.sync().unwrap();
    disk.sync_names().unwrap();
}

pub(crate) fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// What a view holds, or should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) documents: BTreeMap<(String, String), (Lsn, Bytes)>,
    pub(crate) rows: BTreeMap<Vec<u8>, Bytes>,
}

/// Partitions and ids that the simulations write to.
pub(crate) const PLACES: [&str; 3] = ["a", "b", "c"];
const NAMES: usize = 8;

impl Model {
    /// Makes up a group that follows this state, as a partition would.
    pub(crate) fn next_group(&mut self, first: Lsn, rng: &mut fastrand::Rng) -> Vec<Mutation> {
        let mut group = Vec::new();
        for i in 0..rng.u64(1..6) {
            let lsn = first.plus(i);
            let mutation =
                if rng.u8(0..4) == 0 { self.next_row(rng) } else { self.next_change(lsn, first, rng) };
            group.push(mutation);
        }
        group
    }

    fn next_row(&mut self, rng: &mut fastrand::Rng) -> Mutation {
        let key = Bytes::from(vec![b'k', rng.u8(0..6)]);
        if rng.u8(0..3) == 0 {
            self.rows.remove(key.as_ref());
            return Mutation::Delete { table: Table::Progress, key };
        }
        let value = Bytes::from(rng.u64(..).to_le_bytes().to_vec());
        self.rows.insert(key.to_vec(), value.clone());
        Mutation::Put { table: Table::Progress, key, value }
    }

    fn next_change(&mut self, lsn: Lsn, first: Lsn, rng: &mut fastrand::Rng) -> Mutation {
        let place = PLACES[rng.usize(0..PLACES.len())];
        let name = format!("n{}", rng.usize(0..NAMES));
        let key = (place.to_owned(), name.clone());
        let before = self.documents.get(&key).map(|(at, _)| {
            if *at >= first { Previous::Back((lsn.0 - at.0) as u32) } else { Previous::At(*at) }
        });
        let body =
            Bytes::from(format!("{{\"n\":{},\"x\":\"{}\"}}", rng.u64(..), "x".repeat(rng.usize(0..700))));
        match before {
            Some(_) if rng.u8(0..3) == 0 => {
                self.documents.remove(&key);
                change(ChangeKind::Delete, place, &name, before, Bytes::new())
            }
            Some(_) => {
                self.documents.insert(key, (lsn, body.clone()));
                change(ChangeKind::Replace, place, &name, before, body)
            }
            None => {
                self.documents.insert(key, (lsn, body.clone()));
                change(ChangeKind::Create, place, &name, None, body)
            }
        }
    }

    /// Reads everything that the simulations may have written.
    pub(crate) fn of(view: &View) -> Result<Self, ViewReadError> {
        let mut model = Self::default();
        for place in PLACES {
            let page = view.scan(partition(place).as_bytes(), None, usize::MAX, usize::MAX)?;
            for document in page.documents.into_iter().map(|found| found.document) {
                let key = (place.to_owned(), document.id.as_str().to_owned());
                model.documents.insert(key, (document.lsn, document.body));
            }
        }
        for (key, value) in view.rows(Table::Progress, b"", None, usize::MAX)? {
            model.rows.insert(key.to_vec(), value);
        }
        Ok(model)
    }
}

/// Brings a view up to its log, as a shard does when it opens.
pub(crate) fn replay(view: &View, reader: &dyn LogReader) -> Result<(), String> {
    loop {
        let groups = reader.read(view.applied().next(), 1_000).map_err(|error| error.to_string())?;
        if groups.is_empty() {
            return Ok(());
        }
        view.apply(&groups).map_err(|error| error.to_string())?;
    }
}

/// What `verify` finds wrong in a view.
pub(crate) fn problems(view: &View) -> Vec<String> {
    let mut problems = Vec::new();
    view.verify(&mut |problem| problems.push(problem)).unwrap();
    problems
}
