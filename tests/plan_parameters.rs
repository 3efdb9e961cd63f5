//! The search for parameter sets with bootstrapping: presets are what it finds, and what it finds holds.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::ckks::ladder::{BootstrapSizes, Grid, LadderSpec};
use cipherlens::ckks::{Params, presets};
use cipherlens::plan::CostModel;
use cipherlens::plan::parameters::{Goal, search};

/// What a preset is for, from its sizes.
fn goal(spec: &LadderSpec) -> Option<Goal> {
    let circuit = spec.bootstrap?.circuit;
    let (left, slots_to_coeffs, coeffs_to_slots) =
        (spec.levels - circuit.slots_to_coeffs, circuit.slots_to_coeffs, circuit.coeffs_to_slots);
    let sizes = |grid| BootstrapSizes {
        grid,
        log_n: spec.log_n,
        log_slots: circuit.log_slots,
        left,
        slots_to_coeffs,
        coeffs_to_slots,
        special: spec.special,
    };
    let is_its = |grid: &Grid| LadderSpec::bootstrapping(spec.name, sizes(*grid)) == *spec;
    Some(Goal {
        grid: [Grid::Bits40, Grid::Bits36].into_iter().find(is_its).unwrap(),
        log_n: spec.log_n,
        log_slots: circuit.log_slots,
        left,
        slots_to_coeffs: Some(slots_to_coeffs),
        coeffs_to_slots: Some(coeffs_to_slots),
    })
}

#[test]
fn presets_for_bootstrapping_are_what_the_search_finds() {
    let mut tested = 0;
    for spec in presets::all().iter().filter(|s| !s.insecure) {
        let Some(goal) = goal(spec) else { continue };
        let found = search(goal, &CostModel::typical(1 << spec.log_n)).unwrap();
        let best = found.first().unwrap();
        println!("{}: {best:?}", spec.name);
        assert!(found.iter().all(|c| c.seconds >= best.seconds && c.log_qp <= 1747.0));
        assert_eq!(best.sizes.special, spec.special, "{}", spec.name);
        assert_eq!(LadderSpec::bootstrapping(spec.name, best.sizes), *spec);
        // What the search says of a set is true of the set.
        let params = Params::new(spec.literal().unwrap()).unwrap();
        let top = params.max_level();
        assert_eq!((best.log_qp, best.limbs), (params.log_qp(), params.window(top).len()));
        assert_eq!(best.digits, params.best_gadget(top..=top).unwrap().digits());
        tested += 1;
    }
    assert_eq!(tested, 4);
}

#[test]
fn a_goal_beyond_the_cap_finds_nothing() {
    let sizes = |left| BootstrapSizes {
        grid: Grid::Bits40,
        log_n: 15,
        log_slots: 14,
        left,
        slots_to_coeffs: 3,
        coeffs_to_slots: 4,
        special: 4,
    };
    let BootstrapSizes { grid, log_n, log_slots, left, slots_to_coeffs, coeffs_to_slots, .. } = sizes(13);
    let (slots_to_coeffs, coeffs_to_slots) = (Some(slots_to_coeffs), Some(coeffs_to_slots));
    let goal = Goal { grid, log_n, log_slots, left, slots_to_coeffs, coeffs_to_slots };
    assert!(search(goal, &CostModel::typical(1 << 15)).unwrap().is_empty());
    assert!(LadderSpec::bootstrapping("n15", sizes(13)).literal().and_then(Params::new).is_err());
}
