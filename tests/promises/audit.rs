//! What operators change and who is refused is in the audit log, whole, unchangeable, and without a secret.

use std::path::PathBuf;
use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};

use super::server::{House, KEY, Server, TOKEN, answer};

/// A key of nobody, which no file of the server may ever have.
const WRONG: &str = "planted-secret-key-of-nobody";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoic2VjcmV0In0.c2VjcmV0LXNpZ25hdHVyZQ";

fn manifest(audit: &str) -> String {
    format!(
        r#"
manifest: 1
project: audited
audit: {{ {audit} }}
containers:
  loads: {{ partition_key: [/lane] }}
topics:
  load-events: {{ from: {{ container: loads, types: {{ created: Created }} }} }}
event_subscriptions:
  all: {{ topic: load-events, to: {{ webhook: "http://127.0.0.1:9/x?code=planted-url-secret", allow: [127.0.0.0/8] }} }}
apis:
  loads:
    path: /loads
    operations:
      create: {{ method: POST, path: /, to: {{ container: loads, do: create }} }}
products:
  all: {{ apis: [loads], key: header_or_query }}
api_keys:
  main: {{ product: all, tenant: acme, primary: {{ env: MAIN }} }}
"#
    )
}

async fn records(server: &Server, query: &str) -> Vec<Value> {
    let page = server.ask(&format!("/v1/audit?limit=1000{query}")).await;
    assert_eq!(page.status, 200, "{}", page.text);
    page.body["records"].as_array().unwrap().clone()
}

/// The records of an action, which must come by themselves.
async fn until(server: &Server, action: &str, wanted: usize) -> Vec<Value> {
    let path = format!("/v1/audit?limit=1000&action={action}");
    let page = server.until(&path, |page| page.body["count"].as_u64().unwrap_or(0) as usize >= wanted).await;
    page.body["records"].as_array().unwrap().clone()
}

fn verify(house: &House) -> Output {
    house.verb(&["audit", "verify", "data"])
}

