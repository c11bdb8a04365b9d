//! Stands between `rate` and `quota`, wherever they stand, and the limits of calls.
//!
//! Invariant: no two limits of a manifest have one name, and no two quotas, because their counters go by it.

use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::limits::{Algorithm, By, Limit};
use lanekeeper_actors::policy::quota::{Period, Quota};
use lanekeeper_actors::policy::rate::Rate;
use lanekeeper_actors::policy::terms::QuotaRule;

use super::fields::{self, Fields};
use super::problem::{Place, Report, closest, quoted};
use super::tree::{Node, Value};
use super::{limits, units};

/// Most limits, and most quotas, of one product, api or operation.
const MOST: usize = 8;
/// Longest name of a header field or a claim.
const WORD_MAX: usize = 128;
/// Most calls of a quota.
const CALLS_MAX: usize = 1_000_000_000_000;
/// Longest period of a quota that is a time: 400 days.
const PERIOD_MAX: Duration = Duration::from_secs(400 * 86_400);
/// Shortest one; shorter ones are rates.
const PERIOD_MIN: Duration = Duration::from_secs(60);

const ALGORITHMS: [(&str, Algorithm); 2] =
    [("token_bucket", Algorithm::TokenBucket), ("sliding", Algorithm::Sliding)];
const PERIODS: [(&str, Period); 4] =
    [("day", Period::Day), ("week", Period::Week), ("month", Period::Month), ("lifetime", Period::Lifetime)];

/// The names that were taken so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    limits: BTreeMap<String, Place>,
    quotas: BTreeMap<String, Place>,
}

/// Reads `rate`: one limit, or a list of them. `owner` is what the first is called that has no name of its own.
pub(super) fn rates(node: &Node, owner: &str, taken: &mut Taken, report: &mut Report) -> Vec<Limit> {
    several(node, report, |node, number, report| {
        let mut fields = Fields::open(node, report)?;
        let name = name(&mut fields, (owner, number), &mut taken.limits, report);
        let rate = limits::rate_fields(&mut fields, report);
        let algorithm = fields.optional("algorithm");
        let algorithm = algorithm.and_then(|node| fields::choice(node, &ALGORITHMS, &[], report));
        let by = by(&mut fields, report);
        fields.finish(&[], report);
        let rate = rate?;
        let rate = match Rate::new(rate.calls.get(), rate.per) {
            Ok(rate) => rate,
            Err(problem) => {
                report.add(node.place, problem.to_string());
                return None;
            }
        };
        let algorithm = algorithm.unwrap_or(Algorithm::TokenBucket);
        Some(Limit { name: name?, rate, algorithm, by: by? })
    })
}

/// Reads `quota`: one, or a list of them.
pub(super) fn quotas(node: &Node, owner: &str, taken: &mut Taken, report: &mut Report) -> Vec<QuotaRule> {
    several(node, report, |node, number, report| {
        let mut fields = Fields::open(node, report)?;
        let name = name(&mut fields, (owner, number), &mut taken.quotas, report);
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let calls = fields.optional("calls").and_then(|node| fields::count(node, 1..=CALLS_MAX, report));
        let bytes = fields.optional("bytes").and_then(|node| fields::size(node, 1..=u64::MAX, report));
        if !fields.has("calls") && !fields.has("bytes") {
            report.add(node.place, "a quota has `calls`, `bytes` or both");
        }
        let period = fields.required("per", report).and_then(|node| period(node, report));
        let by = by(&mut fields, report);
        fields.finish(&[], report);
        let quota = Quota { calls: calls.map(wide), bytes, period: period? };
        Some(QuotaRule { name: name?, quota, by: by? })
    })
}

/// One thing, or a list of things, each with its number from 0.
fn several<T>(
    node: &Node,
    report: &mut Report,
    mut read: impl FnMut(&Node, usize, &mut Report) -> Option<T>,
) -> Vec<T> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => std::slice::from_ref(node),
    };
    if items.is_empty() || items.len() > MOST {
        report.add(node.place, format!("expected 1 to {MOST} entries in this list, found {}", items.len()));
        return Vec::new();
    }
    items.iter().enumerate().filter_map(|(number, item)| read(item, number, report)).collect()
}

fn name(
    fields: &mut Fields<'_>,
    (owner, number): (&str, usize),
    taken: &mut BTreeMap<String, Place>,
    report: &mut Report,
) -> Option<Name> {
    let place = fields.place_of("name");
    let name = match fields.optional("name") {
        Some(node) => fields::name(node, report)?,
        None if number == 0 => owner.to_owned(),
        None => format!("{owner}-{}", number + 1),
    };
    if let Some(first) = taken.get(&name) {
        let first = report.locate(*first, place);
        report.add(
            place,
            format!("the name {} is taken at {first}: give this one another `name`", quoted(&name)),
        );
        return None;
    }
    taken.insert(name.clone(), place);
    Some(name.into())
}

/// Reads `by`: `caller`, `key`, `tenant`, `ip`, `everybody`, `header:NAME` or `claim:NAME`.
fn by(fields: &mut Fields<'_>, report: &mut Report) -> Option<By> {
    let Some(node) = fields.optional("by") else { return Some(By::Caller) };
    let text = fields::text(node, report)?;
    let words = [
        ("caller", By::Caller),
        ("key", By::ApiKey),
        ("tenant", By::Tenant),
        ("ip", By::Address),
        ("everybody", By::Everybody),
    ];
    if let Some((_, by)) = words.iter().find(|(word, _)| *word == text) {
        return Some(by.clone());
    }
    let is_word = |word: &str| {
        !word.is_empty() && word.len() <= WORD_MAX && word.chars().all(|c| c.is_ascii_graphic() && c != ':')
    };
    match text.split_once(':') {
        Some(("header", name)) if is_word(name) => Some(By::Header(name.to_ascii_lowercase().into())),
        Some(("claim", name)) if is_word(name) => Some(By::Claim(name.into())),
        Some(_) | None => {
            let what = "expected `caller`, `key`, `tenant`, `ip`, `everybody`, `header:NAME` or `claim:NAME`";
            let similar = closest(text, words.iter().map(|(word, _)| *word));
            report.suggest(node.place, format!("{what}, found {}", quoted(text)), similar);
            None
        }
    }
}

/// Reads `day`, `week`, `month` (of the calendar, UTC), `lifetime`, or a time from the first use on.
fn period(node: &Node, report: &mut Report) -> Option<Period> {
    if let Value::Text(text) = &node.value {
        if let Some((_, period)) = PERIODS.iter().find(|(word, _)| word == text) {
            return Some(*period);
        }
        if let Some(length) = units::duration(text).filter(|time| (PERIOD_MIN..=PERIOD_MAX).contains(time)) {
            return Some(Period::FromFirstUse { length });
        }
    }
    let what =
        "`day`, `week`, `month`, `lifetime`, or a duration from `1m` to `400d` (from the first use on)";
    fields::expected(node, what, report)
}
