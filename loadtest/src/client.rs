//! Stands between the schedule and the server: sends each request when it is due, on connections that are kept alive.
//! Invariant: the due time of a request never moves; when all connections are busy it waits, and the waiting is recorded.
//!
//! A thread releases what is due. It parks until the next arrival, because the runtime's timer has a grain of a
//! millisecond and a parked thread wakes within a tenth of that. When the queue is full the thread waits for room, which
//! postpones the sending and not the due time.

use std::iter::Iterator;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::{Clock, Moment};
use crate::document::{self, Template};
use crate::schedule::{Arrival, DocumentKey, Operation};
use crate::tally::{Answer, Failure, Kind, Outcome, Tally};
use crate::target::Target;

/// Arrivals that are due and wait for a connection; more wait in the schedule.
const MAX_QUEUED: usize = 4096;
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;

type Sender = SendRequest<Full<Bytes>>;
type Queue = tokio::sync::Mutex<mpsc::Receiver<Arrival>>;

/// A load on one target: what is sent, and what came of it.
#[derive(Debug)]
pub(crate) struct Load {
    target: Target,
    template: Template,
    clock: Clock,
    /// How long an answer may take from the moment of sending.
    deadline: Duration,
    tally: Mutex<Tally>,
    /// The documents whose creation was acknowledged.
    acknowledged: Mutex<Vec<DocumentKey>>,
}

impl Load {
    /// A load that has not begun.
    pub(crate) fn new(
        target: Target,
        template: Template,
        deadline: Duration,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let tally = Mutex::new(Tally::new()?);
        Ok(Self { target, template, clock, deadline, tally, acknowledged: Mutex::default() })
    }

    /// Works with the tally.
    pub(crate) fn tally<T>(&self, work: impl FnOnce(&mut Tally) -> T) -> T {
        work(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The numbers of the documents whose creation was acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        let keys = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| key.number).collect()
    }

