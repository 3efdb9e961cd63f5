//! One prime modulus below 2^30 and scalar arithmetic modulo it.
//!
//! Two constant-time-friendly multiplication forms are used everywhere:
//! - Shoup, for a constant w with `w' = floor(w 2^32 / q)`: `x w mod q` for any `x < 2^32`, result lazily in `[0, 2q)`;
//! - Montgomery with R = 2^32, for variable times variable: `a b 2^-32 mod q`. An operand kept "in Montgomery form"
//!   is `a 2^32 mod q`, so a product with it needs no correction. Keys and plaintext factors are kept in that form.

use super::MathError;

/// A prime `3 <= q < 2^30` with its reduction constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulus {
    q: u32,
    /// q^-1 mod 2^32 (positive inverse).
    q_inv: u32,
    /// 2^32 mod q.
    r: u32,
    /// 2^64 mod q.
    r2: u32,
}

impl Modulus {
    /// Largest modulus is below this bound, so that lazy values in `[0, 4q)` fit `u32`.
    pub const BOUND: u32 = 1 << 30;

    /// A modulus from an odd number in `[3, 2^30)`. Primality is the caller's business ([`super::primes::is_prime`]).
    ///
    /// # Errors
    /// [`MathError::ModulusRange`] for any other number.
    pub fn new(q: u32) -> Result<Self, MathError> {
        if !(3..Self::BOUND).contains(&q) || q.is_multiple_of(2) {
            return Err(MathError::ModulusRange { q: q.into() });
        }
        // Newton iteration: each step doubles the number of correct low bits (3 -> 6 -> 12 -> 24 -> 48).
        let mut q_inv = q;
        for _ in 0..4 {
            q_inv = q_inv.wrapping_mul(2u32.wrapping_sub(q.wrapping_mul(q_inv)));
        }
        let r = ((1u64 << 32) % u64::from(q)) as u32;
        let r2 = (u64::from(r) * u64::from(r) % u64::from(q)) as u32;
        Ok(Self { q, q_inv, r, r2 })
    }

    /// The modulus itself.
    #[inline(always)]
    pub const fn value(&self) -> u32 {
        self.q
    }

    /// q^-1 mod 2^32.
    #[inline(always)]
    pub const fn q_inv(&self) -> u32 {
        self.q_inv
    }

    /// 2^32 mod q: one in Montgomery form.
    #[inline(always)]
    pub const fn r(&self) -> u32 {
        self.r
    }

    /// 2^64 mod q: multiplying by it in Montgomery arithmetic enters Montgomery form.
    #[inline(always)]
    pub const fn r2(&self) -> u32 {
        self.r2
    }

    /// log2(q).
    pub fn log2(&self) -> f64 {
        f64::from(self.q).log2()
    }

    /// `a + b mod q`; inputs and result in `[0, q)`.
    #[inline(always)]
    pub const fn add(&self, a: u32, b: u32) -> u32 {
        let s = a + b;
        if s >= self.q { s - self.q } else { s }
    }

    /// `a - b mod q`; inputs and result in `[0, q)`.
    #[inline(always)]
    pub const fn sub(&self, a: u32, b: u32) -> u32 {
        if a >= b { a - b } else { a + self.q - b }
    }

    /// `-a mod q`; input and result in `[0, q)`.
    #[inline(always)]
    pub const fn neg(&self, a: u32) -> u32 {
        if a == 0 { 0 } else { self.q - a }
    }

    /// `a b mod q`; any `u32` inputs, result in `[0, q)`. Host-side: one 64-bit division.
    #[inline(always)]
    pub const fn mul(&self, a: u32, b: u32) -> u32 {
        (a as u64 * b as u64 % self.q as u64) as u32
    }

