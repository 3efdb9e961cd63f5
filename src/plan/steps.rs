//! The steps of a plan, and what each costs at a level before anything is decided.

use super::{
    CostModel, Operation, PlanError, PlanOptions, Program, Step, ValueId,
    cost::SwitchShape,
    decisions::{Cut, StepTerms, bootstrap_options, empty_matrix},
    execute::run_step,
    key_budget::KeyBudget,
    placement::{BootstrapLevels, Costs},
    planner::switch_shape,
    program::SlotVectors,
};
use crate::{
    circuits::{
        CircuitError, Gadgets, LinearTransform, SlotMatrix, TraceEngine,
        bootstrap::{BootstrapOptions, Bootstrapper},
        linear_transform::{CountedCut, TransformCounts},
        polynomial::Chebyshev,
        trace::{Trace, TraceValue},
    },
    ckks::{Level, Params},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A step with everything decided.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    /// Layer name.
    pub layer: String,
    /// The values it reads: results of planned steps (index + 1), or the input (0).
    pub operands: Vec<ValueId>,
    /// The operation, matrices split and polynomials in Chebyshev basis.
    pub operation: PlannedOperation,
    /// Level its operands are brought to.
    pub level_in: Level,
    /// Level of its result.
    pub level_out: Level,
    /// The gadgets of its key switches (of a bootstrap's, the circuit's own).
    pub gadgets: Arc<Gadgets>,
}

/// The planned form of [`Operation`].
#[derive(Debug, Clone)]
pub enum PlannedOperation {
    /// A split matrix.
    Linear {
        /// The transform.
        transform: LinearTransform,
        /// Rotations summed after it.
        rotate_sums: Vec<usize>,
        /// Added at the end.
        bias: Option<SlotVectors>,
    },
    /// A polynomial in Chebyshev basis.
    Polynomial {
        /// The polynomial.
        polynomial: Chebyshev,
        /// Most shards that it is evaluated on at once.
        together: usize,
    },
    /// `x^2`.
    Square,
    /// `x * factor + offset`.
    Affine {
        /// Slot-wise factor.
        factor: Option<SlotVectors>,
        /// Slot-wise offset.
        offset: Option<SlotVectors>,
    },
    /// `a + b`.
    Add,
    /// `a * b`.
    Multiply,
    /// The same values at a higher level.
    Bootstrap(Arc<Bootstrapper>),
}

/// Levels a step consumes.
pub(super) fn depth(step: &Step) -> usize {
    match &step.operation {
        Operation::Linear { .. } | Operation::Square { .. } | Operation::Multiply { .. } => 1,
        Operation::Affine { factor, .. } => usize::from(factor.is_some()),
        Operation::Add { .. } => 0,
        Operation::Polynomial { polynomial, .. } => polynomial.depth(),
    }
}

/// What the ways to cut a matrix count, of matrices seen before: it depends on where a matrix is not zero, and costs a pass over that for
/// every way. Also the bootstrapping circuits that were made. Shared by all plans that are made with clones of the same options.
#[derive(Debug, Clone, Default)]
pub struct CutCounts {
    cuts: Arc<Mutex<HashMap<MatrixDigest, Cuts>>>,
    /// Those that are free to have any keys: a plan within a number of key bytes tries many others, each of megabytes, once.
    bootstrappers: Arc<Mutex<Vec<Arc<Bootstrapper>>>>,
}

/// Of where a matrix is not zero.
type MatrixDigest = [u8; 32];
/// The ways to cut a matrix.
type Cuts = Arc<Vec<CountedCut>>;

impl CutCounts {
    fn of(&self, matrix: &dyn SlotMatrix) -> Cuts {
        let mut hasher = blake3::Hasher::new();
        let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
        for n in [inputs, outputs, matrix.slots()] {
            hasher.update(&(n as u64).to_le_bytes());
        }
        for rotations in (0..outputs).flat_map(|o| (0..inputs).map(move |i| matrix.rotations(o, i))) {
            hasher.update(&(rotations.len() as u64).to_le_bytes());
            hasher.update(bytemuck::cast_slice(rotations));
        }
        let key = *hasher.finalize().as_bytes();
        let known = lock(&self.cuts).get(&key).cloned();
        known.unwrap_or_else(|| {
            let found = Arc::new(LinearTransform::candidates(matrix));
            lock(&self.cuts).entry(key).or_insert(found).clone()
        })
    }

    /// The bootstrapping circuit of a parameter set with these options.
    fn bootstrapper(&self, params: &Arc<Params>, options: &BootstrapOptions) -> Result<Arc<Bootstrapper>, CircuitError> {
        let same = |b: &&Arc<Bootstrapper>| Arc::ptr_eq(b.params(), params) && b.options() == options;
        if let Some(known) = lock(&self.bootstrappers).iter().find(same) {
            return Ok(known.clone());
        }
        let made = Arc::new(Bootstrapper::new(params, options)?);
        if options.max_key_bytes.is_none() {
            lock(&self.bootstrappers).push(made.clone());
        }
        Ok(made)
    }
}

