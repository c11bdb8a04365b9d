//! Stands between a subscription's allow list and the pooled connections that were made under it.
//! Invariant: a connection is reused only by endpoints with the very allow list it was vetted against.
//!
//! There is one HTTP client per distinct allow list, because the name resolver, which does the vetting,
//! belongs to the client, and so does the pool. Within a client, connections are pooled per origin. Nearly
//! every subscription has the empty list or one that a few share, so there are few clients; the table is
//! bounded all the same, and the client that was used least recently makes room, closing its idle connections.
//! Making a client reads the host's certificate authorities, some 20 ms once per list.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};
use tracing::warn;

use super::cidr::Cidr;
use super::names::{Lookups, Permitted};

/// Distinct allow lists whose connections are kept at a time.
const CLIENTS: usize = 64;
/// Idle connections are closed before common servers close them, to lose few requests to that race.
const IDLE: Duration = Duration::from_secs(20);
/// Idle connections kept per origin: the widest window of one subscription.
const IDLE_PER_ORIGIN: usize = 64;
/// Header fields and their total size that an answer may have, where the protocol lets us choose.
const HEADER_FIELDS: usize = 100;
const HEADER_BYTES: u32 = 64 * 1024;

/// What a delivery calls itself.
const USER_AGENT: &str = concat!("lanekeeper/", env!("CARGO_PKG_VERSION"));

/// The HTTP clients, most recently used first.
pub(crate) struct Clients {
    lookups: Arc<Lookups>,
    connect_timeout: Duration,
    /// Whether this host has certificate authorities to trust.
    authorities: bool,
    open: Mutex<Vec<(Arc<[Cidr]>, Client)>>,
}

impl Clients {
    /// Makes the client of the empty allow list, so that what is wrong with this host shows at start.
    ///
    /// # Errors
    /// When no client can be made, with or without certificate authorities.
    pub(crate) fn new(lookups: Arc<Lookups>, connect_timeout: Duration) -> Result<Self, reqwest::Error> {
        let mut clients = Self { lookups, connect_timeout, authorities: true, open: Mutex::default() };
        if let Err(problem) = clients.for_allow(&[]) {
            warn!(%problem, "no certificate authorities on this host: https endpoints will be refused");
            clients.authorities = false;
            clients.for_allow(&[])?;
        }
        Ok(clients)
    }

    /// The client for this allow list, which must be in canonical order.
    pub(crate) fn for_allow(&self, allow: &[Cidr]) -> Result<Client, reqwest::Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match open.iter().position(|(list, _)| list.as_ref() == allow) {
            Some(place) => open.remove(place),
            None => {
                let allow: Arc<[Cidr]> = allow.into();
                (Arc::clone(&allow), self.build(allow)?)
            }
        };
        let client = entry.1.clone();
        open.insert(0, entry);
        open.truncate(CLIENTS);
        Ok(client)
    }

    /// A client that does what it is told and nothing else: no redirects, proxies, cookies or decompression.
    fn build(&self, allow: Arc<[Cidr]>) -> Result<Client, reqwest::Error> {
        let trust = |builder: ClientBuilder| {
            if self.authorities { builder } else { builder.tls_certs_only([]) }
        };
        trust(Client::builder())
            .user_agent(USER_AGENT)
            .dns_resolver(Permitted::new(Arc::clone(&self.lookups), allow))
            .connect_timeout(self.connect_timeout)
            .redirect(redirects())
            .referer(false)
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_ORIGIN)
            .http1_max_headers(HEADER_FIELDS)
            .http2_max_header_list_size(HEADER_BYTES)
            // A dead connection that many streams share is found by pings, not by each stream's deadline.
            .http2_keep_alive_interval(self.connect_timeout)
            .http2_keep_alive_timeout(self.connect_timeout)
            .build()
    }
}

/// A redirect is an answer like any other: whoever follows one contacts an address that nobody vetted.
fn redirects() -> redirect::Policy {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("delivery::follow_redirects", |_| redirect::Policy::limited(3));
    redirect::Policy::none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::names::SystemNames;

    fn clients() -> Clients {
        Clients::new(Arc::new(Lookups::new(Arc::new(SystemNames))), Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn distinct_allow_lists_have_clients_of_their_own_and_the_oldest_makes_room() {
        let clients = clients();
        let lists: Vec<Vec<Cidr>> = (0..=u8::try_from(CLIENTS).unwrap())
            .map(|n| vec![format!("10.0.{n}.0/24").parse().unwrap()])
            .collect();
        for list in &lists {
            clients.for_allow(list).unwrap();
            // Used between any two others, so it is never the oldest.
            clients.for_allow(&[]).unwrap();
        }
        let open = clients.open.lock().unwrap();
        let kept: Vec<&[Cidr]> = open.iter().map(|(list, _)| list.as_ref()).collect();
        assert_eq!(kept.len(), CLIENTS);
        assert!(kept.contains(&[].as_slice()) && kept.contains(&lists.last().unwrap().as_slice()));
        assert!(!kept.contains(&lists[0].as_slice()) && !kept.contains(&lists[1].as_slice()));
    }
}
