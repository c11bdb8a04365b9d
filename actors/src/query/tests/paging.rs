//! Pages: however they are cut, together they are the rows of one.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{BoundQuery, End, Execution, Flow, PageLimits, QueryError, Resume, Start};
use super::{CONTEXT, LARGE, all, bound};

const QUERIES: &[&str] = &[
    "SELECT * FROM c",
    "SELECT VALUE c.id FROM c WHERE c.n > 1",
    "SELECT c.id, t FROM c JOIN t IN c.tags",
    "SELECT TOP 7 c.id, t FROM c JOIN t IN c.tags",
    "SELECT VALUE c.s FROM c OFFSET 3 LIMIT 9",
    "SELECT VALUE c.n FROM c",
    "SELECT * FROM c ORDER BY c.n",
    "SELECT c.id, t FROM c JOIN t IN c.tags ORDER BY c.n DESC, t",
    "SELECT TOP 5 VALUE c.id FROM c ORDER BY c.s DESC",
    "SELECT VALUE c.id FROM c ORDER BY c.n DESC, c.s OFFSET 4 LIMIT 6",
    "SELECT VALUE c.id FROM c ORDER BY c.n OFFSET 2 LIMIT 100",
    "SELECT DISTINCT VALUE c.n FROM c",
    "SELECT DISTINCT c.s, c.n FROM c",
    "SELECT DISTINCT TOP 3 c.s FROM c ORDER BY c.s DESC",
    "SELECT DISTINCT VALUE t FROM c JOIN t IN c.tags OFFSET 1 LIMIT 2",
    "SELECT COUNT(1), SUM(c.n) AS s, AVG(c.n) AS a, MIN(c.s) AS low, MAX(c) AS high FROM c",
    "SELECT VALUE SUM(c.f) FROM c",
    "SELECT c.n, COUNT(1) AS k, MAX(c.s) AS s FROM c GROUP BY c.n",
    "SELECT c.s, c.n, SUM(c.f) AS f FROM c GROUP BY c.s, c.n ORDER BY SUM(c.f) DESC OFFSET 1 LIMIT 20",
    "SELECT DISTINCT VALUE COUNT(1) FROM c GROUP BY c.s",
    "SELECT VALUE {n: COUNT(1)}",
    "SELECT TOP 0 * FROM c ORDER BY c.n",
];

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let number = prop_oneof![Just(None), (0..4).prop_map(|n| Some(json!(n))), Just(Some(json!(null)))];
    let text = prop_oneof![Just(None), "[ab]{0,2}".prop_map(|s| Some(json!(s)))];
    let tags = proptest::collection::vec("[xyz]", 0..5);
    let document = (number, text, tags, any::<f32>()).prop_map(|(n, s, tags, f)| {
        let mut document = json!({"tags": tags, "f": f});
        for (name, value) in [("n", n), ("s", s)] {
            if let Some(value) = value {
                document[name] = value;
            }
        }
        document
    });
    proptest::collection::vec(document, 0..30).prop_map(|mut documents| {
        for (id, document) in documents.iter_mut().enumerate() {
            document["id"] = json!(format!("d{id}"));
        }
        documents
    })
}

/// Reads page after page; `sizes` says how many rows, bytes and documents each may take.
fn paged(bound: &Arc<BoundQuery>, documents: &[Value], sizes: &[(usize, usize, usize)]) -> Vec<Value> {
    let mut found = Vec::new();
    let mut resume: Option<Resume> = None;
    for round in 0..10_000 {
        let (rows, bytes, budget) = sizes[round % sizes.len()];
        // Groups that nothing orders come some at a time.
        let in_rounds = bound.select.order_by.is_empty() && !bound.select.distinct;
        let groups = if in_rounds { 3 } else { 1_000 };
        let page = PageLimits { rows, bytes, groups, carried: bytes };
        let mut execution =
            Execution::start(Arc::clone(bound), CONTEXT, page, false, resume.as_ref()).unwrap();
        let key = |position: usize| (position as u32).to_be_bytes();
        let start = execution.resume_after();
        let first = (0..documents.len()).find(|position| match start {
            Start::Beginning => true,
            Start::At(at) => key(*position)[..] >= *at,
            Start::After(after) => key(*position)[..] > *after,
        });
        let (mut end, mut left) = (End::Reached, budget);
        for (position, document) in documents.iter().enumerate().skip(first.unwrap_or(documents.len())) {
            if left == 0 {
                end = End::Cut;
                break;
            }
            left -= 1;
            if execution.offer(&key(position), document).unwrap() == Flow::Full {
                end = End::Cut;
                break;
            }
        }
        let page = execution.finish(end).unwrap();
        assert!(page.rows.len() <= rows);
        found.extend(page.rows);
        let Some(next) = page.resume else { return found };
        // A restart: only the text is left.
        let text = serde_json::to_string(&next).unwrap();
        resume = Some(serde_json::from_str(&text).unwrap());
    }
    panic!("the pages do not end");
}

