//! Whatever many callers do at once, it is as if one did it after the other, in the order of the log;
//! also over crashes. The model is a map, and one function that applies a transaction to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::protocol::partition::{Refused, Write, WriteError};
use serde_json::{Value, json};

use crate::world::{Door, World, create, delete, patch, read, replace, stripped, unique, upsert};

type Documents = BTreeMap<String, Value>;

#[derive(Debug, Clone)]
enum Op {
    Create(Value),
    Upsert(Value),
    Replace(Value),
    Incr,
    Read,
    Delete,
}

/// What a transaction said: for each operation what happened and what was there afterwards.
type Answer = Result<Vec<(Option<ChangeKind>, Option<Value>)>, (usize, String)>;

/// A transaction, when it was asked, when it was answered, and what.
struct Done {
    tag: String,
    ops: Vec<(String, Op)>,
    asked: u64,
    answered: u64,
    /// `None`: nobody knows.
    answer: Option<Answer>,
    /// Its place in the log, of one that changed something.
    place: Option<u64>,
}

fn random_ops(rng: &mut Rng) -> Vec<(String, Op)> {
    let document = |rng: &mut Rng| json!({"n": rng.u8(0..5), "code": rng.u8(0..6)});
    let op = |rng: &mut Rng| match rng.u8(0..7) {
        0 | 1 => Op::Create(document(rng)),
        2 => Op::Upsert(document(rng)),
        3 => Op::Replace(document(rng)),
        4 => Op::Incr,
        5 => Op::Read,
        _ => Op::Delete,
    };
    let count = if rng.bool() { 1 } else { rng.usize(2..6) };
    (0..count).map(|_| (format!("d{}", rng.u8(0..5)), op(rng))).collect()
}

fn writes(ops: &[(String, Op)], tag: &str) -> Vec<Write> {
    let incr = json!([{"op": "incr", "path": "/n", "value": 1}]);
    let one = |(name, op): &(String, Op)| {
        let write = match op.clone() {
            Op::Create(document) => create(name, document),
            Op::Upsert(document) => upsert(name, document),
            Op::Replace(document) => replace(name, document),
            Op::Incr => patch(name, &incr),
            Op::Read => read(name),
            Op::Delete => delete(name),
        };
        Write { traceparent: Some(tag.into()), ..write }
    };
    ops.iter().map(one).collect()
}

/// The transaction as the contract has it.
fn apply(documents: &mut Documents, ops: &[(String, Op)]) -> Answer {
    let mut after = documents.clone();
    let mut answers = Vec::new();
    for (at, (name, op)) in ops.iter().enumerate() {
        let refuse = |error: WriteError| Err((at, error.to_string()));
        let there = after.get(name).cloned();
        let new = match (op, &there) {
            (Op::Create(_), Some(_)) => return refuse(WriteError::Exists),
            (Op::Replace(_) | Op::Incr | Op::Read | Op::Delete, None) => {
                return refuse(WriteError::NotFound);
            }
            (Op::Create(document) | Op::Upsert(document) | Op::Replace(document), _) => {
                Some(document.clone())
            }
            (Op::Incr, Some(there)) => {
                let mut new = there.clone();
                new["n"] = json!(there["n"].as_i64().unwrap() + 1);
                Some(new)
            }
            (Op::Read, Some(_)) => {
                answers.push((None, there));
                continue;
            }
            (Op::Delete, Some(_)) => None,
        };
        let kind = match (&there, &new) {
            (_, None) => ChangeKind::Delete,
            (None, Some(_)) => ChangeKind::Create,
            (Some(_), Some(_)) => ChangeKind::Replace,
        };
        if let Some(new) = &new {
            let taken =
                |(other, document): (&String, &Value)| other != name && document["code"] == new["code"];
            if after.iter().any(taken) {
                return refuse(WriteError::NotUnique("`/code`".into()));
            }
            after.insert(name.clone(), new.clone());
        } else {
            after.remove(name);
        }
        answers.push((Some(kind), new));
    }
    *documents = after;
    Ok(answers)
}

/// Asks for transactions, one after the other.
async fn caller(door: Door, time: Arc<AtomicU64>, seed: u64, name: String, count: usize) -> Vec<Done> {
    let mut rng = Rng::with_seed(seed);
    let mut all = Vec::new();
    for n in 0..count {
        let (tag, ops) = (format!("{name}-{n}"), random_ops(&mut rng));
        let asked = time.fetch_add(1, Ordering::SeqCst);
        let result = door.all(writes(&ops, &tag)).await;
        let answered = time.fetch_add(1, Ordering::SeqCst);
        let mut done = Done { tag, ops, asked, answered, answer: None, place: None };
        match result {
            Ok(written) => {
                let changed: Vec<_> = written.iter().filter(|written| written.kind.is_some()).collect();
                done.place = changed.first().map(|written| written.lsn.0);
                assert!(changed.iter().all(|written| Some(written.lsn.0) == done.place));
                let shown = |body: &bytes::Bytes| (!body.is_empty()).then(|| stripped(body));
                let answer = written.iter().map(|written| (written.kind, shown(&written.body)));
                done.answer = Some(Ok(answer.collect()));
            }
            Err(Refused { error: WriteError::Unknown, .. }) => {}
            Err(Refused { error: WriteError::Unavailable | WriteError::Busy, .. }) => continue,
            Err(Refused { at, error }) => done.answer = Some(Err((at, error.to_string()))),
        }
        all.push(done);
    }
    all
}

