//! Rows 12 to 20: what endpoints answer, and what becomes of the event then.

use std::sync::Arc;
use std::time::Duration;

use super::{AMPLE, FEW, want_between, want_letters, want_taken_at_once};
use crate::chaos::ledger::gaps;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, Scene};
use crate::endpoint::{Endpoint, Script, scripts};

/// What a subscription with a script of its own shall do.
struct Case {
    name: &'static str,
    script: Script,
    retry: Retry,
    /// Least and most seconds from the first attempt to the second; none is expected without them.
    gap: Option<(f64, f64)>,
    /// Outcome and reason of its dead letters; none are expected without them.
    letters: Option<(&'static str, &'static str)>,
}

/// Plays some events against each case, and wants the gaps and the dead letters.
async fn cases(context: &Context, cases: Vec<Case>, wait: Duration) -> anyhow::Result<Findings> {
    const EVENTS: usize = 2;
    let mut scene = Scene::new(context).await?;
    let mut endpoints: Vec<(Case, Arc<Endpoint>)> = Vec::new();
    for case in cases {
        let endpoint = context.endpoint(Arc::clone(&case.script)).await?;
        scene.subscribe(case.name, &endpoint, case.retry.clone());
        endpoints.push((case, endpoint));
    }
    let stage = scene.open().await?;
    stage.publish(EVENTS).await?;
    // Cases without an end wait for longer than the row does.
    let ends: Vec<&str> =
        endpoints.iter().filter(|(case, _)| case.letters.is_some()).map(|(case, _)| case.name).collect();
    let begun = stage.now();
    let ended =
        stage.until(AMPLE, |all| ends.iter().all(|name| all.get(*name).is_some_and(|s| s.is_at_rest())));
    let ended = ended.await?;
    stage.context.clock.wait_until(begun.plus(wait)).await;
    let mut findings = stage.audit().await?;
    findings.want(ended, || "some events neither came nor were given up".to_owned());
    for (case, endpoint) in &endpoints {
        let hits = endpoint.hits();
        let first: Vec<Duration> =
            gaps(&hits).into_iter().filter(|(attempt, _)| *attempt == 1).map(|(_, gap)| gap).collect();
        match case.gap {
            Some(bounds) => want_between(&mut findings, case.name, &first, bounds),
            None => findings.want(first.is_empty(), || format!("{}: a second attempt", case.name)),
        }
        match case.letters {
            Some((outcome, reason)) => {
                want_letters(&mut findings, &stage, case.name, EVENTS, outcome, reason).await?;
            }
            None => {
                let status = stage.status(case.name).await?;
                findings.want(status.retrying == EVENTS as u64, || {
                    format!("{}: {} pending instead of {EVENTS}", case.name, status.retrying)
                });
            }
        }
    }
    Ok(findings)
}

pub(in crate::chaos) async fn unavailable(context: Context) -> anyhow::Result<Findings> {
    let retry = || Retry::quick(2).scaled(0.02);
    let given_up = Some(("Busy", "MaxDeliveryAttemptsExceeded"));
    let all = vec![
        Case {
            name: "plain",
            script: scripts::always(503),
            retry: retry(),
            gap: Some((0.6, 0.66 + context.slack())),
            letters: given_up,
        },
        // Seconds that an endpoint asks for are not scaled, so two stand for the contract's 120.
        Case {
            name: "asks",
            script: scripts::retry_after(503, "2"),
            retry: retry(),
            gap: Some((2.0, 2.2 + context.slack())),
            letters: given_up,
        },
        Case {
            name: "too-late",
            script: scripts::retry_after(503, "3"),
            retry: retry().living("2s"),
            gap: None,
            letters: Some(("Busy", "TimeToLiveExceeded")),
        },
    ];
    let mut findings = cases(&context, all, Duration::ZERO).await?;
    findings.tell(
        "503: 30 s (scaled by 0.02); Retry-After of 2 s kept; past its TTL the event is given up when due",
    );
    Ok(findings)
}

