//! Polynomials in place of activations: what to fit, on which interval, with which weights.
//!
//! The interval is what calibration saw, widened by a margin to either side and asymmetric where the values are. The fit is
//! least squares under the measured distribution plus a floor: where the values are, it is close, and its error has mean 0
//! there; where none were seen, it is held by the floor. `docs/fitting.md` has the formulas and what they gain.

mod choose;

pub use choose::{Choice, ChooseError, ChooseOptions, Cost, CostError, NotRun, TriedFit, Watch, choose, levels};

use super::calibration::{Calibration, LayerInputs};
use super::clear::Range;
use super::model::{ActivationForm, ActivationFunction, FittedActivation, Model, ModelError};
use crate::circuits::approximation::sign::relu_sign;
use crate::circuits::approximation::{ApproximationError, Sample, least_squares};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Points at which a function is sampled, for each degree.
const SAMPLES_PER_DEGREE: usize = 48;

/// Why a network cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A function that has no composite form.
    #[error("layer {layer:?}: a composite sign stands for ReLU, and this is {function}")]
    NotRelu {
        /// Which layer.
        layer: String,
        /// Its function.
        function: ActivationFunction,
    },
    /// A function that is not defined where it is to be fitted.
    #[error(
        "layer {layer:?}: {function} is to be fitted on [{:.4}, {:.4}] ({margin} times the range seen, and 0), and has no finite value at or \
         near {at:.6}; put a bound before it that keeps what comes to it where it is defined (a clip, or adding a constant)",
        .interval[0], .interval[1]
    )]
    Undefined {
        /// Which layer.
        layer: String,
        /// Its function.
        function: ActivationFunction,
        /// Where it is to be fitted.
        interval: [f64; 2],
        /// How many times as long as the range seen that is.
        margin: f64,
        /// A point of the interval at or near which there is no value.
        at: f64,
    },
    /// A margin or floor that cannot be used.
    #[error("the {what} is {found}, {expected}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What it is.
        found: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// Settings for another number of layers.
    #[error("{found} fits for {expected} activations")]
    Layers {
        /// Activations.
        expected: usize,
        /// Settings given.
        found: usize,
    },
    /// The polynomial cannot be computed.
    #[error("layer {layer:?}: {source}")]
    Approximation {
        /// Which layer.
        layer: String,
        /// Why.
        source: ApproximationError,
    },
    /// The model does not take the fits.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What stands for an activation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One polynomial of a degree.
    Series(usize),
    /// For ReLU: a composite sign of these odd degrees, and a product.
    Sign(Vec<usize>),
}

impl Form {
    /// Levels it takes.
    pub fn depth(&self) -> usize {
        let log = |degree: &usize| (degree + 1).next_power_of_two().ilog2() as usize;
        match self {
            Self::Series(degree) => log(degree),
            Self::Sign(degrees) => degrees.iter().map(log).sum::<usize>() + 1,
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Series(degree) => write!(f, "degree {degree}"),
            Self::Sign(degrees) => write!(f, "composite sign {degrees:?}"),
        }
    }
}

/// How one activation is fitted.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FitSpec {
    /// What is computed.
    pub form: Form,
    /// The interval is this many times as long as the range seen, about its middle; 1 or more.
    pub margin: f64,
    /// How much of the weight is spread over the whole interval rather than laid where values were seen, above 0 and at
    /// most 1: with 1 it is an ordinary Chebyshev fit. Small floors are closer where it matters and wilder where values are rare.
    pub floor: f64,
}

impl FitSpec {
    /// A polynomial of a degree with the usual margin and floor.
    pub fn series(degree: usize) -> Self {
        Self { form: Form::Series(degree), margin: DEFAULT_MARGIN, floor: DEFAULT_FLOOR }
    }
}

/// The margin that [`FitSpec::series`] takes.
pub const DEFAULT_MARGIN: f64 = 1.3;
/// The floor that [`FitSpec::series`] takes.
pub const DEFAULT_FLOOR: f64 = 1e-3;

/// The interval for a range seen: `margin` times as long, about the same middle, and with 0 inside (a slot without an
/// element holds 0).
pub fn interval(seen: Range, margin: f64) -> [f64; 2] {
    let (middle, half) = ((seen.min + seen.max) / 2.0, (seen.max - seen.min) / 2.0 * margin);
    [(middle - half).min(0.0), (middle + half).max(0.0)]
}

