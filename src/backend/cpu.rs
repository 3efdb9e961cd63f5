//! The CPU backend.

use super::{Backend, BackendError, Buffer, GadgetPlan, PlainTerm, PolySelect, Result, Shape};
use crate::math::{BaseConversion, Basis, BasisChange, LimbId, Modulus, RnsTables};
use rayon::prelude::*;
use std::sync::Arc;

mod automorphism;
mod base_convert;
mod check;
pub mod isa;
mod lanes;
mod ntt;
mod words;

pub use isa::Isa;
pub use words::AlignedWords;

/// Kernels on the host's cores, in rayon's current thread pool.
#[derive(Debug)]
pub struct CpuBackend {
    tables: Arc<RnsTables>,
    isa: Isa,
    /// The instruction set of the transforms: `isa`, or a narrower one where the degree asks for it.
    ntt_isa: Isa,
}

impl CpuBackend {
    /// A backend for these primes, with the best instruction set or the one named by [`Isa::VARIABLE`].
    pub fn new(tables: Arc<RnsTables>) -> Result<Self> {
        Ok(Self::with_isa(tables, Isa::detect()?))
    }

    /// A backend for these primes with a given instruction set.
    pub fn with_isa(tables: Arc<RnsTables>, isa: Isa) -> Self {
        let ntt_isa = isa.for_degree(tables.degree());
        Self { tables, isa, ntt_isa }
    }

    fn forward(&self, limb: &mut [u32], id: LimbId) {
        // SAFETY: a limb has N words; `ntt_isa` suits the degree.
        unsafe { ntt::forward(self.ntt_isa, limb.as_ptr(), limb.as_mut_ptr(), self.tables.ntt(id)) }
    }

    fn inverse(&self, limb: &mut [u32], id: LimbId) {
        // SAFETY: a limb has N words; `ntt_isa` suits the degree.
        unsafe { ntt::inverse(self.ntt_isa, limb.as_ptr(), limb.as_mut_ptr(), self.tables.ntt(id), 1) }
    }

    fn modulus(&self, basis: &Basis, limb: usize) -> &Modulus {
        self.tables.modulus(basis.limbs()[limb])
    }

    fn fresh(&self, shape: Shape) -> AlignedWords {
        AlignedWords::zeroed(shape.words())
    }

    /// Runs `f(poly, limb, words)` over all limbs of `words`, in parallel.
    fn each_limb(&self, words: &mut [u32], limbs: usize, f: impl Fn(usize, usize, &mut [u32]) + Sync) {
        words.par_chunks_mut(self.tables.degree()).enumerate().for_each(|(i, limb)| f(i / limbs, i % limbs, limb));
    }

    /// A new buffer from `f(modulus, out, poly, limb)` over limbs.
    fn build(&self, shape: Shape, basis: &Basis, f: impl Fn(&Modulus, &mut [u32], usize, usize) + Sync) -> Buffer {
        let mut words = self.fresh(shape);
        self.each_limb(words.as_mut_slice(), shape.limbs, |p, l, out| f(self.modulus(basis, l), out, p, l));
        Buffer::from_host(shape, words)
    }

