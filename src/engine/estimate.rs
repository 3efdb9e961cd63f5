//! Which of some parameter sets runs a network fastest, by plans with the unit costs that are the same everywhere.

use super::slots_for;
use crate::ckks::{Params, presets};
use crate::nn::{self, LowerOptions, Lowered, Model};
use crate::plan::{Plan, PlanError, PlanOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Parameter sets to choose from, made once for many networks.
#[derive(Debug)]
pub struct Estimator {
    sets: Vec<(String, Result<Arc<Params>, String>)>,
    lowering: LowerOptions,
    planning: PlanOptions,
}

impl Estimator {
    /// Of these parameter sets.
    pub fn new(names: &[&str]) -> Self {
        let set = |name: &&str| ((*name).to_owned(), presets::by_name(name).map_err(|e| e.to_string()));
        Self { sets: names.iter().map(set).collect(), lowering: LowerOptions::default(), planning: PlanOptions::default() }
    }

    /// What it lowers and plans with: clones share what it has counted.
    pub fn options(&self) -> (&LowerOptions, &PlanOptions) {
        (&self.lowering, &self.planning)
    }

    /// The parameter set on which a fitted network is estimated to run fastest, and its seconds; or why none works. The network is
    /// lowered once for all that have the same slots, and planned with keys of at most `max_key_bytes`.
    ///
    /// # Errors
    /// The name of each parameter set and why it does not run the network, separated by `; `.
    pub fn fastest(&self, network: &Model, max_key_bytes: Option<u64>) -> Result<(&str, f64), String> {
        let options = PlanOptions { max_key_bytes, ..self.planning.clone() };
        let mut lowered: BTreeMap<usize, Result<Lowered, String>> = BTreeMap::new();
        let mut best: Option<(&str, f64)> = None;
        let mut why = Vec::new();
        for (name, params) in &self.sets {
            let params = params.as_ref().map_err(String::clone);
            match params.and_then(|params| seconds(network, params, (&self.lowering, &options), &mut lowered)) {
                Ok(seconds) if best.is_none_or(|(_, least)| seconds < least) => best = Some((name, seconds)),
                Ok(_) => {}
                Err(e) => why.push(format!("{name}: {e}")),
            }
        }
        best.ok_or_else(|| why.join("; "))
    }
}

fn seconds(
    network: &Model,
    params: &Arc<Params>,
    (lowering, options): (&LowerOptions, &PlanOptions),
    lowered: &mut BTreeMap<usize, Result<Lowered, String>>,
) -> Result<f64, String> {
    if params.bootstrap().is_none() {
        // What is too deep need not be laid out.
        let (needed, have) = (nn::least_depth(network, lowering).map_err(|e| e.to_string())?, params.working_level().0);
        if needed > have {
            return Err(PlanError::LevelsExhausted { needed, have, preset: params.name().to_owned() }.to_string());
        }
    }
    let slots = slots_for(network, params);
    let lowered = lowered.entry(slots).or_insert_with(|| nn::lower(network, slots, lowering).map_err(|e| e.to_string()));
    let program = &lowered.as_ref().map_err(String::clone)?.program;
    Ok(Plan::new(program, params, options).map_err(|e| e.to_string())?.seconds())
}
