//! Parameter sets: which primes exist, which of them each level uses, and the exact scale of each level.
//!
//! A level is a window of one global prime order, terminal primes reversed, then main primes, then special primes:
//!
//! ```text
//! T_{t-1} ... T_1 T_0 | Q_0 Q_1 ... Q_{m-1} | P_0 P_1 ...
//!         [-- level l: t_l terminal, m_l main --]
//! ```
//!
//! Rescaling from a level to the one below divides by `r = prod(primes that leave) / prod(primes that enter)`. Level 0
//! has the base scale and `scale(l) = sqrt(scale(l - 1) r_l)`, so the product of two values at level l, rescaled, has
//! exactly the scale of level l - 1, and a plaintext factor for a value at level l is encoded at `scale(l)` too. Above the
//! levels that a user computes on, a set may have levels for bootstrapping with scale rules of their own ([`Bootstrap`]).

mod bootstrap;
mod gadgets;
mod security;

pub use bootstrap::Bootstrap;
pub use security::{QUANTUM_CAPS_128, SECURITY_CAPS_128, SECURITY_ESTIMATES, SPARSE_CAPS_128, SPARSE_WEIGHT, STANDARD_SIGMA};

use crate::math::{Basis, LimbId, MathError, RnsTables, galois};
use gadgets::GadgetCache;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A step of the ladder. Level 0 can hold a result but no further product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Level(pub usize);

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "level {}", self.0)
    }
}

impl Level {
    /// The level `n` steps below, if there is one.
    pub fn below(self, n: usize) -> Option<Level> {
        self.0.checked_sub(n).map(Level)
    }
}

/// The factor between a number and the integer that stands for it (the factor itself, not its logarithm).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Scale(pub f64);

impl Scale {
    /// `2^bits`.
    pub fn from_log2(bits: f64) -> Self {
        Scale(bits.exp2())
    }
    /// log2 of the factor.
    pub fn log2(self) -> f64 {
        self.0.log2()
    }
    /// Whether two scales differ by at most `relative` of the larger.
    pub fn agrees(self, other: Scale, relative: f64) -> bool {
        (self.0 - other.0).abs() <= relative * self.0.abs().max(other.0.abs())
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "2^{:.6}", self.log2())
    }
}

/// How many primes a level's window holds on each side of the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rung {
    /// Terminal primes `T_0 ..`.
    pub terminal: usize,
    /// Main primes `Q_0 ..`.
    pub main: usize,
}

/// A parameter set as written down, not yet checked. [`Params::new`] checks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParamsLiteral {
    /// Name; starts with `insecure-` exactly when `insecure` is set.
    pub name: String,
    /// log2 of the ring degree N.
    pub log_n: u32,
    /// Terminal primes `T_0, T_1, ...`, each in `(2^24, 2^30)` and `= 1 mod 2N` like all others.
    pub terminal: Vec<u32>,
    /// Main primes `Q_0, Q_1, ...`.
    pub main: Vec<u32>,
    /// Special primes `P_0, P_1, ...` of key switching.
    pub special: Vec<u32>,
    /// The window of each level, level 0 first.
    pub ladder: Vec<Rung>,
    /// Scale of level 0 (the factor).
    pub base_scale: f64,
    /// Standard deviation of the error distribution.
    pub sigma: f64,
    /// Whether the set is for tests only and makes no security claim.
    pub insecure: bool,
    /// What the top of the ladder is for, if it is for bootstrapping.
    pub bootstrap: Option<Bootstrap>,
}

impl ParamsLiteral {
    /// log2 of the product of all primes.
    pub fn log_qp(&self) -> f64 {
        self.terminal.iter().chain(&self.main).chain(&self.special).map(|&q| f64::from(q).log2()).sum()
    }
}

/// Prefix of the names of sets without a security claim.
pub const INSECURE_PREFIX: &str = "insecure-";

/// Primes must exceed this: base conversion's fixed point needs it.
pub const PRIME_FLOOR: u32 = 1 << 24;

/// The most primes a set may have (a set from a file must not make tables without end).
pub const MAX_PRIMES: usize = 256;

