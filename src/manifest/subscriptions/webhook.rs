//! Stands between `to: { webhook: … }` and an endpoint that events are sent to.
//!
//! Invariants: no subscription names a destination that is not public, unless its own `allow` covers it (a host
//! name is decided when it is resolved; here only literal addresses and `localhost` can be); what identifies the
//! sender is a reference to a secret.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use lanekeeper_actors::model::delivery::{ClientIdentity, Credentials, EndpointTls};
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::model::secret::SigningKey;
use lanekeeper_actors::policy::filter::{Condition, FilterSpec, KeyTable, Test};
use lanekeeper_actors::subscriber::{ContentMode, DeliveryHeader, Gone, HeaderValue};
use reqwest::Url;
use reqwest::header::{self, HeaderName};

use crate::delivery::{Cidr, EndpointProblem, TlsProblem, check_endpoint, vet, with_cause};
use crate::manifest::fields::{self, Fields};
use crate::manifest::model::{HandshakeRule, Secret, Webhook};
use crate::manifest::named::NamedValues;
use crate::manifest::problem::{Report, quoted};
use crate::manifest::tree::{Node, Value};
use crate::manifest::webhooks::{self, HANDSHAKES};

/// The keys of a webhook.
pub(super) const KEYS: [&str; 12] = [
    "webhook",
    "allow",
    "sign",
    "auth",
    "handshake",
    "headers",
    "ca",
    "identity",
    "on_gone",
    "rate",
    "origin",
    "mode",
];

/// Longest URL, in bytes.
const URL_MAX: usize = 2048;
/// Event Grid's most headers, and its longest value in bytes.
const HEADERS_MAX: usize = 10;
const HEADER_VALUE_MAX: usize = 4_096;
/// Most keys that sign one delivery; two are a rotation.
const KEYS_MAX: usize = 4;
/// Largest file of certificates.
const PEM_MAX: u64 = 1 << 20;
/// Most deliveries per minute that can be asked for.
const RATE_MAX: usize = 10_000_000;
/// Headers that each delivery has by itself, or that belong to the connection.
const RESERVED: [&str; 14] = [
    "authorization",
    "connection",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-subscription",
];
/// Beginnings of such headers.
const RESERVED_BEGINNINGS: [&str; 5] = ["aeg-", "ce-", "content-", "webhook-", "x-delivery-"];

const MODES: [(&str, ContentMode); 2] =
    [("structured", ContentMode::Structured), ("binary", ContentMode::Binary)];
const GONE: [(&str, Gone); 2] = [("disable", Gone::Disable), ("retry", Gone::Retry)];

/// Reads an endpoint out of the keys of `to`.
pub(super) fn read(
    fields: &mut Fields<'_>,
    needed: bool,
    values: &NamedValues<'_>,
    report: &mut Report,
) -> Option<Webhook> {
    let before = report.count();
    let allow = fields.optional("allow").map_or_else(Vec::new, |node| webhooks::blocks(node, report));
    let node = if needed { fields.required("webhook", report) } else { fields.optional("webhook") };
    let url = node.and_then(|node| url(node, report));
    let sign = fields.optional("sign").map_or_else(Vec::new, |node| sign(node, values, report));
    let auth = fields.optional("auth").and_then(|node| auth(node, &allow, values, report));
    let headers = fields.optional("headers").map_or_else(Vec::new, |node| headers(node, values, report));
    let tls = tls(fields, report);
    let on_gone = fields.optional("on_gone").and_then(|node| fields::choice(node, &GONE, &[], report));
    let rate = fields.optional("rate").and_then(|node| rate(node, report));
    let origin = fields.optional("origin").and_then(|node| origin(node, report));
    let mode = fields.optional("mode").and_then(|node| fields::choice(node, &MODES, &[], report));
    let handshake = fields.optional("handshake");
    let handshake = handshake.and_then(|node| fields::choice(node, &HANDSHAKES, &[], report));
    let (node, url) = (node?, url?);
    if let Some(address) = literal_address(&url)
        && vet(address, &allow).is_err()
    {
        report.add(node.place, format!("`{address}` is not a public address, and `allow` does not cover it"));
    }
    if url.scheme() == "http" {
        for key in ["ca", "identity"] {
            if fields.has(key) {
                report.add(fields.place_of(key), format!("`{key}` goes with an `https` URL only"));
            }
        }
    }
    if report.count() > before {
        return None;
    }
    let webhook = Webhook {
        sign,
        auth,
        headers,
        tls,
        on_gone: on_gone.unwrap_or_default(),
        rate,
        origin,
        handshake: handshake.unwrap_or(HandshakeRule::None),
        mode: mode.unwrap_or_default(),
        ..Webhook::plain(url.into(), allow)
    };
    // Whatever a delivery would find without the network, so that no subscription waits for what can never be.
    if let Err(problem) = check_endpoint(&webhook.endpoint()) {
        let blamed = blamed(&problem).iter().find(|key| fields.has(key));
        let place = blamed.map_or(node.place, |key| fields.place_of(key));
        report.add(place, format!("nothing could ever be sent there: {}", with_cause(&problem)));
        return None;
    }
    Some(webhook)
}

