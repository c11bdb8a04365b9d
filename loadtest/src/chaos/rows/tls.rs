//! Rows 21 and 22: endpoints under TLS, played by `openssl s_server`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{AMPLE, FEW, want_letters};
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, Scene};
use crate::chaos::tools;
use crate::endpoint::doors::Refusing;
use crate::endpoint::scripts;

/// Certificates of a row, in a temporary directory.
struct Authority {
    folder: tempfile::TempDir,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// Makes an authority of its own.
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("lanekeeper-chaos-tls-").tempdir()?;
        let authority = Self { folder };
        let (certificate, key) = (authority.path("ca.pem"), authority.path("ca.key"));
        let subject = "/CN=Chaos Authority";
        tools::run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-subj",
                subject,
                "-days",
                "2",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ],
        )
        .await?;
        Ok(authority)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Makes a certificate for these names, signed by the authority. `days` may be negative.
    async fn sign(&self, name: &str, host: &str, days: i32) -> anyhow::Result<Identity> {
        let (key, request, certificate) = (
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.csr")),
            self.path(&format!("{name}.pem")),
        );
        let extensions = self.path(&format!("{name}.ext"));
        std::fs::write(&extensions, format!("subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n"))?;
        let subject = format!("/CN={host}");
        tools::run(
            "openssl",
            &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject],
        )
        .await?;
        let (ca, ca_key, days) = (self.path("ca.pem"), self.path("ca.key"), days.to_string());
        tools::run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                &days,
                "-extfile",
                &extensions,
                "-out",
                &certificate,
            ],
        )
        .await?;
        Ok(Identity { certificate: certificate.into(), key: key.into() })
    }

    /// Makes a certificate that nobody signed.
    async fn self_signed(&self, host: &str) -> anyhow::Result<Identity> {
        let (key, certificate) = (self.path("self.key"), self.path("self.pem"));
        let (subject, name) = (format!("/CN={host}"), format!("subjectAltName=DNS:{host}"));
        tools::run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-subj",
                &subject,
                "-days",
                "2",
                "-addext",
                &name,
            ],
        )
        .await?;
        Ok(Identity { certificate: certificate.into(), key: key.into() })
    }
}

/// An endpoint under TLS that answers every request with 204.
struct Secured {
    _child: Child,
    address: SocketAddr,
}

impl Secured {
    async fn open(identity: &Identity, address: SocketAddr, more: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-naccept", "1000000", "-accept", &address.to_string()]);
        command.arg("-cert").arg(&identity.certificate).arg("-key").arg(&identity.key).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Skip(format!("`openssl s_server`: {error}")))?;
        let (mut out, mut answers) =
            (child.stdout.take().context("no stdout")?, child.stdin.take().context("no stdin")?);
        tokio::spawn(async move {
            // What comes is a request each time; what is said goes to whoever is connected.
            let mut piece = [0; 8192];
            let mut text = Vec::new();
            while let Ok(length) = out.read(&mut piece).await {
                if length == 0 {
                    return;
                }
                text.extend_from_slice(piece.get(..length).unwrap_or_default());
                if text.ends_with(b"}") {
                    text.clear();
                    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    if answers.write_all(answer).await.is_err() || answers.flush().await.is_err() {
                        return;
                    }
                }
            }
        });
        for _ in 0..200 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(Self { _child: child, address });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("`openssl s_server` does not listen")
    }

    fn url(&self, subscriber: u32) -> String {
        format!("https://localhost:{}/s/{subscriber}", self.address.port())
    }
}

/// A free address.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(Refusing::take()?.give_back())
}

/// The server trusts this authority as if the host did.
fn trust(scene: &mut Scene, authority: &Path) {
    scene.environment.push(("SSL_CERT_FILE".to_owned(), authority.display().to_string()));
}

