//! Stands before the gateway: what a request must be before anybody asks what it wants.
//!
//! Invariants: nothing behind it sees what a stranger says about addresses, or the value of an origin lock; a head
//! that is let in has one meaning.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, X_FORWARDED_FOR};
use actix_web::http::{Method, Version};
use actix_web::{HttpMessage, HttpRequest};
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::rate::TokenBuckets;

use super::path::{self, InvalidPath};
use crate::delivery::Cidr;
use crate::edge::Paths;
use crate::edge::client::{self, ClientHeader};
use crate::edge::lock::{self, OriginLock};

/// How the other headers begin in which proxies tell of a request's way.
const X_FORWARDED: &str = "x-forwarded-";
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most bytes of path and query.
    pub uri: usize,
    /// Most bytes of header fields, their separators included.
    pub header: usize,
}

/// What is asked of every request.
pub struct Edge {
    /// Peers whose word about addresses counts.
    pub trusted: Vec<Cidr>,
    /// The header in which they say it.
    pub header: ClientHeader,
    /// What a request must have to be looked at.
    pub lock: Vec<OriginLock>,
    /// Bounds of a head.
    pub head: HeadLimits,
    /// How much a path may leave to its reader.
    pub paths: Paths,
    /// What each address may ask for.
    pub budgets: Option<TokenBuckets>,
}

/// A request that is refused whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EdgeRefused {
    /// It did not come through the front door.
    #[error("Invalid request.")]
    Origin,
    /// The address has used up its budget.
    #[error("this client address sends too many requests")]
    TooMany {
        /// Time until the next one is taken.
        retry_after: Duration,
    },
}

/// A head that is refused whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHead {
    /// Path and query are too long.
    #[error("path and query have more than {0} bytes")]
    Uri(usize),
    /// The header fields are too long.
    #[error("the header fields have more than {0} bytes")]
    Headers(usize),
    /// The request line names another host than the header (RFC 9112 section 3.2.2).
    #[error("the request line and the header `Host` name different hosts")]
    Authority,
    /// A proxy is meant.
    #[error("this server is no proxy")]
    Connect,
}

/// A path in segments, if it has one meaning.
pub(super) fn segments(req: &HttpRequest, paths: Paths) -> Result<Vec<String>, InvalidPath> {
    let segments = path::segments(req.uri().path())?;
    match paths {
        Paths::Once => {}
        Paths::Strict => path::strict(&segments)?,
    }
    Ok(segments)
}

/// Marks a request that did not come through the front door.
struct Astray;

impl Edge {
    /// Takes away what may not be believed, and what nobody behind needs to know. Comes before everything else.
    pub(super) fn sweep(&self, req: &mut ServiceRequest) {
        let peer = req.peer_addr().map(|peer| peer.ip());
        let astray = !self.lock.iter().all(|lock| unlocked(lock, req.headers(), peer));
        if astray {
            req.extensions_mut().insert(Astray);
        }
        let trusted = peer.is_some_and(|peer| client::is_trusted(&self.trusted, peer));
        let is_gone = |name: &HeaderName| match trusted {
            // Only the one header was asked of the proxies; what they pass on in the other is a stranger's word.
            true => {
                *name == X_REAL_IP || *name == other(self.header) || name.as_str().starts_with("x_forwarded")
            }
            false => tells_of_addresses(name.as_str()),
        };
        let gone: Vec<HeaderName> = req.headers().keys().filter(|name| is_gone(name)).cloned().collect();
        let headers = req.headers_mut();
        for name in gone {
            headers.remove(name);
        }
        for lock in &self.lock {
            if let OriginLock::Header { name, .. } = lock {
                headers.remove(name.as_str());
            }
        }
    }

    /// Whose request this is, if it is one at all.
    pub(super) fn admit(&self, req: &HttpRequest) -> Result<IpAddr, EdgeRefused> {
        if req.extensions().contains::<Astray>() {
            return Err(EdgeRefused::Origin);
        }
        let client = client_address(req, self);
        if let Some(budgets) = &self.budgets {
            let admission = budgets.check(&Name::from(client::budget(client).to_string()));
            if !admission.allowed {
                return Err(EdgeRefused::TooMany { retry_after: admission.retry_after });
            }
        }
        Ok(client)
    }
}

/// The address that a request counts for. The only place that knows it.
pub(super) fn client_address(req: &HttpRequest, edge: &Edge) -> IpAddr {
    let peer = req.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let values = req.headers().get_all(header_name(edge.header));
    // What is no text is no address, and ends the walk as such.
    let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
    client::client(peer, &edge.trusted, edge.header, values)
}

/// Checks what can be said of a head without knowing what it asks for.
pub(super) fn check_head(req: &HttpRequest, limits: HeadLimits) -> Result<(), InvalidHead> {
    let uri = req.uri();
    if req.method() == Method::CONNECT {
        return Err(InvalidHead::Connect);
    }
    if uri.path_and_query().is_some_and(|whole| whole.as_str().len() > limits.uri) {
        return Err(InvalidHead::Uri(limits.uri));
    }
    // A field is its name, a colon, a space, its value and the end of the line.
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    if req.headers().iter().map(length).sum::<usize>() > limits.header {
        return Err(InvalidHead::Headers(limits.header));
    }
    let host = req.headers().get(HOST).map(HeaderValue::as_bytes);
    let Some(named) = uri.authority() else { return Ok(()) };
    match host {
        // HTTP/2 names the host in the request line alone (RFC 9113 section 8.3.1).
        None if req.version() == Version::HTTP_2 => Ok(()),
        Some(host) if host.eq_ignore_ascii_case(named.as_str().as_bytes()) => Ok(()),
        Some(_) | None => Err(InvalidHead::Authority),
    }
}

