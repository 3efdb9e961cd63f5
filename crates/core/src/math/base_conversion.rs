//! Constants of the one base conversion used everywhere (docs/arithmetic.md, "Base conversion").
//!
//! For `x` given by residues modulo primes `d_i` (product D), with `y_i = [x hat_i^-1]_{d_i}`, `hat_i = D / d_i`:
//! `x = sum_i y_i hat_i - u D` where `u` counts the multiples of D to take away so that the result is the CENTRED
//! representative in `[-D/2, D/2)`. `u = round(sum_i y_i / d_i)` is found in 26-bit fixed point, in integers:
//!
//! `u = (2^25 + sum_i mulhi(4 y_i, floor(2^56 / d_i))) >> 26`,  mulhi(a, b) = floor(a b / 2^32).
//!
//! Each term is below the true value by less than two units of 2^-26, so `u` can be off by one only when `x` is
//! within `2^-21` of half D (at 16 limbs), where either representative will do. The formula, not the ideal, is the
//! definition: every backend computes these very integers.

use super::{Basis, LimbId, RnsTables};

/// From the primes of `from` to those of `to`, for values in coefficient domain.
#[derive(Debug, Clone)]
pub struct BaseConversion {
    /// Source primes.
    pub from: Basis,
    /// Target primes.
    pub to: Basis,
    /// `[f hat_i^-1]_{d_i}` per source limb, where f is an optional factor (1 by default).
    pub inv_hat: Vec<u32>,
    /// Shoup companions of `inv_hat`.
    pub inv_hat_shoup: Vec<u32>,
    /// `floor(2^56 / d_i)` per source limb; source primes must exceed 2^24.
    pub reciprocal: Vec<u32>,
    /// `[hat_i]_{p_j}` in Montgomery form, `[to][from]`.
    pub matrix: Vec<u32>,
    /// `[-D]_{p_j}` in Montgomery form, one per target limb.
    pub neg_product: Vec<u32>,
}

impl BaseConversion {
    /// Fixed-point bits of the quotient estimate.
    pub const QUOTIENT_BITS: u32 = 26;

    /// The constants; `factor(d)` is a factor modulo each source prime that is multiplied into the input for free.
    pub fn new(tables: &RnsTables, from: &Basis, to: &Basis, factor: impl Fn(LimbId) -> u32) -> Self {
        let product_mod = |limbs: &mut dyn Iterator<Item = LimbId>, m: LimbId| {
            let modulus = tables.modulus(m);
            limbs.fold(1u32, |acc, l| modulus.mul(acc, tables.modulus(l).value() % modulus.value()))
        };
        let inv_hat: Vec<u32> = from
            .limbs()
            .iter()
            .map(|&d| {
                let m = tables.modulus(d);
                let hat = product_mod(&mut from.limbs().iter().copied().filter(|&l| l != d), d);
                m.mul(m.inv(hat), factor(d))
            })
            .collect();
        let inv_hat_shoup = from.limbs().iter().zip(&inv_hat).map(|(&d, &w)| tables.modulus(d).shoup(w)).collect();
        let reciprocal = from
            .limbs()
            .iter()
            .map(|&d| u32::try_from((1u64 << 56) / u64::from(tables.modulus(d).value())).unwrap_or(u32::MAX))
            .collect();
        let mut matrix = Vec::with_capacity(to.len() * from.len());
        let mut neg_product = Vec::with_capacity(to.len());
        for &p in to.limbs() {
            let m = tables.modulus(p);
            for &d in from.limbs() {
                matrix.push(m.to_mont(product_mod(&mut from.limbs().iter().copied().filter(|&l| l != d), p)));
            }
            neg_product.push(m.to_mont(m.neg(product_mod(&mut from.limbs().iter().copied(), p))));
        }
        Self { from: from.clone(), to: to.clone(), inv_hat, inv_hat_shoup, reciprocal, matrix, neg_product }
    }