/// A program on a parameter set with nothing decided yet: makes steps for given levels, and prices them.
pub(super) struct StepPricer<'a> {
    program: &'a Program,
    params: &'a Arc<Params>,
    options: &'a PlanOptions,
    key_budget: KeyBudget,
    cost: CostModel,
    /// The gadgets of all steps.
    gadgets: Arc<Gadgets>,
    /// Shape of key switching at each level.
    shapes: Vec<SwitchShape>,
    /// Bytes of a key at each level.
    key_bytes: Vec<u64>,
    /// The splits of each linear step.
    candidates: Vec<Cuts>,
    /// Shards of each value.
    shards: Vec<usize>,
    depths: Vec<usize>,
    bootstrapper: Option<Arc<Bootstrapper>>,
    /// Known costs: of steps by level, of bootstraps by shards.
    seconds: Mutex<HashMap<(usize, usize), f64>>,
    bootstrap_seconds: Mutex<HashMap<usize, f64>>,
}

/// Whether a value stays within what bootstrapping serves.
pub(super) fn may_be_bootstrapped(program: &Program, value: ValueId) -> bool {
    let made_by = value.0.checked_sub(1).and_then(|i| program.steps.get(i));
    made_by.and_then(|step| step.bound).is_some_and(|bound| bound <= LARGEST_BOOTSTRAPPED)
}

/// Largest magnitude of what is bootstrapped: the circuit serves [-1, 1], and a little beyond.
const LARGEST_BOOTSTRAPPED: f64 = 1.0 + 1e-6;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> StepPricer<'a> {
    pub(super) fn new(
        program: &'a Program,
        params: &'a Arc<Params>,
        options: &'a PlanOptions,
        key_budget: KeyBudget,
        cost: CostModel,
        depths: &[usize],
    ) -> Result<Self, PlanError> {
        let levels = || (0..=params.max_level().0).map(Level);
        let shapes = levels().map(|l| switch_shape(params, l)).collect::<Result<_, _>>()?;
        let failed = |source| PlanError::Layer { layer: "key switching".into(), source };
        let gadgets = Arc::new(Gadgets::best(params).map_err(failed)?);
        let bytes = |l| Ok::<_, PlanError>(gadgets.rotation(l).map_err(failed)?.key_bytes(params.degree()));
        let key_bytes = levels().map(bytes).collect::<Result<_, _>>()?;
        let mut shards = vec![program.input_shards];
        let mut candidates = Vec::with_capacity(program.steps.len());
        for (i, step) in program.steps.iter().enumerate() {
            let first = step.operation.operands()[0];
            let of_operand = shards.get(first.0).copied();
            let of_operand =
                of_operand.ok_or_else(|| PlanError::UndefinedValue { step: i, layer: step.layer.clone(), value: first.0 })?;
            match &step.operation {
                Operation::Linear { matrix, .. } => {
                    shards.push(matrix.outputs());
                    candidates.push(options.counted.of(&**matrix));
                }
                _ => {
                    shards.push(of_operand);
                    candidates.push(Arc::default());
                }
            }
        }
        let (depths, bootstrapper) = (depths.to_vec(), None);
        let (seconds, bootstrap_seconds) = (Mutex::default(), Mutex::default());
        Ok(Self {
            program,
            params,
            options,
            key_budget,
            cost,
            gadgets,
            shapes,
            key_bytes,
            candidates,
            shards,
            depths,
            bootstrapper,
            seconds,
            bootstrap_seconds,
        })
    }

    /// Makes the bootstrapping circuit, if the parameter set has levels for one: what it takes and gives.
    pub(super) fn with_bootstrap(&mut self) -> Result<Option<BootstrapLevels>, PlanError> {
        let failed = |source| PlanError::Layer { layer: "bootstrapping".into(), source };
        if self.params.bootstrap().is_none() {
            return Ok(None);
        }
        let options = BootstrapOptions {
            max_key_bytes: self.key_budget.bootstrap_key_bytes,
            ..bootstrap_options(self.program, self.params)
        };
        let bootstrapper = self.options.counted.bootstrapper(self.params, &options).map_err(failed)?;
        let (input, output) = (bootstrapper.input_level().0, bootstrapper.output_level().0);
        self.bootstrapper = Some(bootstrapper);
        Ok(Some(BootstrapLevels { input, output }))
    }

    /// The bootstrapping circuit, if the parameter set has levels for one.
    pub(super) fn bootstrapper(&self) -> Option<&Arc<Bootstrapper>> {
        self.bootstrapper.as_ref()
    }

    /// The gadgets of all steps.
    pub(super) fn gadgets(&self) -> &Arc<Gadgets> {
        &self.gadgets
    }

    /// How the matrix of step `i`, if it has one, is cut at a level.
    pub(super) fn cut(&self, i: usize, level: usize) -> Result<Option<Cut>, PlanError> {
        let step = &self.program.steps[i];
        let Operation::Linear { .. } = step.operation else { return Ok(None) };
        let best = self.cheapest(i, level).ok_or_else(|| empty_matrix(step))?;
        Ok(Some(Cut { modulus: best.split.modulus, packing: best.packing }))
    }

    /// Seconds of what a trace counted, each operation at its level.
    pub(super) fn price(&self, trace: &Trace) -> f64 {
        trace.by_level.iter().filter_map(|(l, c)| self.shapes.get(l.0).map(|s| self.cost.seconds(c, s))).sum()
    }

    /// The cheapest split of a linear step at a level.
    fn cheapest(&self, i: usize, level: usize) -> Option<&CountedCut> {
        let price = |c: &CountedCut| self.transform(&c.counts, level);
        self.candidates[i].iter().min_by(|a, b| price(a).total_cmp(&price(b)))
    }

    /// A linear transform: hoisted babies for each input ciphertext, giants for each output ciphertext, one end an output; and its
    /// keys, as if no other layer used them.
    fn transform(&self, c: &TransformCounts, level: usize) -> f64 {
        let (cost, shape) = (&self.cost, &self.shapes[level]);
        let keys = (c.babies + c.giants) as f64 * self.key_bytes[level] as f64;
        let hoist = if c.babies > 0 { c.inputs as f64 * cost.mod_up(shape) } else { 0.0 };
        let switch = cost.key_product(shape) + cost.mod_up(shape);
        let reads = c.babies + c.giants + usize::from(c.conjugations > 0);
        hoist
            + reads as f64 * (cost.key_read(shape) + cost.call)
            + (1 + c.giants) as f64 * cost.call
            + (c.babies * c.inputs) as f64 * (cost.key_product(shape) + cost.mod_down(shape) + 4.0 * cost.ciphertext_sweep(shape))
            + (c.giants * c.outputs) as f64 * (switch + 6.0 * cost.ciphertext_sweep(shape))
            + c.conjugations as f64 * (switch + cost.mod_down(shape) + 6.0 * cost.ciphertext_sweep(shape))
            + c.products as f64 * cost.plaintext_product(shape)
            + c.outputs as f64 * cost.mod_down_rescale(shape)
            + keys * self.key_budget.seconds_per_byte
    }

    fn priced(&self, i: usize, level: usize) -> Result<f64, PlanError> {
        let step = &self.program.steps[i];
        let operands = step.operation.operands();
        if let Operation::Linear { rotate_sums, .. } = &step.operation {
            let transform = self.cheapest(i, level).map_or(0.0, |c| self.transform(&c.counts, level));
            let shape = &self.shapes[level - 1];
            let rotation = self.cost.mod_up(shape) + self.cost.key_product(shape) + self.cost.mod_down(shape);
            let rotations =
                (rotate_sums.len() * self.shards[i + 1]) as f64 * (rotation + 6.0 * self.cost.ciphertext_sweep(shape));
            return Ok(transform + rotations + rotate_sums.len() as f64 * self.cost.key_read(shape));
        }
        let terms = StepTerms { params: self.params, gadgets: &self.gadgets, held_bytes: self.options.held_bytes };
        let planned = terms.planned(i, step, operands.clone(), level, None)?;
        let engine = TraceEngine::default();
        let values: Vec<TraceValue> =
            operands.iter().map(|v| TraceValue { shards: self.shards[v.0], level: Level(level) }).collect();
        run_step(&engine, &planned, &values).map_err(|source| PlanError::Layer { layer: step.layer.clone(), source })?;
        Ok(self.price(&engine.trace()))
    }
}

