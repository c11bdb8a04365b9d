//! Data in, data out, data gone: import, export, containers, hot partitions, and the delete of whole partitions.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::{self, OTHER_KEY};
use super::query::{ask, fill};
use super::server::{Answer, Server, TOKEN, answer};

const LOADS: &str = "/freight/v1/loads";

async fn import(server: &Server, place: &str, lines: impl Into<reqwest::Body>) -> Answer {
    answer(server.operator(Method::POST, &format!("/v1/containers/{place}")).body(lines)).await
}

async fn export(server: &Server, place: &str) -> Vec<Value> {
    let lines = server.ask(&format!("/v1/containers/{place}")).await;
    assert_eq!((lines.status, lines.header("content-type")), (200, "application/x-ndjson"), "{}", lines.text);
    lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn delete(server: &Server, place: &str) -> Answer {
    answer(server.operator(Method::DELETE, &format!("/v1/containers/{place}"))).await
}

#[tokio::test]
async fn every_line_of_an_import_has_a_result_of_its_own() {
    let house = project::house("body: 64KiB", "");
    let server = house.start().await;
    fill(&server, 1).await;
    let long = "x".repeat(200_000);
    let lines = format!(
        "{}\n\n{}\n{}\n{}\n{}\n{}\n{}",
        json!({ "id": "a", "lane": "l0", "weight": 1 }),
        json!({ "id": "d0", "lane": "l0" }),
        "not json",
        json!({ "id": "b", "lane": { "no": "key" } }),
        json!({ "id": "c", "lane": "l0", "text": long }),
        json!({ "lane": "l1" }),
        json!({ "id": "a", "lane": "l0", "weight": 2 }),
    );
    let done = import(&server, "loads/import", lines.clone()).await;
    assert_eq!((done.status, &done.body["created"]), (200, &json!(2)), "{}", done.text);
    assert_eq!((&done.body["failed_count"], &done.body["skipped"]), (&json!(5), &json!(0)));
    let failed = done.body["failed"].as_array().unwrap();
    let failed: Vec<_> =
        failed.iter().map(|failed| (&failed["line"], failed["code"].as_str().unwrap())).collect();
    let expected = [
        (json!(3), "document_exists"),
        (json!(4), "invalid_json"),
        (json!(5), "invalid_partition_key"),
        (json!(6), "body_too_large"),
        (json!(8), "document_exists"),
    ];
    assert_eq!(failed, expected.iter().map(|(line, code)| (line, *code)).collect::<Vec<_>>());
    assert_eq!(server.get(&format!("{LOADS}/l0/a")).await.body["weight"], json!(1));
    let skipped = import(&server, "loads/import?on_conflict=skip", lines.clone()).await;
    assert_eq!(
        (&skipped.body["created"], &skipped.body["skipped"]),
        (&json!(1), &json!(3)),
        "{}",
        skipped.text
    );
    let replaced = import(&server, "loads/import?on_conflict=replace", lines).await;
    assert_eq!(
        (&replaced.body["created"], &replaced.body["replaced"]),
        (&json!(1), &json!(3)),
        "{}",
        replaced.text
    );
    // The later of two lines about a document is written later.
    assert_eq!(server.get(&format!("{LOADS}/l0/a")).await.body["weight"], json!(2));
}

#[tokio::test]
async fn what_is_exported_can_be_imported_and_is_the_same() {
    let (house, other) = (project::house("", ""), project::house("", ""));
    let (server, target) = (house.start().await, other.start().await);
    let mut lines = String::new();
    for number in 0..3_000 {
        writeln!(
            lines,
            r#"{{"id":"d{number}","lane":"l{}","price":{number}.10,"big":12345678901234567890}}"#,
            number % 7
        )
        .unwrap();
    }
    let done = import(&server, "loads/import", lines.clone()).await;
    assert_eq!(
        (&done.body["created"], &done.body["failed_count"]),
        (&json!(3_000), &json!(0)),
        "{}",
        done.text
    );
    let pretty = server.request(Method::POST, LOADS).header("content-type", "application/json");
    let pretty = pretty.body("{\n  \"id\": \"pretty\",\r\n  \"lane\": \"l0\",\n  \"text\": \"a\\nb\"\n}");
    assert_eq!(answer(pretty).await.status, 201);
    let exported = server.ask("/v1/containers/loads/export").await.text;
    let mut wanted: BTreeSet<_> = lines.lines().collect();
    let kept: BTreeSet<_> = exported.lines().filter(|line| !line.contains("pretty")).collect();
    assert_eq!(kept, std::mem::take(&mut wanted));
    assert_eq!(exported.lines().count(), 3_001);
    let done = import(&target, "loads/import", exported.clone()).await;
    assert_eq!(done.body["created"], json!(3_001), "{}", done.text);
    let again = target.ask("/v1/containers/loads/export").await.text;
    let sorted = |text: &str| text.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&again), sorted(&exported));
    let lane = export(&server, "loads/export?partition=%5B%22l3%22%5D").await;
    assert_eq!(lane.len(), (0..3_000).filter(|number| number % 7 == 3).count());
    assert!(export(&server, "loads/export?partition=%5B%22none%22%5D").await.is_empty());
}