/// What can be wrong with a parameter set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// Tables cannot be built.
    #[error(transparent)]
    Math(#[from] MathError),
    /// More modulus bits than the ring degree supports at 128 bits of classical security.
    #[error("parameter set `{name}`: log2(QP) = {log_qp:.1} exceeds {cap:.0}, the cap for 128 bits (classical) at N = 2^{log_n}")]
    Insecure {
        /// Name of the set.
        name: String,
        /// log2 of the degree.
        log_n: u32,
        /// log2 of the product of all primes.
        log_qp: f64,
        /// The most allowed; 0 where the table has no row.
        cap: f64,
    },
    /// A literal that does not describe a ladder.
    #[error("parameter set `{name}`: {what}: expected {expected}, found {found}")]
    Literal {
        /// Name of the set.
        name: String,
        /// The field.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A level above the top of the ladder.
    #[error("there is no {level}: the ladder of `{name}` ends at level {max}")]
    NoSuchLevel {
        /// Name of the set.
        name: String,
        /// The level asked for.
        level: Level,
        /// The highest.
        max: usize,
    },
    /// No ladder with these sizes comes close enough to the target at some level.
    #[error(
        "no window of 2^{terminal_bits:.1} and 2^{main_bits:.1} primes is within {tolerance} bits of 2^{target:.1} at {level}"
    )]
    NoLadder {
        /// The first level without a window.
        level: Level,
        /// log2 of the product wanted.
        target: f64,
        /// log2 of terminal primes.
        terminal_bits: f64,
        /// log2 of main primes.
        main_bits: f64,
        /// The largest deviation allowed, in bits.
        tolerance: f64,
    },
    /// Special primes too small for the digits asked for.
    #[error(
        "digits of {alpha} primes reach {digit_bits:.1} bits but all {special} special primes have {special_bits:.1}; use smaller digits"
    )]
    SpecialTooSmall {
        /// Primes a digit.
        alpha: usize,
        /// log2 of the largest digit.
        digit_bits: f64,
        /// Special primes there are.
        special: usize,
        /// log2 of their product.
        special_bits: f64,
    },
    /// A level that a gadget does not cover.
    #[error("a gadget over limbs {start}..{end} does not cover the window of {level}")]
    GadgetRange {
        /// The level asked for.
        level: Level,
        /// First limb of the gadget.
        start: usize,
        /// End of the gadget's limbs.
        end: usize,
    },
    /// A gadget made for another parameter set.
    #[error("gadget {gadget} does not belong to parameter set `{name}`: {reason}; make the key again for this set")]
    ForeignGadget {
        /// The gadget, printed.
        gadget: String,
        /// Name of the set.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A Galois element that no automorphism of the ring has.
    #[error("there is no automorphism {element} in a ring of degree {degree}: elements are odd and below {}", 2 * .degree)]
    GaloisElement {
        /// The element.
        element: u32,
        /// The ring degree N.
        degree: usize,
    },
    /// A base conversion from more primes than its quotient has room for.
    #[error(
        "parameter set `{name}`: a base conversion would read {limbs} primes ({what}), and {} are the most; use fewer special primes, \
         smaller digits, or smaller steps between levels",
        super::gadget::MAX_CONVERSION_LIMBS
    )]
    ConversionLimbs {
        /// Name of the set.
        name: String,
        /// Which primes.
        what: &'static str,
        /// How many.
        limbs: usize,
    },
    /// Bootstrapping on a set without levels for it.
    #[error("parameter set `{name}` has no levels for bootstrapping; use a preset with `boot` in its name")]
    NoBootstrap {
        /// Name of the set.
        name: String,
    },
    /// A key to the sparse secret with more modulus bits than its weight supports.
    #[error(
        "parameter set `{name}`: a key to the sparse secret (weight {weight}) has a modulus of 2^{log_q:.1}, over the cap of 2^{cap:.0}"
    )]
    SparseModulus {
        /// Name of the set.
        name: String,
        /// log2 of the key's modulus.
        log_q: f64,
        /// The most allowed; 0 where no table row applies.
        cap: f64,
        /// Nonzero coefficients of the secret.
        weight: usize,
    },
    /// A name that no preset has.
    #[error("there is no preset `{asked}`; presets are {have}")]
    NoSuchPreset {
        /// The name asked for.
        asked: String,
        /// The names there are.
        have: String,
    },
}

/// A checked parameter set with its tables. Immutable; share it in an [`Arc`].
pub struct Params {
    literal: ParamsLiteral,
    tables: Arc<RnsTables>,
    windows: Vec<Basis>,
    scales: Vec<Scale>,
    special: Basis,
    log_qp: f64,
    fingerprint: [u8; 32],
    cache: GadgetCache,
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Params").field("name", &self.name()).field("log_n", &self.log_n()).finish_non_exhaustive()
    }
}

