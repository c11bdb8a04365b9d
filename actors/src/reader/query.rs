//! One page of a query: planned, run in slices beside everything else, and cut when its budget is over.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::continuation::{self, InvalidContinuation};
use super::source::{Source, Work};
use super::{Reader, ReaderSettings, Scope, Target};
use crate::kernel::clock::SharedClock;
use crate::policy::charge::{self, Queried, RequestUnits};
use crate::policy::container::Index;
use crate::policy::throughput::RetryAfter;
use crate::query::{
    BindError, BoundQuery, Context, End, Execution, Flow, IndexDefinition, PageLimits, PageOfRows, Plan,
    Query, QueryError,
};
use crate::shard::ShardReadError;

/// How long a slice runs before others get their turn.
const SLICE: Duration = Duration::from_millis(4);

/// A query and where it is asked.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// Where.
    pub scope: Scope,
    /// What.
    pub query: Arc<Query>,
    /// The values of its parameters, names without `@`.
    pub parameters: Vec<(String, Value)>,
    /// Most rows in the page.
    pub limit: usize,
    /// Where a page before has ended.
    pub continuation: Option<String>,
    /// Longest continuation that the caller can carry, in bytes.
    pub longest_continuation: usize,
    /// Whether the plan is told.
    pub explain: bool,
}

/// One page of rows.
#[derive(Debug, Clone)]
pub struct QueryPage {
    /// The rows. There may be none although there are more pages.
    pub rows: Vec<Value>,
    /// What to send back for the next page; `None` after the last.
    pub continuation: Option<String>,
    /// What the page costs.
    pub charge: RequestUnits,
    /// How the rows were found, where that was asked for.
    pub plan: Option<Value>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum QueryFailed {
    /// There is no such container.
    #[error("there is no container `{0}`")]
    UnknownContainer(String),
    /// Too many queries are under way.
    #[error("too many queries are under way")]
    Busy,
    /// The budget is spent.
    #[error(transparent)]
    Throttled(#[from] RetryAfter),
    /// A parameter is missing or wrong.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The continuation is not one of this query.
    #[error(transparent)]
    Continuation(#[from] InvalidContinuation),
    /// The query cannot be executed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// What the page knows so far is more than the caller can carry.
    #[error(
        "the query was interrupted, and its continuation would have {bytes} bytes, more than {limit}: narrow \
         it with WHERE, ask for fewer rows, or declare an index for its ORDER BY"
    )]
    ContinuationTooLong {
        /// Its length.
        bytes: usize,
        /// What the caller can carry.
        limit: usize,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardReadError),
    /// The thread that ran it is gone.
    #[error("the query crashed")]
    Crashed,
}

/// A page in the making, which moves between the threads that work on it.
struct Run {
    source: Source,
    execution: Execution,
    settings: Arc<ReaderSettings>,
    clock: SharedClock,
    until: Duration,
}

/// What a slice has come to.
enum Slice {
    /// There is more to do.
    More,
    /// No more is wanted, or there is no more.
    Done(End),
}

impl Reader {
    /// Runs one page of a query.
    ///
    /// # Errors
    /// [`QueryFailed`] says what is wrong with the query, or what the caller must wait for.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryPage, QueryFailed> {
        let unknown = || QueryFailed::UnknownContainer(request.scope.container.to_string());
        let target = self.target(&request.scope).ok_or_else(unknown)?;
        let _place = self.queries.try_take().ok_or(QueryFailed::Busy)?;
        target.account.admit(target.partition.as_ref())?;
        let bound = Arc::new(request.query.bind(&request.parameters)?);
        let resume = request.continuation.as_deref();
        let resume = resume.map(|text| continuation::decode(&target.prefix, text)).transpose()?;

