//! Places: never more than there are, given back once, and shared by weight when they are short.

use proptest::prelude::*;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn bounds(places: usize) -> Bounds {
    Bounds {
        places,
        places_per_tenant: places,
        waiting: 100,
        waiting_per_tenant: 100,
        wait: 100 * MILLI,
        shedding: Shedding { normal_percent: 100, low_percent: 100 },
    }
}

type Gate = Turnstile<&'static str, u8, u32>;

fn come(
    gate: &mut Gate,
    tenant: &'static str,
    weight: u32,
    priority: Priority,
    now: u32,
    item: u32,
) -> Arrived<u32> {
    gate.arrive(Arrival { tenant: &tenant, weight, member: &0, priority }, MILLI * now, item)
}

fn normal(gate: &mut Gate, tenant: &'static str, times: usize) -> usize {
    (0..times).filter(|_| matches!(come(gate, tenant, 1, Priority::Normal, 0, 0), Arrived::Enters(_))).count()
}

fn entering(gate: &mut Gate, now: u32) -> Vec<&'static str> {
    let next = |gate: &mut Gate| gate.next(MILLI * now);
    let mut all = Vec::new();
    while let Some(next) = next(gate) {
        if let Next::Enters(tenant, _) = next {
            all.push(tenant);
        }
    }
    all
}

#[test]
fn calls_under_way_are_counted_by_key_and_never_leak() {
    let counts = Concurrency::default();
    let (a, b) = (Name::from("a"), Name::from("b"));
    let held: Vec<_> = (0..9).map_while(|_| counts.try_take(&a, 3)).collect();
    assert_eq!((held.len(), counts.under_way("a")), (3, 3));
    assert!(counts.try_take(&b, 1).is_some());
    assert!(counts.try_take(&b, 0).is_none());
    drop(held);
    assert_eq!(counts.keys(), 0, "a key without calls is forgotten");
    let crashed = std::panic::catch_unwind({
        let counts = counts.clone();
        move || {
            let _held = counts.try_take(&"a".into(), 3);
            panic!("on purpose");
        }
    });
    assert!(crashed.is_err());
    assert_eq!(counts.keys(), 0, "a call that panics gives its place back");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| drop(counts.try_take(&a, 2))));
        }
    });
    assert_eq!(counts.keys(), 0);
}

#[test]
fn what_can_be_done_later_is_turned_away_first() {
    let shedding = Shedding::default();
    for (places, expected) in [(0, [0, 0, 0]), (1, [1, 1, 1]), (10, [10, 8, 6]), (1_000, [1_000, 800, 600])] {
        assert_eq!(Priority::ALL.map(|priority| shedding.places(priority, places)), expected);
    }
    let odd = Shedding { normal_percent: 50, low_percent: 90 };
    assert_eq!(odd.places(Priority::Low, 10), 5, "never more than a normal call");
    let mut gate = Gate::new(Bounds { shedding, ..bounds(10) });
    for n in 0..6 {
        let tenant = ["a", "b", "c"][n % 3];
        assert_eq!(come(&mut gate, tenant, 1, Priority::Low, 0, 1), Arrived::Enters(1));
    }
    assert_eq!(come(&mut gate, "d", 1, Priority::Low, 0, 1), Arrived::TurnedAway(1, Shed::Priority));
    assert_eq!(come(&mut gate, "d", 1, Priority::Normal, 0, 1), Arrived::Enters(1));
    assert_eq!(come(&mut gate, "e", 1, Priority::Normal, 0, 1), Arrived::Enters(1));
    assert_eq!(come(&mut gate, "f", 1, Priority::Normal, 0, 1), Arrived::Waits(100 * MILLI));
    assert_eq!(come(&mut gate, "g", 1, Priority::Critical, 0, 1), Arrived::Enters(1));
    assert_eq!(come(&mut gate, "h", 1, Priority::Critical, 0, 1), Arrived::Enters(1));
    assert_eq!(come(&mut gate, "i", 1, Priority::Critical, 0, 1), Arrived::Waits(100 * MILLI));
    gate.leave(&"g");
    assert_eq!(entering(&mut gate, 1), ["i"], "what is critical goes first");
    for tenant in ["a", "b", "c"] {
        gate.leave(&tenant);
    }
    assert_eq!(entering(&mut gate, 1), ["f"]);
}

