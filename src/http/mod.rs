//! Stands between sockets and the rooms: two listeners, and every rule of HTTP.
//!
//! Invariant: every connection, head, body and request has a bound before it costs anything.

pub mod admin;
mod audited;
mod body;
mod caller;
mod connections;
mod continuation;
mod documents;
mod edge;
mod events;
mod explain;
mod flight;
mod gateway;
mod listeners;
mod metrics;
mod path;
mod problem;
mod proxy;
mod ratelimit;
mod routes;
#[cfg(test)]
mod tests;
mod trace;
mod usage;
mod webhooks;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use actix_web::dev::{Server, Service};
use actix_web::web::{self, Data};
use lanekeeper_actors::gateway::{GatewayHandle, GatewayState};
use tokio::net::TcpSocket;

use listeners::Serving;

pub use body::BodyLimits;
pub use caller::{Asked, Callers};
pub use connections::Connections;
pub use documents::{BulkLimits, DocumentLimits};
pub use edge::{Edge, HeadLimits};
pub use events::EventLimits;
pub use explain::explain;
pub use flight::Flight;
pub use gateway::{Gateway, Live};
pub use listeners::Listening;
pub use metrics::Metrics;
pub use problem::Problem;
pub use routes::Routes;
pub use webhooks::{
    Listened, Settings as TenantWebhookSettings, Shelf, Unsealable, WebhookRefused, Webhooks,
};

/// Connections that wait in the kernel until a worker takes them.
const BACKLOG: u32 = 1_024;
/// The admin listener has few callers.
const ADMIN_CONNECTIONS: usize = 256;

/// Bounds of the listeners; see `limits` in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Threads that serve the public listeners.
    pub workers: usize,
    /// Open connections of the public listeners together.
    pub connections: usize,
    /// Time for the head of a request.
    pub header_timeout: Duration,
}

/// Takes an address; port 0 takes a free one.
///
/// # Errors
/// When the address is taken or is not this machine's.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the old connections' last packets.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves the public listeners, each worker with its own gateway. Runs until it is stopped.
///
/// # Errors
/// When the system refuses the listeners.
pub fn serve_gateway(
    listening: Vec<Listening>,
    shared: Data<Gateway>,
    admission: Arc<GatewayState>,
    connections: Connections,
    limits: ListenerLimits,
) -> io::Result<Server> {
    let how = Serving {
        workers: limits.workers,
        connections: limits.connections,
        header_timeout: limits.header_timeout,
        half_closed: false,
        counted: Some(connections),
    };
    listeners::serve(listening, &how, move || {
        // Runs on the worker's own thread, which is where its gateway must live.
        let admission = Data::new(GatewayHandle::start(admission.clone()));
        let app = App::new().app_data(shared.clone()).app_data(admission);
        let shared = shared.clone();
        app.default_service(web::to(gateway::serve)).wrap_fn(move |mut req, next| {
            shared.edge.sweep(&mut req);
            next.call(req)
        })
    })
}

/// Serves the private listener. Runs until it is stopped.
///
/// # Errors
/// When the system refuses the listener.
pub fn serve_admin(
    listening: Listening,
    shared: Data<admin::Admin>,
    limits: ListenerLimits,
) -> io::Result<Server> {
    let how = Serving {
        workers: 1,
        connections: ADMIN_CONNECTIONS,
        header_timeout: limits.header_timeout,
        // Who waits for changes and goes away must not be waited for.
        half_closed: false,
        counted: None,
    };
    listeners::serve(vec![listening], &how, move || {
        App::new().app_data(shared.clone()).default_service(web::to(admin::serve))
    })
}
