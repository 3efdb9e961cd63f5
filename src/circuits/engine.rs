//! The operations a circuit is made of.

use super::{CircuitError, DiagonalTransform, Gadgets, LinearTransform, linear_transform::Product};
use crate::ckks::{KeyRequest, Level, Params};

type Result<T> = std::result::Result<T, CircuitError>;

/// Evaluates circuits over sharded values. Products land on the canonical scale one level below, so any two values of
/// one level add. All operations act on every shard of a value. Those that switch keys are told which gadget to use at which level.
pub trait Engine: Sync {
    /// A sharded value at one level; cheap to clone.
    type Value: Clone + Send + Sync;
    /// A sum of key-switched products before mod_down and rescale.
    type Sum: Send;

    /// Level of a value.
    fn level(&self, x: &Self::Value) -> Level;
    /// Shards of a value.
    fn shards(&self, x: &Self::Value) -> usize;

    /// Whether the engine has these keys; engines without keys have all.
    ///
    /// # Errors
    /// The first key that is missing.
    fn check_keys(&self, _keys: &[KeyRequest]) -> Result<()> {
        Ok(())
    }

    /// `a + b`, equal levels. In place where nothing else holds a, likewise for the next two.
    fn add(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value>;
    /// `a - b`, equal levels.
    fn sub(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value>;
    /// `x + c`.
    fn add_scalar(&self, x: Self::Value, c: f64) -> Result<Self::Value>;
    /// `sum a b` over pairs, all at one level; one level (a single relinearization and rescale).
    fn multiply_sum(&self, pairs: &[(&Self::Value, &Self::Value)], gadgets: &Gadgets) -> Result<Self::Value>;
    /// `a * b`, equal levels; one level.
    fn multiply(&self, a: &Self::Value, b: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value> {
        self.multiply_sum(&[(a, b)], gadgets)
    }
    /// `x^2`; one level.
    fn square(&self, x: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value> {
        self.multiply_sum(&[(x, x)], gadgets)
    }
    /// `constant + sum_k coefficients[k] * values[k]`, all values at one level, brought to a lower one by a single rescale.
    fn weighted_sum(&self, values: &[&Self::Value], coefficients: &[f64], constant: f64, to: Level) -> Result<Self::Value>;
    /// `x * factor`, slot by slot (`[shard][slot]`); one level.
    fn multiply_plain(&self, x: &Self::Value, factor: &[Vec<f64>]) -> Result<Self::Value>;
    /// `x + offset`, slot by slot (`[shard][slot]`).
    fn add_plain(&self, x: &Self::Value, offset: &[Vec<f64>]) -> Result<Self::Value>;
    /// Down to a lower level, at its canonical scale; the value itself at its own level.
    fn drop_to(&self, x: &Self::Value, level: Level) -> Result<Self::Value>;
    /// Slot s of the result is slot s + k of x.
    fn rotate(&self, x: &Self::Value, k: usize, gadgets: &Gadgets) -> Result<Self::Value>;

    /// x rotated by each of `ks` (0 allowed), as one value of `ks.len() * shards` shards, all shards of `ks[0]` first.
    /// One mod_up a shard serves all rotations; each key is read once for all shards.
    fn rotate_all(&self, x: &Self::Value, ks: &[usize], gadgets: &Gadgets) -> Result<Self::Value>;
    /// Pairs of real shards as complex ones: shard k of the result is `x[2k] + i x[2k + 1]`.
    fn pack_pairs(&self, x: &Self::Value) -> Result<Self::Value>;
    /// `x + conj(x)`, twice the real parts.
    fn real_parts(&self, x: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value>;
    /// Twice the real and imaginary parts of each shard, alternating, `count` shards in all.
    fn unpack_pairs(&self, x: &Self::Value, count: usize, gadgets: &Gadgets) -> Result<Self::Value>;
    /// Some of the shards.
    fn select(&self, x: &Self::Value, shards: std::ops::Range<usize>) -> Result<Self::Value>;
    /// The shards of all values, one after the other; equal levels.
    fn join(&self, values: &[Self::Value]) -> Result<Self::Value>;
    /// For each list, the sum over its products of the turned diagonal times a rotated input shard, not rescaled: one shard. A list of
    /// nothing gives zero.
    fn inner_product(&self, rotated: &Self::Value, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<Self::Value>;
    /// `sum += rotate(x, k)` for an unrescaled product x.
    fn accumulate_rotated(&self, sum: &mut Option<Self::Sum>, x: Self::Value, k: usize, gadgets: &Gadgets) -> Result<()>;
    /// mod_down and rescale of a sum: a value one level below.
    fn finish(&self, sum: Self::Sum) -> Result<Self::Value>;

    /// The map of every shard; one level.
    fn transform(&self, x: &Self::Value, transform: &DiagonalTransform, gadgets: &Gadgets) -> Result<Self::Value>;
    /// Twice the real and imaginary parts of [`Self::transform`], alternating, `count` shards in all; one level. The parts are
    /// taken before the rescale, whose rounding would count twice after it.
    fn transform_parts(
        &self,
        x: &Self::Value,
        transform: &DiagonalTransform,
        count: usize,
        gadgets: &Gadgets,
    ) -> Result<Self::Value>;
    /// From level 0 to the top: the value over [`Params::message_ratio`], plus what a polynomial of integers below the bound of
    /// [`crate::ckks::params::Bootstrap`] has in its slots.
    fn mod_raise(&self, x: &Self::Value, params: &Params) -> Result<Self::Value>;
    /// `x * factor` by another scale: no level, no noise.
    fn scaled_by(&self, x: &Self::Value, factor: f64) -> Result<Self::Value>;
}
