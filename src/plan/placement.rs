//! Where a program is bootstrapped and at which level each step runs: a shortest path over the steps.
//!
//! A state is the level of every value that is still to be read; a step takes a state to another by running at one of the
//! levels its operands allow, each operand possibly bootstrapped first, and costs what that costs. Residual branches are
//! values that live longer, nothing else. (Networks have two or three such values at a time; [`MOST_STATES`] bounds the rest.)

use super::{PlanError, Program, ValueId};
use std::collections::HashMap;

/// States kept after each step, cheapest first.
const MOST_STATES: usize = 2048;

/// What a bootstrap asks and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootstrapLevels {
    /// The least level it takes a value at.
    pub input: usize,
    /// The level it gives it back at.
    pub output: usize,
}

/// Costs in seconds; levels are plain numbers here.
pub(super) trait Costs {
    /// Step `step` run at level `level`, at least its depth. `None`: it cannot run there.
    fn step(&self, step: usize, level: usize) -> Result<Option<f64>, PlanError>;
    /// A value brought down from a level.
    fn drop(&self, value: ValueId, from: usize) -> Result<f64, PlanError>;
    /// A value bootstrapped. `None`: it must not be, since nothing bounds it.
    fn bootstrap(&self, value: ValueId) -> Result<Option<f64>, PlanError>;
}

/// A step of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// This value, whatever its level, is bootstrapped, and read in its new form from here on.
    Bootstrap(ValueId),
    /// The next step of the program, with its operands brought to this level.
    Step {
        /// Index of the step.
        step: usize,
        /// The level.
        level: usize,
    },
}

/// The choices of one step: which operands (a bit each) are bootstrapped before it, and its level.
#[derive(Debug, Clone, Copy)]
struct Choice {
    bootstrapped: u8,
    level: usize,
}

#[derive(Debug, Clone)]
struct State {
    /// Levels of the living values, in the order of their ids.
    levels: Vec<usize>,
    cost: f64,
    /// Index among the states before the step, and what was chosen.
    from: (usize, Choice),
}

/// The cheapest placement of a program whose input may come at any level up to `top`; the input's level and the steps.
///
/// `depths[i]` levels are consumed by step i. Cost: steps x states x levels evaluations of `costs`.
pub(super) fn place(
    program: &Program,
    depths: &[usize],
    top: usize,
    output_level: usize,
    bootstrap: BootstrapLevels,
    costs: &impl Costs,
) -> Result<(usize, Vec<Placed>), PlanError> {
    let needed = needed(program, depths, output_level, bootstrap, costs)?;
    let placed = place_above(&needed, program, depths, (top, output_level), bootstrap, costs);
    // What has no placement is said of the step where the last value is lost.
    placed.or_else(|_| place_above(&vec![0; needed.len()], program, depths, (top, output_level), bootstrap, costs))
}

/// For each value a level below which nothing can come of it: it could neither be read to the end nor be bootstrapped. States with values
/// that run down are the cheapest ones, and would crowd out those that lead somewhere.
fn needed(
    program: &Program,
    depths: &[usize],
    output_level: usize,
    bootstrap: BootstrapLevels,
    costs: &impl Costs,
) -> Result<Vec<usize>, PlanError> {
    let mut needed = vec![0; program.steps.len() + 1];
    needed[program.output.0] = output_level;
    for (i, step) in program.steps.iter().enumerate().rev() {
        let wanted = depths[i] + needed[i + 1];
        for operand in step.operation.operands() {
            let raised = (bootstrap.input..=bootstrap.output).contains(&wanted) && costs.bootstrap(operand)?.is_some();
            let least = if raised { bootstrap.input } else { wanted };
            needed[operand.0] = needed[operand.0].max(least);
        }
    }
    Ok(needed)
}

