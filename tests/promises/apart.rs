//! The project in which tenants are kept apart, and its operations as the server declares them: what is tried is made
//! from that, so an operation that nobody has thought of here fails.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::server::{Answer, House, KEY, Server, answer};

/// Calls nothing but `ping`.
pub(crate) const NARROW_KEY: &str = "only-for-pings-key-01";
/// Was good until the year 2020.
pub(crate) const EXPIRED_KEY: &str = "good-until-2020-key-1";
/// Stands in everything that belongs to the tenant `acme`.
pub(crate) const CANARY: &str = "canary-of-acme";
/// Documents of each partition that somebody else asks for.
pub(crate) const SEEDED: [&str; 3] = ["one", "two", "three"];

/// Each isolated container, and its part of a path.
pub(crate) const ISOLATED: [(&str, &str); 2] = [("notes", "/{owner}"), ("places", "/{country}/{city}")];

/// The operations of one isolated container. The name of each begins with what it does.
pub(crate) fn operations(container: &str, key: &str) -> String {
    let parts: Vec<_> = key.split('/').skip(1).map(|part| format!("\"{part}\"")).collect();
    let (all, first) = (format!("[{}]", parts.join(", ")), &parts[0]);
    let one = format!("container: {container}, partition: {all}, id: \"{{id}}\"");
    let many = format!("container: {container}, partition: {all}");
    let prefix = key.split('/').nth(1).unwrap();
    format!(
        r#"
  {container}:
    path: /{container}
    operations:
      create: {{ method: POST, path: /, to: {{ container: {container}, do: create }}, idempotency: optional }}
      read: {{ method: GET, path: "/one{key}/{{id}}", to: {{ {one}, do: read }} }}
      upsert: {{ method: PUT, path: "/one{key}/{{id}}", to: {{ {one}, do: upsert }}, idempotency: optional }}
      replace: {{ method: PUT, path: "/swap{key}/{{id}}", to: {{ {one}, do: replace }}, idempotency: optional }}
      patch: {{ method: PATCH, path: "/one{key}/{{id}}", to: {{ {one}, do: patch }}, idempotency: optional }}
      delete: {{ method: DELETE, path: "/one{key}/{{id}}", to: {{ {one}, do: delete }} }}
      list: {{ method: GET, path: "/all{key}", to: {{ {many}, do: list }} }}
      batch: {{ method: POST, path: "/batch{key}", to: {{ {many}, do: batch }}, idempotency: optional }}
      bulk: {{ method: POST, path: "/bulk{key}", to: {{ {many}, do: bulk }} }}
      query: {{ method: GET, path: "/find{key}", to: {{ {many}, do: query, sql: SELECT * FROM c }} }}
      query-prefix: {{ method: GET, path: "/under/{prefix}", to: {{ container: {container}, partition: {first}, do: query, sql: SELECT c.secret FROM c ORDER BY c.ref }} }}
      query-everything: {{ method: GET, path: /find, to: {{ container: {container}, do: query, sql: SELECT VALUE COUNT(1) FROM c }} }}
      delete_partition: {{ method: DELETE, path: "/all{key}", to: {{ {many}, do: delete_partition }} }}
      delete_partition-prefix: {{ method: DELETE, path: "/under/{prefix}", to: {{ container: {container}, partition: {first}, do: delete_partition }} }}
"#
    )
}

pub(crate) fn manifest() -> String {
    let apis: String = ISOLATED.iter().map(|(container, key)| operations(container, key)).collect();
    format!(
        r#"
manifest: 1
project: apart
limits: {{ auth_failures_per_ip: {{ calls: 100000, per: 1s }} }}
containers:
  notes: {{ partition_key: [/owner], tenancy: isolated, unique: [[/ref]], indexes: [/status] }}
  places: {{ partition_key: [/country, /city], tenancy: isolated }}
topics:
  note-events: {{ from: {{ container: notes, types: {{ created: Created, replaced: Replaced, deleted: Deleted }} }} }}
event_subscriptions:
  nobody: {{ topic: note-events, types: [Replaced], to: {{ webhook: "http://127.0.0.1:9/nobody", allow: [127.0.0.0/8] }} }}
apis:
  ping:
    path: /ping
    operations:
      ping: {{ method: GET, path: /, to: {{ mock: {{ status: 200, body: {{ ok: true }} }} }} }}
{apis}
products:
  all: {{ apis: [ping, notes, places] }}
  narrow: {{ apis: [ping] }}
api_keys:
  main: {{ product: all, tenant: acme, primary: {{ env: MAIN }} }}
  narrow: {{ product: narrow, tenant: acme, primary: {{ env: NARROW }} }}
  expired: {{ product: all, tenant: acme, primary: {{ env: EXPIRED }}, expires: 2020-01-31 }}
"#
    )
}

