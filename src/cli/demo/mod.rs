//! `demo`: the freight exchange with real sockets and a real disk, in one process and some seconds.
//!
//! Stands between the promises and somebody who wants to see them kept. Invariant: it ends well only if every write
//! that the gateway acknowledged is in the ledger of every subscriber that it was meant for.

mod carrier;
mod outcome;
mod project;
mod requests;
mod stage;
mod subscribers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use self::carrier::Carrier;
use self::outcome::{Mailbox, Outcome};
use self::project::{KEY_VARIABLE, Name, PARTNER_ATTEMPTS, Write};
use self::stage::{Stage, duration};
use self::subscribers::{Ledger, Mood, Subscribers};
use super::admin::{self, Admin};
use super::dead_letters;
use super::failure::Failure;
use super::fields::things;
use super::output;
use super::process::{Backend, Signals, log, runtime};
use crate::manifest::{self, Flags, Source, Sources};
use crate::telemetry;

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper demo
  lanekeeper demo --json    only the table, for a script
  lanekeeper demo --keep    then go on running, to play with

Uses a temporary directory and free ports of loopback. Exit code 0 only if nothing was lost.";

/// Loads of each act.
const QUIET: usize = 100;
const HICCUP: usize = 40;
const OUTAGE: usize = 60;
/// Loads of the first act that get a price later.
const PRICED: usize = 20;
/// Longest wait for anything; all of it takes some seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between two looks at the mailbox.
const LOOK: Duration = Duration::from_millis(50);
/// Most dead letters that are looked at; there should be `OUTAGE`.
const MAILBOX_MAX: u64 = 1_000;
/// The subscriber that has a bad day.
const PARTNER: Name = Name::PartnerWebhook;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Go on running afterwards, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    keep: bool,
    /// Print only the table, as JSON
    #[arg(long)]
    json: bool,
}

/// Plays the demonstration.
pub(super) fn run(options: &Options, environment: &[(String, String)]) -> Result<(), Failure> {
    if environment.iter().any(|(name, _)| name == telemetry::VARIABLE) {
        log(environment)?;
    }
    let folder = tempfile::Builder::new()
        .prefix("lanekeeper-demo-")
        .tempdir()
        .map_err(|error| Failure::Failed(format!("no temporary directory: {error}")))?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let mut exchange = tokio::select! {
            exchange = play(options, folder.path(), environment) => exchange?,
            () = signals.next() => return Err(Failure::Failed("interrupted".into())),
        };
        if options.keep {
            exchange.invite();
            tokio::select! {
                result = exchange.backend.ended() => return result,
                () = signals.next() => {}
            }
        }
        tokio::select! {
            result = finish(options, exchange) => result,
            () = signals.next() => Err(Failure::Failed("interrupted".into())),
        }
    })
}

/// The four acts.
async fn play(
    options: &Options,
    folder: &Path,
    environment: &[(String, String)],
) -> Result<Exchange, Failure> {
    let mut exchange = Exchange::open(folder, environment, Stage::new(!options.json)).await?;
    exchange.quiet().await?;
    exchange.hiccup().await?;
    exchange.outage().await?;
    if options.keep {
        exchange.stage.say(&format!("\n{}", exchange.outcome().table()));
    }
    Ok(exchange)
}

/// The curtain: the backend ends, its directory is checked, and the table is shown.
async fn finish(options: &Options, mut exchange: Exchange) -> Result<(), Failure> {
    let mut outcome = exchange.outcome();
    exchange.backend.stop();
    exchange.backend.ended().await?;
    let report = lanekeeper_actors::verify::directory(&exchange.folder)?;
    for problem in &report.problems {
        output::complain(&output::plain(&problem.what));
    }
    outcome.verify_problems = Some(report.problems.len() as u64 + report.left_out);
    if options.keep {
        exchange.stage.say(&format!("\n{}", outcome.verdict()));
    } else {
        exchange.stage.say(&format!("\n{}\n{}", outcome.table(), outcome.verdict()));
    }
    if options.json {
        output::print(&output::json(&outcome));
    }
    if outcome.is_good() { Ok(()) } else { Err(Failure::BadNews) }
}

/// Everybody who takes part.
struct Exchange {
    stage: Stage,
    backend: Backend,
    gateway: SocketAddr,
    subscribers: Subscribers,
    carrier: Carrier,
    admin: Admin,
    key: String,
    folder: PathBuf,
    loads: usize,
    mailbox: Mailbox,
}

