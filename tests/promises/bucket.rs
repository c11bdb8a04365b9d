//! An object store with a memory: as much of the protocol of Amazon S3 as backups and dead letters need, on a port of this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::server::House;

/// Keys in one page of a list: few, so that pages are turned.
const PAGE: usize = 3;
/// The one bucket.
pub(crate) const BUCKET: &str = "backups";

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The name of the object; empty for the bucket.
    pub(crate) key: String,
    /// The query, as it came.
    pub(crate) query: String,
    /// Whether it carries a signature (AWS Signature Version 4) of its method, host and date.
    pub(crate) signed: bool,
    range: Option<String>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts by number, and the object that they will be.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    asked: Vec<Asked>,
}

/// Decides whether a request fails, and with which status. It sees all that was asked before.
type Script = dyn Fn(&Asked, &[Asked]) -> Option<u16> + Send + Sync;

/// Runs on a thread of its own until the test ends.
pub(crate) struct Bucket {
    pub(crate) address: SocketAddr,
    held: Arc<Mutex<Held>>,
    script: Arc<Mutex<Box<Script>>>,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::<Mutex<Held>>::default();
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(|_, _| None)));
        let (memory, rules) = (held.clone(), script.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, memory.clone(), rules.clone()));
                }
            });
        });
        Self { address, held, script }
    }

    /// Tells the processes of a house where the bucket is.
    pub(crate) fn known_to(&self, house: House) -> House {
        house
            .with("AWS_ENDPOINT_URL", &format!("http://{}", self.address))
            .with("AWS_ACCESS_KEY_ID", "the-key")
            .with("AWS_SECRET_ACCESS_KEY", "the-secret")
            .with("AWS_REGION", "here")
            .with("NO_PROXY", "127.0.0.1")
    }

    /// From now on requests fail as the script says.
    pub(crate) fn fail(&self, script: impl Fn(&Asked, &[Asked]) -> Option<u16> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.held.lock().unwrap().asked.clone()
    }

    /// The names of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.held.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Uploads that were begun, and neither finished nor given up.
    pub(crate) fn unfinished(&self) -> usize {
        self.held.lock().unwrap().uploads.len()
    }

    /// Changes an object behind everybody's back.
    pub(crate) fn change(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.held.lock().unwrap().objects.get_mut(key).unwrap());
    }
}

/// Answers the requests of one connection, one after the other. `None` when the peer is gone.
async fn serve(stream: TcpStream, held: Arc<Mutex<Held>>, script: Arc<Mutex<Box<Script>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let key = path.trim_start_matches('/').strip_prefix(BUCKET)?.trim_start_matches('/').to_owned();
        let mut asked = Asked { method, key, query: query.to_owned(), signed: false, range: None };
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok()?,
                "range" => asked.range = Some(value.to_owned()),
                "authorization" => {
                    let parts = ["AWS4-HMAC-SHA256 Credential=the-key/", "SignedHeaders=host;", "Signature="];
                    asked.signed = parts.iter().all(|part| value.contains(part));
                }
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let failure = {
            let mut held = held.lock().unwrap();
            let failure = script.lock().unwrap()(&asked, &held.asked);
            held.asked.push(asked.clone());
            failure
        };
        let (status, headers, answer) = match failure {
            Some(status) => (status, String::new(), b"<Error><Code>Scripted</Code></Error>".to_vec()),
            None => held.lock().unwrap().answer(&asked, body),
        };
        let head = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        if asked.method != "HEAD" {
            stream.write_all(&answer).await.ok()?;
        }
    }
}

const DATED: &str = "etag: \"tag\"\r\nlast-modified: Mon, 23 Nov 2026 12:00:00 GMT\r\n";

impl Held {
    fn answer(&mut self, asked: &Asked, body: Vec<u8>) -> (u16, String, Vec<u8>) {
        let xml = |text: String| (200, "content-type: application/xml\r\n".to_owned(), text.into_bytes());
        let nothing = |status| (status, DATED.to_owned(), Vec::new());
        let upload = value_of(&asked.query, "uploadId");
        match (asked.method.as_str(), upload) {
            ("GET", _) if asked.key.is_empty() => xml(self.list(&asked.query)),
            ("GET" | "HEAD", _) => match self.objects.get(&asked.key) {
                None => (404, String::new(), b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
                Some(object) => part(object, asked.range.as_deref()),
            },
            ("POST", None) => {
                let id = format!("upload-{}", self.asked.len());
                self.uploads.insert(id.clone(), (asked.key.clone(), BTreeMap::new()));
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("POST", Some(id)) => {
                let (key, parts) = self.uploads.remove(&id).unwrap();
                self.objects.insert(key, parts.into_values().flatten().collect());
                xml("<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>"
                    .into())
            }
            ("PUT", Some(id)) => {
                let number = value_of(&asked.query, "partNumber").unwrap().parse().unwrap();
                self.uploads.get_mut(&id).unwrap().1.insert(number, body);
                nothing(200)
            }
            ("PUT", None) => {
                self.objects.insert(asked.key.clone(), body);
                nothing(200)
            }
            ("DELETE", Some(id)) => {
                self.uploads.remove(&id);
                nothing(204)
            }
            _ => nothing(501),
        }
    }

    fn list(&self, query: &str) -> String {
        let prefix = value_of(query, "prefix").unwrap_or_default().replace("%2F", "/");
        let after = value_of(query, "continuation-token").unwrap_or_default().replace("%2F", "/");
        let mut keys =
            self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).peekable();
        let (mut text, mut last) = ("<ListBucketResult>".to_owned(), String::new());
        for (key, object) in keys.by_ref().take(PAGE) {
            text += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-23T12:00:00.000Z</LastModified><Size>{}</Size></Contents>",
                object.len()
            );
            last.clone_from(key);
        }
        if keys.peek().is_some() {
            text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        text + "</ListBucketResult>"
    }
}

fn part(object: &[u8], range: Option<&str>) -> (u16, String, Vec<u8>) {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return (200, DATED.to_owned(), object.to_vec());
    };
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse::<usize>().map_or(object.len(), |to| (to + 1).min(object.len()));
    if from >= to {
        return (416, String::new(), Vec::new());
    }
    let shown = format!("{DATED}content-range: bytes {from}-{}/{}\r\n", to - 1, object.len());
    (206, shown, object[from..to].to_vec())
}

fn value_of(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value.to_owned())
}
