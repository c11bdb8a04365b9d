//! Every dead letter becomes a file, however often the store or the process fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lanekeeper_actors::protocol::subscriber::Selection;
use lanekeeper_actors::subscriber::{DeadLetterStore, SubscriptionConfig};
use serde_json::Value;

use crate::support::{
    Endpoints, config, create, cut, eventually, lane, quick, start, status, stop, subscription, until,
};

/// A store that fails as often as it is told, and may keep everybody waiting.
#[derive(Debug, Default)]
struct Store {
    files: Mutex<BTreeMap<String, Bytes>>,
    puts: AtomicUsize,
    failures: AtomicUsize,
    hangs: AtomicBool,
}

impl DeadLetterStore for Store {
    fn put(&self, path: &str, body: Bytes) -> BoxFuture<'static, Result<(), String>> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Box::pin(async { Err("the store is away".to_owned()) });
        }
        self.files.lock().unwrap().insert(path.to_owned(), body);
        let hangs = self.hangs.load(Ordering::SeqCst);
        Box::pin(async move { if hangs { std::future::pending().await } else { Ok(()) } })
    }
}

fn exporting(store: &Arc<Store>) -> SubscriptionConfig {
    SubscriptionConfig { export: Some(store.clone()), ..subscription("partner-hook", quick(1)) }
}

#[actix::test]
async fn a_store_that_is_away_gets_every_dead_letter_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let store = Arc::new(Store::default());
    store.failures.store(usize::MAX, Ordering::SeqCst);
    let system = start(config(folder.path(), vec![exporting(&store)]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..20 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "partner-hook", |status| {
        status.exports_waiting == 20 && status.export_error.as_deref() == Some("the store is away")
    })
    .await;
    store.failures.store(3, Ordering::SeqCst);
    let done = until(&system, "partner-hook", |status| status.exports_waiting == 0).await;
    assert_eq!((done.export_error, done.dead_letters), (None, 20));
    let files = store.files.lock().unwrap().clone();
    assert_eq!(files.len(), 20);
    for (path, body) in &files {
        let parts: Vec<_> = path.split('/').collect();
        assert_eq!((parts.len(), parts[0]), (6, "PARTNER-HOOK"), "{path}");
        assert!(parts[1..5].iter().all(|part| *part == "0" || !part.starts_with('0')), "{path}");
        assert!(parts[5].len() == 41 && parts[5].ends_with(".json"), "{path}");
        let body: Value = serde_json::from_slice(body).unwrap();
        let event = &body[0];
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "LoadCreated");
        assert_eq!(event["deadletterreason"], "MaxDeliveryAttemptsExceeded");
        assert_eq!(
            (&event["deliveryattempts"], &event["lastdeliveryoutcome"]),
            (&1.into(), &"Rejected".into())
        );
        assert!(event["publishtime"].is_string() && event["lastdeliveryattempttime"].is_string());
    }
    stop(system).await;
}

#[actix::test]
async fn after_a_crash_between_file_and_note_the_same_file_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let store = Arc::new(Store::default());
    store.hangs.store(true, Ordering::SeqCst);
    let system = start(config(folder.path(), vec![exporting(&store)]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..5 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "partner-hook", |status| status.dead_letters == 5).await;
    eventually("a file", || store.puts.load(Ordering::SeqCst) > 0).await;
    cut(system).await;
    drop(partition);
    let before = store.files.lock().unwrap().clone();
    assert!(!before.is_empty());

    store.hangs.store(false, Ordering::SeqCst);
    let system = start(config(folder.path(), vec![exporting(&store)]), &endpoints).await;
    until(&system, "partner-hook", |status| status.exports_waiting == 0 && status.dead_letters == 5).await;
    let after = store.files.lock().unwrap().clone();
    assert_eq!(after.len(), 5);
    assert!(before.iter().all(|(path, body)| after.get(path) == Some(body)));
    stop(system).await;
}

#[actix::test]
async fn what_is_replayed_or_purged_is_not_exported_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let store = Arc::new(Store::default());
    store.failures.store(usize::MAX, Ordering::SeqCst);
    let system = start(config(folder.path(), vec![exporting(&store)]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..6 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "partner-hook", |status| status.exports_waiting == 6).await;
    let handle = system.subscription("partner-hook").unwrap();
    let letters = handle.dead_letters(None, 10).unwrap();
    endpoints.change(|_| status(204));
    let one = Selection::Events(vec![letters[0].event.position()]);
    assert_eq!(handle.replay(one).await, Ok(1));
    until(&system, "partner-hook", |status| status.exports_waiting == 5 && status.delivered == 1).await;
    assert_eq!(handle.purge(Selection::All).await, Ok(5));
    until(&system, "partner-hook", |status| status.exports_waiting == 0).await;
    store.failures.store(0, Ordering::SeqCst);
    assert!(store.files.lock().unwrap().is_empty());
    stop(system).await;
}
