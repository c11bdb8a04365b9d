//! What every room stands on: time, bounds, contained panics, asking with a deadline.

pub mod ask;
pub mod clock;
pub mod contain;
pub mod entrance;
pub mod permits;
pub mod slots;
