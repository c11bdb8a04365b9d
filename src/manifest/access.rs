//! Stands between the sections `products` and `api_keys` and who may call what.
//!
//! Invariant: a secret comes from the environment, is never repeated in a message, and opens one key only.

use lanekeeper_actors::policy::keys::ApiKeySecret;

use super::Names;
use super::fields::{self, Fields};
use super::model::{ApiKey, Product, Secret};
use super::problem::{Place, Report, closest, quoted};
use super::tree::Node;
use super::{limits, named, units, webhooks};

const NOT_BUILT: [&str; 4] = ["ip_allow", "jwt", "key", "quota"];

/// Reads a product.
pub(super) fn read_product(node: &Node, names: &Names<'_>, report: &mut Report) -> Option<Product> {
    let mut fields = Fields::open(node, report)?;
    let apis = fields.required("apis", report).and_then(|node| {
        let items = fields::distinct_texts(node, report)?;
        let known = |(_, item)| fields::reference(item, "api", &names.apis, report);
        Some(items.into_iter().filter_map(known).collect())
    });
    let rate = fields.optional("rate").map(|node| limits::rate(node, report));
    let webhooks = fields.optional("webhooks").and_then(|node| webhooks::read_rules(node, report));
    fields.finish(&NOT_BUILT, report);
    Some(Product { apis: apis?, rate: rate.flatten(), webhooks: webhooks.unwrap_or_default() })
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
    let tenant = fields.required("tenant", report).and_then(|node| fields::name(node, report));
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
