//! Rows 27 and 28: an endpoint must say that it wants the events before it gets any.

use std::time::Duration;

use serde_json::Value;

use super::{AMPLE, FEW};
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::chaos::stage::Stage;
use crate::endpoint::{Act, Request, Script, Step, scripts};

/// Long enough for an event to come if nothing held it back.
const A_WHILE: Duration = Duration::from_secs(3);

/// The code in a validation event; `None` for anything else.
fn code(request: &Request<'_>) -> Option<String> {
    if request.header("aeg-event-type") != Some("SubscriptionValidation") {
        return None;
    }
    let events: Value = serde_json::from_slice(request.body).ok()?;
    events.pointer("/0/data/validationCode")?.as_str().map(str::to_owned)
}

/// Answers a validation with what `answer` makes of its code, and takes events.
fn validates(answer: impl Fn(&str) -> Act + Send + Sync + 'static) -> Script {
    scripts::with(move |request| match code(request) {
        Some(code) => answer(&code),
        None => Act::Answer(204),
    })
}

fn says(status: u16, body: &str) -> Act {
    let text = format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Act::Play(status, vec![Step::Send(text.into())])
}

/// Events that an endpoint got, validations and questions aside.
fn events(stage: &Stage, name: &str) -> anyhow::Result<usize> {
    let hits = stage.endpoint(name)?.hits();
    Ok(hits.iter().filter(|hit| hit.number.is_some()).count())
}

pub(in crate::chaos) async fn validation(context: Context) -> anyhow::Result<Findings> {
    let echo = |code: &str| format!("{{\"validationResponse\":\"{code}\"}}");
    let cases: [(&str, Script, bool); 4] = [
        ("echoes", validates(move |code| says(200, &echo(code))), true),
        ("wrong", validates(move |_| says(200, &echo("something else"))), false),
        ("accepted", validates(move |code| says(202, &echo(code))), false),
        ("silent", scripts::silent(), false),
    ];
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_timeout", "2s");
    let mut names = Vec::new();
    for (name, script, wanted) in cases {
        let endpoint = context.endpoint(script).await?;
        scene.subscribe(name, &endpoint, Retry::quick(30)).to.push_str(", handshake: event_grid");
        names.push((name, wanted));
    }
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    let came = stage.until(AMPLE, |all| all.get("echoes").is_some_and(|s| s.delivered >= FEW as u64)).await?;
    stage.until(A_WHILE, |_| false).await?;
    let mut findings = Findings::default();
    findings.want(came, || "the endpoint that echoed its code got no events".to_owned());
    for (name, wanted) in names {
        let got = events(&stage, name)?;
        let right = if wanted { FEW } else { 0 };
        findings.want(got == right, || format!("{name}: {got} events instead of {right}"));
    }
    findings.leave_out("the validation URL opened after 9 and after 11 minutes");
    findings.tell("only the endpoint that echoed its code with 200 got events");
    Ok(findings)
}

pub(in crate::chaos) async fn options(context: Context) -> anyhow::Result<Findings> {
    /// Deliveries a minute that an endpoint allows.
    const RATE: usize = 60;
    let grants = |fields: &'static str| {
        scripts::with(move |request| {
            if request.method() == "OPTIONS" { scripts::said(200, fields) } else { Act::Answer(204) }
        })
    };
    let cases = [
        ("star", grants("webhook-allowed-origin: *\r\nwebhook-allowed-rate: *\r\n")),
        ("nothing", grants("")),
        ("slow", grants("webhook-allowed-origin: *\r\nwebhook-allowed-rate: 60\r\n")),
    ];
    let mut scene = Scene::new(&context).await?;
    for (name, script) in cases {
        let endpoint = context.endpoint(script).await?;
        scene.subscribe(name, &endpoint, Retry::quick(30)).to.push_str(", handshake: cloudevents");
    }
    let stage = scene.open().await?;
    let from = stage.now();
    stage.publish(2 * RATE).await?;
    let came =
        stage.until(AMPLE, |all| all.get("star").is_some_and(|s| s.delivered >= 2 * RATE as u64)).await?;
    stage.context.clock.wait_until(from.plus(Duration::from_secs(20))).await;
    let mut findings = Findings::default();
    findings.want(came, || "the endpoint that allows every origin got no events".to_owned());
    let nothing = events(&stage, "nothing")?;
    findings.want(nothing == 0, || format!("{nothing} events to an endpoint that granted nothing"));
    // A bucket may be full at the beginning; after that one event a second.
    let slow = events(&stage, "slow")?;
    let seconds = stage.now().since(from).as_secs_f64();
    let most = RATE as f64 + seconds + 1.0;
    findings.want(slow > 0 && slow as f64 <= most, || {
        format!("{slow} events in {seconds:.0} s, allowed {most:.0}")
    });
    findings.tell(format!(
        "`*` validated, nothing is nothing, {slow} events in {seconds:.0} s at a rate of 60 a minute"
    ));
    Ok(findings)
}
