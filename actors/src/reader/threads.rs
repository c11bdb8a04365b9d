//! The threads on which slices of queries run.
//!
//! Stands between queries, which wait for their turn, and the machine's cores. Invariants: a slice never takes a core
//! from a request that could use it, because these threads come after all others; a slice that panics costs its own
//! query alone.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::kernel::contain::contain;

/// How much less these threads weigh than the others when cores are short: about a tenth each.
const NICER: i32 = 10;
/// The weakest that a thread can be.
const NICEST: i32 = 19;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub(super) struct Threads(Sender<Job>);

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threads")
    }
}

/// The work did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crashed;

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..count.max(1) {
            let jobs = jobs.clone();
            std::thread::Builder::new().name(format!("query-{number}")).spawn(move || attend(&jobs))?;
        }
        Ok(Self(sender))
    }

    /// Runs `work` on one of them.
    ///
    /// # Errors
    /// [`Crashed`] when it panicked.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Crashed> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            match contain(work) {
                // Whoever asked may be gone.
                Ok(done) => drop(tell.send(done)),
                Err(panicked) => tracing::error!(panic = %panicked.0, "a query crashed"),
            }
        });
        self.0.send(job).map_err(|_| Crashed)?;
        told.await.map_err(|_| Crashed)
    }
}

fn attend(jobs: &Mutex<Receiver<Job>>) {
    step_back();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
    }
}

/// Makes this thread come after the others. Where the system does not allow it, queries run all the same.
fn step_back() {
    let now = rustix::process::getpriority_process(None).unwrap_or(0);
    let nicer = now.saturating_add(NICER).min(NICEST);
    // On Linux the priority is that of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, nicer) {
        tracing::debug!(%error, "a thread of queries has the priority of the others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_threads_that_come_after_the_others() {
        let threads = Threads::start(1).unwrap();
        let own = rustix::process::getpriority_process(None).unwrap();
        let theirs = threads.run(|| rustix::process::getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(theirs, (own + NICER).min(NICEST));
        let after = rustix::process::getpriority_process(None).unwrap();
        assert_eq!(after, own, "nobody else steps back");
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_work_alone() {
        let threads = Threads::start(1).unwrap();
        let crashed: Result<(), _> = threads.run(|| panic!("one")).await;
        assert_eq!(crashed, Err(Crashed));
        assert_eq!(threads.run(|| 2).await, Ok(2));
    }
}
