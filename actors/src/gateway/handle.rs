//! The door to the gateway of this thread.

use std::net::IpAddr;
use std::sync::Arc;

use actix::{Addr, Context, Supervisor};

use super::{Gateway, GatewayState};
use crate::model::ids::Name;
use crate::protocol::gateway::{Admit, Admitted, Call, Counted, Door, Entry, Identify, Refused};

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
        let capacity = state.mailbox();
        let addr = Supervisor::start(move |ctx: &mut Context<Gateway>| {
            ctx.set_mailbox_capacity(capacity);
            Gateway { state: shared }
        });
        Self { addr, state }
    }

    /// Asks on what terms a caller may come, as far as its key says.
    ///
    /// # Errors
    /// [`Refused`] says why it may not.
    pub async fn identify(&self, call: Call) -> Result<Door, Refused> {
        // No deadline: the work is on this very thread and waits for nothing.
        let door = self.addr.send(Identify(call)).await.unwrap_or(Err(Refused::Crashed));
        door.inspect_err(|refused| self.state.note_refused(refused))
    }

    /// Notes that the token of a caller was refused. What to answer is worse when too many were.
    pub fn refuse_token(&self, ip: IpAddr) -> Refused {
        let refused = self.state.failed(ip, None, Refused::Token);
        self.state.note_refused(&refused);
        refused
    }

    /// Asks whether a call may go on, and waits for its place where places are short. What is admitted holds its
    /// places until it is dropped.
    ///
    /// # Errors
    /// [`Refused`] says why not; nothing was counted against the caller.
    pub async fn admit(&self, entry: Entry) -> Result<Admitted, Refused> {
        let counted = self.addr.send(Admit(entry)).await.unwrap_or(Err(Refused::Crashed));
        let admitted = match counted {
            Ok(counted) => enter(counted).await,
            Err(refused) => Err(refused),
        };
        match &admitted {
            Ok(_) => self.state.note_admitted(),
            Err(refused) => self.state.note_refused(refused),
        }
        admitted
    }

    /// What all gateways share.
    pub fn state(&self) -> &Arc<GatewayState> {
        &self.state
    }
}

/// Waits for the place of a call that was counted.
async fn enter(counted: Counted) -> Result<Admitted, Refused> {
    let Counted { entry, granted, meter, held, entering } = counted;
    // Whoever goes away while waiting has been counted: it did call.
    let Some(place) = entering.place().await else {
        granted.give_back();
        meter.give_back();
        return Err(GatewayState::overloaded());
    };
    Ok(Admitted {
        tenant: entry.tenant,
        product: entry.terms.product.clone(),
        grant: entry.grant.map(|grant| Name::from(grant.id.as_str())),
        judged: granted.judged,
        meter,
        place,
        held,
    })
}
