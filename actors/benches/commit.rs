//! `cargo bench -p lanekeeper-actors commit`: durable creates of 1 KB documents through the
//! partition handle, beside a plain append with fdatasync of the same bytes grouped the same way,
//! and beside redb alone with a durable commit per group, all in one run.
//!
//! Options: `--seconds N` for each cell, `--rounds N` (the median is shown), `--shards 1,2,4,8`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark talks to a person and may stop at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use lanekeeper_actors::directory::{DirectoryHandle, DirectorySettings};
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::ids::{DocumentId, ShardId};
use lanekeeper_actors::partition::PartitionSettings;
use lanekeeper_actors::policy::container::Catalog;
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write};
use lanekeeper_actors::shard::{Shard, ShardHandle, ShardSettings};
use redb::{Database, TableDefinition};
use tokio::sync::oneshot;

/// The allocator of the server, so that the benchmark measures the same program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: usize = 1_000;
const BODY: usize = 1_024;

struct Options {
    seconds: f64,
    rounds: usize,
    shards: Vec<u16>,
    writers: Vec<usize>,
    /// Leaves out what ours is compared with: for profiling.
    only_ours: bool,
}

fn options() -> Options {
    let mut options =
        Options { seconds: 2.0, rounds: 3, shards: vec![2], writers: vec![1, 16, 64, 256], only_ours: false };
    let mut args = std::env::args().skip(1);
    let list = |text: String| text.split(',').map(|n| n.parse().unwrap()).collect::<Vec<usize>>();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => options.seconds = args.next().unwrap().parse().unwrap(),
            "--rounds" => options.rounds = args.next().unwrap().parse().unwrap(),
            "--shards" => options.shards = list(args.next().unwrap()).iter().map(|n| *n as u16).collect(),
            "--only-ours" => options.only_ours = true,
            "--writers" => options.writers = list(args.next().unwrap()),
            // Cargo passes this to every benchmark.
            "--bench" => {}
            // `cargo bench NAME` says the name to all of them.
            other if !other.starts_with('-') && !"commit".contains(other) => std::process::exit(0),
            other if !other.starts_with('-') => {}
            other => panic!("unknown option `{other}`"),
        }
    }
    options
}

#[derive(Clone, Copy)]
struct Cell {
    per_second: f64,
    p50: f64,
    p99: f64,
}

fn cell(histogram: &Histogram<u64>, elapsed: Duration) -> Cell {
    let millis = |q| histogram.value_at_quantile(q) as f64 / 1e6;
    Cell { per_second: histogram.len() as f64 / elapsed.as_secs_f64(), p50: millis(0.5), p99: millis(0.99) }
}

/// Runs `clients` closed loops of `work` for `seconds`.
async fn measure<F: Future<Output = ()> + 'static>(
    clients: usize,
    seconds: f64,
    work: impl Fn(usize, usize) -> F + Clone + 'static,
) -> Cell {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let loops: Vec<_> = (0..clients)
        .map(|client| {
            let work = work.clone();
            actix_rt::spawn(async move {
                let mut histogram = Histogram::<u64>::new(3).unwrap();
                let mut n = 0;
                while Instant::now() < end {
                    let begin = Instant::now();
                    work(client, n).await;
                    histogram.record(begin.elapsed().as_nanos() as u64).unwrap();
                    n += 1;
                }
                histogram
            })
        })
        .collect();
    let mut all = Histogram::<u64>::new(3).unwrap();
    for client in loops {
        all.add(client.await.unwrap()).unwrap();
    }
    cell(&all, start.elapsed())
}

fn body(client: usize, n: usize) -> Bytes {
    let head = format!("{{\"id\":\"{n:08}-{client}\",\"lane\":\"x\",\"pad\":\"");
    let mut text = head;
    text.extend(std::iter::repeat_n('x', BODY.saturating_sub(text.len() + 2)));
    text.push_str("\"}");
    text.into()
}

