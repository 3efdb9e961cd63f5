//! Whether an answer can hold the numbers that a network gives: modulo q, what is too large wraps round and looks like any other.

use super::failure::{Class, Failure, Outcome, explain};
use super::plan::Prepared;
use cipherlens::ckks::{Level, Params};
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{MAX_OUTPUT_DIVISOR, Operator};
use cipherlens::nn::{Model, Tensor};

/// The part of what an answer can hold that it may be asked to. The rest tells a number that is too large from one that is not.
const USABLE: f64 = 0.5;
/// Unseen pictures may have results this many times as large as those seen while compiling.
const MARGIN: f64 = 4.0;

/// The largest result of a network that an answer may hold.
pub fn most(prepared: &Prepared) -> f64 {
    let level = prepared.plan.layers().last().map_or(0, |layer| layer.level_out);
    room(&prepared.params, Level(level)) * prepared.lowered.output_divisor
}

/// As [`most`], of a network that ends at level 0, as networks do.
pub fn most_at_the_end(params: &Params, network: &Model) -> f64 {
    room(params, Level(0)) * network.output_divisor()
}

fn room(params: &Params, level: Level) -> f64 {
    USABLE * params.capacity(level)
}

/// The power of two to divide the result by, so that results as large as `seen`, and some more, fit a parameter set's level 0.
pub fn divisor(params: &Params, seen: f64) -> Outcome<f64> {
    let wanted = MARGIN * seen / room(params, Level(0));
    if wanted.is_finite() && wanted <= MAX_OUTPUT_DIVISOR {
        return Ok(wanted.max(1.0).log2().ceil().exp2());
    }
    Err(Failure::new(
        Class::Numeric,
        "the network's results are too large to be encrypted",
        format!("they reach {seen:.2e}, and at most {:.2e} can be held", MAX_OUTPUT_DIVISOR * room(params, Level(0)) / MARGIN),
        "scale the last layer down: only the order of the results decides the class",
    ))
}

/// Refuses an input, called `name`, whose result the answer could not hold, or that makes a number inside the network which no level
/// can: it would be a number like any other, and wrong.
pub fn check_input(prepared: &Prepared, network: &Model, input: &Tensor<f64>, name: &str) -> Outcome {
    let folded = network.fold_batch_norms();
    let (mut inside, mut at) = (0.0, 0);
    let result = Network::<f64>::new(network).evaluate_with(input, |node, operand, _| {
        // What an activation is fed is brought to its interval by the layer before it.
        if !matches!(folded.nodes()[node].operator, Operator::Fitted(_)) && largest(operand.values()) > inside {
            (inside, at) = (largest(operand.values()), node);
        }
    });
    let result = result.map_err(|e| explain("cannot evaluate the network", &e))?;
    // Level 0 holds what is bootstrapped, which has a bound, and the result; everything else is at least at level 1.
    let room = room(&prepared.params, Level(1));
    if inside > room {
        let what = format!("the network makes numbers for {name} that cannot be encrypted");
        let why = format!("{:?} is fed {inside:.4e}, and {room:.4e} is the most", folded.nodes()[at].name);
        return Err(Failure::new(Class::Numeric, what, why, "scale the weights of the layer before it down"));
    }
    let (largest, most) = (largest(result.values()), most(prepared));
    if largest <= most {
        return Ok(());
    }
    let what = format!("the encrypted answer could not hold the result for {name}");
    Err(Failure::new(Class::Numeric, what, format!("it reaches {largest:.4e}, and the answer holds {most:.4e} at most"), ADVICE))
}

/// Refuses decrypted results that are as large as those that wrapped round.
pub fn check_result(prepared: &Prepared, result: &[f64]) -> Outcome {
    let (largest, most) = (largest(result), most(prepared));
    if largest <= most {
        return Ok(());
    }
    let why = format!("it reaches {largest:.4e}; beyond {most:.4e} numbers may have wrapped round modulo q and be others");
    Err(Failure::new(Class::Numeric, "the decrypted result is too large to be trusted", why, ADVICE))
}

/// What to do about a result that is too large.
pub const ADVICE: &str =
    "compile the network with pictures like this one among those of --calib: its result is then scaled to fit";

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v.abs()) })
}
