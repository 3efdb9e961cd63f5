//! Moving elements one by one: what no list for each axis can say.

use super::Rearrange;
use crate::nn::tensor::Shape;

/// A tensor each of whose elements is an element of the operand or a constant. Transpositions, channel shuffles, space to depth
/// and back, and paddings with other values than 0 are of this form.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather {
    /// Shape of the result.
    pub shape: Shape,
    /// For each element of the result, the operand's, both `[channel][row][column]`, or [`Self::NONE`].
    pub sources: Vec<u32>,
    /// For each element of the result what is added to it; empty if nothing is. An element without a source is its constant.
    pub constants: Vec<f64>,
}

impl Gather {
    /// In place of a source: the element is a constant.
    pub const NONE: u32 = u32::MAX;

    /// Calls `visit(index of the result, index of the operand)` for every element that has a source.
    pub fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        let sourced = self.sources.iter().enumerate().filter(|(_, from)| **from != Self::NONE);
        sourced.for_each(|(to, from)| visit(to, *from as usize));
    }

    /// The constant of an element.
    pub fn constant(&self, element: usize) -> f64 {
        self.constants.get(element).copied().unwrap_or(0.0)
    }
}

impl Rearrange {
    /// The lists for the axes that do what `sources` say (as in [`Gather::sources`]), if there are such: the cheaper form.
    pub fn of_elements(shape: Shape, sources: &[u32], operand: Shape) -> Option<Self> {
        let Shape { channels, height, width } = shape;
        let at = |c: usize, y: usize, x: usize| sources.get((c * height + y) * width + x).filter(|s| **s != Gather::NONE);
        let first = sources.iter().position(|s| *s != Gather::NONE)?;
        let (c0, y0, x0) = (first / shape.plane(), first % shape.plane() / width, first % width);
        let map = Self {
            channels: (0..channels).map(|c| Some(*at(c, y0, x0)? as usize / operand.plane())).collect(),
            rows: (0..height).map(|y| Some(*at(c0, y, x0)? as usize % operand.plane() / operand.width)).collect(),
            columns: (0..width).map(|x| Some(*at(c0, y0, x)? as usize % operand.width)).collect(),
        };
        let mut sourced = 0;
        let mut agrees = true;
        map.for_each(operand, |to, from| {
            sourced += 1;
            agrees &= sources[to] as usize == from;
        });
        (agrees && sourced == sources.iter().filter(|s| **s != Gather::NONE).count()).then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_axes_are_found_where_they_exist() {
        let (shape, operand) = (Shape::new(3, 4, 2), Shape::new(2, 5, 6));
        let map = Rearrange {
            channels: vec![None, Some(1), Some(0)],
            rows: vec![Some(3), Some(3), None, Some(0)],
            columns: vec![Some(5), Some(2)],
        };
        let mut sources = vec![Gather::NONE; shape.len()];
        map.for_each(operand, |to, from| sources[to] = from as u32);
        assert_eq!(Rearrange::of_elements(shape, &sources, operand), Some(map));
        sources.swap(9, 15);
        assert_eq!(Rearrange::of_elements(shape, &sources, operand), None);
        assert_eq!(Rearrange::of_elements(shape, &[Gather::NONE; 24], operand), None);
    }
}
