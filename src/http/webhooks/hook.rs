//! One webhook: what is stored of it, and the subscription that it is.
//!
//! Invariant: the names of these subscriptions have a dot, which no name of the manifest has, and the part behind
//! the last dot has none; so no two are the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_actors::model::change::{Mutation, Table};
use lanekeeper_actors::model::delivery::Endpoint;
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::model::secret::SigningKey;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::subscriber::{
    BatchSettings, DeliveryHeader, Destination, HeaderValue, Order, SubscriptionConfig, Webhook,
};
use serde::{Deserialize, Serialize};

use super::seal::{Seal, Unsealable};
use super::wanted::{Ordering, Wanted};
use super::{Settings, WebhookRefused};

/// Layout of a row.
const FORMAT: u8 = 1;
/// Keys that sign at the same time, at most.
const KEYS_MAX: usize = 3;
/// Rows of webhooks, in the first shard.
pub(super) const PREFIX: &[u8] = b"webhook/";

/// Events are tried as often and as long as Event Grid does.
const RETRY: RetryPolicy =
    RetryPolicy { max_attempts: 30, ttl: Duration::from_secs(86_400), scale: 1.0, probation: true };

/// A key that signs, until a time if another one has taken its place.
#[derive(Clone)]
pub(super) struct Signing {
    pub(super) key: SigningKey,
    pub(super) until: Option<Timestamp>,
}

/// A webhook of a tenant.
#[derive(Clone)]
pub(super) struct Hook {
    pub(super) tenant: TenantId,
    pub(super) id: String,
    pub(super) topic: Name,
    /// The product that it was made under, whose rules hold for it.
    pub(super) product: Name,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) wanted: Wanted,
    /// Newest first.
    pub(super) signing: Vec<Signing>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    format: u8,
    topic: String,
    product: String,
    created: Timestamp,
    updated: Timestamp,
    sealed: String,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Inside {
    wanted: Wanted,
    signing: Vec<(String, Option<Timestamp>)>,
}

/// The name of a webhook's subscription.
pub(super) fn subscription_name(tenant: &TenantId, id: &str) -> Name {
    format!("{tenant}.{id}").into()
}

fn key(tenant: &TenantId, id: &str) -> Vec<u8> {
    [PREFIX, tenant.as_str().as_bytes(), b"/", id.as_bytes()].concat()
}

impl Hook {
    pub(super) fn name(&self) -> Name {
        subscription_name(&self.tenant, &self.id)
    }

    /// The row as it is stored.
    pub(super) fn put(&self, seal: &Seal) -> Result<Mutation, Unsealable> {
        let signing = self.signing.iter().map(|it| (it.key.reveal(), it.until)).collect();
        let inside = Inside { wanted: self.wanted.clone(), signing };
        let clear = serde_json::to_vec(&inside).map_err(|_| Unsealable)?;
        let key = key(&self.tenant, &self.id);
        let row = Row {
            format: FORMAT,
            topic: self.topic.to_string(),
            product: self.product.to_string(),
            created: self.created,
            updated: self.updated,
            sealed: seal.close(&key, &clear)?,
        };
        let value = serde_json::to_vec(&row).map_err(|_| Unsealable)?;
        Ok(Mutation::Put { table: Table::System, key: key.into(), value: value.into() })
    }

    /// The end of the row.
    pub(super) fn delete(&self) -> Mutation {
        Mutation::Delete { table: Table::System, key: key(&self.tenant, &self.id).into() }
    }

    /// Reads a row, whose key is given without [`PREFIX`].
    pub(super) fn read(rest: &[u8], value: &Bytes, seal: &Seal) -> Result<Self, Unsealable> {
        let (tenant, id) =
            std::str::from_utf8(rest).ok().and_then(|rest| rest.split_once('/')).ok_or(Unsealable)?;
        let tenant = TenantId::new(tenant).map_err(|_| Unsealable)?;
        let row: Row = serde_json::from_slice(value).map_err(|_| Unsealable)?;
        if row.format != FORMAT {
            return Err(Unsealable);
        }
        let clear = seal.open(&key(&tenant, id), &row.sealed)?;
        let inside: Inside = serde_json::from_slice(&clear).map_err(|_| Unsealable)?;
        let signing = |(text, until): (String, Option<Timestamp>)| {
            Ok(Signing { key: SigningKey::parse(&text).map_err(|_| Unsealable)?, until })
        };
        Ok(Self {
            id: id.to_owned(),
            tenant,
            topic: row.topic.into(),
            product: row.product.into(),
            created: row.created,
            updated: row.updated,
            wanted: inside.wanted,
            signing: inside.signing.into_iter().map(signing).collect::<Result<_, Unsealable>>()?,
        })
    }

    /// A new key signs from now on; those before it go on for a while.
    pub(super) fn rotate(&mut self, key: SigningKey, now: Timestamp, overlap: Duration) {
        self.forget_keys(now);
        for old in &mut self.signing {
            let until = now.after(overlap);
            old.until = Some(old.until.map_or(until, |before| before.min(until)));
        }
        self.signing.insert(0, Signing { key, until: None });
        self.signing.truncate(KEYS_MAX);
        self.forget_keys(now);
        self.updated = now;
    }

