//! The cheapest fits that keep a network's answers, found by trying them.
//!
//! Forms are tried from the cheapest plan upwards, each with several margins and floors, and judged by simulation on
//! pictures a quarter of which took no part in the fit, so that a margin that is too narrow shows. The first form that keeps the answers is taken for all layers; then layers whose
//! error matters least are given back to the form before it, as long as the answers stay and the plan gets cheaper.

use super::{FitError, FitSpec, Form, fit};
use crate::nn::calibration::{Calibration, CalibrationError, channel_ranges};
use crate::nn::equalize::equalize;
use crate::nn::model::Model;
use crate::nn::simulate::{Labelled, NoiseLevels, SimulateError, Simulation, exact_logits, simulate_against};
use crate::nn::tensor::Tensor;

/// One picture in this many takes no part in the fit, so that it may leave the intervals.
const HELD_OUT: usize = 4;
/// Fewest pictures that a choice can be made on.
pub const LEAST_PICTURES: usize = 2 * HELD_OUT;

/// What may be chosen, and what must be kept.
#[derive(Debug, Clone)]
pub struct ChooseOptions {
    /// The part of the pictures on which the simulated network must say what the exact one says, 0 to 1. What counts is one
    /// standard error below the measured part, so that few pictures prove little, and [`Simulation::expected_agreement`], so
    /// that pictures the network was trained on do not flatter it.
    pub target: f64,
    /// Forms to try.
    pub forms: Vec<Form>,
    /// Margins to try: how much longer the interval is than the range seen.
    pub margins: Vec<f64>,
    /// Floors to try.
    pub floors: Vec<f64>,
    /// Noise of the encrypted run.
    pub noise: NoiseLevels,
    /// Seed of the simulated noise.
    pub seed: u64,
    /// Whether layers may differ in their form.
    pub per_layer: bool,
}

impl Default for ChooseOptions {
    fn default() -> Self {
        let series = [15, 31, 63, 127].map(Form::Series);
        let signs = [vec![7, 7], vec![15, 15], vec![15, 15, 27]].map(Form::Sign);
        Self {
            target: 0.99,
            forms: series.into_iter().chain(signs).collect(),
            margins: vec![1.3, 1.5],
            floors: vec![1e-1, 1e-2, 1e-3],
            noise: NoiseLevels::bits(18.0),
            seed: 1,
            per_layer: true,
        }
    }
}

/// Why nothing was chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// The pictures cannot calibrate.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A simulation could not be run.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// A fit could not be made.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// Too few pictures to fit on some and try on others.
    #[error("{found} pictures are too few to choose by; {least} are the least, some hundreds are better")]
    TooFewPictures {
        /// How many came.
        found: usize,
        /// How many are needed.
        least: usize,
    },
    /// A target that is no part of a whole.
    #[error("the target {found} is not between 0 and 1")]
    Target {
        /// What was asked for.
        found: f64,
    },
    /// Nothing that may be chosen can be planned.
    #[error("none of the {} forms can be run: {reason}", .forms)]
    NoPlan {
        /// Forms tried.
        forms: usize,
        /// What the last one failed at.
        reason: String,
    },
    /// Nothing keeps enough answers.
    #[error(
        "the best of {tried} fits ({form}) keeps {:.1} of {pictures} answers in a hundred, less than the {:.1} asked for with one standard \
         error to spare; calibrate on more pictures, allow higher degrees or a lower target", 100.0 * .agreement, 100.0 * .target
    )]
    TargetNotReached {
        /// What was asked for.
        target: f64,
        /// The best agreement.
        agreement: f64,
        /// The form that reached it.
        form: Form,
        /// Pictures it was measured on.
        pictures: usize,
        /// Fits tried.
        tried: usize,
    },
}

/// A fit that was tried.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Candidate {
    /// One spec for all layers, or one each.
    pub specs: Vec<FitSpec>,
    /// What its plan costs.
    pub cost: f64,
    /// Part of the pictures on which it says what the exact network says.
    pub agreement: f64,
    /// The part of unseen pictures on which it should.
    pub expected: f64,
    /// Root mean square error of its logits.
    pub rms_error: f64,
    /// Largest part of an interval that was used; above 1 it is not taken.
    pub used: f64,
    /// Whether it keeps the answers.
    pub keeps: bool,
}

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The model, equalized and fitted.
    pub model: Model,
    /// The specs of its layers.
    pub specs: Vec<FitSpec>,
    /// What calibration saw of the equalized model.
    pub calibration: Calibration,
    /// What the simulation on all pictures found.
    pub simulation: Simulation,
    /// What its plan costs.
    pub cost: f64,
    /// Everything that was tried, in order.
    pub tried: Vec<Candidate>,
}

