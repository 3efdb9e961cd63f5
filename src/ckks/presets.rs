//! The parameter sets that ship, as sizes; primes are found by [`LadderSpec::literal`], never typed.

use super::ladder::{BootstrapSpec, LadderSpec};
use super::params::{Bootstrap, Params, ParamsError};
use std::sync::Arc;

const fn spec(name: &'static str, log_n: u32, q0_bits: f64, scale_bits: f64, levels: usize, special: usize) -> LadderSpec {
    LadderSpec {
        name,
        log_n,
        q0_bits,
        scale_bits,
        levels,
        terminal_bits: 24.0,
        max_terminal: 5,
        main_bits: 30.0,
        special,
        insecure: false,
        bootstrap: None,
    }
}

/// A set for bootstrapping with `left` levels after it, `stc` and `cts` levels for the linear transforms and the parameters of
/// FACTS of EvalMod: |I| < 14, degree 31, 3 double angles, q0 = 2^12 times the scale.
///
/// All sizes are sums of terminal primes of 25 bits and main primes of nearly 30: q0 is two terminal primes, a level of 40 bits
/// is 4/3 of a main prime, one of EvalMod two main primes, one of CoeffsToSlots a terminal and a main one.
const fn boot(name: &'static str, log_n: u32, left: usize, stc: usize, cts: usize, special: usize) -> LadderSpec {
    const MAIN: f64 = 29.93;
    LadderSpec {
        terminal_bits: 25.0,
        main_bits: MAIN,
        bootstrap: Some(BootstrapSpec {
            circuit: Bootstrap {
                slots_to_coeffs: stc,
                eval_mod: 8,
                coeffs_to_slots: cts,
                k: 14,
                degree: 31,
                double_angles: 3,
                weight: 32,
                log_slots: log_n - 1,
            },
            ratio_bits: 12.0,
            eval_mod_bits: 2.0 * MAIN,
            coeffs_to_slots_bits: 25.0 + MAIN,
        }),
        ..spec(name, log_n, 50.0, 4.0 / 3.0 * MAIN, left + stc, special)
    }
}

/// Ladders of 36 bits use terminal primes of 24 bits (6 = 30 - 24, so windows repeat every 5 levels), those of 40 bits
/// terminal primes of 25 bits (two in, three main ones out). q0 and the number of levels are chosen so that the top level
/// uses all terminal primes or nearly so: a prime that only lower levels use still counts against the security cap.
const SPECS: [LadderSpec; 12] = [
    spec("n13", 13, 48.0, 30.0, 3, 2),
    spec("n14", 14, 60.0, 36.0, 7, 3),
    LadderSpec { terminal_bits: 25.0, ..spec("n15", 15, 50.0, 40.0, 14, 6) },
    spec("n15-cnn", 15, 48.3, 35.98, 14, 9),
    LadderSpec { terminal_bits: 25.0, main_bits: 29.93, ..spec("n16", 16, 50.0, 39.907, 32, 12) },
    LadderSpec { main_bits: 29.9, ..spec("n16-bench", 16, 119.6, 59.8, 19, 14) },
    LadderSpec { insecure: true, ..spec("insecure-tiny", 5, 48.0, 36.0, 4, 3) },
    LadderSpec { insecure: true, ..spec("insecure-toy", 10, 48.0, 36.0, 8, 4) },
    LadderSpec { insecure: true, terminal_bits: 25.0, ..spec("insecure-small", 11, 50.0, 40.0, 8, 4) },
    LadderSpec { insecure: true, ..spec("insecure-deep", 11, 48.0, 36.0, 14, 7) },
    LadderSpec { insecure: true, ..boot("insecure-boot", 11, 4, 3, 4, 6) },
    boot("n16-boot", 16, 13, 3, 4, 12),
];

/// The sizes of every preset.
pub fn all() -> &'static [LadderSpec] {
    &SPECS
}

/// The parameter set of a preset. Cost: its tables ([`Params::new`]).
pub fn by_name(name: &str) -> Result<Arc<Params>, ParamsError> {
    let spec = SPECS.iter().find(|s| s.name == name).ok_or_else(|| ParamsError::NoSuchPreset {
        asked: name.into(),
        have: SPECS.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
    })?;
    Params::new(spec.literal()?)
}