    /// Sends the arrivals, counted from `origin`, over `connections` connections. Returns when all are answered, or at
    /// `give_up`, when those still waiting are dropped unrecorded.
    pub(crate) async fn play<A>(
        self: &Arc<Self>,
        arrivals: A,
        origin: Moment,
        give_up: Moment,
        connections: usize,
    ) -> anyhow::Result<()>
    where
        A: Iterator<Item = Arrival> + Send + 'static,
    {
        let (queue, due) = mpsc::channel(MAX_QUEUED);
        let due: Arc<Queue> = Arc::new(tokio::sync::Mutex::new(due));
        let clock = self.clock;
        // The thread ends with the schedule, or at its next arrival once nobody takes from the queue any more.
        thread::Builder::new()
            .name("release".to_owned())
            .spawn(move || release(arrivals, origin, &queue, clock))
            .context("cannot start the releasing thread")?;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(Arc::clone(self).work(Arc::clone(&due), origin));
        }
        tokio::select! {
            () = clock.wait_until(give_up) => tasks.shutdown().await,
            () = finished(&mut tasks) => (),
        }
        Ok(())
    }

    /// One connection: takes the next request that is due, until there are no more.
    async fn work(self: Arc<Self>, queue: Arc<Queue>, origin: Moment) {
        let mut connection = None;
        loop {
            let arrival = queue.lock().await.recv().await;
            let Some(arrival) = arrival else { return };
            self.send(arrival, origin, &mut connection).await;
        }
    }

    async fn send(&self, arrival: Arrival, origin: Moment, connection: &mut Option<Sender>) {
        let due = origin.plus(arrival.after);
        let kind = match arrival.operation {
            Operation::Create(_) => Kind::Create,
            Operation::Read { .. } => Kind::Read,
        };
        let mut sent = self.clock.now();
        let attempt = self.attempt(arrival.operation, due, &mut sent, connection);
        let outcome = match tokio::time::timeout(self.deadline, attempt).await {
            Ok(Ok(status)) => Outcome::Status(status),
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_) => Outcome::Failed(Failure::Deadline),
        };
        if let Outcome::Failed(_) = outcome {
            *connection = None;
        }
        let done = self.clock.now();
        if let (Operation::Create(key), true) = (arrival.operation, outcome.is_success()) {
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
        self.tally(|tally| tally.record(&Answer { kind, due, sent, done, outcome }));
    }

    /// Sends one request and reads its whole answer. `sent` becomes the moment when the request was handed over.
    async fn attempt(
        &self,
        operation: Operation,
        due: Moment,
        sent: &mut Moment,
        connection: &mut Option<Sender>,
    ) -> Result<u16, Failure> {
        let mut sender = self.ready(connection.take()).await?;
        *sent = self.clock.now();
        let (request, expected) = match operation {
            Operation::Create(key) => (self.create(key, due, *sent)?, None),
            Operation::Read { pick } => {
                let key = self.pick(pick).ok_or(Failure::NothingToRead)?;
                (self.read(key)?, Some(key))
            }
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut refused) => {
                // A request that comes back never left: the server closed a connection that was idle. Only then may
                // it be sent again without knowing whether it happened.
                let request = refused.take_message().ok_or(Failure::Broken)?;
                sender = self.ready(None).await?;
                sender.send_request(request).await.map_err(|_| Failure::Broken)?
            }
        };
        let status = response.status().as_u16();
        let body = read_body(response).await.ok_or(Failure::Broken)?;
        *connection = Some(sender);
        match expected {
            Some(key) if status == 200 && !document::contains(&body, self.template.id(key).as_bytes()) => {
                Err(Failure::WrongBody)
            }
            Some(_) | None => Ok(status),
        }
    }

    /// The connection if it still stands, or a new one.
    async fn ready(&self, connection: Option<Sender>) -> Result<Sender, Failure> {
        if let Some(mut sender) = connection
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        connect(&self.target).await.map_err(|_| Failure::Connect)
    }

    fn pick(&self, pick: u64) -> Option<DocumentKey> {
        let keys = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let index = pick.checked_rem(keys.len() as u64)?;
        keys.get(index as usize).copied()
    }

    fn create(&self, key: DocumentKey, due: Moment, sent: Moment) -> Result<Request<Full<Bytes>>, Failure> {
        let body = self.template.body(key, due, sent);
        let mut request = self.request(Method::POST, "/freight/v1/loads", body)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn read(&self, key: DocumentKey) -> Result<Request<Full<Bytes>>, Failure> {
        let path = format!("/freight/v1/loads/{}/{}", document::lane(key.partition), self.template.id(key));
        self.request(Method::GET, &path, Bytes::new())
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        // Paths are made of our own letters and digits, so a request that cannot be built cannot happen.
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.target.host.clone())
            .header("x-api-key", self.target.key.clone());
        request.body(Full::new(body)).map_err(|_| Failure::Broken)
    }
}

/// Puts each arrival into the queue when it is due.
fn release(
    arrivals: impl Iterator<Item = Arrival>,
    origin: Moment,
    queue: &mpsc::Sender<Arrival>,
    clock: Clock,
) {
    for arrival in arrivals {
        let due = origin.plus(arrival.after);
        loop {
            let wait = due.since(clock.now());
            if wait.is_zero() {
                break;
            }
            thread::park_timeout(wait);
        }
        if queue.blocking_send(arrival).is_err() {
            return;
        }
    }
}

async fn finished(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn connect(target: &Target) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What breaks the connection is told to whoever uses the sender.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(sender)
}

async fn read_body(response: Response<hyper::body::Incoming>) -> Option<Bytes> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
    Some(body.to_bytes())
}

