//! The log on a real disk: whole, damaged at every kind of place, crashed, full of age.

use std::fs;
use std::net::IpAddr;

use lanekeeper_actors::kernel::clock::ManualClock;
use lanekeeper_actors::model::time::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn settings() -> Settings {
    Settings {
        retain: DAY * 400,
        total: 1 << 30,
        file: 1 << 20,
        requests: true,
        refusals: NonZeroU32::new(2).map(|most| (most, Duration::from_secs(1))),
        addresses: Addresses::Full,
        queue: 64,
    }
}

struct House {
    folder: TempDir,
    clock: Arc<ManualClock>,
    settings: Settings,
}

impl House {
    fn new() -> Self {
        let clock = ManualClock::at(Timestamp(1_767_225_600_000));
        Self { folder: tempfile::tempdir().unwrap(), clock, settings: settings() }
    }

    fn open(&self) -> Audit {
        Audit::start(self.folder.path(), self.settings, self.clock.clone()).unwrap()
    }

    /// Writes so many records in order, and ends in order.
    async fn filled(count: usize) -> Self {
        let house = Self::new();
        house.fill(count).await;
        house
    }

    async fn fill(&self, count: usize) {
        let audit = self.open();
        for number in 0..count {
            audit.write(change(&format!("k-{number}"))).await.unwrap();
        }
        audit.close(stopped()).await.unwrap();
    }

    fn file(&self, number: u64) -> PathBuf {
        chain::path(&self.folder.path().join(FOLDER), number)
    }

    fn text(&self, number: u64) -> String {
        fs::read_to_string(self.file(number)).unwrap()
    }

    fn put(&self, number: u64, text: impl AsRef<[u8]>) {
        fs::write(self.file(number), text).unwrap();
    }

    fn numbers(&self) -> Vec<u64> {
        chain::numbers(&self.folder.path().join(FOLDER)).unwrap()
    }

    fn check(&self) -> Report {
        verify(self.folder.path(), None).unwrap()
    }

    fn assert_sound(&self) -> Report {
        let report = self.check();
        assert_eq!(report.faults, [], "{:?}", self.numbers());
        report
    }

    /// The actions of all records that are left.
    fn actions(&self) -> Vec<String> {
        let lines = self.numbers().into_iter().flat_map(|number| {
            self.text(number)
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .collect::<Vec<_>>()
        });
        lines.map(|line| line["action"].as_str().unwrap().to_owned()).collect()
    }
}

fn change(target: &str) -> Record {
    Record {
        actor: Actor::Operator,
        action: "key.revoke",
        outcome: Some(Outcome::Done),
        target: Some(target.to_owned()),
        client: Some(IpAddr::from([192, 0, 2, 77])),
        ..Record::default()
    }
}

fn stopped() -> Record {
    Record { action: recovery::STOPPED, ..Record::default() }
}

fn request() -> Record {
    Record { action: "request", ..Record::default() }
}

#[tokio::test]
async fn a_record_that_was_acknowledged_is_in_the_chain() {
    let house = House::filled(5).await;
    let report = house.assert_sound();
    assert_eq!((report.files, report.records, report.first, report.last), (1, 6, 1, 6));
    assert_eq!(report.notes, Vec::<String>::new());
    let text = house.text(1);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["seq"], 1);
    assert_eq!(lines[0]["prev"], json!("0".repeat(64)));
    assert_eq!(lines[1]["prev"], json!(line::Hash::of(text.lines().next().unwrap().as_bytes()).text()));
    assert_eq!(lines[2]["target"], "k-2");
    assert_eq!(lines[2]["time"], "2026-01-01T00:00:00.000Z");
    // It goes on where it ended.
    house.fill(2).await;
    assert_eq!(house.assert_sound().last, 9);
    assert!(!house.actions().contains(&"process.crashed".to_owned()));
}

