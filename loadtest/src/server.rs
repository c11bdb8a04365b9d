//! Stands between the load tool and the server under test: writes its manifest, starts it, waits until it is ready, ends it.
//! Invariant: a server that was started here does not outlive its value.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::clock::Clock;
use crate::sink;
use crate::target::Usage;

/// How long a server may take to print its ready line.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server that closed its stdout may take to end, so that its status can be told.
const END_DEADLINE: Duration = Duration::from_secs(1);
/// How long it may take to drain.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 20;
/// The environment variable that carries the API key into the manifest.
pub(crate) const KEY_VARIABLE: &str = "LANEKEEPER_LOADTEST_KEY";

/// What the server is started with.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    /// The manifests, which are merged.
    pub(crate) manifests: Vec<String>,
    /// The data directory; without one, a temporary one.
    pub(crate) data: Option<PathBuf>,
    /// Leave the temporary directory, with the log, where it is.
    pub(crate) keep: bool,
    /// The API key that the manifest seeds.
    pub(crate) key: String,
    /// Further environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// A command that runs the one that follows it, such as `unshare -m`.
    pub(crate) wrapper: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: u32,
    /// URL of its gateway.
    pub(crate) gateway: String,
    /// URL of its admin API.
    pub(crate) admin: String,
    /// The operator's token.
    pub(crate) token: String,
    /// From just before it was spawned to when its ready line was read.
    pub(crate) ready_after: Duration,
    /// Keeps the directory alive until the server is gone.
    scratch: Scratch,
}

/// The temporary directory with the manifest, the log, and the data unless they live elsewhere.
#[derive(Debug)]
enum Scratch {
    Temporary(TempDir),
    Kept(PathBuf),
}

/// The manifest of a load test: one container, one topic, and `sink`'s subscribers.
pub(crate) fn manifest(subscribers: usize, sink: SocketAddr, limits: &str) -> String {
    let mut subscriptions = String::new();
    for subscriber in 0..subscribers {
        // Writing to a string cannot fail.
        writeln!(
            subscriptions,
            "  subscriber-{}: {{ topic: load-events, types: [LoadCreated], to: {{ webhook: \"http://{sink}{}\", allow: [127.0.0.0/8] }} }}",
            subscriber + 1,
            sink::path(subscriber),
        )
        .unwrap_or_default();
    }
    let subscriptions =
        if subscribers == 0 { String::new() } else { format!("event_subscriptions:\n{subscriptions}") };
    format!(
        r#"manifest: 1
project: loadtest
{limits}
containers:
  loads: {{ partition_key: [/lane], tenancy: shared }}
topics:
  load-events: {{ from: {{ container: loads, types: {{ created: LoadCreated }} }} }}
{subscriptions}
apis:
  freight:
    path: /freight
    version: {{ by: path, name: v1 }}
    operations:
      createLoad: {{ method: POST, path: /loads, to: {{ container: loads, do: create }} }}
      bulkLoads: {{ method: POST, path: /bulk, to: {{ container: loads, do: bulk }} }}
      scanLane: {{ method: GET, path: "/scans/{{lane}}", to: {{ container: loads, do: query, partition: "{{lane}}", sql: SELECT VALUE c.id FROM c WHERE c.nowhere = 1 }} }}
      getLoad: {{ method: GET, path: "/loads/{{lane}}/{{id}}", to: {{ container: loads, do: read, partition: "{{lane}}", id: "{{id}}" }} }}
products:
  loadtest: {{ apis: [freight], rate: {{ calls: 1000000, per: 1s }} }}
api_keys:
  loadtest: {{ product: loadtest, tenant: loadtest, primary: {{ env: {KEY_VARIABLE} }} }}
"#
    )
}

/// A key for one run.
pub(crate) fn fresh_key() -> String {
    format!("loadtest-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// The server binary: the one named, or `lanekeeper` beside our own executable.
pub(crate) fn binary(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("lanekeeper"),
    };
    if !path.is_file() {
        let text = format!("there is no server at `{}`; build it, or name one with --server", path.display());
        return Err(Usage(text).into());
    }
    // A bare file name would be looked for in PATH.
    path.canonicalize().with_context(|| format!("cannot resolve `{}`", path.display()))
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(launch: Launch, clock: Clock) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("lanekeeper-loadtest-").tempdir()?;
        let scratch = if launch.keep { Scratch::Kept(scratch.keep()) } else { Scratch::Temporary(scratch) };
        let data = launch.data.clone().unwrap_or_else(|| scratch.path().join("data"));
        let manifests = write_manifests(scratch.path(), &launch.manifests)?;
        let log_path = scratch.path().join("server.log");
        let log = std::fs::File::create(&log_path)?;
        let mut words = launch.wrapper.iter().map(OsString::from).chain([launch.binary.clone().into()]);
        let mut command = Command::new(words.next().context("no program to start")?);
        command.args(words).arg("serve");
        for manifest in &manifests {
            command.arg("--manifest").arg(manifest);
        }
        command.arg("--data").arg(&data);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let token = fresh_key();
        command.env("LANEKEEPER_ADMIN_TOKEN", &token).env(KEY_VARIABLE, &launch.key);
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let spawned = clock.now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", launch.binary.display()))?;
        let pid = child.id().context("the server has no process id")?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let Ok(Some((gateway, admin))) = tokio::time::timeout(READY_DEADLINE, ready(&mut lines)).await else {
            let ended = tokio::time::timeout(END_DEADLINE, child.wait()).await;
            let ended = match ended {
                Ok(status) => status?.to_string(),
                Err(_) => "still running".to_owned(),
            };
            bail!(
                "the server printed no ready line ({ended}); the end of its log:\n{}",
                last_lines(&log_path)
            );
        };
        let ready_after = clock.now().since(spawned);
        // A full pipe would stop the server, so whatever else it prints is read and dropped.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, pid, gateway, admin, token, ready_after, scratch })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The directory that was kept, if any.
    pub(crate) fn kept(&self) -> Option<&Path> {
        match &self.scratch {
            Scratch::Temporary(_) => None,
            Scratch::Kept(path) => Some(path),
        }
    }

    /// How it ended, if it ended by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to drain and waits until it is gone; kills it when it takes too long. Gives the status of a server that
    /// ended by itself.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Option<ExitStatus>> {
        // Sending a signal from here would take unsafe code or another crate; the command is everywhere.
        let asked = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await;
        if asked.is_ok_and(|status| status.success())
            && let Ok(status) = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await
        {
            return Ok(Some(status?));
        }
        self.child.kill().await?;
        Ok(None)
    }

    /// Ends it as a crash would: SIGKILL, nothing said.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the server cannot be killed")
    }
}

