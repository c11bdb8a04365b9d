//! Where a reader of a change feed is: its start and its cursor.
//!
//! A cursor is opaque text: base64url of a version, the mode, a hash of what is read, and the last
//! position of each shard. Invariants: it depends on nothing that a server keeps, so it is good for
//! ever, over restarts and upgrades; one that was cut, changed, or made for another feed is refused,
//! never read as another place.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ids::{Lsn, ShardId};
use super::time::Timestamp;

/// The layout below. Each byte of it is read for ever; a new layout is a new number.
const LAYOUT: u8 = 1;
/// Version, mode, scope, number of shards.
const HEAD: usize = 1 + 1 + 8 + 2;
/// Shard and position.
const ROW: usize = 2 + 8;
const CHECKSUM: usize = 4;
/// Longest text of a cursor: that of as many shards as there can be slots.
const MAX_TEXT: usize = (HEAD + 4_096 * ROW + CHECKSUM) * 4 / 3 + 4;

/// Which changes a feed shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FeedMode {
    /// The newest version of each document; deletions are not shown.
    #[default]
    Latest,
    /// Every version and every deletion, within the container's retention.
    All,
}

impl FeedMode {
    /// Reads `latest` or `all`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "latest" => Some(Self::Latest),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// The name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::All => "all",
        }
    }
}

/// What a feed is read of, as a hash: a cursor of one is no cursor of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeedScope(u64);

impl FeedScope {
    /// A whole container, or the part of it whose encoded partitions are or begin with `partition`.
    pub fn of(container: &str, partition: Option<&[u8]>) -> Self {
        let mut text = Vec::with_capacity(container.len() + 64);
        text.extend_from_slice(container.as_bytes());
        // No name has a zero in it, so a name and a partition never read as a longer name.
        text.push(0);
        text.extend_from_slice(partition.unwrap_or_default());
        Self(twox_hash::XxHash3_64::oneshot(&text))
    }
}

/// A place in a feed: what was read of each shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    scope: FeedScope,
    mode: FeedMode,
    positions: BTreeMap<ShardId, Lsn>,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// Cut, changed, or never a cursor.
    #[error("this is no cursor: send back the `cursor` of an earlier answer, whole and unchanged")]
    Malformed,
    /// Made by a newer program.
    #[error("the cursor has layout {0}, which a newer version has made: upgrade, or start again")]
    Newer(u8),
}

/// A cursor that belongs to another feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForeignCursor {
    /// Another container or partition.
    #[error("the cursor was made for another container or partition")]
    Scope,
    /// The other mode.
    #[error("the cursor was made for `mode={}`", .0.as_str())]
    Mode(FeedMode),
}

impl FeedCursor {
    /// A place before everything.
    pub fn new(scope: FeedScope, mode: FeedMode) -> Self {
        Self { scope, mode, positions: BTreeMap::new() }
    }

    /// What was read of a shard; a shard that the cursor does not know is read from its beginning.
    pub fn position(&self, shard: ShardId) -> Lsn {
        self.positions.get(&shard).copied().unwrap_or(Lsn::ZERO)
    }

    /// Notes that everything up to `lsn` was read. A cursor never goes back.
    pub fn advance(&mut self, shard: ShardId, lsn: Lsn) {
        let position = self.positions.entry(shard).or_default();
        *position = (*position).max(lsn);
    }

    /// The shards that the cursor knows, with what was read of them.
    pub fn positions(&self) -> impl Iterator<Item = (ShardId, Lsn)> {
        self.positions.iter().map(|(&shard, &lsn)| (shard, lsn))
    }

    /// The mode that it was made for.
    pub fn mode(&self) -> FeedMode {
        self.mode
    }

    /// Asks whether this is a cursor of that feed.
    pub fn belongs_to(&self, scope: FeedScope, mode: FeedMode) -> Result<(), ForeignCursor> {
        if self.scope != scope {
            return Err(ForeignCursor::Scope);
        }
        if self.mode != mode {
            return Err(ForeignCursor::Mode(self.mode));
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.positions.len() * ROW + CHECKSUM);
        out.push(LAYOUT);
        out.push(match self.mode {
            FeedMode::Latest => 0,
            FeedMode::All => 1,
        });
        out.extend_from_slice(&self.scope.0.to_be_bytes());
        let count = u16::try_from(self.positions.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for (shard, lsn) in self.positions.iter().take(usize::from(count)) {
            out.extend_from_slice(&shard.0.to_be_bytes());
            out.extend_from_slice(&lsn.0.to_be_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (&[_layout, mode], rest) = body.split_first_chunk()?;
        let mode = match mode {
            0 => FeedMode::Latest,
            1 => FeedMode::All,
            _ => return None,
        };
        let (scope, rest) = rest.split_first_chunk()?;
        let (count, mut rest) = rest.split_first_chunk()?;
        let mut positions = BTreeMap::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (shard, after) = rest.split_first_chunk()?;
            let (lsn, after) = after.split_first_chunk()?;
            positions.insert(ShardId(u16::from_be_bytes(*shard)), Lsn(u64::from_be_bytes(*lsn)));
            rest = after;
        }
        let scope = FeedScope(u64::from_be_bytes(*scope));
        rest.is_empty().then_some(Self { scope, mode, positions })
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.encode()))
    }
}

