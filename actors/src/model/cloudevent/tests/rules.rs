//! The rules of attributes, by structured and by binary mode alike, and of events made by hand.

use super::super::attributes::is_time;
use super::super::uri::{is_uri, is_uri_reference};
use super::*;

#[test]
fn an_attribute_keeps_its_rule_in_every_mode() {
    let long = "x".repeat(MAX_VALUE);
    let too_long = "x".repeat(MAX_VALUE + 1);
    let not = "is not a URI reference (RFC 3986)";
    let time = "is not a time as in `2026-01-31T08:30:00Z` (RFC 3339)";
    let media = "is not a media type as in `application/json` (RFC 2046)";
    let length = "the value of an attribute has at most 8192 bytes, this one has 8193";
    let control =
        |point: &str| format!("has the character U+{point}, which is a control character or no character");
    for (name, value, expected) in [
        ("subject", "s", Ok(())),
        ("subject", "", Err("must not be empty")),
        ("subject", "a \"b\" 100 % ö 😀", Ok(())),
        ("subject", &long, Ok(())),
        ("subject", &too_long, Err(length)),
        ("subject", "a\u{0}", Err(&*control("0000"))),
        ("subject", "a\tb", Err(&*control("0009"))),
        ("subject", "a\u{1f}", Err(&*control("001F"))),
        ("subject", "\u{7f}", Err(&*control("007F"))),
        ("subject", "\u{85}", Err(&*control("0085"))),
        ("subject", "\u{9f}", Err(&*control("009F"))),
        ("subject", "\u{a0}", Ok(())),
        ("subject", "\u{fdcf}\u{fdf0}\u{fffd}\u{e000}", Ok(())),
        ("subject", "\u{fdd0}", Err(&*control("FDD0"))),
        ("subject", "\u{fdef}", Err(&*control("FDEF"))),
        ("subject", "\u{fffe}", Err(&*control("FFFE"))),
        ("subject", "\u{ffff}", Err(&*control("FFFF"))),
        ("subject", "\u{1fffe}", Err(&*control("1FFFE"))),
        ("subject", "\u{10ffff}", Err(&*control("10FFFF"))),
        ("time", "2026-01-31T08:30:00Z", Ok(())),
        ("time", "2026-01-31", Err(time)),
        ("time", "", Err("must not be empty")),
        ("dataschema", "http://a/b", Ok(())),
        ("dataschema", "/b", Err("is not a URI with a scheme (RFC 3986)")),
        ("dataschema", "#1", Err("is not a URI with a scheme (RFC 3986)")),
        ("anextension", "", Ok(())),
        ("anextension", "a", Ok(())),
        ("anextension", "\u{1}", Err(&*control("0001"))),
        ("anextension", &too_long, Err(length)),
        ("3d", "a", Ok(())),
    ] {
        let told = |part: &str| expected.map_err(|fault| format!("{part}: {fault}"));
        let json = serde_json::Value::from(value).to_string();
        let found = read(&format!(r#""{name}":{json}"#)).map(|_| ());
        assert_eq!(found, told(&format!("attribute `{name}`")), "{name}: {value:?}");
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let header = format!("CE-{name}");
        let found = received(&[(&header, &encoded)], None, "").map(|_| ());
        assert_eq!(found, told(&format!("header `{header}`")), "{name}: {value:?}");
        let mut event = CloudEvent::new("1", "/s", "t");
        match name {
            "subject" => event.subject = Some(value.into()),
            "time" => event.time = Some(value.into()),
            "dataschema" => event.dataschema = Some(value.into()),
            _ => event.set_extension(name, value.into()),
        }
        let found = event.check().map_err(|problem| problem.to_string());
        assert_eq!(found, told(&format!("attribute `{name}`")), "{name}: {value:?}");
    }
    for (value, expected) in [
        ("application/json", Ok(())),
        ("Application/JSON; charset=utf-8", Ok(())),
        ("application/vnd.a.b+json;v=\"1; 2\"", Ok(())),
        ("json", Err(media)),
        ("a/b/c", Err(media)),
        ("text /plain", Err(media)),
        ("a/", Err(media)),
        ("text/plain; é", Err(media)),
        ("", Err("must not be empty")),
    ] {
        let mut event = CloudEvent::new("1", "/s", "t");
        event.datacontenttype = Some(value.into());
        let told = |part: &str| expected.map_err(|fault| format!("{part}: {fault}"));
        assert_eq!(event.check().map_err(|problem| problem.to_string()), told("attribute `datacontenttype`"));
        let json = serde_json::Value::from(value).to_string();
        let found = read(&format!(r#""datacontenttype":{json}"#)).map(|_| ());
        assert_eq!(found, told("attribute `datacontenttype`"));
        assert_eq!(received(&[], Some(value), "").map(|_| ()), told("header `content-type`"));
    }
    let mut event = CloudEvent::new("1", "not one", "t");
    assert_eq!(event.check().unwrap_err().to_string(), format!("attribute `source`: {not}"));
    for name in ["id", "source", "type"] {
        event = CloudEvent::new("1", "/s", "t");
        event.set_known(name, String::new());
        assert_eq!(event.check().unwrap_err().to_string(), format!("attribute `{name}`: must not be empty"));
    }
}

#[test]
fn a_name_of_an_attribute_is_lower_case_letters_and_digits() {
    let letters = "the name of an attribute has only lower-case letters a to z and digits";
    let longest = "x".repeat(MAX_NAME);
    let longer = "x".repeat(MAX_NAME + 1);
    let length = "the name of an attribute has at most 64 characters";
    let reserved = "no attribute can have this name";
    for (name, expected) in [
        ("comexampleextension1", Ok(())),
        ("1", Ok(())),
        (&longest, Ok(())),
        (&longer, Err(length)),
        ("myExt", Err(letters)),
        ("my_ext", Err(letters)),
        ("my-ext", Err(letters)),
        ("my.ext", Err(letters)),
        ("ö", Err(letters)),
        ("", Err(letters)),
        ("Type", Err(letters)),
    ] {
        let told = || {
            expected.map_err(|fault| format!("attribute `{}`: {fault}", &name[..name.len().min(MAX_NAME)]))
        };
        assert_eq!(read(&format!(r#""{name}":"x""#)).map(|_| ()), told());
        // The name is checked, even where there is no value.
        assert_eq!(read(&format!(r#""{name}":null"#)).map(|_| ()), told());
        let mut event = CloudEvent::new("1", "/s", "t");
        event.set_extension(name, "x".into());
        assert_eq!(event.check().map_err(|problem| problem.to_string()), told());
    }
    for name in ["data", "type", "specversion"] {
        let mut event = CloudEvent::new("1", "/s", "t");
        event.set_extension(name, "x".into());
        let told = format!("attribute `{name}`: {reserved}");
        assert_eq!(event.check().unwrap_err().to_string(), told);
    }
    // Names of headers have no case.
    assert_eq!(received(&[("Ce-MyExt", "x")], None, "").unwrap().extension("myext"), Some(&"x".into()));
    for name in ["ce-my_ext", "ce-my-ext", "ce-"] {
        assert_eq!(received(&[(name, "x")], None, ""), Err(format!("header `{name}`: {letters}")));
    }
    assert_eq!(received(&[("ce-data", "x")], None, ""), Err(format!("header `ce-data`: {reserved}")));
    let mut event = CloudEvent::new("1", "/s", "t");
    event.extensions = vec![("a".into(), "1".into()), ("a".into(), "2".into())];
    assert_eq!(event.check().unwrap_err().to_string(), "attribute `a`: stands twice");
}

#[test]
fn an_event_has_at_most_so_many_attributes() {
    let members = |count| (0..count).map(|n| format!(r#""x{n}":1"#)).collect::<Vec<_>>().join(",");
    let refused = Err("an event has at most 64 attributes".to_owned());
    assert_eq!(read(&members(60)).unwrap().extensions.len(), 60);
    assert_eq!(read(&members(61)), refused);
    assert_eq!(read(&members(100_000)), refused);
    // What is null is no attribute.
    assert_eq!(read(&format!(r#"{},"y":null"#, members(60))).unwrap().extensions.len(), 60);
    let names: Vec<String> = (0..61).map(|n| format!("ce-x{n}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
    assert_eq!(received(&headers[..60], None, "").unwrap().extensions.len(), 60);
    assert_eq!(received(&headers, None, ""), refused);
    let mut event = read(&members(60)).unwrap();
    event.check().unwrap();
    event.subject = Some("s".into());
    assert_eq!(event.check().map_err(|problem| problem.to_string()), refused.map(|_| ()));
}

#[test]
fn a_time_is_one_of_rfc_3339_on_a_day_that_there_is() {
    for text in [
        "2018-04-05T17:31:00Z",
        "2018-04-05T17:31:00.1Z",
        "2018-04-05t17:31:00.123456789z",
        "2018-04-05T17:31:00+02:00",
        "2018-04-05T17:31:00-23:59",
        "1990-12-31T23:59:60Z",
        "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ] {
        assert!(is_time(text), "{text}");
    }
    for text in [
        "",
        "2018-04-05",
        "2018-04-05 17:31:00Z",
        "2018-04-05T17:31:00",
        "2018-04-05T17:31Z",
        "2018-04-05T17:31:00.Z",
        "2018-04-05T17:31:00,5Z",
        "2018-04-05T17:31:00Z ",
        "2018-04-05T17:31:00ZZ",
        "2018-04-05T17:31:00+0200",
        "2018-04-05T17:31:00+02:00Z",
        "2018-04-05T17:31:00+24:00",
        "2018-04-05T17:31:00+00:60",
        "2018-4-5T17:31:00Z",
        "18-04-05T17:31:00Z",
        "+2018-04-05T17:31:00Z",
        "2018-00-05T17:31:00Z",
        "2018-13-05T17:31:00Z",
        "2018-04-00T17:31:00Z",
        "2018-04-31T17:31:00Z",
        "2023-02-29T17:31:00Z",
        "1900-02-29T17:31:00Z",
        "2018-04-05T24:00:00Z",
        "2018-04-05T17:60:00Z",
        "2018-04-05T17:31:61Z",
        "2018-04-05T17:31:0éZ",
    ] {
        assert!(!is_time(text), "{text}");
    }
}

#[test]
fn a_source_is_a_uri_reference_and_a_schema_a_uri() {
    let uris = [
        "https://github.com/cloudevents",
        "mailto:cncf-wg-serverless@lists.cncf.io",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "a:",
        "http://user:pass@host:8080/p/q?x=1&y=/?#f/?",
        "http://[2001:db8::1]:80/",
        "http://[v1.x:y]/",
        "file:///etc/hosts",
        "http://h:/",
        "x+y-z.1:%41%c3%a5",
    ];
    let relative = [
        "/cloudevents/spec/pull/123",
        "1-555-123-4567",
        "/sensors/tn-1234567/alerts",
        "//host/path",
        "a/b:c",
        "./a:b",
        "?q",
        "#f",
        "(a),;=!$&'*+~_@",
    ];
    for text in uris {
        assert!(is_uri(text) && is_uri_reference(text), "{text}");
    }
    for text in relative {
        assert!(!is_uri(text) && is_uri_reference(text), "{text}");
    }
    for text in [
        "a b",
        "1a:b",
        ":a",
        "a%",
        "a%4",
        "a%zz",
        "/å",
        "/a\"b",
        "/<a>",
        "/a[1]",
        "/{a}",
        "/a|b",
        "/a\\b",
        "/a^b",
        "/a`b",
        "/a#b#c",
        "http://[::1",
        "http://[::1]x/",
        "http://[::g]/",
        "http://[v1.]/",
        "http://a:b/",
        "http://a@b@c/",
        "http://a:1:2/",
        "\u{0}",
    ] {
        assert!(!is_uri(text) && !is_uri_reference(text), "{text}");
    }
}

#[test]
fn a_content_type_announces_the_mode() {
    for (content_type, expected) in [
        (None, Mode::Binary),
        (Some(""), Mode::Binary),
        (Some("application/json"), Mode::Binary),
        (Some("text/application/cloudevents"), Mode::Binary),
        (Some("application/cloudevent+json"), Mode::Binary),
        (Some("application/cloudevents+json"), Mode::Structured),
        (Some("Application/CloudEvents+JSON; charset=UTF-8"), Mode::Structured),
        (Some(" application/cloudevents+json ;x=y"), Mode::Structured),
        (Some("application/cloudevents"), Mode::Structured),
        (Some("application/cloudevents-batch+json"), Mode::Batch),
        (Some("APPLICATION/CLOUDEVENTS-BATCH+JSON;charset=utf-8"), Mode::Batch),
        (Some("application/cloudevents-batch"), Mode::Batch),
        (Some("application/cloudevents+avro"), Mode::Unknown),
        (Some("application/cloudevents-batch+xml"), Mode::Unknown),
        (Some("application/cloudevents2"), Mode::Unknown),
        (Some("application/cloudevent\u{e9}"), Mode::Binary),
    ] {
        assert_eq!(mode(content_type), expected, "{content_type:?}");
    }
    for (media_type, expected) in [
        ("application/json", true),
        ("text/JSON; charset=utf-8", true),
        ("application/vnd.api+json", true),
        ("application/cloudevents+json; charset=utf-8", true),
        ("application/a+b+json", true),
        ("application/json+xml", false),
        ("application/jsonx", false),
        ("application/x-json", false),
        ("json", false),
        ("", false),
    ] {
        assert_eq!(declares_json(media_type), expected, "{media_type}");
    }
}
