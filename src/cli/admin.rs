//! Stands between the verbs and a running server: one HTTP client of the admin API.
//!
//! Invariant: the token goes into one header and nowhere else, and no answer is longer than memory allows.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::arguments::Connection;
use super::failure::Failure;
use super::output::plain;

/// Time for the connection; the server is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole call.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a call that carries many documents.
const LONG_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Characters that are shown of an answer which is no problem+json.
const EXCERPT_CHARS: usize = 200;
/// The environment variable that holds the token.
const TOKEN_VARIABLE: &str = "LANEKEEPER_ADMIN_TOKEN";
/// The file in the data directory that holds the token.
const TOKEN_FILE: &str = "admin.token";

/// The admin API of one server.
pub(super) struct Admin {
    client: Client,
    base: Url,
    token: String,
}

/// An answer that comes in pieces.
pub(super) struct Stream<'a> {
    admin: &'a Admin,
    response: Response,
}

/// The server's reason for not doing something (RFC 9457).
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    trace_id: String,
    /// Everything that is wrong with a manifest.
    #[serde(default)]
    problems: Vec<String>,
}

impl Refusal {
    /// Whether a manifest is wrong.
    pub(super) fn is_of_configuration(&self) -> bool {
        self.code == "invalid_manifest"
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.title))?;
        if !self.detail.is_empty() {
            write!(f, ": {}", plain(&self.detail))?;
        }
        for problem in &self.problems {
            write!(f, "\n{}", plain(problem))?;
        }
        match (self.code.as_str(), self.trace_id.as_str()) {
            _ if !self.problems.is_empty() => Ok(()),
            ("", "") => Ok(()),
            (code, "") => write!(f, " ({})", plain(code)),
            ("", trace) => write!(f, " (trace {})", plain(trace)),
            (code, trace) => write!(f, " ({}, trace {})", plain(code), plain(trace)),
        }
    }
}

impl std::error::Error for Refusal {}

impl Admin {
    /// Prepares calls; nothing is sent yet.
    pub(super) fn connect(
        connection: &Connection,
        environment: &[(String, String)],
    ) -> Result<Self, Failure> {
        let token = token(&connection.data, environment)?;
        Self::new(base(&connection.admin)?, token)
    }

    /// The admin API at `base`.
    pub(super) fn new(base: Url, token: String) -> Result<Self, Failure> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Failure::Failed(format!("no HTTP client: {}", causes(&error))))?;
        Ok(Self { client, base, token })
    }

    /// Reads something.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.query(path, &[]).await
    }

    /// Reads something that takes parameters.
    pub(super) async fn query(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        self.call(Method::GET, self.url(path, query)?, None).await
    }

    /// Has something done.
    pub(super) async fn post(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.call(Method::POST, join(&self.base, path)?, Some(body)).await
    }

    /// Does something that takes its time.
    pub(super) async fn post_long(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.finish(self.client.post(self.url(path, &[])?).timeout(LONG_TIMEOUT).json(&body)).await
    }

    /// Replaces something.
    pub(super) async fn put(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.call(Method::PUT, join(&self.base, path)?, Some(body)).await
    }

    /// Removes something.
    pub(super) async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.call(Method::DELETE, join(&self.base, path)?, None).await
    }

    /// Sends lines of JSON.
    pub(super) async fn send_lines(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        lines: Vec<u8>,
    ) -> Result<Value, Failure> {
        let request = self.client.post(self.url(path, query)?).timeout(LONG_TIMEOUT).body(lines);
        self.finish(request.header("content-type", "application/x-ndjson")).await
    }

    /// Begins to read something long.
    pub(super) async fn open(&self, path: &[&str], query: &[(&str, String)]) -> Result<Stream<'_>, Failure> {
        let request = self.client.get(self.url(path, query)?).timeout(LONG_TIMEOUT).bearer_auth(&self.token);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, &self.read(response).await?));
        }
        Ok(Stream { admin: self, response })
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, Failure> {
        let mut url = join(&self.base, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn call(&self, method: Method, url: Url, body: Option<Value>) -> Result<Value, Failure> {
        let mut request = self.client.request(method, url);
        if let Some(body) = &body {
            request = request.json(body);
        }
        self.finish(request).await
    }

    async fn finish(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response =
            request.bearer_auth(&self.token).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = self.read(response).await?;
        if !status.is_success() {
            return Err(refusal(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Failed(format!("`{}` does not answer in JSON ({error})", self.base)))
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(Failure::Failed(format!("the answer has more than {ANSWER_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = causes(error);
        Failure::Unreachable(format!(
            "no answer from the admin API at `{}` ({cause}): does `lanekeeper serve` run there? --admin or \
             LANEKEEPER_ADMIN names another address",
            self.base
        ))
    }
}

impl Stream<'_> {
    /// The next piece, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        self.response.chunk().await.map_err(|error| {
            let (base, cause) = (&self.admin.base, causes(&error));
            Failure::Failed(format!("the answer of `{base}` broke off ({cause}): it is not complete"))
        })
    }
}

/// The address as an URL; `127.0.0.1:9080` is as good as `http://127.0.0.1:9080`.
pub(super) fn base(text: &str) -> Result<Url, Failure> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match Url::parse(&full) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) | Err(_) => {
            Err(Failure::Usage(format!("`{}` is no address such as `http://127.0.0.1:9080`", plain(text))))
        }
    }
}

