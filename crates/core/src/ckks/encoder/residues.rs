//! From integers held in f64 to residues modulo 30-bit primes, in floating point: no division, vectorisable.
//!
//! With `inv = 1 / q` and `near(x) = x` rounded to an integer by adding and taking away `1.5 * 2^52`:
//! - `reduce(x) = x - near(x inv) q` is exact for integers `|x| < 2^51`: the product is an integer below 2^52;
//! - `mul(r, c) = (h - near(h inv) q) + l` with `h + l = r c` exactly (fused multiply-add) is exact for `|r c| < 2^61`.
//!
//! Both leave a representative within `q/2 + 1` of 0. Without fused instructions `mul` goes through 64-bit integers, to
//! the same end: every path is exact, so the residues are the same on every machine.

use crate::ckks::simd_dispatch::simd_dispatch;
use crate::math::Modulus;

const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
const TWO_32: f64 = 4_294_967_296.0;

/// Coefficients below this take the one-step path.
pub const NARROW: f64 = 2_251_799_813_685_248.0; // 2^51
/// Coefficients below this are split at 2^32; the rest goes by mantissa and exponent.
pub const WIDE: f64 = 4_835_703_278_458_516_698_824_704.0; // 2^82

/// One prime's constants.
#[derive(Debug, Clone, Copy)]
pub struct Reducer {
    modulus: Modulus,
    q: f64,
    inv: f64,
    /// `2^32 f` and `f` mod q, centred, where f is 1 or 2^32 (Montgomery form).
    high: f64,
    low: f64,
    montgomery: bool,
}

impl Reducer {
    /// For plain residues, or for residues in Montgomery form.
    pub fn new(modulus: &Modulus, montgomery: bool) -> Self {
        let factor = if montgomery { modulus.r() } else { 1 };
        let centred = |a: u32| f64::from(modulus.centre(a));
        Self {
            modulus: *modulus,
            q: f64::from(modulus.value()),
            inv: 1.0 / f64::from(modulus.value()),
            high: centred(modulus.mul(modulus.r(), factor)),
            low: centred(factor),
            montgomery,
        }
    }

    /// Residues of integers `|x| <= largest`.
    pub fn reduce(&self, x: &[f64], largest: f64, out: &mut [u32]) {
        if largest < NARROW {
            if self.montgomery { narrow_montgomery(x, out, self) } else { narrow(x, out, self) }
        } else if largest < WIDE {
            wide(x, out, self);
        } else {
            for (o, &x) in out.iter_mut().zip(x) {
                *o = self.any(x);
            }
        }
    }

    /// The residue of any integer that f64 can hold: mantissa times power of two.
    pub fn any(&self, x: f64) -> u32 {
        let bits = x.abs().to_bits();
        let exponent = (bits >> 52) as i64 - 1075;
        let mantissa = bits & ((1 << 52) - 1) | (1 << 52);
        let m = &self.modulus;
        let magnitude = if x == 0.0 {
            0
        } else if exponent < 0 {
            m.reduce_u64(mantissa.checked_shr((-exponent) as u32).unwrap_or(0))
        } else {
            m.mul(m.reduce_u64(mantissa), m.pow(2, exponent as u64))
        };
        let value = if x < 0.0 { m.neg(magnitude) } else { magnitude };
        if self.montgomery { m.to_mont(value) } else { value }
    }
}

#[inline(always)]
fn near(x: f64) -> f64 {
    (x + MAGIC) - MAGIC
}

#[inline(always)]
fn reduce(x: f64, r: &Reducer) -> f64 {
    x - near(x * r.inv) * r.q
}

#[inline(always)]
fn mul<const FMA: bool>(x: f64, c: f64, r: &Reducer) -> f64 {
    if FMA {
        let h = x * c;
        let l = x.mul_add(c, -h);
        (-near(h * r.inv)).mul_add(r.q, h) + l
    } else {
        // |x| < 2^32 and |c| < 2^29: the product fits.
        ((x as i64 * c as i64) % r.q as i64) as f64
    }
}

#[inline(always)]
fn canonical(x: f64, r: &Reducer) -> u32 {
    let x = x + if x < 0.0 { r.q } else { 0.0 };
    // Adding 2^52 puts the integer into the low mantissa bits.
    (x + 4_503_599_627_370_496.0).to_bits() as u32
}

simd_dispatch! {
    /// Rounds to integers, halves to even, and returns the largest magnitude through `largest`; |x| < 2^51.
    fn round_narrow = round_narrow_body(x: &mut [f64])
}

#[inline(always)]
fn round_narrow_body<const FMA: bool>(x: &mut [f64]) {
    for x in x {
        *x = near(*x);
    }
}

/// Rounds to integers, halves to even, given the largest magnitude.
pub fn round(x: &mut [f64], largest: f64) {
    if largest < NARROW {
        round_narrow(x);
    } else {
        x.iter_mut().for_each(|x| *x = x.round_ties_even());
    }
}

/// The largest magnitude, rounded up to an integer; not for NaN.
pub fn largest(x: &[f64]) -> f64 {
    let mut out = 0.0;
    largest_into(x, &mut out);
    out.ceil()
}

simd_dispatch! {
    /// The largest magnitude.
    fn largest_into = largest_body(x: &[f64], out: &mut f64)
}

