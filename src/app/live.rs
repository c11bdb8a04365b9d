//! From one generation of the manifest to the next, while requests come.
//!
//! Stands between whoever applies a manifest and the rooms. Invariants: nothing is touched before everything was read,
//! checked and compiled; the generation is on disk before anything follows it, so that a kill leaves the old one or the
//! new one; a request ends on what it began with; what was made at run time stays.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lanekeeper_actors::gateway::{GatewayState, KeysHandle, LedgerHandle};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::protocol::subscriber::Revision;
use lanekeeper_actors::subscriber::SubscriptionConfig;
use lanekeeper_actors::system::System;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::events::{self, Listened};
use super::wiring;
use crate::configuration::{
    Applied, Configuration, Doing, Generation, Generations, GenerationsProblem, NotApplied, Question, Wanted,
};
use crate::http::{Gateway, Live, Metrics, Routes, explain};
use crate::manifest::{self, Flags, Manifest, Problems, Sources, Written, can_follow};
use crate::upstream::Upstreams;

/// Where a manifest comes from, and what else it is read with.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What the files say.
    pub written: Written,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Values from the command line.
    pub flags: Flags,
}

impl Origin {
    /// Reads sources as one text.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(sources: &Sources) -> Result<Self, Problems> {
        let written = manifest::written(&sources.files)?;
        Ok(Self { written, environment: sources.environment.clone(), flags: sources.flags.clone() })
    }

    /// What this text says, in this environment.
    fn load(&self, written: &Written) -> Result<Manifest, Problems> {
        manifest::load(&Sources {
            files: vec![written.source()],
            environment: self.environment.clone(),
            flags: self.flags.clone(),
        })
    }
}

/// What a process starts with.
#[derive(Debug)]
pub struct Start {
    /// The manifest.
    pub manifest: Manifest,
    /// Where it comes from.
    pub origin: Origin,
    /// The digest of what the process was given.
    given: String,
    /// The generation that it is, if it is one already.
    generation: Option<Generation>,
}

/// Decides what a process starts with: what it is given, unless something was applied after the same thing was given
/// before.
///
/// # Errors
/// When the generations cannot be read; what was applied and cannot be loaded any more is left, and logged.
pub fn choose(manifest: Manifest, origin: Origin) -> Result<Start, GenerationsProblem> {
    let generations = Generations::of(&manifest.server.data);
    let given = origin.written.digest();
    let latest = generations.latest()?;
    let is_same = generations.started()?.as_ref() == Some(&given);
    let Some(latest) = latest.filter(|_| is_same) else {
        return Ok(Start { manifest, origin, given, generation: None });
    };
    let written = latest.written();
    if written == origin.written {
        return Ok(Start { manifest, origin, given, generation: Some(latest) });
    }
    match origin.load(&written) {
        Ok(manifest) => {
            tracing::info!(generation = latest.generation, "what was applied last is newer than the files");
            Ok(Start { manifest, origin: Origin { written, ..origin }, given, generation: Some(latest) })
        }
        Err(problems) => {
            tracing::error!(%problems, generation = latest.generation, "what was applied last cannot be loaded");
            Ok(Start { manifest, origin, given, generation: None })
        }
    }
}

/// The rooms that a generation reaches.
pub(super) struct Rooms {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admission: Arc<GatewayState>,
    pub(super) metrics: Metrics,
    pub(super) upstreams: Upstreams,
    pub(super) keys: KeysHandle,
    pub(super) ledger: LedgerHandle,
    pub(super) system: System,
    pub(super) topics: BTreeMap<Name, Listened>,
    pub(super) clock: SharedClock,
}

/// Applies manifests.
pub(super) struct Applier {
    origin: Origin,
    generations: Generations,
    rooms: Rooms,
    now: ArcSwap<Current>,
    /// Held by whoever applies one.
    applying: Mutex<()>,
}

struct Current {
    manifest: Manifest,
    document: Json,
    generation: u64,
    applied: Timestamp,
    written: Written,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("generation", &self.now.load().generation).finish_non_exhaustive()
    }
}

/// A manifest that was read and compiled, and nothing else yet.
struct Ready {
    manifest: Manifest,
    document: Json,
    written: Written,
    changes: Vec<manifest::Change>,
}

