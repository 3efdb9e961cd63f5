//! Pictures shown a quarter larger: of the same kind as those that a network was trained on, and not those.

use crate::nn::tensor::{Shape, Tensor};

/// How much larger things are shown.
const ZOOM: f64 = 1.25;
/// Smallest height or width of what is zoomed.
const LEAST: usize = 8;
/// Where the part that is shown lies: corners and the middle in turn, in parts of what is cut away.
const PLACES: [[f64; 2]; 5] = [[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]];

/// The part of a picture whose sides are 1 / [`ZOOM`] of its own, stretched to its size, bilinear; which part goes by `turn`. None of what is too small to be
/// called a picture.
pub(super) fn zoomed(x: &Tensor<f32>, turn: usize) -> Option<Tensor<f32>> {
    let Shape { channels, height, width, .. } = x.shape();
    if height.min(width) < LEAST {
        return None;
    }
    let [down, right] = PLACES[turn % PLACES.len()];
    let (rows, columns) = (positions(height, down), positions(width, right));
    let mut values = Vec::with_capacity(x.shape().len());
    for c in 0..channels {
        let channel = x.channel(c);
        for (y, below) in &rows {
            let (upper, lower) = (&channel[y * width..][..width], &channel[(y + 1).min(height - 1) * width..][..width]);
            for (x, beside) in &columns {
                let along = |row: &[f32]| row[*x] + (row[(x + 1).min(width - 1)] - row[*x]) * beside;
                values.push(along(upper) + (along(lower) - along(upper)) * below);
            }
        }
    }
    Tensor::new(x.shape(), values).ok()
}

/// For each place of a side, the place that it is taken from and how far it is on the way to the next.
fn positions(side: usize, place: f64) -> Vec<(usize, f32)> {
    let start = place * (side as f64 - side as f64 / ZOOM);
    let at = |i: usize| {
        let position = (start + (i as f64 + 0.5) / ZOOM - 0.5).clamp(0.0, (side - 1) as f64);
        (position as usize, position.fract() as f32)
    };
    (0..side).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_stays_a_slope_and_shows_four_fifths() {
        let shape = Shape::new(2, 10, 20);
        let slope = |c: usize, y: usize, x: usize| 1000.0 * c as f32 + 10.0 * y as f32 + x as f32;
        let index = |i: usize| slope(i / 200, i / 20 % 10, i % 20);
        let picture = Tensor::new(shape, (0..400).map(index).collect()).expect("the shape");
        for (turn, first_row) in [(0, 0.0), (1, 2.0), (2, 1.0), (5, 0.0)] {
            let zoomed = zoomed(&picture, turn).expect("large enough");
            assert_eq!(zoomed.shape(), shape);
            // Row 4 shows the place 4.5 / 1.25 - 0.5 below the first one shown.
            let row = first_row + 4.5 / 1.25 - 0.5;
            let columns = [0.0, 4.0, 2.0, 0.0, 0.0, 0.0][turn];
            let expected = 1000.0 + 10.0 * row + columns + 9.5 / 1.25 - 0.5;
            assert!((zoomed.at(1, 4, 9) - expected as f32).abs() < 1e-3, "{turn}: {} for {expected}", zoomed.at(1, 4, 9));
        }
        assert!(zoomed(&Tensor::zeros(Shape::new(3, 7, 100)), 0).is_none());
    }
}
