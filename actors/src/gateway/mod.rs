//! Who may call: keys, products, rates, failures, places.
//!
//! Stands between an HTTP worker and everything behind it. There is one actor for each worker,
//! on the worker's own thread, so that admission costs no thread hop; all share one
//! [`GatewayState`]. Invariants: a refused call costs nothing of its caller's rate; admission
//! never touches the disk; a key works only once its grant is durable.

mod failures;
mod handle;
mod keys;
mod ledger;
mod random;
pub mod secret_file;
mod state;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use actix::{Actor, ActorContext, Context, Handler, Supervised};

use crate::kernel::contain::contain;
use crate::protocol::gateway::{Admit, Counted, Door, Identify, Refused};

pub use handle::GatewayHandle;
pub use keys::{Issued, KeysError, KeysHandle, NewGrant, Rotated, Seed};
pub use ledger::{LedgerHandle, LedgerNotStored};
pub use random::{Random, Randomness, SystemRandom};
pub use state::{GatewayOpenError, GatewaySettings, GatewayState, GatewayStatus, open, stored_pepper};
pub use usage::{UsageHandle, UsageNotStored, Used, User};

/// The actor. Reached through [`GatewayHandle`].
pub struct Gateway {
    state: Arc<GatewayState>,
}

impl Actor for Gateway {
    type Context = Context<Self>;
}

impl Supervised for Gateway {
    fn restarting(&mut self, _: &mut Self::Context) {
        // The actor has no state of its own, and what is shared is valid at every step. So it
        // starts again at once: a pause or a quarantine here would refuse everybody.
        self.state.note_restart();
    }
}

impl Handler<Identify> for Gateway {
    type Result = Result<Door, Refused>;

    fn handle(&mut self, Identify(call): Identify, ctx: &mut Self::Context) -> Self::Result {
        contain(|| self.state.identify(&call)).unwrap_or_else(|panicked| crashed(&panicked.0, &call.api, ctx))
    }
}

impl Handler<Admit> for Gateway {
    type Result = Result<Counted, Refused>;

    fn handle(&mut self, Admit(entry): Admit, ctx: &mut Self::Context) -> Self::Result {
        let api = entry.api.clone();
        contain(|| self.state.admit(entry)).unwrap_or_else(|panicked| crashed(&panicked.0, &api, ctx))
    }
}

fn crashed<T>(panic: &str, api: &str, ctx: &mut Context<Gateway>) -> Result<T, Refused> {
    tracing::error!(panic, api, "admission crashed");
    ctx.stop();
    Err(Refused::Crashed)
}