pub(in crate::chaos) async fn too_many(context: Context) -> anyhow::Result<Findings> {
    let retry = || Retry::quick(2).scaled(0.02);
    let given_up = Some(("Busy", "MaxDeliveryAttemptsExceeded"));
    let in_four =
        scripts::with(|_| scripts::said(429, &format!("retry-after: {}\r\n", after(Duration::from_secs(4)))));
    let all = vec![
        Case {
            name: "seconds",
            script: scripts::retry_after(429, "2"),
            retry: retry(),
            gap: Some((2.0, 2.2 + context.slack())),
            letters: given_up,
        },
        // A date has whole seconds, so it may be up to one second nearer.
        Case {
            name: "date",
            script: in_four,
            retry: retry(),
            gap: Some((3.0, 4.4 + context.slack())),
            letters: given_up,
        },
        Case {
            name: "garbage",
            script: scripts::retry_after(429, "soon"),
            retry: retry(),
            gap: Some((0.2, 0.22 + context.slack())),
            letters: given_up,
        },
        Case {
            name: "billion",
            script: scripts::retry_after(429, "1000000000"),
            retry: retry(),
            gap: None,
            letters: None,
        },
    ];
    let mut findings = cases(&context, all, Duration::from_secs(6)).await?;
    findings.tell("2 s kept, a date kept, garbage ignored, 10⁹ s still pending after 6 s");
    Ok(findings)
}

/// The HTTP date that lies this far ahead.
fn after(ahead: Duration) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "an HTTP date is of the wall clock, which only this script reads"
    )]
    let now = std::time::SystemTime::now();
    let seconds = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default() + ahead;
    http_date(seconds.as_secs())
}

/// Writes `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = "";
    for (name, length) in MONTHS.iter().zip(lengths) {
        month = name;
        if left < length {
            break;
        }
        left -= length;
    }
    let day = DAYS.get((days % 7) as usize).copied().unwrap_or_default();
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{day}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", left + 1)
}

pub(in crate::chaos) async fn hopeless(context: Context) -> anyhow::Result<Findings> {
    let case = |name, status, outcome, reason| Case {
        name,
        script: scripts::always(status),
        retry: Retry::quick(30),
        gap: None,
        letters: Some((outcome, reason)),
    };
    let all = vec![
        case("s400", 400, "BadRequest", "UndeliverableDueToHttpBadRequest"),
        case("s401", 401, "Unauthorized", "UndeliverableDueToHttpUnauthorized"),
        case("s403", 403, "Forbidden", "UndeliverableDueToHttpForbidden"),
        case("s413", 413, "PayloadTooLarge", "UndeliverableDueToHttpPayloadTooLarge"),
    ];
    let mut findings = cases(&context, all, Duration::ZERO).await?;
    findings.tell("one attempt each, dead-lettered with their reasons");
    Ok(findings)
}

pub(in crate::chaos) async fn slow_statuses(context: Context) -> anyhow::Result<Findings> {
    let case = |name, status, outcome, gap| Case {
        name,
        script: scripts::always(status),
        retry: Retry::quick(2).scaled(0.01),
        gap: Some(gap),
        letters: Some((outcome, "MaxDeliveryAttemptsExceeded")),
    };
    let all = vec![
        case("s404", 404, "NotFound", (3.0, 3.3 + context.slack())),
        case("s408", 408, "TimedOut", (1.2, 1.32 + context.slack())),
    ];
    let mut findings = cases(&context, all, Duration::ZERO).await?;
    findings.tell("404: 5 min, 408: 2 min (scaled by 0.01)");
    Ok(findings)
}

pub(in crate::chaos) async fn gone(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(30).scaled(0.1));
    let stage = scene.open().await?;
    if stage.status("ill").await?.raw.get("disabled").is_none() {
        return Err(Skip("this server: 410 does not disable (no `disabled` in the status)".to_owned()).into());
    }
    stage.publish(FEW).await?;
    stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.retrying == FEW as u64)).await?;
    ill.set(scripts::always(410));
    let is_disabled = |raw: &serde_json::Value| match raw.get("disabled") {
        None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => false,
        Some(_) => true,
    };
    let disabled = stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| is_disabled(&ill.raw))).await?;
    let settled = stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.retrying == 0)).await?;
    let mut findings = Findings::default();
    findings.want(disabled, || "410 did not disable the subscription".to_owned());
    findings.want(settled, || "what was pending is still pending".to_owned());
    let before = ill.count();
    stage.publish(FEW).await?;
    stage.until(Duration::from_secs(2), |_| false).await?;
    findings.want(ill.count() == before, || "a disabled subscription is still called".to_owned());
    findings.join(stage.audit().await?);
    findings.tell("disabled, what was pending is dead-lettered, nothing is sent any more");
    Ok(findings)
}

/// Where redirects lead. A server that was made wrong follows them, and is led nowhere but to us.
fn targets(context: &Context, canary: String) -> Vec<(&'static str, String)> {
    let mut targets = vec![("here", canary)];
    if context.failpoints.is_empty() {
        targets.push(("metadata", "http://169.254.169.254/latest/".to_owned()));
    }
    targets
}

