//! Stands between written quantities and the types that carry them: durations, sizes, dates.
//!
//! Invariant: a quantity has its unit written beside it; a bare number is refused, because nobody can tell
//! seconds from milliseconds by looking at it.

use std::time::{Duration, SystemTime};

/// One kibibyte in bytes.
pub(super) const KIB: u64 = 1024;
/// One mebibyte in bytes.
pub(super) const MIB: u64 = 1024 * KIB;
/// One gibibyte in bytes.
pub(super) const GIB: u64 = 1024 * MIB;
/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// One millisecond.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// One minute.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// One hour.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// One day.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const DURATIONS: [(&str, Duration); 5] =
    [("ms", MILLISECOND), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];

/// Reads `250ms`, `5s`, `1m`, `2h` or `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let (_, length) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
    length.checked_mul(u32::try_from(number).ok()?)
}

/// Writes a duration so that [`duration`] reads it back, in the largest unit without a remainder.
pub(super) fn write_duration(value: Duration) -> String {
    for (name, length) in DURATIONS.iter().rev() {
        let (value, length) = (value.as_millis(), length.as_millis());
        if value >= length && value % length == 0 {
            return format!("{}{name}", value / length);
        }
    }
    format!("{}ms", value.as_millis())
}

/// Reads `512B`, `64KiB`, `2MiB` or `1GiB`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Reads `500/s`, `10/250ms` or `1/2h`: how often, and in which time.
pub(super) fn rate(text: &str) -> Option<(u32, Duration)> {
    let (calls, per) = text.split_once('/')?;
    let per = if per.starts_with(|first: char| first.is_ascii_digit()) {
        duration(per)?
    } else {
        duration(&format!("1{per}"))?
    };
    let calls = calls.bytes().all(|digit| digit.is_ascii_digit()).then(|| calls.parse().ok()).flatten()?;
    Some((calls, per))
}

/// Writes a number of bytes so that [`size`] reads it back, in the largest unit without a remainder.
pub(super) fn write_size(value: u64) -> String {
    for (name, bytes) in SIZES.iter().rev() {
        if value >= *bytes && value.is_multiple_of(*bytes) {
            return format!("{}{name}", value / bytes);
        }
    }
    format!("{value}B")
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit))
}

/// Reads an RFC 3339 date (`2027-01-31`, meaning midnight UTC at its beginning) or date-time (section 5.6).
pub(crate) fn timestamp(text: &str) -> Option<SystemTime> {
    let (date, time) = match text.split_at_checked("yyyy-mm-dd".len())? {
        (date, "") => (date, None),
        (date, rest) => (date, Some(rest.strip_prefix(['T', 't', ' '])?)),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let month_days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > month_days || year < 1970 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + time.map_or(Some(0), time_of_day)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Seconds from midnight UTC, for `hh:mm:ss[.fraction](Z|±hh:mm)`. The fraction is dropped.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, rest) = text.split_at_checked("hh:mm:ss".len())?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if zone.len() == fraction.len() {
                return None;
            }
            zone
        }
        None => rest,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    // A leap second is written :60 and belongs to the second after it.
    (hour <= 23 && minute <= 59 && second <= 60).then_some(hour * 3600 + minute * 60 + second - offset)
}

/// Splits `text` into numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days of the proleptic Gregorian calendar. Counting years from March puts the leap day last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let month_from_march = (month + 9) % 12;
    let leap_days = shifted / 4 - shifted / 100 + shifted / 400;
    // 719,468 days lie between the first of March of year 0 and the first of January 1970.
    shifted * 365 + leap_days + (month_from_march * 153 + 2) / 5 + day - 1 - 719_468
}
