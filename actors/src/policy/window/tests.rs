//! Windows: exact when small, never too generous when large, bounded, honest about waiting.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(calls: u32, per: Duration) -> Rate {
    Rate::new(calls, per).unwrap()
}

fn allowed(windows: &Windows, key: &str, rate: Rate, calls: usize, now: Duration) -> usize {
    (0..calls).filter(|_| windows.take(&key.into(), rate, 1, now).0.allowed).count()
}

/// The most that came within any stretch of `per`.
fn most_within(per: Duration, passed: &[Duration]) -> usize {
    passed
        .iter()
        .map(|end| passed.iter().filter(|at| *at <= end && **at + per > *end).count())
        .max()
        .unwrap_or(0)
}

#[test]
fn a_window_counts_down_and_gives_each_place_back_after_its_period() {
    let (windows, rate) = (Windows::new(10), rate(3, 10 * SECOND));
    for (at, remaining, reset) in [(0, 2, 10), (1, 1, 9), (4, 0, 6)] {
        let said = windows.take(&"a".into(), rate, 1, at * SECOND).0;
        let expected = Admission {
            allowed: true,
            limit: 3,
            remaining,
            retry_after: Duration::ZERO,
            reset: reset * SECOND,
        };
        assert_eq!(said, expected, "at {at}");
    }
    let refused = windows.take(&"a".into(), rate, 1, 5 * SECOND).0;
    assert_eq!((refused.allowed, refused.retry_after, refused.reset), (false, 5 * SECOND, 5 * SECOND));
    assert_eq!(allowed(&windows, "b", rate, 9, 5 * SECOND), 3, "another key has another window");
    assert_eq!(allowed(&windows, "a", rate, 9, 10 * SECOND - Duration::from_nanos(1)), 0);
    assert_eq!(allowed(&windows, "a", rate, 9, 10 * SECOND), 1);
    assert_eq!(allowed(&windows, "a", rate, 9, 14 * SECOND), 2);
}

#[test]
fn three_bursts_never_make_more_than_twenty_in_any_five_seconds() {
    let (windows, rate) = (Windows::new(10), rate(20, 5 * SECOND));
    let mut passed = Vec::new();
    for millis in [0, 1, 2_400, 4_999, 5_000, 5_001, 9_999, 10_000, 10_001] {
        let now = Duration::from_millis(millis);
        passed.extend(std::iter::repeat_n(now, allowed(&windows, "a", rate, 100, now)));
    }
    assert_eq!(most_within(5 * SECOND, &passed), 20);
    assert!(passed.len() >= 40);
}

#[test]
fn twice_the_rate_gets_nearly_all_of_it_and_never_more() {
    for (calls, least) in [(20, 1.0), (50, 1.0), (100, 0.96), (1_000, 0.96)] {
        let (windows, rate) = (Windows::new(10), rate(calls, SECOND));
        let step = SECOND / (2 * calls);
        let asked: u32 = 2 * calls * 60;
        let passed: u32 =
            (0..asked).map(|n| u32::from(windows.take(&"a".into(), rate, 1, step * n).0.allowed)).sum();
        let share = f64::from(passed) / f64::from(calls * 60);
        assert!(share >= least && passed <= calls * 61, "{calls}: {share}");
    }
}

#[test]
fn several_calls_fit_together_or_not_at_all() {
    let (windows, rate) = (Windows::new(10), rate(5, SECOND));
    assert!(windows.take(&"a".into(), rate, 3, Duration::ZERO).0.allowed);
    let refused = windows.take(&"a".into(), rate, 3, SECOND / 2).0;
    assert_eq!((refused.allowed, refused.remaining, refused.retry_after), (false, 2, SECOND / 2));
    assert!(windows.take(&"a".into(), rate, 2, SECOND / 2).0.allowed);
    let never = windows.take(&"a".into(), rate, 6, 9 * SECOND).0;
    assert_eq!((never.allowed, never.retry_after), (false, SECOND));
    assert_eq!(windows.look("a", rate, 5, 9 * SECOND).remaining, 5, "a refused call costs nothing");
}

#[test]
fn what_is_given_back_can_be_taken_again_and_leaves_no_trace() {
    for calls in [2, 200] {
        let (windows, rate) = (Windows::new(10), rate(calls, SECOND));
        let key = Name::from("a");
        let first = windows.take(&key, rate, 1, Duration::ZERO).1.unwrap();
        let rest = windows.take(&key, rate, calls - 1, SECOND / 2).1.unwrap();
        windows.give_back("a", rest);
        assert_eq!(windows.look("a", rate, 1, SECOND / 2).remaining, calls - 1);
        windows.give_back("a", first);
        windows.give_back("a", first);
        assert_eq!(windows.look("a", rate, 1, SECOND / 2).remaining, calls);
        let later = windows.take(&key, rate, 1, 5 * SECOND).1.unwrap();
        windows.give_back("a", first);
        assert_eq!(
            windows.look("a", rate, 1, 5 * SECOND).remaining,
            calls - 1,
            "forgotten ones change nothing"
        );
        windows.give_back("a", later);
    }
}

