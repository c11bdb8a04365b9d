//! Opening a shard: log and view from their folder, replay of what the view lacks, two threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fail::fail_point;
use tokio::sync::Notify;

use super::applier::{Applier, catch_up};
use super::overlay::Overlay;
use super::purges::Purges;
use super::room::Room;
use super::writer::{Group, Writer};
use super::{Fatal, Lag, Phase, ShardHandle, ShardSettings, Shared};
use crate::kernel::clock::SharedClock;
use crate::kernel::contain;
use crate::log::disk::{Disk, RealDisk};
use crate::log::file::FileLog;
use crate::log::reserve::Reserve;
use crate::log::{AppendError, CommitLog, ReadError};
use crate::model::ids::ShardId;
use crate::store::{OpenError, View};

/// Groups between the writer and the applier.
const JOBS: usize = 256;

/// Why a shard cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ShardOpenError {
    /// The folder cannot be used.
    #[error("shard {shard}: {source}")]
    Folder { shard: ShardId, source: std::io::Error },
    /// The log cannot be opened.
    #[error("shard {shard}: {source}")]
    Log { shard: ShardId, source: ReadError },
    /// The log cannot be made.
    #[error("shard {shard}: {source}")]
    Create { shard: ShardId, source: AppendError },
    /// The view cannot be opened.
    #[error("shard {shard}: {source}")]
    View { shard: ShardId, source: OpenError },
    /// The view lacks something that the log no longer has, or the log cannot be read.
    #[error("shard {shard}: the view cannot be brought up to its log: {why}")]
    Replay { shard: ShardId, why: String },
    /// The view is ahead of its log: acknowledged writes are missing from the log.
    #[error("shard {shard}: the view is at {applied} but the log ends at {tail}: the log lost its end")]
    LostTail { shard: ShardId, applied: crate::model::ids::Lsn, tail: crate::model::ids::Lsn },
    /// The machine has no thread left.
    #[error("shard {shard}: no thread: {source}")]
    Thread { shard: ShardId, source: std::io::Error },
}

/// A log and a view, not yet driven by threads.
pub struct Shard {
    id: ShardId,
    log: Box<dyn CommitLog>,
    view: View,
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
    settings: ShardSettings,
}

impl Shard {
    /// Makes a new shard in `folder`.
    pub fn create(id: ShardId, folder: &Path, settings: ShardSettings) -> Result<Self, ShardOpenError> {
        Self::create_on(id, disks(id, folder)?, settings)
    }

    /// The same on any disks.
    pub fn create_on(id: ShardId, disks: Disks, settings: ShardSettings) -> Result<Self, ShardOpenError> {
        let (disk, log_disk) = disks;
        let reserve = Reserve::new(disk, settings.reserve_bytes);
        let disk = reserve.secure();
        let log = FileLog::create(log_disk, settings.log)
            .map_err(|source| ShardOpenError::Create { shard: id, source })?;
        let view = View::create(&*disk, settings.cache_bytes)
            .map_err(|source| ShardOpenError::View { shard: id, source })?;
        Ok(Self { id, log: Box::new(log), view, disk, reserve, settings })
    }

    /// Opens a shard that was made before.
    pub fn open(id: ShardId, folder: &Path, settings: ShardSettings) -> Result<Self, ShardOpenError> {
        Self::open_on(id, disks(id, folder)?, settings)
    }

    /// The same on any disks.
    pub fn open_on(id: ShardId, disks: Disks, settings: ShardSettings) -> Result<Self, ShardOpenError> {
        let (disk, log_disk) = disks;
        let reserve = Reserve::new(disk, settings.reserve_bytes);
        let disk = reserve.secure();
        let view = View::open(&*disk, settings.cache_bytes)
            .map_err(|source| ShardOpenError::View { shard: id, source })?;
        fail_point!("shard::open", |_| Err(ShardOpenError::Replay { shard: id, why: "injected".into() }));
        let log = FileLog::open_reaching(log_disk, settings.log, None, view.applied())
            .map_err(|source| ShardOpenError::Log { shard: id, source })?;
        Ok(Self { id, log: Box::new(log), view, disk, reserve, settings })
    }

