//! Killed at any moment, the server keeps what it acknowledged, and each event of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::ledger::{EventKey, Intent, Ledger};
use super::server::{Answer, House, KEY, Server};
use super::sink::{Hit, Sink};

const KILLS: usize = 20;
const WRITERS: usize = 6;
const LANES: usize = 4;
/// Load before a kill, in milliseconds.
const LOAD_MILLIS: std::ops::RangeInclusive<u64> = 50..=800;
/// A writer's pause between two writes, so that all subscribers can keep up on a small machine.
const PAUSE_MILLIS: std::ops::RangeInclusive<u64> = 0..=15;
/// `limits.delivery_window` of the manifest.
const WINDOW: usize = 16;
const RESTART_MAX: Duration = Duration::from_secs(2);
/// Time for everything that is owed after the last restart.
const SETTLE_MAX: Duration = Duration::from_secs(40);
const SUBSCRIPTIONS: [&str; 3] = ["healthy", "flaky", "broken"];

fn manifest(sink: &Sink) -> String {
    let at = sink.address;
    let subscription = |name: &str, attempts: u32| {
        format!(
            "  {name}:\n    topic: load-events\n    to: {{ webhook: \"http://{at}/{name}\", allow: [127.0.0.0/8] }}\n    \
             retry: {{ max_attempts: {attempts}, ttl: 1h, scale: 0.0001, probation: false }}\n"
        )
    };
    let subscriptions =
        [subscription("healthy", 30), subscription("flaky", 30), subscription("broken", 3)].concat();
    format!(
        r#"
manifest: 1
project: crash
limits: {{ delivery_window: {WINDOW}, delivery_timeout: 5s }}
containers:
  loads: {{ partition_key: [/lane] }}
topics:
  load-events: {{ from: {{ container: loads, types: {{ created: Created, replaced: Replaced, deleted: Deleted }} }} }}
event_subscriptions:
{subscriptions}
apis:
  loads:
    path: /loads
    operations:
      create: {{ method: POST, path: /, to: {{ container: loads, do: create }} }}
      read: {{ method: GET, path: "/{{lane}}/{{id}}", to: {{ container: loads, do: read, partition: "{{lane}}", id: "{{id}}" }} }}
      swap: {{ method: PUT, path: "/{{lane}}/{{id}}", to: {{ container: loads, do: replace, partition: "{{lane}}", id: "{{id}}" }} }}
      gone: {{ method: DELETE, path: "/{{lane}}/{{id}}", to: {{ container: loads, do: delete, partition: "{{lane}}", id: "{{id}}" }} }}
      list: {{ method: GET, path: "/{{lane}}", to: {{ container: loads, do: list, partition: "{{lane}}" }} }}
products:
  all: {{ apis: [loads] }}
api_keys:
  main: {{ product: all, tenant: acme, primary: {{ env: MAIN }} }}
"#
    )
}

/// The endpoints: one well, one that fails three times of ten, one that always fails. The first two take some
/// milliseconds, so that there is always something in flight when the server is killed.
fn script(hit: &Hit) -> (u16, Duration) {
    let mut hasher = DefaultHasher::new();
    (&hit.id, hit.attempt).hash(&mut hasher);
    let chance = hasher.finish();
    match hit.path.as_str() {
        "flaky" if chance % 10 < 3 => (500, Duration::ZERO),
        "broken" => (500, Duration::ZERO),
        _ => (200, Duration::from_millis(chance % 40)),
    }
}

fn document(lane: &str, id: &str, token: &str) -> Value {
    json!({ "id": id, "lane": lane, "token": token, "note": "ünïcode \u{1f69a} and \"quotes\"" })
}

/// Sends creates, replaces and deletes of its own documents, one after the other.
struct Writer {
    number: usize,
    rng: Rng,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    /// Documents that exist for sure, as lane and id.
    mine: Vec<(String, String)>,
    sent: usize,
}

/// What is known after an answer, or after none.
enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

impl Writer {
    /// Writes to whatever server there is, until there will be none.
    async fn run(mut self, mut server: watch::Receiver<Option<String>>) {
        loop {
            let Ok(address) = server.wait_for(Option::is_some).await.map(|address| address.clone()) else {
                return;
            };
            self.write(&address.unwrap()).await;
            tokio::time::sleep(Duration::from_millis(self.rng.u64(PAUSE_MILLIS))).await;
        }
    }

