//! A shard in miniature loses power thousands of times, in the middle of every kind of call, and
//! again while it recovers: what was acknowledged is there, what was not is there whole or gone.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lanekeeper_actors::log::disk::{Disk, DiskFile};
use lanekeeper_actors::log::file::FileLog;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::log::{CommitLog, LogReader};
use lanekeeper_actors::model::change::{CommittedGroup, Mutation};
use lanekeeper_actors::model::ids::Lsn;
use lanekeeper_actors::store::View;

use super::support::{CACHE, Model, append, chance, flat, group, problems, replay, roomy, tiny};

const VIEW: &str = "view.redb";
/// Groups that are committed in one life.
const GROUPS: usize = 60;
/// Lives; each ends with the process, and the next begins with an empty disk.
const LIVES: usize = 24;

/// A disk that keeps, by chance, what a power loss right now would leave of it.
#[derive(Debug, Clone)]
struct Tap {
    disk: SimDisk,
    /// Whether the log's syncs do nothing while saying that they did.
    lies: Arc<AtomicBool>,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Debug)]
struct Watch {
    rng: fastrand::Rng,
    /// An image is taken at one call of this many; never when 0.
    one_in: u32,
    images: Vec<SimDisk>,
}

impl Tap {
    fn new(disk: SimDisk, rng: &mut fastrand::Rng, one_in: u32) -> Self {
        let watch = Watch { rng: rng.fork(), one_in, images: Vec::new() };
        Self { disk, lies: Arc::default(), watch: Arc::new(Mutex::new(watch)) }
    }

    fn look(&self) {
        let watch = &mut *self.watch.lock().unwrap();
        if watch.one_in > 0 && watch.rng.u32(0..watch.one_in) == 0 {
            // Now and then only the process is killed, and the next one loses power.
            let killed = watch.rng.u8(0..4) == 0;
            let image = if killed { self.disk.fork() } else { self.disk.lose_power(&mut watch.rng) };
            watch.images.push(image);
        }
    }

    fn lose_power(&self) -> SimDisk {
        self.disk.lose_power(&mut self.watch.lock().unwrap().rng)
    }

    fn images(&self) -> Vec<SimDisk> {
        std::mem::take(&mut self.watch.lock().unwrap().images)
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TappedFile { file, of_log: name != VIEW, tap: self.clone() })
    }
}

impl Disk for Tap {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.look();
        Ok(self.file(name, self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.disk.open(name)?))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.look();
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)?;
        self.look();
        Ok(())
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()?;
        self.look();
        Ok(())
    }
}

#[derive(Debug)]
struct TappedFile {
    file: Arc<dyn DiskFile>,
    of_log: bool,
    tap: Tap,
}

impl DiskFile for TappedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)?;
        self.tap.look();
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.tap.look();
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.tap.look();
        if !(self.of_log && self.tap.lies.load(Ordering::Relaxed)) {
            self.file.sync()?;
        }
        self.tap.look();
        Ok(())
    }
}

/// What must be found after a power loss.
struct Expected<'a> {
    /// The state that was acknowledged.
    acknowledged: &'a Model,
    /// The state with the group that was being written, if one was.
    in_flight: Option<&'a Model>,
    /// Everything in the log that was acknowledged.
    history: &'a [(Lsn, Mutation)],
    /// The last LSN that was given to anything.
    attempted: Lsn,
}

impl Expected<'_> {
    fn check(&self, model: &Model, log: &FileLog) -> Result<(), String> {
        if model != self.acknowledged && Some(model) != self.in_flight {
            return Err("the view is neither what was acknowledged nor one group more".into());
        }
        if log.tail() < self.attempted {
            return Err(format!("{} would be used again, the log goes on at {}", self.attempted, log.tail()));
        }
        let reader = log.reader();
        let first = reader.first();
        let kept = self.history.iter().skip_while(|(lsn, _)| *lsn < first);
        let groups = read(&*reader, first)?;
        let mut found = groups.iter();
        if !kept.into_iter().all(|mutation| found.next() == Some(mutation)) {
            return Err("the log lacks something that was acknowledged".into());
        }
        if found.next().is_some() && Some(model) != self.in_flight {
            return Err("the log has something that nobody wrote".into());
        }
        Ok(())
    }
}

fn read(reader: &dyn LogReader, from: Lsn) -> Result<Vec<(Lsn, Mutation)>, String> {
    reader.read(from, usize::MAX).map(|groups| flat(&groups)).map_err(|error| error.to_string())
}

/// Opens what power loss left, as a shard does.
fn recover(disk: &Tap) -> Result<(FileLog, View, Model), String> {
    let view = View::open(disk, CACHE).map_err(|error| error.to_string())?;
    // From here on the log may be trimmed up to the view's position.
    let opened = view.applied();
    let again = View::open(&disk.lose_power(), CACHE).map_err(|error| error.to_string())?;
    if again.applied() < opened {
        return Err(format!("the view was opened at {opened}, which was not durable"));
    }
    let log = FileLog::open_reaching(Arc::new(disk.clone()), tiny(), None, view.applied())
        .map_err(|error| error.to_string())?;
    replay(&view, &*log.reader())?;
    let model = Model::of(&view).map_err(|error| error.to_string())?;
    Ok((log, view, model))
}

