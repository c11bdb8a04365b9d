//! Four subscribers behind one socket, each with a ledger of what it was given.
//!
//! Invariant: an event is in the ledger before it is acknowledged, so what the backend believes delivered is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::project::{Name, Write};
use super::requests::{Connection, Request};

const OK: u16 = 204;
const BAD_REQUEST: u16 = 400;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;
const BUSY: u16 = 503;

/// How a subscriber feels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mood {
    /// Takes everything.
    #[default]
    Well,
    /// Answers 503 to the first attempt of each event.
    Dizzy,
    /// Answers 410 to everything.
    Gone,
}

/// What one subscriber was given.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    mood: Mood,
    /// Events that were taken, and how often.
    taken: BTreeMap<Write, u32>,
    /// Attempts that were refused.
    pub(super) refused: u64,
    /// Attempts after the first one.
    pub(super) retried: u64,
}

impl Ledger {
    fn judge(&mut self, write: Write, attempt: u32) -> u16 {
        if attempt > 1 {
            self.retried += 1;
        }
        match (self.mood, attempt) {
            (Mood::Gone, _) => {
                self.refused += 1;
                GONE
            }
            (Mood::Dizzy, 0 | 1) => {
                self.refused += 1;
                BUSY
            }
            (Mood::Well | Mood::Dizzy, _) => {
                *self.taken.entry(write).or_default() += 1;
                OK
            }
        }
    }

    /// Events taken, each counted once.
    pub(super) fn delivered(&self) -> u64 {
        self.taken.len() as u64
    }

    /// Events that came more than once.
    pub(super) fn duplicates(&self) -> u64 {
        self.taken.values().map(|times| u64::from(times.saturating_sub(1))).sum()
    }

    /// How many of these have not come.
    pub(super) fn missing(&self, expected: &BTreeSet<Write>) -> u64 {
        expected.iter().filter(|write| !self.taken.contains_key(write)).count() as u64
    }
}

/// The webhook server of all subscribers. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Subscribers {
    address: SocketAddr,
    ledgers: Arc<Ledgers>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Ledgers {
    each: [Mutex<Ledger>; Name::ALL.len()],
    /// Counts requests, so that nobody waits for one that has come.
    requests: watch::Sender<u64>,
}

impl Subscribers {
    /// Listens on a free port of loopback.
    pub(super) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let ledgers = Arc::new(Ledgers { each: Default::default(), requests: watch::Sender::new(0) });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&ledgers))).abort_handle();
        Ok(Self { address, ledgers, accepting })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how a subscriber feels.
    pub(super) fn feel(&self, name: Name, mood: Mood) {
        self.ledgers.of(name).mood = mood;
    }

    /// Reads a ledger.
    pub(super) fn read<T>(&self, name: Name, read: impl FnOnce(&Ledger) -> T) -> T {
        read(&self.ledgers.of(name))
    }

    /// Waits until `is_enough`, which is asked after each request. Says whether that came true within `limit`.
    pub(super) async fn wait(&self, limit: Duration, mut is_enough: impl FnMut(&Self) -> bool) -> bool {
        let mut requests = self.ledgers.requests.subscribe();
        let enough = async {
            while !is_enough(self) {
                // The sender lives as long as `self`.
                requests.changed().await.unwrap_or_default();
            }
        };
        tokio::time::timeout(limit, enough).await.is_ok()
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Ledgers {
    fn of(&self, name: Name) -> MutexGuard<'_, Ledger> {
        let [matching, search, notification, partner] = &self.each;
        let ledger = match name {
            Name::Matching => matching,
            Name::SearchIndexer => search,
            Name::CarrierNotification => notification,
            Name::PartnerWebhook => partner,
        };
        ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in and chooses the status of its answer.
    fn take(&self, request: &Request) -> u16 {
        let name = Name::ALL.into_iter().find(|name| request.path.strip_prefix('/') == Some(name.as_str()));
        let Some(name) = name else { return NOT_FOUND };
        let event: Option<Event> = serde_json::from_slice(&request.body).ok();
        let attempt = request.header("x-delivery-attempt").and_then(|attempt| attempt.parse().ok());
        let Some(write) = event.and_then(|event| Write::of(&event.data)) else { return BAD_REQUEST };
        let status = self.of(name).judge(write, attempt.unwrap_or(1));
        self.requests.send_modify(|count| *count += 1);
        status
    }
}

/// The part of a CloudEvent that the subscribers look at.
#[derive(Debug, Deserialize)]
struct Event {
    data: Value,
}

async fn accept(listener: TcpListener, ledgers: Arc<Ledgers>) {
    // The tasks end with their connections, and all of them with the runtime. Without a free descriptor the next
    // accept fails too; there is no second socket to leave off, so the demonstration fails with what is missing.
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(attend(stream, Arc::clone(&ledgers)));
    }
}

async fn attend(stream: TcpStream, ledgers: Arc<Ledgers>) {
    let mut connection = Connection::new(stream);
    while let Ok(Some(request)) = connection.next().await {
        if connection.answer(ledgers.take(&request)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn deliver(subscribers: &Subscribers, name: Name, write: Write, attempt: u32) -> u16 {
        let url = format!("http://{}/{}", subscribers.address(), name.as_str());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let event = serde_json::json!({"specversion": "1.0", "data": write.document()});
        let request = client.post(url).header("x-delivery-attempt", attempt.to_string()).json(&event);
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_subscriber_counts_what_it_takes_and_answers_as_it_feels() {
        let subscribers = Subscribers::start().await.unwrap();
        let (name, write) = (Name::PartnerWebhook, Write::create(3));
        subscribers.feel(name, Mood::Gone);
        assert_eq!(deliver(&subscribers, name, write, 1).await, 410);
        subscribers.feel(name, Mood::Dizzy);
        assert_eq!(deliver(&subscribers, name, write, 1).await, 503);
        assert_eq!(deliver(&subscribers, name, write, 2).await, 204);
        subscribers.feel(name, Mood::Well);
        assert_eq!(deliver(&subscribers, name, write, 1).await, 204);
        let expected = BTreeSet::from([write, Write::create(4)]);
        subscribers.read(name, |ledger| {
            assert_eq!((ledger.delivered(), ledger.duplicates()), (1, 1));
            assert_eq!((ledger.refused, ledger.retried, ledger.missing(&expected)), (2, 1, 1));
        });
        subscribers.read(Name::Matching, |ledger| assert_eq!(ledger.delivered(), 0));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_request_that_is_enough() {
        let subscribers = Subscribers::start().await.unwrap();
        let come = |subscribers: &Subscribers| subscribers.read(Name::Matching, Ledger::delivered) == 1;
        let (enough, status) = tokio::join!(
            subscribers.wait(Duration::from_secs(30), come),
            deliver(&subscribers, Name::Matching, Write::create(1), 1)
        );
        assert!(enough && status == 204);
        assert!(!subscribers.wait(Duration::ZERO, |_| false).await);
    }
}