    async fn write(&mut self, address: &str) {
        self.sent += 1;
        let token = format!("{}-{}", self.number, self.sent);
        let choice = self.rng.u32(0..10);
        let existing = if choice < 5 || self.mine.is_empty() {
            None
        } else {
            Some(self.mine.swap_remove(self.rng.usize(..self.mine.len())))
        };
        let (method, intent) = match existing {
            None => {
                let (lane, id) = (format!("L{}", self.rng.usize(..LANES)), format!("d-{token}"));
                (Method::POST, Intent { event: token.clone(), lane, id, after: Some(token) })
            }
            Some((lane, id)) if choice < 8 => {
                (Method::PUT, Intent { event: token.clone(), lane, id, after: Some(token) })
            }
            Some((lane, id)) => {
                (Method::DELETE, Intent { event: format!("gone:{id}"), lane, id, after: None })
            }
        };
        self.ledger.lock().unwrap().begin(&intent);
        let fate = self.send(address, method.clone(), &intent).await;
        let exists = match fate {
            Fate::Acknowledged => intent.after.is_some(),
            Fate::Refused => method == Method::PUT,
            Fate::Unknown => false,
        };
        if exists {
            self.mine.push((intent.lane.clone(), intent.id.clone()));
        }
        let mut ledger = self.ledger.lock().unwrap();
        match fate {
            Fate::Acknowledged => ledger.acknowledge(&intent),
            Fate::Refused => ledger.refuse(&intent),
            Fate::Unknown => ledger.lose(&intent),
        }
    }