/// A cost where there is no plan: the levels of all activations together.
pub fn levels(model: &Model) -> Result<f64, String> {
    use crate::nn::model::Operator;
    let depth = |node: &crate::nn::model::Node| match &node.operator {
        Operator::Fitted(fitted) => fitted.depth(),
        _ => 0,
    };
    Ok(model.nodes().iter().map(depth).sum::<usize>() as f64)
}

/// Chooses. `cost` says what a fitted model costs to run (seconds of its plan, say), or why it cannot be run; only the order
/// of the costs matters. Simulates all pictures some ten to fifty times. All threads.
pub fn choose(
    model: &Model,
    pictures: &[Labelled],
    options: &ChooseOptions,
    cost: &dyn Fn(&Model) -> Result<f64, String>,
) -> Result<Choice, ChooseError> {
    if !(0.0..=1.0).contains(&options.target) {
        return Err(ChooseError::Target { found: options.target });
    }
    if pictures.is_empty() {
        return Err(CalibrationError::NoPictures.into());
    }
    if pictures.len() < LEAST_PICTURES {
        return Err(ChooseError::TooFewPictures { found: pictures.len(), least: LEAST_PICTURES });
    }
    let for_fit = pictures.iter().enumerate().filter(|(i, _)| i % HELD_OUT != 0);
    let for_fit: Vec<Tensor<f32>> = for_fit.map(|(_, p)| p.x.clone()).collect();
    let equal = equalize(model, &channel_ranges(model, &for_fit)?);
    let calibration = Calibration::measure(&equal, &for_fit)?;
    let exact = exact_logits(&equal, pictures)?;
    let mut search =
        Search { model: &equal, calibration: &calibration, pictures, exact: &exact, options, cost, tried: Vec::new() };
    let (specs, cost) = search.run()?;
    let tried = search.tried;
    let fitted = fit(&equal, &calibration, &specs)?;
    let simulation = simulate_against(&exact, &fitted, pictures, options.noise, options.seed)?;
    Ok(Choice { model: fitted, specs, simulation, cost, tried, calibration })
}

