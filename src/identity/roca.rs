//! Stands between an RSA modulus and its use: knows the moduli that a faulty library made (CVE-2017-15361).
//! Invariant: a modulus of that library is always found; another one is mistaken for one about once in 2^27.
//!
//! Their primes have the form `k * M + (65537^a mod M)` with `M` a product of the first primes. So, modulo each of
//! these, the modulus is a power of 65537, which is so for few of the remainders of most of them.

/// The primes of the smallest `M` (keys of 512 bits), without 2, which all odd numbers pass.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
/// What the library took powers of.
const GENERATOR: u32 = 65_537;

/// Whether a modulus, most significant byte first, has the mark of that library.
pub(super) fn is_factorable(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power(remainder(modulus, *prime), *prime))
}

fn remainder(modulus: &[u8], prime: u32) -> u32 {
    modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime)
}

/// Whether a remainder is a power of the generator.
fn is_power(wanted: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == wanted {
            return true;
        }
        power = power * (GENERATOR % prime) % prime;
    }
    false
}
