//! Plans whose keys fit a number of bytes, at the least time found.
//!
//! Keys are what a run holds most of. Two things trade them for time: bootstrapping with fewer baby rotations, each used more often,
//! and layers cut and placed as if a key cost something beyond its use, which favours few rotations and low levels, where keys are
//! small. A few of both are planned, and the fastest plan whose keys fit is taken.

use super::{MemoryLimits, Plan, PlanError, PlanOptions, Program};
use crate::{
    circuits::{BootstrapOptions, Bootstrapper, CircuitError},
    ckks::Params,
};
use rayon::prelude::*;
use std::sync::Arc;

/// How much time is given for keys that are not made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct KeyBudget {
    /// Seconds that a byte of a rotation key counts for, where a layer is cut and placed.
    pub seconds_per_byte: f64,
    /// Most bytes of keys that bootstrapping may take.
    pub bootstrap_key_bytes: Option<u64>,
}

/// Prices tried: a key of 50 MB, from nothing to longer than any rotation takes.
const PRICES: [f64; 6] = [0.0, 2e-11, 1e-10, 5e-10, 2.5e-9, 1e-7];
/// Of the bytes that bootstrapping can spare, the parts it is made to: all keys, fewer, the fewest.
const SPARED: [f64; 4] = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0];

/// The fastest plan found within [`PlanOptions::limits`]. Plans some twenty times where the one with all the keys it likes is not.
pub(super) fn within(program: &Program, params: &Arc<Params>, options: &PlanOptions) -> Result<Plan, PlanError> {
    let MemoryLimits { key_bytes, all_bytes } = options.limits;
    let few_keys = |plan: &Plan| key_bytes.is_none_or(|most| plan.key_bytes() <= most);
    let few_bytes = |plan: &Plan| all_bytes.is_none_or(|most| plan.peak_bytes() <= most);
    let free = Plan::with(program, params, options, KeyBudget::default())?;
    if few_keys(&free) && few_bytes(&free) {
        return Ok(free);
    }
    let bootstraps = if free.bootstraps() > 0 { bootstrap_key_bytes(params, program.slots.max(2))? } else { vec![None] };
    let tried: Vec<KeyBudget> = bootstraps
        .into_iter()
        .flat_map(|bytes| PRICES.map(|price| KeyBudget { seconds_per_byte: price, bootstrap_key_bytes: bytes }))
        .filter(|key_budget| *key_budget != KeyBudget::default())
        .collect();
    let plans = tried.into_par_iter().map(|key_budget| Plan::with(program, params, options, key_budget));
    let mut plans = plans.collect::<Result<Vec<_>, _>>()?;
    plans.insert(0, free);
    let least = plans.iter().map(Plan::key_bytes).min().unwrap_or(0);
    plans.retain(few_keys);
    // Where none is small enough, the smallest.
    let smallest = plans.iter().map(Plan::peak_bytes).min().unwrap_or(0);
    plans.retain(|plan| few_bytes(plan) || plan.peak_bytes() == smallest);
    let fastest = plans.into_iter().min_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    fastest.ok_or(PlanError::KeyBytes { least, most: key_bytes.unwrap_or(u64::MAX) })
}

/// Bounds to try for the keys of bootstrapping, loosest first.
fn bootstrap_key_bytes(params: &Arc<Params>, slots: usize) -> Result<Vec<Option<u64>>, PlanError> {
    let failed = |source| PlanError::Layer { layer: "bootstrapping".into(), source };
    let make =
        |most| Bootstrapper::new(params, &BootstrapOptions { slots, max_key_bytes: most, ..BootstrapOptions::new(params) });
    let free = make(None).map_err(failed)?.key_bytes();
    let least = match make(Some(0)) {
        Err(CircuitError::KeyBytes { least, .. }) => least,
        Err(e) => return Err(failed(e)),
        Ok(_) => 0,
    };
    let bound = |part: f64| free - (part * free.saturating_sub(least) as f64) as u64;
    Ok(SPARED.iter().map(|&part| (part > 0.0).then(|| bound(part).max(least))).collect())
}
