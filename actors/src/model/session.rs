//! Session tokens: what a client has seen, so that it never reads what is older.
//!
//! A token is `<shard>:<version>#<lsn>`, for instance `0:1#812`, several of them joined by `,`. Clients
//! send back what they were given and never look inside. Invariants: the text is stable over versions of
//! the program; merging tokens in any order gives the same token, and it never forgets a position.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::ids::{Lsn, Position, ShardId};

/// Longest token that is read, in bytes; a thousand shards and more.
pub const MAX_BYTES: usize = 32 * 1_024;

/// How far a client has seen each shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SessionToken(BTreeMap<ShardId, Seen>);

/// How far one shard was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Which life of the shard's log: positions of another are not comparable, for instance those
    /// from before a backup was restored.
    pub version: u32,
    /// The last position.
    pub lsn: Lsn,
}

/// A text that is no session token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSession {
    /// Longer than [`MAX_BYTES`].
    #[error("a session token has at most {MAX_BYTES} bytes, this one has {0}")]
    Length(usize),
    /// A part that is not `<shard>:<version>#<lsn>`.
    #[error(
        "`{0}` is no session token: send back the `x-session-token` of an earlier answer, such as `0:1#812`"
    )]
    Part(String),
}

impl SessionToken {
    /// The token of one position.
    pub fn at(version: u32, position: Position) -> Self {
        Self(BTreeMap::from([(position.shard, Seen { version, lsn: position.lsn })]))
    }

    /// Adds what another token has seen: the later position of each shard.
    pub fn merge(&mut self, other: &Self) {
        for (&shard, &seen) in &other.0 {
            let own = self.0.entry(shard).or_insert(seen);
            *own = (*own).max(seen);
        }
    }

    /// Whether the client has seen this position of a shard's log in its life `version`.
    pub fn covers(&self, version: u32, position: Position) -> bool {
        let wanted = Seen { version, lsn: position.lsn };
        self.0.get(&position.shard).is_some_and(|seen| *seen >= wanted)
    }

    /// Whether a shard that has come to `position` in its life `version` may serve this client. When it
    /// may not, it is behind, or the token is from a store that went further before it was restored.
    pub fn is_met_by(&self, version: u32, position: Position) -> bool {
        let reached = Seen { version, lsn: position.lsn };
        self.0.get(&position.shard).is_none_or(|seen| *seen <= reached)
    }

    /// How far the client has seen a shard.
    pub fn seen(&self, shard: ShardId) -> Option<Seen> {
        self.0.get(&shard).copied()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (shard, seen)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{shard}:{}#{}", seen.version, seen.lsn)?;
        }
        Ok(())
    }
}

impl FromStr for SessionToken {
    type Err = InvalidSession;

    /// Reads a token; a shard that stands in it twice counts with its later position.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_BYTES {
            return Err(InvalidSession::Length(text.len()));
        }
        let mut token = Self::default();
        for part in text.split(',') {
            let invalid = || InvalidSession::Part(part.chars().take(64).collect());
            let (position, version) = read(part.trim()).ok_or_else(invalid)?;
            token.merge(&Self::at(version, position));
        }
        Ok(token)
    }
}

fn read(part: &str) -> Option<(Position, u32)> {
    let (shard, rest) = part.split_once(':')?;
    let (version, lsn) = rest.split_once('#')?;
    // The number parser of the library would also take a plus sign.
    if [shard, version, lsn].iter().any(|number| !number.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let position = Position { shard: ShardId(shard.parse().ok()?), lsn: Lsn(lsn.parse().ok()?) };
    Some((position, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(shard: u16, lsn: u64) -> Position {
        Position { shard: ShardId(shard), lsn: Lsn(lsn) }
    }

    fn token(text: &str) -> SessionToken {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_are_read_and_written_the_same_way() {
        for (text, written) in [
            ("0:1#812", "0:1#812"),
            ("3:0#5, 1:2#7", "1:2#7,3:0#5"),
            ("0:1#5,0:1#9,0:1#7", "0:1#9"),
            ("0:1#9,0:2#3", "0:2#3"),
            ("65535:4294967295#18446744073709551615", "65535:4294967295#18446744073709551615"),
            ("00:01#0005", "0:1#5"),
        ] {
            assert_eq!(token(text).to_string(), written);
        }
        assert_eq!(SessionToken::at(1, position(0, 812)), token("0:1#812"));
        assert!(SessionToken::default().is_empty() && !token("0:0#0").is_empty());
    }

    #[test]
    fn texts_that_are_no_token_are_refused() {
        for text in [
            "",
            ",",
            "0:1#5,",
            "0",
            "0:1",
            "0#1",
            "a:1#5",
            "0:-1#5",
            "+0:1#5",
            "0:1#5#0=5",
            "65536:0#1",
            "0:4294967296#1",
            "0:1#18446744073709551616",
            "0 :1#5",
            "::#",
        ] {
            assert!(matches!(text.parse::<SessionToken>(), Err(InvalidSession::Part(_))), "{text}");
        }
        let long = vec!["0:1#5"; 10_000].join(",");
        assert_eq!(long.parse::<SessionToken>(), Err(InvalidSession::Length(59_999)));
        let error = "zz".parse::<SessionToken>().unwrap_err().to_string();
        assert!(error.contains("`zz` is no session token"), "{error}");
    }

    #[test]
    fn a_token_is_met_by_whoever_is_as_far() {
        let token = token("0:1#812,2:1#5");
        for (version, position, covers, met) in [
            (1, position(0, 811), true, false),
            (1, position(0, 812), true, true),
            (1, position(0, 813), false, true),
            (0, position(0, 900), true, false),
            (2, position(0, 1), false, true),
            (1, position(1, 0), false, true),
            (1, position(2, 4), true, false),
        ] {
            assert_eq!(token.covers(version, position), covers, "{version} {position}");
            assert_eq!(token.is_met_by(version, position), met, "{version} {position}");
        }
        assert_eq!(token.seen(ShardId(2)), Some(Seen { version: 1, lsn: Lsn(5) }));
        assert_eq!(token.seen(ShardId(1)), None);
    }

    fn any_token() -> impl Strategy<Value = SessionToken> {
        proptest::collection::vec((0u16..4, 0u32..3, 0u64..9), 1..5).prop_map(|parts| {
            let mut token = SessionToken::default();
            for (shard, version, lsn) in parts {
                token.merge(&SessionToken::at(version, position(shard, lsn)));
            }
            token
        })
    }

    proptest! {
        #[test]
        fn a_token_survives_its_text(token in any_token()) {
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn a_merged_token_has_seen_what_both_have(a in any_token(), b in any_token()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b);
            ba.merge(&a);
            prop_assert_eq!(&ab, &ba);
            for (shard, seen) in a.0.iter().chain(&b.0) {
                let position = Position { shard: *shard, lsn: seen.lsn };
                prop_assert!(ab.covers(seen.version, position));
            }
        }

        #[test]
        fn arbitrary_text_is_read_without_panic(text in "[0-9:#,+a ]{0,24}") {
            if let Ok(token) = text.parse::<SessionToken>() {
                prop_assert!(!token.is_empty());
            }
        }
    }
}
