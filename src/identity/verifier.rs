//! Stands between a request's token and who the caller is: form, issuer, key, signature, claims, in this order.
//! Invariant: what is returned was signed by a key of the very issuer that it names, is valid now, and is for us; a
//! remembered answer is no older than a minute, no older than the issuer's keys, and of the very same token.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::model::time::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::claims::{self, Claims};
use super::fetch::{FetchProblem, Place, Web};
use super::keys::KeySet;
use super::refusal::Refusal;
use super::settings::{Identity, IdentityFault, IdentityProblem, KeySource, OwnKeys, check};
use super::source::{KeysState, Source};
use super::token::{Compact, Header, TOKEN_BYTES, type_name};
use crate::delivery::{Names, SystemNames};

/// A token is checked anew after this time.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Memory for tokens that were checked, about.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Memory of a token beside its claims, about.
const ENTRY_BYTES: u64 = 512;
/// Memory of claims for each byte of their token, about.
const CLAIMS_FACTOR: u64 = 4;

/// Who a caller is.
#[derive(Debug)]
pub struct Verified {
    /// The identity that vouches for it, by its name in the manifest.
    pub identity: Arc<str>,
    /// The caller's tenant, when the identity says which claim names it.
    pub tenant: Option<TenantId>,
    /// Everything that the token claims.
    pub claims: Claims,
    /// The first moment at which the token is refused.
    pub until: Timestamp,
}

impl Verified {
    /// Whom the token is about.
    pub fn subject(&self) -> Option<&str> {
        self.claims.all().get("sub")?.as_str()
    }
}

/// Checks tokens of several issuers. Its methods that wait run in a tokio runtime.
pub struct Verifier {
    /// By what their tokens call them.
    issuers: HashMap<String, Arc<Issuer>>,
    clock: SharedClock,
    names: Arc<dyn Names>,
    remembered: Arc<Remembered>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Issuer {
    identity: Identity,
    name: Arc<str>,
    source: Arc<Source>,
}

/// Tokens that were checked, by their SHA-256.
type Remembered = Cache<[u8; 32], Arc<Entry>, Weight>;

struct Entry {
    verified: Arc<Verified>,
    /// The very issuer that checked it, with the settings that it had.
    issuer: Arc<Issuer>,
    /// The issuer's keys then.
    generation: u64,
    until: Duration,
    bytes: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<[u8; 32], Arc<Entry>> for Weight {
    fn weight(&self, _: &[u8; 32], entry: &Arc<Entry>) -> u64 {
        entry.bytes
    }
}

impl Verifier {
    /// Prepares to check tokens. Files are read now; addresses are asked when a key is first needed, or in
    /// [`Verifier::warm`].
    ///
    /// # Errors
    /// The first identity that cannot be used.
    pub fn new(identities: Vec<Identity>, clock: SharedClock) -> Result<Self, IdentityProblem> {
        Self::with_names(identities, clock, Arc::new(SystemNames))
    }

    /// As [`Verifier::new`], with another source of names. Its answers are vetted like any others.
    ///
    /// # Errors
    /// As for [`Verifier::new`].
    pub fn with_names(
        identities: Vec<Identity>,
        clock: SharedClock,
        names: Arc<dyn Names>,
    ) -> Result<Self, IdentityProblem> {
        let items = usize::try_from(CACHE_BYTES / (ENTRY_BYTES * CLAIMS_FACTOR)).unwrap_or(usize::MAX);
        let remembered = Arc::new(Cache::with_weighter(items, CACHE_BYTES, Weight));
        let empty = Self { issuers: HashMap::new(), clock, names, remembered };
        empty.followed_by(identities)
    }

    /// A verifier for other identities. Those that are as before keep their keys and the tokens that were checked, so
    /// that applying a manifest asks nobody anew; files are read again.
    ///
    /// # Errors
    /// The first identity that cannot be used; this verifier stays as it is.
    pub fn followed_by(&self, identities: Vec<Identity>) -> Result<Self, IdentityProblem> {
        let mut issuers: HashMap<String, Arc<Issuer>> = HashMap::new();
        for identity in identities {
            let name = identity.name.clone();
            let issuer = self.issuer(identity, &issuers);
            let issuer = issuer.map_err(|fault| IdentityProblem { identity: name, fault })?;
            issuers.insert(issuer.identity.issuer.clone(), issuer);
        }
        let (clock, names) = (Arc::clone(&self.clock), Arc::clone(&self.names));
        Ok(Self { issuers, clock, names, remembered: Arc::clone(&self.remembered) })
    }

    fn issuer(
        &self,
        identity: Identity,
        others: &HashMap<String, Arc<Issuer>>,
    ) -> Result<Arc<Issuer>, IdentityFault> {
        if others.values().any(|other| other.identity.name == identity.name) {
            return Err(IdentityFault::NameRepeated);
        }
        if let Some(other) = others.get(&identity.issuer) {
            return Err(IdentityFault::IssuerRepeated(other.identity.name.clone()));
        }
        if let Some(before) = self.issuers.get(&identity.issuer)
            && before.identity == identity
        {
            before.source.read_now()?;
            return Ok(Arc::clone(before));
        }
        check(&identity)?;
        let source = match self.issuers.get(&identity.issuer) {
            Some(before) if before.identity.has_keys_of(&identity) => Arc::clone(&before.source),
            Some(_) | None => Arc::new(self.source(&identity)?),
        };
        source.read_now()?;
        Ok(Arc::new(Issuer { name: identity.name.as_str().into(), source, identity }))
    }

