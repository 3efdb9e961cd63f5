//! The contract between the scheme and the machines that run it.
//!
//! A [`Backend`] owns [`Buffer`]s of residues, `[poly][limb][coefficient]` in `u32`, and runs batched calls on them:
//! [`Kernels`], which every implementation must give, and the composed calls of [`Backend`], which have a definition in
//! kernels and may be overridden by something faster that gives the same bits. Which prime a limb belongs to is said by
//! the [`Basis`](crate::math::Basis) given with it. Every kernel takes all limbs, all polynomials (both halves of all
//! shards) in one call: one parallel region on a CPU, one dispatch on a GPU.
//!
//! Contract, the same for every backend:
//! - residues are canonical, in `[0, q)`, in every buffer at every call boundary; the same call gives the same bits;
//! - ciphertext data is never in Montgomery form; [`Kernels::key_inner_product`]'s keys and the plaintext factors of
//!   [`Kernels::mul_plain`] and [`Kernels::plain_inner_product`] are (`x 2^32 mod q`), so their products need no
//!   correction;
//! - "NTT domain" means the order of [`crate::math::ntt_table`];
//! - outputs are freshly allocated or fully overwritten; inputs are never changed unless the name says `_assign`;
//! - shapes and bases that do not fit give [`BackendError::Shape`], a buffer of another backend
//!   [`BackendError::ForeignBuffer`]; nothing panics (all errors: [`Kernels`]);
//! - calls may be asynchronous on a device: only [`Kernels::download`] and [`Kernels::synchronize`] wait.
//!
//! The chain of trust is `math::naive` -> scalar -> SIMD -> WGSL, bit-exact at each step.

mod arguments;
mod buffer;
mod by_steps;
pub mod check;
mod composites;
pub mod cpu;
mod error;
mod kernels;
mod mirror;
mod statistics;

pub use arguments::{
    Coefficients, Combination, HoistedRotations, HornerStep, KeyRotation, KeySwitchTables, PlainSource, PlainTerm, Rotation,
};
pub use buffer::{Buffer, DeviceStorage, PolySelect, Shape, Storage};
pub use by_steps::{
    change_basis_adding_by_steps, rotate_digits_by_steps, rotate_digits_extended_by_steps, rotate_sum_by_steps,
    rotated_inner_product_by_steps, rotated_sum_by_steps,
};
pub use composites::Backend;
pub use error::{BackendError, Result};
pub use kernels::Kernels;
pub use mirror::{Calls, Mirror};
pub use statistics::{Place, Statistics};
