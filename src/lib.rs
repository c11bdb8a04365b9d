//! The shell of Lanekeeper: process, command line, HTTP, manifest, deliveries. Sees actors only as handles.

pub mod cli;
pub mod delivery;
pub mod manifest;