    fn zip(&self, a: &Buffer, b: &Buffer, basis: &Basis, op: &'static str, f: fn(&Modulus, u32, u32) -> u32) -> Result<Buffer> {
        let (x, y) = (self.read(a, op)?, self.read(b, op)?);
        self.check_basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            let at = (p * basis.len() + l) * n;
            for ((o, &a), &b) in out.iter_mut().zip(&x[at..]).zip(&y[at..]) {
                *o = f(m, a, b);
            }
        }))
    }

    /// The limbs of `polys` polys scaled to `y` of a conversion, coefficient domain in, plus quotients: per poly
    /// `[from][N]` and `[N]`.
    fn convert(&self, y: &mut [u32], out: &mut [u32], conversion: &BaseConversion) {
        let n = self.tables.degree();
        let (from, to) = (conversion.from.len(), conversion.to.len());
        self.each_limb(y, from.max(1), |_, l, limb| {
            base_convert::scale(limb, self.modulus(&conversion.from, l), conversion.inv_hat[l], conversion.inv_hat_shoup[l]);
        });
        let polys = out.len() / (to * n).max(1);
        let mut u = AlignedWords::zeroed(polys * n);
        self.each_limb(u.as_mut_slice(), 1, |p, _, u| base_convert::quotient(u, &y[p * from * n..][..from * n], conversion));
        let u = u.as_slice();
        self.each_limb(out, to.max(1), |p, j, out| {
            let (y, u) = (&y[p * from * n..][..from * n], &u[p * n..][..n]);
            base_convert::convert_limb(out, y, u, conversion, j, self.modulus(&conversion.to, j));
        });
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        self.isa.backend_name()
    }
    fn tables(&self) -> &Arc<RnsTables> {
        &self.tables
    }

    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        Ok(Buffer::from_host(shape, AlignedWords::zeroed(shape.words())))
    }

    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        check::words(shape, words.len(), "upload")?;
        let mut out = self.fresh(shape);
        out.as_mut_slice().copy_from_slice(words);
        Ok(Buffer::from_host(shape, out))
    }

    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables.degree());
        let mut out = self.fresh(shape);
        self.check_basis(shape, basis, "upload_ntt")?;
        self.each_limb(out.as_mut_slice(), basis.len().max(1), |p, l, limb| {
            fill(p, l, limb);
            ntt::forward(limb, self.tables.ntt(basis.limbs()[l]));
        });
        Ok(Buffer::from_host(shape, out))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        Ok(self.read(buffer, "download")?.to_vec())
    }

    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        let words = self.read(buffer, "duplicate")?;
        self.upload(buffer.shape(), words)
    }

    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        let words = self.read(src, "select")?;
        check::select(src.shape(), select, "select")?;
        let shape = Shape { polys: select.count, ..src.shape() };
        let mut out = self.fresh(shape);
        let size = shape.poly_words();
        if size > 0 {
            for (i, poly) in out.as_mut_slice().chunks_exact_mut(size).enumerate() {
                poly.copy_from_slice(&words[(select.first + i * select.stride) * size..][..size]);
            }
        }
        Ok(Buffer::from_host(shape, out))
    }

    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer> {
        let first = parts.first().map_or(Shape::new(0, 0, self.tables.degree()), |b| b.shape());
        let mut polys = 0;
        for part in parts {
            check::same(Shape { polys: part.shape().polys, ..first }, part.shape(), "concat")?;
            polys += part.shape().polys;
        }
        let shape = Shape { polys, ..first };
        let mut out = self.fresh(shape);
        let mut rest = out.as_mut_slice();
        for part in parts {
            let words = self.read(part, "concat")?;
            let (head, tail) = rest.split_at_mut(words.len());
            head.copy_from_slice(words);
            rest = tail;
        }
        Ok(Buffer::from_host(shape, out))
    }

    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.check_basis(data.shape(), basis, "ntt_forward")?;
        let words = self.write(data, "ntt_forward")?;
        self.each_limb(words, basis.len(), |_, l, limb| self.forward(limb, basis.limbs()[l]));
        Ok(())
    }

    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.check_basis(data.shape(), basis, "ntt_inverse")?;
        let words = self.write(data, "ntt_inverse")?;
        self.each_limb(words, basis.len(), |_, l, limb| self.inverse(limb, basis.limbs()[l]));
        Ok(())
    }

    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.zip(a, b, basis, "add", |m, a, b| m.add(a, b))
    }

    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        check::same(a.shape(), b.shape(), "add_assign")?;
        self.add_plain_assign(a, PolySelect { first: 0, stride: 1, count: b.shape().polys }, b, basis)
    }

    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.zip(a, b, basis, "sub", |m, a, b| m.sub(a, b))
    }

    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.zip(a, a, basis, "negate", |m, a, _| m.neg(a))
    }

    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        let x = self.read(a, "mul_constant")?;
        self.check_basis(a.shape(), basis, "mul_constant")?;
        self.check_constants(constants, basis, "mul_constant")?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            let (w, ws) = (constants[l], m.shoup(constants[l]));
            for (o, &a) in out.iter_mut().zip(&x[(p * basis.len() + l) * n..]) {
                *o = m.mul_shoup(a, w, ws);
            }
        }))
    }

    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        let op = "add_constant_assign";
        self.check_basis(a.shape(), basis, op)?;
        self.check_constants(constants, basis, op)?;
        check::select(a.shape(), select, op)?;
        let words = self.write(a, op)?;
        self.each_limb(words, basis.len(), |p, l, limb| {
            if check::selected(select, p).is_some() {
                let m = self.modulus(basis, l);
                for v in limb {
                    *v = m.add(*v, constants[l]);
                }
            }
        });
        Ok(())
    }

    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        let op = "add_plain_assign";
        self.check_basis(a.shape(), basis, op)?;
        self.check_plain(plain.shape(), basis, select.count, op)?;
        check::select(a.shape(), select, op)?;
        let y = self.read(plain, op)?;
        let words = self.write(a, op)?;
        let n = self.tables.degree();
        let polys = plain.shape().polys;
        self.each_limb(words, basis.len(), |p, l, limb| {
            if let Some(i) = check::selected(select, p) {
                let m = self.modulus(basis, l);
                for (v, &y) in limb.iter_mut().zip(&y[(i % polys * basis.len() + l) * n..]) {
                    *v = m.add(*v, y);
                }
            }
        });
        Ok(())
    }

    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "mul_plain";
        let (x, y) = (self.read(a, op)?, self.read(plain, op)?);
        self.check_basis(a.shape(), basis, op)?;
        check::even(a.shape(), op)?;
        self.check_plain(plain.shape(), basis, a.shape().polys, op)?;
        let n = self.tables.degree();
        let polys = plain.shape().polys;
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            let x = &x[(p * basis.len() + l) * n..];
            let y = &y[(p / 2 % polys * basis.len() + l) * n..];
            for ((o, &a), &b) in out.iter_mut().zip(x).zip(y) {
                *o = m.mul_mont(a, b);
            }
        }))
    }

    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "tensor";
        let (x, y) = (self.read(a, op)?, self.read(b, op)?);
        self.check_basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        check::even(a.shape(), op)?;
        let n = self.tables.degree();
        let shape = Shape { polys: a.shape().polys / 2 * 3, ..a.shape() };
        let at = |p: usize, l: usize| (p * basis.len() + l) * n;
        Ok(self.build(shape, basis, |m, out, p, l| {
            let (s, part) = (p / 3, p % 3);
            let (i, j) = (at(2 * s, l), at(2 * s + 1, l));
            for (c, o) in out.iter_mut().enumerate() {
                *o = match part {
                    0 => m.mul(x[i + c], y[i + c]),
                    1 => m.add(m.mul(x[i + c], y[j + c]), m.mul(x[j + c], y[i + c])),
                    _ => m.mul(x[j + c], y[j + c]),
                };
            }
        }))
    }

    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "plain_inner_product";
        let (x, y) = (self.read(ct, op)?, self.read(plain, op)?);
        self.check_basis(ct.shape(), basis, op)?;
        check::even(ct.shape(), op)?;
        self.check_basis(plain.shape(), basis, op)?;
        check::terms(terms, ct.shape().polys / 2, plain.shape().polys, op)?;
        let n = self.tables.degree();
        let shape = Shape { polys: terms.len() * 2, ..ct.shape() };
        Ok(self.build(shape, basis, |m, out, p, l| {
            out.fill(0);
            for term in &terms[p / 2] {
                let x = &x[((2 * term.source + p % 2) * basis.len() + l) * n..];
                let y = &y[(term.plain * basis.len() + l) * n..];
                for ((o, &a), &b) in out.iter_mut().zip(x).zip(y) {
                    *o = m.add(*o, m.mul_mont(a, b));
                }
            }
        }))
    }

    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        let x = self.read(src, "automorphism")?;
        self.check_basis(src.shape(), basis, "automorphism")?;
        let n = self.tables.degree();
        if galois % 2 == 0 || galois as usize >= 2 * n {
            return Err(BackendError::Galois { galois, degree: n });
        }
        Ok(self.build(src.shape(), basis, |_, out, p, l| {
            automorphism::permute(out, &x[(p * basis.len() + l) * n..][..n], galois);
        }))
    }

    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        let x = self.read(src, "base_convert")?;
        self.check_basis(src.shape(), &conversion.from, "base_convert")?;
        self.check_conversion(conversion, "base_convert")?;
        let mut y = self.fresh(src.shape());
        y.as_mut_slice().copy_from_slice(x);
        let shape = Shape { limbs: conversion.to.len(), ..src.shape() };
        let mut out = self.fresh(shape);
        self.convert(y.as_mut_slice(), out.as_mut_slice(), conversion);
        Ok(Buffer::from_host(shape, out))
    }

    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &GadgetPlan) -> Result<Buffer> {
        let op = "mod_up";
        let x = self.read(src, op)?;
        self.check_basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout = self.check_plan(plan, op)?;
        let n = self.tables.degree();
        let (limbs, extended, digits) = (plan.window.len(), plan.extended.len(), plan.digits.len());
        let shape = Shape::new(select.count * digits, extended, n);
        let mut out = self.fresh(shape);
        for (k, digit) in plan.digits.iter().enumerate() {
            let conversion = &plan.mod_up[k];
            let mut y = AlignedWords::zeroed(select.count * digit.len() * n);
            self.each_limb(y.as_mut_slice(), digit.len().max(1), |s, i, y| {
                let poly = select.first + s * select.stride;
                y.copy_from_slice(&x[(poly * limbs + layout.own[k][i].0) * n..][..n]);
                self.inverse(y, digit.limbs()[i]);
            });
            let mut t = AlignedWords::zeroed(select.count * conversion.to.len() * n);
            self.convert(y.as_mut_slice(), t.as_mut_slice(), conversion);
            self.each_limb(t.as_mut_slice(), conversion.to.len().max(1), |_, j, t| {
                self.forward(t, conversion.to.limbs()[j]);
            });
            let t = t.as_slice();
            for s in 0..select.count {
                let poly = &mut out.as_mut_slice()[(s * digits + k) * extended * n..][..extended * n];
                for &(from, to) in &layout.own[k] {
                    let at = ((select.first + s * select.stride) * limbs + from) * n;
                    poly[to * n..][..n].copy_from_slice(&x[at..][..n]);
                }
                for (j, &to) in layout.converted[k].iter().enumerate() {
                    poly[to * n..][..n].copy_from_slice(&t[(s * conversion.to.len() + j) * n..][..n]);
                }
            }
        }
        Ok(Buffer::from_host(shape, out))
    }

    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &GadgetPlan) -> Result<Buffer> {
        let op = "key_inner_product";
        let (x, y) = (self.read(digits, op)?, self.read(key, op)?);
        self.check_basis(digits.shape(), &plan.extended, op)?;
        let count = plan.digits.len();
        let shards = self.check_key(digits.shape(), key.shape(), plan, op)?;
        let n = self.tables.degree();
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        let (limbs, key_limbs) = (plan.extended.len(), key.shape().limbs);
        Ok(self.build(shape, &plan.extended, |m, out, p, l| {
            out.fill(0);
            for k in 0..count {
                let x = &x[((p / 2 * count + k) * limbs + l) * n..];
                let y = &y[((plan.key_digits[k] * 2 + p % 2) * key_limbs + plan.key_limbs[l]) * n..];
                for ((o, &a), &b) in out.iter_mut().zip(x).zip(y) {
                    *o = m.add(*o, m.mul_mont(a, b));
                }
            }
        }))
    }

    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        let op = "change_basis";
        let x = self.read(src, op)?;
        self.check_basis(src.shape(), &change.source, op)?;
        let positions = self.check_change(change, op)?;
        let n = self.tables.degree();
        let (source, dropped, target) = (change.source.len(), change.dropped.len(), change.target.len());
        let mut y = AlignedWords::zeroed(src.shape().polys * dropped * n);
        self.each_limb(y.as_mut_slice(), dropped.max(1), |p, i, y| {
            y.copy_from_slice(&x[(p * source + positions[i]) * n..][..n]);
            self.inverse(y, change.dropped.limbs()[i]);
        });
        let shape = Shape { limbs: target, ..src.shape() };
        let mut out = self.fresh(shape);
        self.convert(y.as_mut_slice(), out.as_mut_slice(), &change.conversion);
        self.each_limb(out.as_mut_slice(), target.max(1), |p, j, t| {
            let limb = change.target.limbs()[j];
            let m = self.tables.modulus(limb);
            self.forward(t, limb);
            let kept = change.source_position[j].map(|from| &x[(p * source + from) * n..][..n]);
            for (c, t) in t.iter_mut().enumerate() {
                let kept = kept.map_or(0, |x| m.mul_shoup(x[c], change.keep[j], change.keep_shoup[j]));
                *t = m.sub(kept, m.mul_shoup(*t, change.tail[j], change.tail_shoup[j]));
            }
        });
        Ok(Buffer::from_host(shape, out))
    }
}
