//! Shape checks: what every kernel asks of its arguments before it touches a word.

use super::{BackendError, Buffer, KeySwitchTables, PlainTerm, PolySelect, Result, Shape};
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables, galois};

fn refuse<T>(op: &'static str, expected: String, found: String) -> Result<T> {
    Err(BackendError::Shape { op, expected, found })
}

/// Two equal shapes.
///
/// # Errors
/// [`BackendError::Shape`] where they differ.
pub fn same(a: Shape, b: Shape, op: &'static str) -> Result<()> {
    if a == b { Ok(()) } else { refuse(op, format!("{a:?}"), format!("{b:?}")) }
}

/// As many words as the shape says.
///
/// # Errors
/// [`BackendError::Shape`] where there are more or fewer.
pub fn words(shape: Shape, len: usize, op: &'static str) -> Result<()> {
    if shape.checked_words() == Some(len) {
        return Ok(());
    }
    refuse(op, format!("the words of {shape:?}"), format!("{len} words"))
}

/// The words of a shape that is yet to be made.
///
/// # Errors
/// [`BackendError::OutOfMemory`] for more than can be addressed.
pub fn room(shape: Shape, op: &'static str) -> Result<usize> {
    // Memory may be taken with a large page more, to be aligned.
    const MOST: usize = (isize::MAX as usize - (8 << 20)) / 4;
    shape.checked_words().filter(|&words| words <= MOST).ok_or(BackendError::OutOfMemory { op, bytes: usize::MAX })
}

/// A whole number of ciphertexts.
///
/// # Errors
/// [`BackendError::Shape`] for an odd number of polynomials.
pub fn even(shape: Shape, op: &'static str) -> Result<()> {
    if shape.polys.is_multiple_of(2) { Ok(()) } else { refuse(op, "an even number of polynomials".into(), format!("{shape:?}")) }
}

/// A selection within the shape, without repeats.
///
/// # Errors
/// [`BackendError::Shape`] for a polynomial beyond the last, or the same one twice.
pub fn select(shape: Shape, select: PolySelect, op: &'static str) -> Result<()> {
    let last = select.count.checked_sub(1).map(|c| c.checked_mul(select.stride).and_then(|d| d.checked_add(select.first)));
    let fits = match last {
        None => true,
        Some(None) => false,
        Some(Some(last)) => last < shape.polys && (select.count == 1 || select.stride > 0),
    };
    if fits { Ok(()) } else { refuse(op, format!("distinct polynomials below {}", shape.polys), format!("{select:?}")) }
}

/// The polynomials of some ciphertexts of a buffer, from a first one on.
///
/// # Errors
/// [`BackendError::Shape`] for a ciphertext beyond the last.
pub fn shards(shape: Shape, first: usize, count: usize, op: &'static str) -> Result<PolySelect> {
    let have = shape.polys / 2;
    if first <= have && count <= have - first {
        return Ok(PolySelect { first: 2 * first, stride: 1, count: 2 * count });
    }
    refuse(op, format!("ciphertexts below {have}"), format!("{count} from {first} on"))
}

/// The rank of polynomial `poly` in a selection.
pub fn selected(select: PolySelect, poly: usize) -> Option<usize> {
    let d = poly.checked_sub(select.first)?;
    let rank = if select.stride == 0 {
        d
    } else if d.is_multiple_of(select.stride) {
        d / select.stride
    } else {
        return None;
    };
    (rank < select.count).then_some(rank)
}

/// Terms that name existing shards and plaintexts.
///
/// # Errors
/// [`BackendError::Shape`] with the first term that names a shard or a plaintext beyond the last.
pub fn terms(terms: &[Vec<PlainTerm>], shards: usize, plains: usize, op: &'static str) -> Result<()> {
    match terms.iter().flatten().find(|t| t.source >= shards || t.plain >= plains) {
        None => Ok(()),
        Some(t) => refuse(op, format!("{shards} shards and {plains} plaintexts"), format!("{t:?}")),
    }
}