impl Params {
    /// Checks a literal and builds its tables. Cost: the tables, about 5 ms a prime at N = 2^16.
    ///
    /// # Errors
    /// [`ParamsError::Literal`] for a literal that contradicts itself, [`ParamsError::Insecure`] as [`ParamsLiteral::check_security`],
    /// [`ParamsError::Math`] as [`RnsTables::new`], [`ParamsError::ConversionLimbs`] where a division or the raising of level 0 would
    /// read too many primes; for a set with levels for bootstrapping, as [`Self::encapsulation_requests`].
    pub fn new(literal: ParamsLiteral) -> Result<Arc<Self>, ParamsError> {
        check_literal(&literal)?;
        literal.check_security()?;
        let log_qp = literal.log_qp();
        let t = literal.terminal.len();
        let primes: Vec<u32> = literal.terminal.iter().rev().chain(&literal.main).chain(&literal.special).copied().collect();
        let tables = Arc::new(RnsTables::new(literal.log_n, &primes)?);
        let windows: Vec<Basis> = literal.ladder.iter().map(|rung| Basis::range(t - rung.terminal..t + rung.main)).collect();
        let divisors: Vec<f64> = windows.windows(2).map(|pair| ratio(&tables, &pair[1], &pair[0])).collect();
        let q0 = windows[0].limbs().iter().fold(1.0, |acc, &l| acc * f64::from(tables.modulus(l).value()));
        let scales = bootstrap::scales(literal.bootstrap.as_ref(), literal.base_scale, q0, &divisors);
        let special = Basis::range(t + literal.main.len()..primes.len());
        let fingerprint = fingerprint(&literal);
        let params = Self { literal, tables, windows, scales, special, log_qp, fingerprint, cache: GadgetCache::default() };
        for level in (0..params.scales.len()).map(Level) {
            let (scale, log_q) = (params.scale(level), params.log_q(level));
            if !(scale.0 >= 2.0 && scale.log2() < log_q) {
                let (name, expected) = (params.name().into(), format!("a scale from 2 to 2^{log_q:.1} at {level}"));
                return Err(ParamsError::Literal { name, what: "scale", expected, found: scale.to_string() });
            }
        }
        params.check_conversions()?;
        if params.bootstrap().is_some() {
            // The key to the sparse secret must be possible.
            params.encapsulation_requests()?;
        }
        Ok(Arc::new(params))
    }

    /// The literal this set was made from.
    pub fn literal(&self) -> &ParamsLiteral {
        &self.literal
    }
    /// Name.
    pub fn name(&self) -> &str {
        &self.literal.name
    }
    /// Whether the set is for tests only.
    pub fn is_insecure(&self) -> bool {
        self.literal.insecure
    }
    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.literal.log_n
    }
    /// The ring degree N.
    pub fn degree(&self) -> usize {
        1 << self.literal.log_n
    }
    /// Slots of a ciphertext: N / 2.
    pub fn slots(&self) -> usize {
        self.degree() / 2
    }
    /// Standard deviation of the error distribution.
    pub fn sigma(&self) -> f64 {
        self.literal.sigma
    }
    /// The highest level.
    pub fn max_level(&self) -> Level {
        Level(self.windows.len() - 1)
    }
    /// All primes in the global order, with their tables.
    pub fn tables(&self) -> &Arc<RnsTables> {
        &self.tables
    }
    /// log2 of the product of all primes, special ones included: what security depends on.
    pub fn log_qp(&self) -> f64 {
        self.log_qp
    }
    /// Hash of everything that makes two sets incompatible (the name is not part of it).
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
    /// All special primes.
    pub fn special(&self) -> &Basis {
        &self.special
    }

    /// The primes of a level. Levels above the top are an error of the caller and give the top; check with
    /// [`Self::check_level`] where a level comes from outside.
    pub fn window(&self, level: Level) -> &Basis {
        &self.windows[level.0.min(self.windows.len() - 1)]
    }
    /// The canonical scale of a level; levels above the top as in [`Self::window`].
    pub fn scale(&self, level: Level) -> Scale {
        self.scales[level.0.min(self.scales.len() - 1)]
    }
    /// Errors unless the level is on the ladder.
    ///
    /// # Errors
    /// [`ParamsError::NoSuchLevel`] for a level above the top.
    pub fn check_level(&self, level: Level) -> Result<(), ParamsError> {
        if level > self.max_level() {
            return Err(ParamsError::NoSuchLevel { name: self.name().into(), level, max: self.max_level().0 });
        }
        Ok(())
    }
    /// log2 of the modulus of a level.
    pub fn log_q(&self, level: Level) -> f64 {
        self.tables.log2(self.window(level))
    }
    /// The largest magnitude that a number can have at a level, with its scale: beyond half the modulus it wraps round and is another.
    pub fn capacity(&self, level: Level) -> f64 {
        (self.log_q(level) - self.scale(level).log2() - 1.0).exp2()
    }
    /// The Galois element of the rotation by `k` (slot i of the result is slot i + k of the input): `5^k mod 2N`.
    pub fn galois_element(&self, k: i64) -> u32 {
        galois::rotation(k, self.degree())
    }
    /// The Galois element of complex conjugation: `2N - 1`.
    pub fn conjugation_element(&self) -> u32 {
        galois::conjugation(self.degree())
    }
    /// What going from one level to another divides by: `prod(leaving primes) / prod(entering primes)`.
    pub fn divisor(&self, from: Level, to: Level) -> f64 {
        ratio(&self.tables, self.window(from), self.window(to))
    }
}

