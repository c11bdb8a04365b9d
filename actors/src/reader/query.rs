//! One page of a query: planned, run in slices beside everything else, and cut when its budget is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::continuation::{self, InvalidContinuation, Passage, Way};
use super::source::{Found, Source, Work};
use super::threads::Crashed;
use super::{Reader, ReaderSettings, Scope, Target};
use crate::kernel::clock::SharedClock;
use crate::policy::charge::{self, Queried, RequestUnits};
use crate::policy::container::Index;
use crate::policy::throughput::RetryAfter;
use crate::query::{
    Access, BindError, BoundQuery, Context, End, Execution, Flow, IndexDefinition, PageLimits, Plan, Query,
    QueryError, limits,
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

/// A page that is to be begun.
struct Begin {
    target: Target,
    bound: Arc<BoundQuery>,
    indexes: Vec<Index>,
    passage: Option<Passage>,
    limit: usize,
    longest_continuation: usize,
    settings: Arc<ReaderSettings>,
    clock: SharedClock,
}

/// A page in the making, which moves between the threads that work on it.
struct Run {
    source: Source,
    /// What was read and is not looked at yet.
    pending: VecDeque<Found>,
    execution: Execution,
    plan: Plan,
    ordered: bool,
    settings: Arc<ReaderSettings>,
    clock: SharedClock,
    until: Duration,
}

/// A page that is made.
struct Made {
    rows: Vec<Value>,
    passage: Option<Passage>,
    plan: Plan,
    ordered: bool,
    way: Way,
    work: Work,
}

/// What a slice has come to.
enum Slice {
    /// There is more to do.
    More(Box<Run>),
    /// No more is wanted, or there is no more.
    Done(Box<Made>),
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
        let passage = request.continuation.as_deref();
        let passage = passage.map(|text| continuation::decode(&target.identity, text)).transpose()?;
        let begin = Begin {
            indexes: self.usable_indexes(&target),
            target: target.clone(),
            bound,
            passage,
            limit: request.limit.max(1),
            longest_continuation: request.longest_continuation,
            settings: self.settings.clone(),
            clock: self.clock.clone(),
        };
        let made = self.run(begin).await?;

        let Work { rows, bytes, entries } = made.work;
        let charge = charge::query(&Queried {
            rows_loaded: rows,
            bytes_loaded: bytes,
            index_entries: entries,
            rows_returned: made.rows.len(),
        });
        target.account.charge(target.partition.as_ref(), charge);
        let plan = request.explain.then(|| explained(&made, &target, charge));
        let encode =
            |passage: &Passage| continuation::encode(&target.identity, passage).ok_or(QueryFailed::Crashed);
        let continuation = made.passage.as_ref().map(encode).transpose()?;
        let bytes = continuation.as_ref().map_or(0, String::len);
        if bytes > request.longest_continuation {
            return Err(QueryFailed::ContinuationTooLong { bytes, limit: request.longest_continuation });
        }
        Ok(QueryPage { rows: made.rows, continuation, charge, plan })
    }

    /// The slices of a page, each in its turn among those of other queries.
    async fn run(&self, begin: Begin) -> Result<Made, QueryFailed> {
        let mut slice = self.in_turn(move || begin.run()?.slice()).await?;
        loop {
            match slice {
                Slice::More(run) => slice = self.in_turn(move || run.slice()).await?,
                Slice::Done(made) => return Ok(*made),
            }
        }
    }

    /// Runs some of the work of a query on a thread where it may wait for the disk.
    async fn in_turn(
        &self,
        work: impl FnOnce() -> Result<Slice, QueryFailed> + Send + 'static,
    ) -> Result<Slice, QueryFailed> {
        let turn = self.slices.clone().acquire_owned().await.map_err(|_| QueryFailed::Crashed)?;
        let done = self.threads.run(move || {
            let slice = work();
            drop(turn);
            slice
        });
        done.await.map_err(|Crashed| QueryFailed::Crashed)?
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

impl Begin {
    fn run(self) -> Result<Box<Run>, QueryFailed> {
        let Self { target, bound, indexes, passage, limit, longest_continuation, settings, clock } = self;
        // A page goes on by the way by which the one before went, whatever has become of indexes since.
        let indexes: Vec<_> = match &passage {
            None => indexes,
            Some(Passage { way: Way::Index(id), .. }) => {
                indexes.into_iter().filter(|index| index.id() == *id).collect()
            }
            Some(Passage { way: Way::Scan | Way::Ids, .. }) => Vec::new(),
        };
        let definition = |index: &Index| IndexDefinition { paths: index.paths.clone() };
        let definitions: Vec<_> = indexes.iter().map(definition).collect();
        let plan = Plan::of(&bound, &definitions);
        let now = clock.now();
        let in_one = target.partition.is_some();
        let mut source = Source::new(target, &plan.access, &indexes, now);
        // The order of an index is that of one partition, and only of values that it holds whole.
        let ordered = plan.ordered && in_one && !source.is_cut()?;
        let page = PageLimits {
            rows: limit,
            bytes: settings.page_bytes,
            groups: settings.groups,
            // Base64 makes it longer by a third, and places stand beside it.
            carried: longest_continuation.min(limits::STATE_BYTES) / 2,
        };
        let context = Context { now, seed: now.0 };
        let resume = passage.as_ref().map(|passage| &passage.resume);
        let execution = Execution::start(bound, context, page, ordered, resume)?;
        if let Some(Passage { way, place, .. }) = passage {
            if way != source.way() {
                return Err(QueryError::OtherOrder.into());
            }
            let went = match place {
                Some(place) => source.go_on(place),
                None => source.go_to(execution.resume_after()),
            };
            if !went {
                return Err(InvalidContinuation.into());
            }
        }
        let until = clock.elapsed() + settings.time;
        let pending = VecDeque::new();
        Ok(Box::new(Run { source, pending, execution, plan, ordered, settings, clock, until }))
    }
}

impl Run {
    /// Goes on for a while. At least one document is looked at, or some that nobody sees are passed.
    fn slice(mut self: Box<Self>) -> Result<Slice, QueryFailed> {
        if self.plan.access == Access::Nothing {
            return self.finish(End::Reached);
        }
        let end = self.clock.elapsed() + SLICE;
        loop {
            if self.pending.is_empty() {
                match self.source.next()? {
                    Some(chunk) => self.pending = chunk,
                    None => return self.finish(End::Reached),
                }
            }
            let mut now = self.clock.elapsed();
            while let Some(found) = self.pending.pop_front() {
                if self.execution.offer(&found.position, &found.document)? == Flow::Full {
                    // Where the next page begins is known by the query, to the row.
                    self.pending.push_front(found);
                    return self.finish(End::Cut);
                }
                now = self.clock.elapsed();
                if now >= self.until || now >= end {
                    break;
                }
            }
            let Work { rows, entries, .. } = self.source.work;
            let is_spent = self.pending.is_empty() && rows.max(entries) >= self.settings.rows;
            if now >= self.until || is_spent {
                return self.finish(End::Cut);
            }
            if now >= end {
                return Ok(Slice::More(self));
            }
        }
    }

    fn finish(self: Box<Self>, end: End) -> Result<Slice, QueryFailed> {
        let Self { source, pending, execution, plan, ordered, .. } = *self;
        let (way, work) = (source.way(), source.work);
        let end = if pending.is_empty() && source.is_done() { End::Reached } else { end };
        // What was read and not looked at is read again.
        let place = if pending.is_empty() && end == End::Cut { source.place() } else { None };
        let page = execution.finish(end)?;
        let passage = page.resume.map(|resume| Passage { way, place, resume });
        Ok(Slice::Done(Box::new(Made { rows: page.rows, passage, plan, ordered, way, work })))
    }
}

fn explained(made: &Made, target: &Target, charge: RequestUnits) -> Value {
    let Made { plan, ordered, way, work, .. } = made;
    let mut explained = plan.explain();
    if let Some(fields) = explained.as_object_mut() {
        if *way == Way::Scan && plan.access != Access::Nothing {
            // Ids are looked up in one partition only.
            fields.remove("ids");
            fields.insert("access".to_owned(), json!("scan"));
        }
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
