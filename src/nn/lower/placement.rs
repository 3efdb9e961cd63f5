//! Layouts that a layer's result may take, given the layout of its operand.

use crate::nn::layout::{Axis, Digit, Layout};
use crate::nn::model::Window;
use crate::nn::tensor::Shape;

/// Most phases of an axis that the input is taken apart into.
const MAX_INPUT_PHASES: usize = 16;
/// Most low bits of an axis that [`more_inputs`] spreads.
const MAX_PHASE_BITS: u32 = 3;

/// An axis after a stride: the coordinates kept, in their places, and the digits that fell free between them.
struct Strided {
    rest: Vec<Digit>,
    freed: Vec<Digit>,
}

/// Keeps every `stride`-th coordinate of an axis, of which there must be room for `extent`. None if the kept ones do not
/// lie regularly.
fn stride(axis: &[Digit], mut stride: usize, extent: usize) -> Option<Strided> {
    let (mut rest, mut freed): (Vec<Digit>, Vec<Digit>) = Default::default();
    for (i, digit) in axis.iter().enumerate() {
        let Digit { radix, step } = *digit;
        if i + 1 == axis.len() {
            // The last digit may be cut anywhere: room that the kept coordinates do not reach is given up.
            let needed = extent.div_ceil(rest.iter().map(|d| d.radix).product());
            let gap = stride.min(radix.checked_sub((needed - 1) * stride)?);
            if gap == 0 {
                return None;
            }
            freed.push(Digit { radix: gap, step });
            rest.push(Digit { radix: (radix - gap) / stride + 1, step: step * stride });
            stride = 1;
        } else if radix.is_multiple_of(stride) {
            freed.push(Digit { radix: stride, step });
            rest.push(Digit { radix: radix / stride, step: step * stride });
            stride = 1;
        } else if stride.is_multiple_of(radix) {
            freed.push(*digit);
            stride /= radix;
        } else {
            return None;
        }
    }
    let useful = |digits: Vec<Digit>| digits.into_iter().filter(|d| d.radix > 1).collect::<Vec<_>>();
    let (rest, freed) = (useful(rest), useful(freed));
    (stride == 1 && rest.iter().map(|d| d.radix).product::<usize>() >= extent).then_some(Strided { rest, freed })
}

/// Layouts for the result of a convolution or pooling: pixels stay where the stride leaves them, channels take what is
/// free, and low digits of the pixels may go to different shards (polyphase). Never empty: plain row-major order is added
/// where no such layout exists.
pub(super) fn outputs(input: &Layout, shape: Shape, window: &Window, groups: usize) -> Vec<Layout> {
    let mut layouts: Vec<Layout> = Vec::new();
    let rows = stride(&input.rows().0, window.stride[0], shape.height);
    let columns = stride(&input.columns().0, window.stride[1], shape.width);
    if let (Some(rows), Some(columns)) = (&rows, &columns) {
        let channels = &input.channels().0;
        for [vertical, horizontal] in phases(input.shards()) {
            let y = stride(&rows.rest, vertical, shape.height.div_ceil(vertical));
            let x = stride(&columns.rest, horizontal, shape.width.div_ceil(horizontal));
            let (Some(y), Some(x)) = (y, x) else { continue };
            let whole = |s: &Strided, phases: usize| s.freed.iter().map(|d| d.radix).product::<usize>() == phases;
            if !whole(&y, vertical) || !whole(&x, horizontal) {
                continue;
            }
            let gaps: Vec<Digit> = [&rows.freed, &columns.freed, &y.freed, &x.freed].into_iter().flatten().copied().collect();
            let free: Vec<Digit> = channels.iter().chain(&gaps).filter(|d| !d.is_shard()).copied().collect();
            let pixels = [phased(vertical, &y.rest), phased(horizontal, &x.rest)];
            layouts.push(assemble(shape, input.slots(), dense(&free, shape.channels), pixels));
        }
        if groups > 1 && input.channels().room() >= shape.channels {
            let pixels = [rows.rest.clone(), columns.rest.clone()];
            layouts.push(assemble(shape, input.slots(), channels.clone(), pixels));
        }
    }
    if layouts.is_empty() {
        layouts.extend(Layout::row_major(shape, input.slots()));
    }
    let mut unique = Vec::with_capacity(layouts.len());
    for layout in layouts {
        if !unique.contains(&layout) {
            unique.push(layout);
        }
    }
    unique
}

/// The same places, without room for rows and columns that there are none of: what a pooling leaves of a picture needs no shards for
/// phases without a pixel.
pub(super) fn trimmed(layout: &Layout) -> Layout {
    let shape = layout.shape();
    let pixels = [(layout.rows(), shape.height), (layout.columns(), shape.width)].map(|(axis, extent)| {
        let mut left = extent;
        let mut digits = Vec::new();
        for digit in &axis.0 {
            if left <= 1 {
                break;
            }
            digits.push(Digit { radix: digit.radix.min(left), ..*digit });
            left = left.div_ceil(digit.radix);
        }
        digits
    });
    assemble(shape, layout.slots(), layout.channels().0.clone(), pixels)
}

