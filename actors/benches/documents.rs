//! `cargo bench -p lanekeeper-actors --bench documents`: what the document store does at its door, without HTTP.
//! Point reads from memory and from the view, a hot partition beside a thousand even ones, a query by an index in a
//! large partition, point reads elsewhere while that partition is scanned, and many partitions asleep.
//!
//! Options: `--documents N` (of the large partition, 1,000,000), `--partitions N` (asleep, 1,000,000; 0 leaves them
//! out), `--seconds N` for each cell, `--only reads,hot,query,asleep`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark talks to a person and may stop at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use hdrhistogram::Histogram;
use lanekeeper_actors::directory::{DirectorySettings, PartitionHandle};
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::delivery::{Attempt, Outcome, Transport};
use lanekeeper_actors::model::document::{DocumentRules, KeyPath};
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::partition::PartitionSettings;
use lanekeeper_actors::policy::container::{Catalog, Container, Index};
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write};
use lanekeeper_actors::query::Query;
use lanekeeper_actors::reader::{QueryRequest, ReaderSettings, Scope};
use lanekeeper_actors::router::RouterSettings;
use lanekeeper_actors::shard::ShardSettings;
use lanekeeper_actors::subscriber::DeliverySettings;
use lanekeeper_actors::system::{System, SystemConfig};
use lanekeeper_actors::topic::TopicSettings;
use lanekeeper_actors::upkeep::UpkeepSettings;

/// The allocator of the server, so that the benchmark measures the same program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AMPLE: Duration = Duration::from_secs(60);
const LANES: usize = 1_000;

struct Options {
    documents: usize,
    partitions: usize,
    seconds: f64,
    only: Vec<String>,
    reopen: Option<String>,
}

fn options() -> Options {
    let mut options =
        Options { documents: 1_000_000, partitions: 1_000_000, seconds: 3.0, only: Vec::new(), reopen: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--documents" => options.documents = value().parse().unwrap(),
            "--partitions" => options.partitions = value().parse().unwrap(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--only" => options.only = value().split(',').map(str::to_owned).collect(),
            "--reopen" => options.reopen = Some(value()),
            // Cargo passes this to every benchmark.
            "--bench" => {}
            // `cargo bench NAME` says the name to all of them.
            other if !other.starts_with('-') && !"documents".contains(other) => std::process::exit(0),
            other if !other.starts_with('-') => {}
            other => panic!("unknown option `{other}`"),
        }
    }
    options
}

