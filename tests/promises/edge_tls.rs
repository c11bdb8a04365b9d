//! TLS at the public door and at the private one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Identity, Method, Version};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::count;
use super::server::{AMPLE, House, KEY, Server};

const PING: &str = "/freight/ping";

const MANIFEST: &str = r#"
manifest: 1
project: secure
server:
  listen: [{ addr: "127.0.0.1:0", tls: { cert: server.pem, key: server.key, MORE } }]
  admin: { addr: "127.0.0.1:0", tls: { cert: server.pem, key: server.key } }
  shards: 1
limits: { LIMITS }
containers: { loads: { partition_key: [/lane] } }
apis:
  freight:
    path: /freight
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      ping: { method: GET, path: /ping, to: { mock: { status: 200, body: { ok: true } } } }
products: { all: { apis: [freight] } }
api_keys: { main: { product: all, tenant: acme, primary: { env: MAIN } } }
"#;

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority() -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key for this host.
fn leaf(issuer: &Issuer) -> (String, String) {
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// A house with certificates of this authority, which asks its clients for those of `clients.pem`.
pub(super) fn house(issuer: &Issuer, more: &str, limits: &str) -> House {
    let house = House::new(&MANIFEST.replace("MORE", more).replace("LIMITS", limits)).secure(&issuer.pem());
    let (cert, key) = leaf(issuer);
    house.write("server.pem", &cert);
    house.write("server.key", &key);
    house
}

fn address(server: &Server) -> &str {
    server.gateway.strip_prefix("https://").expect("the ready line tells of TLS")
}

/// How a client shakes hands that trusts this authority.
pub(super) fn client(issuer: &Issuer, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn trusting(issuer: &Issuer, version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    Arc::new(client(issuer, version)).into()
}

pub(super) async fn shake(
    server: &Server,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address(server)).await?;
    let shaking = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream);
    tokio::time::timeout(AMPLE, shaking).await.expect("a handshake that never ends")
}

/// What the server shows to a new connection.
async fn shown(server: &Server, connector: &TlsConnector) -> Vec<u8> {
    let stream = shake(server, connector).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_listener_with_tls_speaks_http_2_and_http_1() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "");
    let server = house.start().await;
    assert!(server.gateway.starts_with("https://") && server.admin.starts_with("https://"));
    let url = format!("{}/freight/loads", server.gateway);
    for (version, client) in [
        (Version::HTTP_2, house.client().build().unwrap()),
        (Version::HTTP_11, house.client().http1_only().build().unwrap()),
    ] {
        let ping = client.get(format!("{}{PING}", server.gateway)).header("x-api-key", KEY);
        let ping = ping.send().await.unwrap();
        assert_eq!((ping.status().as_u16(), ping.version()), (200, version));
        let body = json!({ "lane": "a", "text": "x".repeat(300_000) });
        let created = client.post(&url).header("x-api-key", KEY).json(&body).send().await.unwrap();
        assert_eq!((created.status().as_u16(), created.version()), (201, version));
        let nobody = client.post(&url).json(&body).send().await.unwrap();
        assert_eq!((nobody.status().as_u16(), nobody.version()), (401, version));
    }
    assert_eq!(server.ask("/v1/containers").await.status, 200);
    // Who speaks plainly is not understood, and keeps no place.
    let plain = server.raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "never").await;
    assert!(!plain.contains("HTTP/1.1 2"), "{plain}");
    let both = [&rustls::version::TLS12, &rustls::version::TLS13];
    for version in both {
        shake(&server, &trusting(&issuer, version)).await.unwrap();
    }
    assert!(server.stop().await.success());
}