/// The fit of one activation to what it was fed.
///
/// # Errors
/// [`FitError::Setting`] for a margin outside 1 to 100 or a floor outside 1e-9 to 1, [`FitError::Undefined`] where the function has no
/// value on part of the interval, [`FitError::NotRelu`] for a composite sign of another function, [`FitError::Approximation`] where the
/// polynomial cannot be computed.
pub fn fit_layer(layer: &LayerInputs, spec: &FitSpec) -> Result<FittedActivation, FitError> {
    if !(1.0..=100.0).contains(&spec.margin) {
        return Err(FitError::Setting { what: "margin", found: spec.margin, expected: "from 1 to 100 is usable" });
    }
    if !(1e-9..=1.0).contains(&spec.floor) {
        return Err(FitError::Setting { what: "floor", found: spec.floor, expected: "from 1e-9 to 1 is usable" });
    }
    let refuse = |source| FitError::Approximation { layer: layer.name.clone(), source };
    let [a, b] = interval(layer.range(), spec.margin);
    let function = layer.function.clone();
    if let Some(at) = function.undefined_in([a, b]) {
        let (layer, margin) = (layer.name.clone(), spec.margin);
        return Err(FitError::Undefined { layer, function, interval: [a, b], margin, at });
    }
    let form = match &spec.form {
        Form::Series(degree) => {
            let count = SAMPLES_PER_DEGREE * (degree + 1).max(32);
            let samples = samples(layer, [a, b], count, spec.floor);
            ActivationForm::Chebyshev(least_squares(&samples, *degree, [a, b]).map_err(refuse)?)
        }
        Form::Sign(degrees) => {
            if function != ActivationFunction::Relu {
                return Err(FitError::NotRelu { layer: layer.name.clone(), function });
            }
            ActivationForm::Sign { stages: relu_sign(degrees).map_err(refuse)?.stages, bound: b.max(-a) }
        }
    };
    Ok(FittedActivation { function, form })
}

/// `f` at points spread as Chebyshev nodes are. The points alone carry the floor; each weighs more by the measured density
/// over the density of the points.
fn samples(layer: &LayerInputs, [a, b]: [f64; 2], count: usize, floor: f64) -> Vec<Sample> {
    let at = |i: usize| {
        let angle = std::f64::consts::PI * (i as f64 + 0.5) / count as f64;
        let x = (a + b) / 2.0 - (b - a) / 2.0 * angle.cos();
        let points = 2.0 / (std::f64::consts::PI * (b - a) * angle.sin());
        let weight = floor + (1.0 - floor) * layer.histogram.density(x) / points;
        Sample { x, y: layer.function.value(x), weight: weight / count as f64 }
    };
    (0..count).map(at).collect()
}

/// The model with every activation fitted: one spec for all, or one each in the order of the calibration. All threads.
///
/// # Errors
/// [`FitError::Layers`] for another number of specs, those of [`fit_layer`], [`FitError::Model`] where the calibration is of another model.
pub fn fit(model: &Model, calibration: &Calibration, specs: &[FitSpec]) -> Result<Model, FitError> {
    Fits::default().fit(model, calibration, specs)
}

/// Fits of the layers of one calibration that were made before.
#[derive(Default)]
struct Fits(Mutex<HashMap<FitKey, FittedActivation>>);

/// A layer, the form, and the bits of margin and floor.
type FitKey = (usize, Form, [u64; 2]);

impl Fits {
    /// [`fit`], always to the same calibration.
    fn fit(&self, model: &Model, calibration: &Calibration, specs: &[FitSpec]) -> Result<Model, FitError> {
        let layers = &calibration.layers;
        if specs.len() != 1 && specs.len() != layers.len() {
            return Err(FitError::Layers { expected: layers.len(), found: specs.len() });
        }
        let one = |(k, layer): (usize, &LayerInputs)| {
            let spec = &specs[k % specs.len()];
            let key = (k, spec.form.clone(), [spec.margin.to_bits(), spec.floor.to_bits()]);
            let known = self.lock().get(&key).cloned();
            let fitted = known.map_or_else(|| fit_layer(layer, spec), Ok)?;
            self.lock().entry(key).or_insert_with(|| fitted.clone());
            Ok((layer.node, fitted))
        };
        let fitted = layers.par_iter().enumerate().map(one);
        Ok(model.with_activations(&fitted.collect::<Result<BTreeMap<_, _>, FitError>>()?)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FitKey, FittedActivation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
