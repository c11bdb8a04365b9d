//! The header fields of a request, as they go on.
//!
//! Stands between what a caller sent and what a server behind the gateway believes. Invariants: fields of the
//! connection end here, also those that the caller declared to be such; whatever says who calls, over what, or how
//! long a body is, is written by the gateway alone; a credential for the gateway goes no further.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

/// Fields of one connection (RFC 9110 section 7.6.1), and the framing and name of the next one, which it writes itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];
/// Fields that the gateway writes itself, or that were meant for it. `-` stands for `_` too: behind many servers the
/// two are the same.
const OURS: [&str; 16] = [
    "host",
    "content-length",
    "expect",
    "max-forwards",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-real-ip",
    "traceparent",
    "tracestate",
    "x-api-key",
    "ocp-apim-subscription-key",
];
/// Longest `tracestate` that goes on, in bytes (W3C Trace Context section 3.3.1.5).
const TRACESTATE_MAX: usize = 512;
/// Room for the fields of most requests.
const ROOM: usize = 512;

/// What the gateway says of a request.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    /// Who calls.
    pub client: IpAddr,
    /// Whether over TLS.
    pub secure: bool,
    /// The host that was called, as in the header `Host`.
    pub host: Option<&'a [u8]>,
    /// The version of HTTP that was spoken, as in `Via`.
    pub version: &'a str,
    /// The name of this gateway in `Via`.
    pub gateway: &'a str,
    /// The trace, as in `traceparent`.
    pub traceparent: &'a str,
    /// Whether the trace is the caller's, so that its `tracestate` goes with it.
    pub follows: bool,
    /// Whether `Authorization` goes on.
    pub authorization: bool,
}

/// Why a request does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unforwardable {
    /// It has been here before (RFC 9110 section 7.6.3).
    #[error("the request came back to the gateway that sent it")]
    Loop,
    /// It asks for another protocol.
    #[error("protocols are not switched here")]
    Upgrade,
}

/// Writes the fields that go on, one to a line, without `Host` and without any framing. `sent` begins to list those
/// that came, with names in lower case.
///
/// # Errors
/// See [`Unforwardable`].
pub fn fields<'h, I>(sent: impl Fn() -> I, forwarding: &Forwarding<'_>) -> Result<BytesMut, Unforwardable>
where
    I: Iterator<Item = (&'h str, &'h [u8])>,
{
    let mut named: Vec<&str> = Vec::new();
    for (name, value) in sent() {
        if name == "connection" {
            named.extend(tokens(value).filter(|token| !token.eq_ignore_ascii_case("close")));
        } else if name == "upgrade" && tokens(value).any(|token| token.eq_ignore_ascii_case("websocket")) {
            return Err(Unforwardable::Upgrade);
        } else if name == "via" && passed(value, forwarding.gateway) {
            return Err(Unforwardable::Loop);
        }
    }
    let mut lines = BytesMut::with_capacity(ROOM);
    for (name, value) in sent() {
        let is_named = !named.is_empty() && named.iter().any(|other| other.eq_ignore_ascii_case(name));
        if is_named || is_ours(name) || (name == "authorization" && !forwarding.authorization) {
            continue;
        }
        line(&mut lines, name, value);
    }
    line(&mut lines, "x-forwarded-for", forwarding.client.to_string().as_bytes());
    line(&mut lines, "x-forwarded-proto", if forwarding.secure { b"https" } else { b"http" });
    if let Some(host) = forwarding.host {
        line(&mut lines, "x-forwarded-host", host);
    }
    line(&mut lines, "traceparent", forwarding.traceparent.as_bytes());
    if forwarding.follows {
        tracestate(&mut lines, sent());
    }
    lines.put_slice(b"via: ");
    lines.put_slice(forwarding.version.as_bytes());
    lines.put_slice(b" ");
    lines.put_slice(forwarding.gateway.as_bytes());
    lines.put_slice(b"\r\n");
    Ok(lines)
}

fn tracestate<'h>(lines: &mut BytesMut, sent: impl Iterator<Item = (&'h str, &'h [u8])>) {
    let mut whole: Vec<u8> = Vec::new();
    for (_, value) in sent.filter(|(name, _)| *name == "tracestate") {
        if !whole.is_empty() {
            whole.push(b',');
        }
        whole.extend_from_slice(value);
    }
    if !whole.is_empty() && whole.len() <= TRACESTATE_MAX {
        line(lines, "tracestate", &whole);
    }
}

fn line(lines: &mut BytesMut, name: &str, value: &[u8]) {
    // Neither comes from anywhere but a parser of heads; still, a line never becomes two.
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return;
    }
    lines.reserve(name.len() + value.len() + 4);
    lines.put_slice(name.as_bytes());
    lines.put_slice(b": ");
    lines.put_slice(value);
    lines.put_slice(b"\r\n");
}

/// Whether a field belongs to one connection, or stands in for one that the gateway writes. Names are in lower case.
fn is_ours(name: &str) -> bool {
    let of = |name: &str| HOP_BY_HOP.contains(&name) || OURS.contains(&name);
    if name.contains('_') {
        let plain = name.replace('_', "-");
        return of(&plain) || plain == "authorization" || plain == "via";
    }
    of(name)
}

/// Whether a field belongs to one connection.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// The elements of a list, those that are no text left out.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &str> {
    let parts = value.split(|byte| *byte == b',');
    parts.filter_map(|part| str::from_utf8(part).ok()).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a `Via` names this gateway.
