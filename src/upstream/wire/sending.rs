//! A request on its way out: its head, and a body that comes piece by piece.
//!
//! Invariants: the body is written in the framing that the head announces, and never more or less of it; no more than
//! one piece is held; a body beyond its limit is broken off, so that what was sent of it is no request.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// The body of a request, piece by piece.
pub trait Source {
    /// The next piece; `None` after the last one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>>;
}

/// A body that will never be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// No body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Source for Nothing {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        Poll::Ready(None)
    }
}

/// How long the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// So many bytes.
    Known(u64),
    /// Nobody knows before its end.
    Unknown,
}

/// Why a request was not sent whole.
#[derive(Debug)]
pub(crate) enum SendFault {
    /// The connection took no more.
    Connection,
    /// The body is larger than its limit.
    TooLarge,
    /// The body did not come whole.
    Lost,
}

/// Whom a request that is not sent yet waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Who sends the body.
    Client,
    /// Who takes it.
    Server,
}

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The head, then the lines of the chunked coding.
    lines: BytesMut,
    /// The piece that follows them.
    piece: Bytes,
    left: Left,
    /// Bytes that the body may still have.
    room: u64,
    /// Bytes of the body so far.
    pub(crate) taken: u64,
}

/// What is to come after `lines` and `piece`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Known(u64),
    /// Chunks, this one not being the first if so.
    Chunks(bool),
}

impl Sending {
    /// A request whose head is written up to its last field; `limit` bounds its body.
    pub(crate) fn new(mut head: BytesMut, length: Length, limit: u64) -> Self {
        let left = match length {
            Length::None => Left::Nothing,
            Length::Known(length) => {
                head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
                if length == 0 { Left::Nothing } else { Left::Known(length) }
            }
            Length::Unknown => {
                head.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Left::Chunks(false)
            }
        };
        head.extend_from_slice(b"\r\n");
        Self { lines: head, piece: Bytes::new(), left, room: limit, taken: 0 }
    }

    /// Whether all of it is sent.
    pub(crate) fn is_done(&self) -> bool {
        self.left == Left::Nothing && self.lines.is_empty() && self.piece.is_empty()
    }

