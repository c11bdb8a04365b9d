//! What every room stands on: time, bounds, contained panics, asking with a deadline.

pub mod ask;
pub mod clock;
pub mod contain;
pub mod permits;
pub mod shares;
pub mod slots;
