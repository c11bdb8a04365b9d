//! The part of a manifest that says who may call, and how much: products, and the keys that exist from the start.

use std::time::SystemTime;

use lanekeeper_actors::policy::limits::Limit;
use lanekeeper_actors::policy::terms::{KeyRule, QuotaRule};

use super::{Secret, WebhookRules};
use crate::delivery::Cidr;
use crate::identity::Requirement;

/// What callers are sold: apis, and how much of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// Names of the apis; at least one.
    pub apis: Vec<String>,
    /// How it is opened.
    pub key: KeyRule,
    /// The token that callers must bring as well, if any.
    pub jwt: Option<JwtRule>,
    /// Whether a key that somebody asks for waits for an approval.
    pub approval: bool,
    /// Most keys of one tenant, if limited.
    pub keys_per_tenant: Option<usize>,
    /// Addresses that may call; all when empty.
    pub ip_allow: Vec<Cidr>,
    /// Addresses that may not.
    pub ip_deny: Vec<Cidr>,
    /// How often.
    pub limits: Vec<Limit>,
    /// How much.
    pub quotas: Vec<QuotaRule>,
    /// Calls of one tenant at once, if limited.
    pub concurrency: Option<usize>,
    /// The tenant's part of the places when they are short, by those of others.
    pub weight: u32,
    /// What callers may make of webhooks.
    pub webhooks: WebhookRules,
}

/// The token that callers must bring.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// Whose it is.
    pub identity: String,
    /// What it must claim.
    pub requirements: Vec<Requirement>,
}

/// A key that exists from the start.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// What it opens.
    pub product: String,
    /// Whose calls it makes.
    pub tenant: String,
    /// The secret. No two secrets of a manifest are equal.
    pub primary: Secret,
    /// A second secret, so that callers can change from one to the other.
    pub secondary: Option<Secret>,
    /// The moment it stops working.
    pub expires: Option<SystemTime>,
}
