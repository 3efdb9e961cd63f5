//! Activations: exact ones, as a network was trained with them, and the polynomials that stand for them when it runs
//! encrypted.

use super::formula::{Formula, number};
use crate::circuits::polynomial::Chebyshev;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};
use std::fmt;

/// A function of one number, applied to every element. Definitions follow ONNX.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActivationFunction {
    /// `max(x, 0)`.
    Relu,
    /// x above 0, `alpha x` below.
    LeakyRelu {
        /// Slope below 0.
        alpha: f64,
    },
    /// x above 0, `alpha (e^x - 1)` below.
    Elu {
        /// Limit below 0, negated.
        alpha: f64,
    },
    /// `gamma x` above 0, `gamma alpha (e^x - 1)` below.
    Selu {
        /// Limit below 0, negated and divided by gamma.
        alpha: f64,
        /// Slope above 0.
        gamma: f64,
    },
    /// x above 0, `alpha (e^(x / alpha) - 1)` below.
    Celu {
        /// Limit below 0, negated.
        alpha: f64,
    },
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `alpha x + beta` within [0, 1].
    HardSigmoid {
        /// Slope.
        alpha: f64,
        /// Value at 0.
        beta: f64,
    },
    /// `x sigmoid(x)`.
    Silu,
    /// `x (x / 6 + 1 / 2)`, the factor within [0, 1].
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `log(1 + e^x)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x tanh(softplus(x))`.
    Mish,
    /// The error function.
    Erf,
    /// x within [min, max].
    Clip {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Any other function of x.
    Formula {
        /// How it is computed.
        steps: Formula,
    },
}

impl ActivationFunction {
    /// Whether it is known that a greater argument has no lesser value: of the greatest of some numbers, it is then the greatest of its
    /// values.
    pub fn never_falls(&self) -> bool {
        match *self {
            Self::Relu | Self::Sigmoid | Self::Tanh | Self::Softplus | Self::Softsign | Self::Erf | Self::Clip { .. } => true,
            Self::LeakyRelu { alpha } | Self::Elu { alpha } | Self::HardSigmoid { alpha, .. } => alpha >= 0.0,
            Self::Celu { alpha } => alpha > 0.0,
            Self::Selu { alpha, gamma } => alpha >= 0.0 && gamma >= 0.0,
            Self::Gelu | Self::GeluTanh | Self::Silu | Self::HardSwish | Self::Mish | Self::Formula { .. } => false,
        }
    }

    /// Whether it is known to have no value below 0.
    pub fn never_negative(&self) -> bool {
        match *self {
            Self::Relu | Self::Sigmoid | Self::Softplus | Self::HardSigmoid { .. } => true,
            Self::Clip { min, .. } => min >= 0.0,
            _ => false,
        }
    }

    /// The exact value.
    pub fn value(&self, x: f64) -> f64 {
        let exponential = |alpha: f64, x: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
        match *self {
            Self::Relu => x.max(0.0),
            Self::LeakyRelu { alpha } => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            Self::Elu { alpha } => exponential(alpha, x),
            Self::Selu { alpha, gamma } => gamma * exponential(alpha, x),
            Self::Celu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * (x / alpha).exp_m1()
                }
            }
            Self::Gelu => x * 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Self::GeluTanh => x * 0.5 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
            Self::Sigmoid => sigmoid(x),
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::Silu => x * sigmoid(x),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Tanh => x.tanh(),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Mish => x * softplus(x).tanh(),
            Self::Erf => erf(x),
            Self::Clip { min, max } => x.max(min).min(max),
            Self::Formula { ref steps } => steps.value(x),
        }
    }

    /// A point of an interval at or near which its value is no finite number; none if it is defined in all of it.
    pub fn undefined_in(&self, interval: [f64; 2]) -> Option<f64> {
        match self {
            Self::Formula { steps } => steps.undefined_in(interval),
            _ => None,
        }
    }

    /// Its name, without parameters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Elu { .. } => "elu",
            Self::Selu { .. } => "selu",
            Self::Celu { .. } => "celu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid { .. } => "hard_sigmoid",
            Self::Silu => "silu",
            Self::HardSwish => "hard_swish",
            Self::Tanh => "tanh",
            Self::Softplus => "softplus",
            Self::Softsign => "softsign",
            Self::Mish => "mish",
            Self::Erf => "erf",
            Self::Clip { .. } => "clip",
            Self::Formula { .. } => "formula",
        }
    }

    /// What makes it unusable, if anything does: a parameter that is not finite, or out of order.
    pub(in crate::nn) fn problem(&self) -> Option<String> {
        let parameters: &[f64] = match self {
            Self::LeakyRelu { alpha } | Self::Elu { alpha } | Self::Celu { alpha } => &[*alpha],
            Self::Selu { alpha: a, gamma: b } | Self::HardSigmoid { alpha: a, beta: b } | Self::Clip { min: a, max: b } => {
                &[*a, *b]
            }
            _ => &[],
        };
        if let Some(p) = parameters.iter().find(|p| !p.is_finite()) {
            return Some(format!("{} has the parameter {p}; parameters must be finite", self.name()));
        }
        match self {
            Self::Formula { steps } => steps.problem(),
            Self::Celu { alpha: 0.0 } => Some("celu divides by its alpha, which is 0".into()),
            Self::Clip { min, max } if min > max => Some(format!("clip has a least value {min} above its largest, {max}")),
            _ => None,
        }
    }
}

