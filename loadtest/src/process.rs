//! Stands between `/proc` and the report: what a process has used so far, and which machine it ran on.
//! Invariant: a reading is whole or absent; a number that cannot be read is never shown as zero.

use std::fs;
use std::time::Duration;

use serde::Serialize;

/// The kernel's unit of CPU time for user space, which is a hundredth of a second on every Linux we run on. Asking
/// `sysconf` would take unsafe code.
const TICKS_PER_SECOND: f64 = 100.0;
const KIB: u64 = 1024;

/// Which process to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Ourselves,
    Other(u32),
}

/// CPU time of a process, and how much memory it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// User and system time since it started.
    pub(crate) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(crate) rss: u64,
    /// The most that was ever resident, in bytes.
    pub(crate) peak_rss: u64,
}

/// What a process used over a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Use {
    pub(crate) cpu_seconds: f64,
    /// CPU seconds per second, as a percentage of one core.
    pub(crate) cpu_percent_of_a_core: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
}

/// The machine, as a report names it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
}

impl Reading {
    /// Reads a process; `None` when it is gone or `/proc` is not there.
    pub(crate) fn of(subject: Subject) -> Option<Self> {
        let directory = match subject {
            Subject::Ourselves => "/proc/self".to_owned(),
            Subject::Other(pid) => format!("/proc/{pid}"),
        };
        let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
        let status = fs::read_to_string(format!("{directory}/status")).ok()?;
        Some(Self {
            cpu: cpu_time(&stat)?,
            rss: memory(&status, "VmRSS:")?,
            peak_rss: memory(&status, "VmHWM:")?,
        })
    }

    /// What was used since `earlier`, `wall` ago.
    pub(crate) fn since(&self, earlier: &Self, wall: Duration) -> Use {
        let cpu_seconds = self.cpu.saturating_sub(earlier.cpu).as_secs_f64();
        let share = if wall.is_zero() { 0.0 } else { cpu_seconds / wall.as_secs_f64() };
        Use {
            cpu_seconds,
            cpu_percent_of_a_core: 100.0 * share,
            rss_bytes: self.rss,
            peak_rss_bytes: self.peak_rss,
        }
    }
}

impl Machine {
    /// The machine we are on.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: processor.unwrap_or_else(|| "unknown processor".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// The sum of fields 14 and 15 of `/proc/PID/stat` (proc(5)). The second field is the program's name in parentheses and
/// may itself hold spaces and parentheses, so the fields are counted from the last one.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND))
}

fn memory(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "17 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("17 (x) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory(status, "VmRSS:"), Some(1_048_576));
        assert_eq!(memory(status, "VmHWM:"), Some(2_097_152));
        assert_eq!(memory(status, "VmSwap:"), None);
    }

    #[test]
    fn use_is_a_difference_over_a_time() {
        let before = Reading { cpu: Duration::from_secs(3), rss: 1, peak_rss: 2 };
        let after = Reading { cpu: Duration::from_secs(4), rss: 10, peak_rss: 20 };
        let used = after.since(&before, Duration::from_secs(4));
        assert!((used.cpu_seconds - 1.0).abs() < 1e-9);
        assert!((used.cpu_percent_of_a_core - 25.0).abs() < 1e-9);
        assert_eq!((used.rss_bytes, used.peak_rss_bytes), (10, 20));
    }

    #[test]
    fn our_own_process_can_be_read() {
        assert!(Reading::of(Subject::Ourselves).is_some_and(|reading| reading.rss > 0));
        assert!(Reading::of(Subject::Other(u32::MAX)).is_none());
    }
}