impl Applier {
    /// Notes what runs now as a generation, if it is none yet. The data directory must be locked.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn begin(start: Start, data: &Path, rooms: Rooms) -> Result<Self, NotApplied> {
        let Start { manifest, origin, given, generation } = start;
        let generations = Generations::of(data);
        let generation = match generation {
            Some(generation) => generation,
            None => match generations.latest()? {
                // The same again, with another history.
                Some(latest) if latest.written() == origin.written => latest,
                Some(_) | None => generations.keep(&origin.written, rooms.clock.now())?,
            },
        };
        generations.note_started(&given)?;
        let document = manifest::document(&origin.written).map_err(NotApplied::Invalid)?;
        let current = Current {
            manifest,
            document,
            generation: generation.generation,
            applied: Timestamp(generation.applied),
            written: origin.written.clone(),
        };
        let (now, applying) = (ArcSwap::from_pointee(current), Mutex::new(()));
        Ok(Self { origin, generations, rooms, now, applying })
    }

    fn ready(&self, wanted: &Wanted) -> Result<Ready, NotApplied> {
        let now = self.now.load();
        if let Some(base) = wanted.if_generation
            && base != now.generation
        {
            return Err(NotApplied::Moved(now.generation));
        }
        let manifest = self.origin.load(&wanted.written).map_err(NotApplied::Invalid)?;
        let document = manifest::document(&wanted.written).map_err(NotApplied::Invalid)?;
        let changes = manifest::plan((&now.manifest, &now.document), (&manifest, &document));
        Ok(Ready { manifest, document, written: wanted.written.clone(), changes })
    }

    async fn follow(&self, wanted: Wanted) -> Result<Applied, NotApplied> {
        let Ok(_turn) = self.applying.try_lock() else { return Err(NotApplied::Busy) };
        let ready = self.ready(&wanted)?;
        let paths = |wanted: &dyn Fn(&manifest::Change) -> bool| -> Vec<String> {
            ready.changes.iter().filter(|change| wanted(change)).map(|change| change.path.clone()).collect()
        };
        let restart = paths(&|change| change.restart);
        if !restart.is_empty() {
            return Err(NotApplied::Restart(restart));
        }
        let destroys = paths(&|change| change.destroys.is_some());
        if !destroys.is_empty() && !wanted.allow_destroy {
            return Err(NotApplied::Destroys(destroys));
        }
        let before = self.now.load_full();
        if ready.changes.is_empty() && ready.written == before.written {
            return Ok(Applied { generation: before.generation, changes: Vec::new() });
        }
        self.carry_out(&before, ready).await
    }

    async fn carry_out(&self, before: &Current, ready: Ready) -> Result<Applied, NotApplied> {
        let Rooms { gateway, metrics, upstreams, keys, ledger, clock, .. } = &self.rooms;
        let impossible = |error: super::WiringError| NotApplied::Impossible(error.to_string());
        let settings = wiring::gateway(&ready.manifest).map_err(impossible)?;
        let live = gateway.live.load_full();
        let callers = wiring::callers(&ready.manifest, clock, Some(&live.callers.verifier));
        let callers = callers.map_err(impossible)?;
        let fleet = upstreams.prepare(wiring::backends(&ready.manifest));
        let fleet = fleet.map_err(|error| NotApplied::Impossible(error.to_string()))?;
        let routes = Routes::new(&ready.manifest, &wiring::catalog(&ready.manifest), metrics, &fleet);
        let seeds = wiring::seeds(&ready.manifest).map_err(impossible)?;
        let steps = self.steps(&before.manifest, &ready.manifest).map_err(impossible)?;
        let generation = self.generations.keep(&ready.written, clock.now())?;
        if let Err(error) = keys.seed(seeds).await {
            self.generations.take_back(generation.generation)?;
            return Err(NotApplied::Impossible(format!("the api keys: {error}")));
        }
        if let Err(error) = ledger.apply(&settings) {
            self.generations.take_back(generation.generation)?;
            return Err(NotApplied::Impossible(format!("the quotas: {error}")));
        }
        upstreams.adopt(fleet);
        gateway.live.store(Arc::new(Live { routes, callers }));
        let changes = ready.changes.clone();
        self.now.store(Arc::new(Current {
            manifest: ready.manifest,
            document: ready.document,
            generation: generation.generation,
            applied: Timestamp(generation.applied),
            written: ready.written,
        }));
        tracing::info!(generation = generation.generation, changes = changes.len(), "manifest applied");
        self.subscriptions(steps).await.map_err(NotApplied::InPart)?;
        Ok(Applied { generation: generation.generation, changes })
    }

    /// What happens to subscriptions.
    fn steps(&self, before: &Manifest, after: &Manifest) -> Result<Vec<Step>, super::WiringError> {
        let (old, new) = (&before.event_subscriptions, &after.event_subscriptions);
        let config = |name: &str, subscription: &manifest::EventSubscription| {
            // Topics do not change while the process runs.
            let listened = self.rooms.topics.get(&*subscription.topic);
            listened.map(|listened| events::subscription(name, subscription, listened)).transpose()
        };
        let mut steps = Vec::new();
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            steps.push(Step::End(name.clone()));
        }
        for (name, subscription) in new {
            let old = old.get(name);
            if old == Some(subscription) {
                continue;
            }
            let Some(config) = config(name, subscription)? else { continue };
            match old {
                Some(old) if can_follow(old, subscription) => {
                    let reroute = old.types != subscription.types
                        || old.subject != subscription.subject
                        || old.filter != subscription.filter
                        || old.arrays != subscription.arrays;
                    let revision = if reroute { Revision::Filter } else { Revision::Delivery };
                    steps.push(Step::Become(Box::new(config), revision));
                }
                Some(_) => {
                    steps.push(Step::End(name.clone()));
                    steps.push(Step::Begin(Box::new(config)));
                }
                None => steps.push(Step::Begin(Box::new(config))),
            }
        }
        Ok(steps)
    }

    async fn subscriptions(&self, steps: Vec<Step>) -> Result<(), String> {
        let system = &self.rooms.system;
        for step in steps {
            let (name, done) = match step {
                Step::End(name) => {
                    let done = system.unsubscribe(&name, Vec::new()).await.map(drop);
                    (name, done)
                }
                Step::Begin(config) => {
                    (config.name.to_string(), system.subscribe(*config, Vec::new()).await.map(drop))
                }
                Step::Become(config, revision) => {
                    let name = config.name.to_string();
                    match system.subscription(&name) {
                        Some(running) => (name, running.reconfigure(*config, revision, Vec::new()).await),
                        None => (name, system.subscribe(*config, Vec::new()).await.map(drop)),
                    }
                }
            };
            done.map_err(|error| format!("event subscription `{name}`: {error}"))?;
        }
        Ok(())
    }
}

