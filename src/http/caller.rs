//! Who calls, and on what terms: the key, the token, the address.
//!
//! Stands between the head of a request and its admission. Invariants: a request has one credential of each kind or is
//! refused; a token counts only for a product that asks for one of its identity; the tenant is said by the key or by
//! the token, never by anything else, and where both say it they say the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use lanekeeper_actors::gateway::GatewayHandle;
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::policy::terms::Terms;
use lanekeeper_actors::protocol::gateway::{Call, Credential, Door, Entry, Refused};

use super::problem::Problem;
use super::routes::Operation;
use crate::delivery::Cidr;
use crate::identity::{Refusal, Requirement, Verified, Verifier, bearer, require};

/// Headers that hold an API key. The first that is there counts.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("ocp-apim-subscription-key")];
/// The parameter of the query that holds one, where no header does.
const KEY_PARAMETER: &str = "subscription-key";
/// The claim that says whom a token is about.
const SUBJECT: &str = "sub";

/// What the manifest says of callers that the gateway does not know.
#[derive(Debug)]
pub struct Callers {
    /// Checks tokens.
    pub verifier: Verifier,
    /// What each product asks of its callers.
    pub products: BTreeMap<Name, Asked>,
}

/// What a product asks of its callers.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What the token must claim.
    pub requirements: Vec<Requirement>,
    /// Addresses that may call; all when empty.
    pub allow: Vec<Cidr>,
    /// Addresses that may not.
    pub deny: Vec<Cidr>,
}

/// Why a caller is refused, besides what the gateway says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallerRefused {
    /// The token is refused.
    #[error("{0}")]
    Token(Refusal),
    /// A token is needed.
    #[error("send a token in the header `authorization`")]
    NoToken,
    /// Key and token are of different tenants.
    #[error("the api key and the token are of different tenants")]
    Tenant,
    /// The product is not sold to this address.
    #[error("this address may not call")]
    Address,
}

/// Finds out who calls.
pub(super) async fn identify(
    (callers, admission): (&Callers, &GatewayHandle),
    req: &HttpRequest,
    operation: &Operation,
    ip: IpAddr,
) -> Result<Entry, Problem> {
    let call = Call { credential: credential(req), ip, api: operation.api.clone() };
    let door = admission.identify(call).await?;
    let token = Token { callers, admission, req, ip };
    let (terms, grant, verified) = match door {
        Door::Key(terms, grant) => {
            let verified = match &terms.rules.identity {
                None => None,
                Some(_) => Some(token.verify().await?),
            };
            (terms, Some(grant), verified)
        }
        Door::Open(open) => {
            let (terms, verified) = token.choose(&open).await?;
            (terms, None, verified)
        }
    };
    let asked = terms.product.as_ref().and_then(|product| callers.products.get(product));
    if let Some(asked) = asked {
        asked.check_address(ip)?;
    }
    if let Some(verified) = &verified {
        if terms.rules.identity.as_deref() != Some(&*verified.identity) {
            return Err(token.refused(Refusal::Issuer));
        }
        let requirements = asked.map(|asked| asked.requirements.as_slice()).unwrap_or_default();
        require(&verified.claims, requirements).map_err(CallerRefused::Token)?;
    }
    let claimed = verified.as_ref().and_then(|verified| verified.tenant.clone());
    let tenant = match (grant.as_ref().map(|grant| &grant.tenant), claimed) {
        (Some(tenant), Some(claimed)) if *tenant != claimed => return Err(CallerRefused::Tenant.into()),
        (Some(tenant), _) => tenant.clone(),
        (None, Some(claimed)) => claimed,
        (None, None) => TenantId::anonymous(),
    };
    let (headers, claims) = counted(operation, &terms, req.headers(), verified.as_deref());
    let (api, name) = (operation.api.clone(), operation.name.clone());
    let bytes = length(req.headers());
    Ok(Entry { terms, grant, tenant, api, operation: name, ip, headers, claims, bytes })
}

/// The token of a request, as far as it is asked for.
struct Token<'a> {
    callers: &'a Callers,
    admission: &'a GatewayHandle,
    req: &'a HttpRequest,
    ip: IpAddr,
}