/// [`place`], where every value is made at the level that is needed of it or above.
fn place_above(
    needed: &[usize],
    program: &Program,
    depths: &[usize],
    (top, output_level): (usize, usize),
    bootstrap: BootstrapLevels,
    costs: &impl Costs,
) -> Result<(usize, Vec<Placed>), PlanError> {
    let last_use = last_use(program);
    let living = |i: usize| -> Vec<usize> { (0..=i).filter(|&v| last_use[v] >= i).collect() };
    let start: Vec<State> = (needed[0]..=top)
        .map(|level| State { levels: vec![level], cost: 0.0, from: (0, Choice { bootstrapped: 0, level }) })
        .collect();
    let mut history = vec![start];
    for (i, step) in program.steps.iter().enumerate() {
        let (before, after) = (living(i), living(i + 1));
        let mut operands = step.operation.operands();
        // A square written as a product reads one value twice.
        operands.dedup();
        let mut next: HashMap<Vec<usize>, State> = HashMap::new();
        for (index, state) in history[i].iter().enumerate() {
            for bootstrapped in 0..1u8 << operands.len() {
                let Some((levels, boots)) = raised(state, &before, &operands, bootstrapped, bootstrap, costs)? else { continue };
                let level_of = |v: usize| before.iter().position(|&b| b == v).map_or(0, |at| levels[at]);
                let most = operands.iter().map(|o| level_of(o.0)).min().unwrap_or(0);
                for level in depths[i] + needed[i + 1]..=most {
                    let Some(seconds) = costs.step(i, level)? else { continue };
                    let mut cost = state.cost + boots + seconds;
                    for &operand in &operands {
                        let from = level_of(operand.0);
                        if from > level {
                            cost += costs.drop(operand, from)?;
                        }
                    }
                    let levels: Vec<usize> =
                        after.iter().map(|&v| if v == i + 1 { level - depths[i] } else { level_of(v) }).collect();
                    let better = next.get(&levels).is_none_or(|known| cost < known.cost);
                    if better {
                        let from = (index, Choice { bootstrapped, level });
                        next.insert(levels.clone(), State { levels, cost, from });
                    }
                }
            }
        }
        let mut next: Vec<State> = next.into_values().collect();
        if next.is_empty() {
            return Err(stuck(program, i, depths[i], bootstrap, top));
        }
        // Equal costs are told apart by levels, so that the plan does not depend on the order of a hash table.
        next.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| a.levels.cmp(&b.levels)));
        next.truncate(MOST_STATES);
        history.push(next);
    }
    let finished = living(program.steps.len());
    let output = finished.iter().position(|&v| v == program.output.0).unwrap_or(0);
    let ends = history.last().map_or(&[][..], Vec::as_slice);
    let end = (0..ends.len()).find(|&e| ends[e].levels.get(output).is_some_and(|&l| l >= output_level));
    let Some(end) = end else {
        let last = program.steps.len().saturating_sub(1);
        return Err(stuck(program, last, depths.last().copied().unwrap_or(0) + output_level, bootstrap, top));
    };
    Ok(trace_back(program, &history, end))
}

/// The levels after bootstrapping the chosen operands, and what that costs; none where it cannot be done.
fn raised(
    state: &State,
    living: &[usize],
    operands: &[ValueId],
    chosen: u8,
    bootstrap: BootstrapLevels,
    costs: &impl Costs,
) -> Result<Option<(Vec<usize>, f64)>, PlanError> {
    let (mut levels, mut cost) = (state.levels.clone(), 0.0);
    for (_, operand) in operands.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1) {
        let Some(at) = living.iter().position(|&v| v == operand.0) else { return Ok(None) };
        // A bootstrap that gains no level is never worth it.
        if levels[at] < bootstrap.input || levels[at] >= bootstrap.output {
            return Ok(None);
        }
        let Some(seconds) = costs.bootstrap(*operand)? else { return Ok(None) };
        levels[at] = bootstrap.output;
        cost += seconds;
    }
    Ok(Some((levels, cost)))
}

fn trace_back(program: &Program, history: &[Vec<State>], end: usize) -> (usize, Vec<Placed>) {
    let mut placed = Vec::with_capacity(program.steps.len());
    let mut at = end;
    for i in (0..program.steps.len()).rev() {
        let (from, choice) = history[i + 1][at].from;
        placed.push(Placed::Step { step: i, level: choice.level });
        let mut operands = program.steps[i].operation.operands();
        operands.dedup();
        for (bit, &operand) in operands.iter().enumerate().rev() {
            if choice.bootstrapped >> bit & 1 == 1 {
                placed.push(Placed::Bootstrap(operand));
            }
        }
        at = from;
    }
    placed.reverse();
    (history[0][at].levels[0], placed)
}

