//! Decides when a document expires, from its own `ttl` and its container's default.
//!
//! Stands between a document's body and everybody who must not see it any more: reads, queries, the
//! sweep. Invariant: a document is expired from one exact moment on, the same for all of them.

use serde_json::Value;

use crate::model::time::Timestamp;

/// Longest time to live, in seconds.
pub const MAX_TTL: u32 = 2_147_483_647;

/// A document's property `ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ItemTtl {
    /// No such property: the container's default holds.
    #[default]
    Inherit,
    /// `-1`: never, whatever the default.
    Never,
    /// So many seconds, at least 1.
    Seconds(u32),
}

/// A container's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContainerTtl {
    /// Nothing expires; the documents' own `ttl` means nothing.
    #[default]
    Off,
    /// `-1`: only documents with a `ttl` of their own expire.
    NoDefault,
    /// Documents without a `ttl` expire after so many seconds, at least 1.
    Seconds(u32),
}

/// A value that is no time to live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`ttl` is a whole number of seconds from 1 to {MAX_TTL}, or -1 for never; leave it out for the default"
)]
pub struct InvalidTtl;

impl ItemTtl {
    /// Reads the value of the property `ttl`; `None` when the document has no such property. A whole
    /// number may be written with a fraction of zero.
    pub fn from_json(property: Option<&Value>) -> Result<Self, InvalidTtl> {
        let Some(value) = property else { return Ok(Self::Inherit) };
        let seconds = value.as_f64().filter(|seconds| seconds.fract() == 0.0).ok_or(InvalidTtl)?;
        if !(-1.0..=f64::from(MAX_TTL)).contains(&seconds) {
            return Err(InvalidTtl);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a whole number within the range above")]
        let seconds = seconds as i64;
        match seconds {
            -1 => Ok(Self::Never),
            _ => Ok(Self::Seconds(in_range(seconds)?)),
        }
    }

    /// One number for storage: 0 for inherit, -1 for never, else the seconds.
    pub fn to_i32(self) -> i32 {
        match self {
            Self::Inherit => 0,
            Self::Never => -1,
            Self::Seconds(n) => i32::try_from(n).unwrap_or(i32::MAX),
        }
    }

    /// Reads what [`to_i32`](Self::to_i32) wrote.
    pub fn from_i32(stored: i32) -> Result<Self, InvalidTtl> {
        match stored {
            0 => Ok(Self::Inherit),
            -1 => Ok(Self::Never),
            n => Ok(Self::Seconds(in_range(i64::from(n))?)),
        }
    }
}

impl ContainerTtl {
    /// A default as it is configured: nothing for off, -1 for none, else seconds.
    pub fn new(default: Option<i64>) -> Result<Self, InvalidTtl> {
        match default {
            None => Ok(Self::Off),
            Some(-1) => Ok(Self::NoDefault),
            Some(n) => Ok(Self::Seconds(in_range(n)?)),
        }
    }
}

/// When a document that was last written at `at` expires; `None` for never. Counted from the whole
/// second that `_ts` shows, so that clients can compute it too; any write starts it anew.
pub fn expires(at: Timestamp, item: ItemTtl, container: ContainerTtl) -> Option<Timestamp> {
    let seconds = match (container, item) {
        (ContainerTtl::Off, _) | (_, ItemTtl::Never) | (ContainerTtl::NoDefault, ItemTtl::Inherit) => {
            return None;
        }
        (ContainerTtl::NoDefault | ContainerTtl::Seconds(_), ItemTtl::Seconds(n)) => n,
        (ContainerTtl::Seconds(n), ItemTtl::Inherit) => n,
    };
    Some(Timestamp(at.seconds().saturating_add(u64::from(seconds)).saturating_mul(1_000)))
}

/// Whether that moment has come.
pub fn is_expired(now: Timestamp, at: Timestamp, item: ItemTtl, container: ContainerTtl) -> bool {
    expires(at, item, container).is_some_and(|end| now >= end)
}

fn in_range(seconds: i64) -> Result<u32, InvalidTtl> {
    let seconds = u32::try_from(seconds).map_err(|_| InvalidTtl)?;
    if (1..=MAX_TTL).contains(&seconds) { Ok(seconds) } else { Err(InvalidTtl) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ttl_is_minus_one_or_whole_seconds() {
        assert_eq!(ItemTtl::from_json(None), Ok(ItemTtl::Inherit));
        for (value, expected) in [
            (json!(-1), ItemTtl::Never),
            (json!(-1.0), ItemTtl::Never),
            (json!(1), ItemTtl::Seconds(1)),
            (json!(5.0), ItemTtl::Seconds(5)),
            (json!(2_147_483_647), ItemTtl::Seconds(MAX_TTL)),
        ] {
            assert_eq!(ItemTtl::from_json(Some(&value)), Ok(expected), "{value}");
        }
        for value in [
            json!(null),
            json!(0),
            json!(-0.0),
            json!(-2),
            json!(1.5),
            json!(0.5),
            json!(-0.5),
            json!(2_147_483_648_u32),
            json!(u64::MAX),
            json!(1e300),
            json!("5"),
            json!(true),
            json!([5]),
            json!({}),
        ] {
            assert_eq!(ItemTtl::from_json(Some(&value)), Err(InvalidTtl), "{value}");
        }
    }

    #[test]
    fn a_default_is_off_or_none_or_seconds() {
        for (given, expected) in [
            (None, Ok(ContainerTtl::Off)),
            (Some(-1), Ok(ContainerTtl::NoDefault)),
            (Some(1), Ok(ContainerTtl::Seconds(1))),
            (Some(2_147_483_647), Ok(ContainerTtl::Seconds(MAX_TTL))),
            (Some(0), Err(InvalidTtl)),
            (Some(-2), Err(InvalidTtl)),
            (Some(2_147_483_648), Err(InvalidTtl)),
            (Some(i64::MIN), Err(InvalidTtl)),
        ] {
            assert_eq!(ContainerTtl::new(given), expected, "{given:?}");
        }
    }

    #[test]
    fn the_document_overrides_the_container_unless_it_is_off() {
        let at = Timestamp(10_700);
        for (container, item, expected) in [
            (ContainerTtl::Off, ItemTtl::Inherit, None),
            (ContainerTtl::Off, ItemTtl::Never, None),
            (ContainerTtl::Off, ItemTtl::Seconds(5), None),
            (ContainerTtl::NoDefault, ItemTtl::Inherit, None),
            (ContainerTtl::NoDefault, ItemTtl::Never, None),
            (ContainerTtl::NoDefault, ItemTtl::Seconds(5), Some(15_000)),
            (ContainerTtl::Seconds(7), ItemTtl::Inherit, Some(17_000)),
            (ContainerTtl::Seconds(7), ItemTtl::Never, None),
            (ContainerTtl::Seconds(7), ItemTtl::Seconds(5), Some(15_000)),
            (ContainerTtl::Seconds(7), ItemTtl::Seconds(9), Some(19_000)),
        ] {
            assert_eq!(expires(at, item, container), expected.map(Timestamp), "{container:?} {item:?}");
        }
    }

    #[test]
    fn a_document_expires_at_its_moment_and_not_before() {
        let expired =
            |now| is_expired(Timestamp(now), Timestamp(10_999), ItemTtl::Seconds(1), ContainerTtl::NoDefault);
        assert!(!expired(10_999));
        assert!(expired(11_000), "one second after the `_ts` of 10");
        assert!(expired(u64::MAX));
        let forever = Timestamp(u64::MAX);
        assert!(!is_expired(Timestamp(0), forever, ItemTtl::Seconds(MAX_TTL), ContainerTtl::NoDefault));
    }

    proptest! {
        #[test]
        fn a_ttl_survives_storage(stored: i32) {
            match ItemTtl::from_i32(stored) {
                Ok(ttl) => prop_assert_eq!(ttl.to_i32(), stored),
                Err(InvalidTtl) => prop_assert!(stored < -1),
            }
        }
    }
}
