//! Rows 46 and 47: events that are fetched from a queue under locks.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::AMPLE;
use super::publishing::{TOPIC, declare, publish};
use crate::api::{Answer, Api};
use crate::chaos::manifest::{Retry, Wants};
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::chaos::stage::Stage;

/// `lock` of the queue.
const LOCK: Duration = Duration::from_secs(2);
/// The shortest wait that a receiver may ask for, in seconds.
const WAIT: u64 = 10;

/// An event under lock.
#[derive(Debug)]
struct Locked {
    token: String,
    deliveries: u64,
}

async fn open(context: &Context) -> anyhow::Result<Stage> {
    let mut scene = Scene::new(context).await?;
    declare(&mut scene);
    for operation in ["receive", "acknowledge", "release", "reject", "renew_lock"] {
        scene.manifest.operations.push_str(&format!(
            "      {operation}: {{ method: POST, path: /queue/{operation}, to: {{ queue: pull, do: {operation} }} }}\n"
        ));
    }
    let subscription = scene.subscribe_to("pull", "http://unused.example/", Retry::quick(30));
    subscription.topic = TOPIC.to_owned();
    subscription.wants = Wants::Nothing;
    subscription.to = format!("queue: {{ lock: {}s, max_deliveries: 10 }}", LOCK.as_secs());
    scene.open().await
}

async fn receive(gateway: &Api, wait: u64) -> anyhow::Result<Option<Locked>> {
    let path = format!("/freight/v1/queue/receive?maxEvents=1&maxWaitTime={wait}");
    let answer = gateway.send(Method::POST, &path, "application/json", Bytes::new()).await?;
    anyhow::ensure!(answer.status == 200, "receive: {}", answer.told());
    let body = answer.json().unwrap_or_default();
    let Some(first) = body.pointer("/value/0/brokerProperties") else { return Ok(None) };
    let token = first.get("lockToken").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some(Locked {
        token,
        deliveries: first.get("deliveryCount").and_then(Value::as_u64).unwrap_or_default(),
    }))
}

/// Receives one event, which must be there, delivered so many times.
async fn expect(
    findings: &mut Findings,
    gateway: &Api,
    deliveries: u64,
    when: &str,
) -> anyhow::Result<String> {
    let locked = receive(gateway, WAIT).await?;
    findings.want(locked.as_ref().is_some_and(|locked| locked.deliveries == deliveries), || {
        format!("{when}: {locked:?} instead of delivery {deliveries}")
    });
    Ok(locked.map(|locked| locked.token).unwrap_or_default())
}

/// Works on one token.
async fn work(gateway: &Api, operation: &str, token: &str) -> anyhow::Result<Answer> {
    gateway.post(&format!("/freight/v1/queue/{operation}"), &json!({ "lockTokens": [token] })).await
}

/// Whether the token was worked on, or else the code that says why not.
fn result(answer: &Answer) -> Result<(), String> {
    let body = answer.json().unwrap_or_default();
    let count = |key: &str| body.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    if answer.status == 200 && count("succeededLockTokens") == 1 {
        return Ok(());
    }
    let code = body.pointer("/failedLockTokens/0/error/code").or_else(|| body.pointer("/error/code"));
    Err(code.and_then(Value::as_str).map_or_else(|| answer.told(), str::to_owned))
}