impl FromStr for FeedCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT {
            return Err(InvalidCursor::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Malformed)?;
        match bytes.first() {
            Some(&LAYOUT) => Self::decode(&bytes).ok_or(InvalidCursor::Malformed),
            // Layouts stay below this, so that no cursor begins with a digit as times do, and so that
            // few texts that are no cursor look like one of the future.
            Some(&layout) if layout > LAYOUT && layout < 0x10 => Err(InvalidCursor::Newer(layout)),
            Some(_) | None => Err(InvalidCursor::Malformed),
        }
    }
}

/// Where a reader wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedStart {
    /// At the first change that there still is.
    Beginning,
    /// After the last change that there is.
    Now,
    /// At the first change that was made at this time or later.
    Time(Timestamp),
    /// Where another answer ended.
    Cursor(FeedCursor),
}

/// A text that is no start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStart {
    /// None of the forms.
    #[error("`from` is `beginning`, `now`, a time such as `2026-01-31T08:30:00Z`, or a cursor")]
    Form,
    /// Looks like a time, and is none.
    #[error("`from` is no time: RFC 3339 with its zone, such as `2026-01-31T08:30:00Z`")]
    Time,
    /// Looks like a cursor, and is none.
    #[error("{0}")]
    Cursor(#[from] InvalidCursor),
}

impl FromStr for FeedStart {
    type Err = InvalidStart;

    /// Reads the parameter `from`. A time begins with a digit, and no cursor does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "now" => Ok(Self::Now),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                rfc3339(text).map(Self::Time).ok_or(InvalidStart::Time)
            }
            _ if text.len() * 3 / 4 >= HEAD => Ok(Self::Cursor(text.parse()?)),
            _ => Err(InvalidStart::Form),
        }
    }
}

/// Reads a time (RFC 3339 section 5.6), down to milliseconds. Times before 1970 are 1970.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let month = ::time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date =
        ::time::Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(c, f)| (c, Some(f)));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    // A leap second is the first moment of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let midnight = date.midnight().assume_utc().unix_timestamp();
    let seconds = midnight + hour * 3_600 + minute * 60 + second - offset(zone)?;
    let millis = seconds * 1_000 + fraction.map_or(Some(0), millis)?;
    Some(Timestamp(u64::try_from(millis).unwrap_or(0)))
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", _) => 1,
        ("-", _) => -1,
        _ => return None,
    };
    let [hour, minute] = numbers(zone.get(1..)?, ':', [2, 2])?;
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 3_600 + minute * 60))
}

/// Milliseconds of a decimal fraction; further digits are cut.
fn millis(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}").get(..3)?.parse().ok()
}