    /// A shard of these parts, without a reserve; the view's file is in `disk`.
    pub fn assemble(
        id: ShardId,
        log: Box<dyn CommitLog>,
        view: View,
        disk: Arc<dyn Disk>,
        settings: ShardSettings,
    ) -> Self {
        let reserve = Reserve::new(disk.clone(), 0);
        Self { id, log, view, disk, reserve, settings }
    }

    /// Replays what the view lacks and starts the threads. `fatal` is called if one of them dies.
    pub fn start(self, clock: SharedClock, fatal: Fatal) -> Result<ShardHandle, ShardOpenError> {
        let Self { id, log, view, disk, reserve, settings } = self;
        let reader = log.reader();
        if view.applied() > reader.tail() {
            return Err(ShardOpenError::LostTail { shard: id, applied: view.applied(), tail: reader.tail() });
        }
        let shared = Arc::new(Shared {
            id,
            view: ArcSwapOption::empty(),
            overlay: Overlay::new(settings.document_cache_bytes),
            purges: Purges::default(),
            reader: RwLock::new(reader),
            log_phase: AtomicU8::new(Phase::Open as u8),
            view_down: AtomicBool::new(false),
            doorbell: RwLock::new(None),
            floor: AtomicU64::new(0),
            retained: AtomicU64::new(0),
            log_held: Arc::default(),
            checkpointed: AtomicU64::new(view.applied().0),
            waiting: AtomicUsize::new(0),
            lag: Lag::default(),
            unsaved: AtomicU64::new(0),
            no_growth: AtomicBool::new(false),
            groups: AtomicU64::new(0),
            mutations: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            drained: AtomicBool::new(false),
            applied: Notify::new(),
        });
        catch_up(&view, &shared, settings.read_chunk)
            .map_err(|why| ShardOpenError::Replay { shard: id, why })?;
        shared
            .purges
            .load(&view)
            .map_err(|error| ShardOpenError::Replay { shard: id, why: error.to_string() })?;
        shared.view.store(Some(Arc::new(view)));
        let (send_op, ops) = sync_channel(settings.queue);
        let (send_job, jobs) = sync_channel(JOBS);
        let applier = Applier {
            jobs,
            own_jobs: send_job.clone(),
            shared: shared.clone(),
            disk,
            reserve: reserve.clone(),
            settings: settings.clone(),
            clock: clock.clone(),
            unsaved_bytes: 0,
            unsaved_need: 0,
            checkpoint_at: Some(clock.elapsed()),
            preparing: false,
        };
        let writer = Writer {
            log,
            ops,
            jobs: send_job,
            shared: shared.clone(),
            room: Room::new(reserve, settings.disk_shares),
            settings,
            clock,
            carried: None,
            lazy: Group::default(),
            lazy_until: Duration::ZERO,
        };
        spawn(id, "applier", fatal.clone(), move || applier.run())?;
        spawn(id, "writer", fatal, move || writer.run())?;
        Ok(ShardHandle::new(send_op, shared))
    }
}

/// The folder of the view, and that of the log.
pub type Disks = (Arc<dyn Disk>, Arc<dyn Disk>);

fn disks(id: ShardId, folder: &Path) -> Result<Disks, ShardOpenError> {
    let open =
        |path: &Path| RealDisk::new(path).map_err(|source| ShardOpenError::Folder { shard: id, source });
    Ok((Arc::new(open(folder)?), Arc::new(open(&folder.join("log"))?)))
}

/// A thread whose death is the death of the process: nobody may go on acknowledging without it.
fn spawn(
    id: ShardId,
    role: &str,
    fatal: Fatal,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), ShardOpenError> {
    let name = format!("shard-{id}-{role}");
    let label = name.clone();
    let guarded = move || {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            fatal(&format!("thread `{label}` died: {}", contain::message(&*payload)));
        }
    };
    let spawned = std::thread::Builder::new().name(name).spawn(guarded);
    spawned.map(drop).map_err(|source| ShardOpenError::Thread { shard: id, source })
}