impl Exchange {
    async fn open(folder: &Path, environment: &[(String, String)], stage: Stage) -> Result<Self, Failure> {
        let subscribers = Subscribers::start()
            .await
            .map_err(|error| Failure::Failed(format!("no socket for the subscribers: {error}")))?;
        let key = format!("demo-{}", uuid::Uuid::new_v4().simple());
        let manifest = manifest::load(&Sources {
            files: vec![Source::Text { name: "demo".into(), text: project::manifest(subscribers.address()) }],
            environment: vec![(KEY_VARIABLE.into(), key.clone())],
            flags: Flags { data: Some(folder.to_owned()), ..Flags::default() },
        })?;
        let backend = Backend::start(manifest, environment.to_vec()).await?;
        let base = admin::base(&backend.at.admin.to_string())?;
        let admin = Admin::new(base, admin::token(folder, environment)?)?;
        let gateway = backend.gateway()?.addr;
        let carrier = Carrier::new(gateway, &key)?;
        stage.say(&format!(
            "The freight exchange: gateway http://{}, admin {}, four subscribers at http://{}.\n\
             Everything is real: sockets, disk, fsync. Data in {}.",
            gateway,
            backend.at.admin,
            subscribers.address(),
            folder.display()
        ));
        Ok(Self {
            stage,
            backend,
            gateway,
            subscribers,
            carrier,
            admin,
            key,
            folder: folder.to_owned(),
            loads: 0,
            mailbox: Mailbox::default(),
        })
    }

    /// Everybody is well.
    async fn quiet(&mut self) -> Result<(), Failure> {
        self.stage.act(&format!(
            "1  A carrier posts {QUIET} loads on 20 lanes, 16 at a time, and prices {PRICED} of them."
        ));
        let took = self.post(QUIET).await?;
        let begin = Instant::now();
        let bar = self.stage.bar(PRICED as u64, "prices");
        self.carrier.write((0..PRICED).map(Write::update), || bar.inc(1)).await?;
        bar.finish_and_clear();
        let took = took + begin.elapsed();
        let heard = self.until_all(&Name::ALL).await;
        self.stage.tell(&format!(
            "{} writes acknowledged in {}, each on disk before its answer; {}.",
            QUIET + PRICED,
            duration(took),
            everybody("four subscribers heard of all that they asked for", heard)
        ));
        Ok(())
    }

    /// The partner refuses the first attempt of everything.
    async fn hiccup(&mut self) -> Result<(), Failure> {
        self.stage.act(&format!(
            "2  The partner's server is dizzy: it answers 503 to the first attempt of each of {HICCUP} loads."
        ));
        self.subscribers.feel(PARTNER, Mood::Dizzy);
        let before = self.subscribers.read(PARTNER, |ledger| ledger.retried);
        self.post(HICCUP).await?;
        let heard = self.until_all(&Name::ALL).await;
        let retried = self.subscribers.read(PARTNER, |ledger| ledger.retried) - before;
        self.subscribers.feel(PARTNER, Mood::Well);
        self.stage.tell(&format!(
            "{retried} retries, by the real schedule at a hundredth of its length; {}.",
            everybody("the partner has them all", heard)
        ));
        Ok(())
    }

    /// The partner is down for longer than its retries last, and is repaired.
    async fn outage(&mut self) -> Result<(), Failure> {
        self.stage
            .act(&format!("3  The partner's server is down: it answers 500, and {OUTAGE} loads are posted."));
        self.subscribers.feel(PARTNER, Mood::Down);
        let begin = Instant::now();
        self.post(OUTAGE).await?;
        let heard = self.until_all(&[Name::Matching, Name::SearchIndexer, Name::CarrierNotification]).await;
        self.stage
            .tell(&format!("{}.", everybody("The other three do not notice: they have all of them", heard)));
        let letters = self.until_given_up(OUTAGE).await?;
        self.stage.tell(&format!(
            "After {PARTNER_ATTEMPTS} attempts each, {letters} events lie in the partner's dead-letter mailbox ({}).",
            duration(begin.elapsed())
        ));
        self.stage.act("4  The partner's server is repaired, and the operator replays the mailbox:");
        self.stage.tell(&format!("lanekeeper dead-letters replay {} --all", PARTNER.as_str()));
        self.subscribers.feel(PARTNER, Mood::Well);
        let answer = dead_letters::replay(&self.admin, PARTNER.as_str(), json!({ "all": true })).await?;
        let replayed = dead_letters::replayed(&answer).unwrap_or(letters);
        let heard = self.until_all(&[PARTNER]).await;
        self.stage
            .tell(&format!("{replayed} events replayed; {}.", everybody("the partner has them all", heard)));
        self.mailbox = Mailbox { dead_lettered: letters, replayed };
        Ok(())
    }

