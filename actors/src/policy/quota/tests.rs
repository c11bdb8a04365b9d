//! Quotas: periods to the millisecond, rows that add up, refusals that tell when.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600_000;
const FOREVER: Period = Period::Lifetime;

fn rolling(hours: u64) -> Period {
    Period::FromFirstUse { length: Duration::from_millis(hours * HOUR) }
}

fn calls(calls: u64, period: Period) -> Quota {
    Quota { calls: Some(calls), bytes: None, period }
}

fn taken(account: &mut Account, quota: &Quota, times: usize, now: u64) -> usize {
    (0..times).filter(|_| account.take(quota, Spent::call(0), Timestamp(now)).is_ok()).count()
}

#[test]
fn calendar_periods_begin_and_end_at_midnight_utc() {
    for (period, now, start, end) in [
        (Period::Day, "2024-02-29T23:59:59.999Z", "2024-02-29T00:00:00.000Z", "2024-03-01T00:00:00.000Z"),
        (Period::Day, "2024-03-01T00:00:00.000Z", "2024-03-01T00:00:00.000Z", "2024-03-02T00:00:00.000Z"),
        (Period::Week, "2024-03-03T23:59:59.999Z", "2024-02-26T00:00:00.000Z", "2024-03-04T00:00:00.000Z"),
        (Period::Week, "2024-03-04T00:00:00.000Z", "2024-03-04T00:00:00.000Z", "2024-03-11T00:00:00.000Z"),
        (Period::Week, "1970-01-04T12:00:00.000Z", "1970-01-01T00:00:00.000Z", "1970-01-05T00:00:00.000Z"),
        (Period::Month, "2024-02-29T12:00:00.000Z", "2024-02-01T00:00:00.000Z", "2024-03-01T00:00:00.000Z"),
        (Period::Month, "2025-02-28T12:00:00.000Z", "2025-02-01T00:00:00.000Z", "2025-03-01T00:00:00.000Z"),
        (Period::Month, "2025-12-31T23:59:59.999Z", "2025-12-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z"),
        (Period::Month, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z", "1970-02-01T00:00:00.000Z"),
    ] {
        // Found by counting on from a time that lies before.
        let day = |at: &u64| Timestamp(*at).to_string()[..10] == now[..10];
        let at = (0..60 * 366).map(|day| day * DAY_MILLIS).find(day);
        let clock: Vec<u64> = now[11..23].split([':', '.']).map(|part| part.parse().unwrap()).collect();
        let now = Timestamp(at.unwrap() + clock[0] * HOUR + clock[1] * 60_000 + clock[2] * 1_000 + clock[3]);
        let span = period.span(now, None);
        assert_eq!((span.start.to_string(), span.end.unwrap().to_string()), (start.into(), end.into()));
    }
}

#[test]
fn other_periods_begin_where_they_are_told() {
    let every = Period::Every { start: Timestamp(500), length: Duration::from_millis(100) };
    for (now, start) in [(500, 500), (599, 500), (600, 600), (1_234, 1_200), (3, 500)] {
        assert_eq!(every.span(Timestamp(now), None).start, Timestamp(start));
    }
    let rolling = Period::FromFirstUse { length: Duration::from_millis(100) };
    for (now, begun, start) in [(7, None, 7), (106, Some(7), 7), (107, Some(7), 107)] {
        assert_eq!(rolling.span(Timestamp(now), begun.map(Timestamp)).start, Timestamp(start));
    }
    assert_eq!(FOREVER.span(Timestamp(u64::MAX), None), Span { start: Timestamp(0), end: None });
}

#[test]
fn no_more_pass_than_were_bought_and_a_refusal_tells_when() {
    let (mut account, quota) = (Account::default(), calls(3, Period::Day));
    let (left, _) = account.take(&quota, Spent::call(9), Timestamp(HOUR)).unwrap();
    let replenished = Some(Timestamp(24 * HOUR));
    assert_eq!(left, Left { calls: Some(2), bytes: None, replenished });
    assert_eq!(taken(&mut account, &quota, 9, 2 * HOUR), 2);
    let out = account.take(&quota, Spent::call(0), Timestamp(20 * HOUR)).unwrap_err();
    let retry_after = Some(Duration::from_millis(4 * HOUR));
    assert_eq!(out, Exhausted { resource: Resource::Calls, replenished, retry_after });
    assert_eq!(taken(&mut account, &quota, 9, 24 * HOUR - 1), 0);
    assert_eq!(taken(&mut account, &quota, 9, 24 * HOUR), 3);
    assert_eq!(taken(&mut account, &calls(5, Period::Day), 9, 24 * HOUR), 2, "a changed quota holds at once");
}

#[test]
fn a_rolling_period_begins_with_the_first_use_after_the_last() {
    let (mut account, quota) = (Account::default(), calls(2, rolling(5)));
    assert_eq!(taken(&mut account, &quota, 9, 3 * HOUR), 2);
    assert_eq!(taken(&mut account, &quota, 9, 8 * HOUR - 1), 0);
    assert_eq!(taken(&mut account, &quota, 1, 10 * HOUR), 1);
    assert_eq!(taken(&mut account, &quota, 9, 15 * HOUR - 1), 1, "not from 8");
    assert_eq!(taken(&mut account, &quota, 9, 15 * HOUR), 2);
}

#[test]
fn bytes_are_refused_when_used_up_and_counted_when_known() {
    let quota = Quota { calls: None, bytes: Some(1_000), period: FOREVER };
    let mut account = Account::default();
    let (left, _) = account.take(&quota, Spent::call(600), Timestamp(1)).unwrap();
    assert_eq!((left.bytes, left.calls, left.replenished), (Some(400), None, None));
    let out = account.take(&quota, Spent::call(401), Timestamp(2)).unwrap_err();
    assert_eq!((out.resource, out.retry_after), (Resource::Bytes, None));
    assert!(account.take(&quota, Spent::call(0), Timestamp(2)).is_ok());
    account.note(quota.period, Spent { calls: 0, bytes: 5_000 }, Timestamp(3));
    assert!(account.take(&quota, Spent::call(0), Timestamp(4)).is_err());
}

#[test]
fn a_clock_that_goes_back_begins_no_period_again() {
    let (mut account, quota) = (Account::default(), calls(2, Period::Day));
    assert_eq!(taken(&mut account, &quota, 9, 24 * HOUR), 2);
    assert_eq!(taken(&mut account, &quota, 9, 23 * HOUR), 0);
    assert_eq!(taken(&mut account, &quota, 9, 30 * HOUR), 0);
}

#[test]
fn what_is_given_back_can_be_used_but_not_in_another_period() {
    let (mut account, quota) = (Account::default(), calls(2, Period::Day));
    let (_, receipt) = account.take(&quota, Spent::call(0), Timestamp(HOUR)).unwrap();
    account.give_back(receipt);
    assert_eq!(taken(&mut account, &quota, 9, HOUR), 2);
    assert_eq!(taken(&mut account, &quota, 9, 25 * HOUR), 2);
    account.give_back(receipt);
    assert_eq!(taken(&mut account, &quota, 9, 25 * HOUR), 0);
}

#[test]
fn the_texts_are_those_of_api_management() {
    let out = |resource, seconds: u64, millis: u64| {
        let retry_after = Some(Duration::from_millis(seconds * 1_000 + millis));
        Exhausted { resource, replenished: None, retry_after }.to_string()
    };
    assert_eq!(
        out(Resource::Calls, ((14 * 24 + 7) * 60 + 13) * 60 + 55, 1),
        "Out of call volume quota. Quota will be replenished in 14.07:13:56."
    );
    assert_eq!(
        out(Resource::Bytes, (5 * 60 + 12) * 60 + 34, 0),
        "Out of bandwidth quota. Quota will be replenished in 05:12:34."
    );
    let never = Exhausted { resource: Resource::Calls, replenished: None, retry_after: None };
    assert_eq!(never.to_string(), "Out of call volume quota.");
    for (seconds, text) in [(0, "00:00:00"), (59, "00:00:59"), (86_399, "23:59:59"), (86_400, "1.00:00:00")] {
        assert_eq!(time_span(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn a_crash_forgets_what_was_not_written_or_with_a_block_ahead_nothing() {
    let quota = calls(100, Period::Day);
    let ahead = Spent { calls: 10, bytes: 0 };
    for (ahead, expected) in [(Spent::default(), 40), (ahead, 50)] {
        let mut account = Account::default();
        assert_eq!(account.row(ahead), None, "nothing was used");
        taken(&mut account, &quota, 40, HOUR);
        let row = account.row(ahead).unwrap();
        account.written(row);
        assert_eq!(account.row(ahead), None);
        assert_eq!(row.spent.calls, expected);
        taken(&mut account, &quota, 5, HOUR);
        assert_eq!(account.row(ahead).is_some(), ahead == Spent::default());
        taken(&mut account, &quota, 1, HOUR);
        assert!(account.row(ahead).is_some());
        // The process dies, and another one reads the row.
        let mut next = Account::default();
        next.load(Tally::sum(quota.period, [row], Timestamp(2 * HOUR)).unwrap());
        assert_eq!(taken(&mut next, &quota, 200, 2 * HOUR), 100 - expected as usize);
        assert_eq!(
            next.row(Spent::default()).unwrap().spent.calls,
            100 - expected,
            "each run writes its own"
        );
        assert!(Tally::sum(quota.period, [row], Timestamp(24 * HOUR)).is_none());
    }
}

#[test]
fn runs_that_began_in_the_period_of_another_are_one_period() {
    let row = |start: u64, calls| Tally { start: Timestamp(start * HOUR), spent: Spent { calls, bytes: 1 } };
    let rows = [row(12, 4), row(3, 1), row(6, 2), row(9, 8)];
    let sum = |now: u64| Tally::sum(rolling(5), rows, Timestamp(now * HOUR));
    let expected = Tally { start: Timestamp(9 * HOUR), spent: Spent { calls: 12, bytes: 2 } };
    assert_eq!(sum(13), Some(expected));
    assert_eq!(sum(14), None);
    assert_eq!(sum(1), Some(expected), "a clock that went back");
    assert_eq!(Tally::sum(FOREVER, rows, Timestamp(0)).unwrap().spent.calls, 15);
    assert_eq!(Tally::sum(FOREVER, [], Timestamp(0)), None);
}

#[test]
fn several_quotas_count_together_or_not_at_all_and_the_longest_wait_is_told() {
    let (day, month, ever) = (Accounts::new(9), Accounts::new(9), Accounts::new(9));
    let (per_day, per_month, at_all) = (calls(2, Period::Day), calls(3, Period::Month), calls(4, FOREVER));
    let key = Name::from("a");
    let asked = [(&day, &per_day, &key), (&month, &per_month, &key), (&ever, &at_all, &key)];
    let take = |now: u64| take_all(&asked, Spent::call(0), Timestamp(now * HOUR));
    assert_eq!(take(0).unwrap().len(), 3);
    take(0).unwrap();
    for _ in 0..9 {
        assert_eq!(take(0).unwrap_err().1.replenished, Some(Timestamp(24 * HOUR)));
    }
    take(24).unwrap();
    assert_eq!(take(24).unwrap_err().1.replenished, Some(Timestamp(31 * 24 * HOUR)));
    take(31 * 24).unwrap();
    assert_eq!(take(31 * 24).unwrap_err().1.replenished, None);
}

#[test]
fn a_flood_of_keys_shares_one_account_and_makes_nobody_forgotten() {
    let (accounts, quota) = (Accounts::new(3), calls(2, Period::Day));
    let take = |key: &str, now: u64| {
        accounts.take(&key.into(), &quota, Spent::call(0), Timestamp(now * HOUR)).is_ok()
    };
    let passed = (0..1_000).filter(|n| take(&format!("k{n}"), 1)).count();
    assert_eq!((passed, accounts.len()), (3 + 2, 3));
    assert!(take("k0", 1) && !take("k0", 1));
    assert!(take("new", 25));
    let rows = accounts.rows(Spent::default());
    assert_eq!(rows.len(), 3);
    accounts.written(&rows);
    assert!(accounts.rows(Spent::default()).is_empty());
    accounts.sweep(quota.period, Timestamp(26 * HOUR));
    assert_eq!(accounts.len(), 1);
    accounts.sweep(quota.period, Timestamp(49 * HOUR));
    assert!(accounts.is_empty());
}

proptest! {
    #[test]
    fn every_moment_is_in_exactly_one_period(
        now in 0u64..4_102_444_800_000,
        which in 0usize..4,
    ) {
        let every = Period::Every { start: Timestamp(0), length: Duration::from_millis(7_777_777) };
        let period = [Period::Day, Period::Week, Period::Month, every][which];
        let span = period.span(Timestamp(now), None);
        let end = span.end.unwrap();
        prop_assert!(span.start.0 <= now && now < end.0);
        prop_assert_eq!(period.span(span.start, None), span);
        prop_assert_eq!(period.span(Timestamp(end.0 - 1), None), span);
        prop_assert_eq!(period.span(end, None).start, end);
    }

    #[test]
    fn restarts_neither_give_nor_take_when_all_was_written(
        steps in proptest::collection::vec((0u64..HOUR, any::<bool>()), 1..150),
        which in 0usize..3,
    ) {
        let quota = calls(4, [Period::Day, rolling(5), FOREVER][which]);
        let (mut steady, mut restarted, mut now) = (Account::default(), Account::default(), 0);
        let mut rows: Vec<Tally> = Vec::new();
        for (gap, restart) in steps {
            now += gap;
            if restart {
                rows.extend(restarted.row(Spent::default()));
                restarted = Account::default();
                if let Some(sum) = Tally::sum(quota.period, rows.iter().copied(), Timestamp(now)) {
                    restarted.load(sum);
                }
            }
            let cost = Spent::call(1);
            let left = |account: &mut Account| account.take(&quota, cost, Timestamp(now)).map(|(left, _)| left);
            prop_assert_eq!(left(&mut restarted), left(&mut steady));
        }
    }
}
