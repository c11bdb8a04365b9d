//! Stands between what a client has seen and what a shard can show.
//!
//! Invariant: a client that sends back the token of an answer never reads what is older than that answer. On one
//! node a shard has always come as far as its tokens say; only one that was restored from a backup has not.

use actix_web::http::header::HeaderName;
use lanekeeper_actors::model::ids::{Position, ShardId};
use lanekeeper_actors::model::session::{InvalidSession, SessionToken};

use super::Admitted;

pub(super) const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-session-token");
/// The life of a log that nobody has restored.
const VERSION: u32 = 1;

/// Why a client's session cannot go on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// A text that is no token.
    #[error("{0}")]
    Invalid(#[from] InvalidSession),
    /// The client has seen more than there is.
    #[error(
        "the session has seen more than there is here now: go on without its token if older data will do"
    )]
    NotAvailable,
}

/// What whoever has seen this position has seen.
pub(super) fn of(position: Position) -> SessionToken {
    SessionToken::at(VERSION, position)
}

/// The token of whoever has seen this position.
pub(super) fn token(position: Position) -> String {
    of(position).to_string()
}

impl Admitted<'_> {
    /// Lets a reader in whose token the shard meets; says what the reader has seen afterwards.
    pub(super) fn session(&self, shard: ShardId) -> Result<String, SessionRefused> {
        self.sessions([shard])
    }

    /// The same for several shards.
    pub(super) fn sessions(
        &self,
        shards: impl IntoIterator<Item = ShardId>,
    ) -> Result<String, SessionRefused> {
        let sent = self.sent_token()?;
        let mut seen = SessionToken::default();
        for shard in shards {
            let handle = self.directory.shards().get(usize::from(shard.0));
            let lsn = handle.ok_or(SessionRefused::NotAvailable)?.log().tail();
            let position = Position { shard, lsn };
            if sent.as_ref().is_some_and(|sent| !sent.is_met_by(VERSION, position)) {
                return Err(SessionRefused::NotAvailable);
            }
            seen.merge(&SessionToken::at(VERSION, position));
        }
        Ok(seen.to_string())
    }

    fn sent_token(&self) -> Result<Option<SessionToken>, SessionRefused> {
        let sent = self.req.headers().get(SESSION_TOKEN);
        let text = sent.map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(text.map(|text| text.parse()).transpose()?)
    }
}
