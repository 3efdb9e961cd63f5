//! From a trained network and pictures to one that runs encrypted.

use super::answer::{Overflow, divisor, largest_result};
use super::prepare::extents;
use super::{BOOTSTRAPPING_PRESET, DEFAULT_PRESET, EngineError, Estimator, Foreseen, PrepareOptions, Prepared, Result};
use super::{keep, prepare, run_spec};
use crate::backend::choice::Devices;
use crate::ckks::presets;
use crate::nn::calibration::magnitudes;
use crate::nn::compiled::KeptPlan;
use crate::nn::fit::{Choice, ChooseOptions, Watch, choose};
use crate::nn::model::MAX_OUTPUT_DIVISOR;
use crate::nn::simulate::{Judge, Labelled, Margins, exact_logits, resolved_logits};
use crate::nn::{Compiled, Model, Notes};
use crate::plan::{MemoryLimits, Target};
use cipherlens_core::client::ClientSpec;
use serde_json::json;
use std::sync::Arc;

/// Parameter sets tried where none is named.
pub const PRESETS: [&str; 3] = [DEFAULT_PRESET, "n16-boot-lean", BOOTSTRAPPING_PRESET];

/// Pictures that tell how large results are.
const ENOUGH: usize = 16;

/// What is asked of a compiled network.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// The parameter set; none: the one of [`PRESETS`] whose plan is fastest.
    pub preset: Option<String>,
    /// What a run may hold; the limit of keys is kept with the network.
    pub limits: MemoryLimits,
    /// The part of unseen pictures on which the answer must stay the same, and which fits to try.
    pub choose: ChooseOptions,
    /// The device that it is planned for. It runs on any.
    pub target: Target,
}

/// A compiled network, and how it came about.
#[derive(Debug)]
pub struct Compilation {
    /// What is kept, for the server.
    pub compiled: Compiled,
    /// What clients are told; it is in the compiled network too.
    pub client: Arc<ClientSpec>,
    /// The run of one picture, ready on this machine's processor.
    pub prepared: Prepared,
    /// How the activations were fitted; none where there are none.
    pub choice: Option<Choice>,
    /// What encryption is expected to do to results.
    pub foreseen: Foreseen,
    /// The part of the answers that should survive it.
    pub kept: f64,
}

