//! Stands between a host name and the addresses that are really contacted.
//! Invariant: every answer of the name server is vetted, and a connection goes to a vetted answer or nowhere;
//! there is no second look-up between the check and the connection that a hostile name server could change.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::cidr::Cidr;
use super::guard::{Refused, vet};

/// A source of addresses for host names. Answers are not trusted: they are vetted by the caller.
pub trait Names: Send + Sync + 'static {
    /// All addresses of `host`.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The names that this host knows: its hosts file and its name servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let answers = tokio::net::lookup_host((host, 0)).await?;
            Ok(answers.map(|address| address.ip()).collect())
        })
    }
}

/// Why a host name leads nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LookupProblem {
    /// There are addresses, but none that may be contacted; the first one says why.
    #[error(transparent)]
    Refused(Refused),
    /// The name exists without an address.
    #[error("the host name has no address")]
    NoAddress,
    /// The name server says no, or says nothing.
    #[error("{0}")]
    Failed(Arc<io::Error>),
    /// The look-up was dropped because the transport stopped.
    #[error("the look-up was given up")]
    GivenUp,
}

type Answer = Result<Arc<[IpAddr]>, LookupProblem>;

/// The look-ups under way.
type Running = Arc<Mutex<HashMap<String, Shared<BoxFuture<'static, Answer>>>>>;

/// The look-ups under way, one per host name however many attempts wait for it, so that a name server
/// that never answers costs one blocking thread per name and not one per attempt.
pub(crate) struct Lookups {
    names: Arc<dyn Names>,
    running: Running,
}

impl Lookups {
    pub(crate) fn new(names: Arc<dyn Names>) -> Self {
        Self { names, running: Arc::default() }
    }

    /// The addresses of a host name that may be contacted.
    ///
    /// # Errors
    /// See [`LookupProblem`].
    pub(crate) async fn permitted(&self, host: &str, allow: &[Cidr]) -> Result<Vec<IpAddr>, LookupProblem> {
        permit(&self.lookup(host).await?, allow)
    }

    /// All addresses of a host name, for those whom an operator named and not a tenant.
    ///
    /// # Errors
    /// See [`LookupProblem`].
    pub(crate) async fn all(&self, host: &str) -> Result<Arc<[IpAddr]>, LookupProblem> {
        let found = self.lookup(host).await?;
        if found.is_empty() { Err(LookupProblem::NoAddress) } else { Ok(found) }
    }

    /// Joins the look-up of this name, or begins one. It goes on when the caller is dropped.
    fn lookup(&self, host: &str) -> Shared<BoxFuture<'static, Answer>> {
        let mut running = lock(&self.running);
        if let Some(lookup) = running.get(host) {
            return lookup.clone();
        }
        let task =
            tokio::spawn(lookup_once(Arc::clone(&self.names), Arc::clone(&self.running), host.to_owned()));
        let answer = async move { task.await.unwrap_or(Err(LookupProblem::GivenUp)) }.boxed().shared();
        running.insert(host.to_owned(), answer.clone());
        answer
    }
}

/// Asks the source of names and, whatever happens, leaves the table without this look-up.
async fn lookup_once(names: Arc<dyn Names>, running: Running, host: String) -> Answer {
    let _leave = Leave { running, host: host.clone() };
    match names.lookup(host).await {
        Ok(addresses) => Ok(addresses.into()),
        Err(problem) => Err(LookupProblem::Failed(Arc::new(problem))),
    }
}

/// Takes a look-up out of the table when its task ends, also by a panic.
struct Leave {
    running: Running,
    host: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.host);
    }
}

/// The table stays true under a panic elsewhere: each change to it is one operation.
fn lock<T>(running: &Mutex<T>) -> MutexGuard<'_, T> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the answers that may be contacted. One bad answer does not spoil the good ones.
fn permit(answers: &[IpAddr], allow: &[Cidr]) -> Result<Vec<IpAddr>, LookupProblem> {
    let mut permitted = Vec::with_capacity(answers.len());
    let mut refused = None;
    for ip in answers {
        match vet(*ip, allow) {
            Ok(()) => permitted.push(*ip),
            Err(problem) => refused = refused.or(Some(problem)),
        }
    }
    match refused {
        Some(problem) if permitted.is_empty() => Err(LookupProblem::Refused(problem)),
        None if permitted.is_empty() => Err(LookupProblem::NoAddress),
        Some(_) | None => Ok(permitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn of_mixed_answers_only_the_permitted_ones_are_used() {
        let permitted = permit(&ips(&["127.0.0.1", "1.1.1.1", "::1", "10.0.0.1"]), &[]).unwrap();
        assert_eq!(permitted, ips(&["1.1.1.1"]));
    }

    #[test]
    fn a_name_with_private_answers_only_is_refused_and_one_without_answers_has_none() {
        let problem = permit(&ips(&["127.0.0.1", "10.0.0.1"]), &[]).unwrap_err();
        assert!(matches!(problem, LookupProblem::Refused(refused) if refused.range == "loopback"));
        assert!(matches!(permit(&[], &[]).unwrap_err(), LookupProblem::NoAddress));
    }

    /// Names that answer only once they are told to.
    struct Slow {
        asked: AtomicUsize,
        go: Notify,
    }

    struct SlowNames(Arc<Slow>);

    impl Names for SlowNames {
        fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let slow = Arc::clone(&self.0);
            Box::pin(async move {
                slow.asked.fetch_add(1, Ordering::SeqCst);
                slow.go.notified().await;
                Ok(vec![IpAddr::from([1, 1, 1, 1])])
            })
        }
    }

    #[tokio::test]
    async fn many_attempts_share_one_lookup_of_a_name_and_leave_nothing_behind() {
        let slow = Arc::new(Slow { asked: AtomicUsize::new(0), go: Notify::new() });
        let lookups = Lookups::new(Arc::new(SlowNames(Arc::clone(&slow))));
        // An attempt that gives up does not end the look-up for the others.
        drop(lookups.lookup("a.example"));
        let waiting: Vec<_> = (0..100).map(|_| lookups.lookup("a.example")).collect();
        assert!(lock(&lookups.running).contains_key("a.example"));
        slow.go.notify_one();
        let answers = futures_util::future::join_all(waiting);
        for answer in tokio::time::timeout(Duration::from_secs(20), answers).await.unwrap() {
            assert_eq!(answer.unwrap().as_ref(), ips(&["1.1.1.1"]));
        }
        assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
        assert!(lock(&lookups.running).is_empty());
    }
}