/// The keys that a problem may come from, the likeliest first; else it is the URL.
fn blamed(problem: &EndpointProblem) -> &'static [&'static str] {
    match problem {
        EndpointProblem::Tls(TlsProblem::Pem { what, .. } | TlsProblem::Nothing(what))
            if what.starts_with("authority") =>
        {
            &["ca"]
        }
        EndpointProblem::Tls(_) => &["identity", "ca"],
        EndpointProblem::Key(_) => &["sign"],
        EndpointProblem::TokenUrl(_) => &["auth"],
        EndpointProblem::Header(..) | EndpointProblem::Url(_) | EndpointProblem::Uri(_) => &[],
    }
}

fn url(node: &Node, report: &mut Report) -> Option<Url> {
    let text = fields::text(node, report)?;
    let parsed = Url::parse(text).ok().filter(|url| text.len() <= URL_MAX && url.has_host());
    let Some(url) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return fields::expected(node, "an `http` or `https` URL", report);
    };
    if !url.username().is_empty() || url.password().is_some() {
        report.add(node.place, "a URL with a user or password: a secret is a reference, never a literal");
        return None;
    }
    if url.fragment().is_some() {
        report.add(node.place, "a URL with a fragment, which is never sent");
        return None;
    }
    Some(url)
}

/// The address that a URL names without a look-up.
fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Reads one reference to a signing key, or a list of them.
fn sign(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Vec<SigningKey> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => std::slice::from_ref(node),
    };
    if items.is_empty() || items.len() > KEYS_MAX {
        fields::expected::<()>(node, &format!("1 to {KEYS_MAX} keys"), report);
    }
    let mut keys = Vec::new();
    for item in items {
        let Some(secret) = values.secret(item, report) else { continue };
        match SigningKey::parse(secret.expose()) {
            Ok(key) => keys.push(key),
            Err(problem) => report.add(item.place, format!("this secret cannot sign: {problem}")),
        }
    }
    keys
}

/// Reads `{ bearer: "{{token}}" }` or `{ oauth2: { … } }`.
fn auth(node: &Node, allow: &[Cidr], values: &NamedValues<'_>, report: &mut Report) -> Option<Credentials> {
    let mut fields = Fields::open(node, report)?;
    let bearer = fields.optional("bearer");
    let oauth2 = fields.optional("oauth2");
    fields.finish(&[], report);
    match (bearer, oauth2) {
        (Some(node), None) => header_secret(node, values, report).map(Credentials::Bearer),
        (None, Some(node)) => oauth(node, allow, values, report),
        (Some(_), Some(_)) | (None, None) => fields::expected(node, "either `bearer` or `oauth2`", report),
    }
}

fn oauth(node: &Node, allow: &[Cidr], values: &NamedValues<'_>, report: &mut Report) -> Option<Credentials> {
    let mut fields = Fields::open(node, report)?;
    let token = fields.required("token_url", report);
    let token_url = token.and_then(|node| url(node, report));
    let client_id = fields.required("client_id", report).and_then(|node| values.text(node, report));
    let client_secret = fields.required("client_secret", report).and_then(|node| values.secret(node, report));
    let scope = fields.optional("scope").map(|node| values.text(node, report));
    let audience = fields.optional("audience").map(|node| values.text(node, report));
    fields.finish(&[], report);
    let token_url = token_url?;
    if let Some(address) = literal_address(&token_url)
        && let Some(node) = token
        && vet(address, allow).is_err()
    {
        report.add(node.place, format!("`{address}` is not a public address, and `allow` does not cover it"));
    }
    Some(Credentials::OAuth2 {
        token_url: token_url.into(),
        client_id: client_id?,
        client_secret: client_secret?,
        scope: scope.flatten(),
        audience: audience.flatten(),
    })
}

