//! Stands between a user's URL and this host's network: decides which addresses may be contacted.
//! Invariant: an address that is not plainly public is contacted only if the allow list names it.
//!
//! The ranges are those of the IANA special-purpose registries (RFC 6890 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use super::cidr::{Cidr, CidrProblem};

/// An address that may not be contacted, and what kind of address it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address `{address}` may not be contacted: it is {range}")]
pub struct Refused {
    /// The address as it was given.
    pub address: IpAddr,
    /// The kind of range, for people, such as `loopback`.
    pub range: &'static str,
}

/// Why a URL cannot be an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum UrlProblem {
    /// The text is not an absolute URL, or its host is not one.
    #[error("not an absolute URL")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Only `http` and `https` are spoken.
    #[error("scheme `{0}` is not `http` or `https`")]
    Scheme(String),
    /// A user name or password in a URL ends up in logs, and hides the real host from readers.
    #[error("a user name or password in the URL is not accepted")]
    Userinfo,
    /// The URL names no host.
    #[error("the URL has no host")]
    NoHost,
    /// The host is, or is a name for, an address that may not be contacted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An entry of the allow list is not a CIDR block.
    #[error("the allow list has a bad entry")]
    Allow(#[from] CidrProblem),
}

/// Checks an endpoint when it is registered: scheme, user information, and hosts that are addresses
/// in whatever spelling. Names are looked up only when something is sent, and are vetted then.
///
/// # Errors
/// The first problem found; see [`UrlProblem`].
pub fn check_url(url: &str, allow: &[String]) -> Result<(), UrlProblem> {
    let allow = parse_allow(allow)?;
    parse_url(url, &allow).map(drop)
}

/// The host that a URL names, in lower case, without brackets.
pub fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_end_matches('.');
    Some(host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

/// Decides whether `ip` may be contacted. An IPv4-mapped address is judged as the IPv4 address in it
/// and is, beyond that, refused by itself: no honest name server answers with one.
///
/// # Errors
/// [`Refused`] when the address is not public and no block of `allow` contains it.
pub fn vet(ip: IpAddr, allow: &[Cidr]) -> Result<(), Refused> {
    if allow.iter().any(|block| block.contains(ip)) {
        return Ok(());
    }
    let mapped = ip.is_ipv6() && ip.to_canonical().is_ipv4();
    let range = match reserved(ip.to_canonical()) {
        Some(range) => range,
        None if mapped => "an IPv4-mapped address",
        None => return Ok(()),
    };
    Err(Refused { address: ip, range })
}

/// Reads an allow list in a canonical order, so that equal lists are equal values.
pub(crate) fn parse_allow(allow: &[String]) -> Result<Vec<Cidr>, CidrProblem> {
    let mut blocks = allow.iter().map(|text| text.parse()).collect::<Result<Vec<Cidr>, _>>()?;
    blocks.sort_unstable();
    blocks.dedup();
    Ok(blocks)
}

/// Reads an endpoint and makes every check that needs no name server. The parser has already turned
/// `127.1`, `0x7f000001` and their like into plain addresses, as it must for these two schemes.
pub(crate) fn parse_url(url: &str, allow: &[Cidr]) -> Result<Url, UrlProblem> {
    let url = Url::parse(url).map_err(|problem| UrlProblem::Malformed(Box::new(problem)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlProblem::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlProblem::Userinfo);
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlProblem::NoHost)?;
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = literal.parse() {
        vet(ip, allow)?;
    } else if is_localhost(host) {
        vet(IpAddr::V6(Ipv6Addr::LOCALHOST), allow)
            .or_else(|_| vet(IpAddr::V4(Ipv4Addr::LOCALHOST), allow))?;
    }
    Ok(url)
}

/// Whether a name means this host wherever it is asked (RFC 6761, 6.3).
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost")
}

/// The range that makes an address unfit for the public internet, if any.
fn reserved(ip: IpAddr) -> Option<&'static str> {
    let listed = RESERVED.iter().find(|(block, _)| block.contains(ip)).map(|(_, range)| *range);
    match ip {
        IpAddr::V4(_) => listed,
        IpAddr::V6(_) => {
            listed.or_else(|| (!GLOBAL_V6.contains(ip)).then_some("not a global unicast address"))
        }
    }
}