pub(in crate::chaos) async fn redirects(context: Context) -> anyhow::Result<Findings> {
    let canary = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    let mut names = Vec::new();
    for status in [301, 302, 307, 308] {
        for (place, to) in targets(&context, canary.url(0)) {
            let endpoint = context.endpoint(scripts::redirect(status, &to)).await?;
            let name = format!("r{status}-{place}");
            scene.subscribe(&name, &endpoint, Retry::quick(2));
            names.push(name);
        }
    }
    let stage = scene.open().await?;
    stage.publish(1).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    for name in &names {
        want_letters(&mut findings, &stage, name, 1, "Rejected", "MaxDeliveryAttemptsExceeded").await?;
        let count = stage.endpoint(name)?.count();
        findings.want(count == 2, || format!("{name}: {count} requests instead of 2"));
    }
    findings.want(canary.accepted() == 0, || "a redirect was followed".to_owned());
    findings.tell(format!("{} redirects, none followed", names.len()));
    Ok(findings)
}

pub(in crate::chaos) async fn successes(context: Context) -> anyhow::Result<Findings> {
    let mut scene = Scene::new(&context).await?;
    let (good, bad) = ([200, 201, 202, 203, 204], [205, 206, 226, 304]);
    for status in good.into_iter().chain(bad) {
        let endpoint = context.endpoint(scripts::always(status)).await?;
        scene.subscribe(&format!("s{status}"), &endpoint, Retry::quick(2));
    }
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    for status in good {
        want_taken_at_once(&mut findings, &stage, &format!("s{status}"), FEW as u64).await?;
    }
    for status in bad {
        let name = format!("s{status}");
        want_letters(&mut findings, &stage, &name, FEW, "Rejected", "MaxDeliveryAttemptsExceeded").await?;
    }
    findings.tell("5 statuses succeed, 4 fail");
    Ok(findings)
}

pub(in crate::chaos) async fn interim(context: Context) -> anyhow::Result<Findings> {
    let patient = scripts::play(
        200,
        vec![crate::endpoint::Step::Send(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
                .into(),
        )],
    );
    let patient = context.endpoint(patient).await?;
    let endless = context.endpoint(scripts::endless_interim(Duration::from_millis(20))).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_timeout", "2s");
    scene.subscribe("patient", &patient, Retry::quick(2));
    scene.subscribe("endless", &endless, Retry::quick(2));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_taken_at_once(&mut findings, &stage, "patient", FEW as u64).await?;
    want_letters(&mut findings, &stage, "endless", FEW, "TimedOut", "").await?;
    let held: Vec<Duration> = endless.held().iter().map(|held| held.lasted).collect();
    want_between(&mut findings, "held", &held, (1.5, 2.0 + context.slack()));
    findings.tell("interim answers skipped, the endless ones cut at 2 s");
    Ok(findings)
}

pub(in crate::chaos) async fn malformed(context: Context) -> anyhow::Result<Findings> {
    const NONSENSE: [(&str, &str); 7] = [
        ("banner", "220 mail.example ESMTP\r\n"),
        ("no-status", "HTTP/1.1 abc OK\r\n\r\n"),
        ("no-colon", "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"),
        ("two-lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
        ("minus", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        (
            "length-and-chunks",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("half", "HTTP/1.1 200 OK\r\nx-half"),
    ];
    /// An answer that is longer than it says: the rest would pass for the answer to the next event.
    const SMUGGLED: &str =
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut scene = Scene::new(&context).await?;
    for (name, text) in NONSENSE {
        let endpoint = context.endpoint(scripts::raw(0, text)).await?;
        scene.subscribe(name, &endpoint, Retry::quick(2));
    }
    let smuggler = scripts::play(500, vec![crate::endpoint::Step::Send(SMUGGLED.into())]);
    let smuggler = context.endpoint(smuggler).await?;
    scene.subscribe("smuggler", &smuggler, Retry::quick(2));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    for (name, _) in NONSENSE {
        want_letters(&mut findings, &stage, name, FEW, "SocketError", "MaxDeliveryAttemptsExceeded").await?;
        let endpoint = stage.endpoint(name)?;
        findings.want(endpoint.accepted() as usize == endpoint.count(), || {
            format!("{name}: a connection was used again")
        });
    }
    want_letters(&mut findings, &stage, "smuggler", FEW, "Rejected", "").await?;
    findings
        .tell(format!("{} kinds of nonsense, each on a new connection; no answer smuggled", NONSENSE.len()));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_date_is_the_one_of_the_standard() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