/// A secret that can stand in a header.
fn header_secret(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<Secret> {
    let secret = values.secret(node, report)?;
    if header::HeaderValue::from_str(secret.expose()).is_err() {
        report.add(node.place, "this secret cannot stand in a header");
        return None;
    }
    Some(secret)
}

fn headers(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Vec<DeliveryHeader> {
    let mut headers: Vec<DeliveryHeader> = Vec::new();
    let entries = fields::entries(node, report);
    if entries.len() > HEADERS_MAX {
        report.add(node.place, format!("{} headers, the limit is {HEADERS_MAX}", entries.len()));
    }
    for (name, place, node) in entries {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            report.add(place, format!("{} is not the name of a header", quoted(name)));
            continue;
        };
        let name = header.as_str();
        let begins = |begin: &&str| name.starts_with(*begin);
        if RESERVED.contains(&name) || RESERVED_BEGINNINGS.iter().any(begins) || name == "x-replay-id" {
            report.add(place, format!("header `{name}` is written by the server itself"));
            continue;
        }
        if headers.iter().any(|other| &*other.name == name) {
            report.add(place, format!("header `{name}` is given twice"));
            continue;
        }
        if let Some(value) = header_value(node, values, report) {
            headers.push(DeliveryHeader { name: Name::from(name), value });
        }
    }
    headers
}

/// Reads a text, `{ from: data.x }`, or `{ secret: "{{name}}" }`.
fn header_value(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<HeaderValue> {
    if !matches!(node.value, Value::Map(_)) {
        let text = values.text(node, report)?;
        if text.len() > HEADER_VALUE_MAX || header::HeaderValue::from_str(&text).is_err() {
            report.add(node.place, format!("{} cannot stand in a header", quoted(&text)));
            return None;
        }
        return Some(HeaderValue::Static(text.into()));
    }
    let mut fields = Fields::open(node, report)?;
    let from = fields.optional("from");
    let secret = fields.optional("secret");
    fields.finish(&[], report);
    match (from, secret) {
        (Some(node), None) => {
            let key = fields::text(node, report)?;
            // What a filter can ask for, a header can show.
            let condition = Condition { key: key.to_owned(), test: Test::IsNotNull };
            let spec = FilterSpec { advanced: vec![condition], ..FilterSpec::default() };
            if spec.compile(&KeyTable::default()).is_err() {
                let what = "the name of an attribute, or `data.` and names parted by dots";
                return fields::expected(node, what, report);
            }
            Some(HeaderValue::Event(key.into()))
        }
        (None, Some(node)) => {
            let secret = header_secret(node, values, report)?;
            Some(HeaderValue::Secret(secret.expose().into()))
        }
        (Some(_), Some(_)) | (None, None) => fields::expected(node, "either `from` or `secret`", report),
    }
}

/// Reads whom to trust and who to be.
pub(in crate::manifest) fn tls(fields: &mut Fields<'_>, report: &mut Report) -> EndpointTls {
    let ca = fields.optional("ca").and_then(|node| pem(node, report));
    let identity = fields.optional("identity").and_then(|node| identity(node, report));
    EndpointTls { ca, identity }
}

fn identity(node: &Node, report: &mut Report) -> Option<ClientIdentity> {
    let mut fields = Fields::open(node, report)?;
    let certificate = fields.required("cert", report).and_then(|node| pem(node, report));
    let key = fields.required("key", report).and_then(|node| {
        let bytes = pem(node, report)?;
        // It was looked at as text before.
        Some(Secret::new(String::from_utf8_lossy(&bytes).into_owned()))
    });
    fields.finish(&[], report);
    Some(ClientIdentity { certificate: certificate?, key: key? })
}

/// Reads a PEM file; a relative path starts at the folder of the manifest that names it.
pub(in crate::manifest) fn pem(node: &Node, report: &mut Report) -> Option<Arc<[u8]>> {
    let path = report.folder(node.place).join(fields::text(node, report)?);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(PEM_MAX + 1).read_to_end(&mut bytes));
    let shown = quoted(&path.display().to_string());
    if let Err(cause) = read {
        report.add(node.place, format!("{shown} cannot be read: {cause}"));
        return None;
    }
    let too_large = u64::try_from(bytes.len()).is_ok_and(|length| length > PEM_MAX);
    let is_pem = str::from_utf8(&bytes).is_ok_and(|text| text.contains("-----BEGIN "));
    if too_large || !is_pem {
        report.add(node.place, format!("{shown} is no PEM file of at most {} KiB", PEM_MAX / 1024));
        return None;
    }
    Some(bytes.into())
}

/// Reads deliveries per minute: `600`, `600/min` or `10/s`.
fn rate(node: &Node, report: &mut Report) -> Option<u32> {
    let per_minute = match &node.value {
        Value::Integer(number) => usize::try_from(*number).ok(),
        Value::Text(text) => match text.split_once('/') {
            Some((number, "min")) => number.parse().ok(),
            Some((number, "s")) => number.parse::<usize>().ok().and_then(|number| number.checked_mul(60)),
            Some(_) | None => None,
        },
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    };
    let per_minute = per_minute.filter(|number| (1..=RATE_MAX).contains(number));
    match per_minute.and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Some(number),
        None => fields::expected(node, "deliveries per minute such as `600`, `600/min` or `10/s`", report),
    }
}

fn origin(node: &Node, report: &mut Report) -> Option<String> {
    let text = fields::text(node, report)?;
    let fits = !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Some(text.to_owned()) } else { fields::expected(node, "the name of a host", report) }
}
