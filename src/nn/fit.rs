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
use crate::circuits::approximation::{ApproximationError, Sample, Spread, best_spread, least_squares};
use crate::circuits::polynomial::Chebyshev;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Points at which a function is sampled, for each degree.
const SAMPLES_PER_DEGREE: usize = 48;

/// Why a network cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
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
    /// Polynomials of these degrees one after the other, and for functions like ReLU a product with their input: those before the last, of odd
    /// degrees, spread what is near the bend, and the last is fitted. Where that is no nearer than one polynomial of degree [`LONGEST`]
    /// ([`fit_layer`] sees), that one.
    Composite(Vec<usize>),
}

/// The degree of the polynomial that a composite must be nearer than.
pub const LONGEST: usize = 255;

impl Form {
    /// Levels it takes at most.
    pub fn depth(&self) -> usize {
        let log = |degree: &usize| (degree + 1).next_power_of_two().ilog2() as usize;
        match self {
            Self::Series(degree) => log(degree),
            Self::Composite(degrees) => log(&LONGEST).max(degrees.iter().map(log).sum::<usize>() + 1),
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Series(degree) => write!(f, "degree {degree}"),
            Self::Composite(degrees) => write!(f, "composite {degrees:?}"),
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

/// The fit of one activation to what it was fed. Cost: for a composite, some ten least squares over 6,144 points.
///
/// # Errors
/// [`FitError::Setting`] for a margin outside 1 to 100 or a floor outside 1e-9 to 1, [`FitError::Undefined`] where the function has no
/// value on part of the interval, [`FitError::Approximation`] where the polynomial cannot be computed.
pub fn fit_layer(layer: &LayerInputs, spec: &FitSpec) -> Result<FittedActivation, FitError> {
    let spreads = match &spec.form {
        Form::Composite(degrees) => spreads(degrees),
        Form::Series(_) => Ok(Vec::new()),
    };
    fit_spread(layer, spec, &spreads.map_err(|source| FitError::Approximation { layer: layer.name.clone(), source })?)
}

/// What may stand before the last polynomial of a composite.
fn spreads(degrees: &[usize]) -> Result<Vec<Spread>, ApproximationError> {
    match degrees.split_last() {
        Some((_, before)) if !before.is_empty() => Spread::all(before),
        _ => Err(ApproximationError::Degree { found: degrees.len(), expected: "two degrees or more for a composite" }),
    }
}

/// [`fit_layer`] with what may stand before the last polynomial of a composite.
fn fit_spread(layer: &LayerInputs, spec: &FitSpec, spreads: &[Spread]) -> Result<FittedActivation, FitError> {
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
    let series = |degree: usize| {
        let samples = samples(layer, [a, b], SAMPLES_PER_DEGREE * (degree + 1).max(32), spec.floor);
        let p = least_squares(&samples, degree, [a, b])?;
        let squares = samples.iter().map(|s| s.weight * (p.value(s.x) - s.y).powi(2)).sum::<f64>();
        Ok((squares / samples.iter().map(|s| s.weight).sum::<f64>(), ActivationForm::Chebyshev(p)))
    };
    let form = match &spec.form {
        Form::Series(degree) => series(*degree).map_err(refuse)?.1,
        Form::Composite(degrees) => {
            let composites = [ramp(layer, [a, b], spec, spreads, degrees), bend(layer, [a, b], spec, spreads, degrees)];
            let found = composites.into_iter().flatten().chain([series(LONGEST).map_err(refuse)?]);
            let nearest = found.reduce(|best, next| if next.0 < best.0 { next } else { best });
            nearest.map(|(_, form)| form).ok_or_else(|| refuse(ApproximationError::Singular { degree: LONGEST }))?
        }
    };
    Ok(FittedActivation { function, form })
}

/// Points at which a composite is sampled, to each side of its centre.
const SAMPLES_OF_A_SIDE: usize = 3072;
/// The nearest of them, in parts of half the interval.
const NEAREST: f64 = 1e-5;

/// The function at points about a centre, each 0.4 % further out than the one before, `half` away at most: a composite bends
/// where it is 0 as sharply as a polynomial of thousands of degrees. Weights as in [`samples`], positions in parts of `half`.
fn samples_about(layer: &LayerInputs, centre: f64, half: f64, floor: f64) -> Vec<Sample> {
    let step = (1.0 / NEAREST).powf(1.0 / SAMPLES_OF_A_SIDE as f64);
    let at = |i: usize| {
        let (t, side) = (NEAREST * step.powf((i / 2) as f64 + 0.5), if i.is_multiple_of(2) { 1.0 } else { -1.0 });
        let x = centre + half * t * side;
        let width = half * t * (step.sqrt() - 1.0 / step.sqrt());
        let chebyshev = 1.0 / (std::f64::consts::PI * half * (1.0 - t * t).sqrt());
        let weight = width * (floor * chebyshev + (1.0 - floor) * layer.histogram.density(x));
        Sample { x: t * side, y: layer.function.value(x), weight }
    };
    (0..2 * SAMPLES_OF_A_SIDE).map(at).collect()
}

/// For a function that is flat at both ends of its interval: a composite about the middle of its ramp, and its mean square error. None where it is not flat, or nothing
/// can be fitted.
fn ramp(
    layer: &LayerInputs,
    [a, b]: [f64; 2],
    spec: &FitSpec,
    spreads: &[Spread],
    degrees: &[usize],
) -> Option<(f64, ActivationForm)> {
    let f = |x: f64| layer.function.value(x);
    // Between the ends it changes; near them it does not.
    let (low, high) = (f(a), f(b));
    let near = (b - a) * FLAT;
    if [f(a + near) - low, high - f(b - near)].iter().any(|step| step.abs() > FLAT * (high - low).abs()) {
        return None;
    }
    let wanted = (low + high) / 2.0;
    let distance = |x: &f64| (f(*x) - wanted).abs();
    let places = (0..=RAMP_PLACES).map(|i| a + (b - a) * f64::from(i) / f64::from(RAMP_PLACES));
    let centre = places.min_by(|x, y| distance(x).total_cmp(&distance(y)))?;
    let half = (b - centre).max(centre - a);
    let whole = [centre - half, centre + half];
    if layer.function.undefined_in(whole).is_some() {
        return None;
    }
    let found = best_spread(spreads, &samples_about(layer, centre, half, spec.floor), *degrees.last()?, false)?;
    let mut stages = found.stages;
    let first = stages.first_mut()?;
    *first = Chebyshev::new(first.coefficients().to_vec(), whole).ok()?;
    Some((found.mean_square, ActivationForm::Composite(stages)))
}

/// Near an end of an interval is this part of it, and flat is what changes there by no more than this part of the whole.
const FLAT: f64 = 1.0 / 64.0;
/// Places that are tried for the middle of a ramp.
const RAMP_PLACES: u32 = 4096;

/// For a function with a bend at 0, where it is 0: a composite near `2 f(x) / x - 1`, and the mean square error that this makes in f. None where it is not
/// 0, or nothing can be fitted.
fn bend(
    layer: &LayerInputs,
    [a, b]: [f64; 2],
    spec: &FitSpec,
    spreads: &[Spread],
    degrees: &[usize],
) -> Option<(f64, ActivationForm)> {
    let bound = b.max(-a);
    if layer.function.value(0.0) != 0.0 || layer.function.undefined_in([-bound, bound]).is_some() {
        return None;
    }
    // Only what ReLU asks for is odd.
    let odd = layer.function == ActivationFunction::Relu;
    let samples = samples_about(layer, 0.0, bound, spec.floor);
    let whole = samples.iter().map(|s| s.weight).sum::<f64>();
    let factor = |s: &Sample| {
        let x = s.x * bound;
        Sample { x: s.x, y: 2.0 * s.y / x - 1.0, weight: s.weight * x * x / 4.0 }
    };
    let factors: Vec<Sample> = samples.iter().map(factor).collect();
    let weights = factors.iter().map(|s| s.weight).sum::<f64>();
    let found = best_spread(spreads, &factors, *degrees.last()?, odd)?;
    Some((found.mean_square * weights / whole, ActivationForm::Sign { stages: found.stages, bound }))
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
struct Fits {
    made: Mutex<HashMap<FitKey, FittedActivation>>,
    /// What may stand before the last polynomial, by all degrees.
    spreads: Mutex<HashMap<Vec<usize>, Arc<Vec<Spread>>>>,
}

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
            let known = lock(&self.made).get(&key).cloned();
            let fitted = known.map_or_else(|| fit_spread(layer, spec, &self.spreads(layer, spec)?), Ok)?;
            lock(&self.made).entry(key).or_insert_with(|| fitted.clone());
            Ok((layer.node, fitted))
        };
        let fitted = layers.par_iter().enumerate().map(one);
        Ok(model.with_activations(&fitted.collect::<Result<BTreeMap<_, _>, FitError>>()?)?)
    }

    fn spreads(&self, layer: &LayerInputs, spec: &FitSpec) -> Result<Arc<Vec<Spread>>, FitError> {
        let Form::Composite(degrees) = &spec.form else { return Ok(Arc::default()) };
        // Held while they are made: other layers want the same.
        let mut known = lock(&self.spreads);
        if let Some(found) = known.get(degrees) {
            return Ok(Arc::clone(found));
        }
        let made = spreads(degrees).map_err(|source| FitError::Approximation { layer: layer.name.clone(), source })?;
        Ok(Arc::clone(known.entry(degrees.clone()).or_insert(Arc::new(made))))
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
