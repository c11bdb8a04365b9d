//! Stands between written quantities and the types that carry them: durations, sizes, dates, address blocks.
//!
//! Invariant: a quantity has its unit written beside it; a bare number is refused, because nobody can tell
//! seconds from milliseconds by looking at it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// One kibibyte in bytes.
pub(super) const KIB: u64 = 1024;
/// One mebibyte in bytes.
pub(super) const MIB: u64 = 1024 * KIB;
/// One gibibyte in bytes.
pub(super) const GIB: u64 = 1024 * MIB;
/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// One millisecond.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// One minute.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// One hour.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// One day.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const DURATIONS: [(&str, Duration); 5] =
    [("ms", MILLISECOND), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];

/// Reads `250ms`, `5s`, `1m`, `2h` or `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let (_, length) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
    length.checked_mul(u32::try_from(number).ok()?)
}

/// Writes a duration so that [`duration`] reads it back, in the largest unit without a remainder.
pub(super) fn write_duration(value: Duration) -> String {
    for (name, length) in DURATIONS.iter().rev() {
        let (value, length) = (value.as_millis(), length.as_millis());
        if value >= length && value % length == 0 {
            return format!("{}{name}", value / length);
        }
    }
    format!("{}ms", value.as_millis())
}

/// Reads `512B`, `64KiB`, `2MiB` or `1GiB`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Writes a number of bytes so that [`size`] reads it back, in the largest unit without a remainder.
pub(super) fn write_size(value: u64) -> String {
    for (name, bytes) in SIZES.iter().rev() {
        if value >= *bytes && value.is_multiple_of(*bytes) {
            return format!("{}{name}", value / bytes);
        }
    }
    format!("{value}B")
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit))
}

/// Reads an RFC 3339 date (`2027-01-31`, meaning midnight UTC at its beginning) or date-time (section 5.6).
pub(crate) fn timestamp(text: &str) -> Option<SystemTime> {
    let (date, time) = match text.split_at_checked("yyyy-mm-dd".len())? {
        (date, "") => (date, None),
        (date, rest) => (date, Some(rest.strip_prefix(['T', 't', ' '])?)),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let month_days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > month_days || year < 1970 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + time.map_or(Some(0), time_of_day)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Seconds from midnight UTC, for `hh:mm:ss[.fraction](Z|±hh:mm)`. The fraction is dropped.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, rest) = text.split_at_checked("hh:mm:ss".len())?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if zone.len() == fraction.len() {
                return None;
            }
            zone
        }
        None => rest,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    // A leap second is written :60 and belongs to the second after it.
    (hour <= 23 && minute <= 59 && second <= 60).then_some(hour * 3600 + minute * 60 + second - offset)
}

/// Splits `text` into numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days of the proleptic Gregorian calendar. Counting years from March puts the leap day last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let month_from_march = (month + 9) % 12;
    let leap_days = shifted / 4 - shifted / 100 + shifted / 400;
    // 719,468 days lie between the first of March of year 0 and the first of January 1970.
    shifted * 365 + leap_days + (month_from_march * 153 + 2) / 5 + day - 1 - 719_468
}

/// A block of addresses, such as `127.0.0.0/8` (RFC 4632, RFC 4291 section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a [`Cidr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It is not an address, a slash and a number of bits.
    #[error("expected an address block such as `10.0.0.0/8`")]
    Form,
    /// A single address without a number of bits.
    #[error("an address block needs its number of bits")]
    NoPrefix(Cidr),
    /// Bits are set behind the prefix.
    #[error("the address has bits behind its prefix")]
    HostBits(Cidr),
}

impl CidrError {
    /// The block that was probably meant.
    pub fn suggestion(self) -> Option<Cidr> {
        match self {
            Self::Form => None,
            Self::NoPrefix(block) | Self::HostBits(block) => Some(block),
        }
    }
}

impl Cidr {
    /// Whether the block holds the address. An IPv4 address written in IPv6 (`::ffff:…`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => mask_v4(address, self.prefix) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => mask_v6(address, self.prefix) == network,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Form)?;
        let bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = u8::try_from(bits).unwrap_or(u8::MAX);
        let Some(prefix) = prefix else {
            return Err(CidrError::NoPrefix(Self { network: address, prefix: bits }));
        };
        let prefix: u8 = prefix.parse().map_err(|_| CidrError::Form)?;
        if prefix > bits {
            return Err(CidrError::Form);
        }
        let network = match address {
            IpAddr::V4(address) => IpAddr::V4(mask_v4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(mask_v6(address, prefix)),
        };
        let block = Self { network, prefix };
        if network == address { Ok(block) } else { Err(CidrError::HostBits(block)) }
    }
}

fn mask_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - u32::from(prefix)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

/// Blocks that are not the public internet, from the special-purpose registries of IANA (RFC 6890).
const NOT_PUBLIC: [(IpAddr, u8); 27] = {
    const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> (IpAddr, u8) {
        (IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix)
    }
    const fn v6(a: u16, b: u16, prefix: u8) -> (IpAddr, u8) {
        (IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), prefix)
    }
    [
        v4(0, 0, 0, 8),
        v4(10, 0, 0, 8),
        v4(100, 64, 0, 10),
        v4(127, 0, 0, 8),
        v4(169, 254, 0, 16),
        v4(172, 16, 0, 12),
        v4(192, 0, 0, 24),
        v4(192, 0, 2, 24),
        v4(192, 88, 99, 24),
        v4(192, 168, 0, 16),
        v4(198, 18, 0, 15),
        v4(198, 51, 100, 24),
        v4(203, 0, 113, 24),
        v4(224, 0, 0, 4),
        v4(240, 0, 0, 4),
        // Loopback, unspecified, and the old IPv4-compatible addresses lie together at the beginning.
        v6(0, 0, 96),
        v6(0x64, 0xff9b, 32),
        v6(0x100, 0, 64),
        v6(0x2001, 0, 23),
        v6(0x2001, 0xdb8, 32),
        v6(0x2002, 0, 16),
        v6(0x3fff, 0, 20),
        v6(0x5f00, 0, 16),
        v6(0xfc00, 0, 7),
        v6(0xfe80, 0, 10),
        v6(0xfec0, 0, 10),
        v6(0xff00, 0, 8),
    ]
};

/// Whether an address belongs to the public internet: not private, loopback, link-local, multicast or reserved.
pub fn is_public(address: IpAddr) -> bool {
    !NOT_PUBLIC.iter().any(|(network, prefix)| Cidr { network: *network, prefix: *prefix }.contains(address))
}
