//! Stands between a bearer token and who the caller is: JSON Web Tokens (RFC 7519), read as RFC 8725 advises.
//! Invariant: a token is accepted only when its one possible reading was signed by the issuer that it names, with an
//! algorithm and a key of that issuer, and is valid, here, now.
//!
//! `token` reads the form, `claims` the content, `keys` checks signatures, `source` and `fetch` keep keys current,
//! `verifier` puts them in order. Cryptography is the library's; everything that it does not look at is done before.

mod algorithm;
mod claims;
mod fetch;
mod json;
mod keys;
mod refusal;
mod roca;
mod settings;
mod source;
mod token;
mod verifier;

#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claims::{Claims, Requirement, Rules, Wanted, require};
pub use fetch::{AddressProblem, FetchProblem};
pub use keys::{Dropped, KeySet, KeysProblem, SharedSecret, Unfit};
pub use refusal::Refusal;
pub use settings::{Identity, IdentityFault, IdentityProblem, KeySource, OwnKeys};
pub use source::KeysState;
pub use token::{CLAIMS, TOKEN_BYTES, bearer};
pub use verifier::{Verified, Verifier};