    async fn send(&self, address: &str, method: Method, intent: &Intent) -> Fate {
        let Intent { lane, id, after, .. } = intent;
        let url = match method {
            Method::POST => format!("{address}/loads"),
            _ => format!("{address}/loads/{lane}/{id}"),
        };
        let mut request = self.client.request(method, url).header("x-api-key", KEY);
        if let Some(token) = after {
            request = request.json(&document(lane, id, token));
        }
        match request.send().await {
            Ok(answer) => match answer.status().as_u16() {
                200 | 201 | 204 => Fate::Acknowledged,
                429 | 503 => Fate::Refused,
                504 => Fate::Unknown,
                other => panic!("{other} to {intent:?}: {}", answer.text().await.unwrap_or_default()),
            },
            Err(error) if error.is_connect() => Fate::Refused,
            Err(_) => Fate::Unknown,
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_killed() {
    let seed = std::env::var("LANEKEEPER_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("LANEKEEPER_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let sink = Sink::slow(script);
    let house = House::new(&manifest(&sink)).with("LANEKEEPER_LOG", "warn");
    let ledger = Arc::<Mutex<Ledger>>::default();
    let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let (announce, address) = watch::channel(None);
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (rng, ledger, client) = (rng.fork(), ledger.clone(), client.clone());
            let writer = Writer { number, rng, client, ledger, mine: Vec::new(), sent: 0 };
            tokio::spawn(writer.run(address.clone()))
        })
        .collect();
    drop(address);
    for _ in 0..KILLS {
        let server = house.start().await;
        assert!(server.ready_after < RESTART_MAX, "ready only after {:?}", server.ready_after);
        announce.send(Some(server.gateway.clone())).unwrap();
        tokio::time::sleep(Duration::from_millis(rng.u64(LOAD_MILLIS))).await;
        server.kill();
        // Nobody asks a server that is not there yet; what is in flight finds out by itself.
        announce.send(None).unwrap();
    }
    drop(announce);
    for writer in writers {
        writer.await.unwrap();
    }
    let server = house.start().await;
    assert!(server.ready_after < RESTART_MAX, "ready only after {:?}", server.ready_after);
    settle(&server).await;
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    let committed = check_documents(&server, &ledger).await;
    for name in SUBSCRIPTIONS {
        let buried = dead_letters(&server, name).await;
        check_events(name, &sink.hits(), &buried, &committed, &ledger);
    }
    let (documents, events) = (ledger.documents.len(), committed.len());
    println!("{documents} documents, {events} events, {} attempts of delivery", sink.hits().len());
    assert!(events > 20 * KILLS, "hardly anything was written");
    assert!(server.stop().await.success());
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Waits until nothing is owed to any subscription.
async fn settle(server: &Server) {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let answer = server.ask("/v1/subscriptions").await;
        let owed = |subscription: &Value| {
            let rest = ["/lag/events", "/in_flight", "/ready", "/unsettled", "/retrying"];
            rest.iter().any(|pointer| subscription.pointer(pointer).unwrap() != &json!(0))
        };
        let subscriptions = answer.body["subscriptions"].as_array().unwrap();
        assert_eq!(subscriptions.len(), SUBSCRIPTIONS.len());
        if !subscriptions.iter().any(owed) {
            return;
        }
        assert!(Instant::now() < deadline, "still owed: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads every document that was ever written. Returns the events that must exist: those of acknowledged writes,
/// and of unknown ones that turned out to have happened.
async fn check_documents(server: &Server, ledger: &Ledger) -> BTreeSet<EventKey> {
    let mut committed = ledger.acknowledged.clone();
    for ((lane, id), expected) in &ledger.documents {
        let answer = server.get(&format!("/loads/{lane}/{id}")).await;
        let found = token(&answer, lane, id);
        if found == expected.sure {
            continue;
        }
        match &expected.unknown {
            Some(unknown) if found == unknown.after => {
                committed.insert(unknown.event.clone());
            }
            _ => panic!("{lane}/{id}: found {found:?}, expected {expected:?}"),
        }
    }
    committed
}

/// The token of the document that was read, whose whole body must be as it was sent.
fn token(answer: &Answer, lane: &str, id: &str) -> Option<String> {
    if answer.status == 404 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.text);
    let token = answer.body["token"].as_str().unwrap();
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
    assert_eq!(body, document(lane, id, token));
    Some(token.to_owned())
}

/// The events that a subscription has given up, by id.
async fn dead_letters(server: &Server, name: &str) -> BTreeMap<String, Value> {
    let mut letters = BTreeMap::new();
    let mut path = format!("/v1/subscriptions/{name}/dead-letters?limit=1000");
    loop {
        let page = server.ask(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        for letter in page.body["dead_letters"].as_array().unwrap() {
            let id = letter["id"].as_str().unwrap().to_owned();
            assert!(letters.insert(id, letter["event"].clone()).is_none(), "listed twice: {letter}");
        }
        let Some(next) = page.body["continuation"].as_str() else { return letters };
        path = format!("/v1/subscriptions/{name}/dead-letters?limit=1000&continuation={next}");
    }
}

/// Which write an event tells of.
fn key(event: &Value) -> EventKey {
    match event["type"].as_str().unwrap() {
        "Deleted" => format!("gone:{}", event["data"]["id"].as_str().unwrap()),
        _ => event["data"]["token"].as_str().unwrap().to_owned(),
    }
}

fn check_events(
    name: &str,
    hits: &[Hit],
    buried: &BTreeMap<String, Value>,
    committed: &BTreeSet<EventKey>,
    ledger: &Ledger,
) {
    // Each write has one event, whoever hears of it and how often.
    let mut ids: BTreeMap<EventKey, &str> = BTreeMap::new();
    let mut delivered: BTreeMap<&str, usize> = BTreeMap::new();
    let hits = hits.iter().filter(|hit| hit.path == name);
    let events = hits.clone().map(|hit| (hit.id.as_str(), &hit.event));
    for (id, event) in events.chain(buried.iter().map(|(id, event)| (id.as_str(), event))) {
        let key = key(event);
        let subject = ledger.attempted.get(&key).unwrap_or_else(|| panic!("{name}: invented: {event}"));
        assert_eq!(event["subject"], json!(subject), "{name}");
        assert_eq!(*ids.entry(key).or_insert(id), id, "{name}: two events of one write: {event}");
    }
    for hit in hits.filter(|hit| hit.status == 200) {
        *delivered.entry(&hit.id).or_default() += 1;
    }
    for key in committed {
        let id = ids.get(key).unwrap_or_else(|| panic!("{name}: no event of `{key}`"));
        let settled = delivered.contains_key(id) || buried.contains_key(*id);
        assert!(settled, "{name}: `{key}` ({id}) is neither delivered nor dead-lettered");
    }
    if let Some(invented) = ids.keys().find(|key| !committed.contains(*key)) {
        // A write that was overwritten since cannot be: nothing is sent for a document after an unknown write.
        panic!("{name}: an event of `{invented}`, which did not happen");
    }
    let again: usize = delivered.values().map(|times| times - 1).sum();
    println!("{name}: {} delivered, {again} of them again, {} dead letters", delivered.len(), buried.len());
    assert!(again <= WINDOW * KILLS, "{name}: {again} events sent again");
    let hopeless = if name == "broken" { committed.len() } else { 0 };
    assert_eq!(buried.len(), hopeless, "{name}: dead letters");
}
