//! Which paths the admin API has, and which methods each answers to.
//!
//! Invariant: [`ROUTES`] is the only list of them; `openapi.json` says the same, and a test compares the two.

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Ready,
    Metrics,
    Keys,
    Key,
    RotateKey,
    Containers,
    Partitions,
    Changes,
    Query,
    Import,
    Export,
    Subscriptions,
    Subscription,
    Pause,
    Resume,
    TestFilter,
    DeadLetters,
    ReplayDeadLetters,
    Actors,
    ReopenActor,
    Shards,
    Manifest,
}

/// Every path, its methods as in the header `Allow`, and what it stands for. A segment in braces stands for a name
/// without a colon; what follows a colon is an action.
pub(super) const ROUTES: [(&str, &str, Route); 23] = [
    ("/healthz", "GET, HEAD", Route::Health),
    ("/readyz", "GET, HEAD", Route::Ready),
    ("/metrics", "GET, HEAD", Route::Metrics),
    ("/v1/keys", "GET, HEAD, POST", Route::Keys),
    ("/v1/keys/{key}", "DELETE, GET, HEAD", Route::Key),
    ("/v1/keys/{key}:rotate", "POST", Route::RotateKey),
    ("/v1/containers", "GET, HEAD", Route::Containers),
    ("/v1/containers/{container}/partitions", "DELETE, GET, HEAD", Route::Partitions),
    ("/v1/containers/{container}/changes", "GET, HEAD", Route::Changes),
    ("/v1/containers/{container}/query", "POST", Route::Query),
    ("/v1/containers/{container}/import", "POST", Route::Import),
    ("/v1/containers/{container}/export", "GET, HEAD", Route::Export),
    ("/v1/subscriptions", "GET, HEAD", Route::Subscriptions),
    ("/v1/subscriptions/{subscription}", "GET, HEAD", Route::Subscription),
    ("/v1/subscriptions/{subscription}:pause", "POST", Route::Pause),
    ("/v1/subscriptions/{subscription}:resume", "POST", Route::Resume),
    ("/v1/subscriptions/{subscription}:test-filter", "POST", Route::TestFilter),
    ("/v1/subscriptions/{subscription}/dead-letters", "DELETE, GET, HEAD", Route::DeadLetters),
    ("/v1/subscriptions/{subscription}/dead-letters:replay", "POST", Route::ReplayDeadLetters),
    ("/v1/actors", "GET, HEAD", Route::Actors),
    ("/v1/actors:reopen", "POST", Route::ReopenActor),
    ("/v1/shards", "GET, HEAD", Route::Shards),
    ("/v1/manifest", "GET, HEAD", Route::Manifest),
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
}
