//! `cargo bench -p lanekeeper-actors --bench filters`: how many subscriptions a router asks about an event, per second
//! and core. Each event has about 1 KB of JSON that is read anew, and each subscription has a filter of its own; the
//! fewer subscriptions a topic has, the more of the time goes into reading.
//!
//! Options: `--seconds N` for each cell (2).
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a benchmark talks to a person")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lanekeeper_actors::model::cloudevent::{CloudEvent, Data, from_json};
use lanekeeper_actors::policy::filter::{
    Condition, Facts, Filter, FilterSpec, KeyTable, SubjectFilter, Test,
};
use serde_json::json;

/// The allocator of the server, so that the benchmark measures the same program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the project promises, for filters with a few conditions and many subscriptions.
const GOAL: f64 = 1e6;

fn seconds() -> f64 {
    let mut args = std::env::args().skip(1);
    let mut seconds = 2.0;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => seconds = args.next().and_then(|text| text.parse().ok()).unwrap(),
            // Cargo passes this to every benchmark.
            "--bench" => {}
            // `cargo bench NAME` says the name to all of them.
            other if !other.starts_with('-') && !"filters".contains(other) => std::process::exit(0),
            other if !other.starts_with('-') => {}
            other => panic!("unknown option `{other}`"),
        }
    }
    seconds
}

fn main() {
    let time = Duration::from_secs_f64(seconds());
    let events: Vec<CloudEvent> = (0..256).map(event).collect();
    let size =
        events.iter().filter_map(|event| event.json_data()).map(Bytes::len).sum::<usize>() / events.len();
    println!("{size} bytes of data; matches are pairs of one event and one subscription, on one core");
    println!("{:<24}{:>14}{:>16}{:>12}{:>14}", "filter", "subscriptions", "matches/s", "ns/match", "wanted");
    let mut slowest = f64::INFINITY;
    for (name, spec) in [
        ("type", of_type as fn(usize) -> FilterSpec),
        ("type and subject", of_subject),
        ("3 conditions", of_three),
        ("7 conditions, all met", of_seven),
        ("25 conditions, all met", of_twenty_five),
    ] {
        for subscriptions in [4, 100, 10_000] {
            let keys = KeyTable::new();
            let filters: Vec<Filter> =
                (0..subscriptions).map(|number| spec(number).compile(&keys).unwrap()).collect();
            let (rate, wanted) = measure(&events, &filters, &keys, time);
            println!(
                "{name:<24}{subscriptions:>14}{rate:>16.0}{:>12.1}{:>13.1}%",
                1e9 / rate,
                wanted * 100.0
            );
            if name == "3 conditions" && subscriptions >= 100 {
                slowest = slowest.min(rate);
            }
        }
    }
    let rate = read_rate(&events, time);
    println!("reading a published event: {rate:.0}/s");
    let verdict = if slowest >= GOAL { "kept" } else { "missed" };
    println!("goal of {GOAL:.0} matches/s with 3 conditions: {verdict} ({slowest:.0})");
}

/// Matches per second, and the share of them that the subscription wanted.
fn measure(events: &[CloudEvent], filters: &[Filter], keys: &KeyTable, time: Duration) -> (f64, f64) {
    let (mut asked, mut wanted) = (0.0, 0.0);
    let start = Instant::now();
    while start.elapsed() < time {
        for event in events.iter().take((1_000_000 / filters.len()).clamp(1, 256)) {
            let facts = Facts::new(event, keys);
            let matching = filters.iter().filter(|filter| black_box(filter.matches(&facts))).count();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            {
                asked += filters.len() as f64;
                wanted += matching as f64;
            }
        }
    }
    (asked / start.elapsed().as_secs_f64(), wanted / asked)
}

/// Events per second that are read from structured mode.
fn read_rate(events: &[CloudEvent], time: Duration) -> f64 {
    let bodies: Vec<Bytes> = events.iter().map(CloudEvent::to_json).collect();
    let mut read = 0.0;
    let start = Instant::now();
    while start.elapsed() < time {
        for body in &bodies {
            black_box(from_json(body).unwrap());
            read += 1.0;
        }
    }
    read / start.elapsed().as_secs_f64()
}

