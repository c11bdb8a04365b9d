//! A disk that is full, or that others fill: what takes room is refused, what makes room is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::log::disk::Disk;
use lanekeeper_actors::log::file::LogSettings;
use lanekeeper_actors::log::reserve::Reserve;
use lanekeeper_actors::model::change::{ChangeKind, Mutation, Previous, Table};
use lanekeeper_actors::model::ids::{Lsn, ShardId};
use lanekeeper_actors::shard::{CommitError, CommitReply, Phase, Shard, ShardHandle, ShardSettings};

use super::support::{change, create, id, partition};
use super::tight::TightDisk;

const MIB: u64 = 1 << 20;
/// Name of the file that keeps the room.
const RESERVE: &str = "reserve.tmp";
/// Documents that are written at the same time.
const TOGETHER: usize = 8;
/// Far more documents than there is room for.
const MOST: usize = 10_000;
const AMPLE: Duration = Duration::from_secs(30);

fn settings() -> ShardSettings {
    let log = LogSettings { segment_bytes: MIB, first_segment_bytes: 64 << 10, ..LogSettings::default() };
    let checkpoint_interval = Duration::from_millis(20);
    let reopen_backoff = Duration::from_millis(1);
    ShardSettings {
        log,
        checkpoint_interval,
        reopen_backoff,
        cache_bytes: MIB as usize,
        ..ShardSettings::default()
    }
}

fn start(shard: Shard) -> ShardHandle {
    shard.start(SystemClock::shared(), Arc::new(|text| panic!("{text}"))).unwrap()
}

/// A shard on a disk, and what it was told.
struct Scene {
    disk: TightDisk,
    log: TightDisk,
    shard: ShardHandle,
    /// Documents that are there, with their versions.
    there: BTreeMap<String, Lsn>,
    refused: Vec<String>,
    sent: usize,
    rng: fastrand::Rng,
}

impl Scene {
    fn new(bytes: u64) -> Self {
        let [disk, log] = TightDisk::pair(bytes);
        let disks: (Arc<dyn Disk>, Arc<dyn Disk>) = (Arc::new(disk.clone()), Arc::new(log.clone()));
        let shard = start(Shard::create_on(ShardId(0), disks, settings()).unwrap());
        let (there, refused, rng) = (BTreeMap::new(), Vec::new(), super::support::chance("full disk"));
        Self { disk, log, shard, there, refused, sent: 0, rng }
    }

    /// Stops in order and opens again.
    async fn restart(&mut self) {
        self.shard.drain().await;
        let disks: (Arc<dyn Disk>, Arc<dyn Disk>) = (Arc::new(self.disk.clone()), Arc::new(self.log.clone()));
        self.shard = start(Shard::open_on(ShardId(0), disks, settings()).unwrap());
    }

    fn body(&mut self) -> Bytes {
        let length = self.rng.usize(100..6_000);
        std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect()
    }

    /// Asks for some documents to be written together.
    fn send(&mut self, count: usize) -> Vec<(String, Result<CommitReply, CommitError>)> {
        let mut replies = Vec::new();
        for _ in 0..count {
            self.sent += 1;
            let name = format!("d{}", self.sent);
            let body = self.body();
            replies.push((name.clone(), self.shard.commit(vec![create(&name, body)])));
        }
        replies
    }

    /// The same, and waits for the answers; how many were taken.
    async fn write(&mut self, count: usize) -> usize {
        let replies = self.send(count);
        self.answered(replies).await
    }

    async fn answered(&mut self, replies: Vec<(String, Result<CommitReply, CommitError>)>) -> usize {
        let mut taken = 0;
        for (name, reply) in replies {
            let answer = match reply {
                Ok(reply) => reply.await.unwrap(),
                Err(refused) => Err(refused),
            };
            match answer {
                Ok(committed) => {
                    self.there.insert(name, committed.first);
                    taken += 1;
                }
                Err(CommitError::NoRoom | CommitError::Unavailable) => self.refused.push(name),
                Err(other) => panic!("{name}: {other}"),
            }
        }
        taken
    }

    /// Writes until nothing is taken; how many were.
    async fn fill(&mut self) -> usize {
        let mut all = 0;
        loop {
            let taken = self.write(TOGETHER).await;
            all += taken;
            assert!(all < MOST, "so much has no room");
            // Log behind the next checkpoint may yet go.
            if taken == 0 && self.stays_full().await {
                return all;
            }
        }
    }

