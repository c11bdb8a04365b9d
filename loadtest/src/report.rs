//! Stands between the counts of a steady run and its reader: the figures, as a table and as JSON.
//! Invariant: the table and the JSON are made from the same value, and the verdict only from what they show.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::process::{Machine, Use};
use crate::schedule::Spacing;
use crate::verdict::Verdict;

const NANOS_PER_MILLI: f64 = 1e6;
const BYTES_PER_MB: f64 = 1e6;

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    #[serde(rename = "p99.9_ms")]
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Summarises a histogram of nanoseconds; all zero when it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let millis = |nanos: u64| nanos as f64 / NANOS_PER_MILLI;
        let quantile = |q| millis(histogram.value_at_quantile(q));
        Self {
            count: histogram.len(),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: millis(histogram.max()),
        }
    }
}

/// How a steady run was set up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setup {
    pub(crate) rate_per_second: f64,
    pub(crate) arrivals: Spacing,
    pub(crate) duration_seconds: f64,
    pub(crate) warmup_seconds: f64,
    pub(crate) connections: usize,
    pub(crate) reads: f64,
    pub(crate) partitions: u32,
    pub(crate) body_bytes: usize,
    pub(crate) seed: u64,
    pub(crate) run: u32,
}

/// What happened between due, sent and answered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Requests {
    /// Requests due in the measured time, per second.
    pub(crate) offered_per_second: f64,
    /// Requests answered with 2xx in the measured time, per second.
    pub(crate) achieved_per_second: f64,
    /// Answers by status, warm-up included.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Requests without a usable answer, by reason, warm-up included.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Failures and answers other than 2xx, warm-up included.
    pub(crate) errors: u64,
    /// Requests given up before they were answered; no latency shows them.
    pub(crate) unanswered: u64,
    pub(crate) reads: Latency,
    pub(crate) writes: Latency,
    /// How long after it was due a request was sent.
    pub(crate) sent_after_due: Latency,
}

/// What the subscribers got.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deliveries {
    /// Creates that were acknowledged, each owed to every subscriber.
    pub(crate) owed: u64,
    pub(crate) from_sent: Latency,
    pub(crate) from_due: Latency,
    pub(crate) subscribers: Vec<Subscriber>,
}

/// What one subscriber got.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    pub(crate) missing: u64,
    /// Events without an id or a probe, or of another run.
    pub(crate) strange: u64,
}

/// A steady run, whole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) setup: Setup,
    pub(crate) machine: Machine,
    pub(crate) requests: Requests,
    /// Absent when no webhook of the target points here.
    pub(crate) deliveries: Option<Deliveries>,
    /// Absent when the server was not started here.
    pub(crate) server: Option<Use>,
    pub(crate) load_tool: Option<Use>,
    /// How the server ended, when it ended before it was asked to.
    pub(crate) server_ended: Option<String>,
    pub(crate) verdict: Verdict,
}

impl Deliveries {
    /// Deliveries that never came, over all subscribers.
    pub(crate) fn missing(&self) -> u64 {
        self.subscribers.iter().map(|subscriber| subscriber.missing).sum()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.setup)?;
        writeln!(f, "{}\n", self.machine)?;
        writeln!(f, "{}", self.requests)?;
        table_head(f)?;
        row(f, "reads", &self.requests.reads)?;
        row(f, "writes", &self.requests.writes)?;
        if let Some(deliveries) = &self.deliveries {
            row(f, "write to delivered, from sending", &deliveries.from_sent)?;
            row(f, "write to delivered, from due", &deliveries.from_due)?;
        }
        row(f, "sent after due", &self.requests.sent_after_due)?;
        match &self.deliveries {
            Some(deliveries) => write!(f, "\n{deliveries}")?,
            None => writeln!(f, "\ndeliveries were not measured")?,
        }
        writeln!(f)?;
        uses(f, &[("server", self.server), ("load tool", self.load_tool)])?;
        if let Some(ended) = &self.server_ended {
            writeln!(f, "the server ended: {ended}")?;
        }
        Ok(())
    }
}

