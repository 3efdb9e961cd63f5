//! Kernels and composites that every backend is measured on, with inputs that are the same on each, and the least that
//! each could cost. Compiled into the command and into `benches/`.

use super::floor::{Floor, Floors};
use cipherlens::backend::{Backend, Buffer, KeyRotation, KeySwitchTables, PlainTerm, PolySelect, Result, Rotation, Shape};
use cipherlens::math::primes::closest_primes;
use cipherlens::math::{BaseConversion, Basis, BasisChange, MathError, RnsTables};
use rayon::prelude::*;
use std::sync::Arc;

/// A ring and a key switch: `limbs` primes in digits of `alpha`, and as many special primes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What it is called in reports.
    pub name: &'static str,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Primes of a ciphertext.
    pub limbs: usize,
    /// Primes of a digit.
    pub alpha: usize,
}

/// The sizes, those first that matter most where time is short: 47 limbs in four digits, the shape of a bootstrap; log QP
/// just below the 128-bit caps of two smaller rings; and the shape of preset `n16-bench`, that other libraries are measured at.
pub const SIZES: [Size; 4] = [
    Size { name: "n16-47", log_n: 16, limbs: 47, alpha: 12 },
    Size { name: "n15", log_n: 15, limbs: 20, alpha: 7 },
    Size { name: "n14", log_n: 14, limbs: 11, alpha: 3 },
    Size { name: "n16", log_n: 16, limbs: 42, alpha: 14 },
];

/// Inputs of a plaintext inner product: shards, and terms of each output.
const SOURCES: usize = 2;
const TERMS: usize = 4;
/// The Galois element of rotations.
const GALOIS: u32 = 5;

/// The constants of a size.
#[derive(Debug)]
pub struct Material {
    /// The size.
    pub size: Size,
    /// Its primes.
    pub tables: Arc<RnsTables>,
    plan: KeySwitchTables,
    rescale: BasisChange,
}

impl Material {
    /// Finds primes and makes tables.
    ///
    /// # Errors
    /// [`MathError::PrimeSupply`] and [`MathError::Degree`] for a size that no ring has.
    pub fn new(size: Size) -> std::result::Result<Self, MathError> {
        let primes = closest_primes(29.9, size.limbs + size.alpha, size.log_n + 1, &[])?;
        let tables = Arc::new(RnsTables::new(size.log_n, &primes)?);
        let (window, special) = (Basis::range(0..size.limbs), Basis::range(size.limbs..primes.len()));
        let extended = window.then(&special);
        let digits: Vec<_> = window.limbs().chunks(size.alpha).map(|c| Basis::new(c.iter().copied())).collect();
        let plan = KeySwitchTables {
            mod_up: digits.iter().map(|d| BaseConversion::new(&tables, d, &extended.minus(d), |_| 1)).collect(),
            mod_down: BasisChange::new(&tables, &extended, &window),
            key_digits: (0..digits.len()).collect(),
            key_limbs: (0..extended.len()).collect(),
            window,
            special,
            extended,
            digits,
        };
        let rescale = BasisChange::new(&tables, &plan.window, &Basis::range(0..size.limbs - 1));
        Ok(Self { size, tables, plan, rescale })
    }

    /// Digits of a key switch.
    pub fn digits(&self) -> usize {
        self.plan.digits.len()
    }
    /// Bytes of a key.
    pub fn key_bytes(&self) -> u64 {
        self.words(2 * self.digits() * self.plan.extended.len())
    }
    /// Bytes of limbs.
    fn words(&self, limbs: usize) -> u64 {
        (4 * limbs as u64) << self.size.log_n
    }
    fn floors(&self) -> Floors {
        let digits: Vec<usize> = self.plan.digits.iter().map(Basis::len).collect();
        Floors::of(self.size.log_n, &digits, self.plan.special.len(), self.size.limbs - 1, 1)
    }