/// For each value the last step that reads it; the number of steps for the output, 0 for values never read.
fn last_use(program: &Program) -> Vec<usize> {
    let mut last = vec![0; program.steps.len() + 1];
    for (i, step) in program.steps.iter().enumerate() {
        for ValueId(v) in step.operation.operands() {
            last[v] = i;
        }
    }
    last[program.output.0] = program.steps.len();
    last
}

fn stuck(program: &Program, step: usize, needed: usize, bootstrap: BootstrapLevels, top: usize) -> PlanError {
    let layer = program.steps.get(step).map_or_else(String::new, |s| s.layer.clone());
    PlanError::NoPlacement { layer, needed, top, input: bootstrap.input, output: bootstrap.output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Operation, Step};
    use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

    struct Table {
        depths: Vec<usize>,
        /// Seconds a level, of each step.
        slopes: Vec<f64>,
        /// Seconds of a bootstrap of each value.
        boots: Vec<Option<f64>>,
    }

    impl Costs for Table {
        fn step(&self, step: usize, level: usize) -> Result<Option<f64>, PlanError> {
            Ok((level >= self.depths[step]).then(|| self.slopes[step] * (level + 1) as f64))
        }
        fn drop(&self, value: ValueId, from: usize) -> Result<f64, PlanError> {
            Ok(0.01 * (value.0 + from) as f64)
        }
        fn bootstrap(&self, value: ValueId) -> Result<Option<f64>, PlanError> {
            Ok(self.boots[value.0])
        }
    }

    fn random(rng: &mut impl Rng, steps: usize) -> (Program, Table) {
        let mut program = Program { slots: 8, input_shards: 1, steps: Vec::new(), output: ValueId(steps) };
        let mut table = Table { depths: Vec::new(), slopes: Vec::new(), boots: vec![Some(2.0)] };
        for i in 0..steps {
            let (input, other) = (ValueId(i), ValueId(rng.random_range(0..=i)));
            let (operation, depth) = match rng.random_range(0..3) {
                0 => (Operation::Add { a: input, b: other }, 0),
                1 => (Operation::Multiply { a: input, b: other }, 1),
                _ => (Operation::Square { input }, rng.random_range(1..=3)),
            };
            program.steps.push(Step { layer: format!("s{i}"), operation, bound: None });
            table.depths.push(depth);
            table.slopes.push(rng.random_range(0.1..1.0));
            table.boots.push(rng.random_bool(0.8).then(|| rng.random_range(0.5..4.0)));
        }
        (program, table)
    }

    /// The least cost from a step on, by trying everything.
    fn exhaustive(program: &Program, table: &Table, b: BootstrapLevels, i: usize, levels: &mut Vec<usize>) -> f64 {
        if i == program.steps.len() {
            return 0.0;
        }
        let mut operands = program.steps[i].operation.operands();
        operands.dedup();
        let mut best = f64::INFINITY;
        for chosen in 0..1usize << operands.len() {
            let kept = levels.clone();
            let mut cost = 0.0;
            let mut allowed = true;
            for (_, v) in operands.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1) {
                allowed &= levels[v.0] >= b.input && levels[v.0] < b.output && table.boots[v.0].is_some();
                cost += table.boots[v.0].unwrap_or(0.0);
                levels[v.0] = b.output;
            }
            let most = operands.iter().map(|v| levels[v.0]).min().unwrap();
            for level in (table.depths[i]..=most).filter(|_| allowed) {
                let drops: f64 =
                    operands.iter().filter(|v| levels[v.0] > level).map(|v| table.drop(*v, levels[v.0]).unwrap()).sum();
                levels.push(level - table.depths[i]);
                let here = cost + drops + table.step(i, level).unwrap().unwrap();
                best = best.min(here + exhaustive(program, table, b, i + 1, levels));
                levels.pop();
            }
            *levels = kept;
        }
        best
    }

    #[test]
    fn the_cheapest_placement_is_found() {
        let seed = 41;
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let b = BootstrapLevels { input: 1, output: 4 };
        let (mut solved, mut bootstraps) = (0, 0);
        for _ in 0..60 {
            let (program, table) = random(&mut rng, 5);
            let best = (0..=4).map(|l| exhaustive(&program, &table, b, 0, &mut vec![l])).fold(f64::INFINITY, f64::min);
            match place(&program, &table.depths, 4, 0, b, &table) {
                Err(e) => assert!(best.is_infinite(), "{e}, and yet {best} is possible"),
                Ok((input, placed)) => {
                    solved += 1;
                    // Replayed: every step finds its levels, and the cost is the least.
                    let (mut levels, mut cost) = (vec![input], 0.0);
                    for p in placed {
                        match p {
                            Placed::Bootstrap(v) => {
                                bootstraps += 1;
                                assert!(levels[v.0] >= b.input);
                                levels[v.0] = b.output;
                                cost += table.boots[v.0].unwrap();
                            }
                            Placed::Step { step, level } => {
                                let mut operands = program.steps[step].operation.operands();
                                operands.dedup();
                                for v in operands {
                                    assert!(levels[v.0] >= level && level >= table.depths[step]);
                                    if levels[v.0] > level {
                                        cost += table.drop(v, levels[v.0]).unwrap();
                                    }
                                }
                                cost += table.step(step, level).unwrap().unwrap();
                                levels.push(level - table.depths[step]);
                            }
                        }
                    }
                    assert!((cost - best).abs() < 1e-9, "found {cost}, possible {best}: {program:?}");
                }
            }
        }
        assert!(solved > 30 && bootstraps > 20, "{solved} solved with {bootstraps} bootstraps");
    }

    /// Five branches of a value that nothing bounds: most states run one of them down, and those are the cheapest.
    #[test]
    fn states_that_lead_nowhere_do_not_crowd_out_the_others() {
        let (branches, steps) = (5, 4);
        let mut program = Program { slots: 8, input_shards: 1, steps: Vec::new(), output: ValueId(0) };
        let mut table = Table { depths: Vec::new(), slopes: Vec::new(), boots: vec![None] };
        let mut push = |operation: Operation, depth: usize| {
            program.steps.push(Step { layer: String::new(), operation, bound: None });
            table.depths.push(depth);
            table.slopes.push(1.0);
            table.boots.push((depth > 0).then_some(20.0));
            ValueId(program.steps.len())
        };
        let mut ends = Vec::new();
        for _ in 0..branches {
            ends.push((0..steps).fold(ValueId(0), |input, _| push(Operation::Square { input }, 5)));
        }
        let output = ends.into_iter().reduce(|a, b| push(Operation::Add { a, b }, 0)).unwrap();
        program.output = push(Operation::Square { input: output }, 8);
        let b = BootstrapLevels { input: 8, output: 16 };
        let zeros = vec![0; program.steps.len() + 1];
        let crowded = place_above(&zeros, &program, &table.depths, (16, 0), b, &table);
        assert!(crowded.is_err(), "harder programs are needed to show it");
        let (input, placed) = place(&program, &table.depths, 16, 0, b, &table).unwrap();
        let boots = placed.iter().filter(|p| matches!(p, Placed::Bootstrap(_))).count();
        println!("input at {input}, {boots} bootstraps");
        // Each branch takes 20 levels, of which it has 16 at first and 8 of each bootstrap.
        assert!(boots >= branches && input >= 13, "{input} {boots}");
    }

    #[test]
    fn what_cannot_be_placed_is_named() {
        let square =
            |i: usize| Step { layer: format!("act{i}"), operation: Operation::Square { input: ValueId(i) }, bound: None };
        let program = Program { slots: 8, input_shards: 1, steps: vec![square(0), square(1)], output: ValueId(2) };
        let table = Table { depths: vec![3, 5], slopes: vec![1.0; 2], boots: vec![Some(1.0); 3] };
        let error = place(&program, &table.depths, 4, 0, BootstrapLevels { input: 0, output: 4 }, &table).unwrap_err();
        assert!(matches!(&error, PlanError::NoPlacement { layer, needed: 5, .. } if layer == "act1"), "{error}");
    }
}
