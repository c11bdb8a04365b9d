//! Stands between an endpoint's certificates and the handshakes that are made with them.
//! Invariant: a peer is trusted by the authorities that were asked for and by no others, under TLS 1.2 or later;
//! sessions and identities of one setting are never used under another.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use lanekeeper_actors::model::delivery::{ClientIdentity, EndpointTls};
use rustls::client::{ClientConfig, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ConfigBuilder, RootCertStore};
use rustls_platform_verifier::Verifier;
use tracing::warn;

/// Protocols offered, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// The text is not PEM, or a part of it is broken.
    #[error("the {what} cannot be read")]
    Pem {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The text holds nothing of the wanted kind.
    #[error("there is no {0} in the text")]
    Nothing(&'static str),
    /// The TLS library refuses them, for instance because the key belongs to another certificate.
    #[error("the certificates cannot be used")]
    Refused(#[from] rustls::Error),
}

/// Whom to trust and who to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// What the endpoint says.
    pub(crate) tls: EndpointTls,
    /// Whether the host's authorities are trusted beside the endpoint's own.
    pub(crate) also_host: bool,
}

/// Those settings that are in use, each made once: reading the host's authorities takes some 20 ms, and a
/// setting keeps the sessions that make the next handshake short.
pub(crate) struct Settings {
    provider: Arc<CryptoProvider>,
    /// That of endpoints that say nothing.
    plain: Arc<ClientConfig>,
    made: Mutex<Vec<(Trust, Weak<ClientConfig>)>>,
}

impl Settings {
    /// Reads the host's authorities, so that what is wrong with them shows at start.
    ///
    /// # Errors
    /// When the TLS library cannot be used at all.
    pub(crate) fn new() -> Result<Self, TlsProblem> {
        let mut settings = Self::without_host()?;
        match make(&settings.provider, &Trust::default()) {
            Ok(config) => settings.plain = config,
            Err(problem) => {
                warn!(%problem, "no certificate authorities on this host: https endpoints will be refused");
            }
        }
        Ok(settings)
    }

    /// Settings that trust nobody unless an endpoint says so; enough to check one.
    ///
    /// # Errors
    /// As for [`Settings::new`].
    pub(crate) fn without_host() -> Result<Self, TlsProblem> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let plain = finished(only(&provider, RootCertStore::empty())?.with_no_client_auth());
        Ok(Self { provider, plain, made: Mutex::default() })
    }

    /// The setting for this trust.
    ///
    /// # Errors
    /// See [`TlsProblem`].
    pub(crate) fn of(&self, trust: &Trust) -> Result<Arc<ClientConfig>, TlsProblem> {
        if trust.tls == EndpointTls::default() {
            return Ok(Arc::clone(&self.plain));
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = made.iter().find(|(other, _)| other == trust).and_then(|(_, config)| config.upgrade());
        if let Some(config) = known {
            return Ok(config);
        }
        let config = make(&self.provider, trust)?;
        // What no origin uses any more makes room, so there are never more entries than origins.
        made.retain(|(_, config)| config.strong_count() > 0);
        made.push((trust.clone(), Arc::downgrade(&config)));
        Ok(config)
    }
}

fn make(provider: &Arc<CryptoProvider>, trust: &Trust) -> Result<Arc<ClientConfig>, TlsProblem> {
    let builder = match &trust.tls.ca {
        None => verified(provider, Verifier::new(Arc::clone(provider))?)?,
        Some(pem) => {
            let authorities = certificates(pem, "authority's certificate")?;
            if trust.also_host {
                verified(provider, Verifier::new_with_extra_roots(authorities, Arc::clone(provider))?)?
            } else {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority)?;
                }
                only(provider, roots)?
            }
        }
    };
    let config = match &trust.tls.identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { certificate, key }) => {
            let chain = certificates(certificate, "client certificate")?;
            let key = private_key(key.expose().as_bytes(), "client certificate's key")?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(finished(config))
}

type Builder = ConfigBuilder<ClientConfig, WantsClientCert>;