#[tokio::test]
async fn a_changed_byte_is_found_wherever_it_is() {
    let house = House::filled(3).await;
    let whole = fs::read(house.file(1)).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        // Still a text, and another one.
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        house.put(1, &changed);
        assert!(!house.check().faults.is_empty(), "byte {at}");
    }
    house.put(1, &whole);
    house.assert_sound();
}

#[tokio::test]
async fn lines_that_are_removed_moved_added_or_exchanged_are_found_with_their_place() {
    let house = House::filled(4).await;
    let text = house.text(1);
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let [a, b, c, d, e] = *lines.as_slice() else { panic!("{text}") };
    let longer = b.replacen("k-1", "k-1111", 1);
    for (what, changed, place) in [
        ("removed", joined(&[a, c, d, e]), Some(2)),
        ("first removed", joined(&[b, c, d, e]), None),
        ("moved", joined(&[a, c, b, d, e]), Some(2)),
        ("repeated", joined(&[a, b, b, c, d, e]), Some(3)),
        ("added", joined(&[a, b, "{\"seq\":3}", c, d, e]), Some(3)),
        ("exchanged", joined(&[a, &longer, c, d, e]), Some(3)),
        ("last removed", joined(&[a, b, c, d]), None),
        ("last cut", joined(&[a, b, c, d]) + &e[..20], Some(5)),
        ("line feed cut", text.trim_end().to_owned(), Some(5)),
        ("all removed", String::new(), None),
    ] {
        house.put(1, &changed);
        let report = house.check();
        let first = report.faults.first().unwrap_or_else(|| panic!("{what} is not found"));
        assert_eq!(first.line, place, "{what}: {first:?}");
    }
}

#[tokio::test]
async fn a_log_that_was_cut_is_known_by_its_head_and_by_an_anchor() {
    let house = House::filled(4).await;
    let report = house.check();
    let anchor: Anchor = format!("{}:{}", report.last, report.hash).parse().unwrap();
    let folder = house.folder.path().join(FOLDER);
    let text = house.text(1);
    let shorter: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    house.put(1, &shorter);
    assert_eq!(house.check().faults[0].what, "records 4 to 5 are missing");
    // Without the head it cannot be known; that it is not there is.
    fs::remove_file(folder.join(head::FILE)).unwrap();
    assert!(house.check().faults[0].what.contains("no `head`"));
    // Somebody who makes a head that fits is found by whoever kept the end elsewhere.
    let last = line::Hash::of(shorter.lines().last().unwrap().as_bytes());
    let link = line::Link { sequence: 3, hash: last };
    head::HeadFile::open(&folder).unwrap().write(&head::Head { link, file: 1 }).unwrap();
    house.assert_sound();
    let found = verify(house.folder.path(), Some(anchor)).unwrap();
    assert_eq!(found.faults[0].what, "record 5 of the anchor is not there");
    house.put(1, &text);
    assert_eq!(verify(house.folder.path(), Some(anchor)).unwrap().faults.len(), 0);
    let other: Anchor = format!("2:{}", report.hash).parse().unwrap();
    assert!(
        verify(house.folder.path(), Some(other)).unwrap().faults[0].what.contains("anchor has another hash")
    );
}

#[tokio::test]
async fn what_is_missing_at_a_start_stays_missing_and_is_recorded() {
    for (what, change) in [
        (
            "audit.missing",
            (|text: &str| text.lines().take(2).map(|line| format!("{line}\n")).collect())
                as fn(&str) -> String,
        ),
        ("audit.missing", |text| text.replacen("k-1", "k-x", 1)),
        ("audit.rewritten", |text| text.replacen(recovery::STOPPED, "process.stuffed", 1)),
        ("audit.missing", |_| String::new()),
    ] {
        let house = House::filled(4).await;
        let changed = change(&house.text(1));
        house.put(1, &changed);
        house.fill(1).await;
        assert_eq!(house.text(1), changed, "the evidence is not touched");
        assert!(house.text(2).contains(what), "{what}: {}", house.text(2));
        assert!(house.text(2).starts_with("{\"seq\":6,"), "{}", house.text(2));
        assert!(!house.check().faults.is_empty(), "{what}");
    }
    let house = House::filled(4).await;
    fs::remove_file(house.file(1)).unwrap();
    house.fill(1).await;
    assert!(house.text(2).contains("audit.missing"));
    assert!(house.check().faults[0].what.contains("records 1 to 5 are gone"));
    let house = House::filled(4).await;
    fs::remove_file(house.folder.path().join(FOLDER).join(head::FILE)).unwrap();
    house.fill(1).await;
    assert!(house.actions().contains(&"audit.head_missing".to_owned()));
}

