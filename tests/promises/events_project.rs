//! The project that promises about events are tested with: loads whose changes are told, and a topic of partners.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::server::{Answer, House, Server, answer};
use super::sink::Sink;

/// Another tenant with the same product as `main`.
pub(crate) const OTHER_KEY: &str = "another-tenants-key-1";
/// Signs deliveries, as `{{signing}}`.
pub(crate) const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The key before that one, as `{{before}}`.
pub(crate) const BEFORE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// Events are published here.
pub(crate) const EVENTS: &str = "/events";
/// Media types of the modes.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
/// Fails fast.
pub(crate) const RETRY: &str = "retry: { max_attempts: 2, ttl: 1h, scale: 0.0001 }";

const MANIFEST: &str = r#"
manifest: 1
project: events
server: { shards: 2 }
limits: { LIMITS }
named_values:
  signing: { secret: { env: SIGNING } }
  before: { secret: { env: BEFORE } }
  color: { value: green }
containers:
  loads: { partition_key: [/lane] }
topics:
  load-events: { from: { container: loads, types: { created: LoadCreated, replaced: LoadUpdated, deleted: LoadDeleted } } }
  partner-events: {}
event_subscriptions:
  pull: { topic: partner-events, PULL }
SUBSCRIPTIONS
apis:
  all:
    path: /
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      put: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" } }
      publish: { method: POST, path: /events, to: { topic: partner-events, do: publish } }
      receive: { method: POST, path: /pull/receive, to: { queue: pull, do: receive } }
      acknowledge: { method: POST, path: /pull/acknowledge, to: { queue: pull, do: acknowledge } }
      release: { method: POST, path: /pull/release, to: { queue: pull, do: release } }
      reject: { method: POST, path: /pull/reject, to: { queue: pull, do: reject } }
      renew: { method: POST, path: /pull/renew, to: { queue: pull, do: renew_lock } }
products:
  all: { apis: [all] }
api_keys:
  main: { product: all, tenant: acme, primary: { env: MAIN } }
  other: { product: all, tenant: other, primary: { env: OTHER } }
"#;

/// A new data directory. `pull` is what the queue has besides its topic; subscriptions are lines of YAML.
pub(crate) fn house(limits: &str, pull: &str, subscriptions: &[String]) -> House {
    let lines: Vec<_> = subscriptions.iter().map(|line| format!("  {line}")).collect();
    let manifest = MANIFEST.replace("LIMITS", limits).replace("PULL", pull);
    let manifest = manifest.replace("SUBSCRIPTIONS", &lines.join("\n"));
    House::new(&manifest).with("OTHER", OTHER_KEY).with("SIGNING", SIGNING).with("BEFORE", BEFORE)
}

/// A queue with locks of a minute.
pub(crate) const QUEUE: &str = "to: { queue: {} }";

/// A subscription to a topic, delivered to a sink under its own name; `to` and `rest` are more keys.
pub(crate) fn subscription(sink: &Sink, name: &str, topic: &str, (to, rest): (&str, &str)) -> String {
    let to = if to.is_empty() { String::new() } else { format!(", {to}") };
    let url = format!("http://{}/{name}", sink.address);
    format!(
        "{name}: {{ topic: {topic}, to: {{ webhook: \"{url}\", allow: [127.0.0.0/8]{to} }}, {RETRY}{rest} }}"
    )
}

/// An event of partners with this id and data.
pub(crate) fn event(id: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/partners", "type": "Said", "subject": "s", "data": data })
}

/// Publishes one event.
pub(crate) async fn publish(server: &Server, event: &Value) -> Answer {
    answer(publishing(server, STRUCTURED, event.to_string())).await
}

/// A request that publishes.
pub(crate) fn publishing(
    server: &Server,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    server.request(Method::POST, EVENTS).header("content-type", content_type).body(body)
}

/// Writes a load.
pub(crate) async fn load(server: &Server, lane: &str, id: &str, weight: u64) {
    let body = json!({ "id": id, "lane": lane, "weight": weight });
    let answer = server.send(Method::PUT, &format!("/loads/{lane}/{id}"), &body).await;
    assert!(answer.status < 300, "{}", answer.text);
}
