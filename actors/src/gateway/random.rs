//! Chance as a parameter: where the bytes of keys come from.

use std::fmt::Debug;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A source of 32 unguessable bytes at a time.
pub trait Random: Debug + Send + Sync + 'static {
    /// Bytes that nobody can guess.
    fn bytes(&self) -> [u8; 32];
}

/// A source that many share.
pub type Randomness = Arc<dyn Random>;

/// The system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl SystemRandom {
    /// The system's generator, to be shared.
    pub fn shared() -> Randomness {
        Arc::new(Self)
    }
}

impl Random for SystemRandom {
    fn bytes(&self) -> [u8; 32] {
        // Each version 4 UUID has 122 bits of the system's generator (RFC 9562 section 5.4), so
        // three have more than the 256 that the hash condenses them to.
        let mut hash = Sha256::new();
        for _ in 0..3 {
            hash.update(Uuid::new_v4().as_bytes());
        }
        hash.finalize().into()
    }
}
