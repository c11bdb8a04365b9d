//! Which operation answers, and where documents are.

use lanekeeper_actors::model::address::KeyPart;

use super::*;
use crate::http::path;
use crate::manifest::{Source, Sources, load};

const MANIFEST: &str = r#"
manifest: 1
project: test
containers: { loads: { partition_key: [/lane] }, notes: { partition_key: [/a/b], tenancy: isolated } }
apis:
  freight:
    path: /freight
    version: { by: path, name: v1 }
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      read: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      put: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" } }
      list: { method: GET, path: "/loads/{corridor}", to: { container: loads, do: list, partition: "{corridor}" } }
      search: { method: POST, path: /loads/search, to: { mock: { status: 200 } } }
      root: { method: GET, path: /, to: { mock: { status: 200 } } }
  notes:
    path: /notes
    operations:
      add: { method: POST, path: /, to: { container: notes, do: create, partition: all } }
      one: { method: GET, path: "/{id}", to: { container: notes, do: read, partition: all, id: "{id}" } }
"#;

fn routes() -> Routes {
    let source = Source::Text { name: "test".into(), text: MANIFEST.into() };
    let manifest = load(&Sources { files: vec![source], ..Sources::default() }).unwrap();
    Routes::new(&manifest, &crate::app::catalog(&manifest), &Metrics::default(), &Fleet::default())
}

fn find(method: &Method, path: &str) -> Result<String, Unroutable> {
    let segments = path::segments(path).unwrap();
    routes().find(method, &segments).map(|found| found.route.to_string())
}

#[test]
fn an_operation_answers_to_its_method_and_path_only() {
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let missing = Err(Unroutable::NotFound);
    let other = |allow: &str| Err(Unroutable::Method { allow: allow.to_owned() });
    for (method, path, expected) in [
        (&post, "/freight/v1/loads", Ok("/freight/v1/loads")),
        (&get, "/freight/v1/loads/a/b", Ok("/freight/v1/loads/{lane}/{id}")),
        (&put, "/freight/v1/loads/a%2Fb/c", Ok("/freight/v1/loads/{lane}/{id}")),
        (&Method::HEAD, "/freight/v1/loads/a/b", Ok("/freight/v1/loads/{lane}/{id}")),
        (&get, "/freight/v1/loads/a", Ok("/freight/v1/loads/{corridor}")),
        (&get, "/freight/v1/loads/search", Ok("/freight/v1/loads/{corridor}")),
        (&post, "/freight/v1/loads/search", Ok("/freight/v1/loads/search")),
        (&get, "/freight/%761/loads/a", Ok("/freight/v1/loads/{corridor}")),
        (&get, "/freight/v1", Ok("/freight/v1")),
        (&get, "/notes/x", Ok("/notes/{id}")),
        (&get, "/", missing.clone()),
        (&get, "/freight", missing.clone()),
        (&get, "/freight/v2/loads/a", missing.clone()),
        (&get, "/Freight/v1/loads/a", missing.clone()),
        (&get, "/freight/v1/loads/", missing.clone()),
        (&get, "/freight/v1/loads/a/b/c", missing),
        (&get, "/freight/v1/loads", other("POST")),
        (&Method::DELETE, "/freight/v1/loads/a/b", other("GET, HEAD, PUT")),
        (&Method::OPTIONS, "/freight/v1/loads/search", other("GET, HEAD, POST")),
    ] {
        let expected = expected.map(str::to_owned);
        assert_eq!(find(method, path), expected, "{method} {path}");
    }
}

#[test]
fn a_new_documents_place_is_the_path_that_reads_it() {
    let location = |path: &str, key: &str, id: &str| {
        let segments = path::segments(path).unwrap();
        let found = routes().find(&Method::POST, &segments).unwrap();
        let Work::Documents(documents) = &found.work else { panic!("not documents") };
        documents.location.as_ref().unwrap().of(&[KeyPart::String(key.to_owned())], id)
    };
    let loads = "/freight/v1/loads";
    assert_eq!(location(loads, "A-B", "x").unwrap(), "/freight/v1/loads/A-B/x");
    assert_eq!(location(loads, "a/b", "é ü").unwrap(), "/freight/v1/loads/a%2Fb/%C3%A9%20%C3%BC");
    assert_eq!(location(loads, "..", "x"), None);
    assert_eq!(location("/notes", "all", "x").unwrap(), "/notes/x");
    assert_eq!(location("/notes", "other", "x"), None);
}

#[test]
fn templates_take_their_segments_by_name() {
    let segments = path::segments("/freight/v1/loads/a/b").unwrap();
    let found = routes().find(&Method::GET, &segments).unwrap();
    let Work::Documents(Documents { action: Action::Read(at), container, .. }) = &found.work else {
        panic!("not a read")
    };
    let key = at.partition.of(&segments, None).unwrap();
    assert_eq!((key.as_slice(), at.id.of(&segments)), (&[KeyPart::String("a".into())][..], "b"));
    assert_eq!((key_pointer(container).as_str(), container.isolated), ("/lane", false));
}

#[test]
fn a_bucket_of_the_id_is_computed_and_stands_in_no_path() {
    const MANIFEST: &str = r#"
manifest: 1
project: test
containers: { quotes: { partition_key: [/tenantId, { hash: /id, buckets: 16 }, /kind] } }
apis:
  quotes:
    path: /quotes
    operations:
      add: { method: POST, path: /, to: { container: quotes, do: create } }
      one: { method: GET, path: "/{kind}/{t}/{id}", to: { container: quotes, do: read, partition: ["{t}", "{kind}"], id: "{id}" } }
"#;
    let source = Source::Text { name: "test".into(), text: MANIFEST.into() };
    let manifest = load(&Sources { files: vec![source], ..Sources::default() }).unwrap();
    let routes =
        Routes::new(&manifest, &crate::app::catalog(&manifest), &Metrics::default(), &Fleet::default());
    let segments = path::segments("/quotes/k/t/q-1").unwrap();
    let found = routes.find(&Method::GET, &segments).unwrap();
    let Work::Documents(Documents { action: Action::Read(at), location, .. }) = &found.work else {
        panic!("not a read")
    };
    let id = lanekeeper_actors::model::ids::DocumentId::new("q-1").unwrap();
    let key = at.partition.of(&segments, Some(&id)).unwrap();
    let text = |text: &str| KeyPart::String(text.to_owned());
    assert_eq!(key, [text("t"), text("q-1").bucket(16.try_into().unwrap()), text("k")]);
    assert_eq!(location.as_ref().unwrap().of(&key, "q-1").unwrap(), "/quotes/k/t/q-1");
}
