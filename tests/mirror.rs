//! A comparison of two backends names the first call, and the word in it, on which they differ.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use cipherlens::backend::cpu::{CpuBackend, Isa};
use cipherlens::backend::{
    Backend, BackendError, Buffer, Calls, Coefficients, DeviceStorage, Kernels, KeySwitchTables, Mirror, PlainSource, PlainTerm,
    PolySelect, Result, Shape, Storage,
};
use cipherlens::ckks::*;
use cipherlens::math::{BaseConversion, Basis, BasisChange, RnsTables};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use support::*;

use cipherlens_testkit::calls::{Case, Integers, every_call};
use cipherlens_testkit::ckks as support;
use cipherlens_testkit::kernels::{Fill, gadget, rng, tables};

/// Where the wrong kernel is wrong.
const WRONG: (usize, usize, usize) = (3, 1, 5);

/// The processor's kernels, but that it keeps integers as a device does, and may give one wrong word of products with plaintexts.
#[derive(Debug)]
struct Suspect {
    cpu: CpuBackend,
    wrong: bool,
}

/// Integers kept, and how many of each plaintext.
#[derive(Debug)]
struct Values(Vec<f64>, usize);

impl DeviceStorage for Values {}

macro_rules! as_they_are {
    ($(fn $name:ident(&self $(, $arg:ident: $ty:ty)*) -> $out:ty;)*) => {
        $( fn $name(&self $(, $arg: $ty)*) -> $out { self.cpu.$name($($arg),*) } )*
    };
}

impl Kernels for Suspect {
    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        let out = self.cpu.mul_plain(a, plain, basis)?;
        if !self.wrong {
            return Ok(out);
        }
        let (shape, mut words) = (out.shape(), self.cpu.download(&out)?);
        let at = (WRONG.0 * shape.limbs + WRONG.1) * shape.degree + WRONG.2;
        words[at] ^= 1;
        self.cpu.upload(shape, &words)
    }
    as_they_are! {
        fn name(&self) -> &'static str;
        fn tables(&self) -> &Arc<RnsTables>;
        fn alloc(&self, shape: Shape) -> Result<Buffer>;
        fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer>;
        fn download(&self, buffer: &Buffer) -> Result<Vec<u32>>;
        fn duplicate(&self, buffer: &Buffer) -> Result<Buffer>;
        fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer>;
        fn concat(&self, parts: &[&Buffer]) -> Result<Buffer>;
        fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;
        fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;
        fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
        fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()>;
        fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
        fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer>;
        fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer>;
        fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()>;
        fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()>;
        fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
        fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer>;
        fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer>;
        fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer>;
        fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer>;
        fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer>;
        fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer>;
    }
}

impl Backend for Suspect {
    fn keep_integers(&self, plains: usize, source: &dyn PlainSource) -> Result<Option<Buffer>> {
        let kept = |c: Coefficients<'_>| {
            let values = Values(c.values.to_vec(), c.stored);
            Buffer::from_device(Shape::new(plains, 2, c.stored), values)
        };
        Ok(source.coefficients().map(kept))
    }
    fn kept_inner_product(&self, ct: &Buffer, kept: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let Storage::Device(storage) = kept.storage() else { panic!("not kept here") };
        let Values(values, stored) = (storage.as_ref() as &dyn Any).downcast_ref().unwrap();
        let integers = Integers { values: values.clone(), stored: *stored, tables: self.tables(), basis, sent: true };
        self.encoded_inner_product(ct, kept.shape().polys, &integers, terms, basis)
    }
}

/// Every operation of the scheme, the wrong one among them, through a mirror.
fn operations(mirror: Arc<Mirror>) -> std::result::Result<(), CkksError> {
    let b = Bench::with("insecure-tiny", |_| mirror);
    let top = b.params.max_level();
    let alpha = b.params.best_alpha(Level(0)..=top).unwrap();
    let e = b.evaluator(&[b.galois(1, Level(0)..=top, alpha), b.galois(5, Level(0)..=top, alpha), b.relin()]);
    let (x, y) = (b.encrypt(&b.values(2, 1), top), b.encrypt(&b.values(2, 2), top));
    e.add(&x, &y)?;
    e.mul_rescale(&x, &y)?;
    e.rotate(&x, 5)?;
    e.rotate_many(&x, &[1, 0, 5])?;
    let digits = e.mod_up(&x, b.params.gadget(Level(0)..=top, alpha).unwrap())?;
    let lifted = e.lift_first(&x, digits.gadget())?;
    e.mod_down_rescale(&e.rotate_digits_extended(&digits, &lifted, 1)?)?;
    e.add_plain(&x, &b.plain(&b.values(2, 3), top, PlainForm::Plain))?;
    e.mul_plain(&x, &b.plain(&b.values(2, 4), top, PlainForm::Montgomery))?;
    e.rescale(&x).map(drop)
}

fn backends() -> (Arc<CpuBackend>, Arc<CpuBackend>) {
    let tables = presets::by_name("insecure-tiny").unwrap().tables().clone();
    (Arc::new(CpuBackend::with_isa(tables.clone(), Isa::SCALAR)), Arc::new(CpuBackend::new(tables).unwrap()))
}

