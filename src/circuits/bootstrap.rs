//! Bootstrapping: a value that has run out of levels, with levels again.
//!
//! A message m at the bottom is `scale m + q0 I` at the top once its modulus is raised: I is an integer polynomial, bounded because
//! that happens under a sparse secret (encapsulation; Bossuat, Troncoso-Pastoriza, Hubaux 2022). CoeffsToSlots brings the
//! coefficients into slots, EvalMod removes the multiples of q0, SlotsToCoeffs brings them back.
//!
//! In [`Order::SlotsFirst`] SlotsToCoeffs stands at the very bottom, where a ciphertext has few limbs, and the slots, as coefficients,
//! go through the rest. What is more, the coefficients of a real vector then are real where complex ones fit, and EvalMod
//! runs once a vector instead of twice. So two real shards share a ciphertext in the linear transforms and are bootstrapped
//! as one; in EvalMod, where parts are real, each is a shard of its own.
//!
//! All shards of a batch go through each step together: a key is read once for all.

use super::diagonal_transform::DiagonalTransform;
use super::trace::{TraceEngine, TraceValue};
use super::{CircuitError, Engine, Gadgets, Switch, below, engine::by_shards};
use crate::ckks::{CkksError, KeyRequest, Level, Params, ParamsError};
use std::sync::Arc;

pub mod dft;
pub mod eval_mod;
mod steps;

pub use eval_mod::EvalMod;

type Result<T> = std::result::Result<T, CircuitError>;

/// Which linear transform comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// SlotsToCoeffs, mod_raise, CoeffsToSlots, EvalMod: from [`Params::input_level`] to [`Params::output_level`].
    SlotsFirst,
    /// mod_raise, CoeffsToSlots, EvalMod, SlotsToCoeffs: from level 0, and as many levels lower at the end. SlotsToCoeffs multiplies the
    /// rounding at the end of EvalMod by sqrt(N/2): 17 bits at N = 2^16 and 40-bit levels, where slots first leaves 23.
    SlotsLast,
}

/// How to bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// Which linear transform comes first.
    pub order: Order,
    /// Slots of a vector, a power of two from 2 to N/2: fewer than N/2 mean that every vector repeats.
    pub slots: usize,
    /// Most bytes of keys: fewer rotations at a time, each key used more often.
    pub max_key_bytes: Option<u64>,
    /// Most ciphertexts (of two real shards each) that go through the circuit together.
    pub batch: usize,
}

impl BootstrapOptions {
    /// Slots first, all slots, keys as fast as can be, batches of four ciphertexts.
    pub fn new(params: &Params) -> Self {
        Self { order: Order::SlotsFirst, slots: params.slots(), max_key_bytes: None, batch: 4 }
    }
}

/// The circuit for one parameter set. Real values in, real values out.
#[derive(Debug)]
pub struct Bootstrapper {
    params: Arc<Params>,
    options: BootstrapOptions,
    coeffs_to_slots: Vec<DiagonalTransform>,
    slots_to_coeffs: Vec<DiagonalTransform>,
    eval_mod: EvalMod,
    gadgets: Gadgets,
    keys: Vec<KeyRequest>,
    input_level: Level,
    output_level: Level,
    /// Where EvalMod starts.
    eval_mod_level: Level,
}

/// Told when a part of the circuit is done: for measuring.
pub trait Stages: Sync {
    /// `stage` has been done on a batch.
    fn done(&self, stage: &'static str);
}

impl Stages for () {
    fn done(&self, _: &'static str) {}
}

impl Bootstrapper {
    /// Makes the transforms and the key list.
    ///
    /// # Errors
    /// [`ParamsError::NoBootstrap`] for a parameter set without levels for it,
    /// [`CircuitError::BootstrapSlots`] for slots that it does not serve, [`CircuitError::EvalModLevels`] where [`EvalMod`] takes more or
    /// fewer levels than there are for it, [`CircuitError::Polynomial`] as [`EvalMod::new`], [`CircuitError::KeyBytes`] where the fewest keys take more than may be.
    pub fn new(params: &Arc<Params>, options: &BootstrapOptions) -> Result<Self> {
        Self::make(params, options, None)
    }

