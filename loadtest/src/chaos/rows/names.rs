//! Rows 23 to 26: names that lead nowhere, elsewhere, or to this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{AMPLE, FEW, PROBATION, want_letters, want_probation, want_taken_at_once};
use crate::chaos::manifest::{Manifest, Retry, Subscription, Wants};
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, Scene};
use crate::chaos::tools;
use crate::endpoint::{Endpoint, scripts};
use crate::server;

/// An address of this machine that the rows allow; 127.0.0.1 is the one that they do not.
const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 88, 0, 1);
const FORBIDDEN: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What a name server says to a question.
#[derive(Clone, Debug)]
enum Says {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// One of these addresses, in turns.
    InTurns(Vec<Ipv4Addr>),
    NoSuchName,
    Failure,
    Nothing,
}

/// A name server on port 53 of a loopback address of its own. Dropping it closes it.
struct NameServer {
    address: Ipv4Addr,
    _serving: JoinSet<()>,
}

impl NameServer {
    /// Opens one that says this of names; what it does not know does not exist.
    async fn open(names: Vec<(&'static str, Says)>) -> anyhow::Result<Self> {
        let skip = |why: String| anyhow::Error::from(Skip(why));
        for _ in 0..16 {
            let address = Ipv4Addr::new(127, 53, fastrand::u8(..), fastrand::u8(1..255));
            match UdpSocket::bind(SocketAddr::from((address, 53))).await {
                Ok(socket) => {
                    let mut serving = JoinSet::new();
                    serving.spawn(answer(socket, names));
                    return Ok(Self { address, _serving: serving });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => (),
                Err(error) => return Err(skip(format!("port 53 cannot be taken: {error}"))),
            }
        }
        Err(skip("port 53 is taken everywhere".to_owned()))
    }

    /// A command that starts the server with this as its only name server.
    async fn wrapper(&self, folder: &tempfile::TempDir) -> anyhow::Result<Vec<String>> {
        let file = folder.path().join("resolv.conf");
        // One try of two seconds, so that silence is noticed within the row's time.
        std::fs::write(&file, format!("nameserver {}\noptions timeout:2 attempts:1\n", self.address))?;
        tools::mounted(&format!("mount --bind '{}' /etc/resolv.conf", file.display())).await
    }
}

/// Answers questions (RFC 1035) for as long as it is polled.
async fn answer(socket: UdpSocket, names: Vec<(&'static str, Says)>) {
    let turn = AtomicU64::new(0);
    let mut question = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut question).await else { continue };
        let Some(reply) = question.get(..length).and_then(|question| reply(question, &names, &turn)) else {
            continue;
        };
        // Who asked may be gone.
        socket.send_to(&reply, from).await.unwrap_or_default();
    }
}

/// The reply to one question; `None` for silence, and for what is no question.
fn reply(question: &[u8], names: &[(&'static str, Says)], turn: &AtomicU64) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const TYPE_A: u16 = 1;
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = std::str::from_utf8(question.get(at..at + length)?).ok()?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&label.to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let end = at + 4;
    let says =
        names.iter().find(|(known, _)| *known == name).map_or(Says::NoSuchName, |(_, says)| says.clone());
    let (code, addresses) = match says {
        Says::Nothing => return None,
        Says::NoSuchName => (3, Vec::new()),
        Says::Failure => (2, Vec::new()),
        Says::Addresses(all) if kind == TYPE_A => (0, all),
        Says::InTurns(all) if kind == TYPE_A => {
            let at = turn.fetch_add(1, Ordering::Relaxed) as usize % all.len().max(1);
            (0, all.get(at).copied().into_iter().collect())
        }
        Says::Addresses(_) | Says::InTurns(_) => (0, Vec::new()),
    };
    let mut reply = question.get(..2)?.to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    reply.extend(question.get(HEADER..end)?);
    for address in addresses {
        // The name is the one of the question; type A, class IN, not to be kept, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

/// A scene whose server asks this name server only.
async fn scene(context: &Context, names: &NameServer, folder: &tempfile::TempDir) -> anyhow::Result<Scene> {
    let mut scene = Scene::new(context).await?;
    scene.wrapper = names.wrapper(folder).await?;
    Ok(scene)
}

/// Subscribes at a name. Nothing but the address that rows allow is permitted.
fn subscribe(scene: &mut Scene, name: &str, host: &str, port: u16) {
    let url = format!("http://{host}:{port}/s/{}", scene.next());
    let subscription: &mut Subscription = scene.subscribe_to(name, &url, Retry::quick(2));
    subscription.to = format!("webhook: \"{url}\", allow: [127.88.0.0/16]");
}

/// The same with an endpoint that keeps the log.
fn subscribe_at(scene: &mut Scene, name: &str, host: &str, endpoint: &Arc<Endpoint>) {
    subscribe(scene, name, host, endpoint.address().port());
    if let Some(place) = scene.endpoints.last_mut() {
        *place = Some(Arc::clone(endpoint));
    }
}

/// Two endpoints with the same port, the second at the forbidden address.
fn twins(context: &Context) -> anyhow::Result<(Arc<Endpoint>, Endpoint)> {
    for _ in 0..64 {
        let at = |ip: Ipv4Addr, port: u16| {
            Endpoint::at(SocketAddr::from((IpAddr::V4(ip), port)), scripts::well(), false, context.clock)
        };
        let good = at(ALLOWED, 0)?;
        if let Ok(canary) = at(FORBIDDEN, good.address().port()) {
            return Ok((Arc::new(good), canary));
        }
    }
    anyhow::bail!("no port is free at both addresses")
}

pub(in crate::chaos) async fn failures(context: Context) -> anyhow::Result<Findings> {
    let (good, _canary) = twins(&context)?;
    let names = NameServer::open(vec![
        ("good.test", Says::Addresses(vec![ALLOWED])),
        ("missing.test", Says::NoSuchName),
        ("failing.test", Says::Failure),
        ("silent.test", Says::Nothing),
    ])
    .await?;
    let folder = tempfile::tempdir()?;
    let mut scene = scene(&context, &names, &folder).await?;
    scene.limit("delivery_timeout", "5s").limit("delivery_connect_timeout", "3s");
    let bad = ["missing", "failing", "silent"];
    for name in bad {
        subscribe(&mut scene, name, &format!("{name}.test"), 80);
    }
    subscribe_at(&mut scene, "good", "good.test", &good);
    subscribe(&mut scene, "worse", "missing.test", 80);
    if let Some(worse) = scene.manifest.subscriptions.last_mut() {
        (worse.wants, worse.retry) = (Wants::Lane(PROBATION), Retry::quick(30));
    }
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    for name in bad {
        let reason = "MaxDeliveryAttemptsExceeded";
        want_letters(&mut findings, &stage, name, FEW, "ResolutionError", reason).await?;
    }
    want_taken_at_once(&mut findings, &stage, "good", FEW as u64).await?;
    let delays = &mut stage.balance_of("good").await?.delays;
    let slowest = delays.iter().max().copied().unwrap_or_default();
    findings.want(slowest < Duration::from_secs(1), || {
        format!("a name that resolves waited {:.1} s for others", slowest.as_secs_f64())
    });
    want_probation(&mut findings, &stage, "worse", ("ResolutionError", 300.0 * 0.01)).await?;
    findings.tell("3 names fail with ResolutionError, a good one is not held up");
    Ok(findings)
}

pub(in crate::chaos) async fn rebinding(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 20;
    let (good, canary) = twins(&context)?;
    let names = NameServer::open(vec![("turns.test", Says::InTurns(vec![ALLOWED, FORBIDDEN]))]).await?;
    let folder = tempfile::tempdir()?;
    let mut scene = scene(&context, &names, &folder).await?;
    subscribe_at(&mut scene, "turns", "turns.test", &good);
    let stage = scene.open().await?;
    // Each on a connection of its own, so that the name is looked up each time.
    good.set(scripts::raw(204, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"));
    stage.publish(EVENTS).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    findings.want(canary.accepted() == 0, || {
        format!("{} connections to the forbidden address", canary.accepted())
    });
    let letters = stage.letters("turns").await?;
    let forbidden = letters.iter().filter(|letter| letter.last_outcome == "Forbidden").count();
    findings
        .want(forbidden == letters.len(), || format!("{} given up, {forbidden} as Forbidden", letters.len()));
    findings.want(good.count() > 0 && forbidden > 0, || "the name did not change".to_owned());
    findings.tell(format!("{} delivered, {forbidden} Forbidden, none to the other address", good.count()));
    Ok(findings)
}

pub(in crate::chaos) async fn mixed(context: Context) -> anyhow::Result<Findings> {
    let (good, canary) = twins(&context)?;
    let names = NameServer::open(vec![
        ("mixed.test", Says::Addresses(vec![FORBIDDEN, ALLOWED, Ipv4Addr::new(10, 0, 0, 1)])),
        ("private.test", Says::Addresses(vec![FORBIDDEN, Ipv4Addr::new(169, 254, 169, 254)])),
    ])
    .await?;
    let folder = tempfile::tempdir()?;
    let mut scene = scene(&context, &names, &folder).await?;
    subscribe_at(&mut scene, "mixed", "mixed.test", &good);
    subscribe(&mut scene, "private", "private.test", good.address().port());
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_taken_at_once(&mut findings, &stage, "mixed", FEW as u64).await?;
    let reason = "UndeliverableDueToForbiddenAddress";
    want_letters(&mut findings, &stage, "private", FEW, "Forbidden", reason).await?;
    findings.want(canary.accepted() == 0, || "a forbidden address was contacted".to_owned());
    findings.tell("of mixed addresses only the permitted one; of private ones none");
    Ok(findings)
}

pub(in crate::chaos) async fn spellings(context: Context) -> anyhow::Result<Findings> {
    const PRIVATE: [&str; 22] = [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "localhost",
        "localhost.",
        "a.localhost",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fd00::1]",
        "[fe80::1]",
    ];
    let manifest = |to: String| {
        let subscription = Subscription {
            name: "w".to_owned(),
            number: 1,
            topic: "load-events".to_owned(),
            to,
            wants: Wants::All,
            retry: Retry::quick(2),
            more: String::new(),
        };
        Manifest { subscriptions: vec![subscription], ..Manifest::default() }.texts()
    };
    let accepted = Mutex::new(Vec::new());
    let refuse = |host: &'static str| {
        let text = manifest(format!("webhook: \"http://{host}/hook\""));
        let (context, accepted) = (&context, &accepted);
        async move {
            if server::lint(&context.binary, &text).await?.is_ok() {
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(host);
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    for host in PRIVATE {
        refuse(host).await?;
    }
    let mut findings = Findings::default();
    let accepted = accepted.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.want(accepted.is_empty(), || format!("accepted without leave: {}", accepted.join(", ")));
    for (host, allow) in [("127.1", "127.0.0.0/8"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.0/8")] {
        let text = manifest(format!("webhook: \"http://{host}/hook\", allow: [\"{allow}\"]"));
        let refused = server::lint(&context.binary, &text).await?;
        findings.want(refused.is_ok(), || format!("`{host}` is refused although `{allow}` is allowed"));
    }
    findings
        .tell(format!("{} spellings refused, 3 accepted with leave; at send: rows 24 and 26", PRIVATE.len()));
    Ok(findings)
}
