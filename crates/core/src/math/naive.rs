//! The definitions: slow, obvious forms of every kernel, used as test oracles and nowhere else.
//!
//! Everything here works on plain slices, with `u64` remainders, in the coefficient domain where a definition has one.

use super::{BaseConversion, BasisChange, Modulus, NttTable, RnsTables};

/// `a b mod (X^N + 1, q)` by the schoolbook; canonical inputs of equal length N. Cost: N^2 products.
pub fn negacyclic_product(a: &[u32], b: &[u32], modulus: &Modulus) -> Vec<u32> {
    let n = a.len();
    let mut out = vec![0u32; n];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let product = modulus.mul(x, y);
            let slot = &mut out[(i + j) % n];
            *slot = if i + j < n { modulus.add(*slot, product) } else { modulus.sub(*slot, product) };
        }
    }
    out
}

/// The lowest `bits` bits of `i`, reversed.
pub fn bit_reverse(i: usize, bits: u32) -> usize {
    (0..bits).fold(0, |acc, k| acc << 1 | (i >> k & 1))
}

/// The forward transform by evaluation: index i holds the value at `psi^(2 brv(i) + 1)`. Cost: N^2 products.
pub fn ntt_forward(coefficients: &[u32], table: &NttTable) -> Vec<u32> {
    let modulus = table.modulus();
    (0..coefficients.len())
        .map(|i| {
            let point = modulus.pow(table.psi(), 2 * bit_reverse(i, table.log_n()) as u64 + 1);
            coefficients.iter().rev().fold(0, |acc, &c| modulus.add(modulus.mul(acc, point), c))
        })
        .collect()
}

/// The inverse transform by the orthogonality of the roots: `a_j = N^-1 sum_i A_i point_i^-j`. Cost: N^2 products.
pub fn ntt_inverse(values: &[u32], table: &NttTable) -> Vec<u32> {
    let modulus = table.modulus();
    let mut out = vec![0u32; values.len()];
    for (i, &value) in values.iter().enumerate() {
        let point = modulus.pow(table.psi(), 2 * bit_reverse(i, table.log_n()) as u64 + 1);
        let step = modulus.inv(point);
        let mut term = modulus.mul(value, table.n_inv());
        for slot in &mut out {
            *slot = modulus.add(*slot, term);
            term = modulus.mul(term, step);
        }
    }
    out
}

/// `a(X^galois) mod X^N + 1` on coefficients: coefficient k goes to `k galois mod 2N`, with a sign past N.
pub fn automorphism(coefficients: &[u32], galois: u32, modulus: &Modulus) -> Vec<u32> {
    let n = coefficients.len();
    let mut out = vec![0u32; n];
    for (k, &c) in coefficients.iter().enumerate() {
        let to = k * galois as usize % (2 * n);
        out[to % n] = if to < n { c } else { modulus.neg(c) };
    }
    out
}

/// Base conversion of coefficients, `[from][N]` to `[to][N]`: the formula of [`super::base_conversion`], one word at a time.
pub fn base_convert(coefficients: &[u32], tables: &RnsTables, conversion: &BaseConversion) -> Vec<u32> {
    let n = tables.degree();
    let (from, to) = (conversion.from.limbs(), conversion.to.limbs());
    let mut out = vec![0u32; to.len() * n];
    for c in 0..n {
        let y: Vec<u32> = from
            .iter()
            .enumerate()
            .map(|(i, &d)| tables.modulus(d).mul(coefficients[i * n + c], conversion.inv_hat[i]))
            .collect();
        let estimate: u64 = y.iter().zip(&conversion.reciprocal).map(|(&y, &r)| (u64::from(4 * y) * u64::from(r)) >> 32).sum();
        let u = ((1 << (BaseConversion::QUOTIENT_BITS - 1)) + estimate) >> BaseConversion::QUOTIENT_BITS;
        for (j, &p) in to.iter().enumerate() {
            let m = tables.modulus(p);
            let u_term = m.mul(m.reduce_u64(u), m.from_mont(conversion.neg_product[j]));
            out[j * n + c] = y.iter().enumerate().fold(u_term, |acc, (i, &y)| {
                m.add(acc, m.mul(y % m.value(), m.from_mont(conversion.matrix[j * from.len() + i])))
            });
        }
    }
    out
}

/// Division with rounding on coefficients, `[source][N]` to `[target][N]`: the formula of [`BasisChange`].
pub fn change_basis(coefficients: &[u32], tables: &RnsTables, change: &BasisChange) -> Vec<u32> {
    let n = tables.degree();
    let dropped: Vec<u32> = change
        .dropped
        .limbs()
        .iter()
        .filter_map(|&d| change.source.position(d))
        .flat_map(|p| coefficients[p * n..][..n].iter().copied())
        .collect();
    let mut out = base_convert(&dropped, tables, &change.conversion);
    for (j, &limb) in change.target.limbs().iter().enumerate() {
        let m = tables.modulus(limb);
        for c in 0..n {
            let kept = change.source_position[j].map_or(0, |p| m.mul(coefficients[p * n + c], change.keep[j]));
            out[j * n + c] = m.sub(kept, m.mul(out[j * n + c], change.tail[j]));
        }
    }
    out
}
