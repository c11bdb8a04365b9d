//! An event is the same after each mode, and after it was stored.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The event as another mode tells it: headers have no types, and data that was JSON without saying so says it.
fn as_headers_tell(event: &CloudEvent) -> CloudEvent {
    let mut event = event.clone();
    for (_, value) in &mut event.extensions {
        *value = Extension::Text(value.as_text().into_owned());
    }
    if matches!(event.data, Data::Json(_)) && event.datacontenttype.is_none() {
        event.datacontenttype = Some(JSON.to_owned());
    }
    event
}

fn sent(event: &CloudEvent) -> CloudEvent {
    let BinaryMessage { headers, content_type, body } = event.to_headers();
    let headers = headers.iter().map(|(name, value)| (&**name, value.as_bytes()));
    from_binary(headers, content_type.as_deref(), &body).unwrap()
}

fn any_text() -> impl Strategy<Value = String> {
    // No control characters; \PC has no unassigned code points either.
    "\\PC{1,12}"
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
    })
}

/// A media type with data that belongs to it; never an empty body, which binary mode cannot tell from none.
fn any_data() -> impl Strategy<Value = (Option<String>, Data)> {
    let json = any_json().prop_map(|text| Data::Json(text.into()));
    let json_type = prop_oneof![
        Just(None),
        Just(Some("application/json".to_owned())),
        Just(Some("application/x+json; a=b".to_owned()))
    ];
    let bytes = vec(any::<u8>(), 1..16).prop_map(|bytes| Data::Binary(bytes.into()));
    let bytes_type = prop_oneof![Just(None), Just(Some("image/png".to_owned()))];
    prop_oneof![
        (option::of(Just("text/plain".to_owned())), Just(Data::None)),
        (json_type, json),
        (Just(Some("text/plain".to_owned())), "[\\s\\S]{1,12}".prop_map(Data::Text)),
        (bytes_type, bytes),
    ]
}

fn any_event() -> impl Strategy<Value = CloudEvent> {
    let source = prop_oneof![
        Just("/a/b?c#d".to_owned()),
        "[a-z]{1,5}:[a-z%/]{0,4}".prop_map(|text| text.replace('%', "%25"))
    ];
    let extension = prop_oneof![
        any_text().prop_map(Extension::Text),
        Just(Extension::Text(String::new())),
        any::<i32>().prop_map(Extension::Integer),
        any::<bool>().prop_map(Extension::Boolean),
    ];
    let extensions = proptest::collection::btree_map("x[a-z0-9]{0,6}", extension, 0..5);
    let time = option::of(Just("2026-01-31T08:30:00.5+01:00".to_owned()));
    let schema = option::of(Just("urn:schema".to_owned()));
    let head = (any_text(), source, any_text(), option::of(any_text()));
    (head, time, schema, extensions, any_data()).prop_map(|(head, time, dataschema, extensions, data)| {
        let (id, source, event_type, subject) = head;
        let (datacontenttype, data) = data;
        let extensions = extensions.into_iter().collect();
        CloudEvent { id, source, event_type, subject, time, datacontenttype, dataschema, extensions, data }
    })
}

proptest! {
    #[test]
    fn every_mode_gives_the_event_back(events in vec(any_event(), 1..4)) {
        let mut batch = vec![b'['];
        for (index, event) in events.iter().enumerate() {
            prop_assert_eq!(event.check(), Ok(()));
            prop_assert_eq!(&from_json(&event.to_json()).unwrap(), event);
            prop_assert_eq!(sent(event), as_headers_tell(event));
            prop_assert_eq!(sent(&sent(event)), sent(event));
            prop_assert_eq!(from_json(&sent(event).to_json()).unwrap(), as_headers_tell(event));
            if index > 0 {
                batch.push(b',');
            }
            event.write_json(&mut batch);
        }
        batch.push(b']');
        prop_assert_eq!(from_json_batch(&batch.into(), events.len()).unwrap(), events);
    }

    #[test]
    fn other_readers_of_json_see_the_same(event in any_event()) {
        let seen: Value = serde_json::from_slice(&event.to_json()).unwrap();
        prop_assert_eq!(seen["id"].as_str(), Some(&*event.id));
        prop_assert_eq!(seen["subject"].as_str(), event.subject.as_deref());
        for (name, value) in &event.extensions {
            let expected = match value {
                Extension::Text(text) => Value::from(&**text),
                Extension::Integer(number) => Value::from(*number),
                Extension::Boolean(value) => Value::from(*value),
            };
            prop_assert_eq!(&seen[&**name], &expected);
        }
        if let Data::Json(json) = &event.data {
            prop_assert_eq!(&seen["data"], &serde_json::from_slice::<Value>(json).unwrap());
        }
    }

    #[test]
    fn a_stored_event_is_the_same_event(event in any_event()) {
        let bytes = rmp_serde::to_vec(&event).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<CloudEvent>(&bytes).unwrap(), event);
    }

    #[test]
    fn what_is_read_of_anything_obeys_the_rules(
        body in vec(any::<u8>(), 0..64),
        members in "[\\x20-\\x7e]{0,40}",
        name in "ce-[a-zA-Z_]{0,3}",
        value in vec(any::<u8>(), 0..16),
        content_type in option::of("[ -~]{0,20}"),
    ) {
        let mut found = vec![from_json(&body.clone().into()), from_json(&with(&members))];
        let required: [(&str, &[u8]); 4] =
            [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"t")];
        let headers = required.into_iter().chain([(&*name, &*value)]);
        found.push(from_binary(headers, content_type.as_deref(), &body.into()));
        for event in found.into_iter().flatten() {
            prop_assert_eq!(event.check(), Ok(()));
            prop_assert_eq!(&from_json(&event.to_json()).unwrap(), &event);
            sent(&event);
        }
    }
}
