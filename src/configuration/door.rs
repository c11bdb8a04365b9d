//! What the admin API sees of the configuration.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde_json::Value as Json;

use super::GenerationsProblem;
use crate::manifest::{Change, Problems, Secret, Written};

/// A manifest that somebody wants to be applied.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it says.
    pub written: Written,
    /// The generation that it is to follow; without it, whichever is there.
    pub if_generation: Option<u64>,
    /// Whether things may be lost for ever.
    pub allow_destroy: bool,
}

/// What came of applying, or what would.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The generation that is there now.
    pub generation: u64,
    /// What changed, or would.
    pub changes: Vec<Change>,
}

/// Why a manifest was not applied. Everything is as it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    /// It is wrong.
    #[error("the manifest is wrong in {} place(s)", .0.as_slice().len())]
    Invalid(Problems),
    /// A room cannot do what it asks for.
    #[error("{0}")]
    Impossible(String),
    /// Somebody else applied one meanwhile.
    #[error("generation {0} is applied by now: make a new plan")]
    Moved(u64),
    /// Somebody else is applying one now.
    #[error("another manifest is being applied")]
    Busy,
    /// What changes is read when the process starts.
    #[error("these changes need a restart with the new manifest: {}", .0.join(", "))]
    Restart(Vec<String>),
    /// Something would be lost for ever, and nobody said that it may.
    #[error("these changes lose something for ever, so that `allow_destroy` is needed: {}", .0.join(", "))]
    Destroys(Vec<String>),
    /// There is no such generation any more.
    #[error("there is no generation {0}")]
    NoGeneration(u64),
    /// The process was started in a way that says nothing of files.
    #[error("this process runs a manifest of its own")]
    Fixed,
    /// The generation cannot be kept.
    #[error("the manifest cannot be kept: {0}")]
    Kept(#[from] GenerationsProblem),
    /// Something did not change. The rest did, and the restart of the process completes it.
    #[error("the manifest is applied but for this: {0}; apply it again, or restart")]
    InPart(String),
}

/// A future of the door.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call that somebody wants to be explained.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// The key, if one is sent.
    pub key: Option<Secret>,
}

/// What is applied, and the way to something else.
pub trait Configuration: Send + Sync + fmt::Debug {
    /// What is applied: its generation, when, from where, what was written.
    fn shown(&self) -> Json;

    /// The generations that are kept, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn kept(&self) -> Result<Json, NotApplied>;

    /// What a call would meet: its operation, terms, limits and quotas, or why it would be refused. Counts nothing.
    fn explain(&self, question: &Question) -> Json;

    /// What would change.
    ///
    /// # Errors
    /// [`NotApplied`].
    fn plan(&self, wanted: &Wanted) -> Result<Applied, NotApplied>;

    /// Applies it.
    fn apply(&self, wanted: Wanted) -> Doing<'_, Result<Applied, NotApplied>>;

    /// Applies again what an earlier generation said.
    fn rollback(&self, generation: u64, allow_destroy: bool) -> Doing<'_, Result<Applied, NotApplied>>;
}
