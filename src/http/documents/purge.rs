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
        let extent = self.directory.extent(&address);
        for shard in &extent.shards {
            // The shard goes on with it when nobody waits any more.
            let purged = tokio::time::timeout(self.limits.request, shard.purge(extent.prefix.clone())).await;
            purged.unwrap_or(Err(CommitError::Unknown)).map_err(Problem::purge)?;
        }
        Ok(HttpResponse::NoContent().finish())
    }
}
