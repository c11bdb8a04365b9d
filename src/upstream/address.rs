//! Where a server is: scheme, host, port, and the path that all of its paths begin with.

use std::fmt;
use std::net::IpAddr;

use hyper::http::uri::Authority;

/// The default ports of `http` and `https` (RFC 9110 section 4.2).
const PORTS: (u16, u16) = (80, 443);

/// The address of a server. Writes itself as its URL, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// Its host as written, an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What its paths begin with: nothing, or a slash and more without a slash at the end.
    pub base: String,
}

/// A text that is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Another scheme, or none.
    #[error("expected a URL that begins with `http://` or `https://`")]
    Scheme,
    /// A user or a password.
    #[error("a URL with a user or password: a secret is a reference, never a literal")]
    User,
    /// No host, or one that is none.
    #[error("expected a host after `//`, such as `10.0.0.5:8080`")]
    Host,
}

impl Address {
    /// Reads the beginning of a URL and returns what follows the host: the path and the query as written.
    ///
    /// # Errors
    /// See [`InvalidAddress`].
    pub fn parse(url: &str) -> Result<(Self, &str), InvalidAddress> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidAddress::Scheme)?;
        let secure = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err(InvalidAddress::Scheme);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).ok_or(InvalidAddress::Host)?;
        if authority.contains('@') {
            return Err(InvalidAddress::User);
        }
        // Braces would be a host that callers choose.
        let parsed: Authority = authority.parse().map_err(|_| InvalidAddress::Host)?;
        let host = parsed.host().to_ascii_lowercase();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(legal) {
            return Err(InvalidAddress::Host);
        }
        let port = match authority.get(host.len()..).unwrap_or_default() {
            "" => Some(if secure { PORTS.1 } else { PORTS.0 }),
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port > 0),
        };
        let port = port.ok_or(InvalidAddress::Host)?;
        Ok((Self { secure, host, port, base: String::new() }, rest))
    }

    /// The host, with the port where that is not the scheme's own, as in the header `Host`.
    pub fn authority(&self) -> String {
        let usual = if self.secure { PORTS.1 } else { PORTS.0 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The IP address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let inside = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inside.unwrap_or(&self.host).parse().ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_up_to_the_end_of_the_host() {
        for (url, shown, authority, rest) in [
            ("http://127.0.0.1:7003/rates?x=1", "http://127.0.0.1:7003", "127.0.0.1:7003", "/rates?x=1"),
            ("HTTP://Legacy.Example", "http://legacy.example", "legacy.example", ""),
            ("http://a:80/", "http://a", "a", "/"),
            ("https://a:443?x", "https://a", "a", "?x"),
            ("https://a:80/{lane}", "https://a:80", "a:80", "/{lane}"),
            ("http://[::1]:8080/b", "http://[::1]:8080", "[::1]:8080", "/b"),
        ] {
            let (address, after) = Address::parse(url).unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.authority().as_str(), after),
                (shown, authority, rest)
            );
        }
        let ip = |url| Address::parse(url).unwrap().0.ip();
        assert_eq!(ip("http://[::1]/"), Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])));
        assert_eq!(ip("http://localhost/"), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (url, problem) in [
            ("", InvalidAddress::Scheme),
            ("127.0.0.1:80", InvalidAddress::Scheme),
            ("ftp://a/", InvalidAddress::Scheme),
            ("http://", InvalidAddress::Host),
            ("http:///x", InvalidAddress::Host),
            ("http://:80/", InvalidAddress::Host),
            ("http://a:0/", InvalidAddress::Host),
            ("http://a:65536/", InvalidAddress::Host),
            ("http://a:/", InvalidAddress::Host),
            ("http://a b/", InvalidAddress::Host),
            ("http://{host}/", InvalidAddress::Host),
            ("http://a{host}/", InvalidAddress::Host),
            ("http://é/", InvalidAddress::Host),
            ("http://u:p@a/", InvalidAddress::User),
        ] {
            assert_eq!(Address::parse(url).unwrap_err(), problem, "{url}");
        }
    }
}
