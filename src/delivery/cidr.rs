//! Stands between the text of an allow list and the questions asked of it.
//! Invariant: a block never has bits set outside its prefix, and an IPv4-mapped block is kept as IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Length of the prefix that marks an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A block of addresses, such as `10.0.0.0/8` or `fd00::/8`. A bare address is a block of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrProblem {
    /// The part before the slash is not an IP address.
    #[error("`{0}` is not an IP address or a CIDR block such as `10.0.0.0/8`")]
    Address(String),
    /// The part after the slash is not a number, or is longer than the address.
    #[error("the prefix length of `{0}` is not a number that fits its address")]
    Prefix(String),
    /// The address has bits set that the prefix cuts off, which is often a slip.
    #[error("`{given}` has bits outside its prefix, did you mean `{meant}`?")]
    HostBits {
        /// The text as written.
        given: String,
        /// The block that contains it.
        meant: Cidr,
    },
}

impl Cidr {
    /// An IPv4 block that is known to be well formed. `prefix` is at most 32.
    pub(crate) const fn v4(network: Ipv4Addr, prefix: u8) -> Self {
        Self { network: IpAddr::V4(network), prefix }
    }

    /// An IPv6 block that is known to be well formed. `prefix` is at most 128.
    pub(crate) const fn v6(network: Ipv6Addr, prefix: u8) -> Self {
        Self { network: IpAddr::V6(network), prefix }
    }

    /// Whether `address` is in this block. An IPv4-mapped address counts as the IPv4 address in it,
    /// so `::/0` does not contain `::ffff:127.0.0.1` but `127.0.0.0/8` does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()) & mask_v6(self.prefix) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The block around `address`, with the bits outside the prefix cleared.
    fn around(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix)), prefix),
            IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), prefix.checked_sub(MAPPED_PREFIX)) {
                (Some(v4), Some(prefix)) => Self::around(IpAddr::V4(v4), prefix),
                (Some(_), None) | (None, _) => {
                    Self::v6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix)), prefix)
                }
            },
        }
    }
}

/// The bits of an IPv4 address that a prefix of this length compares.
fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(u32::BITS.saturating_sub(u32::from(prefix))).unwrap_or_default()
}

/// The bits of an IPv6 address that a prefix of this length compares.
fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(u128::BITS.saturating_sub(u32::from(prefix))).unwrap_or_default()
}

impl FromStr for Cidr {
    type Err = CidrProblem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrProblem::Address(text.to_owned()))?;
        let longest = match address {
            IpAddr::V4(_) => u32::BITS,
            IpAddr::V6(_) => u128::BITS,
        };
        let prefix: u32 = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| CidrProblem::Prefix(text.to_owned()))?
            }
            Some(_) => return Err(CidrProblem::Prefix(text.to_owned())),
        };
        let fits = u8::try_from(prefix).ok().filter(|_| prefix <= longest);
        let Some(prefix) = fits else {
            return Err(CidrProblem::Prefix(text.to_owned()));
        };
        let block = Self::around(address, prefix);
        if block.network != address.to_canonical() && block.network != address {
            return Err(CidrProblem::HostBits { given: text.to_owned(), meant: block });
        }
        Ok(block)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_exactly_the_addresses_under_its_prefix() {
        for (block, inside, outside) in [
            ("127.0.0.0/8", "127.255.255.255", "128.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "fe80::1", "127.0.0.1"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::1", "::1", "::2"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::127.0.0.1"),
            ("::ffff:127.0.0.0/104", "127.3.2.1", "126.0.0.1"),
            ("::/0", "::127.0.0.1", "::ffff:127.0.0.1"),
        ] {
            let block: Cidr = block.parse().unwrap();
            assert!(block.contains(inside.parse().unwrap()), "{block} contains {inside}");
            assert!(!block.contains(outside.parse().unwrap()), "{block} does not contain {outside}");
        }
    }

    #[test]
    fn what_is_not_a_block_is_refused_with_the_reason() {
        for text in ["", "/", "localhost", "10.0.0/8", "010.0.0.0/8", "[::1]/128", " 10.0.0.0/8"] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrProblem::Address(text.to_owned())), "{text}");
        }
        for text in
            ["10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "::/300", "10.0.0.0/8/8"]
        {
            assert_eq!(text.parse::<Cidr>(), Err(CidrProblem::Prefix(text.to_owned())), "{text}");
        }
        let slip = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
        assert_eq!(slip.to_string(), "`10.1.2.3/8` has bits outside its prefix, did you mean `10.0.0.0/8`?");
    }
}