fn assert_sound(house: &House) {
    let verified = verify(house);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Everything that lies in the log's folder.
fn texts(house: &House) -> String {
    let files = std::fs::read_dir(house.data().join("audit")).unwrap();
    files
        .map(|file| String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned())
        .collect()
}

fn first_file(house: &House) -> PathBuf {
    house.data().join("audit/00000001.ndjson")
}

#[tokio::test]
async fn every_change_is_recorded_before_and_after() {
    let house = House::new(&manifest(""));
    let server = house.start().await;
    let post = |path: &str, body: Value| server.operator(Method::POST, path).json(&body);
    let issued = answer(post("/v1/keys", json!({ "product": "all", "tenant": "acme" }))).await;
    let id = issued.body["id"].as_str().unwrap().to_owned();
    let rotated = answer(post(&format!("/v1/keys/{id}:rotate"), json!({ "slot": "secondary" }))).await;
    for step in ["suspend", "resume"] {
        assert_eq!(answer(post(&format!("/v1/keys/{id}:{step}"), json!({}))).await.status, 200);
    }
    assert_eq!(answer(server.operator(Method::DELETE, &format!("/v1/keys/{id}"))).await.status, 200);
    for step in ["pause", "resume"] {
        assert_eq!(answer(post(&format!("/v1/subscriptions/all:{step}"), json!({}))).await.status, 200);
    }
    answer(post("/v1/subscriptions/all:replay", json!({}))).await;
    answer(post("/v1/subscriptions/all/dead-letters:replay", json!({ "all": true }))).await;
    answer(server.operator(Method::DELETE, "/v1/subscriptions/all/dead-letters")).await;
    let gone = "/v1/containers/loads/partitions?partition=%5B%22a%22%5D";
    assert_eq!(answer(server.operator(Method::DELETE, gone)).await.status, 204);
    let import = server.operator(Method::POST, "/v1/containers/loads/import").body("{\"lane\":\"a\"}\n7\n");
    assert_eq!(answer(import).await.body["created"], 1);
    let to = house.data().parent().unwrap().join("backup");
    assert_eq!(answer(post("/v1/backup", json!({ "to": to }))).await.status, 201);
    answer(post("/v1/actors:reopen", json!({ "container": "loads", "partition": ["none"] }))).await;
    answer(server.operator(Method::DELETE, "/v1/keys/lk_planted-in-the-path-by-mistake")).await;
    let all = records(&server, "&from=beginning").await;
    assert_eq!(all[0]["action"], "process.started");
    assert!(all[0]["after"]["manifest"].as_str().unwrap().starts_with("sha256:"));
    for action in [
        "key.issue",
        "key.rotate",
        "key.suspend",
        "key.resume",
        "key.revoke",
        "subscription.pause",
        "subscription.resume",
        "subscription.replay",
        "dead_letters.replay",
        "dead_letters.purge",
        "partition.delete",
        "documents.import",
        "backup.make",
        "partition.reopen",
    ] {
        let of: Vec<_> = all.iter().filter(|record| record["action"] == action).collect();
        let [begun, ended, ..] = of.as_slice() else { panic!("{action}: {of:?}") };
        assert_eq!((&begun["outcome"], &begun["actor"]), (&json!("begun"), &json!("operator")), "{action}");
        assert_eq!((&ended["begun"], &ended["client"]), (&begun["seq"], &json!("127.0.0.1")), "{action}");
        assert_eq!(begun["trace"].as_str().unwrap().len(), 32, "{action}");
        let expected = if action == "partition.reopen" { "refused" } else { "done" };
        assert_eq!(ended["outcome"], expected, "{ended}");
    }
    let find = |action: &str, outcome: &str| {
        let found = all.iter().find(|record| record["action"] == action && record["outcome"] == outcome);
        found.unwrap_or_else(|| panic!("{action} {outcome}")).clone()
    };
    let revoked = (find("key.revoke", "begun"), find("key.revoke", "done"));
    assert_eq!(
        (&revoked.0["before"]["state"], &revoked.1["after"]["state"]),
        (&json!("active"), &json!("revoked"))
    );
    assert_eq!(find("key.issue", "done")["target"], json!(id));
    assert_eq!(find("key.rotate", "begun")["asked"]["slot"], "secondary");
    assert_eq!(find("subscription.pause", "done")["after"]["state"], "paused");
    assert_eq!(find("documents.import", "done")["after"]["failed_count"], 1);
    assert_eq!(find("key.revoke", "refused")["code"], "key_not_found");
    assert!(server.stop().await.success());
    assert_sound(&house);
    let text = texts(&house);
    assert!(text.contains("process.stopped"));
    let secrets = ["primary", "secondary"].map(|name| issued.body[name].as_str().unwrap());
    let rotated = rotated.body["secondary"].as_str().unwrap();
    for secret in secrets.into_iter().chain([rotated, KEY, TOKEN, "planted"]) {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn refusals_and_requests_are_recorded_without_their_secrets() {
    let house = House::new(&manifest("requests: all, refusals: 1000/s, addresses: masked"));
    let server = house.start().await;
    let body = json!({ "lane": "planted-in-a-document" });
    let post = |path: &str| server.anonymous(Method::POST, path).json(&body);
    let evil = "a\u{2028}%0d%0a%7b%22seq%22:1%7d";
    let ways = [
        (post("/loads").header("x-api-key", WRONG), 401),
        (post(&format!("/loads?subscription-key={WRONG}")), 401),
        (post("/loads").bearer_auth(JWT), 401),
        (post(&format!("/loads?x={evil}")).header("x-api-key", WRONG).header("user-agent", "planted"), 401),
        (post(&format!("/loads?subscription-key={KEY}&x=planted")), 201),
        (post(&format!("/nowhere/{evil}")).header("x-api-key", KEY), 404),
    ];
    for (request, status) in ways {
        let answered = answer(request).await;
        // A path with a line feed in it is refused as such.
        assert!(answered.status == status || (status == 404 && answered.status == 400), "{}", answered.text);
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let refused =
        answer(http.get(format!("{}/v1/keys", server.admin)).bearer_auth("planted-admin-token")).await;
    assert_eq!(refused.status, 401);
    let refusals = until(&server, "caller.refused", 4).await;
    for refusal in &refusals {
        assert_eq!((&refusal["status"], &refusal["client"]), (&json!(401), &json!("127.0.0.0")), "{refusal}");
        assert!(refusal["code"].is_string() && refusal["operation"] == "create", "{refusal}");
    }
    assert_eq!(until(&server, "admin.refused", 1).await[0]["code"], "invalid_token");
    let requests = until(&server, "request", 6).await;
    let created = requests.iter().find(|record| record["status"] == 201).unwrap();
    assert_eq!(
        (&created["tenant"], &created["grant"], &created["api"]),
        (&json!("acme"), &json!("main"), &json!("loads"))
    );
    assert!(created["latency_us"].is_u64() && created["bytes_in"].as_u64().unwrap() > 10, "{created}");
    assert!(created["bytes_out"].as_u64().unwrap() > 10 && created["trace"].is_string(), "{created}");
    let metrics = server.ask("/metrics").await.text;
    assert!(metrics.contains("lanekeeper_audit_dropped_total 0"), "{metrics}");
    assert!(server.stop().await.success());
    assert_sound(&house);
    let text = texts(&house);
    for secret in ["planted", WRONG, KEY, TOKEN, JWT, "eyJ"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_kill_loses_no_record_that_was_acknowledged() {
    let house = House::new(&manifest("requests: all"));
    let mut known: Vec<String> = Vec::new();
    for round in 0..5 {
        let server = house.start().await;
        for _ in 0..3 {
            let new = json!({ "product": "all", "tenant": "acme" });
            let issued = answer(server.operator(Method::POST, "/v1/keys").json(&new)).await;
            known.push(issued.body["id"].as_str().unwrap().to_owned());
        }
        let load = futures_util::future::join_all((0..50).map(|n| {
            let body = json!({ "lane": format!("l-{n}") });
            server.request(Method::POST, "/loads").json(&body).send()
        }));
        // Killed with requests and records under way.
        tokio::time::timeout(std::time::Duration::from_millis(round * 10), load).await.ok();
        server.kill();
        // Also before anybody starts it again.
        assert_sound(&house);
    }
    let server = house.start().await;
    let mut done = Vec::new();
    let mut from = "beginning".to_owned();
    loop {
        let page = server.ask(&format!("/v1/audit?action=key.issue&limit=7&from={from}")).await;
        done.extend(page.body["records"].as_array().unwrap().clone());
        let cursor = page.body["cursor"].as_str().unwrap().to_owned();
        if page.body["count"] == 0 {
            break;
        }
        from = cursor;
    }
    for id in &known {
        let is_done = |record: &&Value| record["outcome"] == "done" && record["target"] == json!(id);
        assert_eq!(done.iter().filter(is_done).count(), 1, "{id}");
    }
    assert_eq!(until(&server, "process.crashed", 5).await.len(), 5);
    // A log in use can be checked.
    assert_sound(&house);
    assert!(server.stop().await.success());
    let text = std::fs::read_to_string(first_file(&house)).unwrap();
    std::fs::write(first_file(&house), text.replacen("key.issue", "key.is_ue", 1)).unwrap();
    let verified = verify(&house);
    assert_eq!(verified.status.code(), Some(1));
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(told.starts_with("00000001.ndjson, line ") && told.contains("was changed"), "{told}");
    let none = house.verb(&["audit", "verify", "nowhere"]);
    assert_eq!(none.status.code(), Some(1));
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_not_made() {
    let house = House::new(&manifest(""));
    std::fs::create_dir_all(house.data()).unwrap();
    std::fs::write(house.data().join("audit"), "in the way").unwrap();
    let server = house.start().await;
    let new = json!({ "product": "all", "tenant": "acme" });
    let issue = || answer(server.operator(Method::POST, "/v1/keys").json(&new));
    let refused = issue().await;
    assert_eq!(refused.refused(), (503, "audit_unavailable"));
    assert_eq!(server.ask("/v1/keys").await.body["count"], 1);
    let created = server.send(Method::POST, "/loads", &json!({ "lane": "a" })).await;
    assert_eq!(created.status, 201);
    std::fs::remove_file(house.data().join("audit")).unwrap();
    assert_eq!(issue().await.status, 201);
    let listed =
        house.verb(&["audit", "list", "--admin", &server.admin, "--action", "key", "--data", "data"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("key.issue") && listed.contains("operator"), "{listed}");
    let json = house.verb(&["audit", "list", "--admin", &server.admin, "--json", "--limit", "1"]);
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["count"], 1);
    assert!(server.stop().await.success());
    assert_sound(&house);
}
