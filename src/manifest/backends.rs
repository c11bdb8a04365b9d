//! Stands between the section `backends`, or `to: { upstream: … }`, and the servers that requests are sent to.
//!
//! Invariants: no part of a server's address comes from a caller; a parameter is a whole segment of the path that is
//! sent, so it can lead nowhere else; certificates that are handed out can be used.

use std::time::Duration;

use lanekeeper_actors::model::delivery::EndpointTls;
use lanekeeper_actors::policy::upstream::{BreakerRules, Causes, HealthRules, RetryRules, Trip};

use super::fields::{self, Fields};
use super::model::{Backend, PathTemplate, Piece, Segment, Target, Upstream, UpstreamTo};
use super::problem::{Place, Report, closest, quoted};
use super::subscriptions;
use super::targets::Known;
use super::tree::{Node, Value};
use super::units::{DAY, GIB, HOUR, MILLISECOND, SECOND};
use crate::delivery::{TlsSettings, Trust};
use crate::upstream::{self, Address, Breaking, MEMBERS_MAX, Probing, Retry};

/// Longest URL or path, in bytes.
const URL_MAX: usize = 2048;
/// APIM's most retries.
const RETRIES_MAX: usize = 50;
/// Largest share of a server.
const WEIGHT_MAX: usize = 1_000;
/// Most groups of servers.
const PRIORITY_MAX: usize = 100;
/// Most failures, probes, or requests, that a decision waits for.
const COUNT_MAX: usize = 100_000;
/// Requests of which a share of failures means something, when nobody says otherwise.
const MINIMUM: u32 = 10;
/// Probes in a row that decide, when nobody says otherwise.
const PROBES: (u32, u32) = (2, 3);

/// Status codes that can be named.
const STATUSES: std::ops::RangeInclusive<usize> = 400..=599;
const HONOUR: [(&str, bool); 2] = [("honour", true), ("ignore", false)];
/// Keys that do not go with `upstream` or `backend`.
const OTHERS: [&str; 11] = [
    "container",
    "do",
    "function",
    "id",
    "mock",
    "params",
    "partition",
    "queue",
    "sql",
    "subscriptions",
    "topic",
];

/// Reads a backend.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Backend> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let pool = fields.required("pool", report).map_or_else(Vec::new, |node| pool(node, report));
    let timeout = optional_duration(&mut fields, "timeout", MILLISECOND..=HOUR, report);
    let idle_timeout = optional_duration(&mut fields, "idle_timeout", MILLISECOND..=DAY, report);
    let body = fields.optional("body").and_then(|node| fields::size(node, 1..=1024 * GIB, report));
    let retry = fields.optional("retry").and_then(|node| retry(node, report));
    let breaker = fields.optional("breaker").and_then(|node| breaker(node, report));
    let health = fields.optional("health").and_then(|node| health(node, report));
    let tls_place = fields.place_of("tls");
    let tls = fields.optional("tls").and_then(|node| tls(node, report)).unwrap_or_default();
    fields.finish(&["http"], report);
    if tls != EndpointTls::default() && !pool.iter().any(|place| place.address.secure) {
        report.add(tls_place, "`tls` goes with an `https` URL only");
    }
    (report.count() == before).then_some(Backend {
        pool,
        timeout,
        idle_timeout,
        body,
        retry,
        breaker,
        health,
        tls,
    })
}

fn optional_duration(
    fields: &mut Fields<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<Duration>,
    report: &mut Report,
) -> Option<Duration> {
    fields.optional(key).and_then(|node| fields::duration(node, range, report))
}

fn pool(node: &Node, report: &mut Report) -> Vec<upstream::Place> {
    let items = fields::list(node, report).unwrap_or_default();
    if !(1..=MEMBERS_MAX).contains(&items.len()) {
        fields::expected::<()>(node, &format!("1 to {MEMBERS_MAX} servers"), report);
    }
    items.iter().filter_map(|item| member(item, report)).collect()
}

