//! One connection to a server: bytes out of it, bytes into it, and what of an answer was read ahead.
//!
//! Invariant: whether anything came since the last request was begun is known, because it decides what may be sent
//! again.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::wire::{Chunked, Decoded, Framing, Head, HeadFault, INTERIM_MAX, parse, take};

/// Bytes that are read at once.
const READ: usize = 16 * 1024;

/// A stream of bytes to a server.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// A connection, and what came of it that nobody took yet.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) io: Io,
    input: BytesMut,
    /// Whether anything came since the last request was begun.
    pub(super) heard: bool,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended too early.
    #[error("the connection ended")]
    Ended,
    /// What came is no answer.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// The chunked coding of a body is broken.
    #[error("the chunked coding is broken")]
    Chunks,
}

impl Connection {
    pub(super) fn new(io: Io) -> Self {
        Self { io, input: BytesMut::new(), heard: false }
    }

    /// Whether it can take another request: open, and silent.
    pub(super) fn is_fit(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        let mut room = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(noop_waker_ref());
        self.input.is_empty() && Pin::new(&mut self.io).poll_read(&mut cx, &mut room).is_pending()
    }

    /// Whether all that came belongs to answers that were read.
    pub(super) fn is_clean(&self) -> bool {
        self.input.is_empty()
    }

    /// The head of the final answer. `interim` counts those before it.
    pub(super) fn poll_head(
        &mut self,
        headless: bool,
        interim: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Fault>> {
        loop {
            if !self.input.is_empty() {
                match parse(&mut self.input, headless)? {
                    Some(head) if head.status >= 200 => return Poll::Ready(Ok(head)),
                    Some(_) => {
                        *interim += 1;
                        if *interim > INTERIM_MAX {
                            return Poll::Ready(Err(HeadFault::Syntax.into()));
                        }
                        continue;
                    }
                    None => {}
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Fault::Ended));
            }
        }
    }

    /// The next piece of a body; `None` after the last one.
    pub(super) fn poll_body(
        &mut self,
        framing: &mut Framing,
        chunks: &mut Chunked,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            match framing {
                Framing::Length(0) => return Poll::Ready(None),
                Framing::Length(left) if !self.input.is_empty() => {
                    let piece = take(&mut self.input, *left);
                    *left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    return Poll::Ready(Some(Ok(piece)));
                }
                Framing::Close if !self.input.is_empty() => {
                    return Poll::Ready(Some(Ok(take(&mut self.input, u64::MAX))));
                }
                Framing::Chunked => match chunks.decode(&mut self.input) {
                    Ok(Decoded::Data(piece)) => return Poll::Ready(Some(Ok(piece))),
                    Ok(Decoded::End) => {
                        *framing = Framing::Length(0);
                        return Poll::Ready(None);
                    }
                    Ok(Decoded::More) => {}
                    Err(_) => return Poll::Ready(Some(Err(Fault::Chunks))),
                },
                Framing::Length(_) | Framing::Close => {}
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if *framing == Framing::Close => {
                    *framing = Framing::Length(0);
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(Fault::Ended))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// The next so many bytes, if they are all here.
    pub(super) fn take_whole(&mut self, length: u64) -> Option<Bytes> {
        let here = u64::try_from(self.input.len()).ok()?;
        (here >= length).then(|| take(&mut self.input, length))
    }

    /// Reads what is there; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        // Reading forgets nothing when it is dropped, so each poll may begin it anew.
        let read = ready!(pin!(self.io.read_buf(&mut self.input)).poll(cx))?;
        self.heard |= read > 0;
        Poll::Ready(Ok(read))
    }

    /// Lets go of the room for reading, which an idle connection does not need.
    pub(super) fn rest(&mut self) {
        if self.input.capacity() > READ {
            self.input = BytesMut::new();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }
}
