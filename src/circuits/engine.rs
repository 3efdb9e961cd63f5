//! The operations a circuit is made of.

use super::{CircuitError, DiagonalTransform, Gadgets, LinearTransform, check, linear_transform::Product};
use crate::ckks::{KeyRequest, Level, Params};

type Result<T> = std::result::Result<T, CircuitError>;

/// One sum of [`Engine::weighted_sums`].
#[derive(Debug, Clone)]
pub struct WeightedSum<'v, V> {
    /// What is summed, of one level.
    pub values: Vec<&'v V>,
    /// A factor for each.
    pub coefficients: Vec<f64>,
    /// What is added.
    pub constant: f64,
}

/// One sum of [`Engine::multiply_sums`].
#[derive(Debug, Clone)]
pub struct PairSum<'v, V> {
    /// The products that are summed, of values of one level.
    pub pairs: Vec<(&'v V, &'v V)>,
    /// What is added.
    pub constant: f64,
}

/// Evaluates circuits over sharded values. Products land on the canonical scale one level below, so any two values of
/// one level add. All operations act on every shard of a value. Those that switch keys are told which gadget to use at which level.
///
/// # Errors
/// Each operation names what it refuses, and all engines refuse it alike. On ciphertexts the scheme refuses more, by
/// [`CircuitError::Ckks`]: a value of another parameter set or secret key, a key that is missing, a number that is not finite or too large
/// to be encoded, and what the backend fails at. Whatever switches a key gives [`CircuitError::NoGadget`] at a level beyond the gadgets it
/// is told, but for [`ClearEngine`](super::ClearEngine), which switches none. [`NoisyRuns`](super::NoisyRuns) gives
/// [`CircuitError::Runs`] for values of another number of runs. Engines that hold slots give [`CircuitError::Slots`] for vectors of
/// another number of them.
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
    /// [`CkksError::MissingKeys`](crate::ckks::CkksError::MissingKeys), with the first key that is missing.
    fn check_keys(&self, _keys: &[KeyRequest]) -> Result<()> {
        Ok(())
    }

    /// `a + b`, equal levels. In place where nothing else holds a, likewise for the next two.
    ///
    /// # Errors
    /// [`CircuitError::Levels`] or [`CircuitError::Shards`] where those of the operands differ.
    fn add(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value>;

    /// `a - b`, equal levels.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn sub(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value>;

    /// `x + c`.
    ///
    /// # Errors
    /// Those of every operation ([`Engine`]).
    fn add_scalar(&self, x: Self::Value, c: f64) -> Result<Self::Value>;

    /// `sum a b` over pairs, all at one level; one level (a single relinearization and rescale).
    ///
    /// # Errors
    /// [`CircuitError::Nothing`] without a pair, [`CircuitError::Levels`] or [`CircuitError::Shards`] where those of the operands
    /// differ, [`CircuitError::LevelsExhausted`] at level 0.
    fn multiply_sum(&self, pairs: &[(&Self::Value, &Self::Value)], gadgets: &Gadgets) -> Result<Self::Value>;

    /// [`Self::multiply_sum`] for several lists of pairs, all at one level, and a number added to each sum.
    ///
    /// # Errors
    /// As [`Self::multiply_sum`].
    fn multiply_sums(&self, sums: &[PairSum<'_, Self::Value>], gadgets: &Gadgets) -> Result<Vec<Self::Value>> {
        let one = |s: &PairSum<'_, Self::Value>| {
            let sum = self.multiply_sum(&s.pairs, gadgets)?;
            if s.constant == 0.0 { Ok(sum) } else { self.add_scalar(sum, s.constant) }
        };
        sums.iter().map(one).collect()
    }

    /// `a * b`, equal levels; one level.
    ///
    /// # Errors
    /// As [`Self::multiply_sum`].
    fn multiply(&self, a: &Self::Value, b: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value> {
        self.multiply_sum(&[(a, b)], gadgets)
    }

    /// `x^2`; one level.
    ///
    /// # Errors
    /// As [`Self::multiply_sum`].
    fn square(&self, x: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value> {
        self.multiply_sum(&[(x, x)], gadgets)
    }

    /// `constant + sum_k coefficients[k] * values[k]`, all values at one level, brought to a lower one by a single rescale.
    ///
    /// # Errors
    /// [`CircuitError::Nothing`] without a value, [`CircuitError::Coefficients`] unless there is one for each,
    /// [`CircuitError::Levels`] where values differ in level or `to` is not below theirs, [`CircuitError::Shards`] where they differ in
    /// shards.
    fn weighted_sum(&self, values: &[&Self::Value], coefficients: &[f64], constant: f64, to: Level) -> Result<Self::Value>;

    /// [`Self::weighted_sum`] for several sums, brought to one level.
    ///
    /// # Errors
    /// As [`Self::weighted_sum`].
    fn weighted_sums(&self, sums: &[WeightedSum<'_, Self::Value>], to: Level) -> Result<Vec<Self::Value>> {
        sums.iter().map(|s| self.weighted_sum(&s.values, &s.coefficients, s.constant, to)).collect()
    }

    /// Whether what can be made of values of so many shards at one level had better be made at once, by [`Self::multiply_sums`] and
    /// [`Self::weighted_sums`], and held: a device has too little to do with few ciphertexts.
    fn takes_many(&self, _shards: usize) -> bool {
        false
    }

    /// `x * factor`, slot by slot (`[shard][slot]`); one level.
    ///
    /// # Errors
    /// [`CircuitError::Shards`] unless there is a vector for each shard, [`CircuitError::LevelsExhausted`] at level 0.
    fn multiply_plain(&self, x: &Self::Value, factor: &[Vec<f64>]) -> Result<Self::Value>;

    /// `x + offset`, slot by slot (`[shard][slot]`).
    ///
    /// # Errors
    /// [`CircuitError::Shards`] unless there is a vector for each shard.
    fn add_plain(&self, x: &Self::Value, offset: &[Vec<f64>]) -> Result<Self::Value>;

    /// Down to a lower level, at its canonical scale; the value itself at its own level.
    ///
    /// # Errors
    /// [`CircuitError::Levels`] where `level` is above the value's.
    fn drop_to(&self, x: &Self::Value, level: Level) -> Result<Self::Value>;

    /// Slot s of the result is slot s + k of x.
    ///
    /// # Errors
    /// Those of every operation ([`Engine`]).
    fn rotate(&self, x: &Self::Value, k: usize, gadgets: &Gadgets) -> Result<Self::Value>;

    /// x rotated by each of `ks` (0 allowed), as one value of `ks.len() * shards` shards, all shards of `ks[0]` first.
    /// One mod_up a shard serves all rotations; each key is read once for all shards.
    ///
    /// # Errors
    /// Those of every operation ([`Engine`]).
    fn rotate_all(&self, x: &Self::Value, ks: &[usize], gadgets: &Gadgets) -> Result<Self::Value>;

    /// Pairs of real shards as complex ones: shard k of the result is `x[2k] + i x[2k + 1]`.
    ///
    /// # Errors
    /// Those of every operation ([`Engine`]).
    fn pack_pairs(&self, x: &Self::Value) -> Result<Self::Value>;

    /// `x + conj(x)`, twice the real parts.
    ///
    /// # Errors
    /// Those of every operation ([`Engine`]).
    fn real_parts(&self, x: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value>;

    /// Twice the real and imaginary parts of each shard, alternating, `count` shards in all.
    ///
    /// # Errors
    /// [`CircuitError::Shards`] unless `count` is twice the shards of x, or one less.
    fn unpack_pairs(&self, x: &Self::Value, count: usize, gadgets: &Gadgets) -> Result<Self::Value>;

    /// Some of the shards, one at least.
    ///
    /// # Errors
    /// [`CircuitError::ShardRange`] for none, or for some that x does not have.
    fn select(&self, x: &Self::Value, shards: std::ops::Range<usize>) -> Result<Self::Value>;

    /// The shards of all values, one after the other; equal levels.
    ///
    /// # Errors
    /// [`CircuitError::Nothing`] without a value, [`CircuitError::Levels`] where their levels differ.
    fn join(&self, values: &[Self::Value]) -> Result<Self::Value>;

    /// For each list, the sum over its products of the turned diagonal times a rotated input shard, not rescaled: one shard. A list of
    /// nothing gives zero.
    ///
    /// # Errors
    /// [`CircuitError::ShardRange`] for a product with a shard that `rotated` does not have.
    fn inner_product(&self, rotated: &Self::Value, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<Self::Value>;

    /// `sum += rotate(x, k)` for an unrescaled product x.
    ///
    /// # Errors
    /// [`CircuitError::Levels`] or [`CircuitError::Shards`] where those of x are not those of the sum.
    fn accumulate_rotated(&self, sum: &mut Option<Self::Sum>, x: Self::Value, k: usize, gadgets: &Gadgets) -> Result<()>;

    /// [`Self::accumulate_rotated`] for several rotations, each of shards of its own: x has all shards of `ks[0]` first.
    ///
    /// # Errors
    /// As [`Self::accumulate_rotated`]; [`CircuitError::Shards`] too where the shards of x cannot be shared out.
    fn accumulate_all_rotated(
        &self,
        sum: &mut Option<Self::Sum>,
        x: &Self::Value,
        ks: &[usize],
        gadgets: &Gadgets,
    ) -> Result<()> {
        let shards = check::shards_each(self, x, ks.len())?;
        for (i, &k) in ks.iter().enumerate() {
            self.accumulate_rotated(sum, self.select(x, i * shards..(i + 1) * shards)?, k, gadgets)?;
        }
        Ok(())
    }

    /// Products that [`Self::inner_product`] makes at once without loss: how many giants' sums of a transform are made together.
    fn products_together(&self) -> usize {
        32
    }

    /// mod_down and rescale of a sum: a value one level below.
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] at level 0.
    fn finish(&self, sum: Self::Sum) -> Result<Self::Value>;

    /// The map of every shard; one level.
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] at level 0.
    fn transform(&self, x: &Self::Value, transform: &DiagonalTransform, gadgets: &Gadgets) -> Result<Self::Value>;

    /// Twice the real and imaginary parts of [`Self::transform`], alternating, `count` shards in all; one level. The parts are
    /// taken before the rescale, whose rounding would count twice after it.
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] at level 0, [`CircuitError::Shards`] unless `count` is twice the shards of x, or one less.
    fn transform_parts(
        &self,
        x: &Self::Value,
        transform: &DiagonalTransform,
        count: usize,
        gadgets: &Gadgets,
    ) -> Result<Self::Value>;

    /// From level 0 to the top: the value over [`Params::message_ratio`], plus what a polynomial of integers below the bound of
    /// [`crate::ckks::params::Bootstrap`] has in its slots.
    ///
    /// # Errors
    /// [`CircuitError::Ckks`] for a parameter set that does not bootstrap, [`CircuitError::Levels`] for a value that is not at level 0;
    /// [`CircuitError::Ckks`] too for a ciphertext that is not at its canonical scale.
    fn mod_raise(&self, x: &Self::Value, params: &Params) -> Result<Self::Value>;

    /// `x * factor` by another scale: no level, no noise.
    ///
    /// # Errors
    /// [`CircuitError::Ckks`]: of ciphertexts, a factor that leaves a scale below 1 or above the modulus.
    fn scaled_by(&self, x: &Self::Value, factor: f64) -> Result<Self::Value>;
}

/// What `each` makes of a value, of at most so many of its shards at a time: what it holds beside them is then that much less.
///
/// # Errors
/// Those of `each`, [`Engine::select`] and [`Engine::join`].
pub(crate) fn by_shards<E: Engine>(
    engine: &E,
    x: &E::Value,
    most: usize,
    each: impl Fn(&E::Value) -> Result<E::Value>,
) -> Result<E::Value> {
    let (shards, most) = (engine.shards(x), most.max(1));
    if shards <= most {
        return each(x);
    }
    let part = |first: usize| each(&engine.select(x, first..shards.min(first + most))?);
    engine.join(&(0..shards).step_by(most).map(part).collect::<Result<Vec<_>>>()?)
}