/// All that IANA has given out for hosts on the internet. The rest of IPv6 is refused unseen.
const GLOBAL_V6: Cidr = v6([0x2000, 0, 0], 3);

/// Addresses that are not public, or that lead to such through a gateway.
const RESERVED: &[(Cidr, &str)] = &[
    (v4([0, 0, 0, 0], 8), "on this network (0.0.0.0/8)"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by a carrier-grade NAT"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    // The virtual address of a cloud's own host agent, inside a public range.
    (v4([168, 63, 129, 16], 32), "a cloud platform's own service"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "reserved for protocols"),
    (v4([192, 0, 2, 0], 24), "for documentation"),
    (v4([192, 88, 99, 0], 24), "a 6to4 relay"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "for benchmarks"),
    (v4([198, 51, 100, 0], 24), "for documentation"),
    (v4([203, 0, 113, 0], 24), "for documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([255, 255, 255, 255], 32), "broadcast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
    (v6([0, 0, 0], 128), "unspecified"),
    (Cidr::v6(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (v6([0, 0, 0], 96), "an IPv4-compatible address"),
    (v6([0x64, 0xff9b, 0], 96), "an IPv4 address behind NAT64"),
    (v6([0x64, 0xff9b, 1], 48), "an IPv4 address behind NAT64"),
    (v6([0x100, 0, 0], 64), "a discard address"),
    (v6([0x2001, 0, 0], 32), "a Teredo tunnel"),
    (v6([0x2001, 0, 0], 23), "reserved for protocols"),
    (v6([0x2001, 0xdb8, 0], 32), "for documentation"),
    (v6([0x2002, 0, 0], 16), "a 6to4 tunnel"),
    (v6([0x3fff, 0, 0], 20), "for documentation"),
    (v6([0xfc00, 0, 0], 7), "private (unique local)"),
    (v6([0xfe80, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0], 8), "multicast"),
];

/// A row of the table above.
const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Cidr {
    Cidr::v4(Ipv4Addr::new(a, b, c, d), prefix)
}

/// A row of the table above; no range needs more than its first three groups.
const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Cidr {
    Cidr::v6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(blocks: &[&str]) -> Vec<String> {
        blocks.iter().map(|block| (*block).to_owned()).collect()
    }

    fn vetted(ip: &str, blocks: &[&str]) -> Result<(), Refused> {
        vet(ip.parse().unwrap(), &parse_allow(&allow(blocks)).unwrap())
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_with_the_kind() {
        for (ip, range) in [
            ("0.0.0.0", "on this network (0.0.0.0/8)"),
            ("0.1.2.3", "on this network (0.0.0.0/8)"),
            ("10.0.0.1", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "shared by a carrier-grade NAT"),
            ("100.100.100.200", "shared by a carrier-grade NAT"),
            ("100.127.255.255", "shared by a carrier-grade NAT"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "a cloud platform's own service"),
            ("169.254.169.254", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "reserved for protocols"),
            ("192.0.2.1", "for documentation"),
            ("192.88.99.1", "a 6to4 relay"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "for benchmarks"),
            ("198.19.255.255", "for benchmarks"),
            ("198.51.100.7", "for documentation"),
            ("203.0.113.7", "for documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "an IPv4-compatible address"),
            ("::127.0.0.1", "an IPv4-compatible address"),
            ("::8.8.8.8", "an IPv4-compatible address"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:0.0.0.0", "on this network (0.0.0.0/8)"),
            ("::ffff:8.8.8.8", "an IPv4-mapped address"),
            ("::ffff:0:127.0.0.1", "not a global unicast address"),
            ("64:ff9b::127.0.0.1", "an IPv4 address behind NAT64"),
            ("64:ff9b::8.8.8.8", "an IPv4 address behind NAT64"),
            ("64:ff9b:1::10.0.0.1", "an IPv4 address behind NAT64"),
            ("100::1", "a discard address"),
            ("2001::1", "a Teredo tunnel"),
            ("2001:0:7f00:1::", "a Teredo tunnel"),
            ("2001:2::1", "reserved for protocols"),
            ("2001:1ff::1", "reserved for protocols"),
            ("2001:db8::1", "for documentation"),
            ("2002:7f00:1::", "a 6to4 tunnel"),
            ("3fff:fff::1", "for documentation"),
            ("4000::1", "not a global unicast address"),
            ("5f00::1", "not a global unicast address"),
            ("fc00::1", "private (unique local)"),
            ("fd00:ec2::254", "private (unique local)"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            let refused = vetted(ip, &[]).expect_err(ip);
            assert_eq!(refused.range, range, "{ip}");
        }
    }

    #[test]
    fn public_addresses_next_to_reserved_ranges_are_permitted() {
        for ip in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "3ffe::1",
        ] {
            assert_eq!(vetted(ip, &[]), Ok(()), "{ip}");
        }
    }

    #[test]
    fn an_allowed_block_opens_its_addresses_and_no_others() {
        for (ip, blocks) in [
            ("127.0.0.1", &["127.0.0.0/8"][..]),
            ("::ffff:127.0.0.1", &["127.0.0.0/8"]),
            ("::1", &["10.0.0.0/8", "::1/128"]),
            ("169.254.169.254", &["169.254.169.254"]),
            ("fd12::1", &["fd00::/8"]),
            ("64:ff9b::8.8.8.8", &["64:ff9b::/96"]),
        ] {
            assert_eq!(vetted(ip, blocks), Ok(()), "{ip} {blocks:?}");
        }
        for (ip, blocks) in [
            ("127.0.0.1", &["::1/128"][..]),
            ("::1", &["127.0.0.0/8"]),
            ("::127.0.0.1", &["127.0.0.0/8"]),
            ("64:ff9b::127.0.0.1", &["127.0.0.0/8"]),
            ("::ffff:127.0.0.1", &["::/0"]),
            ("10.0.0.1", &["127.0.0.0/8", "192.168.0.0/16"]),
        ] {
            assert!(vetted(ip, blocks).is_err(), "{ip} {blocks:?}");
        }
    }

    #[test]
    fn odd_spellings_of_addresses_are_refused_at_registration() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://127.0.1:8080/x",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://017700000001/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http:127.0.0.1/",
            "http:\\\\127.0.0.1\\x",
            " http://127.0.0.1/",
            "http://127.0.0.\t1/",
            "http://0/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://2852039166/",
            "http://100.64.0.1/",
            "https://192.168.0.1/",
            "http://localhost/",
            "http://LOCALHOST:80/",
            "http://localhost./",
            "http://a.b.localhost/",
        ] {
            let problem = check_url(url, &[]).expect_err(url);
            assert!(matches!(problem, UrlProblem::Refused(_)), "{url}: {problem:?}");
        }
    }

    #[test]
    fn urls_that_are_not_plain_http_are_refused_at_registration() {
        for url in [
            "",
            "/hook",
            "example.com/hook",
            "http://",
            "http://[::1",
            "http://1.2.3.4.5/",
            "http://256.0.0.1/",
        ] {
            let problem = check_url(url, &[]).expect_err(url);
            assert!(matches!(problem, UrlProblem::Malformed(_)), "{url}: {problem:?}");
        }
        for url in [
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com",
            "ws://example.com/",
            "data:,x",
        ] {
            let problem = check_url(url, &[]).expect_err(url);
            assert!(matches!(problem, UrlProblem::Scheme(_)), "{url}: {problem:?}");
        }
        for url in ["http://user@example.com/", "http://user:pw@example.com/", "http://:pw@example.com/"] {
            let problem = check_url(url, &[]).expect_err(url);
            assert!(matches!(problem, UrlProblem::Userinfo), "{url}: {problem:?}");
        }
        let problem = check_url("http://example.com/", &allow(&["10.0.0.1/8"])).unwrap_err();
        assert!(matches!(problem, UrlProblem::Allow(_)), "{problem:?}");
    }

    #[test]
    fn public_and_allowed_endpoints_are_accepted_at_registration() {
        for url in [
            "https://example.com/hook?x=1",
            "http://1.1.1.1:8080/",
            "http://[2606:4700::1111]/",
            "http://nolocalhost/",
        ] {
            check_url(url, &[]).expect(url);
        }
        for url in
            ["http://127.1/", "http://[::ffff:127.0.0.1]/", "http://localhost:7001/x", "http://localhost./"]
        {
            check_url(url, &allow(&["127.0.0.0/8"])).expect(url);
        }
        check_url("http://localhost/", &allow(&["::1"])).expect("localhost has two addresses");
    }
}
