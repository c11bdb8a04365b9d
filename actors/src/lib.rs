//! Everything of Lanekeeper that has state or a rule. Knows no HTTP.
//!
//! Floors, from the ground: `model`; `policy`, `log`, `store`; `kernel`; `protocol`; the rooms
//! (`gateway`, `directory`, `partition`, `shard`, `router`, `subscriber`); `system`. Imports go
//! down only.

pub mod model;
pub mod policy;