    /// With so many baby rotations in each of [`Self::transforms`], as [`Self::babies`] told of another.
    ///
    /// # Errors
    /// As [`Self::new`], but that keys may take any number of bytes; [`CircuitError::Babies`] where `babies` has not one number for each
    /// transform.
    pub fn with_babies(params: &Arc<Params>, options: &BootstrapOptions, babies: &[usize]) -> Result<Self> {
        Self::make(params, options, Some(babies))
    }

    fn make(params: &Arc<Params>, options: &BootstrapOptions, babies: Option<&[usize]>) -> Result<Self> {
        let spec = *params.need_bootstrap().map_err(CkksError::from)?;
        let most = 1usize << spec.log_slots;
        if !options.slots.is_power_of_two() || options.slots < 2 || options.slots > most {
            return Err(CircuitError::BootstrapSlots { preset: params.name().into(), most, found: options.slots });
        }
        let eval_mod = EvalMod::new(&spec, params.message_ratio())?;
        if eval_mod.depth() != spec.eval_mod {
            let (needed, have) = (eval_mod.depth(), spec.eval_mod);
            return Err(CircuitError::EvalModLevels { preset: params.name().into(), needed, have });
        }
        let of_set = |level: std::result::Result<Level, ParamsError>| level.map_err(CkksError::from);
        let mut this = Self {
            params: params.clone(),
            options: options.clone(),
            coeffs_to_slots: Vec::new(),
            slots_to_coeffs: Vec::new(),
            eval_mod,
            gadgets: Self::gadgets_for(params)?,
            keys: Vec::new(),
            input_level: match options.order {
                Order::SlotsFirst => of_set(params.input_level())?,
                Order::SlotsLast => Level(0),
            },
            output_level: of_set(params.output_level())?,
            eval_mod_level: of_set(params.eval_mod_level())?,
        };
        this.choose_steps(&spec, babies)?;
        if options.order == Order::SlotsLast {
            this.output_level = below(this.output_level, this.slots_to_coeffs.len(), "SlotsToCoeffs")?;
        }
        Ok(this)
    }

    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }
    /// The options.
    pub fn options(&self) -> &BootstrapOptions {
        &self.options
    }
    /// The lowest level a value may have before: it is brought down to it.
    pub fn input_level(&self) -> Level {
        self.input_level
    }
    /// The level after.
    pub fn output_level(&self) -> Level {
        self.output_level
    }
    /// The gadget of every key switch.
    pub fn gadgets(&self) -> &Gadgets {
        &self.gadgets
    }
    /// Exactly the keys it needs.
    pub fn keys(&self) -> &[KeyRequest] {
        &self.keys
    }
    /// Bytes of those keys in memory.
    pub fn key_bytes(&self) -> u64 {
        key_bytes(&self.params, &self.keys)
    }
    /// The factors of CoeffsToSlots, then those of SlotsToCoeffs, each in the order of application.
    pub fn transforms(&self) -> impl Iterator<Item = &DiagonalTransform> {
        self.coeffs_to_slots.iter().chain(&self.slots_to_coeffs)
    }
    /// Baby rotations of each of them.
    pub fn babies(&self) -> Vec<usize> {
        self.transforms().map(|t| t.babies().len()).collect()
    }
    /// EvalMod.
    pub fn eval_mod(&self) -> &EvalMod {
        &self.eval_mod
    }

    /// Bootstraps every shard: real values within [-1, 1] (a little beyond does no harm) at [`Self::input_level`] or above, to the
    /// same values at [`Self::output_level`].
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] for a value below [`Self::input_level`], and those of the engine's operations ([`Engine`]).
    pub fn apply<E: Engine>(&self, engine: &E, x: &E::Value) -> Result<E::Value> {
        self.apply_observed(engine, x, &())
    }

