//! Everything of Lanekeeper that has state or a rule. Knows no HTTP.

pub mod model;
