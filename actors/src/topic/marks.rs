//! Keys of the rows that say which events were published lately.
//!
//! ```text
//! published:  <topic> 00 <period> <hash of source and id>
//! ```
//! Time is cut into periods. An event is new if neither this period nor the one before has its mark, so
//! it is known for one period at least, and for two at most. Whole periods are deleted when they are past.

use std::time::Duration;

use bytes::Bytes;

use crate::model::cloudevent::CloudEvent;
use crate::model::time::Timestamp;

/// How long it is known, at least, that an event was published.
pub const WINDOW: Duration = Duration::from_secs(600);

/// What tells one event of a topic from another.
pub(super) type Fingerprint = [u8; 16];

/// The fingerprint of an event: its source and id (CloudEvents section 3.1).
pub(super) fn fingerprint(event: &CloudEvent) -> Fingerprint {
    let length = u32::try_from(event.source.len()).unwrap_or(u32::MAX).to_le_bytes();
    let both = [&length, event.source.as_bytes(), event.id.as_bytes()].concat();
    twox_hash::XxHash3_128::oneshot(&both).to_be_bytes()
}

fn period(now: Timestamp) -> u32 {
    let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
    u32::try_from(now.0 / window).unwrap_or(u32::MAX)
}

/// The keys of an event in this period, and in the one before.
pub(super) fn keys(topic: &str, now: Timestamp, fingerprint: &Fingerprint) -> [Bytes; 2] {
    let this = period(now);
    [this, this.saturating_sub(1)]
        .map(|period| [topic.as_bytes(), &[0], &period.to_be_bytes(), fingerprint].concat().into())
}

/// Whether a key is of a period that no event is compared with any more.
pub(crate) fn past(key: &[u8], now: Timestamp) -> bool {
    let rest = key.iter().position(|byte| *byte == 0).and_then(|end| key.get(end + 1..));
    let Some((of, _)) = rest.and_then(|rest| rest.split_first_chunk::<4>()) else { return true };
    u32::from_be_bytes(*of).saturating_add(1) < period(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_for_one_period_at_least_and_two_at_most() {
        let print = [7; 16];
        let window = u64::try_from(WINDOW.as_millis()).unwrap();
        for at in [5 * window, 5 * window + window / 2, 6 * window - 1] {
            let [mark, _] = keys("t", Timestamp(at), &print);
            let known = |after: u64| keys("t", Timestamp(at + after), &print).contains(&mark);
            assert!(known(0) && known(window));
            assert!(!known(2 * window));
            assert!(!past(&mark, Timestamp(at + window)));
            assert!(past(&mark, Timestamp(at + 2 * window)));
        }
    }

    #[test]
    fn source_and_id_do_not_run_into_each_other() {
        let event = |source: &str, id: &str| CloudEvent::new(id, source, "T");
        assert_ne!(fingerprint(&event("/ab", "c")), fingerprint(&event("/a", "bc")));
        assert_eq!(fingerprint(&event("/a", "b")), fingerprint(&event("/a", "b")));
    }
}