    /// [`Self::apply`], telling `stages` what has been done.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_observed<E: Engine>(&self, engine: &E, x: &E::Value, stages: &dyn Stages) -> Result<E::Value> {
        let (level, input) = (engine.level(x), self.input_level);
        if level < input {
            return Err(CircuitError::LevelsExhausted { operation: "bootstrapping", needed: input.0, have: level.0 });
        }
        let x = engine.drop_to(x, input)?;
        by_shards(engine, &x, 2 * self.options.batch, |part| self.run(engine, part, stages))
    }

    fn run<E: Engine>(&self, engine: &E, x: &E::Value, stages: &dyn Stages) -> Result<E::Value> {
        let (shards, gadgets) = (engine.shards(x), &self.gadgets);
        let mut y = if shards > 1 { engine.pack_pairs(x)? } else { x.clone() };
        if self.options.order == Order::SlotsFirst {
            for factor in &self.slots_to_coeffs {
                y = engine.transform(&y, factor, gadgets)?;
            }
            y = engine.drop_to(&y, Level(0))?;
            stages.done("slots to coefficients");
        }
        y = engine.mod_raise(&y, &self.params)?;
        let mut step = self.options.slots;
        while step < self.params.slots() {
            y = engine.add(engine.rotate(&y, step, gadgets)?, &y)?;
            step *= 2;
        }
        stages.done("raising the modulus");
        let (last, factors) = self.coeffs_to_slots.split_last().ok_or(CircuitError::EmptyMatrix)?;
        for factor in factors {
            y = engine.transform(&y, factor, gadgets)?;
        }
        // Down to one level above EvalMod's, if there are fewer factors than levels.
        y = engine.drop_to(&y, Level(self.eval_mod_level.0 + 1))?;
        let parts = match self.options.order {
            Order::SlotsFirst => shards,
            Order::SlotsLast => 2 * engine.shards(&y),
        };
        y = engine.transform_parts(&y, last, parts, gadgets)?;
        stages.done("coefficients to slots");
        y = self.eval_mod.apply(engine, &y, gadgets)?;
        stages.done("removal of the multiples of q0");
        if self.options.order == Order::SlotsLast {
            y = engine.pack_pairs(&y)?;
            let (last, factors) = self.slots_to_coeffs.split_last().ok_or(CircuitError::EmptyMatrix)?;
            for factor in factors {
                y = engine.transform(&y, factor, gadgets)?;
            }
            y = engine.transform_parts(&y, last, shards, gadgets)?;
            stages.done("slots to coefficients");
        }
        Ok(y)
    }

    /// Runs the circuit on levels alone.
    ///
    /// # Errors
    /// None that [`Self::new`] would not have given, which runs it to find the keys.
    pub fn trace(&self, shards: usize) -> Result<super::trace::Trace> {
        let engine = TraceEngine::default();
        let _ = self.apply(&engine, &TraceValue { shards, level: self.input_level })?;
        Ok(engine.trace())
    }

    /// A gadget for each level at which something is rotated, and one for all products of EvalMod, which then need one key.
    fn gadgets_for(params: &Params) -> Result<Gadgets> {
        // At the bottom, where the scale is small, noise counts and limbs are few.
        let bottom = params.input_level().map_err(CkksError::from)?;
        let gadget = |level: Level| match level <= bottom {
            true => params.quiet_gadget(level..=level),
            false => params.best_gadget(level..=level),
        };
        Gadgets::by_level(params, gadget)
    }

    /// Settles the gadget of EvalMod's products, and the keys of a run.
    fn request_keys(&mut self) -> Result<()> {
        let products = self.trace(2)?.levels_of(|switch| switch == Switch::Relinearization);
        if let (Some(&low), Some(&high)) = (products.first(), products.last()) {
            self.gadgets = Self::gadgets_for(&self.params)?.with_products(&self.params, low, high)?;
        }
        self.keys = self.trace(2)?.keys(&self.params)?;
        Ok(())
    }
}

