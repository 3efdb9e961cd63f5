//! One table of what operations of circuits refuse, held against every engine: a plan that fails where it is traced fails in the same way
//! on ciphertexts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit::{ckks::Bench, diagonals};

use cipherlens::{
    circuits::{
        CircuitError, ClearEngine, DiagonalTransform, EncryptedEngine, Engine, Gadgets, LinearTransform, NoisyEngine, NoisyRuns,
        Packing, Split, TraceEngine,
        clear::ClearValue,
        linear_transform::{Product, Term},
        trace::TraceValue,
    },
    ckks::{CkksError, Level, Params, ParamsError},
};
use std::{collections::BTreeMap, sync::Arc};

/// Every refusal of an engine that makes values of so many shards at a level. It has no keys: what is refused is refused before they are
/// looked for.
fn refusals<E: Engine>(name: &str, engine: &E, params: &Params, value: impl Fn(usize, usize) -> E::Value) {
    let slots = params.slots();
    let gadgets = &Gadgets::best(params).unwrap();
    let plain = |shards: usize| vec![vec![0.5; slots]; shards];
    let ([a, low, wide], bottom) = ([value(2, 2), value(2, 1), value(3, 2)], value(1, 0));
    let mut rng = diagonals::seeded("a matrix", 3);
    let matrix = Arc::new(diagonals::Diagonals::random(&mut rng, 2, 1, slots, 2, &[0, 1, 5]));
    let linear = LinearTransform::new(matrix, Split { modulus: slots }, Packing::Real);
    let product = Product { output: 0, giant: 0, term: Term { input: 0, baby: 0, rotation: 0 }, source: 2 };
    let transform = DiagonalTransform::new(slots, &BTreeMap::from([(0, (vec![1.0, 2.0], vec![0.0, 0.0]))]), 1).unwrap();
    let summed = |x: &E::Value, then: Option<&E::Value>| -> Result<E::Value, CircuitError> {
        let mut sum = None;
        for x in [x].into_iter().chain(then) {
            engine.accumulate_rotated(&mut sum, x.clone(), 0, gadgets)?;
        }
        engine.finish(sum.unwrap())
    };

    let levels = |operation, left, right| CircuitError::Levels { operation, left: Level(left), right: Level(right) };
    let shards = |operation, expected, found| CircuitError::Shards { operation, expected, found };
    let exhausted = |operation| CircuitError::LevelsExhausted { operation, needed: 1, have: 0 };
    let nothing = |operation| CircuitError::Nothing { operation };
    let range = |operation, first, end| CircuitError::ShardRange { operation, first, end, shards: 2 };
    let raised = match params.bootstrap() {
        Some(_) => levels("raising the modulus", 2, 0),
        None => CircuitError::Ckks(CkksError::Params(ParamsError::NoBootstrap { name: params.name().into() })),
    };
    let (multiply, weighted, sum) = ("multiply", "weighted sum", "sum of rotated products");
    let sums = |values: &[&E::Value], coefficients: &[f64], to| engine.weighted_sum(values, coefficients, 0.0, Level(to));
    let table = [
        (engine.add(a.clone(), &low), levels("add", 2, 1)),
        (engine.add(a.clone(), &wide), shards("add", 2, 3)),
        (engine.sub(a.clone(), &low), levels("sub", 2, 1)),
        (engine.sub(a.clone(), &wide), shards("sub", 2, 3)),
        (engine.multiply_sum(&[], gadgets), nothing(multiply)),
        (engine.multiply(&a, &low, gadgets), levels(multiply, 2, 1)),
        (engine.multiply(&a, &wide, gadgets), shards(multiply, 2, 3)),
        (engine.multiply_sum(&[(&a, &a), (&low, &low)], gadgets), levels(multiply, 2, 1)),
        (engine.square(&bottom, gadgets), exhausted(multiply)),
        (sums(&[], &[], 1), nothing(weighted)),
        (sums(&[&a, &low], &[1.0, 2.0], 0), levels(weighted, 2, 1)),
        (sums(&[&a, &wide], &[1.0, 2.0], 0), shards(weighted, 2, 3)),
        (sums(&[&a, &a], &[1.0], 0), CircuitError::Coefficients { expected: 2, found: 1 }),
        (sums(&[&a], &[1.0], 2), levels(weighted, 2, 2)),
        (engine.multiply_plain(&a, &plain(1)), shards("multiply plain", 2, 1)),
        (engine.multiply_plain(&bottom, &plain(1)), exhausted("multiply plain")),
        (engine.add_plain(&a, &plain(1)), shards("add plain", 2, 1)),
        (engine.drop_to(&low, Level(2)), levels("drop", 1, 2)),
        (engine.unpack_pairs(&a, 5, gadgets), shards("unpack", 3, 2)),
        (engine.unpack_pairs(&a, 2, gadgets), shards("unpack", 1, 2)),
        (engine.select(&a, 1..3), range("select", 1, 3)),
        (engine.select(&a, 1..1), range("select", 1, 1)),
        (engine.join(&[]), nothing("join")),
        (engine.join(&[a.clone(), low.clone()]), levels("join", 2, 1)),
        (engine.inner_product(&a, &linear, &[vec![product]]), range("inner product", 2, 3)),
        (linear.apply(engine, &wide, gadgets), shards("linear transform", 2, 3)),
        (summed(&a, Some(&low)), levels(sum, 2, 1)),
        (summed(&a, Some(&wide)), shards(sum, 2, 3)),
        (summed(&bottom, None), exhausted("linear transform")),
        (engine.transform(&bottom, &transform, gadgets), exhausted("transform")),
        (engine.transform_parts(&bottom, &transform, 2, gadgets), exhausted("transform")),
        (engine.transform_parts(&a, &transform, 5, gadgets), shards("parts of a transform", 3, 2)),
        (engine.mod_raise(&a, params), raised),
    ];
    for (found, expected) in table {
        let found = found.map(|_| "nothing is refused").map_err(|e| format!("{e:?}"));
        assert_eq!(found, Err(format!("{expected:?}")), "{name} on {}", params.name());
    }
}

