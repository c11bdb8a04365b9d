//! Quotas: how many calls and bytes a caller has bought for a day, a month or altogether.
//!
//! Stands between a call and what its caller has paid for. Invariants: a period never begins twice, even when the wall
//! clock goes back; what is refused is not counted; and what is written down is a sum of one run of the process, so
//! that writing it again changes nothing and the sums of several runs add up.
//!
//! Calls are counted before they are made, so never more pass than were bought. Bytes of an answer are known only
//! afterwards: a caller may exceed its bytes by what is under way when they run out.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::Pool;
use crate::model::ids::Name;
use crate::model::time::{Timestamp, civil};

const DAY_MILLIS: u64 = 86_400_000;
/// Days from the Monday before the Unix epoch to it.
const EPOCH_WEEKDAY: u64 = 3;
/// Lengths of a month in days, and one more than the longest.
const MONTH_ENDS: std::ops::RangeInclusive<u64> = 28..=31;

/// When what was spent is given anew. All in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday's midnight.
    Week,
    /// From midnight of the first.
    Month,
    /// Again and again from `start`, such as that of a subscription.
    Every { start: Timestamp, length: Duration },
    /// From the first call after the last period.
    FromFirstUse { length: Duration },
    /// Never.
    Lifetime,
}

/// From when, and until and without when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub start: Timestamp,
    /// The first moment of the next period, if one comes.
    pub end: Option<Timestamp>,
}

impl Period {
    /// The period that `now` is in. `begun` is the start of the last one in which something was spent; a period
    /// that is over, or `None`, makes a period from first use begin now.
    pub fn span(self, now: Timestamp, begun: Option<Timestamp>) -> Span {
        let from = |start: u64, length: u64| Span {
            start: Timestamp(start),
            end: start.checked_add(length.max(1)).map(Timestamp),
        };
        let day = now.0 / DAY_MILLIS;
        match self {
            Self::Day => from(day * DAY_MILLIS, DAY_MILLIS),
            Self::Week => {
                let since_monday = (day + EPOCH_WEEKDAY) % 7;
                let monday = day.saturating_sub(since_monday);
                // The epoch is a Thursday: the first week is a part of one.
                let days = if day < since_monday { 7 - EPOCH_WEEKDAY } else { 7 };
                from(monday * DAY_MILLIS, days * DAY_MILLIS)
            }
            Self::Month => {
                let first = day.saturating_sub(civil(day).2.saturating_sub(1));
                let days = MONTH_ENDS.into_iter().find(|days| civil(first + days).2 == 1).unwrap_or(31);
                from(first * DAY_MILLIS, days * DAY_MILLIS)
            }
            Self::Every { start, length } => {
                let length = millis(length).max(1);
                let passed = now.0.saturating_sub(start.0) / length;
                from(start.0.saturating_add(passed.saturating_mul(length)), length)
            }
            Self::FromFirstUse { length } => {
                let runs = |start: &Timestamp| now.since(*start) < length;
                from(begun.filter(runs).unwrap_or(now).0, millis(length))
            }
            Self::Lifetime => Span { start: Timestamp(0), end: None },
        }
    }
}

/// What was bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Calls in one period.
    pub calls: Option<u64>,
    /// Bytes of bodies in one period, both ways.
    pub bytes: Option<u64>,
    /// When it is given anew.
    pub period: Period,
}

/// What was used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Calls.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Spent {
    /// One call, with the bytes that are known of it.
    pub fn call(bytes: u64) -> Self {
        Self { calls: 1, bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self { calls: self.calls.saturating_add(other.calls), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        Self { calls: self.calls.saturating_sub(other.calls), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What one run of the process, or several, used in one period. This is what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// When the period began.
    pub start: Timestamp,
    /// What was used since.
    pub spent: Spent,
}

impl Tally {
    /// The sum of what several runs stored for one key, as far as it belongs to the period of `now`. In a period
    /// from first use a run that began while another's period ran belongs to that one. `None` when nothing does.
    pub fn sum(period: Period, rows: impl IntoIterator<Item = Self>, now: Timestamp) -> Option<Self> {
        let mut rows: Vec<Self> = rows.into_iter().collect();
        rows.sort_by_key(|row| row.start);
        let mut sum: Option<Self> = None;
        for row in rows {
            let start = period.span(row.start, sum.map(|sum| sum.start)).start;
            let spent =
                sum.filter(|sum| sum.start == start).map_or(row.spent, |sum| sum.spent.plus(row.spent));
            sum = Some(Self { start, spent });
        }
        // A clock that went back does not begin a period again.
        sum.filter(|sum| period.span(now.max(sum.start), Some(sum.start)).start == sum.start)
    }
}

/// What is left after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Calls, if they are limited.
    pub calls: Option<u64>,
    /// Bytes, if they are limited.
    pub bytes: Option<u64>,
    /// When all of them are there again.
    pub replenished: Option<Timestamp>,
}

/// What there is no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Calls.
    Calls,
    /// Bytes.
    Bytes,
}

/// A call for which nothing is left. It was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// What is used up.
    pub resource: Resource,
    /// When there is some again; `None` when never.
    pub replenished: Option<Timestamp>,
    /// Time until then.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Exhausted {
    /// The text that Azure API Management answers with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = match self.resource {
            Resource::Calls => "call volume",
            Resource::Bytes => "bandwidth",
        };
        write!(f, "Out of {resource} quota.")?;
        match self.retry_after {
            Some(time) => write!(f, " Quota will be replenished in {}.", time_span(time)),
            None => Ok(()),
        }
    }
}

