//! Binary mode.

use super::*;

fn subject(value: &str) -> Result<String, String> {
    received(&[("ce-subject", value)], None, "").map(|event| event.subject.unwrap())
}

#[test]
fn an_event_is_read_from_headers_and_body() {
    let headers = [
        ("Host", "webhook.example.com"),
        ("CE-Time", "2018-04-05T03:56:24Z"),
        ("ce-comexampleothervalue", "5"),
        ("cent", "not an attribute"),
        ("x-ce-id", "not an attribute"),
    ];
    let event = received(&headers, Some("application/json; charset=utf-8"), r#"{ "a" : 1 }"#).unwrap();
    let mut expected = CloudEvent::new("1", "/s", "t");
    expected.time = Some("2018-04-05T03:56:24Z".into());
    expected.datacontenttype = Some("application/json; charset=utf-8".into());
    // A header has no types.
    expected.extensions = vec![("comexampleothervalue".into(), "5".into())];
    expected.data = Data::Json(Bytes::from_static(br#"{ "a" : 1 }"#));
    assert_eq!(event, expected);
    event.check().unwrap();
}

#[test]
fn a_value_is_unquoted_then_percent_decoded_once() {
    let refused = |fault: &str| Err(format!("header `ce-subject`: {fault}"));
    let percent = "has a `%` that is not followed by two hexadecimal digits";
    let quote = "has a quote that is not closed";
    let utf8 = "is not UTF-8 once it is decoded";
    let ascii = "has bytes that are not printable ASCII; write them as `%` and two hexadecimal digits";
    let ok = |text: &str| Ok(text.to_owned());
    for (value, expected) in [
        ("plain", ok("plain")),
        ("  around ", ok("around")),
        ("with blanks", ok("with blanks")),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", ok("Euro € 😀")),
        ("Euro%20%e2%82%ac", ok("Euro €")),
        ("%41", ok("A")),
        // One round only.
        ("%2541", ok("%41")),
        ("%2525", ok("%25")),
        ("a+b", ok("a+b")),
        (r#""quoted text""#, ok("quoted text")),
        (r#""a \"b\" \\ \c""#, ok(r#"a "b" \ c"#)),
        (r#""50%25""#, ok("50%")),
        (r#""\%41""#, ok("A")),
        ("\"%22\"", ok("\"")),
        ("%22a%22", ok("\"a\"")),
        (r"back\slash", ok(r"back\slash")),
        (r#"a"b c"d"#, ok("ab cd")),
        ("\"open", refused(quote)),
        ("\"open\\\"", refused(quote)),
        ("\"open\\", refused(quote)),
        ("100%", refused(percent)),
        ("%4", refused(percent)),
        ("%4g", refused(percent)),
        ("%+1", refused(percent)),
        ("%%41", refused(percent)),
        // Overlong, half, a surrogate, beyond the last code point.
        ("%C0%A0", refused(utf8)),
        ("%E2%82", refused(utf8)),
        ("%ED%A0%80", refused(utf8)),
        ("%F4%90%80%80", refused(utf8)),
        ("%FF", refused(utf8)),
        ("\u{e5}", refused(ascii)),
        ("a\u{1}", refused(ascii)),
        ("a\u{7f}", refused(ascii)),
        ("a\tb", refused("has the character U+0009, which is a control character or no character")),
        ("%00", refused("has the character U+0000, which is a control character or no character")),
        (
            "%0D%0Aset-cookie:x",
            refused("has the character U+000D, which is a control character or no character"),
        ),
        ("", refused("must not be empty")),
        ("\"\"", refused("must not be empty")),
    ] {
        assert_eq!(subject(value), expected, "{value:?}");
    }
}

#[test]
fn a_value_is_written_so_that_a_header_can_hold_it() {
    for (text, expected) in [
        ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("a\"b%c", "a%22b%25c"),
        ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        ("\u{a0}", "%C2%A0"),
    ] {
        let mut event = CloudEvent::new("1", "/s", "t");
        event.subject = Some(text.into());
        let headers = event.to_headers().headers;
        assert_eq!(headers[4], ("ce-subject".to_owned(), expected.to_owned()));
        assert_eq!(subject(expected).as_deref(), Ok(text));
    }
    // Even what no event should have cannot break out of its header.
    let mut event = CloudEvent::new("1\r\nx: y", "/s", "t");
    event.set_extension("x", "\u{7f}\u{0}".into());
    for (_, value) in event.to_headers().headers {
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value}");
    }
}

#[test]
fn what_is_required_is_there_and_nothing_stands_twice() {
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    let read = |headers: &mut dyn Iterator<Item = (&str, &str)>| {
        let headers: Vec<_> = headers.collect();
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        from_binary(headers, None, &Bytes::new()).map_err(|problem| problem.to_string())
    };
    for (missing, _) in required {
        let mut headers = required.into_iter().filter(|(name, _)| *name != missing);
        assert_eq!(read(&mut headers), Err(format!("header `{missing}`: is required")));
        let mut headers = required.into_iter().chain([(missing, "1.0")]);
        assert_eq!(read(&mut headers), Err(format!("header `{missing}`: stands twice")));
    }
    let twice = received(&[("ce-x", "1"), ("CE-X", "1")], None, "");
    assert_eq!(twice, Err("header `CE-X`: stands twice".into()));
    let mut wrong =
        required.into_iter().map(|(name, value)| (name, if value == "1.0" { "2.0" } else { value }));
    assert_eq!(read(&mut wrong), Err("header `ce-specversion`: only version `1.0` is known".into()));
    let given = received(&[("ce-datacontenttype", "text/plain")], Some("text/plain"), "");
    let fault = "must not be there: `Content-Type` says what the data is";
    assert_eq!(given, Err(format!("header `ce-datacontenttype`: {fault}")));
}

#[test]
fn a_body_is_what_its_content_type_says() {
    let json = |text: &'static str| Ok(Data::Json(Bytes::from_static(text.as_bytes())));
    let binary = |text: &'static str| Ok(Data::Binary(Bytes::from_static(text.as_bytes())));
    for (content_type, body, expected) in [
        (None, "", Ok(Data::None)),
        (Some("application/json"), "", Ok(Data::None)),
        // Nobody said what it is.
        (None, "{}", binary("{}")),
        (Some("application/json"), " {\"a\": 1.0}\n", json(" {\"a\": 1.0}\n")),
        (Some("TEXT/JSON;charset=\"UTF-8\""), "1", json("1")),
        (Some("application/vnd.x+json"), "\"s\"", json("\"s\"")),
        (
            Some("application/json"),
            "I'm just a string",
            Err("data: not valid JSON: expected value at line 1 column 1".to_owned()),
        ),
        (
            Some("application/json"),
            "{} {}",
            Err("data: not valid JSON: trailing characters at line 1 column 4".to_owned()),
        ),
        // In a character set that is not read here, it is bytes.
        (Some("application/json; charset=utf-16"), "x", binary("x")),
        (Some("text/plain; charset=iso-8859-1"), "x", binary("x")),
        (Some("text/plain"), "å", Ok(Data::Text("å".into()))),
        (Some("text/plain; charset=us-ascii"), "a", Ok(Data::Text("a".into()))),
        (Some("application/xml"), "<a/>", Ok(Data::Text("<a/>".into()))),
        (Some("image/svg+xml"), "<a/>", Ok(Data::Text("<a/>".into()))),
        (Some("application/octet-stream"), "a", binary("a")),
        (Some("image/png"), "a", binary("a")),
    ] {
        let event = received(&[], content_type, body);
        assert_eq!(event.clone().map(|event| event.data), expected, "{content_type:?} {body}");
        if let Ok(event) = event {
            event.check().unwrap();
            assert_eq!(event.datacontenttype.as_deref(), content_type);
        }
    }
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    let headers = || required.into_iter().map(|(name, value)| (name, value.as_bytes()));
    let bytes = Bytes::from_static(b"\xff\xfe");
    let event = from_binary(headers(), Some("text/plain"), &bytes).unwrap();
    assert_eq!(event.data, Data::Binary(bytes.clone()));
    assert!(from_binary(headers(), Some("application/json"), &bytes).is_err());
}

#[test]
fn json_without_a_media_type_is_named_when_it_leaves_json() {
    let event = read(r#""data":"I'm just a string""#).unwrap();
    let message = event.to_headers();
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.body, r#""I'm just a string""#);
    // Nothing and bytes are not named.
    for members in ["", r#""data_base64":"AA==""#] {
        assert_eq!(read(members).unwrap().to_headers().content_type, None);
    }
}
