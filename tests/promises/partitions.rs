//! Partition keys of several parts and of buckets, and the deletion of whole partitions.

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::OTHER_KEY;
use super::server::answer;
use super::store::{self, create, ids};

fn place(id: &str, country: &str, city: &str, street: &str) -> Value {
    json!({ "id": id, "country": country, "city": city, "street": street })
}

#[tokio::test]
async fn a_key_of_several_parts_names_one_partition_and_its_beginning_names_many() {
    let house = store::house("");
    let server = house.start().await;
    let created = create(&server, "/store/places", &place("1", "no", "oslo", "a/b")).await;
    assert_eq!(created.header("location"), "/store/places/no/oslo/a%2Fb/1");
    assert_eq!(server.get(created.header("location")).await.text, created.text);
    for (id, country, city, street) in [
        ("2", "no", "oslo", "c"),
        ("3", "no", "bergen", "c"),
        ("4", "se", "oslo", "c"),
        ("5", "no", "os", "lo"),
    ] {
        create(&server, "/store/places", &place(id, country, city, street)).await;
    }
    // The same id in another partition is another document.
    create(&server, "/store/places", &place("1", "no", "oslo", "c")).await;
    let mut found = ids(&server.get("/store/places/no/oslo").await);
    found.sort();
    assert_eq!(found, ["1", "1", "2"]);
    let mut found = ids(&server.get("/store/places/no").await);
    found.sort();
    assert_eq!(found, ["1", "1", "2", "3", "5"]);
    assert!(ids(&server.get("/store/places/n").await).is_empty());
    let moved = server.send(Method::PUT, "/store/places/no/oslo/c/2", &place("2", "no", "bergen", "c")).await;
    is_problem(&moved, 400, "partition_key_mismatch", "a body of another partition");
    let wrong = json!({ "id": "9", "country": "no", "city": ["oslo"], "street": "c" });
    let wrong = server.send(Method::POST, "/store/places", &wrong).await;
    is_problem(&wrong, 400, "invalid_partition_key", "a list as a part of the key");
    // A part that is missing is a value of its own, and no path leads to it.
    let partial =
        create(&server, "/store/places", &json!({ "id": "7", "country": "no", "city": null })).await;
    assert_eq!(partial.header("location"), "");
}

#[tokio::test]
async fn buckets_of_the_id_spread_documents_and_nobody_has_to_name_them() {
    let house = store::house("");
    let server = house.start().await;
    for n in 0..40 {
        let body = json!({ "id": format!("q{n}"), "tenantId": "t", "n": n });
        let created = create(&server, "/store/quotes", &body).await;
        assert_eq!(created.header("location"), format!("/store/quotes/t/q{n}"));
        assert_eq!(server.get(created.header("location")).await.text, created.text);
    }
    assert_eq!(ids(&server.get("/store/quotes/t").await).len(), 40);
    let again = server.send(Method::POST, "/store/quotes", &json!({ "id": "q1", "tenantId": "t" })).await;
    is_problem(&again, 409, "document_exists", "the id has one bucket only");
    let path = "/store/quotes/t/q1";
    let put = server.send(Method::PUT, path, &json!({ "tenantId": "t", "n": 7 })).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let patch = json!([{ "op": "incr", "path": "/n", "value": 1 }]);
    assert_eq!(server.send(Method::PATCH, path, &patch).await.body["n"], 8);
    // Another tenant's space is another one, whatever the path says.
    let foreign = |path: &str| server.anonymous(Method::GET, path).header("x-api-key", OTHER_KEY);
    assert_eq!(answer(foreign(path)).await.status, 404);
    assert!(ids(&answer(foreign("/store/quotes/t")).await).is_empty());
    assert_eq!(answer(foreign("/store/quotes")).await.body["documents"], json!([0]));
    assert_eq!(answer(server.request(Method::DELETE, path)).await.status, 204);
    assert_eq!(ids(&server.get("/store/quotes/t").await).len(), 39);
    // A document without an id gets one, and its bucket with it.
    let nameless = create(&server, "/store/quotes", &json!({ "tenantId": "t" })).await;
    assert_eq!(server.get(nameless.header("location")).await.text, nameless.text);
}

#[tokio::test]
async fn a_deleted_partition_is_empty_at_once_and_can_be_filled_again() {
    let house = store::house("");
    let server = house.start().await;
    for n in 0..30 {
        for lane in ["a", "b"] {
            let body =
                json!({ "id": format!("l{n:02}"), "lane": lane, "ref": format!("r{n}"), "status": "open" });
            create(&server, "/store/loads", &body).await;
        }
    }
    assert_eq!(answer(server.request(Method::DELETE, "/store/loads/a")).await.status, 204);
    assert!(ids(&server.get("/store/loads/a").await).is_empty());
    assert!(ids(&server.get("/store/find/a?status=open").await).is_empty());
    assert_eq!(server.get("/store/loads/a/l01").await.status, 404);
    assert_eq!(ids(&server.get("/store/loads/b").await).len(), 30);
    // Ids and unique keys are free again.
    create(&server, "/store/loads", &json!({ "id": "l01", "lane": "a", "ref": "r1" })).await;
    assert_eq!(ids(&server.get("/store/loads/a").await), ["l01"]);
    server.kill();
    let server = house.start().await;
    assert_eq!(ids(&server.get("/store/loads/a").await), ["l01"]);
    for (id, city) in [("1", "oslo"), ("2", "oslo"), ("3", "bergen")] {
        create(&server, "/store/places", &place(id, "no", city, id)).await;
    }
    assert_eq!(answer(server.request(Method::DELETE, "/store/places/no/oslo")).await.status, 204);
    assert_eq!(ids(&server.get("/store/places/no").await), ["3"]);
}
