//! Parameter sets: security, ladders, gadgets.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::ckks::gadget::MAX_CONVERSION_LIMBS;
use cipherlens::ckks::ladder::LadderSpec;
use cipherlens::ckks::params::{PRIME_FLOOR, QUANTUM_CAPS_128, SECURITY_CAPS_128, SECURITY_ESTIMATES};
use cipherlens::ckks::{Level, Params, ParamsError, Scale, presets};
use cipherlens::math::primes::closest_primes;

#[test]
fn presets_are_secure_and_their_ladders_are_close_to_nominal() {
    for spec in presets::all() {
        let literal = spec.literal().unwrap();
        assert_eq!(literal, spec.literal().unwrap(), "deterministic");
        let primes: Vec<u32> = [&literal.terminal[..], &literal.main, &literal.special].concat();
        assert!(primes.iter().all(|&q| q > PRIME_FLOOR && q < 1 << 30 && q % (2 << spec.log_n) == 1), "{}", spec.name);
        let log_qp: f64 = primes.iter().map(|&q| f64::from(q).log2()).sum();
        if !spec.insecure {
            let cap = SECURITY_CAPS_128.iter().find(|r| r.0 == spec.log_n).unwrap().1;
            assert!(log_qp <= cap, "{}: {log_qp} > {cap}", spec.name);
        }
        // Tables are a matter of seconds for the largest sets in all; levels and scales are what is tested.
        let params = Params::new(literal).unwrap();
        assert!((params.log_qp() - log_qp).abs() < 1e-9);
        assert_eq!(params.max_level(), Level(spec.all_levels()));
        assert_eq!(params.working_level(), Level(spec.levels));
        assert_eq!(params.security_bits_claim(), if spec.insecure { 0 } else { 128 });
        for l in 0..=spec.all_levels() {
            let level = Level(l);
            assert!((params.log_q(level) - spec.target_bits(level)).abs() < spec.tolerance + 1e-6, "{} {level}", spec.name);
            if l > 0 {
                let below = Level(l - 1);
                let r = params.divisor(level, below);
                assert!((r.log2() - (params.log_q(level) - params.log_q(below))).abs() < 1e-6);
                let relative = |got: f64, want: Scale| (got / want.0 - 1.0).abs();
                let scale = params.scale(level).0;
                assert!(relative(scale * (scale / r), params.landing(level)) < 1e-12, "{} {level}", spec.name);
                assert!(
                    relative(scale * (params.plain_scale(level).0 / r), params.scale(below)) < 1e-12,
                    "{} {level}",
                    spec.name
                );
                let inside = spec
                    .bootstrap
                    .is_none_or(|b| l <= spec.levels || (l > spec.levels + 1 && l <= spec.levels + b.circuit.eval_mod));
                if inside {
                    assert_eq!((params.landing(level), params.plain_scale(level)), (params.scale(below), params.scale(level)));
                }
            }
            let gadget = params.best_gadget(Level(0)..=level).unwrap();
            assert!(gadget.covers(params.window(level)) && gadget.covers(params.window(Level(0))));
        }
        scales_are_close_to_nominal(&params, spec);
    }
}

#[test]
fn what_is_said_of_security_is_of_two_kinds_of_attackers() {
    let sets: Vec<_> = presets::all().iter().map(|spec| presets::by_name(spec.name).unwrap()).collect();
    let quantum: Vec<_> = sets.iter().filter(|p| p.meets_quantum_128()).map(|p| p.name()).collect();
    assert_eq!(quantum, ["n13", "n16-boot-lean"]);
    for params in &sets {
        let (classical, quantum) = (params.estimated_security(), params.estimated_quantum_security());
        if params.is_insecure() {
            assert_eq!((classical, quantum), (None, None));
            continue;
        }
        let (Some(classical), Some(quantum)) = (classical, quantum) else { panic!("{}: no estimate", params.name()) };
        // The cap is for 128 bits. Where one bit more of modulus costs no level, there are two bits of security to spare.
        let least = if params.log_n() == 16 { 130.0 } else { 128.0 };
        assert!(classical >= least && quantum < classical, "{}: {classical:.1}, {quantum:.1}", params.name());
        assert_eq!(params.meets_quantum_128(), quantum >= 128.0, "{}: {quantum:.1}", params.name());
    }
    for ((n, classical), (same, quantum)) in SECURITY_CAPS_128.iter().zip(QUANTUM_CAPS_128) {
        assert!(*n == same && quantum < *classical);
    }
    for pair in SECURITY_ESTIMATES.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!((a.0, a.1) < (b.0, b.1), "in ascending order");
        assert!(a.0 != b.0 || (a.2 > b.2 && a.3 > b.3), "more modulus, less security");
    }
}

