//! The cheapest fits that keep a network's answers, found by trying them.
//!
//! Forms are tried from the cheapest plan upwards, and judged by simulation, first of all on pictures that took no part in the
//! fit, so that a margin that is too narrow shows. What is asked is whether *unseen* pictures would keep their answers
//! ([`ChooseOptions::keeps`]). Of those fits that cost about the same, the one that should lose least is taken, at the widest
//! margin; then layers whose error matters least are given back to the form before it, as long as the answers stay and the
//! plan gets notably cheaper.

mod search;

use super::{FitError, FitSpec, Fits, Form};
use crate::nn::calibration::{Calibration, CalibrationError, channel_ranges};
use crate::nn::equalize::equalize_with_ranges;
use crate::nn::model::Model;
use crate::nn::simulate::{ExactAnswers, Judge, Labelled, NoiseLevels, SimulateError, Simulation, check_finite, exact_logits};
use crate::nn::tensor::Tensor;
use search::Search;

/// One picture in this many takes no part in the fit, so that it may leave the intervals.
const HELD_OUT: usize = 4;
/// Fewest pictures that a choice can be made on.
pub(super) const LEAST_PICTURES: usize = 2 * HELD_OUT;
/// Most pictures that a fit is judged by, unless the target needs more. More would only make the count of kept answers finer, which decides little.
const JUDGED: usize = 512;
/// Most pictures that a target may need to be shown.
const MOST_NEEDED: usize = 1 << 14;
/// The part of the answers that may be lost which may be foreseen to be lost. Foreseen is a mean: half of it leaves room for sets of
/// some hundreds of pictures on which chance loses more (at 0.5 % foreseen, one such set in 25 loses more than 1 % of 500), and
/// for networks that are less sure of unseen pictures than foreseen.
const FORESEEN: f64 = 0.5;
/// The part of the answers that may be lost of which it may be foreseen that their pictures leave an interval: a result that is
/// noise is worse than a doubtful one.
const OUTSIDE: f64 = 0.01;

/// What may be chosen, and what must be kept.
#[derive(Debug, Clone)]
pub struct ChooseOptions {
    /// The part of unseen pictures on which the simulated network must say what the exact one says, 0 to 1.
    pub target: f64,
    /// Forms to try.
    pub forms: Vec<Form>,
    /// Margins to try: how much longer the interval is than the range seen.
    pub margins: Vec<f64>,
    /// Floors to try.
    pub floors: Vec<f64>,
    /// What the answers are.
    pub judge: Judge,
    /// Noise of the encrypted run.
    pub noise: NoiseLevels,
    /// Seed of the simulated noise.
    pub seed: u64,
    /// Whether layers may differ in their form.
    pub per_layer: bool,
}

impl Default for ChooseOptions {
    fn default() -> Self {
        let series = [15, 31, 63, 127, 255].map(Form::Series);
        let composites = [vec![15, 63], vec![31, 63], vec![31, 127]].map(Form::Composite);
        Self {
            target: 0.99,
            forms: series.into_iter().chain(composites).collect(),
            margins: vec![2.0, 1.5, 1.3],
            floors: vec![1e-1, 1e-2, 1e-3],
            judge: Judge::Class,
            noise: NoiseLevels::bits(18.0),
            seed: 1,
            per_layer: true,
        }
    }
}

impl ChooseOptions {
    /// The agreement that must be foreseen for unseen pictures: half of what the target allows to be lost is kept in reserve.
    pub fn needed(&self) -> f64 {
        1.0 - FORESEEN * (1.0 - self.target)
    }

    /// The part of unseen pictures that may be foreseen to leave an interval: a hundredth of what the target allows to be lost.
    pub fn most_outside(&self) -> f64 {
        OUTSIDE * (1.0 - self.target)
    }

