//! Vectors that repeat every few slots, kept at their own size.
//!
//! A vector of period p (a power of two) is a polynomial in `Y = X^(N / 2p)`, since `5^j mod 4p` has period p: the special transform
//! of the ring of degree 2p gives its coefficients. The value of `X^(N/2p)` at `psi^(2 brv(i) + 1)` depends on the first
//! log2 2p bits of i alone, and the twiddles of the first log2 2p stages of the large transform are those of the small
//! one: so the transform of degree 2p, with the first words of the large table, gives what all N / 2p words in a row are.

use super::fft::{Scratch, SlotTransform};
use super::residues::{self, Reducer};
use super::{Encoder, Integers, check_finite, check_range};
use crate::backend::{Place, Shape};
use crate::ckks::error::{CkksError, Result};
use crate::ckks::params::Scale;
use crate::ckks::plaintext::{PlainForm, Plaintext};
use crate::math::{Basis, NttTable};
use rayon::prelude::*;

impl Encoder {
    /// `count` complex vectors of a period (a power of two from 2 to N/2), for inner products; `fill(i, re, im)` writes one period
    /// of vector i (called in parallel). The plaintexts have degree `2 period`: see [`crate::backend::Kernels::plain_inner_product`].
    ///
    /// Cost: a complex transform of `period` points a vector, then one reduction and one NTT of degree `2 period` a limb.
    ///
    /// # Errors
    /// [`CkksError::Period`] for any other period; else those of [`Encoder`], but for values on a backend whose results have no words.
    pub fn encode_periodic(
        &self,
        period: usize,
        count: usize,
        fill: impl Fn(usize, &mut [f64], &mut [f64]) + Sync,
        scale: Scale,
        basis: &Basis,
        form: PlainForm,
    ) -> Result<Plaintext> {
        let slots = self.params.slots();
        if !period.is_power_of_two() || period < 2 || period > slots {
            return Err(CkksError::Period { period, least: 2, slots });
        }
        if period == slots {
            let mut integers = Integers::default();
            self.integers_into(&mut integers, count, fill, scale, basis)?;
            return self.finish(&integers, scale, basis, form);
        }
        let (degree, limit) = (2 * period, self.limit(basis));
        let transform = SlotTransform::new(degree.trailing_zeros());
        let tables = self.params.tables();
        let reducers: Vec<Reducer> =
            basis.limbs().iter().map(|&l| Reducer::new(tables.modulus(l), form == PlainForm::Montgomery)).collect();
        let shape = Shape::new(count, basis.len(), degree);
        let mut words = vec![0u32; shape.words()];
        let made = if self.backend.place() == Place::Nowhere { 0 } else { words.len() };
        words[..made].par_chunks_mut(shape.poly_words().max(1)).enumerate().try_for_each(|(i, words)| {
            let (mut re, mut im) = (vec![0.0f64; period], vec![0.0f64; period]);
            fill(i, &mut re, &mut im);
            check_finite(i, &re)?;
            check_finite(i, &im)?;
            let mut scratch = Scratch::new(period);
            transform.to_coefficients(&re, Some(&im), scale.0, &mut scratch);
            let mut values = scratch.re;
            values.append(&mut scratch.im);
            let largest = check_range(i, &values, limit)?;
            residues::round(&mut values, largest);
            for ((limb, reducer), &l) in words.chunks_mut(degree).zip(&reducers).zip(basis.limbs()) {
                reducer.reduce(&values, largest, limb);
                first_stages(limb, tables.ntt(l));
            }
            Ok::<(), CkksError>(())
        })?;
        let buffer = self.backend.upload(shape, &words)?;
        Ok(Plaintext { buffer, basis: basis.clone(), scale, form, fingerprint: self.params.fingerprint() })
    }
}

/// The forward transform of a degree below the table's; residues in and out in `[0, q)`.
fn first_stages(x: &mut [u32], table: &NttTable) {
    let m = table.modulus();
    let (twiddles, shoup) = table.forward();
    let mut groups = 1;
    while groups < x.len() {
        let half = x.len() / (2 * groups);
        for (g, block) in x.chunks_mut(2 * half).enumerate() {
            let (w, w_shoup) = (twiddles[groups + g], shoup[groups + g]);
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let product = m.mul_shoup(*b, w, w_shoup);
                (*a, *b) = (m.add(*a, product), m.sub(*a, product));
            }
        }
        groups *= 2;
    }
}