impl Token<'_> {
    /// The product without key that is meant: the one whose identity vouches for the caller, else the one that asks
    /// for no token.
    async fn choose(&self, open: &[Arc<Terms>]) -> Result<(Arc<Terms>, Option<Arc<Verified>>), Problem> {
        let plain = open.iter().find(|terms| terms.rules.identity.is_none());
        if open.iter().all(|terms| terms.rules.identity.is_none()) {
            let terms = plain.ok_or(Refused::MissingKey)?;
            return Ok((terms.clone(), None));
        }
        if let (Some(plain), false) = (plain, self.req.headers().contains_key(AUTHORIZATION)) {
            return Ok((plain.clone(), None));
        }
        let verified = self.verify().await?;
        let named = |terms: &&Arc<Terms>| terms.rules.identity.as_deref() == Some(&*verified.identity);
        match open.iter().find(named) {
            Some(terms) => Ok((terms.clone(), Some(verified))),
            None => Err(self.refused(Refusal::Issuer)),
        }
    }

    async fn verify(&self) -> Result<Arc<Verified>, Problem> {
        let values = self.req.headers().get_all(AUTHORIZATION).map(HeaderValue::as_bytes);
        let found = match bearer(values) {
            Ok(Some(token)) => self.callers.verifier.verify(token).await,
            Ok(None) => return Err(CallerRefused::NoToken.into()),
            Err(refusal) => Err(refusal),
        };
        found.map_err(|refusal| {
            // That keys are not there says nothing about the caller.
            let blameless = refusal == Refusal::KeysUnavailable;
            if blameless { CallerRefused::Token(refusal).into() } else { self.refused(refusal) }
        })
    }

    /// Counts a refused token like a refused key.
    fn refused(&self, refusal: Refusal) -> Problem {
        let refused = self.admission.refuse_token(self.ip);
        let too_many = matches!(refused, Refused::TooManyFailures { .. });
        if too_many { refused.into() } else { CallerRefused::Token(refusal).into() }
    }
}

impl Asked {
    fn check_address(&self, ip: IpAddr) -> Result<(), CallerRefused> {
        let is_in = |blocks: &[Cidr]| blocks.iter().any(|block| block.contains(ip));
        if is_in(&self.deny) || (!self.allow.is_empty() && !is_in(&self.allow)) {
            return Err(CallerRefused::Address);
        }
        Ok(())
    }
}

/// The key that was sent. One that is no text, or stands there twice, is a key of nobody.
fn credential(req: &HttpRequest) -> Option<Credential> {
    let headers = req.headers();
    if let Some(name) = KEY_HEADERS.into_iter().find(|name| headers.contains_key(name)) {
        return Some(Credential::new(single(headers, &name).unwrap_or_default()));
    }
    let query = req.uri().query().filter(|query| query.contains(KEY_PARAMETER))?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == KEY_PARAMETER).map(|(_, value)| value);
    let value = values.next()?;
    let value = if values.next().is_some() { "" } else { value };
    let text = percent_encoding::percent_decode_str(value).decode_utf8().unwrap_or_default();
    Some(Credential::of_query(text))
}

/// Names with their values.
type Valued = Vec<(Name, String)>;

/// The header fields and claims that this call's limits go by.
fn counted(
    operation: &Operation,
    terms: &Terms,
    headers: &HeaderMap,
    verified: Option<&Verified>,
) -> (Valued, Valued) {
    let mut by_header = Vec::new();
    for name in terms.headers().chain(operation.counted.headers.iter()) {
        let value = headers.get(&**name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        by_header.extend(value.map(|value| (name.clone(), value)));
    }
    let Some(verified) = verified else { return (by_header, Vec::new()) };
    let mut by_claim = Valued::new();
    by_claim.extend(verified.subject().map(|subject| (SUBJECT.into(), subject.to_owned())));
    for name in terms.claims().chain(operation.counted.claims.iter()) {
        let value = verified.claims.get(name).map(|value| match value.as_str() {
            Some(text) => Cow::from(text),
            None => Cow::from(value.to_string()),
        });
        by_claim.extend(value.map(|value| (name.clone(), value.into_owned())));
    }
    (by_header, by_claim)
}

/// Bytes of the body, as far as the head tells.
fn length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// The value of a header that stands there once and is text.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}
