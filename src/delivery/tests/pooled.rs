//! What is kept between requests: idle connections and what was learnt about endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lanekeeper_actors::model::delivery::Transport;
use tokio::sync::{Barrier, watch};
use tokio::time::Instant;

use super::server::Server;
use super::{AMPLE, EMPTY_200, attempt, endpoint, until, webhooks};
use crate::delivery::connect::Dialer;
use crate::delivery::endpoint::Endpoints;
use crate::delivery::names::{Lookups, SystemNames};
use crate::delivery::pool::Pool;
use crate::delivery::tls::Settings;

fn pool() -> Pool {
    let dialer = Dialer { lookups: Lookups::new(Arc::new(SystemNames)), limit: AMPLE };
    Pool::new(dialer, Settings::without_host().unwrap())
}

#[tokio::test]
async fn of_a_burst_no_more_connections_stay_open_than_the_bound_says() {
    const BURST: usize = 80;
    let (all, closed) = (Arc::new(Barrier::new(BURST)), Arc::new(AtomicUsize::new(0)));
    let server = Server::start({
        let closed = Arc::clone(&closed);
        move |mut connection| {
            let (all, closed) = (Arc::clone(&all), Arc::clone(&closed));
            async move {
                connection.request().await;
                // Nobody is answered before everybody is connected.
                all.wait().await;
                connection.say(EMPTY_200).await;
                connection.closed().await;
                closed.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let webhooks = webhooks();
    let burst = futures_util::future::join_all((0..BURST).map(|_| webhooks.deliver(attempt(&server.url()))));
    assert!(burst.await.iter().all(|outcome| outcome.is_delivered()));
    until(|| closed.load(Ordering::SeqCst) == BURST - 64).await;
    drop(webhooks);
    until(|| closed.load(Ordering::SeqCst) == BURST).await;
}

#[tokio::test]
async fn connections_that_were_closed_and_origins_that_nobody_needs_are_forgotten() {
    let (close, closing) = watch::channel(false);
    let server = Server::start(move |connection| {
        let mut closing = closing.clone();
        async move {
            closing.wait_for(|close| *close).await.unwrap();
            drop(connection);
        }
    })
    .await;
    let pool = pool();
    let url = reqwest::Url::parse(&server.url()).unwrap();
    let origin = || pool.origin(&url, &[], Default::default()).unwrap();
    let lease = pool.lease(&origin(), Instant::now() + AMPLE).await.unwrap();
    assert!(!lease.reused);
    pool.give_back(&origin(), lease.link);
    pool.sweep();
    let lease = pool.lease(&origin(), Instant::now() + AMPLE).await.unwrap();
    assert!(lease.reused, "an idle connection keeps its origin");
    close.send(true).unwrap();
    until(|| lease.link.is_closed()).await;
    pool.give_back(&origin(), lease.link);
    let kept = Arc::downgrade(&origin());
    pool.sweep();
    assert!(kept.upgrade().is_none());
}

#[test]
fn an_endpoint_is_prepared_once_and_forgotten_when_nobody_uses_it() {
    let (pool, endpoints) = (pool(), Endpoints::new());
    let one = Arc::new(endpoint("http://127.0.0.1/"));
    let first = endpoints.prepared(&pool, &one).unwrap();
    assert!(Arc::ptr_eq(&first, &endpoints.prepared(&pool, &one).unwrap()));
    endpoints.sweep();
    assert!(Arc::ptr_eq(&first, &endpoints.prepared(&pool, &Arc::clone(&one)).unwrap()));
    // A changed endpoint is another value, which may have got the place of the old one.
    let other = Arc::new(endpoint("http://127.0.0.1/"));
    assert!(!Arc::ptr_eq(&first, &endpoints.prepared(&pool, &other).unwrap()));
    let kept = Arc::downgrade(&first);
    drop((one, first));
    endpoints.sweep();
    assert!(kept.upgrade().is_none());
}
