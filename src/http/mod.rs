//! Stands between sockets and the rooms: two listeners, and every rule of HTTP.
//!
//! Invariant: every connection, head, body and request has a bound before it costs anything.

pub mod admin;
mod body;
mod connections;
mod continuation;
mod documents;
mod events;
mod flight;
mod gateway;
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

use actix_web::dev::Server;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use lanekeeper_actors::gateway::{GatewayHandle, GatewayState};
use tokio::net::TcpSocket;

pub use body::BodyLimits;
pub use connections::Connections;
pub use documents::{BulkLimits, DocumentLimits};
pub use events::EventLimits;
pub use flight::Flight;
pub use gateway::Gateway;
pub use metrics::Metrics;
pub use problem::Problem;
pub use routes::Routes;
pub use webhooks::{
    Listened, Settings as TenantWebhookSettings, Shelf, Unsealable, WebhookRefused, Webhooks,
};

/// Connections that wait in the kernel until a worker takes them.
const BACKLOG: u32 = 1_024;
/// How long a connection without a request stays open: longer than clients' pools keep theirs, so that it is
/// seldom the server that closes one just as the next request is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time for a connection that is being closed to say goodbye.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last answer was made: time for it to be sent, and then idle connections are cut.
const LINGER_SECONDS: u64 = 1;
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
    listeners: Vec<TcpListener>,
    shared: Data<Gateway>,
    admission: Arc<GatewayState>,
    connections: Connections,
    limits: ListenerLimits,
) -> io::Result<Server> {
    let app = move || {
        // Runs on the worker's own thread, which is where its gateway must live.
        let admission = Data::new(GatewayHandle::start(admission.clone()));
        App::new().app_data(shared.clone()).app_data(admission).default_service(web::to(gateway::serve))
    };
    let workers = limits.workers.max(1);
    let mut server = HttpServer::new(app)
        .workers(workers)
        .max_connections(limits.connections.div_ceil(workers))
        .client_request_timeout(limits.header_timeout)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // Who closes its side is taken to be gone, and what is done for it ends.
        .h1_allow_half_closed(false)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(LINGER_SECONDS)
        .disable_signals()
        .on_connect(move |io, extensions| connections.on_connect(io, extensions));
    for listener in listeners {
        server = server.listen(listener)?;
    }
    Ok(server.run())
}

/// Serves the private listener. Runs until it is stopped.
///
/// # Errors
/// When the system refuses the listener.
pub fn serve_admin(
    listener: TcpListener,
    shared: Data<admin::Admin>,
    limits: ListenerLimits,
) -> io::Result<Server> {
    let app = move || App::new().app_data(shared.clone()).default_service(web::to(admin::serve));
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(ADMIN_CONNECTIONS)
        .client_request_timeout(limits.header_timeout)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // Who waits for changes and goes away must not be waited for.
        .h1_allow_half_closed(false)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(LINGER_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}
