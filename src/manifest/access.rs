//! Stands between the sections `products` and `api_keys` and who may call what.
//!
//! Invariant: a secret comes from the environment, is never repeated in a message, and opens one key only.

use std::collections::BTreeMap;

use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::policy::keys::ApiKeySecret;
use lanekeeper_actors::policy::terms::KeyRule;

use super::Names;
use super::fields::{self, Fields};
use super::model::{ApiKey, Product, Secret};
use super::problem::{Place, Report, closest, quoted};
use super::terms::{self, Taken};
use super::tree::Node;
use super::{identities, named, units, webhooks};

const KEYS: [(&str, KeyRule); 3] =
    [("header", KeyRule::Header), ("header_or_query", KeyRule::HeaderOrQuery), ("none", KeyRule::None)];
/// Most calls of a tenant at once, and most keys that it may have.
const COUNT: std::ops::RangeInclusive<usize> = 1..=1_000_000;
/// How much more than another one a tenant can count.
const WEIGHT: std::ops::RangeInclusive<usize> = 1..=1_000;

/// Reads a product.
pub(super) fn read_product(
    name: &str,
    node: &Node,
    names: &Names<'_>,
    taken: &mut Taken,
    report: &mut Report,
) -> Option<Product> {
    let mut fields = Fields::open(node, report)?;
    let apis = fields.required("apis", report).and_then(|node| {
        let items = fields::distinct_texts(node, report)?;
        let known = |(_, item)| fields::reference(item, "api", &names.apis, report);
        Some(items.into_iter().filter_map(known).collect())
    });
    let key = fields.optional("key").and_then(|node| fields::choice(node, &KEYS, &[], report));
    let jwt = fields.optional("jwt").map(|node| identities::rule(node, &names.identities, report));
    let approval = fields.optional("approval").and_then(|node| fields::boolean(node, report));
    let keys = fields.optional("keys_per_tenant").and_then(|node| fields::count(node, COUNT, report));
    let mut blocks =
        |key| fields.optional(key).map(|node| webhooks::blocks(node, report)).unwrap_or_default();
    let (ip_allow, ip_deny) = (blocks("ip_allow"), blocks("ip_deny"));
    let rate = fields.optional("rate").map(|node| terms::rates(node, name, taken, report));
    let quota = fields.optional("quota").map(|node| terms::quotas(node, name, taken, report));
    let concurrency = fields.optional("concurrency").and_then(|node| fields::count(node, COUNT, report));
    let weight = fields.optional("weight").and_then(|node| fields::count(node, WEIGHT, report));
    let webhooks = fields.optional("webhooks").and_then(|node| webhooks::read_rules(node, report));
    fields.finish(&[], report);
    let jwt = match jwt {
        Some(rule) => Some(rule?),
        None => None,
    };
    Some(Product {
        apis: apis?,
        key: key.unwrap_or_default(),
        jwt,
        approval: approval.unwrap_or_default(),
        keys_per_tenant: keys,
        ip_allow,
        ip_deny,
        limits: rate.unwrap_or_default(),
        quotas: quota.unwrap_or_default(),
        concurrency,
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
        webhooks: webhooks.unwrap_or_default(),
    })
}

/// Refuses products without key that could not be told apart: of those with the same api, each must want the token of
/// another identity, and at most one none.
pub(super) fn check_open(
    products: &BTreeMap<String, Product>,
    places: &BTreeMap<String, Place>,
    report: &mut Report,
) {
    let mut seen: BTreeMap<(&str, Option<&str>), &str> = BTreeMap::new();
    for (name, product) in products.iter().filter(|(_, product)| product.key == KeyRule::None) {
        let identity = product.jwt.as_ref().map(|rule| rule.identity.as_str());
        for api in &product.apis {
            let Some(other) = seen.insert((api.as_str(), identity), name) else { continue };
            let Some(place) = places.get(name) else { continue };
            let text = format!(
                "api {} is in product {} without a key, too, and a call could not tell which is meant",
                quoted(api),
                quoted(other)
            );
            report.add(*place, text);
        }
    }
}

/// Where secrets come from, and which were taken.
pub(super) struct Secrets<'e> {
    environment: &'e [(String, String)],
    taken: Vec<(&'e str, Place)>,
}

impl<'e> Secrets<'e> {
    /// Nothing is taken yet.
    pub(super) fn new(environment: &'e [(String, String)]) -> Self {
        Self { environment, taken: Vec::new() }
    }

    fn take(&mut self, node: &Node, report: &mut Report) -> Option<Secret> {
        let node = named::variable(node, report)?;
        let name = fields::text(node, report)?;
        if !named::is_variable(name) {
            // The text may be the secret itself, so it is not repeated.
            report.add(node.place, "expected the name of an environment variable: letters, digits and `_`");
            return None;
        }
        let Some(text) = self.environment.iter().rev().find(|(key, _)| key == name).map(|(_, text)| text)
        else {
            let similar = closest(name, self.environment.iter().map(|(key, _)| key.as_str()));
            report.suggest(node.place, format!("environment variable {} is not set", quoted(name)), similar);
            return None;
        };
        if let Err(problem) = ApiKeySecret::parse_foreign(text) {
            let message = format!("environment variable {} does not hold a secret: {problem}", quoted(name));
            report.add(node.place, message);
            return None;
        }
        if let Some((_, first)) = self.taken.iter().find(|(taken, _)| taken == text) {
            let first = report.locate(*first, node.place);
            report.add(
                node.place,
                format!("the same secret as at {first}: a call could not tell the keys apart"),
            );
        }
        self.taken.push((text, node.place));
        Some(Secret::new(text.clone()))
    }
}

/// Reads a key.
pub(super) fn read_key(
    node: &Node,
    names: &Names<'_>,
    secrets: &mut Secrets<'_>,
    report: &mut Report,
) -> Option<ApiKey> {
    let mut fields = Fields::open(node, report)?;
    let product = fields
        .required("product", report)
        .and_then(|node| fields::reference(node, "product", &names.products, report));
    let tenant = fields.required("tenant", report).and_then(|node| {
        let name = fields::name(node, report)?;
        if name == TenantId::ANONYMOUS {
            report
                .add(node.place, format!("{} is the tenant of callers without key and token", quoted(&name)));
        }
        Some(name)
    });
    let primary = fields.required("primary", report).and_then(|node| secrets.take(node, report));
    let secondary = fields.optional("secondary").map(|node| secrets.take(node, report));
    let expires = fields.optional("expires").map(|node| {
        let moment = fields::text(node, report)?;
        match units::timestamp(moment) {
            Some(moment) => Some(moment),
            None => fields::expected(node, "a date such as `2027-01-31`, or a date-time of RFC 3339", report),
        }
    });
    fields.finish(&[], report);
    Some(ApiKey {
        product: product?,
        tenant: tenant?,
        primary: primary?,
        secondary: secondary.flatten(),
        expires: expires.flatten(),
    })
}
