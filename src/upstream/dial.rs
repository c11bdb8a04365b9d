//! Stands between an address and a connection: resolves, connects, shakes hands.
//!
//! Invariant: a connection is made within its time or not at all. Addresses are those that the operator wrote, so
//! none is refused for being private.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::connection::{Connection, Io};
use crate::delivery::{Lookups, TlsProblem, TlsSettings, Trust, connect_any};

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// The only protocol that is offered over TLS (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// Where connections to one server go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: Address,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    /// It took too long.
    #[error("connecting took too long")]
    TimedOut,
    /// There is nobody, or nobody who can be trusted.
    #[error("{0}")]
    Unreachable(String),
}

impl Target {
    /// The target of an address; `settings` is asked only where there is TLS.
    ///
    /// # Errors
    /// When the certificates cannot be used, or the host can have none.
    pub(super) fn new(
        address: Address,
        trust: &Trust,
        settings: impl FnOnce() -> Result<Arc<TlsSettings>, TlsProblem>,
    ) -> Result<Self, TlsProblem> {
        let tls = if address.secure {
            let name = match address.ip() {
                Some(ip) => ServerName::IpAddress(ip.into()),
                None => ServerName::try_from(address.host.clone()).map_err(|_| {
                    rustls::Error::General("the host is no name for a certificate".to_owned())
                })?,
            };
            let mut config = ClientConfig::clone(&*settings()?.of(trust)?);
            config.alpn_protocols = vec![ALPN.to_vec()];
            Some((name, Arc::new(config)))
        } else {
            None
        };
        Ok(Self { address, tls })
    }

    /// Makes a connection before `until`.
    pub(super) async fn dial(&self, lookups: &Lookups, until: Instant) -> Result<Connection, NoConnection> {
        match timeout_at(until, self.connect(lookups)).await {
            Ok(made) => made,
            Err(_) => Err(NoConnection::TimedOut),
        }
    }

    async fn connect(&self, lookups: &Lookups) -> Result<Connection, NoConnection> {
        let at = |ip| SocketAddr::new(ip, self.address.port);
        let addresses: Vec<_> = match self.address.ip() {
            Some(ip) => vec![at(ip)],
            None => {
                let found = lookups.all(&self.address.host).await.map_err(unreachable)?;
                found.iter().take(ADDRESSES).copied().map(at).collect()
            }
        };
        let socket = connect_any(&addresses).await.map_err(unreachable)?;
        // What is written is written whole, and nothing is gained by waiting for more.
        socket.set_nodelay(true).map_err(unreachable)?;
        let Some((name, config)) = &self.tls else { return Ok(Connection::new(Io::Plain(socket))) };
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket);
        // A handshake is large, and rare.
        let stream = Box::pin(shaking).await.map_err(unreachable)?;
        Ok(Connection::new(Io::Secure(Box::new(stream))))
    }
}

fn unreachable(problem: impl ToString) -> NoConnection {
    NoConnection::Unreachable(problem.to_string())
}
