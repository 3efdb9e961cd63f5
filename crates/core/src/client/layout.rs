//! Where each element of a tensor lies: (channel, row, column) -> (shard, slot).
//!
//! A coordinate is written in mixed radix, and each digit moves a fixed distance, either through the slots of a shard
//! or through the shards. That one form covers
//!
//! * plain row-major pictures: `row = 128 @ slot 128`, `column = 128 @ slot 1`;
//! * several channels in a shard, then several shards: `channel = 4 @ slot 4096, 8 @ shard 1`;
//! * one channel over several shards, rows split: `row = 64 @ slot 224, 4 @ shard 1`;
//! * gap-multiplexing after a stride of 2: pixels keep their places (`column = 64 @ slot 2`) and channels move into the
//!   gaps (`channel = 2 @ slot 1, 2 @ slot 128`);
//! * polyphase: neighbouring pixels in different shards (`column = 2 @ shard 1, 32 @ slot 1`).
//!
//! Places are sums over the three coordinates, which is what lets the rotations of a convolution be counted from three
//! small sets (lowering does).

use super::tensor::{Element, Shape, ShapeMismatch, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A position in a value of several shards, or a distance between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Place {
    /// Which shard.
    pub shard: usize,
    /// Which slot of it.
    pub slot: usize,
}

impl std::ops::Add for Place {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { shard: self.shard + other.shard, slot: self.slot + other.slot }
    }
}

impl std::ops::Mul<usize> for Place {
    type Output = Self;
    fn mul(self, times: usize) -> Self {
        Self { shard: self.shard * times, slot: self.slot * times }
    }
}

/// One digit of a coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digit {
    /// Values `0..radix`. The last digit of a coordinate may have more room than the tensor needs.
    pub radix: usize,
    /// How far one step moves: through slots or through shards, never both.
    pub step: Place,
}

impl Digit {
    /// A digit that moves through the slots of a shard.
    pub fn slot(radix: usize, step: usize) -> Self {
        Self { radix, step: Place { shard: 0, slot: step } }
    }

    /// A digit that moves through shards.
    pub fn shard(radix: usize, step: usize) -> Self {
        Self { radix, step: Place { shard: step, slot: 0 } }
    }

    /// Whether it moves through shards.
    pub fn is_shard(&self) -> bool {
        self.step.shard != 0
    }
}

/// The digits of one coordinate, least significant first. An empty list is the coordinate 0 alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Axis(pub Vec<Digit>);

impl Axis {
    /// Where a coordinate goes.
    pub fn place(&self, mut at: usize) -> Place {
        let mut place = Place::default();
        for digit in &self.0 {
            place = place + digit.step * (at % digit.radix);
            at /= digit.radix;
        }
        place
    }

    /// How many coordinates it has room for.
    pub fn room(&self) -> usize {
        self.0.iter().fold(1, |room, d| room.saturating_mul(d.radix))
    }
}

/// Why a layout cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// An axis has fewer places than the tensor has coordinates.
    #[error("the {axis} axis has room for {room}, the tensor {shape} needs more")]
    NoRoom {
        /// Which.
        axis: &'static str,
        /// Coordinates it holds.
        room: usize,
        /// The tensor.
        shape: Shape,
    },
    /// A place beyond the shard, or two elements at one place.
    #[error("places collide or leave the shard: {0}")]
    Places(String),
    /// No slots, or a shape without elements.
    #[error("cannot lay {shape} out over shards of {slots} slots")]
    Empty {
        /// The tensor.
        shape: Shape,
        /// Slots of a shard.
        slots: usize,
    },
    /// Slot vectors that do not fit the layout.
    #[error("{found:?} shards x slots came, the layout has {expected:?}")]
    SlotVectors {
        /// Shards and slots of the layout.
        expected: (usize, usize),
        /// Shards, and slots of the first one that is wrong.
        found: (usize, usize),
    },
    /// None, or more inputs than one run takes.
    #[error("{found} inputs came for a run that takes 1 to {most}")]
    Inputs {
        /// How many it takes.
        most: usize,
        /// How many came.
        found: usize,
    },
    /// A tensor of another shape.
    #[error(transparent)]
    Shape(#[from] ShapeMismatch),
}

/// A checked layout: every element has its own place. Read from a file, it is checked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredLayout", into = "StoredLayout")]
pub struct Layout {
    shape: Shape,
    slots: usize,
    shards: usize,
    channels: Axis,
    rows: Axis,
    columns: Axis,
}

