//! Stands between an endpoint that wants an OAuth 2 token and the server that gives them out (RFC 6749, 4.4).
//! Invariant: one request for a token at a time, whoever waits; a token is used until shortly before it expires,
//! and a failure is not asked for again at once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use lanekeeper_actors::model::secret::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{EndpointProblem, Place, SENDER, bearer};
use super::exchange::{Call, Exchange};
use super::failure::shorten;
use super::{WallClock, retry_after};

/// The time that a token lasts whose server does not say.
const UNSAID: Duration = Duration::from_secs(300);
/// A token is replaced this long before it expires, or a fifth of its time if that is less.
const EARLY: Duration = Duration::from_secs(60);
/// A failure answers everybody for this long, so that those who waited do not ask one after the other.
const FAILED: Duration = Duration::from_secs(1);
/// No token is used for longer, whatever its server says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What a form does not write as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');
/// Bytes of an answer that are read.
const LARGEST: usize = 64 * 1024;

/// Where the tokens of one endpoint come from, and the one in use.
pub(crate) struct Tokens {
    place: Place,
    headers: HeaderMap,
    body: Bytes,
    state: Mutex<State>,
}

enum State {
    None,
    Valid { value: HeaderValue, until: Instant },
    Failed { outcome: Outcome, until: Instant },
}

/// What a token endpoint answers (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<Seconds>,
}

/// A number, which some servers write as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Tokens {
    /// Nothing is asked before the first delivery. `login` is the client's name and password, `wishes` what the
    /// request has beside the kind of grant.
    ///
    /// # Errors
    /// When name and password make no header, which their encoding rules out.
    pub(crate) fn new(
        place: Place,
        login: (&str, &Secret),
        wishes: &[(&str, &str)],
    ) -> Result<Self, EndpointProblem> {
        // Both are written as in a form, so that a colon in them is not taken for the one between them.
        let pair = format!("{}:{}", form_text(login.0), form_text(login.1.expose()));
        let login = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
        let mut login = login.map_err(|problem| EndpointProblem::Header("client secret", problem))?;
        login.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(USER_AGENT, SENDER);
        headers.insert(AUTHORIZATION, login);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut body = "grant_type=client_credentials".to_owned();
        for (name, value) in wishes {
            body.push_str(&format!("&{name}={}", form_text(value)));
        }
        Ok(Self { place, headers, body: body.into(), state: Mutex::new(State::None) })
    }

    /// The value of `authorization` with a token that is valid, fetched if there is none.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here. Its detail says that it was the token endpoint's.
    pub(crate) async fn current(&self, via: &Via<'_>) -> Result<HeaderValue, Outcome> {
        self.instead_of(None, via).await
    }

    /// A token that is not `refused`, which the endpoint does not take.
    ///
    /// # Errors
    /// As for [`Tokens::current`].
    pub(crate) async fn renewed(&self, refused: &HeaderValue, via: &Via<'_>) -> Result<HeaderValue, Outcome> {
        self.instead_of(Some(refused), via).await
    }

    async fn instead_of(&self, refused: Option<&HeaderValue>, via: &Via<'_>) -> Result<HeaderValue, Outcome> {
        let Ok(mut state) = timeout_at(via.deadline, self.state.lock()).await else {
            let detail = "token endpoint: others waited for a token until the deadline";
            return Err(Outcome::failed(OutcomeKind::TimedOut, detail));
        };
        let now = Instant::now();
        match &*state {
            State::Valid { value, until } if *until > now && refused != Some(value) => {
                return Ok(value.clone());
            }
            State::Failed { outcome, until } if *until > now => return Err(outcome.clone()),
            State::None | State::Valid { .. } | State::Failed { .. } => {}
        }
        // Whoever gives up here leaves the next in line to ask anew.
        match self.fetch(via).await {
            Ok((value, lasts)) => {
                *state = State::Valid { value: value.clone(), until: now + lasts };
                Ok(value)
            }
            // Somebody else may have more time.
            Err(outcome) if outcome.kind == OutcomeKind::TimedOut => Err(outcome),
            Err(outcome) => {
                *state = State::Failed { outcome: outcome.clone(), until: Instant::now() + FAILED };
                Err(outcome)
            }
        }
    }

    /// Asks for a token, and says how long it may be used.
    async fn fetch(&self, via: &Via<'_>) -> Result<(HeaderValue, Duration), Outcome> {
        let headers = || self.headers.clone();
        let call = Call { method: Method::POST, headers: &headers, body: self.body.clone() };
        let answer = via.exchange.call(&self.place, call, via.deadline).await.map_err(|mut outcome| {
            outcome.detail = shorten(&format!("token endpoint: {}", outcome.detail));
            outcome
        })?;
        let status = answer.status.as_u16();
        let delay = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let delay = delay.and_then(|value| retry_after::parse(value, (via.clock)()));
        let body = via.exchange.finish(&self.place, answer, LARGEST, via.deadline).await;
        match status {
            200 => {}
            429 | 503 => {
                let busy = Outcome::failed(OutcomeKind::Busy, format!("token endpoint: status {status}"));
                return Err(Outcome { retry_after: delay, ..busy });
            }
            _ => return Err(refusal(&format!("status {status}"))),
        }
        // What the server says about a failure may repeat what it was sent.
        let granted: Granted =
            serde_json::from_slice(&body).map_err(|_| refusal("the answer holds no token"))?;
        if !granted.token_type.eq_ignore_ascii_case("bearer") {
            return Err(refusal("the token is not a bearer token"));
        }
        let value = bearer(&granted.access_token).map_err(|_| refusal("no header can hold the token"))?;
        let lasts = granted.expires_in.and_then(|seconds| seconds.duration()).unwrap_or(UNSAID);
        Ok((value, lasts.saturating_sub(EARLY.min(lasts / 5))))
    }
}

/// What a request for a token goes through.
pub(crate) struct Via<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) clock: &'a WallClock,
    pub(crate) deadline: Instant,
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => *seconds,
            Self::Text(text) => text.parse().ok()?,
        };
        Duration::try_from_secs_f64(seconds).ok().map(|time| time.min(LONGEST))
    }
}

/// A server that answered something that is no token. Trying again later may help.
fn refusal(detail: &str) -> Outcome {
    Outcome::failed(OutcomeKind::SocketError, format!("token endpoint: {detail}"))
}

/// A value as forms write it, with `%20` for a space.
fn form_text(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, FORM)
}
