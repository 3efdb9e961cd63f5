//! What a device must get right before it is trusted: products, transforms, a key switch, each bit for bit the CPU's.

use super::device::Device;
use super::registry::Wide;
use super::{GpuBackend, GpuOptions, adapter};
use crate::backend::cpu::{CpuBackend, Isa};
use crate::backend::{Backend, BackendError, Buffer, Kernels, KeySwitchTables, PolySelect, Result, Shape};
use crate::math::primes::closest_primes;
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use std::sync::Arc;

/// Two dispatches a transform.
const LOG_N: u32 = 13;

/// Key switches of the first primes, with the next ones as special primes and digits of as many.
pub(super) fn plan(tables: &RnsTables, window: usize, special: usize) -> KeySwitchTables {
    let (window, special) = (Basis::range(0..window), Basis::range(window..window + special));
    let extended = window.then(&special);
    let digits: Vec<_> = window.limbs().chunks(special.len()).map(|c| Basis::new(c.iter().copied())).collect();
    KeySwitchTables {
        mod_up: digits.iter().map(|d| BaseConversion::new(tables, d, &extended.minus(d), |_| 1)).collect(),
        mod_down: BasisChange::new(tables, &extended, &window),
        key_digits: (0..digits.len()).collect(),
        key_limbs: (0..extended.len()).collect(),
        window,
        special,
        extended,
        digits,
    }
}

/// Words of some polynomials: the least and largest residues, and others.
fn words(tables: &RnsTables, basis: &Basis, polys: usize) -> Vec<u32> {
    let n = tables.degree();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(polys * basis.len() * n);
    for _ in 0..polys {
        for &l in basis.limbs() {
            let q = tables.modulus(l).value();
            for i in 0..n {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                out.push(match i % 64 {
                    0 => q - 1,
                    1 => 0,
                    _ => (state >> 33) as u32 % q,
                });
            }
        }
    }
    out
}

/// Tests a device and gives it back.
pub(super) fn run(device: Arc<Device>) -> Result<Arc<Device>> {
    let adapter = device.report().name.clone();
    each(&device, |test, same| {
        let adapter = adapter.clone();
        if same? { Ok(()) } else { Err(BackendError::SelfTest { adapter, test }) }
    })?;
    Ok(device)
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// What was tested.
    pub test: &'static str,
    /// In which form of wide products.
    pub wide: Wide,
    /// Nothing where the device gave the CPU's bits.
    pub error: Option<BackendError>,
}

/// Every test of the adapter that the options name, in every form of wide products that it has, or in the one they name.
///
/// # Errors
/// [`BackendError::NoAdapter`], and [`BackendError::Device`] where it cannot be opened.
pub fn self_tests(options: &GpuOptions) -> Result<Vec<SelfTest>> {
    let mut all = Vec::new();
    let (_, report) = adapter::best(options)?;
    let has = |wide: &Wide| options.wide.is_none_or(|only| only == *wide) && (report.int64 || *wide == Wide::U32);
    for wide in Wide::ALL.into_iter().filter(has) {
        let device = Arc::new(Device::open(&GpuOptions { wide: Some(wide), ..options.clone() })?);
        let adapter = device.report().name.clone();
        each(&device, |test, same| {
            let wrong = || BackendError::SelfTest { adapter: adapter.clone(), test };
            let error = same.map_or_else(Some, |same| (!same).then(wrong));
            all.push(SelfTest { test, wide, error });
            Ok(())
        })?;
    }
    Ok(all)
}

/// Runs the tests; `seen` is told of each whether the device gave the CPU's bits.
fn each(device: &Arc<Device>, mut seen: impl FnMut(&'static str, Result<bool>) -> Result<()>) -> Result<()> {
    let fault = |e: crate::math::MathError| BackendError::Device { op: "self-test", reason: e.to_string() };
    let mut primes = closest_primes(25.2, 1, LOG_N + 1, &[]).map_err(fault)?;
    primes.extend(closest_primes(30.0, 4, LOG_N + 1, &primes).map_err(fault)?);
    let tables = Arc::new(RnsTables::new(LOG_N, &primes).map_err(fault)?);
    let gpu = GpuBackend::on(device.clone(), tables.clone(), &GpuOptions::default())?;
    let cpu = CpuBackend::with_isa(tables.clone(), Isa::SCALAR);
    let plan = plan(&tables, 3, 2);
    let (n, basis) = (tables.degree(), plan.window.clone());
    let a = words(&tables, &basis, 2);
    let key = words(&tables, &plan.extended, 2 * plan.digits.len());
    let upload = |b: &dyn Backend| b.upload(Shape::new(2, basis.len(), n), &a);
    type Test<'a> = (&'static str, &'a dyn Fn(&dyn Backend) -> Result<Buffer>);
    let tests: [Test<'_>; 4] = [
        ("products", &|b| b.mul_plain(&upload(b)?, &upload(b)?, &basis)),
        ("the forward transform", &|b| {
            let mut x = upload(b)?;
            b.ntt_forward(&mut x, &basis)?;
            Ok(x)
        }),
        ("the inverse transform", &|b| {
            let mut x = upload(b)?;
            b.ntt_inverse(&mut x, &basis)?;
            Ok(x)
        }),
        ("a key switch", &|b| {
            let key = b.upload(Shape::new(2 * plan.digits.len(), plan.extended.len(), n), &key)?;
            let x = upload(b)?;
            b.key_switch(&x, PolySelect::second_halves(x.shape()), &key, &plan)
        }),
    ];
    for (test, f) in tests {
        let same = || Ok(gpu.download(&f(&gpu)?)? == cpu.download(&f(&cpu)?)?);
        seen(test, same())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::gpu::Limits;

    #[test]
    fn a_device_that_computes_nothing_fails() {
        match run(Arc::new(Device::dry(Limits::PORTABLE))) {
            Err(BackendError::SelfTest { test, .. }) => assert_eq!(test, "products"),
            other => panic!("{other:?}"),
        }
    }
}
