//! HTTP/1.1 as the gateway speaks it to the servers behind it (RFC 9112).
//!
//! Stands between decisions and bytes. Invariants: a request is written with exactly one framing, which is the one its
//! body is sent in; an answer is read with the only framing that it can have, and one that could be read in two ways
//! is none; what is held of either is bounded.

mod chunked;
mod fields;
mod head;
mod sending;

pub(super) use chunked::{Chunked, Decoded, take};
pub use fields::{Forwarding, Unforwardable, fields};
pub use head::Head;
pub(super) use head::{Framing, HeadFault, INTERIM_MAX, parse};
pub use sending::{Length, Lost, Nothing, Source};
pub(super) use sending::{SendFault, Sending, Waiting};
