//! What encryption will do to a network's answers, found without encrypting: the fitted polynomials and the noise of the
//! scheme, on clear numbers, over many pictures.

mod foresee;
mod judge;
mod zoom;

use super::clear::{Network, Range};
use super::model::{FittedActivation, MAGNITUDE_MARGIN, Model, Operator, Value};
use super::tensor::{ShapeMismatch, Tensor};
use chacha20::ChaCha8Rng;
use foresee::part_beyond;
pub use foresee::{Margins, Tail};
pub use judge::Judge;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

/// The part of a logit by which `f32` may be off at the end of a deep network.
const F32_RESOLUTION: f32 = 1.0 / 65536.0;

/// Most pictures that are evaluated zoomed.
const ZOOMED: usize = 256;

/// Noise that a run adds, relative to the numbers as they are stored: each polynomial's input in `[-1, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct NoiseLevels {
    /// Standard deviation added before each activation: what the layers since the last one add, and a bootstrap.
    pub before: f64,
    /// Standard deviation that evaluating a polynomial adds to its result.
    pub polynomial: f64,
}

impl NoiseLevels {
    /// No noise: what is left is the error of the fits.
    pub const NONE: Self = Self { before: 0.0, polynomial: 0.0 };

    /// Of a bootstrap of this precision (bits of standard deviation) before each activation, and polynomials as precise.
    pub fn bits(bits: f64) -> Self {
        Self { before: (-bits).exp2(), polynomial: (-bits).exp2() }
    }
}

/// Why a simulation cannot be run, or what it found wrong.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SimulateError {
    /// No picture at all.
    #[error("no pictures to simulate on")]
    NoPictures,
    /// A picture of another shape.
    #[error("picture {picture} of {pictures} is of the wrong kind: {source}")]
    WrongKind {
        /// Its index, from 0.
        picture: usize,
        /// How many there are.
        pictures: usize,
        /// What was expected and what came.
        source: ShapeMismatch,
    },
    /// Exact logits for fewer pictures than are simulated.
    #[error("{pictures} pictures are to be compared with the exact network's logits, which came for {found}")]
    ExactLogits {
        /// Pictures there are.
        pictures: usize,
        /// Logits that came.
        found: usize,
    },
    /// The exact network itself gives no number.
    #[error("picture {picture}: the exact network gives a logit that is no finite number")]
    NotFinite {
        /// Its index, from 0.
        picture: usize,
    },
    /// A value is larger than what calibration saw, and it may be bootstrapped.
    #[error(
        "layer {layer:?} makes a value of magnitude {value:.4}, and it runs for {most:.4} at most, {MAGNITUDE_MARGIN} times what \
         calibration saw; calibrate on pictures like this one"
    )]
    TooLarge {
        /// Which layer.
        layer: String,
        /// The magnitude.
        value: f64,
        /// The largest it may have.
        most: f64,
    },
    /// An activation was fed more than its polynomial is good for.
    #[error(
        "layer {layer:?} is fed {value:.4} by picture {picture}, outside the [{:.4}, {:.4}] its polynomial was fitted on ({:.3} of the way \
         from the middle to the end); it is the first layer that is left: by {outside} of {pictures} pictures; calibrate on pictures like \
         them, or with a wider margin", .interval[0], .interval[1], .used
    )]
    OutOfRange {
        /// Which layer.
        layer: String,
        /// The value.
        value: f64,
        /// Where the polynomial is good.
        interval: [f64; 2],
        /// Distance from the middle of the interval over half its length.
        used: f64,
        /// Index of the picture, from 0.
        picture: usize,
        /// Pictures that leave their first interval here.
        outside: usize,
        /// Pictures in all.
        pictures: usize,
    },
}

/// A picture, normalised, and what it shows if that is known.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The model's input.
    pub x: Tensor<f32>,
    /// Class index.
    pub label: Option<usize>,
}