#[tokio::test]
async fn a_torn_end_is_cut_and_told_and_the_chain_goes_on() {
    // As a crash may leave it: an unfinished line, a page of zeros, both, and a head that is behind.
    for torn in ["{\"seq\":6,\"time\":\"20", "\0\0\0\0\0\0", "{\"seq\":6\n{\"seq\":7", "\n"] {
        let house = House::filled(4).await;
        let whole = house.text(1);
        house.put(1, whole.clone() + torn);
        let report = house.assert_sound();
        assert_eq!(report.notes.len(), 1, "{torn:?}");
        house.fill(1).await;
        assert!(house.text(1).starts_with(&whole), "{torn:?}");
        assert_eq!(house.actions()[5], "audit.tail_cut", "{torn:?}");
        house.assert_sound();
    }
    let house = House::filled(2).await;
    let audit = house.open();
    audit.write(change("last")).await.unwrap();
    drop(audit);
    // It never said that it stopped.
    house.fill(1).await;
    assert!(house.actions().contains(&"process.crashed".to_owned()));
    house.assert_sound();
}

#[tokio::test]
async fn a_head_that_is_behind_is_no_fault() {
    let house = House::new();
    let head = house.folder.path().join(FOLDER).join(head::FILE);
    let audit = house.open();
    audit.write(change("a")).await.unwrap();
    let before = fs::read(&head).unwrap();
    audit.write(change("b")).await.unwrap();
    audit.close(stopped()).await.unwrap();
    fs::write(&head, before).unwrap();
    house.assert_sound();
    house.fill(1).await;
    assert_eq!(house.assert_sound().last, 5);
}

#[tokio::test]
async fn files_follow_each_other_and_the_chain_goes_on_across_them() {
    let mut house = House::new();
    house.settings.file = 1_000;
    house.fill(40).await;
    assert!(house.numbers().len() > 5, "{:?}", house.numbers());
    assert_eq!(house.assert_sound().last, 41);
    // A start goes on with the last one.
    let numbers = house.numbers();
    house.fill(1).await;
    assert!(house.numbers().starts_with(&numbers));
    house.assert_sound();
    // A file in the middle, or the first, cannot be taken away.
    for number in [1, 3] {
        let text = house.text(number);
        fs::remove_file(house.file(number)).unwrap();
        assert!(!house.check().faults.is_empty(), "{number}");
        house.put(number, text);
        house.assert_sound();
    }
    // An empty last file is what a crash leaves behind a rotation.
    let next = house.numbers().last().unwrap() + 1;
    house.put(next, "");
    house.assert_sound();
    house.fill(1).await;
    assert!(!house.text(next).is_empty());
    house.assert_sound();
}

#[tokio::test]
async fn old_files_go_and_the_chain_says_so() {
    let mut house = House::new();
    house.settings.file = 1_000;
    house.fill(20).await;
    let before = house.numbers();
    house.clock.advance(DAY * 399);
    house.fill(4).await;
    assert!(house.numbers().starts_with(&before), "younger than that");
    house.clock.advance(DAY * 2);
    house.fill(1).await;
    let left = house.numbers();
    assert!(!left.contains(&1) && left.len() > 1, "{left:?}");
    assert!(house.actions().contains(&recovery::RETIRED.to_owned()));
    let report = house.assert_sound();
    assert!(report.first > 1);
    // More than that cannot be taken away.
    let text = house.text(left[0]);
    fs::remove_file(house.file(left[0])).unwrap();
    assert!(house.check().faults[0].what.contains("none says that they were retired"));
    house.put(left[0], text);
    // So many bytes and no more.
    house.settings.total = 5_000;
    house.fill(30).await;
    let bytes: u64 = house.numbers().iter().map(|number| house.file(*number).metadata().unwrap().len()).sum();
    assert!(bytes < 7_000, "{bytes}");
    house.assert_sound();
}