/// An operation as the server declares it.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// What it does, as in `do`.
    pub(crate) verb: String,
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) route: String,
    /// The container; `None` where it is not about documents.
    pub(crate) container: Option<String>,
}

/// All operations that the server has.
pub(crate) async fn declared(server: &Server) -> Vec<Operation> {
    let manifest = server.ask("/v1/manifest").await.body;
    let mut found = Vec::new();
    for (_, api) in manifest["apis"].as_object().unwrap() {
        for operation in api["operations"].as_array().unwrap() {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            let container = match &operation["to"] {
                Value::String(mock) if mock == "mock" => None,
                to => {
                    Some(to["container"].as_str().expect("somewhere that is not looked at here").to_owned())
                }
            };
            let (name, method) = (text("name"), text("method").parse().unwrap());
            let verb = name.split('-').next().unwrap().to_owned();
            found.push(Operation { verb, name, method, route: text("route"), container });
        }
    }
    found
}

/// Everything that `do` may say, from the complaint about something else.
pub(crate) fn verbs(house: &House) -> BTreeSet<String> {
    let wrong = manifest().replace("do: delete_partition }", "do: nothing-there-is }");
    std::fs::write(house.data().with_file_name("wrong.yaml"), wrong).unwrap();
    let told = house.verb(&["lint", "wrong.yaml"]);
    let told = String::from_utf8([told.stdout, told.stderr].concat()).unwrap();
    let (_, list) = told.split_once("expected one of ").expect("a complaint that lists what there is");
    let (list, _) = list.split_once(", found").unwrap();
    list.split(", ").map(|verb| verb.trim_matches('`').to_owned()).collect()
}

pub(crate) fn house() -> House {
    House::new(&manifest()).with("NARROW", NARROW_KEY).with("EXPIRED", EXPIRED_KEY)
}

/// Where the documents of one case are.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) BTreeMap<&'static str, String>);

impl Place {
    /// One of a kind, with names of the same length for all.
    pub(crate) fn new(prefix: &str, number: usize) -> Self {
        assert_eq!(prefix.len(), 4);
        let names = ["owner", "country", "city"];
        Self(names.iter().map(|name| (*name, format!("{prefix}-{number:04}"))).collect())
    }

    pub(crate) fn path(&self, route: &str, id: &str) -> String {
        let mut path = route.replace("{id}", id);
        for (name, value) in &self.0 {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "nobody knows what to put into `{path}`");
        path
    }

    pub(crate) fn document(&self, id: &str, secret: &str) -> Value {
        let mut document = json!({ "id": id, "ref": format!("ref-{id}"), "status": "new", "secret": secret });
        self.0.iter().for_each(|(name, value)| document[*name] = json!(value));
        document
    }

    /// The partition key in this container.
    pub(crate) fn partition(&self, container: &str) -> Value {
        let (_, key) = ISOLATED.iter().find(|(name, _)| *name == container).unwrap();
        let parts = key.split('/').skip(1).map(|part| self.0[part.trim_matches(['{', '}'])].clone());
        parts.collect::<Vec<_>>().into()
    }
}