    /// Sends what it can. `Ready` when all of it is sent; otherwise `waiting` says for whom.
    pub(crate) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        source: &mut dyn Source,
        waiting: &mut Waiting,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            let mut dry = false;
            if self.piece.is_empty() && self.left != Left::Nothing {
                match source.poll_piece(cx) {
                    Poll::Ready(piece) => self.take(piece)?,
                    Poll::Pending => dry = true,
                }
            }
            *waiting = Waiting::Server;
            while !self.lines.is_empty() || !self.piece.is_empty() {
                let parts = [IoSlice::new(&self.lines), IoSlice::new(&self.piece)];
                let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts));
                let written = written.map_err(|_| SendFault::Connection)?;
                if written == 0 {
                    return Poll::Ready(Err(SendFault::Connection));
                }
                let of_lines = written.min(self.lines.len());
                self.lines.advance(of_lines);
                self.piece.advance(written.saturating_sub(of_lines).min(self.piece.len()));
            }
            if dry || self.left == Left::Nothing {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(|_| SendFault::Connection)?;
            }
            if self.left == Left::Nothing {
                return Poll::Ready(Ok(()));
            }
            if dry {
                *waiting = Waiting::Client;
                return Poll::Pending;
            }
        }
    }

    /// Frames the next piece of the body.
    fn take(&mut self, piece: Option<Result<Bytes, Lost>>) -> Result<(), SendFault> {
        let piece = piece.transpose().map_err(|Lost| SendFault::Lost)?;
        let length = piece.as_ref().map_or(0, |piece| u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.room = self.room.checked_sub(length).ok_or(SendFault::TooLarge)?;
        self.taken = self.taken.saturating_add(length);
        match (self.left, piece) {
            (Left::Known(left), Some(piece)) => {
                let left = left.checked_sub(length).ok_or(SendFault::Lost)?;
                self.left = if left == 0 { Left::Nothing } else { Left::Known(left) };
                self.piece = piece;
            }
            (Left::Known(_), None) => return Err(SendFault::Lost),
            // An empty chunk would be the last one.
            (Left::Chunks(_), Some(piece)) if piece.is_empty() => {}
            (Left::Chunks(later), Some(piece)) => {
                let before = if later { "\r\n" } else { "" };
                self.lines.put_slice(format!("{before}{length:x}\r\n").as_bytes());
                self.left = Left::Chunks(true);
                self.piece = piece;
            }
            (Left::Chunks(later), None) => {
                self.lines.put_slice(if later { b"\r\n0\r\n\r\n" } else { b"0\r\n\r\n" });
                self.left = Left::Nothing;
            }
            (Left::Nothing, _) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use futures_util::task::noop_waker_ref;
    use proptest::prelude::*;

    use super::*;

    /// Pieces; `None` is a pause.
    struct Pieces(VecDeque<Option<Result<Bytes, Lost>>>);

    impl Source for Pieces {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
            match self.0.pop_front() {
                Some(Some(piece)) => Poll::Ready(Some(piece)),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    /// Takes a few bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let length = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..length]);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn send(length: Length, limit: u64, pieces: &[Option<&[u8]>], step: usize) -> Result<String, String> {
        let piece = |piece: &Option<&[u8]>| piece.map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let mut source = Pieces(pieces.iter().map(piece).collect());
        let mut io = Slow(Vec::new(), step);
        let mut sending = Sending::new(BytesMut::from("POST / HTTP/1.1\r\n"), length, limit);
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut waiting = Waiting::Server;
        loop {
            match sending.poll(&mut io, &mut source, &mut waiting, &mut cx) {
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(fault)) => return Err(format!("{fault:?}")),
                Poll::Pending => assert_eq!(waiting, Waiting::Client),
            }
        }
        assert!(sending.is_done());
        Ok(String::from_utf8(io.0).unwrap())
    }

    #[test]
    fn each_body_is_written_in_its_own_framing() {
        for step in [1, 5, 1_000] {
            let sent = |length, pieces: &[Option<&[u8]>]| send(length, 100, pieces, step).unwrap();
            assert_eq!(sent(Length::None, &[Some(b"ignored")]), "POST / HTTP/1.1\r\n\r\n");
            assert_eq!(sent(Length::Known(0), &[]), "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(
                sent(Length::Known(5), &[Some(b"he"), None, Some(b"llo")]),
                "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
            );
            assert_eq!(
                sent(Length::Unknown, &[Some(b"hello"), None, Some(b""), Some(b"0123456789abcdef")]),
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
            );
            assert_eq!(
                sent(Length::Unknown, &[]),
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            );
        }
    }

    #[test]
    fn a_body_of_another_length_or_beyond_its_limit_is_broken_off() {
        let fault = |length, pieces: &[Option<&[u8]>]| send(length, 6, pieces, 10).unwrap_err();
        assert_eq!(fault(Length::Known(5), &[Some(b"he")]), "Lost");
        assert_eq!(fault(Length::Known(5), &[Some(b"hello!")]), "Lost");
        assert_eq!(fault(Length::Known(9), &[Some(b"hello"), Some(b"!!")]), "TooLarge");
        assert_eq!(fault(Length::Unknown, &[Some(b"hello"), Some(b"!!")]), "TooLarge");
    }

    proptest! {
        #[test]
        fn chunks_carry_the_body_and_nothing_else(
            pieces in proptest::collection::vec(proptest::option::of("[a-z]{0,40}"), 0..12), step in 1..60_usize,
        ) {
            let given: Vec<_> = pieces.iter().map(|piece| piece.as_deref().map(str::as_bytes)).collect();
            let text = send(Length::Unknown, 10_000, &given, step).unwrap();
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let mut decoder = super::super::Chunked::default();
            let mut input = BytesMut::from(body);
            let mut read = Vec::new();
            loop {
                match decoder.decode(&mut input).unwrap() {
                    super::super::Decoded::Data(data) => read.extend_from_slice(&data),
                    super::super::Decoded::More => prop_assert!(false, "not complete"),
                    super::super::Decoded::End => break,
                }
            }
            prop_assert!(input.is_empty());
            let whole: String = pieces.into_iter().flatten().collect();
            prop_assert_eq!(String::from_utf8(read).unwrap(), whole);
        }
    }
}
