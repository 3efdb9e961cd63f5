//! From a program and a parameter set to a plan.

use super::{
    CostModel, PlanError, PlannedStep, Program, ValueId,
    cost::SwitchShape,
    decisions::{Carried, Decision, Decisions, StepTerms},
    execute::run_steps,
    key_budget::{self, KeyBudget},
    memory::{LiveBytes, ciphertext_bytes, kept_bytes, working_bytes},
    placement::{Placed, place},
    steps::{CutCounts, PlannedOperation, StepPricer, depth},
};
use crate::{
    circuits::{
        Bootstrapper, Counts, Gadgets, TraceEngine,
        trace::{Trace, TraceValue},
    },
    ckks::{KeyRequest, Level, Params, ParamsError},
};
use std::sync::Arc;

/// Bytes that a run may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryLimits {
    /// Of all keys in memory, at most: where no plan is found that keeps this, there is none.
    pub key_bytes: Option<u64>,
    /// Of all a run holds, as far as fewer keys help: where no plan is found that keeps this, the one that holds least is taken.
    pub all_bytes: Option<u64>,
}

impl MemoryLimits {
    /// Of keys alone.
    pub fn of_keys(key_bytes: Option<u64>) -> Self {
        Self { key_bytes, ..Self::default() }
    }
}

/// What the planner may choose.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Level of the output; 0 spends every level the input is given.
    pub output_level: Level,
    /// Unit costs; `None` takes [`CostModel::typical`].
    pub cost: Option<CostModel>,
    /// What may be held: fewer bytes than a run likes make it slower.
    pub limits: MemoryLimits,
    /// Bytes that the rotations of a layer, or the powers of a polynomial, may take: shards are taken in batches that fit, each reading
    /// the keys again.
    pub held_bytes: u64,
    /// What was counted of matrices before, with these options or those they were cloned from.
    pub counted: CutCounts,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            output_level: Level(0),
            cost: None,
            limits: MemoryLimits::default(),
            held_bytes: 2 << 30,
            counted: CutCounts::default(),
        }
    }
}

/// What one layer does and costs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LayerReport {
    /// Layer name.
    pub layer: String,
    /// Level before.
    pub level_in: usize,
    /// Level after.
    pub level_out: usize,
    /// Shards before.
    pub shards_in: usize,
    /// Shards after.
    pub shards_out: usize,
    /// Operations.
    pub counts: Counts,
    /// Estimated seconds.
    pub seconds: f64,
    /// Estimated bytes held at most, keys apart.
    pub bytes: u64,
}

/// A program on a parameter set: levels, splits, counts, keys and cost, before any key exists.
#[derive(Debug, Clone)]
pub struct Plan {
    params: Arc<Params>,
    program: Program,
    decisions: Decisions,
    steps: Vec<PlannedStep>,
    output: ValueId,
    input_level: Level,
    layers: Vec<LayerReport>,
    trace: Trace,
    keys: Vec<KeyRequest>,
    max_shards: usize,
    seconds: f64,
    key_bytes: u64,
    kept_bytes: u64,
}

impl Plan {
    /// Plans a program: levels as low as the output's allows, each matrix split at its least estimated cost, keys within
    /// [`PlanOptions::limits`].
    ///
    /// # Errors
    /// [`PlanError::Slots`], [`PlanError::LevelsExhausted`] or, with bootstrapping, [`PlanError::NoPlacement`] for a program too deep,
    /// [`PlanError::KeyBytes`], [`PlanError::UndefinedValue`] for a program that is none, [`PlanError::Layer`] for a step that cannot be
    /// run (a matrix of zeros), [`PlanError::Params`].
    pub fn new(program: &Program, params: &Arc<Params>, options: &PlanOptions) -> Result<Self, PlanError> {
        key_budget::within(program, params, options)
    }

    pub(super) fn with(
        program: &Program,
        params: &Arc<Params>,
        options: &PlanOptions,
        key_budget: KeyBudget,
    ) -> Result<Self, PlanError> {
        check_slots(program, params)?;
        let cost = options.cost.unwrap_or_else(|| CostModel::typical(params.degree()));
        let depths = program.steps.iter().map(depth).collect::<Vec<_>>();
        let levels = needed_levels(program, &depths, options.output_level.0)?;
        let mut pricer = StepPricer::new(program, params, options, key_budget, cost, &depths)?;
        let have = params.working_level().0;
        let bootstrap = if levels[0] > have { pricer.with_bootstrap()? } else { None };
        let (input_level, placed) = match bootstrap {
            // Without a bootstrap, as low as the output allows is cheapest throughout.
            _ if levels[0] <= have => {
                (levels[0], (0..depths.len()).map(|i| Placed::Step { step: i, level: levels[i + 1] + depths[i] }).collect())
            }
            Some(bootstrap) => place(program, &depths, have, options.output_level.0, bootstrap, &pricer)?,
            None => {
                return Err(PlanError::LevelsExhausted {
                    needed: levels[0] - options.output_level.0,
                    have: have - options.output_level.0.min(have),
                    preset: params.name().to_string(),
                });
            }
        };
        let decided = |placed: &Placed| match *placed {
            Placed::Bootstrap(ValueId(value)) => Ok(Decision::Bootstrap { value }),
            Placed::Step { step, level } => Ok(Decision::Run { level, cut: pricer.cut(step, level)? }),
        };
        let steps = placed.iter().map(decided).collect::<Result<Vec<_>, PlanError>>()?;
        let bootstraps = steps.iter().any(|d| matches!(d, Decision::Bootstrap { .. }));
        let bootstrapper = pricer.bootstrapper().filter(|_| bootstraps);
        let bootstrap_babies = bootstrapper.map_or_else(Vec::new, |b| b.babies());
        let decisions = Decisions { input_level, steps, bootstrap_babies };
        Self::carried(program, params, options, (decisions, bootstrapper, pricer.gadgets()))
    }

