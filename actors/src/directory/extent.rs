//! Where the documents of a partition, of the beginning of a partition key, of a tenant, or of a whole
//! container lie.

use super::DirectoryHandle;
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::shard::ShardHandle;

/// What the keys of some documents begin with, and the shards that may hold them.
#[derive(Debug, Clone)]
pub struct Extent {
    /// What the keys of all of them begin with. Without a tenant in an isolated container it says nothing
    /// of the partition key.
    pub prefix: Vec<u8>,
    /// The partition, if it is one.
    pub partition: Option<EncodedPartition>,
    /// The shards: one partition is in one of them, everything else may be in all.
    pub shards: Vec<ShardHandle>,
}

impl DirectoryHandle {
    /// The extent of an address whose key may be cut short. In an isolated container no tenant means all
    /// of them.
    pub fn extent(&self, address: &PartitionAddress) -> Extent {
        let all = self.shards();
        let container = self.catalog().of(&address.encode());
        if container.isolated && address.tenant.is_none() {
            let prefix = PartitionAddress::container_prefix(&address.container);
            return Extent { prefix, partition: None, shards: all.to_vec() };
        }
        if address.key.len() < container.rules.key.len() {
            return Extent { prefix: address.encode_prefix(), partition: None, shards: all.to_vec() };
        }
        let partition = address.encode();
        let shard = self.shard_of(&partition);
        Extent {
            prefix: partition.as_bytes().to_vec(),
            partition: Some(partition),
            shards: shard.cloned().into_iter().collect(),
        }
    }
}
