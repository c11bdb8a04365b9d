//! Who may call: keys, products, rates, failures, places.
//!
//! Stands between an HTTP worker and everything behind it. There is one actor for each worker,
//! on the worker's own thread, so that admission costs no thread hop; all share one
//! [`GatewayState`]. Invariants: a refused call costs nothing of its caller's rate; admission
//! never touches the disk; a key works only once its grant is durable.

mod failures;
mod handle;
mod keys;
mod random;
pub mod secret_file;
mod state;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use actix::{Actor, ActorContext, Context, Handler, Supervised};

use crate::kernel::contain::contain;
use crate::protocol::gateway::{Admit, Admitted, Refused};

pub use handle::GatewayHandle;
pub use keys::{Issued, KeysError, KeysHandle, NewGrant, Rotated, Seed};
pub use random::{Random, Randomness, SystemRandom};
pub use state::{
    GatewayOpenError, GatewaySettings, GatewayState, GatewayStatus, ProductRules, open, stored_pepper,
};
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

impl Handler<Admit> for Gateway {
    type Result = Result<Admitted, Refused>;

    fn handle(&mut self, Admit { call, permit }: Admit, ctx: &mut Self::Context) -> Self::Result {
        let admitted = contain(|| self.state.admit(&call, permit)).unwrap_or_else(|panicked| {
            tracing::error!(panic = %panicked.0, api = %call.api, "admission crashed");
            ctx.stop();
            Err(Refused::Crashed)
        });
        self.state.count(&admitted);
        admitted
    }
}