/// Returns what was measured, and the mean number of documents in a record of the log.
async fn through_handle(clients: usize, seconds: f64, shards: u16) -> (Cell, f64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let clock = SystemClock::shared();
    let fatal: lanekeeper_actors::shard::Fatal = Arc::new(|text| panic!("{text}"));
    let shards: Arc<[_]> = (0..shards)
        .map(|number| {
            let id = ShardId(number);
            let shard = Shard::create(id, &folder.path().join(number.to_string()), ShardSettings::default());
            shard.unwrap().start(clock.clone(), fatal.clone()).unwrap()
        })
        .collect();
    let arbiter = actix_rt::Arbiter::new();
    let settings = DirectorySettings {
        awake: 20_000,
        idle: Duration::from_secs(60),
        queue: 1_024,
        partition: PartitionSettings {
            batch_writes: 256,
            batch_bytes: 1 << 20,
            crash_budget: 5,
            crash_window: Duration::from_secs(60),
            crash_backoff: Duration::from_millis(100),
        },
    };
    let directory =
        DirectoryHandle::start((shards.clone(), Catalog::default()), vec![arbiter.handle()], settings, clock);
    let handles: Arc<Vec<_>> = Arc::new(
        (0..PARTITIONS)
            .map(|n| {
                let key = vec![KeyPart::String(format!("lane-{n}"))];
                let address = PartitionAddress { container: "loads".into(), tenant: None, key };
                directory.partition(&address).unwrap()
            })
            .collect(),
    );
    let result = measure(clients, seconds, move |client, n| {
        let handles = handles.clone();
        async move {
            let write = Write {
                id: DocumentId::new(&format!("{n:08}-{client}")).unwrap(),
                operation: Operation::Create(Content::plain(body(client, n))),
                precondition: Precondition::None,
                traceparent: None,
            };
            let place = (client * 7_919 + n * 104_729) % PARTITIONS;
            handles[place].write(write, Duration::from_secs(10)).await.unwrap();
        }
    })
    .await;
    for shard in shards.iter() {
        shard.drain().await;
    }
    arbiter.stop();
    let (groups, mutations) = shards
        .iter()
        .map(ShardHandle::status)
        .fold((0, 0), |(groups, mutations), status| (groups + status.groups, mutations + status.mutations));
    (result, mutations as f64 / (groups as f64).max(1.0))
}

/// Plain appends with fdatasync of groups as large as those that ours made, one thread and file
/// for each shard, as fast as the disk takes them.
fn same_groups(documents: f64, shards: u16, seconds: f64) -> Cell {
    let work = move || {
        let folder = tempfile::tempdir_in(".").unwrap();
        let file = File::create(folder.path().join("log")).unwrap();
        let length: u64 = 32 << 20;
        file.write_all_at(&vec![0; usize::try_from(length).unwrap()], 0).unwrap();
        file.sync_all().unwrap();
        let group = vec![b'x'; (documents * BODY as f64) as usize];
        let (start, mut offset) = (Instant::now(), 0);
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        while start.elapsed().as_secs_f64() < seconds {
            if offset + group.len() as u64 > length {
                offset = 0;
            }
            let begin = Instant::now();
            file.write_all_at(&group, offset).unwrap();
            file.sync_data().unwrap();
            histogram.record(begin.elapsed().as_nanos() as u64).unwrap();
            offset += group.len() as u64;
        }
        (histogram, start.elapsed())
    };
    let threads: Vec<_> = (0..shards).map(|_| std::thread::spawn(work)).collect();
    let mut all = Histogram::<u64>::new(3).unwrap();
    let mut longest = Duration::ZERO;
    for thread in threads {
        let (histogram, elapsed) = thread.join().unwrap();
        all.add(histogram).unwrap();
        longest = longest.max(elapsed);
    }
    let groups = cell(&all, longest);
    Cell { per_second: groups.per_second * documents, ..groups }
}

type Request = (Bytes, oneshot::Sender<()>);

