//! Whether an answer can hold the numbers that a network gives: modulo q, what is too large wraps round and looks like
//! any other.

use super::{Prepared, Result};
use crate::ckks::encoder::fft::{Scratch, SlotTransform};
use crate::ckks::{Level, Params};
use crate::nn::clear::Network;
use crate::nn::model::{MAX_OUTPUT_DIVISOR, Operator, Value};
use crate::nn::simulate::Labelled;
use crate::nn::{Model, Tensor};
use crate::plan::{Plan, PlannedOperation};
use rayon::prelude::*;

/// The part of what an answer can hold that it may be asked to. The rest tells a number that is too large from one that
/// is not.
const USABLE: f64 = 0.5;
/// Results below this are brought to 1 or more.
const SMALL: f64 = 0.125;
/// Unseen pictures may have results this many times as large as those seen while compiling.
const MARGIN: f64 = 4.0;

/// Numbers that no ciphertext of the plan can hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Overflow {
    /// Results, of calibration.
    #[error("the network's results reach {seen:.2e}, and at most {most:.2e} can be held")]
    Results {
        /// The largest seen.
        seen: f64,
        /// The most that can be held.
        most: f64,
    },
    /// Numbers inside the network.
    #[error("{layer:?} is fed {found:.4e}, and {most:.4e} is the most")]
    Inside {
        /// The layer that is fed them.
        layer: String,
        /// The largest.
        found: f64,
        /// The most that can be held.
        most: f64,
    },
    /// A number that is added inside the network, a bias, whatever the input.
    #[error("{layer:?} adds {found:.4e}, and {most:.4e} is the most that can be added where it stands")]
    Constant {
        /// The layer that adds it.
        layer: String,
        /// The largest coefficient of what is added.
        found: f64,
        /// The most that can be held there.
        most: f64,
    },
    /// The result of one input.
    #[error("it reaches {found:.4e}, and the answer holds {most:.4e} at most")]
    Result {
        /// The largest.
        found: f64,
        /// The most that can be held.
        most: f64,
    },
}

/// The largest result of a network that an answer may hold.
pub(super) fn most(prepared: &Prepared) -> f64 {
    room(&prepared.params, prepared.plan.output_level()) * prepared.lowered.output_divisor
}

/// The largest result that an answer may hold of a network that ends at level 0, as networks do.
pub fn most_at_the_end(params: &Params, network: &Model) -> f64 {
    room(params, Level(0)) * network.output_divisor()
}

fn room(params: &Params, level: Level) -> f64 {
    USABLE * params.capacity(level)
}

/// The power of two to divide the result by, so that results as large as `seen`, and some more, fit a parameter set's
/// level 0; below 1 for results that are small beside the noise, which does not know how large they are.
///
/// # Errors
/// [`Overflow::Results`] where none does.
pub fn divisor(params: &Params, seen: f64) -> std::result::Result<f64, Overflow> {
    let wanted = MARGIN * seen / room(params, Level(0));
    if wanted.is_finite() && wanted <= MAX_OUTPUT_DIVISOR {
        let fits = wanted.max(MAX_OUTPUT_DIVISOR.recip()).log2().ceil();
        let whole = if (f64::MIN_POSITIVE..SMALL).contains(&seen) { seen.log2().floor() } else { 0.0 };
        return Ok(whole.max(fits).exp2());
    }
    Err(Overflow::Results { seen, most: MAX_OUTPUT_DIVISOR * room(params, Level(0)) / MARGIN })
}

/// Refuses a plan that adds what its level cannot hold: encoding it would fail, in the middle of a run. (Weights stand
/// at higher levels.)
pub(super) fn check_constants(plan: &Plan) -> std::result::Result<(), Overflow> {
    let params = plan.params();
    for step in plan.steps() {
        let (PlannedOperation::Linear { bias: Some(added), .. } | PlannedOperation::Affine { offset: Some(added), .. }) =
            &step.operation
        else {
            continue;
        };
        let most = params.capacity(step.level_out);
        // No coefficient is larger than the largest slot.
        for slots in added.iter().filter(|slots| largest(slots) >= most) {
            let found = largest_coefficient(slots);
            if found >= most {
                return Err(Overflow::Constant { layer: step.layer.clone(), found, most });
            }
        }
    }
    Ok(())
}

/// Of the plaintext of these real slots.
fn largest_coefficient(slots: &[f64]) -> f64 {
    let transform = SlotTransform::new(slots.len().ilog2() + 1);
    let mut scratch = Scratch::new(slots.len());
    transform.to_coefficients(slots, None, 1.0, &mut scratch);
    largest(&scratch.re).max(largest(&scratch.im))
}

/// Refuses an input whose result the answer could not hold, or that makes a number inside the network which no level
/// can: it would be a number like any other, and wrong.
pub(super) fn check_input(prepared: &Prepared, network: &Model, input: &Tensor<f64>) -> Result<()> {
    let folded = network.fold_batch_norms();
    let divided = folded.divided();
    let (mut inside, mut at) = (0.0, 0);
    let held = |value: Value| if divided[value.0] { folded.output_divisor() } else { 1.0 };
    let result = Network::<f64>::new(network).evaluate_with(input, |node, operand, _| {
        // What an activation is fed is brought to its interval by the layer before it.
        let magnitude = largest(operand.values()) / held(folded.nodes()[node].inputs[0]);
        if !matches!(folded.nodes()[node].operator, Operator::Fitted(_)) && magnitude > inside {
            (inside, at) = (magnitude, node);
        }
    })?;
    // Level 0 holds what is bootstrapped, which has a bound, and the result; everything else is at least at level 1.
    let room = room(&prepared.params, Level(1));
    if inside > room {
        return Err(Overflow::Inside { layer: folded.nodes()[at].name.clone(), found: inside, most: room }.into());
    }
    let (found, most) = (largest(result.values()), most(prepared));
    if found <= most { Ok(()) } else { Err(Overflow::Result { found, most }.into()) }
}

impl Prepared {
    /// Refuses an input whose result the answer could not hold, or that makes a number inside the network which no
    /// level can.
    ///
    /// # Errors
    /// [`Overflow`] says which; [`super::EngineError::Shape`] for a tensor of another shape.
    pub fn check_input(&self, network: &Model, input: &Tensor<f64>) -> Result<()> {
        check_input(self, network, input)
    }
}

/// The largest magnitude of a network's result on some pictures.
///
/// # Errors
/// [`super::EngineError::Shape`] for a tensor of another shape.
pub fn largest_result(network: &Model, pictures: &[Labelled]) -> Result<f64> {
    let clear = Network::<f32>::new(network);
    let of_one = |picture: &Labelled| Ok(largest(clear.evaluate(&picture.x)?.cast::<f64>().values()));
    let all = pictures.par_iter().map(of_one).collect::<Result<Vec<f64>>>()?;
    Ok(all.into_iter().fold(0.0, f64::max))
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v.abs()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_are_as_large_as_a_number_in_every_slot_and_smaller_for_few() {
        assert!((largest_coefficient(&[-3.0; 16]) - 3.0).abs() < 1e-12);
        let mut one = [0.0; 16];
        one[5] = 16.0;
        // 2 / N of it times a root of unity, N = 32.
        assert!((0.7..=1.0 + 1e-12).contains(&largest_coefficient(&one)), "{}", largest_coefficient(&one));
    }
}
