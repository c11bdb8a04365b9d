//! A value that may be undefined, as it stands in a continuation: JSON's null cannot say that.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Written as an array of no value or of one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held(pub(super) Option<Value>);

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::<Value>::deserialize(deserializer)?.pop()))
    }
}