/// A request of somebody for the document `id` at a place; several for what can be asked in several ways.
pub(crate) fn requests(
    server: &Server,
    operation: &Operation,
    key: &str,
    place: &Place,
    id: &str,
    secret: &str,
) -> Vec<RequestBuilder> {
    let path = place.path(&operation.route, id);
    let plain = || server.anonymous(operation.method.clone(), &path).header("x-api-key", key);
    let document = place.document(id, secret);
    let change = json!([{ "op": "set", "path": "/status", "value": "changed" }]);
    match operation.verb.as_str() {
        "read" | "delete" | "list" | "query" | "delete_partition" | "ping" => vec![plain()],
        "create" | "upsert" | "replace" => vec![plain().json(&document)],
        "patch" => vec![plain().json(&change)],
        "batch" | "bulk" => [
            json!({ "op": "read", "id": id }),
            json!({ "op": "create", "document": document }),
            json!({ "op": "upsert", "document": document }),
            json!({ "op": "replace", "document": document }),
            json!({ "op": "patch", "id": id, "operations": change }),
            json!({ "op": "delete", "id": id }),
        ]
        .iter()
        .map(|step| plain().json(&json!({ "operations": [step] })))
        .collect(),
        unknown => panic!("no case for `do: {unknown}`: what may another tenant learn from it?"),
    }
}

/// What somebody may have picked up.
#[derive(Debug, Default)]
pub(crate) struct Loot {
    pub(crate) etag: String,
    pub(crate) session: String,
    /// Of a request that was made with it; the same body is sent again.
    pub(crate) idempotency_key: String,
    pub(crate) continuation: Option<String>,
}

/// Makes the documents of `acme` at a place, and what others may pick up of them.
pub(crate) async fn seed(server: &Server, operation: &Operation, place: &Place, number: usize) -> Loot {
    let container = operation.container.as_deref().unwrap();
    let mut loot = Loot { idempotency_key: format!("repeat-{number}"), ..Loot::default() };
    for id in SEEDED {
        // What another asks for with the same key, `acme` has done with it.
        let repeated = operation.verb == "create" && id == SEEDED[0];
        let mut request = server.request(Method::POST, &format!("/{container}"));
        if repeated {
            request = request.header("idempotency-key", &loot.idempotency_key);
        }
        let made = answer(request.json(&place.document(id, CANARY))).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    if ["upsert", "replace", "patch", "batch"].contains(&operation.verb.as_str()) {
        let mut requests = requests(server, operation, KEY, place, SEEDED[0], CANARY);
        let last = if operation.verb == "batch" { requests.swap_remove(2) } else { requests.swap_remove(0) };
        let done = answer(last.header("idempotency-key", &loot.idempotency_key)).await;
        assert_eq!(done.status, 200, "{}", done.text);
    }
    let read = server.get(&place.path(&read_route(container), SEEDED[0])).await;
    assert_eq!(read.status, 200, "{}", read.text);
    loot.etag = read.header("etag").to_owned();
    loot.session = read.header("x-session-token").to_owned();
    if ["list", "query"].contains(&operation.verb.as_str()) {
        let page = server.get(&format!("{}?limit=1", place.path(&operation.route, ""))).await;
        assert_eq!(page.status, 200, "{}", page.text);
        loot.continuation =
            page.headers.get("x-continuation").map(|token| token.to_str().unwrap().to_owned());
    }
    loot
}

pub(crate) fn read_route(container: &str) -> String {
    let (_, key) = ISOLATED.iter().find(|(name, _)| *name == container).unwrap();
    format!("/{container}/one{key}/{{id}}")
}

/// All that `acme` has at a place, versions included.
pub(crate) async fn kept(server: &Server, container: &str, place: &Place) -> String {
    let kept = look(server, container, place).await;
    assert_eq!(kept.body["count"], json!(SEEDED.len()), "{}", kept.text);
    assert!(kept.text.contains("_etag"), "versions are seen: {}", kept.text);
    kept.body["documents"].to_string()
}

/// How many documents that are.
pub(crate) async fn count(server: &Server, container: &str, place: &Place) -> u64 {
    look(server, container, place).await.body["count"].as_u64().unwrap()
}

async fn look(server: &Server, container: &str, place: &Place) -> Answer {
    let partition = place.partition(container);
    let question = json!({ "query": "SELECT * FROM c", "tenant": "acme", "partition": partition });
    let path = format!("/v1/containers/{container}/query");
    let found = answer(server.operator(Method::POST, &path).json(&question)).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found
}
