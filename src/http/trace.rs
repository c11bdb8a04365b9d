//! Stands between a caller's trace and ours (W3C Trace Context, level 1).
//!
//! Invariant: what goes on, into the store and back to the caller, is always a valid `traceparent` of version 00.

use std::fmt;

/// Length of a `traceparent` of version 00: `00-` + 32 + `-` + 16 + `-` + 2.
const LENGTH: usize = 55;
/// The flag bit that says that the caller may have recorded its part.
const SAMPLED: u8 = 0x01;

/// The trace that a request belongs to, and our own place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Trace {
    /// Goes on with the caller's trace, or begins a new one where the header is absent or not valid. `random` gives
    /// the numbers of new ids.
    pub fn follow(header: Option<&str>, mut random: impl FnMut() -> u128) -> Self {
        let (trace_id, flags) = header.and_then(parse).unwrap_or_else(|| (non_zero(&mut random), SAMPLED));
        let span_id = loop {
            let [.., a, b, c, d, e, f, g, h] = random().to_be_bytes();
            let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            if id != 0 {
                break id;
            }
        };
        Self { trace_id, span_id, flags }
    }

    /// As [`follow`](Self::follow), with the numbers of this thread's generator, which need not be unguessable.
    pub fn of(header: Option<&str>) -> Self {
        Self::follow(header, || fastrand::u128(..))
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for Trace {
    /// The `traceparent` to hand on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

fn non_zero(random: &mut impl FnMut() -> u128) -> u128 {
    loop {
        let id = random();
        if id != 0 {
            return id;
        }
    }
}

/// Trace id and flags of a valid header.
fn parse(header: &str) -> Option<(u128, u8)> {
    let (known, rest) = header.split_at_checked(LENGTH)?;
    let mut fields = known.split('-');
    let mut field = |length: usize| fields.next().filter(|field| is_hex(field, length));
    let (version, trace_id, parent, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    // A later version may add fields; version 00 has none.
    let rest_fits = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == "ff" || !rest_fits {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace_id, flags & SAMPLED))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NEW: &str = "00-00000000000000000000000000000007-0000000000000008-01";

    fn follow(header: Option<&str>) -> String {
        let mut next = 6;
        let random = || {
            next += 1;
            next
        };
        Trace::follow(header, random).to_string()
    }

    #[test]
    fn a_valid_trace_goes_on_with_a_span_of_our_own() {
        assert_eq!(follow(Some(VALID)), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        let unsampled = VALID.replace("-01", "-00");
        assert!(follow(Some(&unsampled)).ends_with("0000000000000007-00"));
        let later = VALID.replacen("00", "01", 1) + "-what-is-to-come";
        assert_eq!(follow(Some(&later)), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        assert_eq!(Trace::of(Some(VALID)).id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn an_invalid_trace_is_replaced() {
        for header in [
            "",
            "00",
            &VALID.to_uppercase(),
            &VALID[..54],
            &format!("{VALID}0"),
            &format!("{VALID}-00"),
            &VALID.replacen("00", "ff", 1),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-36-00f067aa0ba902b7-01",
            " 0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902é7-1",
        ] {
            assert_eq!(follow(Some(header)), NEW, "{header}");
        }
        assert_eq!(follow(None), NEW);
    }

    #[test]
    fn ids_of_zero_are_never_made() {
        let mut numbers = [0, 0, 5, 0, 1 << 64, 9].into_iter();
        let trace = Trace::follow(None, || numbers.next().unwrap());
        assert_eq!(trace.to_string(), "00-00000000000000000000000000000005-0000000000000009-01");
    }

    proptest! {
        #[test]
        fn whatever_comes_a_valid_trace_goes_on(header in "[0-9a-fA-F-]{50,60}|\\PC{0,80}") {
            let trace = Trace::of(Some(&header)).to_string();
            prop_assert!(parse(&trace).is_some());
        }
    }
}
