//! Several noisy runs of one circuit in step, so that what they share is made once: the diagonals of its matrices, which cost as much
//! as many products with them.

use super::NoisyEngine;
use crate::circuits::clear::{ClearValue, inner_products};
use crate::circuits::{CircuitError, DiagonalTransform, Engine, Gadgets, LinearTransform, check, linear_transform::Product};
use crate::ckks::{Level, Params};
use rayon::prelude::*;
use std::ops::Range;

type Result<T> = std::result::Result<T, CircuitError>;

/// Evaluates like as many [`NoisyEngine`]s, each with a value and noise of its own.
#[derive(Debug)]
pub struct NoisyRuns(Vec<NoisyEngine>);

/// One value for each run, of equal levels and shards.
type Values = Vec<ClearValue>;

impl NoisyRuns {
    /// These runs, of one parameter set. Each gives what it would alone.
    pub fn new(runs: Vec<NoisyEngine>) -> Self {
        Self(runs)
    }

    /// The slots of each run, `[run][shard][slot]`, as they would be encrypted under the secret key at a level.
    ///
    /// # Errors
    /// [`CircuitError::Runs`] for slots of another number of runs, or no run.
    pub fn encrypted(&self, slots: Vec<Vec<Vec<f64>>>, level: Level) -> Result<Values> {
        self.check_count(slots.len())?;
        Ok(self.0.iter().zip(slots).map(|(run, shards)| run.encrypted(shards, level)).collect())
    }

    fn check_count(&self, found: usize) -> Result<()> {
        let expected = self.0.len();
        if found == expected && found > 0 { Ok(()) } else { Err(CircuitError::Runs { expected, found }) }
    }

    /// An operation on one value of each run, its operands.
    fn each<T: Send>(&self, operands: &[&Values], operation: impl Fn(&NoisyEngine, usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        operands.iter().try_for_each(|x| self.check_count(x.len()))?;
        self.0.par_iter().enumerate().map(|(i, run)| operation(run, i)).collect()
    }
}

impl Engine for NoisyRuns {
    type Value = Values;
    type Sum = Values;

