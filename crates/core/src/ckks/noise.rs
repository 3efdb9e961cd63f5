//! Predicted noise. A value is `m + e` with integer polynomials; everything here is the standard deviation of one
//! coefficient of e, under the usual heuristic that coefficients are independent (tested against measurement).
//!
//! With s dense ternary, `|s|^2 = 2N/3` on average. A product of a polynomial with independent coefficients of deviation d
//! and one of Euclidean norm v has coefficients of deviation `d v`. A message with scale D and root mean square r
//! over its slots has norm `D r` (Parseval for the canonical embedding).

use super::error::Result;
use super::gadget::Gadget;
use super::params::{Level, Params, Scale};
use super::request::KeyKind;

/// What is known of a value for predicting noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noisy {
    /// Deviation of a coefficient of the error.
    pub deviation: f64,
    /// The scale.
    pub scale: Scale,
    /// Root mean square of the slots' magnitudes.
    pub rms: f64,
}

impl Noisy {
    /// Euclidean norm of the message polynomial.
    fn norm(&self) -> f64 {
        self.scale.0 * self.rms
    }
}

/// Predictions for one parameter set.
#[derive(Debug, Clone, Copy)]
pub struct NoiseModel<'a> {
    params: &'a Params,
}

/// Variance of rounding to an integer.
const ROUNDING: f64 = 1.0 / 12.0;

fn root_of_squares(terms: &[f64]) -> f64 {
    terms.iter().map(|t| t * t).sum::<f64>().sqrt()
}

impl<'a> NoiseModel<'a> {
    /// For a parameter set.
    pub fn new(params: &'a Params) -> Self {
        Self { params }
    }

    /// `|s|^2`.
    fn secret_norm2(&self) -> f64 {
        2.0 / 3.0 * self.params.degree() as f64
    }

    /// Rounding of both halves after a division: `r0 + r1 s`.
    fn division(&self) -> f64 {
        (ROUNDING * (1.0 + self.secret_norm2())).sqrt()
    }

    /// A value encrypted under the secret key: one Gaussian and the rounding of encoding.
    pub fn fresh(&self, scale: Scale, rms: f64) -> Noisy {
        Noisy { deviation: (self.params.sigma().powi(2) + ROUNDING).sqrt(), scale, rms }
    }

    /// A value encrypted under the public key: `e u + e0 + e1 s`.
    pub fn fresh_public(&self, scale: Scale, rms: f64) -> Noisy {
        let variance = self.params.sigma().powi(2) * (1.0 + 2.0 * self.secret_norm2()) + ROUNDING;
        Noisy { deviation: variance.sqrt(), scale, rms }
    }

    /// A sum of independent values.
    pub fn add(&self, a: Noisy, b: Noisy) -> Noisy {
        Noisy { deviation: root_of_squares(&[a.deviation, b.deviation]), rms: root_of_squares(&[a.rms, b.rms]), ..a }
    }

    /// A product with a plaintext of this scale and root mean square; the rounding of its encoding is included.
    pub fn mul_plain(&self, a: Noisy, scale: Scale, rms: f64) -> Noisy {
        let plain = Noisy { deviation: ROUNDING.sqrt(), scale, rms };
        self.tensor(a, plain)
    }

    /// A product of independent values before relinearization: `m_a e_b + m_b e_a + e_a e_b`.
    pub fn tensor(&self, a: Noisy, b: Noisy) -> Noisy {
        let cross = (self.params.degree() as f64).sqrt() * a.deviation * b.deviation;
        Noisy {
            deviation: root_of_squares(&[a.norm() * b.deviation, b.norm() * a.deviation, cross]),
            scale: Scale(a.scale.0 * b.scale.0),
            rms: a.rms * b.rms,
        }
    }

    /// What a key switch adds before the division by P, in units of P: for each digit, N products of a residue
    /// uniform in `[-D/2, D/2)` with a Gaussian.
    ///
    /// # Errors
    /// As [`Params::key_switch_tables`].
    pub fn key_inner_product(&self, gadget: &Gadget, level: Level) -> Result<f64> {
        let plan = self.params.key_switch_tables(gadget, level)?;
        let tables = self.params.tables();
        let log_p = tables.log2(&plan.special);
        let per_digit =
            |log_d: f64| (self.params.degree() as f64 * ROUNDING).sqrt() * self.params.sigma() * (log_d - log_p).exp2();
        Ok(root_of_squares(&plan.digits.iter().map(|d| per_digit(tables.log2(d))).collect::<Vec<_>>()))
    }

    /// A key switch (rotation, relinearization): inner product and rounding of the division by P.
    ///
    /// # Errors
    /// As [`Params::key_switch_tables`].
    pub fn key_switch(&self, a: Noisy, gadget: &Gadget, level: Level) -> Result<Noisy> {
        let added = self.key_inner_product(gadget, level)?;
        Ok(Noisy { deviation: root_of_squares(&[a.deviation, added, self.division()]), ..a })
    }

    /// A relinearized product.
    ///
    /// # Errors
    /// As [`Params::key_switch_tables`].
    pub fn mul(&self, a: Noisy, b: Noisy, gadget: &Gadget, level: Level) -> Result<Noisy> {
        self.key_switch(self.tensor(a, b), gadget, level)
    }

    /// [`Evaluator::mod_raise`](super::Evaluator::mod_raise): the key switch to the sparse secret, the factor of the lift, the key switch
    /// back. The result's slots are those of a polynomial whose coefficients are the message's over the ratio plus multiples of 1.
    ///
    /// # Errors
    /// As [`Params::encapsulation_requests`].
    pub fn mod_raise(&self, a: Noisy) -> Result<Noisy> {
        let weight = self.params.need_bootstrap()?.weight as f64;
        let (bottom, top) = (Level(0), self.params.max_level());
        let mut deviation = a.deviation;
        for request in self.params.encapsulation_requests()? {
            let (level, norm2) = match request.kind {
                KeyKind::ToSparse => (bottom, weight),
                _ => (top, self.secret_norm2()),
            };
            if level == top {
                deviation *= self.params.raise_factor();
            }
            let rounding = (ROUNDING * (1.0 + norm2)).sqrt();
            deviation = root_of_squares(&[deviation, self.key_inner_product(&request.gadget, level)?, rounding]);
        }
        let multiples = (self.params.degree() as f64 * (weight + 1.0) * ROUNDING).sqrt();
        let rms = root_of_squares(&[a.rms / self.params.message_ratio(), multiples]);
        Ok(Noisy { deviation, scale: self.params.scale(top), rms })
    }

    /// A rescaling from one level to a lower one.
    pub fn rescale(&self, a: Noisy, from: Level, to: Level) -> Noisy {
        let divisor = self.params.divisor(from, to);
        Noisy {
            deviation: root_of_squares(&[a.deviation / divisor, self.division()]),
            scale: Scale(a.scale.0 / divisor),
            rms: a.rms,
        }
    }

    /// Deviation of the real part of a slot: `sqrt(N / 2)` coefficients' worth, over the scale.
    pub fn slot_deviation(&self, a: Noisy) -> f64 {
        (self.params.degree() as f64 / 2.0).sqrt() * a.deviation / a.scale.0
    }
}
