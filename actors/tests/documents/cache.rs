//! Readers ask memory first, and are never told something that is older than what they could know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lanekeeper_actors::model::ids::DocumentId;
use serde_json::json;

use crate::support::id;
use crate::world::{AMPLE, Door, World, create, delete, plain, unique, upsert};

/// Each document goes through these steps for ever; after step `n` it has this number, or is gone.
const GONE_EACH: u64 = 7;

struct Track {
    name: DocumentId,
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Track {
    /// The first step not before `least` that explains what was seen.
    fn step(found: Option<u64>, least: u64) -> u64 {
        found.unwrap_or_else(|| least.next_multiple_of(GONE_EACH))
    }

    fn check(&self, seen: impl FnOnce() -> Option<u64>, last: &mut u64) {
        let least = self.acknowledged.load(Ordering::SeqCst).max(*last);
        let found = seen();
        let most = self.begun.load(Ordering::SeqCst);
        let step = Self::step(found, least);
        assert!((least..=most).contains(&step), "{}: {found:?} is not of {least}..={most}", self.name);
        *last = step;
    }
}

fn number(body: &bytes::Bytes) -> u64 {
    crate::world::stripped(body)["n"].as_u64().unwrap()
}

fn read(door: &Door, tracks: &[Track], stop: &AtomicBool, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut last = vec![0; tracks.len()];
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = rng.usize(0..tracks.len());
        let track = &tracks[at];
        if rng.u8(0..8) > 0 {
            let seen = || door.0.read(&track.name).unwrap().map(|found| number(&found.body));
            track.check(seen, &mut last[at]);
        } else {
            let seen = || {
                let page = door.0.list(None, 100, 1 << 20).unwrap();
                let found = page.documents.iter().find(|found| found.document.id == track.name);
                found.map(|found| number(&found.document.body))
            };
            track.check(seen, &mut last[at]);
        }
        reads += 1;
    }
    reads
}

async fn write(door: &Door, track: &Track, is_over: &impl Fn() -> bool) {
    while !is_over() {
        let step = track.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let name = track.name.as_str();
        if step.is_multiple_of(GONE_EACH) {
            door.one(delete(name)).await.unwrap();
        } else {
            door.one(upsert(name, json!({"n": step}))).await.unwrap();
        }
        track.acknowledged.store(step, Ordering::SeqCst);
        // Now and then the view catches up, and readers fill the cache from it.
        if step.is_multiple_of(5) {
            tokio::time::sleep(Duration::from_millis(step % 40)).await;
        }
    }
}

#[actix::test]
async fn readers_see_every_acknowledged_write_and_never_go_back() {
    for (container, cache) in [(plain("loads"), 32 << 20), (unique("loads", &[&["n", "id"]]), 4 << 10)] {
        let world = World::with(vec![container], |config| {
            config.shard.document_cache_bytes = cache;
            config.shard.checkpoint_interval = Duration::from_millis(20);
        });
        let world = world.await;
        let door = world.door("loads", "a");
        let tracks: Arc<Vec<Track>> = Arc::new(
            (0..6)
                .map(|n| Track {
                    name: id(&format!("d{n}")),
                    begun: AtomicU64::new(0),
                    acknowledged: AtomicU64::new(0),
                })
                .collect(),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let (door, tracks, stop) = (door.clone(), tracks.clone(), stop.clone());
                std::thread::spawn(move || read(&door, &tracks, &stop, seed))
            })
            .collect();
        let begun = Instant::now();
        // Long enough, and on a busy machine until the cache was met and missed.
        let is_over = || {
            let (hits, misses) = world.shard(&door).status().cache;
            let enough = begun.elapsed() > Duration::from_millis(1_200) && hits > 0 && misses > 0;
            enough || begun.elapsed() > AMPLE
        };
        futures_util::future::join_all(tracks.iter().map(|track| write(&door, track, &is_over))).await;
        stop.store(true, Ordering::Relaxed);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        let (hits, misses) = world.shard(&door).status().cache;
        println!("{reads} reads, {hits} from the cache, {misses} from the view");
        assert!(reads > 100 && hits > 0 && misses > 0);
        world.end().await;
    }
}

#[actix::test]
async fn a_reader_who_was_told_of_a_write_finds_it_by_every_way() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    door.one(create("x", json!({"n": 0}))).await.unwrap();
    for n in 1..50 {
        if n % 10 == 0 {
            crate::world::settle(&world).await;
            // It is in the cache now.
            assert_eq!(
                (door.get("x"), door.get("x")),
                (Some(json!({"n": n - 1})), Some(json!({"n": n - 1})))
            );
        }
        let written = door.one(upsert("x", json!({"n": n}))).await.unwrap();
        let (shard, address) = (world.shard(&door), door.0.address());
        assert_eq!(door.get("x"), Some(json!({"n": n})));
        assert_eq!(shard.version(address, &id("x")).unwrap().unwrap().lsn, written.etag.0.lsn);
        let page = door.0.list(None, 1, 1).unwrap();
        assert_eq!(page.documents[0].document.lsn, written.etag.0.lsn);
        let page = shard.scan(b"loads\0", None, 10, 1 << 20).unwrap();
        assert_eq!(page.documents[0].document.lsn, written.etag.0.lsn);
    }
    world.end().await;
}
