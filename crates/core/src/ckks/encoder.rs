//! Between vectors of numbers and polynomials: the special transform, rounding, residues.
//!
//! A vector has at most N/2 entries (missing ones are 0); slot j is the value at `zeta^(5^j)`. Real vectors are encoded
//! two by two: for real a and b, the coefficients p of `a + i b` give those of a as `(p_k - p_(N-k)) / 2` and those of b as
//! `(p_(k + N/2) + p_(N/2 - k)) / 2`, since `X^(N/2)` is i in every slot. Half of each result follows by `m_(N-k) = -m_k`.

use super::error::{CkksError, Result};
use super::params::{Params, Scale};
use super::plaintext::{PlainForm, Plaintext};
use crate::backend::{Backend, Coefficients, Place, PlainSource};
use crate::math::{Basis, Modulus};
use fft::{Scratch, SlotTransform};
use rayon::prelude::*;
use residues::Reducer;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

pub mod fft;
mod periodic;
pub mod residues;
mod vector;

/// Encodes for one parameter set and backend. Cheap to share; all methods take `&self`.
///
/// # Errors
/// Of everything that makes a plaintext, where it says no more:
/// - [`CkksError::NotFinite`] for NaN or infinity, given or come of the scale;
/// - [`CkksError::EncodingOverflow`] where a coefficient, at the scale, reaches half the modulus of the basis;
/// - [`CkksError::Backend`] where the backend has no room, or the basis is not of its primes.
#[derive(Debug)]
pub struct Encoder {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    transform: SlotTransform,
}

/// Integer coefficients of several polynomials, held in f64, with the largest magnitude of each: vectors transformed and
/// rounded, not yet reduced modulo any prime. Reusable memory ([`Encoder::integers_into`]).
#[derive(Debug, Default)]
pub struct Integers {
    scale: Option<Scale>,
    /// `[poly][stored]`: N stored values, or the first N/2 of a real vector.
    values: Wiped<Vec<f64>>,
    stored: usize,
    largest: Vec<f64>,
}

/// Wiped when dropped, where it is of something secret: what is encoded in plain form may be what is to be encrypted, what is in
/// Montgomery form is a factor that the server has.
#[derive(Debug, Default)]
struct Wiped<T: Zeroize> {
    value: T,
    secret: bool,
}

impl<T: Zeroize> Wiped<T> {
    fn of(value: T, form: PlainForm) -> Self {
        Self { value, secret: form == PlainForm::Plain }
    }
}

impl<T: Zeroize> Deref for Wiped<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Zeroize> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Zeroize> Drop for Wiped<T> {
    fn drop(&mut self) {
        if self.secret {
            self.value.zeroize();
        }
    }
}

impl Integers {
    /// How many polynomials.
    pub fn polys(&self) -> usize {
        self.largest.len()
    }
    /// The scale, once filled.
    pub fn scale(&self) -> Option<Scale> {
        self.scale
    }
}

impl Encoder {
    /// An encoder whose plaintexts live on `backend`.
    pub fn new(params: Arc<Params>, backend: Arc<dyn Backend>) -> Self {
        let transform = SlotTransform::new(params.log_n());
        Self { params, backend, transform }
    }

    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// One real vector.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for more than N/2 numbers; else those of [`Encoder`].
    pub fn encode_real(&self, values: &[f64], scale: Scale, basis: &Basis, form: PlainForm) -> Result<Plaintext> {
        self.encode_shards(&[values], scale, basis, form)
    }

    /// Several real vectors, one polynomial each.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for a vector of more than N/2 numbers; else those of [`Encoder`].
    pub fn encode_shards<V: AsRef<[f64]> + Sync>(
        &self,
        vectors: &[V],
        scale: Scale,
        basis: &Basis,
        form: PlainForm,
    ) -> Result<Plaintext> {
        for v in vectors {
            self.check_count(v.as_ref().len())?;
        }
        let fill = |i: usize, out: &mut [f64]| {
            let v = vectors[i].as_ref();
            out[..v.len()].copy_from_slice(v);
            out[v.len()..].fill(0.0);
        };
        self.encode_batch(vectors.len(), fill, scale, basis, form)
    }