/// How much of its interval an activation used, on pictures that had left none before: behind an interval that is left, values
/// are wreckage.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayerUse {
    /// Name of the layer.
    pub layer: String,
    /// Degrees of its polynomials.
    pub degrees: Vec<usize>,
    /// Levels they take.
    pub depth: usize,
    /// Where it is good.
    pub interval: [f64; 2],
    /// Smallest input seen.
    pub min: f64,
    /// Largest input seen.
    pub max: f64,
    /// Largest distance from the middle over half the length: above 1 the polynomial is out of control.
    pub used: f64,
    /// The picture that used most, from 0.
    pub picture: usize,
    /// Pictures that left their first interval here.
    pub outside: usize,
    /// The part of unseen pictures that should leave this interval, by the tail of what these used.
    pub expected_outside: f64,
    /// That tail, in parts of half the interval; none of too few pictures.
    #[serde(skip)]
    pub tail: Option<Tail>,
}

/// What a simulation found.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Simulation {
    /// Pictures.
    pub pictures: usize,
    /// What their answers are.
    pub judge: Judge,
    /// Answers: one a picture, or one for every two.
    pub answers: usize,
    /// Those of which labels tell what they should be.
    pub labelled: usize,
    /// Those that the exact network gets right.
    pub exact_correct: usize,
    /// Those that the simulated network gets right.
    pub simulated_correct: usize,
    /// Answers that are the same of both.
    pub agree: usize,
    /// The part of the answers on unseen pictures that should be the same, from the margins of the exact answers and the errors seen
    /// where no interval was left; 0 if all pictures left one.
    pub expected_agreement: f64,
    /// The part of unseen pictures that should leave an interval.
    pub expected_outside: f64,
    /// Median difference between the two largest exact logits.
    pub median_margin: f64,
    /// Mean of how far that difference moved, either way.
    pub mean_shift: f64,
    /// Pictures with a logit that is no finite number.
    pub diverged: usize,
    /// Mean of |logit - exact logit|, over pictures that did not diverge.
    pub mean_error: f64,
    /// Root of the mean square of it.
    pub rms_error: f64,
    /// Largest.
    pub max_error: f64,
    /// The largest magnitude of a logit, over pictures that did not diverge.
    pub largest_logit: f64,
    /// Activations in the order of the graph.
    pub layers: Vec<LayerUse>,
    /// The class of each answer, by the simulated and by the exact network; none where it diverged.
    #[serde(skip)]
    pub predictions: Vec<(Option<usize>, usize)>,
}

impl Simulation {
    /// Answers that are the same of both networks, of all.
    pub fn agreement(&self) -> f64 {
        if self.answers == 0 { 1.0 } else { self.agree as f64 / self.answers as f64 }
    }

    /// Labelled answers that the simulated network gets right, of all; none if there are none.
    pub fn accuracy(&self) -> Option<f64> {
        (self.labelled > 0).then(|| self.simulated_correct as f64 / self.labelled as f64)
    }

    /// Labelled answers that the exact network gets right, of all; none if there are none.
    pub fn exact_accuracy(&self) -> Option<f64> {
        (self.labelled > 0).then(|| self.exact_correct as f64 / self.labelled as f64)
    }

    /// No picture leaves an interval, or the first layer where one does, in the order of the network, is the error.
    ///
    /// # Errors
    /// [`SimulateError::OutOfRange`].
    pub fn check_ranges(&self) -> Result<(), SimulateError> {
        check_ranges(&self.layers, self.pictures)
    }
}

fn check_ranges(layers: &[LayerUse], pictures: usize) -> Result<(), SimulateError> {
    let Some(l) = layers.iter().find(|l| l.outside > 0) else { return Ok(()) };
    let [a, b] = l.interval;
    let value = if l.max - b > a - l.min { l.max } else { l.min };
    let (layer, interval, used) = (l.layer.clone(), l.interval, l.used);
    Err(SimulateError::OutOfRange { layer, value, interval, used, picture: l.picture, outside: l.outside, pictures })
}

/// Evaluates pictures with the fitted polynomials and noise, and without either; answers are classes. All threads; the noise depends on `seed` and
/// the index of the picture alone. The same is found however many threads there are.
///
/// # Errors
/// [`SimulateError::NoPictures`], and those of [`exact_logits`].
pub fn simulate(model: &Model, pictures: &[Labelled], noise: NoiseLevels, seed: u64) -> Result<Simulation, SimulateError> {
    simulate_against(&ExactAnswers::of(model, pictures, Judge::Class)?, model, pictures, noise, seed)
}

