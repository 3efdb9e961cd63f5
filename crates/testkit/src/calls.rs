//! Every call of the backends' contract, on operands that they must agree on.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use crate::kernels::{Fill, words};
use cipherlens::backend::{
    Backend, Buffer, Coefficients, Combination, HoistedRotations, HornerStep, KeyRotation, KeySwitchTables, PlainSource,
    PlainTerm, PolySelect, Rotation, Shape,
};
use cipherlens::math::{BaseConversion, Basis, BasisChange, RnsTables};
use rand::{RngExt, rngs::StdRng};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Plaintexts from integer coefficients, residues by 128-bit arithmetic.
#[derive(Debug)]
pub struct Integers<'a> {
    pub values: Vec<f64>,
    pub stored: usize,
    pub tables: &'a RnsTables,
    pub basis: &'a Basis,
    pub sent: bool,
}

impl Integers<'_> {
    pub fn random<'a>(tables: &'a RnsTables, basis: &'a Basis, plains: usize, stored: usize, rng: &mut StdRng) -> Integers<'a> {
        let mut values: Vec<f64> = (0..plains * stored)
            .map(|i| {
                let bits = [3, 20, 31, 32, 33, 40, 52, 53][i % 8];
                let magnitude = rng.random_range(0..1u64 << bits) as f64;
                if rng.random::<bool>() { magnitude } else { -magnitude }
            })
            .collect();
        let edges = [0.0, -0.0, 1.0, -1.0, 9_007_199_254_740_991.0, -9_007_199_254_740_991.0, 4_294_967_296.0, 4_294_967_295.0];
        values[..8].copy_from_slice(&edges);
        Integers { values, stored, tables, basis, sent: true }
    }
}

impl PlainSource for Integers<'_> {
    fn residues(&self, plain: usize, limb: usize, words: &mut [u32]) {
        let m = self.tables.modulus(self.basis.limbs()[limb]);
        let (n, stored) = (words.len(), self.stored);
        let residue = |x: f64| ((x as i128) << 32).rem_euclid(i128::from(m.value())) as u32;
        for (k, word) in words.iter_mut().enumerate() {
            let x = &self.values[plain * stored..][..stored];
            *word = if k < stored {
                residue(x[k])
            } else if n - k < stored {
                residue(-x[n - k])
            } else {
                0
            };
        }
    }
    fn coefficients(&self) -> Option<Coefficients<'_>> {
        self.sent.then_some(Coefficients { values: &self.values, stored: self.stored })
    }
}

/// What [`every_call`] works on.
#[derive(Debug)]
pub struct Case {
    pub tables: Arc<RnsTables>,
    pub plan: KeySwitchTables,
    pub shards: usize,
    /// Words of ciphertexts, plaintexts and (where the key's limbs are those of the plan) keys.
    pub fill: Fill,
}

/// What is done with a call's name, and with the call on a backend.
pub type Check<'a> = &'a dyn Fn(&str, &dyn Fn(&dyn Backend) -> Buffer);