#[test]
fn backends_that_agree_are_said_to() {
    let (scalar, cpu) = backends();
    let mirror = Arc::new(Mirror::new(scalar, cpu));
    operations(mirror.clone()).unwrap();
    let compared = mirror.compared();
    assert!(compared.values().sum::<u64>() > 20, "{compared:?}");
}

#[test]
fn a_wrong_kernel_is_named_with_the_word() {
    let (scalar, cpu) = backends();
    let wrong = || Arc::new(Suspect { cpu: CpuBackend::new(cpu.tables().clone()).unwrap(), wrong: true });
    match operations(Arc::new(Mirror::new(scalar.clone(), wrong()))) {
        Err(CkksError::Backend(BackendError::Divergence { op, poly, limb, coefficient, expected, found, .. })) => {
            assert_eq!((op, (poly, limb, coefficient)), ("mul_plain", WRONG));
            assert_eq!(expected ^ found, 1);
        }
        other => panic!("{other:?}"),
    }
    // Looked at alone, it is found; left out, nothing is.
    let only = |names: &str| operations(Arc::new(Mirror::new(scalar.clone(), wrong()).only(names.parse().unwrap())));
    for names in ["mul_plain", "add, mul_plain", "all"] {
        assert!(matches!(only(names), Err(CkksError::Backend(BackendError::Divergence { .. }))), "{names}");
    }
    only("add").unwrap();
}

#[test]
fn names_that_no_call_has_are_refused_with_those_there_are() {
    for (names, asked) in [("mul_plian", "mul_plian"), ("add,", ""), ("add,download", "download"), ("all,add", "all"), ("", "")] {
        let error = names.parse::<Calls>().unwrap_err();
        assert_eq!(error, BackendError::NoSuchCall { asked: asked.into(), have: Calls::NAMES });
        assert!(error.to_string().contains("mul_plain"), "{error}");
    }
}

/// Methods of the contract that neither make nor change words.
const NOT_COMPARED: [&str; 9] = [
    "name",
    "tables",
    "place",
    "memory_limit",
    "device_bytes",
    "statistics",
    "download",
    "synchronize",
    // In whatever form a device likes: compared once multiplied.
    "keep_integers",
];

/// The methods of the contract, read from its text, so that a new one is among them.
fn methods() -> BTreeSet<&'static str> {
    let kernels = include_str!("../crates/core/src/backend/kernels.rs").split_once("pub trait Kernels").unwrap();
    let composites = include_str!("../crates/core/src/backend/composites.rs").split_once("pub trait Backend").unwrap();
    let contracts = [kernels, composites].map(|(_, rest)| rest.split_once("\n}").unwrap().0);
    let names = contracts.into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("    fn "));
    names.map(|line| line.split(['(', '<']).next().unwrap()).collect()
}

#[test]
fn calls_are_all_methods_that_make_or_change_words() {
    let not_compared = BTreeSet::from(NOT_COMPARED);
    let expected: Vec<_> = methods().difference(&not_compared).copied().collect();
    let names: BTreeSet<_> = Calls::NAMES.iter().copied().collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
}

/// Every call through a mirror, with this suspect: each must be compared by its own name, not by its steps alone.
fn every_call_is_compared(suspect: impl FnOnce(Arc<RnsTables>) -> Arc<dyn Backend>) {
    let tables = tables(5, 1, 4, 2);
    let plan = gadget(&tables, 0..5, 2, 0);
    let scalar = Arc::new(CpuBackend::with_isa(tables.clone(), Isa::SCALAR));
    let mirror = Mirror::new(scalar, suspect(tables.clone()));
    every_call(&Case { tables, plan, shards: 2, fill: Fill::Random }, &mut rng(31), &|call, f| {
        println!("{call}");
        f(&mirror);
    });
    let compared: BTreeSet<_> = mirror.compared().into_keys().collect();
    let expected: BTreeSet<_> = methods().difference(&BTreeSet::from(NOT_COMPARED)).copied().collect();
    assert_eq!(compared, expected);
}

#[test]
fn every_call_of_a_processor_is_compared() {
    every_call_is_compared(|tables| Arc::new(Suspect { cpu: CpuBackend::new(tables).unwrap(), wrong: false }));
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_agrees_with_the_processor_call_by_call() {
    use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits, adapters};
    let (_, cpu) = backends();
    // One that computes nothing is found out at once.
    let dry = GpuBackend::dry(cpu.tables().clone(), Limits::PORTABLE, &GpuOptions::default()).unwrap();
    let error = Mirror::new(cpu.clone(), Arc::new(dry)).upload(Shape::new(1, 1, 32), &[7; 32]).unwrap_err();
    assert!(matches!(error, BackendError::Divergence { op: "upload", expected: 7, found: 0, .. }), "{error}");
    if adapters().is_empty() {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return;
    }
    let options = GpuOptions { software: true, ..GpuOptions::from_env() };
    let gpu = GpuBackend::new(cpu.tables().clone(), &options).unwrap();
    let mirror = Arc::new(Mirror::new(cpu, Arc::new(gpu)));
    operations(mirror.clone()).unwrap();
    assert!(mirror.compared().values().sum::<u64>() > 20);
    every_call_is_compared(|tables| Arc::new(GpuBackend::new(tables, &options).unwrap()));
}
