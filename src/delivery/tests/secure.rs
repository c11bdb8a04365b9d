//! Deliveries under TLS, with certificates that are good and others.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lanekeeper_actors::model::delivery::OutcomeKind::*;
use lanekeeper_actors::model::delivery::{Attempt, ClientIdentity, Endpoint, Outcome, Transport};
use lanekeeper_actors::model::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::{EMPTY_200, SHORT, attempt, attempt_to, clock, endpoint, webhooks};
use crate::delivery::{WebhookSettings, Webhooks};

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An authority with a name of its own.
pub(super) fn authority() -> Issuer {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut params = CertificateParams::new([]).unwrap();
    let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::SeqCst));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
pub(super) struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Leaf {
    fn new(issuer: Option<&Issuer>, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        shape(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { certificate, key }
    }

    pub(super) fn good(issuer: &Issuer) -> Self {
        Self::new(Some(issuer), "127.0.0.1", |_| {})
    }

    fn identity(&self) -> ClientIdentity {
        ClientIdentity {
            certificate: Arc::from(self.certificate.pem().as_bytes()),
            key: Secret::new(self.key.serialize_pem()),
        }
    }

    /// A server with this certificate, which asks clients for one by `clients`, if given.
    pub(super) fn server(&self, clients: Option<&Issuer>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(issuer) => {
                let mut roots = RootCertStore::empty();
                roots.add(issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Arc::new(builder.with_single_cert(vec![self.certificate.der().clone()], key).unwrap())
    }
}

/// A server whose setting can be changed.
async fn secure(setting: Arc<ServerConfig>) -> (Server, Arc<Mutex<Arc<ServerConfig>>>) {
    let setting = Arc::new(Mutex::new(setting));
    (Server::secure(Arc::clone(&setting), EMPTY_200).await, setting)
}

pub(super) fn trusting(url: &str, authority: &Issuer) -> Endpoint {
    let mut endpoint = endpoint(url);
    endpoint.tls.ca = Some(Arc::from(authority.pem().as_bytes()));
    endpoint
}

fn assert_tls(outcome: &Outcome, words: &str) {
    assert_eq!((outcome.kind, outcome.status), (SocketError, None), "{outcome:?}");
    assert_eq!(outcome.detail, format!("tls: {words}"));
}

const UNTRUSTED: &str =
    "the certificate is self-signed, or its authority is not among those that are trusted";

#[tokio::test]
async fn a_private_authority_is_trusted_by_the_endpoints_that_name_it_and_no_others() {
    let (ours, other) = (authority(), authority());
    let (server, _) = secure(Leaf::good(&ours).server(None)).await;
    let webhooks = webhooks();
    let outcome = webhooks.deliver(attempt_to(trusting(&server.secure_url(), &ours))).await;
    assert!(outcome.is_delivered(), "{outcome:?}");
    // The open connection is lent to nobody who would not have trusted it.
    assert_tls(&webhooks.deliver(attempt(&server.secure_url())).await, UNTRUSTED);
    assert_tls(&webhooks.deliver(attempt_to(trusting(&server.secure_url(), &other))).await, UNTRUSTED);
    let outcome = webhooks.deliver(attempt_to(trusting(&server.secure_url(), &ours))).await;
    assert!(outcome.is_delivered(), "{outcome:?}");
    assert_eq!((server.accepted(), server.requests().len()), (3, 2));
}

#[tokio::test]
async fn certificates_that_are_not_good_are_refused_by_name_and_nothing_is_sent() {
    let ours = authority();
    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    };
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(3000, 1, 1);
    let webhooks = webhooks();
    for (leaf, words) in [
        (Leaf::new(Some(&ours), "127.0.0.1", expired), "the certificate has expired"),
        (Leaf::new(Some(&ours), "127.0.0.1", early), "the certificate is not valid yet"),
        (Leaf::new(Some(&ours), "127.0.0.2", |_| {}), "the certificate is for another host"),
        (Leaf::new(Some(&ours), "hook.example", |_| {}), "the certificate is for another host"),
        (Leaf::new(None, "127.0.0.1", |_| {}), UNTRUSTED),
        (Leaf::good(&authority()), UNTRUSTED),
    ] {
        let (server, _) = secure(leaf.server(None)).await;
        assert_tls(&webhooks.deliver(attempt_to(trusting(&server.secure_url(), &ours))).await, words);
        assert_eq!(server.requests().len(), 0, "{words}");
    }
}

#[tokio::test]
async fn peers_that_speak_old_tls_or_none_are_refused_and_the_version_is_not_lowered() {
    // The answer of a server that knows nothing above TLS 1.0: in words, or by choosing it.
    let mut hello = vec![0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 0x2f, 0]);
    let old: [(Vec<u8>, &str); 4] = [
        (vec![0x15, 3, 1, 0, 2, 2, 70], "the peer speaks no version of TLS from 1.2 on"),
        (hello, "the peer and this host have no version or cipher of TLS in common"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "the peer does not speak TLS"),
        (b"220 smtp.example ESMTP\r\n".to_vec(), "the peer does not speak TLS"),
    ];
    let webhooks = webhooks();
    for (answer, words) in old {
        let server = Server::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                use tokio::io::AsyncWriteExt as _;
                connection.socket.write_all(&answer).await.unwrap();
                connection.closed().await;
            }
        })
        .await;
        assert_tls(&webhooks.deliver(attempt(&server.secure_url())).await, words);
        assert_eq!(server.accepted(), 1, "{words}");
    }
    let server = Server::start(|connection| async move { connection.reset() }).await;
    let outcome = webhooks.deliver(attempt(&server.secure_url())).await;
    // Whether before the handshake began or within it, nobody can say.
    assert_eq!(outcome.kind, SocketError, "{outcome:?}");
}

