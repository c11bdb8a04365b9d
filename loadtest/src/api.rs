//! Stands between a row and one server: single requests to its gateway and its admin API, each answer read whole.
//! Invariant: every request has a deadline, and an answer that did not come is an error, never an empty answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The largest answer that is read, in bytes: a page of large dead letters.
const MAX_ANSWER: usize = 64 << 20;
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A listener of the server, and the header field that opens it.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    credential: (&'static str, String),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection that is kept between requests.
pub(crate) struct Line {
    api: Api,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Api {
    /// The listener of a URL such as `http://127.0.0.1:9080`.
    pub(crate) fn new(url: &str, credential: (&'static str, String)) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").unwrap_or(url).parse();
        Ok(Self { address: address.with_context(|| format!("`{url}` is no address"))?, credential })
    }

    /// The admin API, with the operator's token.
    pub(crate) fn admin(url: &str, token: &str) -> anyhow::Result<Self> {
        Self::new(url, ("authorization", format!("Bearer {token}")))
    }

    /// The gateway, with an API key.
    pub(crate) fn gateway(url: &str, key: &str) -> anyhow::Result<Self> {
        Self::new(url, ("x-api-key", key.to_owned()))
    }

    /// A connection to it, made when it is first needed.
    pub(crate) fn line(&self) -> Line {
        Line { api: self.clone(), sender: None }
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        self.line().send(method, path, &[("content-type", content_type)], body).await
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.line().send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Reads JSON, which must be there.
    pub(crate) async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path).await?;
        if answer.status != 200 {
            bail!("GET {path}: {}", answer.told());
        }
        answer.json().with_context(|| format!("GET {path} gave no JSON"))
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, "application/json", Bytes::from(body.to_string())).await
    }
}

impl Line {
    /// Sends one request and reads its whole answer. A connection that breaks is not used again; whether the request was
    /// carried out is then unknown.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.api.address.to_string())
            .header(self.api.credential.0, &self.api.credential.1);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let sender = self.sender.take();
        let exchange = async {
            let mut sender = match sender {
                Some(sender) if !sender.is_closed() => sender,
                Some(_) | None => connect(self.api.address).await?,
            };
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
            let answer = Answer { status: head.status.as_u16(), headers: head.headers, body };
            Ok::<_, anyhow::Error>((sender, answer))
        };
        let (sender, answer) =
            tokio::time::timeout(DEADLINE, exchange).await.context("no answer in time")??;
        self.sender = Some(sender);
        Ok(answer)
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header field as text; empty when it is absent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Status and body in one short line.
    pub(crate) fn told(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        format!("{} {body}", self.status)
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What breaks the connection is told to whoever uses the sender.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(sender)
}
