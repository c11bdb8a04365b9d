//! Which paths the admin API has, and which methods each answers to.
//!
//! Invariant: [`ROUTES`] is the only list of them; `openapi.json` says the same, and a test compares the two.

/// The description of the admin API for programs (OpenAPI 3.1), kept by hand.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Ready,
    Metrics,
    Description,
    Keys,
    Key,
    RotateKey,
    ResumeKey,
    RejectKey,
    SuspendKey,
    Containers,
    Partitions,
    Changes,
    Query,
    Import,
    Export,
    Backends,
    Topics,
    Subscriptions,
    Subscription,
    Attempts,
    Pause,
    Resume,
    ReplayHistory,
    CancelReplay,
    TestFilter,
    DeadLetters,
    ReplayDeadLetters,
    Usage,
    Audit,
    Actors,
    ReopenActor,
    Shards,
    Backup,
    Manifest,
    PlanManifest,
    RollbackManifest,
    Generations,
    Explain,
}

/// Every path, its methods as in the header `Allow`, and what it stands for. A segment in braces stands for a name
/// without a colon; what follows a colon is an action.
pub(super) const ROUTES: [(&str, &str, Route); 40] = [
    ("/healthz", "GET, HEAD", Route::Health),
    ("/readyz", "GET, HEAD", Route::Ready),
    ("/metrics", "GET, HEAD", Route::Metrics),
    ("/openapi.json", "GET, HEAD", Route::Description),
    ("/v1/keys", "GET, HEAD, POST", Route::Keys),
    ("/v1/keys/{key}", "DELETE, GET, HEAD", Route::Key),
    ("/v1/keys/{key}:rotate", "POST", Route::RotateKey),
    ("/v1/keys/{key}:approve", "POST", Route::ResumeKey),
    ("/v1/keys/{key}:reject", "POST", Route::RejectKey),
    ("/v1/keys/{key}:suspend", "POST", Route::SuspendKey),
    ("/v1/keys/{key}:resume", "POST", Route::ResumeKey),
    ("/v1/containers", "GET, HEAD", Route::Containers),
    ("/v1/containers/{container}/partitions", "DELETE, GET, HEAD", Route::Partitions),
    ("/v1/containers/{container}/changes", "GET, HEAD", Route::Changes),
    ("/v1/containers/{container}/query", "POST", Route::Query),
    ("/v1/containers/{container}/import", "POST", Route::Import),
    ("/v1/containers/{container}/export", "GET, HEAD", Route::Export),
    ("/v1/backends", "GET, HEAD", Route::Backends),
    ("/v1/topics", "GET, HEAD", Route::Topics),
    ("/v1/subscriptions", "GET, HEAD", Route::Subscriptions),
    ("/v1/subscriptions/{subscription}", "GET, HEAD", Route::Subscription),
    ("/v1/subscriptions/{subscription}/attempts", "GET, HEAD", Route::Attempts),
    ("/v1/subscriptions/{subscription}:pause", "POST", Route::Pause),
    ("/v1/subscriptions/{subscription}:replay", "POST", Route::ReplayHistory),
    ("/v1/subscriptions/{subscription}:cancel-replay", "POST", Route::CancelReplay),
    ("/v1/subscriptions/{subscription}:resume", "POST", Route::Resume),
    ("/v1/subscriptions/{subscription}:test-filter", "POST", Route::TestFilter),
    ("/v1/subscriptions/{subscription}/dead-letters", "DELETE, GET, HEAD", Route::DeadLetters),
    ("/v1/subscriptions/{subscription}/dead-letters:replay", "POST", Route::ReplayDeadLetters),
    ("/v1/usage", "GET, HEAD", Route::Usage),
    ("/v1/audit", "GET, HEAD", Route::Audit),
    ("/v1/actors", "GET, HEAD", Route::Actors),
    ("/v1/actors:reopen", "POST", Route::ReopenActor),
    ("/v1/shards", "GET, HEAD", Route::Shards),
    ("/v1/backup", "POST", Route::Backup),
    ("/v1/manifest", "GET, HEAD, PUT", Route::Manifest),
    ("/v1/manifest:plan", "POST", Route::PlanManifest),
    ("/v1/explain", "POST", Route::Explain),
    ("/v1/manifest:rollback", "POST", Route::RollbackManifest),
    ("/v1/manifest/generations", "GET, HEAD", Route::Generations),
];