    /// Several real vectors, one polynomial each, that repeat with a period: each has `period` entries, a power of two up to
    /// N/2, and fills all slots by repetition. Products, sums and rotations of such vectors repeat with the same period.
    ///
    /// # Errors
    /// [`CkksError::Period`] as [`Self::check_period`], [`CkksError::SlotCount`] for a vector of another length; else those of
    /// [`Encoder`].
    pub fn encode_repeated<V: AsRef<[f64]> + Sync>(
        &self,
        vectors: &[V],
        period: usize,
        scale: Scale,
        basis: &Basis,
        form: PlainForm,
    ) -> Result<Plaintext> {
        self.check_period(period)?;
        if let Some(v) = vectors.iter().find(|v| v.as_ref().len() != period) {
            return Err(CkksError::SlotCount { expected: period, found: v.as_ref().len() });
        }
        let fill = |i: usize, out: &mut [f64]| out.chunks_exact_mut(period).for_each(|c| c.copy_from_slice(vectors[i].as_ref()));
        self.encode_batch(vectors.len(), fill, scale, basis, form)
    }

    /// Refuses a period that is not a power of two up to N/2.
    ///
    /// # Errors
    /// [`CkksError::Period`] for any other.
    pub fn check_period(&self, period: usize) -> Result<()> {
        let slots = self.params.slots();
        if period.is_power_of_two() && period <= slots { Ok(()) } else { Err(CkksError::Period { period, least: 1, slots }) }
    }

    /// `count` real vectors, one polynomial each; `fill(i, slots)` writes every slot of vector i (called in parallel).
    ///
    /// Cost: half a complex transform of N/2 points a vector, then one reduction and one NTT a limb.
    ///
    /// # Errors
    /// Those of [`Encoder`].
    pub fn encode_batch(
        &self,
        count: usize,
        fill: impl Fn(usize, &mut [f64]) + Sync,
        scale: Scale,
        basis: &Basis,
        form: PlainForm,
    ) -> Result<Plaintext> {
        let coefficients = self.real_coefficients(count, &fill, scale, self.limit(basis), form)?;
        self.finish(&coefficients, scale, basis, form)
    }

    /// One complex vector.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for more than N/2 numbers; else those of [`Encoder`].
    pub fn encode_complex(&self, re: &[f64], im: &[f64], scale: Scale, basis: &Basis, form: PlainForm) -> Result<Plaintext> {
        let n = self.params.slots();
        self.check_count(re.len())?;
        self.check_count(im.len())?;
        let mut padded = Wiped::of(vec![0.0; 2 * n], form);
        padded[..re.len()].copy_from_slice(re);
        padded[n..n + im.len()].copy_from_slice(im);
        let (re, im) = padded.split_at(n);
        check_finite(0, re)?;
        check_finite(0, im)?;
        let mut scratch = Wiped::of(Scratch::new(n), form);
        self.transform.to_coefficients(re, Some(im), scale.0, &mut scratch);
        let mut values = Wiped::of([&scratch.re[..], &scratch.im].concat(), form);
        let largest = check_range(0, &values, self.limit(basis))?;
        residues::round(&mut values, largest);
        self.finish(&Integers { scale: Some(scale), stored: 2 * n, values, largest: vec![largest] }, scale, basis, form)
    }

    /// Transforms and rounds `count` complex vectors into `out`; `fill(i, re, im)` writes every slot of vector i (called in
    /// parallel). Refuses coefficients that do not fit the modulus of `basis`.
    ///
    /// Cost: a complex transform of N/2 points a vector.
    ///
    /// # Errors
    /// [`CkksError::NotFinite`] and [`CkksError::EncodingOverflow`] as [`Encoder`] says; neither on a backend whose results have no
    /// words, where nothing is encoded.
    pub fn integers_into(
        &self,
        out: &mut Integers,
        count: usize,
        fill: impl Fn(usize, &mut [f64], &mut [f64]) + Sync,
        scale: Scale,
        basis: &Basis,
    ) -> Result<()> {
        let n = self.params.slots();
        let limit = self.limit(basis);
        out.scale = Some(scale);
        out.stored = 2 * n;
        out.values.resize(count * 2 * n, 0.0);
        out.largest.resize(count, 0.0);
        if self.backend.place() == Place::Nowhere {
            // Coefficients are about as large as their scale; that is all that will be asked of them.
            out.largest.fill(scale.0);
            return Ok(());
        }
        out.values.par_chunks_mut(2 * n).zip(&mut out.largest).enumerate().try_for_each_init(
            || (vec![0.0f64; n], vec![0.0f64; n], Scratch::new(n)),
            |(re, im, scratch), (i, (out, largest))| {
                fill(i, re, im);
                check_finite(i, re)?;
                check_finite(i, im)?;
                self.transform.to_coefficients(re, Some(im), scale.0, scratch);
                out[..n].copy_from_slice(&scratch.re);
                out[n..].copy_from_slice(&scratch.im);
                *largest = check_range(i, out, limit)?;
                residues::round(out, *largest);
                Ok::<(), CkksError>(())
            },
        )
    }

