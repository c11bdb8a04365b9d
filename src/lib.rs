//! The shell of Lanekeeper: process, command line, HTTP, manifest, deliveries. Sees actors only as handles.

pub mod app;
pub mod audit;
pub mod blob;
pub mod cli;
pub mod configuration;
pub mod delivery;
pub mod edge;
pub mod http;
pub mod identity;
pub mod manifest;
pub mod telemetry;
pub mod upstream;
