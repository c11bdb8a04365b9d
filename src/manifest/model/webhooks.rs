//! The part of a manifest that is about webhooks which tenants make themselves.

use lanekeeper_actors::subscriber::HandshakeKind;

use super::Template;
use crate::delivery::Cidr;

/// What a product allows its callers to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRules {
    /// Webhooks of one tenant, at most.
    pub max: usize,
    /// Deliveries per minute to one webhook, at most.
    pub rate: Option<u32>,
    /// Hosts that may be named: a host, or `*.` and a domain for all below it. `None`: every host.
    pub hosts: Option<Vec<String>>,
    /// Blocks that may be contacted although they are not public.
    pub allow: Vec<Cidr>,
    /// How an endpoint is asked before it is sent anything.
    pub handshake: HandshakeRule,
}

impl Default for WebhookRules {
    fn default() -> Self {
        Self { max: 10, rate: None, hosts: None, allow: Vec::new(), handshake: HandshakeRule::CloudEvents }
    }
}

/// How an endpoint is asked whether it wants the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeRule {
    /// By an event whose code it echoes.
    EventGrid,
    /// By `OPTIONS`, which it answers with headers.
    CloudEvents,
    /// Not at all.
    None,
}

impl HandshakeRule {
    /// The same in the words of the rooms.
    pub fn kind(self) -> Option<HandshakeKind> {
        match self {
            Self::EventGrid => Some(HandshakeKind::EventGrid),
            Self::CloudEvents => Some(HandshakeKind::CloudEvents),
            Self::None => None,
        }
    }
}

/// What an operation does to the webhooks of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookAction {
    /// Makes one.
    Create,
    /// Returns all.
    List,
    /// Returns one.
    Show(Template),
    /// Changes one.
    Update(Template),
    /// Gives one a new secret.
    RotateSecret(Template),
    /// Sends an event for a test.
    Test(Template),
    /// Returns the last attempts.
    Attempts(Template),
    /// Returns events that were given up.
    DeadLetters(Template),
    /// Delivers such events again.
    Replay(Template),
    /// Ends one.
    Delete(Template),
}
