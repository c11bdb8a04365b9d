//! Stands between a container and whoever takes its documents out: one JSON text a line, as it was stored.
//!
//! Invariants: a document that is there all the time is in the stream once; no more than a page of documents is held,
//! however slow the reader is; a stream that cannot be finished breaks off and never looks complete.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::{StreamExt, stream};
use lanekeeper_actors::directory::{Account, Extent, shows};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::policy::charge;
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::throughput::RetryAfter;
use lanekeeper_actors::shard::{ShardHandle, ShardReadError};
use lanekeeper_actors::store::Page;

use super::scope;
use super::{Admin, AdminError};
use crate::http::path::query_value;
use crate::http::problem::Problem;

/// The type of a body with one JSON text a line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Documents that are read at once.
const PAGE: usize = 256;
/// Bytes of them, about.
const PAGE_BYTES: usize = 1 << 20;

/// An export on its way.
struct Export {
    container: Arc<Container>,
    account: Arc<Account>,
    extent: Extent,
    clock: SharedClock,
    /// Which of the shards is read.
    leg: usize,
    /// The key of the last document that was read there.
    after: Option<Vec<u8>>,
}

/// Begins to stream; what fails before the first documents is told as a problem.
pub(super) async fn stream(admin: &Admin, name: &str, query: &str) -> Result<HttpResponse, Problem> {
    if query_value(query, "system").transpose()?.is_some_and(|text| text != "false") {
        let why = "documents go out without system properties: leave out `system`, or ask a query";
        return Err(AdminError::Request(why.to_owned()).into());
    }
    let scope = scope::of_query(admin, name, query)?;
    let container = scope::find(admin, name)?.clone();
    let export = Export {
        account: admin.system.directory().account(&container.name).clone(),
        container,
        extent: scope::extent(admin, &scope)?,
        clock: admin.clock.clone(),
        leg: 0,
        after: None,
    };
    let Some((first, rest)) = export.next().await? else {
        return Ok(HttpResponse::Ok().content_type(NDJSON).finish());
    };
    let rest = stream::try_unfold(rest, Export::next);
    let lines = stream::once(async { Ok(first) }).chain(rest);
    Ok(HttpResponse::Ok().content_type(NDJSON).streaming(Box::pin(lines)))
}

impl Export {
    /// The next lines, and what comes behind them; nothing at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ShardReadError> {
        while let Some(shard) = self.extent.shards.get(self.leg).cloned() {
            // Whoever works with the container goes first: an export waits until there is something left.
            while let Err(RetryAfter(wait)) = self.account.admit(None) {
                tokio::time::sleep(wait).await;
            }
            let page = self.read(shard.clone()).await?;
            let lines = self.lines(&shard, &page);
            match page.documents.last() {
                Some(last) if page.more => self.after = Some(last.key.to_vec()),
                Some(_) | None => (self.leg, self.after) = (self.leg + 1, None),
            }
            self.account.charge(None, charge::change_feed(page.documents.len(), lines.len()));
            if !lines.is_empty() {
                return Ok(Some((lines.into(), self)));
            }
        }
        Ok(None)
    }

    async fn read(&self, shard: ShardHandle) -> Result<Page, ShardReadError> {
        let (prefix, after) = (self.extent.prefix.clone(), self.after.clone());
        let read = move || shard.scan(&prefix, after.as_deref(), PAGE, PAGE_BYTES);
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(ShardReadError::Unavailable))
    }

    fn lines(&self, shard: &ShardHandle, page: &Page) -> Vec<u8> {
        let now = self.clock.now();
        let mut lines = Vec::new();
        for found in &page.documents {
            if shows(&self.container, shard, &found.key, &found.document, now) {
                // Strings in JSON have no line feed of their own: all of these are blanks between other things.
                let blank = |byte: u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
                lines.extend(found.document.body.iter().copied().map(blank));
                lines.push(b'\n');
            }
        }
        lines
    }
}
