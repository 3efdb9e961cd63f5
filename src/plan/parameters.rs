//! Search for parameter sets: which ladder bootstraps for the least estimated time.
//!
//! A goal leaves open how many levels the linear transforms take and how many digits key switching has. Few levels mean fewer
//! limbs above them and more diagonals a level; few digits mean fewer transforms and more special primes, which the security
//! cap bounds. Every combination is made a parameter set and priced by tracing the very circuit that will run on it.

use super::{CostModel, PlanError};
use crate::circuits::{BootstrapOptions, Bootstrapper};
use crate::ckks::ladder::{BootstrapSizes, Grid, LadderSpec};
use crate::ckks::{Params, ParamsError};
use rayon::prelude::*;

/// What a parameter set must offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Sizes of primes and levels.
    pub grid: Grid,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// log2 of the slots of a vector; fewer than N/2 mean that it repeats.
    pub log_slots: u32,
    /// Levels left after a bootstrap.
    pub left: usize,
    /// Levels of SlotsToCoeffs; `None`: whatever is best.
    pub slots_to_coeffs: Option<usize>,
    /// Levels of CoeffsToSlots; `None`: whatever is best.
    pub coeffs_to_slots: Option<usize>,
}

/// A parameter set that meets a goal, and what a bootstrap on it costs.
#[derive(Debug, Clone)]
pub struct PricedSet {
    /// The sizes it is made from.
    pub sizes: BootstrapSizes,
    /// log2 of the product of all primes.
    pub log_qp: f64,
    /// Limbs at the top.
    pub limbs: usize,
    /// Digits of a key switch at the top.
    pub digits: usize,
    /// Keys of a bootstrap.
    pub keys: usize,
    /// Bytes of those keys in memory.
    pub key_bytes: u64,
    /// Estimated time of one bootstrap of two real vectors, in seconds.
    pub seconds: f64,
}

/// Levels tried for each linear transform. At the bottom of the ladder levels are cheap, but so are transforms.
const TRANSFORM_LEVELS: std::ops::RangeInclusive<usize> = 2..=5;
/// Digits tried at the top.
const DIGITS: std::ops::RangeInclusive<usize> = 2..=10;

/// All parameter sets that meet a goal at 128 bits of classical security, the fastest first. Cost: about a tenth of a second for each on one
/// thread at N = 2^16. The same for the same arguments.
///
/// # Errors
/// [`PlanError::Params`] where there are too few primes of the sizes asked for, or a set of them is refused for something else than its
/// modulus; [`PlanError::Layer`] where bootstrapping cannot be made on one. None where no set is secure: the list then is empty.
pub fn search(goal: Goal, cost: &CostModel) -> Result<Vec<PricedSet>, PlanError> {
    let mut all = Vec::new();
    let tried = |fixed: Option<usize>| TRANSFORM_LEVELS.filter(move |&levels| fixed.is_none_or(|fixed| fixed == levels));
    for slots_to_coeffs in tried(goal.slots_to_coeffs) {
        for coeffs_to_slots in tried(goal.coeffs_to_slots) {
            let Goal { grid, log_n, log_slots, left, .. } = goal;
            let sizes = BootstrapSizes { grid, log_n, log_slots, left, slots_to_coeffs, coeffs_to_slots, special: 1 };
            // How many special primes there are hardly matters to the ladder.
            let limbs = match LadderSpec::bootstrapping("", sizes).literal() {
                Ok(literal) => literal.ladder.last().map_or(0, |rung| rung.terminal + rung.main),
                Err(ParamsError::NoLadder { .. }) => continue,
                Err(e) => return Err(e.into()),
            };
            // As many digits with fewer special primes are never better.
            let mut specials: Vec<usize> = DIGITS.map(|digits| limbs.div_ceil(digits)).collect();
            specials.dedup();
            all.extend(specials.into_iter().map(|special| BootstrapSizes { special, ..sizes }));
        }
    }
    let priced: Vec<Option<PricedSet>> = all.par_iter().map(|&sizes| candidate(sizes, cost)).collect::<Result<_, _>>()?;
    let mut found: Vec<PricedSet> = priced.into_iter().flatten().collect();
    found.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(found)
}

/// A set and its price; none where it would not be secure or does not fit.
fn candidate(sizes: BootstrapSizes, cost: &CostModel) -> Result<Option<PricedSet>, PlanError> {
    // Most are refused for their modulus: found out before tables are built.
    let literal = match LadderSpec::bootstrapping("candidate", sizes).literal().and_then(|l| l.check_security().map(|()| l)) {
        Ok(literal) => literal,
        Err(ParamsError::Insecure { .. } | ParamsError::NoLadder { .. } | ParamsError::Math(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let params = Params::new(literal)?;
    let circuit = |source| PlanError::Layer { layer: "bootstrap".into(), source };
    let options = BootstrapOptions { slots: 1 << sizes.log_slots, ..BootstrapOptions::new(&params) };
    let bootstrapper = Bootstrapper::new(&params, &options).map_err(circuit)?;
    let seconds = cost.price(&params, &bootstrapper.trace(2).map_err(circuit)?)?;
    let top = params.max_level();
    let gadget = params.best_gadget(top..=top)?;
    Ok(Some(PricedSet {
        sizes,
        log_qp: params.log_qp(),
        limbs: params.window(top).len(),
        digits: gadget.digits(),
        keys: bootstrapper.keys().len(),
        key_bytes: bootstrapper.key_bytes(),
        seconds,
    }))
}