/// Writes manifests into a folder; gives their paths.
fn write_manifests(folder: &Path, manifests: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (number, text) in (1..).zip(manifests) {
        let path = folder.join(format!("manifest-{number}.yaml"));
        std::fs::write(&path, text)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Asks the binary whether it takes a manifest; gives its complaint if it does not.
pub(crate) async fn lint(binary: &Path, manifests: &[String]) -> anyhow::Result<Result<(), String>> {
    let folder = tempfile::Builder::new().prefix("lanekeeper-loadtest-").tempdir()?;
    let files = write_manifests(folder.path(), manifests)?;
    let output = Command::new(binary).arg("lint").args(&files).stdin(Stdio::null()).output().await?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(&format!("{}/", folder.path().display()), "");
    let first = text.lines().find(|line| line.contains(':')).unwrap_or("refused without a word");
    Ok(Err(first.trim().to_owned()))
}

impl Scratch {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

async fn ready(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<(String, String)> {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(addresses) = parse_ready(&line) {
            return Some(addresses);
        }
    }
    None
}

/// Reads `ready gateway=URL admin=URL`; more words may follow.
fn parse_ready(line: &str) -> Option<(String, String)> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace();
    let gateway = words.next()?.strip_prefix("gateway=")?;
    let admin = words.next()?.strip_prefix("admin=")?;
    Some((gateway.to_owned(), admin.to_owned()))
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stub(name: &str) -> Launch {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let manifest = manifest(1, "127.0.0.1:7".parse().unwrap(), "");
        Launch { binary, manifests: vec![manifest], key: fresh_key(), ..Launch::default() }
    }

    #[test]
    fn only_a_whole_ready_line_is_ready() {
        let line = "ready gateway=http://127.0.0.1:1 admin=http://127.0.0.1:2";
        let expected = Some(("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()));
        assert_eq!(parse_ready(line), expected);
        assert_eq!(parse_ready(&format!("{line} shards=4")), expected);
        for wrong in ["", "ready", "ready gateway=http://127.0.0.1:1", "not ready gateway=a admin=b"] {
            assert_eq!(parse_ready(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_manifest_names_a_webhook_for_each_subscriber() {
        let text = manifest(4, "127.0.0.1:7001".parse().unwrap(), "");
        for n in 1..=4 {
            assert!(text.contains(&format!("subscriber-{n}: {{ topic: load-events")));
            assert!(text.contains(&format!("http://127.0.0.1:7001/subscriber-{n}\"")));
        }
        assert!(text.contains(r#"path: "/loads/{lane}/{id}""#));
        assert!(!manifest(0, "127.0.0.1:7001".parse().unwrap(), "").contains("event_subscriptions"));
    }

    #[tokio::test]
    async fn a_server_is_started_as_agreed_and_stopped_by_a_signal() {
        let clock = Clock::start();
        let mut server = Server::start(stub("ready-server.sh"), clock).await.unwrap();
        assert_eq!(server.gateway, "http://127.0.0.1:1");
        assert_eq!(server.admin, "http://127.0.0.1:2");
        assert!(server.ready_after > Duration::ZERO);
        assert!(server.ended().unwrap().is_none());
        let status = server.stop().await.unwrap().expect("it ended by itself");
        assert!(status.success());
    }

    #[tokio::test]
    async fn a_server_that_ends_before_it_is_ready_is_reported_with_its_log() {
        let error = Server::start(stub("refusing-server.sh"), Clock::start()).await.unwrap_err();
        assert!(error.to_string().contains("exit status: 64"), "{error}");
        assert!(error.to_string().contains("unknown key `lod`"), "{error}");
    }

    #[test]
    fn a_missing_server_is_a_mistake_in_usage() {
        let error = binary(Some(PathBuf::from("/nonexistent/lanekeeper"))).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
    }
}
