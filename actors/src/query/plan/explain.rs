//! A plan as JSON, for those who ask why a query costs what it costs.

use std::fmt;
use std::ops::Bound;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Access, IndexRange, Plan};

impl Plan {
    /// The plan as JSON: `access`, the index' `paths`, `ranges` and `descending`, `ordered`, and the
    /// `filter` that is evaluated on each document.
    pub fn explain(&self) -> Value {
        let mut explained = match &self.access {
            Access::Nothing => json!({"access": "nothing"}),
            Access::Ids(ids) => json!({"access": "ids", "ids": ids}),
            Access::Scan => json!({"access": "scan"}),
            Access::Index { index, ranges, descending } => {
                let paths: Vec<String> = self
                    .paths
                    .iter()
                    .map(|path| path.iter().map(|name| format!("/{name}")).collect())
                    .collect();
                let ranges: Vec<Value> = ranges.iter().map(IndexRange::explain).collect();
                json!({"access": "index", "index": index, "paths": paths, "ranges": ranges, "descending": descending})
            }
        };
        if let Some(members) = explained.as_object_mut() {
            members.insert("ordered".to_owned(), Value::Bool(self.ordered));
            if let Some(filter) = &self.filter {
                members.insert("filter".to_owned(), Value::from(filter.as_str()));
            }
        }
        explained
    }
}

impl IndexRange {
    fn explain(&self) -> Value {
        let mut explained = serde_json::Map::new();
        if !self.equal.is_empty() {
            explained.insert("equal".to_owned(), Value::from(self.equal.clone()));
        }
        for (bound, included, excluded) in [(&self.lower, ">=", ">"), (&self.upper, "<=", "<")] {
            match bound {
                Bound::Included(limit) => explained.insert(included.to_owned(), limit.clone()),
                Bound::Excluded(limit) => explained.insert(excluded.to_owned(), limit.clone()),
                Bound::Unbounded => None,
            };
        }
        if let Some(prefix) = &self.string_prefix {
            explained.insert("prefix".to_owned(), Value::from(prefix.as_str()));
        }
        Value::Object(explained)
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.explain().serialize(serializer)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.explain())
    }
}
