//! What the directory is told.

use actix::Message;

use crate::kernel::permits::Permit;
use crate::model::address::EncodedPartition;
use crate::protocol::partition::WriteError;

/// Sender: `PartitionHandle`, when it found nobody awake. Receiver: `Directory`.
/// Reply: it is in the table of who is awake, and this place in its queue keeps it there; or why
/// it cannot wake.
#[derive(Message)]
#[rtype(result = "Result<Permit, WriteError>")]
pub struct WakePartition(pub EncodedPartition);

/// Sender: `DirectoryHandle`, for an operator. Receiver: `Directory`.
/// Reply: whether such a partition is awake.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct ReopenPartition(pub EncodedPartition);
