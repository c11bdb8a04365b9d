//! Every message between actors, one module per receiver, each with its sender named.
//!
//! Commands are imperative, facts are past tense, replies are nouns. A message that takes up a
//! bounded place carries its permit.

pub mod directory;
pub mod gateway;
pub mod partition;
pub mod router;
pub mod subscriber;
pub mod topic;
