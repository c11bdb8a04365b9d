//! Stands between a client that sends a body and whoever needs it whole.
//!
//! Invariants: no more bytes are held than the limit, and no longer than the deadline, and not even that long when
//! they come too slowly; a connection whose body was not read to its end is closed after the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use futures_util::StreamExt;
use tokio::time::Instant;

/// Bounds of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Most bytes.
    pub bytes: usize,
    /// Time for all of them.
    pub time: Duration,
    /// Time before they must have a pace.
    pub grace: Duration,
    /// That pace, in bytes per second; not zero.
    pub rate: u64,
}

impl BodyLimits {
    /// How long after its beginning a body is waited for of which so much has come.
    pub(super) fn due(&self, received: usize) -> Duration {
        let received = u64::try_from(received).unwrap_or(u64::MAX);
        let earned = received.saturating_mul(1_000).checked_div(self.rate).unwrap_or(u64::MAX);
        self.time.min(self.grace.saturating_add(Duration::from_millis(earned)))
    }

    /// Why a body of which so much has come is not waited for any longer.
    pub(super) fn late(&self, received: usize) -> BodyError {
        if self.due(received) < self.time {
            BodyError::TooSlow(self.rate)
        } else {
            BodyError::TimedOut(self.time)
        }
    }
}

/// How many bytes a body had; goes with its request once it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(pub(super) u64);

/// Why there is no body to work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Something else than JSON.
    #[error("a body must have `Content-Type: application/json`")]
    NotJson,
    /// Compressed.
    #[error("a body must not have a `Content-Encoding`")]
    Encoded,
    /// More than [`BodyLimits::bytes`].
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Longer than [`BodyLimits::time`].
    #[error("the body did not come within {0:?}")]
    TimedOut(Duration),
    /// Slower than [`BodyLimits::rate`], in bytes per second.
    #[error("the body came at less than {0} bytes per second")]
    TooSlow(u64),
    /// The connection ended or broke its framing.
    #[error("the body did not come whole")]
    Broken,
}

/// Reads a JSON body.
pub(super) async fn json(
    req: &HttpRequest,
    payload: &mut Payload,
    limits: BodyLimits,
) -> Result<Bytes, BodyError> {
    if !is_json(req) {
        return Err(BodyError::NotJson);
    }
    whole(req, payload, limits).await
}

/// Reads a body of whatever type.
pub(super) async fn whole(
    req: &HttpRequest,
    payload: &mut Payload,
    limits: BodyLimits,
) -> Result<Bytes, BodyError> {
    let encoding = req.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes());
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(BodyError::Encoded);
    }
    let announced = req.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limits.bytes) {
        return Err(BodyError::TooLarge(limits.bytes));
    }
    let body = collect(payload, limits).await?;
    req.extensions_mut().insert(Length(u64::try_from(body.len()).unwrap_or(u64::MAX)));
    Ok(body)
}

async fn collect(payload: &mut Payload, limits: BodyLimits) -> Result<Bytes, BodyError> {
    let mut body = BytesMut::new();
    let mut first: Option<Bytes> = None;
    let begun = Instant::now();
    loop {
        let held = first.as_ref().map_or(body.len(), Bytes::len);
        // What is there is taken first, so a body never suffers from a server that was busy.
        let chunk = tokio::time::timeout_at(begun + limits.due(held), payload.next()).await;
        let Some(chunk) = chunk.map_err(|_| limits.late(held))? else { break };
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        if held.saturating_add(chunk.len()) > limits.bytes {
            return Err(BodyError::TooLarge(limits.bytes));
        }
        // Most bodies come in one piece, which then needs no copy.
        match first.take() {
            None if body.is_empty() => first = Some(chunk),
            None => body.extend_from_slice(&chunk),
            Some(before) => {
                body.extend_from_slice(&before);
                body.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| body.freeze()))
}

/// An answer that keeps the request's payload until it is sent.
struct Held {
    answer: BoxBody,
    _payload: Payload,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(cx)
    }
}

