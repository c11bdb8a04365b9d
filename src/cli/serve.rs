//! `serve`: one backend, from its manifest to its end.

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use super::failure::{self, Failure};
use super::output;
use super::process::{Backend, Signals, log, runtime};
use crate::manifest::{self, Flags, Manifest, Source, Sources};
use crate::telemetry;

/// Time for the last lines of the log to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper serve
  lanekeeper serve --manifest config/northwind.yaml --data /var/lib/lanekeeper
  LANEKEEPER__LIMITS__BODY=1MiB lanekeeper serve --listen 127.0.0.1:0 --admin 127.0.0.1:0

When it is ready, and not before, it prints one line on stdout:
  ready gateway=http://127.0.0.1:PORT admin=http://127.0.0.1:PORT
LANEKEEPER_LOG chooses what is logged on stderr, for instance `info,lanekeeper::http=debug`.
SIGTERM and SIGINT end it after what is under way is done; a second one ends it at once.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Manifest; several are merged, the later one is stronger. Without one: an empty project
    #[arg(long = "manifest", value_name = "FILE")]
    manifests: Vec<PathBuf>,
    /// Data directory, stronger than the manifest
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Public address, stronger than the manifest; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Private address of the admin API, stronger than the manifest
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Runs a backend until a signal ends it.
pub(super) fn run(options: Options, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let manifest = manifest::load(&Sources {
        files: options.manifests.into_iter().map(Source::File).collect(),
        environment: environment.clone(),
        flags: Flags { listen: options.listen, admin: options.admin, data: options.data },
    })?;
    log(&environment)?;
    let result = runtime()?.block_on(attend(manifest, environment));
    telemetry::flush(LAST_WORDS);
    result
}

async fn attend(manifest: Manifest, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut backend = tokio::select! {
        backend = Backend::start(manifest, environment) => backend?,
        // Nothing was promised yet: there is nothing to finish.
        () = signals.next() => return Ok(()),
    };
    output::print(&format!("ready gateway={} admin={}", backend.gateway()?, backend.at.admin));
    tokio::select! {
        result = backend.ended() => return result,
        () = signals.next() => backend.stop(),
    }
    tokio::select! {
        result = backend.ended() => result,
        () = signals.next() => process::exit(failure::FAILED.into()),
    }
}
