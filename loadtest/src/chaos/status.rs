//! Stands between the admin API and a row: what a subscription and its dead letters say of themselves.
//! Invariant: a figure that the server does not give is an error, not a zero; only what is still being built may be absent.

use anyhow::Context as _;
use serde_json::Value;

use crate::document::Probe;

/// What a subscription says.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) name: String,
    /// Events that wait for their first attempt.
    pub(crate) lag: u64,
    pub(crate) in_flight: u64,
    pub(crate) ready: u64,
    pub(crate) unsettled: u64,
    pub(crate) retrying: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) delivered: u64,
    pub(crate) failed_attempts: u64,
    /// The last attempts, newest first.
    pub(crate) recent: Vec<Recent>,
    /// All that it said.
    pub(crate) raw: Value,
}

/// An attempt as the subscription remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) event: String,
    pub(crate) attempt: u64,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) detail: String,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The number of its document.
    pub(crate) number: Option<u64>,
    pub(crate) reason: String,
    pub(crate) attempts: u64,
    pub(crate) last_outcome: String,
    pub(crate) detail: String,
}

impl Status {
    /// Reads one.
    pub(crate) fn read(raw: &Value) -> anyhow::Result<Self> {
        let number = |pointer: &str| {
            let value = raw.pointer(pointer).and_then(Value::as_u64);
            value.with_context(|| format!("the status of a subscription has no `{pointer}`"))
        };
        let recent = raw.get("recent").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self {
            name: text(raw, "name"),
            lag: number("/lag/events")?,
            in_flight: number("/in_flight")?,
            ready: number("/ready")?,
            unsettled: number("/unsettled")?,
            retrying: number("/retrying")?,
            dead_lettered: number("/dead_lettered")?,
            delivered: number("/delivered")?,
            failed_attempts: number("/failed_attempts")?,
            recent: recent.iter().map(Recent::read).collect(),
            raw: raw.clone(),
        })
    }

    /// Nothing is under way, and nothing waits for anything but a retry.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lag + self.in_flight + self.ready + self.unsettled == 0
    }

    /// Nothing is left to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_quiet() && self.retrying == 0
    }

    /// What the breaker says of itself; `None` when this server has none.
    pub(crate) fn breaker(&self) -> Option<String> {
        let breaker = self.raw.get("breaker")?;
        let state = breaker.get("state").or(Some(breaker))?;
        state.as_str().map(str::to_owned)
    }
}

/// How a breaker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Milliseconds since 1970.
    pub(crate) until: u64,
    pub(crate) reason: String,
}

impl Status {
    /// The breaker, if it is open.
    pub(crate) fn opened(&self) -> Option<Opened> {
        let breaker = self.raw.get("breaker")?;
        let until = breaker.get("until").and_then(Value::as_str).and_then(millis)?;
        Some(Opened { until, reason: text(breaker, "reason") })
    }
}

impl Recent {
    fn read(raw: &Value) -> Self {
        Self {
            event: text(raw, "event"),
            attempt: raw.get("attempt").and_then(Value::as_u64).unwrap_or_default(),
            at: raw.get("at").and_then(Value::as_str).and_then(millis).unwrap_or_default(),
            detail: text(raw, "detail"),
        }
    }
}

impl Letter {
    /// Reads one.
    pub(crate) fn read(raw: &Value) -> Self {
        let event = raw.get("event").map(ToString::to_string).unwrap_or_default();
        Self {
            number: Probe::find(event.as_bytes()).map(|probe| probe.number),
            reason: text(raw, "reason"),
            attempts: raw.get("attempts").and_then(Value::as_u64).unwrap_or_default(),
            last_outcome: text(raw, "last_outcome"),
            detail: text(raw, "detail"),
        }
    }
}

fn text(raw: &Value, key: &str) -> String {
    raw.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Milliseconds since 1970 of `2026-01-31T08:30:00.000Z`.
fn millis(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, milli) = time.split_once('.')?;
    let mut clock = clock.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let milli: u64 = milli.get(..3)?.parse().ok()?;
    // Years that begin in March have their leap day at the end.
    let shifted = if month > 2 { year } else { year.checked_sub(1)? };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days =
        (365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year).checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_milliseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T00:00:00.000Z", 951_782_400_000),
            ("2024-12-31T23:59:59.001Z", 1_735_689_599_001),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        assert_eq!(millis("yesterday"), None);
    }

    #[test]
    fn a_status_without_its_figures_is_an_error_and_a_breaker_may_be_absent() {
        assert!(Status::read(&serde_json::json!({ "name": "a" })).is_err());
        let whole = serde_json::json!({
            "name": "a", "lag": { "events": 0, "seconds": 0.0 }, "in_flight": 0, "ready": 0, "unsettled": 0,
            "retrying": 2, "dead_lettered": 1, "delivered": 3, "failed_attempts": 4, "recent": [],
        });
        let status = Status::read(&whole).unwrap();
        assert!(status.is_quiet() && !status.is_at_rest() && status.breaker().is_none());
    }
}