/// A layout as it is written down, not checked: shape, slots, and the digits of channels, rows and columns as (radix, shard step,
/// slot step).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredLayout {
    shape: Shape,
    slots: usize,
    axes: [Vec<(usize, usize, usize)>; 3],
}

/// Most places, and most shards, of a layout from a file: checking takes a byte for each place.
const MOST_STORED: usize = 1 << 26;
/// Most shards of a layout from a file.
const MOST_STORED_SHARDS: usize = 1 << 16;

impl From<Layout> for StoredLayout {
    fn from(layout: Layout) -> Self {
        let digits = |axis: Axis| axis.0.into_iter().map(|d| (d.radix, d.step.shard, d.step.slot)).collect();
        Self { shape: layout.shape, slots: layout.slots, axes: [layout.channels, layout.rows, layout.columns].map(digits) }
    }
}

impl StoredLayout {
    /// What checking it costs at most: the places that its digits have room for.
    pub fn places(&self) -> usize {
        self.axes.iter().flatten().fold(1, |room: usize, (radix, ..)| room.saturating_mul(*radix))
    }
}

impl TryFrom<StoredLayout> for Layout {
    type Error = LayoutError;

    fn try_from(stored: StoredLayout) -> Result<Self, LayoutError> {
        let StoredLayout { shape, slots, axes } = stored;
        let refuse = || LayoutError::Places(format!("{axes:?}"));
        let elements = shape.channels.checked_mul(shape.height).and_then(|n| n.checked_mul(shape.width));
        let (mut room, mut shards) = (1usize, 1usize);
        for &(radix, shard, slot) in axes.iter().flatten() {
            if radix == 0 || (shard != 0 && slot != 0) || slot >= slots.max(1) {
                return Err(refuse());
            }
            room = room.checked_mul(radix).filter(|&room| room <= MOST_STORED).ok_or_else(refuse)?;
            let last = (radix - 1).checked_mul(shard).and_then(|last| last.checked_add(shards));
            shards = last.filter(|&shards| shards <= MOST_STORED_SHARDS).ok_or_else(refuse)?;
        }
        let places = shards.checked_mul(slots).filter(|&places| places <= MOST_STORED);
        if elements.is_none_or(|n| n > room) || places.is_none() {
            return Err(refuse());
        }
        let axis = |digits: &Vec<(usize, usize, usize)>| {
            Axis(digits.iter().map(|&(radix, shard, slot)| Digit { radix, step: Place { shard, slot } }).collect())
        };
        Self::new(shape, slots, [axis(&axes[0]), axis(&axes[1]), axis(&axes[2])])
    }
}

impl Layout {
    /// Checks that the axes have room, stay within `slots`, and give every place to one element at most (rooms
    /// included).
    ///
    /// # Errors
    /// [`LayoutError::NoRoom`] for an axis that is too short, [`LayoutError::Empty`] for a shape without elements or
    /// shards without slots, [`LayoutError::Places`] where two places are one, or one is beyond its shard.
    pub fn new(shape: Shape, slots: usize, [channels, rows, columns]: [Axis; 3]) -> Result<Self, LayoutError> {
        let layout = Self::unchecked(shape, slots, [channels, rows, columns]);
        for (axis, name, extent) in [
            (&layout.channels, "channel", shape.channels),
            (&layout.rows, "row", shape.height),
            (&layout.columns, "column", shape.width),
        ] {
            if axis.room() < extent {
                return Err(LayoutError::NoRoom { axis: name, room: axis.room(), shape });
            }
        }
        if shape.is_empty() || slots == 0 {
            return Err(LayoutError::Empty { shape, slots });
        }
        let axes = [&layout.channels, &layout.rows, &layout.columns];
        let room = axes.iter().fold(1, |room: usize, axis| room.saturating_mul(axis.room()));
        let places = layout.shards.checked_mul(slots).filter(|&places| room <= places && places <= isize::MAX as usize);
        let (Some(places), true) = (places, Self::last(axes, |step| step.slot) < slots) else {
            return Err(LayoutError::Places(layout.to_string()));
        };
        let stays = |d: &Digit| d.radix > 1 && d.step == Place::default();
        let moves = !axes.into_iter().flat_map(|axis| &axis.0).any(stays);
        if moves && Self::apart(axes, |step| step.slot) && Self::apart(axes, |step| step.shard) {
            return Ok(layout);
        }
        let mut taken = vec![false; places];
        let place_of = |axis: &Axis| (0..axis.room()).map(|i| axis.place(i)).collect::<Vec<_>>();
        let (rows, columns) = (place_of(&layout.rows), place_of(&layout.columns));
        for c in place_of(&layout.channels) {
            for r in &rows {
                for col in &columns {
                    let place = c + *r + *col;
                    if std::mem::replace(&mut taken[place.shard * slots + place.slot], true) {
                        return Err(LayoutError::Places(layout.to_string()));
                    }
                }
            }
        }
        Ok(layout)
    }

