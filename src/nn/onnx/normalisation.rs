//! What a network takes as a picture, as far as its graph tells: the type of its input, and sums and products that come first.

use super::graph::Importer;
use super::{OnnxError, OnnxOptions};
use crate::nn::model::{Model, Normalisation, OperatorSpec};

/// Numbers of TensorProto.DataType that pixels of 0 to 255 come in: uint8, uint16, int16, int32, int64, uint32, uint64.
const WHOLE: [i32; 7] = [2, 4, 5, 6, 7, 12, 13];
/// Those of real numbers, with 0 for a file that names none: float, float16, double, bfloat16.
const REAL: [i32; 5] = [0, 1, 10, 11, 16];
/// A deviation that only pixels of 0 to 255 have: those of [0, 1] have half at most, and normalised ones about 1.
const PIXEL_DEVIATION: f64 = 8.0;
/// A mean that only they have.
const PIXEL_MEAN: f64 = 2.0;
/// The largest deviation of values of [0, 1].
const UNIT_DEVIATION: f64 = 0.5;
/// The mean from which on a network that only subtracts it is meant for them.
const UNIT_MEAN: f64 = 0.2;

/// Errors for an input whose numbers no picture gives.
pub(super) fn check_type(input: &str, kind: i32) -> Result<(), OnnxError> {
    if WHOLE.contains(&kind) || REAL.contains(&kind) {
        return Ok(());
    }
    let reason = format!("the input has numbers of ONNX type {kind}; pictures are given as floats or as uint8: add a Cast");
    Err(OnnxError::Tensor { tensor: input.to_owned(), reason })
}

/// Settles mean and deviation where nobody gave them. `kind` is the type of the input's numbers, `own` what [`own`] found.
pub(super) fn settle(model: &mut Model, kind: i32, own: Option<Normalisation>, options: &OnnxOptions) {
    if !options.mean.is_empty() || !options.std.is_empty() {
        return;
    }
    let found = if WHOLE.contains(&kind) { Normalisation::Pixels } else { own.unwrap_or(Normalisation::Assumed) };
    model.input.normalisation = found;
    let std = match found {
        Normalisation::Pixels => 1.0 / 255.0,
        Normalisation::Unit => 1.0,
        Normalisation::Assumed | Normalisation::Given => return,
    };
    let channels = model.input.shape.channels;
    (model.input.mean, model.input.std) = (vec![0.0; channels], vec![std; channels]);
}

/// What pictures the first sums and products of a network are made for; none if it has none, or if these do not tell.
pub(super) fn own(importer: &Importer<'_>) -> Option<Normalisation> {
    let channels = importer.shape(0).channels;
    let (mut factor, mut offset) = (vec![1.0; channels], vec![0.0; channels]);
    let mut value = 0;
    while let Some((made, OperatorSpec::BatchNorm { scale, bias, mean, var, epsilon })) = importer.only_reader(value) {
        let [scale, bias, mean, var] =
            [scale, bias, mean, var].map(|name| importer.kept_values(name).filter(|v| v.len() == channels));
        let (Some(scale), Some(bias), Some(mean), Some(var)) = (scale, bias, mean, var) else { return None };
        let plain = *epsilon == 0.0 && mean.iter().all(|m| *m == 0.0) && var.iter().all(|v| *v == 1.0);
        if !plain {
            // Learned: its running mean and variance are those of the values that it was trained on.
            let of = |c: usize| ((mean[c] - offset[c]) / factor[c], var[c].sqrt() / factor[c].abs());
            return meant((0..channels).map(of), true);
        }
        for c in 0..channels {
            (factor[c], offset[c]) = (factor[c] * scale[c], offset[c] * scale[c] + bias[c]);
        }
        value = made;
    }
    // (x - mean) / deviation, deviation of either sign.
    if value == 0 { None } else { meant(factor.iter().zip(&offset).map(|(f, o)| (-o / f, (1.0 / f).abs())), false) }
}

/// What values of these means and deviations are; none if it cannot be told. `learned`: the deviation is theirs, and not only what they
/// are divided by.
fn meant(channels: impl Iterator<Item = (f64, f64)>, learned: bool) -> Option<Normalisation> {
    let (mut pixels, mut unit) = (false, false);
    for (mean, deviation) in channels {
        if !(mean.is_finite() && deviation.is_finite()) {
            return None;
        }
        pixels |= mean.abs() > PIXEL_MEAN || deviation > PIXEL_DEVIATION;
        unit |= if learned {
            deviation <= UNIT_DEVIATION && (0.0..=1.0).contains(&mean)
        } else {
            deviation <= UNIT_DEVIATION || mean > UNIT_MEAN
        };
    }
    if pixels { Some(Normalisation::Pixels) } else { unit.then_some(Normalisation::Unit) }
}