/// What the exact network says of some pictures: what a simulation is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactAnswers {
    /// `[picture][class]`, those of [`exact_logits`].
    pub logits: Vec<Vec<f32>>,
    /// What the answers are.
    pub judge: Judge,
    /// How far the two largest logits of some of the pictures are apart where these are shown zoomed; it says how sure the network is of
    /// pictures that it has not seen. None where pictures are too small to be zoomed, or answers are of two.
    pub zoomed_margins: Vec<f64>,
}

impl ExactAnswers {
    /// Evaluates all pictures, and some of them zoomed. All threads.
    ///
    /// # Errors
    /// Those of [`exact_logits`].
    pub fn of(model: &Model, pictures: &[Labelled], judge: Judge) -> Result<Self, SimulateError> {
        let network = Network::<f32>::new(&model.exact());
        let logits = logits_by(&network, pictures.iter().map(|p| &p.x).collect())?;
        Ok(Self { logits, judge, zoomed_margins: zoomed_margins(&network, pictures, judge)? })
    }

    /// Of logits that are known.
    ///
    /// # Errors
    /// [`SimulateError::WrongKind`] for a picture of another shape.
    pub(in crate::nn) fn with_logits(
        model: &Model,
        pictures: &[Labelled],
        logits: Vec<Vec<f32>>,
        judge: Judge,
    ) -> Result<Self, SimulateError> {
        let network = Network::<f32>::new(&model.exact());
        Ok(Self { logits, judge, zoomed_margins: zoomed_margins(&network, pictures, judge)? })
    }
}

/// The margins of the exact network on some of the pictures, zoomed. What is no number there says nothing and is left out.
fn zoomed_margins(network: &Network<f32>, pictures: &[Labelled], judge: Judge) -> Result<Vec<f64>, SimulateError> {
    if judge != Judge::Class {
        return Ok(Vec::new());
    }
    let one = |(i, p): (usize, &Labelled)| {
        let Some(zoomed) = zoom::zoomed(&p.x, i) else { return Ok(None) };
        let wrong = |source| SimulateError::WrongKind { picture: i, pictures: pictures.len(), source };
        let logits = network.evaluate(&zoomed).map_err(wrong)?;
        let answers = judge.answers(&[logits.values()]);
        let margin = answers.first().and_then(|answer| margin(&answer.logits, largest(&answer.logits)));
        Ok(margin.filter(|m| m.is_finite()))
    };
    let margins: Vec<Option<f64>> = pictures.par_iter().take(ZOOMED).enumerate().map(one).collect::<Result<_, _>>()?;
    Ok(margins.into_iter().flatten().collect())
}

/// The logits of the exact network, `[picture][class]`: what [`simulate_against`] compares with, however a model is fitted.
///
/// # Errors
/// [`SimulateError::WrongKind`] for a picture of another shape, [`SimulateError::NotFinite`] for one whose logits are no numbers.
pub fn exact_logits(model: &Model, pictures: &[Labelled]) -> Result<Vec<Vec<f32>>, SimulateError> {
    logits_by(&Network::<f32>::new(&model.exact()), pictures.iter().map(|p| &p.x).collect())
}

fn logits_by(network: &Network<f32>, pictures: Vec<&Tensor<f32>>) -> Result<Vec<Vec<f32>>, SimulateError> {
    let one = |(i, x): (usize, &&Tensor<f32>)| {
        let wrong = |source| SimulateError::WrongKind { picture: i, pictures: pictures.len(), source };
        Ok(network.evaluate(x).map_err(wrong)?.values().to_vec())
    };
    check_finite(pictures.par_iter().enumerate().map(one).collect::<Result<_, _>>()?)
}

