//! The gadgets that a parameter set has, and the constants that go with them, built once.

use super::{Level, Params, ParamsError};
use crate::backend::KeySwitchTables;
use crate::ckks::gadget::{Gadget, MAX_CONVERSION_LIMBS, QUIET_BITS};
use crate::math::{BaseConversion, Basis, BasisChange};
use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, PoisonError, RwLock};

type Cached<K, V> = RwLock<HashMap<K, Arc<V>>>;

/// Limbs, and bits of the product, of the largest digit of a gadget.
struct LargestDigit {
    limbs: usize,
    bits: f64,
}

/// Constants built on first use.
#[derive(Debug, Default)]
pub(super) struct GadgetCache {
    plans: Cached<(Gadget, Level), KeySwitchTables>,
    rescale: Cached<(Level, Level), BasisChange>,
    mod_down_rescale: Cached<(Gadget, Level, Level), BasisChange>,
    lift: Cached<(Gadget, Level), BasisChange>,
    raise: Cached<(), BaseConversion>,
}

/// Looks up or builds. A poisoned lock only means that another thread stopped while inserting a finished value.
fn cached<K: std::hash::Hash + Eq, V>(
    cache: &Cached<K, V>,
    key: K,
    build: impl FnOnce() -> Result<V, ParamsError>,
) -> Result<Arc<V>, ParamsError> {
    if let Some(found) = cache.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(found.clone());
    }
    let built = Arc::new(build()?);
    Ok(cache.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(built).clone())
}

impl Params {
    /// The gadget over the union of the windows of `levels`, in digits of `alpha` limbs, with the first `alpha` special
    /// primes, or as many as it takes for their product P to reach the largest digit (else noise would grow by the gap).
    ///
    /// # Errors
    /// [`ParamsError::NoSuchLevel`] for a level above the top, [`ParamsError::GadgetRange`] for no levels at all,
    /// [`ParamsError::ConversionLimbs`] for digits of more than [`MAX_CONVERSION_LIMBS`] limbs, [`ParamsError::SpecialTooSmall`] where
    /// all special primes together do not reach a digit.
    pub fn gadget(&self, levels: RangeInclusive<Level>, alpha: usize) -> Result<Gadget, ParamsError> {
        self.gadget_with_margin(levels, alpha, 0.0)
    }

    /// [`Self::gadget`] with P larger than the largest digit by so many bits at least.
    fn gadget_with_margin(&self, levels: RangeInclusive<Level>, alpha: usize, margin: f64) -> Result<Gadget, ParamsError> {
        let (low, high) = (*levels.start(), *levels.end());
        self.check_level(low)?;
        self.check_level(high)?;
        let limbs = || (low.0..=high.0).flat_map(|l| self.window(Level(l)).limbs().iter().map(|l| l.0));
        let (Some(start), Some(last)) = (limbs().min(), limbs().max()) else {
            return Err(ParamsError::GadgetRange { level: low, start: 0, end: 0 });
        };
        let alpha = alpha.max(1);
        let mut gadget = Gadget { start, end: last + 1, alpha: alpha.min(u16::MAX.into()) as u16, special: 0 };
        let digits = self.largest_digit(&gadget);
        self.check_conversion("a digit", digits.limbs)?;
        let Some(needed) = self.least_special(&digits, margin) else {
            let (available, digit_bits) = (self.special().len(), digits.bits + margin);
            let special_bits = self.special_bits(available);
            return Err(ParamsError::SpecialTooSmall { alpha, digit_bits, special: available, special_bits });
        };
        gadget.special = needed as u16;
        Ok(gadget)
    }

    fn largest_digit(&self, gadget: &Gadget) -> LargestDigit {
        let digits = || (0..gadget.digits()).map(|k| gadget.digit(k));
        LargestDigit {
            limbs: digits().map(|digit| digit.len()).max().unwrap_or(0),
            bits: digits().map(|digit| self.tables().log2(&Basis::range(digit))).fold(0.0, f64::max),
        }
    }

    /// log2 of the product of the first `count` special primes.
    fn special_bits(&self, count: usize) -> f64 {
        self.special().limbs().iter().take(count).map(|&l| self.tables().modulus(l).log2()).sum()
    }

    /// The fewest special primes whose product exceeds the largest digit by so many bits, and no fewer than it has limbs while
    /// there are as many.
    fn least_special(&self, largest: &LargestDigit, margin: f64) -> Option<usize> {
        let available = self.special().len();
        (largest.limbs.min(available)..=available).find(|&count| self.special_bits(count) >= largest.bits + margin)
    }

    /// Errors where a base conversion would read more limbs than its quotient sum has room for.
    fn check_conversion(&self, what: &'static str, limbs: usize) -> Result<(), ParamsError> {
        if limbs <= MAX_CONVERSION_LIMBS {
            return Ok(());
        }
        Err(ParamsError::ConversionLimbs { name: self.name().into(), what, limbs })
    }