/// Trusts what the platform trusts.
fn verified(provider: &Arc<CryptoProvider>, verifier: Verifier) -> Result<Builder, TlsProblem> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    // The name warns of verifiers that check too little; this one is the platform's.
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

/// Trusts these authorities only.
fn only(provider: &Arc<CryptoProvider>, roots: RootCertStore) -> Result<Builder, TlsProblem> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Arc::new(config)
}

/// All certificates of a PEM text, at least one.
pub(crate) fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| TlsProblem::Pem { what, source })?;
    if found.is_empty() { Err(TlsProblem::Nothing(what)) } else { Ok(found) }
}

/// The private key of a PEM text.
pub(crate) fn private_key(pem: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsProblem::Pem { what, source })
}

/// Says in words what went wrong in a handshake, or what the peer said about it afterwards.
#[expect(clippy::wildcard_enum_match_arm, reason = "what the library adds is said in its own words")]
pub(crate) fn words(problem: &rustls::Error) -> String {
    use rustls::AlertDescription as Alert;
    use rustls::Error as E;

    if let E::InvalidCertificate(certificate) = problem {
        return certificate_words(certificate);
    }
    let text = match problem {
        E::InvalidMessage(_) => "the peer does not speak TLS",
        E::PeerIncompatible(_) => "the peer and this host have no version or cipher of TLS in common",
        E::AlertReceived(Alert::ProtocolVersion) => "the peer speaks no version of TLS from 1.2 on",
        E::AlertReceived(Alert::CertificateRequired) => "the peer wants a client certificate",
        E::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => "the peer refuses the client certificate",
        E::AlertReceived(Alert::HandshakeFailure) => {
            "the peer refuses the handshake, perhaps for want of a client certificate or a common cipher"
        }
        E::AlertReceived(Alert::UnrecognisedName) => "the peer does not know the host name",
        other => return other.to_string(),
    };
    text.to_owned()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what the library adds is said in its own words")]
fn certificate_words(problem: &CertificateError) -> String {
    use CertificateError as C;

    let text = match problem {
        C::Expired | C::ExpiredContext { .. } => "the certificate has expired",
        C::NotValidYet | C::NotValidYetContext { .. } => "the certificate is not valid yet",
        C::NotValidForName | C::NotValidForNameContext { .. } => "the certificate is for another host",
        C::UnknownIssuer => {
            "the certificate is self-signed, or its authority is not among those that are trusted"
        }
        C::Revoked => "the certificate was revoked",
        other => return format!("the certificate is refused: {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_or_with_broken_ones_is_refused() {
        let settings = Settings::new().unwrap();
        let with = |ca: &str| Trust {
            tls: EndpointTls { ca: Some(Arc::from(ca.as_bytes())), identity: None },
            also_host: false,
        };
        assert!(matches!(settings.of(&with("")), Err(TlsProblem::Nothing("authority's certificate"))));
        let broken = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
        assert!(matches!(settings.of(&with(broken)), Err(TlsProblem::Pem { .. })));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(settings.of(&with(empty)), Err(TlsProblem::Refused(_))));
    }

    #[test]
    fn equal_settings_are_made_once_and_forgotten_when_nobody_uses_them() {
        let settings = Settings::new().unwrap();
        let authority = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem();
        let tls = EndpointTls { ca: Some(Arc::from(authority.as_bytes())), identity: None };
        let (only, also) = (Trust { tls: tls.clone(), also_host: false }, Trust { tls, also_host: true });
        let first = settings.of(&only).unwrap();
        assert!(Arc::ptr_eq(&first, &settings.of(&only.clone()).unwrap()));
        assert!(!Arc::ptr_eq(&first, &settings.of(&also).unwrap()));
        assert!(Arc::ptr_eq(&settings.of(&Trust::default()).unwrap(), &settings.plain));
        drop(first);
        settings.of(&also).unwrap();
        assert_eq!(settings.made.lock().unwrap().len(), 1);
    }
}
