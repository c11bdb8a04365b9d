//! What a view does at its edges: other formats, its end.

use std::sync::Arc;

use super::*;
use crate::log::sim::{Call, SimDisk};
use crate::model::address::{EncodedPartition, KeyPart, PartitionAddress, partition_len};
use crate::model::change::{ChangeKind, DocumentChange, Mutation, Previous};
use crate::model::ids::DocumentId;
use crate::model::time::Timestamp;

#[test]
fn a_view_of_a_newer_format_is_refused() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    view.write(|transaction| {
        put_meta(transaction, FORMAT_KEY, &(FORMAT + 1).to_le_bytes())?;
        mark(transaction, Lsn::ZERO)
    })
    .unwrap();
    drop(view);
    let refused = View::open(&disk, 1 << 20);
    let newer = matches!(refused, Err(OpenError::Newer { found, supported: FORMAT }) if found == FORMAT + 1);
    assert!(newer, "{refused:?}");
}

#[test]
fn closing_a_view_writes_nothing() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    view.write(|transaction| mark(transaction, Lsn(5))).unwrap();
    let calls = || [Call::Write, Call::Sync].map(|call| disk.calls(call));
    let before = calls();
    drop(view);
    assert_eq!(calls(), before);
    assert_eq!(View::open(&disk, 1 << 20).unwrap().applied(), Lsn(5));
}

fn partition(container: &str, lane: &str) -> EncodedPartition {
    let key = vec![KeyPart::String(lane.into())];
    PartitionAddress { container: container.into(), tenant: None, key }.encode()
}

fn change(partition: &EncodedPartition, name: &str, body: &'static [u8], previous: Option<u64>) -> Mutation {
    Mutation::Document(DocumentChange {
        kind: previous.map_or(ChangeKind::Create, |_| ChangeKind::Replace),
        partition: partition.clone(),
        id: DocumentId::new(name).unwrap(),
        at: Timestamp(1_000 + body.len() as u64),
        previous: previous.map(|lsn| Previous::At(Lsn(lsn))),
        body: Bytes::from_static(body),
        traceparent: None,
        within: 0,
        ttl: 0,
        rows: Vec::new(),
    })
}

fn group(first: u64, mutations: Vec<Mutation>) -> CommittedGroup {
    CommittedGroup { first: Lsn(first), mutations: Arc::from(mutations) }
}

/// A document as version 1 sealed it: without its place in a transaction and its time to live, and with
/// a checksum that leaves the version out.
fn seal_as_version_1(key: &[u8], found: &StoredDocument) -> Vec<u8> {
    let value = [&found.lsn.0.to_le_bytes()[..], &found.at.0.to_le_bytes(), &found.body].concat();
    seal_value_as_version_1(key, &value)
}

fn seal_value_as_version_1(key: &[u8], value: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    [&[1, 0], &crc.to_le_bytes()[..], value].concat()
}

/// Makes of a view what a program of format 1 would have left.
fn make_format_1(view: &View) {
    let made = view.write(|transaction| {
        let mut sealed = Vec::new();
        {
            let mut documents = transaction.open_table(DOCUMENTS)?;
            for entry in documents.range::<&[u8]>(..)? {
                let (key, value) = entry?;
                let Ok(found) = keyed(key.value(), value.value()) else { continue };
                sealed.push((found.key.clone(), seal_as_version_1(&found.key, &found.document)));
            }
            for (key, value) in &sealed {
                documents.insert(key.as_ref(), value.as_slice())?;
            }
        }
        transaction.delete_table(ORDER)?;
        let mut order = transaction.open_table(ORDER)?;
        for (key, value) in &sealed {
            // Format 1 had an order for each partition: its key, the position, and the id as the value.
            let len = partition_len(key).unwrap();
            let place = [&key[..len], &value[6..14]].concat();
            order.insert(place.as_slice(), &key[len..])?;
        }
        drop(order);
        for table in [Table::Unique, Table::Index, Table::Expiry] {
            transaction.delete_table(definition(table))?;
        }
        let mut progress = transaction.open_table(definition(Table::Progress))?;
        progress.insert(&b"s"[..], seal_value_as_version_1(b"s", b"cursor").as_slice())?;
        drop(progress);
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, seal_value_as_version_1(FORMAT_KEY, &1_u32.to_le_bytes()).as_slice())?;
        let applied = view.applied();
        let sealed = seal_value_as_version_1(APPLIED_KEY, &applied.0.to_le_bytes());
        meta.insert(APPLIED_KEY, sealed.as_slice())?;
        Ok(applied)
    });
    made.unwrap();
}

fn problems(view: &View) -> Vec<String> {
    let mut problems = Vec::new();
    view.verify(&mut |problem| problems.push(problem)).unwrap();
    problems
}