/// Reads one page of `target` on a connection of its own; `None` when it does not answer 200 before the deadline.
pub(crate) async fn fetch(target: &Target, path: &str, deadline: Duration) -> Option<Bytes> {
    let read = async {
        let mut sender = connect(target).await.ok()?;
        let request = Request::get(path).header(HOST, target.host.clone()).body(Full::default()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        if response.status() != hyper::StatusCode::OK {
            return None;
        }
        read_body(response).await
    };
    tokio::time::timeout(deadline, read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::nanos;
    use crate::schedule::{Plan, Spacing};
    use crate::stub::{Fault, Stub};
    use crate::tally::Window;

    async fn load(stub: &Stub, deadline: Duration) -> Arc<Load> {
        let target = Target::new(&stub.url(), Stub::KEY, false).await.unwrap();
        Arc::new(Load::new(target, Template::new(1, 1000), deadline, Clock::start()).unwrap())
    }

    /// Plays a constant load of reads for as long as `length` over one connection, measured from its beginning.
    async fn reads(load: &Arc<Load>, length: Duration, patience: Duration) -> u64 {
        let plan = Plan {
            rate: 1000.0,
            length,
            spacing: Spacing::Constant,
            reads: 1.0,
            partitions: 1,
            first_number: 1,
            seed: 1,
        };
        let origin = load.clock.now();
        let end = origin.plus(length);
        load.tally(|tally| tally.window = Window { from: origin, to: end });
        load.play(plan.arrivals(), origin, end.plus(patience), 1).await.unwrap();
        plan.arrivals().count() as u64
    }

    async fn fill(load: &Arc<Load>) {
        let now = load.clock.now();
        load.play(Plan::one_in_each(1), now, now.plus(Duration::from_secs(10)), 1).await.unwrap();
        assert_eq!(load.acknowledged(), [0]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stall_is_felt_by_every_request_that_was_due_meanwhile() {
        let stub = Stub::start(None, Fault::StallFirstRead(Duration::from_millis(300))).await;
        let load = load(&stub, Duration::from_secs(10)).await;
        fill(&load).await;
        let due = reads(&load, Duration::from_millis(500), Duration::from_secs(10)).await;
        load.tally(|tally| {
            assert_eq!((tally.reads.len(), tally.errors()), (due, 0));
            // Three hundred requests were due while one was stalled. A closed loop would have one slow answer.
            let slow = tally.reads.count_between(nanos(Duration::from_millis(100)), u64::MAX);
            assert!(slow >= 150, "{slow} slow answers");
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_past_its_deadline_is_an_error_and_costs_its_connection_only() {
        let stub = Stub::start(None, Fault::StallFirstRead(Duration::from_secs(3600))).await;
        let load = load(&stub, Duration::from_millis(100)).await;
        fill(&load).await;
        let due = reads(&load, Duration::from_millis(300), Duration::from_secs(10)).await;
        load.tally(|tally| {
            assert_eq!(tally.failures.get("deadline passed"), Some(&1));
            assert_eq!(tally.reads.len(), due - 1);
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_still_waiting_at_the_end_of_patience_is_left_unrecorded() {
        let stub = Stub::start(None, Fault::StallFirstRead(Duration::from_secs(3600))).await;
        let load = load(&stub, Duration::from_secs(3600)).await;
        fill(&load).await;
        let due = reads(&load, Duration::from_millis(50), Duration::from_millis(50)).await;
        assert_eq!(due, 50);
        assert_eq!(load.tally(|tally| tally.answered), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_the_server_closes_between_requests_is_replaced() {
        let stub = Stub::start(None, Fault::CloseAfterEachAnswer).await;
        let load = load(&stub, Duration::from_secs(10)).await;
        fill(&load).await;
        let due = reads(&load, Duration::from_millis(100), Duration::from_secs(10)).await;
        load.tally(|tally| assert_eq!((tally.reads.len(), tally.errors()), (due, 0), "{:?}", tally.failures));
    }

    #[tokio::test]
    async fn a_page_is_fetched_only_when_it_is_there() {
        let stub = Stub::start(None, Fault::None).await;
        let target = Target::new(&stub.url(), Stub::KEY, false).await.unwrap();
        let deadline = Duration::from_secs(10);
        assert_eq!(fetch(&target, "/metrics", deadline).await, Some(Bytes::from_static(b"stub 1\n")));
        assert_eq!(fetch(&target, "/other", deadline).await, None);
    }
}