        let indexes = self.usable_indexes(&target);
        let definitions: Vec<_> =
            indexes.iter().map(|index| IndexDefinition { paths: index.paths.clone() }).collect();
        let plan = Plan::of(&bound, &definitions);
        let now = self.clock.now();
        let mut source = Source::new(target.clone(), &plan.access, &indexes, now);
        // The order of an index is that of one partition, and only of values that it holds whole.
        let ordered = plan.ordered && target.partition.is_some() && !source.is_cut()?;
        let page = PageLimits {
            rows: request.limit.max(1),
            bytes: self.settings.page_bytes,
            groups: self.settings.groups,
        };
        let context = Context { now, seed: now.0 };
        let execution = Execution::start(bound.clone(), context, page, ordered, resume.as_ref())?;
        if !source.go_to(execution.resume_after()) {
            return Err(InvalidContinuation.into());
        }
        let until = self.clock.elapsed() + self.settings.time;
        let (settings, clock) = (self.settings.clone(), self.clock.clone());
        let run = Run { source, execution, settings, clock, until };
        let (page, work) = self.run(run, &bound).await?;

        let charge = charge::query(&Queried {
            rows_loaded: work.rows,
            bytes_loaded: work.bytes,
            index_entries: work.entries,
            rows_returned: page.rows.len(),
        });
        target.account.charge(target.partition.as_ref(), charge);
        let plan = request.explain.then(|| explained(&plan, &target, ordered, work, charge));
        let continuation = page.resume.map(|resume| continuation::encode(&target.prefix, &resume));
        let continuation = continuation.transpose().map_err(|_| QueryFailed::Crashed)?;
        let bytes = continuation.as_ref().map_or(0, String::len);
        if bytes > request.longest_continuation {
            return Err(QueryFailed::ContinuationTooLong { bytes, limit: request.longest_continuation });
        }
        Ok(QueryPage { rows: page.rows, continuation, charge, plan })
    }

    /// The slices of a page, each in its turn among those of other queries.
    async fn run(&self, mut run: Run, bound: &BoundQuery) -> Result<(PageOfRows, Work), QueryFailed> {
        if !bound.reads_documents() {
            return Ok((run.execution.finish(End::Reached)?, run.source.work));
        }
        loop {
            let turn = self.slices.clone().acquire_owned().await.map_err(|_| QueryFailed::Crashed)?;
            let slice = tokio::task::spawn_blocking(move || {
                let slice = run.slice();
                drop(turn);
                (run, slice)
            });
            let (back, slice) = slice.await.map_err(|_| QueryFailed::Crashed)?;
            run = back;
            if let Slice::Done(end) = slice? {
                return Ok((run.execution.finish(end)?, run.source.work));
            }
        }
    }

    /// The indexes that hold every document of the target.
    fn usable_indexes(&self, target: &Target) -> Vec<Index> {
        let ready = |index: &&Index| {
            let states = self.directory.indexes();
            target.shards.iter().all(|shard| states.is_ready(shard.id(), &target.container.name, index.id()))
        };
        target.container.indexes.iter().filter(ready).cloned().collect()
    }
}

impl Run {
    fn slice(&mut self) -> Result<Slice, QueryFailed> {
        let end = self.clock.elapsed() + SLICE;
        while let Some(chunk) = self.source.next()? {
            for found in chunk {
                if self.execution.offer(&found.position, &found.document)? == Flow::Full {
                    return Ok(Slice::Done(End::Cut));
                }
            }
            let now = self.clock.elapsed();
            if now >= self.until || self.source.work.rows >= self.settings.rows {
                return Ok(Slice::Done(End::Cut));
            }
            if now >= end {
                return Ok(Slice::More);
            }
        }
        Ok(Slice::Done(End::Reached))
    }
}

fn explained(plan: &Plan, target: &Target, ordered: bool, work: Work, charge: RequestUnits) -> Value {
    let mut explained = plan.explain();
    if let Some(fields) = explained.as_object_mut() {
        fields.insert("ordered".to_owned(), json!(ordered));
        fields
            .insert("partitions".to_owned(), json!(if target.partition.is_some() { "one" } else { "many" }));
        fields.insert("shards".to_owned(), json!(target.shards.len()));
        fields.insert("rows_scanned".to_owned(), json!(work.rows));
        fields.insert("bytes_loaded".to_owned(), json!(work.bytes));
        fields.insert("index_entries".to_owned(), json!(work.entries));
        fields.insert("request_charge".to_owned(), json!(charge.as_f64()));
    }
    explained
}
