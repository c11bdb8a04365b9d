//! Stands between a source of documents and one page of rows.
//!
//! Documents are offered one by one, always in the same order; the page says where the next one goes on.
//! Invariant: pages after one another are the rows of one large page, however they were cut, as long as
//! the documents stay.

mod resume;
mod stream;

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;

use self::resume::{Bytes, Kept, Position};
use self::stream::{Counts, Stream};
use super::aggregate::Gathering;
use super::ast::Select;
use super::bind::BoundQuery;
use super::error::QueryError;
use super::evaluate::{Budget, Env, Frame, order_values, project};
use super::functions::Context;
use super::ranking::{Rank, Ranking, directions, size, tie_of};
use super::rows::rows;
use super::{limits, value};

pub use self::resume::Resume;

/// How much a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Most rows.
    pub rows: usize,
    /// Most bytes of rows, about; one row always fits.
    pub bytes: usize,
    /// Most groups of GROUP BY that are held at a time.
    pub groups: usize,
    /// Most bytes of rows or groups that an interrupted page carries over to the next, about; one always fits.
    pub carried: usize,
}

/// Whether a page takes more documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Offer the next one.
    More,
    /// Offer no more, and finish.
    Full,
}

/// Why no more documents are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There are no more.
    Reached,
    /// The page is full, or its budget of time or documents is used up.
    Cut,
}