pub(in crate::chaos) async fn locks(context: Context) -> anyhow::Result<Findings> {
    let stage = open(&context).await?;
    let gateway = stage.gateway()?;
    let mut findings = Findings::default();
    publish(&stage, &mut gateway.line()).await?;
    let first = expect(&mut findings, &gateway, 1, "at first").await?;
    tokio::time::sleep(LOCK).await;
    let second = expect(&mut findings, &gateway, 2, "after the lock expired").await?;
    let late = result(&work(&gateway, "acknowledge", &first).await?);
    findings.want(late == Err("TokenLost".to_owned()), || format!("a late acknowledge: {late:?}"));
    tokio::time::sleep(LOCK * 6 / 10).await;
    let renewed = result(&work(&gateway, "renew_lock", &second).await?);
    findings.want(renewed.is_ok(), || format!("renew: {renewed:?}"));
    tokio::time::sleep(LOCK * 7 / 10).await;
    let kept = result(&work(&gateway, "acknowledge", &second).await?);
    findings.want(kept.is_ok(), || format!("acknowledge after renew: {kept:?}"));
    let twice = result(&work(&gateway, "acknowledge", &second).await?);
    findings.want(matches!(&twice, Err(code) if code == "TokenLost" || code == "BadToken"), || {
        format!("twice: {twice:?}")
    });
    let garbage = result(&work(&gateway, "acknowledge", "garbage").await?);
    findings.want(garbage == Err("BadToken".to_owned()), || format!("a garbage token: {garbage:?}"));

    publish(&stage, &mut gateway.line()).await?;
    let token = expect(&mut findings, &gateway, 1, "the second event").await?;
    let released = result(&work(&gateway, "release?releaseDelayInSeconds=0", &token).await?);
    findings.want(released.is_ok(), || format!("release: {released:?}"));
    let token = expect(&mut findings, &gateway, 2, "after the release").await?;
    let odd = work(&gateway, "release?releaseDelayInSeconds=7", &token).await?;
    findings.want(odd.status == 400, || format!("a delay of 7 s: {}", odd.told()));
    let from = stage.now();
    let delayed = result(&work(&gateway, "release?releaseDelayInSeconds=10", &token).await?);
    findings.want(delayed.is_ok(), || format!("release for 10 s: {delayed:?}"));
    let again = receive(&gateway, 30).await?;
    let waited = stage.now().since(from).as_secs_f64();
    findings
        .want(again.is_some() && waited >= 9.99, || format!("released for 10 s, back after {waited:.1} s"));
    for delay in [60, 600, 3600] {
        publish(&stage, &mut gateway.line()).await?;
        let Some(locked) = receive(&gateway, WAIT).await? else { continue };
        let answer = work(&gateway, &format!("release?releaseDelayInSeconds={delay}"), &locked.token).await?;
        findings.want(result(&answer).is_ok(), || format!("a delay of {delay} s: {}", answer.told()));
    }
    findings.tell("expiry, renewal, late, double and bad tokens, and release delays are as promised");
    Ok(findings)
}

pub(in crate::chaos) async fn receivers(context: Context) -> anyhow::Result<Findings> {
    const RECEIVERS: usize = 100;
    let stage = open(&context).await?;
    let gateway = stage.gateway()?;
    let mut waiting = JoinSet::new();
    for _ in 0..RECEIVERS {
        let gateway = gateway.clone();
        waiting.spawn(async move { receive(&gateway, WAIT).await });
    }
    // All of them wait by then, and for much longer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    publish(&stage, &mut gateway.line()).await?;
    let (mut got, mut empty) = (Vec::new(), 0);
    while let Some(received) = waiting.join_next().await {
        match received?? {
            Some(locked) => {
                // Before its lock expires, or another one gets the event.
                let done = result(&work(&gateway, "acknowledge", &locked.token).await?);
                got.push((locked.deliveries, done));
            }
            None => empty += 1,
        }
    }
    let mut findings = Findings::default();
    findings
        .want(got.len() == 1 && empty == RECEIVERS - 1, || format!("{got:?} got it, {empty} got nothing"));

    // A receiver that is gone before it has read its answer.
    let address = stage.server()?.gateway.trim_start_matches("http://").to_owned();
    publish(&stage, &mut gateway.line()).await?;
    let mut vanishing = TcpStream::connect(&address).await?;
    let request = format!(
        "POST /freight/v1/queue/receive?maxEvents=1&maxWaitTime={WAIT} HTTP/1.1\r\nhost: {address}\r\n\
         x-api-key: {}\r\ncontent-length: 0\r\n\r\n",
        stage.key(),
    );
    vanishing.write_all(request.as_bytes()).await?;
    tokio::time::timeout(AMPLE, vanishing.read(&mut [0; 16])).await??;
    drop(vanishing);
    let from = stage.now();
    let token = expect(&mut findings, &gateway, 2, "after the receiver vanished").await?;
    let waited = stage.now().since(from);
    let done = result(&work(&gateway, "acknowledge", &token).await?);
    findings.want(done.is_ok(), || format!("acknowledge: {done:?}"));
    findings
        .tell(format!("one of {RECEIVERS} got it; after a receiver vanished it came again in {waited:.1?}"));
    Ok(findings)
}
