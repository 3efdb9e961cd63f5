//! The levels of bootstrapping: how many each part takes, and their scales.
//!
//! From the bottom: the levels that a user computes on, the lowest of which are those of SlotsToCoeffs (which comes first, before
//! the modulus is raised; after EvalMod there is room for it as well); then EvalMod; then CoeffsToSlots, up to the top.
//!
//! A message m at level 0 has `scale(0) m` for coefficients; raised, it is `scale(0) m + q0 I`, that is `t = m / ratio + I`
//! at scale q0, `ratio = q0 / scale(0)`. Levels of CoeffsToSlots are left by products with plaintexts only and keep one scale. EvalMod
//! ends with `2 c^2 - 1 = sin(2 pi t)`, which is `2 pi m / ratio` but for the error of the sine: at scale `scale(B) ratio / (2 pi)`,
//! it IS m at the canonical scale of the level B below. So within EvalMod `scale(l) = sqrt(scale(l - 1) r_l)` as everywhere, and
//! for its lowest level that landing scale takes the place of `scale(l - 1)`: ending EvalMod costs no level and no product.

use super::{Level, Params, ParamsError, ParamsLiteral, Scale};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What the top of a ladder is for: the parts of the bootstrapping circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Levels of SlotsToCoeffs, at the bottom: level `slots_to_coeffs` is where bootstrapping starts.
    pub slots_to_coeffs: usize,
    /// Levels of EvalMod: `ceil(log2(degree + 1)) + double_angles`.
    pub eval_mod: usize,
    /// Levels of CoeffsToSlots, at the top.
    pub coeffs_to_slots: usize,
    /// Bound of the multiples of q0 to be removed: `|I| < k`.
    pub k: u32,
    /// Degree of the Chebyshev series of the scaled cosine.
    pub degree: usize,
    /// How often the angle is doubled after the series.
    pub double_angles: usize,
    /// Nonzero coefficients of the sparse secret under which the modulus is raised.
    pub weight: usize,
    /// log2 of the most slots that the linear transforms have levels for.
    pub log_slots: u32,
}

impl Bootstrap {
    /// Errors, as (expected, found), unless the literal's ladder has room for the circuit.
    pub(super) fn check(&self, literal: &ParamsLiteral) -> Result<(), (String, String)> {
        let top = literal.ladder.len().saturating_sub(1);
        let sizes = [self.slots_to_coeffs, self.eval_mod, self.coeffs_to_slots, self.degree, self.double_angles, self.weight];
        if sizes.iter().any(|&size| size > 1 << 20) || self.k > 1 << 10 || self.k < 2 || self.degree == 0 {
            return Err(("a degree, and |I| < 2 to 1024".into(), format!("{self:?}")));
        }
        let depth = (usize::BITS - self.degree.leading_zeros()) as usize + self.double_angles;
        if self.eval_mod != depth {
            return Err((format!("{depth} levels of EvalMod"), self.eval_mod.to_string()));
        }
        if self.slots_to_coeffs == 0 || self.coeffs_to_slots == 0 {
            return Err(("a level for each linear transform".into(), "none".into()));
        }
        let least = self.slots_to_coeffs + self.eval_mod + self.coeffs_to_slots + 1;
        if top < least {
            return Err((format!("at least {least} levels, one of them left"), top.to_string()));
        }
        // A shift, not a power: log_n is checked when tables are built, after this.
        if self.weight == 0 || self.log_slots >= literal.log_n || self.weight.ilog2() >= literal.log_n {
            return Err((format!("weight and slots that fit N = 2^{}", literal.log_n), format!("{self:?}")));
        }
        Ok(())
    }

    /// As words, for the fingerprint.
    pub(super) fn words(&self) -> [u64; 8] {
        let Self { slots_to_coeffs, eval_mod, coeffs_to_slots, k, degree, double_angles, weight, log_slots } = *self;
        let word = |x: usize| x as u64;
        [
            word(slots_to_coeffs),
            word(eval_mod),
            word(coeffs_to_slots),
            k.into(),
            word(degree),
            word(double_angles),
            word(weight),
            log_slots.into(),
        ]
    }
}

/// The canonical scales of all levels: `divisors[l]` is what going from level l + 1 to l divides by.
pub(super) fn scales(bootstrap: Option<&Bootstrap>, base_scale: f64, q0: f64, divisors: &[f64]) -> Vec<Scale> {
    let top = divisors.len();
    let eval_mod_level = top - bootstrap.map_or(0, |b| b.coeffs_to_slots);
    let output = eval_mod_level - bootstrap.map_or(0, |b| b.eval_mod);
    let mut scales = vec![base_scale];
    for l in 1..=eval_mod_level {
        let below = if l == output + 1 { landing(scales[output], q0 / base_scale) } else { scales[l - 1] };
        scales.push((below * divisors[l - 1]).sqrt());
    }
    // The top holds what mod_raise gives: q0 times an integer.
    let entry = scales[eval_mod_level];
    for l in eval_mod_level + 1..=top {
        scales.push(if l == top { (entry / q0).round().max(1.0) * q0 } else { entry });
    }
    scales.into_iter().map(Scale).collect()
}