/// Where the source begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'p> {
    /// At the first document.
    Beginning,
    /// At the document of this position, whose rows were cut in the middle.
    At(&'p [u8]),
    /// At the first document after this position.
    After(&'p [u8]),
}

/// The rows of a page, and where the next one goes on; `None` when this is the last.
#[derive(Debug, Clone)]
pub struct PageOfRows {
    /// The rows in order.
    pub rows: Vec<Value>,
    /// The state to go on with.
    pub resume: Option<Resume>,
}

/// One page in the making.
#[derive(Debug)]
pub struct Execution {
    bound: Arc<BoundQuery>,
    context: Context,
    page: PageLimits,
    counts: Counts,
    descending: Arc<[bool]>,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Stream(Stream),
    Ranked { ranking: Ranking, position: Option<Bytes> },
    Groups { gathering: Gathering, after: Option<Rank>, position: Option<Bytes> },
}

impl Execution {
    /// Begins a page. `ordered`: the documents will be offered in the order of ORDER BY. A source that
    /// changes between two pages, or `ordered` itself, makes a continuation worthless.
    ///
    /// # Errors
    /// The continuation belongs to another query or order.
    pub fn start(
        bound: Arc<BoundQuery>,
        context: Context,
        page: PageLimits,
        ordered: bool,
        resume: Option<&Resume>,
    ) -> Result<Self, QueryError> {
        if resume.is_some_and(|resume| resume.query != bound.hash()) {
            return Err(QueryError::OtherQuery);
        }
        let select = &bound.select;
        let counts = resume
            .map_or_else(|| Counts::of(select), |resume| Counts { skip: resume.skip, take: resume.take });
        let descending = directions(select);
        let most = counts.candidates(page.rows);
        let mode = Mode::new(select, ordered, resume.map(|resume| &resume.kept), &descending, page, most)?;
        let mut execution = Self { bound, context, page, counts, descending, mode };
        if !execution.bound.reads_documents() && resume.is_none() {
            execution.take_document(&[], &Value::Null)?;
        }
        Ok(execution)
    }

    /// Where the source begins.
    pub fn resume_after(&self) -> Start<'_> {
        match &self.mode {
            Mode::Stream(Stream { position: Some(Position { at, passed: Some(_) }), .. }) => Start::At(&at.0),
            Mode::Stream(Stream { position: Some(Position { at, passed: None }), .. })
            | Mode::Ranked { position: Some(at), .. }
            | Mode::Groups { position: Some(at), .. } => Start::After(&at.0),
            Mode::Stream(Stream { position: None, .. })
            | Mode::Ranked { position: None, .. }
            | Mode::Groups { position: None, .. } => Start::Beginning,
        }
    }

    /// Takes a document. `position` names its place in the order of the source.
    ///
    /// # Errors
    /// The document multiplies to too many rows, or there are too many groups.
    pub fn offer(&mut self, position: &[u8], document: &Value) -> Result<Flow, QueryError> {
        if self.counts.is_done() || !self.bound.reads_documents() {
            return Ok(Flow::Full);
        }
        self.take_document(position, document)
    }

    fn take_document(&mut self, position: &[u8], document: &Value) -> Result<Flow, QueryError> {
        let bound = Arc::clone(&self.bound);
        let budget = Budget::new(limits::COMBINATIONS);
        let context = self.context.clone();
        let env = Env { context: &context, group: None, budget: &budget };
        let (select, frame) = (&bound.select, Frame::of(document));
        let here = Bytes(position.to_vec());
        let flow = match &mut self.mode {
            Mode::Stream(stream) => stream.take(select, here, &frame, &env, (&mut self.counts, self.page)),
            Mode::Ranked { ranking, position } => {
                rank(select, ranking, &self.descending, &here, &frame, &env);
                *position = Some(here);
                Flow::More
            }
            Mode::Groups { gathering, after, position } => {
                let in_rounds = comes_in_rounds(select);
                let told = after.as_ref().filter(|_| in_rounds).map(Rank::tie);
                rows(select, &frame, &env, &mut |row| {
                    gathering.add(select, told, row, &env);
                    if in_rounds && gathering.len() > self.page.groups.max(1) {
                        gathering.drop_last();
                    }
                    ControlFlow::Continue(())
                });
                *position = Some(here);
                if gathering.len() > self.page.groups.max(1) {
                    return Err(QueryError::TooManyGroups { limit: self.page.groups });
                }
                Flow::More
            }
        };
        if budget.is_spent() { Err(QueryError::TooManyCombinations) } else { Ok(flow) }
    }

    /// Ends the page.
    ///
    /// # Errors
    /// What is known so far does not fit into a continuation.
    pub fn finish(mut self, end: End) -> Result<PageOfRows, QueryError> {
        let is_complete = end == End::Reached || !self.bound.reads_documents();
        if self.counts.is_done() && !matches!(self.mode, Mode::Stream(_)) {
            return Ok(PageOfRows { rows: Vec::new(), resume: None });
        }
        let bound = Arc::clone(&self.bound);
        let mode = std::mem::replace(&mut self.mode, Mode::Stream(Stream::default()));
        match mode {
            Mode::Stream(Stream { rows, position, is_cut, .. }) => {
                let is_done = self.counts.is_done() || (is_complete && !is_cut);
                let resume = (!is_done).then(|| self.resume(Kept::Rows(position)));
                Ok(PageOfRows { rows, resume })
            }
            Mode::Ranked { ranking, .. } if is_complete => self.emit(ranking, |after| Kept::Ranked {
                after,
                ceiling: None,
                position: None,
                held: Vec::new(),
            }),
            Mode::Ranked { mut ranking, position } => {
                ranking.trim(self.page.carried);
                let kept = Kept::Ranked {
                    after: ranking.after().map(Rank::write),
                    ceiling: ranking.ceiling().map(Rank::write),
                    position,
                    held: ranking.rows().map(|(rank, row)| (rank.write(), row.clone())).collect(),
                };
                Ok(PageOfRows { rows: Vec::new(), resume: Some(self.resume(kept).bounded()?) })
            }
            Mode::Groups { gathering, after, .. } if is_complete => {
                let ranking = self.ranked_groups(&bound.select, &gathering, after);
                self.emit(ranking, |after| Kept::Groups { after, position: None, gathering: None })
            }
            Mode::Groups { mut gathering, after, position } => {
                if comes_in_rounds(&bound.select) {
                    gathering.trim(self.page.carried);
                }
                let kept = Kept::Groups {
                    after: after.as_ref().map(Rank::write),
                    position,
                    gathering: Some(gathering),
                };
                Ok(PageOfRows { rows: Vec::new(), resume: Some(self.resume(kept).bounded()?) })
            }
        }
    }

    fn resume(&self, kept: Kept) -> Resume {
        Resume { query: self.bound.hash(), skip: self.counts.skip, take: self.counts.take, kept }
    }

    /// The rows of groups, in order.
    fn ranked_groups(&self, select: &Select, gathering: &Gathering, after: Option<Rank>) -> Ranking {
        let most = self.counts.candidates(self.page.rows);
        let mut ranking = Ranking::new(after, most, self.page.bytes.max(limits::CANDIDATE_BYTES));
        let budget = Budget::new(limits::COMBINATIONS);
        if let Some(ceiling) = gathering.ceiling() {
            ranking.drop_from(Rank::new(Vec::new(), &self.descending, ceiling.as_bytes().to_vec(), 0));
        }
        for (text, group) in gathering.groups(select) {
            let env = Env { context: &self.context, group: Some(&group), budget: &budget };
            let frame = Frame::of(&Value::Null);
            let Some(row) = project(select, &frame, &env) else { continue };
            let tie = if select.distinct { tie_of(&canonical(&row)) } else { text.as_bytes().to_vec() };
            let rank = Rank::new(order_values(select, &frame, &env), &self.descending, tie, 0);
            if ranking.wants(&rank) {
                ranking.hold(rank, row);
            }
        }
        ranking
    }

    /// A page of the rows that are first in order.
    fn emit(
        mut self,
        mut ranking: Ranking,
        kept: impl FnOnce(Option<super::ranking::WrittenRank>) -> Kept,
    ) -> Result<PageOfRows, QueryError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while !self.counts.is_done() && rows.len() < self.page.rows.max(1) {
            let is_free = self.counts.skip > 0 || rows.is_empty();
            let Some(row) = ranking.next(|row| is_free || bytes + size(row) <= self.page.bytes) else {
                break;
            };
            if self.counts.count() {
                bytes += size(&row);
                rows.push(row);
            }
        }
        if self.counts.is_done() || ranking.is_done() {
            return Ok(PageOfRows { rows, resume: None });
        }
        let resume = self.resume(kept(ranking.after().map(Rank::write))).bounded()?;
        Ok(PageOfRows { rows, resume: Some(resume) })
    }
}

