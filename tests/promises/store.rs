//! The project that the promises of the document store are tested with.

use reqwest::Method;
use serde_json::Value;

use super::project::OTHER_KEY;
use super::server::{Answer, House, Server};

const MANIFEST: &str = r#"
manifest: 1
project: store
server: { shards: 2 }
limits: { LIMITS }
containers:
  loads: { partition_key: [/lane], unique: [[/ref]], indexes: [/status, [/status, /weight]] }
  plain: { partition_key: [/lane] }
  fleeting: { partition_key: [/lane], ttl: 1s }
  lasting: { partition_key: [/lane], ttl: never }
  narrow: { partition_key: [/lane], throughput: 400 }
  places: { partition_key: [/country, /city, /street] }
  quotes: { partition_key: [/tenantId, { hash: /id, buckets: 16 }], tenancy: isolated }
apis:
  store:
    path: /store
    operations:
      createLoad: { method: POST, path: /loads, to: { container: loads, do: create }, idempotency: optional }
      strictLoad: { method: POST, path: /strict, to: { container: loads, do: create }, idempotency: required }
      readLoad: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      putLoad: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" }, idempotency: optional }
      patchLoad: { method: PATCH, path: "/loads/{lane}/{id}", to: { container: loads, do: patch, partition: "{lane}", id: "{id}" }, idempotency: optional }
      deleteLoad: { method: DELETE, path: "/loads/{lane}/{id}", to: { container: loads, do: delete, partition: "{lane}", id: "{id}" } }
      listLoads: { method: GET, path: "/loads/{lane}", to: { container: loads, do: list, partition: "{lane}" } }
      batchLoads: { method: POST, path: "/loads/{lane}", to: { container: loads, do: batch, partition: "{lane}" }, idempotency: optional }
      dropLane: { method: DELETE, path: "/loads/{lane}", to: { container: loads, do: delete_partition, partition: "{lane}" } }
      findLoads:
        method: GET
        path: "/find/{lane}"
        to:
          container: loads
          do: query
          partition: "{lane}"
          sql: SELECT * FROM c WHERE c.status = @status ORDER BY c.weight DESC
          params: { status: "{query.status}" }
      weighLoads:
        method: GET
        path: "/weigh/{least}"
        to:
          container: loads
          do: query
          sql: SELECT TOP @n VALUE c.id FROM c WHERE c.weight >= @least AND (@open = false OR c.status = 'open') AND (c.tags = @tags OR IS_NULL(@tags)) ORDER BY c.weight
          params:
            n: { from: "{query.n}", type: number }
            least: { from: "{least}", type: number }
            open: { from: "{query.open}", type: boolean }
            tags: { from: "{query.tags}", type: json }
      countLoads:
        method: GET
        path: /count
        to: { container: loads, do: query, sql: "SELECT VALUE COUNT(1) FROM c WHERE c.weight >= @least", params: { least: 5 } }

      createPlain: { method: POST, path: /plain, to: { container: plain, do: create } }
      readPlain: { method: GET, path: "/plain/{lane}/{id}", to: { container: plain, do: read, partition: "{lane}", id: "{id}" } }
      patchPlain: { method: PATCH, path: "/plain/{lane}/{id}", to: { container: plain, do: patch, partition: "{lane}", id: "{id}" } }
      batchPlain: { method: POST, path: "/plain/{lane}", to: { container: plain, do: batch, partition: "{lane}" } }

      bulkLoads: { method: POST, path: /bulk/loads, to: { container: loads, do: bulk } }
      bulkPlain: { method: POST, path: /bulk/plain, to: { container: plain, do: bulk } }
      bulkLane: { method: POST, path: "/bulk/plain/{lane}", to: { container: plain, do: bulk, partition: "{lane}" } }
      bulkNarrow: { method: POST, path: /bulk/narrow, to: { container: narrow, do: bulk } }
      bulkPlaces: { method: POST, path: "/bulk/places/{country}", to: { container: places, do: bulk, partition: "{country}" } }
      bulkQuotes: { method: POST, path: /bulk/quotes, to: { container: quotes, do: bulk } }

      createFleeting: { method: POST, path: /fleeting, to: { container: fleeting, do: create } }
      readFleeting: { method: GET, path: "/fleeting/{lane}/{id}", to: { container: fleeting, do: read, partition: "{lane}", id: "{id}" } }
      listFleeting: { method: GET, path: "/fleeting/{lane}", to: { container: fleeting, do: list, partition: "{lane}" } }
      createLasting: { method: POST, path: /lasting, to: { container: lasting, do: create } }
      readLasting: { method: GET, path: "/lasting/{lane}/{id}", to: { container: lasting, do: read, partition: "{lane}", id: "{id}" } }

      createNarrow: { method: POST, path: /narrow, to: { container: narrow, do: create } }
      readNarrow: { method: GET, path: "/narrow/{lane}/{id}", to: { container: narrow, do: read, partition: "{lane}", id: "{id}" } }

      createPlace: { method: POST, path: /places, to: { container: places, do: create } }
      readPlace: { method: GET, path: "/places/{country}/{city}/{street}/{id}", to: { container: places, do: read, partition: ["{country}", "{city}", "{street}"], id: "{id}" } }
      putPlace: { method: PUT, path: "/places/{country}/{city}/{street}/{id}", to: { container: places, do: upsert, partition: ["{country}", "{city}", "{street}"], id: "{id}" } }
      inCity: { method: GET, path: "/places/{country}/{city}", to: { container: places, do: query, partition: ["{country}", "{city}"], sql: SELECT * FROM c } }
      inCountry: { method: GET, path: "/places/{country}", to: { container: places, do: query, partition: "{country}", sql: SELECT * FROM c } }
      dropCity: { method: DELETE, path: "/places/{country}/{city}", to: { container: places, do: delete_partition, partition: ["{country}", "{city}"] } }

      createQuote: { method: POST, path: /quotes, to: { container: quotes, do: create }, idempotency: optional }
      readQuote: { method: GET, path: "/quotes/{tenant}/{id}", to: { container: quotes, do: read, partition: "{tenant}", id: "{id}" } }
      putQuote: { method: PUT, path: "/quotes/{tenant}/{id}", to: { container: quotes, do: upsert, partition: "{tenant}", id: "{id}" } }
      patchQuote: { method: PATCH, path: "/quotes/{tenant}/{id}", to: { container: quotes, do: patch, partition: "{tenant}", id: "{id}" } }
      deleteQuote: { method: DELETE, path: "/quotes/{tenant}/{id}", to: { container: quotes, do: delete, partition: "{tenant}", id: "{id}" } }
      findQuotes: { method: GET, path: "/quotes/{tenant}", to: { container: quotes, do: query, partition: "{tenant}", sql: SELECT c.id FROM c } }
      allQuotes: { method: GET, path: /quotes, to: { container: quotes, do: query, sql: SELECT VALUE COUNT(1) FROM c } }
products:
  all: { apis: [store] }
api_keys:
  main: { product: all, tenant: acme, primary: { env: MAIN } }
  other: { product: all, tenant: other, primary: { env: OTHER } }
"#;

/// A new data directory under the project, with these limits (inside of the braces).
pub(crate) fn house(limits: &str) -> House {
    House::new(&MANIFEST.replace("LIMITS", limits)).with("OTHER", OTHER_KEY)
}

/// Creates a document, which must succeed.
pub(crate) async fn create(server: &Server, path: &str, body: &Value) -> Answer {
    let created = server.send(Method::POST, path, body).await;
    assert_eq!(created.status, 201, "{path} {body}: {}", created.text);
    created
}

/// The ids of a page.
pub(crate) fn ids(page: &Answer) -> Vec<String> {
    assert_eq!(page.status, 200, "{}", page.text);
    let documents = page.body["documents"].as_array().unwrap();
    documents.iter().map(|document| document["id"].as_str().unwrap().to_owned()).collect()
}