#[tokio::test]
async fn no_text_can_make_a_second_line_or_hide_itself() {
    let house = House::new();
    let evil = "a\n{\"seq\":9}\r\u{1b}[2J\u{85}\u{2028}\u{202e}\u{200b}\u{7f}\"}\\";
    let audit = house.open();
    let asked = Some(json!({ "tenant": evil, evil: [evil] }));
    audit.write(Record { target: Some(evil.to_owned()), asked, ..change("") }).await.unwrap();
    audit.close(stopped()).await.unwrap();
    let text = house.text(1);
    assert_eq!(text.lines().count(), 2, "{text}");
    let line = text.lines().next().unwrap();
    assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["target"], &line["asked"]["tenant"]), (&json!(evil), &json!(evil)));
    house.assert_sound();
}

#[test]
fn what_looks_like_a_secret_is_blotted_out() {
    let key = "lk_0123456789abcdefghijklmnopqrstuvwxyz";
    for (text, shown) in [
        (key.to_owned(), "***"),
        (format!("key={key}&x=1"), "key=***&x=1"),
        (format!("Bearer eyJhbGciOiJIUzI1NiJ9.{}.x", "e30".repeat(9)), "Bearer ***"),
        ("(whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw)".to_owned(), "(***)"),
        ("lk_short".to_owned(), "lk_short"),
        ("ünïcode \u{1f69a}".to_owned(), "ünïcode \u{1f69a}"),
    ] {
        assert_eq!(redacted(&text), shown);
    }
    assert_eq!(redacted(&"é".repeat(1_000)).chars().count(), 256);
    let asked = Some(json!({ "a": [{ "b": key }], key: 1, "long": 7 }));
    let body = Record { target: Some(key.to_owned()), asked, ..Record::default() }.body();
    assert!(!body.contains(key) && body.contains("***"), "{body}");
    let long = Record { after: Some(json!("x".repeat(10_000))), ..Record::default() }.body();
    assert!(long.contains("sha256:") && long.len() < 200, "{long}");
}

#[tokio::test]
async fn notes_never_wait_and_what_does_not_fit_is_counted_in_the_log() {
    let house = House::new();
    // Nobody takes anything: the thread is not there yet.
    let queue = Queue::new(3);
    for _ in 0..5 {
        queue.note(Entry { at: Timestamp(0), record: request() });
    }
    assert_eq!((queue.waiting(), queue.dropped()), (3, 2));
    assert_eq!(queue.take().dropped, 2);
    // A folder that cannot be made: everything is refused or dropped, and counted.
    let blocked = house.folder.path().join(FOLDER);
    fs::write(&blocked, "in the way").unwrap();
    let audit = house.open();
    audit.answered(request);
    assert_eq!(audit.write(change("a")).await, Err(Unwritten::Disk));
    assert_eq!(audit.counts().dropped, 1);
    assert!(audit.counts().failures > 0);
    // It takes records as soon as it can.
    fs::remove_file(&blocked).unwrap();
    assert_eq!(audit.write(change("b")).await, Ok(2));
    audit.close(stopped()).await.unwrap();
    assert_eq!(house.actions(), ["audit.dropped", "key.revoke", recovery::STOPPED]);
    assert!(house.text(1).contains("\"records\":1,"), "{}", house.text(1));
    assert_eq!(audit.write(change("c")).await, Err(Unwritten::Closed));
}

