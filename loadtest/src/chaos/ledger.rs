//! Stands between what was published and what became of it: the oracle of every row.
//! Invariant: pure; it judges by the book, the subscribers' own logs and the server's dead letters, never by the
//! server's figures alone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::book::{Entry, Fate};
use super::manifest::{Retry, Wants};
use super::status::Letter;
use crate::clock::Moment;
use crate::endpoint::Hit;

/// Delays after the first, second, … failed attempt, in seconds; then the last one again and again.
const STEPS: [f64; 10] = [10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 21_600.0, 43_200.0];
/// How much earlier than its step an attempt may come, in unscaled seconds.
const TOLERANCE: f64 = 1.0;
/// The server's clock counts whole milliseconds.
const GRAIN: f64 = 0.002;
/// Faults of one kind that are told one by one.
const TOLD: usize = 3;

/// What is owed to a subscription, and what it got.
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) wants: &'a Wants,
    pub(crate) retry: &'a Retry,
    /// Every request that its endpoint took in.
    pub(crate) hits: &'a [Hit],
    pub(crate) letters: &'a [Letter],
    /// Events that the server says are still to be delivered.
    pub(crate) pending: u64,
    /// How often the server was killed.
    pub(crate) crashes: u32,
    /// Whether the gaps between attempts follow the schedule: not after a `resume` by hand.
    pub(crate) scheduled: bool,
}

/// What was found of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    pub(crate) faults: Vec<String>,
    /// Events that it took.
    pub(crate) taken: usize,
    /// Requests with an event that it had taken before.
    pub(crate) duplicates: usize,
    /// Longest time from sending to taking.
    pub(crate) delays: Vec<Duration>,
}

/// The delay that the schedule gives after so many failed attempts, in unscaled seconds.
pub(crate) fn step(attempts: u32) -> f64 {
    let failed = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    STEPS.get(failed).or(STEPS.last()).copied().unwrap_or_default()
}

/// Balances an account against the book.
pub(crate) fn balance(book: &[Entry], account: &Account<'_>) -> Balance {
    let mut found = Balance::default();
    let entry = |number: u64| usize::try_from(number).ok().and_then(|at| book.get(at));
    let mut of: HashMap<u64, Vec<&Hit>> = HashMap::new();
    let mut strange = 0;
    for hit in account.hits {
        match hit.number.and_then(|number| Some((number, entry(number)?))) {
            Some((number, entry)) if account.wants.matches(entry.lane) => {
                of.entry(number).or_default().push(hit);
                if entry.fate == Fate::Refused {
                    found.faults.push(format!("{}: got the refused document {number}", account.name));
                }
            }
            Some(_) | None => strange += 1,
        }
    }
    if strange > 0 {
        found.faults.push(format!("{}: {strange} requests that nobody owed it", account.name));
    }
    let letters: HashSet<u64> = account.letters.iter().filter_map(|letter| letter.number).collect();
    losses(book, account, &of, &letters, &mut found);
    attempts(account, &of, &mut found);
    for hits in of.values() {
        let mut taken = hits.iter().filter(|hit| hit.is_taken());
        if let Some(first) = taken.next() {
            found.taken += 1;
            found.delays.push(first.at.since(first.sent));
        }
        found.duplicates += taken.count();
    }
    found
}

/// match(P) = taken ∪ dead-lettered ∪ pending, and the first two have nothing in common.
fn losses(
    book: &[Entry],
    account: &Account<'_>,
    of: &HashMap<u64, Vec<&Hit>>,
    letters: &HashSet<u64>,
    found: &mut Balance,
) {
    let is_taken = |number: u64| of.get(&number).is_some_and(|hits| hits.iter().any(|hit| hit.is_taken()));
    let mut missing = Vec::new();
    for (number, entry) in (0_u64..).zip(book) {
        let owed = entry.fate == Fate::Acknowledged && account.wants.matches(entry.lane);
        if owed && !is_taken(number) && !letters.contains(&number) {
            missing.push(number);
        }
    }
    if missing.len() as u64 > account.pending {
        let first: Vec<String> = missing.iter().take(TOLD).map(ToString::to_string).collect();
        found.faults.push(format!(
            "{}: {} events are neither taken nor dead-lettered, {} pending (first: {})",
            account.name,
            missing.len(),
            account.pending,
            first.join(", "),
        ));
    }
    for letter in account.letters.iter().filter(|_| account.crashes == 0) {
        let Some(hits) = letter.number.and_then(|number| of.get(&number)) else { continue };
        let last = hits.iter().map(|hit| u64::from(hit.attempt)).max().unwrap_or_default();
        if last != letter.attempts {
            let text =
                format!("{}: a dead letter of {} attempts, {last} seen", account.name, letter.attempts);
            found.faults.push(text);
        }
    }
    let both = letters.iter().filter(|number| is_taken(**number)).count();
    // After a crash an event that was taken is sent again, and may then fail for good.
    if both > 0 && account.crashes == 0 {
        found.faults.push(format!("{}: {both} events both taken and dead-lettered", account.name));
    }
}

