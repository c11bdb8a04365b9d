//! A point in time as the query language knows it, and its text.
//!
//! Invariant: a moment lies in the years 1 to 9999.

use std::fmt;

use time::{Date, Month};

pub(super) const TICKS_PER_MILLISECOND: i64 = 10_000;
pub(super) const TICKS_PER_SECOND: i64 = 10_000_000;
pub(super) const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND;

const SECONDS_PER_MINUTE: i64 = 60;
const SECONDS_PER_HOUR: i64 = 3_600;
const HOURS_PER_DAY: i64 = 24;
/// 1970-01-01 as a Julian day.
const EPOCH_DAY: i64 = 2_440_588;
/// Digits behind the point of a second.
const DIGITS: usize = 7;

/// Ticks of 100 nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::query::functions) struct Moment(i64);

/// A day of the calendar; `None` when there is no such day in the years 1 to 9999.
pub(super) fn civil(year: i64, month: i64, day: i64) -> Option<Date> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let year = i32::try_from(year).ok().filter(|year| *year >= 1)?;
    Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()
}

impl Moment {
    pub(super) const EPOCH: Self = Self(0);

    /// The moment this many ticks after the epoch.
    pub(super) fn at(ticks: i64) -> Option<Self> {
        date_of(ticks).map(|_| Self(ticks))
    }

    /// A moment by its date and its hour, minute, second and ticks of the second.
    pub(super) fn new(date: Date, [hour, minute, second, ticks]: [i64; 4]) -> Option<Self> {
        let is_clock = (0..HOURS_PER_DAY).contains(&hour)
            && (0..SECONDS_PER_MINUTE).contains(&minute)
            && (0..SECONDS_PER_MINUTE).contains(&second)
            && (0..TICKS_PER_SECOND).contains(&ticks);
        if !is_clock {
            return None;
        }
        let seconds = hour * SECONDS_PER_HOUR + minute * SECONDS_PER_MINUTE + second;
        let day = i64::from(date.to_julian_day()) - EPOCH_DAY;
        Some(Self(day * TICKS_PER_DAY + seconds * TICKS_PER_SECOND + ticks))
    }

    /// Reads `YYYY-MM-DD`, then optionally `T` or a space, `hh:mm:ss` and up to seven digits of a
    /// second, then optionally `Z`.
    pub(in crate::query::functions) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_suffix('Z').unwrap_or(text).as_bytes();
        let year = digits(&mut rest, 4)?;
        separator(&mut rest, b"-")?;
        let month = digits(&mut rest, 2)?;
        separator(&mut rest, b"-")?;
        let date = civil(year, month, digits(&mut rest, 2)?)?;
        if rest.is_empty() {
            return Self::new(date, [0; 4]);
        }
        separator(&mut rest, b"T ")?;
        let hour = digits(&mut rest, 2)?;
        separator(&mut rest, b":")?;
        let minute = digits(&mut rest, 2)?;
        separator(&mut rest, b":")?;
        let second = digits(&mut rest, 2)?;
        let mut ticks = 0;
        if !rest.is_empty() {
            separator(&mut rest, b".")?;
            let length = rest.len();
            if length > DIGITS {
                return None;
            }
            ticks = digits(&mut rest, length)? * 10_i64.pow(u32::try_from(DIGITS - length).ok()?);
        }
        Self::new(date, [hour, minute, second, ticks])
    }

    pub(super) fn ticks(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    pub(super) fn milliseconds(self) -> i64 {
        self.0.div_euclid(TICKS_PER_MILLISECOND)
    }

    pub(super) fn date(self) -> Date {
        // Every moment was made of a date, or checked to have one.
        date_of(self.0).unwrap_or(Date::MIN)
    }

    /// Hour, minute, second, and ticks of the second.
    pub(super) fn clock(self) -> [i64; 4] {
        let ticks = self.0.rem_euclid(TICKS_PER_DAY);
        let seconds = ticks / TICKS_PER_SECOND;
        [
            seconds / SECONDS_PER_HOUR,
            seconds / SECONDS_PER_MINUTE % SECONDS_PER_MINUTE,
            seconds % SECONDS_PER_MINUTE,
            ticks % TICKS_PER_SECOND,
        ]
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, [hour, minute, second, ticks]) = (self.date(), self.clock());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ticks:07}Z")
    }
}

fn date_of(ticks: i64) -> Option<Date> {
    let day = ticks.div_euclid(TICKS_PER_DAY) + EPOCH_DAY;
    let date = Date::from_julian_day(i32::try_from(day).ok()?).ok()?;
    (date.year() >= 1).then_some(date)
}

/// Takes this many digits, at least one, off the front.
fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (digits, after) = rest.split_at_checked(count)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = after;
    Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Takes one of these characters off the front.
fn separator(rest: &mut &[u8], allowed: &[u8]) -> Option<()> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    allowed.contains(first).then_some(())
}
