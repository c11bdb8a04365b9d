//! Rows 45 and 50 to 52: events that are published to a custom topic, twice, too large, in circles, too fast.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::{AMPLE, FEW};
use crate::api::{Answer, Line};
use crate::chaos::book::Fate;
use crate::chaos::manifest::{CUSTOM, Retry, Wants};
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, Scene};
use crate::chaos::stage::Stage;
use crate::endpoint::{Endpoint, scripts};
use crate::schedule::DocumentKey;

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
pub(super) const TOPIC: &str = "partner-events";
const PATH: &str = "/freight/v1/partner-events";
const MIB: u64 = 1 << 20;

/// Declares the topic and the operation that publishes to it.
pub(super) fn declare(scene: &mut Scene) {
    scene.manifest.topics.push_str("  partner-events: {}\n");
    scene.manifest.operations.push_str(
        "      publish: { method: POST, path: /partner-events, to: { topic: partner-events, do: publish } }\n",
    );
}

/// A scene with the topic and a subscription `well` to it.
async fn scene(context: &Context, endpoint: &Arc<Endpoint>) -> anyhow::Result<Scene> {
    let mut scene = Scene::new(context).await?;
    declare(&mut scene);
    let subscription = scene.subscribe("well", endpoint, Retry::quick(30));
    subscription.topic = TOPIC.to_owned();
    subscription.wants = Wants::Published;
    Ok(scene)
}

/// An event that carries a document.
pub(super) fn event(stage: &Stage, key: DocumentKey) -> Value {
    let data: Value = serde_json::from_slice(&stage.book.document(key)).unwrap_or_default();
    json!({
        "specversion": "1.0", "id": stage.book.id(key), "source": "/chaos", "type": "PartnerEvent",
        "subject": "chaos", "datacontenttype": "application/json", "data": data,
    })
}

/// Publishes and notes what became of the events.
pub(super) async fn send(
    stage: &Stage,
    line: &mut Line,
    content_type: &str,
    body: &Value,
    keys: &[DocumentKey],
) -> anyhow::Result<Answer> {
    let fields = [("content-type", content_type)];
    let answer = line.send(Method::POST, PATH, &fields, Bytes::from(body.to_string())).await?;
    let fate = match answer.status {
        200..300 => Fate::Acknowledged,
        400..500 => Fate::Refused,
        _ => Fate::Unknown,
    };
    keys.iter().for_each(|key| stage.book.note(key.number, fate));
    Ok(answer)
}

/// Publishes one new event, which must be taken.
pub(super) async fn publish(stage: &Stage, line: &mut Line) -> anyhow::Result<DocumentKey> {
    let key = stage.book.enter(CUSTOM);
    let answer = send(stage, line, STRUCTURED, &event(stage, key), &[key]).await?;
    anyhow::ensure!(answer.status == 200, "an event was answered with {}", answer.told());
    Ok(key)
}

/// How many different events an endpoint got.
fn distinct(endpoint: &Endpoint) -> usize {
    endpoint.with_hits(|hits| hits.iter().filter_map(|hit| hit.number).collect::<HashSet<_>>().len())
}

pub(in crate::chaos) async fn repeated(context: Context) -> anyhow::Result<Findings> {
    let well = context.endpoint(scripts::well()).await?;
    let stage = scene(&context, &well).await?.open().await?;
    let mut findings = Findings::default();
    for _ in 0..FEW {
        let key = stage.book.enter(CUSTOM);
        let body = event(&stage, key);
        // As an SDK does it: the same body again, on a new connection each time, some of them at once.
        for _ in 0..2 {
            let (mut one, mut two) = (stage.gateway()?.line(), stage.gateway()?.line());
            let keys = [key];
            let answers = tokio::join!(
                send(&stage, &mut one, STRUCTURED, &body, &keys),
                send(&stage, &mut two, STRUCTURED, &body, &keys),
            );
            for answer in [answers.0?, answers.1?] {
                findings.want(answer.status == 200, || format!("a repeated event: {}", answer.told()));
            }
        }
    }
    stage.rest(AMPLE).await?;
    let hits = well.count();
    findings.want(hits == FEW, || format!("{hits} deliveries of {FEW} events sent 4 times each"));
    findings.join(stage.audit().await?);
    findings.tell(format!("{FEW} events sent 4 times each, {hits} deliveries"));
    Ok(findings)
}

