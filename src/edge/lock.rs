//! Stands between the world and a gateway that only its front door may call.
//! Invariant: the time of a comparison tells nothing of the value that is right.

use std::net::IpAddr;

use aws_lc_rs::constant_time;
use lanekeeper_actors::model::secret::Secret;

use super::client::is_trusted;
use crate::delivery::Cidr;

/// What a request must have to be looked at. Where there are several, all of them hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginLock {
    /// This header, once, with this value.
    Header {
        /// Its name, in lower case.
        name: String,
        /// What it must be, to the letter.
        equals: Secret,
    },
    /// A peer in one of these blocks.
    From(Vec<Cidr>),
}

/// Whether the values of a header are the one that they must be.
pub fn opens<'v>(mut values: impl Iterator<Item = &'v [u8]>, equals: &Secret) -> bool {
    match (values.next(), values.next()) {
        (Some(value), None) => {
            constant_time::verify_slices_are_equal(value, equals.expose().as_bytes()).is_ok()
        }
        (_, Some(_)) | (None, None) => false,
    }
}

/// Whether a peer may speak at all.
pub fn admits(blocks: &[Cidr], peer: Option<IpAddr>) -> bool {
    peer.is_some_and(|peer| is_trusted(blocks, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_right_value_opens() {
        let equals = Secret::from("11111111-2222");
        let opens = |values: &[&str]| opens(values.iter().map(|value| value.as_bytes()), &equals);
        assert!(opens(&["11111111-2222"]));
        for wrong in
            [&[][..], &[""], &["11111111-222"], &["11111111-22222"], &["11111111-2222", "11111111-2222"]]
        {
            assert!(!opens(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn only_peers_of_the_blocks_are_admitted() {
        let blocks = ["10.0.0.0/8".parse().unwrap()];
        assert!(admits(&blocks, "::ffff:10.1.1.1".parse().ok()));
        assert!(!admits(&blocks, "11.1.1.1".parse().ok()) && !admits(&blocks, None));
    }
}