fn unlocked(lock: &OriginLock, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    match lock {
        OriginLock::Header { name, equals } => {
            lock::opens(headers.get_all(name.as_str()).map(HeaderValue::as_bytes), equals)
        }
        OriginLock::From(blocks) => lock::admits(blocks, peer),
    }
}

/// Some programs take an underscore for a dash, and so would believe the one for the other.
fn tells_of_addresses(name: &str) -> bool {
    let is = |name: &str| name == X_REAL_IP || name == FORWARDED || name.starts_with(X_FORWARDED);
    if name.contains('_') { is(&name.replace('_', "-")) } else { is(name) }
}

fn header_name(header: ClientHeader) -> HeaderName {
    match header {
        ClientHeader::XForwardedFor => X_FORWARDED_FOR,
        ClientHeader::Forwarded => FORWARDED,
    }
}

fn other(header: ClientHeader) -> HeaderName {
    match header {
        ClientHeader::XForwardedFor => FORWARDED,
        ClientHeader::Forwarded => X_FORWARDED_FOR,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use actix_web::test::TestRequest;
    use lanekeeper_actors::model::secret::Secret;

    use super::*;

    fn edge(lock: Vec<OriginLock>) -> Edge {
        let head = HeadLimits { uri: 100, header: 1000 };
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        Edge { trusted, header: ClientHeader::XForwardedFor, lock, head, paths: Paths::Once, budgets: None }
    }

    fn from(peer: &str) -> TestRequest {
        TestRequest::get().peer_addr(SocketAddr::new(peer.parse().unwrap(), 5000))
    }

    fn swept(edge: &Edge, request: TestRequest) -> (HttpRequest, Vec<String>) {
        let mut request = request.to_srv_request();
        edge.sweep(&mut request);
        let mut names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
        names.sort();
        (request.into_parts().0, names)
    }

    #[test]
    fn what_a_stranger_says_about_addresses_is_taken_away() {
        let edge = edge(Vec::new());
        let told = |peer| {
            from(peer)
                .append_header(("x-forwarded-for", "198.51.100.1"))
                .append_header(("x-forwarded-for", "198.51.100.2"))
                .append_header(("x-forwarded-proto", "https"))
                .append_header(("x-forwarded-anything", "x"))
                .append_header(("x_forwarded_for", "198.51.100.1"))
                .append_header(("x-real-ip", "198.51.100.3"))
                .append_header(("forwarded", "for=198.51.100.4"))
                .append_header(("accept", "*/*"))
        };
        let (req, names) = swept(&edge, told("203.0.113.9"));
        assert_eq!(names, ["accept"]);
        assert_eq!(client_address(&req, &edge).to_string(), "203.0.113.9");
        let (req, names) = swept(&edge, told("10.0.0.1"));
        let kept = ["accept", "x-forwarded-anything", "x-forwarded-for", "x-forwarded-proto"];
        assert_eq!(names, kept);
        assert_eq!(client_address(&req, &edge).to_string(), "198.51.100.2");
        assert_eq!(edge.admit(&req).unwrap().to_string(), "198.51.100.2");
    }

    #[test]
    fn a_lock_opens_for_its_own_and_its_value_goes_no_further() {
        let header = OriginLock::Header { name: "x-azure-fdid".to_owned(), equals: Secret::from("door") };
        let blocks = OriginLock::From(vec!["192.0.2.0/24".parse().unwrap()]);
        let edge = edge(vec![header, blocks]);
        for (peer, values, good) in [
            ("192.0.2.1", &["door"][..], true),
            ("192.0.2.1", &["wall"], false),
            ("192.0.2.1", &["door", "door"], false),
            ("192.0.2.1", &[], false),
            ("192.0.3.1", &["door"], false),
        ] {
            let mut request = from(peer);
            for value in values {
                request = request.append_header(("X-Azure-FDID", *value));
            }
            let (req, names) = swept(&edge, request);
            assert_eq!(edge.admit(&req).err(), (!good).then_some(EdgeRefused::Origin), "{peer} {values:?}");
            assert!(names.is_empty());
        }
    }

    #[test]
    fn a_request_line_and_a_host_that_differ_are_refused() {
        let limits = HeadLimits { uri: 100, header: 1000 };
        let check = |uri: &str, host: Option<&str>, version| {
            let request = TestRequest::get().uri(uri).version(version);
            let request = match host {
                Some(host) => request.insert_header((HOST, host)),
                None => request,
            };
            check_head(&request.to_http_request(), limits)
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(check("/a", Some("a.example"), one), Ok(()));
        assert_eq!(check("http://A.example/a", Some("a.example"), one), Ok(()));
        assert_eq!(check("http://b.example/a", Some("a.example"), one), Err(InvalidHead::Authority));
        assert_eq!(check("http://a.example/a", None, one), Err(InvalidHead::Authority));
        assert_eq!(check("https://a.example/a", None, two), Ok(()));
        assert_eq!(check("https://a.example/a", Some("b.example"), two), Err(InvalidHead::Authority));
        assert_eq!(check(&"/a".repeat(60), None, one), Err(InvalidHead::Uri(100)));
    }
}