pub(in crate::chaos) async fn sizes(context: Context) -> anyhow::Result<Findings> {
    /// A megabyte, by the smaller way to count; the refusal is asked for beyond the larger way.
    const LARGEST: usize = 1_000_000;
    let well = context.endpoint(scripts::well()).await?;
    let stage = scene(&context, &well).await?.open().await?;
    let mut line = stage.gateway()?.line();
    let mut findings = Findings::default();
    let padded = |size: usize| {
        let key = stage.book.enter(CUSTOM);
        let mut body = event(&stage, key);
        let missing = size.saturating_sub(body.to_string().len() + ",\"padding\":\"\"".len());
        if let Some(event) = body.pointer_mut("/data").and_then(Value::as_object_mut) {
            event.insert("padding".to_owned(), Value::from("p".repeat(missing)));
        }
        (key, body)
    };
    let (key, body) = padded(LARGEST);
    let large = send(&stage, &mut line, STRUCTURED, &body, &[key]).await?;
    findings.want(large.status == 200, || format!("1 MB: {}", large.told()));
    let (key, body) = padded(MIB as usize + 1);
    let too_large = send(&stage, &mut stage.gateway()?.line(), STRUCTURED, &body, &[key]).await?;
    findings.want(too_large.status == 413, || format!("1 MiB + 1: {}", too_large.told()));
    let many: Vec<DocumentKey> = (0..5_001).map(|_| stage.book.enter(CUSTOM)).collect();
    let small = |key: &DocumentKey| json!({ "specversion": "1.0", "id": stage.book.id(*key), "source": "/c", "type": "T" });
    let batch = Value::from(many.iter().map(small).collect::<Vec<_>>());
    let too_many = send(&stage, &mut stage.gateway()?.line(), BATCH, &batch, &many).await?;
    findings.want(matches!(too_many.status, 400 | 413), || format!("5,001 events: {}", too_many.told()));
    let empty = send(&stage, &mut stage.gateway()?.line(), BATCH, &json!([]), &[]).await?;
    findings.want(empty.status == 200, || format!("an empty batch: {}", empty.told()));
    let keys = [stage.book.enter(CUSTOM), stage.book.enter(CUSTOM)];
    let [one, two] = keys.map(|key| event(&stage, key));
    let twice = json!([one, two, one]);
    let twice = send(&stage, &mut stage.gateway()?.line(), BATCH, &twice, &keys).await?;
    findings.want(twice.status == 200, || format!("an id twice in a batch: {}", twice.told()));
    stage.rest(AMPLE).await?;
    let (hits, different) = (well.count(), distinct(&well));
    findings.want((hits, different) == (3, 3), || {
        format!("{hits} deliveries of {different} events instead of 3")
    });
    findings.join(stage.audit().await?);
    findings.tell("200, 413, 4xx, 200, and one event for each id");
    Ok(findings)
}