/// `prod(from \ to) / prod(to \ from)`, multiplied in an order that stays within the range of f64.
fn ratio(tables: &RnsTables, from: &Basis, to: &Basis) -> f64 {
    let (leaving, entering) = (from.minus(to), to.minus(from));
    let value = |l: &LimbId| f64::from(tables.modulus(*l).value());
    let mut entering = entering.limbs().iter().map(value);
    let mut product = 1.0;
    for q in leaving.limbs().iter().map(value) {
        product *= q;
        if product > 1e100
            && let Some(e) = entering.next()
        {
            product /= e;
        }
    }
    entering.fold(product, |acc, e| acc / e)
}

fn check_literal(literal: &ParamsLiteral) -> Result<(), ParamsError> {
    let fail =
        |what, expected: String, found: String| Err(ParamsError::Literal { name: literal.name.clone(), what, expected, found });
    if literal.name.starts_with(INSECURE_PREFIX) != literal.insecure {
        return fail(
            "name",
            format!("prefix `{INSECURE_PREFIX}` exactly on insecure sets"),
            format!("insecure = {}", literal.insecure),
        );
    }
    for &q in literal.terminal.iter().chain(&literal.main).chain(&literal.special) {
        if q <= PRIME_FLOOR {
            return fail("primes", format!("above {PRIME_FLOOR}"), q.to_string());
        }
    }
    if literal.main.is_empty() || literal.special.is_empty() || literal.ladder.is_empty() {
        return fail(
            "sizes",
            "at least one main prime, one special prime and one level".into(),
            format!("{} main, {} special, {} levels", literal.main.len(), literal.special.len(), literal.ladder.len()),
        );
    }
    let primes = literal.terminal.len() + literal.main.len() + literal.special.len();
    if primes > MAX_PRIMES {
        return fail("primes", format!("at most {MAX_PRIMES}"), primes.to_string());
    }
    if literal.ladder.len() > usize::from(u8::MAX) {
        return fail("ladder", "at most 255 levels".into(), literal.ladder.len().to_string());
    }
    for rung in &literal.ladder {
        if (rung.main == 0 && rung.terminal == 0) || rung.main > literal.main.len() || rung.terminal > literal.terminal.len() {
            return fail(
                "ladder",
                format!("at least one prime, at most {} main and {} terminal", literal.main.len(), literal.terminal.len()),
                format!("{} main, {} terminal", rung.main, rung.terminal),
            );
        }
    }
    let log2_of = |rung: &Rung| {
        let of = |primes: &[u32], n: usize| primes[..n].iter().map(|&q| f64::from(q).log2()).sum::<f64>();
        of(&literal.terminal, rung.terminal) + of(&literal.main, rung.main)
    };
    for (l, pair) in literal.ladder.windows(2).enumerate() {
        if log2_of(&pair[1]) <= log2_of(&pair[0]) {
            return fail("ladder", "a modulus that grows with the level".into(), format!("level {} not above level {l}", l + 1));
        }
    }
    if !(literal.base_scale.is_finite() && literal.base_scale >= 2.0 && literal.base_scale.log2() < log2_of(&literal.ladder[0])) {
        return fail(
            "base_scale",
            format!("at least 2 and below the modulus of level 0, 2^{:.1}", log2_of(&literal.ladder[0])),
            format!("{}", literal.base_scale),
        );
    }
    if !(literal.sigma > 0.5 && literal.sigma <= 16.0) || (!literal.insecure && literal.sigma < STANDARD_SIGMA) {
        return fail("sigma", format!("{STANDARD_SIGMA} (up to 16)"), format!("{}", literal.sigma));
    }
    if let Some(bootstrap) = &literal.bootstrap {
        bootstrap.check(literal).or_else(|(expected, found)| fail("bootstrap", expected, found))?;
    }
    Ok(())
}

fn fingerprint(literal: &ParamsLiteral) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlens parameter set fingerprint, version 1");
    let mut word = |w: u64| {
        hasher.update(&w.to_le_bytes());
    };
    word(literal.log_n.into());
    for primes in [&literal.terminal, &literal.main, &literal.special] {
        word(primes.len() as u64);
        primes.iter().for_each(|&q| word(q.into()));
    }
    word(literal.ladder.len() as u64);
    for rung in &literal.ladder {
        word(rung.terminal as u64);
        word(rung.main as u64);
    }
    word(literal.base_scale.to_bits());
    word(literal.sigma.to_bits());
    word(literal.insecure.into());
    if let Some(bootstrap) = &literal.bootstrap {
        bootstrap.words().into_iter().for_each(word);
    }
    *hasher.finalize().as_bytes()
}
