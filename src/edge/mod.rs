//! Stands between the network and the listeners, and knows no HTTP framework: certificates, and whose call it is.
//! Invariant: what a peer says about itself or others counts only where the manifest says that this peer is believed.

pub mod tls;