/// The logits of [`exact_logits`] on these pictures, of which those come by `f64` whose largest two are so near that `f32` does not tell
/// them apart: what a number that all logits have in common hides is no tie.
///
/// # Errors
/// [`SimulateError::ExactLogits`] for logits of fewer pictures, [`SimulateError::WrongKind`] for a picture of another shape.
pub fn resolved_logits(model: &Model, pictures: &[Labelled], logits: &[Vec<f32>]) -> Result<Vec<Vec<f64>>, SimulateError> {
    if logits.len() < pictures.len() {
        return Err(SimulateError::ExactLogits { pictures: pictures.len(), found: logits.len() });
    }
    let unresolved = |of: &[f32]| {
        let first = largest(of);
        let margin = second_largest(of, first).map_or(f32::INFINITY, |second| of[first] - of[second]);
        margin <= F32_RESOLUTION * of[first].abs()
    };
    let exact = logits.iter().any(|of| unresolved(of)).then(|| Network::<f64>::new(&model.exact()));
    let one = |(i, (p, of)): (usize, (&Labelled, &Vec<f32>))| match &exact {
        Some(network) if unresolved(of) => {
            let wrong = |source| SimulateError::WrongKind { picture: i, pictures: pictures.len(), source };
            Ok(network.evaluate(&p.x.cast()).map_err(wrong)?.values().to_vec())
        }
        _ => Ok(of.iter().map(|v| f64::from(*v)).collect()),
    };
    pictures.par_iter().zip(logits).enumerate().map(one).collect()
}

