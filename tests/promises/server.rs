//! The binary under test as an operator runs it: a manifest, a data directory, a process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::small_disk::SmallDisk;

/// The key `main` of every manifest here.
pub(crate) const KEY: &str = "the-main-key-of-acme";
/// The operator's token.
pub(crate) const TOKEN: &str = "operators-own-token";
/// Long enough for anything on a busy machine, so that only what is stuck meets it.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// A manifest and a data directory, which outlive the processes that use them.
pub(crate) struct House {
    folder: TempDir,
    environment: Vec<(String, String)>,
    /// What commands are started through.
    through: Vec<String>,
    /// Where the process listens; flags are stronger than its manifest.
    places: Vec<&'static str>,
    /// An authority (PEM) that the client trusts.
    authority: Option<String>,
}

/// A running process.
pub(crate) struct Server {
    child: Child,
    /// Address of the public listener.
    pub(crate) gateway: String,
    /// Address of the private one.
    pub(crate) admin: String,
    /// Time from the start of the process to its `ready` line.
    pub(crate) ready_after: Duration,
    http: Client,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// `Null` when the text is no JSON.
    pub(crate) body: Value,
}

impl House {
    /// A new data directory under this manifest; the key `main` is in the variable `MAIN`.
    pub(crate) fn new(manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.yaml"), manifest).unwrap();
        let places = vec!["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let house = Self { folder, environment: Vec::new(), through: Vec::new(), places, authority: None };
        house.with("MAIN", KEY).with("LANEKEEPER_ADMIN_TOKEN", TOKEN)
    }

    /// Sets an environment variable of all processes to come.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves it to the manifest where processes listen, and trusts this authority (PEM) there.
    pub(crate) fn secure(mut self, authority: &str) -> Self {
        self.places.clear();
        self.authority = Some(authority.to_owned());
        self
    }

    /// Writes a file beside the manifest, whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    /// Runs all processes to come where this file system is mounted.
    pub(crate) fn inside(mut self, disk: &SmallDisk) -> Self {
        self.through = disk.inside(self.folder.path());
        self
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.folder.path().join("manifest.yaml")
    }

    /// All that the processes have written to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Runs a verb of the command line to its end.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Starts a process and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        match self.try_start().await {
            Ok(server) => server,
            Err(status) => panic!("no `ready` line, {status}:\n{}", self.log()),
        }
    }

    /// As [`start`](Self::start); the exit status of a process that ended before it was ready.
    pub(crate) async fn try_start(&self) -> Result<Server, ExitStatus> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let started = Instant::now();
        let mut child = self
            .command()
            .args(["serve", "--manifest", "manifest.yaml", "--data", "data"])
            .args(&self.places)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, first) = oneshot::channel();
        std::thread::spawn(move || {
            let line = lines.next().and_then(Result::ok);
            tell.send((line, started.elapsed())).ok();
            // A full pipe would stop the process.
            lines.for_each(drop);
        });
        let (line, ready_after) = tokio::time::timeout(AMPLE, first).await.expect("ready in time").unwrap();
        let Some(line) = line else { return Err(child.wait().unwrap()) };
        let (gateway, admin) = line.strip_prefix("ready gateway=").unwrap().split_once(" admin=").unwrap();
        let http = self.client().build().unwrap();
        let (gateway, admin) = (gateway.to_owned(), admin.to_owned());
        Ok(Server { child, gateway, admin, ready_after, http })
    }

    /// A client that trusts what the house does.
    pub(crate) fn client(&self) -> ClientBuilder {
        let client = Client::builder().no_proxy().timeout(AMPLE);
        match &self.authority {
            None => client,
            Some(authority) => client.tls_certs_only([Certificate::from_pem(authority.as_bytes()).unwrap()]),
        }
    }

    fn command(&self) -> Command {
        let mut line = self.through.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_lanekeeper")]);
        let mut command = Command::new(line.next().unwrap());
        command.args(line);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Server {
    /// A request to the public listener with the key `main`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).header("x-api-key", KEY)
    }

    /// A request to the public listener without a key.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.gateway))
    }

    /// A request to the private listener with the operator's token.
    pub(crate) fn operator(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.admin)).bearer_auth(TOKEN)
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// Sends a JSON body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        answer(self.request(method, path).json(body)).await
    }

    /// Asks the admin API.
    pub(crate) async fn ask(&self, path: &str) -> Answer {
        answer(self.operator(Method::GET, path)).await
    }

    /// Sends these bytes to the public listener and reads until it closes, or until this text has come.
    pub(crate) async fn raw(&self, bytes: &[u8], enough: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_until(&mut stream, enough).await
    }

    /// A bare connection to the public listener.
    pub(crate) async fn connect(&self) -> TcpStream {
        let (_, address) = self.gateway.split_once("://").unwrap();
        let address: SocketAddr = address.parse().unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    /// Waits until a question to the admin API is answered as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + AMPLE;
        loop {
            let answer = self.ask(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "`{path}` never became what it must: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as a power cut of the process would: SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Orders its end: SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    }

    /// Orders it to read its manifest again: SIGHUP.
    pub(crate) fn hang_up(&self) {
        let order = format!("kill -HUP {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + AMPLE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it in order, and says how it ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that ended needs no end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Answer {
    /// A header as text; empty when it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and stable code.
    pub(crate) fn refused(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

/// Reads until the peer closes, or until this text has come.
pub(crate) async fn read_until(stream: &mut TcpStream, enough: &str) -> String {
    let mut answer = String::new();
    let mut piece = [0; 4096];
    let reading = async {
        loop {
            // A connection that is reset has said what it had to say.
            let length = stream.read(&mut piece).await.unwrap_or(0);
            answer.push_str(&String::from_utf8_lossy(&piece[..length]));
            if length == 0 || answer.contains(enough) {
                return;
            }
        }
    };
    tokio::time::timeout(AMPLE, reading).await.expect("answered in time");
    answer
}

/// Sends a request and reads the answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_default();
    Answer { status, headers, text, body }
}
