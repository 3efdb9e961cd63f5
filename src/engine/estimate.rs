//! Which of some parameter sets runs a network fastest, by plans with unit costs that are the same everywhere.

use super::prepare::layouts_for;
use super::slots_for;
use crate::ckks::{Params, ParamsError, presets};
use crate::nn::lower::{Layouts, LowerError};
use crate::nn::{self, LowerOptions, Lowered, Model};
use crate::plan::{CostModel, MemoryLimits, Plan, PlanError, PlanOptions, Target};
use std::collections::HashMap;
use std::sync::Arc;

/// Why a parameter set does not run a network.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// There is no such set.
    #[error(transparent)]
    Params(ParamsError),
    /// The network cannot be lowered for its slots.
    #[error(transparent)]
    Lower(Arc<LowerError>),
    /// The program cannot be planned on it.
    #[error(transparent)]
    Plan(Arc<PlanError>),
}

impl From<LowerError> for Unfit {
    fn from(error: LowerError) -> Self {
        Self::Lower(Arc::new(error))
    }
}

impl From<PlanError> for Unfit {
    fn from(error: PlanError) -> Self {
        Self::Plan(Arc::new(error))
    }
}

/// Each parameter set by name, and why it does not run the network.
#[derive(Debug, Clone)]
pub struct NoneFits(pub Vec<(String, Unfit)>);

impl std::fmt::Display for NoneFits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, why)) in self.0.iter().enumerate() {
            write!(f, "{}{name}: {why}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for NoneFits {}

/// Networks lowered, by slots and layouts.
type LoweredFor = HashMap<(usize, Layouts), Result<Lowered, Unfit>>;

/// A parameter set and what operations cost on it, or why it cannot be had.
type Priced = Result<(Arc<Params>, CostModel), Unfit>;

/// Parameter sets to choose from, made once for many networks.
#[derive(Debug)]
pub struct Estimator {
    sets: Vec<(String, Priced)>,
    lowering: LowerOptions,
    planning: PlanOptions,
}

impl Estimator {
    /// Of these parameter sets, by what operations cost on a device.
    pub fn new(names: &[&str], target: Target) -> Self {
        let priced = |name: &str| {
            let params = presets::by_name(name).map_err(Unfit::Params)?;
            let cost = target.cost(&params).map_err(|e| Unfit::Plan(Arc::new(e.into())))?;
            Ok((params, cost))
        };
        let set = |name: &&str| ((*name).to_owned(), priced(name));
        Self { sets: names.iter().map(set).collect(), lowering: LowerOptions::default(), planning: PlanOptions::default() }
    }

    /// What it lowers and plans with: clones share what it has counted.
    pub fn options(&self) -> (&LowerOptions, &PlanOptions) {
        (&self.lowering, &self.planning)
    }

    /// The parameter set on which a fitted network is estimated to run fastest, and its seconds; or why none works. The
    /// network is lowered once for all that have the same slots and levels, and planned within `limits`.
    ///
    /// # Errors
    /// [`NoneFits`], where no set runs it.
    pub fn fastest(&self, network: &Model, limits: MemoryLimits) -> Result<(&str, f64), NoneFits> {
        let options = PlanOptions { limits, ..self.planning.clone() };
        let mut lowered = LoweredFor::new();
        let mut best: Option<(&str, f64)> = None;
        let mut why = Vec::new();
        for (name, params) in &self.sets {
            let params = params.as_ref().map_err(Unfit::clone);
            let priced = |cost: CostModel| PlanOptions { cost: Some(cost), ..options.clone() };
            match params.and_then(|(params, cost)| seconds(network, params, (&self.lowering, &priced(*cost)), &mut lowered)) {
                Ok(seconds) if best.is_none_or(|(_, least)| seconds < least) => best = Some((name, seconds)),
                Ok(_) => {}
                Err(e) => why.push((name.clone(), e)),
            }
        }
        best.ok_or(NoneFits(why))
    }
}

fn seconds(
    network: &Model,
    params: &Arc<Params>,
    (lowering, options): (&LowerOptions, &PlanOptions),
    lowered: &mut LoweredFor,
) -> Result<f64, Unfit> {
    if params.bootstrap().is_none() {
        // What is too deep need not be laid out.
        let (needed, have) = (nn::least_depth(network, lowering)?, params.working_level().0);
        if needed > have {
            return Err(PlanError::LevelsExhausted { needed, have, preset: params.name().to_owned() }.into());
        }
    }
    let (slots, layouts) = (slots_for(network, params), layouts_for(params));
    let lowering = LowerOptions { layouts, ..lowering.clone() };
    let lowered = lowered.entry((slots, layouts)).or_insert_with(|| nn::lower(network, slots, &lowering).map_err(Unfit::from));
    let program = &lowered.as_ref().map_err(Unfit::clone)?.program;
    Ok(Plan::new(program, params, options)?.seconds())
}