/// Logits that are numbers.
pub(in crate::nn) fn check_finite(logits: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, SimulateError> {
    match logits.iter().position(|of| !of.iter().all(|v| v.is_finite())) {
        Some(picture) => Err(SimulateError::NotFinite { picture }),
        None => Ok(logits),
    }
}

/// As [`simulate`], with the answers of the exact network at hand, of all pictures or more.
///
/// # Errors
/// [`SimulateError::NoPictures`], [`SimulateError::ExactLogits`] for those of fewer pictures, [`SimulateError::WrongKind`] for a picture of
/// another shape.
pub fn simulate_against(
    exact: &ExactAnswers,
    model: &Model,
    pictures: &[Labelled],
    noise: NoiseLevels,
    seed: u64,
) -> Result<Simulation, SimulateError> {
    Outcomes::default().simulate_against(exact, model, pictures, (noise, seed))
}

/// What became of the first pictures of a set with one model, noise and seed: simulated once, however often they are looked at.
#[derive(Default)]
pub(in crate::nn) struct Outcomes(Vec<Outcome>);

impl Outcomes {
    /// How many pictures were simulated.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// As [`simulate_against`]. Pictures are always the first ones of the same set, model, noise and seed the same.
    pub(super) fn simulate_against(
        &mut self,
        exact: &ExactAnswers,
        model: &Model,
        pictures: &[Labelled],
        (noise, seed): (NoiseLevels, u64),
    ) -> Result<Simulation, SimulateError> {
        if pictures.is_empty() {
            return Err(SimulateError::NoPictures);
        }
        if exact.logits.len() < pictures.len() {
            return Err(SimulateError::ExactLogits { pictures: pictures.len(), found: exact.logits.len() });
        }
        let simulator = Simulator::new(model);
        let one = |(i, p): (usize, &Labelled)| {
            let wrong = |source| SimulateError::WrongKind { picture: i, pictures: pictures.len(), source };
            simulator.one(i, &p.x, noise, seed).map_err(wrong)
        };
        let known = self.len();
        let fresh: Vec<Outcome> = pictures.par_iter().enumerate().skip(known).map(one).collect::<Result<_, _>>()?;
        self.0.extend(fresh);
        Ok(simulator.summary(pictures, exact, &self.0[..pictures.len()]))
    }
}

/// The precision at which noise moves the logits as far as they are known to be moved: the bits of [`NoiseLevels::bits`] with which the
/// largest difference of a picture's logits is `error`, on average over some pictures. What else is wrong with the logits (the
/// fits) plays no part. Where pictures leave their intervals, by the others; `usual` if all do.
///
/// # Errors
/// [`SimulateError::WrongKind`] for a picture of another shape.
pub fn bits_for_error(model: &Model, pictures: &[Labelled], error: f64, usual: f64, seed: u64) -> Result<f64, SimulateError> {
    let simulator = Simulator::new(model);
    let largest = |(i, p): (usize, &Labelled)| {
        let wrong = |source| SimulateError::WrongKind { picture: i, pictures: pictures.len(), source };
        let run = |noise| simulator.one(i, &p.x, noise, seed).map_err(wrong);
        let (quiet, noisy) = (run(NoiseLevels::NONE)?, run(NoiseLevels::bits(usual))?);
        let differences = quiet.simulated.iter().zip(&noisy.simulated).map(|(a, b)| f64::from((a - b).abs()));
        let sound = simulator.is_sound(&quiet) && simulator.is_sound(&noisy);
        Ok(sound.then(|| differences.fold(0.0, f64::max)))
    };
    let found: Vec<f64> =
        pictures.par_iter().enumerate().map(largest).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    // Errors of the logits are proportional to the noise while both are small.
    let bits = usual + (mean / error).log2();
    Ok(if bits.is_finite() { bits } else { usual })
}

/// Checks one picture before it is encrypted: that no activation leaves its interval on it (without noise). The error names
/// the first layer that does: those behind it are fed its wreckage.
///
/// # Errors
/// [`SimulateError::WrongKind`] for a picture of another shape, [`SimulateError::OutOfRange`] for one that leaves an interval,
/// [`SimulateError::TooLarge`] for one that makes a larger value than may be bootstrapped.
pub fn check_picture(model: &Model, x: &Tensor<f32>) -> Result<(), SimulateError> {
    let simulator = Simulator::new(model);
    let wrong = |source| SimulateError::WrongKind { picture: 0, pictures: 1, source };
    let outcome = simulator.one(0, x, NoiseLevels::NONE, 0).map_err(wrong)?;
    check_ranges(&simulator.uses(&[outcome]), 1)?;
    check_magnitudes(model, x)
}

/// Checks that no value is larger than what it is bootstrapped for.
fn check_magnitudes(model: &Model, x: &Tensor<f32>) -> Result<(), SimulateError> {
    let noted = model.magnitudes();
    if noted.is_empty() {
        return Ok(());
    }
    let folded = model.fold_batch_norms();
    let mut beyond = None;
    let see = |node: usize, _: &Tensor<f32>, result: &Tensor<f32>| {
        let name = &folded.nodes()[node].name;
        let value = range_of(result.values()).magnitude();
        let most = noted.get(name).map_or(f64::INFINITY, |seen| MAGNITUDE_MARGIN * seen);
        // What is all zero on every calibration picture is not stored by its magnitude.
        let within = most <= 0.0 || value <= most || Value(node + 1) == folded.output();
        if !within && beyond.is_none() {
            beyond = Some(SimulateError::TooLarge { layer: name.clone(), value, most });
        }
    };
    let wrong = |source| SimulateError::WrongKind { picture: 0, pictures: 1, source };
    Network::<f32>::new(model).evaluate_with(x, see).map_err(wrong)?;
    beyond.map_or(Ok(()), Err)
}

/// A model made ready for simulating.
struct Simulator {
    fitted: Network<f32>,
    /// For each node of the networks: which activation it is.
    activation: Vec<Option<usize>>,
    /// For each node: half the interval of the activation that its result goes to.
    scale_behind: Vec<f64>,
    layers: Vec<(String, FittedActivation)>,
}

/// What became of one picture.
struct Outcome {
    simulated: Vec<f32>,
    /// What each activation was fed.
    seen: Vec<Range>,
}

impl Simulator {
    fn new(model: &Model) -> Self {
        let folded = model.fold_batch_norms();
        let mut activation = vec![None; folded.nodes().len()];
        let mut scale_behind = vec![0.0; folded.nodes().len()];
        let mut layers = Vec::new();
        for (i, node) in folded.nodes().iter().enumerate() {
            if let Operator::Fitted(fitted) = &node.operator {
                activation[i] = Some(layers.len());
                let [a, b] = fitted.interval();
                if let Some(before) = node.inputs[0].0.checked_sub(1) {
                    scale_behind[before] = (b - a) / 2.0;
                }
                layers.push((node.name.clone(), fitted.clone()));
            }
        }
        Self { fitted: Network::new(model), activation, scale_behind, layers }
    }

    fn one(&self, index: usize, x: &Tensor<f32>, noise: NoiseLevels, seed: u64) -> Result<Outcome, ShapeMismatch> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let mut seen = vec![Range::EMPTY; self.layers.len()];
        let simulated = self.fitted.evaluate_altering(x, |node, operand, result| {
            let mut deviation = noise.before * self.scale_behind[node];
            if let Some(k) = self.activation[node] {
                seen[k] = range_of(operand.values());
                let [a, b] = self.layers[k].1.interval();
                deviation = deviation.hypot(noise.polynomial * (b - a) / 2.0);
            }
            if deviation > 0.0 {
                add_noise(result.values_mut(), deviation as f32, &mut rng);
            }
        })?;
        Ok(Outcome { simulated: simulated.values().to_vec(), seen })
    }

    /// The part of its interval that layer k used of what it saw.
    fn used(&self, k: usize, seen: Range) -> f64 {
        let [a, b] = self.layers[k].1.interval();
        let part = (2.0 * seen.max - a - b).max(a + b - 2.0 * seen.min) / (b - a);
        // What is no number is outside of everything.
        if part.is_nan() { f64::INFINITY } else { part }
    }

    /// Whether a picture left no interval and its logits are numbers.
    fn is_sound(&self, outcome: &Outcome) -> bool {
        let finite = outcome.simulated.iter().all(|v| v.is_finite());
        finite && outcome.seen.iter().enumerate().all(|(k, seen)| self.used(k, *seen) <= 1.0)
    }

    fn uses(&self, outcomes: &[Outcome]) -> Vec<LayerUse> {
        // The pictures that have left no interval yet.
        let mut sound: Vec<usize> = (0..outcomes.len()).collect();
        let layer = |(k, (name, fitted)): (usize, &(String, FittedActivation))| {
            let used: Vec<f64> = sound.iter().map(|&i| self.used(k, outcomes[i].seen[k])).collect();
            let most = sound.iter().zip(&used).fold((0, 0.0), |best, (i, u)| if *u > best.1 { (*i, *u) } else { best });
            let seen = sound.iter().fold(Range::EMPTY, |r, i| r.union(outcomes[*i].seen[k]));
            let inside: Vec<usize> = sound.iter().zip(&used).filter(|(_, u)| **u <= 1.0).map(|(i, _)| *i).collect();
            let found = LayerUse {
                layer: name.clone(),
                degrees: fitted.degrees(),
                depth: fitted.depth(),
                interval: fitted.interval(),
                min: seen.min,
                max: seen.max,
                used: most.1,
                picture: most.0,
                outside: sound.len() - inside.len(),
                tail: Tail::of(used.clone()),
                expected_outside: part_beyond(used),
            };
            sound = inside;
            found
        };
        self.layers.iter().enumerate().map(layer).collect()
    }

    fn summary(&self, pictures: &[Labelled], exact: &ExactAnswers, outcomes: &[Outcome]) -> Simulation {
        let mut s = Simulation {
            pictures: pictures.len(),
            judge: exact.judge,
            answers: 0,
            labelled: 0,
            exact_correct: 0,
            simulated_correct: 0,
            agree: 0,
            expected_agreement: 0.0,
            expected_outside: 0.0,
            median_margin: 0.0,
            mean_shift: 0.0,
            diverged: 0,
            mean_error: 0.0,
            rms_error: 0.0,
            max_error: 0.0,
            largest_logit: 0.0,
            layers: self.uses(outcomes),
            predictions: Vec::new(),
        };
        let sound: Vec<bool> = outcomes.iter().map(|outcome| self.is_sound(outcome)).collect();
        let (mut margins, mut shifts) = (Vec::new(), Vec::new());
        let simulated: Vec<&[f32]> = outcomes.iter().map(|outcome| outcome.simulated.as_slice()).collect();
        let known: Vec<&[f32]> = exact.logits.iter().take(outcomes.len()).map(Vec::as_slice).collect();
        for (known, simulated) in exact.judge.answers(&known).iter().zip(exact.judge.answers(&simulated)) {
            let first = largest(&known.logits);
            if known.of.iter().all(|i| sound[*i])
                && let (Some(exactly), Some(now)) =
                    (margin(&known.logits, first), margin_to(&known.logits, &simulated.logits, first))
            {
                margins.push(exactly);
                shifts.push((now - exactly).abs());
            }
            let class = simulated.class();
            s.predictions.push((class, first));
            s.answers += 1;
            s.agree += usize::from(class == Some(first));
            if let Some(truth) = exact.judge.truth(known.of, pictures) {
                s.labelled += 1;
                s.exact_correct += usize::from(first == truth);
                s.simulated_correct += usize::from(class == Some(truth));
            }
        }
        let mut logits = 0usize;
        for (exact_logits, outcome) in exact.logits.iter().zip(outcomes) {
            let finite = outcome.simulated.iter().all(|v| v.is_finite());
            s.diverged += usize::from(!finite);
            if finite {
                for (a, b) in outcome.simulated.iter().zip(exact_logits) {
                    let error = f64::from((a - b).abs());
                    s.mean_error += error;
                    s.rms_error += error * error;
                    s.max_error = s.max_error.max(error);
                    s.largest_logit = s.largest_logit.max(f64::from(a.abs()));
                    logits += 1;
                }
            }
        }
        match Margins::of(margins, &shifts, &exact.zoomed_margins) {
            Some(found) => {
                (s.median_margin, s.mean_shift) = (found.median, found.mean_shift);
                s.expected_agreement = found.expected_agreement;
            }
            // No two pictures to compare.
            None => s.expected_agreement = if sound.contains(&true) { 1.0 } else { 0.0 },
        }
        s.expected_outside = s.layers.iter().fold(0.0, |all, l| all + l.expected_outside).min(1.0);
        s.mean_error /= logits.max(1) as f64;
        s.rms_error = (s.rms_error / logits.max(1) as f64).sqrt();
        s
    }
}

