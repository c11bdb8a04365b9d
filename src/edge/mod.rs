//! Stands between the network and the listeners, and knows no HTTP framework: certificates, and whose call it is.
//! Invariant: what a peer says about itself or others counts only where the manifest says that this peer is believed.

pub mod client;
pub mod lock;
pub mod tls;

/// How much a path may leave to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paths {
    /// A path is split, and then each segment is decoded once; so an encoded slash is a character like others.
    #[default]
    Once,
    /// Encoded slashes and what is encoded twice are refused, because somebody else might read them in another way.
    Strict,
}
