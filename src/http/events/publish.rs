//! Publishing: one CloudEvent or a batch of them, in the mode that the content type says, taken whole or not at
//! all (CloudEvents HTTP binding 1.0.2, section 3).

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Payload};
use lanekeeper_actors::model::cloudevent::{
    CloudEvent, CloudEventProblem, Extension, Fault, Mode, from_binary, from_json, from_json_batch, mode,
};
use lanekeeper_actors::protocol::topic::PublishError;
use serde_json::json;

use super::Admitted;
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::routes::Publishing;

/// The extension that carries a trace (CloudEvents, "Distributed Tracing").
const TRACEPARENT: &str = "traceparent";

/// Why a body is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpublishable {
    /// A format of events that is not JSON.
    #[error(
        "events come as `application/cloudevents+json`, as `application/cloudevents-batch+json`, or in `ce-` headers"
    )]
    Format,
    /// Something in it is no CloudEvent.
    #[error("{0}")]
    Event(CloudEventProblem),
    /// More events than may be in a batch.
    #[error("a batch has at most {0} events")]
    TooMany(usize),
    /// An event is too large.
    #[error("event {index} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which one, from 0.
        index: usize,
        /// Its size.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
}

impl From<CloudEventProblem> for Unpublishable {
    fn from(problem: CloudEventProblem) -> Self {
        if let Fault::TooManyEvents(limit) = problem.fault {
            Self::TooMany(limit)
        } else {
            Self::Event(problem)
        }
    }
}

/// Takes the events of a request.
pub(in crate::http) async fn publish(
    call: &Admitted<'_>,
    publishing: &Publishing,
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    let body = body::whole(call.req, payload, call.limits.body).await?;
    let mut events = read(call, &body)?;
    if !events.is_empty() {
        let trace = call.trace.to_string();
        for event in &mut events {
            if event.extension(TRACEPARENT).is_none() {
                event.set_extension(TRACEPARENT, Extension::Text(trace.clone()));
            }
        }
        // The topics of a manifest are started with it.
        let topic = call.system.topic(&publishing.topic).ok_or(PublishError::Unavailable)?;
        let published = topic.publish(events, Some(call.tenant.clone()), call.limits.request).await?;
        publishing.metrics.count(published);
    }
    Ok(HttpResponse::Ok().json(json!({})))
}

/// The events of a body, none of them too large.
fn read(call: &Admitted<'_>, body: &Bytes) -> Result<Vec<CloudEvent>, Unpublishable> {
    let limits = call.limits;
    let content_type = call.req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let fits = |index: usize, size: usize| {
        let limit = limits.event;
        if size > limit { Err(Unpublishable::TooLarge { index, size, limit }) } else { Ok(()) }
    };
    match mode(content_type) {
        Mode::Structured => {
            fits(0, body.len())?;
            Ok(vec![from_json(body)?])
        }
        Mode::Batch => {
            let events = from_json_batch(body, limits.batch)?;
            // An event that would be too large by itself makes the whole body so.
            if body.len() > limits.event {
                for (index, event) in events.iter().enumerate() {
                    fits(index, event.to_json().len())?;
                }
            }
            Ok(events)
        }
        Mode::Binary => {
            let headers = call.req.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            let event = from_binary(headers, content_type, body)?;
            fits(0, event.size())?;
            Ok(vec![event])
        }
        Mode::Unknown => Err(Unpublishable::Format),
    }
}