fn second_largest<T: PartialOrd>(values: &[T], largest: usize) -> Option<usize> {
    let others = (0..values.len()).filter(|i| *i != largest);
    others.reduce(|best, i| if values[i] >= values[best] { i } else { best })
}

/// How far the largest of some logits, which is this one, is above the next.
fn margin(logits: &[f64], first: usize) -> Option<f64> {
    margin_to(logits, logits, first)
}

/// How far `first` is above, in `now`, what came next to it in `logits`.
fn margin_to(logits: &[f64], now: &[f64], first: usize) -> Option<f64> {
    second_largest(logits, first).map(|second| now[first] - now[second])
}

fn range_of(values: &[f32]) -> Range {
    // Lanes that do not wait for each other.
    const LANES: usize = 16;
    let (mut min, mut max, mut sum) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0.0f32; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (i, v) in chunk.iter().enumerate() {
            (min[i], max[i]) = (min[i].min(*v), max[i].max(*v));
            sum[i] += *v;
        }
    }
    let min = min.iter().chain(rest).fold(f32::INFINITY, |a, b| a.min(*b));
    let max = max.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    // min and max pass over NaN; the sum does not.
    if sum.iter().chain(rest).sum::<f32>().is_nan() {
        return Range { min: f64::NEG_INFINITY, max: f64::INFINITY };
    }
    Range { min: min.into(), max: max.into() }
}

