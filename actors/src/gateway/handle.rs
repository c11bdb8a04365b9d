//! The door to the gateway of this thread.

use std::sync::Arc;

use actix::{Addr, Context, Supervisor};

use super::{Gateway, GatewayState};
use crate::protocol::gateway::{Admit, Admitted, Call, Refused};

/// A worker thread's way to its gateway.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    addr: Addr<Gateway>,
    state: Arc<GatewayState>,
}

impl GatewayHandle {
    /// Starts a gateway on the current thread, which must run an actix arbiter.
    pub fn start(state: Arc<GatewayState>) -> Self {
        let shared = state.clone();
        let capacity = state.settings().requests_in_flight;
        let addr = Supervisor::start(move |ctx: &mut Context<Gateway>| {
            ctx.set_mailbox_capacity(capacity);
            Gateway { state: shared }
        });
        Self { addr, state }
    }

    /// Asks whether a call may go on. What is admitted holds its place until it is dropped.
    ///
    /// # Errors
    /// [`Refused`] says why not; nothing was counted against the caller's rate.
    pub async fn admit(&self, call: Call) -> Result<Admitted, Refused> {
        let Some(permit) = self.state.try_take_place() else {
            let refused = Err(self.state.overloaded());
            self.state.count(&refused);
            return refused;
        };
        // No deadline: the work is on this very thread and waits for nothing.
        self.addr.send(Admit { call, permit }).await.unwrap_or(Err(Refused::Crashed))
    }

    /// What all gateways share.
    pub fn state(&self) -> &Arc<GatewayState> {
        &self.state
    }
}
