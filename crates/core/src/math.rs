//! Host-only arithmetic: moduli, primes, transforms' tables, base conversion constants, and the naive definitions
//! that every fast kernel is tested against.

pub mod base_conversion;
pub mod galois;
pub mod modulus;
pub mod naive;
pub mod ntt_table;
pub mod primes;
pub mod tables;

pub use base_conversion::{BaseConversion, BasisChange};
pub use modulus::Modulus;
pub use ntt_table::NttTable;
pub use tables::{Basis, LimbId, RnsTables};

/// What can go wrong when building arithmetic tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MathError {
    /// A modulus outside the supported range.
    #[error("modulus {q} is not an odd number in [3, 2^30); the number system stores residues in u32 with two spare bits")]
    ModulusRange {
        /// The modulus refused.
        q: u64,
    },
    /// A modulus that has no primitive 2N-th root of unity.
    #[error("modulus {q} is not a prime congruent to 1 mod 2N = {two_n}; the negacyclic transform of degree N needs one")]
    NotNttFriendly {
        /// The modulus refused.
        q: u32,
        /// Twice the ring degree.
        two_n: u64,
    },
    /// A ring degree that is not supported.
    #[error("ring degree 2^{log_n} is outside 2^{min}..2^{max}")]
    Degree {
        /// log2 of the degree asked for.
        log_n: u32,
        /// Smallest supported log2.
        min: u32,
        /// Largest supported log2.
        max: u32,
    },
    /// Not enough primes of the size asked for.
    #[error(
        "only {found} of {wanted} primes = 1 mod 2^{log_two_n} exist near 2^{:.2}; choose another size",
        f64::from(*.bits) / 100.0
    )]
    PrimeSupply {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
        /// log2(2N).
        log_two_n: u32,
        /// log2 of the size asked for, times 100 and rounded.
        bits: u32,
    },
    /// Two equal primes in one table.
    #[error("prime {q} appears twice in one modulus chain")]
    DuplicatePrime {
        /// The prime.
        q: u32,
    },
}