    /// The conversions that every use of a set needs: from the special primes with what one rescale drops, and from level 0.
    pub(super) fn check_conversions(&self) -> Result<(), ParamsError> {
        for level in (0..self.max_level().0).map(Level) {
            let dropped = self.window(Level(level.0 + 1)).minus(self.window(level)).len();
            self.check_conversion("the special primes with those of a rescale", self.special().len() + dropped)?;
        }
        self.check_conversion("the special primes", self.special().len())?;
        let raised = if self.bootstrap().is_some() { self.window(Level(0)).len() } else { 0 };
        self.check_conversion("level 0, which bootstrapping raises", raised)
    }

    /// Errors unless [`Self::gadget`] could have made it, but for more special primes than it takes. What keys from a file are held to.
    fn check_gadget(&self, gadget: &Gadget) -> Result<(), ParamsError> {
        let refuse = |reason: String| {
            let (gadget, name) = (gadget.to_string(), self.name().into());
            Err(ParamsError::ForeignGadget { gadget, name, reason })
        };
        let (most, available) = (self.tables().len() - self.special().len(), self.special().len());
        if gadget.end <= gadget.start || usize::from(gadget.end) > most {
            return refuse(format!("its limbs must be some of 0..{most}"));
        }
        if gadget.alpha == 0 {
            return refuse("its digits must have a limb at least".into());
        }
        if !(1..=available).contains(&gadget.special()) {
            return refuse(format!("it must have 1 to {available} special primes"));
        }
        if !self.is_union_of_windows(gadget.range()) {
            return refuse("its limbs must be those of consecutive levels".into());
        }
        let largest = self.largest_digit(gadget);
        self.check_conversion("a digit", largest.limbs)?;
        match self.least_special(&largest, 0.0) {
            Some(least) if least <= gadget.special() => Ok(()),
            _ => refuse(format!(
                "its special primes have {:.1} bits, and the largest digit has {} limbs, {:.1} bits",
                self.special_bits(gadget.special()),
                largest.limbs,
                largest.bits
            )),
        }
    }

    fn is_union_of_windows(&self, range: Range<usize>) -> bool {
        let ends = |l: usize| {
            let limbs = self.window(Level(l)).limbs().iter().map(|l| l.index());
            (limbs.clone().min().unwrap_or(0), limbs.max().map_or(0, |last| last + 1))
        };
        (0..=self.max_level().0).any(|low| {
            let unions = (low..=self.max_level().0).scan((usize::MAX, 0), |union, l| {
                let (start, end) = ends(l);
                *union = (union.0.min(start), union.1.max(end));
                Some(*union)
            });
            unions.into_iter().any(|union| union == (range.start, range.end))
        })
    }

    /// The digit size with the cheapest key switch at the highest of `levels`: least `(digits + 2) * (limbs + special)`
    /// limb transforms.
    ///
    /// # Errors
    /// As [`Self::gadget`] with digits of one limb, where there is no gadget of any size.
    pub fn best_alpha(&self, levels: RangeInclusive<Level>) -> Result<usize, ParamsError> {
        self.best_alpha_with_margin(levels, 0.0)
    }