/// Reads `{ url: "http://10.0.0.5:8080", weight: 3, priority: 2 }`.
fn member(node: &Node, report: &mut Report) -> Option<upstream::Place> {
    let mut fields = Fields::open(node, report)?;
    let address = fields.required("url", report).and_then(|node| base(node, report));
    let mut number = |key, most, report: &mut Report| match fields.optional(key) {
        None => Some(1),
        Some(node) => fields::count(node, 1..=most, report).and_then(|number| u32::try_from(number).ok()),
    };
    let weight = number("weight", WEIGHT_MAX, report);
    let priority = number("priority", PRIORITY_MAX, report);
    fields.finish(&[], report);
    Some(upstream::Place { address: address?, weight: weight?, priority: priority? })
}

/// Reads the URL of a server, with what its paths begin with.
fn base(node: &Node, report: &mut Report) -> Option<Address> {
    let (mut address, rest) = address(node, report)?;
    let path = rest.strip_suffix('/').unwrap_or(rest);
    if path.contains(['?', '#', '{', '}']) || !(path.is_empty() || is_path(path)) {
        return fields::expected(node, "a URL of scheme, host, port and path, and no more", report);
    }
    path.clone_into(&mut address.base);
    Some(address)
}

fn address<'t>(node: &'t Node, report: &mut Report) -> Option<(Address, &'t str)> {
    let text = fields::text(node, report)?;
    if text.len() > URL_MAX {
        return fields::expected(node, &format!("a URL of at most {URL_MAX} bytes"), report);
    }
    match Address::parse(text) {
        Ok(found) => Some(found),
        Err(problem) => {
            report.add(node.place, problem.to_string());
            None
        }
    }
}

fn retry(node: &Node, report: &mut Report) -> Option<Retry> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let count = fields.count("count", 1..=RETRIES_MAX, report);
    let interval = fields.duration("interval", MILLISECOND..=HOUR, report);
    let max_interval = optional_duration(&mut fields, "max_interval", MILLISECOND..=HOUR, report);
    let delta = optional_duration(&mut fields, "delta", MILLISECOND..=HOUR, report);
    let first_fast = fields.optional("first_fast").and_then(|node| fields::boolean(node, report));
    let on = fields.optional("on").map_or_else(Causes::usual, |node| causes(node, report));
    if max_interval.is_some() && !fields.has("delta") {
        report.add(fields.place_of("max_interval"), "`max_interval` goes with `delta` only");
    }
    if max_interval.is_some_and(|most| most < interval) {
        report.add(fields.place_of("max_interval"), "`max_interval` is less than `interval`");
    }
    fields.finish(&[], report);
    let count = u32::try_from(count).unwrap_or(1);
    let first_fast = first_fast.unwrap_or_default();
    let rules = RetryRules { count, interval, max_interval, delta, first_fast };
    (report.count() == before).then_some(Retry { rules, on })
}

fn breaker(node: &Node, report: &mut Report) -> Option<Breaking> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let number = |node: &Node, most, report: &mut Report| {
        fields::count(node, 1..=most, report).and_then(|number| u32::try_from(number).ok()).unwrap_or(1)
    };
    let count = fields.optional("count").map(|node| number(node, COUNT_MAX, report));
    let percent = fields.optional("percentage").map(|node| number(node, 100, report));
    let minimum = fields.optional("minimum").map(|node| number(node, COUNT_MAX, report));
    let window = fields.duration("in", MILLISECOND * 10..=DAY, report);
    let open = fields.duration("open", MILLISECOND..=DAY, report);
    let on = fields.optional("on").map_or_else(Causes::usual, |node| causes(node, report));
    let honour = fields.optional("retry_after");
    let honour = honour.and_then(|node| fields::choice(node, &HONOUR, &[], report)).unwrap_or_default();
    let trip = match (count, percent) {
        (Some(count), None) => Some(Trip::Count(count)),
        (None, Some(percent)) => Some(Trip::Percentage { percent, minimum: minimum.unwrap_or(MINIMUM) }),
        (Some(_), Some(_)) | (None, None) => fields::expected(node, "either `count` or `percentage`", report),
    };
    if minimum.is_some() && percent.is_none() {
        report.add(fields.place_of("minimum"), "`minimum` goes with `percentage` only");
    }
    fields.finish(&[], report);
    let rules = BreakerRules { trip: trip?, window, open, honour_retry_after: honour };
    (report.count() == before).then_some(Breaking { rules, on })
}