/// Keeps a chunked body's payload until the answer is sent. Were it dropped before, with chunks still to come, the
/// server would wait for them, and take them, for ever; so it closes the connection instead, as it does with bodies
/// of a known length.
pub(super) fn hold(req: &HttpRequest, payload: Payload, response: HttpResponse) -> HttpResponse {
    if !req.headers().contains_key(TRANSFER_ENCODING) {
        return response;
    }
    response.map_body(|_, answer| Held { answer, _payload: payload }).map_into_boxed_body()
}

/// `application/json` or a type with the suffix `+json` (RFC 6839 section 3.1), in UTF-8.
pub(super) fn is_json(req: &HttpRequest) -> bool {
    let Some(value) = req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let suffix = essence.strip_suffix("+json").and_then(|rest| rest.strip_prefix("application/"));
    let json = essence == "application/json" || suffix.is_some_and(|rest| !rest.is_empty());
    json && parts.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
    })
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    use super::*;

    const LIMITS: BodyLimits =
        BodyLimits { bytes: 8, time: Duration::from_secs(30), grace: Duration::from_secs(5), rate: 240 };

    #[test]
    fn a_body_earns_its_time_by_its_pace() {
        let due = |received| LIMITS.due(received);
        assert_eq!(due(0), Duration::from_secs(5));
        assert_eq!(due(120), Duration::from_millis(5_500));
        assert_eq!(due(240 * 10), Duration::from_secs(15));
        assert_eq!((due(240 * 25), due(usize::MAX)), (LIMITS.time, LIMITS.time));
        assert_eq!(LIMITS.late(240), BodyError::TooSlow(240));
        assert_eq!(LIMITS.late(240 * 25), BodyError::TimedOut(LIMITS.time));
        let strict = BodyLimits { time: Duration::from_secs(1), ..LIMITS };
        assert_eq!(strict.late(0), BodyError::TimedOut(strict.time));
    }

    async fn read(request: TestRequest, body: &'static [u8]) -> Result<Bytes, BodyError> {
        let (req, mut payload) = request.set_payload(body).to_http_parts();
        let mut payload = Payload::from_request(&req, &mut payload).await.unwrap();
        json(&req, &mut payload, LIMITS).await
    }

    fn of_type(content_type: &str) -> TestRequest {
        TestRequest::post().insert_header((CONTENT_TYPE, content_type))
    }

    #[actix_web::test]
    async fn only_json_is_read() {
        for (content_type, good) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/cloudevents+json", true),
            ("application/json; charset=latin1", false),
            ("application/+json", false),
            ("application/jsonp", false),
            ("text/json", false),
            ("text/plain", false),
            ("image/svg+json", false),
            ("", false),
        ] {
            assert_eq!(read(of_type(content_type), b"{}").await.is_ok(), good, "{content_type}");
        }
        assert_eq!(read(TestRequest::post(), b"{}").await, Err(BodyError::NotJson));
        let encoded = of_type("application/json").insert_header((CONTENT_ENCODING, "gzip"));
        assert_eq!(read(encoded, b"{}").await, Err(BodyError::Encoded));
    }

    #[actix_web::test]
    async fn a_body_is_refused_when_it_says_or_turns_out_that_it_is_too_large() {
        let json = || of_type("application/json");
        assert_eq!(read(json(), b"12345678").await.unwrap(), "12345678");
        assert_eq!(read(json(), b"123456789").await, Err(BodyError::TooLarge(8)));
        let announced = json().insert_header((CONTENT_LENGTH, "9")).to_http_request();
        let (_, mut payload) = json().set_payload("1").to_http_parts();
        let mut payload = Payload::from_request(&announced, &mut payload).await.unwrap();
        assert_eq!(whole(&announced, &mut payload, LIMITS).await, Err(BodyError::TooLarge(8)));
    }
}
