//! A program run by its definition on clear slot vectors: the oracle of the encrypted engines.

use cipherlens::circuits::SlotMatrix;
use cipherlens::plan::program::{Operation, Program, SlotVectors};

/// `[shard][slot]`.
pub type Value = Vec<Vec<f64>>;

/// `sum over (i, r) of diagonal(o, i, r)[s] * x[i][s + r]`.
pub fn multiply(matrix: &dyn SlotMatrix, x: &Value) -> Value {
    let n = matrix.slots();
    assert_eq!(matrix.inputs(), x.len());
    let mut out = vec![vec![0.0; n]; matrix.outputs()];
    let blocks =
        (0..matrix.outputs() * matrix.inputs()).map(|b| matrix.rotations(b / matrix.inputs(), b % matrix.inputs()).len());
    let all_zero = blocks.sum::<usize>() == 1;
    for (o, out) in out.iter_mut().enumerate() {
        for (i, x) in x.iter().enumerate() {
            let rotations = matrix.rotations(o, i);
            assert!(rotations.is_sorted_by(|a, b| a < b) && rotations.iter().all(|r| (*r as usize) < n));
            for r in rotations {
                let mut diagonal = vec![f64::NAN; n];
                matrix.diagonal(o, i, *r, &mut diagonal);
                assert!(all_zero || diagonal.iter().any(|v| *v != 0.0), "the diagonal of rotation {r} is empty");
                for s in 0..n {
                    if diagonal[s] != 0.0 {
                        out[s] += diagonal[s] * x[(s + *r as usize) % n];
                    }
                }
            }
        }
    }
    out
}

/// Runs a program on packed shards.
pub fn run(program: &Program, input: Value) -> Value {
    run_all(program, input).swap_remove(program.output.0)
}

/// As [`run`]: every value.
pub fn run_all(program: &Program, input: Value) -> Vec<Value> {
    assert_eq!(input.len(), program.input_shards);
    let mut values = vec![input];
    for step in &program.steps {
        let of = |v: &cipherlens::plan::program::ValueId| &values[v.0];
        let result = match &step.operation {
            Operation::Linear { input, matrix, rotate_sums, bias } => {
                let mut x = multiply(&**matrix, of(input));
                for r in rotate_sums {
                    for shard in &mut x {
                        let before = shard.clone();
                        shard.iter_mut().enumerate().for_each(|(s, v)| *v += before[(s + r) % before.len()]);
                    }
                }
                if let Some(bias) = bias {
                    combine(&mut x, bias, |a, b| a + b);
                }
                x
            }
            Operation::Square { input } => map(of(input), |v| v * v),
            // By the definition T_k(t) = cos(k arccos t); unused slots may leave the interval.
            Operation::Polynomial { input, polynomial } => {
                let [a, b] = polynomial.interval();
                map(of(input), |v| {
                    let angle = ((2.0 * v - a - b) / (b - a)).clamp(-1.0, 1.0).acos();
                    polynomial.coefficients().iter().enumerate().map(|(k, c)| c * (k as f64 * angle).cos()).sum()
                })
            }
            Operation::Affine { input, factor, offset } => {
                let mut x = of(input).clone();
                if let Some(factor) = factor {
                    combine(&mut x, factor, |a, b| a * b);
                }
                if let Some(offset) = offset {
                    combine(&mut x, offset, |a, b| a + b);
                }
                x
            }
            Operation::Add { a, b } => {
                let mut x = of(a).clone();
                combine(&mut x, of(b), |a, b| a + b);
                x
            }
            Operation::Multiply { a, b } => {
                let mut x = of(a).clone();
                combine(&mut x, of(b), |a, b| a * b);
                x
            }
        };
        values.push(result);
    }
    values
}

fn map(x: &Value, f: impl Fn(f64) -> f64) -> Value {
    x.iter().map(|shard| shard.iter().map(|v| f(*v)).collect()).collect()
}

fn combine(x: &mut Value, y: &Value, f: impl Fn(f64, f64) -> f64) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        assert_eq!(x.len(), y.len());
        x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, *y));
    }
}

/// Keeps `SlotVectors` and [`Value`] the same type.
const _: fn(&SlotVectors) -> &Value = |v| v;