/// An event of about 1 KB, one of many that differ.
fn event(number: usize) -> CloudEvent {
    let mut event = CloudEvent::new(format!("0-{number}"), "/containers/loads", "LoadCreated");
    event.subject = Some(format!("lane-{}/load-{number}", number % 100));
    event.time = Some("2026-01-31T08:30:00.000Z".to_owned());
    event.set_extension("partitionkey", format!("lane-{}", number % 100).into());
    let stop =
        |place: &str| json!({ "place": place, "from": "2026-02-01T06:00:00Z", "to": "2026-02-01T18:00:00Z" });
    let data = json!({
        "id": format!("load-{number}"),
        "lane": format!("lane-{}", number % 100),
        "customer": { "id": format!("c-{}", number % 17), "name": "Nordlicht Spedition GmbH", "country": "DE" },
        "weight": number * 100 % 24_000,
        "price": { "amount": 900 + number, "currency": "EUR" },
        "express": number.is_multiple_of(2),
        "tags": ["frozen", "adr", "tail-lift"],
        "stops": [stop("Oslo"), stop("Göteborg"), stop("København"), stop("Hamburg"), stop("Berlin")],
        "notes": "Call the warehouse an hour before arrival; the gate on the north side is closed at night. ".repeat(3),
    });
    event.data = Data::Json(data.to_string().into());
    event
}

fn condition(key: &str, test: Test) -> Condition {
    Condition { key: key.to_owned(), test }
}

fn of_type(number: usize) -> FilterSpec {
    let types = [["LoadUpdated", "LoadDeleted"], ["LoadUpdated", "LoadCreated"]];
    let types = types.iter().cycle().nth(number % 2).into_iter().flatten();
    FilterSpec { types: Some(types.map(|&name| name.into()).collect()), ..FilterSpec::default() }
}

fn of_subject(number: usize) -> FilterSpec {
    let begins = format!("LANE-{}/", number % 100);
    let subject = SubjectFilter { begins, ends: String::new(), case_sensitive: false };
    FilterSpec { types: Some(vec!["LoadCreated".into()]), subject, ..FilterSpec::default() }
}

/// Three conditions of different kinds, of which most events meet some.
fn of_three(number: usize) -> FilterSpec {
    let customers = (0..3).map(|other| format!("C-{}", (number + other) % 17)).collect();
    let advanced = vec![
        condition("data.weight", Test::NumberGreaterThan(1_000.0)),
        condition("data.customer.id", Test::StringIn(customers)),
        condition("data.lane", Test::StringNotBeginsWith(vec![format!("lane-{}", number % 10)])),
    ];
    FilterSpec { advanced, ..FilterSpec::default() }
}

fn of_seven(_: usize) -> FilterSpec {
    let texts = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let advanced = vec![
        condition("data.weight", Test::NumberGreaterThanOrEquals(0.0)),
        condition("data.customer.country", Test::StringIn(texts(&["no", "se", "dk", "de"]))),
        condition("data.price.amount", Test::NumberInRange(vec![[0.0, 100.0], [500.0, 5_000.0]])),
        condition("data.tags", Test::StringNotContains(texts(&["live", "oversize"]))),
        condition("data.customer.name", Test::StringContains(texts(&["spedition"]))),
        condition("partitionkey", Test::StringBeginsWith(texts(&["lane-"]))),
        condition("data.missing", Test::IsNullOrUndefined),
    ];
    FilterSpec { advanced, arrays: true, ..FilterSpec::default() }
}

fn of_twenty_five(number: usize) -> FilterSpec {
    let price = condition("data.price.amount", Test::NumberNotIn(vec![1.0]));
    let mut advanced = vec![price; 18];
    advanced.extend(of_seven(number).advanced.into_iter().filter(|condition| condition.test.values() < 2));
    let missing = condition("data.missing", Test::IsNullOrUndefined);
    advanced.resize(25, missing);
    FilterSpec { advanced, arrays: true, ..FilterSpec::default() }
}
