//! The composed calls by their definitions, kernel after kernel: what a backend without kernels of its own for them runs, and what
//! others are tested against.

use super::{
    Backend, Buffer, HoistedRotations, HornerStep, KeyRotation, KeySwitchTables, PlainTerm, PolySelect, Result, Rotation, check,
};
use crate::math::BasisChange;

/// [`Backend::rotate_sum`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::rotate_sum`].
pub fn rotate_sum_by_steps<B: Backend + ?Sized>(
    backend: &B,
    step: &HornerStep<'_>,
    rotation: KeyRotation<'_>,
    plan: &KeySwitchTables,
) -> Result<Buffer> {
    let op = "rotate_sum";
    let &HornerStep { x, first, plus, first_plus, shards } = step;
    let from = check::shards(x.shape(), first, shards, op)?;
    let halves = |half: usize| PolySelect { first: from.first + half, stride: 2, count: shards };
    let second = backend.change_basis(&backend.select(x, halves(1))?, &plan.mod_down)?;
    let digits = backend.mod_up(&second, PolySelect::all(second.shape()), plan)?;
    drop(second);
    let mut sum = backend.rotate_extended(&digits, &backend.select(x, halves(0))?, rotation, plan)?;
    let plus = backend.select(plus, check::shards(plus.shape(), first_plus, shards, op)?)?;
    backend.add_assign(&mut sum, &plus, &plan.extended)?;
    Ok(sum)
}

/// [`Backend::rotate_digits`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::rotate_digits`].
pub fn rotate_digits_by_steps<B: Backend + ?Sized>(
    backend: &B,
    ct: &Buffer,
    digits: &Buffer,
    rotations: &[Rotation<'_>],
    plan: &KeySwitchTables,
) -> Result<Buffer> {
    let halves = PolySelect { first: 0, stride: 2, count: ct.shape().polys / 2 };
    let first = backend.select(ct, halves)?;
    let mut rotated = Vec::with_capacity(rotations.len());
    for rotation in rotations {
        rotated.push(match rotation.key {
            None => backend.duplicate(ct)?,
            Some(key) => {
                let extended = backend.key_inner_product(digits, key, plan)?;
                let mut switched = backend.change_basis(&extended, &plan.mod_down)?;
                backend.add_plain_assign(&mut switched, halves, &first, &plan.window)?;
                backend.automorphism(&switched, rotation.galois, &plan.window)?
            }
        });
    }
    backend.concat(&rotated.iter().collect::<Vec<_>>())
}

/// [`Backend::rotate_digits_extended`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::rotate_digits_extended`].
pub fn rotate_digits_extended_by_steps<B: Backend + ?Sized>(
    backend: &B,
    ct: &Buffer,
    digits: &Buffer,
    rotations: &[Rotation<'_>],
    lift: &BasisChange,
    plan: &KeySwitchTables,
) -> Result<Buffer> {
    let halves = PolySelect { first: 0, stride: 2, count: ct.shape().polys / 2 };
    let first = backend.change_basis(&backend.select(ct, halves)?, lift)?;
    let mut rotated = Vec::with_capacity(rotations.len());
    for rotation in rotations {
        rotated.push(match rotation.key {
            None => backend.change_basis(ct, lift)?,
            Some(key) => backend.rotate_extended(digits, &first, KeyRotation { galois: rotation.galois, key }, plan)?,
        });
    }
    backend.concat(&rotated.iter().collect::<Vec<_>>())
}

/// [`Backend::rotated_inner_product`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::rotated_inner_product`].
pub fn rotated_inner_product_by_steps<B: Backend + ?Sized>(
    backend: &B,
    hoisted: HoistedRotations<'_>,
    plan: &KeySwitchTables,
    plain: &Buffer,
    terms: &[Vec<PlainTerm>],
) -> Result<Buffer> {
    let HoistedRotations { ct, digits, rotations, lift } = hoisted;
    let rotated = backend.rotate_digits_extended(ct, digits, rotations, lift, plan)?;
    backend.plain_inner_product(&rotated, plain, terms, &plan.extended)
}

/// [`Backend::change_basis_adding`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::change_basis_adding`].
pub fn change_basis_adding_by_steps<B: Backend + ?Sized>(
    backend: &B,
    src: &Buffer,
    change: &BasisChange,
    constants: &[Vec<u32>],
) -> Result<Buffer> {
    check::shards_each(src.shape(), constants.len(), "change_basis")?;
    let mut divided = backend.change_basis(src, change)?;
    let halves = PolySelect { first: 0, stride: 2, count: src.shape().polys / 2 };
    backend.add_constants_assign(&mut divided, halves, constants, &change.target)?;
    Ok(divided)
}

/// [`Backend::rotated_sum`] by its definition, kernel after kernel.
///
/// # Errors
/// As [`Backend::rotated_sum`].
pub fn rotated_sum_by_steps<B: Backend + ?Sized>(
    backend: &B,
    ct: &Buffer,
    plus: Option<&Buffer>,
    rotations: &[KeyRotation<'_>],
    lift: &BasisChange,
    plan: &KeySwitchTables,
) -> Result<Buffer> {
    let shards = check::shards_each(ct.shape(), rotations.len(), "rotated_sum")?;
    let turned = |(r, &rotation): (usize, &KeyRotation<'_>)| {
        let half = |half: usize| PolySelect { first: 2 * shards * r + half, stride: 2, count: shards };
        let digits = backend.mod_up(ct, half(1), plan)?;
        let first = backend.change_basis(&backend.select(ct, half(0))?, lift)?;
        backend.rotate_extended(&digits, &first, rotation, plan)
    };
    let mut sum = turned((0, &rotations[0]))?;
    for rotation in rotations.iter().enumerate().skip(1) {
        backend.add_assign(&mut sum, &turned(rotation)?, &plan.extended)?;
    }
    if let Some(plus) = plus {
        backend.add_assign(&mut sum, &backend.change_basis(plus, lift)?, &plan.extended)?;
    }
    Ok(sum)
}
