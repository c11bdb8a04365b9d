//! Stands between the many ways in which a token can be wrong and the few words that its sender hears.
//! Invariant: a refusal carries nothing of the token, of the keys, or of what was expected.

/// Why a token was not accepted. [`Refusal::code`] is stable; the text is for operators and says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Several `Authorization` headers, of which two readers could choose different ones.
    #[error("there is more than one authorization header")]
    Repeated,
    /// The token is longer than any that is read.
    #[error("the token is too long")]
    TooLong,
    /// It is not three parts of strict base64url, or a part is not the JSON that it has to be.
    #[error("the token is malformed")]
    Malformed,
    /// The algorithm is none, unknown, or none of those that its issuer signs with.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The header asks for something that is not done, such as an extension, compression or a key from elsewhere.
    #[error("the token's header is not accepted")]
    Header,
    /// It is another kind of token, for instance one that says who signed in.
    #[error("the token is of another type")]
    Type,
    /// The issuer is missing, or is none of those that are trusted.
    #[error("the token's issuer is not trusted")]
    Issuer,
    /// The issuer has no such key.
    #[error("the token's key is not known")]
    Key,
    /// The issuer's keys could not be had, or are too old to be used. Not the sender's fault: trying later may help.
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    /// The signature does not fit.
    #[error("the token's signature is not right")]
    Signature,
    /// A claim that has a meaning here has a value that cannot be read.
    #[error("a claim of the token is malformed")]
    Claims,
    /// It does not say until when it is valid, or that is past.
    #[error("the token has expired")]
    Expired,
    /// It says that it is valid or was issued only later.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is valid for longer than is accepted, or does not say since when.
    #[error("the token's lifetime is too long")]
    Lifetime,
    /// It is meant for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// A claim that names the caller's tenant is missing, or is no tenant's name.
    #[error("the token names no tenant")]
    Tenant,
    /// A claim that is required here is missing or has another value.
    #[error("the token lacks a required claim")]
    Requirement,
}

impl Refusal {
    /// All of them, in the order of the checks.
    pub const ALL: [Self; 17] = [
        Self::Repeated,
        Self::TooLong,
        Self::Malformed,
        Self::Algorithm,
        Self::Header,
        Self::Type,
        Self::Issuer,
        Self::Key,
        Self::KeysUnavailable,
        Self::Signature,
        Self::Claims,
        Self::Expired,
        Self::NotYet,
        Self::Lifetime,
        Self::Audience,
        Self::Tenant,
        Self::Requirement,
    ];

    /// The stable code of an answer.
    pub fn code(self) -> &'static str {
        match self {
            Self::Repeated => "authorization_repeated",
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm_refused",
            Self::Header => "token_header_refused",
            Self::Type => "token_type_refused",
            Self::Issuer => "token_issuer_unknown",
            Self::Key => "token_key_unknown",
            Self::KeysUnavailable => "token_keys_unavailable",
            Self::Signature => "token_signature_invalid",
            Self::Claims => "token_claims_malformed",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet_valid",
            Self::Lifetime => "token_lifetime_too_long",
            Self::Audience => "token_audience_refused",
            Self::Tenant => "token_tenant_missing",
            Self::Requirement => "token_claim_required",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> =
            Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