/// A time as .NET's `TimeSpan` shows it, `[d.]hh:mm:ss`, rounded up to seconds.
pub fn time_span(time: Duration) -> String {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days > 0 { format!("{days}.{clock}") } else { clock }
}

/// What was counted, so that it can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    start: Timestamp,
    spent: Spent,
}

/// What one key has used of its quota.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Start of the period, once something was used.
    start: Option<Timestamp>,
    /// What other runs of the process used in it.
    others: Spent,
    /// What this one used in it.
    own: Spent,
    /// What is on disk for this one.
    stored: Spent,
}

impl Account {
    /// Takes over what was stored by other runs.
    pub fn load(&mut self, others: Tally) {
        if self.start.is_none_or(|start| start < others.start) {
            *self = Self { start: Some(others.start), ..Self::default() };
        }
        if self.start == Some(others.start) {
            self.others = others.spent;
        }
    }

    /// Counts `cost`, if it is left.
    ///
    /// # Errors
    /// [`Exhausted`], and nothing is counted.
    pub fn take(&mut self, quota: &Quota, cost: Spent, now: Timestamp) -> Result<(Left, Receipt), Exhausted> {
        let now = self.start.map_or(now, |start| now.max(start));
        let span = quota.period.span(now, self.start);
        let spent =
            if self.start == Some(span.start) { self.others.plus(self.own) } else { Spent::default() };
        let after = spent.plus(cost);
        let out = |limit: Option<u64>, before: u64, after: u64| {
            limit.is_some_and(|limit| before >= limit || after > limit)
        };
        let exhausted = |resource| {
            let retry_after = span.end.map(|end| end.since(now));
            Exhausted { resource, replenished: span.end, retry_after }
        };
        if out(quota.calls, spent.calls, after.calls) {
            return Err(exhausted(Resource::Calls));
        }
        if out(quota.bytes, spent.bytes, after.bytes) {
            return Err(exhausted(Resource::Bytes));
        }
        let receipt = self.note(quota.period, cost, now);
        let left = Left {
            calls: quota.calls.map(|limit| limit.saturating_sub(after.calls)),
            bytes: quota.bytes.map(|limit| limit.saturating_sub(after.bytes)),
            replenished: span.end,
        };
        Ok((left, receipt))
    }

    /// Counts what was used already, whether it was left or not.
    pub fn note(&mut self, period: Period, cost: Spent, now: Timestamp) -> Receipt {
        let now = self.start.map_or(now, |start| now.max(start));
        let start = period.span(now, self.start).start;
        if self.start != Some(start) {
            *self = Self { start: Some(start), ..Self::default() };
        }
        self.own = self.own.plus(cost);
        Receipt { start, spent: cost }
    }

    /// Uncounts what was counted. Does nothing when another period has begun since.
    pub fn give_back(&mut self, receipt: Receipt) {
        if self.start == Some(receipt.start) {
            self.own = self.own.minus(receipt.spent);
        }
    }

    /// What has to be written down, as the row of this run: what it used and `ahead` more. With nothing ahead, a
    /// crash forgets what was counted since the last row; with something ahead, it forgets nothing as long as half
    /// of that is not used up between two rows, and counts at most `ahead` too much.
    pub fn row(&self, ahead: Spent) -> Option<Tally> {
        let start = self.start?;
        let soon = self.own.plus(Spent { calls: ahead.calls / 2, bytes: ahead.bytes / 2 });
        let covered = soon.calls <= self.stored.calls && soon.bytes <= self.stored.bytes;
        let due = if ahead == Spent::default() { self.own != self.stored } else { !covered };
        due.then(|| Tally { start, spent: self.own.plus(ahead) })
    }

