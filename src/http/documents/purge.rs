//! Stands between a request to remove whole partitions and the shards that hold them.

use actix_web::HttpResponse;
use lanekeeper_actors::shard::CommitError;

use super::Admitted;
use crate::http::problem::Problem;
use crate::http::routes::{Documents, Key};

impl Admitted<'_> {
    /// Removes all documents whose keys begin as the path says. They are invisible when the answer comes, and go
    /// one after the other, each with its change.
    pub(super) async fn delete_partition(
        &self,
        documents: &Documents,
        partition: &Key,
    ) -> Result<HttpResponse, Problem> {
        let address = self.address(documents, partition.of(self.segments, None)?);
        let whole = address.key.len() == documents.container.rules.key.len();
        let encoded = address.encode();
        let count = u16::try_from(self.directory.shards().len()).unwrap_or(u16::MAX);
        let only = whole.then(|| encoded.shard(count));
        let prefix = if whole { encoded.as_bytes().to_vec() } else { address.encode_prefix() };
        for shard in self.directory.shards().iter() {
            if only.is_none_or(|only| only == shard.id()) {
                // The shard goes on with it when nobody waits any more.
                let purged = tokio::time::timeout(self.limits.request, shard.purge(prefix.clone())).await;
                purged.unwrap_or(Err(CommitError::Unknown)).map_err(Problem::purge)?;
            }
        }
        Ok(HttpResponse::NoContent().finish())
    }
}
