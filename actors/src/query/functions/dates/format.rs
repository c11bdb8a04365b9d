//! `DateTimeFormat`: writes a time by a pattern of specifiers.
//!
//! Runs of `y`, `M`, `d`, `H`, `h`, `m`, `s`, `f`, `F` and `t` are replaced; a backslash takes the next
//! character as it is, and so is every other character.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::arguments::{Room, text_of};
use super::moment::{Moment, TICKS_PER_SECOND};

/// Hours that a clock with two halves of the day shows.
const HALF_DAY: i64 = 12;
/// Digits behind the point of a second.
const DIGITS: usize = 7;
/// No specifier writes more, in bytes.
const LONGEST: usize = 9;

pub(super) fn format(moment: Moment, pattern: &str) -> Option<Value> {
    let (mut room, mut out) = (Room::new(), String::new());
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        room.take(LONGEST)?;
        if c == '\\' {
            out.push(rest.next()?);
            continue;
        }
        let longest = longest_run(c);
        let mut run = 1;
        while run < longest && rest.next_if_eq(&c).is_some() {
            run += 1;
        }
        if longest > 0 {
            write(moment, c, run, &mut out);
        } else {
            out.push(c);
        }
    }
    text_of(out)
}

/// How many of these characters in a row are one specifier; zero for a character that is none.
fn longest_run(c: char) -> usize {
    match c {
        'y' | 'M' | 'd' => 4,
        'H' | 'h' | 'm' | 's' | 't' => 2,
        'f' | 'F' => DIGITS,
        _ => 0,
    }
}

fn write(moment: Moment, specifier: char, run: usize, out: &mut String) {
    let (date, [hour, minute, second, ticks]) = (moment.date(), moment.clock());
    let half = if hour < HALF_DAY { "AM" } else { "PM" };
    match (specifier, run) {
        ('y', 1 | 2) => number(i64::from(date.year() % 100), run, out),
        ('y', _) => number(i64::from(date.year()), run, out),
        ('M', 1 | 2) => number(i64::from(u8::from(date.month())), run, out),
        ('M', 3) => out.push_str(short(&date.month().to_string())),
        ('M', _) => out.push_str(&date.month().to_string()),
        ('d', 1 | 2) => number(i64::from(date.day()), run, out),
        ('d', 3) => out.push_str(short(&date.weekday().to_string())),
        ('d', _) => out.push_str(&date.weekday().to_string()),
        ('H', _) => number(hour, run, out),
        ('h', _) => number((hour + HALF_DAY - 1) % HALF_DAY + 1, run, out),
        ('m', _) => number(minute, run, out),
        ('s', _) => number(second, run, out),
        ('t', _) => out.push_str(half.get(..run).unwrap_or(half)),
        // The first digits of the fraction; `F` leaves zeros at its end out.
        (_, _) => {
            let digits = format!("{:07}", ticks % TICKS_PER_SECOND);
            let digits = digits.get(..run).unwrap_or(&digits);
            out.push_str(if specifier == 'f' { digits } else { digits.trim_end_matches('0') });
        }
    }
}

fn number(number: i64, width: usize, out: &mut String) {
    // Writing to a text does not fail.
    write!(out, "{number:0width$}").unwrap_or_default();
}

/// The first three letters of a name.
fn short(name: &str) -> &str {
    name.get(..3).unwrap_or(name)
}
