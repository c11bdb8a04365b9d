//! What a tenant says of its webhook, and whether it may say that.
//!
//! Invariant: a value that passed [`Wanted::check`] names a destination that the product allows, headers that a
//! delivery can carry, and a filter that its topic can be asked.

use std::collections::BTreeMap;

use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::model::topic::TopicSource;
use lanekeeper_actors::policy::filter::{Condition, Filter, FilterSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Listened, WebhookRefused};
use crate::delivery::{check_url, host_of};
use crate::manifest::WebhookRules;

/// Longest URL, description, and name of an event type, in bytes.
const URL_MAX: usize = 2_048;
const DESCRIPTION_MAX: usize = 512;
const TYPE_MAX: usize = 256;
/// The one type that means all of them, as in Event Grid.
const ALL_TYPES: &str = "All";
/// Event Grid's most headers, and its longest value in bytes.
const HEADERS_MAX: usize = 10;
const HEADER_MAX: usize = 128;
const HEADER_VALUE_MAX: usize = 4_096;
/// Event Grid's most events in a batch, its default size, and its largest, in bytes.
const BATCH_MAX: usize = 5_000;
const BATCH_BYTES: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Headers that each delivery has by itself, or that belong to the connection.
const RESERVED: [&str; 13] = [
    "connection",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// Beginnings of such headers.
const RESERVED_BEGINNINGS: [&str; 7] =
    ["aeg-", "ce-", "content-", "webhook-", "x-delivery-", "x-replay-", "x-subscription"];

/// A webhook as its tenant wants it. Never printed: URL and headers may hold secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) url: String,
    #[serde(default)]
    pub(super) types: Option<Vec<String>>,
    #[serde(default)]
    pub(super) filter: Vec<Condition>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) batch: Option<Batch>,
    #[serde(default)]
    pub(super) order: Ordering,
}

/// Several events in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) events: usize,
    #[serde(default = "batch_bytes")]
    pub(super) bytes: usize,
}

fn batch_bytes() -> usize {
    BATCH_BYTES
}

/// Whether events have an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ordering {
    #[default]
    None,
    Partition,
}

impl Wanted {
    /// Reads a body.
    pub(super) fn read(body: &[u8]) -> Result<Self, WebhookRefused> {
        Self::merge(Map::new(), body)
    }

    /// This, changed by a body as JSON Merge Patch says (RFC 7396): what is null is taken away.
    pub(super) fn changed(&self, body: &[u8]) -> Result<Self, WebhookRefused> {
        let Ok(Value::Object(now)) = serde_json::to_value(self) else {
            return Err(WebhookRefused::Invalid("it cannot be changed".to_owned()));
        };
        Self::merge(now, body)
    }

    fn merge(mut now: Map<String, Value>, body: &[u8]) -> Result<Self, WebhookRefused> {
        let wrong = |error: serde_json::Error| WebhookRefused::Invalid(error.to_string());
        let patch: Map<String, Value> = serde_json::from_slice(body).map_err(wrong)?;
        for (key, value) in patch {
            match (value, now.get_mut(&key)) {
                (Value::Null, _) => {
                    now.shift_remove(&key);
                }
                // The one part whose own parts have names.
                (Value::Object(parts), Some(Value::Object(old))) if key == "headers" => {
                    for (name, value) in parts {
                        if value.is_null() {
                            old.shift_remove(&name);
                        } else {
                            old.insert(name, value);
                        }
                    }
                }
                (value, _) => {
                    now.insert(key, value);
                }
            }
        }
        serde_json::from_value(Value::Object(now)).map_err(wrong)
    }

