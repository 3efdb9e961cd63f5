//! Negacyclic NTT of one limb, in place, in the order of [`crate::math::ntt_table`].

use crate::math::NttTable;

/// Forward: coefficients in `[0, q)` to evaluations in `[0, q)`. Cooley-Tukey, Harvey's lazy butterflies in `[0, 4q)`.
pub fn forward(limb: &mut [u32], table: &NttTable) {
    let modulus = table.modulus();
    let q2 = 2 * modulus.value();
    let (w, ws) = table.forward();
    let mut groups = 1;
    let mut half = limb.len() / 2;
    while half > 0 {
        for g in 0..groups {
            let (w, ws) = (w[groups + g], ws[groups + g]);
            let (low, high) = limb[2 * half * g..][..2 * half].split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let x = if *a >= q2 { *a - q2 } else { *a };
                let t = modulus.mul_shoup_lazy(*b, w, ws);
                *a = x + t;
                *b = x + q2 - t;
            }
        }
        groups *= 2;
        half /= 2;
    }
    for a in limb {
        let x = if *a >= q2 { *a - q2 } else { *a };
        *a = modulus.reduce_once(x);
    }
}

/// Inverse: evaluations in `[0, q)` to coefficients in `[0, q)`, `N^-1` included. Gentleman-Sande, lazy in `[0, 2q)`.
pub fn inverse(limb: &mut [u32], table: &NttTable) {
    let modulus = table.modulus();
    let q2 = 2 * modulus.value();
    let (w, ws) = table.inverse();
    let mut groups = limb.len() / 2;
    let mut half = 1;
    while groups > 0 {
        for g in 0..groups {
            let (w, ws) = (w[groups + g], ws[groups + g]);
            let (low, high) = limb[2 * half * g..][..2 * half].split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let sum = *a + *b;
                let difference = *a + q2 - *b;
                *a = if sum >= q2 { sum - q2 } else { sum };
                *b = modulus.mul_shoup_lazy(difference, w, ws);
            }
        }
        groups /= 2;
        half *= 2;
    }
    let (n_inv, n_inv_shoup) = (table.n_inv(), modulus.shoup(table.n_inv()));
    for a in limb {
        *a = modulus.mul_shoup(*a, n_inv, n_inv_shoup);
    }
}
