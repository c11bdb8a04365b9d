//! `serve`: one backend, from its manifest to its end.

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use tokio::sync::mpsc;

use super::failure::{self, Failure};
use super::output;
use super::process::{Backend, Order, Signals, log, runtime};
use crate::app::{self, Origin, Start};
use crate::manifest::{self, Flags, Source, Sources, Written};
use crate::telemetry;

/// Time for the last lines of the log to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Time between two looks at the manifest files.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper serve
  lanekeeper serve --manifest config/northwind.yaml --data /var/lib/lanekeeper
  LANEKEEPER__LIMITS__BODY=1MiB lanekeeper serve --listen 127.0.0.1:0 --admin 127.0.0.1:0

When it is ready, and not before, it prints one line on stdout:
  ready gateway=http://127.0.0.1:PORT admin=http://127.0.0.1:PORT
LANEKEEPER_LOG chooses what is logged on stderr, for instance `info,lanekeeper::http=debug`.
SIGHUP reads the manifest again, and `--watch` whenever it changes; what is wrong is logged, and what was there stays.
SIGTERM and SIGINT end it after what is under way is done; a second one ends it at once.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Manifest; several are merged, the later one is stronger. Without one: an empty project
    #[arg(long = "manifest", value_name = "FILE")]
    manifests: Vec<PathBuf>,
    /// Data directory, stronger than the manifest
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Follow the manifest files when they change; SIGHUP does the same once
    #[arg(long)]
    watch: bool,
    /// Public address, stronger than the manifest; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Private address of the admin API, stronger than the manifest
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Runs a backend until a signal ends it.
pub(super) fn run(options: Options, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let sources = Sources {
        files: options.manifests.into_iter().map(Source::File).collect(),
        environment: environment.clone(),
        flags: Flags { listen: options.listen, admin: options.admin, data: options.data },
    };
    let manifest = manifest::load(&sources)?;
    log(&environment)?;
    let origin = Origin::of(&sources)?;
    let start = app::choose(manifest, origin).map_err(|error| Failure::Failed(error.to_string()))?;
    let result = runtime()?.block_on(attend(start, sources.files, options.watch, environment));
    telemetry::flush(LAST_WORDS);
    result
}

async fn attend(
    start: Start,
    files: Vec<Source>,
    watch: bool,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let (reloads, changed) = mpsc::channel(1);
    let mut watcher = Watcher::new(files, watch);
    let mut backend = tokio::select! {
        backend = Backend::start_live(start, changed, environment) => backend?,
        // Nothing was promised yet: there is nothing to finish.
        () = signals.next() => return Ok(()),
    };
    output::print(&format!("ready gateway={} admin={}", backend.gateway()?, backend.at.admin));
    loop {
        let written = tokio::select! {
            result = backend.ended() => return result,
            order = signals.order() => match order {
                Order::End => break,
                Order::Reload => watcher.read(),
            },
            written = watcher.changed() => Some(written),
        };
        if let Some(written) = written {
            // With one on its way already, the newer one waits for it.
            reloads.send(written).await.unwrap_or_default();
        }
    }
    backend.stop();
    tokio::select! {
        result = backend.ended() => result,
        () = signals.next() => process::exit(failure::FAILED.into()),
    }
}

/// Looks whether the manifest files say something else.
struct Watcher {
    files: Vec<Source>,
    /// What they said last, if somebody wants to know when they change.
    last: Option<Written>,
    watch: bool,
}

impl Watcher {
    fn new(files: Vec<Source>, watch: bool) -> Self {
        let last = manifest::written(&files).ok();
        Self { files, last, watch }
    }

    /// What the files say. What cannot be read is logged.
    fn read(&mut self) -> Option<Written> {
        match manifest::written(&self.files) {
            Ok(written) => {
                self.last = Some(written.clone());
                Some(written)
            }
            Err(problems) => {
                tracing::error!(%problems, "the manifest cannot be read: what was there stays");
                None
            }
        }
    }

    /// Waits until the files say something else, and have said it for a moment: an editor writes in pieces.
    async fn changed(&mut self) -> Written {
        if !self.watch {
            std::future::pending::<()>().await;
        }
        let mut seen: Option<Written> = None;
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = manifest::written(&self.files).ok().filter(|now| self.last.as_ref() != Some(now));
            match (now, seen.take()) {
                (Some(now), Some(before)) if now == before => {
                    self.last = Some(now.clone());
                    return now;
                }
                (now, _) => seen = now,
            }
        }
    }
}
