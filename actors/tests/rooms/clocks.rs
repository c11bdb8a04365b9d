//! The wall clock is set while events wait: nothing falls due by it, nothing waits for longer, nothing is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lanekeeper_actors::kernel::clock::{Clock, SharedClock, SystemClock};
use lanekeeper_actors::model::delivery::Outcome;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::retry::RetryPolicy;

use crate::support::{Endpoints, config, create, lane, start_at, stop, subscription, until};

const HOUR: i64 = 3_600_000;

/// A machine whose wall clock can be set.
#[derive(Debug)]
struct Set {
    real: SharedClock,
    ahead: AtomicI64,
}

impl Set {
    fn right() -> Arc<Self> {
        Arc::new(Self { real: SystemClock::shared(), ahead: AtomicI64::new(0) })
    }

    fn set_by(&self, millis: i64) {
        self.ahead.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp(self.real.now().0.saturating_add_signed(self.ahead.load(Ordering::SeqCst)))
    }

    fn elapsed(&self) -> Duration {
        self.real.elapsed()
    }
}

#[actix::test]
async fn a_clock_that_is_set_changes_neither_when_nor_whether_an_event_is_tried_again() {
    const STEP: Duration = Duration::from_millis(1_000);
    for by in [HOUR, -HOUR, 24 * HOUR, -24 * HOUR] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints =
            Endpoints::new(|attempt| Outcome::from_status(if attempt.number == 1 { 500 } else { 200 }, None));
        // Were the jump time that passed, every event would be too old.
        let ttl = Duration::from_secs(30 * 60);
        let policy = RetryPolicy { max_attempts: 3, ttl, scale: 0.1, probation: false };
        let clock = Set::right();
        let config = config(folder.path(), vec![subscription("s", policy)]);
        let system = start_at(config, &endpoints, clock.clone()).await;
        let partition = lane(&system, "a");
        for n in 0..20 {
            create(&partition, &format!("before-{n}")).await.unwrap();
        }
        until(&system, "s", |status| status.failed_attempts == 20).await;
        clock.set_by(by);
        for n in 0..5 {
            create(&partition, &format!("after-{n}")).await.unwrap();
        }
        let shown = until(&system, "s", |status| status.delivered == 25).await;
        assert_eq!((shown.failed_attempts, shown.dead_letters), (25, 0), "set by {by}");
        // What is shown goes by the clock as it is.
        let newest = shown.recent.first().unwrap().at;
        assert!(newest.0.abs_diff(clock.now().0) < HOUR.unsigned_abs() / 2, "set by {by}");
        let mut first = HashMap::new();
        for seen in endpoints.seen("s") {
            if seen.number == 1 {
                first.insert(seen.event, seen.at);
                continue;
            }
            let waited = seen.at.duration_since(first[&seen.event]);
            assert!(waited >= STEP - Duration::from_millis(2), "set by {by}: {waited:?}");
        }
        stop(system).await;
    }
}

#[actix::test]
async fn events_that_were_never_tried_do_not_grow_old_by_a_clock_that_is_set() {
    for by in [24 * HOUR, -24 * HOUR] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::all_well();
        let ttl = Duration::from_secs(30 * 60);
        let policy = RetryPolicy { max_attempts: 3, ttl, scale: 0.1, probation: false };
        let clock = Set::right();
        let config = config(folder.path(), vec![subscription("s", policy)]);
        let system = start_at(config, &endpoints, clock.clone()).await;
        let handle = system.subscription("s").unwrap();
        handle.pause().await.unwrap();
        let partition = lane(&system, "a");
        for n in 0..10 {
            create(&partition, &format!("load-{n}")).await.unwrap();
        }
        clock.set_by(by);
        for n in 10..20 {
            create(&partition, &format!("load-{n}")).await.unwrap();
        }
        handle.resume().await.unwrap();
        let shown = until(&system, "s", |status| status.delivered == 20).await;
        assert_eq!(shown.dead_letters, 0, "set by {by}");
        stop(system).await;
    }
}
