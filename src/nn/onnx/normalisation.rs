//! What a network takes as a picture, as far as its graph tells: the type of its input, and sums and products that come first.

use super::{OnnxError, OnnxOptions};
use crate::nn::model::{Model, Normalisation, Operator, Value};

/// Numbers of TensorProto.DataType that pixels of 0 to 255 come in: uint8, uint16, int16, int32, int64, uint32, uint64.
const WHOLE: [i32; 7] = [2, 4, 5, 6, 7, 12, 13];
/// Those of real numbers, with 0 for a file that names none: float, float16, double, bfloat16.
const REAL: [i32; 5] = [0, 1, 10, 11, 16];
/// A deviation that only pixels of 0 to 255 have: those of [0, 1] have less than 1, and normalised ones about 1.
const PIXEL_DEVIATION: f64 = 8.0;
/// A mean that only they have.
const PIXEL_MEAN: f64 = 2.0;
/// The deviation up to which values of [0, 1] are meant rather than normalised ones.
const UNIT_DEVIATION: f64 = 0.7;
/// The mean from which on they are meant.
const UNIT_MEAN: f64 = 0.2;

/// Errors for an input whose numbers no picture gives.
pub(super) fn check_type(input: &str, kind: i32) -> Result<(), OnnxError> {
    if WHOLE.contains(&kind) || REAL.contains(&kind) {
        return Ok(());
    }
    let reason = format!("the input has numbers of ONNX type {kind}; pictures are given as floats or as uint8: add a Cast");
    Err(OnnxError::Tensor { tensor: input.to_owned(), reason })
}

/// Settles mean and deviation where nobody gave them. `kind` is the type of the input's numbers.
pub(super) fn settle(model: &mut Model, kind: i32, options: &OnnxOptions) {
    if !options.mean.is_empty() || !options.std.is_empty() {
        return;
    }
    let found = if WHOLE.contains(&kind) { Normalisation::Pixels } else { own(model).unwrap_or(Normalisation::Assumed) };
    let std = match found {
        Normalisation::Pixels => 1.0 / 255.0,
        Normalisation::Unit => 1.0,
        Normalisation::Assumed | Normalisation::Given => {
            model.input.normalisation = found;
            return;
        }
    };
    let channels = model.input.shape.channels;
    model.input.normalisation = found;
    (model.input.mean, model.input.std) = (vec![0.0; channels], vec![std; channels]);
}

/// What pictures the first sums and products of a network are made for; none if it has none, or if these do not tell.
fn own(model: &Model) -> Option<Normalisation> {
    let channels = model.input.shape.channels;
    let (mut factor, mut offset) = (vec![1.0; channels], vec![0.0; channels]);
    let mut value = Value(0);
    loop {
        let mut readers = model.nodes.iter().enumerate().filter(|(_, node)| node.inputs.contains(&value));
        let (Some((i, node)), None) = (readers.next(), readers.next()) else { break };
        let Operator::BatchNorm { factor: f, offset: o } = &node.operator else { break };
        for c in 0..channels {
            (factor[c], offset[c]) = (factor[c] * f[c], offset[c] * f[c] + o[c]);
        }
        value = Value(i + 1);
    }
    if value == Value(0) || factor.contains(&0.0) {
        return None;
    }
    // (x - mean) / deviation, deviation of either sign.
    let any = |of: &dyn Fn(f64, f64) -> bool| factor.iter().zip(&offset).any(|(f, o)| of(-o / f, (1.0 / f).abs()));
    if any(&|mean, deviation| mean.abs() > PIXEL_MEAN || deviation > PIXEL_DEVIATION) {
        Some(Normalisation::Pixels)
    } else if any(&|mean, deviation| mean > UNIT_MEAN || deviation < UNIT_DEVIATION) {
        Some(Normalisation::Unit)
    } else {
        None
    }
}