    /// Posts new loads and says how long that took.
    async fn post(&mut self, loads: usize) -> Result<Duration, Failure> {
        let begin = Instant::now();
        let bar = self.stage.bar(loads as u64, "loads");
        let numbers = self.loads..self.loads + loads;
        self.loads += loads;
        self.carrier.write(numbers.map(Write::create), || bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(begin.elapsed())
    }

    /// Waits until these subscribers have everything that was acknowledged and is theirs.
    async fn until_all(&self, names: &[Name]) -> Option<Duration> {
        let begin = Instant::now();
        let theirs: Vec<(Name, BTreeSet<Write>)> = names
            .iter()
            .map(|name| {
                let all = self.carrier.acknowledged().iter();
                (*name, all.copied().filter(|write| name.wants(*write)).collect())
            })
            .collect();
        let has_all = |subscribers: &Subscribers| {
            theirs.iter().all(|(name, writes)| subscribers.read(*name, |ledger| has(ledger, writes)))
        };
        self.subscribers.wait(PATIENCE, has_all).await.then(|| begin.elapsed())
    }

    /// Waits until the partner's mailbox holds so many events, and says how many it holds in the end.
    async fn until_given_up(&self, events: usize) -> Result<u64, Failure> {
        let end = Instant::now() + PATIENCE;
        let bar = self.stage.bar(events as u64, "given up");
        loop {
            let answer = dead_letters::pages(&self.admin, PARTNER.as_str(), MAILBOX_MAX).await?;
            let letters = things(&answer, "dead_letters").len();
            bar.set_position(letters as u64);
            if letters >= events || Instant::now() >= end {
                bar.finish_and_clear();
                return Ok(letters as u64);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What came of it so far.
    fn outcome(&self) -> Outcome {
        Outcome::of(self.carrier.acknowledged(), &self.subscribers, self.mailbox)
    }

    /// Tells how to play on.
    fn invite(&self) {
        let Self { key, folder, backend, gateway, .. } = self;
        let (admin, data) = (backend.at.admin, folder.display());
        self.stage.say(&format!(
            "\nIt goes on running until Ctrl-C. Try:\n  \
             curl -H 'x-api-key: {key}' http://{gateway}/freight/v1/loads/AMS-HAM\n  \
             curl -H 'x-api-key: {key}' -H 'content-type: application/json' \\\n    \
             -d '{{\"lane\":\"AMS-HAM\",\"number\":9001,\"revision\":1}}' http://{gateway}/freight/v1/loads\n  \
             lanekeeper subscriptions list --admin {admin} --data {data}"
        ));
    }
}

fn has(ledger: &Ledger, writes: &BTreeSet<Write>) -> bool {
    ledger.delivered() >= writes.len() as u64 && ledger.missing(writes) == 0
}

/// What everybody did and how long it took, or that it did not happen.
fn everybody(text: &str, took: Option<Duration>) -> String {
    match took {
        Some(took) => format!("{text} {} later", duration(took)),
        None => format!("NOT within {}: {text}", duration(PATIENCE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_demonstration_shows_all_it_promises_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let silent = Options { keep: false, json: true };
        let exchange = play(&silent, folder.path(), &[]).await.unwrap();
        let outcome = exchange.outcome();
        let partner = outcome.subscriptions.last().unwrap();
        assert_eq!((partner.dead_lettered, partner.replayed), (OUTAGE as u64, OUTAGE as u64), "{outcome:?}");
        let retries = HICCUP as u64 + OUTAGE as u64 * u64::from(PARTNER_ATTEMPTS - 1);
        assert!(partner.retried >= retries, "{outcome:?}");
        assert_eq!(partner.written, (QUIET + PRICED + HICCUP + OUTAGE) as u64);
        assert!(outcome.is_good(), "{outcome:?}");
        finish(&Options { json: false, ..silent }, exchange).await.unwrap();
    }
}