/// Exactly so many numbers, each with its number of digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(positions: &[(u16, u64)]) -> FeedCursor {
        let mut cursor = FeedCursor::new(FeedScope::of("loads", None), FeedMode::All);
        for &(shard, lsn) in positions {
            cursor.advance(ShardId(shard), Lsn(lsn));
        }
        cursor
    }

    /// Cursors are kept by clients for years.
    #[test]
    fn a_cursor_of_the_first_version_is_still_read() {
        let text = cursor(&[(0, 812), (1, 77)]).to_string();
        assert_eq!(text, "AQEY9r4cybtJQAACAAAAAAAAAAADLAABAAAAAAAAAE27xFwB");
        assert_eq!(text.parse(), Ok(cursor(&[(0, 812), (1, 77)])));
    }

    #[test]
    fn a_cursor_knows_its_feed() {
        let whole = FeedScope::of("loads", None);
        let cursor = cursor(&[(0, 5)]);
        assert_eq!(cursor.belongs_to(whole, FeedMode::All), Ok(()));
        assert_eq!(cursor.belongs_to(whole, FeedMode::Latest), Err(ForeignCursor::Mode(FeedMode::All)));
        for (container, partition) in [("quotes", None), ("loads", Some(&b"x"[..])), ("load", Some(b"s"))] {
            let other = FeedScope::of(container, partition);
            assert_eq!(cursor.belongs_to(other, FeedMode::All), Err(ForeignCursor::Scope));
        }
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut cursor = cursor(&[(0, 5)]);
        cursor.advance(ShardId(0), Lsn(3));
        cursor.advance(ShardId(1), Lsn(9));
        assert_eq!(cursor.positions().collect::<Vec<_>>(), [(ShardId(0), Lsn(5)), (ShardId(1), Lsn(9))]);
        assert_eq!(cursor.position(ShardId(2)), Lsn::ZERO);
        assert_eq!(cursor.mode(), FeedMode::All);
    }

    #[test]
    fn starts_are_read() {
        let text = cursor(&[(0, 5)]).to_string();
        for (from, start) in [
            ("beginning", FeedStart::Beginning),
            ("now", FeedStart::Now),
            (&text, FeedStart::Cursor(cursor(&[(0, 5)]))),
            ("1970-01-01T00:00:00Z", FeedStart::Time(Timestamp(0))),
            ("2000-02-29T00:00:00.000Z", FeedStart::Time(Timestamp(951_782_400_000))),
            ("2020-02-29t11:59:59.9999z", FeedStart::Time(Timestamp(1_582_977_599_999))),
            ("2020-02-29 13:29:59.5+01:30", FeedStart::Time(Timestamp(1_582_977_599_500))),
            ("2020-02-29T00:59:59-11:00", FeedStart::Time(Timestamp(1_582_977_599_000))),
            ("2016-12-31T23:59:60Z", FeedStart::Time(Timestamp(1_483_228_800_000))),
            ("1969-12-31T23:59:59Z", FeedStart::Time(Timestamp(0))),
            ("9999-12-31T23:59:59.999Z", FeedStart::Time(Timestamp(253_402_300_799_999))),
        ] {
            assert_eq!(from.parse(), Ok(start), "{from}");
        }
    }

    #[test]
    fn texts_that_are_no_start_are_refused_with_their_kind() {
        let text = cursor(&[(0, 5)]).to_string();
        let newer = URL_SAFE_NO_PAD.encode([2; 30]);
        for (from, error) in [
            ("", InvalidStart::Form),
            ("Beginning", InvalidStart::Form),
            ("yesterday", InvalidStart::Form),
            ("2021-02-29T00:00:00Z", InvalidStart::Time),
            ("2020-13-01T00:00:00Z", InvalidStart::Time),
            ("2020-01-01T24:00:00Z", InvalidStart::Time),
            ("2020-01-01T00:00:61Z", InvalidStart::Time),
            ("2020-01-01T00:00:00", InvalidStart::Time),
            ("2020-01-01T00:00:00.Z", InvalidStart::Time),
            ("2020-01-01T00:00:00+1:00", InvalidStart::Time),
            ("2020-01-01T00:00:00+24:00", InvalidStart::Time),
            ("2020-01-01T00:00Z", InvalidStart::Time),
            ("2020-1-1T00:00:00Z", InvalidStart::Time),
            ("2020-01-01", InvalidStart::Time),
            ("1580000000", InvalidStart::Time),
            (&text[..text.len() - 1], InvalidStart::Cursor(InvalidCursor::Malformed)),
            (&format!("{text}="), InvalidStart::Cursor(InvalidCursor::Malformed)),
            (&newer, InvalidStart::Cursor(InvalidCursor::Newer(2))),
        ] {
            assert_eq!(from.parse::<FeedStart>(), Err(error), "{from}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(
            positions in proptest::collection::vec((any::<u16>(), any::<u64>()), 0..8),
            all: bool,
            partition in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        ) {
            let mode = if all { FeedMode::All } else { FeedMode::Latest };
            let mut cursor = FeedCursor::new(FeedScope::of("c", partition.as_deref()), mode);
            for (shard, lsn) in positions {
                cursor.advance(ShardId(shard), Lsn(lsn));
            }
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(text.parse(), Ok(FeedStart::Cursor(cursor)));
        }

        #[test]
        fn a_changed_cursor_is_refused(at in 0usize..40, to in "[A-Za-z0-9_-]") {
            let text = cursor(&[(0, 5), (3, 99)]).to_string();
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assume!(changed != text);
            prop_assert!(changed.parse::<FeedCursor>().is_err());
        }

        #[test]
        fn a_time_survives_its_text(millis in 0u64..253_402_300_800_000) {
            let text = Timestamp(millis).to_string();
            prop_assert_eq!(text.parse(), Ok(FeedStart::Time(Timestamp(millis))));
        }

        #[test]
        fn arbitrary_text_is_read_without_panic(text in "[0-9TZ:.+\u{e9}A-]{0,40}") {
            let _ignored = text.parse::<FeedStart>();
        }
    }
}
