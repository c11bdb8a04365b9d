//! Stands between an endpoint as it was configured and the requests that are sent to it: everything that is the
//! same for each of them is read, checked and made once.
//! Invariant: what is kept belongs to the very [`Endpoint`] value that is asked for; another value, equal or not,
//! is checked anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, ORIGIN, USER_AGENT};
use hyper::http::uri::InvalidUri;
use hyper::{Uri, header::InvalidHeaderValue};
use lanekeeper_actors::model::delivery::{Credentials, Endpoint, Outcome, OutcomeKind};
use reqwest::Url;

use super::connect::Dialer;
use super::failure::{shorten, with_cause};
use super::guard::{UrlProblem, parse_allow, parse_url};
use super::names::{Lookups, SystemNames};
use super::pool::{Origin, Pool};
use super::sign::{BadKey, Signer};
use super::tls::{Settings, TlsProblem, Trust};
use super::token::Tokens;

/// What a delivery calls itself.
pub(crate) const SENDER: HeaderValue =
    HeaderValue::from_static(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")));
/// Any kind of answer is welcome, as nobody reads it.
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
/// Who asks, of webhooks with abuse protection (CloudEvents HTTP webhooks, section 4.1.1).
pub(crate) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// Endpoints that are kept before those that nobody uses any more are looked for.
const ENOUGH: usize = 1024;

/// Why an endpoint cannot be used as it is configured. No message repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum EndpointProblem {
    /// The URL is not one that may be contacted.
    #[error(transparent)]
    Url(#[from] UrlProblem),
    /// The URL of the token endpoint is not one that may be contacted.
    #[error("the token endpoint cannot be used")]
    TokenUrl(#[source] UrlProblem),
    /// The URL has a character that HTTP cannot carry.
    #[error("the URL cannot be sent over HTTP")]
    Uri(#[from] InvalidUri),
    /// The host's name, the certificates or the key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// A signing key is not what it says.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// A header that the endpoint asks for has a value that HTTP cannot carry.
    #[error("the {0} has a character that no header can hold")]
    Header(&'static str, #[source] InvalidHeaderValue),
}

impl EndpointProblem {
    /// The outcome of an attempt at such an endpoint.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Url(problem) => Outcome::failed(OutcomeKind::Forbidden, shorten(&with_cause(problem))),
            Self::TokenUrl(problem) => {
                let detail = format!("token endpoint: {}", with_cause(problem));
                Outcome::failed(OutcomeKind::Forbidden, shorten(&detail))
            }
            // Trying again does not help, but says so each time.
            Self::Uri(_) | Self::Tls(_) | Self::Key(_) | Self::Header(..) => {
                let detail = format!("the request cannot be made: {}", with_cause(self));
                Outcome::failed(OutcomeKind::Rejected, shorten(&detail))
            }
        }
    }
}

/// Checks an endpoint when it is registered: everything that a delivery would find without the network, as
/// [`check_url`](super::check_url) does for the URL alone.
///
/// # Errors
/// The first problem found; see [`EndpointProblem`].
pub fn check_endpoint(endpoint: &Endpoint) -> Result<(), EndpointProblem> {
    let dialer = Dialer { lookups: Lookups::new(Arc::new(SystemNames)), limit: Duration::ZERO };
    let pool = Pool::new(dialer, Settings::without_host()?);
    Prepared::new(&pool, endpoint).map(drop)
}

/// A URL that was checked, and the connections to it.
pub(crate) struct Place {
    pub(crate) origin: Arc<Origin>,
    /// Path and query, the form that HTTP/1.1 wants.
    pub(crate) path: Uri,
    /// The whole URL, the form that HTTP/2 wants.
    pub(crate) whole: Uri,
    pub(crate) host: HeaderValue,
}

impl Place {
    fn new(pool: &Pool, url: &Url, allow: &[super::Cidr], trust: Trust) -> Result<Self, EndpointProblem> {
        let tail =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self {
            origin: pool.origin(url, allow, trust)?,
            path: tail.parse()?,
            whole: format!("{}://{host}{tail}", url.scheme()).parse()?,
            host: HeaderValue::from_str(&host).map_err(|problem| EndpointProblem::Header("host", problem))?,
        })
    }
}

/// An endpoint that is ready to be sent to.
pub(crate) struct Prepared {
    pub(crate) place: Place,
    /// The headers that are the same on every request.
    pub(crate) headers: HeaderMap,
    pub(crate) signer: Option<Signer>,
    /// Where the token comes from, when it does not stand in `headers`.
    pub(crate) tokens: Option<Tokens>,
}

impl Prepared {
    /// Reads and checks an endpoint. Nothing is contacted.
    ///
    /// # Errors
    /// The first problem found; see [`EndpointProblem`].
    pub(crate) fn new(pool: &Pool, endpoint: &Endpoint) -> Result<Self, EndpointProblem> {
        let allow = parse_allow(&endpoint.allow).map_err(UrlProblem::from)?;
        let url = parse_url(&endpoint.url, &allow)?;
        let trust = Trust { tls: endpoint.tls.clone(), also_host: false };
        let place = Place::new(pool, &url, &allow, trust)?;
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(USER_AGENT, SENDER);
        headers.insert(ACCEPT, ANYTHING);
        if let Some(origin) = &endpoint.origin {
            let value = HeaderValue::from_str(origin);
            let value = value.map_err(|problem| EndpointProblem::Header("origin", problem))?;
            headers.insert(REQUEST_ORIGIN, value.clone());
            headers.insert(ORIGIN, value);
        }
        let mut tokens = None;
        match &endpoint.auth {
            None => {}
            Some(Credentials::Bearer(token)) => {
                let value = bearer(token.expose());
                let value = value.map_err(|problem| EndpointProblem::Header("bearer token", problem))?;
                headers.insert(AUTHORIZATION, value);
            }
            Some(Credentials::OAuth2 { token_url, client_id, client_secret, scope, audience }) => {
                let url = parse_url(token_url, &allow).map_err(EndpointProblem::TokenUrl)?;
                // Often a public service signs in for a private endpoint; its own identity is not for others.
                let mut trust = Trust { tls: endpoint.tls.clone(), also_host: true };
                trust.tls.identity = None;
                let place = Place::new(pool, &url, &allow, trust)?;
                let wishes = [("scope", scope), ("audience", audience)];
                let wishes: Vec<_> =
                    wishes.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                tokens = Some(Tokens::new(place, (client_id, client_secret), &wishes)?);
            }
        }
        Ok(Self { place, headers, signer: Signer::new(&endpoint.signing)?, tokens })
    }
}

/// The value of `authorization` for a token (RFC 6750, section 2.1). It is not kept in tables of compression.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The endpoints that are in use, by where their values lie.
pub(crate) struct Endpoints {
    known: Mutex<Known>,
}

struct Known {
    /// A weak hold keeps the place of a value from being taken by another one.
    table: HashMap<usize, (Weak<Endpoint>, Arc<Prepared>)>,
    /// The size at which unused ones are looked for.
    enough: usize,
}

impl Endpoints {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::new(Known { table: HashMap::new(), enough: ENOUGH }) }
    }

    /// This endpoint, ready to be sent to.
    ///
    /// # Errors
    /// See [`EndpointProblem`]. What cannot be used is not kept.
    pub(crate) fn prepared(
        &self,
        pool: &Pool,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Arc<Prepared>, EndpointProblem> {
        let place = Arc::as_ptr(endpoint).addr();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prepared)) = known.table.get(&place) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(Prepared::new(pool, endpoint)?);
        if known.table.len() >= known.enough {
            known.forget();
        }
        known.table.insert(place, (Arc::downgrade(endpoint), Arc::clone(&prepared)));
        Ok(prepared)
    }

    /// Forgets endpoints that nobody uses any more.
    pub(crate) fn sweep(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).forget();
    }
}

impl Known {
    fn forget(&mut self) {
        self.table.retain(|_, (endpoint, _)| endpoint.strong_count() > 0);
        self.enough = ENOUGH.max(self.table.len().saturating_mul(2));
    }
}