    /// Polynomials given by their integer coefficients, `[poly][N]`, exact in f64: for tests and for special plaintexts.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] where the values are not whole polynomials, one at least; else those of [`Encoder`].
    pub fn encode_coefficients(&self, values: Vec<f64>, scale: Scale, basis: &Basis, form: PlainForm) -> Result<Plaintext> {
        let degree = self.params.degree();
        if values.is_empty() || !values.len().is_multiple_of(degree) {
            return Err(CkksError::SlotCount { expected: degree, found: values.len() });
        }
        let mut largest = Vec::new();
        let mut values = Wiped::of(values, form);
        for (i, poly) in values.chunks_mut(degree).enumerate() {
            check_finite(i, poly)?;
            let most = check_range(i, poly, self.limit(basis))?;
            residues::round(poly, most);
            largest.push(most);
        }
        self.finish(&Integers { scale: Some(scale), stored: degree, values, largest }, scale, basis, form)
    }

    /// The residues of `round(value * scale)`, one per limb: a constant in every slot.
    ///
    /// # Errors
    /// [`CkksError::NotFinite`] for NaN or infinity, before or after scaling; [`CkksError::EncodingOverflow`] where the integer reaches
    /// half the modulus.
    pub fn constant(&self, value: f64, scale: Scale, basis: &Basis) -> Result<Vec<u32>> {
        let scaled = [(value * scale.0).round_ties_even()];
        check_finite(0, &[value])?;
        check_finite(0, &scaled)?;
        check_range(0, &scaled, self.limit(basis))?;
        let tables = self.params.tables();
        Ok(basis.limbs().iter().map(|&l| Reducer::new(tables.modulus(l), false).any(scaled[0])).collect())
    }

    /// Real parts of the slots of a polynomial given by its coefficients (N of them), divided by the scale.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] where there are not N coefficients.
    pub fn decode_real(&self, coefficients: &[f64], scale: Scale) -> Result<Vec<f64>> {
        let (re, im) = self.decode_complex(coefficients, scale)?;
        drop(Zeroizing::new(im));
        Ok(re)
    }

    /// Slots of a polynomial given by its coefficients, divided by the scale: real parts, imaginary parts. Work space is wiped.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] where there are not N coefficients.
    pub fn decode_complex(&self, coefficients: &[f64], scale: Scale) -> Result<(Vec<f64>, Vec<f64>)> {
        let n = self.params.slots();
        if coefficients.len() != 2 * n {
            return Err(CkksError::SlotCount { expected: 2 * n, found: coefficients.len() });
        }
        let mut scratch = Zeroizing::new(Scratch::new(n));
        scratch.re.copy_from_slice(&coefficients[..n]);
        scratch.im.copy_from_slice(&coefficients[n..]);
        let (mut re, mut im) = (vec![0.0; n], vec![0.0; n]);
        self.transform.to_slots(&mut scratch, 1.0 / scale.0, &mut re, Some(&mut im));
        Ok((re, im))
    }

    fn check_count(&self, found: usize) -> Result<()> {
        let expected = self.params.slots();
        if found > expected { Err(CkksError::SlotCount { expected, found }) } else { Ok(()) }
    }

    /// log2 of the largest coefficient that a basis holds.
    fn limit(&self, basis: &Basis) -> f64 {
        self.params.tables().log2(basis) - 1.0
    }

    fn real_coefficients(
        &self,
        count: usize,
        fill: &(impl Fn(usize, &mut [f64]) + Sync),
        scale: Scale,
        limit: f64,
        form: PlainForm,
    ) -> Result<Integers> {
        let n = self.params.slots();
        let mut values = Wiped::of(vec![0.0f64; count * n], form);
        let mut largest = vec![0.0f64; count];
        values.par_chunks_mut(2 * n).zip(largest.par_chunks_mut(2)).enumerate().try_for_each_init(
            || (Wiped::of(vec![0.0f64; 2 * n], form), Wiped::of(Scratch::new(n), form)),
            |(slots, scratch), (pair, (out, largest))| {
                let (a, b) = slots.split_at_mut(n);
                let first = 2 * pair;
                let two = out.len() > n;
                fill(first, a);
                check_finite(first, a)?;
                if two {
                    fill(first + 1, b);
                    check_finite(first + 1, b)?;
                }
                self.transform.to_coefficients(a, two.then_some(&*b), scale.0, scratch);
                let (out_a, out_b) = out.split_at_mut(n);
                separate(&scratch.re, &scratch.im, out_a, out_b);
                for (i, out) in [out_a, out_b].into_iter().enumerate().take(1 + usize::from(two)) {
                    largest[i] = check_range(first + i, out, limit)?;
                    residues::round(out, largest[i]);
                }
                Ok::<(), CkksError>(())
            },
        )?;
        Ok(Integers { scale: Some(scale), values, stored: n, largest })
    }

