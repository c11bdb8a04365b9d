//! A system whose containers and clock are the test's, and short names for what is asked of it.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use fail::FailScenario;
use futures_util::future::BoxFuture;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::kernel::clock::{ManualClock, SharedClock};
use lanekeeper_actors::model::change::{ChangeKind, DocumentChange};
use lanekeeper_actors::model::delivery::{Attempt, Outcome, Transport};
use lanekeeper_actors::model::document::{DocumentRules, KeyPath, parse};
use lanekeeper_actors::model::ids::{DocumentId, Lsn};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::container::{Catalog, Container};
use lanekeeper_actors::policy::patch::{Patch as Change, PatchLimits};
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::policy::ttl::ContainerTtl;
use lanekeeper_actors::protocol::partition::{
    Content, Operation, Patch, TransactionResult, Write, WriteError, WriteResult,
};
use lanekeeper_actors::query::Condition;
use lanekeeper_actors::shard::{Fatal, ShardHandle};
use lanekeeper_actors::system::{System, SystemConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

pub(crate) use crate::support::AMPLE;
use crate::support::{assert_view_is_the_log, at, config, cut, id, stop};

/// What the clock shows at first: half of a second has passed.
pub(crate) const BEGIN: Timestamp = Timestamp(1_700_000_000_500);

/// No subscription, no delivery.
struct Nowhere;

impl Transport for Nowhere {
    fn deliver(&self, _: Attempt) -> BoxFuture<'static, Outcome> {
        unreachable!("nobody subscribed")
    }
}

/// Faults are the same for the whole process: who makes some runs alone.
static FAULTS: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// Held as long as a world is there.
enum Pass {
    Among(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    Alone(
        #[expect(dead_code, reason = "held, not read")] FailScenario<'static>,
        #[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>,
    ),
}

/// A system and all that outlives it.
pub(crate) struct World {
    pass: Pass,
    pub(crate) folder: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) system: System,
    config: SystemConfig,
}

impl World {
    pub(crate) async fn new(containers: Vec<Container>) -> Self {
        Self::with(containers, |_| {}).await
    }

    pub(crate) async fn with(containers: Vec<Container>, change: impl FnOnce(&mut SystemConfig)) -> Self {
        let pass = Pass::Among(FAULTS.clone().read_owned().await);
        Self::make(pass, containers, change).await
    }

    /// The only one at its time, in which something may be made to fail.
    pub(crate) async fn alone(containers: Vec<Container>, change: impl FnOnce(&mut SystemConfig)) -> Self {
        let guard = FAULTS.clone().write_owned().await;
        Self::make(Pass::Alone(FailScenario::setup(), guard), containers, change).await
    }

    async fn make(pass: Pass, containers: Vec<Container>, change: impl FnOnce(&mut SystemConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), vec![]);
        config.catalog = Catalog::new(containers);
        config.directory.queue = 1_024;
        // What a test takes away by itself must not be gone before.
        config.upkeep = None;
        change(&mut config);
        Self::open(pass, folder, ManualClock::at(BEGIN), config).await
    }

    async fn open(pass: Pass, folder: TempDir, clock: Arc<ManualClock>, mut config: SystemConfig) -> Self {
        config.data = folder.path().to_owned();
        let fatal: Fatal = Arc::new(|text: &str| panic!("{text}"));
        let shared: SharedClock = clock.clone();
        let system = System::start(config.clone(), Arc::new(Nowhere), shared, fatal).await.unwrap();
        Self { pass, folder, clock, system, config }
    }

    /// Ends it in good order and starts it again.
    pub(crate) async fn restart(self) -> Self {
        let Self { pass, folder, clock, system, config } = self;
        stop(system).await;
        Self::open(pass, folder, clock, config).await
    }

    /// The same, with something done to the files in between.
    pub(crate) async fn restart_after(self, work: impl FnOnce(&Path)) -> Self {
        let Self { pass, folder, clock, system, config } = self;
        stop(system).await;
        work(folder.path());
        Self::open(pass, folder, clock, config).await
    }

    /// The same with other containers.
    pub(crate) async fn restart_with(self, catalog: Catalog) -> Self {
        let Self { pass, folder, clock, system, mut config } = self;
        stop(system).await;
        config.catalog = catalog;
        Self::open(pass, folder, clock, config).await
    }

    /// Ends it in the middle of what it does and starts it again.
    pub(crate) async fn cut(self) -> Self {
        let Self { pass, folder, clock, system, config } = self;
        cut(system).await;
        Self::open(pass, folder, clock, config).await
    }

    /// Starts from what a process killed now would leave. Nobody may write meanwhile, and there must be
    /// no checkpoints.
    pub(crate) async fn kill(self) -> Self {
        let left = tempfile::tempdir().unwrap();
        copy(self.folder.path(), left.path());
        let Self { pass, clock, system, config, folder } = self;
        cut(system).await;
        drop(folder);
        Self::open(pass, left, clock, config).await
    }

    /// Ends it, after a look at whether views and logs agree.
    pub(crate) async fn end(self) {
        for shard in self.system.shards() {
            assert_view_is_the_log(shard);
        }
        stop(self.system).await;
        let report = lanekeeper_actors::verify::directory(self.folder.path()).unwrap();
        assert_eq!(report.problems, [], "the directory is not as it must be");
    }

    pub(crate) fn door(&self, container: &str, lane: &str) -> Door {
        Door(at(&self.system, container, None, lane))
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    /// The shard of a partition.
    pub(crate) fn shard(&self, door: &Door) -> &ShardHandle {
        &self.system.shards()[usize::from(door.0.shard().0)]
    }

    /// Everything that happened to the documents of a shard, in the order of the log.
    pub(crate) fn log(&self, door: &Door) -> Vec<(Lsn, DocumentChange)> {
        history(self.shard(door))
    }
}