/// Every call of the contract on some shards.
pub fn every_call(case: &Case, rng: &mut StdRng, check: Check<'_>) {
    let &Case { tables: ref t, ref plan, shards, fill } = case;
    let (n, basis) = (t.degree(), &plan.window);
    let limbs = basis.len();
    let key_shape = Shape::new(2 * (plan.key_digits.iter().max().unwrap() + 1), plan.key_limbs.iter().max().unwrap() + 1, n);
    let ct_shape = Shape::new(2 * shards, limbs, n);
    let a = words(t, basis, 2 * shards, fill, rng);
    let b = words(t, basis, 2 * shards, fill, rng);
    let mut key_words = || match key_shape.limbs == plan.extended.len() {
        true => words(t, &plan.extended, key_shape.polys, fill, rng),
        // Values below 2^24 are canonical for every prime.
        false => (0..key_shape.words()).map(|_| rng.random_range(0..1 << 24)).collect(),
    };
    let keys: Vec<Vec<u32>> = vec![key_words(), key_words()];
    let constants: Vec<_> = basis.limbs().iter().map(|&l| rng.random_range(0..t.modulus(l).value())).collect();
    let x = |g: &dyn Backend| g.upload(ct_shape, &a).unwrap();
    let y = |g: &dyn Backend| g.upload(ct_shape, &b).unwrap();
    let halves = |g: &dyn Backend| g.select(&y(g), PolySelect { first: 0, stride: 2, count: shards }).unwrap();
    let one = |g: &dyn Backend| g.select(&y(g), PolySelect { first: 1, stride: 1, count: 1 }).unwrap();
    let select = PolySelect { first: 1, stride: 2, count: shards };
    let key = |g: &dyn Backend, i: usize| g.upload(key_shape, &keys[i]).unwrap();
    let galois = [5, 2 * n as u32 - 1];

    check("alloc", &|g| g.alloc(ct_shape).unwrap());
    check("alloc_key", &|g| g.alloc_key(key_shape).unwrap());
    check("upload", &x);
    check("upload_ntt", &|g| {
        let limb = |poly: usize, limb: usize| &a[(poly * limbs + limb) * n..][..n];
        g.upload_ntt(2 * shards, basis, &|p, l, words| words.copy_from_slice(limb(p, l))).unwrap()
    });
    check("select", &|g| g.select(&x(g), select).unwrap());
    check("concat", &|g| g.concat(&[&one(g), &x(g), &halves(g)]).unwrap());
    check("forward", &|g| {
        let mut x = x(g);
        g.ntt_forward(&mut x, basis).unwrap();
        x
    });
    check("inverse", &|g| {
        let mut x = x(g);
        g.ntt_inverse(&mut x, basis).unwrap();
        x
    });
    check("add", &|g| g.add(&x(g), &y(g), basis).unwrap());
    check("sub", &|g| g.sub(&x(g), &y(g), basis).unwrap());
    check("negate", &|g| g.negate(&x(g), basis).unwrap());
    check("mul_constant", &|g| g.mul_constant(&x(g), &constants, basis).unwrap());
    check("tensor", &|g| g.tensor(&x(g), &y(g), basis).unwrap());
    check("mul_plain by each", &|g| g.mul_plain(&x(g), &halves(g), basis).unwrap());
    check("mul_plain by one", &|g| g.mul_plain(&x(g), &one(g), basis).unwrap());
    check("add_assign", &|g| {
        let mut x = x(g);
        g.add_assign(&mut x, &y(g), basis).unwrap();
        x
    });
    check("add_constant_assign", &|g| {
        let mut x = x(g);
        g.add_constant_assign(&mut x, select, &constants, basis).unwrap();
        x
    });
    let mut numbers =
        |basis: &Basis| -> Vec<u32> { basis.limbs().iter().map(|&l| rng.random_range(0..t.modulus(l).value())).collect() };
    let of_runs: Vec<Vec<u32>> = (0..shards).map(|_| numbers(basis)).collect();
    let factors_of: Vec<Vec<Vec<u32>>> =
        [3, 14, 1, 12].iter().map(|&parts| (0..parts).map(|_| numbers(basis)).collect()).collect();
    for runs in [1, shards] {
        check(&format!("add_constants_assign of {runs}"), &|g| {
            let mut x = x(g);
            let halves = PolySelect { first: 0, stride: 2, count: shards };
            g.add_constants_assign(&mut x, halves, &of_runs[..runs], basis).unwrap();
            x
        });
    }
    // Of few limbs, which a device converts as it reads them, and of more.
    for kept in
        BTreeSet::from([1, limbs / 2, limbs - 2.min(limbs), limbs - 1]).into_iter().filter(|&kept| kept > 0 && kept < limbs)
    {
        let target = Basis::new(basis.limbs()[..kept].iter().copied());
        let (change, runs) = (BasisChange::new(t, basis, &target), [numbers(&target), numbers(&target)]);
        check(&format!("change_basis_adding to {kept} limbs"), &|g| {
            let x = g.concat(&[&x(g), &y(g)]).unwrap();
            g.change_basis_adding(&x, &change, &runs).unwrap()
        });
    }
    for plain in [&halves as &dyn Fn(&dyn Backend) -> Buffer, &one] {
        check("add_plain_assign", &|g| {
            let mut x = x(g);
            g.add_plain_assign(&mut x, select, &plain(g), basis).unwrap();
            x
        });
    }
    check("automorphism", &|g| g.automorphism(&x(g), galois[0], basis).unwrap());
    check("base_convert", &|g| {
        let conversion = BaseConversion::new(t, basis, &plan.special, |_| 77);
        g.base_convert(&x(g), &conversion).unwrap()
    });
    let lift = BasisChange::new(t, basis, &plan.extended);
    check("change_basis up", &|g| g.change_basis(&x(g), &lift).unwrap());
    let of_one = vec![plan.extended.limbs().iter().map(|&l| t.modulus(l).value() - 1).collect()];
    check("change_basis_adding up", &|g| g.change_basis_adding(&x(g), &lift, &of_one).unwrap());
    if limbs > 1 {
        let rescale = BasisChange::new(t, basis, &Basis::new(basis.limbs()[..limbs - 1].iter().copied()));
        check("change_basis down", &|g| g.change_basis(&x(g), &rescale).unwrap());
    }
    let plains = 5;
    let p = words(t, basis, plains, fill, rng);
    let terms: Vec<Vec<PlainTerm>> = [0, 1, 17, 3, 5]
        .iter()
        .map(|&k| {
            let mut term = || PlainTerm { plain: rng.random_range(0..plains), source: rng.random_range(0..shards) };
            (0..k).map(|_| term()).collect()
        })
        .collect();
    check("plain_inner_product", &|g| {
        let p = g.upload(Shape::new(plains, limbs, n), &p).unwrap();
        g.plain_inner_product(&x(g), &p, &terms, basis).unwrap()
    });
    let short: Vec<u32> = p.chunks(n).flat_map(|limb| limb[..n / 8].to_vec()).collect();
    check("plain_inner_product of a lower degree", &|g| {
        let p = g.upload(Shape::new(plains, limbs, n / 8), &short).unwrap();
        g.plain_inner_product(&x(g), &p, &terms, basis).unwrap()
    });
    for stored in [n, n / 2] {
        let mut source = Integers::random(t, basis, plains, stored, rng);
        for sent in [true, false] {
            source.sent = sent;
            let call = format!("encoded_inner_product of {stored}, sent {sent}");
            check(&call, &|g| g.encoded_inner_product(&x(g), plains, &source, &terms, basis).unwrap());
            check(&format!("encode_plain of {stored}, sent {sent}"), &|g| g.encode_plain(plains, &source, basis).unwrap());
            check(&format!("{call}, kept"), &|g| match g.keep_integers(plains, &source).unwrap() {
                Some(kept) => g.kept_inner_product(&x(g), &kept, &terms, basis).unwrap(),
                None => g.encoded_inner_product(&x(g), plains, &source, &terms, basis).unwrap(),
            });
        }
    }
    let digits = |g: &dyn Backend| g.mod_up(&x(g), select, plan).unwrap();
    check("mod_up", &digits);
    check("key_inner_product", &|g| g.key_inner_product(&digits(g), &key(g, 0), plan).unwrap());
    check("key_switch", &|g| g.key_switch(&x(g), select, &key(g, 0), plan).unwrap());
    check("key_switch of all", &|g| g.key_switch(&x(g), PolySelect::all(ct_shape), &key(g, 0), plan).unwrap());
    check("rotate", &|g| g.rotate(&x(g), KeyRotation { galois: galois[0], key: &key(g, 0) }, plan).unwrap());
    check("rotate_digits", &|g| {
        let keys = [key(g, 0), key(g, 1)];
        let rotation = |galois, key| Rotation { galois, key };
        let rotations = [
            rotation(galois[0], Some(&keys[0])),
            rotation(galois[1], Some(&keys[1])),
            rotation(1, None),
            rotation(galois[1], Some(&keys[0])),
        ];
        g.rotate_digits(&x(g), &digits(g), &rotations, plan).unwrap()
    });
    check("rotate_digits_extended", &|g| {
        let keys = [key(g, 0), key(g, 1)];
        let rotation = |galois, key| Rotation { galois, key };
        let rotations = [rotation(galois[0], Some(&keys[0])), rotation(1, None), rotation(galois[1], Some(&keys[1]))];
        g.rotate_digits_extended(&x(g), &digits(g), &rotations, &lift, plan).unwrap()
    });
    check("relinearize_extended", &|g| {
        let product = g.tensor(&x(g), &y(g), basis).unwrap();
        g.relinearize_extended(&product, &key(g, 0), &lift, plan).unwrap()
    });
    check("tensor_sum", &|g| {
        let (x, y) = (x(g), y(g));
        g.tensor_sum(&[(&x, &y), (&y, &y), (&x, &x)], basis).unwrap()
    });
    check("tensor_sum of pairs again", &|g| {
        let (x, y) = (x(g), y(g));
        g.tensor_sum(&[(&x, &y), (&x, &y), (&x, &x), (&x, &y)], basis).unwrap()
    });
    // Parts share a block on a device, and change apart: beside each other, and beside what was selected or duplicated before.
    check("split, then changed", &|g| {
        let whole = g.concat(&[&x(g), &y(g), &x(g)]).unwrap();
        let seen = g.select(&whole, PolySelect { first: 0, stride: 1, count: 2 * shards }).unwrap();
        let copy = g.duplicate(&whole).unwrap();
        let mut parts = g.split(whole, &[2 * shards; 3]).unwrap();
        let (mut a, b, mut c) = (parts.remove(0), parts.remove(0), parts.remove(0));
        g.add_constant_assign(&mut a, select, &constants, basis).unwrap();
        g.add_assign(&mut c, &b, basis).unwrap();
        g.ntt_forward(&mut c, basis).unwrap();
        g.concat(&[&a, &b, &c, &seen, &copy]).unwrap()
    });
    check("split of what is held alone", &|g| {
        let whole = g.add(&x(g), &y(g), basis).unwrap();
        let mut parts = g.split(whole, &[2, 2 * shards - 2]).unwrap();
        let (mut a, mut b) = (parts.remove(0), parts.remove(0));
        let first = PolySelect { first: 0, stride: 1, count: 1 };
        g.add_constant_assign(&mut a, first, &constants, basis).unwrap();
        let one = g.select(&a, first).unwrap();
        g.add_plain_assign(&mut a, PolySelect { first: 1, ..first }, &one, basis).unwrap();
        g.ntt_inverse(&mut b, basis).unwrap();
        g.concat(&[&a, &b, &one]).unwrap()
    });
    check("tensor_sums", &|g| {
        let (x, y) = (x(g), y(g));
        g.tensor_sums(&[vec![(&x, &y), (&x, &y)], vec![(&y, &y)], vec![(&x, &y), (&x, &x), (&y, &y)]], basis).unwrap()
    });
    // More ciphertexts than one dispatch reads, more pairs in a sum than are summed before they are reduced, and a sum that is too large.
    let pairs_of: [&[(usize, usize)]; 5] = [
        &[(0, 1), (2, 3), (4, 0), (0, 1), (1, 1)],
        &[(5, 6)],
        &[(7, 8), (9, 10), (11, 11)],
        &[(12, 0), (13, 1)],
        &[(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)],
    ];
    // Ciphertexts of their own in the memory of two.
    let many = |g: &dyn Backend| -> Vec<Buffer> {
        let both = [x(g), y(g)];
        (0..14).map(|i| g.duplicate(&both[i % 2]).unwrap()).collect()
    };
    check("tensor_sums of many", &|g| {
        let all = many(g);
        let sums = pairs_of.map(|pairs| pairs.iter().map(|&(a, b)| (&all[a], &all[b])).collect());
        g.tensor_sums(&sums, basis).unwrap()
    });
    check("linear_combinations of many", &|g| {
        let all = many(g);
        let sum = |constants: &Vec<Vec<u32>>| {
            // One of them twice.
            let parts = (0..constants.len()).map(|i| &all[if i == 2 { 0 } else { i }]).collect();
            Combination { parts, constants: constants.clone() }
        };
        g.linear_combinations(&factors_of.iter().map(sum).collect::<Vec<_>>(), basis).unwrap()
    });
    check("linear_combinations", &|g| {
        let (x, y) = (x(g), y(g));
        let sum = |parts: Vec<_>| Combination { constants: vec![constants.clone(); parts.len()], parts };
        g.linear_combinations(&[sum(vec![&x]), sum(vec![&x, &y, &y, &x, &x, &y, &y])], basis).unwrap()
    });
    for parts in [1, 2, 5, 6, 11] {
        let factors: Vec<Vec<u32>> =
            (0..parts).map(|_| basis.limbs().iter().map(|&l| rng.random_range(0..t.modulus(l).value())).collect()).collect();
        check(&format!("linear_combination of {parts}"), &|g| {
            let (x, y) = (x(g), y(g));
            let parts: Vec<&Buffer> = [&x, &y, &y].into_iter().cycle().take(parts).collect();
            g.linear_combination(&parts, &factors, basis).unwrap()
        });
    }
    // More rotations than one dispatch has keys for.
    check("rotate_digits by many", &|g| {
        let keys = [key(g, 0), key(g, 1)];
        let rotations: Vec<_> = (0..11).map(|i| Rotation { galois: galois[i % 2], key: Some(&keys[i / 2 % 2]) }).collect();
        g.rotate_digits(&x(g), &digits(g), &rotations, plan).unwrap()
    });
    // Rotations that are multiplied where they are made: one without a key or none, more than there are keys for, plaintexts of a lower
    // degree, sums that not all rotations are in, more than one dispatch makes; and terms that are not alike for all shards.
    for (count, unkeyed, sums, repeat, alike) in
        [(3, true, 2, 1, true), (11, true, 5, 4, true), (9, false, 8, 1, true), (4, true, 9, 1, true), (3, true, 2, 1, false)]
    {
        if count.max(sums) * shards > 24 {
            // More than a device with little memory holds of a call by its steps.
            continue;
        }
        let plains = count * sums;
        let wide = Shape::new(plains, plan.extended.len(), n / repeat);
        let factors: Vec<u32> =
            words(t, &plan.extended, plains, fill, rng).chunks(n).flat_map(|limb| limb[..n / repeat].to_vec()).collect();
        let mut terms: Vec<Vec<PlainTerm>> = Vec::new();
        for sum in 0..sums {
            for s in 0..shards {
                let term = |r: usize| PlainTerm { plain: sum * count + r, source: r * shards + s };
                terms.push((0..count).filter(|r| (r + sum) % 3 != 1 || sums == 1).map(term).collect());
            }
        }
        if !alike {
            terms[0].push(PlainTerm { plain: 0, source: 0 });
        }
        check(&format!("rotated_inner_product of {count} to {sums}"), &|g| {
            let keys = [key(g, 0), key(g, 1)];
            let rotation = |i: usize| Rotation { galois: galois[i % 2], key: Some(&keys[i / 2 % 2]) };
            let mut rotations: Vec<_> = (0..count).map(rotation).collect();
            if unkeyed {
                rotations[count / 2] = Rotation { galois: 1, key: None };
            }
            let (x, digits, plain) = (x(g), digits(g), g.upload(wide, &factors).unwrap());
            let hoisted = HoistedRotations { ct: &x, digits: &digits, rotations: &rotations, lift: &lift };
            g.rotated_inner_product(hoisted, plan, &plain, &terms).unwrap()
        });
    }
    for rotations in [1, 2, 10] {
        check(&format!("rotated_sum of {rotations}"), &|g| {
            let keys = [key(g, 0), key(g, 1)];
            let rotation = |i: usize| KeyRotation { galois: galois[i / 3 % 2], key: &keys[i % 2] };
            let rotations: Vec<_> = (0..rotations).map(rotation).collect();
            let (x, y) = (x(g), y(g));
            let parts: Vec<&Buffer> = (0..rotations.len()).map(|i| if i % 3 == 1 { &y } else { &x }).collect();
            let plus = (rotations.len() != 2).then_some(&y);
            g.rotated_sum(&g.concat(&parts).unwrap(), plus, &rotations, &lift, plan).unwrap()
        });
    }
    check("sub_assign", &|g| {
        let mut difference = x(g);
        g.sub_assign(&mut difference, &y(g), basis).unwrap();
        difference
    });
    check("rotate_sum", &|g| {
        let lifted = g.change_basis(&x(g), &lift).unwrap();
        let rotation = KeyRotation { galois: galois[1], key: &key(g, 1) };
        let (x, shards) = (&lifted, lifted.shape().polys / 2);
        g.rotate_sum(&HornerStep { x, first: 0, plus: x, first_plus: 0, shards }, rotation, plan).unwrap()
    });
    check("rotate_extended", &|g| {
        let lifted = g.change_basis(&halves(g), &lift).unwrap();
        g.rotate_extended(&digits(g), &lifted, KeyRotation { galois: galois[1], key: &key(g, 1) }, plan).unwrap()
    });
}
