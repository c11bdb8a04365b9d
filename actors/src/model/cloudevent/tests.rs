//! What the codec promises.

use super::*;

#[test]
fn one_event_is_read_and_written() {
    let body =
        Bytes::from_static(br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1.50}}"#);
    let event = from_json(&body).unwrap();
    assert_eq!(event.to_json(), body);
}