#[tokio::test]
async fn an_import_of_any_length_is_taken_as_it_comes() {
    let house = project::house("body: 64KiB, partition_queue: 16", "");
    let server = house.start().await;
    // More than the limit of a body, in one partition whose queue is shorter than what is in flight.
    let text = "x".repeat(1_000);
    let pieces = (0..40).map(|piece| {
        let lines = (0..50)
            .map(|line| format!("{}\n", json!({ "id": format!("{piece}-{line}"), "lane": "a", "t": text })));
        lines.collect::<String>()
    });
    let body = pieces.collect::<Vec<_>>().concat();
    assert!(body.len() > 2_000_000);
    let done = import(&server, "loads/import", body).await;
    assert_eq!(
        (&done.body["created"], &done.body["failed_count"]),
        (&json!(2_000), &json!(0)),
        "{}",
        done.text
    );
}

#[tokio::test]
async fn a_bad_import_or_export_is_refused_whole() {
    let house = project::house("", "");
    let server = house.start().await;
    for (place, status, code) in [
        ("lods/import", 404, "container_not_found"),
        ("loads/import?on_conflict=ask", 400, "invalid_request"),
        ("loads/import?tenant=acme", 400, "invalid_request"),
        ("notes/import", 400, "invalid_request"),
    ] {
        is_problem(&import(&server, place, "{}").await, status, code, place);
    }
    for (place, status, code) in [
        ("lods/export", 404, "container_not_found"),
        ("loads/export?system=true", 400, "invalid_request"),
        ("notes/export?partition=%5B%22ann%22%5D", 400, "invalid_request"),
        ("loads/export?partition=x", 400, "invalid_request"),
    ] {
        is_problem(&server.ask(&format!("/v1/containers/{place}")).await, status, code, place);
    }
    let packed =
        server.operator(Method::POST, "/v1/containers/loads/import").header("content-encoding", "gzip");
    is_problem(&answer(packed.body("x")).await, 415, "unsupported_content_encoding", "packed");
    let stranger = server.operator(Method::POST, "/v1/containers/loads/import").bearer_auth("guess");
    assert_eq!(answer(stranger.body("{}")).await.refused(), (401, "invalid_token"));
    assert!(export(&server, "loads/export").await.is_empty());
}

