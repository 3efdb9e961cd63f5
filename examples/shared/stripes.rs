//! Pictures that `training/stripes.py` trained a network on.

use cipherlens::nn::{Model, Tensor};
use std::error::Error;

/// A picture of stripes, as the network's input; which way they run is `i` modulo 4.
pub(crate) fn stripes(network: &Model, i: usize) -> Result<Tensor<f64>, Box<dyn Error>> {
    let (angle, frequency, phase) = ((i % 4) as f64 * 45.0, 0.6 + 0.8 * (i as f64 * 0.618).fract(), i as f64 * 0.37);
    let (sin, cos) = angle.to_radians().sin_cos();
    let value = |at: usize| 0.5 + 0.4 * (frequency * ((at % 16) as f64 * cos + (at / 16) as f64 * sin) + phase).sin();
    Ok(network.input().normalise(&(0..256).map(value).collect::<Vec<_>>())?)
}
