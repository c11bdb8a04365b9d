//! What attackers send, and the refusal that each of them meets. The rows have the numbers of the list of attacks that
//! the gateway is built against; those that are missing concern other layers.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::super::token::TOKEN_BYTES;
use super::material::{EDWARDS, OTHER_RSA, P256, P384, RSA, Signer, encode};
use super::*;
use crate::identity::{Algorithm, OwnKeys, bearer};

const PARTNER: &str = "https://partner.example";

/// Two issuers whose keys have the same names.
fn world() -> (Verifier, [tempfile::NamedTempFile; 2]) {
    let staff = file(&[RSA.jwk("r1"), P256.jwk("e1"), EDWARDS.jwk("d1")]);
    let partner = file(&[OTHER_RSA.jwk("r1"), P384.jwk("e1")]);
    let mut one = file_identity(&staff);
    one.algorithms = vec![Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let mut two = Identity::new("partner", PARTNER, KeySource::File(partner.path().to_owned()), &[AUDIENCE]);
    two.algorithms = vec![Algorithm::PS256, Algorithm::ES384];
    (verifier(vec![one, two], &clock()), [staff, partner])
}

/// A token of the staff's issuer with another header.
fn headed(header: Value) -> String {
    RSA.token(&header, &good())
}

/// The same with one more field in it.
fn extended(name: &str, value: Value) -> String {
    let mut header = json!({ "alg": "RS256", "kid": "r1" });
    header[name] = value;
    headed(header)
}

fn claiming(claims: &Value) -> String {
    plain(&RSA, "r1", claims)
}

type Row = (u8, &'static str, String, Refusal);

fn rows_of_algorithms() -> Vec<Row> {
    let unsigned = |name: &str| {
        format!("{}.{}.", encode(json!({ "alg": name, "kid": "r1" }).to_string()), encode(good().to_string()))
    };
    let none = |name: &str| RSA.token(&json!({ "alg": name, "kid": "r1" }), &good());
    let confused = |secret: Vec<u8>| {
        let signer = Signer::Secret(secret);
        signer.token(&json!({ "alg": "HS256", "kid": "r1" }), &good())
    };
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", encode(RSA.public()));
    let by_partner = |header: Value, signer: &Signer| signer.token(&header, &with(json!({ "iss": PARTNER })));
    vec![
        (1, "none without a signature", unsigned("none"), Refusal::Algorithm),
        (1, "None with a signature", none("None"), Refusal::Algorithm),
        (1, "nOnE with a signature", none("nOnE"), Refusal::Algorithm),
        (1, "no name at all", none(""), Refusal::Algorithm),
        (1, "a number for a name", headed(json!({ "alg": 1 })), Refusal::Malformed),
        (1, "no algorithm", headed(json!({ "kid": "r1" })), Refusal::Malformed),
        (2, "the DER of the public key as a secret", confused(RSA.public()), Refusal::Algorithm),
        (2, "its PEM as a secret", confused(pem.into_bytes()), Refusal::Algorithm),
        (2, "its JWK as a secret", confused(RSA.jwk("r1").to_string().into_bytes()), Refusal::Algorithm),
        (3, "PS256 where RS256 is used", headed(json!({ "alg": "PS256", "kid": "r1" })), Refusal::Algorithm),
        (
            3,
            "ES384 with a key on P-256",
            P384.token(&json!({ "alg": "ES384", "kid": "e1" }), &good()),
            Refusal::Algorithm,
        ),
        (
            3,
            "EdDSA with an RSA key",
            EDWARDS.token(&json!({ "alg": "EdDSA", "kid": "r1" }), &good()),
            Refusal::Algorithm,
        ),
        (
            3,
            "an algorithm of another issuer",
            by_partner(json!({ "alg": "RS256", "kid": "r1" }), &OTHER_RSA),
            Refusal::Algorithm,
        ),
        (
            12,
            "another issuer's key of the same name",
            by_partner(json!({ "alg": "PS256", "kid": "r1" }), &RSA),
            Refusal::Signature,
        ),
        (
            12,
            "that key for our issuer",
            OTHER_RSA.token(&json!({ "alg": "RS256", "kid": "r1" }), &good()),
            Refusal::Signature,
        ),
    ]
}

fn rows_of_headers() -> Vec<Row> {
    let kid = |kid: Value| extended("kid", kid);
    let mut rows = vec![
        (4, "a path", kid(json!("../../dev/null")), Refusal::Key),
        (4, "a query", kid(json!("x'OR'1'='1")), Refusal::Key),
        (4, "a command", kid(json!("r1|id")), Refusal::Key),
        (4, "a line break", kid(json!("r1\r\nx: y")), Refusal::Malformed),
        (4, "a NUL", kid(json!("r1\0")), Refusal::Malformed),
        (4, "a name beside ours", kid(json!("R1")), Refusal::Key),
        (4, "an empty name", kid(json!("")), Refusal::Malformed),
        (4, "257 characters", kid(json!("k".repeat(257))), Refusal::Malformed),
        (4, "64 KiB", kid(json!("k".repeat(65_536))), Refusal::TooLong),
        (4, "a number", kid(json!(1)), Refusal::Malformed),
        (4, "a list", kid(json!(["r1"])), Refusal::Malformed),
        (4, "null", kid(Value::Null), Refusal::Malformed),
        (6, "b64", extended("b64", json!(false)), Refusal::Header),
        (6, "b64 that changes nothing", extended("b64", json!(true)), Refusal::Header),
        (7, "zip", extended("zip", json!("DEF")), Refusal::Header),
        (7, "enc", extended("enc", json!("A128GCM")), Refusal::Header),
        (7, "a token inside", extended("cty", json!("JWT")), Refusal::Header),
        (7, "an encrypted token", "e30.e30.e30.e30.e30".to_owned(), Refusal::Malformed),
        (8, "a token that ends a session", extended("typ", json!("logout+jwt")), Refusal::Type),
        (8, "the same in full", extended("typ", json!("application/Logout+JWT")), Refusal::Type),
        (8, "a proof of possession", extended("typ", json!("dpop+jwt")), Refusal::Type),
        (8, "an empty type", extended("typ", json!("")), Refusal::Type),
        (8, "a list of types", extended("typ", json!(["JWT"])), Refusal::Malformed),
    ];
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(["x", "x"]), json!("exp"), Value::Null] {
        rows.push((6, "crit", extended("crit", crit), Refusal::Header));
    }
    rows
}

fn rows_of_claims() -> Vec<Row> {
    let mut rows = vec![
        (
            9,
            "alg twice",
            RSA.token_of_texts(r#"{"alg":"RS256","alg":"RS256","kid":"r1"}"#, &good().to_string()),
            Refusal::Malformed,
        ),
        (
            9,
            "an unknown field twice",
            RSA.token_of_texts(r#"{"alg":"RS256","kid":"r1","x":1,"x":1}"#, &good().to_string()),
            Refusal::Malformed,
        ),
        (
            9,
            "a claim twice",
            RSA.token_of_texts(
                r#"{"alg":"RS256","kid":"r1"}"#,
                &good().to_string().replacen('{', r#"{"roles":["x"],"#, 1),
            ),
            Refusal::Malformed,
        ),
        (10, "no issuer", claiming(&without("iss")), Refusal::Issuer),
        (10, "no audience", claiming(&without("aud")), Refusal::Audience),
        (13, "no end", claiming(&without("exp")), Refusal::Expired),
        (13, "it ends now", claiming(&with(json!({ "exp": NOW }))), Refusal::Expired),
    ];
    for issuer in [json!([STAFF]), json!(7), Value::Null, json!(""), json!({ "iss": STAFF }), json!(true)] {
        rows.push((
            10,
            "an issuer that is no text",
            claiming(&with(json!({ "iss": issuer }))),
            Refusal::Issuer,
        ));
    }
    for audience in
        [json!(7), Value::Null, json!(""), json!([]), json!([AUDIENCE, 7]), json!({ "a": AUDIENCE })]
    {
        rows.push((
            10,
            "an audience that is none",
            claiming(&with(json!({ "aud": audience }))),
            Refusal::Audience,
        ));
    }
    for issuer in [
        format!("{STAFF}/"),
        format!("{STAFF}x"),
        STAFF.to_uppercase(),
        format!(" {STAFF}"),
        STAFF[..STAFF.len() - 1].to_owned(),
        STAFF.replace("login", "l\u{43e}gin"),
        "https://login.example/{tid}".to_owned(),
    ] {
        rows.push((
            11,
            "an issuer that looks like ours",
            claiming(&with(json!({ "iss": issuer }))),
            Refusal::Issuer,
        ));
    }
    for (exp, refusal) in [
        (json!("1767229200"), Refusal::Claims),
        (json!(-1), Refusal::Claims),
        (json!(1e300), Refusal::Claims),
        (json!(u64::MAX), Refusal::Claims),
        (json!(7_258_118_401_u64), Refusal::Claims),
        (Value::Null, Refusal::Claims),
        (json!([NOW + 600]), Refusal::Claims),
        (json!(0), Refusal::Expired),
        (json!(NOW as f64 - 0.5), Refusal::Expired),
    ] {
        rows.push((13, "exp", claiming(&with(json!({ "exp": exp }))), refusal));
    }
    for name in ["nbf", "iat"] {
        rows.push((13, "later", claiming(&with(json!({ name: NOW + 1 }))), Refusal::NotYet));
        rows.push((
            13,
            "a moment later",
            claiming(&with(json!({ name: NOW as f64 + 0.0005 }))),
            Refusal::NotYet,
        ));
        rows.push((13, "a text", claiming(&with(json!({ name: "0" }))), Refusal::Claims));
        rows.push((13, "null", claiming(&with(json!({ name: null }))), Refusal::Claims));
    }
    rows
}

fn rows_of_form() -> Vec<Row> {
    let good_token = claiming(&good());
    let parts: Vec<&str> = good_token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let many: Value = (0..65).map(|n| (format!("c{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let deep = (0..17).fold(json!(1), |inner, _| json!([inner]));
    // The last character of 256 bytes has four bits that mean nothing.
    let trailing = {
        let (rest, last) = signature.split_at(signature.len() - 1);
        let other = match last {
            "A" => "B",
            "Q" => "R",
            "g" => "h",
            _ => "x",
        };
        format!("{header}.{payload}.{rest}{other}")
    };
    let mut rows = vec![
        (15, "too long", format!("{good_token}{}", "A".repeat(TOKEN_BYTES)), Refusal::TooLong),
        (15, "too many claims", claiming(&with(many)), Refusal::Malformed),
        (15, "too deep", claiming(&with(json!({ "x": deep }))), Refusal::Malformed),
        (16, "two parts", format!("{header}.{payload}"), Refusal::Malformed),
        (16, "four parts", format!("{good_token}."), Refusal::Malformed),
        (16, "no signature", format!("{header}.{payload}."), Refusal::Malformed),
        (16, "no payload", format!("{header}..{signature}"), Refusal::Malformed),
        (16, "nothing", String::new(), Refusal::Malformed),
        (16, "two dots", "..".to_owned(), Refusal::Malformed),
        (16, "bits that mean nothing", trailing, Refusal::Malformed),
        (16, "another signature", format!("{header}.{payload}.{}", encode([7; 256])), Refusal::Signature),
    ];
    for stranger in ["=", "==", " ", "\n", "+", "/", "\0", "é", "%3D"] {
        rows.push((16, "in the signature", format!("{good_token}{stranger}"), Refusal::Malformed));
        rows.push((16, "in the header", format!("{stranger}{good_token}"), Refusal::Malformed));
        rows.push((
            16,
            "in the payload",
            format!("{header}.{payload}{stranger}.{signature}"),
            Refusal::Malformed,
        ));
    }
    let message = format!(
        "{}.{}",
        encode(json!({ "alg": "ES256", "kid": "e1" }).to_string()),
        encode(good().to_string())
    );
    rows.push((20, "zero", format!("{message}.{}", encode([0; 64])), Refusal::Signature));
    rows.push((20, "DER", format!("{message}.{}", encode([0x30, 6, 2, 1, 1, 2, 1, 1])), Refusal::Signature));
    rows.push((20, "short", format!("{message}.{}", encode([1; 63])), Refusal::Signature));
    rows
}

#[tokio::test]
async fn every_attack_meets_its_refusal() {
    let (verifier, _files) = world();
    let rows: Vec<Row> = [rows_of_algorithms(), rows_of_headers(), rows_of_claims(), rows_of_form()].concat();
    for (number, what, token, expected) in &rows {
        let met = refusal(&verifier, token).await;
        assert_eq!(met, Some(*expected), "attack {number}: {what}: {token}");
        // And again, as nothing of a refusal may be remembered as an approval.
        assert_eq!(refusal(&verifier, token).await, met, "attack {number}: {what}, again");
    }
}

#[tokio::test]
async fn honest_tokens_pass() {
    let (verifier, _files) = world();
    for (token, identity) in [
        (claiming(&good()), "staff"),
        (headed(json!({ "alg": "RS256" })), "staff"),
        (headed(json!({ "alg": "RS256", "kid": "r1", "typ": "at+JWT", "x5t": "AA", "nonce": 1 })), "staff"),
        (extended("typ", json!("application/at+jwt")), "staff"),
        (plain(&P256, "e1", &good()), "staff"),
        (plain(&EDWARDS, "d1", &good()), "staff"),
        (claiming(&with(json!({ "aud": ["x", AUDIENCE], "exp": NOW as f64 + 0.5 }))), "staff"),
        (
            OTHER_RSA.token(&json!({ "alg": "PS256", "kid": "r1" }), &with(json!({ "iss": PARTNER }))),
            "partner",
        ),
        (plain(&P384, "e1", &with(json!({ "iss": PARTNER }))), "partner"),
    ] {
        let verified = accepted(&verifier, &token).await;
        assert_eq!(&*verified.identity, identity);
        assert_eq!(verified.subject(), Some("anna"));
        assert_eq!(verified.tenant, None);
    }
}

#[tokio::test]
async fn a_key_that_a_token_brings_is_never_used_or_fetched() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", trap.local_addr().unwrap());
    let staff = file(&[RSA.jwk("r1")]);
    let tolerant = verifier(vec![file_identity(&staff)], &clock());
    let mut identity = file_identity(&staff);
    identity.own_keys = OwnKeys::Refused;
    let strict = verifier(vec![identity], &clock());
    for (name, value) in
        [("jku", json!(url)), ("x5u", json!(url)), ("x5c", json!(["MIIB"])), ("jwk", OTHER_RSA.jwk("r1"))]
    {
        let honest = extended(name, value.clone());
        assert_eq!(refusal(&tolerant, &honest).await, None, "attack 5: {name} is ignored");
        assert_eq!(refusal(&strict, &honest).await, Some(Refusal::Header), "attack 5: {name}");
        for kid in [Some("r1"), None] {
            let mut header = json!({ "alg": "RS256" });
            header[name] = value.clone();
            if let Some(kid) = kid {
                header["kid"] = json!(kid);
            }
            let forged = OTHER_RSA.token(&header, &good());
            assert_eq!(refusal(&tolerant, &forged).await, Some(Refusal::Signature), "attack 5: {name}");
        }
    }
    let visit = trap.accept().expect_err("nobody was to come");
    assert_eq!(visit.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn one_authorization_header_is_read_and_its_scheme_in_any_case() {
    let of = |headers: &[&str]| {
        let bytes: Vec<Vec<u8>> = headers.iter().map(|text| text.as_bytes().to_vec()).collect();
        bearer(bytes.iter().map(Vec::as_slice)).map(|token| token.map(str::to_owned))
    };
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        assert_eq!(of(&[&format!("{scheme} a.b.c")]), Ok(Some("a.b.c".to_owned())), "attack 21");
    }
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&["Basic YTpi"]), Ok(None));
    assert_eq!(of(&["Bearerx a.b.c"]), Ok(None));
    assert_eq!(of(&["Bearer a.b.c", "Bearer a.b.c"]), Err(Refusal::Repeated), "attack 21");
    assert_eq!(of(&["Basic YTpi", "Bearer a.b.c"]), Err(Refusal::Repeated), "attack 21");
    assert_eq!(of(&["Bearer"]), Err(Refusal::Malformed));
    assert_eq!(of(&["Bearer  "]), Err(Refusal::Malformed));
    assert_eq!(bearer([&b"Bearer \xff"[..]]), Err(Refusal::Malformed));
}
