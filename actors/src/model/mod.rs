//! Identifiers, documents, changes, events, time: plain data (floor 0).

pub mod delivery;