    /// Without the checks of [`Self::new`], for axes known to be disjoint.
    pub fn unchecked(shape: Shape, slots: usize, [channels, rows, columns]: [Axis; 3]) -> Self {
        let shards = Self::last([&channels, &rows, &columns], |step| step.shard).saturating_add(1);
        Self { shape, slots, shards, channels, rows, columns }
    }

    /// Whether every digit moves farther, in what `along` takes of a step, than all that move less do together: then no two places are one.
    fn apart(axes: [&Axis; 3], along: fn(Place) -> usize) -> bool {
        let digits = axes.into_iter().flat_map(|axis| &axis.0).filter(|d| d.radix > 1);
        let mut moves: Vec<(usize, usize)> = digits.map(|d| (along(d.step), d.radix)).filter(|(step, _)| *step > 0).collect();
        moves.sort_unstable();
        let mut reached = 0usize;
        moves.into_iter().all(|(step, radix)| {
            let farther = step > reached;
            reached = reached.saturating_add(step.saturating_mul(radix - 1));
            farther
        })
    }

    /// How far the last place of all axes is, in what `along` takes of a step.
    fn last(axes: [&Axis; 3], along: fn(Place) -> usize) -> usize {
        let digits = axes.into_iter().flat_map(|axis| &axis.0);
        digits.map(|d| d.radix.saturating_sub(1).saturating_mul(along(d.step))).fold(0, usize::saturating_add)
    }

    /// Plain row-major order: as many whole channels in a shard as fit, or each channel's rows split over several
    /// shards.
    ///
    /// # Errors
    /// [`LayoutError::Empty`] for a shape without elements or shards without slots.
    pub fn row_major(shape: Shape, slots: usize) -> Result<Self, LayoutError> {
        Self::row_major_aligned(shape, slots, [1, 1])
    }

    /// Row-major with the room for rows and columns rounded up to multiples of `align` where that costs no further
    /// shard, and rows split at multiples of it: strides that divide `align` then find their pixels at regular places.
    /// An alignment of 0 is one of 1.
    ///
    /// # Errors
    /// As [`Self::row_major`].
    pub fn row_major_aligned(shape: Shape, slots: usize, align: [usize; 2]) -> Result<Self, LayoutError> {
        let Shape { channels, height, width } = shape;
        if shape.is_empty() || slots == 0 {
            return Err(LayoutError::Empty { shape, slots });
        }
        let align = align.map(|align| align.max(1));
        let padded = [height.next_multiple_of(align[0]), width.next_multiple_of(align[1])];
        let plain = Self::blocks(channels, height, width, slots);
        let (height, width, blocks) = match Self::blocks(channels, padded[0], padded[1], slots) {
            Some(b) if plain.is_none_or(|p| b.1 <= p.1) => (padded[0], padded[1], Some(b)),
            _ => (height, width, plain),
        };
        let axes = if let Some((per_shard, shards)) = blocks {
            // A power of two of channels fills the shard exactly, so that rotations wrap from the last channel to the
            // first.
            let block = if shards == 1 && !per_shard.is_power_of_two() { height * width } else { slots / per_shard };
            let digits = [Digit::slot(per_shard, block), Digit::shard(shards, 1)];
            [
                Axis(digits.into_iter().filter(|d| d.radix > 1).collect()),
                Axis(vec![Digit::slot(height, width)]),
                Axis(vec![Digit::slot(width, 1)]),
            ]
        } else if width <= slots {
            let most = slots / width;
            // Split at a power of two times the alignment, or at a multiple of it, if that takes no more shards.
            let parts = height.div_ceil(most);
            let wanted = [Self::power_of_two_below(most, align[0]), most - most % align[0]];
            let rows = wanted.into_iter().find(|r| *r > 0 && height.div_ceil(*r) == parts).unwrap_or(most);
            let row = Axis(vec![Digit::slot(rows, width), Digit::shard(parts, 1)]);
            [Axis(vec![Digit::shard(channels, parts)]), row, Axis(vec![Digit::slot(width, 1)])]
        } else {
            let parts = width.div_ceil(slots);
            let column = Axis(vec![Digit::slot(slots, 1), Digit::shard(parts, 1)]);
            [Axis(vec![Digit::shard(channels, height * parts)]), Axis(vec![Digit::shard(height, parts)]), column]
        };
        Self::new(shape, slots, axes)
    }

