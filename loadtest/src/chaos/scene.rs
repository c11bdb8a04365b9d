//! Stands between a row and its stage: what the row declares before the server is started.
//! Invariant: every scene has a bystander, a healthy subscription that the row's trouble must not touch.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;

use super::manifest::{Manifest, Retry, Subscription, Wants};
use super::outcome::Skip;
use super::stage::Stage;
use crate::clock::Clock;
use crate::endpoint::{Endpoint, Script, scripts};
use crate::server;

/// The partition of the documents that a row is about.
pub(crate) const SUBJECT: u32 = 0;
/// The partition of the documents that only the bystander hears of.
pub(crate) const OTHERS: u32 = 1;
/// What a busy machine may add to a time, in seconds.
const SLACK: f64 = 0.5;
/// Bytes of a document.
pub(crate) const DOCUMENT: usize = 1000;
/// Leave for endpoints on this machine.
pub(crate) const ALLOW: &str = "allow: [127.0.0.0/8, \"::1\"]";

/// What every row is given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The server's binary.
    pub(crate) binary: PathBuf,
    pub(crate) clock: Clock,
    /// Leave the temporary directories.
    pub(crate) keep: bool,
    /// Places where the server is made to fail, as `FAILPOINTS` has them; empty for none.
    pub(crate) failpoints: String,
    /// Play rows at their full size.
    pub(crate) full: bool,
    /// Factor on what the machine may add to a time.
    pub(crate) patience: f64,
}

/// A stage in the making.
pub(crate) struct Scene {
    pub(crate) context: Context,
    pub(crate) manifest: Manifest,
    /// The endpoints of the subscriptions, by the subscriptions' numbers from 1.
    pub(crate) endpoints: Vec<Option<Arc<Endpoint>>>,
    pub(crate) environment: Vec<(String, String)>,
    /// A command that starts the server.
    pub(crate) wrapper: Vec<String>,
    /// Where the data lies, if not in a directory of its own.
    pub(crate) data: Option<PathBuf>,
    pub(crate) document: usize,
}

impl Context {
    /// What the machine may add to a time, in seconds.
    pub(crate) fn slack(&self) -> f64 {
        SLACK * self.patience
    }

    /// An endpoint on a port of its own.
    pub(crate) async fn endpoint(&self, script: Script) -> anyhow::Result<Arc<Endpoint>> {
        Ok(Arc::new(Endpoint::open(script, self.clock).await?))
    }

    /// An endpoint that keeps every request word for word.
    pub(crate) async fn attentive(&self, script: Script) -> anyhow::Result<Arc<Endpoint>> {
        Ok(Arc::new(Endpoint::attentive(script, self.clock).await?))
    }
}

impl Scene {
    /// A scene with nothing but the bystander.
    pub(crate) async fn new(context: &Context) -> anyhow::Result<Self> {
        let mut scene = Self::bare(context);
        let well = context.endpoint(scripts::well()).await?;
        scene.subscribe(Stage::BYSTANDER, &well, Retry::quick(30)).wants = Wants::All;
        Ok(scene)
    }

    /// A scene without anybody, for measurements that count everything.
    pub(crate) fn bare(context: &Context) -> Self {
        let mut scene = Self {
            context: context.clone(),
            manifest: Manifest::default(),
            endpoints: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            data: None,
            document: DOCUMENT,
        };
        if !context.failpoints.is_empty() {
            scene.environment.push(("FAILPOINTS".to_owned(), context.failpoints.clone()));
        }
        scene
    }

    /// Sets a limit of the manifest.
    pub(crate) fn limit(&mut self, name: &str, value: &str) -> &mut Self {
        self.manifest.limits.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Declares a subscription of the subject's documents at this endpoint.
    pub(crate) fn subscribe(
        &mut self,
        name: &str,
        endpoint: &Arc<Endpoint>,
        retry: Retry,
    ) -> &mut Subscription {
        let url = endpoint.url(self.next());
        self.endpoints.push(Some(Arc::clone(endpoint)));
        self.declare(name, &url, retry)
    }

    /// Declares a subscription at a URL where no endpoint keeps a log.
    pub(crate) fn subscribe_to(&mut self, name: &str, url: &str, retry: Retry) -> &mut Subscription {
        self.endpoints.push(None);
        self.declare(name, url, retry)
    }

    /// The number that the next subscription gets.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn declare(&mut self, name: &str, url: &str, retry: Retry) -> &mut Subscription {
        let number = self.next() - 1;
        self.manifest.subscriptions.push(Subscription {
            name: name.to_owned(),
            number,
            topic: "load-events".to_owned(),
            to: format!("webhook: \"{url}\", {ALLOW}"),
            wants: Wants::Lane(SUBJECT),
            retry,
            more: String::new(),
        });
        let last = self.manifest.subscriptions.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed just now")]
        &mut self.manifest.subscriptions[last]
    }

    /// Starts the server. A manifest with something that this server does not know yet skips the row.
    pub(crate) async fn open(self) -> anyhow::Result<Stage> {
        self.check().await?;
        Stage::open(self).await
    }

    /// Lets the server read the manifest.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        check(&self.context, &self.manifest).await
    }
}

/// Lets the server read a manifest; what it does not know yet skips the row.
pub(crate) async fn check(context: &Context, manifest: &Manifest) -> anyhow::Result<()> {
    match server::lint(&context.binary, &manifest.texts()).await? {
        Ok(()) => Ok(()),
        Err(complaint) if is_unknown(&complaint) => Err(Skip(format!("this server: {complaint}")).into()),
        Err(complaint) => bail!("the row's manifest is refused: {complaint}"),
    }
}

/// Whether a complaint is about something that the server does not have, and not about a mistake.
fn is_unknown(complaint: &str) -> bool {
    ["not built yet", "unknown key", "unknown limit"].iter().any(|words| complaint.contains(words))
}
