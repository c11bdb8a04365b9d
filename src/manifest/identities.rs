//! Stands between the section `identities` and the issuers whose tokens are accepted.
//!
//! Invariant: what is returned was tried: its files are there, its keys can be used, its addresses may be asked.

use std::time::Duration;

use lanekeeper_actors::kernel::clock::SystemClock;
use serde_json::Value as Json;

use super::fields::{self, Fields};
use super::named::NamedValues;
use super::problem::{Report, closest, quoted};
use super::tree::{Node, Value};
use super::{mock, subscriptions, webhooks};
use crate::identity::{
    Algorithm, Identity, KeySource, OwnKeys, Requirement, Rules, SharedSecret, Verifier, Wanted,
};
use crate::manifest::model::{JwtRule, Secret};

/// Most that the clocks of an issuer and of the gateway may be apart.
const SKEW: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
/// Longest time for which a token may be allowed to be valid.
const LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
const OWN_KEYS: [(&str, OwnKeys); 2] = [("ignore", OwnKeys::Ignored), ("refuse", OwnKeys::Refused)];

/// Reads an identity.
pub(super) fn read(
    name: &str,
    node: &Node,
    values: &NamedValues<'_>,
    report: &mut Report,
) -> Option<Identity> {
    let before = report.count();
    let mut fields = Fields::open(node, report)?;
    let issuer = fields.required("issuer", report).and_then(|node| fields::text(node, report));
    let audience = fields.required("audience", report).and_then(|node| fields::distinct_texts(node, report));
    let keys = keys(&mut fields, values, report);
    let algorithms = fields.optional("algorithms").and_then(|node| algorithms(node, report));
    let types = fields.optional("typ").and_then(|node| fields::distinct_texts(node, report));
    let untyped = fields.optional("untyped").and_then(|node| fields::boolean(node, report));
    let own_keys = fields.optional("own_keys");
    let own_keys = own_keys.and_then(|node| fields::choice(node, &OWN_KEYS, &[], report));
    let skew = fields.optional("skew").and_then(|node| fields::duration(node, SKEW, report));
    let lifetime = fields.optional("max_lifetime").and_then(|node| fields::duration(node, LIFETIME, report));
    let tenant = fields.optional("tenant_claim").and_then(|node| fields::text(node, report));
    let allow = fields.optional("allow").map(|node| webhooks::blocks(node, report)).unwrap_or_default();
    let authority = fields.optional("ca").and_then(|node| subscriptions::pem(node, report));
    fields.finish(&[], report);
    let owned = |texts: Vec<(&str, &Node)>| -> Vec<String> {
        texts.into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    let identity = Identity {
        rules: Rules {
            audience: owned(audience?),
            skew: skew.unwrap_or_default(),
            max_lifetime: lifetime,
            tenant_claim: tenant.map(str::to_owned),
        },
        own_keys: own_keys.unwrap_or_default(),
        untyped: untyped.unwrap_or(true),
        allow: allow.iter().map(ToString::to_string).collect(),
        authority: authority.map(|pem| pem.to_vec()),
        ..Identity::new(name, issuer?, keys?, &[])
    };
    let identity = Identity {
        algorithms: algorithms.unwrap_or(identity.algorithms),
        types: types.map_or(identity.types, owned),
        ..identity
    };
    if report.count() > before {
        return None;
    }
    // The verifier knows best whether it could check anything with this.
    if let Err(problem) = Verifier::new(vec![identity.clone()], SystemClock::shared()) {
        let mut text = problem.fault.to_string();
        let mut cause = std::error::Error::source(&problem.fault);
        while let Some(deeper) = cause {
            text = format!("{text}: {deeper}");
            cause = deeper.source();
        }
        report.add(node.place, text);
        return None;
    }
    Some(identity)
}

/// Reads `jwks: { file | url | secret }`, `openid`, or `secrets`: exactly one of them.
fn keys(fields: &mut Fields<'_>, values: &NamedValues<'_>, report: &mut Report) -> Option<KeySource> {
    let place = fields.place_of("issuer");
    let (jwks, openid, secrets) =
        (fields.optional("jwks"), fields.optional("openid"), fields.optional("secrets"));
    match (jwks, openid, secrets) {
        (Some(node), None, None) => {
            let mut inner = Fields::open(node, report)?;
            let (file, url, secret) =
                (inner.optional("file"), inner.optional("url"), inner.optional("secret"));
            let source = match (file, url, secret) {
                (Some(node), None, None) => {
                    let path = fields::text(node, report);
                    path.map(|path| KeySource::File(report.folder(node.place).join(path)))
                }
                (None, Some(node), None) => {
                    fields::text(node, report).map(|url| KeySource::Url(url.to_owned()))
                }
                (None, None, Some(node)) => values.secret(node, report).map(KeySource::SecretJwks),
                _ => fields::expected(node, "one of `file`, `url` and `secret`", report),
            };
            inner.finish(&[], report);
            source
        }
        (None, Some(node), None) => fields::text(node, report).map(|url| KeySource::OpenId(url.to_owned())),
        (None, None, Some(node)) => {
            let items = fields::list(node, report)?;
            let read = items.iter().map(|item| shared(item, values, report)).collect::<Option<Vec<_>>>();
            read.map(KeySource::Secrets)
        }
        _ => {
            report.add(place, "an identity has one of `jwks`, `openid` and `secrets`");
            None
        }
    }
}

fn shared(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<SharedSecret> {
    let mut fields = Fields::open(node, report)?;
    let kid = fields.optional("kid").and_then(|node| fields::text(node, report)).map(str::to_owned);
    let secret = fields.required("secret", report).and_then(|node| values.secret(node, report));
    fields.finish(&[], report);
    let secret = Secret::new(secret?.expose().as_bytes().to_vec());
    Some(SharedSecret { kid, secret })
}

fn algorithms(node: &Node, report: &mut Report) -> Option<Vec<Algorithm>> {
    let mut all = Vec::new();
    for (text, node) in fields::distinct_texts(node, report)? {
        match text.parse::<Algorithm>() {
            Ok(algorithm) => all.push(algorithm),
            Err(problem) => {
                let similar = closest(text, Algorithm::ALL.iter().map(|known| known.name()));
                report.suggest(node.place, format!("{} is {problem}", quoted(text)), similar);
            }
        }
    }
    Some(all)
}

/// Reads `jwt: { identity: staff, claims: { roles: { any: [ops] } } }`.
pub(super) fn rule(
    node: &Node,
    known: &std::collections::BTreeSet<&str>,
    report: &mut Report,
) -> Option<JwtRule> {
    let mut fields = Fields::open(node, report)?;
    let identity = fields
        .required("identity", report)
        .and_then(|node| fields::reference(node, "identity", known, report));
    let claims = fields.optional("claims").map(|node| fields::entries(node, report)).unwrap_or_default();
    let requirements = claims.into_iter().filter_map(|(claim, _, node)| requirement(claim, node, report));
    let requirements = requirements.collect();
    fields.finish(&[], report);
    Some(JwtRule { identity: identity?, requirements })
}

/// Reads what a claim must hold: a value, `{ any: […] }`, `{ all: […] }` or `{ equals: … }`.
fn requirement(claim: &str, node: &Node, report: &mut Report) -> Option<Requirement> {
    let claim = claim.to_owned();
    let Value::Map(_) = node.value else {
        return Some(Requirement { claim, wanted: Wanted::Equals(mock::json(node)), separator: None });
    };
    let mut fields = Fields::open(node, report)?;
    let (any, all, equals) = (fields.optional("any"), fields.optional("all"), fields.optional("equals"));
    let separator = fields.optional("separator").and_then(|node| {
        let text = fields::text(node, report)?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(only), None) => Some(only),
            _ => fields::expected(node, "one character", report),
        }
    });
    fields.finish(&[], report);
    let list = |node: &Node, report: &mut Report| -> Option<Vec<Json>> {
        let items = fields::list(node, report)?;
        if items.is_empty() {
            return fields::expected(node, "at least one value in this list", report);
        }
        Some(items.iter().map(mock::json).collect())
    };
    let wanted = match (any, all, equals) {
        (Some(node), None, None) => Wanted::Any(list(node, report)?),
        (None, Some(node), None) => Wanted::All(list(node, report)?),
        (None, None, Some(node)) => Wanted::Equals(mock::json(node)),
        _ => return fields::expected(node, "a value, or one of `any`, `all` and `equals`", report),
    };
    Some(Requirement { claim, wanted, separator })
}