pub(in crate::chaos) async fn refusals(context: Context) -> anyhow::Result<Findings> {
    let authority = Authority::new().await?;
    let good = authority.sign("good", "localhost", 2).await?;
    let expired = authority.sign("expired", "localhost", -1).await?;
    let other = authority.sign("other", "other.example", 2).await?;
    let own = authority.self_signed("localhost").await?;
    let old = ["-tls1", "-cipher", "ALL:@SECLEVEL=0"];
    let mut secured = Vec::new();
    let cases: [(&str, &Identity, &[&str]); 4] = [
        ("expired", &expired, &[]),
        ("self-signed", &own, &[]),
        ("wrong-host", &other, &[]),
        ("tls-1-0", &good, &old),
    ];
    let mut scene = Scene::new(&context).await?;
    trust(&mut scene, authority.folder.path().join("ca.pem").as_path());
    for (name, identity, more) in cases {
        let endpoint = Secured::open(identity, free()?, more).await?;
        let url = endpoint.url(scene.next());
        scene.subscribe_to(name, &url, Retry::quick(2));
        secured.push(endpoint);
    }
    let plain = context.endpoint(scripts::well()).await?;
    let url = format!("https://localhost:{}/s/{}", plain.address().port(), scene.next());
    scene.subscribe_to("plain-text", &url, Retry::quick(2));
    let trusted = Secured::open(&good, free()?, &[]).await?;
    let url = trusted.url(scene.next());
    scene.subscribe_to("trusted", &url, Retry::quick(5));
    let stage = scene.open().await?;
    // One after the other: such a server speaks to one caller at a time.
    stage.publish(1).await?;
    stage.rest(AMPLE).await?;
    let mut findings = Findings::default();
    for name in ["expired", "self-signed", "wrong-host", "tls-1-0", "plain-text"] {
        want_letters(&mut findings, &stage, name, 1, "SocketError", "MaxDeliveryAttemptsExceeded").await?;
        let letters = stage.letters(name).await?;
        let bare = letters.iter().find(|letter| !letter.detail.starts_with("tls:"));
        findings.want(bare.is_none(), || {
            format!("{name}: `{}`", bare.map_or("", |letter| letter.detail.as_str()))
        });
    }
    let status = stage.status("trusted").await?;
    findings.want(status.delivered == 1, || format!("trusted: not delivered ({:?})", status.recent.first()));
    findings.join(private_authority(&context, &authority, &good).await?);
    findings.tell("5 refused with `tls:`, the one of a trusted authority delivered");
    Ok(findings)
}

/// A subscription may bring an authority that the host does not trust.
async fn private_authority(
    context: &Context,
    authority: &Authority,
    good: &Identity,
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let endpoint = Secured::open(good, free()?, &[]).await?;
    let mut scene = Scene::new(context).await?;
    let url = endpoint.url(scene.next());
    let file = authority.path("ca.pem");
    scene.subscribe_to("private", &url, Retry::quick(5)).to.push_str(&format!(", ca: \"{file}\""));
    let stage = match scene.open().await {
        Ok(stage) => stage,
        Err(error) if error.downcast_ref::<Skip>().is_some() => {
            findings.leave_out(format!("an authority of one subscription ({error})"));
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    stage.publish(1).await?;
    stage.rest(AMPLE).await?;
    let status = stage.status("private").await?;
    findings.want(status.delivered == 1, || {
        format!("private authority: not delivered ({:?})", status.recent.first())
    });
    Ok(findings)
}

pub(in crate::chaos) async fn rotation(context: Context) -> anyhow::Result<Findings> {
    let authority = Authority::new().await?;
    let before = authority.sign("before", "localhost", 2).await?;
    let after = authority.sign("after", "localhost", 2).await?;
    let address = free()?;
    let endpoint = Secured::open(&before, address, &[]).await?;
    let mut scene = Scene::new(&context).await?;
    trust(&mut scene, authority.folder.path().join("ca.pem").as_path());
    scene.limit("delivery_window", "1");
    let url = endpoint.url(scene.next());
    scene.subscribe_to("secured", &url, Retry::quick(30));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let first = stage.status("secured").await?.delivered;
    drop(endpoint);
    // The port is free once the program has ended.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _endpoint = Secured::open(&after, address, &[]).await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let status = stage.status("secured").await?;
    let mut findings = Findings::default();
    findings.want(first == FEW as u64, || format!("{first} of {FEW} delivered before the change"));
    findings.want(status.delivered == 2 * FEW as u64 && status.dead_lettered == 0, || {
        format!("{} of {} delivered after the change", status.delivered - first, FEW)
    });
    findings.tell(format!(
        "{first} delivered under the old certificate, {} under the new",
        status.delivered - first
    ));
    Ok(findings)
}