    /// The plan of decisions that were made before, for the same program and parameter set. Nothing is weighed: this costs a trace of
    /// the program.
    ///
    /// # Errors
    /// [`PlanError::Kept`]: decisions made for something else.
    pub fn decided(
        program: &Program,
        params: &Arc<Params>,
        options: &PlanOptions,
        decisions: &Decisions,
    ) -> Result<Self, PlanError> {
        Self::carried_out(program, params, options, decisions).map_err(|source| PlanError::Kept(Box::new(source)))
    }

    fn carried_out(
        program: &Program,
        params: &Arc<Params>,
        options: &PlanOptions,
        decisions: &Decisions,
    ) -> Result<Self, PlanError> {
        let failed = |source| PlanError::Layer { layer: "key switching".into(), source };
        check_slots(program, params)?;
        let bootstrapper = decisions.bootstrapper(program, params)?;
        let gadgets = Arc::new(Gadgets::best(params).map_err(failed)?);
        Self::carried(program, params, options, (decisions.clone(), bootstrapper.as_ref(), &gadgets))
    }

    fn carried(
        program: &Program,
        params: &Arc<Params>,
        options: &PlanOptions,
        (decisions, bootstrapper, gadgets): (Decisions, Option<&Arc<Bootstrapper>>, &Arc<Gadgets>),
    ) -> Result<Self, PlanError> {
        let input_level = Level(decisions.input_level);
        params.check_level(input_level)?;
        let terms = StepTerms { params, gadgets, held_bytes: options.held_bytes };
        let Carried { steps, output } = decisions.carry_out(program, bootstrapper, &terms)?;
        let mut plan = Self {
            params: params.clone(),
            program: program.clone(),
            decisions,
            steps,
            output,
            input_level,
            layers: Vec::new(),
            trace: Trace::default(),
            keys: Vec::new(),
            max_shards: program.input_shards,
            seconds: 0.0,
            key_bytes: 0,
            kept_bytes: 0,
        };
        plan.trace_run(&options.cost.unwrap_or_else(|| CostModel::typical(params.degree())))?;
        plan.request_keys()?;
        Ok(plan)
    }

    /// The same plan with its seconds estimated from other unit costs.
    ///
    /// # Errors
    /// None that planning it would not have given.
    pub fn estimated(mut self, cost: &CostModel) -> Result<Self, PlanError> {
        self.trace_run(cost)?;
        Ok(self)
    }