#[tokio::test]
async fn versions_below_the_least_are_refused() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.3'", "");
    let server = house.start().await;
    shake(&server, &trusting(&issuer, &rustls::version::TLS13)).await.unwrap();
    let old = shake(&server, &trusting(&issuer, &rustls::version::TLS12)).await;
    assert!(old.is_err(), "TLS 1.2 was let in");
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_never() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "");
    let server = house.start().await;
    let connector = trusting(&issuer, &rustls::version::TLS13);
    let first = shown(&server, &connector).await;
    let mut held = shake(&server, &connector).await.unwrap();
    // Only half of what belongs together.
    let (cert, key) = leaf(&issuer);
    house.write("server.pem", &cert);
    server.signal("HUP");
    let deadline = Instant::now() + AMPLE;
    while !house.log().contains("new certificate refused") {
        assert!(Instant::now() < deadline, "nobody complains:\n{}", house.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown(&server, &connector).await, first);
    // The other half, and nobody says so: it is looked for.
    house.write("server.key", &key);
    let deadline = Instant::now() + AMPLE;
    while shown(&server, &connector).await == first {
        assert!(Instant::now() < deadline, "the new certificate is never served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A connection that was there goes on.
    let ask = format!("GET {PING} HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\nconnection: close\r\n\r\n");
    held.write_all(ask.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(AMPLE, tokio::io::AsyncReadExt::read_to_end(&mut held, &mut said))
        .await
        .unwrap()
        .ok();
    assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
    let log = house.log();
    assert!(log.contains("certificate changed") && !log.contains("PRIVATE"), "{log}");
}

#[tokio::test]
async fn clients_are_asked_for_certificates_where_the_manifest_says_so() {
    let (issuer, clients) = (authority(), authority());
    for (more, needed) in [
        ("client_ca: clients.pem", true),
        ("client_ca: clients.pem, client_cert: required", true),
        ("client_ca: clients.pem, client_cert: optional", false),
    ] {
        let house = house(&issuer, more, "");
        house.write("clients.pem", &clients.pem());
        let server = house.start().await;
        let ping = |identity: Option<(String, String)>| {
            let client = house.client();
            let client = match identity {
                None => client,
                Some((cert, key)) => client.identity(Identity::from_pem((cert + &key).as_bytes()).unwrap()),
            };
            let url = format!("{}{PING}", server.gateway);
            async move {
                let answer = client.build().unwrap().get(url).header("x-api-key", KEY).send().await;
                answer.ok().map(|answer| answer.status().as_u16())
            }
        };
        assert_eq!(ping(None).await, (!needed).then_some(200), "{more}: no certificate");
        assert_eq!(ping(Some(leaf(&clients))).await, Some(200), "{more}: a good one");
        assert_eq!(ping(Some(leaf(&issuer))).await, None, "{more}: somebody else's");
    }
}

#[tokio::test]
async fn connections_with_tls_count_from_their_first_byte_on() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "connections_per_ip: 20, header_timeout: 6s");
    let server = house.start().await;
    let connector = trusting(&issuer, &rustls::version::TLS13);
    // They never begin to shake hands; those that are too many are gone at once.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(server.connect().await);
    }
    let full = |answer: &super::server::Answer| count(&answer.text, "lanekeeper_connections") == 20;
    server.until("/metrics", full).await;
    // The last of them end with the time they have; none waits any more to be taken up.
    for socket in &mut silent {
        let mut said = [0];
        let ended = tokio::time::timeout(AMPLE, tokio::io::AsyncReadExt::read(socket, &mut said));
        let ended = ended.await.expect("it is cut off");
        assert!(!matches!(ended, Ok(1..)), "something was said to one who said nothing");
    }
    let calm = |answer: &super::server::Answer| count(&answer.text, "lanekeeper_connections") == 0;
    server.until("/metrics", calm).await;
    // These do, and keep their place.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(shake(&server, &connector).await.unwrap());
    }
    assert!(shake(&server, &connector).await.is_err(), "one too many was let in");
    drop(held);
    server.until("/metrics", calm).await;
    // A handshake that is begun and not ended is cut off.
    let mut slow = server.connect().await;
    slow.write_all(&[22, 3, 1]).await.unwrap();
    super::server::read_until(&mut slow, "never").await;
    shake(&server, &connector).await.unwrap();
}

#[tokio::test]
async fn the_command_line_reaches_an_admin_listener_with_tls() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "");
    house.write("authority.pem", &issuer.pem());
    let house = house.with("SSL_CERT_FILE", "authority.pem");
    let server = house.start().await;
    let list = house.verb(&["keys", "list", "--admin", &server.admin]);
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let answer = super::server::answer(server.operator(Method::GET, "/v1/nothing")).await;
    assert_eq!(answer.status, 404);
}

#[test]
fn lint_looks_at_the_files_of_a_listener() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "");
    let lint = || {
        let output = house.verb(&["lint", "manifest.yaml"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // The key of the manifest is not in the environment of every machine; files are.
    assert!(lint().0, "{}", lint().1);
    house.write("server.key", &leaf(&issuer).1);
    let (good, said) = lint();
    assert!(!good && said.contains("manifest.yaml:5:") && said.contains("does not belong"), "{said}");
    house.write("server.pem", "nothing");
    let (good, said) = lint();
    assert!(!good && said.contains("there is no certificate in the text"), "{said}");
}
