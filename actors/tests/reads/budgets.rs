//! A query that its budget cuts goes on, gets to its end, and keeps nobody else from his turn.

use std::time::Duration;

use lanekeeper_actors::reader::QueryFailed;
use serde_json::Value;

use crate::paging::numbered;
use crate::scene::{config, container, indexes, pages, put, request, scope, start};
use crate::support::stop;

#[actix::test]
async fn a_query_that_is_cut_by_its_budget_ends_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let containers = || {
        let mut loads = container("loads", &["lane"]);
        loads.indexes = indexes(&[&["n"]]);
        [loads]
    };
    let system = start(config(folder.path(), containers())).await;
    for lane in ["x", "y", "z"] {
        let documents: Vec<Value> = (0..400).map(|n| numbered(n, lane, n * 31 % 400)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
    }
    let texts = [
        "SELECT c.id FROM c WHERE c.kept",
        "SELECT c.id FROM c WHERE c.n = 7 AND c.kept = 'no'",
        "SELECT VALUE COUNT(1) FROM c WHERE c.kept",
        "SELECT c.kept, COUNT(1) AS m, SUM(c.n) AS q FROM c GROUP BY c.kept",
        "SELECT TOP 30 c.id, c.n FROM c ORDER BY c.n, c.id",
        "SELECT TOP 30 c.id, c.n FROM c WHERE c.kept ORDER BY c.n DESC, c.id DESC",
        "SELECT c.id FROM c WHERE c.n > 350",
        "SELECT c.id, c.n FROM c WHERE c.n > 350 ORDER BY c.n",
        "SELECT DISTINCT VALUE c.kept FROM c",
        "SELECT c.id FROM c ORDER BY c.id DESC OFFSET 3 LIMIT 20",
    ];
    let scopes = [scope("loads", &["x"]), scope("loads", &[])];
    let mut expected = Vec::new();
    for scope in &scopes {
        for text in texts {
            let (found, count) = pages(&system, scope, text, 1_000).await;
            assert!(count <= 2);
            expected.push(found);
        }
    }
    stop(system).await;
    for (rows, time) in [(100, Duration::from_secs(60)), (usize::MAX, Duration::ZERO)] {
        let mut config = config(folder.path(), containers());
        (config.reader.rows, config.reader.time) = (rows, time);
        let system = start(config).await;
        let mut expected = expected.iter();
        for scope in &scopes {
            for text in texts {
                // With no time at all a page looks at one document, which is slow enough for a partition.
                if time.is_zero() && scope.key.is_empty() && text.contains("ORDER") {
                    expected.next();
                    continue;
                }
                let (found, count) = pages(&system, scope, text, 1_000).await;
                assert_eq!(&found, expected.next().unwrap(), "{text}");
                let few = text.contains("c.n = 7") || text.contains("350");
                assert!(count > 3 || few, "{text} took {count} pages");
            }
        }
        stop(system).await;
    }
}

/// Documents that nobody sees count towards the budget; a page must get past them.
#[actix::test]
async fn a_cut_query_gets_past_documents_that_nobody_sees() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["n"]]);
    let mut config = config(folder.path(), [loads]);
    config.reader.rows = 50;
    config.default_shards = 2;
    config.upkeep = None;
    let system = start(config).await;
    for lane in ["a", "b", "c", "d"] {
        let documents: Vec<Value> = (0..400).map(|n| numbered(n, lane, n)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
    }
    for lane in ["a", "b", "d"] {
        let address = crate::scene::partition(&system, &scope("loads", &[lane])).address().clone();
        for shard in system.shards() {
            shard.purge(address.as_bytes().to_vec()).await.unwrap();
        }
    }
    put(&system, &scope("loads", &["d"]), &[numbered(399, "d", 399)]).await;
    for text in [
        "SELECT VALUE c.id FROM c WHERE c.n >= 399",
        "SELECT VALUE c.id FROM c WHERE c.id > 'a'  AND c.n + 0 >= 399",
        "SELECT VALUE c.id FROM c WHERE c.n >= 0 AND c.n + 0 >= 399",
        "SELECT VALUE c.id FROM c WHERE c.n >= 0 AND c.n + 0 >= 399 ORDER BY c.n DESC",
    ] {
        let (mut found, _) = pages(&system, &scope("loads", &[]), text, 10).await;
        found.sort_unstable_by_key(Value::to_string);
        assert_eq!(found, ["c-00399", "d-00399"], "{text}");
        assert_eq!(pages(&system, &scope("loads", &["d"]), text, 10).await.0, ["d-00399"], "{text}");
        assert_eq!(pages(&system, &scope("loads", &["b"]), text, 10).await.0, Vec::<Value>::new());
    }
    stop(system).await;
}

#[actix::test]
async fn more_queries_than_may_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), [container("loads", &["lane"])]);
    config.reader.queries = 2;
    let system = start(config).await;
    put(&system, &scope("loads", &["x"]), &[numbered(1, "x", 1)]).await;
    let request = request(&scope("loads", &["x"]), "SELECT * FROM c", 10);
    let all = futures_util::future::join_all((0..5).map(|_| system.reader().query(request.clone()))).await;
    let busy = all.iter().filter(|result| matches!(result, Err(QueryFailed::Busy))).count();
    assert_eq!((all.iter().filter(|result| result.is_ok()).count(), busy), (2, 3));
    assert!(system.reader().query(request).await.is_ok());
    stop(system).await;
}