#[tokio::test]
async fn a_handshake_that_hangs_times_out_at_the_connect_limit() {
    let server = Server::start(|mut connection| async move { connection.closed().await }).await;
    let settings = WebhookSettings { connect_timeout: SHORT, ..WebhookSettings::default() };
    let webhooks = Webhooks::new(settings, clock()).unwrap();
    let outcome = webhooks.deliver(attempt(&server.secure_url())).await;
    super::assert_timed_out(&outcome, outcome.took);
    assert_eq!(outcome.detail, "connecting took too long");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_certificate_is_shown_the_one_of_the_endpoint_and_to_no_other_use() {
    let (ours, clients) = (authority(), authority());
    let (server, _) = secure(Leaf::good(&ours).server(Some(&clients))).await;
    let webhooks = webhooks();
    let with = |identity: Option<ClientIdentity>| {
        let mut endpoint = trusting(&server.secure_url(), &ours);
        endpoint.tls.identity = identity;
        attempt_to(endpoint)
    };
    let known = Leaf::new(Some(&clients), "lanekeeper", |_| {});
    for _ in 0..2 {
        let outcome = webhooks.deliver(with(Some(known.identity()))).await;
        assert!(outcome.is_delivered(), "{outcome:?}");
    }
    assert_eq!(server.accepted(), 1);
    assert_tls(&webhooks.deliver(with(None)).await, "the peer wants a client certificate");
    let unknown = Leaf::new(Some(&authority()), "lanekeeper", |_| {});
    let outcome = webhooks.deliver(with(Some(unknown.identity()))).await;
    assert_tls(&outcome, "the peer refuses the client certificate");
    assert_eq!(server.requests().len(), 2);

    let foreign = ClientIdentity { key: unknown.identity().key, ..known.identity() };
    let outcome = webhooks.deliver(with(Some(foreign))).await;
    assert_eq!(outcome.kind, Rejected);
    assert!(outcome.detail.contains("certificates cannot be used"), "{outcome:?}");
}

#[tokio::test]
async fn a_certificate_that_is_replaced_meanwhile_makes_no_difference_if_it_is_good() {
    let ours = authority();
    let (server, setting) = secure(Leaf::good(&ours).server(None)).await;
    let webhooks = webhooks();
    for width in 1..=3 {
        // More at a time than before, so that one of them needs a new connection.
        let attempt = attempt_to(trusting(&server.secure_url(), &ours));
        let wide = futures_util::future::join_all((0..width).map(|_| webhooks.deliver(attempt.clone())));
        for outcome in wide.await {
            assert!(outcome.is_delivered(), "{outcome:?}");
        }
        *setting.lock().unwrap() = Leaf::good(&ours).server(None);
    }
    // A connection that is open stays good; a new one is judged by the new certificate.
    *setting.lock().unwrap() = Leaf::good(&authority()).server(None);
    assert!(webhooks.deliver(attempt_to(trusting(&server.secure_url(), &ours))).await.is_delivered());
    let fresh = Webhooks::new(WebhookSettings::default(), clock()).unwrap();
    assert_tls(&fresh.deliver(attempt_to(trusting(&server.secure_url(), &ours))).await, UNTRUSTED);
}

#[tokio::test]
async fn a_server_that_speaks_http_2_is_sent_everything_over_one_connection() {
    let ours = authority();
    let mut setting = Arc::unwrap_or_clone(Leaf::good(&ours).server(None));
    setting.alpn_protocols = vec![b"h2".to_vec()];
    let (accepted, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook?code=1", listener.local_addr().unwrap());
    tokio::spawn({
        let (accepted, seen) = (Arc::clone(&accepted), Arc::clone(&seen));
        async move {
            let acceptor = TlsAcceptor::from(Arc::new(setting));
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let stream = acceptor.accept(socket).await.unwrap();
                    let service = service_fn(move |request: Request<Incoming>| {
                        let seen = Arc::clone(&seen);
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            seen.lock().unwrap().push((head.uri.to_string(), head.headers, body));
                            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                        }
                    });
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        }
    });
    let webhooks = webhooks();
    let attempt: Attempt = attempt_to(trusting(&url, &ours));
    assert!(webhooks.deliver(attempt.clone()).await.is_delivered());
    let many = futures_util::future::join_all((0..50).map(|_| webhooks.deliver(attempt.clone())));
    for outcome in many.await {
        assert!(outcome.is_delivered(), "{outcome:?}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 51);
    for (uri, headers, body) in seen.iter() {
        assert_eq!((uri, body), (&url, &attempt.body));
        assert_eq!(headers["webhook-id"], "0-812");
        assert!(!headers.contains_key("host"));
    }
}
