//! The rooms together, on real disks, with scripted endpoints: one module per promise.

mod delivery;
mod fairness;
mod partition;
mod restarts;
mod retries;
mod simulation;
mod support;
