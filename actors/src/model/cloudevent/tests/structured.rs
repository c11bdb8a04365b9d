//! Structured and batch mode.

use super::*;

#[test]
fn an_event_is_read_with_all_that_it_has() {
    let body = Bytes::from_static(
        br#" { "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext",
            "subject": null, "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z",
            "comexampleextension1" : "value", "comexampleothervalue" : 5, "urgent": true, "unset": null,
            "datacontenttype" : "application/json",
            "data" : { "appinfoA" : "abc", "n": 1.50, "big": 123456789012345678901234567890 } } "#,
    );
    let event = from_json(&body).unwrap();
    let mut expected = CloudEvent::new("C234-1234-1234", "/mycontext", "com.example.someevent");
    expected.time = Some("2018-04-05T17:31:00Z".into());
    expected.datacontenttype = Some("application/json".into());
    expected.extensions = vec![
        ("comexampleextension1".into(), "value".into()),
        ("comexampleothervalue".into(), Extension::Integer(5)),
        ("urgent".into(), Extension::Boolean(true)),
    ];
    expected.data = Data::Json(Bytes::from_static(
        br#"{ "appinfoA" : "abc", "n": 1.50, "big": 123456789012345678901234567890 }"#,
    ));
    assert_eq!(event, expected);
    event.check().unwrap();
    // The data is the body's own bytes.
    let Data::Json(data) = &event.data else { panic!() };
    assert!(body.as_ptr_range().contains(&data.as_ptr()));
    let written = event.to_json();
    assert_eq!(from_json(&written).unwrap(), event);
    assert!(str::from_utf8(&written).unwrap().contains(r#","data":{ "appinfoA" : "abc", "n": 1.50,"#));
}

#[test]
fn what_is_required_is_there_and_not_empty() {
    for name in ["specversion", "id", "source", "type"] {
        let all = ["specversion", "id", "source", "type"].map(|other| {
            let value = if other == "specversion" { "1.0" } else { "x" };
            (other, format!(r#""{value}""#))
        });
        for (value, fault) in [
            (None, "is required"),
            (Some("null"), "is required"),
            (Some("\"\""), "must not be empty"),
            (Some("1"), "must be a text"),
            (Some("{}"), "must be a text"),
            (Some("[\"x\"]"), "must be a text"),
            (Some("true"), "must be a text"),
            (Some(r#""\ud800""#), "is not Unicode text"),
        ] {
            let members = all.iter().filter_map(|(other, right)| {
                let value = if *other == name { value? } else { right };
                Some(format!(r#""{other}":{value}"#))
            });
            let body = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            let problem = from_json(&body.into()).unwrap_err();
            assert_eq!(problem.to_string(), format!("attribute `{name}`: {fault}"));
        }
    }
    for version in ["0.3", "1", "1.0.2", "2.0", " 1.0"] {
        let body = format!(r#"{{"specversion":"{version}","id":"1","source":"/s","type":"t"}}"#);
        let problem = from_json(&body.into()).unwrap_err();
        assert_eq!(problem.to_string(), "attribute `specversion`: only version `1.0` is known");
    }
}

#[test]
fn an_extension_is_a_scalar_and_keeps_its_type() {
    let extension = |value: &str| read(&format!(r#""x":{value}"#)).map(|event| event.extension("x").cloned());
    let fault = "an extension is a text, true, false, or a whole number from -2147483648 to 2147483647";
    let refused = || Err(format!("attribute `x`: {fault}"));
    for (value, expected) in [
        ("null", Ok(None)),
        ("\"5\"", Ok(Some("5".into()))),
        (r#""\u00e5\ud83d\ude00""#, Ok(Some("å😀".into()))),
        ("0", Ok(Some(Extension::Integer(0)))),
        ("2147483647", Ok(Some(Extension::Integer(i32::MAX)))),
        ("-2147483648", Ok(Some(Extension::Integer(i32::MIN)))),
        ("true", Ok(Some(Extension::Boolean(true)))),
        ("false", Ok(Some(Extension::Boolean(false)))),
        ("2147483648", refused()),
        ("-2147483649", refused()),
        ("1.0", refused()),
        ("1e2", refused()),
        ("[]", refused()),
        ("{}", refused()),
        (r#""\udc00""#, Err("attribute `x`: is not Unicode text".into())),
    ] {
        assert_eq!(extension(value), expected, "{value}");
    }
}

#[test]
fn a_member_that_stands_twice_is_refused() {
    for (members, name) in [
        (r#""id":"2""#, "id"),
        (r#""x":1,"x":1"#, "x"),
        (r#""x":null,"x":1"#, "x"),
        (r#""\u0078":1,"x":1"#, "x"),
        (r#""data":1,"data":1"#, "data"),
        (r#""data_base64":"","data_base64":"""#, "data_base64"),
    ] {
        assert_eq!(read(members), Err(format!("attribute `{name}`: stands twice")));
    }
}

#[test]
fn data_is_what_its_media_type_says() {
    let json = |text: &'static str| Ok(Data::Json(Bytes::from_static(text.as_bytes())));
    let text = |text: &str| Ok(Data::Text(text.to_owned()));
    let binary = |bytes: &'static [u8]| Ok(Data::Binary(Bytes::from_static(bytes)));
    let refused = |fault: &str| Err(format!("data: {fault}"));
    let not_text = "`data` must be a text, because `datacontenttype` does not say that it is JSON";
    let base64 = "`data_base64` is not Base64";
    let both = "`data` and `data_base64` exclude each other";
    for (members, expected) in [
        ("", Ok(Data::None)),
        // Without a media type it is JSON, and a string stays a JSON string.
        (r#""data":"I'm just a string""#, json(r#""I'm just a string""#)),
        (r#""data":"{\"a\":1}""#, json(r#""{\"a\":1}""#)),
        (r#""data":null"#, json("null")),
        (r#""data": [1, 2 ] "#, json("[1, 2 ]")),
        (r#""data":-0.10e+05"#, json("-0.10e+05")),
        (r#""data":"\ud800""#, json(r#""\ud800""#)),
        (r#""data":{"a":1,"a":2}"#, json(r#"{"a":1,"a":2}"#)),
        (r#""datacontenttype":"Text/JSON","data":true"#, json("true")),
        (r#""datacontenttype":"application/vnd.x+json; v=1","data":{}"#, json("{}")),
        (r#""data":{},"datacontenttype":"application/cloudevents+json; charset=utf-8""#, json("{}")),
        // Another media type makes a string the text itself, wherever it stands.
        (r#""datacontenttype":"application/xml","data":"<a b=\"c\"/>""#, text("<a b=\"c\"/>")),
        (r#""data":"a,b\n","datacontenttype":"text/csv""#, text("a,b\n")),
        (r#""datacontenttype":"text/plain","data":"""#, text("")),
        (r#""datacontenttype":"text/plain","data":{}"#, refused(not_text)),
        (r#""datacontenttype":"text/plain","data":1"#, refused(not_text)),
        (r#""datacontenttype":"text/plain","data":null"#, refused(not_text)),
        (r#""datacontenttype":"text/plain","data":"\ud800""#, refused("is not Unicode text")),
        (r#""data_base64":"AAEC/w==""#, binary(&[0, 1, 2, 255])),
        (r#""data_base64":"""#, binary(b"")),
        (r#""data_base64":"e30=","datacontenttype":"application/json""#, binary(b"{}")),
        (r#""data_base64":null"#, Ok(Data::None)),
        (r#""data_base64":null,"data":1"#, json("1")),
        (r#""data_base64":"","data":1"#, refused(both)),
        (r#""data_base64":"","data":null"#, refused(both)),
        (r#""data_base64":1"#, refused(base64)),
        (r#""data_base64":"AAEC_w==""#, refused(base64)),
        (r#""data_base64":"AAEC/w""#, refused(base64)),
        (r#""data_base64":"AA EC""#, refused(base64)),
    ] {
        let event = read(members);
        assert_eq!(event.clone().map(|event| event.data), expected, "{members}");
        if let Ok(event) = event {
            event.check().unwrap();
            assert_eq!(from_json(&event.to_json()).unwrap(), event);
        }
    }
}

#[test]
fn what_is_no_event_is_refused() {
    for (body, expected) in [
        ("", "not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "an event is a JSON object"),
        ("1", "an event is a JSON object"),
        ("null", "an event is a JSON object"),
        ("{}", "attribute `specversion`: is required"),
        ("{} {}", "not valid JSON: trailing characters at line 1 column 4"),
        (r#"{"\ud800":1}"#, "not valid JSON: unexpected end of hex escape at line 1 column 9"),
    ] {
        assert_eq!(from_json(&Bytes::from_static(body.as_bytes())).unwrap_err().to_string(), expected);
    }
    let problem = from_json(&Bytes::from_static(b"{\"id\":\"\xff\"}")).unwrap_err();
    assert!(matches!(problem.fault, Fault::Json(_)), "{problem}");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(from_json(&with(&format!(r#""data":{deep}"#))).unwrap().json_data(), Some(&deep.into()));
}

#[test]
fn a_batch_is_read_whole_or_refused_with_the_index() {
    let one =
        |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","data":{id}}}"#);
    let batch = |events: &[String], limit| {
        let body: Bytes = format!(" [{}] ", events.join(" , ")).into();
        from_json_batch(&body, limit).map_err(|problem| problem.to_string())
    };
    assert_eq!(batch(&[], 0), Ok(vec![]));
    let events = batch(&[one("1"), one("2")], 2).unwrap();
    assert_eq!(events.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(events[1].data, Data::Json(Bytes::from_static(b"2")));
    assert_eq!(batch(&[one("1"), one("2"), one("3")], 2), Err("a batch has at most 2 events".into()));
    let wrong = one("2").replace("/s", " ");
    assert_eq!(
        batch(&[one("1"), wrong], 9),
        Err("event 1: attribute `source`: is not a URI reference (RFC 3986)".into())
    );
    assert_eq!(batch(&[one("1"), "7".into()], 9), Err("event 1: an event is a JSON object".into()));
    for (body, expected) in [
        ("{}", "a batch is a JSON array of events"),
        ("null", "a batch is a JSON array of events"),
        ("", "not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("[", "not valid JSON: EOF while parsing a list at line 1 column 1"),
        ("[] []", "not valid JSON: trailing characters at line 1 column 4"),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        assert_eq!(from_json_batch(&body, 9).unwrap_err().to_string(), expected);
    }
}

#[test]
fn texts_are_escaped_where_json_asks() {
    let mut event = CloudEvent::new("a\"b\\c", "/s", "t");
    event.set_extension("x", "</script> å 😀".into());
    event.datacontenttype = Some("text/plain".into());
    event.data = Data::Text("line\r\n\u{0}\t\"".into());
    let expected = concat!(
        r#"{"specversion":"1.0","id":"a\"b\\c","source":"/s","type":"t","datacontenttype":"text/plain","#,
        r#""x":"</script> å 😀","data":"line\r\n\u0000\t\""}"#
    );
    assert_eq!(event.to_json(), expected);
    assert_eq!(from_json(&event.to_json()).unwrap(), event);
}
