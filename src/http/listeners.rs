//! Stands between sockets and the workers: what is heard on each listener, with TLS or without.
//!
//! Invariant: a connection is counted before it costs more than its accept; with TLS, before its handshake.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, Service};
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::{Connection, Connections, refuse};
use crate::delivery::words;
use crate::edge::tls::Certificates;

/// How long a connection without a request stays open: longer than clients' pools keep theirs, so that it is
/// seldom the server that closes one just as the next request is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time for a connection that is being closed to say goodbye.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last answer was made: time for it to be sent, and then idle connections are cut.
const LINGER_SECONDS: u64 = 1;

/// A socket that hears, and the certificates that it answers with.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub socket: TcpListener,
    /// Without them it speaks plain HTTP/1.1.
    pub tls: Option<Arc<Certificates>>,
}

/// How listeners are served.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    /// Threads.
    pub(super) workers: usize,
    /// Connections of all threads together.
    pub(super) connections: usize,
    /// Time for the head of a request, and for a handshake.
    pub(super) header_timeout: Duration,
    /// Whether a client that has sent everything and closed its side is still answered.
    pub(super) half_closed: bool,
    /// Who counts connections by address.
    pub(super) counted: Option<Connections>,
}

/// Serves an app on listeners. Runs until it is stopped.
///
/// # Errors
/// When the system refuses a listener.
pub(super) fn serve<F, I, S, B>(listening: Vec<Listening>, how: &Serving, app: F) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let workers = how.workers.max(1);
    let mut server = Server::build()
        .workers(workers)
        .max_concurrent_connections(how.connections.div_ceil(workers))
        .shutdown_timeout(LINGER_SECONDS)
        .disable_signals();
    let ending = server.graceful_shutdown_signal();
    // Each arm has a type of its own, down to the stream, so they can share only this.
    macro_rules! http {
        ($how:expr, $ending:expr) => {{
            let ending = $ending.clone();
            HttpService::build()
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout($how.header_timeout)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .h1_allow_half_closed($how.half_closed)
                .graceful_shutdown_signal(move || {
                    let ending = ending.clone();
                    async move { ending.notified().await }
                })
        }};
    }
    macro_rules! app {
        ($app:expr) => {{
            let app = $app().into_factory().map_err(|error| error.into().error_response());
            map_config(app, |()| AppConfig::default())
        }};
    }
    for Listening { socket, tls } in listening {
        let (how, app, ending) = (how.clone(), app.clone(), ending.clone());
        let name = format!("listener {}", socket.local_addr()?);
        server = match tls {
            None => server.listen(name, socket, move || {
                let counted = how.counted.clone();
                let count = move |io: &TcpStream, data: &mut actix_web::dev::Extensions| {
                    let Some(connection) = counted.as_ref().and_then(|counted| counted.open(io)) else {
                        return;
                    };
                    if connection.check().is_err() {
                        refuse(io);
                    }
                    data.insert(connection);
                };
                http!(how, ending).on_connect_ext(count).finish(app!(app)).tcp()
            })?,
            Some(certificates) => server.listen(name, socket, move || {
                let http = http!(how, ending).secure().on_connect_ext(
                    |io: &Secured, data: &mut actix_web::dev::Extensions| {
                        if let Some(connection) = io.connection.take() {
                            data.insert(connection);
                        }
                    },
                );
                let (how, certificates) = (how.clone(), certificates.clone());
                fn_service(move |io: TcpStream| shake(io, how.clone(), certificates.clone()))
                    .and_then(http.finish(app!(app)))
            })?,
        };
    }
    Ok(server.run())
}

/// A connection with TLS, counted.
struct Secured {
    stream: TlsStream<TcpStream>,
    /// Taken by the connection's data, which live as long.
    connection: Cell<Option<Connection>>,
}

/// Shakes hands, unless the address has too many connections already.
async fn shake(
    io: TcpStream,
    how: Serving,
    certificates: Arc<Certificates>,
) -> Result<(Secured, Protocol, Option<std::net::SocketAddr>), DispatchError> {
    let connection = how.counted.as_ref().and_then(|counted| counted.open(&io));
    if connection.as_ref().is_some_and(|connection| connection.check().is_err()) {
        // What it would understand is the end, before anything was agreed on.
        return Err(DispatchError::SlowRequestTimeout);
    }
    let peer = io.peer_addr().ok();
    // Each flight of a handshake is small and waited for.
    io.set_nodelay(true)?;
    let shaking = TlsAcceptor::from(certificates.current()).accept(io);
    let stream = match tokio::time::timeout(how.header_timeout, shaking).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let why = cause.map_or_else(|| error.to_string(), words);
            tracing::debug!(why, "handshake failed");
            return Err(DispatchError::Io(error));
        }
        Err(_) => return Err(DispatchError::SlowRequestTimeout),
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) | None => Protocol::Http1,
    };
    Ok((Secured { stream, connection: Cell::new(connection) }, protocol, peer))
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