#[tokio::test]
async fn a_deleted_partition_is_gone_at_once_and_for_good_and_no_other() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 30).await;
    let gone = delete(&server, "loads/partitions?partition=%5B%22l1%22%5D").await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    assert_eq!(server.get(&format!("{LOADS}/l1")).await.body["count"], json!(0));
    is_problem(&server.get(&format!("{LOADS}/l1/d1")).await, 404, "document_not_found", "deleted");
    assert_eq!(export(&server, "loads/export").await.len(), 20);
    let count = json!({ "query": "SELECT VALUE COUNT(1) FROM c" });
    assert_eq!(ask(&server, "loads", &count).await.body["documents"], json!([20]));
    // What is written afterwards stays, over a restart too.
    assert_eq!(server.send(Method::POST, LOADS, &json!({ "id": "d1", "lane": "l1" })).await.status, 201);
    server.kill();
    let server = house.start().await;
    assert_eq!(server.get(&format!("{LOADS}/l1")).await.body["count"], json!(1));
    assert_eq!(ask(&server, "loads", &count).await.body["documents"], json!([21]));
    for (place, code) in [
        ("loads/partitions", "invalid_request"),
        ("loads/partitions?partition=%5B%5D", "invalid_request"),
        ("loads/partitions?partition=l1", "invalid_request"),
        ("loads/partitions?tenant=acme", "invalid_request"),
        ("notes/partitions?partition=%5B%22ann%22%5D", "invalid_request"),
        ("notes/partitions", "invalid_request"),
    ] {
        is_problem(&delete(&server, place).await, 400, code, place);
    }
    assert_eq!(ask(&server, "loads", &count).await.body["documents"], json!([21]));
}

#[tokio::test]
async fn a_tenants_documents_can_be_deleted_without_touching_anothers() {
    let house = project::house("", "");
    let server = house.start().await;
    for number in 0..6 {
        let note = json!({ "id": "n", "owner": format!("o{number}") });
        assert_eq!(server.send(Method::POST, "/notes", &note).await.status, 201);
        let theirs = server.anonymous(Method::POST, "/notes").header("x-api-key", OTHER_KEY).json(&note);
        assert_eq!(answer(theirs).await.status, 201);
    }
    assert_eq!(delete(&server, "notes/partitions?tenant=acme").await.status, 204);
    assert!(export(&server, "notes/export?tenant=acme").await.is_empty());
    assert_eq!(export(&server, "notes/export?tenant=other").await.len(), 6);
    assert_eq!(export(&server, "notes/export").await.len(), 6);
    let place = "notes/partitions?tenant=other&partition=%5B%22o3%22%5D";
    assert_eq!(delete(&server, place).await.status, 204);
    assert_eq!(export(&server, "notes/export?tenant=other").await.len(), 5);
    let line = format!("{}\n", json!({ "id": "n", "owner": "o3" }));
    assert_eq!(import(&server, "notes/import?tenant=other", line).await.body["created"], json!(1));
    let read = server.anonymous(Method::GET, "/notes/o3/n").header("x-api-key", OTHER_KEY);
    assert_eq!(answer(read).await.status, 200);
}

#[tokio::test]
async fn containers_and_their_busiest_partitions_are_shown() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 9).await;
    for _ in 0..20 {
        assert_eq!(server.get(&format!("{LOADS}/l1/d1")).await.status, 200);
    }
    let all = server.ask("/v1/containers").await;
    assert_eq!((all.status, &all.body["count"]), (200, &json!(2)), "{}", all.text);
    let [loads, notes] = all.body["containers"].as_array().unwrap().as_slice() else {
        panic!("{}", all.text)
    };
    assert_eq!((&loads["name"], &loads["tenancy"]), (&json!("loads"), &json!("shared")));
    assert_eq!((&loads["partition_key"], &notes["tenancy"]), (&json!(["/lane"]), &json!("isolated")));
    for property in ["unique", "indexes", "ttl_seconds", "throughput", "ru_per_s", "throttled"] {
        assert!(loads.get(property).is_some(), "no {property}: {loads}");
    }
    assert!(loads["consumed_ru"].as_f64().unwrap() > 60.0, "{loads}");
    assert_eq!(notes["consumed_ru"], json!(0.0));
    let hot = server.ask("/v1/containers/loads/partitions?top=2").await;
    let partitions = hot.body["partitions"].as_array().unwrap();
    assert_eq!((partitions.len(), &partitions[0]["partition"]), (2, &json!(["l1"])), "{}", hot.text);
    assert!(partitions[0]["ru_per_s"].as_f64() > partitions[1]["ru_per_s"].as_f64(), "{}", hot.text);
    assert_eq!((&partitions[0]["awake"], &partitions[0]["queue"]), (&json!(true), &json!(0)));
    is_problem(&server.ask("/v1/containers/lods/partitions").await, 404, "container_not_found", "lods");
    for bad in ["0", "x"] {
        let bad = server.ask(&format!("/v1/containers/loads/partitions?top={bad}")).await;
        is_problem(&bad, 400, "invalid_request", "top");
    }
}