pub(crate) fn history(shard: &ShardHandle) -> Vec<(Lsn, DocumentChange)> {
    let log = shard.log();
    let (mut all, mut from) = (Vec::new(), log.first());
    loop {
        let groups = log.read(from, 1 << 20).unwrap();
        let Some(last) = groups.last() else { return all };
        from = last.last().next();
        for group in &groups {
            all.extend(group.changes().map(|(lsn, change)| (lsn, change.clone())));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A container with nothing but a key, `/lane`.
pub(crate) fn plain(name: &str) -> Container {
    Container::plain(name.into(), rules())
}

pub(crate) fn rules() -> DocumentRules {
    let key = vec![KeyPath::property(vec!["lane".into()])];
    DocumentRules { key, max_bytes: 64 << 10, max_depth: 32 }
}

pub(crate) fn path(text: &str) -> Vec<String> {
    text.split('/').map(str::to_owned).collect()
}

/// A container with these unique keys, each a list of paths.
pub(crate) fn unique(name: &str, keys: &[&[&str]]) -> Container {
    let unique = keys.iter().map(|paths| paths.iter().map(|text| path(text)).collect());
    Container { unique: unique.collect(), ..plain(name) }
}

/// A container whose documents expire.
pub(crate) fn expiring(name: &str, default: Option<i64>) -> Container {
    Container { ttl: ContainerTtl::new(default).unwrap(), ..plain(name) }
}

/// The document as a body that came from outside. Its lane is always `a`.
pub(crate) fn content(name: &str, mut document: Value) -> Content {
    document["id"] = json!(name);
    document["lane"] = json!("a");
    let body = Bytes::from(document.to_string());
    Content::try_from(parse(&body, &rules(), || unreachable!()).unwrap()).unwrap()
}

pub(crate) fn write(name: &str, operation: Operation) -> Write {
    Write { id: id(name), operation, precondition: Precondition::None, traceparent: None }
}

pub(crate) fn if_match(write: Write, tag: &str) -> Write {
    Write { precondition: Precondition::parse(Some(tag), None).unwrap(), ..write }
}

pub(crate) fn create(name: &str, document: Value) -> Write {
    write(name, Operation::Create(content(name, document)))
}

pub(crate) fn upsert(name: &str, document: Value) -> Write {
    write(name, Operation::Upsert(content(name, document)))
}

pub(crate) fn replace(name: &str, document: Value) -> Write {
    write(name, Operation::Replace(content(name, document)))
}

pub(crate) fn read(name: &str) -> Write {
    write(name, Operation::Read)
}

pub(crate) fn delete(name: &str) -> Write {
    write(name, Operation::Delete)
}

/// `operations` is the body of a patch.
pub(crate) fn patch(name: &str, operations: &Value) -> Write {
    let body = operations.to_string();
    let change = Change::parse(None, body.as_bytes(), PatchLimits::default()).unwrap();
    let condition = change.condition().map(|text| Condition::parse(text).unwrap());
    write(name, Operation::Patch(Box::new(Patch { change, condition })))
}

/// The way to one partition.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) PartitionHandle);

impl Door {
    pub(crate) async fn one(&self, write: Write) -> WriteResult {
        self.0.write(write, AMPLE).await
    }

    /// What the write did.
    pub(crate) async fn kind(&self, write: Write) -> Result<ChangeKind, WriteError> {
        self.one(write).await.map(|written| written.kind.unwrap())
    }

    pub(crate) async fn all(&self, writes: Vec<Write>) -> TransactionResult {
        self.0.transact(writes, None, AMPLE).await
    }

    /// The document without its id and its lane.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let found = self.0.read(&id(name)).unwrap()?;
        Some(stripped(&found.body))
    }

    /// The ids of all documents that a reader sees.
    pub(crate) fn ids(&self) -> Vec<String> {
        let (mut all, mut after): (Vec<String>, Option<DocumentId>) = (Vec::new(), None);
        loop {
            let page = self.0.list(after.as_ref(), 3, 1 << 20).unwrap();
            all.extend(page.documents.iter().map(|found| found.document.id.as_str().to_owned()));
            after = page.documents.last().map(|found| found.document.id.clone());
            if !page.more || after.is_none() {
                return all;
            }
        }
    }
}

pub(crate) fn stripped(body: &Bytes) -> Value {
    let mut document: Value = serde_json::from_slice(body).unwrap();
    let properties = document.as_object_mut().unwrap();
    assert!(properties.remove("id").is_some() && properties.remove("lane").is_some());
    document
}

/// Waits until the views have everything, so that readers find it there and not beside it.
pub(crate) async fn settle(world: &World) {
    let settled = || {
        let mut shards = world.system.shards().iter();
        shards.all(|shard| shard.status().lag == 0 && shard.status().applied == shard.log().tail())
    };
    crate::support::eventually("the views have everything", settled).await;
}
