//! Functions of dates and times. All are in UTC; texts are ISO 8601 as `YYYY-MM-DDThh:mm:ss.fffffffZ`,
//! ticks count 100 nanoseconds and timestamps milliseconds, both since the Unix epoch.

mod format;
mod moment;
mod parts;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(super) use self::moment::Moment;
use self::moment::{TICKS_PER_MILLISECOND, civil};
use self::parts::Part;
use super::arguments::Arguments;
use super::{Context, Row, row};

/// The year of the earliest start of `DateTimeBin`.
const FIRST_START: i32 = 1601;

pub(super) const ROWS: &[Row] = &[
    row("DateTimeAdd", (3, 3), add),
    row("DateTimeBin", (2, 4), bin),
    row("DateTimeDiff", (3, 3), difference),
    row("DateTimeFormat", (2, 2), |a, _| format::format(moment(a, 0)?, a.text(1)?)),
    row("DateTimeFromParts", (3, 7), from_parts),
    row("DateTimePart", (2, 2), |a, _| value(part(a, 0)?.of(moment(a, 1)?))),
    row("DateTimeToTicks", (1, 1), |a, _| value(moment(a, 0)?.ticks())),
    row("DateTimeToTimestamp", (1, 1), |a, _| value(moment(a, 0)?.milliseconds())),
    row("TicksToDateTime", (1, 1), |a, _| rendered(Moment::at(a.integer(0)?)?)),
    row("TimestampToDateTime", (1, 1), |a, _| rendered(from_milliseconds(a.integer(0)?)?)),
    row("YEAR", (1, 1), |a, _| value(Part::Year.of(moment(a, 0)?))),
    row("MONTH", (1, 1), |a, _| value(Part::Month.of(moment(a, 0)?))),
    row("DAY", (1, 1), |a, _| value(Part::Day.of(moment(a, 0)?))),
    row("GetCurrentDateTime", (0, 0), |_, context| rendered(now(context)?)),
    row("GetCurrentDateTimeStatic", (0, 0), |_, context| rendered(now(context)?)),
    row("GetCurrentTicks", (0, 0), |_, context| value(now(context)?.ticks())),
    row("GetCurrentTicksStatic", (0, 0), |_, context| value(now(context)?.ticks())),
    row("GetCurrentTimestamp", (0, 0), |_, context| value(now(context)?.milliseconds())),
    row("GetCurrentTimestampStatic", (0, 0), |_, context| value(now(context)?.milliseconds())),
];

fn moment(arguments: &Arguments<'_>, index: usize) -> Option<Moment> {
    Moment::parse(arguments.text(index)?)
}

fn part(arguments: &Arguments<'_>, index: usize) -> Option<Part> {
    Part::named(arguments.text(index)?)
}

fn now(context: &Context) -> Option<Moment> {
    from_milliseconds(i64::try_from(context.now.0).ok()?)
}

fn from_milliseconds(milliseconds: i64) -> Option<Moment> {
    Moment::at(milliseconds.checked_mul(TICKS_PER_MILLISECOND)?)
}

fn rendered(moment: Moment) -> Option<Value> {
    Some(Value::String(moment.to_string()))
}

fn value(number: i64) -> Option<Value> {
    Some(Value::from(number))
}

fn add(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (part, number, moment) = (part(arguments, 0)?, arguments.integer(1)?, moment(arguments, 2)?);
    rendered(part.add(moment, number)?)
}

/// How many boundaries of the part lie between two times.
fn difference(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (part, start, end) = (part(arguments, 0)?, moment(arguments, 1)?, moment(arguments, 2)?);
    value(part.count(end)?.checked_sub(part.count(start)?)?)
}

/// The start of the bin that holds a time. Bins are so many days, or smaller parts, and one of them
/// starts at the last argument, or at the Unix epoch.
fn bin(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (moment, part) = (moment(arguments, 0)?, part(arguments, 1)?);
    let size = arguments.integer_or(2, 1)?;
    let start = if arguments.len() > 3 { self::moment(arguments, 3)? } else { Moment::EPOCH };
    if size < 1 || start.date().year() < FIRST_START {
        return None;
    }
    rendered(part.bin(moment, size, start)?)
}

fn from_parts(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let date = civil(arguments.integer(0)?, arguments.integer(1)?, arguments.integer(2)?)?;
    let clock = [
        arguments.integer_or(3, 0)?,
        arguments.integer_or(4, 0)?,
        arguments.integer_or(5, 0)?,
        arguments.integer_or(6, 0)?,
    ];
    rendered(Moment::new(date, clock)?)
}