/// Every answer is one that the contract gives at some moment between question and answer. `documents`
/// is what was there before the round, and becomes what must be there after it.
fn check(world: &World, door: &Door, documents: &mut Documents, from: u64, round: &[Done]) {
    let log = world.log(door);
    let mut transactions: Vec<(u64, &Done, usize)> = Vec::new();
    for (lsn, change) in log.iter().filter(|(lsn, _)| lsn.0 > from) {
        let tag = change.traceparent.as_deref().unwrap();
        let done = round.iter().find(|done| done.tag == tag).unwrap();
        if change.within == 0 {
            transactions.push((lsn.0, done, 0));
        }
        let (first, current, changes) = transactions.last_mut().unwrap();
        assert_eq!((current.tag.as_str(), lsn.0 - *first), (tag, u64::from(change.within)), "it is split");
        *changes += 1;
    }
    // All that is in the log happens to the model, in its order.
    let mut states = vec![(0, documents.clone())];
    let mut latest_question = 0;
    for (first, done, changes) in &transactions {
        let expected = apply(documents, &done.ops);
        let Ok(answers) = &expected else { panic!("{}: {expected:?}", done.tag) };
        let changing = answers.iter().filter(|(kind, _)| kind.is_some()).count();
        assert_eq!(*changes, changing, "{} is not whole in the log", done.tag);
        if let Some(answer) = &done.answer {
            assert_eq!(*answer, expected, "{}", done.tag);
            assert_eq!(done.place, Some(*first));
        }
        assert!(done.answered > latest_question, "{} went before one that was asked later", done.tag);
        latest_question = latest_question.max(done.asked);
        states.push((*first, documents.clone()));
    }
    let place_of = |done: &Done| transactions.iter().position(|(_, other, _)| other.tag == done.tag);
    for done in round {
        let Some(answer) = &done.answer else { continue };
        if done.place.is_some() {
            assert!(place_of(done).is_some(), "{} was acknowledged and is lost", done.tag);
            continue;
        }
        // It changed nothing: any state from that before the question to that at the answer may explain it.
        let before = |other: &Done| other.answered < done.asked;
        let lowest = transactions.iter().rposition(|(_, other, _)| before(other)).map_or(0, |at| at + 1);
        let after = |other: &Done| other.asked > done.answered;
        let highest =
            transactions.iter().position(|(_, other, _)| after(other)).unwrap_or(transactions.len());
        let explained = states[lowest..=highest].iter().any(|(_, state)| {
            let mut state = state.clone();
            apply(&mut state, &done.ops) == *answer
        });
        assert!(explained, "{}: {:?} answered {answer:?}", done.tag, done.ops);
    }
}

fn shown(door: &Door) -> Documents {
    door.ids().into_iter().map(|name| (name.clone(), door.get(&name).unwrap())).collect()
}

#[actix::test]
async fn concurrent_transactions_are_as_if_one_came_after_the_other() {
    let seed = std::env::var("LANEKEEPER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_250_117);
    println!("LANEKEEPER_TEST_SEED={seed}");
    let time = Arc::new(AtomicU64::new(1));
    let mut world = World::with(vec![unique("loads", &[&["code"]])], |config| {
        config.shard.checkpoint_interval = Duration::from_secs(3_600);
    })
    .await;
    let (mut documents, mut from) = (Documents::new(), 0);
    let mut changed = 0;
    for round in 0..6_u64 {
        let door = world.door("loads", "a");
        let callers = (0..6).map(|n| {
            let seed = seed.wrapping_mul(31).wrapping_add(round * 100 + n);
            caller(door.clone(), time.clone(), seed, format!("r{round}-c{n}"), 40)
        });
        let all = join_all(callers);
        let abrupt = round % 3 == 2;
        let done: Vec<Done> = if abrupt {
            // In the middle of it everything ends.
            let callers = actix_rt::spawn(all);
            crate::support::eventually("some was written", || world.shard(&door).log().tail().0 > from + 20)
                .await;
            world = world.cut().await;
            callers.await.unwrap().into_iter().flatten().collect()
        } else {
            let done = all.await.into_iter().flatten().collect();
            world = if round % 3 == 0 { world.kill().await } else { world.restart().await };
            done
        };
        let door = world.door("loads", "a");
        let last = world.log(&door).last().map_or(0, |(lsn, _)| lsn.0);
        check(&world, &door, &mut documents, from, &done);
        assert_eq!(shown(&door), documents, "after round {round}");
        changed += done.iter().filter(|done| done.place.is_some()).count();
        from = last;
    }
    assert!(changed > 100, "{changed}");
    world.end().await;
}