    fn finish(&self, integers: &Integers, scale: Scale, basis: &Basis, form: PlainForm) -> Result<Plaintext> {
        let mut buffer = {
            let residues = self.residues(integers, basis, form)?;
            self.backend.upload_ntt(integers.polys(), basis, &|poly, limb, out| residues.residues(poly, limb, out))?
        };
        if form == PlainForm::Plain {
            buffer.mark_secret();
        }
        Ok(Plaintext { buffer, basis: basis.clone(), scale, form, fingerprint: self.params.fingerprint() })
    }

    /// What writes the residues of integers modulo the primes of `basis`.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for integers that another degree's encoder made.
    pub fn residues<'a>(&'a self, integers: &'a Integers, basis: &'a Basis, form: PlainForm) -> Result<Residues<'a>> {
        let degree = self.params.degree();
        if integers.polys() > 0 && integers.stored != degree && integers.stored != degree / 2 {
            return Err(CkksError::SlotCount { expected: degree, found: integers.stored });
        }
        let tables = self.params.tables();
        let moduli: Vec<&Modulus> = basis.limbs().iter().map(|&l| tables.modulus(l)).collect();
        let reducers = moduli.iter().map(|m| Reducer::new(m, form == PlainForm::Montgomery)).collect();
        Ok(Residues { integers, reducers, moduli, half: integers.stored < degree })
    }
}

/// The residues of some integers, made when they are asked for.
#[derive(Debug)]
pub struct Residues<'a> {
    integers: &'a Integers,
    reducers: Vec<Reducer>,
    moduli: Vec<&'a Modulus>,
    half: bool,
}

impl PlainSource for Residues<'_> {
    fn residues(&self, poly: usize, limb: usize, out: &mut [u32]) {
        let Integers { values, stored, largest, .. } = self.integers;
        let x = &values[poly * stored..][..*stored];
        self.reducers[limb].reduce(x, largest[poly], &mut out[..*stored]);
        if self.half {
            residues::mirror(out, self.moduli[limb].value());
        }
    }
    fn coefficients(&self) -> Option<Coefficients<'_>> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
        let Integers { values, stored, largest, .. } = self.integers;
        largest.iter().all(|&x| x < EXACT).then_some(Coefficients { values: &values[..largest.len() * stored], stored: *stored })
    }
}

/// The coefficients of two real vectors a, b from those of `a + i b` (`re[k]` is coefficient k, `im[k]` is k + n).
fn separate(re: &[f64], im: &[f64], a: &mut [f64], b: &mut [f64]) {
    a[0] = re[0];
    for ((a, &r), &i) in a[1..].iter_mut().zip(&re[1..]).zip(im[1..].iter().rev()) {
        *a = 0.5 * (r - i);
    }
    if let Some((b0, b)) = b.split_first_mut() {
        *b0 = im[0];
        for ((b, &i), &r) in b.iter_mut().zip(&im[1..]).zip(re[1..].iter().rev()) {
            *b = 0.5 * (i + r);
        }
    }
}

fn check_finite(vector: usize, values: &[f64]) -> Result<()> {
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    // Exponent bits all set means infinity or NaN; the sum of carries vectorises where a search does not.
    let bad: u64 = values.iter().map(|x| ((x.to_bits() & EXPONENT) + (1 << 52)) >> 63).fold(0, |a, b| a | b);
    if bad == 0 {
        return Ok(());
    }
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(CkksError::NotFinite { vector, index, value: values[index] }),
        None => Ok(()),
    }
}

fn check_range(vector: usize, values: &[f64], log_limit: f64) -> Result<f64> {
    let largest = residues::largest(values);
    let log_coefficient = largest.log2();
    // An overflow in the transform itself shows as NaN or infinity; NaN compares false.
    if largest == 0.0 || log_coefficient < log_limit {
        check_finite(vector, values)?;
        return Ok(largest);
    }
    Err(CkksError::EncodingOverflow { vector, log_coefficient, log_limit })
}