/// Checks one image: recovers, loses power while recovering, goes on, loses power once more.
/// Returns how many images that were.
fn check(image: SimDisk, expected: &Expected<'_>, rng: &mut fastrand::Rng) -> Result<usize, String> {
    let tap = Tap::new(image, rng, 10);
    let (mut log, view, mut model) = recover(&tap)?;
    expected.check(&model, &log)?;
    let mut count = 1;
    for again in tap.images() {
        let (log, view, model) = recover(&Tap::new(again, rng, 0))?;
        expected.check(&model, &log).map_err(|error| format!("second loss of power: {error}"))?;
        if let [problem, ..] = &*problems(&view) {
            return Err(problem.clone());
        }
        count += 1;
    }
    let group = model.next_group(log.tail().next(), rng);
    let first = log.append(log.tail(), &group).map_err(|error| error.to_string())?;
    view.apply(&[CommittedGroup { first, mutations: group.into() }]).map_err(|error| error.to_string())?;
    let (_, view, found) = recover(&Tap::new(tap.disk.lose_power(rng), rng, 0))?;
    if found != model {
        return Err("a group that was acknowledged after recovery is not there".into());
    }
    if let [problem, ..] = &*problems(&view) {
        return Err(problem.clone());
    }
    Ok(count + 1)
}

/// What came of the images of some lives.
#[derive(Debug, Default)]
struct Verdict {
    images: usize,
    losses: Vec<String>,
}

impl Verdict {
    fn take(&mut self, images: Vec<SimDisk>, expected: &Expected<'_>, rng: &mut fastrand::Rng) {
        for image in images {
            match check(image, expected, rng) {
                Ok(count) => self.images += count,
                Err(loss) => self.losses.push(loss),
            }
        }
    }
}

/// One life of a shard, from its making to its last group.
fn live(rng: &mut fastrand::Rng, lie: bool, verdict: &mut Verdict) {
    let tap = Tap::new(SimDisk::new(), rng, 12);
    let settings = if lie { roomy() } else { tiny() };
    let mut log = FileLog::create(Arc::new(tap.clone()), settings).unwrap();
    let view = View::create(&tap, CACHE).unwrap();
    tap.images().clear();
    tap.lies.store(lie, Ordering::Relaxed);
    let mut acknowledged = Model::default();
    let mut history: Vec<(Lsn, Mutation)> = Vec::new();
    for _ in 0..GROUPS {
        let first = log.tail().next();
        let mut after = acknowledged.clone();
        let group = after.next_group(first, rng);
        let attempted = first.plus(group.len() as u64 - 1);
        assert_eq!(log.append(log.tail(), &group).unwrap(), first);
        let during =
            Expected { acknowledged: &acknowledged, in_flight: Some(&after), history: &history, attempted };
        verdict.take(tap.images(), &during, rng);
        let groups = [CommittedGroup { first, mutations: group.into() }];
        history.extend(flat(&groups));
        acknowledged = after;
        view.apply(&groups).unwrap();
        if rng.u8(0..6) == 0 {
            let saved = view.checkpoint().unwrap();
            if rng.bool() {
                log.trim(saved.next()).unwrap();
            }
        }
        let expected =
            Expected { acknowledged: &acknowledged, in_flight: None, history: &history, attempted };
        tap.look();
        verdict.take(tap.images(), &expected, rng);
    }
    assert_eq!(Model::of(&view).unwrap(), acknowledged);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_made_up() {
    let mut rng = chance("power loss");
    let mut verdict = Verdict::default();
    for _ in 0..LIVES {
        live(&mut rng, false, &mut verdict);
    }
    println!("{} images", verdict.images);
    assert_eq!(verdict.losses, [""; 0]);
    assert!(verdict.images > 5_000, "only {} images", verdict.images);
}

/// The checker must be able to see a loss: without the sync, acknowledged groups are lost.
#[test]
fn a_log_without_its_sync_is_found_out() {
    let mut rng = chance("power loss, no sync");
    let mut verdict = Verdict::default();
    live(&mut rng, true, &mut verdict);
    println!("{} images, {} losses", verdict.images, verdict.losses.len());
    // Some are lost without a trace but the acknowledgement, others leave a log that is refused.
    assert!(verdict.losses.len() > 10, "{:?}", verdict.losses);
}

/// The same for every kind of log file and for the folder, on a disk that does nothing at a sync.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let mut rng = chance("lying disk");
    let lost = |lie: bool, rng: &mut fastrand::Rng| {
        let disk = SimDisk::new();
        let mut log = FileLog::create(Arc::new(disk.clone()), tiny()).unwrap();
        if lie {
            disk.lie_about_syncs();
        }
        for n in 0..20 {
            append(&mut log, &group(n));
        }
        let after = FileLog::open(Arc::new(disk.lose_power(rng)), tiny(), None);
        after.and_then(|log| log.reader().read(Lsn(20), 1)).map_or(true, |groups| groups.is_empty())
    };
    assert!((0..20).all(|_| !lost(false, &mut rng)));
    assert!((0..20).filter(|_| lost(true, &mut rng)).count() > 10);
}