/// A path that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resource<'a> {
    /// What it stands for.
    pub(super) route: Route,
    /// The name in it; empty where there is none.
    pub(super) name: &'a str,
    /// The methods that it answers to.
    pub(super) allow: &'static str,
}

impl<'a> Resource<'a> {
    /// What these segments, decoded already, stand for.
    pub(super) fn find(segments: &'a [String]) -> Option<Self> {
        ROUTES.iter().find_map(|&(template, allow, route)| {
            name_in(template, segments).map(|name| Self { route, name, allow })
        })
    }

    /// Whether probes may ask for it without a token.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.route, Route::Health | Route::Ready | Route::Metrics)
    }
}

/// The name in the path, if the path fits the template.
fn name_in<'a>(template: &str, segments: &'a [String]) -> Option<&'a str> {
    let wanted = template.strip_prefix('/')?.split('/');
    if wanted.clone().count() != segments.len() {
        return None;
    }
    let mut name = "";
    for (wanted, given) in wanted.zip(segments) {
        match wanted.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            None if wanted == given => {}
            None => return None,
            Some((_, action)) => {
                name = given.strip_suffix(action).filter(|name| !name.is_empty() && !name.contains(':'))?;
            }
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;
    use crate::http::path;

    #[test]
    fn actions_stand_behind_a_colon() {
        for (path, expected) in [
            ("/v1/keys", Some((Route::Keys, ""))),
            ("/v1/keys/a", Some((Route::Key, "a"))),
            ("/v1/keys/a:rotate", Some((Route::RotateKey, "a"))),
            ("/v1/keys/a%3Arotate", Some((Route::RotateKey, "a"))),
            ("/v1/keys/a:burn", None),
            ("/v1/keys/:rotate", None),
            ("/v1/subscriptions/s:pause", Some((Route::Pause, "s"))),
            ("/v1/subscriptions/s/dead-letters:replay", Some((Route::ReplayDeadLetters, "s"))),
            ("/v1/containers/loads/query", Some((Route::Query, "loads"))),
            ("/v1/actors:reopen", Some((Route::ReopenActor, ""))),
            ("/v1/keys/a/b", None),
            ("/v2/keys", None),
            ("/v1/keys/", None),
            ("/", None),
        ] {
            let segments = path::segments(path).unwrap();
            let found = Resource::find(&segments).map(|found| (found.route, found.name));
            assert_eq!(found, expected, "{path}");
        }
    }

    /// Whatever a value refers to, deep inside.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_description_has_every_path_and_method_and_no_other() {
        let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
        assert_eq!(description["openapi"], "3.1.0");
        let mut described = BTreeMap::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().keys().filter(|name| *name != "parameters");
            let methods: BTreeSet<_> = methods.map(|name| name.to_uppercase()).collect();
            described.insert(path.as_str(), methods);
        }
        // Whoever answers GET answers HEAD, which nobody describes.
        let registered: BTreeMap<_, BTreeSet<_>> = ROUTES
            .iter()
            .map(|(path, allow, _)| {
                let methods = allow.split(", ").filter(|name| *name != "HEAD").map(ToOwned::to_owned);
                (*path, methods.collect())
            })
            .collect();
        assert_eq!(described, registered);
    }

    #[test]
    fn the_description_holds_together() {
        let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut found = BTreeSet::new();
        references(&description, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for name in description["components"]["schemas"].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/schemas/{name}")), "nobody uses `{name}`");
        }
        let mut ids = BTreeSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            let named: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
            let own = item["parameters"].as_array().cloned().unwrap_or_default();
            let own: BTreeSet<_> = own.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(named, own, "{path}");
            for (_, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{id}");
                let open = ["health", "ready", "metrics"].contains(&id);
                assert_eq!(operation.get("security").is_some(), open, "{id}");
            }
        }
    }
}
