//! What the codec promises.

mod binary;
mod round_trip;
mod rules;
mod structured;

use super::*;

/// A structured event with these members besides the four required ones.
fn with(members: &str) -> Bytes {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{comma}{members}}}"#).into()
}

fn read(members: &str) -> Result<CloudEvent, String> {
    from_json(&with(members)).map_err(|problem| problem.to_string())
}

/// An event in binary mode with these headers besides the four required ones.
fn received(headers: &[(&str, &str)], content_type: Option<&str>, body: &str) -> Result<CloudEvent, String> {
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    let all = required.iter().chain(headers).map(|(name, value)| (*name, value.as_bytes()));
    from_binary(all, content_type, &Bytes::copy_from_slice(body.as_bytes()))
        .map_err(|problem| problem.to_string())
}
