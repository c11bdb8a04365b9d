//! The parts of a date and time by name: what each is of a moment, and how to count, add and bin by it.

use super::moment::{Moment, TICKS_PER_DAY, TICKS_PER_MILLISECOND, TICKS_PER_SECOND, civil};

const NANOSECONDS_PER_TICK: i64 = 100;
const TICKS_PER_MICROSECOND: i64 = 10;
const MONTHS_PER_YEAR: i64 = 12;

/// A part of a date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

impl Part {
    /// The part of this name or short name, in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" | "yyyy" | "yy" => Self::Year,
            "month" | "mm" | "m" => Self::Month,
            "day" | "dd" | "d" => Self::Day,
            "hour" | "hh" => Self::Hour,
            "minute" | "mi" | "n" => Self::Minute,
            "second" | "ss" | "s" => Self::Second,
            "millisecond" | "ms" => Self::Millisecond,
            "microsecond" | "mcs" => Self::Microsecond,
            "nanosecond" | "ns" => Self::Nanosecond,
            _ => return None,
        })
    }

    /// This part of a moment; parts below the second count from its start.
    pub(super) fn of(self, moment: Moment) -> i64 {
        let (date, [hour, minute, second, ticks]) = (moment.date(), moment.clock());
        match self {
            Self::Year => i64::from(date.year()),
            Self::Month => i64::from(u8::from(date.month())),
            Self::Day => i64::from(date.day()),
            Self::Hour => hour,
            Self::Minute => minute,
            Self::Second => second,
            Self::Millisecond => ticks / TICKS_PER_MILLISECOND,
            Self::Microsecond => ticks / TICKS_PER_MICROSECOND,
            Self::Nanosecond => ticks * NANOSECONDS_PER_TICK,
        }
    }

    /// Which part in the order of time a moment is in; `None` when 64 bits do not hold the number.
    pub(super) fn count(self, moment: Moment) -> Option<i64> {
        match self {
            Self::Year => Some(Self::Year.of(moment)),
            Self::Month => Some(Self::Year.of(moment) * MONTHS_PER_YEAR + Self::Month.of(moment)),
            Self::Nanosecond => moment.ticks().checked_mul(NANOSECONDS_PER_TICK),
            Self::Day | Self::Hour | Self::Minute | Self::Second | Self::Millisecond | Self::Microsecond => {
                Some(moment.ticks().div_euclid(self.ticks()?))
            }
        }
    }

    /// The moment this many parts later. The day of the month gives way when the month is too short.
    pub(super) fn add(self, moment: Moment, number: i64) -> Option<Moment> {
        match self {
            Self::Year => add_months(moment, number.checked_mul(MONTHS_PER_YEAR)?),
            Self::Month => add_months(moment, number),
            Self::Nanosecond => Moment::at(moment.ticks().checked_add(number / NANOSECONDS_PER_TICK)?),
            Self::Day | Self::Hour | Self::Minute | Self::Second | Self::Millisecond | Self::Microsecond => {
                Moment::at(moment.ticks().checked_add(number.checked_mul(self.ticks()?)?)?)
            }
        }
    }

    /// The start of the bin of `size` parts that holds a moment; `None` for months and years, which have
    /// no fixed length.
    pub(super) fn bin(self, moment: Moment, size: i64, start: Moment) -> Option<Moment> {
        let nanoseconds = match self {
            Self::Nanosecond => 1,
            Self::Year
            | Self::Month
            | Self::Day
            | Self::Hour
            | Self::Minute
            | Self::Second
            | Self::Millisecond
            | Self::Microsecond => i128::from(self.ticks()?) * i128::from(NANOSECONDS_PER_TICK),
        };
        let length = nanoseconds * i128::from(size);
        let passed = i128::from(moment.ticks() - start.ticks()) * i128::from(NANOSECONDS_PER_TICK);
        let binned = passed.div_euclid(length) * length;
        let ticks = i64::try_from(binned.div_euclid(i128::from(NANOSECONDS_PER_TICK))).ok()?;
        Moment::at(start.ticks().checked_add(ticks)?)
    }

    /// The length of the part, when it has one and ticks can tell it.
    fn ticks(self) -> Option<i64> {
        match self {
            Self::Year | Self::Month | Self::Nanosecond => None,
            Self::Day => Some(TICKS_PER_DAY),
            Self::Hour => Some(3_600 * TICKS_PER_SECOND),
            Self::Minute => Some(60 * TICKS_PER_SECOND),
            Self::Second => Some(TICKS_PER_SECOND),
            Self::Millisecond => Some(TICKS_PER_MILLISECOND),
            Self::Microsecond => Some(TICKS_PER_MICROSECOND),
        }
    }
}

fn add_months(moment: Moment, number: i64) -> Option<Moment> {
    let months = (Part::Month.count(moment)? - 1).checked_add(number)?;
    let (year, month) = (months.div_euclid(MONTHS_PER_YEAR), months.rem_euclid(MONTHS_PER_YEAR) + 1);
    let date = (1..=Part::Day.of(moment)).rev().find_map(|day| civil(year, month, day))?;
    Moment::new(date, moment.clock())
}
