//! Claims against rules, as tables.

use std::time::Duration;

use lanekeeper_actors::model::ids::TenantId;
use serde_json::{Value, json};

use super::super::claims::check;
use super::*;
use crate::identity::{Claims, Requirement, Rules, Wanted, require};

fn rules() -> Rules {
    Rules { audience: vec![AUDIENCE.to_owned(), "api://other".to_owned()], ..Rules::default() }
}

fn claims(value: &Value) -> Claims {
    Claims::new(value.as_object().unwrap().clone())
}

fn met(changes: Value, rules: &Rules) -> Option<Refusal> {
    check(&claims(&with(changes)), rules, Timestamp(NOW * 1_000)).err()
}

#[test]
fn times_are_checked_with_the_skew_on_the_senders_side() {
    let skewed = Rules { skew: Duration::from_secs(30), ..rules() };
    let early = Some(Refusal::NotYet);
    let late = Some(Refusal::Expired);
    for (changes, strict, lenient) in [
        (json!({ "exp": NOW }), late, None),
        (json!({ "exp": NOW + 1 }), None, None),
        (json!({ "exp": NOW as f64 + 0.001 }), None, None),
        (json!({ "exp": NOW - 29 }), late, None),
        (json!({ "exp": NOW - 30 }), late, late),
        (json!({ "nbf": NOW }), None, None),
        (json!({ "nbf": NOW + 30 }), early, None),
        (json!({ "nbf": NOW + 31 }), early, early),
        (json!({ "iat": NOW + 30 }), early, None),
        (json!({ "iat": NOW + 31 }), early, early),
        (json!({ "iat": 0, "nbf": 0.0 }), None, None),
        (json!({ "exp": 7_258_118_400_u64 }), None, None),
    ] {
        assert_eq!(met(changes.clone(), &rules()), strict, "{changes}");
        assert_eq!(met(changes.clone(), &skewed), lenient, "{changes} with skew");
    }
}

#[test]
fn a_token_says_from_when_on_it_is_refused() {
    let skewed = Rules { skew: Duration::from_secs(30), ..rules() };
    let until = |rules: &Rules| check(&claims(&good()), rules, Timestamp(NOW * 1_000)).unwrap().until;
    assert_eq!(until(&rules()), Timestamp((NOW + 600) * 1_000));
    assert_eq!(until(&skewed), Timestamp((NOW + 630) * 1_000));
}

#[test]
fn a_lifetime_is_measured_from_when_the_token_was_issued() {
    let short = Rules { max_lifetime: Some(Duration::from_secs(600)), ..rules() };
    let long = Some(Refusal::Lifetime);
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "exp": NOW + 601 }), long),
        (json!({ "iat": NOW - 1 }), long),
        (json!({ "iat": NOW - 100, "exp": NOW + 500 }), None),
    ] {
        assert_eq!(met(changes.clone(), &short), expected, "{changes}");
    }
    assert_eq!(check(&claims(&without("iat")), &short, Timestamp(NOW * 1_000)).err(), long);
}

#[test]
fn an_audience_is_one_text_or_a_list_of_texts() {
    let other = Some(Refusal::Audience);
    for (audience, expected) in [
        (json!(AUDIENCE), None),
        (json!("api://other"), None),
        (json!([AUDIENCE]), None),
        (json!(["x", "api://other"]), None),
        (json!("API://NORTHWIND"), other),
        (json!("api://northwind "), other),
        (json!("api://northwind,api://other"), other),
        (json!(["x"]), other),
        (json!([[AUDIENCE]]), other),
        (json!([AUDIENCE, null]), other),
    ] {
        assert_eq!(met(json!({ "aud": audience }), &rules()), expected, "{audience}");
    }
}

#[test]
fn the_tenant_comes_from_the_claim_that_names_it() {
    let tenant = |claim: &str, changes: Value| {
        let rules = Rules { tenant_claim: Some(claim.to_owned()), ..rules() };
        check(&claims(&with(changes)), &rules, Timestamp(NOW * 1_000)).map(|accepted| accepted.tenant)
    };
    let acme = Ok(Some(TenantId::new("acme").unwrap()));
    assert_eq!(tenant("tid", json!({})), acme);
    assert_eq!(tenant("/org/id", json!({ "org": { "id": "acme" } })), acme);
    assert_eq!(tenant("https://x.example/tenant", json!({ "https://x.example/tenant": "acme" })), acme);
    for value in
        [json!(""), json!(7), Value::Null, json!(["acme"]), json!("a/b"), json!("a\r\nb"), json!("é")]
    {
        assert_eq!(tenant("tid", json!({ "tid": value })), Err(Refusal::Tenant), "{value}");
    }
    assert_eq!(tenant("nowhere", json!({})), Err(Refusal::Tenant));
    assert_eq!(met(json!({ "sub": 7 }), &rules()), Some(Refusal::Claims));
}

#[test]
fn required_claims_are_met_by_equal_values_only() {
    let claims = claims(&json!({
        "roles": ["ops", "dev"], "scope": "read  write", "tier": "gold", "level": 3, "admin": true,
        "realm": { "roles": ["ops"], "a/b": 1 }, "/odd": "x", "empty": [], "none": null,
    }));
    let any = |values: Value| Wanted::Any(values.as_array().unwrap().clone());
    let all = |values: Value| Wanted::All(values.as_array().unwrap().clone());
    for (claim, wanted, separator, expected) in [
        ("roles", any(json!(["ops"])), None, true),
        ("roles", any(json!(["x", "dev"])), None, true),
        ("roles", any(json!(["Ops", "op", "ops dev"])), None, false),
        ("roles", any(json!([])), None, false),
        ("roles", all(json!(["ops", "dev"])), None, true),
        ("roles", all(json!(["ops", "x"])), None, false),
        ("roles", all(json!([])), None, false),
        ("roles", Wanted::Equals(json!(["ops", "dev"])), None, true),
        ("roles", Wanted::Equals(json!("ops")), None, false),
        ("tier", any(json!(["silver", "gold"])), None, true),
        ("tier", Wanted::Equals(json!("gold")), None, true),
        ("tier", all(json!(["gold"])), None, true),
        ("scope", any(json!(["write"])), Some(' '), true),
        ("scope", all(json!(["read", "write"])), Some(' '), true),
        ("scope", any(json!([""])), Some(' '), false),
        ("scope", any(json!(["write"])), None, false),
        ("level", any(json!([3])), None, true),
        ("level", any(json!(["3"])), None, false),
        ("admin", Wanted::Equals(json!(true)), None, true),
        ("admin", Wanted::Equals(json!("true")), None, false),
        ("/realm/roles", any(json!(["ops"])), None, true),
        ("/realm/a~1b", Wanted::Equals(json!(1)), None, true),
        ("/realm/roles/0", any(json!(["ops"])), None, false),
        ("/odd", any(json!(["x"])), None, false),
        ("realm", any(json!(["ops"])), None, false),
        ("empty", any(json!(["ops"])), None, false),
        ("none", any(json!(["ops"])), None, false),
        ("missing", any(json!([null])), None, false),
        ("missing", Wanted::Equals(Value::Null), None, false),
    ] {
        let requirement = Requirement { claim: claim.to_owned(), wanted, separator };
        assert_eq!(requirement.is_met(&claims), expected, "{requirement:?}");
        let required = require(&claims, std::slice::from_ref(&requirement));
        assert_eq!(required, if expected { Ok(()) } else { Err(Refusal::Requirement) });
    }
    assert_eq!(require(&claims, &[]), Ok(()));
    assert_eq!(format!("{claims:?}"), "9 claims", "claims are not shown");
}
