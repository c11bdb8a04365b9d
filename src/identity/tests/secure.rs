//! Keys that come over TLS, with an authority that is trusted and without.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::material::RSA;
use super::server::answer_with_keys;
use super::*;
use crate::identity::{FetchProblem, IdentityFault};

/// An authority's certificate, and the address of a server with one for this host from it.
async fn secure() -> (String, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that does not trust us hangs up.
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(&answer_with_keys(&[RSA.jwk("one")])).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    (authority.pem(), url)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let (authority, url) = secure().await;
    let mut identity = Identity::new("staff", STAFF, KeySource::Url(url), &[AUDIENCE]);
    identity.allow = vec!["127.0.0.0/8".to_owned()];
    let stranger = verifier(vec![identity.clone()], &clock());
    let problem = stranger.refresh("staff").await.unwrap().unwrap_err();
    assert!(matches!(*problem, FetchProblem::Transport(_)), "{problem:?}");
    assert_eq!(refusal(&stranger, &plain(&RSA, "one", &good())).await, Some(Refusal::KeysUnavailable));
    identity.authority = Some(authority.into_bytes());
    let friend = verifier(vec![identity.clone()], &clock());
    accepted(&friend, &RSA.token(&json!({ "alg": "RS256", "kid": "one" }), &good())).await;
    identity.authority = Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    let fault = Verifier::new(vec![identity], clock()).expect_err("that is no certificate").fault;
    assert!(matches!(fault, IdentityFault::Address(_)), "{fault:?}");
}