    async fn stays_full(&self) -> bool {
        for _ in 0..15 {
            if self.shard.status().phase != Phase::Full {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Deletes one; whatever else is going on, that is taken.
    async fn delete(&mut self) {
        let (name, lsn) = self.there.pop_first().unwrap();
        let gone = change(ChangeKind::Delete, "p", &name, Some(Previous::At(lsn)), Bytes::new());
        let answer = self.shard.commit(vec![gone]).unwrap().await.unwrap();
        assert!(answer.is_ok(), "a delete on a full disk: {answer:?}");
        self.refused.push(name);
    }

    /// Reads everything that was ever sent.
    fn check(&self) {
        let read = |name: &str| self.shard.document(&partition("p"), &id(name)).unwrap();
        for (name, lsn) in &self.there {
            assert_eq!(read(name).map(|found| found.lsn), Some(*lsn), "{name} is lost");
        }
        for name in &self.refused {
            assert!(read(name).is_none(), "{name} was refused or deleted, and is there");
        }
    }

    async fn until(&self, phase: Phase) {
        let deadline = Instant::now() + AMPLE;
        while self.shard.status().phase != phase {
            assert!(Instant::now() < deadline, "never {phase:?} but {:?}", self.shard.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn growth_is_refused_before_anything_fails_and_deletes_are_taken() {
    let mut scene = Scene::new(8 * MIB);
    let first = scene.fill().await;
    assert!(first > 100, "{first} documents had room");
    assert!(scene.disk.length(RESERVE).is_some(), "nothing had to be taken from the reserve");
    assert_eq!(scene.shard.status().reopened, 0);
    scene.check();
    // What happened must be noted.
    let put = |number: usize| Mutation::Put {
        table: Table::Progress,
        key: Bytes::from(format!("s{number}")),
        value: Bytes::from_static(b"cursor"),
    };
    for number in 0..50 {
        scene.shard.commit(vec![put(number)]).unwrap().await.unwrap().unwrap();
        scene.delete().await;
    }
    scene.check();
    scene.restart().await;
    scene.check();
    // What is gone has left room inside of the view's file.
    while scene.there.len() > first / 4 {
        scene.delete().await;
    }
    scene.until(Phase::Open).await;
    let second = scene.fill().await;
    assert!(second > first / 10, "only {second} documents had room where {} were", first * 3 / 4);
    assert_eq!(scene.shard.status().reopened, 0);
    scene.check();
    scene.disk.resize(64 * MIB);
    scene.until(Phase::Open).await;
    assert_eq!(scene.write(TOGETHER).await, TOGETHER);
    scene.restart().await;
    scene.check();
}

#[tokio::test]
async fn a_delete_beside_writes_that_are_refused_is_taken() {
    let mut scene = Scene::new(8 * MIB);
    scene.fill().await;
    for _ in 0..20 {
        let creates: Vec<_> = (0..TOGETHER)
            .map(|number| {
                let name = format!("more-{number}");
                scene.shard.commit(vec![create(&name, vec![0; 200_000])]).unwrap()
            })
            .collect();
        scene.delete().await;
        for reply in creates {
            assert_eq!(reply.await.unwrap().err(), Some(CommitError::NoRoom));
        }
    }
    scene.check();
}

#[tokio::test]
async fn the_reserve_is_used_when_others_fill_the_disk_and_made_again_when_they_do_not() {
    let mut scene = Scene::new(64 * MIB);
    scene.write(50).await;
    assert_eq!(scene.disk.length(RESERVE), Some(MIB));
    for _ in 0..3 {
        scene.disk.clog();
        let taken = scene.fill().await;
        assert!(taken < MOST / 10);
        scene.check();
        for _ in 0..10 {
            scene.delete().await;
        }
        assert_eq!(scene.disk.length(RESERVE), None, "a delete needed it, or a checkpoint");
        scene.disk.unclog();
        scene.until(Phase::Open).await;
        assert_eq!(scene.write(50).await, 50);
        assert_eq!(scene.disk.length(RESERVE), Some(MIB));
    }
    scene.restart().await;
    scene.check();
}

#[tokio::test]
async fn where_nobody_tells_the_room_a_full_disk_is_found_out_and_loses_nothing() {
    let mut scene = Scene::new(16 * MIB);
    scene.write(50).await;
    scene.disk.fall_silent();
    // Until the log or the view finds no room. Who has asked by then may have to wait until there is some.
    let deadline = Instant::now() + AMPLE;
    let mut owed = Vec::new();
    while scene.shard.status().phase == Phase::Open {
        owed.extend(scene.send(TOGETHER));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(Instant::now() < deadline);
    }
    scene.disk.resize(256 * MIB);
    scene.until(Phase::Open).await;
    assert!(scene.answered(owed).await > 0);
    assert!(scene.write(TOGETHER).await > 0);
    scene.check();
    scene.restart().await;
    scene.check();
}

#[tokio::test]
async fn a_reserve_is_never_more_than_a_part_of_the_disk_and_is_made_whole() {
    let [disk, _] = TightDisk::pair(32 * MIB);
    let new = |wanted: u64| Reserve::new(Arc::new(disk.clone()), wanted);
    assert!(new(0).hold());
    assert_eq!(disk.length(RESERVE), None);
    let reserve = new(8 * MIB);
    assert!(!reserve.is_held());
    assert!(reserve.hold() && reserve.is_held());
    assert_eq!(disk.length(RESERVE), Some(MIB));
    // The next process takes it over.
    assert!(new(8 * MIB).is_held());
    // One that was being made is made again, and one of a wish that was given up is given back.
    disk.open(RESERVE).unwrap().set_len(1_000).unwrap();
    let reserve = new(8 * MIB);
    assert!(!reserve.is_held() && reserve.hold());
    assert_eq!(disk.length(RESERVE), Some(MIB));
    let smaller = new(MIB / 4);
    assert!(!smaller.is_held() && smaller.hold());
    assert_eq!(disk.length(RESERVE), Some(MIB / 4));
    // Given once, and made again only when there is twice as much.
    assert!(smaller.release() && !smaller.release());
    disk.clog();
    assert!(!smaller.hold());
    disk.unclog();
    assert!(smaller.hold());
}
