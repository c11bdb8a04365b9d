//! Everything of Lanekeeper that has state or a rule. Knows no HTTP.
//!
//! Floors, from the ground: `model`; `policy`, `query`, `log`, `store`; `kernel`; `protocol`; the rooms
//! (`gateway`, `directory`, `partition`, `topic`, `shard`, `router`, `subscriber`); `system`. Imports go
//! down only.

pub mod backup;
pub mod directory;
pub mod gateway;
pub mod kernel;
pub mod log;
pub mod model;
pub mod partition;
pub mod policy;
pub mod protocol;
pub mod query;
pub mod reader;
pub mod router;
pub mod shard;
pub mod store;
pub mod subscriber;
pub mod system;
pub mod topic;
pub mod upkeep;
pub mod verify;