enum Step {
    Begin(Box<SubscriptionConfig>),
    Become(Box<SubscriptionConfig>, Revision),
    End(String),
}

impl Configuration for Applier {
    fn shown(&self) -> Json {
        let now = self.now.load();
        json!({
            "generation": now.generation,
            "applied": now.applied.to_string(),
            "name": now.written.name,
            "text": now.written.text,
            "manifest": now.document,
        })
    }

    fn kept(&self) -> Result<Json, NotApplied> {
        let all = self.generations.all()?;
        let all: Vec<Json> = all
            .iter()
            .map(|one| {
                let applied = Timestamp(one.applied).to_string();
                json!({ "generation": one.generation, "applied": applied, "name": one.name })
            })
            .collect();
        Ok(json!({ "generations": all, "current": self.now.load().generation }))
    }

    fn explain(&self, question: &Question) -> Json {
        explain(&self.rooms.gateway, &self.rooms.admission, question)
    }

    fn plan(&self, wanted: &Wanted) -> Result<Applied, NotApplied> {
        let ready = self.ready(wanted)?;
        Ok(Applied { generation: self.now.load().generation, changes: ready.changes })
    }

    fn apply(&self, wanted: Wanted) -> Doing<'_, Result<Applied, NotApplied>> {
        Box::pin(self.follow(wanted))
    }

    fn rollback(&self, generation: u64, allow_destroy: bool) -> Doing<'_, Result<Applied, NotApplied>> {
        Box::pin(async move {
            let found = self.generations.get(generation)?;
            let written = found.ok_or(NotApplied::NoGeneration(generation))?.written();
            self.follow(Wanted { written, if_generation: None, allow_destroy }).await
        })
    }
}
