//! What a modulus may be for 128 bits of security, and what is estimated beyond that.
//!
//! Two secrets protect a set for bootstrapping, the dense one (here) and the sparse one
//! ([`SPARSE_CAPS_128`]); the key set encrypts each under the other, so the security of the whole is the
//! lesser of the two. Script and output of all estimates: `docs/security.md`.

use super::{Params, ParamsError, ParamsLiteral};

/// Cap on log2(QP) for 128 bits of classical security by log2 N: dense ternary secret, sigma 3.19 (Bossuat et al., "Security Guidelines for
/// Implementing Homomorphic Encryption", 2024, ePrint 2024/463, table 5.2).
pub const SECURITY_CAPS_128: [(u32, f64); 6] = [(12, 106.0), (13, 214.0), (14, 430.0), (15, 868.0), (16, 1747.0), (17, 3523.0)];

/// The same for 128 bits against an attacker with a quantum computer: the values of the guidelines' script, which are 128 bits with quantum sieving as in
/// Laarhoven, Mosca, van de Pol 2015. A set need not obey them; which do is said by [`Params::meets_quantum_128`].
pub const QUANTUM_CAPS_128: [(u32, f64); 6] = [(12, 101.0), (13, 203.0), (14, 409.0), (15, 825.0), (16, 1663.0), (17, 3348.0)];

/// Estimated bits of security: (log2 N, log2(QP), classical, quantum), in ascending order. The cost of the usvp attack (the lowest, or within 0.3 bits
/// of it) by the lattice estimator (commit 27a581b) in the cost models of MATZOV 2022 and of Laarhoven, Mosca, van de Pol 2015.
pub const SECURITY_ESTIMATES: [(u32, f64, f64, f64); 13] = [
    (13, 198.0, 139.6, 132.5),
    (13, 203.0, 136.0, 129.0),
    (13, 214.0, 128.5, 121.9),
    (14, 409.0, 135.4, 128.5),
    (14, 430.0, 128.4, 121.8),
    (15, 825.0, 135.0, 128.1),
    (15, 868.0, 128.0, 121.5),
    (16, 1550.0, 145.2, 137.9),
    (16, 1600.0, 140.4, 133.3),
    (16, 1650.0, 136.0, 129.1),
    (16, 1700.0, 131.8, 125.1),
    (16, 1720.0, 130.2, 123.5),
    (16, 1747.0, 128.2, 121.7),
];

/// Cap on log2 of the modulus of anything encrypted under a secret of weight [`SPARSE_WEIGHT`], by log2 N, for well over 128 bits (script and
/// output: `docs/security.md`; whoever breaks this secret has the dense one too): the lowest attack found by the lattice estimator (27a581b; primal and dual, with meet in the middle and all splits of the
/// support) is 2^147 at N = 2^16 and 2^200, and 2^140 at N = 2^15 and 2^120. Sets without a security claim obey the last row.
pub const SPARSE_CAPS_128: [(u32, f64); 3] = [(15, 120.0), (16, 200.0), (17, 200.0)];

/// The least weight that [`SPARSE_CAPS_128`] is stated for.
pub const SPARSE_WEIGHT: usize = 32;

/// The standard deviation that the caps are stated for.
pub const STANDARD_SIGMA: f64 = 3.19;

/// The row of a table of caps.
fn cap(table: &[(u32, f64)], log_n: u32) -> Option<f64> {
    table.iter().find(|row| row.0 == log_n).map(|row| row.1)
}

impl ParamsLiteral {
    /// Errors if there are more modulus bits than [`SECURITY_CAPS_128`] allows, but for sets that claim nothing.
    ///
    /// # Errors
    /// [`ParamsError::Insecure`], also for a ring degree that the table has no row for.
    pub fn check_security(&self) -> Result<(), ParamsError> {
        let cap = cap(&SECURITY_CAPS_128, self.log_n).unwrap_or(0.0);
        let log_qp = self.log_qp();
        if self.insecure || log_qp <= cap {
            return Ok(());
        }
        Err(ParamsError::Insecure { name: self.name.clone(), log_n: self.log_n, log_qp, cap })
    }
}

impl Params {
    /// Bits of classical security claimed: 128, or 0 for an insecure set.
    pub fn security_bits_claim(&self) -> u32 {
        if self.is_insecure() { 0 } else { 128 }
    }

    /// The largest log2(QP) for 128 bits of classical security in this ring, if the table has a row for it.
    pub fn classical_cap(&self) -> Option<f64> {
        cap(&SECURITY_CAPS_128, self.log_n())
    }

    /// The largest log2(QP) for 128 bits of security against quantum computers in this ring, if the table has a row for it.
    pub fn quantum_cap(&self) -> Option<f64> {
        cap(&QUANTUM_CAPS_128, self.log_n())
    }

    /// Whether the set keeps within [`Self::quantum_cap`].
    pub fn meets_quantum_128(&self) -> bool {
        !self.is_insecure() && self.quantum_cap().is_some_and(|cap| self.log_qp() <= cap)
    }

    /// Bits of classical security by [`SECURITY_ESTIMATES`], where it says something of this set.
    pub fn estimated_security(&self) -> Option<f64> {
        self.estimate(|row| row.2)
    }

    /// Bits of security against quantum computers by [`SECURITY_ESTIMATES`], where it says something of this set.
    pub fn estimated_quantum_security(&self) -> Option<f64> {
        self.estimate(|row| row.3)
    }

    /// On a straight line between the two points around log2(QP), which lies above the curve by less than 0.1 bits; nothing outside.
    fn estimate(&self, bits: fn(&(u32, f64, f64, f64)) -> f64) -> Option<f64> {
        if self.is_insecure() {
            return None;
        }
        SECURITY_ESTIMATES.windows(2).filter(|pair| pair.iter().all(|row| row.0 == self.log_n())).find_map(|pair| {
            let (low, high, x) = (pair[0].1, pair[1].1, self.log_qp());
            (low..=high).contains(&x).then(|| bits(&pair[0]) + (bits(&pair[1]) - bits(&pair[0])) * (x - low) / (high - low))
        })
    }
}
