//! Layouts that a layer's result may take, given the layout of its operand.

use crate::nn::layout::{Axis, Digit, Layout};
use crate::nn::model::Window;
use crate::nn::tensor::Shape;

/// Most phases of an axis that the input is taken apart into.
const MAX_INPUT_PHASES: usize = 16;

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
            layouts.extend(distant(shape, slots, [down, right]));
            layouts.extend(polyphase(shape, slots, [1 << down, 1 << right]));
        }
    }
    layouts
}

/// The low bits of row and column at the top of the slot: row bit 0, column bit 0, channels, row bit 1, column bit 1, ...
fn distant(shape: Shape, slots: usize, [down, right]: [u32; 2]) -> Option<Layout> {
    let (height, width) = (shape.height >> down, shape.width >> right);
    let block = (height * width).next_power_of_two();
    let per_shard = slots / (block << (down + right));
    if per_shard == 0 || !slots.is_power_of_two() {
        return None;
    }
    let mut top = slots;
    let mut next = |radix: usize| {
        top /= radix;
        Digit::slot(radix, top)
    };
    let (mut rows, mut columns, mut channels) = (Vec::new(), Vec::new(), Vec::new());
    for bit in 0..down.max(right) {
        if bit < down {
            rows.push(next(2));
        }
        if bit < right {
            columns.push(next(2));
        }
        if bit == 0 && per_shard > 1 {
            channels.push(next(per_shard));
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
