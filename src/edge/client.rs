//! Stands between the addresses that a request passed and the one that it counts for.
//! Invariant: an address is believed only when somebody who is trusted named it. The walk begins at the peer, which
//! the kernel knows, and ends at the first hop that nobody vouches for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::delivery::Cidr;

/// Which header tells where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientHeader {
    /// `X-Forwarded-For`, which everybody writes and no standard describes.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The client's address. `values` are those of the header, in the order in which they stand in the request.
///
/// The hops are read from the right, where the nearest proxy wrote. The first one that is not trusted is the client.
/// When all are trusted it is the farthest; and where one is no address (`unknown`, a hidden name), it is the
/// proxy that wrote it.
pub fn client<'v, V>(peer: IpAddr, trusted: &[Cidr], header: ClientHeader, values: V) -> IpAddr
where
    V: IntoIterator<Item = &'v str>,
    V::IntoIter: DoubleEndedIterator,
{
    let mut client = peer.to_canonical();
    for value in values.into_iter().rev() {
        let mut rest = value;
        loop {
            if !is_trusted(trusted, client) {
                return client;
            }
            let (before, hop) = last_hop(rest, header);
            let Some(address) = address(hop, header) else { return client };
            client = address.to_canonical();
            match before {
                Some(before) => rest = before,
                None => break,
            }
        }
    }
    client
}

/// Whether what this address says of others is believed.
pub fn is_trusted(trusted: &[Cidr], address: IpAddr) -> bool {
    trusted.iter().any(|block| block.contains(address))
}

/// What an address counts as where there are budgets for addresses: whoever has an IPv6 address has all of its /64.
pub fn budget(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK)),
    }
}

/// The last element of a list, and what stands before it. In `Forwarded`, a comma may stand inside of quotes.
fn last_hop(list: &str, header: ClientHeader) -> (Option<&str>, &str) {
    let comma = match header {
        ClientHeader::XForwardedFor => list.rfind(','),
        ClientHeader::Forwarded => outside_quotes(list, b',').last(),
    };
    match comma.and_then(|comma| Some((list.get(..comma)?, list.get(comma + 1..)?))) {
        Some((before, hop)) => (Some(before), hop),
        None => (None, list),
    }
}

fn address(hop: &str, header: ClientHeader) -> Option<IpAddr> {
    match header {
        ClientHeader::XForwardedFor => node(hop.trim()),
        ClientHeader::Forwarded => node(&forwarded_for(hop)?),
    }
}

/// The one `for` of a forwarded element (RFC 7239 section 4), without quotes.
fn forwarded_for(element: &str) -> Option<String> {
    let mut found = None;
    let mut from = 0;
    let ends: Vec<usize> = outside_quotes(element, b';').chain([element.len()]).collect();
    for end in ends {
        let (name, value) = element.get(from..end)?.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(unquoted(value.trim())?).is_some() {
            // It must not stand there twice, and nobody knows which one is meant.
            return None;
        }
        from = end + 1;
    }
    found
}

fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let mut text = String::new();
    let mut inner = inner.strip_suffix('"')?.chars();
    while let Some(character) = inner.next() {
        match character {
            '\\' => text.push(inner.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

/// Where a separator stands that is not inside of a quoted string (RFC 9110 section 5.6.4).
fn outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().enumerate().filter_map(move |(index, byte)| {
        let is_escaped = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !is_escaped => escaped = true,
            b'"' if !is_escaped => quoted = !quoted,
            other if other == separator && !quoted => return Some(index),
            _ => {}
        }
        None
    })
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXIES: [&str; 3] = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"];

    fn trusted() -> Vec<Cidr> {
        PROXIES.iter().map(|block| block.parse().unwrap()).collect()
    }

    fn found(peer: &str, header: ClientHeader, values: &[&str]) -> String {
        client(peer.parse().unwrap(), &trusted(), header, values.iter().copied()).to_string()
    }

    #[test]
    fn the_client_is_the_first_hop_from_the_right_that_nobody_vouches_for() {
        for (peer, values, expected) in [
            // A peer that is not trusted is the client, whatever it says.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("203.0.113.9", &["10.1.1.1"], "203.0.113.9"),
            ("203.0.113.9", &[], "203.0.113.9"),
            ("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            // A trusted one without the header is the client itself.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &[" 198.51.100.1 "], "198.51.100.1"),
            // What a client wrote itself stands on the left.
            ("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4,198.51.100.1,192.0.2.7,10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.9.9.9, 198.51.100.1"], "198.51.100.1"),
            // Several lines are one list.
            ("10.0.0.1", &["1.2.3.4", "198.51.100.1, 10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.2.2.2"], "198.51.100.1"),
            // Everybody is trusted: the farthest.
            ("10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            // Ports, and version 6.
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // What is no address ends the walk at the proxy that wrote it.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, nonsense, 10.2.2.2"], "10.2.2.2"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1,,10.2.2.2"], "10.2.2.2"),
            ("10.0.0.1", &["198.51.100.999"], "10.0.0.1"),
            ("10.0.0.1", &["127.1"], "10.0.0.1"),
            ("10.0.0.1", &["0x7f000001"], "10.0.0.1"),
        ] {
            assert_eq!(found(peer, ClientHeader::XForwardedFor, values), expected, "{peer} {values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        for (values, expected) in [
            (&["for=198.51.100.1"][..], "198.51.100.1"),
            (&["For=198.51.100.1;proto=https;by=203.0.113.43"], "198.51.100.1"),
            (&["proto=https;FOR=\"198.51.100.1:80\""], "198.51.100.1"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=1.2.3.4, for=198.51.100.1, for=10.2.2.2"], "198.51.100.1"),
            (&["for=1.2.3.4", "for=198.51.100.1;host=a"], "198.51.100.1"),
            // Separators inside of quotes separate nothing.
            (&["for=198.51.100.1;host=\"a,for=1.2.3.4\""], "198.51.100.1"),
            (&["for=198.51.100.1;host=\"a;for=1.2.3.4\""], "198.51.100.1"),
            (&["for=198.51.100.1;host=\"a\\\",for=1.2.3.4\""], "198.51.100.1"),
            // Names, and what is malformed.
            (&["for=198.51.100.1, for=unknown"], "10.0.0.1"),
            (&["for=198.51.100.1, for=_hidden"], "10.0.0.1"),
            (&["for=198.51.100.1, proto=https"], "10.0.0.1"),
            (&["for=198.51.100.1, for=1.2.3.4;for=5.6.7.8"], "10.0.0.1"),
            (&["for=\"198.51.100.1"], "10.0.0.1"),
            (&["for"], "10.0.0.1"),
            (&["198.51.100.1"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
        ] {
            assert_eq!(found("10.0.0.1", ClientHeader::Forwarded, values), expected, "{values:?}");
        }
    }

    #[test]
    fn budgets_of_ipv6_are_those_of_a_network() {
        for (address, expected) in [
            ("198.51.100.1", "198.51.100.1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(budget(address.parse().unwrap()).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_stranger_writes_changes_whose_call_it_is(values in proptest::collection::vec("\\PC{0,40}", 0..4)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
                prop_assert_eq!(found("203.0.113.9", header, &values), "203.0.113.9");
            }
        }

        #[test]
        fn what_a_stranger_writes_is_left_of_what_its_proxy_writes(forged in "[0-9a-f:., \";=for\\\\]{0,40}") {
            let line = format!("{forged},198.51.100.1");
            prop_assert_eq!(found("10.0.0.1", ClientHeader::XForwardedFor, &[&line]), "198.51.100.1");
            prop_assert_eq!(found("10.0.0.1", ClientHeader::Forwarded, &[&forged, "for=198.51.100.1"]), "198.51.100.1");
        }
    }
}