#[inline(always)]
fn largest_body<const FMA: bool>(x: &[f64], out: &mut f64) {
    let mut lanes = [0.0f64; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for (l, &x) in lanes.iter_mut().zip(chunk) {
            let a = x.abs();
            *l = if a > *l { a } else { *l };
        }
    }
    *out = lanes.into_iter().chain(tail.iter().map(|x| x.abs())).fold(0.0, f64::max);
}

simd_dispatch! {
    /// |x| < 2^51, plain form.
    fn narrow = narrow_body(x: &[f64], out: &mut [u32], r: &Reducer)
}

#[inline(always)]
fn narrow_body<const FMA: bool>(x: &[f64], out: &mut [u32], r: &Reducer) {
    let r = *r;
    for (o, &x) in out.iter_mut().zip(x) {
        *o = canonical(reduce(x, &r), &r);
    }
}

simd_dispatch! {
    /// |x| < 2^51, Montgomery form.
    fn narrow_montgomery = narrow_montgomery_body(x: &[f64], out: &mut [u32], r: &Reducer)
}

#[inline(always)]
fn narrow_montgomery_body<const FMA: bool>(x: &[f64], out: &mut [u32], r: &Reducer) {
    let r = *r;
    for (o, &x) in out.iter_mut().zip(x) {
        *o = canonical(mul::<FMA>(reduce(x, &r), r.low, &r), &r);
    }
}

simd_dispatch! {
    /// |x| < 2^82, either form.
    fn wide = wide_body(x: &[f64], out: &mut [u32], r: &Reducer)
}

#[inline(always)]
fn wide_body<const FMA: bool>(x: &[f64], out: &mut [u32], r: &Reducer) {
    let r = *r;
    for (o, &x) in out.iter_mut().zip(x) {
        let high = near(x * (1.0 / TWO_32));
        let low = x - high * TWO_32;
        let sum = mul::<FMA>(reduce(high, &r), r.high, &r) + mul::<FMA>(low, r.low, &r);
        *o = canonical(reduce(sum, &r), &r);
    }
}

/// The second half of a real vector's polynomial from the first: `m_(N-k) = -m_k`, `m_(N/2) = 0`.
pub fn mirror(out: &mut [u32], q: u32) {
    mirror_into(out, q);
}

simd_dispatch! {
    /// [`mirror`].
    fn mirror_into = mirror_body(out: &mut [u32], q: u32)
}

#[inline(always)]
fn mirror_body<const FMA: bool>(out: &mut [u32], q: u32) {
    // q - v, or 0 for v = 0: the mask is all ones exactly when v is not 0.
    let negated = |v: u32| (q - v) & ((v | v.wrapping_neg()) as i32 >> 31) as u32;
    let (low, high) = out.split_at_mut(out.len() / 2);
    high[0] = 0;
    // Reversed block by block, which compiles to shuffles.
    let (high, high_tail) = high[1..].as_chunks_mut::<16>();
    let (low_tail, low) = low[1..].as_rchunks::<16>();
    for (high, low) in high.iter_mut().zip(low.iter().rev()) {
        for (h, &v) in high.iter_mut().zip(low.iter().rev()) {
            *h = negated(v);
        }
    }
    for (h, &v) in high_tail.iter_mut().zip(low_tail.iter().rev()) {
        *h = negated(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;

    #[test]
    fn every_path_equals_big_integers() {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state
        };
        for q in [16_777_259u32, 998_244_353, 1_073_741_789] {
            let m = Modulus::new(q).unwrap();
            for bits in [3, 24, 31, 50, 51, 52, 62, 81, 82, 90, 130] {
                let mut x: Vec<f64> = (0..67)
                    .map(|_| {
                        let v = next() as i64 as f64 / 2f64.powi(63);
                        (v * 2f64.powi(bits)).round_ties_even()
                    })
                    .collect();
                x.extend([0.0, -0.0, 1.0, -1.0, f64::from(q), -f64::from(q), f64::from(q / 2), -f64::from(q / 2 + 1)]);
                x.push(2f64.powi(bits) - 2f64.powi((bits - 53).max(0)));
                let most = largest(&x);
                for montgomery in [false, true] {
                    let r = Reducer::new(&m, montgomery);
                    let mut out = vec![u32::MAX; x.len()];
                    r.reduce(&x, most, &mut out);
                    let mut portable = vec![u32::MAX; x.len()];
                    if most < NARROW && !montgomery {
                        narrow_body::<false>(&x, &mut portable, &r);
                    } else if most < NARROW {
                        narrow_montgomery_body::<false>(&x, &mut portable, &r);
                    } else if most < WIDE {
                        wide_body::<false>(&x, &mut portable, &r);
                    } else {
                        portable.copy_from_slice(&out);
                    }
                    assert_eq!(out, portable, "q={q} bits={bits}");
                    for (&x, &got) in x.iter().zip(&out) {
                        let exact = if x.abs() < 2f64.powi(100) {
                            BigInt::from(x as i128)
                        } else {
                            BigInt::from((x / 2f64.powi(40)) as i128) << 40
                        };
                        let factor = if montgomery { BigInt::from(1u64 << 32) } else { BigInt::from(1) };
                        let q = BigInt::from(q);
                        let want = ((exact * factor) % &q + &q) % &q;
                        assert_eq!(BigInt::from(got), want, "x={x}");
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_even() {
        let mut x = [0.5, 1.5, -0.5, -2.5, 3.49, 1e9 + 0.5];
        let most = largest(&x);
        round(&mut x, most);
        assert_eq!(x, [0.0, 2.0, 0.0, -2.0, 3.0, 1e9]);
    }
}
