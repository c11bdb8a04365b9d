//! Counting over a real shard: durable, exact, bounded, and forgotten in time.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::gateway::SystemRandom;
use crate::kernel::clock::{ManualClock, SystemClock};
use crate::model::ids::ShardId;
use crate::shard::{Fatal, Shard, ShardSettings};

const HOUR: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp(1_700_000_000_000);

fn shard(folder: &Path, new: bool) -> ShardHandle {
    let opened = if new { Shard::create } else { Shard::open };
    let fatal: Fatal = Arc::new(|text| panic!("{text}"));
    let shard = opened(ShardId(0), &folder.join("shard"), ShardSettings::default()).unwrap();
    shard.start(SystemClock::shared(), fatal).unwrap()
}

fn handle(shard: &ShardHandle, clock: &Arc<ManualClock>) -> UsageHandle {
    UsageHandle::new(shard.clone(), clock.clone(), &SystemRandom::shared())
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn call() -> Used {
    Used::call(RequestUnits::from_hundredths(150), 10, 20)
}

/// Calls of each user, from the start until much later.
fn calls(usage: &UsageHandle) -> Vec<(String, u64)> {
    let all = usage.read(None, START, START.after(1_000 * HOUR)).unwrap();
    let name = |user: User| user.map_or_else(|| "*".to_owned(), |(tenant, key)| format!("{tenant} {key}"));
    all.into_iter().map(|(user, used)| (name(user), used.calls)).collect()
}

#[tokio::test]
async fn what_was_counted_is_exact_over_flushes_hours_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let first = shard(folder.path(), true);
    let usage = handle(&first, &clock);
    let note = |usage: &UsageHandle, name: &str, key: &str| usage.note(&tenant(name), &key.into(), &call());
    note(&usage, "acme", "k1");
    note(&usage, "acme", "k2");
    usage.flush().await.unwrap();
    note(&usage, "acme", "k1");
    note(&usage, "other", "k3");
    let expected =
        |k1| vec![("acme k1".to_owned(), k1), ("acme k2".to_owned(), 1), ("other k3".to_owned(), 1)];
    assert_eq!(calls(&usage), expected(2), "before a flush");
    usage.flush().await.unwrap();
    usage.flush().await.unwrap();
    assert_eq!(calls(&usage), expected(2), "after it");
    clock.advance(HOUR);
    note(&usage, "acme", "k1");
    usage.flush().await.unwrap();
    assert_eq!(calls(&usage), expected(3), "in two hours");
    assert_eq!(usage.0.sums().len(), 1, "a past hour leaves memory");
    first.drain().await;
    let second = shard(folder.path(), false);
    let usage = handle(&second, &clock);
    assert_eq!(calls(&usage), expected(3), "after a restart");
    note(&usage, "acme", "k1");
    usage.flush().await.unwrap();
    assert_eq!(calls(&usage), expected(4), "the same hour of another run");
    let used = usage.read(Some(&tenant("acme")), START.after(HOUR), START.after(HOUR)).unwrap();
    let used: Vec<_> = used.into_values().collect();
    let twice = Used { calls: 2, hundredths: 300, bytes_in: 20, bytes_out: 40, events: 0 };
    assert_eq!(used, [twice], "one tenant in one hour");
    second.drain().await;
}

#[tokio::test]
async fn memory_is_bounded_and_nothing_is_lost_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let shard = shard(folder.path(), true);
    let usage = handle(&shard, &clock);
    for number in 0..MOST + 5 {
        usage.note(&tenant("acme"), &format!("k{number}").into(), &call());
    }
    assert!(usage.0.sums().len() <= MOST + 1);
    usage.flush().await.unwrap();
    let all = calls(&usage);
    assert_eq!(all.iter().map(|(_, calls)| calls).sum::<u64>(), MOST as u64 + 5);
    assert!(all.contains(&("*".to_owned(), 5)));
    shard.drain().await;
}

#[tokio::test]
async fn rows_are_forgotten_after_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let shard = shard(folder.path(), true);
    let usage = handle(&shard, &clock);
    usage.note(&tenant("acme"), &"old".into(), &call());
    usage.flush().await.unwrap();
    clock.advance(HOUR * 24 * 400);
    usage.flush().await.unwrap();
    assert_eq!(calls(&usage).len(), 1, "not yet");
    clock.advance(HOUR);
    usage.note(&tenant("acme"), &"new".into(), &call());
    usage.flush().await.unwrap();
    assert!(calls(&usage).is_empty());
    let later = START.after(HOUR * 24 * 400);
    assert_eq!(usage.read(None, later, later.after(HOUR * 2)).unwrap().len(), 1);
    shard.drain().await;
}