struct Search<'a> {
    model: &'a Model,
    calibration: &'a Calibration,
    pictures: &'a [Labelled],
    exact: &'a [Vec<f32>],
    options: &'a ChooseOptions,
    cost: &'a dyn Fn(&Model) -> Result<f64, String>,
    tried: Vec<Candidate>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<(Vec<FitSpec>, f64), ChooseError> {
        let forms = self.forms_by_cost()?;
        let mut cheaper: Option<FitSpec> = None;
        for (form, cost) in &forms {
            let best = self.best_of(form, *cost)?;
            let Some(at) = best.filter(|at| self.tried[*at].keeps) else {
                cheaper = best.map(|at| self.tried[at].specs[0].clone()).or(cheaper);
                continue;
            };
            let spec = self.tried[at].specs[0].clone();
            if let Some(cheaper) = cheaper.filter(|_| self.options.per_layer)
                && let Some(mixed) = self.mix(&cheaper, &spec, *cost)?
            {
                return Ok(mixed);
            }
            return Ok((vec![spec], *cost));
        }
        let kept = |c: &Candidate| if c.used <= 1.0 { c.agreement.min(c.expected) } else { 0.0 };
        let best = self.tried.iter().max_by(|a, b| kept(a).total_cmp(&kept(b)));
        let (agreement, form) = best.map_or((0.0, forms[0].0.clone()), |b| (kept(b), b.specs[0].form.clone()));
        let (target, pictures, tried) = (self.options.target, self.pictures.len(), self.tried.len());
        Err(ChooseError::TargetNotReached { target, agreement, form, pictures, tried })
    }

    /// The forms that can be run, cheapest first. What a form costs does not depend on margins and floors.
    fn forms_by_cost(&self) -> Result<Vec<(Form, f64)>, ChooseError> {
        let (mut forms, mut reason) = (Vec::new(), String::new());
        for form in &self.options.forms {
            let spec = FitSpec { form: form.clone(), ..FitSpec::series(1) };
            let fitted = match fit(self.model, self.calibration, &[spec]) {
                Ok(fitted) => fitted,
                Err(e @ (FitError::NotRelu { .. } | FitError::Approximation { .. })) => {
                    reason = e.to_string();
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            match (self.cost)(&fitted) {
                Ok(cost) => forms.push((form.clone(), cost)),
                Err(why) => reason = why,
            }
        }
        if forms.is_empty() {
            return Err(ChooseError::NoPlan { forms: self.options.forms.len(), reason });
        }
        forms.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(forms)
    }

    /// Tries all margins and floors of a form: the index of the one with the least error among those that keep the answers, else
    /// among all that stay in their ranges.
    fn best_of(&mut self, form: &Form, cost: f64) -> Result<Option<usize>, ChooseError> {
        let first = self.tried.len();
        let floors = match form {
            Form::Series(_) => self.options.floors.clone(),
            // A composite sign is not weighted.
            Form::Sign(_) => vec![1.0],
        };
        for &margin in &self.options.margins {
            for &floor in &floors {
                let spec = FitSpec { form: form.clone(), margin, floor };
                self.try_specs(vec![spec], cost)?;
            }
        }
        let all = (first..self.tried.len()).filter(|at| self.tried[*at].used <= 1.0);
        let key = |at: &usize| (!self.tried[*at].keeps, self.tried[*at].rms_error);
        Ok(all.min_by(|a, b| key(a).0.cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1))))
    }

    fn try_specs(&mut self, specs: Vec<FitSpec>, cost: f64) -> Result<bool, ChooseError> {
        let fitted = fit(self.model, self.calibration, &specs)?;
        let s = simulate_against(self.exact, &fitted, self.pictures, self.options.noise, self.options.seed)?;
        let agreement = s.agreement();
        // One standard error; Laplace's estimate, so that a few pictures that all agree prove little.
        let count = s.pictures as f64;
        let likely = (s.agree as f64 + 1.0) / (count + 2.0);
        let spare = (likely * (1.0 - likely) / count).sqrt();
        let used = s.layers.iter().fold(0.0, |m: f64, l| m.max(l.used));
        let keeps = s.diverged == 0 && used <= 1.0 && (agreement - spare).min(s.expected_agreement) >= self.options.target;
        let rms_error = if s.diverged == 0 { s.rms_error } else { f64::INFINITY };
        let expected = s.expected_agreement;
        self.tried.push(Candidate { specs, cost, agreement, expected, rms_error, used, keeps });
        Ok(keeps)
    }

    /// Between two forms: as few layers as possible in the dear one, those first whose error matters most. None if that is no
    /// cheaper than all of them.
    fn mix(&mut self, cheap: &FitSpec, dear: &FitSpec, dear_cost: f64) -> Result<Option<(Vec<FitSpec>, f64)>, ChooseError> {
        let count = self.calibration.layers.len();
        let some = self.pictures.len().div_ceil(HELD_OUT);
        let mut harm = Vec::with_capacity(count);
        for k in 0..count {
            let mut specs = vec![dear.clone(); count];
            specs[k] = cheap.clone();
            let fitted = fit(self.model, self.calibration, &specs)?;
            let s = simulate_against(self.exact, &fitted, &self.pictures[..some], self.options.noise, self.options.seed)?;
            harm.push((if s.diverged == 0 { s.rms_error } else { f64::INFINITY }, k));
        }
        harm.sort_by(|a, b| b.0.total_cmp(&a.0));
        let specs_with = |dear_layers: usize| {
            let mut specs = vec![cheap.clone(); count];
            harm[..dear_layers].iter().for_each(|(_, k)| specs[*k] = dear.clone());
            specs
        };
        // The answers are kept with all layers dear; halve the number as long as they are.
        let (mut fails, mut keeps) = (0, count);
        let mut best = None;
        while keeps - fails > 1 {
            let middle = (fails + keeps) / 2;
            let specs = specs_with(middle);
            let cost = (self.cost)(&fit(self.model, self.calibration, &specs)?).unwrap_or(f64::INFINITY);
            if self.try_specs(specs.clone(), cost)? {
                keeps = middle;
                if cost < best.as_ref().map_or(dear_cost, |(_, c): &(_, f64)| *c) {
                    best = Some((specs, cost));
                }
            } else {
                fails = middle;
            }
        }
        Ok(best)
    }
}
