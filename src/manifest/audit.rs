//! Stands between the section `audit` and the audit log.
//!
//! Invariant: the log has a bound in time and in bytes, and so have its samples and its queue.

use std::num::NonZeroU32;
use std::time::Duration;

use super::fields::{self, Fields};
use super::problem::Report;
use super::tree::{Node, Value};
use super::units::{DAY, GIB, HOUR, MIB, MINUTE, SECOND};
use crate::audit::{Addresses, Settings};

/// Longest time that records are kept: ten years.
const RETAIN_MAX: Duration = Duration::from_secs(3_660 * 86_400);
/// Most records that wait for the disk.
const QUEUE_MAX: usize = 1_000_000;
/// Most refusals that a sample takes.
const REFUSALS_MAX: u32 = 1_000_000;

const REQUESTS: [(&str, bool); 2] = [("off", false), ("all", true)];
const ADDRESSES: [(&str, Addresses); 3] =
    [("full", Addresses::Full), ("masked", Addresses::Masked), ("off", Addresses::Off)];
const UNITS: [(&str, Duration); 3] = [("s", SECOND), ("m", MINUTE), ("h", HOUR)];

/// Reads the section.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Settings> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let retain = fields.duration("retain", DAY..=RETAIN_MAX, report);
    let file = fields.size("file", MIB..=GIB, report);
    let total = fields.size("total", MIB..=16_384 * GIB, report);
    let requests = fields.required("requests", report);
    let requests = requests.and_then(|node| fields::choice(node, &REQUESTS, &[], report));
    let refusals = fields.required("refusals", report).and_then(|node| sample(node, report));
    let addresses = fields.required("addresses", report);
    let addresses = addresses.and_then(|node| fields::choice(node, &ADDRESSES, &[], report));
    let queue = fields.count("queue", 1..=QUEUE_MAX, report);
    if report.count() == before && file > total / 2 {
        // The open file is never taken away.
        let place = fields.place_of("file").max(fields.place_of("total"));
        report.add(place, "`file` is more than half of `total`");
    }
    fields.finish(&["path"], report);
    let (requests, refusals, addresses) = (requests?, refusals?, addresses?);
    Some(Settings { retain, total, file, requests, refusals, addresses, queue })
}

/// Reads `10/s`, `100/m`, `1000/h` or `off`.
fn sample(node: &Node, report: &mut Report) -> Option<Option<(NonZeroU32, Duration)>> {
    let text = match &node.value {
        Value::Text(text) => text.as_str(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => "",
    };
    if text == "off" {
        return Some(None);
    }
    let read = text.split_once('/').and_then(|(number, unit)| {
        let number = number.parse::<NonZeroU32>().ok().filter(|number| number.get() <= REFUSALS_MAX)?;
        let (_, per) = UNITS.iter().find(|(name, _)| *name == unit)?;
        Some((number, *per))
    });
    match read {
        Some(read) => Some(Some(read)),
        None => {
            let what = format!(
                "`off`, or a number from 1 to {REFUSALS_MAX} with its time, as `10/s`, `100/m` or `1000/h`"
            );
            fields::expected(node, &what, report)
        }
    }
}