/// Numbers of phases, down and right, that `shards` allow.
fn phases(shards: usize) -> impl Iterator<Item = [usize; 2]> {
    let most = shards.max(1).next_power_of_two();
    [[1, 1], [2, 1], [1, 2], [2, 2], [4, 2], [2, 4], [4, 4]]
        .into_iter()
        .filter(move |[v, h]| *v == 1 && *h == 1 || v * h <= 2 * most)
}

/// A low digit of `phases` shards before the other digits.
fn phased(phases: usize, rest: &[Digit]) -> Vec<Digit> {
    let low = (phases > 1).then(|| Digit::shard(phases, 1));
    low.into_iter().chain(rest.iter().copied()).collect()
}

/// Channels over free slots, the first ones as far as needed, then over shards.
fn dense(free: &[Digit], channels: usize) -> Vec<Digit> {
    let mut digits: Vec<Digit> = Vec::new();
    let mut room = 1;
    for digit in free {
        if room >= channels {
            break;
        }
        digits.push(*digit);
        room *= digit.radix;
    }
    // In ascending order, neighbours merge into one digit and the layout reads better.
    digits.sort_by_key(|d| d.step);
    digits.dedup_by(|next, digit| {
        let adjacent = next.step == digit.step * digit.radix;
        if adjacent {
            digit.radix *= next.radix;
        }
        adjacent
    });
    if room < channels {
        digits.push(Digit::shard(channels.div_ceil(room), 1));
    }
    digits
}

/// A layout of these digits, with the shards numbered anew: channels fastest, so that neighbouring shards are read by
/// the same rotations and can share complex slots.
fn assemble(shape: Shape, slots: usize, channels: Vec<Digit>, [rows, columns]: [Vec<Digit>; 2]) -> Layout {
    let mut step = 1;
    let mut number = |digits: Vec<Digit>| {
        let renumbered = digits.into_iter().map(|d| {
            if !d.is_shard() {
                return d;
            }
            let digit = Digit::shard(d.radix, step);
            step *= d.radix;
            digit
        });
        Axis(renumbered.collect())
    };
    let channels = number(channels);
    let (columns, rows) = (number(columns), number(rows));
    Layout::unchecked(shape, slots, [channels, rows, columns])
}

/// Layouts for a model's input. The first is plain row-major order; the others put neighbouring pixels far apart, so that
/// after a stride of 2 the channels take the most significant digits of the slot, where rotations wrap around.
pub(super) fn inputs(shape: Shape, slots: usize, align: [usize; 2]) -> Vec<Layout> {
    let mut layouts: Vec<Layout> = Layout::row_major_aligned(shape, slots, align).into_iter().collect();
    let divisible = |extent: usize| (0..=MAX_INPUT_PHASES.ilog2()).filter(move |l| extent.is_multiple_of(1 << l));
    for down in divisible(shape.height) {
        for right in divisible(shape.width).filter(|right| down + right > 0 && down.abs_diff(*right) <= 1) {
            layouts.extend(spread(shape, slots, Spread { bits: [down, right], shards: [0, 0], before: 1, exact: false }));
            layouts.extend(polyphase(shape, slots, [1 << down, 1 << right]));
        }
    }
    layouts
}

/// As [`inputs`], and more: phases that strides merge, one of an axis at most within a shard beside the channels, and blocks without room
/// around their pixels. Such inputs make the first layer dearer and all others cheaper: channels keep the top of the slot, or more of
/// them share a shard.
pub(super) fn more_inputs(shape: Shape, slots: usize, strides: [usize; 2]) -> Vec<Layout> {
    let mut layouts = inputs(shape, slots, strides);
    let most = strides.map(|stride| stride.max(1).ilog2().min(MAX_PHASE_BITS));
    for down in 0..=most[0] {
        for right in (0..=most[1]).filter(|right| down.abs_diff(*right) <= 1) {
            for within in [[0, 0], [1, 0], [0, 1], [1, 1]] {
                let (bits, [Some(rows), Some(columns)]) =
                    ([down, right], [down.checked_sub(within[0]), right.checked_sub(within[1])])
                else {
                    continue;
                };
                for (before, exact) in [(0, false), (0, true), (1, false), (1, true)] {
                    let spread = Spread { bits, shards: [rows, columns], before: rows.max(columns) + before, exact };
                    layouts.extend(self::spread(shape, slots, spread).filter(|l| !layouts.contains(l)));
                }
            }
        }
    }
    layouts
}

