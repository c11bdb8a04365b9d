//! Any mutations come back from the log byte for byte, and any bytes in its file are met without
//! a panic.

use bytes::Bytes;
use lanekeeper_actors::log::CommitLog;
use lanekeeper_actors::log::file::FileLog;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::model::address::EncodedPartition;
use lanekeeper_actors::model::change::{ChangeKind, DocumentChange, Mutation, Previous, Table};
use lanekeeper_actors::model::ids::{DocumentId, Lsn};
use lanekeeper_actors::model::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{append, flat, group, read_all, roomy, shared, with_file};

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = DocumentId> {
    let text = prop_oneof!["[a-z]{1,20}", "\\PC{1,40}", Just("x".repeat(1_023))];
    text.prop_filter_map("not an id", |text| DocumentId::new(&text).ok())
}

fn previous() -> impl Strategy<Value = Option<Previous>> {
    prop_oneof![
        Just(None),
        (1..=i64::MAX as u64).prop_map(|lsn| Some(Previous::At(Lsn(lsn)))),
        (1..=u32::MAX).prop_map(|back| Some(Previous::Back(back))),
    ]
}

fn change() -> impl Strategy<Value = Mutation> {
    let kind = prop_oneof![Just(ChangeKind::Create), Just(ChangeKind::Replace), Just(ChangeKind::Delete)];
    let traceparent = proptest::option::of(".{0,60}");
    (kind, bytes(80), id(), any::<u64>(), previous(), bytes(400), traceparent).prop_map(
        |(kind, partition, id, at, previous, body, traceparent)| {
            Mutation::Document(DocumentChange {
                kind,
                partition: EncodedPartition::from_bytes(partition),
                id,
                at: Timestamp(at),
                previous,
                body,
                traceparent: traceparent.map(|text| text.as_str().into()),
                within: 0,
                ttl: 0,
                rows: Vec::new(),
            })
        },
    )
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![
        Just(Table::Progress),
        Just(Table::Deliveries),
        Just(Table::Due),
        Just(Table::DeadLetters),
        Just(Table::Idempotency),
        Just(Table::System),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        change(),
        (table(), bytes(60), bytes(200)).prop_map(|(table, key, value)| Mutation::Put { table, key, value }),
        (table(), bytes(60)).prop_map(|(table, key)| Mutation::Delete { table, key }),
    ]
}

/// Opens a file of these bytes as a log and reads all of it.
fn open_and_read(bytes: Vec<u8>) {
    let disk = SimDisk::new();
    with_file(&disk, "00000001.log", bytes);
    let Ok(mut log) = FileLog::open(shared(&disk), roomy(), None) else { return };
    let reader = log.reader();
    for from in [0, 1, 2, u64::MAX / 2, u64::MAX] {
        reader.read(Lsn(from), usize::MAX).ok();
    }
    // A position near the end of all positions is refused or followed, whatever it says.
    log.append(log.tail(), &group(0)).ok();
}

/// A small log as it stands in its file.
fn some_log() -> Vec<u8> {
    let disk = SimDisk::new();
    let settings = lanekeeper_actors::log::file::LogSettings { first_segment_bytes: 2_048, ..roomy() };
    let mut log = FileLog::create(shared(&disk), settings).unwrap();
    for n in 0..4 {
        append(&mut log, &group(n));
    }
    disk.bytes("00000001.log").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn byte_for_byte(groups in vec(vec(mutation(), 1..8), 1..6)) {
        let disk = SimDisk::new();
        let mut log = FileLog::create(shared(&disk), roomy()).unwrap();
        let mut expected = Vec::new();
        for group in &groups {
            let first = append(&mut log, group);
            expected.extend(group.iter().enumerate().map(|(i, m)| (first.plus(i as u64), m.clone())));
        }
        prop_assert_eq!(&flat(&read_all(&*log.reader(), Lsn(1))), &expected);
        drop(log);
        let log = FileLog::open(shared(&disk), roomy(), None).unwrap();
        prop_assert_eq!(&flat(&read_all(&*log.reader(), Lsn(1))), &expected);
    }

    #[test]
    fn arbitrary_bytes_are_met_without_a_panic(bytes in vec(any::<u8>(), 0..2_000), whole_header in any::<bool>()) {
        let mut file = bytes;
        if whole_header {
            file.splice(..0, some_log()[..64].iter().copied());
        }
        open_and_read(file);
    }

    /// Bytes with a right checksum that no program wrote: what an attacker or a bug could leave.
    #[test]
    fn a_sealed_record_of_arbitrary_bytes_is_met_without_a_panic(
        payload in vec(any::<u8>(), 0..300),
        version in 0u8..3,
        first in prop_oneof![0u64..3, any::<u64>()],
        count in prop_oneof![0u64..4, any::<u64>()],
    ) {
        let mut record = b"LKR1\0\0\0\0".to_vec();
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&[version, 0, 0, 0]);
        record.extend_from_slice(&first.to_le_bytes());
        record.extend_from_slice(&first.wrapping_add(count).to_le_bytes());
        record.extend_from_slice(&[0; 16]);
        record.extend_from_slice(&payload);
        let crc = crc32c::crc32c(&record[8..]).to_le_bytes();
        record[4..8].copy_from_slice(&crc);
        let mut file = some_log()[..64].to_vec();
        file.extend_from_slice(&record);
        file.resize(4_096, 0);
        open_and_read(file);
    }

    #[test]
    fn a_mangled_log_is_met_without_a_panic(
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = some_log();
        for (place, byte) in edits {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        open_and_read(bytes);
    }
}