    /// Whether a key's time is over.
    pub(super) fn has_old_keys(&self, now: Timestamp) -> bool {
        self.signing.iter().any(|signing| signing.until.is_some_and(|until| until <= now))
    }

    /// Takes away the keys whose time is over.
    pub(super) fn forget_keys(&mut self, now: Timestamp) {
        self.signing.retain(|signing| signing.until.is_none_or(|until| until > now));
    }

    /// The subscription that it is, or why it cannot be one now.
    pub(super) fn config(
        &self,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<SubscriptionConfig, WebhookRefused> {
        let orphaned = |why: &str| WebhookRefused::Orphaned(why.to_owned());
        let listened = settings.topics.get(&self.topic).ok_or_else(|| orphaned("its topic is gone"))?;
        let rules = settings.products.get(&self.product).ok_or_else(|| orphaned("its product is gone"))?;
        let filter = self.wanted.check(listened, rules)?;
        let signing = self.signing.iter().filter(|it| it.until.is_none_or(|until| until > now));
        let endpoint = Endpoint {
            signing: signing.map(|it| it.key.clone()).collect(),
            origin: Some(settings.origin.clone()),
            ..Endpoint::plain(self.wanted.url.clone(), rules.allow.iter().map(ToString::to_string).collect())
        };
        let headers = self.wanted.headers.iter().map(|(name, value)| DeliveryHeader {
            name: name.as_str().into(),
            value: HeaderValue::Secret(value.as_str().into()),
        });
        let webhook = Webhook {
            headers: headers.collect(),
            batch: self.wanted.batch.map(|batch| BatchSettings { events: batch.events, bytes: batch.bytes }),
            rate: rules.rate,
            ..Webhook::plain(endpoint)
        };
        Ok(SubscriptionConfig {
            name: self.name(),
            topic: listened.topic.clone(),
            tenant: Some(self.tenant.clone()),
            keys: listened.keys.clone(),
            filter: Arc::new(filter),
            to: Destination::Webhook(webhook),
            retry: RETRY,
            order: match self.wanted.order {
                Ordering::None => Order::None,
                Ordering::Partition => Order::Partition,
            },
            export: None,
            handshake: rules.handshake.kind(),
        })
    }
}

#[cfg(test)]
mod tests {
    use lanekeeper_actors::policy::keys::Pepper;

    use super::*;

    fn hook() -> Hook {
        Hook {
            tenant: TenantId::new("acme.eu").unwrap(),
            id: "wh_1".to_owned(),
            topic: "notes".into(),
            product: "p".into(),
            created: Timestamp(1),
            updated: Timestamp(1),
            wanted: Wanted::read(br#"{"url":"https://a.example/?key=hush","headers":{"a":"hush"}}"#).unwrap(),
            signing: vec![Signing { key: SigningKey::symmetric([7; 32]), until: None }],
        }
    }

    #[test]
    fn a_row_comes_back_as_it_was_and_shows_nothing_in_clear() {
        let seal = Seal::new(&Pepper::new([3; 32])).unwrap();
        let hook = hook();
        let Mutation::Put { key, value, .. } = hook.put(&seal).unwrap() else { panic!("it is put") };
        let text = String::from_utf8(value.to_vec()).unwrap();
        assert!(!text.contains("hush") && !text.contains("whsec") && !text.contains("a.example"), "{text}");
        let back = Hook::read(key.strip_prefix(PREFIX).unwrap(), &value, &seal).unwrap();
        assert_eq!((back.name(), &*back.topic), ("acme.eu.wh_1".into(), "notes"));
        assert!(back.wanted == hook.wanted && back.signing[0].key == hook.signing[0].key);
        assert!(Hook::read(b"other/wh_1", &value, &seal).is_err());
    }

    #[test]
    fn a_rotation_lets_the_old_key_sign_for_its_time_and_no_longer() {
        let mut hook = hook();
        let overlap = Duration::from_millis(100);
        hook.rotate(SigningKey::symmetric([8; 32]), Timestamp(1_000), overlap);
        let untils: Vec<_> = hook.signing.iter().map(|it| it.until).collect();
        assert_eq!(untils, [None, Some(Timestamp(1_100))]);
        // A second one does not make the first old key live longer.
        hook.rotate(SigningKey::symmetric([9; 32]), Timestamp(1_050), Duration::from_secs(9));
        let untils: Vec<_> = hook.signing.iter().map(|it| it.until).collect();
        assert_eq!(untils, [None, Some(Timestamp(10_050)), Some(Timestamp(1_100))]);
        assert!(!hook.has_old_keys(Timestamp(1_099)) && hook.has_old_keys(Timestamp(1_100)));
        hook.rotate(SigningKey::symmetric([1; 32]), Timestamp(2_000), Duration::ZERO);
        assert_eq!(hook.signing.len(), 1);
    }
}
