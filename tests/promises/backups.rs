//! A backup of a running server, and a server started from it.

use reqwest::Method;
use serde_json::json;

use super::project;

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