    fn source(&self, identity: &Identity) -> Result<Source, IdentityFault> {
        let Identity { name, issuer, algorithms, .. } = identity;
        let clock = Arc::clone(&self.clock);
        let web = |url: &str| {
            let web = Web::new(Arc::clone(&self.names), &identity.allow, identity.authority.as_deref())?;
            web.check(url).map(|()| web)
        };
        let place = match &identity.keys {
            KeySource::Secrets(secrets) => {
                return Ok(Source::fixed(name, KeySet::from_secrets(secrets, algorithms)?, clock));
            }
            KeySource::SecretJwks(text) => {
                let keys = KeySet::from_secret_jwks(text)?;
                if let Some(missing) = algorithms.iter().find(|algorithm| !keys.has_key_for(**algorithm)) {
                    return Err(IdentityFault::NoKeyFor(*missing));
                }
                return Ok(Source::fixed(name, keys, clock));
            }
            KeySource::File(path) => Place::File(path.clone()),
            KeySource::Url(url) => Place::Url(web(url)?, url.clone()),
            KeySource::OpenId(url) => {
                Place::OpenId { web: web(url)?, url: url.clone(), issuer: issuer.clone() }
            }
        };
        Ok(Source::fetched(name, place, clock))
    }

    /// Says who sent a token.
    ///
    /// # Errors
    /// See [`Refusal`]; the caller is told its code and nothing else.
    pub async fn verify(&self, token: &str) -> Result<Arc<Verified>, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        match self.recall(&digest) {
            Some(verified) => Ok(verified),
            // The way through keys and signatures is long; most requests do not carry the room for it.
            None => Box::pin(self.verify_anew(token, digest)).await,
        }
    }

    /// What was found about this token before, if that still holds.
    fn recall(&self, digest: &[u8; 32]) -> Option<Arc<Verified>> {
        let entry = self.remembered.get(digest)?;
        let issuer = self.issuers.get(&entry.issuer.identity.issuer)?;
        let holds = Arc::ptr_eq(issuer, &entry.issuer)
            && issuer.source.generation() == entry.generation
            && self.clock.elapsed() < entry.until
            && self.clock.now() < entry.verified.until;
        holds.then(|| Arc::clone(&entry.verified))
    }

    async fn verify_anew(&self, token: &str, digest: [u8; 32]) -> Result<Arc<Verified>, Refusal> {
        let compact = Compact::parse(token)?;
        let claims = compact.claims()?;
        // Not believed, but whoever lies about it is checked with keys that do not fit.
        let issuer = self.issuers.get(claims::issuer(&claims)?).ok_or(Refusal::Issuer)?;
        issuer.admit(&compact.header)?;
        let mut held = issuer.source.keys().await?;
        match held.keys.verify(&compact) {
            Err(Refusal::Key) => {
                issuer.source.look_again(&held).await;
                held = issuer.source.keys().await?;
                held.keys.verify(&compact)?;
            }
            found => found?,
        }
        let claims = Claims::new(claims);
        let accepted = claims::check(&claims, &issuer.identity.rules, self.clock.now())?;
        let verified = Arc::new(Verified {
            identity: Arc::clone(&issuer.name),
            tenant: accepted.tenant,
            claims,
            until: accepted.until,
        });
        let entry = Entry {
            verified: Arc::clone(&verified),
            issuer: Arc::clone(issuer),
            generation: held.generation,
            until: self.clock.elapsed() + REMEMBERED,
            bytes: ENTRY_BYTES.saturating_add(CLAIMS_FACTOR.saturating_mul(token.len() as u64)),
        };
        self.remembered.insert(digest, Arc::new(entry));
        Ok(verified)
    }

    /// Fetches all keys that are not there yet, and waits for them. What fails is logged, and tried again later.
    pub async fn warm(&self) {
        let all = self.issuers.values().map(|issuer| issuer.source.keys());
        futures_util::future::join_all(all).await;
    }

    /// Fetches the keys of an identity now. `None` when there is no such identity.
    pub async fn refresh(&self, identity: &str) -> Option<Result<KeysState, Arc<FetchProblem>>> {
        let issuer = self.issuers.values().find(|issuer| issuer.identity.name == identity)?;
        let done = issuer.source.refresh().await;
        Some(done.map(|()| issuer.source.state()))
    }

    /// What is known about the keys of each identity, in the order of their names.
    pub fn states(&self) -> Vec<KeysState> {
        let mut states: Vec<_> = self.issuers.values().map(|issuer| issuer.source.state()).collect();
        states.sort_by(|one, other| one.identity.cmp(&other.identity));
        states
    }
}

impl Issuer {
    /// Checks what a header says against what this issuer's headers say.
    fn admit(&self, header: &Header) -> Result<(), Refusal> {
        let Identity { algorithms, types, untyped, own_keys, .. } = &self.identity;
        if !algorithms.contains(&header.algorithm) {
            return Err(Refusal::Algorithm);
        }
        let is_accepted = match &header.typ {
            None => *untyped,
            Some(typ) => types.iter().any(|accepted| type_name(accepted) == *typ),
        };
        if !is_accepted {
            return Err(Refusal::Type);
        }
        match own_keys {
            OwnKeys::Refused if header.brings_key => Err(Refusal::Header),
            OwnKeys::Refused | OwnKeys::Ignored => Ok(()),
        }
    }
}
