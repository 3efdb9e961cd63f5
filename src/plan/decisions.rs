//! What a plan decides, apart from what it is made for: enough to make the same plan again, anywhere.
//!
//! Estimates of time are behind every decision, and estimates differ between machines and versions. So a plan is decided once; its
//! decisions are kept with the network, and whoever needs the plan again (for keys, for a run, on another machine) carries them out.

use super::{
    PlanError, PlannedOperation, PlannedStep, Program, Step, ValueId,
    memory::{ciphertext_bytes, polynomial_bytes},
    steps::{depth, may_be_bootstrapped},
};
use crate::{
    circuits::{
        CircuitError, Gadgets, LinearTransform, Packing, Split,
        bootstrap::{BootstrapOptions, Bootstrapper},
    },
    ckks::{Level, Params, ParamsError},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The decisions of a plan: levels, bootstraps, how each matrix is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// The level inputs are encrypted at.
    pub input_level: usize,
    /// Steps of the program in their order, and the bootstraps between them.
    pub steps: Vec<Decision>,
    /// Baby rotations of each linear transform of bootstrapping, in the order of [`Bootstrapper::transforms`]; empty without a
    /// bootstrap.
    pub bootstrap_babies: Vec<usize>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// A value of the program is bootstrapped, and read in its new form from here on.
    Bootstrap {
        /// The value; 0 is the input.
        value: usize,
    },
    /// The program's next step runs.
    Run {
        /// The level that its operands are brought to.
        level: usize,
        /// How its matrix is cut, if it has one.
        cut: Option<Cut>,
    },
}

/// How a matrix is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// [`Split::modulus`].
    pub modulus: usize,
    /// What shares complex slots.
    pub packing: Packing,
}

/// A program's steps with its decisions carried out.
pub(super) struct Carried {
    pub steps: Vec<PlannedStep>,
    /// The result, among the values that the steps make.
    pub output: ValueId,
}

/// How a plan's bootstraps are made.
pub(super) fn bootstrap_options(program: &Program, params: &Params) -> BootstrapOptions {
    BootstrapOptions { slots: program.slots.max(2), ..BootstrapOptions::new(params) }
}

/// What steps are planned for.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepTerms<'a> {
    pub params: &'a Params,
    pub gadgets: &'a Arc<Gadgets>,
    /// Bytes that the rotations of a transform or the powers of a polynomial may take.
    pub held_bytes: u64,
}

impl StepTerms<'_> {
    /// A step of a program as it is planned: at a level, its matrix cut.
    pub(super) fn planned(
        &self,
        index: usize,
        step: &Step,
        operands: Vec<ValueId>,
        level: usize,
        cut: Option<Cut>,
    ) -> Result<PlannedStep, PlanError> {
        let Self { params, gadgets, held_bytes } = *self;
        let refused = |reason: &'static str| PlanError::Decisions { step: index, layer: step.layer.clone(), reason };
        if level > params.max_level().0 {
            return Err(refused("its level is above the parameter set's"));
        }
        let below = level.checked_sub(depth(step)).ok_or_else(|| refused("it has fewer levels than it consumes"))?;
        let operation = match (&step.operation, cut) {
            (super::Operation::Linear { matrix, rotate_sums, bias, .. }, Some(Cut { modulus, packing })) => {
                if !modulus.is_power_of_two() || modulus > matrix.slots() {
                    return Err(refused("its matrix is cut by something else than a power of two up to the slots"));
                }
                if !packing.suits(matrix.inputs(), matrix.outputs(), matrix.slots()) {
                    return Err(refused("its shards cannot be packed as decided"));
                }
                let one = ciphertext_bytes(params, Level(level), 1);
                let transform = LinearTransform::new(matrix.clone(), Split { modulus }, packing)
                    .with_room_for((held_bytes / one.max(1)) as usize);
                PlannedOperation::Linear { transform, rotate_sums: rotate_sums.clone(), bias: bias.clone() }
            }
            (super::Operation::Linear { .. }, None) => return Err(refused("nothing says how its matrix is cut")),
            (_, Some(_)) => return Err(refused("it has no matrix to cut")),
            (super::Operation::Polynomial { polynomial, .. }, None) => {
                let one = polynomial_bytes(params, polynomial.degree(), Level(level))?;
                let together = (held_bytes / one.max(1)).max(1) as usize;
                PlannedOperation::Polynomial { polynomial: polynomial.clone(), together }
            }
            (super::Operation::Square { .. }, None) => PlannedOperation::Square,
            (super::Operation::Affine { factor, offset, .. }, None) => {
                PlannedOperation::Affine { factor: factor.clone(), offset: offset.clone() }
            }
            (super::Operation::Add { .. }, None) => PlannedOperation::Add,
            (super::Operation::Multiply { .. }, None) => PlannedOperation::Multiply,
        };
        Ok(PlannedStep {
            layer: step.layer.clone(),
            operands,
            operation,
            level_in: Level(level),
            level_out: Level(below),
            gadgets: gadgets.clone(),
        })
    }
}