impl Display for Setup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let spacing = match self.arrivals {
            Spacing::Poisson => "poisson",
            Spacing::Constant => "constant",
        };
        writeln!(
            f,
            "open loop, {} requests/s ({spacing}, seed {}) for {} s after {} s of warm-up, over {} connections",
            self.rate_per_second, self.seed, self.duration_seconds, self.warmup_seconds, self.connections,
        )?;
        write!(
            f,
            "{:.0} % point reads, the rest creates of {} bytes, over {} partitions; run {:08x}",
            100.0 * self.reads,
            self.body_bytes,
            thousands(u64::from(self.partitions)),
            self.run,
        )
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, Linux {}", self.processor, self.cores, self.kernel)
    }
}

impl Display for Requests {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (offered, achieved) = (self.offered_per_second, self.achieved_per_second);
        let share = if offered > 0.0 { 100.0 * achieved / offered } else { 0.0 };
        writeln!(f, "throughput  offered {offered:.1}/s, achieved {achieved:.1}/s ({share:.2} %)")?;
        let statuses: Vec<String> =
            self.statuses.iter().map(|(status, count)| format!("{status}: {}", thousands(*count))).collect();
        writeln!(f, "answers     {}", statuses.join(", "))?;
        let mut failures: Vec<String> =
            self.failures.iter().map(|(name, count)| format!("{name}: {}", thousands(*count))).collect();
        if self.unanswered > 0 {
            failures.push(format!("given up unanswered: {}", thousands(self.unanswered)));
        }
        let failures =
            if failures.is_empty() { String::new() } else { format!(" ({})", failures.join(", ")) };
        writeln!(f, "errors      {}{failures}", thousands(self.errors + self.unanswered))
    }
}

impl Display for Deliveries {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let head = ["owed", "received", "duplicates", "missing", "strange"];
        writeln!(f, "{:<34}{}", "deliveries", head.map(|name| format!("{name:>11}")).concat())?;
        for each in &self.subscribers {
            let cells = [self.owed, each.received, each.duplicates, each.missing, each.strange];
            writeln!(
                f,
                "{:<34}{}",
                each.name,
                cells.map(|cell| format!("{:>11}", thousands(cell))).concat()
            )?;
        }
        Ok(())
    }
}

fn table_head(f: &mut Formatter<'_>) -> fmt::Result {
    let head = ["count", "p50", "p95", "p99", "p99.9", "max"];
    writeln!(f, "{:<34}{}", "latency, ms", head.map(|name| format!("{name:>11}")).concat())
}

fn row(f: &mut Formatter<'_>, name: &str, latency: &Latency) -> fmt::Result {
    let Latency { count, p50_ms, p95_ms, p99_ms, p999_ms, max_ms } = *latency;
    let cells = [p50_ms, p95_ms, p99_ms, p999_ms, max_ms].map(|cell| format!("{cell:>11.3}")).concat();
    writeln!(f, "{name:<34}{:>11}{cells}", thousands(count))
}

/// A table of what processes used.
pub(crate) fn uses(f: &mut Formatter<'_>, uses: &[(&str, Option<Use>)]) -> fmt::Result {
    let head = ["CPU s", "% of a core", "RSS MB", "peak MB"];
    writeln!(f, "{:<34}{}", "process", head.map(|name| format!("{name:>13}")).concat())?;
    for (name, used) in uses {
        let Some(used) = used else {
            writeln!(f, "{name:<34}{:>13}", "not known")?;
            continue;
        };
        let cells = [
            used.cpu_seconds,
            used.cpu_percent_of_a_core,
            used.rss_bytes as f64 / BYTES_PER_MB,
            used.peak_rss_bytes as f64 / BYTES_PER_MB,
        ];
        writeln!(f, "{name:<34}{}", cells.map(|cell| format!("{cell:>13.2}")).concat())?;
    }
    Ok(())
}

