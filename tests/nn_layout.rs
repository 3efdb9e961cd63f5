//! Layouts: where things lie, and that nothing lies twice.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::layout::{Axis, Digit, LayoutError, Place};
use cipherlens::nn::model::Model;
use cipherlens::nn::tensor::Shape;
use cipherlens::nn::{Layout, Layouts, LowerOptions, lower};
use common::models::{Builder, ConvShape, picture, seeded};
use rand::RngExt;
use std::path::Path;

fn place(shard: usize, slot: usize) -> Place {
    Place { shard, slot }
}

#[test]
fn one_channel_to_a_shard() {
    let layout = Layout::row_major(Shape::new(3, 128, 128), 16384).expect("it fits");
    assert_eq!(layout.to_string(), "3x128x128 in 3 shards of 16384 slots; channel 3@shard 1; row 128@128; column 128@1");
    assert_eq!(layout.place(2, 5, 7), place(2, 5 * 128 + 7));
}

#[test]
fn several_channels_to_a_shard() {
    let layout = Layout::row_major(Shape::new(32, 64, 64), 16384).expect("it fits");
    assert_eq!(layout.shards(), 8);
    assert_eq!(layout.place(5, 1, 2), place(1, 4096 + 64 + 2));
    // Not only powers of two: five planes of 20x20 fill 2000 of 2048 slots.
    let layout = Layout::row_major(Shape::new(5, 20, 20), 2048).expect("it fits");
    assert_eq!((layout.shards(), layout.place(4, 19, 19)), (1, place(0, 1999)));
}

#[test]
fn one_channel_over_several_shards() {
    let layout = Layout::row_major_aligned(Shape::new(3, 224, 224), 16384, [32, 32]).expect("it fits");
    assert_eq!(
        layout.to_string(),
        "3x224x224 in 12 shards of 16384 slots; channel 3@shard 4; row 64@224, 4@shard 1; column 224@1"
    );
    assert_eq!(layout.place(1, 130, 3), place(4 + 2, 2 * 224 + 3));
    let layout = Layout::row_major(Shape::new(2, 3, 1000), 512).expect("it fits");
    assert_eq!((layout.shards(), layout.place(1, 2, 600)), (12, place(6 + 4 + 1, 88)));
}

#[test]
fn strides_leave_gaps_for_channels() {
    let shape = Shape::new(1, 16, 16);
    let conv =
        ConvShape { input: shape, outputs: 4, kernel: [3, 3], stride: [2, 2], padding: [1; 4], dilation: [1, 1], groups: 1 };
    let model = Builder::new(shape).conv("y", "x", &conv, &mut seeded(31)).build("y");
    let lowered = lower(&model, 256, &LowerOptions { layouts: Layouts::Multiplexed, ..Default::default() }).expect("lowers");
    assert_eq!(lowered.output.to_string(), "4x8x8 in 1 shard of 256 slots; channel 2@1, 2@16; row 8@32; column 8@2");
    // Nine taps read at distances -1..1 in both directions, from four phases 0..1: -2..1 in each.
    assert_eq!(lowered.costs(&model)[0].products, 16);
}

#[test]
fn wrong_layouts_are_refused() {
    let shape = Shape::new(2, 4, 4);
    let axes = |channel: usize, room: usize| {
        [Axis(vec![Digit::slot(2, channel)]), Axis(vec![Digit::slot(room, 4)]), Axis(vec![Digit::slot(4, 1)])]
    };
    assert!(Layout::new(shape, 32, axes(16, 4)).is_ok());
    assert!(matches!(Layout::new(shape, 32, axes(8, 4)), Err(LayoutError::Places(_))), "the channels overlap");
    assert!(matches!(Layout::new(shape, 31, axes(16, 4)), Err(LayoutError::Places(_))), "the last slot does not exist");
    assert!(matches!(Layout::new(shape, 32, axes(16, 3)), Err(LayoutError::NoRoom { axis: "row", room: 3, .. })));
    assert!(matches!(Layout::row_major(Shape::new(0, 4, 4), 32), Err(LayoutError::Empty { .. })));
    let layout = Layout::row_major(shape, 16).expect("it fits");
    assert!(matches!(layout.unpack(&[vec![0.0; 16]]), Err(LayoutError::SlotVectors { expected: (2, 16), found: (1, 16) })));
}

#[test]
fn row_major_layouts_of_any_shape_hold_every_element_once() {
    let mut rng = seeded(32);
    for _ in 0..500 {
        let shape = Shape::new(rng.random_range(1..=9), rng.random_range(1..=50), rng.random_range(1..=50));
        let slots = 1 << rng.random_range(4..=11);
        let align = [rng.random_range(1..=8), rng.random_range(1..=8)];
        let layout = Layout::row_major_aligned(shape, slots, align).expect("any shape fits");
        // `new` has checked the places; no more shards than plain row-major order needs.
        assert!(layout.shards() <= Layout::row_major(shape, slots).expect("any shape fits").shards(), "{layout}");
        let x = picture(shape, &mut rng);
        let packed = layout.pack(&x).expect("packs");
        assert_eq!(layout.unpack(&packed), Ok(x));
        let held: usize = layout.elements().iter().flatten().flatten().count();
        assert_eq!(held, shape.len());
    }
}

/// The counts that the choice of layouts is worth, on the demo's network: every product is an encoding and a
/// multiplication, so these numbers are what a run costs.
#[test]
fn products_of_the_demo_network() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/imagenette11.safetensors");
    let model = Model::from_file(&path).expect("the demo's model loads");
    let products = |layouts| {
        let lowered = lower(&model, 16384, &LowerOptions { layouts, ..Default::default() }).expect("lowers");
        let costs = lowered.costs(&model);
        println!("{layouts:?}: {}", lowered.input);
        for c in &costs {
            let (i, o) = (c.inputs, c.outputs);
            println!(
                "  {:6} {i} -> {o} shards, {:5} products ({:5} at least), {:4} rotations",
                c.layer, c.products, c.floor, c.rotations
            );
        }
        assert_eq!(lowered.input.shards(), 3);
        costs.iter().map(|c| c.products).collect::<Vec<_>>()
    };
    assert_eq!(products(Layouts::Multiplexed), [864, 2592, 3600, 2888, 3844, 3042, 16]);
    assert_eq!(products(Layouts::Cheapest), [1536, 1152, 2304, 2048, 3136, 2592, 16]);
}
