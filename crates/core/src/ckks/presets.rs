//! The parameter sets that ship, as sizes; primes are found by [`LadderSpec::literal`], never typed.

use super::ladder::{BootstrapSizes, Grid, LADDER_TOLERANCE, LadderSpec};
use super::params::{Params, ParamsError};
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
        tolerance: LADDER_TOLERANCE,
        insecure: false,
        bootstrap: None,
    }
}

/// A set for bootstrapping: `left` levels after it, levels of SlotsToCoeffs and CoeffsToSlots, special primes. All slots of the ring.
///
/// Sizes are found by `cipherlens params search --left LEFT [--level-bits 36] [--log-slots BITS]` and tested to be what that finds for
/// their levels of the transforms; those were chosen among the first few of its list by time measured.
const fn boot(name: &'static str, grid: Grid, log_n: u32, left: usize, transforms: [usize; 2], special: usize) -> LadderSpec {
    boot_sparse(name, grid, log_n, log_n - 1, left, transforms, special)
}

/// As [`boot`], for vectors of `2^log_slots`.
const fn boot_sparse(
    name: &'static str,
    grid: Grid,
    log_n: u32,
    log_slots: u32,
    left: usize,
    transforms: [usize; 2],
    special: usize,
) -> LadderSpec {
    let [slots_to_coeffs, coeffs_to_slots] = transforms;
    LadderSpec::bootstrapping(name, BootstrapSizes { grid, log_n, log_slots, left, slots_to_coeffs, coeffs_to_slots, special })
}

/// Ladders of 36 bits use terminal primes of 24 bits (6 = 30 - 24, so windows repeat every 5 levels), those of 40 bits
/// terminal primes of 25 bits (two in, three main ones out), or at N = 2^16 both somewhat smaller ([`Grid`]), for two bits of security above 128. q0 and the number of levels are chosen so that the top level
/// uses all terminal primes or nearly so: a prime that only lower levels use still counts against the security cap.
const SPECS: [LadderSpec; 18] = [
    spec("n13", 13, 48.0, 30.0, 3, 2),
    spec("n14", 14, 60.0, 36.0, 7, 3),
    LadderSpec { terminal_bits: 25.0, ..spec("n15", 15, 50.0, 40.0, 14, 6) },
    spec("n15-cnn", 15, 48.3, 35.98, 14, 9),
    LadderSpec { terminal_bits: 24.5, main_bits: 29.4, ..spec("n16", 16, 49.0, 39.2, 32, 12) },
    LadderSpec { main_bits: 29.9, ..spec("n16-bench", 16, 119.6, 59.8, 19, 14) },
    LadderSpec { insecure: true, ..spec("insecure-tiny", 5, 48.0, 36.0, 4, 3) },
    LadderSpec { insecure: true, ..spec("insecure-toy", 10, 48.0, 36.0, 8, 4) },
    LadderSpec { insecure: true, terminal_bits: 25.0, ..spec("insecure-small", 11, 50.0, 40.0, 8, 4) },
    LadderSpec { insecure: true, ..spec("insecure-deep", 11, 48.0, 36.0, 14, 7) },
    BOOT,
    BOOT_LEAN,
    BOOT_DEEP,
    BOOT_S12,
    LadderSpec { insecure: true, ..boot("insecure-boot", Grid::Bits40, 11, 4, [3, 4], 6) },
    LadderSpec { insecure: true, ..boot("insecure-boot-deep", Grid::Bits40, 11, 9, [3, 4], 8) },
    LadderSpec { insecure: true, ..boot("insecure-boot-lean", Grid::Bits36, 10, 3, [2, 3], 9) },
    LadderSpec { insecure: true, ..boot_sparse("insecure-boot-sparse", Grid::Bits40, 12, 8, 3, [2, 2], 6) },
];

/// The general set for bootstrapping: 13 levels left at 39 bits.
///
/// N = 2^16, 2^15 slots; log QP 1721.6 (cap 1747; estimated 130 bits): 4 terminal, 43 main, 12 special primes; 4 digits at the top.
///
/// | stage | levels | bits a level |
/// | --- | --- | --- |
/// | level 0 | | 49, scale 2^37 |
/// | SlotsToCoeffs | 1 to 3 | 39.2 |
/// | left for use | 4 to 16 | 39.2 |
/// | EvalMod | 17 to 24 | 58.8 |
/// | CoeffsToSlots | 25 to 28 | 53.9 |
///
/// Measured over values uniform in [-1, 1]: 23.2 bits mean, 21.0 worst. |I| >= 14 in 2^-58 of bootstraps. 80 keys, 4.2 GiB in
/// memory, half in a file.
const BOOT: LadderSpec = boot("n16-boot", Grid::Bits40, 16, 13, [3, 4], 12);

/// The fast set for bootstrapping: 8 levels left at 36 bits, eleven limbs fewer than [`BOOT`] and half its digits.
///
/// N = 2^16, 2^15 slots; log QP 1618.9 (estimated 139 bits); 2 digits of 18 primes at the top, 36 limbs.
///
/// | stage | levels | bits a level |
/// | --- | --- | --- |
/// | level 0 | | 48.2, scale 2^36.2 |
/// | SlotsToCoeffs | 1 to 2 | 35.9 |
/// | left for use | 3 to 10 | 35.9 |
/// | EvalMod | 11 to 18 | 54.0 |
/// | CoeffsToSlots | 19 to 22 | 54.0 |
///
/// Measured: 21.9 bits mean, 17.9 worst (the noise of 36-bit levels). Failure as [`BOOT`]. 103 keys, 2.0 GiB.
const BOOT_LEAN: LadderSpec = boot("n16-boot-lean", Grid::Bits36, 16, 8, [2, 4], 18);

/// The set for deep steps between bootstraps: 16 levels left at 39 bits, for which P is smaller and there are more digits.
///
/// N = 2^16, 2^15 slots; log QP 1719.3 (estimated 130 bits); 7 digits of 8 primes at the top, 51 limbs. Stages as [`BOOT`], with
/// levels 4 to 19 for use, EvalMod 20 to 27, CoeffsToSlots 28 to 31. Precision and failure as [`BOOT`]. 80 keys, 6.8 GiB.
const BOOT_DEEP: LadderSpec = boot("n16-boot-deep", Grid::Bits40, 16, 16, [3, 4], 8);

/// [`BOOT`] for vectors of 4,096 numbers (or fewer), which repeat: shorter transforms, 13 levels left.
///
/// N = 2^16, up to 2^12 slots; log QP 1718.3 (estimated 130 bits); 3 digits of 15 primes at the top, 44 limbs. SlotsToCoeffs 1 to 2, for use
/// 3 to 15, EvalMod 16 to 23, CoeffsToSlots 24 to 26. Precision and failure as [`BOOT`]. 66 keys, 2.8 GiB.
const BOOT_S12: LadderSpec = boot_sparse("n16-boot-s12", Grid::Bits40, 16, 12, 13, [2, 3], 15);

/// The sizes of every preset.
pub fn all() -> &'static [LadderSpec] {
    &SPECS
}

/// The parameter set of a preset. Cost: its tables ([`Params::new`]).
///
/// # Errors
/// [`ParamsError::NoSuchPreset`] for any other name.
pub fn by_name(name: &str) -> Result<Arc<Params>, ParamsError> {
    let spec = SPECS.iter().find(|s| s.name == name).ok_or_else(|| ParamsError::NoSuchPreset {
        asked: name.into(),
        have: SPECS.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
    })?;
    Params::new(spec.literal()?)
}
