//! Stands between an issuer's server and its keys: one bounded request, or two, or a file.
//! Invariant: only addresses that the guard of webhooks permits are contacted, in the clear only on this host, no
//! redirect is followed, and an answer costs no more than its time and its bytes.

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Certificate, Client, redirect};
use serde_json::Value;

use super::json;
use super::keys::{Dropped, KeySet, KeysProblem, Unfit};
use crate::delivery::{Cidr, CidrProblem, Names, UrlProblem, check_url, host_of, vet};

/// Bytes that a set of keys, or a discovery document, may have.
const BYTES: usize = 1024 * 1024;
/// Time that a request may take, from the look-up of the name to the last byte.
const TIME: Duration = Duration::from_secs(5);

/// Why an address cannot be one of keys.
#[derive(Debug, thiserror::Error)]
pub enum AddressProblem {
    /// It is no URL that may be contacted.
    #[error(transparent)]
    Url(#[from] UrlProblem),
    /// Whoever sits between could exchange the keys.
    #[error("keys are fetched over `https` only, except from this host")]
    Plain,
    /// An entry of the allow list is not a CIDR block.
    #[error("the allow list has a bad entry")]
    Allow(#[from] CidrProblem),
    /// The authority's certificates cannot be read, or TLS cannot be used.
    #[error("TLS cannot be used with these certificates")]
    Tls(#[source] reqwest::Error),
}

/// Why keys could not be had. No text repeats a URL, which may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchProblem {
    /// The discovery document names an address that may not be contacted.
    #[error("the address of the keys cannot be used")]
    Address(#[from] AddressProblem),
    /// The file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    /// No answer, or one that broke off; says why.
    #[error("no answer: {0}")]
    Transport(String),
    /// It took too long.
    #[error("no complete answer within {} s", TIME.as_secs())]
    TimedOut,
    /// The answer is not a success. Redirects are not followed.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not JSON.
    #[error("the answer says that it is not JSON")]
    ContentType,
    /// The answer, or the file, is too large.
    #[error("more than {BYTES} bytes")]
    TooLarge,
    /// The discovery document is not one, or is another issuer's (OpenID Connect Discovery 1.0, section 4.3).
    #[error("the discovery document {0}")]
    Discovery(&'static str),
    /// What came is no set of keys that can be used.
    #[error(transparent)]
    Keys(#[from] KeysProblem),
    /// The fetch was given up because its runtime stopped.
    #[error("the fetch was given up")]
    GivenUp,
}

/// Where keys are fetched from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A file of this host.
    File(PathBuf),
    /// A set of keys.
    Url(Web, String),
    /// A discovery document, which must be that of the issuer.
    OpenId { web: Web, url: String, issuer: String },
}

impl Place {
    /// Fetches the keys, and says which of them are left out.
    pub(super) async fn fetch(&self) -> Result<(KeySet, Vec<Dropped>), FetchProblem> {
        let text = match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                return read.unwrap_or(Err(FetchProblem::GivenUp)).map(|keys| (keys, Vec::new()));
            }
            Self::Url(web, url) => web.get(url).await?,
            Self::OpenId { web, url, issuer } => {
                let document = web.get(url).await?;
                let url = keys_address(&document, issuer)?;
                web.check(&url)?;
                web.get(&url).await?
            }
        };
        Ok(KeySet::from_jwks(&text)?)
    }
}

/// Reads keys out of a file, in which somebody who can correct it has put them: a weak key is an error.
pub(super) fn read_file(path: &Path) -> Result<KeySet, FetchProblem> {
    let file = std::fs::File::open(path).map_err(FetchProblem::File)?;
    let mut text = Vec::new();
    file.take(BYTES as u64 + 1).read_to_end(&mut text).map_err(FetchProblem::File)?;
    if text.len() > BYTES {
        return Err(FetchProblem::TooLarge);
    }
    let (keys, dropped) = KeySet::from_jwks(&text)?;
    // A set may well hold keys that are for something else.
    let fault = dropped.into_iter().find(|dropped| !matches!(dropped.why, Unfit::Use | Unfit::Unsupported));
    fault.map_or(Ok(keys), |fault| Err(KeysProblem::Unusable(fault).into()))
}

/// The address of the keys in a discovery document.
fn keys_address(document: &[u8], issuer: &str) -> Result<String, FetchProblem> {
    let document = json::object(document).ok_or(FetchProblem::Discovery("is not a JSON object"))?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(FetchProblem::Discovery("is another issuer's"));
    }
    let url = document.get("jwks_uri").and_then(Value::as_str);
    url.map(str::to_owned).ok_or(FetchProblem::Discovery("does not say where the keys are"))
}

/// Asks servers of keys.
#[derive(Clone)]
pub(super) struct Web {
    client: Client,
    allow: Vec<String>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("allow", &self.allow).finish_non_exhaustive()
    }
}

