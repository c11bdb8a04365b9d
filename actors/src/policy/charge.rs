//! What an operation costs, in request units (RU).
//!
//! Stands between an operation that was done and the budgets that pay for it. Invariant: a charge is a
//! function of the operation and its data, computed in whole hundredths: the same operation on the same
//! data costs the same, always, and a batch costs what its operations cost.
//!
//! The model, in the proportions of Cosmos DB:
//!
//! - **Read**: 1 RU up to 1 KiB, 10 RU for 100 KiB, on the line through both; rounded up to 0.01 RU.
//! - **Create**: 5.50 times the read of the document's size class, 0.05 for each property at its top, 0.30
//!   for each index entry that it makes. Size classes double: 1, 2, 4 KiB and so on, so that a document
//!   which grows by a word rarely changes its charge. 1 KiB with ten properties and two indexes: 6.60.
//! - **Replace, upsert of what exists, delete**: one and a half times the create of that document, because
//!   old index entries go too. **Patch**: as a replace with the result, and 0.10 for each operation.
//! - **Query**, each page: 2.30, 0.03 for each row loaded, 0.05 for each KiB loaded, 0.01 for each index
//!   entry read, 0.05 for each row returned.
//! - **Change feed**, each page: as a read of as many bytes, and 0.05 for each item; so 1 RU without news.
//! - What finds nothing, or is refused by a condition: 1 RU.
//!
//! Sizes are those of the user's JSON, without system properties.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

const KIB: u64 = 1_024;
const READ: u64 = 100;
/// The line of reads: 9 RU for the 99 KiB from 1 to 100.
const READ_RISE: u64 = 900;
const READ_RUN: u64 = 99 * KIB;
/// A create, as a multiple of the read of its size class, in hundredths.
const CREATE: u64 = 550;
const PROPERTY: u64 = 5;
const INDEX_ENTRY: u64 = 30;
/// A replace, as a multiple of the create, in hundredths.
const REPLACE: u64 = 150;
const PATCH_OPERATION: u64 = 10;
const QUERY: u64 = 230;
const ROW_LOADED: u64 = 3;
const KIB_LOADED: u64 = 5;
const ENTRY_READ: u64 = 1;
const ROW_RETURNED: u64 = 5;
const FEED_ITEM: u64 = 5;

/// An amount of request units, exact to a hundredth. Sums stop at the largest amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestUnits(u64);

impl RequestUnits {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole units.
    pub const fn whole(units: u64) -> Self {
        Self(units.saturating_mul(100))
    }

    /// So many hundredths of a unit.
    pub const fn from_hundredths(hundredths: u64) -> Self {
        Self(hundredths)
    }

    /// The amount in hundredths.
    pub const fn hundredths(self) -> u64 {
        self.0
    }

    /// The amount as a number, for metrics.
    #[expect(clippy::cast_precision_loss, reason = "a metric, and exact up to 90 million million units")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 100.0
    }

    /// `percent` of this amount, rounded up.
    const fn percent(self, percent: u64) -> Self {
        Self(self.0.saturating_mul(percent).div_ceil(100))
    }
}

impl fmt::Display for RequestUnits {
    /// With two digits behind the point, as in `5.71`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Add for RequestUnits {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for RequestUnits {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for RequestUnits {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// What a write is charged for: the document that it makes, or that it takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Size of the document, in bytes.
    pub bytes: usize,
    /// Properties at its top.
    pub properties: usize,
    /// Entries that it has in indexes, those of unique keys included.
    pub index_entries: usize,
}

/// What a page of a query is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queried {
    /// Documents that were read, matching or not.
    pub rows_loaded: usize,
    /// Their size, in bytes.
    pub bytes_loaded: usize,
    /// Entries of indexes that were read.
    pub index_entries: usize,
    /// Rows in the answer.
    pub rows_returned: usize,
}

/// A point read of `bytes`.
pub fn read(bytes: usize) -> RequestUnits {
    let beyond = count(bytes).saturating_sub(KIB);
    RequestUnits(READ.saturating_add(READ_RISE.saturating_mul(beyond).div_ceil(READ_RUN)))
}

/// A create, or an upsert of what does not exist.
pub fn create(document: &Written) -> RequestUnits {
    // A document is far smaller than where the next power of two would not fit.
    let class = count(document.bytes).div_ceil(KIB).max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
    let class = usize::try_from(class.saturating_mul(KIB)).unwrap_or(usize::MAX);
    read(class).percent(CREATE)
        + each(document.properties, PROPERTY)
        + each(document.index_entries, INDEX_ENTRY)
}

/// A replace with `document`.
pub fn replace(document: &Written) -> RequestUnits {
    create(document).percent(REPLACE)
}

/// An upsert of `document`, of one that existed or not.
pub fn upsert(document: &Written, existed: bool) -> RequestUnits {
    if existed { replace(document) } else { create(document) }
}

/// A delete of `document`.
pub fn delete(document: &Written) -> RequestUnits {
    replace(document)
}

