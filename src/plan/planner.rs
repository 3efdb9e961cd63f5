//! From a program and a parameter set to a plan.

use super::{
    CostModel, PlanError, PlannedStep, Program, ValueId,
    cost::SwitchShape,
    execute::run_steps,
    memory::{Living, ciphertext_bytes, working_bytes},
    placement::{Placed, place},
    steps::{PlannedOperation, Workshop, depth},
    thrift::{self, Thrift},
};
use crate::{
    circuits::{
        Counts, TraceEngine,
        trace::{Trace, TraceValue},
    },
    ckks::{Gadget, KeyKind, KeyRequest, Level, Params, ParamsError},
};
use std::sync::Arc;

/// What the planner may choose.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Level of the output; 0 spends every level the input is given.
    pub output_level: Level,
    /// Unit costs; `None` takes [`CostModel::typical`].
    pub cost: Option<CostModel>,
    /// Most bytes that all keys may take in memory: fewer than a run likes make it slower.
    pub max_key_bytes: Option<u64>,
    /// Bytes that the rotations of a layer may take: its inputs are taken in batches that fit, each reading the keys again.
    pub rotation_bytes: u64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { output_level: Level(0), cost: None, max_key_bytes: None, rotation_bytes: 2 << 30 }
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
    steps: Vec<PlannedStep>,
    output: ValueId,
    input_level: Level,
    layers: Vec<LayerReport>,
    trace: Trace,
    keys: Vec<KeyRequest>,
    max_shards: usize,
    seconds: f64,
    key_bytes: u64,
}

impl Plan {
    /// Plans a program: levels as low as the output's allows, each matrix split at its least estimated cost, keys within
    /// [`PlanOptions::max_key_bytes`].
    pub fn new(program: &Program, params: &Arc<Params>, options: &PlanOptions) -> Result<Self, PlanError> {
        match options.max_key_bytes {
            Some(most) => thrift::within(program, params, options, most),
            None => Self::with(program, params, options, Thrift::default()),
        }
    }

    pub(super) fn with(
        program: &Program,
        params: &Arc<Params>,
        options: &PlanOptions,
        thrift: Thrift,
    ) -> Result<Self, PlanError> {
        if !program.slots.is_power_of_two() || program.slots > params.slots() {
            return Err(PlanError::Slots { program: program.slots, have: params.slots(), preset: params.name().to_string() });
        }
        let cost = options.cost.unwrap_or_else(|| CostModel::typical(params.degree()));
        let depths = program.steps.iter().map(depth).collect::<Vec<_>>();
        let levels = needed_levels(program, &depths, options.output_level.0)?;
        let mut workshop = Workshop::new(program, params, options, thrift, cost, &depths)?;
        let have = params.working_level().0;
        let bootstrap = if levels[0] > have { workshop.with_bootstrap()? } else { None };
        let (input_level, placed) = match bootstrap {
            // Without a bootstrap, as low as the output allows is cheapest throughout.
            _ if levels[0] <= have => {
                (levels[0], (0..depths.len()).map(|i| Placed::Step { step: i, level: levels[i + 1] + depths[i] }).collect())
            }
            Some(bootstrap) => place(program, &depths, have, options.output_level.0, bootstrap, &workshop)?,
            None => {
                return Err(PlanError::LevelsExhausted {
                    needed: levels[0] - options.output_level.0,
                    have: have - options.output_level.0.min(have),
                    preset: params.name().to_string(),
                });
            }
        };
        // Where each value of the program is among the values of the plan.
        let mut held = vec![ValueId(0)];
        let mut steps = Vec::with_capacity(placed.len());
        for placed in placed {
            match placed {
                Placed::Bootstrap(ValueId(value)) => {
                    let made_by = value.checked_sub(1).map_or("input", |step| &program.steps[step].layer);
                    steps.push(workshop.bootstrap_step(made_by, held[value])?);
                    held[value] = ValueId(steps.len());
                }
                Placed::Step { step, level } => {
                    let operands = program.steps[step].operation.operands().iter().map(|v| held[v.0]).collect();
                    steps.push(workshop.step(step, operands, level)?);
                    held.push(ValueId(steps.len()));
                }
            }
        }
        let mut plan = Self {
            params: params.clone(),
            program: program.clone(),
            steps,
            output: held[program.output.0],
            input_level: Level(input_level),
            layers: Vec::new(),
            trace: Trace::default(),
            keys: Vec::new(),
            max_shards: program.input_shards,
            seconds: 0.0,
            key_bytes: 0,
        };
        plan.trace_run(&cost)?;
        plan.request_keys()?;
        Ok(plan)
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
    /// Estimated bytes held at most: keys, living values, and what a layer works on.
    pub fn peak_bytes(&self) -> u64 {
        self.key_bytes + self.layers.iter().map(|l| l.bytes).max().unwrap_or(0)
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
        let mut living = Living::new(&self.steps, self.output.0, bytes_of(&input));
        run_steps(self.output, &self.steps, &engine, input, &(), |i, operand: &TraceValue, result: &TraceValue| {
            let trace = engine.take();
            let seconds = cost.price(&self.params, &trace).unwrap_or_else(|e| {
                failed = Some(PlanError::from(e));
                0.0
            });
            let counts = trace.counts;
            whole.add_counts(&trace);
            // A bootstrapping circuit asks for its keys itself.
            if !matches!(self.steps[i].operation, PlannedOperation::Bootstrap(_)) {
                whole.add_keys(&trace);
            }
            let layer = &self.steps[i].layer;
            let mut bytes = living.during(i, bytes_of(result));
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
        let (params, trace) = (&self.params, &self.trace);
        let rotations = trace.rotations.iter().map(|&(level, k)| (level, KeyKind::Galois(params.galois_element(k as i64))));
        let conjugations = trace.conjugations.iter().map(|&level| (level, KeyKind::Galois(params.conjugation_element())));
        let relinearizations = trace.relinearizations.iter().map(|&level| (level, KeyKind::Relin));
        self.keys = rotations
            .chain(conjugations)
            .chain(relinearizations)
            .map(|(level, kind)| Ok(KeyRequest { kind, gadget: gadget(params, level)? }))
            .collect::<Result<_, PlanError>>()?;
        let circuit = self.steps.iter().find_map(|s| match &s.operation {
            PlannedOperation::Bootstrap(circuit) => Some(circuit),
            _ => None,
        });
        for key in circuit.iter().flat_map(|circuit| circuit.keys()) {
            if !self.keys.contains(key) {
                self.keys.push(*key);
            }
        }
        self.key_bytes = self.keys.iter().map(|k| k.gadget.key_bytes(params.degree()) as u64).sum();
        Ok(())
    }
}

/// The gadget of keys that serve one level.
pub(super) fn gadget(params: &Params, level: Level) -> Result<Gadget, ParamsError> {
    params.gadget(level..=level, params.best_alpha(level..=level)?)
}

pub(super) fn switch_shape(params: &Arc<Params>, level: Level) -> Result<SwitchShape, ParamsError> {
    let gadget = gadget(params, level)?;
    let plan = params.gadget_plan(&gadget, level)?;
    let (limbs_below, dropped) = match level.below(1) {
        Some(below) => (params.window(below).len(), params.rescale_change(level, below)?.dropped.len()),
        None => (0, 0),
    };
    Ok(SwitchShape { limbs: plan.window.len(), limbs_below, dropped, special: plan.special.len(), digits: plan.digits.len() })
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
