//! Operations that a server behind the gateway answers.
//!
//! Stands between a request of the listener and a backend. Invariants: the server sees the path that the manifest
//! writes, with parameters that cannot leave their segment; bodies pass through piece by piece, both ways; the
//! caller's connection is closed when an answer breaks off, so that no part is taken for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev;
use actix_web::http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse};
use futures_util::{FutureExt, Stream, StreamExt};

use super::body::{self, BodyError};
use super::path;
use super::problem::Problem;
use super::trace::Trace;
use crate::manifest::{PathTemplate, Piece, Segment, Upstream};
use crate::upstream::{self, Answer, Backend, Failed, Forwarding, Length, Lost, Outgoing, Source};

/// The parameter of the query that may hold a key of this gateway.
const KEY_PARAMETER: &str = "subscription-key";
/// The field that names a request, so that it can be told from another.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where the trace's id stands in a `traceparent`.
const TRACE_ID: std::ops::Range<usize> = 3..35;

/// What an operation sends on, and to whom.
#[derive(Debug)]
pub struct Proxied {
    backend: Arc<Backend>,
    path: Vec<Part>,
    query: Option<String>,
    authorization: bool,
}

/// A part of the path that is sent on.
#[derive(Debug)]
enum Part {
    /// This text.
    Text(String),
    /// The segment of this number.
    Segment(usize),
}

/// A request that goes on.
pub(super) struct Call<'a> {
    pub(super) req: &'a HttpRequest,
    pub(super) segments: &'a [String],
    pub(super) trace: &'a Trace,
    pub(super) client: std::net::IpAddr,
}

impl Proxied {
    /// What the manifest says, for an operation with this route.
    pub fn new(upstream: &Upstream, backend: Arc<Backend>, route: &PathTemplate) -> Self {
        let number = |name: &String| {
            let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(found) if found == name);
            route.segments.iter().position(is_it).unwrap_or_default()
        };
        let part = |piece: &Piece| match piece {
            Piece::Text(text) => Part::Text(text.clone()),
            Piece::Parameter(name) => Part::Segment(number(name)),
        };
        Self {
            backend,
            path: upstream.path.iter().map(part).collect(),
            query: upstream.query.clone(),
            authorization: upstream.forward_authorization,
        }
    }
}

/// The path and the query that are sent on.
fn target(path: &[Part], fixed: Option<&str>, segments: &[String], query: Option<&str>) -> String {
    let mut target = String::with_capacity(64);
    for part in path {
        match part {
            Part::Text(text) => target.push_str(text),
            Part::Segment(number) => {
                let value = segments.get(*number).map(String::as_str).unwrap_or_default();
                target.push_str(&path::encode(value));
            }
        }
    }
    let sent = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_key(pair));
    let mut mark = '?';
    for pair in fixed.into_iter().chain(sent) {
        target.push(mark);
        target.push_str(pair);
        mark = '&';
    }
    target
}

/// Whether a pair of the query holds a key of this gateway, however its name is written.
fn is_key(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    name == KEY_PARAMETER
        || (name.contains(['%', '+']) && percent_encoding::percent_decode_str(name).eq(KEY_PARAMETER.bytes()))
}

/// Sends a request on and returns the answer.
pub(super) async fn answer(
    call: &Call<'_>,
    proxied: &Proxied,
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    let Call { req, segments, trace, client } = *call;
    let headers = req.headers();
    let sent = || headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let traceparent = trace.to_string();
    let forwarding = Forwarding {
        client,
        secure: req.app_config().secure(),
        host: host(req),
        version: if req.version() >= Version::HTTP_2 { "2" } else { "1.1" },
        gateway: proxied.backend.gateway(),
        traceparent: &traceparent,
        follows: follows(req, trace),
        authorization: proxied.authorization,
    };
    let fields = upstream::fields(sent, &forwarding)?;
    let target = target(&proxied.path, proxied.query.as_deref(), segments, req.uri().query());
    let mut incoming = Incoming { first: None, payload };
    let length = length(req, &mut incoming).await?;
    let outgoing = Outgoing {
        method: req.method().as_str(),
        target: &target,
        fields: &fields,
        length,
        named: headers.contains_key(IDEMPOTENCY_KEY),
    };
    let Answer { head, mut body } = proxied.backend.forward(&outgoing, &mut incoming).await?;
    let first = incoming.first.take();
    let status = StatusCode::from_u16(head.status).map_err(|_| Failed::Invalid)?;
    let mut response = HttpResponse::new(status);
    if req.version() < Version::HTTP_11 && body.left().is_none() {
        // There are no chunks before HTTP/1.1: the answer ends with its connection.
        response.head_mut().no_chunking(true);
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    for (name, value) in head.fields() {
        // They came out of a parser for heads; what it lets through and this one does not is left out.
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value)) {
            response.headers_mut().append(name, value);
        }
    }
    if status == StatusCode::NOT_MODIFIED
        && let Some(length) = head.length
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    if req.method() == Method::HEAD {
        let size = head.length.map_or(BodySize::None, BodySize::Sized);
        return Ok(response.set_body(Bodiless(size)).map_into_boxed_body());
    }
    if let Some(whole) = body.at_once() {
        let empty = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        return Ok(if empty { response } else { response.set_body(whole).map_into_boxed_body() });
    }
    let size = body.left().map_or(BodySize::Stream, BodySize::Sized);
    // It is made at once, always.
    let empty = empty(req).ok_or_else(Problem::crashed)?;
    let payload = std::mem::replace(payload, empty);
    let streamed = Streamed { size, body, first, payload };
    Ok(response.set_body(streamed).map_into_boxed_body())
}

