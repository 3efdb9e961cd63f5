//! Bytes that a run holds: live values, and what a step works on beside them.

use super::{PlanError, PlannedOperation, PlannedStep, cost::SwitchShape, planner::switch_shape};
use crate::{
    circuits::{encrypted::Prepared, trace::TraceValue},
    ckks::{Level, Params, ParamsError},
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a ciphertext of some shards at a level: two halves of L limbs of N words each.
pub(super) fn ciphertext_bytes(params: &Params, level: Level, shards: usize) -> u64 {
    (shards * 2 * params.window(level).len() * params.degree() * 4) as u64
}

/// Bytes of one polynomial in the digits, and of one ciphertext in the extended basis.
fn switching_bytes(params: &Params, shape: &SwitchShape) -> (u64, u64) {
    let limb = (params.degree() * 4) as u64;
    let extended = (shape.limbs + shape.special) as u64 * limb;
    (shape.digits as u64 * extended, 2 * extended)
}

/// Bytes that a polynomial of a degree is evaluated with, for each shard: its powers, and what one multiplication holds.
pub(super) fn polynomial_bytes(params: &Params, degree: usize, level: Level) -> Result<u64, ParamsError> {
    let (digits, extended) = switching_bytes(params, &switch_shape(params, level)?);
    let powers = 2 * (degree as f64).sqrt().ceil() as u64;
    Ok(powers * ciphertext_bytes(params, level, 1) + digits + 2 * extended)
}

/// Bytes a step needs beside its operands and its result.
pub(super) fn working_bytes(params: &Arc<Params>, step: &PlannedStep, operand: TraceValue) -> Result<u64, PlanError> {
    let one = ciphertext_bytes(params, step.level_in, 1);
    let (digits, extended) = switching_bytes(params, &switch_shape(params, step.level_in)?);
    let shards = operand.shards as u64;
    Ok(match &step.operation {
        PlannedOperation::Linear { transform, .. } => {
            let (inputs, outputs) = transform.packed_shards();
            let batch = transform.batch().min(inputs) as u64;
            // The rotations are gathered from parts, so for a moment they are there twice.
            2 * transform.peak_ciphertexts() as u64 * one + batch * digits + 2 * outputs as u64 * (extended + digits)
        }
        PlannedOperation::Square | PlannedOperation::Multiply => shards * (2 * one + digits + 2 * extended),
        PlannedOperation::Polynomial { polynomial, together } => {
            let parts = if shards > *together as u64 { shards * ciphertext_bytes(params, step.level_out, 1) } else { 0 };
            shards.min(*together as u64) * polynomial_bytes(params, polynomial.degree(), step.level_in)? + parts
        }
        PlannedOperation::Affine { .. } | PlannedOperation::Add => shards * one,
        PlannedOperation::Bootstrap(circuit) => {
            let together = shards.min(2 * circuit.options().batch as u64).div_ceil(2);
            let (digits, extended) = switching_bytes(params, &switch_shape(params, params.max_level())?);
            let babies = circuit.transforms().map(|t| t.babies().len()).max().unwrap_or(0) as u64;
            // The rotations of a factor, in the extended basis, are what is largest.
            shards * one + together * (digits + (babies + 3) * extended)
        }
    })
}

/// Bytes that a run keeps from its first use to its end, whatever it works on: encoded diagonals of bootstrapping, as far as they are kept,
/// and the numbers that layers add.
pub(super) fn kept_bytes(params: &Params, steps: &[PlannedStep]) -> Result<u64, ParamsError> {
    let shape = switch_shape(params, params.max_level())?;
    let (mut diagonals, mut added) = (BTreeMap::new(), 0);
    for step in steps {
        match &step.operation {
            PlannedOperation::Bootstrap(circuit) => {
                for transform in circuit.transforms() {
                    // Each is kept at the degree that its period has.
                    let terms = transform.sums().iter().map(Vec::len).sum::<usize>();
                    diagonals.insert(transform.id(), (terms * 2 * transform.period().max(2)) as u64);
                }
            }
            PlannedOperation::Linear { bias: Some(numbers), .. } => {
                added += numbers.iter().map(|n| 8 * n.len() as u64).sum::<u64>();
            }
            _ => {}
        }
    }
    // Those of factors at lower levels are smaller; where there are many, not all are kept.
    let encoded = diagonals.values().sum::<u64>() * (shape.limbs + shape.special) as u64 * 4;
    Ok(encoded.min(Prepared::BYTES as u64) + added)
}

/// Which values are alive, step by step.
#[derive(Debug)]
pub(super) struct LiveBytes {
    last_use: Vec<usize>,
    bytes: Vec<u64>,
}

impl LiveBytes {
    /// Before the first step; `input` is the bytes of the input.
    pub(super) fn new(steps: &[PlannedStep], output: usize, input: u64) -> Self {
        let mut last_use = vec![0; steps.len() + 1];
        for (i, step) in steps.iter().enumerate() {
            for v in &step.operands {
                if let Some(last) = last_use.get_mut(v.0) {
                    *last = i;
                }
            }
        }
        if let Some(last) = last_use.get_mut(output) {
            *last = steps.len();
        }
        Self { last_use, bytes: vec![input] }
    }

    /// Bytes alive during step `index`, which makes a value of `result` bytes.
    pub(super) fn during(&mut self, index: usize, result: u64) -> u64 {
        self.bytes.push(result);
        let alive = |v: usize| v == index + 1 || self.last_use[v] >= index;
        (0..self.bytes.len()).filter(|&v| alive(v)).map(|v| self.bytes[v]).sum()
    }
}