#[test]
fn a_view_of_format_1_is_brought_to_this_one() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    let places = [partition("loads", "a"), partition("loads", "b"), partition("others", "a")];
    let [a, b, other] = &places;
    let first = vec![
        change(a, "z", b"{}", None),
        change(b, "y", b"{\"n\":1}", None),
        change(other, "z", b"{}", None),
        change(a, "a", b"{}", None),
    ];
    view.apply(&[group(3, first)]).unwrap();
    view.apply(&[group(10, vec![change(a, "z", b"{\"n\":2}", Some(3))])]).unwrap();
    let before: Vec<_> = view.scan(b"", None, 100, 1 << 20).unwrap().documents;
    assert_eq!(before.len(), 4);
    make_format_1(&view);
    assert!(view.changes(b"loads\0", Lsn::ZERO, 9, 1 << 20).is_err());
    drop(view);

    // Its upgrade is one transaction: once as far as it comes without a sync, then for good.
    for _ in 0..2 {
        let view = View::open(&disk, 1 << 20).unwrap();
        assert_eq!(view.applied(), Lsn(10));
        assert_eq!(view.scan(b"", None, 100, 1 << 20).unwrap().documents, before);
        assert_eq!(view.row(Table::Progress, b"s").unwrap().as_deref(), Some(&b"cursor"[..]));
        assert_eq!(view.rows(Table::Unique, b"", None, 9).unwrap(), []);
        assert_eq!(problems(&view), Vec::<String>::new());
        let order = |container: &[u8], after: u64| -> Vec<(u64, String)> {
            let page = view.changes(container, Lsn(after), 9, 1 << 20).unwrap();
            let found = page.documents.iter();
            found.map(|found| (found.document.lsn.0, found.document.id.as_str().to_owned())).collect()
        };
        let all = [(4, "y".to_owned()), (6, "a".to_owned()), (10, "z".to_owned())];
        assert_eq!(order(b"loads\0", 0), all);
        assert_eq!(order(b"loads\0", 6), all[2..]);
        assert_eq!(order(b"others\0", 0), [(5, "z".to_owned())]);
        let version = view.version(a, &DocumentId::new("z").unwrap()).unwrap().unwrap();
        assert_eq!((version.within, version.ttl, version.transaction()), (0, 0, Lsn(10)));
    }
    // Changes go on from there: an entry of the order is found and moved.
    let view = View::open(&disk, 1 << 20).unwrap();
    view.apply(&[group(11, vec![change(b, "y", b"{\"n\":3}", Some(4))])]).unwrap();
    assert_eq!(problems(&view), Vec::<String>::new());
    view.checkpoint().unwrap();
    drop(view);
    assert_eq!(View::open(&disk, 1 << 20).unwrap().applied(), Lsn(11));
}

#[test]
fn an_upgrade_that_fails_is_made_again() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    view.apply(&[group(1, vec![change(&partition("loads", "a"), "x", b"{}", None)])]).unwrap();
    make_format_1(&view);
    drop(view);
    let mut failed = 0;
    for nth in 1..200 {
        for call in [Call::Write, Call::Sync] {
            let broken = disk.fork();
            broken.fail(call, nth, io::ErrorKind::Other);
            failed += u64::from(View::open(&broken, 1 << 20).is_err());
            broken.heal();
            let view = View::open(&broken, 1 << 20).unwrap();
            assert_eq!((problems(&view), view.applied()), (Vec::new(), Lsn(1)), "{call:?} {nth}");
            let page = view.changes(b"loads\0", Lsn::ZERO, 9, 1 << 20).unwrap();
            assert_eq!(page.documents.len(), 1);
        }
        if nth > 20 && failed == 0 {
            break;
        }
    }
    assert!(failed > 3, "{failed}");
}

#[test]
fn a_transaction_is_never_split_between_pages_of_changes() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    let place = partition("loads", "a");
    // Transactions of 1, 3 and 2 changes.
    let names = ["a", "b", "c", "d", "e", "f"];
    let within = [0, 0, 1, 2, 0, 1];
    let mutations = names.iter().zip(within).map(|(name, within)| {
        let Mutation::Document(change) = change(&place, name, b"{}", None) else { unreachable!() };
        Mutation::Document(DocumentChange { within, ..change })
    });
    view.apply(&[group(1, mutations.collect())]).unwrap();
    for (limit, expected) in
        [(1, vec![1, 3, 2]), (2, vec![4, 2]), (3, vec![4, 2]), (5, vec![6]), (9, vec![6])]
    {
        let (mut after, mut sizes) = (Lsn::ZERO, Vec::new());
        loop {
            let page = view.changes(b"loads\0", after, limit, 1 << 20).unwrap();
            let Some(last) = page.documents.last() else { break };
            after = last.document.lsn;
            sizes.push(page.documents.len());
            if !page.more {
                break;
            }
        }
        assert_eq!(sizes, expected, "{limit}");
    }
}

#[test]
fn what_is_in_a_container_is_counted_and_counted_again_when_nobody_did() {
    let disk = SimDisk::new();
    let view = View::create(&disk, 1 << 20).unwrap();
    assert_eq!(view.extent("loads").unwrap(), Extent::default());
    let place = partition("loads", "a");
    let created = change(&place, "1", b"{}", None);
    let replaced = change(&place, "1", b"{\"a\":1}", Some(1));
    view.apply(&[group(1, vec![created])]).unwrap();
    let one = view.extent("loads").unwrap();
    assert_eq!(one.documents, 1);
    view.apply(&[group(2, vec![replaced])]).unwrap();
    let longer = view.extent("loads").unwrap();
    assert_eq!((longer.documents, longer.bytes), (1, one.bytes + 5));
    view.write(|transaction| {
        put_extent(transaction, &PartitionAddress::container_prefix("loads"), Extent::default())?;
        count_documents(transaction)?;
        mark(transaction, view.applied())
    })
    .unwrap();
    assert_eq!(view.extent("loads").unwrap(), longer);
}