/// The host that was called.
fn host(req: &HttpRequest) -> Option<&[u8]> {
    let named = req.headers().get(HOST).map(HeaderValue::as_bytes);
    named.or_else(|| req.uri().authority().map(|authority| authority.as_str().as_bytes()))
}

/// Whether the trace goes on from the caller's.
fn follows(req: &HttpRequest, trace: &Trace) -> bool {
    let sent = req.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    sent.and_then(|sent| sent.get(TRACE_ID)) == Some(trace.id().as_str())
}

/// How long the body of a request is. HTTP/2 may not say whether there is one: then its first piece does.
async fn length(req: &HttpRequest, incoming: &mut Incoming<'_>) -> Result<Length, Problem> {
    let headers = req.headers();
    if headers.contains_key(TRANSFER_ENCODING) {
        return Ok(Length::Unknown);
    }
    if let Some(value) = headers.get(CONTENT_LENGTH) {
        let length = value.to_str().ok().and_then(|value| value.parse().ok()).ok_or(BodyError::Broken)?;
        req.extensions_mut().insert(body::Length(length));
        return Ok(Length::Known(length));
    }
    let expects = [Method::POST, Method::PUT, Method::PATCH].contains(req.method());
    let none = if expects { Length::Known(0) } else { Length::None };
    if req.version() < Version::HTTP_2 {
        return Ok(none);
    }
    match incoming.payload.next().await {
        None => Ok(none),
        Some(Ok(piece)) => {
            incoming.first = Some(piece);
            Ok(Length::Unknown)
        }
        Some(Err(_)) => Err(BodyError::Broken.into()),
    }
}

/// A payload without anything in it, which takes the place of one that is handed on.
fn empty(req: &HttpRequest) -> Option<Payload> {
    Payload::from_request(req, &mut dev::Payload::None).now_or_never()?.ok()
}

/// The body of a request, while it is the handler's.
struct Incoming<'p> {
    /// A piece that was looked at.
    first: Option<Bytes>,
    payload: &'p mut Payload,
}

impl Source for Incoming<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        poll_piece(&mut self.first, self.payload, cx)
    }
}

fn poll_piece(
    first: &mut Option<Bytes>,
    payload: &mut Payload,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, Lost>>> {
    if let Some(first) = first.take() {
        return Poll::Ready(Some(Ok(first)));
    }
    Pin::new(payload).poll_next(cx).map(|piece| piece.map(|piece| piece.map_err(|_| Lost)))
}

/// An answer to HEAD, which says a length and has no body.
struct Bodiless(BodySize);

impl MessageBody for Bodiless {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(None)
    }
}

/// An answer that passes through, and what is left of its request.
struct Streamed {
    size: BodySize,
    body: upstream::Body,
    first: Option<Bytes>,
    payload: Payload,
}

impl Source for (&mut Option<Bytes>, &mut Payload) {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        poll_piece(self.0, self.1, cx)
    }
}

impl MessageBody for Streamed {
    type Error = upstream::BrokenOff;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let Self { body, first, payload, .. } = self.get_mut();
        body.poll_piece(&mut (first, payload), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(path: Vec<Part>, query: Option<&str>) -> String {
        let segments = ["freight", "a/../b", "é?x=1"].map(str::to_owned);
        let (path, query) = (path.as_slice(), query.map(str::to_owned));
        target(path, query.as_deref(), &segments, Some("b=2&subscription-key=k&&c=%20"))
    }

    #[test]
    fn parameters_stay_in_their_segment_and_queries_are_joined() {
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(proxied(vec![text("/x/"), Part::Segment(1)], None), "/x/a%2F..%2Fb?b=2&c=%20");
        assert_eq!(
            proxied(vec![text("/"), Part::Segment(2), text("/y/")], Some("a=1")),
            "/%C3%A9%3Fx%3D1/y/?a=1&b=2&c=%20"
        );
        assert_eq!(target(&[text("/")], None, &[], None), "/");
    }

    #[test]
    fn a_key_in_the_query_stays_however_it_is_written() {
        for (query, expected) in [
            ("subscription-key=k", "/"),
            ("a=1&subscription-key", "/?a=1"),
            ("subscription%2Dkey=k&a", "/?a"),
            ("%73ubscription-key=k", "/"),
            ("subscription-keys=k", "/?subscription-keys=k"),
            ("x-subscription-key=k&a=subscription-key", "/?x-subscription-key=k&a=subscription-key"),
        ] {
            assert_eq!(target(&[Part::Text("/".to_owned())], None, &[], Some(query)), expected, "{query}");
        }
    }
}