    /// The same conversion with its result (the centred representative, over the integers) multiplied by `factor`, at no cost.
    pub fn times(mut self, tables: &RnsTables, factor: u64) -> Self {
        let from = self.from.len().max(1);
        for (j, &p) in self.to.limbs().iter().enumerate() {
            let m = tables.modulus(p);
            let factor = m.reduce_u64(factor);
            let constants = self.matrix[j * from..].iter_mut().take(from).chain(std::iter::once(&mut self.neg_product[j]));
            constants.for_each(|c| *c = m.mul(*c, factor));
        }
        self
    }
}

/// Division with rounding from one basis to another: `round(x * prod(incoming) / prod(dropped))`.
///
/// Serves mod_down (dropped = special primes), rescale (terminal primes may come back in) and both merged. With
/// `t = centred [x prod(incoming)]` modulo the dropped primes, the result modulo an output prime j is
/// `x a_j - t b_j`, `a_j = prod(incoming) / prod(dropped)`, `b_j = 1 / prod(dropped)`; `a_j = 0` for incoming primes.
#[derive(Debug, Clone)]
pub struct BasisChange {
    /// The basis of the input.
    pub source: Basis,
    /// The basis of the output.
    pub target: Basis,
    /// Primes of `source` that are not in `target`.
    pub dropped: Basis,
    /// Conversion of the dropped part to the target, `prod(incoming)` folded in.
    pub conversion: BaseConversion,
    /// For each target limb, where it stands in the source (None: it comes back in).
    pub source_position: Vec<Option<usize>>,
    /// `a_j` and Shoup companions.
    pub keep: Vec<u32>,
    /// Shoup companions of `keep`.
    pub keep_shoup: Vec<u32>,
    /// `b_j`.
    pub tail: Vec<u32>,
    /// Shoup companions of `tail`.
    pub tail_shoup: Vec<u32>,
}

impl BasisChange {
    /// The constants for going from `source` to `target`.
    pub fn new(tables: &RnsTables, source: &Basis, target: &Basis) -> Self {
        let dropped = source.minus(target);
        let incoming = target.minus(source);
        let product = |basis: &Basis, m: LimbId| {
            let modulus = tables.modulus(m);
            basis.limbs().iter().fold(1u32, |acc, &l| modulus.mul(acc, tables.modulus(l).value() % modulus.value()))
        };
        let conversion = BaseConversion::new(tables, &dropped, target, |d| product(&incoming, d));
        let mut keep = Vec::with_capacity(target.len());
        let mut tail = Vec::with_capacity(target.len());
        for &j in target.limbs() {
            let m = tables.modulus(j);
            let b = m.inv(product(&dropped, j));
            tail.push(b);
            keep.push(m.mul(product(&incoming, j), b));
        }
        let shoup = |v: &[u32]| target.limbs().iter().zip(v).map(|(&j, &w)| tables.modulus(j).shoup(w)).collect::<Vec<_>>();
        Self {
            source_position: target.limbs().iter().map(|&j| source.position(j)).collect(),
            keep_shoup: shoup(&keep),
            tail_shoup: shoup(&tail),
            source: source.clone(),
            target: target.clone(),
            dropped,
            conversion,
            keep,
            tail,
        }
    }

    /// The change of the input times a number, given by its residue modulo each source prime, at no cost.
    pub fn times(&self, tables: &RnsTables, factor: &[u32]) -> Self {
        let mut change = self.clone();
        let conversion = &mut change.conversion;
        for (i, &d) in self.dropped.limbs().iter().enumerate() {
            let Some(&f) = self.source.position(d).and_then(|p| factor.get(p)) else { continue };
            let m = tables.modulus(d);
            conversion.inv_hat[i] = m.mul(conversion.inv_hat[i], f);
            conversion.inv_hat_shoup[i] = m.shoup(conversion.inv_hat[i]);
        }
        for (j, &limb) in self.target.limbs().iter().enumerate() {
            let Some(&f) = self.source_position[j].and_then(|p| factor.get(p)) else { continue };
            let m = tables.modulus(limb);
            change.keep[j] = m.mul(change.keep[j], f);
            change.keep_shoup[j] = m.shoup(change.keep[j]);
        }
        change
    }
}