#[test]
fn a_tenant_below_its_part_finds_a_place_while_another_takes_all_it_can() {
    let mut gate = Gate::new(bounds(16));
    assert_eq!(normal(&mut gate, "loud", 80), 14, "an eighth is reserved");
    assert_eq!(normal(&mut gate, "quiet", 2), 2);
    assert_eq!(gate.load(), (16, 66));
    gate.leave(&"quiet");
    assert!(entering(&mut gate, 1).is_empty(), "the reserved place stays for who comes");
    assert_eq!(normal(&mut gate, "quiet", 1), 1);
    for _ in 0..3 {
        gate.leave(&"loud");
    }
    assert_eq!(normal(&mut gate, "quiet", 5), 3, "before it has its part it waits for nobody");
}

#[test]
fn turns_and_parts_go_by_weight() {
    let mut gate = Gate::new(Bounds { places_per_tenant: 16, ..bounds(16) });
    assert_eq!(normal(&mut gate, "other", 14), 14);
    for n in 0..30 {
        come(&mut gate, "big", 3, Priority::Normal, 0, n);
        come(&mut gate, "small", 1, Priority::Normal, 0, n);
    }
    for _ in 0..14 {
        gate.leave(&"other");
    }
    let entered = entering(&mut gate, 1);
    let count = |name| entered.iter().filter(|tenant| **tenant == name).count();
    assert_eq!(gate.load().0, 16);
    // Each had entered once, on what was reserved.
    assert!((9..=12).contains(&count("big")) && (3..=4).contains(&count("small")), "{entered:?}");
}

#[test]
fn one_tenant_has_its_own_bound_of_places_and_of_waiting() {
    let mut gate =
        Gate::new(Bounds { places_per_tenant: 2, waiting_per_tenant: 3, waiting: 4, ..bounds(16) });
    assert_eq!(normal(&mut gate, "a", 5), 2);
    assert_eq!(come(&mut gate, "a", 1, Priority::Critical, 0, 7), Arrived::TurnedAway(7, Shed::TenantFull));
    assert_eq!(normal(&mut gate, "b", 3), 2);
    assert_eq!(come(&mut gate, "b", 1, Priority::Normal, 0, 7), Arrived::TurnedAway(7, Shed::Full));
    assert_eq!(gate.load(), (4, 4));
}

#[test]
fn nobody_waits_beyond_its_time_and_their_places_in_the_queue_come_free() {
    let mut gate = Gate::new(Bounds { waiting: 2, ..bounds(1) });
    assert_eq!(come(&mut gate, "a", 1, Priority::Normal, 0, 1), Arrived::Enters(1));
    assert_eq!(come(&mut gate, "b", 1, Priority::Normal, 0, 2), Arrived::Waits(100 * MILLI));
    assert_eq!(come(&mut gate, "c", 1, Priority::Normal, 50, 3), Arrived::Waits(150 * MILLI));
    assert_eq!(come(&mut gate, "d", 1, Priority::Normal, 99, 4), Arrived::TurnedAway(4, Shed::Full));
    assert_eq!(come(&mut gate, "d", 1, Priority::Normal, 100, 5), Arrived::Waits(200 * MILLI));
    assert_eq!(gate.next(MILLI * 101), Some(Next::TooLate(2)));
    assert_eq!(gate.next(MILLI * 101), None);
    gate.leave(&"a");
    assert_eq!(gate.next(MILLI * 150), Some(Next::TooLate(3)));
    assert_eq!(gate.next(MILLI * 150), Some(Next::Enters("d", 5)));
    gate.leave(&"d");
    assert_eq!((gate.load(), gate.parts.len(), gate.weights), ((0, 0), 0, 0));
}