/// A level of the base is at the nominal scale, or on the way there from that of level 0 (each level halves the distance).
fn scales_are_close_to_nominal(params: &Params, spec: &LadderSpec) {
    let off = |l: usize| params.scale(Level(l)).log2() - spec.scale_bits;
    let first = off(0).abs();
    for l in 0..=spec.levels {
        assert!(
            off(l).abs() < spec.tolerance + first * 0.5f64.powi(l as i32),
            "{} level {l}: {}",
            spec.name,
            params.scale(Level(l))
        );
    }
    let Some(b) = &spec.bootstrap else { return assert!(first < 1e-9) };
    let circuit = b.circuit;
    assert_eq!(params.bootstrap(), Some(&circuit));
    assert!((params.message_ratio().log2() - b.ratio_bits).abs() < 1e-9);
    // sin(2 pi t) ~ 2 pi m / ratio at the landing scale is m at the scale of the level.
    let output = params.output_level().unwrap();
    let landing = params.landing(Level(output.0 + 1)).0;
    assert!((landing * std::f64::consts::TAU / params.message_ratio() / params.scale(output).0 - 1.0).abs() < 1e-12);
    let eval_mod = params.eval_mod_level().unwrap();
    assert_eq!(eval_mod.0, output.0 + circuit.eval_mod);
    for l in output.0 + 1..=eval_mod.0 {
        let scale = params.scale(Level(l)).log2();
        assert!(scale > b.eval_mod_bits - 7.0 && scale < b.eval_mod_bits + 1.0, "{} level {l}: {scale}", spec.name);
    }
    // The top is q0 times an integer, as near the scale of EvalMod as an integer gets.
    let (top, q0) = (params.scale(params.max_level()).0, params.message_ratio() * params.scale(Level(0)).0);
    assert_eq!(params.raise_factor(), top / q0);
    assert!((top - params.scale(eval_mod).0).abs() <= 0.5 * q0);
    for l in eval_mod.0 + 1..=params.max_level().0 {
        assert!((params.plain_scale(Level(l)).log2() - b.coeffs_to_slots_bits).abs() < 2.0 * spec.tolerance);
    }
}

#[test]
fn gadgets_cut_windows_into_digits() {
    let params = presets::by_name("insecure-toy").unwrap();
    let top = params.max_level();
    for alpha in 1..=params.special().len() {
        let gadget = match params.gadget(Level(0)..=top, alpha) {
            Ok(gadget) => gadget,
            Err(e) => {
                assert!(matches!(e, ParamsError::SpecialTooSmall { .. }), "{e}");
                continue;
            }
        };
        let log2 = |r: std::ops::Range<usize>| params.tables().log2(&cipherlens::math::Basis::range(r));
        let p = params.tables().log2(&params.gadget_special(&gadget));
        for k in 0..gadget.digits() {
            assert!(log2(gadget.digit(k)) <= p, "P >= digit {k}");
        }
        for level in 0..=top.0 {
            let plan = params.key_switch_tables(&gadget, Level(level)).unwrap();
            let mut limbs: Vec<_> = plan.digits.iter().flat_map(|d| d.limbs().to_vec()).collect();
            limbs.sort();
            assert_eq!(limbs, plan.window.limbs());
            let key = params.key_basis(&gadget).unwrap();
            for (l, &at) in plan.extended.limbs().iter().zip(&plan.key_limbs) {
                assert_eq!(key.limbs()[at], *l);
            }
            for (digit, &k) in plan.digits.iter().zip(&plan.key_digits) {
                assert!(digit.limbs().iter().all(|l| gadget.digit(k).contains(&l.index())));
            }
        }
    }
    let low = Level(1);
    let (best, quiet) = (params.best_gadget(low..=low).unwrap(), params.quiet_gadget(low..=low).unwrap());
    let log2 = |r: std::ops::Range<usize>| params.tables().log2(&cipherlens::math::Basis::range(r));
    let p = params.tables().log2(&params.gadget_special(&quiet));
    assert!((0..quiet.digits()).all(|k| log2(quiet.digit(k)) + 5.0 <= p), "{quiet}");
    assert!(quiet.covers(params.window(low)) && quiet.special() <= best.special() + 1);
    let one = params.gadget(Level(1)..=Level(1), 2).unwrap();
    assert!(matches!(params.key_switch_tables(&one, top), Err(ParamsError::GadgetRange { .. })));
    assert!(matches!(params.gadget(Level(0)..=Level(99), 1), Err(ParamsError::NoSuchLevel { .. })));
}