    /// Notes that a row is on disk.
    pub fn written(&mut self, row: Tally) {
        if self.start == Some(row.start) {
            self.stored = row.spent;
        }
    }

    /// Whether the period is over, or none began.
    fn is_over(&self, period: Period, now: Timestamp) -> bool {
        self.start.is_none_or(|start| period.span(now.max(start), Some(start)).start != start)
    }
}

/// The accounts of one quota, by key. Threads share them.
#[derive(Debug)]
pub struct Accounts {
    own: Mutex<Pool<Account>>,
    /// That of the keys for which there is no place.
    shared: Mutex<Account>,
}

impl Accounts {
    /// At most `max_keys` accounts. When all are taken a new key gets the place of one whose period is over; while
    /// none is found, keys without an account share one, which is not stored.
    pub fn new(max_keys: usize) -> Self {
        Self { own: Mutex::new(Pool::new(max_keys)), shared: Mutex::default() }
    }

    /// Takes over what was stored of a key by other runs.
    pub fn load(&self, key: &Name, others: Tally) {
        if let Some(account) = lock(&self.own).entry(key, Account::default(), |_| false) {
            account.load(others);
        }
    }

    /// Counts `cost`, if it is left.
    ///
    /// # Errors
    /// [`Exhausted`], and nothing is counted.
    pub fn take(
        &self,
        key: &Name,
        quota: &Quota,
        cost: Spent,
        now: Timestamp,
    ) -> Result<(Left, Receipt), Exhausted> {
        self.with(key, quota.period, now, |account| account.take(quota, cost, now))
    }

    /// Counts what was used already, such as the bytes of an answer.
    pub fn note(&self, key: &Name, period: Period, cost: Spent, now: Timestamp) -> Receipt {
        self.with(key, period, now, |account| account.note(period, cost, now))
    }

    /// Uncounts a call, because something else refused it.
    pub fn give_back(&self, key: &str, receipt: Receipt) {
        match lock(&self.own).get_mut(key) {
            Some(account) => account.give_back(receipt),
            None => lock(&self.shared).give_back(receipt),
        }
    }

    /// The rows to be written, by key; see [`Account::row`].
    pub fn rows(&self, ahead: Spent) -> Vec<(Name, Tally)> {
        let mut own = lock(&self.own);
        own.iter_mut().filter_map(|(key, account)| Some((key.clone(), account.row(ahead)?))).collect()
    }

    /// Notes that these rows are on disk.
    pub fn written(&self, rows: &[(Name, Tally)]) {
        let mut own = lock(&self.own);
        for (key, row) in rows {
            if let Some(account) = own.get_mut(key) {
                account.written(*row);
            }
        }
    }

    /// Drops the accounts whose period is over; for housekeeping.
    pub fn sweep(&self, period: Period, now: Timestamp) {
        lock(&self.own).sweep(|account| account.is_over(period, now));
    }

    /// Number of keys with an account of their own.
    pub fn len(&self) -> usize {
        lock(&self.own).len()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<T>(&self, key: &Name, period: Period, now: Timestamp, act: impl Fn(&mut Account) -> T) -> T {
        let mut own = lock(&self.own);
        match own.entry(key, Account::default(), |account| account.is_over(period, now)) {
            Some(account) => act(account),
            None => act(&mut lock(&self.shared)),
        }
    }
}

/// One quota that a call is asked of: its accounts, what was bought, and whose account.
pub type Asked<'a> = (&'a Accounts, &'a Quota, &'a Name);

/// Counts `cost` by all these quotas, or by none. What is returned can be given back one by one.
///
/// # Errors
/// The refusal that lasts longest, and the number of its quota from 0; nothing is counted.
pub fn take_all(
    asked: &[Asked<'_>],
    cost: Spent,
    now: Timestamp,
) -> Result<Vec<(Left, Receipt)>, (usize, Exhausted)> {
    let answers: Vec<_> =
        asked.iter().map(|(accounts, quota, key)| accounts.take(key, quota, cost, now)).collect();
    let refused =
        answers.iter().enumerate().filter_map(|(place, answer)| Some((place, answer.as_ref().err()?)));
    // For ever is longer than any time.
    let longest = refused.max_by_key(|(_, refused)| (refused.retry_after.is_none(), refused.retry_after));
    let Some((place, longest)) = longest else {
        return Ok(answers.into_iter().flatten().collect());
    };
    for ((accounts, _, key), answer) in asked.iter().zip(&answers) {
        if let Ok((_, receipt)) = answer {
            accounts.give_back(key, *receipt);
        }
    }
    Err((place, *longest))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