/// A patch of so many operations whose result is `document`.
pub fn patch(document: &Written, operations: usize) -> RequestUnits {
    replace(document) + each(operations, PATCH_OPERATION)
}

/// One page of a query.
pub fn query(work: &Queried) -> RequestUnits {
    let kib = count(work.bytes_loaded).div_ceil(KIB);
    RequestUnits(QUERY)
        + each(work.rows_loaded, ROW_LOADED)
        + RequestUnits(kib.saturating_mul(KIB_LOADED))
        + each(work.index_entries, ENTRY_READ)
        + each(work.rows_returned, ROW_RETURNED)
}

/// One page of a change feed.
pub fn change_feed(items: usize, bytes: usize) -> RequestUnits {
    read(bytes) + each(items, FEED_ITEM)
}

/// A read that found nothing, or that found what the caller already has (304).
pub fn not_found() -> RequestUnits {
    RequestUnits(READ)
}

/// A write that a condition, a conflict or a rule refused: what it took to find out.
pub fn refused() -> RequestUnits {
    RequestUnits(READ)
}

fn each(number: usize, hundredths: u64) -> RequestUnits {
    RequestUnits(count(number).saturating_mul(hundredths))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1_024;

    fn document(bytes: usize, properties: usize, index_entries: usize) -> Written {
        Written { bytes, properties, index_entries }
    }

    #[test]
    fn reads_go_from_one_unit_to_ten_at_100_kib() {
        for (bytes, charge) in [
            (0, "1.00"),
            (1, "1.00"),
            (KIB, "1.00"),
            (KIB + 1, "1.01"),
            (2 * KIB, "1.10"),
            (100 * KIB, "10.00"),
            (2 * KIB * KIB, "187.10"),
        ] {
            assert_eq!(read(bytes).to_string(), charge, "{bytes}");
        }
    }

    #[test]
    fn writes_cost_what_the_page_says() {
        for (charge, expected) in [
            (create(&document(0, 0, 0)), "5.50"),
            (create(&document(KIB, 10, 2)), "6.60"),
            (create(&document(KIB + 1, 10, 2)), "7.15"),
            (create(&document(2 * KIB, 10, 2)), "7.15"),
            (create(&document(100 * KIB, 0, 0)), "69.03"),
            (create(&document(2 * KIB * KIB, 0, 0)), "1029.05"),
            (replace(&document(KIB, 10, 2)), "9.90"),
            (upsert(&document(KIB, 10, 2), true), "9.90"),
            (upsert(&document(KIB, 10, 2), false), "6.60"),
            (delete(&document(KIB, 10, 2)), "9.90"),
            (patch(&document(KIB, 10, 2), 3), "10.20"),
            (not_found(), "1.00"),
            (refused(), "1.00"),
            (change_feed(0, 0), "1.00"),
            (change_feed(10, 100 * KIB), "10.50"),
        ] {
            assert_eq!(charge.to_string(), expected);
        }
    }

    #[test]
    fn a_query_pays_for_what_it_reads_and_returns() {
        let one = Queried { rows_loaded: 1, bytes_loaded: 300, index_entries: 1, rows_returned: 1 };
        assert_eq!(query(&Queried::default()).to_string(), "2.30");
        assert_eq!(query(&one).to_string(), "2.44");
        let scan = Queried { rows_loaded: 1_000, bytes_loaded: 1_000 * KIB, ..Queried::default() };
        assert_eq!(query(&scan).to_string(), "82.30");
        let most = Queried {
            rows_loaded: usize::MAX,
            bytes_loaded: usize::MAX,
            index_entries: usize::MAX,
            rows_returned: usize::MAX,
        };
        assert_eq!(query(&most).hundredths(), u64::MAX);
    }

    #[test]
    fn amounts_are_exact_and_add_up() {
        let amounts = [5, 71, 100, 0].map(RequestUnits::from_hundredths);
        assert_eq!(amounts.map(|amount| amount.to_string()), ["0.05", "0.71", "1.00", "0.00"]);
        let mut sum: RequestUnits = amounts.into_iter().sum();
        sum += RequestUnits::whole(2);
        assert_eq!((sum.hundredths(), sum.as_f64()), (376, 3.76));
        assert_eq!(sum + RequestUnits::from_hundredths(u64::MAX), RequestUnits::from_hundredths(u64::MAX));
    }

    proptest! {
        #[test]
        fn more_never_costs_less(
            small in (0usize..3_000_000, 0usize..100, 0usize..50),
            more in (0usize..3_000_000, 0usize..100, 0usize..50),
        ) {
            let less = document(small.0, small.1, small.2);
            let larger = document(small.0 + more.0, small.1 + more.1, small.2 + more.2);
            prop_assert!(create(&less) <= create(&larger));
            prop_assert!(read(less.bytes) <= read(larger.bytes));
            prop_assert!(create(&less) < replace(&less));
            prop_assert!(read(less.bytes) < create(&less));
        }
    }
}
