//! What a backend must be able to do.

#[cfg(doc)]
use super::{Backend, BackendError, Mirror};
use super::{Buffer, KeySwitchTables, Place, PlainTerm, PolySelect, Result, Shape, Statistics};
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use std::any::Any;
use std::sync::Arc;

/// What an implementation must give: batched kernels over RNS limbs, buffers, and what it says of itself. See
/// [`crate::backend`] for the contract.
///
/// - Of itself: [`Self::name`], [`Self::tables`]; for a device also [`Self::place`], [`Self::memory_limit`],
///   [`Self::device_bytes`] and [`Self::statistics`], whose defaults are a processor's.
/// - Buffers: [`Self::alloc`], [`Self::upload`], [`Self::download`], [`Self::duplicate`], [`Self::select`] and
///   [`Self::concat`]; for a device also [`Self::alloc_key`] and [`Self::synchronize`].
/// - Kernels: all others, each without a default. Their definitions are in [`crate::math::naive`].
///
/// All that can be composed of these is in [`Backend`], which an implementation has by an empty `impl`.
///
/// # Errors
/// Of every call, where it says no more:
/// - [`BackendError::ForeignBuffer`] for a buffer of another backend;
/// - [`BackendError::OutOfMemory`] where a device has no room for the result, or for what is made on the way, and where
///   a shape has more words than can be addressed;
/// - [`BackendError::Device`] where a device has failed, in this call or before it;
/// - of a [`Mirror`], also [`BackendError::Divergence`], and whatever the suspect gives.
///
/// A call says itself what it refuses as [`BackendError::Shape`]. A basis fits a buffer that has a limb for each of its
/// primes, all of which are in [`Self::tables`], and the degree of those.
pub trait Kernels: Any + Send + Sync + std::fmt::Debug {
    /// Short name: `cpu-avx512`, `cpu-avx2`, `cpu-scalar`, ...
    fn name(&self) -> &'static str;
    /// The primes and degree.
    fn tables(&self) -> &Arc<RnsTables>;
    /// Where its buffers are.
    fn place(&self) -> Place {
        Place::Host
    }
    /// The most bytes that buffers may take, where that is bounded.
    fn memory_limit(&self) -> Option<u64> {
        None
    }
    /// The most bytes that a device takes before it refuses: its limit, or most of its memory; none where that is
    /// unknown, and on a processor.
    fn device_bytes(&self) -> Option<u64> {
        None
    }
    /// What a device has been asked to do; zeros where there is none.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// As [`Kernels`] says.
    fn alloc(&self, shape: Shape) -> Result<Buffer>;
    /// A buffer of zeros for a key, to be filled where it is and then taken as `key` by any backend: a device that has
    /// memory of its own keeps such buffers on the host and uploads them when they are needed.
    ///
    /// # Errors
    /// As [`Kernels`] says.
    fn alloc_key(&self, shape: Shape) -> Result<Buffer> {
        self.alloc(shape)
    }
    /// A buffer with these words, `[poly][limb][coefficient]`, canonical.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there are not as many words as the shape says; else as [`Kernels`] says.
    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer>;
    /// The words of a buffer. Waits for all pending work on it.
    ///
    /// # Errors
    /// As [`Kernels`] says.
    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>>;
    /// Waits until all calls made so far are done. A CPU is done when a call returns.
    ///
    /// # Errors
    /// [`BackendError::Device`] where the device has failed.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    /// A copy.
    ///
    /// # Errors
    /// As [`Kernels`] says.
    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer>;
    /// The selected polynomials as a new buffer.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where a polynomial is not there or is taken twice; else as [`Kernels`] says.
    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer>;
    /// The polynomials of all `parts`, one after the other; equal limbs and degree.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the parts have other limbs or another degree than the first; else as [`Kernels`]
    /// says.
    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer>;

    /// Forward negacyclic NTT of every polynomial, in place.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit; else as [`Kernels`] says.
    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;
    /// Inverse negacyclic NTT of every polynomial, in place, N^-1 included.
    ///
    /// # Errors
    /// As [`Self::ntt_forward`].
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;

    /// `a + b`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the shapes differ or the basis does not fit; else as [`Kernels`] says.
    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `a += b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()>;
    /// `a - b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `-a`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit; else as [`Kernels`] says.
    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `a * constants[limb]`; one canonical constant per limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit, or the constants are not a canonical one for each limb;
    /// else as [`Kernels`] says.
    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer>;
    /// Adds `constants[limb]` to every word of the selected polynomials (in NTT domain: adds that constant polynomial).
    ///
    /// # Errors
    /// [`BackendError::Shape`] as for [`Self::mul_constant`] and [`Self::select`]; else as [`Kernels`] says.
    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()>;
    /// Adds polynomial `i % plain.polys` of `plain` (plain form) to the i-th selected polynomial of `a`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both, there is no plaintext to add, or as for
    /// [`Self::select`]; else as [`Kernels`] says.
    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()>;
    /// `a * plain`: shard i (polys 2i, 2i+1) times polynomial `i % plain.polys` of `plain` (Montgomery form). NTT
    /// domain.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both, a half of a ciphertext is missing, or there is no
    /// plaintext; else as [`Kernels`] says.
    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// Degree-2 product of ciphertexts, shard by shard: polys `[shard][3]` = (a0 b0, a0 b1 + a1 b0, a1 b1). NTT domain.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the shapes differ, the basis does not fit, or a half of a ciphertext is missing;
    /// else as [`Kernels`] says.
    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// For each output shard o: `sum_t plain[t.plain] * ct[t.source]` over the terms of `terms[o]`; `ct` is
    /// `[shard][2]`, both halves of a shard multiplied alike, `plain` polynomials in Montgomery form. NTT domain.
    ///
    /// Plaintexts may be of a lower degree D, a power of two: polynomials in `X^(N/D)`, each word standing for N / D
    /// equal ones.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both (but for a lower degree of the plaintexts), a half of
    /// a ciphertext is missing, or a term names a shard or plaintext that is not there; else as [`Kernels`] says.
    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer>;

    /// X -> X^galois on every polynomial, NTT domain to NTT domain (a permutation of words).
    ///
    /// # Errors
    /// [`BackendError::Galois`] for an element that is even or not below 2N, [`BackendError::Shape`] where the basis
    /// does not fit; else as [`Kernels`] says.
    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer>;

    /// Coefficient domain: `[poly][from][N]` -> `[poly][to][N]` by the formula of [`crate::math::base_conversion`].
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over `conversion.from`, or the constants are not those of so many
    /// limbs; else as [`Kernels`] says.
    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer>;
    /// Digits of the selected polynomials (NTT domain in and out): `[selected][digit][extended limb][N]`, that is
    /// `polys = selected * digits`. A digit's own limbs are copied, the rest converted. Cost: one inverse NTT a window
    /// limb, one forward NTT a converted limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over the window, the plan contradicts itself, or as for
    /// [`Self::select`]; else as [`Kernels`] says.
    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer>;
    /// `sum_k digits[s][k] * key[k]`: polys `[shard][2]` over `plan.extended`. `key` is `[key digit][2][key limb][N]`
    /// in Montgomery form (`polys = key digits * 2`). NTT domain. The key is read once for all shards.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the digits are not whole shards over the extended basis, or the key has not the
    /// plan's digits and limbs; else as [`Kernels`] says.
    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer>;
    /// `round(x * prod(incoming) / prod(dropped))` for every polynomial, NTT domain to NTT domain (mod_down, rescale,
    /// both merged).
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over `change.source`, or the change contradicts itself; else as
    /// [`Kernels`] says.
    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer>;
}