fn largest<T: PartialOrd>(values: &[T]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Adds noise of a deviation, nearly normal: the sum of four numbers of 8 bits, whose variance is a third of `2^16 - 1`.
fn add_noise(values: &mut [f32], deviation: f32, rng: &mut ChaCha8Rng) {
    const MEAN: f32 = 2.0 * 255.0;
    const LANES: usize = 64;
    let unit = deviation * (3.0f32 / 65535.0).sqrt();
    let mut bytes = [0; 4 * LANES];
    for chunk in values.chunks_mut(LANES) {
        rng.fill_bytes(&mut bytes[..4 * chunk.len()]);
        for (v, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
            let b = u32::from_le_bytes(*bytes);
            let sum = (b & 0xff) + (b >> 8 & 0xff) + (b >> 16 & 0xff) + (b >> 24);
            *v += (sum as i32 as f32 - MEAN) * unit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_deviation_asked_for() {
        let seed = 51;
        println!("seed {seed}");
        let mut values = vec![1.0f32; 100_001];
        add_noise(&mut values, 0.25, &mut ChaCha8Rng::seed_from_u64(seed));
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.003 && (variance.sqrt() - 0.25).abs() < 0.003, "{mean} {variance}");
        let beyond = values.iter().filter(|v| (*v - 1.0).abs() > 0.5).count() as f64 / values.len() as f64;
        assert!((beyond - 0.0455).abs() < 0.01, "two deviations: {beyond}");
    }
}