/// The URL of a path whose segments are texts, not yet percent-encoded.
fn join(base: &Url, path: &[&str]) -> Result<Url, Failure> {
    let mut url = base.clone();
    // A dot segment would be taken for a step up, in the URL and again at the server.
    if let Some(dots) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
        return Err(Failure::Usage(format!("`{dots}` names nothing")));
    }
    match url.path_segments_mut() {
        Ok(mut segments) => {
            segments.pop_if_empty().extend(path);
        }
        Err(()) => return Err(Failure::Usage(format!("`{base}` cannot have a path"))),
    }
    Ok(url)
}

/// The token from the environment, else from the data directory of a server on this host.
pub(super) fn token(data: &Path, environment: &[(String, String)]) -> Result<String, Failure> {
    let set =
        environment.iter().rev().find(|(name, _)| name == TOKEN_VARIABLE).map(|(_, value)| value.trim());
    let token = match set {
        Some(value) if !value.is_empty() => value.to_owned(),
        Some(_) | None => {
            let path = data.join(TOKEN_FILE);
            match std::fs::read_to_string(&path) {
                Ok(text) => text.trim().to_owned(),
                Err(cause) => return Err(Failure::NoToken { path, cause }),
            }
        }
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage("the admin token is not one line of visible ASCII characters".into()));
    }
    Ok(token)
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(body) {
        return refusal.into();
    }
    let text: String = String::from_utf8_lossy(body).trim().chars().take(EXCERPT_CHARS).collect();
    match text.as_str() {
        "" => Failure::Failed(format!("the admin API answers {status}")),
        text => Failure::Failed(format!("the admin API answers {status}: {}", plain(text))),
    }
}

/// What caused an error of reqwest in the end, without the URL, which is told anyway.
pub(super) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let text = last.to_string();
    // The number says nothing that the words before it do not.
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_is_one_line_with_its_code_and_trace() {
        let body = br#"{"type":"x","title":"Not Found","status":404,"detail":"there is no subscription `x`",
            "instance":"/v1/subscriptions/x","code":"subscription_not_found","trace_id":"4bf92f35"}"#;
        let failure = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(
            failure.to_string(),
            "error: Not Found: there is no subscription `x` (subscription_not_found, trace 4bf92f35)"
        );
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn an_answer_of_somebody_else_is_shown_in_part() {
        let text = |body: &[u8]| refusal(StatusCode::BAD_GATEWAY, body).to_string();
        assert_eq!(text(b""), "error: the admin API answers 502 Bad Gateway");
        assert_eq!(text(b"<h1>\x1bno\n"), "error: the admin API answers 502 Bad Gateway: <h1>\\u{1b}no");
        assert!(text(&[b'x'; 5_000]).len() < 300);
        assert_eq!(text(br#"{"title":"Busy"}"#), "error: Busy");
    }

    #[test]
    fn addresses_are_taken_with_and_without_scheme() {
        assert_eq!(base("127.0.0.1:9080").unwrap().as_str(), "http://127.0.0.1:9080/");
        assert_eq!(base("localhost:1").unwrap().as_str(), "http://localhost:1/");
        assert_eq!(base("https://h/x").unwrap().as_str(), "https://h/x");
        for wrong in ["", "ftp://h", "http://"] {
            assert_eq!(base(wrong).unwrap_err().code(), 64, "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        let base = base("http://h:1").unwrap();
        let url = |path: &[&str]| join(&base, path).map(|url| url.to_string());
        assert_eq!(
            url(&["v1", "keys", "a/b?c#d:rotate"]).unwrap(),
            "http://h:1/v1/keys/a%2Fb%3Fc%23d:rotate"
        );
        assert_eq!(url(&["v1", ".."]).unwrap_err().code(), 64);
        assert_eq!(url(&["v1", ""]).unwrap_err().code(), 64);
    }

    #[test]
    fn the_token_comes_from_the_environment_or_else_from_the_data_directory() {
        let data = tempfile::tempdir().unwrap();
        let set = [(TOKEN_VARIABLE.to_owned(), "from-environment".to_owned())];
        assert_eq!(token(data.path(), &set).unwrap(), "from-environment");
        let missing = token(data.path(), &[]).unwrap_err();
        assert_eq!(missing.code(), 64);
        assert!(missing.to_string().contains("admin.token"), "{missing}");
        std::fs::write(data.path().join(TOKEN_FILE), "from-file\n").unwrap();
        assert_eq!(token(data.path(), &[]).unwrap(), "from-file");
        assert_eq!(token(data.path(), &[(TOKEN_VARIABLE.into(), String::new())]).unwrap(), "from-file");
        std::fs::write(data.path().join(TOKEN_FILE), "two\nlines").unwrap();
        assert_eq!(token(data.path(), &[]).unwrap_err().code(), 64);
    }
}