#[tokio::test]
async fn the_command_line_moves_documents_and_shows_what_is_busy() {
    let house = project::house("", "");
    let server = house.start().await;
    let run = |arguments: &[&str]| {
        let output = house.verb(&[arguments, &["--admin", &server.admin]].concat());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let file = house.data().with_file_name("loads.ndjson");
    let line = |number: usize| {
        format!("{}\n", json!({ "id": format!("d{number}"), "lane": format!("l{}", number % 2) }))
    };
    std::fs::write(&file, (0..2_500).map(line).collect::<String>() + "rubbish\n").unwrap();
    let (code, out, err) = run(&["import", "loads", "loads.ndjson"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("2501  invalid_json"), "{out}");
    assert!(out.ends_with("2500 documents created, 0 replaced, 0 skipped, 1 failed\n"), "{out}");
    std::fs::write(&file, (0..2_500).map(line).collect::<String>()).unwrap();
    let (code, out, _) = run(&["import", "loads", "loads.ndjson", "--on-conflict", "skip", "--json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["skipped"], &out["created"]), (Some(0), &json!(2_500), &json!(0)));
    let (code, out, _) = run(&["export-documents", "loads"]);
    assert_eq!(code, Some(0));
    assert_eq!(out.lines().collect::<BTreeSet<_>>().len(), 2_500);
    let (_, out, _) = run(&["export-documents", "loads", "--partition", "[\"l0\"]"]);
    assert_eq!(out.lines().count(), 1_250);
    let (code, out, _) = run(&["partitions", "top"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("CONTAINER  TENANT") && out.contains("[\"l0\"]"), "{out}");
    let (_, out, _) = run(&["partitions", "top", "--container", "notes", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["partitions"], json!([]));
    assert_eq!(run(&["export-documents", "lods"]).0, Some(1));
    assert_eq!(run(&["import", "loads", "nothing.ndjson"]).0, Some(64));
}

#[tokio::test]
async fn an_export_that_cannot_be_finished_never_looks_complete() {
    let house = project::house("", "");
    let mut server = house.start().await;
    let text = "x".repeat(100_000);
    for piece in 0..10 {
        let line =
            |line: usize| format!("{}\n", json!({ "id": format!("{piece}-{line}"), "lane": "a", "t": text }));
        let done = import(&server, "loads/import", (0..30).map(line).collect::<String>()).await;
        assert_eq!(done.body["created"], json!(30), "{}", done.text);
    }
    // Far more than sockets hold, and a reader who stops after the first piece.
    let url = format!("{}/v1/containers/loads/export", server.admin);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut stream = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    server.terminate();
    assert!(server.ended().await.success(), "{}", house.log());
    let mut outcome = stream.chunk().await;
    while let Ok(Some(_)) = outcome {
        outcome = stream.chunk().await;
    }
    assert!(outcome.is_err(), "the stream ended as if it were whole");
}

#[tokio::test]
async fn the_admin_api_describes_itself_to_whoever_has_the_token() {
    let house = project::house("", "");
    let server = house.start().await;
    let described = server.ask("/openapi.json").await;
    assert_eq!((described.status, &described.body["openapi"]), (200, &json!("3.1.0")));
    assert!(described.body["paths"]["/v1/containers/{container}/query"]["post"].is_object());
    let stranger = answer(server.operator(Method::GET, "/openapi.json").bearer_auth("guess")).await;
    assert_eq!(stranger.refused(), (401, "invalid_token"));
}