/// A count with its thousands set apart.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    1000.0 * duration.as_secs_f64()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tally::histogram;

    /// A run with nothing to complain about.
    pub(crate) fn good() -> Report {
        let latency =
            |ms: f64| Latency { count: 1000, p50_ms: ms, p95_ms: ms, p99_ms: ms, p999_ms: ms, max_ms: ms };
        let used = Use { cpu_seconds: 1.5, cpu_percent_of_a_core: 15.0, rss_bytes: 1, peak_rss_bytes: 2 };
        let subscriber = |n| Subscriber {
            name: format!("subscriber-{n}"),
            received: 600,
            duplicates: 0,
            missing: 0,
            strange: 0,
        };
        Report {
            setup: Setup {
                rate_per_second: 2000.0,
                arrivals: Spacing::Poisson,
                duration_seconds: 30.0,
                warmup_seconds: 5.0,
                connections: 64,
                reads: 0.7,
                partitions: 1000,
                body_bytes: 1000,
                seed: 1,
                run: 2,
            },
            machine: Machine { processor: "Abacus".to_owned(), cores: 2, kernel: "6.12".to_owned() },
            requests: Requests {
                offered_per_second: 2000.0,
                achieved_per_second: 1999.0,
                statuses: BTreeMap::from([(200, 1400), (201, 600)]),
                failures: BTreeMap::new(),
                errors: 0,
                unanswered: 0,
                reads: latency(0.5),
                writes: latency(2.0),
                sent_after_due: latency(0.1),
            },
            deliveries: Some(Deliveries {
                owed: 600,
                from_sent: latency(5.0),
                from_due: latency(5.5),
                subscribers: (1..=4).map(subscriber).collect(),
            }),
            server: Some(used),
            load_tool: Some(used),
            server_ended: None,
            verdict: Verdict::pass("steady", "all well".to_owned()),
        }
    }

    #[test]
    fn latencies_are_the_quantiles_of_what_was_recorded() {
        let mut recorded = histogram().unwrap();
        for micros in 1..=1000_u64 {
            recorded.record(micros * 1000).unwrap();
        }
        let latency = Latency::of(&recorded);
        assert_eq!(latency.count, 1000);
        for (shown, expected) in [
            (latency.p50_ms, 0.5),
            (latency.p95_ms, 0.95),
            (latency.p99_ms, 0.99),
            (latency.p999_ms, 0.999),
            (latency.max_ms, 1.0),
        ] {
            assert!((shown - expected).abs() < 0.002, "{shown} for {expected}");
        }
    }

    #[test]
    fn an_empty_histogram_is_shown_as_zero() {
        assert_eq!(Latency::of(&histogram().unwrap()).max_ms, 0.0);
    }

    #[test]
    fn the_table_shows_every_status_and_every_subscriber() {
        let text = good().to_string();
        assert!(text.contains("200: 1,400, 201: 600"));
        assert!(text.contains("subscriber-4"));
    }

    #[test]
    fn what_was_not_measured_is_said_and_not_shown_as_zero() {
        let report = Report { deliveries: None, server: None, ..good() };
        let text = report.to_string();
        assert!(text.contains("deliveries were not measured"));
        assert!(text.contains("not known"));
        assert_eq!(serde_json::to_value(&report).unwrap()["server"], serde_json::Value::Null);
    }

    #[test]
    fn the_json_says_the_same_as_the_table() {
        let json = serde_json::to_value(good()).unwrap();
        assert_eq!(json["requests"]["writes"]["p99.9_ms"], 2.0);
        assert_eq!(json["requests"]["statuses"]["201"], 600);
        assert_eq!(json["deliveries"]["subscribers"][3]["missing"], 0);
        assert_eq!(json["verdict"], "PASS steady: all well");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(count), text);
        }
    }
}
