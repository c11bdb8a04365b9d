//! Stands between an endpoint's `Retry-After` and the retry schedule (RFC 9110, 10.2.3).
//! Invariant: whatever the header says, the delay is between nothing and one hour.

use std::time::{Duration, SystemTime};

/// No endpoint may put its events off for longer than this in one answer.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// Reads a delay in seconds or a date. `None` for anything else: a header that makes no sense says nothing.
pub(crate) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a number that is too large, not garbage.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_honoured_up_to_the_cap_and_garbage_is_ignored() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let secs = |n| Some(Duration::from_secs(n));
        for (value, delay) in [
            ("120", secs(120)),
            (" 120 ", secs(120)),
            ("0", secs(0)),
            ("3600", secs(3600)),
            ("3601", secs(3600)),
            ("1000000000", secs(3600)),
            ("99999999999999999999999999", secs(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", secs(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", secs(60)),
            ("Sun Nov  6 08:50:37 1994", secs(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", secs(0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", secs(0)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", secs(3600)),
            ("", None),
            ("-5", None),
            ("+5", None),
            ("1.5", None),
            ("10s", None),
            ("0x10", None),
            ("soon", None),
            ("1994-11-06T08:50:37Z", None),
            ("Sun, 99 Nov 1994 08:50:37 GMT", None),
            ("１２", None),
        ] {
            assert_eq!(parse(value, now), delay, "{value:?}");
        }
    }

    #[test]
    fn a_date_is_counted_from_the_instant_given_not_from_its_whole_second() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:38 GMT", now), Some(Duration::from_millis(750)));
    }
}