    /// Whether a product allows it and a topic can be asked for it; its filter, ready to be asked.
    pub(super) fn check(&self, listened: &Listened, rules: &WebhookRules) -> Result<Filter, WebhookRefused> {
        self.check_destination(rules)?;
        self.check_headers()?;
        let invalid = |text: String| Err(WebhookRefused::Invalid(text));
        if self.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
            return invalid(format!("`description` has at most {DESCRIPTION_MAX} bytes"));
        }
        if let Some(batch) = &self.batch {
            if !(1..=BATCH_MAX).contains(&batch.events) {
                return invalid(format!("`batch.events` is 1 to {BATCH_MAX}"));
            }
            if !(1..=BATCH_BYTES_MAX).contains(&batch.bytes) {
                return invalid(format!("`batch.bytes` is 1 to {BATCH_BYTES_MAX}"));
            }
        }
        self.check_types(listened)?;
        let spec = FilterSpec {
            types: self
                .types
                .as_ref()
                .map(|types| types.iter().map(|name| Name::from(name.as_str())).collect()),
            advanced: self.filter.clone(),
            ..FilterSpec::default()
        };
        spec.compile(&listened.keys)
            .map_err(|problem| WebhookRefused::Invalid(format!("`filter`: {problem}")))
    }

    fn check_destination(&self, rules: &WebhookRules) -> Result<(), WebhookRefused> {
        if self.url.len() > URL_MAX || self.url.contains('#') {
            let text = format!("`url` has at most {URL_MAX} bytes and no fragment");
            return Err(WebhookRefused::Invalid(text));
        }
        let allow: Vec<String> = rules.allow.iter().map(ToString::to_string).collect();
        check_url(&self.url, &allow).map_err(|problem| WebhookRefused::Destination(problem.to_string()))?;
        let host = host_of(&self.url).unwrap_or_default();
        let allowed = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => {
                host.strip_suffix(domain).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
            None => host == *pattern,
        };
        match &rules.hosts {
            Some(hosts) if !hosts.iter().any(allowed) => {
                Err(WebhookRefused::Destination("its host is not one of those that are allowed".to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_headers(&self) -> Result<(), WebhookRefused> {
        if self.headers.len() > HEADERS_MAX {
            return Err(WebhookRefused::Invalid(format!("there are at most {HEADERS_MAX} `headers`")));
        }
        for (name, value) in &self.headers {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || name.len() > HEADER_MAX || !name.bytes().all(legal) {
                return Err(WebhookRefused::Invalid("one of `headers` has a name that is none".to_owned()));
            }
            let lower = name.to_ascii_lowercase();
            let reserved = RESERVED.contains(&lower.as_str());
            if reserved || RESERVED_BEGINNINGS.iter().any(|beginning| lower.starts_with(beginning)) {
                return Err(WebhookRefused::Invalid(format!("the header `{name}` is not yours to set")));
            }
            let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            if value.len() > HEADER_VALUE_MAX || !value.bytes().all(plain) {
                let text = format!("the value of `{name}` is at most {HEADER_VALUE_MAX} characters of ASCII");
                return Err(WebhookRefused::Invalid(text));
            }
        }
        Ok(())
    }

    fn check_types(&self, listened: &Listened) -> Result<(), WebhookRefused> {
        let made = match &listened.topic.source {
            TopicSource::Changes { types, .. } => Some([&types.created, &types.replaced, &types.deleted]),
            TopicSource::Published => None,
        };
        for wanted in self.types.iter().flatten() {
            let is_made = |made: &[&Option<Name>; 3]| made.iter().any(|name| name.as_deref() == Some(wanted));
            let is_known = wanted == ALL_TYPES || made.as_ref().is_none_or(is_made);
            if wanted.is_empty() || wanted.len() > TYPE_MAX || !is_known {
                let text = format!(
                    "there are no events of the type `{}`",
                    wanted.chars().take(64).collect::<String>()
                );
                return Err(WebhookRefused::Invalid(text));
            }
        }
        Ok(())
    }

    /// What everybody may see of it: URLs often have a secret in their query, headers in their values.
    pub(super) fn shown(&self) -> Map<String, Value> {
        let url = self.url.split_once('?').map_or(self.url.as_str(), |(url, _)| url);
        let headers: Map<String, Value> =
            self.headers.keys().map(|name| (name.clone(), Value::from("***"))).collect();
        let shown = json!({
            "url": url,
            "types": self.types,
            "filter": self.filter,
            "description": self.description,
            "headers": headers,
            "batch": self.batch,
            "order": self.order,
        });
        match shown {
            Value::Object(shown) => shown,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        }
    }

    /// Whether it wants the same events as another one.
    pub(super) fn wants_same(&self, other: &Self) -> bool {
        self.types == other.types && self.filter == other.filter
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lanekeeper_actors::model::topic::{EventTypes, Topic};

    use super::*;

    fn listened() -> Listened {
        let types = EventTypes { created: Some("NoteAdded".into()), ..EventTypes::default() };
        let topic = Topic::of_changes("notes".into(), "notes".into(), types);
        Listened { topic: Arc::new(topic), keys: Arc::default() }
    }

    fn refusal(body: Value, rules: &WebhookRules) -> Option<WebhookRefused> {
        let wanted = match Wanted::read(body.to_string().as_bytes()) {
            Ok(wanted) => wanted,
            Err(refused) => return Some(refused),
        };
        wanted.check(&listened(), rules).err()
    }

    #[test]
    fn hosts_and_blocks_of_the_product_are_kept() {
        let hosts = |hosts: &[&str]| WebhookRules {
            hosts: Some(hosts.iter().map(|host| (*host).to_owned()).collect()),
            ..WebhookRules::default()
        };
        let to = |url: &str| json!({ "url": url });
        let partner = hosts(&["*.partner.example", "hook.example"]);
        for url in
            ["https://a.partner.example/x", "https://a.b.PARTNER.example", "http://hook.example:81/?k=1"]
        {
            assert_eq!(refusal(to(url), &partner), None, "{url}");
        }
        for url in ["https://partner.example", "https://evilpartner.example", "https://a.hook.example"] {
            assert!(matches!(refusal(to(url), &partner), Some(WebhookRefused::Destination(_))), "{url}");
        }
        let any = WebhookRules::default();
        for url in
            ["http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/", "ftp://a.example/", "x"]
        {
            assert!(matches!(refusal(to(url), &any), Some(WebhookRefused::Destination(_))), "{url}");
        }
        let near = WebhookRules { allow: vec!["127.0.0.0/8".parse().unwrap()], ..any };
        assert_eq!(refusal(to("http://127.0.0.1:8/"), &near), None);
    }

    #[test]
    fn a_body_that_asks_for_what_there_is_not_is_refused() {
        let rules = WebhookRules::default();
        let with = |key: &str, value: Value| json!({ "url": "https://a.example/", key: value });
        for body in [
            json!({}),
            json!({ "url": 1 }),
            with("secret", json!("mine")),
            with("types", json!(["NoteGone"])),
            with("filter", json!([{ "key": "data.x", "operator": "NoSuch", "value": 1 }])),
            with("headers", json!({ "webhook-id": "x" })),
            with("headers", json!({ "Host": "x" })),
            with("headers", json!({ "a b": "x" })),
            with("headers", json!({ "a": "x\ny" })),
            with("batch", json!({ "events": 0 })),
            with("order", json!("random")),
            with("url", json!("https://a.example/#x")),
        ] {
            assert!(matches!(refusal(body.clone(), &rules), Some(WebhookRefused::Invalid(_))), "{body}");
        }
        assert_eq!(refusal(with("types", json!(["NoteAdded"])), &rules), None);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_shows_no_secret() {
        let first =
            br#"{"url":"https://a.example/x?key=secret","headers":{"a":"1","b":"2"},"description":"d"}"#;
        let wanted = Wanted::read(first).unwrap();
        let changed = wanted.changed(br#"{"headers":{"a":null,"c":"3"},"description":null}"#).ok().unwrap();
        assert_eq!((changed.url.as_str(), &changed.description), (wanted.url.as_str(), &None));
        assert_eq!(changed.headers.keys().collect::<Vec<_>>(), ["b", "c"]);
        let shown = Value::Object(changed.shown()).to_string();
        assert!(!shown.contains("secret") && !shown.contains('3'), "{shown}");
    }
}