    /// `a^e mod q`.
    pub const fn pow(&self, a: u32, mut e: u64) -> u32 {
        let mut base = a % self.q;
        let mut acc = 1 % self.q;
        while e > 0 {
            if e & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// `a^-1 mod q` for a prime q and `a` not 0 mod q (Fermat).
    pub const fn inv(&self, a: u32) -> u32 {
        self.pow(a, self.q as u64 - 2)
    }

    /// The Shoup companion `floor(w 2^32 / q)` of a constant `w` in `[0, q)`.
    #[inline(always)]
    pub const fn shoup(&self, w: u32) -> u32 {
        (((w as u64) << 32) / self.q as u64) as u32
    }

    /// `x w mod q` in `[0, 2q)` for any `x < 2^32`, `w` in `[0, q)` with its companion (Harvey 2014, section 3).
    #[inline(always)]
    pub const fn mul_shoup_lazy(&self, x: u32, w: u32, w_shoup: u32) -> u32 {
        let hi = ((x as u64 * w_shoup as u64) >> 32) as u32;
        x.wrapping_mul(w).wrapping_sub(hi.wrapping_mul(self.q))
    }

    /// `x w mod q` in `[0, q)`; see [`Self::mul_shoup_lazy`].
    #[inline(always)]
    pub const fn mul_shoup(&self, x: u32, w: u32, w_shoup: u32) -> u32 {
        self.reduce_once(self.mul_shoup_lazy(x, w, w_shoup))
    }

    /// From `[0, 2q)` to `[0, q)`.
    #[inline(always)]
    pub const fn reduce_once(&self, x: u32) -> u32 {
        if x >= self.q { x - self.q } else { x }
    }

    /// Montgomery reduction `t 2^-32 mod q` in `[0, q)` for `t < 4 q 2^32` (so: any sum of up to 16 products of a
    /// value below 2^30 and a value below q).
    #[inline(always)]
    pub const fn redc(&self, t: u64) -> u32 {
        let m = (t as u32).wrapping_mul(self.q_inv);
        let sub = ((m as u64 * self.q as u64) >> 32) as u32; // < q
        let mut hi = (t >> 32) as u32; // < 4q
        if hi >= 2 * self.q {
            hi -= 2 * self.q;
        }
        if hi >= self.q {
            hi -= self.q;
        }
        self.sub(hi, sub)
    }

    /// Montgomery product `a b 2^-32 mod q` in `[0, q)`, for `a b < 4 q 2^32`.
    #[inline(always)]
    pub const fn mul_mont(&self, a: u32, b: u32) -> u32 {
        self.redc(a as u64 * b as u64)
    }

    /// `a 2^32 mod q`: into Montgomery form; `a` in `[0, q)`.
    #[inline(always)]
    pub const fn to_mont(&self, a: u32) -> u32 {
        self.mul_mont(a, self.r2)
    }

    /// `a 2^-32 mod q`: out of Montgomery form; `a` in `[0, q)`.
    #[inline(always)]
    pub const fn from_mont(&self, a: u32) -> u32 {
        self.redc(a as u64)
    }

    /// `x mod q` for any `u64`.
    #[inline(always)]
    pub const fn reduce_u64(&self, x: u64) -> u32 {
        (x % self.q as u64) as u32
    }

    /// `x mod q` in `[0, q)` for a signed integer.
    #[inline(always)]
    pub const fn reduce_i64(&self, x: i64) -> u32 {
        x.rem_euclid(self.q as i64) as u32
    }

    /// `x mod q` in `[0, q)` for a signed wide integer.
    #[inline(always)]
    pub const fn reduce_i128(&self, x: i128) -> u32 {
        x.rem_euclid(self.q as i128) as u32
    }

    /// The representative of `a` in `[-q/2, q/2]`.
    #[inline(always)]
    pub const fn centre(&self, a: u32) -> i32 {
        if a > self.q / 2 { a as i32 - self.q as i32 } else { a as i32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_agrees_with_the_definition() {
        for q in [3u32, 12289, 16_777_213, 998_244_353, (1 << 30) - 35] {
            let m = Modulus::new(q).unwrap();
            let mut x = 0x1234_5678_9abc_def1u64;
            for _ in 0..2000 {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (a, b) = (((x >> 33) as u32) % q, (x as u32) % q);
                for (a, b) in [(a, b), (q - 1, q - 1), (0, b), (1, q - 1)] {
                    let want = (u128::from(a) * u128::from(b) % u128::from(q)) as u32;
                    assert_eq!(m.mul(a, b), want);
                    assert_eq!(m.mul_shoup(a, b, m.shoup(b)), want);
                    assert_eq!(m.mul_mont(m.to_mont(a), b), want);
                    assert_eq!(m.from_mont(m.to_mont(a)), a);
                    assert_eq!(m.add(a, m.neg(a)), 0);
                    assert_eq!(m.sub(m.add(a, b), b), a);
                }
                let any = x as u32;
                assert_eq!(m.mul_shoup(any, b, m.shoup(b)), m.mul(any % q, b));
            }
            // The documented extreme of redc: 16 products of values just below 2^30 and q - 1.
            let t = 16 * u64::from((1u32 << 30) - 1) * u64::from(q - 1);
            assert_eq!(m.redc(t), m.mul(m.reduce_u64(t), m.inv(m.r() % q)));
            assert_eq!(m.mul(m.inv(2), 2), 1);
        }
    }

    #[test]
    fn refuses_moduli_outside_the_number_system() {
        for q in [0, 1, 2, 4, 1 << 30, u32::MAX] {
            assert_eq!(Modulus::new(q), Err(MathError::ModulusRange { q: q.into() }));
        }
    }
}
