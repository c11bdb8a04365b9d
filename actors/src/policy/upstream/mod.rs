//! What is decided about the servers behind the gateway: which one is asked, which are left alone, what is tried again.
//!
//! Stands between a request that must go on and the sockets that carry it. Invariant: each rule is a function of
//! counts, times and draws that it is given, so that every decision can be replayed.

mod breaker;
mod choice;
mod ending;
mod health;
mod retry;

pub use breaker::{Breaker, BreakerRules, Permit, Standing, Ticket, Trip, Turn};
pub use choice::{Candidate, choose};
pub use ending::{Causes, Ending};
pub use health::{HealthRules, Vitals};
pub use retry::RetryRules;