    /// The least number of pictures that can show a target reached, if all of them keep their answers; none for a target that no
    /// number can show.
    pub fn pictures_needed(&self) -> Option<usize> {
        let shows = |count: usize| 1.0 - spare(count, count) >= self.target;
        if !shows(MOST_NEEDED) {
            return None;
        }
        // More pictures show more.
        let (mut too_few, mut enough) = (LEAST_PICTURES - 1, MOST_NEEDED);
        while enough - too_few > 1 {
            let middle = (too_few + enough) / 2;
            if shows(middle) { enough = middle } else { too_few = middle }
        }
        Some(enough)
    }

    /// The highest target that so many pictures can show, if all of them keep their answers; rounded down to a tenth of a percent.
    pub fn highest_target(pictures: usize) -> f64 {
        (1000.0 * (1.0 - spare(pictures, pictures))).floor() / 1000.0
    }

    /// Whether a simulation on pictures like those that the network was trained on lets expect that unseen pictures keep their
    /// answers: nothing diverged or left an interval, nor should more unseen pictures than [`Self::most_outside`]; agreement
    /// reaches the target less one standard error, so that few pictures prove little; and [`Simulation::expected_agreement`]
    /// reaches [`Self::needed`].
    fn keeps(&self, s: &Simulation) -> bool {
        // Pairs of some pictures prove no more than so many pictures.
        let agree = (s.agreement() * s.pictures as f64).round() as usize;
        s.diverged == 0 && s.agreement() - spare(agree, s.pictures) >= self.target && s.expected_agreement >= self.needed()
    }
}

/// One standard error of an agreement of so many pictures. By Laplace's estimate, so that a few pictures that all agree prove little.
fn spare(agree: usize, pictures: usize) -> f64 {
    let count = pictures as f64;
    let likely = (agree as f64 + 1.0) / (count + 2.0);
    (likely * (1.0 - likely) / count).sqrt()
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
    #[error("{found} picture{} too few to choose by; {least} are the least, some hundreds are better", if *.found == 1 { " is" } else { "s are" })]
    TooFewPictures {
        /// How many came.
        found: usize,
        /// How many are needed.
        least: usize,
    },
    /// Too few pictures to show the target reached, whatever is fitted.
    #[error(
        "{found} pictures cannot show that {:.2} % of the answers stay, even if all of theirs do: {needed} are needed for that, and {found} \
         can show {:.1} % at most", 100.0 * .target, 100.0 * .highest
    )]
    TooFewForTarget {
        /// How many came.
        found: usize,
        /// How many are needed.
        needed: usize,
        /// What was asked for.
        target: f64,
        /// What so many can show.
        highest: f64,
    },
    /// A target that no number of pictures shows.
    #[error("a target of {:.4} % cannot be shown by any number of pictures that is tried; {:.2} % can", 100.0 * .target, 100.0 * .highest)]
    TargetTooHigh {
        /// What was asked for.
        target: f64,
        /// What can be asked for.
        highest: f64,
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
        /// What the first one that could be fitted failed at, or else the last one.
        reason: NotRun,
    },
    /// It was stopped before a fit was found that keeps enough answers.
    #[error("stopped after {tried} fits, of which none keeps enough answers: the best should keep {:.2} % on unseen pictures, {:.2} % are asked for",
        100.0 * .expected, 100.0 * .needed)]
    Stopped {
        /// Fits tried.
        tried: usize,
        /// What the best should keep on unseen pictures; 0 if there is none.
        expected: f64,
        /// What is asked for.
        needed: f64,
    },
    /// Nothing keeps enough answers.
    #[error(
        "none of {tried} fits keeps enough answers. The best is {form} on intervals {margin} times the range seen: it keeps {:.1} % of the \
         answers on {pictures} pictures, should keep {:.2} % on unseen ones, and {:.3} % of these should leave an interval. A target of \
         {:.1} % asks for {:.2} % foreseen and at most {:.3} % leaving",
        100.0 * .agreement, 100.0 * .expected, 100.0 * .outside, 100.0 * .target, 100.0 * .needed, 100.0 * OUTSIDE * (1.0 - .target)
    )]
    TargetNotReached {
        /// What was asked for.
        target: f64,
        /// The agreement that had to be foreseen for that.
        needed: f64,
        /// The best agreement.
        agreement: f64,
        /// What it should be on unseen pictures.
        expected: f64,
        /// The part of unseen pictures that should leave an interval.
        outside: f64,
        /// The form that reached it.
        form: Form,
        /// Its margin.
        margin: f64,
        /// Pictures it was measured on.
        pictures: usize,
        /// Fits tried.
        tried: usize,
    },
}

