//! Running a plan on an engine.

use super::{Plan, PlanError, PlannedOperation, PlannedStep, ValueId};
use crate::circuits::{CircuitError, Engine, engine::by_shards};

/// Told about each step as a plan runs, and asked whether to go on.
pub trait Progress: Sync {
    /// Step `index` of the plan begins.
    fn step_started(&self, index: usize, step: &PlannedStep);
    /// It ended.
    fn step_finished(&self, index: usize, step: &PlannedStep);
    /// Whether to go on; asked before each step. A run that is ended gives [`PlanError::Stopped`].
    fn goes_on(&self) -> bool {
        true
    }
}

/// Nobody is told.
impl Progress for () {
    fn step_started(&self, _: usize, _: &PlannedStep) {}
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

/// Runs a plan: `input` at [`Plan::input_level`], the result at the output level. Values are dropped after their last use.
///
/// The engine's keys are held against the plan's before anything runs; what runs then takes the very keys that the plan lists.
///
/// # Errors
/// [`PlanError::Input`] for another number of shards or too low a level, [`PlanError::Keys`] for keys that are missing,
/// [`PlanError::Layer`] for what an operation of the engine fails at, [`PlanError::Stopped`] where `progress` ended it.
pub fn execute<E: Engine>(plan: &Plan, engine: &E, input: E::Value, progress: &dyn Progress) -> Result<E::Value, PlanError> {
    let (found, level) = (engine.shards(&input), engine.level(&input));
    if found != plan.program().input_shards || level < plan.input_level() {
        return Err(PlanError::Input {
            expected: plan.program().input_shards,
            level: plan.input_level().0,
            found,
            found_level: level.0,
        });
    }
    engine.check_keys(plan.keys()).map_err(PlanError::Keys)?;
    // On a thread of the pool, which shares out loops without waking another thread first and sleeping itself.
    rayon::scope(|_| run_steps(plan.output(), plan.steps(), engine, input, progress, |_, _, _| {}))
}

/// Runs steps in order; `after(index, first operand, result)` sees each.
pub(super) fn run_steps<E: Engine>(
    output: ValueId,
    steps: &[PlannedStep],
    engine: &E,
    input: E::Value,
    progress: &dyn Progress,
    mut after: impl FnMut(usize, &E::Value, &E::Value),
) -> Result<E::Value, PlanError> {
    let mut last_use = vec![0; steps.len() + 1];
    for (i, step) in steps.iter().enumerate() {
        for &ValueId(v) in &step.operands {
            last_use[v] = i;
        }
    }
    let mut values: Vec<Option<E::Value>> = vec![Some(input)];
    for (i, step) in steps.iter().enumerate() {
        if !progress.goes_on() {
            return Err(PlanError::Stopped { layer: step.layer.clone() });
        }
        progress.step_started(i, step);
        let mut operands = Vec::with_capacity(2);
        for &id in &step.operands {
            let value = values.get(id.0).and_then(Option::as_ref).ok_or_else(|| PlanError::UndefinedValue {
                step: i,
                layer: step.layer.clone(),
                value: id.0,
            })?;
            operands.push(value.clone());
            if last_use[id.0] == i && id != output {
                values[id.0] = None;
            }
        }
        let result =
            run_step(engine, step, &operands).map_err(|source| PlanError::Layer { layer: step.layer.clone(), source })?;
        after(i, &operands[0], &result);
        values.push(Some(result));
        progress.step_finished(i, step);
    }
    values.get_mut(output.0).and_then(Option::take).ok_or_else(|| PlanError::UndefinedValue {
        step: steps.len(),
        layer: "output".into(),
        value: output.0,
    })
}

pub(super) fn run_step<E: Engine>(engine: &E, step: &PlannedStep, operands: &[E::Value]) -> Result<E::Value, CircuitError> {
    let operands = operands.iter().map(|x| engine.drop_to(x, step.level_in)).collect::<Result<Vec<_>, _>>()?;
    let (x, gadgets) = (&operands[0], &*step.gadgets);
    match &step.operation {
        PlannedOperation::Linear { transform, rotate_sums, bias } => {
            let mut y = transform.apply(engine, x, gadgets)?;
            for &r in rotate_sums {
                y = engine.add(engine.rotate(&y, r, gadgets)?, &y)?;
            }
            match bias {
                Some(bias) => engine.add_plain(&y, bias),
                None => Ok(y),
            }
        }
        PlannedOperation::Polynomial { polynomial, together } => {
            by_shards(engine, x, *together, |part| polynomial.apply(engine, part, gadgets))
        }
        PlannedOperation::Square => engine.square(x, gadgets),
        PlannedOperation::Affine { factor, offset } => {
            let y = match factor {
                Some(factor) => engine.multiply_plain(x, factor)?,
                None => x.clone(),
            };
            match offset {
                Some(offset) => engine.add_plain(&y, offset),
                None => Ok(y),
            }
        }
        PlannedOperation::Add => engine.add(x.clone(), &operands[1]),
        PlannedOperation::Multiply => engine.multiply(x, &operands[1], gadgets),
        PlannedOperation::Bootstrap(bootstrapper) => bootstrapper.apply(engine, x),
    }
}
