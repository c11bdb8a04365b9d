//! Stands between a row and the server's manifest: what is declared, and the YAML that declares it.
//! Invariant: the same values that the manifest is written from are those that the ledger judges by.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::document;
use crate::server::KEY_VARIABLE;

/// Which events a subscription wants, by the partition of their documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// All of them.
    All,
    /// Those of one partition.
    Lane(u32),
    /// Those that were published to a custom topic; the subscription is one to that topic.
    Published,
    /// None that an endpoint would see.
    Nothing,
}

/// Subscriptions in one file.
const PER_FILE: usize = 2_000;

/// Where the partitions of containers end: an event from here on was published to a custom topic.
pub(crate) const CUSTOM: u32 = 1_000_000;

impl Wants {
    /// Whether an event of this partition matches.
    pub(crate) fn matches(&self, lane: u32) -> bool {
        match self {
            Self::All => lane < CUSTOM,
            Self::Lane(wanted) => *wanted == lane,
            Self::Published => lane >= CUSTOM,
            Self::Nothing => false,
        }
    }
}

/// How long an event is tried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retry {
    /// Attempts in all.
    pub(crate) attempts: u32,
    /// Time to live, as the manifest writes it.
    pub(crate) ttl: String,
    /// Factor on the steps of the schedule.
    pub(crate) scale: f64,
    /// Whether an endpoint that fails may be left alone for a while.
    pub(crate) probation: bool,
}

impl Retry {
    /// So many attempts, at a hundredth of the schedule: 0.1 s, 0.3 s, 0.6 s, 3 s.
    pub(crate) fn quick(attempts: u32) -> Self {
        Self { attempts, ttl: "1h".to_owned(), scale: 0.01, probation: true }
    }

    /// The same attempts at another pace.
    pub(crate) fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// The same attempts, however often the endpoint fails.
    pub(crate) fn relentless(self) -> Self {
        Self { probation: false, ..self }
    }

    /// The same attempts with another time to live.
    pub(crate) fn living(self, ttl: &str) -> Self {
        Self { ttl: ttl.to_owned(), ..self }
    }
}

/// A subscription as a row declares it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    /// The number at the end of its URL, by which its requests are told apart.
    pub(crate) number: u32,
    pub(crate) topic: String,
    /// What stands in `to`, for example `webhook: "…", allow: […]`.
    pub(crate) to: String,
    pub(crate) wants: Wants,
    pub(crate) retry: Retry,
    /// Further keys, for example `order: partition`.
    pub(crate) more: String,
}

/// A manifest in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) limits: BTreeMap<String, String>,
    /// Physical shards; the server's default when 0.
    pub(crate) shards: u32,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Further containers, topics, operations and sections, each line complete.
    pub(crate) containers: String,
    pub(crate) topics: String,
    pub(crate) operations: String,
    pub(crate) sections: String,
}

impl Manifest {
    /// The YAML, in several files when there are many subscriptions: a file may not be larger than a megabyte.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut rest = self.subscriptions.chunks(PER_FILE);
        let first = Self { subscriptions: rest.next().unwrap_or_default().to_vec(), ..self.clone() };
        let mut texts = vec![first.text()];
        for some in rest {
            let mut text = "manifest: 1\nevent_subscriptions:\n".to_owned();
            some.iter().for_each(|subscription| subscription.write(&mut text));
            texts.push(text);
        }
        texts
    }

    fn text(&self) -> String {
        let mut text = "manifest: 1\nproject: chaos\n".to_owned();
        // Writing to a string cannot fail.
        if self.shards > 0 {
            writeln!(text, "server: {{ shards: {} }}", self.shards).unwrap_or_default();
        }
        if !self.limits.is_empty() {
            text.push_str("limits:\n");
            for (name, value) in &self.limits {
                writeln!(text, "  {name}: {value}").unwrap_or_default();
            }
        }
        write!(
            text,
            r#"{sections}containers:
  loads: {{ partition_key: [/lane], tenancy: shared }}
{containers}topics:
  load-events: {{ from: {{ container: loads, types: {{ created: LoadCreated }} }} }}
{topics}event_subscriptions:
"#,
            sections = self.sections,
            containers = self.containers,
            topics = self.topics,
        )
        .unwrap_or_default();
        for subscription in &self.subscriptions {
            subscription.write(&mut text);
        }
        write!(
            text,
            r#"apis:
  freight:
    path: /freight
    version: {{ by: path, name: v1 }}
    operations:
      createLoad: {{ method: POST, path: /loads, to: {{ container: loads, do: create }} }}
      getLoad: {{ method: GET, path: "/loads/{{lane}}/{{id}}", to: {{ container: loads, do: read, partition: "{{lane}}", id: "{{id}}" }} }}
{operations}products:
  chaos: {{ apis: [freight], rate: {{ calls: 1000000, per: 1s }} }}
api_keys:
  chaos: {{ product: chaos, tenant: chaos, primary: {{ env: {KEY_VARIABLE} }} }}
"#,
            operations = self.operations,
        )
        .unwrap_or_default();
        text
    }
}

impl Subscription {
    fn write(&self, text: &mut String) {
        let Retry { attempts, ttl, scale, probation } = &self.retry;
        let probation = if *probation { "" } else { ", probation: false" };
        let subject = match self.wants {
            Wants::All | Wants::Published | Wants::Nothing => String::new(),
            Wants::Lane(lane) => {
                format!(" subject: {{ begins: \"{}/\", case_sensitive: true }},", document::lane(lane))
            }
        };
        let more = if self.more.is_empty() { String::new() } else { format!(", {}", self.more) };
        writeln!(
            text,
            "  {}: {{ topic: {},{subject} to: {{ {} }}, retry: {{ max_attempts: {attempts}, ttl: {ttl}, scale: {scale}{probation} }}{more} }}",
            self.name, self.topic, self.to,
        )
        .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_was_declared() {
        let subscription = Subscription {
            name: "ill".to_owned(),
            number: 3,
            topic: "load-events".to_owned(),
            to: "webhook: \"http://127.0.0.1:1/s/3\"".to_owned(),
            wants: Wants::Lane(7),
            retry: Retry::quick(3).living("2s"),
            more: "order: partition".to_owned(),
        };
        let mut manifest = Manifest { shards: 1, subscriptions: vec![subscription], ..Manifest::default() };
        manifest.limits.insert("delivery_window".to_owned(), "1".to_owned());
        let [text] = &manifest.texts()[..] else { panic!("more than one file") };
        for part in [
            "server: { shards: 1 }",
            "  delivery_window: 1\n",
            "subject: { begins: \"lane-000007/\", case_sensitive: true }",
            "retry: { max_attempts: 3, ttl: 2s, scale: 0.01 }, order: partition }",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }
}