impl Costs for StepPricer<'_> {
    fn step(&self, step: usize, level: usize) -> Result<Option<f64>, PlanError> {
        if level < self.depths[step] || level >= self.shapes.len() {
            return Ok(None);
        }
        let known = lock(&self.seconds).get(&(step, level)).copied();
        if known.is_some() {
            return Ok(known);
        }
        let seconds = self.priced(step, level)?;
        lock(&self.seconds).insert((step, level), seconds);
        Ok(Some(seconds))
    }

    fn drop(&self, value: ValueId, from: usize) -> Result<f64, PlanError> {
        Ok(self.shapes.get(from).map_or(0.0, |shape| self.shards[value.0] as f64 * self.cost.rescale(shape)))
    }

    fn bootstrap(&self, value: ValueId) -> Result<Option<f64>, PlanError> {
        let (Some(bootstrapper), true) = (&self.bootstrapper, may_be_bootstrapped(self.program, value)) else { return Ok(None) };
        let shards = self.shards[value.0];
        let known = lock(&self.bootstrap_seconds).get(&shards).copied();
        if known.is_some() {
            return Ok(known);
        }
        let trace = bootstrapper.trace(shards).map_err(|source| PlanError::Layer { layer: "bootstrapping".into(), source })?;
        let seconds = self.price(&trace);
        lock(&self.bootstrap_seconds).insert(shards, seconds);
        Ok(Some(seconds))
    }
}