/// Parts of one shape, and constants for each; the shape.
///
/// # Errors
/// [`BackendError::Shape`] where there is no part, a part has another shape than the first, or there are not as many lists of constants
/// as parts.
pub fn combination(parts: &[&Buffer], constants: &[Vec<u32>], op: &'static str) -> Result<Shape> {
    let Some(first) = parts.first().map(|p| p.shape()) else { return refuse(op, "a part at least".into(), "none".into()) };
    parts.iter().try_for_each(|part| same(first, part.shape(), op))?;
    if parts.len() == constants.len() {
        return Ok(first);
    }
    refuse(op, format!("constants for {} parts", parts.len()), format!("for {}", constants.len()))
}

/// Pairs of one shape, of whole ciphertexts; the shape.
///
/// # Errors
/// [`BackendError::Shape`] where there is no pair, an operand has another shape than the first, or a half of a ciphertext is missing.
pub fn pairs(pairs: &[(&Buffer, &Buffer)], op: &'static str) -> Result<Shape> {
    let Some(first) = pairs.first().map(|p| p.0.shape()) else { return refuse(op, "a pair at least".into(), "none".into()) };
    even(first, op)?;
    pairs.iter().try_for_each(|(a, b)| same(first, a.shape(), op).and_then(|()| same(first, b.shape(), op)))?;
    Ok(first)
}

/// The polynomials of each part of a buffer that is cut into parts of so many.
///
/// # Errors
/// [`BackendError::Shape`] where they are not as many in all as the buffer has.
pub fn parts(shape: Shape, polys: &[usize], op: &'static str) -> Result<Vec<PolySelect>> {
    let mut first = 0usize;
    let mut selects = Vec::with_capacity(polys.len());
    for &count in polys {
        selects.push(PolySelect { first, stride: 1, count });
        first = first.saturating_add(count);
    }
    if first == shape.polys {
        return Ok(selects);
    }
    refuse(op, format!("parts of {} polynomials in all", shape.polys), format!("{polys:?}"))
}

/// How many shards each of `parts` has, of which a buffer holds all, one after the other.
///
/// # Errors
/// [`BackendError::Shape`] where there is no part, the shards cannot be shared out, or a half of a ciphertext is missing.
pub fn shards_each(shape: Shape, parts: usize, op: &'static str) -> Result<usize> {
    even(shape, op)?;
    match (shape.polys / 2).checked_div(parts).filter(|each| each * parts == shape.polys / 2) {
        Some(each) => Ok(each),
        None => refuse(op, format!("as many shards for each of {parts}, one at least"), format!("{} shards", shape.polys / 2)),
    }
}

/// How many polynomials of a selection each of `runs` has.
///
/// # Errors
/// [`BackendError::Shape`] where there is no run, or the polynomials cannot be shared out.
pub fn runs(select: PolySelect, runs: usize, op: &'static str) -> Result<usize> {
    match select.count.checked_div(runs).filter(|each| each * runs == select.count) {
        Some(each) => Ok(each),
        None => refuse(op, format!("as many polynomials for each of {runs}, one at least"), format!("{select:?}")),
    }
}

/// Where a gadget's digits stand.
#[derive(Debug)]
pub struct DigitLayout {
    /// Per digit and limb of it: (position in the window, position in the extended basis).
    pub own: Vec<Vec<(usize, usize)>>,
    /// Per digit and limb of its conversion's target: position in the extended basis.
    pub converted: Vec<Vec<usize>>,
}

impl DigitLayout {
    /// The rows of digit k's conversion whose targets lie in a range of the extended basis.
    pub fn rows(&self, k: usize, limbs: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let before = |end: usize| self.converted[k].partition_point(|&limb| limb < end);
        before(limbs.start)..before(limbs.end)
    }

    /// If the limb of the extended basis is digit k's own, its place in the window.
    pub fn own_at(&self, k: usize, limb: usize) -> Option<usize> {
        self.own[k].iter().find(|&&(_, to)| to == limb).map(|&(from, _)| from)
    }
}

/// What the kernels over some tables ask of bases, constants, conversions and keys.
#[derive(Debug, Clone, Copy)]
pub struct Checks<'a>(pub &'a RnsTables);