/// Why a form cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRun {
    /// There are no forms, margins or floors to try.
    #[error("no {0} to try")]
    NothingToTry(&'static str),
    /// It cannot be fitted.
    #[error(transparent)]
    Fit(FitError),
    /// It has no cost.
    #[error(transparent)]
    Cost(CostError),
}

/// A fit that was tried.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TriedFit {
    /// One spec for all layers, or one each.
    pub specs: Vec<FitSpec>,
    /// What its plan costs.
    pub cost: f64,
    /// Pictures it was judged by.
    pub pictures: usize,
    /// Part of the pictures on which it says what the exact network says.
    pub agreement: f64,
    /// The part of unseen pictures on which it should.
    pub expected: f64,
    /// The part of unseen pictures that should leave an interval.
    pub outside: f64,
    /// Root mean square error of its logits.
    pub rms_error: f64,
    /// Largest part of an interval that was used; above 1 it is not taken.
    pub used: f64,
    /// Whether it keeps the answers.
    pub keeps: bool,
}

impl TriedFit {
    /// The part of unseen pictures whose answer should be lost, by errors or by leaving an interval; all, if a picture has left one.
    pub fn lost(&self) -> f64 {
        if self.used > 1.0 { 1.0 } else { (1.0 - self.expected + self.outside).min(1.0) }
    }
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
    /// What the simulation on the pictures judged by found.
    pub simulation: Simulation,
    /// What its plan costs.
    pub cost: f64,
    /// Everything that was tried, in order.
    pub tried: Vec<TriedFit>,
    /// Logits of the exact network on all pictures it was chosen on, in their order.
    pub logits: Vec<Vec<f32>>,
    /// The largest magnitude of a logit, of the exact network on all pictures and of the simulated one on those judged by.
    pub largest_logit: f64,
}

/// A cost where there is no plan: the levels of all activations together.
///
/// # Errors
/// None: it is a [`Cost`], and others may fail.
pub fn levels(model: &Model) -> Result<f64, CostError> {
    use crate::nn::model::Operator;
    let depth = |node: &crate::nn::model::Node| match &node.operator {
        Operator::Fitted(fitted) => fitted.depth(),
        _ => 0,
    };
    Ok(model.nodes().iter().map(depth).sum::<usize>() as f64)
}

/// What a fitted model costs to run (seconds of its plan, say), or why it cannot be run; only the order of the costs matters.
pub type Cost<'a> = dyn Fn(&Model) -> Result<f64, CostError> + Sync + 'a;

/// Why a fitted model cannot be run, whatever says so.
pub type CostError = Box<dyn std::error::Error + Send + Sync>;

/// Who watches a search. `()` lets it run to its end.
pub trait Watch: Sync {
    /// So many forms are planned, all at once: what each costs.
    fn planning(&self, _forms: usize) {}
    /// A fit was tried; the search takes at most so many seconds more, as far as what was simulated tells.
    fn tried(&self, _fit: &TriedFit, _seconds_left: f64) {}
    /// Whether to go on; asked before each step. A search that is stopped gives the best that it has found.
    fn goes_on(&self) -> bool {
        true
    }
}
impl Watch for () {}