fn health(node: &Node, report: &mut Report) -> Option<Probing> {
    let mut fields = Fields::open(node, report)?;
    let path = fields.required("path", report).and_then(|node| {
        let text = fields::text(node, report)?;
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let good = is_path(path) && query.is_none_or(is_query) && text.len() <= URL_MAX;
        if good { Some(text.to_owned()) } else { fields::expected(node, "a path such as `/healthz`", report) }
    });
    let every = fields.duration("every", SECOND / 10..=HOUR, report);
    let mut probes = |key, usual, report: &mut Report| match fields.optional(key) {
        None => Some(usual),
        Some(node) => {
            fields::count(node, 1..=COUNT_MAX, report).and_then(|number| u32::try_from(number).ok())
        }
    };
    let healthy = probes("healthy", PROBES.0, report);
    let unhealthy = probes("unhealthy", PROBES.1, report);
    fields.finish(&[], report);
    Some(Probing { path: path?, every, rules: HealthRules { healthy: healthy?, unhealthy: unhealthy? } })
}

/// Reads certificates and tries them.
fn tls(node: &Node, report: &mut Report) -> Option<EndpointTls> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let tls = subscriptions::tls(&mut fields, report);
    fields.finish(&[], report);
    if report.count() > before {
        return None;
    }
    let trust = Trust { tls: tls.clone(), also_host: false };
    if let Err(problem) = TlsSettings::without_host().and_then(|settings| settings.of(&trust)) {
        report.add(node.place, problem.to_string());
        return None;
    }
    Some(tls)
}

/// Reads `[5xx, 429, 502-504, connect, timeout]`.
fn causes(node: &Node, report: &mut Report) -> Causes {
    let mut causes = Causes::default();
    let items = fields::list(node, report).unwrap_or_default();
    if items.is_empty() {
        fields::expected::<()>(node, "at least one entry in this list", report);
    }
    for item in items {
        let range = match &item.value {
            Value::Integer(number) => usize::try_from(*number).ok().map(|number| (number, number)),
            Value::Text(text) => match text.as_str() {
                "connect" => {
                    causes.connect = true;
                    continue;
                }
                "timeout" => {
                    causes.timeout = true;
                    continue;
                }
                "4xx" => Some((400, 499)),
                "5xx" => Some((500, 599)),
                text => {
                    text.split_once('-').and_then(|(first, last)| first.parse().ok().zip(last.parse().ok()))
                }
            },
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        let range = range
            .filter(|(first, last)| first <= last && STATUSES.contains(first) && STATUSES.contains(last));
        let range =
            range.and_then(|(first, last)| Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?)));
        match range {
            Some(range) => causes.statuses.push(range),
            None => {
                let what =
                    "`connect`, `timeout`, `5xx`, a status from 400 to 599, or a range such as `502-504`";
                fields::expected::<()>(item, what, report);
            }
        }
    }
    causes
}

/// Reads `{ upstream: URL }` or `{ backend: NAME }`.
pub(super) fn read_target(mut fields: Fields<'_>, known: Known<'_>, report: &mut Report) -> Option<Target> {
    let inline = fields.optional("upstream");
    let named = fields.optional("backend");
    let what = if inline.is_some() { "upstream" } else { "backend" };
    for other in OTHERS {
        if fields.optional(other).is_some() {
            report.add(fields.place_of(other), format!("`{other}` does not go with `{what}`"));
        }
    }
    let authorization = fields.optional("forward_authorization");
    let authorization = authorization.and_then(|node| fields::boolean(node, report));
    let path = fields.optional("path");
    let timeout = optional_duration(&mut fields, "timeout", MILLISECOND..=HOUR, report);
    let read = match (inline, named) {
        (Some(node), None) => {
            if path.is_some() {
                report.add(fields.place_of("path"), "the path stands in the URL of `upstream`");
            }
            let found = address(node, report);
            found.and_then(|(address, rest)| {
                let (path, query) = template((rest, node.place), known.path, report)?;
                let backend = Backend { timeout, ..Backend::plain(address) };
                Some((UpstreamTo::Inline(Box::new(backend)), path, query))
            })
        }
        (None, Some(node)) => {
            if timeout.is_some() {
                report.add(fields.place_of("timeout"), "the timeout stands in the backend");
            }
            let name = fields::reference(node, "backend", &known.names.backends, report);
            let path = match path {
                None => known.path.map(|path| (own(path), None)),
                Some(node) => fields::text(node, report)
                    .and_then(|text| template((text, node.place), known.path, report)),
            };
            name.zip(path).map(|(name, (path, query))| (UpstreamTo::Backend(name), path, query))
        }
        (Some(_), Some(_)) | (None, None) => {
            report.add(fields.place_of("backend"), "`backend` does not go with `upstream`");
            None
        }
    };
    fields.finish(&[], report);
    let (to, path, query) = read?;
    let forward_authorization = authorization.unwrap_or_default();
    Some(Target::Upstream(Upstream { to, path, query, forward_authorization }))
}