fn runs(params: &Arc<Params>, count: u64) -> NoisyRuns {
    NoisyRuns::new((1..=count).map(|seed| NoisyEngine::new(params, seed)).collect())
}

#[test]
fn every_engine_refuses_the_same() {
    for preset in ["insecure-toy", "insecure-boot"] {
        let bench = Bench::new(preset);
        let params = &bench.params;
        let slots = |shards: usize| vec![vec![0.25; params.slots()]; shards];
        refusals("clear", &ClearEngine, params, |shards, level| ClearValue::new(slots(shards), Level(level)));
        refusals("trace", &TraceEngine::default(), params, |shards, level| TraceValue { shards, level: Level(level) });
        let noisy = NoisyEngine::new(params, 1);
        refusals("noisy", &noisy, params, |shards, level| noisy.encrypted(slots(shards), Level(level)));
        let runs = runs(params, 2);
        refusals("in step", &runs, params, |shards, level| runs.encrypted(vec![slots(shards); 2], Level(level)).unwrap());
        let encrypted = EncryptedEngine::new(bench.evaluator(&[]));
        refusals("encrypted", &encrypted, params, |shards, level| Arc::new(bench.encrypt(&slots(shards), Level(level))));
    }
}

#[test]
fn runs_in_step_refuse_values_of_another_number_of_runs() {
    let params = cipherlens::ckks::presets::by_name("insecure-toy").unwrap();
    let (two, three) = (runs(&params, 2), runs(&params, 3));
    let slots = |runs: usize| vec![vec![vec![0.25; params.slots()]; 2]; runs];
    let x = two.encrypted(slots(2), Level(2)).unwrap();
    let other = three.encrypted(slots(3), Level(2)).unwrap();
    let refused = [
        two.encrypted(slots(3), Level(2)).err(),
        two.add(x.clone(), &other).err(),
        two.add_scalar(other.clone(), 1.0).err(),
        two.join(&[x.clone(), other.clone()]).err(),
        two.select(&other, 0..1).err(),
        two.finish(other).err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(CircuitError::Runs { expected: 2, found: 3 })), "{error:?}");
    }
}