    /// A buffer of residues that depend on `stream` and their place alone.
    fn buffer(&self, backend: &dyn Backend, polys: usize, basis: &Basis, stream: u64) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables.degree());
        let mut words = vec![0u32; shape.words()];
        words.par_chunks_mut(shape.degree).enumerate().for_each(|(i, limb)| {
            let q = u64::from(self.tables.modulus(basis.limbs()[i % basis.len()]).value());
            // SplitMix64: the high bits of a product with q are below q.
            let mut state = (stream << 40) ^ ((i as u64) << 20);
            for word in limb {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *word = (((z >> 32) * q) >> 32) as u32;
            }
        });
        backend.upload(shape, &words)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Forward transforms of a ciphertext.
    NttForward,
    /// Inverse transforms of a ciphertext.
    NttInverse,
    /// A sum of ciphertexts.
    Add,
    /// A product with a constant.
    MulConstant,
    /// A product with a plaintext.
    MulPlain,
    /// A product of ciphertexts, three halves.
    Tensor,
    /// A permutation of slots.
    Automorphism,
    /// The first digit to all other primes.
    BaseConvert,
    /// Digits of a ciphertext.
    ModUp,
    /// Digits times a key.
    KeyInnerProduct,
    /// Division by the special primes.
    ModDown,
    /// Division by the last prime.
    Rescale,
    /// Sums of products with plaintexts.
    PlainInnerProduct,
    /// From digits to mod_down.
    KeySwitch,
    /// Product of ciphertexts, relinearized.
    MulRelin,
    /// A rotation of all shards with one key.
    Rotate,
    /// The same from digits that are there.
    RotateHoisted,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What.
    pub kind: Kind,
    /// On how many shards at once.
    pub shards: usize,
}

/// Runs once: takes what the last run gave (kernels in place work on it) and gives its result.
pub type Job<'a> = Box<dyn FnMut(Option<Buffer>) -> Result<Buffer> + 'a>;

/// A job that does not work in place; what the last run gave is dropped first, so that its memory is used again.
fn pure<'a>(f: impl Fn() -> Result<Buffer> + 'a) -> Job<'a> {
    Box::new(move |previous| {
        drop(previous);
        f()
    })
}

fn in_place<'a>(first: Buffer, f: impl Fn(&mut Buffer) -> Result<()> + 'a) -> Job<'a> {
    let mut first = Some(first);
    Box::new(move |previous| {
        let expected = || "the result of the last run".to_owned();
        let missing = || cipherlens::backend::BackendError::Shape { op: "bench", expected: expected(), found: "nothing".into() };
        let mut data = previous.or_else(|| first.take()).ok_or_else(missing)?;
        f(&mut data)?;
        Ok(data)
    })
}

impl Case {
    /// Every kernel on one shard (two where it sums over shards), then rotations of each number of shards.
    pub fn all(shards: &[usize]) -> Vec<Self> {
        use Kind::*;
        let one = |kind| Self { kind, shards: if kind == PlainInnerProduct { SOURCES } else { 1 } };
        let kernels = [
            NttForward,
            NttInverse,
            Add,
            MulConstant,
            MulPlain,
            Tensor,
            Automorphism,
            BaseConvert,
            ModUp,
            KeyInnerProduct,
            ModDown,
            Rescale,
            PlainInnerProduct,
            KeySwitch,
            MulRelin,
        ];
        let rotations = [Rotate, RotateHoisted].map(|kind| shards.iter().map(move |&shards| Self { kind, shards }));
        kernels.map(one).into_iter().chain(rotations.into_iter().flatten()).collect()
    }

