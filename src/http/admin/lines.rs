//! Stands between a body that comes in pieces and whoever reads it line by line.
//!
//! Invariant: no more than one line and one piece is held. A line that is too long is passed over and told, and the
//! lines behind it are read.

use std::time::Duration;

use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;

use crate::http::body::BodyError;

/// A line with its number, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(u64, Bytes),
    TooLong(u64),
}

/// Reads lines. Dropping a read that has not ended loses nothing.
pub(super) struct Lines<'p> {
    payload: &'p mut Payload,
    held: BytesMut,
    /// How much of what is held was looked at.
    looked_at: usize,
    number: u64,
    is_passing_over: bool,
    is_ended: bool,
    longest: usize,
    patience: Duration,
}

impl<'p> Lines<'p> {
    /// Lines of at most `longest` bytes; each piece must come within `patience`.
    pub(super) fn new(payload: &'p mut Payload, longest: usize, patience: Duration) -> Self {
        let (held, looked_at, number) = (BytesMut::new(), 0, 0);
        Self { payload, held, looked_at, number, is_passing_over: false, is_ended: false, longest, patience }
    }

    /// The next line that has something in it, or `None` behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, BodyError> {
        loop {
            if let Some(line) = self.cut() {
                return Ok(Some(line));
            }
            if self.is_ended {
                return Ok(None);
            }
            let piece = tokio::time::timeout(self.patience, self.payload.next()).await;
            match piece.map_err(|_| BodyError::TimedOut(self.patience))? {
                Some(piece) => self.held.extend_from_slice(&piece.map_err(|_| BodyError::Broken)?),
                None => self.is_ended = true,
            }
        }
    }

    /// A line of what is held, if there is a whole one that has something in it.
    fn cut(&mut self) -> Option<Line> {
        loop {
            let rest = self.held.get(self.looked_at..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == b'\n').map(|at| self.looked_at + at);
            let text = match end {
                Some(end) => {
                    let mut line = self.held.split_to(end + 1);
                    line.truncate(end);
                    line
                }
                None if self.is_ended && (!self.held.is_empty() || self.is_passing_over) => self.held.split(),
                None => {
                    if self.held.len() > self.longest {
                        self.is_passing_over = true;
                        self.held.clear();
                    }
                    self.looked_at = self.held.len();
                    return None;
                }
            };
            self.looked_at = 0;
            self.number += 1;
            if std::mem::take(&mut self.is_passing_over) || text.len() > self.longest {
                return Some(Line::TooLong(self.number));
            }
            if !text.trim_ascii().is_empty() {
                return Some(Line::Text(self.number, text.freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    use super::*;

    async fn lines(body: &'static [u8]) -> Vec<Line> {
        let (req, mut payload) = TestRequest::post().set_payload(body).to_http_parts();
        let mut payload = Payload::from_request(&req, &mut payload).await.unwrap();
        let mut lines = Lines::new(&mut payload, 4, Duration::from_secs(5));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    fn text(number: u64, text: &'static str) -> Line {
        Line::Text(number, text.into())
    }

    #[actix_web::test]
    async fn lines_keep_their_numbers_and_empty_ones_are_passed_over() {
        assert_eq!(lines(b"").await, []);
        assert_eq!(lines(b"\n\n").await, []);
        assert_eq!(lines(b"a\nb").await, [text(1, "a"), text(2, "b")]);
        assert_eq!(lines(b"\na\n \r\nbbbb\n").await, [text(2, "a"), text(4, "bbbb")]);
        assert_eq!(lines(b"aaaaa\nb\nccccc").await, [Line::TooLong(1), text(2, "b"), Line::TooLong(3)]);
    }
}
