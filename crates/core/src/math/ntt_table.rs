//! Twiddle factors of the negacyclic NTT modulo one prime.
//!
//! Order (docs/arithmetic.md): the forward transform takes coefficients in natural order and leaves, at index `i`,
//! the evaluation at `psi^(2 brv(i) + 1)`, where `psi` is a primitive 2N-th root of unity and `brv` reverses
//! `log2 N` bits. Merged-psi Cooley-Tukey forward, Gentleman-Sande inverse (Longa-Naehrig 2016).

use super::{MathError, Modulus, primes::is_prime};

/// Twiddles for one (degree, prime). Each twiddle stands beside its Shoup companion.
#[derive(Clone)]
pub struct NttTable {
    log_n: u32,
    modulus: Modulus,
    psi: u32,
    /// `psi^brv(i)` at index i; index 0 is unused by butterflies (stage with m groups uses `m..2m`).
    forward: Vec<u32>,
    forward_shoup: Vec<u32>,
    /// `psi^-brv(i)` at index i.
    inverse: Vec<u32>,
    inverse_shoup: Vec<u32>,
    n_inv: u32,
}

impl std::fmt::Debug for NttTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NttTable(2^{}, {})", self.log_n, self.modulus.value())
    }
}

impl NttTable {
    /// Smallest supported log2 degree.
    pub const MIN_LOG_N: u32 = 4;
    /// Largest supported log2 degree.
    pub const MAX_LOG_N: u32 = 17;

    /// Errors unless there are tables of this degree.
    pub(super) fn check_degree(log_n: u32) -> Result<(), MathError> {
        if (Self::MIN_LOG_N..=Self::MAX_LOG_N).contains(&log_n) {
            return Ok(());
        }
        Err(MathError::Degree { log_n, min: Self::MIN_LOG_N, max: Self::MAX_LOG_N })
    }

    /// Builds the table; `q` must be a prime `= 1 mod 2N`.
    ///
    /// # Errors
    /// [`MathError::Degree`] outside [`Self::MIN_LOG_N`] to [`Self::MAX_LOG_N`], [`MathError::NotNttFriendly`] for any other modulus.
    pub fn new(log_n: u32, modulus: Modulus) -> Result<Self, MathError> {
        Self::check_degree(log_n)?;
        let two_n = 2u32 << log_n;
        let q = modulus.value();
        if q % two_n != 1 || !is_prime(q) {
            return Err(MathError::NotNttFriendly { q, two_n: two_n.into() });
        }
        // A power x^((q-1)/2N) is a primitive 2N-th root exactly when its N-th power is -1; half of all x qualify.
        let psi = (2u32..)
            .map(|x| modulus.pow(x, u64::from((q - 1) / two_n)))
            .find(|&y| modulus.pow(y, 1 << log_n) == q - 1)
            .ok_or(MathError::NotNttFriendly { q, two_n: two_n.into() })?;
        let psi_inv = modulus.inv(psi);
        let n = 1usize << log_n;
        let powers = |root: u32| {
            let mut table = vec![0u32; n];
            let mut power = 1u32;
            for k in 0..n as u32 {
                table[(k.reverse_bits() >> (32 - log_n)) as usize] = power;
                power = modulus.mul(power, root);
            }
            table
        };
        let forward = powers(psi);
        let inverse = powers(psi_inv);
        let shoup = |t: &[u32]| t.iter().map(|&w| modulus.shoup(w)).collect::<Vec<_>>();
        Ok(Self {
            log_n,
            modulus,
            psi,
            forward_shoup: shoup(&forward),
            inverse_shoup: shoup(&inverse),
            forward,
            inverse,
            n_inv: modulus.inv(n as u32),
        })
    }

    /// log2 of the degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }
    /// The prime.
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }
    /// The primitive 2N-th root of unity.
    pub fn psi(&self) -> u32 {
        self.psi
    }
    /// `psi^brv(i)`, and its Shoup companions.
    pub fn forward(&self) -> (&[u32], &[u32]) {
        (&self.forward, &self.forward_shoup)
    }
    /// `psi^-brv(i)`, and its Shoup companions.
    pub fn inverse(&self) -> (&[u32], &[u32]) {
        (&self.inverse, &self.inverse_shoup)
    }
    /// `N^-1 mod q`.
    pub fn n_inv(&self) -> u32 {
        self.n_inv
    }
}