impl fmt::Display for ActivationFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeakyRelu { alpha } | Self::Elu { alpha } | Self::Celu { alpha } => {
                write!(f, "{}({})", self.name(), number(*alpha))
            }
            Self::Selu { alpha: a, gamma: b } | Self::HardSigmoid { alpha: a, beta: b } | Self::Clip { min: a, max: b } => {
                write!(f, "{}({}, {})", self.name(), number(*a), number(*b))
            }
            Self::Formula { steps } => steps.fmt(f),
            _ => f.write_str(self.name()),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    // For large x the exponential overflows, and what it adds to x is nothing.
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function, to some units in the last place: `2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (1 3 ... (2n+1))`, all
/// of whose terms have one sign (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    // 1 - erf(6) is below 2^-55.
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while sum + term != sum {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// A polynomial, or a composite of polynomials, that stands for an activation on an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedActivation {
    /// What it stands for.
    pub function: ActivationFunction,
    /// What is computed in its place.
    pub form: ActivationForm,
}

/// What is computed in place of an activation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ActivationForm {
    /// One polynomial; its interval is where the input may lie.
    Chebyshev(Chebyshev),
    /// Polynomials one after the other; the interval of the first is where the input may lie, the others are on `[-1, 1]`. For functions that
    /// are flat outside a short ramp.
    Composite(Vec<Chebyshev>),
    /// `x (1 + s(x / bound)) / 2` for x in `[-bound, bound]`, with s a composite of polynomials on `[-1, 1]`, the first of which is applied
    /// first: for ReLU near the sign of its argument (Lee et al., IEEE TDSC 2021), for others near `2 f(x) / x - 1`.
    Sign {
        /// The polynomials; each maps `[-1, 1]` to itself, or nearly.
        stages: Vec<Chebyshev>,
        /// Largest magnitude of the input.
        bound: f64,
    },
}

impl FittedActivation {
    /// Where the input may lie.
    pub fn interval(&self) -> [f64; 2] {
        match &self.form {
            ActivationForm::Chebyshev(p) => p.interval(),
            ActivationForm::Composite(stages) => stages.first().map_or([-1.0, 1.0], Chebyshev::interval),
            ActivationForm::Sign { bound, .. } => [-bound, *bound],
        }
    }

    /// What an encrypted run computes, but for its noise.
    pub fn value(&self, x: f64) -> f64 {
        match &self.form {
            ActivationForm::Chebyshev(p) => p.value(x),
            ActivationForm::Composite(stages) => stages.iter().fold(x, |t, p| p.value(t)),
            ActivationForm::Sign { stages, bound } => x * 0.5 * (1.0 + stages.iter().fold(x / bound, |t, p| p.value(t))),
        }
    }

    /// The degree of each polynomial, in the order in which they are applied.
    pub fn degrees(&self) -> Vec<usize> {
        match &self.form {
            ActivationForm::Chebyshev(p) => vec![p.degree()],
            ActivationForm::Composite(stages) | ActivationForm::Sign { stages, .. } => {
                stages.iter().map(Chebyshev::degree).collect()
            }
        }
    }

    /// Levels, where the layer before makes the polynomial's own variable.
    pub fn depth(&self) -> usize {
        let log = |degree: usize| (degree + 1).next_power_of_two().ilog2() as usize;
        let product = usize::from(matches!(self.form, ActivationForm::Sign { .. }));
        self.degrees().into_iter().map(log).sum::<usize>() + product
    }