#[test]
fn bad_literals_are_refused_with_the_reason() {
    let good = presets::all().iter().find(|s| s.name == "insecure-toy").unwrap().literal().unwrap();
    let with = |change: &dyn Fn(&mut cipherlens::ckks::ParamsLiteral)| {
        let mut literal = good.clone();
        change(&mut literal);
        Params::new(literal).map(|_| ())
    };
    assert!(with(&|_| ()).is_ok());
    assert!(matches!(with(&|l| l.insecure = false), Err(ParamsError::Literal { what: "name", .. })));
    let secure = with(&|l| (l.insecure, l.name) = (false, "x".into()));
    assert!(matches!(secure, Err(ParamsError::Insecure { log_n: 10, .. })), "{secure:?}");
    assert!(matches!(with(&|l| l.special.clear()), Err(ParamsError::Literal { what: "sizes", .. })));
    assert!(matches!(with(&|l| l.ladder.swap(0, 1)), Err(ParamsError::Literal { what: "ladder", .. })));
    assert!(matches!(with(&|l| l.ladder[0].main = 99), Err(ParamsError::Literal { what: "ladder", .. })));
    assert!(matches!(with(&|l| l.base_scale = f64::NAN), Err(ParamsError::Literal { what: "base_scale", .. })));
    assert!(matches!(with(&|l| l.sigma = 0.0), Err(ParamsError::Literal { what: "sigma", .. })));
    assert!(matches!(with(&|l| l.main[0] = 12289), Err(ParamsError::Literal { what: "primes", .. })));
    assert!(matches!(with(&|l| l.main[0] = l.main[1]), Err(ParamsError::Math(_))));
    let many = with(&|l| l.main = vec![l.main[0]; 1000]);
    assert!(matches!(many, Err(ParamsError::Literal { what: "primes", .. })), "{many:?}");
    for log_n in [0, 3, 18, 64, u32::MAX] {
        assert!(matches!(with(&|l| l.log_n = log_n), Err(ParamsError::Math(_))), "{log_n}");
    }
    let e = presets::by_name("n12").unwrap_err();
    assert!(e.to_string().contains("n15-cnn"), "{e}");
    let spec = LadderSpec { scale_bits: 7.0, ..presets::all()[0].clone() };
    assert!(matches!(spec.literal(), Err(ParamsError::NoLadder { .. })));
}

/// The quotient of a base conversion is a sum of 32 bits: 64 terms would wrap.
#[test]
fn sets_whose_conversions_would_wrap_are_refused() {
    let good = presets::all().iter().find(|s| s.name == "insecure-toy").unwrap().literal().unwrap();
    let params = Params::new(good.clone()).unwrap();
    let level = |l: usize| params.window(Level(l));
    let dropped = (1..=params.max_level().0).map(|l| level(l).minus(level(l - 1)).len()).max().unwrap();
    let taken: Vec<u32> = [&good.terminal[..], &good.main].concat();
    let special = closest_primes(29.5, MAX_CONVERSION_LIMBS, 11, &taken).unwrap();
    let with = |count: usize| Params::new(cipherlens::ckks::ParamsLiteral { special: special[..count].to_vec(), ..good.clone() });
    let most = MAX_CONVERSION_LIMBS - dropped;
    let top = params.max_level();
    let largest = with(most).unwrap();
    largest.mod_down_rescale_change(&largest.gadget(top..=top, 1).unwrap(), top, Level(top.0 - 1)).unwrap();
    let error = with(most + 1).unwrap_err();
    assert!(matches!(error, ParamsError::ConversionLimbs { limbs: 64, .. }), "{error}");
}

#[test]
fn fingerprints_tell_sets_apart() {
    let base = presets::all().iter().find(|s| s.name == "insecure-tiny").unwrap().literal().unwrap();
    let print = |l| Params::new(l).unwrap().fingerprint();
    let mut renamed = base.clone();
    renamed.name = "insecure-other".into();
    assert_eq!(print(base.clone()), print(renamed));
    let mut shorter = base.clone();
    shorter.ladder.pop();
    assert_ne!(print(base), print(shorter));
}