#[tokio::test]
async fn refusals_are_a_sample_and_requests_are_all_or_none() {
    let mut house = House::new();
    let audit = house.open();
    for _ in 0..10 {
        audit.refused(|| Record { action: "caller.refused", ..Record::default() });
        audit.answered(request);
    }
    audit.close(stopped()).await.unwrap();
    let count = |house: &House, action: &str| house.actions().iter().filter(|found| *found == action).count();
    assert_eq!((count(&house, "caller.refused"), count(&house, "request")), (2, 10));
    assert_eq!((audit.counts().sampled_out, audit.counts().dropped), (8, 0));
    assert!(house.text(1).contains("\"refusals_beyond_sample\":8"));
    house.settings.requests = false;
    house.settings.refusals = None;
    let audit = house.open();
    audit.refused(request);
    audit.answered(request);
    audit.close(stopped()).await.unwrap();
    assert_eq!((count(&house, "caller.refused"), count(&house, "request")), (2, 10));
    house.assert_sound();
}

#[tokio::test]
async fn an_address_is_shown_as_far_as_the_manifest_says() {
    for (addresses, v4, v6) in [
        (Addresses::Full, Some("192.0.2.77"), Some("2001:db8:1:2::3")),
        (Addresses::Masked, Some("192.0.2.0"), Some("2001:db8:1::")),
        (Addresses::Off, None, None),
    ] {
        for (address, shown) in [("192.0.2.77", v4), ("::ffff:192.0.2.77", v4), ("2001:db8:1:2::3", v6)] {
            let found = addresses.shown(address.parse().unwrap());
            assert_eq!(found, shown.map(|shown| shown.parse().unwrap()), "{addresses:?} {address}");
        }
    }
}

#[tokio::test]
async fn pages_lead_from_the_first_record_to_the_last() {
    let mut house = House::new();
    house.settings.file = 2_000;
    let audit = house.open();
    for number in 1..=100 {
        let action = if number % 10 == 0 { "key.issue" } else { "request" };
        audit.write(Record { action, ..change("k") }).await.unwrap();
        house.clock.advance(Duration::from_secs(1));
    }
    let seqs =
        |page: &Page| page.records.iter().map(|record| record["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    let ask = |start, limit, action: Option<&str>| {
        audit.page(&Question { start, limit, action: action.map(str::to_owned) }).unwrap()
    };
    let (mut next, mut all) = (1, Vec::new());
    while next <= 100 {
        let page = ask(Start::Record(next), 7, None);
        assert!(page.next > next);
        next = page.next;
        all.extend(seqs(&page));
    }
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
    for from in 1..=100 {
        assert_eq!(seqs(&ask(Start::Record(from), 1, None)), [from]);
    }
    let end = ask(Start::Record(101), 7, None);
    assert_eq!((seqs(&end), end.next), (vec![], 101));
    let newest = ask(Start::Newest, 3, None);
    assert_eq!((seqs(&newest), newest.next), (vec![98, 99, 100], 101));
    assert_eq!(seqs(&ask(Start::Newest, 2, Some("key"))), [90, 100]);
    assert_eq!(seqs(&ask(Start::Record(1), 100, Some("key.issue"))).len(), 10);
    assert_eq!(seqs(&ask(Start::Record(1), 100, Some("key.iss"))), Vec::<u64>::new());
    let begun = 1_767_225_600_000;
    assert_eq!(seqs(&ask(Start::Time(Timestamp(begun + 41_000)), 2, None)), [42, 43]);
    assert_eq!(seqs(&ask(Start::Time(Timestamp(begun + 40_500)), 2, None)), [42, 43]);
    assert_eq!(seqs(&ask(Start::Time(Timestamp(0)), 1, None)), [1]);
    assert_eq!(seqs(&ask(Start::Time(Timestamp(begun * 2)), 1, None)), Vec::<u64>::new());
    // What was retired is passed over.
    fs::remove_file(house.file(1)).unwrap();
    assert!(seqs(&ask(Start::Record(1), 1, None))[0] > 1);
    audit.close(stopped()).await.unwrap();
}