/// Attempts are numbered in order, never more than the policy and the crashes allow, never before their step.
fn attempts(account: &Account<'_>, of: &HashMap<u64, Vec<&Hit>>, found: &mut Balance) {
    let most = account.retry.attempts as usize + account.crashes as usize;
    let (mut over, mut early, mut disorder) = (0, Vec::new(), 0);
    for hits in of.values() {
        let resent = hits.iter().zip(hits.iter().skip(1)).filter(|(before, after)| is_resent(before, after));
        over += usize::from(hits.len() - resent.count() > most);
        for (before, after) in hits.iter().zip(hits.iter().skip(1)) {
            let follows = after.attempt == before.attempt + 1;
            // A crash forgets at most the outcome of the attempt that was under way; and a kept connection that ends
            // without a word allows the same attempt on another one.
            let resent = is_resent(before, after);
            let repeats = after.attempt == before.attempt && (account.crashes > 0 || resent);
            disorder += usize::from(!follows && !repeats);
            let wanted = (step(before.attempt) - TOLERANCE).max(0.0) * account.retry.scale - GRAIN;
            let gap = after.at.since(before.at).as_secs_f64();
            if follows && account.scheduled && gap < wanted {
                early.push((before.attempt, gap, wanted));
            }
        }
    }
    if over > 0 {
        found.faults.push(format!("{}: {over} events with more than {most} attempts", account.name));
    }
    if disorder > 0 {
        found.faults.push(format!("{}: {disorder} attempts out of their order", account.name));
    }
    if let Some((attempt, gap, wanted)) = early.first() {
        found.faults.push(format!(
            "{}: {} attempts before their step, the first after attempt {attempt}: {gap:.3} s instead of {wanted:.3} s",
            account.name,
            early.len(),
        ));
    }
}

/// Whether an attempt was made once more because its connection ended without a word.
fn is_resent(before: &Hit, after: &Hit) -> bool {
    before.attempt == after.attempt && before.status == 0 && before.connection != after.connection
}

/// The value below which this share of the values lies; zero of none.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1).min(last)).copied().unwrap_or_default()
}

/// Times between the attempts of each event, with the number of the earlier one.
pub(crate) fn gaps(hits: &[Hit]) -> Vec<(u32, Duration)> {
    let mut last: HashMap<(u32, u64), (u32, Moment)> = HashMap::new();
    let mut gaps = Vec::new();
    for hit in hits {
        let Some(number) = hit.number else { continue };
        if let Some((attempt, at)) = last.insert((hit.subscriber, number), (hit.attempt, hit.at)) {
            gaps.push((attempt, hit.at.since(at)));
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: u32 = 0;

    fn book(fates: &[Fate]) -> Vec<Entry> {
        fates.iter().map(|fate| Entry { lane: LANE, fate: *fate }).collect()
    }

    fn hit(number: u64, attempt: u32, status: u16, at_millis: u64) -> Hit {
        let at = Moment::from_number(0).plus(Duration::from_millis(at_millis));
        let sent = Moment::from_number(0);
        Hit { subscriber: 1, attempt, event: number, number: Some(number), sent, at, status, connection: 1 }
    }

    fn letter(number: u64) -> Letter {
        let text = String::new;
        Letter { number: Some(number), reason: text(), attempts: 1, last_outcome: text(), detail: text() }
    }

    fn judge(fates: &[Fate], hits: &[Hit], letters: &[Letter], pending: u64, crashes: u32) -> Vec<String> {
        let retry = Retry::quick(3);
        let wants = Wants::All;
        let (name, scheduled) = ("s", true);
        let account =
            Account { name, wants: &wants, retry: &retry, hits, letters, pending, crashes, scheduled };
        balance(&book(fates), &account).faults
    }

    use Fate::{Acknowledged as A, Refused as R, Unknown as U};

    #[test]
    fn what_is_taken_dead_lettered_or_pending_balances() {
        let hits = [hit(0, 1, 204, 0), hit(1, 1, 500, 0), hit(3, 1, 204, 0)];
        let none: Vec<String> = Vec::new();
        assert_eq!(judge(&[A, A, A, U], &hits, &[letter(1)], 1, 0), none);
    }

    #[test]
    fn each_way_to_cheat_is_found() {
        let faults = |fates: &[Fate], hits: &[Hit], letters: &[Letter], crashes| {
            judge(fates, hits, letters, 0, crashes).join("; ")
        };
        assert!(faults(&[A], &[], &[], 0).contains("neither taken nor dead-lettered"));
        assert!(faults(&[A], &[hit(0, 1, 500, 0)], &[], 0).contains("neither taken nor dead-lettered"));
        assert!(faults(&[A], &[hit(0, 1, 204, 0)], &[letter(0)], 0).contains("both"));
        assert!(faults(&[R], &[hit(0, 1, 204, 0)], &[], 0).contains("refused document"));
        assert!(faults(&[A], &[hit(0, 1, 204, 0), hit(9, 1, 204, 0)], &[], 0).contains("nobody owed"));
        let early = [hit(0, 1, 500, 0), hit(0, 2, 204, 80)];
        assert!(faults(&[A], &early, &[], 0).contains("before their step"));
        let twice = [hit(0, 1, 500, 0), hit(0, 1, 204, 200)];
        assert!(faults(&[A], &twice, &[], 0).contains("out of their order"));
        assert_eq!(faults(&[A], &twice, &[], 1), "");
        let many: Vec<Hit> = (1..=4).map(|attempt| hit(0, attempt, 500, u64::from(attempt) * 5000)).collect();
        assert!(faults(&[A], &many, &[letter(0)], 0).contains("more than 3 attempts"));
    }

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let mut values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&mut values, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 0.99), Duration::ZERO);
    }
}
