//! Stands between a row and a running server with its subscribers: publishes, watches, kills, restarts, balances.
//! Invariant: what was published is in the book before it is sent, and every audit looks at every subscription.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::Method;
use tempfile::TempDir;

use super::book::{Book, Fate};
use super::ledger::{Account, Balance, balance, quantile};
use super::manifest::{Manifest, Subscription};
use super::outcome::Findings;
use super::scene::{Context, OTHERS, SUBJECT, Scene, check};
use super::status::{Letter, Status};
use crate::api::{Api, Line};
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::process::{Reading, Subject};
use crate::server::{Launch, Server, fresh_key};
use crate::target::Target;

/// Events of the bystander may take this long, however badly the others behave.
const OTHERS_P99: Duration = Duration::from_secs(1);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two events that only the bystander hears of.
const CHATTER_EVERY: Duration = Duration::from_millis(60);
/// The most of them while a row waits for something.
const CHATTER_MAX: u32 = 60;
/// Dead letters in a page.
const PAGE: usize = 1000;

/// A server, its subscribers, and the book.
pub(crate) struct Stage {
    pub(crate) context: Context,
    pub(crate) manifest: Manifest,
    endpoints: Vec<Option<Arc<Endpoint>>>,
    pub(crate) environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    data: PathBuf,
    _scratch: Option<TempDir>,
    key: String,
    server: Option<Server>,
    pub(crate) book: Arc<Book>,
    pub(crate) crashes: u32,
    /// Whether gaps between attempts still follow the schedule.
    pub(crate) scheduled: bool,
}

impl Stage {
    /// The subscription that every scene has.
    pub(crate) const BYSTANDER: &str = "bystander";

    pub(super) async fn open(scene: Scene) -> anyhow::Result<Self> {
        let Scene { context, manifest, endpoints, environment, wrapper, data, document } = scene;
        let (data, scratch) = match data {
            Some(data) => (data, None),
            None => {
                let mut scratch = tempfile::Builder::new();
                scratch.prefix("lanekeeper-chaos-").disable_cleanup(context.keep);
                let scratch = scratch.tempdir()?;
                (scratch.path().join("data"), Some(scratch))
            }
        };
        let mut stage = Self {
            book: Arc::new(Book::new(document, context.clock)),
            context,
            manifest,
            endpoints,
            environment,
            wrapper,
            data,
            _scratch: scratch,
            key: fresh_key(),
            server: None,
            crashes: 0,
            scheduled: true,
        };
        stage.start().await?;
        Ok(stage)
    }