impl Checks<'_> {
    /// A basis of these tables, one prime for each limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] for a prime that the tables have not, and where there are more or fewer limbs than primes, or of another
    /// degree.
    pub fn basis(&self, shape: Shape, basis: &Basis, op: &'static str) -> Result<()> {
        self.limbs(basis, op)?;
        if shape.limbs == basis.len() && shape.degree == self.0.degree() {
            return Ok(());
        }
        refuse(op, format!("{} limbs of degree {}", basis.len(), self.0.degree()), format!("{shape:?}"))
    }

    fn limbs(&self, basis: &Basis, op: &'static str) -> Result<()> {
        match basis.limbs().iter().find(|l| l.index() >= self.0.len()) {
            None => Ok(()),
            Some(l) => refuse(op, format!("limb ids below {}", self.0.len()), format!("{l:?}")),
        }
    }

    /// A Galois element of the tables' degree.
    ///
    /// # Errors
    /// [`BackendError::Galois`] for an even number, or one that is not below 2N.
    pub fn galois(&self, galois: u32) -> Result<()> {
        let degree = self.0.degree();
        if galois::is_element(galois, degree) { Ok(()) } else { Err(BackendError::Galois { galois, degree }) }
    }

    /// A canonical constant for each limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there are more or fewer than limbs, or one is not below its modulus.
    pub fn constants(&self, constants: &[u32], basis: &Basis, op: &'static str) -> Result<()> {
        let canonical = constants.iter().zip(basis.limbs()).all(|(&c, &l)| c < self.0.modulus(l).value());
        if constants.len() == basis.len() && canonical {
            return Ok(());
        }
        refuse(op, format!("{} canonical constants", basis.len()), format!("{constants:?}"))
    }

    /// Plaintext polynomials over the basis; at least one if any is read.
    ///
    /// # Errors
    /// [`BackendError::Shape`] as [`Self::basis`], and where there is none to be read.
    pub fn plain(&self, plain: Shape, basis: &Basis, readers: usize, op: &'static str) -> Result<()> {
        self.basis(plain, basis, op)?;
        if plain.polys > 0 || readers == 0 { Ok(()) } else { refuse(op, "a plaintext".into(), format!("{plain:?}")) }
    }

    /// Plaintexts for an inner product: over the basis, of the ring's degree or a power of two below it.
    ///
    /// # Errors
    /// [`BackendError::Shape`] as [`Self::basis`], but for a lower power of two as the degree.
    pub fn factors(&self, plain: Shape, basis: &Basis, op: &'static str) -> Result<()> {
        let degree = if plain.degree.is_power_of_two() { plain.degree.max(self.0.degree()) } else { plain.degree };
        self.basis(Shape { degree, ..plain }, basis, op)
    }

    /// Ciphertexts over the basis, and terms that name them and `plains` plaintexts; the shape of the result, a ciphertext for each
    /// list of terms.
    ///
    /// # Errors
    /// [`BackendError::Shape`] as [`Self::basis`], [`even`] and [`terms`](fn@terms).
    pub fn inner_product(
        &self,
        ct: Shape,
        plains: usize,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
        op: &'static str,
    ) -> Result<Shape> {
        self.basis(ct, basis, op)?;
        even(ct, op)?;
        self::terms(terms, ct.polys / 2, plains, op)?;
        Ok(Shape { polys: terms.len() * 2, ..ct })
    }

    /// As many constants as the limbs need.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the tables lack a prime, or there are more or fewer constants.
    pub fn conversion(&self, c: &BaseConversion, op: &'static str) -> Result<()> {
        self.limbs(&c.from, op)?;
        self.limbs(&c.to, op)?;
        let (from, to) = (c.from.len(), c.to.len());
        let lengths = [c.inv_hat.len(), c.inv_hat_shoup.len(), c.reciprocal.len(), c.neg_product.len(), c.matrix.len()];
        if lengths == [from, from, from, to, to * from] {
            return Ok(());
        }
        refuse(op, format!("conversion constants for {from} to {to} limbs"), format!("{lengths:?}"))
    }

    /// Positions of the dropped limbs in the source.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the tables lack a prime, a dropped prime or a kept place is not in the source, the conversion is
    /// not from the dropped primes to the target, or there are more or fewer constants than limbs.
    pub fn change(&self, c: &BasisChange, op: &'static str) -> Result<Vec<usize>> {
        self.limbs(&c.source, op)?;
        self.limbs(&c.target, op)?;
        self.conversion(&c.conversion, op)?;
        let target = c.target.len();
        let lengths = [c.source_position.len(), c.keep.len(), c.keep_shoup.len(), c.tail.len(), c.tail_shoup.len()];
        let positions: Option<Vec<_>> = c.dropped.limbs().iter().map(|&l| c.source.position(l)).collect();
        match positions {
            Some(positions)
                if lengths == [target; 5]
                    && c.conversion.from == c.dropped
                    && c.conversion.to == c.target
                    && c.source_position.iter().flatten().all(|&p| p < c.source.len()) =>
            {
                Ok(positions)
            }
            _ => refuse(op, format!("a basis change to {target} limbs"), format!("{lengths:?} constants")),
        }
    }

    /// Positions of all digits of a plan.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the tables lack a prime, a prime is in the extended basis twice, the digits are not all of the window,
    /// each limb once, or a conversion is not from its digit to the rest of the extended basis.
    pub fn plan(&self, plan: &KeySwitchTables, op: &'static str) -> Result<DigitLayout> {
        self.limbs(&plan.extended, op)?;
        if plan.mod_up.len() != plan.digits.len() {
            return refuse(op, format!("{} conversions", plan.digits.len()), format!("{}", plan.mod_up.len()));
        }
        let extended = plan.extended.limbs();
        if let Some(i) = (1..extended.len()).find(|&i| extended[..i].contains(&extended[i])) {
            return refuse(op, "distinct primes".into(), format!("{:?} twice", extended[i]));
        }
        let mut layout = DigitLayout { own: Vec::new(), converted: Vec::new() };
        for (digit, conversion) in plan.digits.iter().zip(&plan.mod_up) {
            self.conversion(conversion, op)?;
            let own: Option<Vec<_>> =
                digit.limbs().iter().map(|&l| Some((plan.window.position(l)?, plan.extended.position(l)?))).collect();
            let converted: Option<Vec<_>> = conversion.to.limbs().iter().map(|&l| plan.extended.position(l)).collect();
            match (own, converted) {
                (Some(own), Some(converted)) if conversion.from == *digit && conversion.to == plan.extended.minus(digit) => {
                    layout.own.push(own);
                    layout.converted.push(converted);
                }
                _ => return refuse(op, "digits of the window, converted to the rest".into(), format!("{digit:?}")),
            }
        }
        // Kernels write each limb of the window where its digit says, in parallel: none may be written twice or left out.
        let mut times = vec![0; plan.window.len()];
        layout.own.iter().flatten().for_each(|&(at, _)| times[at] += 1);
        if times.iter().any(|&times| times != 1) {
            return refuse(op, "digits with each limb of the window once".into(), format!("{:?}", plan.digits));
        }
        Ok(layout)
    }

    /// How many shards there are in `digits`, for a key that fits the plan.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the digits are not whole shards, or the plan names a digit or a limb that the key has not.
    pub fn key(&self, digits: Shape, key: Shape, plan: &KeySwitchTables, op: &'static str) -> Result<usize> {
        let count = plan.digits.len();
        let fits = count > 0
            && digits.polys.is_multiple_of(count)
            && plan.key_digits.len() == count
            && plan.key_limbs.len() == plan.extended.len()
            && plan.key_digits.iter().all(|&k| 2 * k + 1 < key.polys)
            && plan.key_limbs.iter().all(|&l| l < key.limbs)
            && key.degree == digits.degree;
        if fits {
            return Ok(digits.polys / count);
        }
        refuse(
            op,
            format!("a key and whole shards for {count} digits and {} limbs", plan.extended.len()),
            format!("digits {digits:?}, key {key:?}"),
        )
    }
}