#[actix::main]
async fn main() {
    let options = options();
    if let Some(folder) = &options.reopen {
        return reopen(&options, Path::new(folder)).await;
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted("reads") {
        reads(&options).await;
    }
    if wanted("hot") {
        hot(&options).await;
    }
    if wanted("query") {
        query(&options).await;
    }
    if wanted("asleep") && options.partitions > 0 {
        asleep(&options).await;
    }
}

/// Point reads at the handle, on one thread.
async fn reads(options: &Options) {
    println!("point reads of 1 KB at the handle, one thread");
    for (name, cache) in [("from the cache", 64 << 20), ("from the view", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let system = start(folder.path(), cache, &[]).await;
        let lanes: Vec<_> = (0..LANES).map(|n| lane(&system, n)).collect();
        fill(&lanes, 20_000).await;
        settle(&system).await;
        let ids: Vec<_> = (0..20_000).map(id).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let read = |n: usize| assert!(lanes[n % LANES].read(&ids[n]).unwrap().is_some());
        (0..20_000).for_each(read);
        let (begun, mut count) = (Instant::now(), 0_u64);
        while begun.elapsed().as_secs_f64() < options.seconds {
            (0..1_000).for_each(|_| read(random.usize(..20_000)));
            count += 1_000;
        }
        println!("  {name:<16} {:>10.0} /s", count as f64 / begun.elapsed().as_secs_f64());
        system.drain(AMPLE).await;
    }
}

/// Creates into one partition beside creates into a thousand, with the same 64 writers.
async fn hot(options: &Options) {
    println!("creates of 1 KB with 64 writers");
    let mut even = 0.0;
    for (name, lanes) in [("1,000 partitions", LANES), ("one partition", 1)] {
        let mut results = Vec::new();
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let system = start(folder.path(), 0, &[]).await;
            let handles: Vec<_> = (0..lanes).map(|n| lane(&system, n)).collect();
            let until = Instant::now() + Duration::from_secs_f64(options.seconds);
            let writers = (0..64).map(|writer| {
                let handles = handles.clone();
                async move {
                    let mut count = 0;
                    while Instant::now() < until {
                        let number = count * 64 + writer;
                        handles[number % handles.len()].write(create(number), AMPLE).await.unwrap();
                        count += 1;
                    }
                    count
                }
            });
            let begun = Instant::now();
            let total: usize = join_all(writers).await.into_iter().sum();
            results.push(total as f64 / begun.elapsed().as_secs_f64());
            system.drain(AMPLE).await;
        }
        results.sort_by(f64::total_cmp);
        if lanes > 1 {
            even = results[1];
        }
        println!("  {name:<16} {:>10.0} /s   {:.2} of even", results[1], results[1] / even);
    }
}

/// Twenty documents by an index of a large partition; then point reads elsewhere while it is scanned.
async fn query(options: &Options) {
    println!("a partition of {} documents", options.documents);
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path(), 16 << 20, &["status", "weight"]).await;
    let large = vec![lane(&system, 0)];
    let begun = Instant::now();
    fill(&large, options.documents).await;
    let others: Vec<_> = (1..100).map(|n| lane(&system, n)).collect();
    fill(&others, 10_000).await;
    settle(&system).await;
    println!("  filled in {:.0} s", begun.elapsed().as_secs_f64());
    let asked = |text: &str, name: &str, number: usize| QueryRequest {
        scope: Scope { container: "loads".into(), tenant: None, key: vec![KeyPart::String("lane-0".into())] },
        query: Arc::new(Query::parse(text).unwrap()),
        parameters: vec![(name.to_owned(), number.into())],
        limit: 20,
        continuation: None,
        longest_continuation: 1 << 20,
        explain: false,
    };
    let documents = options.documents;
    let sorted = "SELECT * FROM c WHERE c.weight >= @weight ORDER BY c.weight";
    for (name, text) in
        [("range by index", "SELECT * FROM c WHERE c.weight >= @weight"), ("and in its order", sorted)]
    {
        let mut times = Histogram::<u64>::new(3).unwrap();
        for n in 0..500 {
            let begun = Instant::now();
            let page = system.reader().query(asked(text, "weight", (n * 7_919) % documents)).await.unwrap();
            times.record(begun.elapsed().as_micros() as u64).unwrap();
            assert_eq!(page.rows.len(), 20);
        }
        let at = |q| times.value_at_quantile(q) as f64 / 1_000.0;
        println!("  20 documents, {name:<18} p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    }
    let alone = elsewhere(&others, options.seconds).await;
    let stop = Arc::new(AtomicBool::new(false));
    let scan = {
        let (stop, reader) = (stop.clone(), system.reader().clone());
        let mut request = asked("SELECT VALUE COUNT(1) FROM c WHERE c.text = @none", "none", 0);
        async move {
            let mut pages = 0;
            while !stop.load(Ordering::Relaxed) {
                let page = reader.query(request.clone()).await.unwrap();
                request.continuation = page.continuation;
                pages += 1;
            }
            pages
        }
    };
    let beside = async {
        let beside = elsewhere(&others, options.seconds).await;
        stop.store(true, Ordering::Relaxed);
        beside
    };
    let (beside, pages) = futures_util::future::join(beside, scan).await;
    println!("  point reads elsewhere, alone:          p50 {:.3} ms, p99 {:.3} ms", alone.0, alone.1);
    println!(
        "  point reads elsewhere, beside a scan:  p50 {:.3} ms, p99 {:.3} ms   {:.2} of alone ({pages} pages scanned)",
        beside.0,
        beside.1,
        beside.1 / alone.1,
    );
    system.drain(AMPLE).await;
}

/// Point reads at a pace that leaves room, as callers do them; p50 and p99 in milliseconds.
async fn elsewhere(lanes: &[PartitionHandle], seconds: f64) -> (f64, f64) {
    let mut times = Histogram::<u64>::new(3).unwrap();
    let mut random = fastrand::Rng::with_seed(2);
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < seconds {
        let n = random.usize(..10_000);
        let due = Instant::now();
        assert!(lanes[n % lanes.len()].read(&id(n)).unwrap().is_some());
        times.record(due.elapsed().as_nanos() as u64).unwrap();
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    (times.value_at_quantile(0.5) as f64 / 1e6, times.value_at_quantile(0.99) as f64 / 1e6)
}

/// Many partitions of ten documents: what they take on the disk and in memory, and how soon one wakes.
async fn asleep(options: &Options) {
    println!("{} partitions of ten documents of 200 bytes", options.partitions);
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path(), 16 << 20, &[]).await;
    let begun = Instant::now();
    for first in (0..options.partitions).step_by(2_048) {
        let last = (first + 2_048).min(options.partitions);
        let writes = (first..last).map(|n| {
            let partition = lane(&system, n);
            async move {
                let writes =
                    (0..10).map(|d| write(d, format!("{{\"id\":\"{}\",\"text\":\"{:0>160}\"}}", id(d), n)));
                partition.transact(writes.collect(), None, AMPLE).await.unwrap();
            }
        });
        join_all(writes).await;
    }
    println!("  written in {:.0} s", begun.elapsed().as_secs_f64());
    system.drain(AMPLE).await;
    // The directory is held as long as this is.
    drop(system);
    // A process of its own, whose memory has nothing to do with the writing.
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--partitions", &options.partitions.to_string(), "--reopen"]).arg(folder.path());
    assert!(again.status().unwrap().success());
}

/// Opens what was written, looks at its size, and wakes some partitions.
async fn reopen(options: &Options, folder: &Path) {
    let bytes = size(folder);
    let opened = Instant::now();
    let system = start(folder, 16 << 20, &[]).await;
    let opened = opened.elapsed();
    let rss = resident();
    let mut times = Histogram::<u64>::new(3).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..1_000 {
        let partition = lane(&system, random.usize(..options.partitions));
        let begun = Instant::now();
        partition.write(write(11, format!("{{\"id\":\"{}\"}}", id(11))), AMPLE).await.unwrap();
        times.record(begun.elapsed().as_micros() as u64).unwrap();
    }
    println!(
        "  {:.2} GB on disk; opened in {:.0} ms with {} MB resident; wake and write p50 {:.2} ms, p99 {:.2} ms",
        bytes as f64 / 1e9,
        opened.as_secs_f64() * 1e3,
        rss >> 20,
        times.value_at_quantile(0.5) as f64 / 1e3,
        times.value_at_quantile(0.99) as f64 / 1e3,
    );
    system.drain(AMPLE).await;
}

async fn fill(lanes: &[PartitionHandle], documents: usize) {
    for first in (0..documents).step_by(1_024) {
        let last = (first + 1_024).min(documents);
        let writes = (first..last).map(|n| lanes[n % lanes.len()].write(create(n), AMPLE));
        for written in join_all(writes).await {
            written.unwrap();
        }
    }
}

/// Waits until the views have what the logs have, and indexes are ready.
async fn settle(system: &System) {
    while system.shards().iter().any(|shard| shard.status().applied < shard.status().tail) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn create(n: usize) -> Write {
    let status = ["open", "taken", "closed"][n % 3];
    let text =
        format!("{{\"id\":\"{}\",\"status\":\"{status}\",\"weight\":{n},\"text\":\"{:x>900}\"}}", id(n), "");
    write(n, text)
}

fn write(n: usize, body: String) -> Write {
    let operation = Operation::Upsert(Content::plain(Bytes::from(body)));
    Write { id: id(n), operation, precondition: Precondition::None, traceparent: None }
}

fn id(n: usize) -> DocumentId {
    DocumentId::new(&format!("load-{n:012}")).unwrap()
}

fn lane(system: &System, n: usize) -> PartitionHandle {
    let key = vec![KeyPart::String(format!("lane-{n}"))];
    system.directory().partition(&PartitionAddress { container: "loads".into(), tenant: None, key }).unwrap()
}

async fn start(data: &Path, document_cache: usize, indexes: &[&str]) -> System {
    let rules = DocumentRules {
        key: vec![KeyPath::property(vec!["lane".to_owned()])],
        max_bytes: 2 << 20,
        max_depth: 128,
    };
    let mut container = Container::plain("loads".into(), rules);
    container.indexes = indexes.iter().map(|name| Index { paths: vec![vec![(*name).to_owned()]] }).collect();
    let partition = PartitionSettings {
        batch_writes: 1_024,
        batch_bytes: 1 << 20,
        crash_budget: 5,
        crash_window: AMPLE,
        crash_backoff: Duration::from_millis(100),
    };
    let config = SystemConfig {
        data: data.to_owned(),
        shards: None,
        default_shards: 2,
        catalog: Catalog::new([container]),
        reader: ReaderSettings::default(),
        upkeep: Some(UpkeepSettings::default()),
        shard: ShardSettings { document_cache_bytes: document_cache, ..ShardSettings::default() },
        directory: DirectorySettings { awake: 10_000, idle: AMPLE, queue: 4_096, partition },
        subscriptions: Vec::new(),
        topics: Vec::new(),
        publishing: TopicSettings::default(),
        delivery: DeliverySettings {
            public_url: None,
            connections: 64,
            hops: 16,
            window: 64,
            queue: 1_024,
            timeout: AMPLE,
            retry_page: 64,
            retry_cache: 1 << 20,
            backoff: Duration::from_millis(100),
            crash_budget: 5,
            crash_window: AMPLE,
            seed: 1,
        },
        router: RouterSettings {
            read_chunk: 1 << 20,
            hints: 256,
            backoff: Duration::from_millis(100),
            crash_budget: 5,
            crash_window: AMPLE,
        },
        partition_threads: 1,
    };
    let fatal = Arc::new(|why: &str| panic!("{why}"));
    System::start(config, Arc::new(Nobody), SystemClock::shared(), fatal).await.unwrap()
}

/// There are no subscriptions, so nothing is ever sent.
struct Nobody;

impl Transport for Nobody {
    fn deliver(&self, _: Attempt) -> BoxFuture<'static, Outcome> {
        panic!("there is nobody to send to")
    }
}

fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { size(&entry.path()) } else { meta.blocks() * 512 }
    });
    sizes.sum()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1_024
}
