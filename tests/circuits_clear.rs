//! Circuits on clear slots and on levels: every split and packing computes the same matrix.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::{
    circuits::{
        CircuitError, ClearEngine, Counts, DiagonalTransform, Engine, Gadgets, LinearTransform, Packing, Split, TraceEngine,
        clear::ClearValue, trace::TraceValue,
    },
    ckks::{Level, presets},
};
use common::diagonals::{Diagonals, random_shards, seeded, worst};
use std::{collections::BTreeMap, sync::Arc};

/// What tracing notes of key switches; nothing here is switched.
fn gadgets() -> Gadgets {
    Gadgets::best(&presets::by_name("insecure-tiny").unwrap()).unwrap()
}

#[test]
fn every_split_and_packing_is_the_matrix() {
    let mut rng = seeded("splits", 11);
    let (slots, gadgets) = (64, gadgets());
    let pool: Vec<u32> = (0..slots as u32).filter(|r| r % 3 != 1).collect();
    for (inputs, outputs) in [(1, 1), (1, 2), (2, 1), (3, 2), (2, 5), (4, 4)] {
        let matrix = Arc::new(Diagonals::random(&mut rng, inputs, outputs, slots, 9, &pool));
        let x = random_shards(&mut rng, inputs, slots);
        let want = matrix.times(&x);
        for packing in Packing::ALL.into_iter().filter(|p| *p != Packing::Halves || inputs == 1) {
            let turn = usize::from(packing == Packing::Halves);
            for log in 0..=6 {
                let transform = LinearTransform::new(matrix.clone(), Split { modulus: 1 << log }, packing);
                let got = transform.apply(&ClearEngine, &ClearValue::new(x.clone(), Level(1)), &gadgets).unwrap();
                assert_eq!(got.level, Level(0));
                assert!(worst(&got.shards, &want) < 1e-12, "{inputs} {outputs} {packing:?} {log}");

                let trace = TraceEngine::default();
                let traced = transform.apply(&trace, &TraceValue { shards: inputs, level: Level(1) }, &gadgets).unwrap();
                assert_eq!(traced, TraceValue { shards: outputs, level: Level(0) });
                let counts = trace.counts();
                let (packed_in, packed_out) = transform.packed_shards();
                let babies = transform.babies().iter().filter(|&&b| b != 0).count();
                let giants = transform.giants().filter(|&g| g != 0).count();
                assert_eq!(counts.plaintext_products, transform.products());
                assert_eq!(counts.hoisted_rotations, babies * packed_in + turn);
                assert_eq!(counts.rotations, babies * packed_in + giants * packed_out + turn);
                assert_eq!(counts.conjugations + turn, packing.conjugations(packed_out));
                assert_eq!(counts.rescales, packed_out);
            }
        }
    }
}

/// Vectors of different lengths would be cut to the shorter, and the result would look like one.
#[test]
fn vectors_of_another_length_are_refused() {
    let (engine, gadgets) = (ClearEngine, gadgets());
    let value = |slots: usize| ClearValue::new(vec![vec![0.5; slots]; 2], Level(2));
    let (x, short) = (value(64), value(63));
    let mut rng = seeded("lengths", 12);
    let matrix = Arc::new(Diagonals::random(&mut rng, 2, 1, 64, 2, &[0, 1]));
    let linear = LinearTransform::new(matrix, Split { modulus: 8 }, Packing::Real);
    let diagonals = BTreeMap::from([(0, (vec![1.0, 2.0], vec![0.0, 0.0]))]);
    let transform = DiagonalTransform::new(64, &diagonals, 1).unwrap();
    let refused = [
        engine.add(x.clone(), &short),
        engine.sub(x.clone(), &short),
        engine.multiply(&x, &short, &gadgets),
        engine.multiply_sum(&[(&x, &x), (&short, &short)], &gadgets),
        engine.weighted_sum(&[&x, &short], &[1.0, 2.0], 0.0, Level(1)),
        engine.multiply_plain(&x, &short.shards),
        engine.add_plain(&x, &short.shards),
        linear.apply(&engine, &short, &gadgets),
        engine.transform(&short, &transform, &gadgets),
    ];
    for found in refused {
        assert!(matches!(found, Err(CircuitError::Slots { expected: 64, found: 63, .. })), "{found:?}");
    }
}

#[test]
fn batches_of_inputs_compute_the_same_and_hold_less() {
    let mut rng = seeded("batches", 13);
    let (slots, gadgets) = (64, gadgets());
    let pool: Vec<u32> = (0..slots as u32).collect();
    let matrix = Arc::new(Diagonals::random(&mut rng, 7, 2, slots, 12, &pool));
    let x = random_shards(&mut rng, 7, slots);
    let want = matrix.times(&x);
    for packing in [Packing::Real, Packing::Inputs, Packing::Outputs] {
        let whole = LinearTransform::new(matrix.clone(), Split { modulus: 16 }, packing);
        let mut batches = Vec::new();
        for room in [0, 30, 60, 90, 1000] {
            let transform = whole.clone().with_room_for(room);
            batches.push(transform.batch());
            assert!(transform.batch() == 1 || transform.peak_ciphertexts() <= room);
            let got = transform.apply(&ClearEngine, &ClearValue::new(x.clone(), Level(1)), &gadgets).unwrap();
            assert!(worst(&got.shards, &want) < 1e-12, "{packing:?} {room}");
            let trace = TraceEngine::default();
            transform.apply(&trace, &TraceValue { shards: 7, level: Level(1) }, &gadgets).unwrap();
            let reference = TraceEngine::default();
            whole.apply(&reference, &TraceValue { shards: 7, level: Level(1) }, &gadgets).unwrap();
            let (counts, whole) = (trace.counts(), reference.counts());
            assert!(counts.key_reads >= whole.key_reads && counts.sweeps >= whole.sweeps);
            let rest = Counts { key_reads: whole.key_reads, sweeps: whole.sweeps, calls: whole.calls, ..counts };
            assert_eq!(rest, whole, "batches read keys again and add sums, and change no other count");
        }
        assert_eq!(batches[0], 1);
        assert_eq!(batches.last(), Some(&whole.packed_shards().0));
        assert!(batches.is_sorted());
    }
}

#[test]
fn packing_halves_the_products_of_dense_blocks() {
    let mut rng = seeded("packing", 12);
    let slots = 32;
    let pool: Vec<u32> = (0..slots as u32).collect();
    let matrix = Arc::new(Diagonals::random(&mut rng, 4, 4, slots, 400, &pool));
    let products = |packing| LinearTransform::new(matrix.clone(), Split { modulus: 8 }, packing).products();
    assert_eq!(products(Packing::Real), 16 * 32);
    assert_eq!(products(Packing::Inputs), 8 * 32);
    assert_eq!(products(Packing::Outputs), 8 * 32);
    let single = Arc::new(Diagonals::random(&mut rng, 1, 3, slots, 400, &pool));
    assert_eq!(LinearTransform::new(single, Split { modulus: 8 }, Packing::Halves).products(), 3 * 16);
}