#[test]
fn a_loud_tenant_with_slow_calls_does_not_delay_a_quiet_one() {
    // Every millisecond: ten calls of `loud`, each for a second, and every fourth one of `quiet`, for two.
    let mut gate = Gate::new(Bounds { waiting: 50, ..bounds(64) });
    let mut ends: Vec<(u32, &'static str)> = Vec::new();
    let (mut waited, mut refused) = (0, 0);
    for now in 0..5_000 {
        let over: Vec<_> = ends.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, tenant) in over {
            gate.leave(&tenant);
        }
        while let Some(next) = gate.next(MILLI * now) {
            if let Next::Enters(tenant, _) = next {
                ends.push((now + if tenant == "loud" { 1_000 } else { 2 }, tenant));
            }
        }
        for n in 0..10 {
            if let Arrived::Enters(_) = come(&mut gate, "loud", 1, Priority::Normal, now, n) {
                ends.push((now + 1_000, "loud"));
            }
        }
        if now % 4 == 0 {
            match come(&mut gate, "quiet", 1, Priority::Normal, now, 0) {
                Arrived::Enters(_) => ends.push((now + 2, "quiet")),
                Arrived::Waits(_) => waited += 1,
                Arrived::TurnedAway(..) => refused += 1,
            }
        }
    }
    assert_eq!((waited, refused), (0, 0));
}

proptest! {
    #[test]
    fn bounds_hold_nothing_leaks_and_everybody_is_answered_once(
        steps in proptest::collection::vec((0u8..3, 0usize..4, 0usize..3, 0u32..60, 1u32..4), 1..300),
    ) {
        let bounds = Bounds {
            places: 6,
            places_per_tenant: 4,
            waiting: 8,
            waiting_per_tenant: 5,
            wait: 100 * MILLI,
            shedding: Shedding::default(),
        };
        let mut gate = Gate::new(bounds);
        let (mut inside, mut waiting, mut now): (Vec<&'static str>, HashMap<u32, Duration>, u32) = Default::default();
        for (item, (what, tenant, priority, gap, weight)) in (0u32..).zip(steps) {
            now += gap;
            let tenant = ["a", "b", "c", "d"][tenant];
            if what == 0 && !inside.is_empty() {
                let left = inside.swap_remove(item as usize % inside.len());
                gate.leave(&left);
            } else {
                match come(&mut gate, tenant, weight, Priority::ALL[priority], now, item) {
                    Arrived::Enters(_) => inside.push(tenant),
                    Arrived::Waits(until) => prop_assert!(waiting.insert(item, until).is_none()),
                    Arrived::TurnedAway(same, _) => prop_assert_eq!(same, item),
                }
            }
            while let Some(next) = gate.next(MILLI * now) {
                match next {
                    Next::Enters(tenant, item) => {
                        prop_assert!(waiting.remove(&item).unwrap() > MILLI * now);
                        inside.push(tenant);
                    }
                    Next::TooLate(item) => prop_assert!(waiting.remove(&item).unwrap() <= MILLI * now),
                }
            }
            prop_assert_eq!(gate.load(), (inside.len(), waiting.len()));
            prop_assert!(inside.len() <= 6 && waiting.len() <= 8);
            for tenant in ["a", "b", "c", "d"] {
                prop_assert!(inside.iter().filter(|other| **other == tenant).count() <= 4);
            }
        }
        for tenant in inside {
            gate.leave(&tenant);
            while let Some(next) = gate.next(MILLI * (now + 1_000)) {
                let Next::TooLate(item) = next else { panic!("too late") };
                waiting.remove(&item);
            }
        }
        while let Some(Next::TooLate(item)) = gate.next(MILLI * (now + 1_000)) {
            waiting.remove(&item);
        }
        prop_assert!(waiting.is_empty());
        prop_assert_eq!((gate.load(), gate.parts.len(), gate.weights), ((0, 0), 0, 0));
    }
}