    fn best_alpha_with_margin(&self, levels: RangeInclusive<Level>, margin: f64) -> Result<usize, ParamsError> {
        let window = self.window(*levels.end());
        let mut best = None;
        for alpha in 1..=self.special().len() {
            let Ok(gadget) = self.gadget_with_margin(levels.clone(), alpha, margin) else { continue };
            let digits = (0..gadget.digits()).filter(|&k| window.limbs().iter().any(|l| gadget.digit(k).contains(&l.index())));
            let cost = (digits.count() + 2) * (window.len() + gadget.special());
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, alpha));
            }
        }
        match best {
            Some((_, alpha)) => Ok(alpha),
            None => self.gadget_with_margin(levels, 1, margin).map(|_| 1),
        }
    }

    /// [`Self::gadget`] with [`Self::best_alpha`].
    ///
    /// # Errors
    /// As [`Self::best_alpha`].
    pub fn best_gadget(&self, levels: RangeInclusive<Level>) -> Result<Gadget, ParamsError> {
        self.gadget(levels.clone(), self.best_alpha(levels)?)
    }

    /// The best gadget whose key switches add less noise than the rounding of a rescale: P exceeds the digits by [`QUIET_BITS`]. A special prime
    /// more, and a rotation that costs some 2 bits of precision less; [`Self::best_gadget`] where there are too few special primes.
    ///
    /// # Errors
    /// As [`Self::best_gadget`].
    pub fn quiet_gadget(&self, levels: RangeInclusive<Level>) -> Result<Gadget, ParamsError> {
        let quiet = self.best_alpha_with_margin(levels.clone(), QUIET_BITS);
        match quiet.and_then(|alpha| self.gadget_with_margin(levels.clone(), alpha, QUIET_BITS)) {
            Err(ParamsError::SpecialTooSmall { .. }) => self.best_gadget(levels),
            gadget => gadget,
        }
    }

    /// All primes of a gadget's keys: its range, then its special primes.
    ///
    /// # Errors
    /// [`ParamsError::ForeignGadget`] unless the gadget is one that this set could have made, [`ParamsError::ConversionLimbs`] for digits of
    /// more than [`MAX_CONVERSION_LIMBS`] limbs.
    pub fn key_basis(&self, gadget: &Gadget) -> Result<Basis, ParamsError> {
        self.check_gadget(gadget)?;
        Ok(Basis::range(gadget.range()).then(&self.gadget_special(gadget)))
    }

    /// The special primes of a gadget.
    pub fn gadget_special(&self, gadget: &Gadget) -> Basis {
        Basis::new(self.special().limbs().iter().copied().take(gadget.special()))
    }

    /// The constants of key switching with a gadget at a level it covers; built once, then shared.
    ///
    /// # Errors
    /// [`ParamsError::NoSuchLevel`] for a level above the top, [`ParamsError::GadgetRange`] for one that the gadget does not cover; of
    /// the gadget, as [`Self::key_basis`].
    pub fn key_switch_tables(&self, gadget: &Gadget, level: Level) -> Result<Arc<KeySwitchTables>, ParamsError> {
        cached(&self.cache.plans, (*gadget, level), || {
            let key = self.key_basis(gadget)?;
            self.check_level(level)?;
            let window = self.window(level).clone();
            if !gadget.covers(&window) {
                let Range { start, end } = gadget.range();
                return Err(ParamsError::GadgetRange { level, start, end });
            }
            let special = self.gadget_special(gadget);
            let extended = window.then(&special);
            let (mut digits, mut key_digits) = (Vec::new(), Vec::new());
            for k in 0..gadget.digits() {
                let range = gadget.digit(k);
                let digit = Basis::new(window.limbs().iter().copied().filter(|l| range.contains(&l.index())));
                if !digit.is_empty() {
                    digits.push(digit);
                    key_digits.push(k);
                }
            }
            let mod_up = digits.iter().map(|d| BaseConversion::new(self.tables(), d, &extended.minus(d), |_| 1)).collect();
            let mod_down = BasisChange::new(self.tables(), &extended, &window);
            let key_limbs = extended.limbs().iter().filter_map(|&l| key.position(l)).collect();
            Ok(KeySwitchTables { window, special, extended, digits, mod_up, mod_down, key_digits, key_limbs })
        })
    }

    /// The constants of rescaling from one level to a lower one.
    ///
    /// # Errors
    /// [`ParamsError::NoSuchLevel`] for a level above the top, [`ParamsError::ConversionLimbs`] for levels with more than
    /// [`MAX_CONVERSION_LIMBS`] primes between them.
    pub fn rescale_change(&self, from: Level, to: Level) -> Result<Arc<BasisChange>, ParamsError> {
        self.check_level(from)?;
        self.check_level(to)?;
        cached(&self.cache.rescale, (from, to), || {
            let (source, target) = (self.window(from), self.window(to));
            self.check_conversion("the primes between two levels", source.minus(target).len())?;
            Ok(BasisChange::new(self.tables(), source, target))
        })
    }

    /// The constants of dividing by P and rescaling in one step.
    ///
    /// # Errors
    /// As [`Self::key_switch_tables`]; [`ParamsError::ConversionLimbs`] where the special primes and those between the levels are more than
    /// [`MAX_CONVERSION_LIMBS`].
    pub fn mod_down_rescale_change(&self, gadget: &Gadget, from: Level, to: Level) -> Result<Arc<BasisChange>, ParamsError> {
        self.check_level(to)?;
        let plan = self.key_switch_tables(gadget, from)?;
        cached(&self.cache.mod_down_rescale, (*gadget, from, to), || {
            let dropped = plan.extended.minus(self.window(to)).len();
            self.check_conversion("the special primes with those between two levels", dropped)?;
            Ok(BasisChange::new(self.tables(), &plan.extended, self.window(to)))
        })
    }

    /// The constants of raising the modulus from level 0 to the top.
    pub(in crate::ckks) fn raise_conversion(&self) -> Result<Arc<BaseConversion>, ParamsError> {
        cached(&self.cache.raise, (), || Ok(raise_conversion(self)))
    }

    /// The constants of multiplying by P into the extended basis (nothing is dropped; special residues become 0).
    ///
    /// # Errors
    /// As [`Self::key_switch_tables`].
    pub fn lift_change(&self, gadget: &Gadget, level: Level) -> Result<Arc<BasisChange>, ParamsError> {
        let plan = self.key_switch_tables(gadget, level)?;
        cached(&self.cache.lift, (*gadget, level), || Ok(BasisChange::new(self.tables(), &plan.window, &plan.extended)))
    }
}

/// The conversion of [`Evaluator::mod_raise`](crate::ckks::Evaluator::mod_raise): from the primes of level 0 to all of the top's, times [`Params::raise_factor`].
fn raise_conversion(params: &Params) -> BaseConversion {
    let (bottom, top) = (Level(0), params.max_level());
    let conversion = BaseConversion::new(params.tables(), params.window(bottom), params.window(top), |_| 1);
    conversion.times(params.tables(), params.raise_factor() as u64)
}