    /// Channels in a shard and shards, if a whole channel fits into a shard.
    fn blocks(channels: usize, height: usize, width: usize, slots: usize) -> Option<(usize, usize)> {
        let most = slots / (height * width);
        if most == 0 {
            return None;
        }
        let power = 1 << most.ilog2();
        let (by_power, by_most) = (channels.div_ceil(power), channels.div_ceil(most));
        Some(if by_power == by_most { (power, by_power) } else { (most, by_most) })
    }

    /// The largest power-of-two multiple of `unit` that is at most `limit` (or `limit` itself if there is none).
    fn power_of_two_below(limit: usize, unit: usize) -> usize {
        let times = limit / unit;
        if times == 0 { limit } else { unit << times.ilog2() }
    }

    /// A vector: element i at slot `i mod slots` of shard `i / slots`.
    ///
    /// # Errors
    /// [`LayoutError::Empty`] for no elements or no slots.
    pub fn vector(len: usize, slots: usize) -> Result<Self, LayoutError> {
        let shape = Shape::new(len, 1, 1);
        if len == 0 || slots == 0 {
            return Err(LayoutError::Empty { shape, slots });
        }
        let mut digits = vec![Digit::slot(slots, 1)];
        if len > slots {
            digits.push(Digit::shard(len.div_ceil(slots), 1));
        }
        Self::new(shape, slots, [Axis(digits), Axis::default(), Axis::default()])
    }

    /// The tensor laid out.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Slots of a shard.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The digits of the channel.
    pub fn channels(&self) -> &Axis {
        &self.channels
    }

    /// The digits of the row.
    pub fn rows(&self) -> &Axis {
        &self.rows
    }

    /// The digits of the column.
    pub fn columns(&self) -> &Axis {
        &self.columns
    }

    /// Where an element lies.
    pub fn place(&self, channel: usize, row: usize, column: usize) -> Place {
        self.channels.place(channel) + self.rows.place(row) + self.columns.place(column)
    }

    /// Calls `visit(flat index, place)` for every element, in the order `[channel][row][column]`.
    pub fn for_each(&self, mut visit: impl FnMut(usize, Place)) {
        let places = |axis: &Axis, n: usize| (0..n).map(|i| axis.place(i)).collect::<Vec<_>>();
        let rows = places(&self.rows, self.shape.height);
        let columns = places(&self.columns, self.shape.width);
        let mut index = 0;
        for c in places(&self.channels, self.shape.channels) {
            for r in &rows {
                for col in &columns {
                    visit(index, c + *r + *col);
                    index += 1;
                }
            }
        }
    }

    /// The inverse: `[shard][slot]` -> flat index `(channel * height + row) * width + column`, none where a slot holds
    /// no element.
    pub fn elements(&self) -> Vec<Vec<Option<u32>>> {
        let mut elements = vec![vec![None; self.slots]; self.shards];
        self.for_each(|i, place| elements[place.shard][place.slot] = Some(i as u32));
        elements
    }

    /// Slot vectors `[shard][slot]` with `value(flat index)` at each element and 0 elsewhere.
    pub fn fill(&self, value: impl Fn(usize) -> f64) -> Vec<Vec<f64>> {
        let mut shards = vec![vec![0.0; self.slots]; self.shards];
        self.for_each(|i, place| shards[place.shard][place.slot] = value(i));
        shards
    }

    /// A tensor as slot vectors `[shard][slot]`; slots without an element are 0.
    ///
    /// # Errors
    /// [`LayoutError::Shape`] for a tensor of another shape.
    pub fn pack<T: Element>(&self, tensor: &Tensor<T>) -> Result<Vec<Vec<f64>>, LayoutError> {
        if tensor.shape() != self.shape {
            return Err(ShapeMismatch { expected: self.shape, found: tensor.shape() }.into());
        }
        Ok(self.fill(|i| tensor.values()[i].to_f64()))
    }