proptest! {
    #[test]
    fn pages_together_are_one_page(
        documents in documents(),
        sizes in proptest::collection::vec((1_usize..8, prop_oneof![Just(60), Just(1 << 20)], 1_usize..12), 1..4),
        query in prop::sample::select(QUERIES),
    ) {
        let bound = bound(query, &[]);
        prop_assert_eq!(paged(&bound, &documents, &sizes), all(&bound, &documents), "{}", query);
    }
}

#[test]
fn a_page_ends_at_its_rows_and_at_its_bytes() {
    let documents: Vec<Value> = (0..10).map(|n| json!({"n": n, "text": "x".repeat(100)})).collect();
    for text in ["SELECT * FROM c", "SELECT * FROM c ORDER BY c.n"] {
        let bound = bound(text, &[]);
        for (page, wanted) in [
            (PageLimits { rows: 3, ..LARGE }, 3),
            (PageLimits { bytes: 250, ..LARGE }, 2),
            (PageLimits { bytes: 1, ..LARGE }, 1),
            (LARGE, 10),
        ] {
            let mut execution = Execution::start(Arc::clone(&bound), CONTEXT, page, false, None).unwrap();
            for (position, document) in documents.iter().enumerate() {
                if execution.offer(&[position as u8], document).unwrap() == Flow::Full {
                    break;
                }
            }
            let page = execution.finish(if wanted == 10 { End::Reached } else { End::Cut }).unwrap();
            if text.contains("ORDER") && wanted < 10 {
                // A sort that is cut hands out nothing yet.
                assert!(page.rows.is_empty());
            } else {
                assert_eq!(page.rows.len(), wanted, "{text}");
            }
            assert_eq!(page.resume.is_some(), wanted < 10);
        }
    }
}

#[test]
fn paging_neither_skips_nor_repeats_what_stays_while_others_write() {
    for (text, key) in [("SELECT VALUE c.id FROM c", "id"), ("SELECT VALUE c.id FROM c ORDER BY c.n", "n")] {
        let bound = bound(text, &[]);
        let mut documents: Vec<(u32, Value)> =
            (0..40).map(|n| (n * 10, json!({"id": format!("stay{n}"), "n": n % 7, "key": key}))).collect();
        let stay: Vec<Value> = documents.iter().map(|(_, document)| document["id"].clone()).collect();
        let (mut found, mut resume): (Vec<Value>, Option<Resume>) = (Vec::new(), None);
        for round in 0..100 {
            let page = PageLimits { rows: 4, ..LARGE };
            let mut execution =
                Execution::start(Arc::clone(&bound), CONTEXT, page, false, resume.as_ref()).unwrap();
            let mut rest = documents.clone();
            match execution.resume_after() {
                Start::Beginning => {}
                Start::At(at) => rest.retain(|(position, _)| position.to_be_bytes()[..] >= *at),
                Start::After(after) => rest.retain(|(position, _)| position.to_be_bytes()[..] > *after),
            }
            let is_full = rest.iter().any(|(position, document)| {
                execution.offer(&position.to_be_bytes(), document).unwrap() == Flow::Full
            });
            let page = execution.finish(if is_full { End::Cut } else { End::Reached }).unwrap();
            found.extend(page.rows);
            resume = page.resume;
            // Others come and go between the pages.
            documents.retain(|(position, _)| position % 10 == 0);
            documents.push((
                round * 7 % 400 + 1 + u32::from(round % 10 == 7),
                json!({"id": "comes", "n": round % 9}),
            ));
            documents.retain(|(position, document)| position % 10 != 0 || document["id"] != "comes");
            documents.sort_by_key(|(position, _)| *position);
            if resume.is_none() {
                break;
            }
        }
        for id in &stay {
            let times = found.iter().filter(|found| *found == id).count();
            assert_eq!(times, 1, "{text}: {id} {times} times");
        }
    }
}

