//! Rows 37 to 39: what a subscription says is changed while events are pending.

use std::time::Duration;

use super::{AMPLE, FEW};
use crate::chaos::manifest::{Manifest, Retry, Wants};
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, OTHERS, SUBJECT, Scene};
use crate::chaos::stage::Stage;
use crate::chaos::status::Status;
use crate::endpoint::scripts;

/// Long enough for a retry to come if it were still there.
const A_WHILE: Duration = Duration::from_secs(3);
/// A second attempt comes after 0.5 s.
const SCALE: f64 = 0.05;

/// A stage with a subscription `ill` on which `FEW` events are pending.
async fn pending(scene: Scene) -> anyhow::Result<(Stage, Findings)> {
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    let waits = |status: &Status| status.retrying == FEW as u64;
    let pending = stage.until(AMPLE, |all| all.get("ill").is_some_and(waits)).await?;
    let mut findings = Findings::default();
    findings.want(pending, || "the events did not become pending".to_owned());
    Ok((stage, findings))
}

fn without_ill(manifest: &mut Manifest) {
    manifest.subscriptions.retain(|subscription| subscription.name != "ill");
}

pub(in crate::chaos) async fn deleted(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(30).scaled(SCALE));
    let whole = scene.manifest.clone();
    let (mut stage, mut findings) = pending(scene).await?;
    stage.change(without_ill).await?;
    let before = ill.count();
    ill.set(scripts::well());
    stage.until(A_WHILE, |_| false).await?;
    findings.want(ill.count() == before, || format!("{} requests after the deletion", ill.count() - before));
    stage.publish(FEW).await?;
    findings.join(stage.audit().await?);
    stage.change(|manifest| *manifest = whole).await?;
    stage.until(A_WHILE, |_| false).await?;
    stage.rest(AMPLE).await?;
    let late = ill.count() - before;
    findings.want(late == 0, || format!("made again, it got {late} events from before"));
    findings.leave_out("the notice SubscriptionDeletion (only of the Event Grid schema)");
    findings.tell("nothing was sent after the deletion, nor to the new one of the same name");
    Ok(findings)
}

pub(in crate::chaos) async fn redirected(context: Context) -> anyhow::Result<Findings> {
    /// The partition that the new filter wants.
    const NEW: u32 = 7;
    let old = context.endpoint(scripts::always(500)).await?;
    let new = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &old, Retry::quick(30).scaled(SCALE));
    let (mut stage, mut findings) = pending(scene).await?;
    let before = old.count();
    let (from, to) = (old.address().to_string(), new.address().to_string());
    stage
        .change(|manifest| {
            for subscription in manifest.subscriptions.iter_mut().filter(|s| s.name == "ill") {
                subscription.to = subscription.to.replace(&from, &to);
                subscription.wants = Wants::Lane(NEW);
            }
        })
        .await?;
    stage.publish(FEW).await?;
    let mut line = stage.gateway()?.line();
    for _ in 0..FEW {
        stage.publish_on(&mut line, NEW).await?;
    }
    stage.rest(AMPLE).await?;
    let entries = stage.book.entries();
    let of = |wanted: u32, range: std::ops::Range<u64>| {
        new.with_hits(|hits| {
            let lane = |number: u64| entries.get(number as usize).map(|entry| entry.lane);
            let fits = |number: &u64| lane(*number) == Some(wanted) && range.contains(number);
            hits.iter().filter_map(|hit| hit.number).filter(fits).count()
        })
    };
    let few = FEW as u64;
    let (pending, later, matching) = (of(SUBJECT, 0..few), of(SUBJECT, few..u64::MAX), of(NEW, 0..u64::MAX));
    findings.want(pending == FEW, || format!("{pending} of {FEW} pending events went to the new endpoint"));
    findings.want(later == 0, || format!("{later} later events that the new filter does not want"));
    findings.want(matching == FEW, || format!("{matching} of {FEW} events that the new filter wants"));
    findings.want(old.count() == before, || "the old endpoint was called again".to_owned());
    let bystander = stage.balance_of(Stage::BYSTANDER).await?;
    bystander.faults.into_iter().for_each(|fault| findings.fault(fault));
    let foreign = of(OTHERS, 0..u64::MAX);
    findings.want(foreign == 0, || format!("{foreign} events of others"));
    findings.tell(format!("{pending} pending ones at the new endpoint, then {matching} of the new filter"));
    Ok(findings)
}

pub(in crate::chaos) async fn rotated(context: Context) -> anyhow::Result<Findings> {
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let ill = context.attentive(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    scene.manifest.sections = "named_values:\n  partner-signing: { secret: { env: CHAOS_SIGNING } }\n  \
                               partner-before: { secret: { env: CHAOS_SIGNING_BEFORE } }\n"
        .to_owned();
    scene.environment.push(("CHAOS_SIGNING".to_owned(), OLD.to_owned()));
    scene.environment.push(("CHAOS_SIGNING_BEFORE".to_owned(), OLD.to_owned()));
    let subscription = scene.subscribe("ill", &ill, Retry::quick(30).scaled(SCALE));
    subscription.to.push_str(", sign: \"{{partner-signing}}\"");
    let (mut stage, mut findings) = pending(scene).await?;
    let before = ill.heads();
    stage.stop().await?;
    stage.environment.retain(|(name, _)| name != "CHAOS_SIGNING");
    stage.environment.push(("CHAOS_SIGNING".to_owned(), NEW.to_owned()));
    let mut both = stage.manifest.clone();
    for subscription in both.subscriptions.iter_mut().filter(|s| s.name == "ill") {
        let list = "sign: [\"{{partner-signing}}\", \"{{partner-before}}\"]";
        subscription.to = subscription.to.replace("sign: \"{{partner-signing}}\"", list);
    }
    super::super::scene::check(&context, &both).await?;
    stage.manifest = both;
    ill.set(scripts::well());
    stage.start().await?;
    stage.rest(AMPLE).await?;
    let after = ill.heads().split_off(before.len());
    for head in before.iter().chain(&after) {
        let signatures = field(head, "webhook-signature");
        findings.want(signatures.starts_with("v1,"), || format!("signed `{signatures}`"));
        let number = field(head, "webhook-timestamp").parse::<u64>();
        findings.want(number.is_ok(), || "no webhook-timestamp".to_owned());
    }
    let two = after.iter().filter(|head| field(head, "webhook-signature").split(' ').count() == 2).count();
    findings.want(two == after.len(), || format!("{two} of {} signed with both secrets", after.len()));
    let ids = |heads: &[String]| -> std::collections::BTreeSet<String> {
        heads.iter().map(|head| field(head, "webhook-id").to_owned()).collect()
    };
    findings.want(ids(&before) == ids(&after), || "another webhook-id after the change".to_owned());
    let verified =
        super::super::signature::verify_all(&before, OLD) && super::super::signature::verify_all(&after, NEW);
    findings.want(verified && super::super::signature::verify_all(&after, OLD), || {
        "a signature does not verify".to_owned()
    });
    findings.join(stage.audit().await?);
    findings.tell(format!(
        "{} requests signed with the old, {} with both, same ids",
        before.len(),
        after.len()
    ));
    Ok(findings)
}

/// A header field of a request word for word.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.split("\r\n\r\n").next().unwrap_or_default().split("\r\n");
    let found = lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.trim())
}
