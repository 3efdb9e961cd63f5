//! Moving elements: slices, zero padding, nearest-neighbour resizing, and choosing or repeating channels.

use crate::nn::tensor::Shape;

/// A tensor each of whose elements is an element of the operand or 0: along each axis, a list of where its coordinates come
/// from. Slices, paddings and resizings are of this form, and so is one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rearrange {
    /// For each channel of the result, the operand's channel, or none for zeros.
    pub channels: Vec<Option<usize>>,
    /// For each row.
    pub rows: Vec<Option<usize>>,
    /// For each column.
    pub columns: Vec<Option<usize>>,
}

impl Rearrange {
    /// Nothing moved.
    pub fn identity(shape: Shape) -> Self {
        let all = |n: usize| (0..n).map(Some).collect();
        Self { channels: all(shape.channels), rows: all(shape.height), columns: all(shape.width) }
    }

    /// Shape of the result.
    pub fn shape(&self) -> Shape {
        Shape::new(self.channels.len(), self.rows.len(), self.columns.len())
    }

    /// This, then another.
    pub fn then(&self, next: &Self) -> Self {
        let chain = |first: &[Option<usize>], second: &[Option<usize>]| {
            second.iter().map(|at| at.and_then(|at| first.get(at).copied().flatten())).collect()
        };
        Self {
            channels: chain(&self.channels, &next.channels),
            rows: chain(&self.rows, &next.rows),
            columns: chain(&self.columns, &next.columns),
        }
    }

    /// Whether the result is the operand.
    pub fn is_identity(&self, operand: Shape) -> bool {
        *self == Self::identity(operand)
    }

    /// Calls `visit(index of the result, index of the operand)`, both `[channel][row][column]`, for every element that has a
    /// source.
    pub fn for_each(&self, operand: Shape, mut visit: impl FnMut(usize, usize)) {
        let Shape { height, width, .. } = self.shape();
        for (c, channel) in self.channels.iter().enumerate().filter_map(|(c, from)| Some((c, (*from)?))) {
            for (y, row) in self.rows.iter().enumerate().filter_map(|(y, from)| Some((y, (*from)?))) {
                for (x, column) in self.columns.iter().enumerate().filter_map(|(x, from)| Some((x, (*from)?))) {
                    visit((c * height + y) * width + x, (channel * operand.height + row) * operand.width + column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other() {
        let shape = Shape::new(2, 4, 5);
        let slice = Rearrange { rows: vec![Some(0), Some(2)], ..Rearrange::identity(shape) };
        let pad = Rearrange { channels: vec![None, Some(0), Some(1)], ..Rearrange::identity(slice.shape()) };
        let both = slice.then(&pad);
        assert_eq!(both.shape(), Shape::new(3, 2, 5));
        let mut moved = Vec::new();
        both.for_each(shape, |to, from| moved.push((to, from)));
        assert_eq!(moved.len(), 20);
        assert_eq!((moved[0], moved[5], moved[10]), ((10, 0), (15, 10), (20, 20)));
        assert!(Rearrange::identity(shape).is_identity(shape) && !both.is_identity(shape));
    }
}