/// Scale at which the sine of EvalMod is the message at `scale`.
fn landing(scale: f64, ratio: f64) -> f64 {
    scale * (ratio / TAU)
}

impl Params {
    /// The bootstrapping circuit that the ladder has levels for.
    pub fn bootstrap(&self) -> Option<&Bootstrap> {
        self.literal.bootstrap.as_ref()
    }
    /// [`Self::bootstrap`], or an error.
    ///
    /// # Errors
    /// [`ParamsError::NoBootstrap`] where it has none.
    pub fn need_bootstrap(&self) -> Result<&Bootstrap, ParamsError> {
        self.bootstrap().ok_or_else(|| ParamsError::NoBootstrap { name: self.name().into() })
    }
    /// Where bootstrapping starts: the top of SlotsToCoeffs.
    ///
    /// # Errors
    /// As [`Self::need_bootstrap`].
    pub fn input_level(&self) -> Result<Level, ParamsError> {
        Ok(Level(self.need_bootstrap()?.slots_to_coeffs))
    }
    /// Where EvalMod ends: the highest level that a bootstrapped value has.
    ///
    /// # Errors
    /// As [`Self::need_bootstrap`].
    pub fn output_level(&self) -> Result<Level, ParamsError> {
        Ok(Level(self.eval_mod_level()?.0 - self.need_bootstrap()?.eval_mod))
    }
    /// Where EvalMod starts and CoeffsToSlots ends.
    ///
    /// # Errors
    /// As [`Self::need_bootstrap`].
    pub fn eval_mod_level(&self) -> Result<Level, ParamsError> {
        Ok(Level(self.max_level().0 - self.need_bootstrap()?.coeffs_to_slots))
    }
    /// The highest level that a value not inside bootstrapping can have: [`Self::output_level`], or the top where there is none.
    pub fn working_level(&self) -> Level {
        self.output_level().unwrap_or(self.max_level())
    }
    /// q0 over the scale of level 0.
    pub fn message_ratio(&self) -> f64 {
        self.q0() / self.scale(Level(0)).0
    }
    /// The integer that mod_raise multiplies by, so that the scale of the top is not far from that of EvalMod.
    pub fn raise_factor(&self) -> f64 {
        (self.scale(self.max_level()).0 / self.q0()).round()
    }
    /// The modulus of level 0.
    fn q0(&self) -> f64 {
        self.window(Level(0)).limbs().iter().fold(1.0, |acc, &l| acc * f64::from(self.tables.modulus(l).value()))
    }

    /// Scale of the product of two values at a level's canonical scale, rescaled: the canonical scale below, but at the lowest level of
    /// EvalMod (see [`Bootstrap`]) and in CoeffsToSlots.
    pub fn landing(&self, level: Level) -> Scale {
        match self.rule(level) {
            Rule::Product => self.scale(Level(level.0.saturating_sub(1))),
            Rule::EndOfEvalMod => Scale(landing(self.scale(Level(level.0 - 1)).0, self.message_ratio())),
            Rule::Plain => {
                let scale = self.scale(level).0;
                Scale(scale * (scale / self.divisor(level, Level(level.0 - 1))))
            }
        }
    }

    /// Scale for a plaintext factor of a value at a level's canonical scale that makes the product, rescaled, canonical: the level's own
    /// scale wherever products of two values are canonical too.
    pub fn plain_scale(&self, level: Level) -> Scale {
        match self.rule(level) {
            Rule::Product => self.scale(level),
            Rule::EndOfEvalMod | Rule::Plain => {
                let below = Level(level.0 - 1);
                Scale(self.scale(below).0 * (self.divisor(level, below) / self.scale(level).0))
            }
        }
    }

    fn rule(&self, level: Level) -> Rule {
        match (self.output_level(), self.eval_mod_level()) {
            (Ok(output), Ok(_)) if level.0 == output.0 + 1 => Rule::EndOfEvalMod,
            (Ok(_), Ok(eval_mod)) if level > eval_mod => Rule::Plain,
            _ => Rule::Product,
        }
    }
}

/// How a level's scale is related to that of the level below.
enum Rule {
    /// A product of two values lands on it.
    Product,
    /// A product lands on the scale at which it stands for the message.
    EndOfEvalMod,
    /// Products with plaintexts only.
    Plain,
}
