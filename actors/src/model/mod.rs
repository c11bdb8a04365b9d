//! Identifiers, documents, changes, events, time: plain data (floor 0).
//!
//! Everything above speaks in these types. They parse at the edge and are trusted inside.

pub mod address;
pub mod change;
pub mod cloudevent;
pub mod delivery;
pub mod document;
pub mod event;
pub mod feed;
pub mod ids;
pub mod json;
pub mod order_key;
pub mod session;
pub mod time;
