//! The chunked coding of an answer (RFC 9112 section 7.1), read strictly.
//!
//! Invariant: only one sequence of bytes leads to one body: sizes are plain hexadecimal digits, lines end with CR LF,
//! and no line grows without bound. Extensions and trailers are read and dropped.

use bytes::{Buf, Bytes, BytesMut};

/// Hexadecimal digits of a chunk's size: more do not fit.
const DIGITS_MAX: u32 = 16;
/// Bytes of extensions, or of trailers, of one answer.
const ASIDE_MAX: usize = 16 * 1024;
/// A piece up to this size is copied, so that the buffer it came in can be used again.
const COPIED: usize = 4 * 1024;

/// Reads the chunked coding.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of extensions and trailers so far.
    aside: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the size, of which there are so many digits.
    Size(u64, u32),
    /// In the extensions of a chunk of this size.
    Extension(u64),
    /// Before the line feed that ends the line of a size.
    SizeEnd(u64),
    /// In the data, of which so much is to come.
    Data(u64),
    /// Before the line end that follows the data.
    DataEnd(bool),
    /// At the beginning of a trailer line.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// Before the line feed that ends a trailer line; the last one if so.
    TrailerEnd(bool),
    /// After everything.
    End,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Data.
    Data(Bytes),
    /// Nothing without more input.
    More,
    /// The body is complete.
    End,
}

/// The coding is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size(0, 0), aside: 0 }
    }
}

impl Chunked {
    /// Takes what it can from the input.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self.state {
                State::End => return Ok(Decoded::End),
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let data = take(input, left);
                    let left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    self.state = if left == 0 { State::DataEnd(false) } else { State::Data(left) };
                    return Ok(Decoded::Data(data));
                }
                State::Size(..)
                | State::Extension(_)
                | State::SizeEnd(_)
                | State::DataEnd(_)
                | State::TrailerStart
                | State::Trailer
                | State::TrailerEnd(_) => {
                    let Some(byte) = input.first().copied() else { return Ok(Decoded::More) };
                    self.state = self.after(byte)?;
                    input.advance(1);
                }
            }
        }
    }

    /// The state after one byte that is not data.
    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size(size, digits), _) if byte.is_ascii_hexdigit() && digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                State::Size((size << 4) | u64::from(digit), digits + 1)
            }
            (State::Size(size, 1..), b'\r') => State::SizeEnd(size),
            (State::Size(size, 1..), b';' | b' ' | b'\t') => self.aside(State::Extension(size))?,
            (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), _) if is_text(byte) => self.aside(State::Extension(size))?,
            (State::SizeEnd(0), b'\n') => State::TrailerStart,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd(false), b'\r') => State::DataEnd(true),
            (State::DataEnd(true), b'\n') => State::Size(0, 0),
            (State::TrailerStart, b'\r') => State::TrailerEnd(true),
            (State::TrailerStart | State::Trailer, _) if is_text(byte) => self.aside(State::Trailer)?,
            (State::Trailer, b'\r') => State::TrailerEnd(false),
            (State::TrailerEnd(true), b'\n') => State::End,
            (State::TrailerEnd(false), b'\n') => State::TrailerStart,
            (
                State::Size(..)
                | State::Extension(_)
                | State::SizeEnd(_)
                | State::Data(_)
                | State::DataEnd(_)
                | State::TrailerStart
                | State::Trailer
                | State::TrailerEnd(_)
                | State::End,
                _,
            ) => return Err(Malformed),
        })
    }

    fn aside(&mut self, next: State) -> Result<State, Malformed> {
        self.aside = self.aside.saturating_add(1);
        if self.aside > ASIDE_MAX { Err(Malformed) } else { Ok(next) }
    }
}

/// What may stand in a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Takes at most `most` bytes off the front.
pub(crate) fn take(input: &mut BytesMut, most: u64) -> Bytes {
    let length = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    if length <= COPIED {
        let copy = input.get(..length).map(Bytes::copy_from_slice).unwrap_or_default();
        input.advance(length);
        return copy;
    }
    input.split_to(length).freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came of a body, and what stood behind it.
    type Whole = (Vec<u8>, Vec<u8>);

    /// The body and what is left after it; `None` when more is needed.
    fn read(input: &[u8], piece: usize) -> Result<Option<Whole>, Malformed> {
        let (mut decoder, mut buffer, mut body) = (Chunked::default(), BytesMut::new(), Vec::new());
        let mut pieces = input.chunks(piece.max(1));
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::End => {
                    let rest = pieces.fold(buffer.to_vec(), |rest, piece| [&rest, piece].concat());
                    return Ok(Some((body, rest)));
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn chunks_are_put_together_and_the_rest_is_left() {
        for piece in [1, 2, 3, 7, 1_000] {
            for (input, body, rest) in [
                ("0\r\n\r\n", "", ""),
                ("5\r\nhello\r\n0\r\n\r\nHTTP", "hello", "HTTP"),
                ("a;x=\"y\"\r\n0123456789\r\n00\r\n\r\n", "0123456789", ""),
                ("2 \r\nok\r\n0\r\nx-a: b\r\ny: z\r\n\r\n", "ok", ""),
                ("0000000000000001\r\na\r\n0\r\n\r\n", "a", ""),
            ] {
                let found = read(input.as_bytes(), piece).unwrap().unwrap();
                assert_eq!(found, (body.as_bytes().to_vec(), rest.as_bytes().to_vec()), "{input:?}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for input in [
            "\r\n",
            "g\r\n",
            "0x5\r\nhello",
            "-1\r\n",
            "+1\r\na",
            " 5\r\nhello",
            "5\nhello",
            "5\r\rhello",
            "5;\nhello",
            "5\r\nhello5\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r\r",
            "0\r\n\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\x00",
            "00000000000000001\r\na",
            "fffffffffffffffff\r\n",
            "5;\x00\r\nhello",
            "0\r\nx: \x7f\r\n",
        ] {
            assert_eq!(read(input.as_bytes(), 3), Err(Malformed), "{input:?}");
        }
        let endless = format!("5;{}", "x".repeat(20_000));
        assert_eq!(read(endless.as_bytes(), 100), Err(Malformed));
        let endless = format!("0\r\n{}", "x: y\r\n".repeat(5_000));
        assert_eq!(read(endless.as_bytes(), 100), Err(Malformed));
        assert_eq!(read(b"5\r\nhel", 100), Ok(None));
    }

    proptest! {
        #[test]
        fn any_body_comes_back_however_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
            piece in 1..40_usize, rest in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend(format!("{:x}\r\n", chunk.len()).bytes());
                input.extend(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\n\r\n");
            input.extend(&rest);
            prop_assert_eq!(read(&input, piece), Ok(Some((chunks.concat(), rest))));
        }

        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize) {
            read(&input, piece).ok();
        }
    }
}
