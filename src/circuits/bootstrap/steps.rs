//! Baby and giant steps of the linear transforms: as fast as can be within the bytes that keys may take.

use super::dft::{Diagonals, coefficients_from_slots, slots_from_coefficients};
use super::{Bootstrapper, DiagonalTransform, Order, Result};
use crate::circuits::CircuitError;
use crate::ckks::params::Bootstrap;

/// A giant rotation (a mod_up and half a mod_down more) costs about as much as this many baby rotations.
const GIANT: usize = 4;

impl Bootstrapper {
    /// Makes both transforms with the cheapest steps, then halves babies where that costs least until the keys fit.
    pub(super) fn choose_steps(&mut self, spec: &Bootstrap, given: Option<&[usize]>) -> Result<()> {
        let slots = self.options.slots;
        let log_slots = slots.trailing_zeros();
        // The factor 2 of the parts, the range of EvalMod's input, and the shards that the sum over repetitions adds up.
        let repeats = (self.params.slots() / slots) as f64;
        let gain = 0.5 / (self.eval_mod.range() * repeats);
        let up = coefficients_from_slots(log_slots, spec.coeffs_to_slots, gain);
        let back = if self.options.order == Order::SlotsFirst { 1.0 } else { 0.5 };
        let down = slots_from_coefficients(log_slots, spec.slots_to_coeffs, back);
        let border = up.len();
        let all: Vec<Diagonals> = up.into_iter().chain(down).collect();
        let mut babies: Vec<usize> = match given {
            Some(given) if given.len() == all.len() => given.to_vec(),
            Some(given) => return Err(CircuitError::Babies { expected: all.len(), found: given.len() }),
            None => all.iter().map(|m| best(span(m))).collect(),
        };
        loop {
            let made = all.iter().zip(&babies).map(|(m, &b)| DiagonalTransform::new(slots, m, b)).collect::<Result<Vec<_>>>()?;
            self.coeffs_to_slots = made;
            self.slots_to_coeffs = self.coeffs_to_slots.split_off(border);
            self.request_keys()?;
            let (bytes, most) = (self.key_bytes(), self.options.max_key_bytes.unwrap_or(u64::MAX));
            if bytes <= most || given.is_some() {
                return Ok(());
            }
            let halved = (0..all.len()).filter(|&i| babies[i] > 1).min_by_key(|&i| {
                let (count, b) = (span(&all[i]), babies[i]);
                // Time lost for each key saved; the keys of CoeffsToSlots, at the top, are by far the largest.
                (i >= border, 1000 * (cost(count, b / 2).saturating_sub(cost(count, b))) / (b - b / 2))
            });
            match halved {
                Some(i) => babies[i] /= 2,
                None => return Err(CircuitError::KeyBytes { least: bytes, most }),
            }
        }
    }
}

/// Steps from the first rotation of a factor to the last.
fn span(m: &Diagonals) -> usize {
    m.len()
}

/// Rotations of `count` diagonals with so many babies, in babies.
fn cost(count: usize, babies: usize) -> usize {
    babies + GIANT * (count.div_ceil(babies.max(1)) - 1)
}

/// The cheapest number of babies, a power of two; the smallest of equals.
fn best(count: usize) -> usize {
    (0..=count.next_power_of_two().trailing_zeros()).map(|log| 1usize << log).min_by_key(|&b| cost(count, b)).unwrap_or(1)
}