pub(in crate::chaos) async fn loops(context: Context) -> anyhow::Result<Findings> {
    /// More hops than any limit would allow.
    const HOPS_MAX: usize = 100;
    let echo = context.attentive(scripts::well()).await?;
    let stage = scene(&context, &echo).await?.open().await?;
    let mut line = stage.gateway()?.line();
    publish(&stage, &mut line).await?;
    let give_up = stage.now().plus(AMPLE);
    let mut hops = 0;
    let mut idle_since = stage.now();
    while hops < HOPS_MAX && stage.now() < give_up {
        let Some(head) = echo.heads().get(hops).cloned() else {
            if stage.now().since(idle_since) > Duration::from_secs(3) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        idle_since = stage.now();
        let body = head.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut event: Value = serde_json::from_str(body)?;
        let counts = event.as_object().is_some_and(|event| event.keys().any(|key| key.contains("hop")));
        if !counts {
            return Err(Skip("this server: events carry no count of hops".to_owned()).into());
        }
        hops += 1;
        // The same event under another id, with everything else that it carries.
        if let Some(event) = event.as_object_mut() {
            event.insert("id".to_owned(), Value::from(format!("hop-{hops}")));
        }
        let answer = send(&stage, &mut line, STRUCTURED, &event, &[]).await?;
        if answer.status != 200 {
            break;
        }
    }
    let mut findings = Findings::default();
    findings.want(hops < HOPS_MAX, || format!("the loop went on for {hops} hops"));
    let letters = stage.letters("well").await?;
    findings.want(letters.iter().any(|letter| letter.reason == "LoopDetected"), || {
        format!("no dead letter LoopDetected among {}", letters.len())
    });
    findings.tell(format!("cut after {hops} hops, LoopDetected"));
    Ok(findings)
}

pub(in crate::chaos) async fn back_pressure(context: Context) -> anyhow::Result<Findings> {
    /// Changes by which routing may be behind.
    const LAG: usize = 500;
    /// Events in a request, and the requests that are sent at a time: far more than the lag.
    const EVENTS: usize = 1_000;
    const PUBLISHERS: usize = 4;
    const ROUNDS: usize = 10;
    let well = context.endpoint(scripts::well()).await?;
    let mut scene = scene(&context, &well).await?;
    scene.limit("publish_lag", &LAG.to_string());
    slow_down(&mut scene, &well);
    let stage = scene.open().await?;
    let before = stage.rss()?;
    let (mut taken, mut refused, mut peak) = (0, Vec::new(), 0);
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..PUBLISHERS {
        lines.push(stage.gateway()?.line());
    }
    for _ in 0..ROUNDS {
        let batches = lines.iter_mut().map(|line| send_batch(&stage, line, EVENTS));
        for answer in together(batches).await {
            let answer = answer?;
            if answer.status == 200 { taken += EVENTS } else { refused.push(answer) }
        }
        peak = peak.max(stage.rss()?);
    }
    let mut findings = Findings::default();
    findings.want(!refused.is_empty(), || format!("{taken} events were taken at a lag of {LAG}"));
    for answer in &refused {
        findings.want(answer.status == 429, || format!("refused with {}", answer.told()));
        findings.want(!answer.field("retry-after").is_empty(), || "429 without Retry-After".to_owned());
    }
    let grown = peak.saturating_sub(before) / MIB;
    findings.want(grown < 256, || format!("the server grew by {grown} MiB"));
    stage.rest(AMPLE * 2).await?;
    publish(&stage, &mut stage.gateway()?.line()).await?;
    stage.rest(AMPLE).await?;
    findings.join(stage.audit().await?);
    findings.measured(format!(
        "{taken} events taken, {} of {} requests refused, taken again once the lag was gone; the server grew by {grown} MiB",
        refused.len(),
        ROUNDS * PUBLISHERS,
    ));
    Ok(findings)
}

/// Subscriptions with many conditions, none of which an event meets: routing has work, and nobody is sent anything.
fn slow_down(scene: &mut Scene, endpoint: &Arc<Endpoint>) {
    const SUBSCRIPTIONS: usize = 400;
    let condition =
        |n: usize| format!("{{ key: data.notes, operator: StringContains, values: [\"never {n}\"] }}");
    let filter = (0..25).map(condition).collect::<Vec<_>>().join(", ");
    for number in 0..SUBSCRIPTIONS {
        let subscription = scene.subscribe(&format!("deaf-{number}"), endpoint, Retry::quick(30));
        subscription.topic = TOPIC.to_owned();
        subscription.wants = Wants::Nothing;
        subscription.more = format!("filter: [{filter}]");
    }
}

/// Publishes a batch of new events.
async fn send_batch(stage: &Stage, line: &mut Line, count: usize) -> anyhow::Result<Answer> {
    let keys: Vec<DocumentKey> = (0..count).map(|_| stage.book.enter(CUSTOM)).collect();
    let batch = Value::from(keys.iter().map(|key| event(stage, *key)).collect::<Vec<_>>());
    send(stage, line, BATCH, &batch, &keys).await
}

/// Runs futures side by side; gives what they gave in their order.
async fn together<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, place) in all.iter_mut().zip(&mut done) {
            if place.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *place = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
