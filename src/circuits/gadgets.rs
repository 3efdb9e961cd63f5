//! Which gadget each key switch of a circuit has.

use super::CircuitError;
use crate::ckks::{CkksError, Gadget, KeyKind, KeyRequest, Level, Params};

/// The gadgets of a circuit's key switches, level by level: chosen once, before any key exists.
///
/// Whoever plans a circuit and whoever runs it hands the same value to the same code, so the keys that a trace asks for are those
/// that a run uses, one by one. A run never looks for a key that would also do: many do, and cost differently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gadgets {
    /// Of rotations and conjugations, by level.
    rotations: Vec<Gadget>,
    /// Of relinearizations, by level.
    products: Vec<Gadget>,
}

impl Gadgets {
    /// The cheapest at every level: one for each.
    ///
    /// # Errors
    /// [`CircuitError::Ckks`] where the special primes are too small for any digits of some level.
    pub fn best(params: &Params) -> Result<Self, CircuitError> {
        Self::by_level(params, |level| params.best_gadget(level..=level))
    }

    /// One for each level, for all that is switched there.
    ///
    /// # Errors
    /// What `gadget` gives for the lowest level that it fails for, as [`CircuitError::Ckks`].
    pub fn by_level<E: Into<CkksError>>(
        params: &Params,
        gadget: impl Fn(Level) -> Result<Gadget, E>,
    ) -> Result<Self, CircuitError> {
        let all = (0..=params.max_level().0).map(|l| gadget(Level(l)).map_err(|e| CircuitError::Ckks(e.into())));
        let rotations = all.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { products: rotations.clone(), rotations })
    }

    /// The same, with one gadget for all relinearizations from a level to another: one key serves them all.
    ///
    /// # Errors
    /// [`CircuitError::Ckks`] for a level that the parameter set does not have, or where its special primes are too small for one gadget
    /// from `low` to `high`.
    pub fn with_products(mut self, params: &Params, low: Level, high: Level) -> Result<Self, CircuitError> {
        let gadget = params.best_gadget(low..=high).map_err(CkksError::from)?;
        self.products.iter_mut().skip(low.0).take(high.0 + 1 - low.0).for_each(|g| *g = gadget);
        Ok(self)
    }

    /// Of rotations and conjugations at a level.
    ///
    /// # Errors
    /// [`CircuitError::NoGadget`] for a level beyond those that gadgets were chosen for.
    pub fn rotation(&self, level: Level) -> Result<Gadget, CircuitError> {
        self.rotations.get(level.0).copied().ok_or_else(|| self.beyond(level))
    }

    /// Of relinearizations at a level.
    ///
    /// # Errors
    /// [`CircuitError::NoGadget`] for a level beyond those that gadgets were chosen for.
    pub fn product(&self, level: Level) -> Result<Gadget, CircuitError> {
        self.products.get(level.0).copied().ok_or_else(|| self.beyond(level))
    }

    fn beyond(&self, level: Level) -> CircuitError {
        CircuitError::NoGadget { level, levels: self.rotations.len() }
    }
}

/// A key switch that a circuit makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Switch {
    /// A rotation by so many slots, not 0.
    Rotation(usize),
    /// A conjugation.
    Conjugation,
    /// A relinearization.
    Relinearization,
}

impl Switch {
    /// The key it takes.
    pub fn key(self, params: &Params, gadget: Gadget) -> KeyRequest {
        let kind = match self {
            Self::Rotation(k) => KeyKind::Galois(params.galois_element(k as i64)),
            Self::Conjugation => KeyKind::Galois(params.conjugation_element()),
            Self::Relinearization => KeyKind::Relin,
        };
        KeyRequest { kind, gadget }
    }
}
