//! The audit log: what operators changed, when the process began and ended, who was refused, and, where the manifest
//! asks for it, every request.
//!
//! Stands between whoever does something that must not be deniable and the files in `DATA/audit`. Invariants: a line
//! that was written is never changed, and each carries the hash of the line before; a change of an operator is made
//! only after its record is on disk; nobody else ever waits for the disk; no secret is in any line.

mod chain;
mod head;
mod line;
mod queue;
mod read;
mod record;
mod recovery;
mod reserve;
mod sample;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lanekeeper_actors::kernel::clock::SharedClock;
use tokio::sync::oneshot;

pub use self::read::{Page, Question, Start};
pub use self::record::{Actor, Outcome, Record, digest, redacted};
pub use self::verify::{Anchor, Fault, InvalidAnchor, Report, VerifyError, verify};

use self::queue::{Entry, Queue};
use self::sample::Sample;
use self::writer::Writer;

/// The folder of the log in the data directory.
pub const FOLDER: &str = "audit";

/// What the manifest says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long records are kept at least, as far as `total` allows.
    pub retain: Duration,
    /// Most bytes of all files together; the oldest go first.
    pub total: u64,
    /// Bytes after which a new file is begun.
    pub file: u64,
    /// Whether every request of the public listener has a record.
    pub requests: bool,
    /// How many refusals are recorded; none where it is `None`.
    pub refusals: Option<(NonZeroU32, Duration)>,
    /// How much of a client's address is recorded.
    pub addresses: Addresses,
    /// Records that wait for the disk, besides those of changes.
    pub queue: usize,
}

/// How much of a client's address is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    /// All of it.
    #[default]
    Full,
    /// The network: the first 24 bits of IPv4, the first 48 of IPv6.
    Masked,
    /// Nothing.
    Off,
}

/// Why a record is not on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// The disk does not take it.
    #[error("the audit log cannot be written")]
    Disk,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

/// What is counted of the log since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records on disk.
    pub records: u64,
    /// Records that found the queue full, or the disk.
    pub dropped: u64,
    /// Refusals beyond the sample.
    pub sampled_out: u64,
    /// Groups that the disk did not take.
    pub failures: u64,
    /// Records that wait for the disk.
    pub waiting: usize,
}

/// The log of a running process. Cheap to clone; its thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Audit {
    shared: Arc<Shared>,
    /// Ends the thread.
    _guard: Arc<Guard>,
}

/// What the thread and all handles see.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    settings: Settings,
    clock: SharedClock,
    queue: Queue,
    sample: Sample,
    /// The last record that is on disk; 0 while there is none, or nobody looked yet.
    synced: AtomicU64,
    records: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Audit {
    /// Starts the thread that writes into `data`. The files are opened with the first record, so a disk that is
    /// full or broken stops no start.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(data: &Path, settings: Settings, clock: SharedClock) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            folder: data.join(FOLDER),
            settings,
            clock,
            queue: Queue::new(settings.queue),
            sample: Sample::new(settings.refusals),
            synced: AtomicU64::new(0),
            records: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let writer = Writer::new(shared.clone());
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { _guard: Arc::new(Guard(shared.clone())), shared })
    }

    /// Writes a record, and returns its number once it is on disk.
    ///
    /// # Errors
    /// [`Unwritten`]; then it is not there, and never will be.
    pub async fn write(&self, record: Record) -> Result<u64, Unwritten> {
        let (told, tell) = oneshot::channel();
        self.shared.queue.demand(self.entry(record), told)?;
        tell.await.unwrap_or(Err(Unwritten::Closed))
    }

    /// Notes a refusal, if it is in the sample. Never waits.
    pub fn refused(&self, record: impl FnOnce() -> Record) {
        if self.shared.sample.takes(self.shared.clock.elapsed()) {
            self.shared.queue.note(self.entry(record()));
        }
    }

    /// Notes a request, if requests are recorded. Never waits.
    pub fn answered(&self, record: impl FnOnce() -> Record) {
        if self.shared.settings.requests {
            self.shared.queue.note(self.entry(record()));
        }
    }

    /// Notes what became of a change whose operator does not wait any more. Never waits.
    pub fn abandoned(&self, record: Record) {
        self.shared.queue.note(self.entry(record));
    }

    /// Reads a page; takes the time of the disk.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub fn page(&self, question: &Question) -> io::Result<Page> {
        read::page(&self.shared.folder, self.shared.synced.load(Ordering::Acquire), question)
    }

    /// What is counted.
    pub fn counts(&self) -> Counts {
        Counts {
            records: self.shared.records.load(Ordering::Relaxed),
            dropped: self.shared.queue.dropped(),
            sampled_out: self.shared.sample.passed_over(),
            failures: self.shared.failures.load(Ordering::Relaxed),
            waiting: self.shared.queue.waiting(),
        }
    }

    /// Writes the last record and closes the log: what is noted afterwards is dropped.
    ///
    /// # Errors
    /// [`Unwritten`]
    pub async fn close(&self, last: Record) -> Result<u64, Unwritten> {
        let written = self.write(last).await;
        self.shared.queue.close();
        written
    }

    fn entry(&self, mut record: Record) -> Entry {
        record.client = record.client.and_then(|address| self.shared.settings.addresses.shown(address));
        Entry { at: self.shared.clock.now(), record }
    }
}

impl Addresses {
    /// What of this address is recorded.
    fn shown(self, address: IpAddr) -> Option<IpAddr> {
        match (self, address.to_canonical()) {
            (Self::Off, _) => None,
            (Self::Full, address) => Some(address),
            (Self::Masked, IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                Some(Ipv4Addr::new(a, b, c, 0).into())
            }
            (Self::Masked, IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                Some(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into())
            }
        }
    }
}
