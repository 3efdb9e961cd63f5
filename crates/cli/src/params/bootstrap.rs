//! What a parameter set says of bootstrapping.

use crate::output::{bytes, say};
use cipherlens::circuits::{BootstrapOptions, Bootstrapper};
use cipherlens::ckks::{Level, Params, overflow::log2_failure};
use std::sync::Arc;

/// Stages, failure probability, keys.
pub(super) struct Facts {
    stages: Vec<(&'static str, usize, usize)>,
    log2_failure: f64,
    sparse_bits: f64,
    keys: usize,
    key_bytes: u64,
}

/// None for a set without levels for it.
pub(super) fn facts(params: &Arc<Params>) -> Option<Facts> {
    let circuit = *params.bootstrap()?;
    let (output, eval_mod, top) = (params.output_level().ok()?.0, params.eval_mod_level().ok()?.0, params.max_level().0);
    let options = BootstrapOptions { slots: 1 << circuit.log_slots, ..BootstrapOptions::new(params) };
    let bootstrapper = Bootstrapper::new(params, &options).ok()?;
    let to_sparse = params.encapsulation_requests().ok()?.into_iter().next()?;
    Some(Facts {
        stages: vec![
            ("SlotsToCoeffs", 1, circuit.slots_to_coeffs),
            ("left for use", circuit.slots_to_coeffs + 1, output),
            ("EvalMod", output + 1, eval_mod),
            ("CoeffsToSlots", eval_mod + 1, top),
        ],
        log2_failure: log2_failure(circuit.weight, circuit.k, params.degree()),
        sparse_bits: params.tables().log2(&params.key_basis(&to_sparse.gadget).ok()?),
        keys: bootstrapper.keys().len(),
        key_bytes: bootstrapper.key_bytes(),
    })
}

impl Facts {
    /// Prints them.
    pub(super) fn print(&self, params: &Params) {
        let Some(circuit) = params.bootstrap() else { return };
        let left = self.stages[1].2 - self.stages[0].2;
        say!("bootstrapping   {left} levels left, for vectors of up to {} numbers", 1usize << circuit.log_slots);
        for (name, first, last) in &self.stages {
            let bits = params.log_q(Level(*last)) - params.log_q(Level(first - 1));
            let steps = last + 1 - first;
            say!("                {name}: levels {first} to {last}, {:.1} bits each", bits / steps as f64);
        }
        say!(
            "                cosine of degree {} with {} double angles, |I| < {}, q0 / scale = 2^{:.1}",
            circuit.degree,
            circuit.double_angles,
            circuit.k,
            params.message_ratio().log2()
        );
        say!(
            "                sparse secret of weight {} for a modulus of 2^{:.1} only; |I| too large in 2^{:.0} of bootstraps",
            circuit.weight,
            self.sparse_bits,
            self.log2_failure
        );
        say!("                {} keys, {} in memory", self.keys, bytes(self.key_bytes));
    }

    /// As a JSON object.
    pub(super) fn json(&self, params: &Params) -> serde_json::Value {
        let stages: Vec<_> = self
            .stages
            .iter()
            .map(|(name, first, last)| serde_json::json!({ "stage": name, "first_level": first, "last_level": last }))
            .collect();
        serde_json::json!({
            "levels_left": self.stages[1].2 - self.stages[0].2, "stages": stages, "circuit": params.bootstrap(),
            "log2_failure": self.log2_failure, "log_sparse_modulus": self.sparse_bits,
            "keys": self.keys, "key_bytes": self.key_bytes,
        })
    }
}