impl Mode {
    fn new(
        select: &Select,
        ordered: bool,
        kept: Option<&Kept>,
        descending: &Arc<[bool]>,
        page: PageLimits,
        most: usize,
    ) -> Result<Self, QueryError> {
        let read = |written: &Option<super::ranking::WrittenRank>| match written {
            Some(written) => Rank::read(written, descending).map(Some).ok_or(QueryError::OtherOrder),
            None => Ok(None),
        };
        let is_ranked = select.distinct || !(select.order_by.is_empty() || ordered);
        match kept {
            None if select.grouped => {
                Ok(Self::Groups { gathering: Gathering::new(select), after: None, position: None })
            }
            Some(Kept::Groups { after, position, gathering }) if select.grouped => {
                let gathering = gathering.clone().unwrap_or_else(|| Gathering::new(select));
                if !gathering.fits(select) {
                    return Err(QueryError::OtherOrder);
                }
                Ok(Self::Groups { gathering, after: read(after)?, position: position.clone() })
            }
            None if is_ranked => {
                let ranking = Ranking::new(None, most, page.bytes.max(limits::CANDIDATE_BYTES));
                Ok(Self::Ranked { ranking, position: None })
            }
            Some(Kept::Ranked { after, ceiling, position, held }) if is_ranked && !select.grouped => {
                let mut ranking = Ranking::new(read(after)?, most, page.bytes.max(limits::CANDIDATE_BYTES));
                for (rank, row) in held {
                    let rank = Rank::read(rank, descending).ok_or(QueryError::OtherOrder)?;
                    ranking.hold(rank, row.clone());
                }
                if let Some(ceiling) = read(ceiling)? {
                    ranking.drop_from(ceiling);
                }
                Ok(Self::Ranked { ranking, position: position.clone() })
            }
            None => Ok(Self::Stream(Stream::default())),
            Some(Kept::Rows(position)) if !select.grouped && !is_ranked => {
                Ok(Self::Stream(Stream::after(position.clone())))
            }
            Some(Kept::Rows(_) | Kept::Ranked { .. } | Kept::Groups { .. }) => Err(QueryError::OtherOrder),
        }
    }
}

/// Whether the groups of a query can come some at a time, in the order of their names: nothing else orders them.
fn comes_in_rounds(select: &Select) -> bool {
    select.order_by.is_empty() && !select.distinct && !select.group_by.is_empty()
}

/// Takes the rows of a document as far as they belong to the first ones.
fn rank<'a>(
    select: &'a Select,
    ranking: &mut Ranking,
    descending: &Arc<[bool]>,
    here: &Bytes,
    frame: &Frame<'a>,
    env: &Env<'a>,
) {
    let mut row = 0;
    rows(select, frame, env, &mut |made| {
        row += 1;
        let values = order_values(select, made, env);
        if select.distinct {
            let Some(found) = project(select, made, env) else { return ControlFlow::Continue(()) };
            let rank = Rank::new(values, descending, tie_of(&canonical(&found)), 0);
            if ranking.wants(&rank) {
                ranking.hold(rank, found);
            }
            return ControlFlow::Continue(());
        }
        let rank = Rank::new(values, descending, here.0.clone(), row);
        if ranking.wants(&rank)
            && let Some(found) = project(select, made, env)
        {
            ranking.hold(rank, found);
        }
        ControlFlow::Continue(())
    });
}

fn canonical(row: &Value) -> String {
    let mut text = String::new();
    value::canonical(Some(row), &mut text);
    text
}