/// Fits a network's activations to pictures like those it will see, chooses the cheapest fits that keep its answers,
/// plans it, and says what clients have to know.
///
/// Some hundred pictures tell what a target of 99 % needs. Takes from seconds (small networks) to minutes, on all
/// threads; `watch` is told what is tried, and may end the search with the best found.
///
/// # Errors
/// [`EngineError::NoPictures`] without a picture, [`EngineError::NotFinite`] and [`EngineError::Label`] for one with a number that is
/// not finite or a label of no class; [`EngineError::Calibration`] and [`EngineError::Simulate`] for
/// pictures that the network cannot be evaluated on; [`EngineError::Fits`] where no fits keep the answers;
/// [`EngineError::NoPreset`] where no parameter set runs them, and [`EngineError::Params`] for one that there is not;
/// [`EngineError::Noise`] where logits differ by less than encryption moves them; [`EngineError::Overflow`] for results
/// that no ciphertext can hold; [`EngineError::Model`] where the model does not take the divisor of its result;
/// [`EngineError::Client`] where what clients are told contradicts itself; and those of [`prepare`].
pub fn compile(network: &Model, pictures: &[Labelled], options: &CompileOptions, watch: &dyn Watch) -> Result<Compilation> {
    if pictures.is_empty() {
        return Err(EngineError::NoPictures);
    }
    check_pictures(network, pictures, options.choose.judge)?;
    let estimator = Estimator::new(&options.preset.as_deref().map_or(PRESETS.to_vec(), |p| vec![p]), options.target);
    let choice = match network.activations().next() {
        Some(_) => Some(fits(network, pictures, options, &estimator, watch)?),
        None => None,
    };
    // Without an activation, what calibration sees alone bounds what is to be bootstrapped.
    let by_magnitude = match choice.is_none() && estimator.fastest(network, options.limits).is_err() {
        true => {
            let seen: Vec<_> = pictures.iter().map(|p| p.x.clone()).collect();
            Some(network.with_magnitudes(&magnitudes(network, &seen)?))
        }
        false => None,
    };
    let fitted = choice.as_ref().map_or(by_magnitude.as_ref().unwrap_or(network), |c| &c.model);
    let no_preset = |why| EngineError::NoPreset { network: network.name().into(), why };
    let (preset, _) = estimator.fastest(fitted, options.limits).map_err(no_preset)?;
    let (lowering, planning) = estimator.options();
    let counted = (lowering.counted.clone(), planning.counted.clone());
    let (limits, target) = (options.limits, options.target);
    let asked = PrepareOptions { limits, counted, target, for_keeping: true, ..PrepareOptions::default() };
    let seen = match &choice {
        Some(choice) => choice.largest_logit,
        None => largest_result(fitted, pictures)?,
    };
    let divided = |divisor: f64| -> Result<(f64, Model, Prepared)> {
        let network = fitted.with_output_divisor(divisor)?;
        let prepared = prepare(&network, preset, asked.clone(), &Devices::default())?;
        Ok((divisor, network, prepared))
    };
    let divisor = divisor(&*presets::by_name(preset)?, seen)?;
    let (divisor, fitted, prepared) = match divided(divisor) {
        // What the last layers add is divided with the results.
        Err(EngineError::Overflow(Overflow::Constant { found, most, .. })) => {
            divided((divisor * (found / most).log2().ceil().exp2() * 2.0).min(MAX_OUTPUT_DIVISOR))?
        }
        made => made?,
    };
    let more = keep(&fitted, preset, &asked)?;

    let some: Vec<_> = [0, pictures.len() / 2].into_iter().filter_map(|i| pictures.get(i)).map(|p| p.x.cast()).collect();
    let foreseen = prepared.foresee(&fitted, &some)?;
    let logits = match &choice {
        Some(choice) => &choice.logits,
        None => &exact_logits(&fitted, pictures)?,
    };
    let margins = options.choose.judge.under_errors(&resolved_logits(&fitted, pictures, logits)?, &foreseen.errors);
    if margins.expected_agreement < options.choose.target {
        let Margins { median, mean_shift, expected_agreement: expected } = margins;
        return Err(EngineError::Noise { median, mean_shift, expected, target: options.choose.target });
    }
    // Inputs that were not seen may reach as far again to either side.
    let wider = |[a, b]: [f64; 2]| [a - (b - a), b + (b - a)];
    let interval = extents(pictures.iter().map(|p| &p.x)).into_iter().map(wider).collect();
    // A few pictures do not tell how large results are, and zeros tell nothing.
    let largest = if pictures.len() >= ENOUGH && seen > 0.0 { seen } else { f64::INFINITY };
    let foreseen = Foreseen { interval, largest, ..foreseen };

    let decided = |p: &Prepared| KeptPlan {
        together: p.lowered.together,
        decisions: p.plan.decisions().clone(),
        layouts: Some(p.lowered.chosen.clone()),
    };
    let report = json!({
        "pictures": pictures.len(), "judge": options.choose.judge, "target": options.choose.target,
        "simulation": choice.as_ref().map(|c| &c.simulation), "agreement": choice.as_ref().map(|c| c.simulation.agreement()),
        "accuracy": choice.as_ref().and_then(|c| c.simulation.accuracy()),
        "exact_accuracy": choice.as_ref().and_then(|c| c.simulation.exact_accuracy()),
        "mean": network.input().mean, "std": network.input().std,
        "normalisation": network.input().normalisation, "fit": network.input().fit,
        "output_divisor": divisor, "fits_tried": choice.as_ref().map(|c| c.tried.len()),
        "expected_max_abs_logit_error": foreseen.error, "expected_agreement_with_noise": margins.expected_agreement,
        "estimated_seconds": prepared.plan.seconds(), "bootstraps": prepared.plan.bootstraps(),
        "planned_for": options.target,
    });
    let mut compiled = Compiled {
        preset: preset.to_owned(),
        max_key_bytes: options.limits.key_bytes,
        plans: std::iter::once(&prepared).chain(&more).map(decided).collect(),
        client: None,
        report: Notes::from_object(report),
        model: fitted,
    };
    let digest = compiled.digest();
    let mut client = prepared.client_spec(&compiled.model, digest, &foreseen);
    client.runs.extend(more.iter().map(|run| run_spec(run, digest, foreseen.rest)));
    client.check(&prepared.params)?;
    compiled.client = Some(client.clone());
    Ok(Compilation { compiled, client: Arc::new(client), prepared, choice, foreseen, kept: margins.expected_agreement })
}

/// Refuses pictures whose numbers or labels cannot be, before anything is measured on them.
fn check_pictures(network: &Model, pictures: &[Labelled], judge: Judge) -> Result<()> {
    // Vectors that are compared have labels of their own: whose they are.
    let classes = if judge == Judge::Class { network.answers() } else { usize::MAX };
    for (picture, Labelled { x, label }) in pictures.iter().enumerate() {
        if let Some((element, &found)) = x.values().iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(EngineError::NotFinite { picture, element, found });
        }
        if let Some(label) = label.filter(|&label| label >= classes) {
            return Err(EngineError::Label { picture, label, classes });
        }
    }
    Ok(())
}

/// Chooses fits, ranked by what plans with all the keys they like cost: within a bound each would be planned some
/// twenty times.
fn fits(
    network: &Model,
    pictures: &[Labelled],
    options: &CompileOptions,
    estimator: &Estimator,
    watch: &dyn Watch,
) -> Result<Choice> {
    let cost = |fitted: &Model| Ok(estimator.fastest(fitted, MemoryLimits::default())?.1);
    Ok(choose(network, pictures, &options.choose, &cost, watch)?)
}