fn passed(value: &[u8], gateway: &str) -> bool {
    tokens(value).any(|hop| hop.split_ascii_whitespace().nth(1) == Some(gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OWN: &str = concat!(
        "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: api.example\r\n",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    );

    fn forwarding() -> Forwarding<'static> {
        Forwarding {
            client: IpAddr::from([192, 0, 2, 7]),
            secure: false,
            host: Some(b"api.example"),
            version: "1.1",
            gateway: "lanekeeper-1",
            traceparent: TRACE,
            follows: true,
            authorization: false,
        }
    }

    fn forward(sent: &[(&str, &str)], forwarding: &Forwarding<'_>) -> Result<String, Unforwardable> {
        let sent = || sent.iter().map(|(name, value)| (*name, value.as_bytes()));
        fields(sent, forwarding).map(|lines| String::from_utf8(lines.to_vec()).unwrap())
    }

    fn kept(sent: &[(&str, &str)]) -> String {
        let all = forward(sent, &forwarding()).unwrap();
        all.replace(OWN, "").replace("via: 1.1 lanekeeper-1\r\n", "")
    }

    #[test]
    fn what_the_gateway_says_is_said_once_and_by_nobody_else() {
        for name in
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip", "host"]
        {
            let all = forward(&[(name, "evil"), ("accept", "*/*")], &forwarding()).unwrap();
            assert_eq!(all, format!("accept: */*\r\n{OWN}via: 1.1 lanekeeper-1\r\n"), "{name}");
        }
        let secure =
            forward(&[], &Forwarding { secure: true, host: None, version: "2", ..forwarding() }).unwrap();
        assert!(secure.contains("x-forwarded-proto: https\r\n") && !secure.contains("-host"));
        assert!(secure.ends_with("via: 2 lanekeeper-1\r\n"));
    }

    #[test]
    fn fields_of_the_connection_and_those_it_names_stay_behind() {
        for name in HOP_BY_HOP.iter().chain(&OURS).filter(|name| **name != "tracestate") {
            assert_eq!(kept(&[(name, "x"), ("a", "b")]), "a: b\r\n", "{name}");
        }
        let sent = [("connection", "close, X-Hop ,te"), ("x-hop", "1"), ("te", "gzip"), ("x-hop-2", "2")];
        assert_eq!(kept(&sent), "x-hop-2: 2\r\n");
        // What the gateway says cannot be declared away.
        let all = forward(&[("connection", "x-forwarded-for, via, traceparent")], &forwarding()).unwrap();
        assert_eq!(all, format!("{OWN}via: 1.1 lanekeeper-1\r\n"));
    }

    #[test]
    fn underscores_do_not_smuggle_a_field_past() {
        for name in ["x_forwarded_for", "content_length", "transfer_encoding", "x_api_key", "authorization_"]
        {
            let expected = if name == "authorization_" { "authorization_: x\r\n" } else { "" };
            assert_eq!(kept(&[(name, "x")]), expected, "{name}");
        }
        assert_eq!(kept(&[("x_mine", "1"), ("x-forwarded_for", "2")]), "x_mine: 1\r\n");
    }

    #[test]
    fn keys_stay_and_tokens_go_on_only_where_wanted() {
        let sent = [("x-api-key", "k"), ("ocp-apim-subscription-key", "k"), ("authorization", "Bearer t")];
        assert_eq!(kept(&sent), "");
        let all = forward(&sent, &Forwarding { authorization: true, ..forwarding() }).unwrap();
        assert!(all.starts_with("authorization: Bearer t\r\nx-forwarded-for"));
    }

    #[test]
    fn a_request_that_was_here_before_is_refused() {
        for via in ["1.1 lanekeeper-1", "1.0 fred, 1.1  lanekeeper-1 (x)", "2 lanekeeper-1 , 1.1 b"] {
            assert_eq!(forward(&[("via", via)], &forwarding()), Err(Unforwardable::Loop), "{via}");
        }
        assert_eq!(kept(&[("via", "1.1 lanekeeper-12, 1.1 x")]), "via: 1.1 lanekeeper-12, 1.1 x\r\n");
    }

    #[test]
    fn only_a_websocket_is_refused_and_other_offers_are_not_taken_up() {
        let refused = forward(&[("connection", "Upgrade"), ("upgrade", "WebSocket")], &forwarding());
        assert_eq!(refused, Err(Unforwardable::Upgrade));
        let offer =
            [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAM")];
        assert_eq!(kept(&offer), "");
    }

    #[test]
    fn a_trace_state_goes_with_its_trace_and_not_beyond_its_bound() {
        let state = |sent: &[(&str, &str)], follows| {
            let all = forward(sent, &Forwarding { follows, ..forwarding() }).unwrap();
            all.lines().find_map(|line| line.strip_prefix("tracestate: ")).map(str::to_owned)
        };
        let sent = [("tracestate", "a=1"), ("tracestate", "b=2")];
        assert_eq!(state(&sent, true).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&sent, false), None);
        let long = "x".repeat(300);
        assert_eq!(state(&[("tracestate", &long), ("tracestate", &long)], true), None);
    }

    #[test]
    fn a_line_never_becomes_two() {
        assert_eq!(kept(&[("a", "b\r\nc: d"), ("e", "f")]), "e: f\r\n");
    }
}
