//! Stands between the text that a caller calls a token and the first look at a key: the compact form of RFC 7515,
//! read strictly.
//! Invariant: what passes has one meaning only, asks for nothing that is not done here, and has not caused any
//! look-up, request or file access.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;
use super::refusal::Refusal;

/// Bytes that a token may have.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// Characters that a key id may have.
pub(super) const KID_CHARS: usize = 256;
/// Claims that a token may have.
pub const CLAIMS: usize = 64;

/// Header fields that ask for something that is not done: extensions (RFC 7515, section 4.1.11), an unencoded
/// payload (RFC 7797), compression and encryption (RFC 7516), and a token inside the token (RFC 7519, section 5.2).
const NOT_DONE: [&str; 5] = ["crit", "b64", "zip", "enc", "cty"];
/// Header fields by which a token brings its own key. They never choose one.
const OWN_KEY: [&str; 4] = ["jku", "jwk", "x5u", "x5c"];

/// The token of a request's `Authorization` headers (RFC 6750, section 2.1). `None` without one, or when it holds
/// another kind of credential.
///
/// # Errors
/// [`Refusal::Repeated`] for more than one header, [`Refusal::Malformed`] for one that names the scheme and has no
/// token behind it.
pub fn bearer<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Refusal> {
    let mut headers = headers.into_iter();
    let (first, second) = (headers.next(), headers.next());
    if second.is_some() {
        return Err(Refusal::Repeated);
    }
    let Some(value) = first else { return Ok(None) };
    let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = value.get(scheme.len()..).unwrap_or_default().trim_ascii();
    match std::str::from_utf8(token) {
        Ok(token) if !token.is_empty() => Ok(Some(token)),
        Ok(_) | Err(_) => Err(Refusal::Malformed),
    }
}

/// A token whose form is right. Nothing in it is believed yet.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    pub(super) header: Header,
    /// What was signed: header and payload as they were sent.
    pub(super) message: &'a [u8],
    /// The signature as it was sent; it is strict base64url.
    pub(super) signature: &'a str,
    pub(super) payload: Vec<u8>,
}

/// What the header of a token says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// The key that it names.
    pub(super) kid: Option<String>,
    /// The type without `application/`, in lower case (RFC 7515, section 4.1.9).
    pub(super) typ: Option<String>,
    /// Whether it brings a key along.
    pub(super) brings_key: bool,
}

impl<'a> Compact<'a> {
    /// Reads the form of a token and its header.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Malformed);
        };
        let parsed = Header::parse(&decode(header)?)?;
        let decoded = decode(payload)?;
        // An empty payload may well be signed; it only claims nothing.
        if decode(signature)?.is_empty() {
            return Err(Refusal::Malformed);
        }
        let length = header.len() + 1 + payload.len();
        let message = token.as_bytes().get(..length).ok_or(Refusal::Malformed)?;
        Ok(Self { header: parsed, message, signature, payload: decoded })
    }

    /// The claims, of which nothing is believed before the signature is.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        let claims = json::object(&self.payload).ok_or(Refusal::Malformed)?;
        if claims.len() > CLAIMS { Err(Refusal::Malformed) } else { Ok(claims) }
    }
}

/// Decodes base64url without padding, white space or bits that mean nothing (RFC 7515, appendix C).
fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields = json::object(bytes).ok_or(Refusal::Malformed)?;
        let Some(Value::String(name)) = fields.get("alg") else { return Err(Refusal::Malformed) };
        let algorithm = name.parse().map_err(|_| Refusal::Algorithm)?;
        if NOT_DONE.iter().any(|name| fields.contains_key(*name)) {
            return Err(Refusal::Header);
        }
        let kid = match fields.remove("kid") {
            None => None,
            Some(Value::String(kid)) if is_kid(&kid) => Some(kid),
            Some(_) => return Err(Refusal::Malformed),
        };
        let typ = match fields.remove("typ") {
            None => None,
            Some(Value::String(typ)) => Some(type_name(&typ)),
            Some(_) => return Err(Refusal::Malformed),
        };
        let brings_key = OWN_KEY.iter().any(|name| fields.contains_key(*name));
        Ok(Self { algorithm, kid, typ, brings_key })
    }
}

/// Whether a text can be the name of a key. It is a key of a map and nothing else, but it may end up in a log.
pub(super) fn is_kid(kid: &str) -> bool {
    (1..=KID_CHARS).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A media type as types of tokens are compared.
pub(super) fn type_name(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
}
