//! Row 41: several events in one request, one of which the endpoint cannot take.

use std::collections::BTreeMap;

use super::{AMPLE, want_letters};
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::document::Probe;
use crate::endpoint::{Act, scripts};

pub(in crate::chaos) async fn poisoned(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 9;
    /// The number of the document that the endpoint cannot take.
    const POISON: u64 = 4;
    let ill =
        scripts::with(|request| Act::Answer(if numbers(request.body).contains(&POISON) { 500 } else { 204 }));
    let ill = context.attentive(ill).await?;
    let mut scene = Scene::new(&context).await?;
    let subscription = scene.subscribe("ill", &ill, Retry::quick(3));
    subscription.more = "batch: { events: 3, size: 64KiB }".to_owned();
    let stage = scene.open().await?;
    // While it is paused, events gather, so that there are whole batches.
    let admin = stage.admin()?;
    admin.post("/v1/subscriptions/ill:pause", &serde_json::json!({})).await?;
    stage.publish(EVENTS).await?;
    admin.post("/v1/subscriptions/ill:resume", &serde_json::json!({})).await?;
    stage.until(AMPLE, |all| all.values().all(super::super::status::Status::is_at_rest)).await?;
    let mut findings = Findings::default();
    let mut sent: BTreeMap<u64, usize> = BTreeMap::new();
    let mut largest = 0;
    for text in ill.heads() {
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let all = numbers(body.as_bytes());
        largest = largest.max(all.len());
        all.into_iter().for_each(|number| *sent.entry(number).or_default() += 1);
    }
    findings.want(largest > 1 && largest <= 3, || format!("the largest batch had {largest} events"));
    findings.want(sent.len() == EVENTS, || format!("{} of {EVENTS} events were sent", sent.len()));
    let status = stage.status("ill").await?;
    let given_up = status.dead_lettered;
    findings.want(status.delivered + given_up == EVENTS as u64, || {
        format!("{} delivered and {given_up} given up of {EVENTS}", status.delivered)
    });
    findings.want(sent.get(&POISON).is_some_and(|count| *count == 3), || {
        format!("the bad event was sent {:?} times instead of 3", sent.get(&POISON))
    });
    let letters = usize::try_from(given_up).unwrap_or_default();
    findings.want((1..=3).contains(&letters), || format!("{letters} given up with a batch of 3"));
    want_letters(&mut findings, &stage, "ill", letters, "Rejected", "MaxDeliveryAttemptsExceeded").await?;
    findings.tell(format!("batches of up to {largest}; the bad one was tried 3 times, {letters} given up"));
    Ok(findings)
}

/// The documents of all events in a body.
fn numbers(body: &[u8]) -> Vec<u64> {
    let Ok(batch) = serde_json::from_slice::<serde_json::Value>(body) else { return Vec::new() };
    let events = batch.as_array().cloned().unwrap_or_else(|| vec![batch]);
    events
        .iter()
        .filter_map(|event| Probe::find(event.to_string().as_bytes()))
        .map(|probe| probe.number)
        .collect()
}
