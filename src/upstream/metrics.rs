//! What is counted of backends.
//!
//! Invariant: labels come from the manifest and from fixed lists, never from a request.

use lanekeeper_actors::policy::upstream::Standing;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::backend::Backend;
use super::forward::Failed;

/// How requests end.
const OUTCOMES: [&str; 10] =
    ["2xx", "3xx", "4xx", "5xx", "unreachable", "invalid", "timeout", "unavailable", "caller", "abandoned"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    backend: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    backend: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    backend: String,
    server: String,
}

/// What is counted of all backends.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    requests: Family<Outcome, Counter>,
    retries: Family<Of, Counter>,
    broken: Family<Of, Counter>,
}

/// Where one backend is counted, without a look-up for each request.
#[derive(Debug, Clone)]
pub(super) struct BackendMetrics {
    outcomes: [Counter; OUTCOMES.len()],
    pub(super) retries: Counter,
    /// Answers that broke off after their head.
    pub(super) broken: Counter,
}

impl Metrics {
    pub(super) fn backend(&self, name: &str) -> BackendMetrics {
        let outcome = |outcome| Outcome { backend: name.to_owned(), outcome };
        let of = Of { backend: name.to_owned() };
        BackendMetrics {
            outcomes: OUTCOMES.map(|name| self.requests.get_or_create(&outcome(name)).clone()),
            retries: self.retries.get_or_create(&of).clone(),
            broken: self.broken.get_or_create(&of).clone(),
        }
    }

    /// Adds what was counted, and what is true now, to a registry that is about to be written.
    pub(super) fn register<'b>(
        &self,
        backends: impl Iterator<Item = &'b std::sync::Arc<Backend>>,
        registry: &mut Registry,
    ) {
        let breakers: Family<Server, Gauge> = Family::default();
        let healthy: Family<Of, Gauge> = Family::default();
        let active: Family<Server, Gauge> = Family::default();
        for backend in backends {
            let name = backend.name().to_owned();
            let mut well = 0;
            for member in backend.members() {
                let label = Server { backend: name.clone(), server: member.url };
                let state = match member.breaker {
                    Standing::Closed => 0,
                    Standing::HalfOpen => 1,
                    Standing::Open { .. } => 2,
                };
                well += i64::from(member.healthy && state == 0);
                breakers.get_or_create(&label).set(state);
                active.get_or_create(&label).set(i64::try_from(member.active).unwrap_or(i64::MAX));
            }
            healthy.get_or_create(&Of { backend: name }).set(well);
        }
        registry.register(
            "upstream_requests",
            "Requests to backends, by how they ended",
            self.requests.clone(),
        );
        registry.register("upstream_retries", "Requests to backends sent again", self.retries.clone());
        registry.register(
            "upstream_broken",
            "Answers of backends that broke off after their head",
            self.broken.clone(),
        );
        registry.register("upstream_breaker", "What a breaker does: 0 closed, 1 half open, 2 open", breakers);
        registry.register("upstream_active", "Exchanges with a server under way", active);
        registry.register("upstream_healthy", "Servers that are well and whose breaker is closed", healthy);
    }
}

impl BackendMetrics {
    /// Counts a request by the status of its answer, or by why there is none.
    pub(super) fn count(&self, ended: Result<u16, &Failed>) {
        let name = match ended {
            Ok(200..=299) => "2xx",
            Ok(300..=399) => "3xx",
            Ok(400..=499) => "4xx",
            Ok(_) => "5xx",
            Err(Failed::Unreachable) => "unreachable",
            Err(Failed::Invalid) => "invalid",
            Err(Failed::TimedOut) => "timeout",
            Err(Failed::Unavailable { .. }) => "unavailable",
            Err(Failed::TooLarge(_) | Failed::BodyTimedOut | Failed::BodyLost) => "caller",
        };
        self.count_as(name);
    }

    /// Counts a request whose caller went away.
    pub(super) fn abandoned(&self) {
        self.count_as("abandoned");
    }

    fn count_as(&self, wanted: &str) {
        let found = OUTCOMES.iter().zip(&self.outcomes).find(|(name, _)| **name == wanted);
        if let Some((_, counter)) = found {
            counter.inc();
        }
    }
}