/// Chooses. Three quarters of the pictures calibrate; the others, and if they are few some of those too, are simulated some ten to
/// fifty times. `cost` is asked from several threads. All threads.
///
/// # Errors
/// [`ChooseError::Target`] and [`ChooseError::TargetTooHigh`] for a target that cannot be asked for, [`ChooseError::Calibration`] for
/// pictures that cannot calibrate, [`ChooseError::TooFewPictures`] and [`ChooseError::TooFewForTarget`] for too few of them,
/// [`ChooseError::Simulate`] where the exact network gives no numbers, [`ChooseError::Fit`] where a function has no value on any interval
/// tried or a setting cannot be used, [`ChooseError::NoPlan`] where no form can be run, [`ChooseError::TargetNotReached`] or, where `watch`
/// ended it, [`ChooseError::Stopped`] without a fit that keeps enough answers.
pub fn choose(
    model: &Model,
    pictures: &[Labelled],
    options: &ChooseOptions,
    cost: &Cost<'_>,
    watch: &dyn Watch,
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
    // Before anything is tried, which takes minutes: what these pictures cannot show they will not show then.
    let (found, target) = (pictures.len(), options.target);
    let needed = options.pictures_needed();
    let needed = needed.ok_or(ChooseError::TargetTooHigh { target, highest: ChooseOptions::highest_target(MOST_NEEDED) })?;
    if found < needed {
        return Err(ChooseError::TooFewForTarget { found, needed, target, highest: ChooseOptions::highest_target(found) });
    }
    let part = |held_out: bool| pictures.iter().enumerate().filter(move |(i, _)| (i % HELD_OUT == 0) == held_out).map(|(_, p)| p);
    let for_fit: Vec<Tensor<f32>> = part(false).map(|p| p.x.clone()).collect();
    let judged: Vec<Labelled> = part(true).chain(part(false)).take(JUDGED.max(needed)).cloned().collect();
    let (equal, ranges) = equalize_with_ranges(model, &channel_ranges(model, &for_fit)?);
    let (calibration, logits) = Calibration::within(&equal, ranges, &for_fit)?;
    let bounded = equal.with_magnitudes(&calibration.magnitudes);
    // Those that were fitted to have been evaluated.
    let held_out: Vec<Labelled> = part(true).cloned().collect();
    let mut exact = exact_logits(&equal, &held_out)?;
    exact.extend(check_finite(logits)?);
    let logits = in_order(&exact, held_out.len());
    exact.truncate(judged.len());
    let exact = ExactAnswers::with_logits(&equal, &judged, exact, options.judge)?;
    let fits = Fits::default();
    let mut search = Search {
        model: &equal,
        bounded: &bounded,
        calibration: &calibration,
        pictures: &judged,
        exact: &exact,
        options,
        cost,
        watch,
        tried: Vec::new(),
        ahead: 0,
        simulated: (0, 0.0),
        fits: &fits,
        outcomes: Vec::new(),
    };
    let (specs, cost) = search.run()?;
    let (fitted, simulation) = search.simulate(&specs, judged.len())?;
    let tried = search.tried;
    let exactly = logits.iter().flatten().fold(0.0f32, |most, v| most.max(v.abs()));
    let largest_logit = simulation.largest_logit.max(exactly.into());
    Ok(Choice { model: fitted, specs, simulation, cost, tried, calibration, logits, largest_logit })
}

/// What is known of those held out and then of the others, in the order of the pictures.
fn in_order(of: &[Vec<f32>], held_out: usize) -> Vec<Vec<f32>> {
    let (held, others) = of.split_at(held_out);
    let (mut held, mut others) = (held.iter(), others.iter());
    let next = |i: usize| if i.is_multiple_of(HELD_OUT) { held.next() } else { others.next() };
    (0..of.len()).map_while(next).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_needed_are_the_fewest_that_can_show_a_target() {
        for (target, needed) in [(0.0, 8), (0.5, 8), (0.9, 9), (0.95, 19), (0.99, 99), (0.995, 199), (0.999, 999)] {
            let options = ChooseOptions { target, ..ChooseOptions::default() };
            assert_eq!(options.pictures_needed(), Some(needed), "{target}");
            assert!(ChooseOptions::highest_target(needed) >= target);
            assert!(needed == LEAST_PICTURES || 1.0 - spare(needed - 1, needed - 1) < target, "{target}: one fewer will do");
        }
        assert_eq!(ChooseOptions { target: 1.0, ..ChooseOptions::default() }.pictures_needed(), None);
        assert_eq!(ChooseOptions::highest_target(60), 0.983);
    }
}
