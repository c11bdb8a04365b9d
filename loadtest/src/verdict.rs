//! Stands between the figures of a run and the exit code: what is good enough.
//! Invariant: a run passes only if nothing was lost, nothing failed, and every figure is under its limit.

use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

use crate::report::{Deliveries, Requests};

/// Writes must have a p99 under this, in milliseconds.
const WRITES_P99_MS: f64 = 41.0;
/// Write-to-delivered must have a p95 under this, in milliseconds.
const DELIVERED_P95_MS: f64 = 2300.0;
/// This share of what was offered must be achieved.
const ACHIEVED: f64 = 0.99;

/// The last line of a report, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    passed: bool,
    line: String,
}

impl Verdict {
    /// A pass, with the figures that matter.
    pub(crate) fn pass(verb: &str, figures: String) -> Self {
        Self { passed: true, line: format!("PASS {verb}: {figures}") }
    }

    /// A pass with `figures` when there are no reasons against it.
    pub(crate) fn of(verb: &str, reasons: &[String], figures: String) -> Self {
        if reasons.is_empty() {
            return Self::pass(verb, figures);
        }
        Self { passed: false, line: format!("FAIL {verb}: {}", reasons.join("; ")) }
    }

    /// Whether the run is good enough.
    pub(crate) fn passed(&self) -> bool {
        self.passed
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.line)
    }
}

/// The verdict on a steady run.
pub(crate) fn steady(
    requests: &Requests,
    deliveries: Option<&Deliveries>,
    server_ended: Option<&str>,
) -> Verdict {
    let mut reasons = Vec::new();
    if let Some(status) = server_ended {
        reasons.push(format!("the server ended ({status})"));
    }
    if requests.errors > 0 {
        reasons.push(format!("{} errors", requests.errors));
    }
    if requests.unanswered > 0 {
        reasons.push(format!("{} requests unanswered", requests.unanswered));
    }
    let (offered, achieved) = (requests.offered_per_second, requests.achieved_per_second);
    // An empty schedule has nothing to achieve, and proves nothing.
    if offered <= 0.0 || achieved < ACHIEVED * offered {
        reasons.push(format!("achieved {achieved:.1}/s of {offered:.1}/s offered"));
    }
    if requests.writes.p99_ms >= WRITES_P99_MS {
        reasons.push(format!("writes p99 {:.1} ms (limit {WRITES_P99_MS} ms)", requests.writes.p99_ms));
    }
    let delivered = deliveries.map_or_else(
        || "deliveries not measured".to_owned(),
        |deliveries| format!("write-to-delivered p95 {:.1} ms", deliveries.from_sent.p95_ms),
    );
    if let Some(deliveries) = deliveries {
        if deliveries.missing() > 0 {
            reasons.push(format!("{} deliveries missing", deliveries.missing()));
        }
        if deliveries.from_sent.p95_ms >= DELIVERED_P95_MS {
            reasons.push(format!("{delivered} (limit {DELIVERED_P95_MS} ms)"));
        }
    }
    let figures = format!(
        "{achieved:.0}/s of {offered:.0}/s, reads p99 {:.2} ms, writes p99 {:.2} ms, {delivered}",
        requests.reads.p99_ms, requests.writes.p99_ms,
    );
    Verdict::of("steady", &reasons, figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::tests::good;

    fn judge(change: impl FnOnce(&mut Report)) -> String {
        let mut report = good();
        change(&mut report);
        steady(&report.requests, report.deliveries.as_ref(), report.server_ended.as_deref()).to_string()
    }

    fn deliveries(report: &mut Report) -> &mut Deliveries {
        report.deliveries.as_mut().expect("a good run has deliveries")
    }

    #[test]
    fn a_run_without_errors_under_every_limit_passes() {
        assert!(judge(|_| ()).starts_with("PASS steady: 1999/s of 2000/s"));
        assert!(judge(|report| report.requests.writes.p99_ms = 40.9).starts_with("PASS"));
        assert!(judge(|report| deliveries(report).from_sent.p95_ms = 2299.0).starts_with("PASS"));
        assert!(judge(|report| report.requests.achieved_per_second = 1980.0).starts_with("PASS"));
    }

    #[test]
    fn each_shortcoming_alone_fails_and_is_named() {
        let cases = [
            (judge(|report| report.requests.errors = 1), "1 errors"),
            (judge(|report| report.requests.unanswered = 2), "2 requests unanswered"),
            (judge(|report| report.requests.writes.p99_ms = 41.0), "writes p99 41.0 ms"),
            (
                judge(|report| deliveries(report).from_sent.p95_ms = 2300.0),
                "write-to-delivered p95 2300.0 ms",
            ),
            (judge(|report| report.requests.achieved_per_second = 1979.0), "achieved 1979.0/s"),
            (judge(|report| deliveries(report).subscribers[2].missing = 3), "3 deliveries missing"),
            (judge(|report| report.server_ended = Some("exit status: 101".to_owned())), "exit status: 101"),
        ];
        for (line, reason) in cases {
            assert!(line.starts_with("FAIL steady: ") && line.contains(reason), "{line}");
        }
    }

    #[test]
    fn duplicates_are_allowed_because_delivery_is_at_least_once() {
        assert!(judge(|report| deliveries(report).subscribers[0].duplicates = 5).starts_with("PASS"));
    }

    #[test]
    fn deliveries_that_were_not_measured_do_not_fail_and_are_said() {
        let line = judge(|report| report.deliveries = None);
        assert!(line.starts_with("PASS") && line.contains("deliveries not measured"), "{line}");
    }

    #[test]
    fn all_reasons_are_named_at_once() {
        let line = judge(|report| {
            report.requests.errors = 7;
            report.requests.unanswered = 8;
        });
        assert!(line.contains("7 errors; 8 requests unanswered"), "{line}");
    }

    #[test]
    fn nothing_offered_is_no_pass() {
        let line = judge(|report| {
            report.requests.offered_per_second = 0.0;
            report.requests.achieved_per_second = 0.0;
        });
        assert!(line.starts_with("FAIL"), "{line}");
    }
}