    /// The tensor held by slot vectors `[shard][slot]`.
    ///
    /// # Errors
    /// [`LayoutError::SlotVectors`] for another number of shards, or a shard of another length.
    pub fn unpack(&self, shards: &[Vec<f64>]) -> Result<Tensor<f64>, LayoutError> {
        let wrong = shards.iter().find(|s| s.len() != self.slots);
        if shards.len() != self.shards || wrong.is_some() {
            let found = (shards.len(), wrong.or(shards.first()).map_or(0, Vec::len));
            return Err(LayoutError::SlotVectors { expected: (self.shards, self.slots), found });
        }
        let mut tensor = Tensor::zeros(self.shape);
        let values = tensor.values_mut();
        self.for_each(|i, place| values[i] = shards[place.shard][place.slot]);
        Ok(tensor)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.shards == 1 { "" } else { "s" };
        write!(f, "{} in {} shard{plural} of {} slots", self.shape, self.shards, self.slots)?;
        for (name, axis) in [("channel", &self.channels), ("row", &self.rows), ("column", &self.columns)] {
            let digits: Vec<String> = axis
                .0
                .iter()
                .map(|d| {
                    if d.is_shard() {
                        format!("{}@shard {}", d.radix, d.step.shard)
                    } else {
                        format!("{}@{}", d.radix, d.step.slot)
                    }
                })
                .collect();
            if !digits.is_empty() {
                write!(f, "; {name} {}", digits.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_cannot_be_are_refused() {
        let new = |rows: &[Digit], columns: &[Digit]| {
            Layout::new(Shape::new(1, 2, 2), 16, [Axis::default(), Axis(rows.to_vec()), Axis(columns.to_vec())])
        };
        let row = Digit::slot(2, 2);
        assert!(new(&[row], &[Digit::slot(2, 1)]).is_ok());
        for none in [Digit::slot(0, 1), Digit::shard(0, 1), Digit::shard(0, usize::MAX)] {
            assert!(matches!(new(&[row], &[none]), Err(LayoutError::NoRoom { axis: "column", room: 0, .. })), "{none:?}");
            assert!(matches!(new(&[row, none], &[row]), Err(LayoutError::NoRoom { axis: "row", room: 0, .. })), "{none:?}");
        }
        let many = usize::MAX / 2 + 1;
        for far in [
            Digit::slot(2, 16),
            Digit::slot(2, many),
            Digit::slot(3, many),
            Digit::slot(many, 2),
            Digit::shard(2, many),
            Digit::shard(3, many),
            Digit::shard(usize::MAX, 1),
            Digit::shard(usize::MAX, usize::MAX),
        ] {
            assert!(matches!(new(&[row], &[far]), Err(LayoutError::Places(_))), "{far:?}");
            assert!(matches!(new(&[row, far, far], &[Digit::slot(2, 1)]), Err(LayoutError::Places(_))), "{far:?}");
        }
    }

    /// Digits that move farther than all smaller ones together need not be tried place by place; the others are.
    #[test]
    fn places_that_meet_are_found_either_way() {
        let (mut apart, mut met) = (0, 0);
        for (a, b, c) in (0..6usize).flat_map(|a| (0..6).flat_map(move |b| (0..6).map(move |c| (a, b, c)))) {
            let digit = |i: usize, radix| if i < 5 { Digit::slot(radix, i) } else { Digit::shard(radix, 1) };
            let digits = [digit(a, 2), digit(b, 3), digit(c, 2)];
            let axes = digits.map(|d| Axis(vec![d]));
            let mut places: Vec<Place> = Vec::new();
            for (x, y, z) in (0..2).flat_map(|x| (0..3).flat_map(move |y| (0..2).map(move |z| (x, y, z)))) {
                places.push(axes[0].place(x) + axes[1].place(y) + axes[2].place(z));
            }
            places.sort_unstable();
            let unique = places.windows(2).all(|p| p[0] != p[1]);
            *(if unique { &mut apart } else { &mut met }) += 1;
            assert_eq!(Layout::new(Shape::new(2, 3, 2), 64, axes).is_ok(), unique, "{digits:?}");
        }
        assert!(apart > 20 && met > 20, "{apart} {met}");
    }

    #[test]
    fn no_alignment_is_an_alignment_of_one() {
        for shape in [Shape::new(3, 5, 7), Shape::new(1, 40, 7), Shape::new(2, 3, 100)] {
            let aligned = |align| Layout::row_major_aligned(shape, 64, align);
            assert_eq!(aligned([0, 0]), Layout::row_major(shape, 64));
            assert_eq!(aligned([0, 4]), aligned([1, 4]));
        }
    }
}