/// The operation's own path.
fn own(path: &PathTemplate) -> Vec<Piece> {
    if path.segments.is_empty() {
        return vec![Piece::Text("/".to_owned())];
    }
    let piece = |segment: &Segment| match segment {
        Segment::Literal(text) => [Piece::Text(format!("/{text}")), Piece::Text(String::new())],
        Segment::Parameter(name) => [Piece::Text("/".to_owned()), Piece::Parameter(name.clone())],
    };
    joined(path.segments.iter().flat_map(piece))
}

/// Puts texts that follow each other together.
fn joined(pieces: impl Iterator<Item = Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (all.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
            (Some(Piece::Text(_) | Piece::Parameter(_)) | None, piece) => all.push(piece),
        }
    }
    all
}

/// Reads a path with `{parameters}`, and a query.
fn template(
    (text, place): (&str, Place),
    own: Option<&PathTemplate>,
    report: &mut Report,
) -> Option<(Vec<Piece>, Option<String>)> {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() { "/" } else { path };
    if query.is_some_and(|query| !is_query(query)) || text.len() > URL_MAX {
        report.add(
            place,
            "a query of characters that need no encoding, and no fragment, is expected after `?`",
        );
        return None;
    }
    let Some(inside) = path.strip_prefix('/') else {
        report.add(place, format!("a path begins with `/`, found {}", quoted(path)));
        return None;
    };
    let mut pieces = Vec::new();
    for segment in inside.split('/') {
        pieces.push(Piece::Text("/".to_owned()));
        let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if !is_segment(segment) {
                let what =
                    "expected a path whose segments are plain or percent-encoded, or one `{parameter}`";
                report.add(place, format!("{what}, found {}", quoted(segment)));
                return None;
            }
            pieces.push(Piece::Text(segment.to_owned()));
            continue;
        };
        if let Some(own) = own
            && !own.has_parameter(name)
        {
            let parameters = own.segments.iter().filter_map(|segment| match segment {
                Segment::Parameter(name) => Some(name.as_str()),
                Segment::Literal(_) => None,
            });
            let suggestion = closest(name, parameters).map(|name| format!("{{{name}}}"));
            let message = format!("there is no parameter {} in the path", quoted(segment));
            report.suggest(place, message, suggestion);
            return None;
        }
        pieces.push(Piece::Parameter(name.to_owned()));
    }
    Some((joined(pieces.into_iter()), query.filter(|query| !query.is_empty()).map(str::to_owned)))
}

/// Whether a text is an absolute path as it stands in a request line.
fn is_path(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|inside| inside.split('/').all(is_segment))
}

/// Whether a text is a segment of a path (RFC 3986 section 3.3) that nobody resolves.
fn is_segment(text: &str) -> bool {
    is_encoded(text, "-._~!$&'()*+,;=:@") && text != "." && text != ".."
}

fn is_query(text: &str) -> bool {
    is_encoded(text, "-._~!$&'()*+,;=:@/?")
}

/// Whether a text has letters, digits, these characters, and bytes in percent-encoding.
fn is_encoded(text: &str, others: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit()))
            }
            byte => byte.is_ascii_alphanumeric() || others.as_bytes().contains(&byte),
        };
        if !good {
            return false;
        }
    }
    true
}