fn key_bytes(params: &Params, keys: &[KeyRequest]) -> u64 {
    keys.iter().map(|k| k.gadget.key_bytes(params.degree())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuits::{ClearEngine, clear::ClearValue};
    use crate::ckks::{PrecisionStats, presets};

    fn values(shards: usize, slots: usize) -> Vec<Vec<f64>> {
        let value = |s: usize, i: usize| ((i * 7919 + s * 104_729) % 100_003) as f64 / 50_001.0 - 1.0;
        (0..shards).map(|s| (0..slots).map(|i| value(s, i)).collect()).collect()
    }

    #[test]
    fn clear_values_come_back_in_both_orders_for_all_slots_and_shards() {
        let params = presets::by_name("insecure-boot").unwrap();
        for order in [Order::SlotsFirst, Order::SlotsLast] {
            for (slots, shards) in [(1024, 1), (1024, 2), (1024, 5), (64, 3), (2, 1)] {
                let options = BootstrapOptions { order, slots, batch: 1, ..BootstrapOptions::new(&params) };
                let bootstrapper = Bootstrapper::new(&params, &options).unwrap();
                let x = ClearValue::new(values(shards, slots), bootstrapper.input_level());
                let y = bootstrapper.apply(&ClearEngine, &x).unwrap();
                assert_eq!(y.level, bootstrapper.output_level());
                assert!(y.imaginary().is_none_or(|im| im.iter().flatten().all(|v| v.abs() < 1e-5)), "real values");
                let stats = PrecisionStats::compare_shards(&x.shards, &y.shards).unwrap();
                // The cubic term of the sine: 2^-21 for coefficients of 1, and a sum of up to N of them in slots.
                println!("{order:?} {slots} slots {shards} shards: {stats}");
                assert!(stats.worst_bits > 17.0, "{order:?} {slots} slots {shards} shards: {stats}");
            }
        }
    }

    #[test]
    fn keys_fit_the_bytes_allowed_and_the_time_grows() {
        let params = presets::by_name("insecure-boot").unwrap();
        let make =
            |max_key_bytes| Bootstrapper::new(&params, &BootstrapOptions { max_key_bytes, ..BootstrapOptions::new(&params) });
        let free = make(None).unwrap();
        let tight = make(Some(free.key_bytes() * 2 / 3)).unwrap();
        assert!(tight.key_bytes() <= free.key_bytes() * 2 / 3);
        assert!(tight.keys().len() < free.keys().len());
        let mod_ups = |b: &Bootstrapper| b.trace(1).unwrap().counts.mod_ups;
        assert!(mod_ups(&tight) > mod_ups(&free));
        assert!(matches!(make(Some(1 << 10)), Err(CircuitError::KeyBytes { most: 1024, .. })));
    }

    #[test]
    fn refuses_what_it_does_not_serve() {
        let params = presets::by_name("insecure-boot").unwrap();
        for slots in [0, 1, 3, 2048] {
            let options = BootstrapOptions { slots, ..BootstrapOptions::new(&params) };
            assert!(matches!(Bootstrapper::new(&params, &options), Err(CircuitError::BootstrapSlots { most: 1024, .. })));
        }
        let plain = presets::by_name("insecure-toy").unwrap();
        assert!(Bootstrapper::new(&plain, &BootstrapOptions::new(&plain)).is_err());
        let bootstrapper = Bootstrapper::new(&params, &BootstrapOptions::new(&params)).unwrap();
        let low = ClearValue::new(values(1, 1024), Level(2));
        assert!(matches!(bootstrapper.apply(&ClearEngine, &low), Err(CircuitError::LevelsExhausted { needed: 3, have: 2, .. })));
    }
}