    fn level(&self, x: &Values) -> Level {
        x.first().map_or(Level(0), |x| x.level)
    }
    fn shards(&self, x: &Values) -> usize {
        x.first().map_or(0, |x| x.shards.len())
    }
    fn add(&self, a: Values, b: &Values) -> Result<Values> {
        self.each(&[&a, b], |run, i| run.add(a[i].clone(), &b[i]))
    }
    fn sub(&self, a: Values, b: &Values) -> Result<Values> {
        self.each(&[&a, b], |run, i| run.sub(a[i].clone(), &b[i]))
    }
    fn add_scalar(&self, x: Values, c: f64) -> Result<Values> {
        self.each(&[&x], |run, i| run.add_scalar(x[i].clone(), c))
    }
    fn multiply_sum(&self, pairs: &[(&Values, &Values)], gadgets: &Gadgets) -> Result<Values> {
        self.each(&pairs.iter().flat_map(|&(a, b)| [a, b]).collect::<Vec<_>>(), |run, i| {
            let pairs: Vec<_> = pairs.iter().map(|(a, b)| (&a[i], &b[i])).collect();
            run.multiply_sum(&pairs, gadgets)
        })
    }
    fn weighted_sum(&self, values: &[&Values], coefficients: &[f64], constant: f64, to: Level) -> Result<Values> {
        self.each(values, |run, i| {
            let values: Vec<_> = values.iter().map(|v| &v[i]).collect();
            run.weighted_sum(&values, coefficients, constant, to)
        })
    }
    fn multiply_plain(&self, x: &Values, factor: &[Vec<f64>]) -> Result<Values> {
        self.each(&[x], |run, i| run.multiply_plain(&x[i], factor))
    }
    fn add_plain(&self, x: &Values, offset: &[Vec<f64>]) -> Result<Values> {
        self.each(&[x], |run, i| run.add_plain(&x[i], offset))
    }
    fn drop_to(&self, x: &Values, level: Level) -> Result<Values> {
        self.each(&[x], |run, i| run.drop_to(&x[i], level))
    }
    fn rotate(&self, x: &Values, k: usize, gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.rotate(&x[i], k, gadgets))
    }
    fn rotate_all(&self, x: &Values, ks: &[usize], gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.rotate_all(&x[i], ks, gadgets))
    }
    fn pack_pairs(&self, x: &Values) -> Result<Values> {
        self.each(&[x], |run, i| run.pack_pairs(&x[i]))
    }
    fn real_parts(&self, x: &Values, gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.real_parts(&x[i], gadgets))
    }
    fn unpack_pairs(&self, x: &Values, count: usize, gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.unpack_pairs(&x[i], count, gadgets))
    }
    fn select(&self, x: &Values, shards: Range<usize>) -> Result<Values> {
        self.each(&[x], |run, i| run.select(&x[i], shards.clone()))
    }
    fn join(&self, values: &[Values]) -> Result<Values> {
        self.each(&values.iter().collect::<Vec<_>>(), |run, i| run.join(&values.iter().map(|v| v[i].clone()).collect::<Vec<_>>()))
    }
    fn inner_product(&self, rotated: &Values, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<Values> {
        self.check_count(rotated.len())?;
        check::inner_product(self, rotated, sums)?;
        let products = inner_products(&rotated.iter().collect::<Vec<_>>(), transform, sums)?;
        self.each(&[rotated], |run, i| Ok(run.with_encoding_noise(&rotated[i], products[i].clone(), sums)))
    }
    fn accumulate_rotated(&self, sum: &mut Option<Values>, x: Values, k: usize, gadgets: &Gadgets) -> Result<()> {
        let before = sum.take();
        let operands: Vec<&Values> = before.iter().chain([&x]).collect();
        *sum = Some(self.each(&operands, |run, i| {
            let mut sum = before.as_ref().map(|sums| sums[i].clone());
            run.accumulate_rotated(&mut sum, x[i].clone(), k, gadgets)?;
            sum.ok_or(CircuitError::Nothing { operation: "sum of rotated products" })
        })?);
        Ok(())
    }
    fn finish(&self, sum: Values) -> Result<Values> {
        self.each(&[&sum], |run, i| run.finish(sum[i].clone()))
    }
    fn transform(&self, x: &Values, t: &DiagonalTransform, gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.transform(&x[i], t, gadgets))
    }
    fn transform_parts(&self, x: &Values, t: &DiagonalTransform, count: usize, gadgets: &Gadgets) -> Result<Values> {
        self.each(&[x], |run, i| run.transform_parts(&x[i], t, count, gadgets))
    }
    fn mod_raise(&self, x: &Values, params: &Params) -> Result<Values> {
        self.each(&[x], |run, i| run.mod_raise(&x[i], params))
    }
    fn scaled_by(&self, x: &Values, factor: f64) -> Result<Values> {
        self.each(&[x], |run, i| run.scaled_by(&x[i], factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuits::linear_transform::{Packing, Split};
    use crate::circuits::{ClearEngine, SlotMatrix};
    use crate::ckks::presets;
    use std::sync::Arc;

    /// Every slot of two shards goes to every slot of two.
    #[derive(Debug)]
    struct Full;

    const SLOTS: usize = 16;
    const ROTATIONS: [u32; SLOTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    impl SlotMatrix for Full {
        fn inputs(&self) -> usize {
            2
        }
        fn outputs(&self) -> usize {
            2
        }
        fn slots(&self) -> usize {
            SLOTS
        }
        fn rotations(&self, _: usize, _: usize) -> &[u32] {
            &ROTATIONS
        }
        fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
            let weight = |s: usize| ((3 * output + 5 * input + 7 * rotation as usize + 11 * s) % 13) as f64 - 6.0;
            values.iter_mut().enumerate().for_each(|(s, v)| *v = weight(s));
        }
    }

    #[test]
    fn runs_in_step_are_runs_alone_and_near_the_definition() {
        let params = presets::by_name("insecure-toy").expect("a preset");
        let (level, gadgets) = (Level(2), Gadgets::best(&params).expect("gadgets"));
        let slots = |run: usize| (0..2).map(|o| (0..SLOTS).map(|s| ((run + o + 3 * s) % 7) as f64 / 7.0).collect()).collect();
        let both: Vec<Vec<Vec<f64>>> = vec![slots(0), slots(1)];
        for packing in [Packing::Real, Packing::Inputs, Packing::Outputs] {
            for modulus in [1, 4, SLOTS] {
                let transform = LinearTransform::new(Arc::new(Full), Split { modulus }, packing);
                let runs = NoisyRuns::new(vec![NoisyEngine::new(&params, 5), NoisyEngine::of_real_parts(&params, 6)]);
                let x = runs.encrypted(both.clone(), level).expect("two runs");
                let found = transform.apply(&runs, &x, &gadgets).expect("a product");
                let alone = [NoisyEngine::new(&params, 5), NoisyEngine::of_real_parts(&params, 6)];
                for ((shards, found), alone) in both.iter().zip(found).zip(&alone) {
                    let x = alone.encrypted(shards.clone(), level);
                    let y = transform.apply(alone, &x, &gadgets).expect("a product");
                    assert_eq!(y.shards, found.shards, "{packing:?} {modulus}");
                    let exact =
                        transform.apply(&ClearEngine, &ClearValue::new(shards.clone(), level), &gadgets).expect("a product");
                    for o in 0..2 {
                        for s in 0..SLOTS {
                            let mut sum = 0.0;
                            for (i, shard) in shards.iter().enumerate() {
                                for r in ROTATIONS {
                                    let mut diagonal = [0.0; SLOTS];
                                    Full.diagonal(o, i, r, &mut diagonal);
                                    sum += diagonal[s] * shard[(s + r as usize) % SLOTS];
                                }
                            }
                            assert!((exact.shards[o][s] - sum).abs() < 1e-11, "{packing:?} {modulus}");
                            assert!(
                                (found.shards[o][s] - sum).abs() < 1e-2,
                                "{packing:?} {modulus}: {} {sum}",
                                found.shards[o][s]
                            );
                        }
                    }
                }
            }
        }
        let two = NoisyRuns::new((5..7).map(|seed| NoisyEngine::new(&params, seed)).collect());
        assert!(two.encrypted(vec![slots(0)], level).is_err());
    }
}
