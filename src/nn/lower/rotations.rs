//! Which rotations a layer needs, counted from its three coordinates.
//!
//! A place is a sum over channel, row and column, so the distances from output to input elements are sums of a channel
//! distance, a row distance and a column distance, and any three that occur occur together. The set of rotations from one
//! shard to another is therefore a sum of three small sets.

use crate::nn::layout::{Axis, Layout, Place};
use crate::nn::model::Window;
use std::collections::BTreeMap;

/// A set of rotations: residues modulo the slots of a shard, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RotationSet {
    words: Vec<u64>,
    slots: usize,
}

impl RotationSet {
    pub(super) fn new(slots: usize) -> Self {
        Self { words: vec![0; slots.div_ceil(64)], slots }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn insert(&mut self, rotation: usize) {
        self.words[rotation / 64] |= 1 << (rotation % 64);
    }

    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(i * 64 + bit)
            })
        })
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Every rotation modulo half a turn.
    pub(super) fn halved(&self) -> Self {
        let mut halved = Self::new(self.slots);
        self.iter().for_each(|r| halved.insert(r % (self.slots / 2)));
        halved
    }

    /// Adds every `r + shift mod slots` for r in `other`.
    fn union_shifted(&mut self, other: &Self, shift: usize) {
        let n = self.words.len();
        if !self.slots.is_multiple_of(64) {
            other.iter().for_each(|r| self.insert((r + shift) % self.slots));
            return;
        }
        let (words, bits) = (shift / 64, shift % 64);
        for (i, word) in other.words.iter().enumerate().filter(|(_, w)| **w != 0) {
            let at = (i + words) % n;
            self.words[at] |= word << bits;
            if bits != 0 {
                self.words[(at + 1) % n] |= word >> (64 - bits);
            }
        }
    }

    /// All sums of one element of each.
    fn sum(&self, other: &Self) -> Self {
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        let mut sum = Self::new(self.slots);
        few.iter().for_each(|shift| sum.union_shifted(many, shift));
        sum
    }
}

/// Distances along one coordinate: (output shard part, input shard part) -> slot distances.
#[derive(Debug, Clone)]
struct Distances(BTreeMap<(usize, usize), RotationSet>);

impl Distances {
    fn collect(slots: usize, pairs: impl Iterator<Item = (Place, Place)>) -> Self {
        let mut sets = BTreeMap::new();
        for (out, input) in pairs {
            let set = sets.entry((out.shard, input.shard)).or_insert_with(|| RotationSet::new(slots));
            set.insert((input.slot + slots - out.slot) % slots);
        }
        Self(sets)
    }

    /// From every place of a group of outputs to every one of the same group of inputs.
    fn between(outputs: Grouped<'_>, inputs: Grouped<'_>, slots: usize) -> Self {
        let mut sets = BTreeMap::new();
        for (to, from) in outputs.groups().zip(inputs.groups()) {
            // Shard by shard: a dense layer has a million pairs and few shards.
            let (to, from) = (by_shard(to), by_shard(from));
            for (out, outs) in &to {
                for (input, ins) in &from {
                    let set: &mut RotationSet = sets.entry((*out, *input)).or_insert_with(|| RotationSet::new(slots));
                    for o in outs {
                        ins.iter().for_each(|i| set.insert(if i < o { i + slots - o } else { i - o }));
                    }
                }
            }
        }
        Self(sets)
    }

    /// Along rows or columns.
    fn window(output: Line<'_>, input: Line<'_>, along: Along, slots: usize) -> Self {
        let pairs = (0..output.length).flat_map(|o| {
            let taps = (0..along.kernel).filter_map(move |k| along.source(o, k, input.length));
            taps.map(move |i| (output.axis.place(o), input.axis.place(i)))
        });
        Self::collect(slots, pairs)
    }
}

/// Places of channels, group by group.
struct Grouped<'a> {
    places: &'a [Place],
    /// Channels of a group.
    size: usize,
}

impl<'a> Grouped<'a> {
    fn groups(&self) -> impl Iterator<Item = &'a [Place]> {
        self.places.chunks_exact(self.size.max(1))
    }
}

/// Coordinates along rows or columns.
#[derive(Clone, Copy)]
struct Line<'a> {
    axis: &'a Axis,
    length: usize,
}

/// The slots of places in each shard.
fn by_shard(places: &[Place]) -> BTreeMap<usize, Vec<usize>> {
    let mut shards: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    places.iter().for_each(|place| shards.entry(place.shard).or_default().push(place.slot));
    shards
}

/// A window along one axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Along {
    pub kernel: usize,
    pub stride: usize,
    pub before: usize,
    pub dilation: usize,
}

impl Along {
    pub(super) fn rows(w: &Window) -> Self {
        Self { kernel: w.kernel[0], stride: w.stride[0], before: w.padding[0], dilation: w.dilation[0] }
    }

    pub(super) fn columns(w: &Window) -> Self {
        Self { kernel: w.kernel[1], stride: w.stride[1], before: w.padding[1], dilation: w.dilation[1] }
    }

    /// The input coordinate that tap `k` of output `o` reads, none if it lies in the padding.
    pub(super) fn source(&self, o: usize, k: usize, size: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.before).filter(|i| *i < size)
    }
}

/// The rotations of a convolution.
pub(super) struct ConvRotations {
    /// By (output shard, input shard); absent where there are none.
    pub sets: BTreeMap<(usize, usize), RotationSet>,
    pub inputs: usize,
    pub outputs: usize,
}

impl ConvRotations {
    /// Counts them for a layout of the input and one of the output.
    pub(super) fn new(input: &Layout, output: &Layout, window: &Window, groups: usize) -> Self {
        let slots = input.slots();
        let (ci, co) = (input.shape().channels / groups, output.shape().channels / groups);
        let places = |axis: &Axis, n: usize| (0..n).map(|c| axis.place(c)).collect::<Vec<_>>();
        let (from, to) = (places(input.channels(), ci * groups), places(output.channels(), co * groups));
        let channels = Distances::between(Grouped { places: &to, size: co }, Grouped { places: &from, size: ci }, slots);
        let [output_rows, input_rows] = [output, input].map(|l| Line { axis: l.rows(), length: l.shape().height });
        let [output_columns, input_columns] = [output, input].map(|l| Line { axis: l.columns(), length: l.shape().width });
        let rows = Distances::window(output_rows, input_rows, Along::rows(window), slots);
        let columns = Distances::window(output_columns, input_columns, Along::columns(window), slots);

        let mut sets = BTreeMap::new();
        for ((or, ir), r) in &rows.0 {
            for ((ox, ix), x) in &columns.0 {
                let pixels = r.sum(x);
                for ((oc, ic), c) in &channels.0 {
                    let set = sets.entry((or + ox + oc, ir + ix + ic)).or_insert_with(|| RotationSet::new(slots));
                    set.union(&pixels.sum(c));
                }
            }
        }
        Self { sets, inputs: input.shards(), outputs: output.shards() }
    }

    /// As lists `[output shard * input shards + input shard]`, each ascending.
    pub(super) fn into_lists(self) -> Vec<Vec<u32>> {
        let mut lists = vec![Vec::new(); self.outputs * self.inputs];
        for ((o, i), set) in self.sets {
            lists[o * self.inputs + i] = set.iter().map(|r| r as u32).collect();
        }
        lists
    }
}