impl Web {
    /// A way to servers of which `allow` may be private ones, and that `authority` (PEM) may have certified.
    pub(super) fn new(
        names: Arc<dyn Names>,
        allow: &[String],
        authority: Option<&[u8]>,
    ) -> Result<Self, AddressProblem> {
        let blocks = allow.iter().map(|block| block.parse()).collect::<Result<Vec<Cidr>, _>>()?;
        let mut builder = Client::builder()
            .user_agent(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            // A proxy would look names up for us, and nobody would vet its answers.
            .no_proxy()
            // Callers live on several runtimes, and a connection dies with the one that opened it.
            .pool_max_idle_per_host(0)
            .dns_resolver(Vetted { names, allow: blocks.into() });
        if let Some(pem) = authority {
            let authorities = Certificate::from_pem_bundle(pem).map_err(AddressProblem::Tls)?;
            builder = builder.tls_certs_only(authorities);
        }
        Ok(Self { client: builder.build().map_err(AddressProblem::Tls)?, allow: allow.to_vec() })
    }

    /// Checks an address, as far as that is possible without a look-up.
    pub(super) fn check(&self, url: &str) -> Result<(), AddressProblem> {
        check_url(url, &self.allow)?;
        let is_secure = url.trim_start().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        if is_secure || host_of(url).is_some_and(|host| is_this_host(&host)) {
            Ok(())
        } else {
            Err(AddressProblem::Plain)
        }
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchProblem> {
        match tokio::time::timeout(TIME, self.answer(url)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchProblem::TimedOut),
        }
    }

    async fn answer(&self, url: &str) -> Result<Vec<u8>, FetchProblem> {
        let request = self.client.get(url).header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(broken)?;
        if response.status().as_u16() != 200 {
            return Err(FetchProblem::Status(response.status().as_u16()));
        }
        if !is_json(response.headers()) {
            return Err(FetchProblem::ContentType);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > BYTES {
                return Err(FetchProblem::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The first cause of a request that broke off.
fn broken(problem: reqwest::Error) -> FetchProblem {
    if problem.is_timeout() {
        return FetchProblem::TimedOut;
    }
    let problem = problem.without_url();
    let mut cause: &dyn std::error::Error = &problem;
    while let Some(next) = cause.source() {
        cause = next;
    }
    FetchProblem::Transport(cause.to_string())
}

/// Looks names up, and keeps the addresses that may be contacted.
struct Vetted {
    names: Arc<dyn Names>,
    allow: Arc<[Cidr]>,
}

impl Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.names.lookup(name.as_str().to_owned());
        let allow = Arc::clone(&self.allow);
        Box::pin(async move {
            let (mut permitted, mut refused) = (Vec::new(), None);
            for ip in found.await? {
                match vet(ip, &allow) {
                    Ok(()) => permitted.push(SocketAddr::new(ip, 0)),
                    Err(problem) => refused = refused.or(Some(problem)),
                }
            }
            match refused {
                Some(problem) if permitted.is_empty() => Err(problem.into()),
                Some(_) | None => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}
