//! Work that stays on the host whatever the backend: everything that touches a secret.

use super::error::Result;
use super::params::Params;
use super::sampler::{Gaussian, SecretVec, Seed, small_residues, stream, ternary};
use super::simd_dispatch::simd_dispatch;
use crate::backend::{Backend, BackendError, Buffer, Shape, Storage, cpu::AlignedWords, cpu::CpuBackend};
use crate::math::{Basis, Modulus};
use rayon::prelude::*;
use std::sync::Arc;

/// Transforms and sampling on the host.
#[derive(Debug)]
pub(super) struct Host {
    pub params: Arc<Params>,
    pub cpu: Arc<CpuBackend>,
    gaussian: Gaussian,
}

impl Host {
    pub(super) fn new(params: &Arc<Params>) -> Result<Self> {
        let cpu = Arc::new(CpuBackend::new(params.tables().clone())?);
        Ok(Self { gaussian: Gaussian::new(params.sigma()), params: params.clone(), cpu })
    }

    /// `polys` ternary polynomials.
    pub(super) fn ternary(&self, seed: &Seed, domain: &str, polys: usize) -> SecretVec<i8> {
        let mut out = SecretVec(vec![0i8; polys * self.params.degree()]);
        for (i, poly) in out.0.chunks_mut(self.params.degree()).enumerate() {
            ternary(&mut stream(seed, domain, i, 0), poly);
        }
        out
    }

    /// `polys` Gaussian polynomials.
    pub(super) fn errors(&self, seed: &Seed, domain: &str, polys: usize) -> SecretVec<i16> {
        let mut out = SecretVec(vec![0i16; polys * self.params.degree()]);
        out.0.par_chunks_mut(self.params.degree()).enumerate().for_each(|(i, poly)| {
            self.gaussian.sample(&mut stream(seed, domain, i, 0), poly);
        });
        out
    }

    /// Small polynomials `[poly][N]` in NTT domain over a basis: `[poly][limb][N]`, plain form.
    pub(super) fn small_to_ntt<T: Copy + Into<i32> + Sync>(&self, values: &[T], basis: &Basis) -> Result<SecretBuffer> {
        let n = self.params.degree();
        let tables = self.params.tables();
        let buffer = self.cpu.upload_ntt(values.len() / n, basis, &|poly, limb, out| {
            small_residues(&values[poly * n..][..n], tables.modulus(basis.limbs()[limb]), out);
        })?;
        Ok(SecretBuffer::new(buffer))
    }
}

/// The words of a buffer in host memory.
pub(super) fn host_words(buffer: &Buffer) -> Result<&[u32]> {
    match buffer.storage() {
        Storage::Host(words) => Ok(words.as_slice()),
        Storage::Device(_) => Err(BackendError::ForeignBuffer { op: "host access", backend: "cpu" }.into()),
    }
}

/// A buffer filled by `fill`, in place where the backend's memory is the host's.
pub(super) fn build(backend: &dyn Backend, shape: Shape, fill: impl FnOnce(&mut [u32])) -> Result<Buffer> {
    filled(backend, backend.alloc(shape)?, fill)
}

/// The same for a key, where the backend wants it.
pub(super) fn build_key(backend: &dyn Backend, shape: Shape, fill: impl FnOnce(&mut [u32])) -> Result<Buffer> {
    filled(backend, backend.alloc_key(shape)?, fill)
}

fn filled(backend: &dyn Backend, mut buffer: Buffer, fill: impl FnOnce(&mut [u32])) -> Result<Buffer> {
    let shape = buffer.shape();
    match buffer.storage_mut() {
        Storage::Host(words) => {
            fill(words.as_mut_slice());
            Ok(buffer)
        }
        Storage::Device(_) => {
            let mut words = vec![0u32; shape.words()];
            fill(&mut words);
            Ok(backend.upload(shape, &words)?)
        }
    }
}

/// A host buffer that is wiped when dropped.
pub(super) struct SecretBuffer(Buffer);

impl SecretBuffer {
    pub(super) fn new(mut buffer: Buffer) -> Self {
        buffer.mark_secret();
        Self(buffer)
    }
    pub(super) fn words(&self) -> Result<&[u32]> {
        host_words(&self.0)
    }
    pub(super) fn buffer(&self) -> &Buffer {
        &self.0
    }
    /// A copy on pages of its own, kept from swap and core dumps where the system lets it: for what lives long.
    pub(super) fn guarded(&self) -> Result<Self> {
        let words = self.words()?;
        let mut own = AlignedWords::secret(words.len());
        own.as_mut_slice().copy_from_slice(words);
        Ok(Self(Buffer::from_host(self.0.shape(), own)))
    }
}

impl std::fmt::Debug for SecretBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[redacted; {:?}]", self.0.shape())
    }
}

simd_dispatch! {
    /// `out <- out - a b 2^-32`: one factor in Montgomery form, all in `[0, q)`.
    pub(super) fn sub_product = sub_product_body(out: &mut [u32], a: &[u32], b: &[u32], m: &Modulus)
}

#[inline(always)]
fn sub_product_body<const FMA: bool>(out: &mut [u32], a: &[u32], b: &[u32], m: &Modulus) {
    let m = *m;
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = m.sub(*o, m.mul_mont(a, b));
    }
}

simd_dispatch! {
    /// `out <- out + a b`: neither factor in Montgomery form.
    pub(super) fn add_product = add_product_body(out: &mut [u32], a: &[u32], b: &[u32], m: &Modulus)
}

#[inline(always)]
fn add_product_body<const FMA: bool>(out: &mut [u32], a: &[u32], b: &[u32], m: &Modulus) {
    let m = *m;
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = m.add(*o, m.mul_mont(m.to_mont(a), b));
    }
}

simd_dispatch! {
    /// `out <- out + a c`, for a constant.
    pub(super) fn add_multiple = add_multiple_body(out: &mut [u32], a: &[u32], c: u32, m: &Modulus)
}

#[inline(always)]
fn add_multiple_body<const FMA: bool>(out: &mut [u32], a: &[u32], c: u32, m: &Modulus) {
    let m = *m;
    let c = m.to_mont(c);
    for (o, &a) in out.iter_mut().zip(a) {
        *o = m.add(*o, m.mul_mont(a, c));
    }
}

simd_dispatch! {
    /// `out <- out + a`.
    pub(super) fn add_assign = add_assign_body(out: &mut [u32], a: &[u32], m: &Modulus)
}

#[inline(always)]
fn add_assign_body<const FMA: bool>(out: &mut [u32], a: &[u32], m: &Modulus) {
    let m = *m;
    for (o, &a) in out.iter_mut().zip(a) {
        *o = m.add(*o, a);
    }
}

simd_dispatch! {
    /// Into Montgomery form.
    pub(super) fn to_montgomery = to_montgomery_body(out: &mut [u32], m: &Modulus)
}

#[inline(always)]
fn to_montgomery_body<const FMA: bool>(out: &mut [u32], m: &Modulus) {
    let m = *m;
    out.iter_mut().for_each(|o| *o = m.to_mont(*o));
}
