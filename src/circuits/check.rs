//! What every engine refuses of levels and shards, said once: a circuit fails in the same way whatever it runs on.

use super::{CircuitError, Engine, below, linear_transform::Product};
use crate::ckks::{CkksError, Level, Params};
use std::ops::Range;

type Result<T> = std::result::Result<T, CircuitError>;

fn same_level(operation: &'static str, left: Level, right: Level) -> Result<()> {
    if left == right { Ok(()) } else { Err(CircuitError::Levels { operation, left, right }) }
}

fn same_shards(operation: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(CircuitError::Shards { operation, expected, found }) }
}

/// Two operands of one level and as many shards.
pub(super) fn same<E: Engine>(operation: &'static str, engine: &E, a: &E::Value, b: &E::Value) -> Result<()> {
    same_level(operation, engine.level(a), engine.level(b))?;
    same_shards(operation, engine.shards(a), engine.shards(b))
}

/// [`Engine::multiply_sum`]; the level of the result.
pub(super) fn product<E: Engine>(engine: &E, pairs: &[(&E::Value, &E::Value)]) -> Result<Level> {
    let operation = "multiply";
    let Some((first, _)) = pairs.first() else { return Err(CircuitError::Nothing { operation }) };
    pairs.iter().flat_map(|(a, b)| [a, b]).try_for_each(|x| same(operation, engine, first, x))?;
    below(engine.level(first), 1, operation)
}

/// [`Engine::weighted_sum`]; the first value.
pub(super) fn weighted_sum<'v, E: Engine>(
    engine: &E,
    values: &[&'v E::Value],
    coefficients: &[f64],
    to: Level,
) -> Result<&'v E::Value> {
    let operation = "weighted sum";
    let Some(&first) = values.first() else { return Err(CircuitError::Nothing { operation }) };
    if values.len() != coefficients.len() {
        return Err(CircuitError::Coefficients { expected: values.len(), found: coefficients.len() });
    }
    values.iter().try_for_each(|x| same(operation, engine, first, x))?;
    let left = engine.level(first);
    if to < left { Ok(first) } else { Err(CircuitError::Levels { operation, left, right: to }) }
}

/// [`Engine::multiply_plain`]; the level of the result.
pub(super) fn multiply_plain<E: Engine>(engine: &E, x: &E::Value, factor: &[Vec<f64>]) -> Result<Level> {
    let operation = "multiply plain";
    same_shards(operation, engine.shards(x), factor.len())?;
    below(engine.level(x), 1, operation)
}

/// [`Engine::add_plain`].
pub(super) fn add_plain<E: Engine>(engine: &E, x: &E::Value, offset: &[Vec<f64>]) -> Result<()> {
    same_shards("add plain", engine.shards(x), offset.len())
}

/// [`Engine::drop_to`].
pub(super) fn drop_to<E: Engine>(engine: &E, x: &E::Value, right: Level) -> Result<()> {
    let left = engine.level(x);
    if right <= left { Ok(()) } else { Err(CircuitError::Levels { operation: "drop", left, right }) }
}

/// [`Engine::unpack_pairs`].
pub(super) fn unpack_pairs<E: Engine>(engine: &E, x: &E::Value, count: usize) -> Result<()> {
    same_shards("unpack", count.div_ceil(2), engine.shards(x))
}

/// [`Engine::select`].
pub(super) fn select<E: Engine>(engine: &E, x: &E::Value, range: &Range<usize>) -> Result<()> {
    within("select", engine.shards(x), range)
}

fn within(operation: &'static str, shards: usize, range: &Range<usize>) -> Result<()> {
    match range.start < range.end && range.end <= shards {
        true => Ok(()),
        false => Err(CircuitError::ShardRange { operation, first: range.start, end: range.end, shards }),
    }
}

/// [`Engine::join`].
pub(super) fn join<E: Engine>(engine: &E, values: &[E::Value]) -> Result<()> {
    let operation = "join";
    let Some(first) = values.first() else { return Err(CircuitError::Nothing { operation }) };
    values.iter().try_for_each(|x| same_level(operation, engine.level(first), engine.level(x)))
}

/// [`Engine::inner_product`].
pub(super) fn inner_product<E: Engine>(engine: &E, rotated: &E::Value, sums: &[Vec<Product>]) -> Result<()> {
    let shards = engine.shards(rotated);
    sums.iter().flatten().try_for_each(|p| within("inner product", shards, &(p.source..p.source + 1)))
}

/// [`Engine::accumulate_rotated`], for the level and shards of a sum.
pub(super) fn accumulate<E: Engine>(engine: &E, sum: Option<(Level, usize)>, x: &E::Value) -> Result<()> {
    accumulate_shards(sum, engine.level(x), engine.shards(x))
}

/// The same for the level and shards of what is added.
pub(super) fn accumulate_shards(sum: Option<(Level, usize)>, level: Level, shards: usize) -> Result<()> {
    let operation = "sum of rotated products";
    let Some((of_sum, shards_of_sum)) = sum else { return Ok(()) };
    same_level(operation, of_sum, level)?;
    same_shards(operation, shards_of_sum, shards)
}

/// [`Engine::accumulate_all_rotated`], for so many rotations: the shards of each.
pub(super) fn shards_each<E: Engine + ?Sized>(engine: &E, x: &E::Value, rotations: usize) -> Result<usize> {
    let found = engine.shards(x);
    let each = found.checked_div(rotations).unwrap_or(0).max(1);
    same_shards("sum of rotated products", each * rotations, found)?;
    Ok(each)
}

/// [`Engine::finish`], for the level of a sum; the level of the result.
pub(super) fn finish(level: Level) -> Result<Level> {
    below(level, 1, "linear transform")
}

/// [`Engine::transform`]; the level of the result.
pub(super) fn transform<E: Engine>(engine: &E, x: &E::Value) -> Result<Level> {
    below(engine.level(x), 1, "transform")
}

/// [`Engine::transform_parts`]; the level of the result.
pub(super) fn transform_parts<E: Engine>(engine: &E, x: &E::Value, count: usize) -> Result<Level> {
    same_shards("parts of a transform", count.div_ceil(2), engine.shards(x))?;
    transform(engine, x)
}

/// [`Engine::mod_raise`].
pub(super) fn mod_raise<E: Engine>(engine: &E, x: &E::Value, params: &Params) -> Result<()> {
    params.need_bootstrap().map_err(CkksError::from)?;
    same_level("raising the modulus", engine.level(x), Level(0))
}
