//! Stands between a target and a connection that speaks HTTP: resolves, vets, connects, shakes hands.
//! Invariant: a connection leads to an address that was vetted for the very target it is used for, and is made
//! within its limit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::cidr::Cidr;
use super::failure::{self, failure};
use super::names::Lookups;

/// Time that an address has before the next one is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// Bytes of header fields that an answer may have. Hyper takes no more than 100 fields.
const HEADER_BYTES: usize = 64 * 1024;
/// A connection that many requests share is asked this often whether it lives, and has as long to say so.
const PING: Duration = Duration::from_secs(5);

/// What a request carries.
pub(crate) type Payload = Full<Bytes>;

/// Where connections of one origin go.
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) allow: Vec<Cidr>,
    /// Under `https`: the name that the certificate must have, and whom to trust.
    pub(crate) tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// The host of a URL.
pub(crate) enum Host {
    /// An address, which was vetted when the URL was read.
    Address(IpAddr),
    /// A name, whose addresses are vetted whenever it is looked up.
    Name(String),
}

/// A connection that requests can be sent on.
pub(crate) struct Link {
    pub(crate) speaking: Speaking,
    /// Bytes that came from the peer so far.
    received: Arc<AtomicU64>,
}

/// The version of HTTP that a connection speaks.
pub(crate) enum Speaking {
    /// One request at a time.
    Http1(http1::SendRequest<Payload>),
    /// Many requests at a time.
    Http2(http2::SendRequest<Payload>),
}

impl Link {
    /// Bytes that came from the peer so far: the answer to a request has begun when there are more than before it.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the connection is known to be closed.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.speaking {
            Speaking::Http1(sender) => sender.is_closed(),
            Speaking::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another hold on the same connection, where the protocol lets requests share it.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.speaking {
            Speaking::Http1(_) => None,
            Speaking::Http2(sender) => {
                Some(Self { speaking: Speaking::Http2(sender.clone()), received: Arc::clone(&self.received) })
            }
        }
    }
}

/// Makes connections.
pub(crate) struct Dialer {
    pub(crate) lookups: Lookups,
    /// Time for resolving, connecting and shaking hands.
    pub(crate) limit: Duration,
}

impl Dialer {
    /// Makes a connection before `deadline` and within the limit.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn connect(&self, target: &Target, deadline: Instant) -> Result<Link, Outcome> {
        let until = deadline.min(Instant::now() + self.limit);
        let addresses = self.addresses(target, until).await?;
        let late = |_| Outcome::failed(OutcomeKind::TimedOut, "connecting took too long");
        let socket = timeout_at(until, connect_any(&addresses)).await.map_err(late)?;
        let socket = socket.map_err(|problem| failure(&problem))?;
        // The request is written at once, and nothing is gained by waiting for more.
        socket.set_nodelay(true).map_err(|problem| failure(&problem))?;
        let Some((name, config)) = &target.tls else {
            return speak(socket, false).await;
        };
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket);
        let stream = timeout_at(until, shaking).await.map_err(late)?;
        let stream = stream.map_err(|problem| failure::of_handshake(&problem))?;
        let many = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        speak(stream, many).await
    }

    async fn addresses(&self, target: &Target, until: Instant) -> Result<Vec<SocketAddr>, Outcome> {
        let name = match &target.host {
            Host::Address(ip) => return Ok(vec![SocketAddr::new(*ip, target.port)]),
            Host::Name(name) => name,
        };
        // A name server that keeps silent is not a host that keeps silent.
        let found = timeout_at(until, self.lookups.permitted(name, &target.allow)).await.map_err(|_| {
            Outcome::failed(OutcomeKind::ResolutionError, "the host name was not resolved in time")
        })?;
        let found = found.map_err(|problem| failure::of_lookup(&problem))?;
        Ok(found.into_iter().take(ADDRESSES).map(|ip| SocketAddr::new(ip, target.port)).collect())
    }
}

/// Connects to the first address that answers. The next one is tried when one fails or keeps silent for a moment.
pub(crate) async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut trying = FuturesUnordered::new();
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => trying.push(TcpStream::connect(*address)),
            None if trying.is_empty() => return Err(problem),
            None => {}
        }
        tokio::select! {
            Some(made) = trying.next() => match made {
                Ok(socket) => return Ok(socket),
                Err(error) => problem = error,
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// Begins to speak HTTP. The connection is driven by a task of its own until it is closed.
async fn speak<S>(stream: S, many: bool) -> Result<Link, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let received = Arc::<AtomicU64>::default();
    let stream = TokioIo::new(Counted { stream, received: Arc::clone(&received) });
    let speaking = if many {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
            // A dead connection that many requests share is found by pings, not by each deadline.
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(stream)
            .await
            .map_err(|problem| failure(&problem))?;
        // Whoever waits for an answer is told how the connection ended.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Speaking::Http2(sender)
    } else {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES)
            .handshake(stream)
            .await
            .map_err(|problem| failure(&problem))?;
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Speaking::Http1(sender)
    };
    Ok(Link { speaking, received })
}

/// A stream that counts what comes in.
struct Counted<S> {
    stream: S,
    received: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let more = buffer.filled().len().saturating_sub(before);
        self.received.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