    /// What it is called in reports.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::NttForward => "ntt_forward",
            Kind::NttInverse => "ntt_inverse",
            Kind::Add => "add",
            Kind::MulConstant => "mul_constant",
            Kind::MulPlain => "mul_plain",
            Kind::Tensor => "tensor",
            Kind::Automorphism => "automorphism",
            Kind::BaseConvert => "base_convert",
            Kind::ModUp => "mod_up",
            Kind::KeyInnerProduct => "key_inner_product",
            Kind::ModDown => "mod_down",
            Kind::Rescale => "rescale",
            Kind::PlainInnerProduct => "plain_inner_product",
            Kind::KeySwitch => "key_switch",
            Kind::MulRelin => "mul_relinearize",
            Kind::Rotate => "rotate",
            Kind::RotateHoisted => "rotate_hoisted",
        }
    }

    /// The least it could cost: each input and output word moved once, and products of residues.
    pub fn floor(&self, m: &Material) -> Floor {
        let (f, n) = (m.floors(), 1u64 << m.size.log_n);
        let (limbs, extended, digits) = (m.size.limbs, m.plan.extended.len(), m.digits());
        let bytes = |limbs: usize| m.words(limbs);
        let shards = self.shards as u64;
        let batch = |one: Floor| Floor {
            // The key is read once for all shards.
            bytes: shards * (one.bytes - m.key_bytes()) + m.key_bytes(),
            multiplies: shards * one.multiplies,
        };
        let half = f.transform();
        match self.kind {
            // A half of a forward and an inverse transform of one polynomial, for two polynomials.
            Kind::NttForward | Kind::NttInverse => half,
            Kind::Add => f.add(),
            Kind::MulConstant => Floor { bytes: bytes(4 * limbs), multiplies: 2 * limbs as u64 * n },
            Kind::MulPlain => f.multiply_plain(),
            Kind::Tensor => Floor { bytes: bytes(7 * limbs), multiplies: 4 * limbs as u64 * n },
            Kind::Automorphism => Floor { bytes: bytes(4 * limbs), multiplies: 0 },
            Kind::BaseConvert => {
                let (from, to) = (m.plan.mod_up[0].from.len(), m.plan.mod_up[0].to.len());
                Floor { bytes: bytes(from + to), multiplies: (from + from * to) as u64 * n }
            }
            Kind::ModUp => f.mod_up(),
            Kind::KeyInnerProduct => {
                Floor { bytes: bytes((digits + 2) * extended) + m.key_bytes(), multiplies: 2 * (digits * extended) as u64 * n }
            }
            Kind::ModDown => f.mod_down(),
            Kind::Rescale => f.rescale(),
            Kind::PlainInnerProduct => Floor {
                bytes: bytes((2 * SOURCES + SOURCES * TERMS + 2 * SOURCES) * limbs),
                multiplies: 2 * (SOURCES * TERMS * limbs) as u64 * n,
            },
            Kind::KeySwitch => {
                let rotate = f.rotate();
                Floor { bytes: rotate.bytes - bytes(limbs), ..rotate }
            }
            Kind::MulRelin => f.multiply(),
            Kind::Rotate => batch(f.rotate()),
            Kind::RotateHoisted => batch(f.hoisted_rotation()),
        }
    }

    /// About the bytes that it takes on a device: inputs, outputs, and twice the digits of composites.
    pub fn memory(&self, m: &Material) -> u64 {
        let digits = m.words(self.shards * m.digits() * m.plan.extended.len());
        let composite = matches!(self.kind, Kind::ModUp | Kind::KeySwitch | Kind::MulRelin | Kind::Rotate | Kind::RotateHoisted);
        self.floor(m).bytes + if composite { 2 * digits } else { 0 }
    }

    /// Uploads its inputs.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`](cipherlens::backend::BackendError::OutOfMemory), or what else the backend refuses an upload for.
    pub fn job<'a>(&self, m: &'a Material, backend: &'a dyn Backend) -> Result<Job<'a>> {
        let (plan, window) = (&m.plan, &m.plan.window);
        let ciphertext = |stream| m.buffer(backend, 2 * self.shards, window, stream);
        let key = || m.buffer(backend, 2 * plan.digits.len(), &plan.extended, 7);
        let halves = |b: &Buffer| PolySelect::second_halves(b.shape());
        Ok(match self.kind {
            Kind::NttForward => in_place(ciphertext(1)?, |x| backend.ntt_forward(x, window)),
            Kind::NttInverse => in_place(ciphertext(1)?, |x| backend.ntt_inverse(x, window)),
            Kind::Add => {
                let (x, y) = (ciphertext(1)?, ciphertext(2)?);
                pure(move || backend.add(&x, &y, window))
            }
            Kind::MulConstant => {
                let constants: Vec<u32> = window.limbs().iter().map(|&l| m.tables.modulus(l).value() / 3).collect();
                let x = ciphertext(1)?;
                pure(move || backend.mul_constant(&x, &constants, window))
            }
            Kind::MulPlain => {
                let (x, y) = (ciphertext(1)?, m.buffer(backend, 1, window, 3)?);
                pure(move || backend.mul_plain(&x, &y, window))
            }
            Kind::Tensor => {
                let (x, y) = (ciphertext(1)?, ciphertext(2)?);
                pure(move || backend.tensor(&x, &y, window))
            }
            Kind::Automorphism => {
                let x = ciphertext(1)?;
                pure(move || backend.automorphism(&x, GALOIS, window))
            }
            Kind::BaseConvert => {
                let digit = m.buffer(backend, 1, &plan.digits[0], 4)?;
                pure(move || backend.base_convert(&digit, &plan.mod_up[0]))
            }
            Kind::ModUp => {
                let x = ciphertext(1)?;
                pure(move || backend.mod_up(&x, halves(&x), plan))
            }
            Kind::KeyInnerProduct => {
                let (digits, key) = (m.buffer(backend, plan.digits.len(), &plan.extended, 5)?, key()?);
                pure(move || backend.key_inner_product(&digits, &key, plan))
            }
            Kind::ModDown => {
                let x = m.buffer(backend, 2, &plan.extended, 6)?;
                pure(move || backend.change_basis(&x, &plan.mod_down))
            }
            Kind::Rescale => {
                let x = ciphertext(1)?;
                pure(move || backend.change_basis(&x, &m.rescale))
            }
            Kind::PlainInnerProduct => {
                let (x, plains) = (ciphertext(1)?, m.buffer(backend, SOURCES * TERMS, window, 3)?);
                let term = |o: usize| move |t: usize| PlainTerm { plain: o * TERMS + t, source: (o + t) % SOURCES };
                let terms: Vec<Vec<_>> = (0..SOURCES).map(|o| (0..TERMS).map(term(o)).collect()).collect();
                pure(move || backend.plain_inner_product(&x, &plains, &terms, window))
            }
            Kind::KeySwitch => {
                let (x, key) = (ciphertext(1)?, key()?);
                pure(move || backend.key_switch(&x, halves(&x), &key, plan))
            }
            Kind::MulRelin => {
                let (x, y, key, shards) = (ciphertext(1)?, ciphertext(2)?, key()?, self.shards);
                pure(move || {
                    let product = backend.tensor(&x, &y, window)?;
                    let third = |first| PolySelect { first, stride: 3, count: shards };
                    let mut switched = backend.key_switch(&product, third(2), &key, plan)?;
                    for half in 0..2 {
                        let low = backend.select(&product, third(half))?;
                        let to = PolySelect { first: half, stride: 2, count: shards };
                        backend.add_plain_assign(&mut switched, to, &low, window)?;
                    }
                    Ok(switched)
                })
            }
            Kind::Rotate => {
                let (x, key) = (ciphertext(1)?, key()?);
                pure(move || backend.rotate(&x, KeyRotation { galois: GALOIS, key: &key }, plan))
            }
            Kind::RotateHoisted => {
                let (x, key) = (ciphertext(1)?, key()?);
                let digits = backend.mod_up(&x, halves(&x), plan)?;
                pure(move || backend.rotate_digits(&x, &digits, &[Rotation { galois: GALOIS, key: Some(&key) }], plan))
            }
        })
    }
}