/// Where the low bits of rows and columns go.
#[derive(Debug, Clone, Copy)]
struct Spread {
    /// Low bits of row and column that do not lie side by side.
    bits: [u32; 2],
    /// How many of them, the lowest, are in different shards.
    shards: [u32; 2],
    /// Bits below this one lie above the channels.
    before: u32,
    /// Whether the pixels that do lie side by side get no more room than they take: more channels may share a shard, and rotations do not
    /// wrap around from the last one to the first.
    exact: bool,
}

/// Low bits of row and column in different shards, or at the top of the slot: row bit 0, column bit 0, channels, row bit 1, column bit 1, ...
fn spread(shape: Shape, slots: usize, Spread { bits, shards, before, exact }: Spread) -> Option<Layout> {
    let [height, width] = [shape.height.div_ceil(1 << bits[0]), shape.width.div_ceil(1 << bits[1])];
    let pixels = height * width;
    let block = (if exact { pixels } else { pixels.next_power_of_two() }) << (bits[0] + bits[1] - shards[0] - shards[1]);
    let per_shard = slots / block;
    if per_shard == 0 || !slots.is_power_of_two() || (exact && per_shard.is_power_of_two()) {
        return None;
    }
    let mut top = block * per_shard;
    let mut next = |radix: usize| {
        top /= radix;
        Digit::slot(radix, top)
    };
    let [mut rows, mut columns] = shards.map(|bits| phased(1 << bits, &[]));
    let mut channels = Vec::new();
    for bit in 0..=bits[0].max(bits[1]).max(before) {
        if bit == before && per_shard > 1 {
            channels.push(next(per_shard));
        }
        for (axis, digits) in [&mut rows, &mut columns].into_iter().enumerate() {
            if (shards[axis]..bits[axis]).contains(&bit) {
                digits.push(next(2));
            }
        }
    }
    rows.push(Digit::slot(height, width));
    columns.push(Digit::slot(width, 1));
    if shape.channels > per_shard {
        channels.push(Digit::shard(shape.channels.div_ceil(per_shard), 1));
    }
    Some(assemble(shape, slots, channels, [rows, columns]))
}

/// The phases of a channel that does not fit into a shard, in different shards.
fn polyphase(shape: Shape, slots: usize, [down, right]: [usize; 2]) -> Option<Layout> {
    let (height, width) = (shape.height / down, shape.width / right);
    let block = (height * width).next_power_of_two();
    if block > slots || shape.plane() <= slots {
        return None;
    }
    let per_shard = slots / block;
    let mut channels = Vec::new();
    if per_shard > 1 {
        channels.push(Digit::slot(per_shard, block));
    }
    if shape.channels > per_shard {
        channels.push(Digit::shard(shape.channels.div_ceil(per_shard), 1));
    }
    let (rows, columns) = (vec![Digit::slot(height, width)], vec![Digit::slot(width, 1)]);
    Some(assemble(shape, slots, channels, [phased(down, &rows), phased(right, &columns)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimmed_layouts_have_the_places_of_the_others() {
        let shape = Shape::new(4, 1, 3);
        let axes = [
            Axis(vec![Digit::slot(2, 64), Digit::shard(2, 1)]),
            Axis(vec![Digit::shard(2, 2), Digit::slot(4, 8)]),
            Axis(vec![Digit::shard(2, 4), Digit::slot(4, 1)]),
        ];
        let layout = Layout::new(shape, 128, axes).unwrap();
        let trimmed = trimmed(&layout);
        assert_eq!((layout.shards(), trimmed.shards()), (8, 4));
        let mut shards = std::collections::HashMap::new();
        for (c, x) in (0..4).flat_map(|c| (0..3).map(move |x| (c, x))) {
            let (was, is) = (layout.place(c, 0, x), trimmed.place(c, 0, x));
            assert_eq!(was.slot, is.slot);
            assert_eq!(*shards.entry(was.shard).or_insert(is.shard), is.shard);
        }
        assert_eq!(shards.len(), 4);
    }

    /// They are put together without a check of their places.
    #[test]
    fn layouts_of_inputs_give_every_element_a_place_of_its_own() {
        let mut tried = 0;
        for shape in
            [Shape::new(3, 32, 32), Shape::new(3, 30, 17), Shape::new(1, 5, 64), Shape::new(5, 8, 8), Shape::new(12, 1, 1)]
        {
            for (slots, strides) in [(256, [8, 8]), (1024, [4, 16]), (4096, [32, 32]), (96, [2, 2])] {
                for layout in more_inputs(shape, slots, strides) {
                    let mut taken = vec![vec![false; slots]; layout.shards()];
                    layout.for_each(|_, place| {
                        assert!(!std::mem::replace(&mut taken[place.shard][place.slot], true), "{layout}");
                    });
                    tried += 1;
                }
            }
        }
        assert!(tried > 200, "{tried}");
    }
}