    /// What makes it unusable, if anything does.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(problem) = self.function.problem() {
            return Some(problem);
        }
        let degree = self.degrees().into_iter().max().unwrap_or(0);
        if degree > super::MAX_POLYNOMIAL_DEGREE {
            return Some(format!("a polynomial of degree {degree}, the limit is {}", super::MAX_POLYNOMIAL_DEGREE));
        }
        let (stages, on_unit) = match &self.form {
            ActivationForm::Chebyshev(_) => return None,
            ActivationForm::Composite(stages) => (stages, stages.get(1..).unwrap_or_default()),
            ActivationForm::Sign { stages, bound } if bound.is_finite() && *bound > 0.0 => (stages, &stages[..]),
            ActivationForm::Sign { bound, .. } => return Some(format!("the bound {bound} is not positive and finite")),
        };
        let placed = on_unit.iter().all(|p| p.interval() == [-1.0, 1.0]);
        let sound = placed && (1..=MAX_STAGES).contains(&stages.len());
        (!sound).then(|| format!("a composite has 1 to {MAX_STAGES} stages, all behind the first on [-1, 1]"))
    }
}

/// Most polynomials of a composite.
const MAX_STAGES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // From tables (erf: Abramowitz and Stegun, table 7.1) and by hand.
        for (function, x, want) in [
            (ActivationFunction::Erf, 0.5, 0.5204998778130465),
            (ActivationFunction::Erf, -2.0, -0.9953222650189527),
            (ActivationFunction::Erf, 1e-9, 1e-9 * FRAC_2_SQRT_PI),
            (ActivationFunction::Erf, 5.9, 1.0),
            (ActivationFunction::Gelu, 1.0, 0.8413447460685429),
            (ActivationFunction::GeluTanh, 1.0, 0.8411919906082768),
            (ActivationFunction::Silu, 2.0, 1.7615941559557649),
            (ActivationFunction::Sigmoid, -800.0, 0.0),
            (ActivationFunction::Softplus, 800.0, 800.0),
            (ActivationFunction::Softplus, 0.0, std::f64::consts::LN_2),
            (ActivationFunction::Mish, 1.0, 0.8650983882673103),
            (ActivationFunction::HardSwish, -1.5, -0.375),
            (ActivationFunction::HardSigmoid { alpha: 0.2, beta: 0.5 }, 1.0, 0.7),
            (ActivationFunction::LeakyRelu { alpha: 0.25 }, -2.0, -0.5),
            (ActivationFunction::Elu { alpha: 2.0 }, -1.0, -1.2642411176571153),
            (ActivationFunction::Celu { alpha: 2.0 }, -2.0, -1.2642411176571153),
            (ActivationFunction::Selu { alpha: 2.0, gamma: 3.0 }, -1.0, -3.792723352971346),
            (ActivationFunction::Softsign, -3.0, -0.75),
            (ActivationFunction::Clip { min: 0.0, max: 6.0 }, 7.0, 6.0),
        ] {
            let found = function.value(x);
            assert!((found - want).abs() <= 1e-15 * (1.0 + want.abs()), "{function} of {x}: {found}, expected {want}");
        }
        assert!(erf(f64::NAN).is_nan() && erf(f64::INFINITY) == 1.0 && erf(-1e300) == -1.0);
    }

    #[test]
    fn composites_are_what_they_say() {
        let stage = Chebyshev::new(vec![0.0, 1.125, 0.0, -0.125], [-1.0, 1.0]).expect("a polynomial");
        let fitted = |form| FittedActivation { function: ActivationFunction::Relu, form };
        let relu = fitted(ActivationForm::Sign { stages: vec![stage.clone(); 8], bound: 4.0 });
        assert_eq!((relu.interval(), relu.depth(), relu.degrees()), ([-4.0, 4.0], 17, vec![3; 8]));
        // (3 t - t^3) / 2, eight times: 0.998 at a tenth.
        for x in [-4.0, -0.4, 0.0, 0.4, 3.9] {
            assert!((relu.value(x) - f64::max(x, 0.0)).abs() < 1e-3, "{x}: {}", relu.value(x));
        }
        assert_eq!(relu.problem(), None);
        assert!(fitted(ActivationForm::Sign { stages: vec![stage.clone()], bound: f64::NAN }).problem().is_some());
        assert!(fitted(ActivationForm::Sign { stages: vec![], bound: 1.0 }).problem().is_some());
        // One after the other: the first on its interval, the others on [-1, 1].
        let first = Chebyshev::new(stage.coefficients().to_vec(), [-1.0, 7.0]).expect("a polynomial");
        let chain = fitted(ActivationForm::Composite(vec![first.clone(), stage.clone()]));
        assert_eq!((chain.interval(), chain.depth(), chain.degrees()), ([-1.0, 7.0], 4, vec![3; 2]));
        assert_eq!(chain.value(5.0), stage.value(stage.value(0.5)));
        assert_eq!(chain.problem(), None);
        assert!(fitted(ActivationForm::Composite(vec![first.clone(), first])).problem().is_some());
        assert!(fitted(ActivationForm::Composite(vec![])).problem().is_some());
    }
}