    /// Starts the server on the data that there is; gives the time until it was ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        let launch = Launch {
            binary: self.context.binary.clone(),
            manifests: self.manifest.texts(),
            data: Some(self.data.clone()),
            keep: self.context.keep,
            key: self.key.clone(),
            environment: self.environment.clone(),
            wrapper: self.wrapper.clone(),
        };
        let server = Server::start(launch, self.context.clock).await?;
        let ready_after = server.ready_after;
        self.server = Some(server);
        Ok(ready_after)
    }

    /// Kills the server.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.crashes += 1;
        self.server.take().context("the server is not running")?.kill().await
    }

    /// Ends the server in order.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.server.take().context("the server is not running")?.stop().await?;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("asked to drain, the server ended with {status}"),
            None => bail!("asked to drain, the server had to be killed"),
        }
    }

    /// Ends the server in order and starts it with another manifest.
    pub(crate) async fn change(&mut self, change: impl FnOnce(&mut Manifest)) -> anyhow::Result<()> {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        check(&self.context, &manifest).await?;
        self.stop().await?;
        self.manifest = manifest;
        self.start().await?;
        Ok(())
    }

    /// The directory that the server keeps its data in.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The running server.
    pub(crate) fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the server is not running")
    }

    /// Its admin API.
    pub(crate) fn admin(&self) -> anyhow::Result<Api> {
        let server = self.server()?;
        Api::admin(&server.admin, &server.token)
    }

    /// Its gateway.
    pub(crate) fn gateway(&self) -> anyhow::Result<Api> {
        Api::gateway(&self.server()?.gateway, &self.key)
    }

    /// Its gateway, as the open-loop client takes it.
    pub(crate) async fn target(&self) -> anyhow::Result<Target> {
        Target::new(&self.server()?.gateway, &self.key, false).await
    }

    /// The API key of its gateway.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Its resident memory in bytes.
    pub(crate) fn rss(&self) -> anyhow::Result<u64> {
        let reading = Reading::of(Subject::Other(self.server()?.pid()));
        Ok(reading.context("the server's process cannot be read")?.rss)
    }

    /// The endpoint of a subscription.
    pub(crate) fn endpoint(&self, name: &str) -> anyhow::Result<&Arc<Endpoint>> {
        let subscription = self.subscription(name)?;
        let at = usize::try_from(subscription.number).unwrap_or_default().saturating_sub(1);
        let endpoint = self.endpoints.get(at).and_then(Option::as_ref);
        endpoint.with_context(|| format!("`{name}` has no endpoint with a log"))
    }

    fn subscription(&self, name: &str) -> anyhow::Result<&Subscription> {
        let found = self.manifest.subscriptions.iter().find(|subscription| subscription.name == name);
        found.with_context(|| format!("no subscription `{name}`"))
    }

    /// Publishes so many documents of the subject, one after the other. Each must be acknowledged.
    pub(crate) async fn publish(&self, count: usize) -> anyhow::Result<()> {
        let mut line = self.gateway()?.line();
        for _ in 0..count {
            let fate = self.publish_on(&mut line, SUBJECT).await?;
            if fate != Fate::Acknowledged {
                bail!("a document was not acknowledged");
            }
        }
        Ok(())
    }

    /// Publishes one document on this connection and says what became of it.
    pub(crate) async fn publish_on(&self, line: &mut Line, lane: u32) -> anyhow::Result<Fate> {
        publish(&self.book, line, lane).await
    }

    /// Publishes so many documents in bulk, through the admin API.
    pub(crate) async fn import(&self, lane: u32, count: usize) -> anyhow::Result<()> {
        const AT_ONCE: usize = 20_000;
        let admin = self.admin()?;
        let mut left = count;
        while left > 0 {
            let some = left.min(AT_ONCE);
            let mut lines = Vec::with_capacity(some * 1024);
            let keys: Vec<_> = (0..some).map(|_| self.book.enter(lane)).collect();
            for key in &keys {
                lines.extend_from_slice(&self.book.document(*key));
                lines.push(b'\n');
            }
            let path = "/v1/containers/loads/import";
            let answer = admin.send(Method::POST, path, "application/x-ndjson", lines.into()).await?;
            let created = answer.json().and_then(|body| body.get("created")?.as_u64());
            if answer.status != 200 || created != Some(some as u64) {
                bail!("an import of {some} documents was answered with {}", answer.told());
            }
            keys.iter().for_each(|key| self.book.note(key.number, Fate::Acknowledged));
            left -= some;
        }
        Ok(())
    }

    /// What all subscriptions say.
    pub(crate) async fn statuses(&self) -> anyhow::Result<BTreeMap<String, Status>> {
        let list = self.admin()?.json("/v1/subscriptions").await?;
        let list = list.get("subscriptions").and_then(serde_json::Value::as_array).cloned();
        let list = list.context("the list of subscriptions has no `subscriptions`")?;
        list.iter().map(|raw| Status::read(raw).map(|status| (status.name.clone(), status))).collect()
    }

    /// What one subscription says.
    pub(crate) async fn status(&self, name: &str) -> anyhow::Result<Status> {
        Status::read(&self.admin()?.json(&format!("/v1/subscriptions/{name}")).await?)
    }

    /// All dead letters of a subscription.
    pub(crate) async fn letters(&self, name: &str) -> anyhow::Result<Vec<Letter>> {
        let admin = self.admin()?;
        let (mut letters, mut continuation) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/subscriptions/{name}/dead-letters?limit={PAGE}{continuation}");
            let page = admin.json(&path).await?;
            let found = page.get("dead_letters").and_then(serde_json::Value::as_array);
            letters.extend(found.context("no `dead_letters`")?.iter().map(Letter::read));
            match page.get("continuation").and_then(serde_json::Value::as_str) {
                Some(next) => continuation = format!("&continuation={next}"),
                None => return Ok(letters),
            }
        }
    }

    /// Waits until a condition holds for what all subscriptions say; meanwhile the bystander gets events of its own.
    /// False when it does not come to hold in time.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        holds: impl Fn(&BTreeMap<String, Status>) -> bool,
    ) -> anyhow::Result<bool> {
        let most = if self.subscription(Self::BYSTANDER).is_ok() { CHATTER_MAX } else { 0 };
        self.watch(limit, most, holds).await
    }

    async fn watch(
        &self,
        limit: Duration,
        most: u32,
        holds: impl Fn(&BTreeMap<String, Status>) -> bool,
    ) -> anyhow::Result<bool> {
        let give_up = self.now().plus(limit);
        let mut line = self.gateway()?.line();
        let (mut chatter, mut next) = (0, self.now());
        loop {
            if chatter < most && self.now() >= next {
                self.publish_on(&mut line, OTHERS).await?;
                chatter += 1;
                next = self.now().plus(CHATTER_EVERY);
            }
            if holds(&self.statuses().await?) {
                return Ok(true);
            }
            if self.now() > give_up {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing is left to do, dead letters aside.
    pub(crate) async fn rest(&self, limit: Duration) -> anyhow::Result<()> {
        // While the bystander gets events it has always one whose outcome is not on the disk yet.
        let others = |all: &BTreeMap<String, Status>| {
            all.values().filter(|status| status.name != Self::BYSTANDER).all(Status::is_at_rest)
        };
        if self.until(limit, others).await?
            && self.watch(limit, 0, |all| all.values().all(Status::is_at_rest)).await?
        {
            return Ok(());
        }
        let busy = self.statuses().await?;
        let busy: Vec<_> = busy.values().filter(|status| !status.is_at_rest()).collect();
        let told = busy.iter().take(3).map(|status| {
            format!(
                "{}: lag {}, in flight {}, retrying {}, unsettled {}",
                status.name, status.lag, status.in_flight, status.retrying, status.unsettled
            )
        });
        bail!("not at rest after {} s ({})", limit.as_secs(), told.collect::<Vec<_>>().join("; "));
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Moment {
        self.context.clock.now()
    }

    /// Balances every subscription, and looks at how the bystander fared.
    pub(crate) async fn audit(&self) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        let statuses = self.statuses().await?;
        for subscription in &self.manifest.subscriptions {
            let status = statuses.get(&subscription.name).context("a subscription is not listed")?;
            let balance = self.balance(subscription, status).await?;
            for fault in balance.faults {
                findings.fault(fault);
            }
            if subscription.name == Self::BYSTANDER && self.crashes == 0 {
                let mut delays = balance.delays;
                let p99 = quantile(&mut delays, 0.99);
                findings.want(status.dead_lettered == 0 && balance.duplicates == 0, || {
                    format!("the bystander: {} dead, {} twice", status.dead_lettered, balance.duplicates)
                });
                findings.want(p99 <= OTHERS_P99.mul_f64(self.context.patience), || {
                    format!("the bystander's p99 is {} ms", p99.as_millis())
                });
                findings.tell_of_others(format!("others p99 {:.0} ms", p99.as_secs_f64() * 1e3));
            }
        }
        Ok(findings)
    }

    /// Balances one subscription.
    pub(crate) async fn balance_of(&self, name: &str) -> anyhow::Result<Balance> {
        let status = self.status(name).await?;
        self.balance(self.subscription(name)?, &status).await
    }

    async fn balance(&self, subscription: &Subscription, status: &Status) -> anyhow::Result<Balance> {
        let name = subscription.name.as_str();
        let letters = if status.dead_lettered > 0 { self.letters(name).await? } else { Vec::new() };
        let at = usize::try_from(subscription.number).unwrap_or_default().saturating_sub(1);
        let endpoint = self.endpoints.get(at).and_then(Option::as_ref);
        let hits = endpoint.map(|endpoint| {
            let own = |hits: &[crate::endpoint::Hit]| {
                hits.iter().filter(|hit| hit.subscriber == subscription.number).copied().collect::<Vec<_>>()
            };
            endpoint.with_hits(own)
        });
        let book = self.book.entries();
        Ok(balance(
            &book,
            &Account {
                name,
                wants: &subscription.wants,
                retry: &subscription.retry,
                hits: &hits.unwrap_or_default(),
                letters: &letters,
                pending: status.retrying + status.lag,
                crashes: self.crashes,
                scheduled: self.scheduled,
            },
        ))
    }
}

/// Publishes one document and notes what became of it.
pub(crate) async fn publish(book: &Book, line: &mut Line, lane: u32) -> anyhow::Result<Fate> {
    let key = book.enter(lane);
    let fields = [("content-type", "application/json")];
    let answer = line.send(Method::POST, "/freight/v1/loads", &fields, book.document(key)).await?;
    let fate = match answer.status {
        200..300 => Fate::Acknowledged,
        400..500 => Fate::Refused,
        _ => Fate::Unknown,
    };
    book.note(key.number, fate);
    Ok(fate)
}