/// One thread that takes what waits (at most 1,024 documents), hands it to `commit`, and answers.
fn grouping(ops: Receiver<Request>, mut commit: impl FnMut(&[Request])) {
    while let Ok(first) = ops.recv() {
        let mut group = vec![first];
        while group.len() < 1_024 {
            match ops.try_recv() {
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        commit(&group);
        for (_, reply) in group {
            reply.send(()).ok();
        }
    }
}

async fn through_thread(
    clients: usize,
    seconds: f64,
    thread: impl FnOnce(Receiver<Request>) + Send + 'static,
) -> Cell {
    let (send, ops): (SyncSender<Request>, _) = sync_channel(8_192);
    let worker = std::thread::spawn(move || thread(ops));
    let result = measure(clients, seconds, move |client, n| {
        let send = send.clone();
        async move {
            let (reply, wait) = oneshot::channel();
            send.try_send((body(client, n), reply)).unwrap();
            wait.await.unwrap();
        }
    })
    .await;
    worker.join().unwrap();
    result
}

/// Append and fdatasync, nothing else, into a file that was zeroed beforehand.
async fn plain_append(clients: usize, seconds: f64) -> Cell {
    let folder = tempfile::tempdir_in(".").unwrap();
    let file = File::create(folder.path().join("log")).unwrap();
    let length: u64 = 64 << 20;
    file.write_all_at(&vec![0; usize::try_from(length).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
    through_thread(clients, seconds, move |ops| {
        let mut offset = 0;
        let mut buffer = Vec::new();
        grouping(ops, |group| {
            buffer.clear();
            for (body, _) in group {
                buffer.extend_from_slice(body);
            }
            if offset + buffer.len() as u64 > length {
                offset = 0;
            }
            file.write_all_at(&buffer, offset).unwrap();
            file.sync_data().unwrap();
            offset += buffer.len() as u64;
        });
    })
    .await
}

/// One durable redb transaction for each group: documents and their order, as the view has them.
async fn redb_alone(clients: usize, seconds: f64) -> Cell {
    const DOCUMENTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("documents");
    const ORDER: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("order");
    let folder = tempfile::tempdir_in(".").unwrap();
    let database = Database::create(folder.path().join("view.redb")).unwrap();
    through_thread(clients, seconds, move |ops| {
        let mut lsn = 0_u64;
        grouping(ops, |group| {
            let transaction = database.begin_write().unwrap();
            {
                let mut documents = transaction.open_table(DOCUMENTS).unwrap();
                let mut order = transaction.open_table(ORDER).unwrap();
                for (body, _) in group {
                    lsn += 1;
                    let lane = (lsn * 104_729) % PARTITIONS as u64;
                    let key = format!("loads\0lane-{lane}\0{lsn}");
                    documents.insert(key.as_bytes(), body.as_ref()).unwrap();
                    let place = format!("loads\0lane-{lane}\0{lsn:016x}");
                    order.insert(place.as_bytes(), key.as_bytes()).unwrap();
                }
            }
            transaction.commit().unwrap();
        });
    })
    .await
}

fn median(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    cells[cells.len() / 2]
}

fn main() {
    let options = options();
    actix_rt::System::new().block_on(async move {
        println!(
            "durable creates of 1 KB over {PARTITIONS} partitions; {} rounds of {} s, median",
            options.rounds, options.seconds
        );
        println!(
            "                 | ours                       | append, same groups                        | append, closed loop                | redb alone"
        );
        println!(
            "{:>8} {:>7} | {:>8} {:>8} {:>8} | {:>6} {:>9} {:>8} {:>8} {:>6} | {:>9} {:>8} {:>8} {:>6} | {:>8} {:>8} {:>8}",
            "writers",
            "shards",
            "docs/s",
            "p50 ms",
            "p99 ms",
            "group",
            "docs/s",
            "p50 ms",
            "p99 ms",
            "ratio",
            "docs/s",
            "p50 ms",
            "p99 ms",
            "ratio",
            "docs/s",
            "p50 ms",
            "p99 ms"
        );
        for &writers in &options.writers {
            for &shards in &options.shards {
                let (mut ours, mut plain, mut redb) = (Vec::new(), Vec::new(), Vec::new());
                let (mut sizes, mut same) = (Vec::new(), Vec::new());
                for _ in 0..options.rounds {
                    let (cell, size) = through_handle(writers, options.seconds, shards).await;
                    ours.push(cell);
                    sizes.push(size);
                    if options.only_ours {
                        continue;
                    }
                    same.push(same_groups(size, shards, options.seconds / 2.0));
                    plain.push(plain_append(writers, options.seconds).await);
                    redb.push(redb_alone(writers, options.seconds).await);
                }
                let ours = median(ours);
                print!("{writers:>8} {shards:>7} | {:>8.0} {:>8.3} {:>8.3}", ours.per_second, ours.p50, ours.p99);
                if options.only_ours {
                    println!();
                    continue;
                }
                let (plain, redb, size, same) = (median(plain), median(redb), middle(sizes), median(same));
                println!(
                    " | {size:>6.1} {:>9.0} {:>8.3} {:>8.3} {:>6.2} | {:>9.0} {:>8.3} {:>8.3} {:>6.2} | {:>8.0} {:>8.3} {:>8.3}",
                    same.per_second,
                    same.p50,
                    same.p99,
                    ours.per_second / same.per_second,
                    plain.per_second,
                    plain.p50,
                    plain.p99,
                    ours.per_second / plain.per_second,
                    redb.per_second,
                    redb.p50,
                    redb.p99,
                );
            }
        }
    });
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
