//! Stands between what happens and `/metrics`: counts of requests, and the text of everything that is counted.
//!
//! Invariant: labels come from the manifest and from fixed lists, never from a request, so their number is bounded.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use lanekeeper_actors::protocol::topic::Published;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Route and method of requests that no operation answers.
const UNMATCHED: &str = "unmatched";
const ANY: &str = "any";

/// The classes of final status codes (RFC 9110 section 15), the first of which is 2.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
const FIRST_CLASS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: String,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

/// What the public listener counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<Answer, Counter>,
    published: Family<Topic, Counter>,
    duplicates: Family<Topic, Counter>,
    latency: Family<Route, Histogram, fn() -> Histogram>,
}

/// Where the answers of one operation are counted, without a look-up for each.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    by_class: [Counter; CLASSES.len()],
    latency: Histogram,
}

/// Where the events of one topic are counted.
#[derive(Debug, Clone)]
pub struct TopicMetrics {
    published: Counter,
    duplicates: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self {
            requests: Family::default(),
            published: Family::default(),
            duplicates: Family::default(),
            latency: Family::new_with_constructor(histogram),
        }
    }
}

impl Metrics {
    /// Where answers of this operation are counted.
    pub fn route(&self, method: &Method, route: &str) -> RouteMetrics {
        self.labelled(method.as_str(), route)
    }

    /// Where answers to requests without an operation are counted.
    pub fn unmatched(&self) -> RouteMetrics {
        self.labelled(ANY, UNMATCHED)
    }

    /// Where events that are published to this topic are counted.
    pub fn topic(&self, topic: &str) -> TopicMetrics {
        let label = Topic { topic: topic.to_owned() };
        TopicMetrics {
            published: self.published.get_or_create(&label).clone(),
            duplicates: self.duplicates.get_or_create(&label).clone(),
        }
    }

    fn labelled(&self, method: &str, route: &str) -> RouteMetrics {
        let (method, route) = (method.to_owned(), route.to_owned());
        let by_class = CLASSES.map(|status| {
            let labels = Answer { method: method.clone(), route: route.clone(), status };
            self.requests.get_or_create(&labels).clone()
        });
        let latency = self.latency.get_or_create(&Route { method, route }).clone();
        RouteMetrics { by_class, latency }
    }

    /// Adds what was counted to a registry that is about to be written.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Requests answered, by route and class of status",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "Time from the head of a request to the end of its answer",
            self.latency.clone(),
        );
        registry.register(
            "events_published",
            "Events that callers published, by topic",
            self.published.clone(),
        );
        registry.register(
            "events_duplicate",
            "Events that were published before and not taken again, by topic",
            self.duplicates.clone(),
        );
    }
}

impl TopicMetrics {
    /// Counts the events of one request.
    pub fn count(&self, published: Published) {
        self.published.inc_by(u64::try_from(published.taken).unwrap_or(u64::MAX));
        self.duplicates.inc_by(u64::try_from(published.duplicates).unwrap_or(u64::MAX));
    }
}

impl RouteMetrics {
    /// Counts one answer.
    pub fn count(&self, status: StatusCode, latency: Duration) {
        let class = usize::from(status.as_u16() / 100).checked_sub(FIRST_CLASS);
        if let Some(counter) = class.and_then(|class| self.by_class.get(class)) {
            counter.inc();
        }
        self.latency.observe(latency.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_and_class() {
        let metrics = Metrics::default();
        let route = metrics.route(&Method::GET, "/loads/{lane}");
        route.count(StatusCode::OK, Duration::from_micros(700));
        route.count(StatusCode::NOT_FOUND, Duration::from_secs(3));
        route.count(StatusCode::NOT_FOUND, Duration::from_secs(60));
        let mut registry = Registry::with_prefix("lanekeeper");
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"lanekeeper_requests_total{method="GET",route="/loads/{lane}",status="4xx"} 2"#,
            r#"lanekeeper_requests_total{method="GET",route="/loads/{lane}",status="2xx"} 1"#,
            r#"lanekeeper_request_seconds_bucket{le="0.001",method="GET",route="/loads/{lane}"} 1"#,
            r#"lanekeeper_request_seconds_count{method="GET",route="/loads/{lane}"} 3"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