    /// What was decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }
    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }
    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }
    /// The steps.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }
    /// The result, among the values that the steps make.
    pub fn output(&self) -> ValueId {
        self.output
    }
    /// The level inputs are encrypted at.
    pub fn input_level(&self) -> Level {
        self.input_level
    }
    /// For each step, its place among [`Self::layers`].
    pub fn layer_of_steps(&self) -> Vec<usize> {
        let mut layer = 0;
        let mut of = |i: usize| {
            layer += usize::from(i > 0 && self.steps[i].layer != self.steps[i - 1].layer);
            layer
        };
        (0..self.steps.len()).map(&mut of).collect()
    }
    /// The level of its answer.
    pub fn output_level(&self) -> Level {
        Level(self.layers.last().map_or(0, |layer| layer.level_out))
    }
    /// Layer by layer.
    pub fn layers(&self) -> &[LayerReport] {
        &self.layers
    }
    /// All operations.
    pub fn counts(&self) -> Counts {
        self.trace.counts
    }
    /// How often a value is bootstrapped.
    pub fn bootstraps(&self) -> usize {
        self.steps.iter().filter(|s| matches!(s.operation, PlannedOperation::Bootstrap(_))).count()
    }
    /// The keys the run needs, exactly.
    pub fn keys(&self) -> &[KeyRequest] {
        &self.keys
    }
    /// Bytes of those keys in memory.
    pub fn key_bytes(&self) -> u64 {
        self.key_bytes
    }
    /// Bytes of the integers that a run's products with plaintexts are made of, at most: N in f64 for each.
    pub fn integer_bytes(&self) -> u64 {
        8 * self.params().degree() as u64 * self.counts().plaintext_products as u64
    }
    /// Estimated bytes held at most: keys, what is kept for bootstrapping and of layers, live values, and what a layer works on. The network's
    /// own weights are not in it.
    pub fn peak_bytes(&self) -> u64 {
        self.key_bytes + self.kept_bytes + self.layers.iter().map(|l| l.bytes).max().unwrap_or(0)
    }
    /// Most shards of one value.
    pub fn max_shards(&self) -> usize {
        self.max_shards
    }
    /// Estimated seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Runs the steps on the tracing engine and reports layer by layer.
    fn trace_run(&mut self, cost: &CostModel) -> Result<(), PlanError> {
        let engine = TraceEngine::default();
        let input = TraceValue { shards: self.program.input_shards, level: self.input_level };
        let mut whole = Trace::default();
        let mut layers: Vec<LayerReport> = Vec::new();
        let mut failed = None;
        let bytes_of = |v: &TraceValue| ciphertext_bytes(&self.params, v.level, v.shards);
        let mut live = LiveBytes::new(&self.steps, self.output.0, bytes_of(&input));
        run_steps(self.output, &self.steps, &engine, input, &(), |i, operand: &TraceValue, result: &TraceValue| {
            let trace = engine.take();
            let seconds = cost.price(&self.params, &trace).unwrap_or_else(|e| {
                failed = Some(PlanError::from(e));
                0.0
            });
            let counts = trace.counts;
            whole.add(&trace);
            let layer = &self.steps[i].layer;
            let mut bytes = live.during(i, bytes_of(result));
            match working_bytes(&self.params, &self.steps[i], *operand) {
                Ok(working) => bytes += working,
                Err(e) => failed = Some(e),
            }
            match layers.last_mut().filter(|l| &l.layer == layer) {
                Some(l) => {
                    l.level_out = result.level.0;
                    l.shards_out = result.shards;
                    l.counts += counts;
                    l.seconds += seconds;
                    l.bytes = l.bytes.max(bytes);
                }
                None => layers.push(LayerReport {
                    layer: layer.clone(),
                    level_in: self.steps[i].level_in.0,
                    level_out: result.level.0,
                    shards_in: operand.shards,
                    shards_out: result.shards,
                    counts,
                    seconds,
                    bytes,
                }),
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        self.max_shards = layers.iter().map(|l| l.shards_out).chain([self.program.input_shards]).max().unwrap_or(0);
        self.seconds = layers.iter().map(|l| l.seconds).sum();
        self.layers = layers;
        self.trace = whole;
        Ok(())
    }

    fn request_keys(&mut self) -> Result<(), PlanError> {
        let failed = |source| PlanError::Layer { layer: "keys".into(), source };
        self.keys = self.trace.keys(&self.params).map_err(failed)?;
        self.key_bytes = self.keys.iter().map(|k| k.gadget.key_bytes(self.params.degree())).sum();
        self.kept_bytes = kept_bytes(&self.params, &self.steps)?;
        Ok(())
    }
}

pub(super) fn switch_shape(params: &Params, level: Level) -> Result<SwitchShape, ParamsError> {
    let gadget = params.best_gadget(level..=level)?;
    let plan = params.key_switch_tables(&gadget, level)?;
    let (limbs_below, dropped) = match level.below(1) {
        Some(below) => (params.window(below).len(), params.rescale_change(level, below)?.dropped.len()),
        None => (0, 0),
    };
    Ok(SwitchShape { limbs: plan.window.len(), limbs_below, dropped, special: plan.special.len(), digits: plan.digits.len() })
}

fn check_slots(program: &Program, params: &Params) -> Result<(), PlanError> {
    if program.slots.is_power_of_two() && program.slots <= params.slots() {
        return Ok(());
    }
    Err(PlanError::Slots { program: program.slots, have: params.slots(), preset: params.name().to_string() })
}

/// The lowest level each value can have so that the output ends at `output_level`. Index 0 is the input.
fn needed_levels(program: &Program, depths: &[usize], output_level: usize) -> Result<Vec<usize>, PlanError> {
    let mut levels = vec![output_level; program.steps.len() + 1];
    for (i, step) in program.steps.iter().enumerate().rev() {
        let level_in = levels[i + 1] + depths[i];
        for ValueId(v) in step.operation.operands() {
            if v > i {
                return Err(PlanError::UndefinedValue { step: i, layer: step.layer.clone(), value: v });
            }
            levels[v] = levels[v].max(level_in);
        }
    }
    match levels.get(program.output.0) {
        Some(_) => Ok(levels),
        None => Err(PlanError::UndefinedValue { step: program.steps.len(), layer: "output".into(), value: program.output.0 }),
    }
}
