//! What a query may cost before it is refused: every bound of the language in one place.

/// Longest text of a query, in bytes.
pub const TEXT_BYTES: usize = 512 * 1024;
/// Deepest nesting of brackets, prefixes, calls and subqueries.
pub const NESTING: usize = 128;
/// What a subquery counts towards [`NESTING`]: it costs more stack than a bracket.
pub const SUBQUERY_NESTING: usize = 4;
/// Deepest recursion of operators and brackets together.
pub(super) const RECURSION: usize = 512;
/// Most JOINs in one text, those of its subqueries included.
pub const JOINS: usize = 10;
/// Most combinations of FROM and JOIN that are looked at for one document.
pub const COMBINATIONS: u64 = 1_000_000;
/// Most rows that a page holds back while it sorts or skips.
pub const CANDIDATES: usize = 10_000;
/// Most bytes of any continuation's state.
pub const STATE_BYTES: usize = 64 * 1024;
/// Most index ranges that `IN` lists are multiplied out to.
pub const RANGES: usize = 256;
/// Bytes of rows that a page may hold back while it sorts or skips, when the page itself is smaller.
pub const CANDIDATE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a row's text that tell it from others; of a longer one the rest is a hash.
pub(super) const TIE_BYTES: usize = 200;