#[test]
fn a_changed_rate_takes_effect_at_once_and_keeps_the_count() {
    let windows = Windows::new(10);
    assert_eq!(allowed(&windows, "a", rate(10, SECOND), 10, Duration::ZERO), 10);
    let more = rate(100, SECOND);
    assert_eq!(allowed(&windows, "a", more, 200, SECOND / 2), 90);
    let less = windows.take(&"a".into(), rate(10, SECOND), 1, SECOND / 2).0;
    assert_eq!((less.allowed, less.remaining), (false, 0));
    assert!(windows.take(&"a".into(), rate(200, SECOND), 1, SECOND / 2).0.allowed);
}

#[test]
fn calls_counted_after_the_answer_overshoot_by_those_under_way_only() {
    let (windows, rate) = (Windows::new(10), rate(5, SECOND));
    let (mut passed, under_way) = (0, 3);
    for _ in 0..10 {
        let looked = (0..under_way).filter(|_| windows.look("a", rate, 1, Duration::ZERO).allowed).count();
        for _ in 0..looked {
            windows.note(&"a".into(), rate, 1, Duration::ZERO);
        }
        passed += looked;
    }
    assert!((5..5 + under_way).contains(&passed), "{passed}");
    assert_eq!(windows.look("a", rate, 1, Duration::ZERO).retry_after, SECOND);
}

#[test]
fn a_flood_of_keys_is_one_caller_and_makes_nobody_forgotten() {
    let (windows, rate) = (Windows::new(10), rate(5, SECOND));
    assert_eq!(allowed(&windows, "victim", rate, 9, Duration::ZERO), 5);
    let flood = (0..10_000).filter(|n| allowed(&windows, &format!("k{n}"), rate, 1, SECOND / 2) == 1).count();
    assert_eq!((flood, windows.len()), (9 + 5, 10));
    assert_eq!(allowed(&windows, "victim", rate, 9, SECOND / 2), 0, "it is over its limit and stays so");
    assert_eq!(allowed(&windows, "new", rate, 9, 3 * SECOND), 5, "idle windows make room");
    windows.sweep(9 * SECOND);
    assert!(windows.is_empty());
}

#[test]
fn memory_of_a_key_is_bounded() {
    for calls in [EXACT, EXACT + 1, 1_000_000] {
        let (mut window, rate) = (Window::default(), rate(calls, SECOND));
        for n in 0..5_000 {
            window.note(rate, 1, Duration::from_micros(n * 300));
        }
        assert!(window.marks.len() <= MOST_MARKS);
    }
}

#[test]
fn threads_take_no_place_twice() {
    let (windows, rate) = (Windows::new(5_000), rate(100, SECOND));
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| allowed(&windows, "a", rate, 100, SECOND))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 100);
}

proptest! {
    #[test]
    fn no_stretch_of_time_sees_more_than_the_rate_and_waiting_as_told_is_enough(
        calls in prop_oneof![1u32..8, 60u32..70],
        steps in proptest::collection::vec((0u64..120, 1u32..40), 1..120),
    ) {
        let (windows, rate) = (Windows::new(10), rate(calls, SECOND));
        let (mut now, mut passed) = (Duration::ZERO, Vec::new());
        for (gap, burst) in steps {
            now += Duration::from_millis(gap);
            for _ in 0..burst {
                let said = windows.take(&"a".into(), rate, 1, now).0;
                if said.allowed {
                    passed.push(now);
                    continue;
                }
                prop_assert!(said.retry_after > Duration::ZERO);
                prop_assert!(said.retry_after <= SECOND + SECOND / 32);
                let before = now + said.retry_after - Duration::from_nanos(1);
                prop_assert!(!windows.parts[0].lock().unwrap().get_mut("a").unwrap().clone().look(rate, 1, before).allowed);
                let mut then = windows.parts[0].lock().unwrap().get_mut("a").unwrap().clone();
                prop_assert!(then.look(rate, 1, now + said.retry_after).allowed);
                break;
            }
        }
        prop_assert!(most_within(SECOND, &passed) <= calls as usize);
    }

    #[test]
    fn given_back_calls_are_as_if_never_made(
        calls in prop_oneof![1u32..8, 60u32..70],
        steps in proptest::collection::vec((0u64..200, any::<bool>()), 1..150),
    ) {
        let rate = rate(calls, SECOND);
        let (mut with, mut without) = (Window::default(), Window::default());
        let mut now = Duration::ZERO;
        for (gap, returned) in steps {
            now += Duration::from_millis(gap);
            if returned {
                if let (_, Some(receipt)) = with.take(rate, 1, now) {
                    with.give_back(receipt);
                }
            } else {
                prop_assert_eq!(with.take(rate, 1, now).0, without.take(rate, 1, now).0);
            }
        }
    }
}
