//! A backup of a running server, and a server started from it.

use std::process::Output;

use reqwest::Method;
use serde_json::json;

use super::bucket::{Asked, BUCKET, Bucket};
use super::project;
use super::server::{House, Server};

const LOADS: &str = "/freight/v1/loads";

#[tokio::test]
async fn a_restored_backup_serves_the_same_documents_to_the_same_keys() {
    let house = project::house("", "");
    let server = house.start().await;
    for n in 0..20 {
        let body = json!({ "id": format!("d{n}"), "lane": format!("lane-{}", n % 3) });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
    let before = server.get(&format!("{LOADS}/lane-0")).await;
    let made = house.verb(&["backup", "copy", "--admin", &server.admin, "--data", "data"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = house.verb(&["backup", "copy", "--admin", &server.admin, "--data", "data"]);
    assert_eq!(again.status.code(), Some(1), "a backup was written over another");
    let over = house.verb(&["restore", "copy", "data"]);
    assert_eq!(over.status.code(), Some(1), "a live data directory was written over");
    server.kill();

    std::fs::rename(house.data(), house.data().with_file_name("lost")).unwrap();
    let restored = house.verb(&["restore", "copy", "data"]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let server = house.start().await;
    assert_eq!(server.get(&format!("{LOADS}/lane-0")).await.body, before.body);
    let body = json!({ "id": "after", "lane": "lane-0" });
    assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    server.kill();
}

/// A house whose processes know the bucket.
fn house_with(bucket: &Bucket) -> House {
    bucket.known_to(project::house("", ""))
}

async fn fill(server: &Server) {
    for n in 0..20 {
        let body = json!({ "id": format!("d{n}"), "lane": format!("lane-{}", n % 3) });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
}

/// Exit code 1, and one line that has this in it.
fn fails_with(output: &Output, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(text), "no `{text}` in: {said}");
    assert!(!said.contains("the-secret"), "{said}");
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What is beside the data directory.
fn beside(house: &House) -> Vec<String> {
    let entries = std::fs::read_dir(house.data().parent().unwrap()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_in_an_object_store_survives_a_store_that_fails_now_and_then() {
    let bucket = Bucket::start();
    let house = house_with(&bucket);
    let server = house.start().await;
    fill(&server).await;
    // More than goes in one part.
    let text = "x".repeat(1 << 20);
    for n in 0..20 {
        let body = json!({ "id": format!("large-{n}"), "lane": "large", "text": text });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
    let before = server.get(&format!("{LOADS}/lane-0")).await;
    // Every request fails at its first try, with one of the errors that pass.
    let same = |a: &Asked, b: &Asked| (&a.method, &a.key, &a.query) == (&b.method, &b.key, &b.query);
    bucket.fail(move |asked, before| {
        let first = !before.iter().any(|earlier| same(earlier, asked));
        first.then_some(if asked.method == "PUT" { 500 } else { 503 })
    });
    let place = format!("s3://{BUCKET}/nightly/one");
    succeeds(&house.verb(&["backup", &place, "--admin", &server.admin, "--data", "data"]));
    let asked = bucket.asked();
    assert!(asked.iter().all(|asked| asked.signed), "{:?}", asked.iter().find(|asked| !asked.signed));
    assert!(asked.iter().any(|asked| asked.query.contains("partNumber=2")), "large files go in parts");
    assert!(bucket.keys().contains(&"nightly/one/backup.json".to_owned()), "{:?}", bucket.keys());
    assert!(bucket.keys().iter().all(|key| key.starts_with("nightly/one/")), "{:?}", bucket.keys());
    assert_eq!(bucket.unfinished(), 0);
    let again = house.verb(&["backup", &place, "--admin", &server.admin, "--data", "data"]);
    fails_with(&again, "is not empty");
    server.kill();

    std::fs::rename(house.data(), house.data().with_file_name("lost")).unwrap();
    succeeds(&house.verb(&["restore", &place, "data"]));
    assert!(!beside(&house).iter().any(|name| name.starts_with(".restoring")), "{:?}", beside(&house));
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let server = house.start().await;
    assert_eq!(server.get(&format!("{LOADS}/lane-0")).await.body, before.body);
    assert_eq!(server.get(&format!("{LOADS}/large/large-19")).await.body["text"], text);
    server.kill();
}

#[tokio::test]
async fn a_store_that_fails_for_good_leaves_no_backup_and_nothing_half_restored() {
    let bucket = Bucket::start();
    let house = house_with(&bucket);
    let server = house.start().await;
    fill(&server).await;
    let place = format!("s3://{BUCKET}/nightly");
    let back_up = |place: &str| house.verb(&["backup", place, "--admin", &server.admin, "--data", "data"]);
    bucket.fail(|asked, _| (asked.key.contains("shard-01/log") && asked.method == "PUT").then_some(500));
    fails_with(&back_up(&place), "shard-01/log");
    assert_eq!(bucket.unfinished(), 0, "what was begun is given up");
    fails_with(&house.verb(&["restore", &place, "copy"]), "no `backup.json`");
    bucket.fail(|asked, _| (asked.method == "PUT").then_some(403));
    fails_with(&back_up(&format!("s3://{BUCKET}/denied")), "403");

    bucket.fail(|_, _| None);
    succeeds(&back_up(&format!("s3://{BUCKET}/whole")));
    server.kill();
    let untouched = beside(&house);
    let restore = || house.verb(&["restore", &format!("s3://{BUCKET}/whole"), "copy"]);
    bucket.fail(|asked, _| asked.key.contains("shard-01/view.rows").then_some(500));
    fails_with(&restore(), "shard-01/view.rows");
    assert_eq!(beside(&house), untouched);
    bucket.fail(|_, _| None);
    bucket.change("whole/shard-01/view.rows", |bytes| bytes[20] ^= 1);
    fails_with(&restore(), "`shard-01/view.rows` of the backup is damaged");
    assert_eq!(beside(&house), untouched);
    bucket.change("whole/shard-01/view.rows", |bytes| bytes[20] ^= 1);
    bucket.change("whole/pepper", |bytes| bytes.truncate(bytes.len() - 1));
    fails_with(&restore(), "`pepper` of the backup is damaged");
    assert_eq!(beside(&house), untouched);
    fails_with(&house.verb(&["restore", &format!("s3://{BUCKET}/whole"), "data"]), "is not empty");
}

#[tokio::test]
async fn a_place_that_cannot_be_is_refused_before_anything_is_copied() {
    let house = project::house("", "");
    let server = house.start().await;
    for (place, code) in [("ftp://a/b", 64), ("s3://", 64), ("s3://key:word@bucket/x", 64)] {
        let refused = house.verb(&["backup", place, "--admin", &server.admin, "--data", "data"]);
        assert_eq!(
            refused.status.code(),
            Some(code),
            "{place}: {}",
            String::from_utf8_lossy(&refused.stderr)
        );
        assert!(!String::from_utf8_lossy(&refused.stderr).contains("word"), "{place}");
        let refused = house.verb(&["restore", place, "copy"]);
        assert_eq!(refused.status.code(), Some(code), "{place}");
    }
    server.kill();
    let house = house.with("AWS_ENDPOINT_URL", "http://store.example:9000").with("AWS_REGION", "here");
    let server = house.start().await;
    let refused = house.verb(&["backup", "s3://bucket/x", "--admin", &server.admin, "--data", "data"]);
    fails_with(&refused, "is not encrypted");
    fails_with(&house.verb(&["restore", "s3://bucket/x", "copy"]), "is not encrypted");
    server.kill();
}
