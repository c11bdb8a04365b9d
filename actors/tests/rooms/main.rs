//! The rooms together, on real disks, with scripted endpoints: one module per promise.

mod delivery;
mod support;