#[test]
fn a_document_that_is_gone_does_not_hold_up_the_rows_that_it_still_had() {
    let tags = bound("SELECT VALUE t FROM c JOIN t IN c.tags", &[]);
    let page = PageLimits { rows: 2, ..LARGE };
    let mut execution = Execution::start(Arc::clone(&tags), CONTEXT, page, false, None).unwrap();
    assert_eq!(execution.offer(b"a", &json!({"tags": [1, 2, 3]})), Ok(Flow::Full));
    let resume = execution.finish(End::Reached).unwrap().resume.unwrap();
    let execution = Execution::start(Arc::clone(&tags), CONTEXT, page, false, Some(&resume)).unwrap();
    assert_eq!(execution.resume_after(), Start::At(b"a"));
    let page = execution.finish(End::Reached).unwrap();
    assert!(page.rows.is_empty() && page.resume.is_none());
}

#[test]
fn a_continuation_of_another_query_is_refused() {
    let documents: Vec<Value> = (0..5).map(|n| json!({"n": n})).collect();
    let first = bound("SELECT * FROM c WHERE c.n >= @n", &[("n", json!(0))]);
    let page = PageLimits { rows: 2, ..LARGE };
    let mut execution = Execution::start(Arc::clone(&first), CONTEXT, page, false, None).unwrap();
    for (position, document) in documents.iter().enumerate() {
        if execution.offer(&[position as u8], document).unwrap() == Flow::Full {
            break;
        }
    }
    let resume = execution.finish(End::Cut).unwrap().resume.unwrap();
    let start = |bound, ordered| Execution::start(bound, CONTEXT, page, ordered, Some(&resume)).map(|_| ());
    assert_eq!(start(Arc::clone(&first), false), Ok(()));
    let other = bound("SELECT * FROM c WHERE c.n >= @n", &[("n", json!(1))]);
    assert_eq!(start(other, false), Err(QueryError::OtherQuery));
}

#[test]
fn a_continuation_of_an_index_that_is_gone_is_refused() {
    let sorted = bound("SELECT * FROM c ORDER BY c.n", &[]);
    let page = PageLimits { rows: 1, ..LARGE };
    let mut execution = Execution::start(Arc::clone(&sorted), CONTEXT, page, true, None).unwrap();
    assert_eq!(execution.offer(b"a", &json!({"n": 1})), Ok(Flow::Full));
    let resume = execution.finish(End::Cut).unwrap().resume.unwrap();
    let again =
        |ordered| Execution::start(Arc::clone(&sorted), CONTEXT, page, ordered, Some(&resume)).map(|_| ());
    assert_eq!(again(true), Ok(()));
    assert_eq!(again(false), Err(QueryError::OtherOrder));
}

#[test]
fn too_many_groups_and_too_large_states_are_refused() {
    let grouped = bound("SELECT c.n, COUNT(1) AS k FROM c GROUP BY c.n ORDER BY COUNT(1)", &[]);
    let page = PageLimits { groups: 3, ..LARGE };
    let mut execution = Execution::start(grouped, CONTEXT, page, false, None).unwrap();
    for n in 0_u8..3 {
        assert_eq!(execution.offer(&[n], &json!({"n": n})), Ok(Flow::More));
    }
    assert_eq!(execution.offer(&[3], &json!({"n": 3})), Err(QueryError::TooManyGroups { limit: 3 }));
    let sorted = bound("SELECT * FROM c ORDER BY c.n", &[]);
    let mut execution = Execution::start(sorted, CONTEXT, LARGE, false, None).unwrap();
    execution.offer(&[1], &json!({"n": 1, "text": "x".repeat(100_000)})).unwrap();
    assert!(matches!(execution.finish(End::Cut), Err(QueryError::StateTooLarge { .. })));
}

#[test]
fn the_state_of_an_interrupted_sort_is_small() {
    let sorted = bound("SELECT * FROM c ORDER BY c.n", &[]);
    let mut execution = Execution::start(sorted, CONTEXT, LARGE, false, None).unwrap();
    for n in 0_u32..1_000 {
        execution.offer(&n.to_be_bytes(), &json!({"n": 1_000 - n, "text": "x".repeat(400)})).unwrap();
    }
    let page = execution.finish(End::Cut).unwrap();
    assert!(page.rows.is_empty());
    let text = serde_json::to_string(&page.resume).unwrap();
    assert!(text.len() < 8 * 1024, "{} bytes", text.len());
}
