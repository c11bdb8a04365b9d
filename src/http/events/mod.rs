//! Stands between admitted requests and events: publishing to topics, receiving from queues.
//!
//! Invariants: an answer that says "taken" is given when the events are on disk; a queue of a tenant is there for
//! that tenant alone.

mod publish;
mod queue;

use std::time::Duration;

use actix_web::HttpRequest;
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::system::System;

use super::body::BodyLimits;
use super::flight::Flight;
use super::trace::Trace;

pub(super) use publish::{Unpublishable, publish};
pub(super) use queue::{QueueRefused, queue};

/// Bounds of requests about events; see `limits` in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimits {
    /// Bounds of a body.
    pub body: BodyLimits,
    /// Time from the end of the body to the answer.
    pub request: Duration,
    /// Most bytes of an event.
    pub event: usize,
    /// Most events in a request that publishes.
    pub batch: usize,
    /// Longest time that a receiver may wait.
    pub wait: Duration,
}

/// A request about events that was admitted.
pub(super) struct Admitted<'a> {
    /// The request.
    pub req: &'a HttpRequest,
    /// Who calls.
    pub tenant: &'a TenantId,
    /// The trace that goes on with the events.
    pub trace: &'a Trace,
    /// The rooms.
    pub system: &'a System,
    /// Tells whoever waits that the process ends.
    pub flight: &'a Flight,
    /// Bounds.
    pub limits: &'a EventLimits,
}