/// A bootstrap of the value `operand` of the plan, which layer `layer` made.
fn bootstrap_step(bootstrapper: &Arc<Bootstrapper>, layer: &str, operand: ValueId) -> PlannedStep {
    PlannedStep {
        operands: vec![operand],
        operation: PlannedOperation::Bootstrap(bootstrapper.clone()),
        level_in: bootstrapper.input_level(),
        level_out: bootstrapper.output_level(),
        gadgets: Arc::new(bootstrapper.gadgets().clone()),
        layer: format!("{layer} (bootstrap)"),
    }
}

impl Decisions {
    /// The bootstrapping circuit that was decided on, if anything is bootstrapped.
    pub(super) fn bootstrapper(&self, program: &Program, params: &Arc<Params>) -> Result<Option<Arc<Bootstrapper>>, PlanError> {
        let failed = |source| PlanError::Layer { layer: "bootstrapping".into(), source };
        if !self.steps.iter().any(|d| matches!(d, Decision::Bootstrap { .. })) {
            return Ok(None);
        }
        let options = bootstrap_options(program, params);
        let made = Bootstrapper::with_babies(params, &options, &self.bootstrap_babies).map_err(failed)?;
        Ok(Some(Arc::new(made)))
    }

    /// The steps of a plan.
    ///
    /// # Errors
    /// Decisions that are not for this program and parameter set.
    pub(super) fn carry_out(
        &self,
        program: &Program,
        bootstrapper: Option<&Arc<Bootstrapper>>,
        terms: &StepTerms<'_>,
    ) -> Result<Carried, PlanError> {
        // Where each value of the program is among the values of the plan.
        let mut held = vec![ValueId(0)];
        let mut steps = Vec::with_capacity(self.steps.len());
        let mut next = 0;
        for decision in &self.steps {
            let refused = |layer: &str, reason| PlanError::Decisions { step: next, layer: layer.into(), reason };
            match *decision {
                Decision::Bootstrap { value } => {
                    let made_by = value.checked_sub(1).and_then(|v| program.steps.get(v));
                    let layer = made_by.map_or("input", |step| &step.layer);
                    let none = ParamsError::NoBootstrap { name: terms.params.name().into() };
                    let bootstrapper = bootstrapper.ok_or(PlanError::Params(none))?;
                    let operand = *held.get(value).ok_or_else(|| refused(layer, "it is bootstrapped before it is made"))?;
                    if !may_be_bootstrapped(program, ValueId(value)) {
                        return Err(refused(layer, "it is bootstrapped and nothing bounds it"));
                    }
                    steps.push(bootstrap_step(bootstrapper, layer, operand));
                    held[value] = ValueId(steps.len());
                }
                Decision::Run { level, cut } => {
                    let step =
                        program.steps.get(next).ok_or_else(|| refused("output", "there are more steps than the program has"))?;
                    let operand = |v: ValueId| {
                        held.get(v.0).copied().ok_or_else(|| PlanError::UndefinedValue {
                            step: next,
                            layer: step.layer.clone(),
                            value: v.0,
                        })
                    };
                    let operands = step.operation.operands().into_iter().map(operand).collect::<Result<_, _>>()?;
                    steps.push(terms.planned(next, step, operands, level, cut)?);
                    held.push(ValueId(steps.len()));
                    next += 1;
                }
            }
        }
        if next != program.steps.len() {
            let layer = program.steps[next].layer.clone();
            return Err(PlanError::Decisions { step: next, layer, reason: "nothing is decided for it" });
        }
        let output = held.get(program.output.0).copied();
        let value = program.output.0;
        let output = output.ok_or_else(|| PlanError::UndefinedValue { step: next, layer: "output".into(), value })?;
        Ok(Carried { steps, output })
    }
}

/// How a matrix without any nonzero diagonal cannot be cut.
pub(super) fn empty_matrix(step: &Step) -> PlanError {
    PlanError::Layer { layer: step.layer.clone(), source: CircuitError::EmptyMatrix }
}
