//! Polynomials in Chebyshev basis at the least depth, `ceil(log2(degree + 1))`.
//!
//! `p = q T_h + r` with h half the padded degree (a power of two), r is split in the same way with h / 2, and so on until a remainder can
//! be summed from the `T_i` at hand (a leaf): `p = q_1 T_h + q_2 T_(h/2) + ... + leaf`. The products stand at one level, one above p, and
//! are added before the one relinearization and rescale of p; the quotients have one level less to spend than p, the leaf as many as p.
//! So only the path of first quotients must be split down to single terms (Paterson-Stockmeyer; depth argument as in Bossuat et al. 2021,
//! section 3, with the scales here always canonical). Every part is made at the level where it is used: a leaf comes there by its own
//! rescale, and nothing but powers is ever brought down.

use super::{CircuitError, Engine, Gadgets, PairSum, WeightedSum, below};
use crate::ckks::Level;
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, CircuitError>;

/// A polynomial `sum_i coefficients[i] T_i(t)` with `t = (2 x - a - b) / (b - a)`, for x in an interval `[a, b]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chebyshev {
    coefficients: Vec<f64>,
    interval: [f64; 2],
}

impl Chebyshev {
    /// From Chebyshev coefficients on `[a, b]`; trailing zeros are dropped.
    ///
    /// # Errors
    /// [`CircuitError::Polynomial`] for a coefficient that is not finite, an interval without two finite ends in order, or a constant.
    pub fn new(mut coefficients: Vec<f64>, interval: [f64; 2]) -> Result<Self> {
        if coefficients.iter().any(|c| !c.is_finite()) {
            return Err(CircuitError::Polynomial("a coefficient is not a finite number".into()));
        }
        let [a, b] = interval;
        if !(a < b && (b - a).is_finite() && (2.0 / (b - a)).is_finite()) {
            return Err(CircuitError::Polynomial(format!("[{a}, {b}] is not an interval of finite numbers")));
        }
        while coefficients.len() > 1 && coefficients.last() == Some(&0.0) {
            coefficients.pop();
        }
        if coefficients.len() < 2 {
            return Err(CircuitError::Polynomial("a constant needs no evaluation".into()));
        }
        Ok(Self { coefficients, interval })
    }

    /// From monomial coefficients, constant first, to be used on `[a, b]`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_monomial(coefficients: &[f64], interval: [f64; 2]) -> Result<Self> {
        let (middle, half) = middle_and_half(interval);
        // Horner in Chebyshev basis: t T_i = (T_{i+1} + T_{|i-1|}) / 2, with x = half t + middle.
        let mut sum: Vec<f64> = vec![0.0];
        for &c in coefficients.iter().rev() {
            let mut next = vec![0.0; sum.len() + 1];
            for (i, &s) in sum.iter().enumerate() {
                next[i] += s * middle;
                if i == 0 {
                    next[1] += s * half;
                } else {
                    next[i + 1] += s * half / 2.0;
                    next[i - 1] += s * half / 2.0;
                }
            }
            next[0] += c;
            sum = next;
        }
        Self::new(sum, interval)
    }

    /// The interpolant of `f` at the Chebyshev nodes of `[a, b]`, of a degree.
    ///
    /// # Errors
    /// As [`Self::new`]: for values of `f` that are not finite, or all alike.
    pub fn interpolate(f: impl Fn(f64) -> f64, degree: usize, interval: [f64; 2]) -> Result<Self> {
        let (middle, half) = middle_and_half(interval);
        let m = degree + 1;
        let angle = |j: usize| std::f64::consts::PI * (j as f64 + 0.5) / m as f64;
        let samples: Vec<f64> = (0..m).map(|j| f(half * angle(j).cos() + middle)).collect();
        let coefficient = |k: usize| {
            let sum: f64 = samples.iter().enumerate().map(|(j, s)| s * (k as f64 * angle(j)).cos()).sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / m as f64
        };
        Self::new((0..m).map(coefficient).collect(), interval)
    }

    /// The coefficients of `T_0, T_1, ...`; at least two.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// Where x may lie.
    pub fn interval(&self) -> [f64; 2] {
        self.interval
    }

    /// Degree.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// `factor p(x) + offset`.
    ///
    /// # Errors
    /// As [`Self::new`]: for a factor that is 0, or numbers that are not finite.
    pub fn scaled(mut self, factor: f64, offset: f64) -> Result<Self> {
        self.coefficients.iter_mut().for_each(|c| *c *= factor);
        self.coefficients[0] += offset;
        Self::new(self.coefficients, self.interval)
    }

    /// The same coefficients on another interval: `p` of an x that was mapped there.
    ///
    /// # Errors
    /// As [`Self::new`], for the interval.
    pub fn on(self, interval: [f64; 2]) -> Result<Self> {
        Self::new(self.coefficients, interval)
    }

    /// Levels consumed: `ceil(log2(degree + 1))`, and one more to scale x unless the interval has length 2 (moving it is
    /// free).
    pub fn depth(&self) -> usize {
        log2_ceil(self.coefficients.len()) + usize::from(middle_and_half(self.interval).1 != 1.0)
    }

    /// The value at a clear number (Clenshaw).
    pub fn value(&self, x: f64) -> f64 {
        let (middle, half) = middle_and_half(self.interval);
        let t = (x - middle) / half;
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in self.coefficients.iter().skip(1).rev() {
            (b1, b2) = (2.0 * t * b1 - b2 + c, b1);
        }
        t * b1 - b2 + self.coefficients[0]
    }

    /// A bound on the largest magnitude on the interval, at most 0.2 % above it: a polynomial of degree n that is at most 1 at
    /// kn Chebyshev points is at most `1 / cos(pi / 2k)` between them (Ehlich and Zeller, Math. Z. 1964).
    pub fn magnitude(&self) -> f64 {
        let (middle, half) = middle_and_half(self.interval);
        let points = 32 * self.degree();
        let at = |i: usize| middle + half * (std::f64::consts::PI * (i as f64 + 0.5) / points as f64).cos();
        let most = (0..points).map(|i| self.value(at(i)).abs()).fold(0.0, f64::max);
        most / (std::f64::consts::PI / 64.0).cos()
    }

    /// Evaluates on every slot of x; [`Self::depth`] levels. Cost: fewer than `2 sqrt(degree)` key switches, two to three
    /// rescales for each.
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] with fewer than [`Self::depth`] levels, and those of the engine's operations ([`Engine`]).
    pub fn apply<E: Engine>(&self, engine: &E, x: &E::Value, gadgets: &Gadgets) -> Result<E::Value> {
        let have = engine.level(x).0;
        if have < self.depth() {
            return Err(CircuitError::LevelsExhausted { operation: "polynomial", needed: self.depth(), have });
        }
        let target = below(engine.level(x), self.depth(), "polynomial")?;
        let (middle, half) = middle_and_half(self.interval);
        let y = if half == 1.0 {
            if middle == 0.0 { x.clone() } else { engine.add_scalar(x.clone(), -middle)? }
        } else {
            engine.weighted_sum(&[x], &[1.0 / half], -middle / half, below(engine.level(x), 1, "polynomial")?)?
        };
        let log = log2_ceil(self.coefficients.len());
        let together = engine.takes_many(engine.shards(x));
        let (powers, leaf) = (BTreeMap::from([(1, y)]), 1 << (log / 2).max(1));
        let mut basis = Basis { engine, gadgets, powers, lowered: BTreeMap::new(), leaf, together };
        let root = basis.cut(&self.coefficients, basis.top().0 - target.0);
        if together {
            basis.make_powers(&root)?;
        }
        let value = basis.evaluate(&[&root], target)?.pop();
        value.ok_or(CircuitError::Nothing { operation: "polynomial" })
    }
}

/// The Chebyshev polynomials of y at hand. `T_i` stands `ceil(log2 i)` levels below y.
struct Basis<'e, E: Engine> {
    engine: &'e E,
    gadgets: &'e Gadgets,
    powers: BTreeMap<usize, E::Value>,
    /// The same at lower levels.
    lowered: BTreeMap<(usize, Level), E::Value>,
    /// Remainders of at most this many coefficients are summed from single terms.
    leaf: usize,
    /// Whether all that stands at one level is made at once.
    together: bool,
}

impl<E: Engine> Basis<'_, E> {
    /// `T_i`.
    fn power(&mut self, i: usize) -> Result<E::Value> {
        if !self.powers.contains_key(&i) {
            let (a, b) = factors(i);
            [a, b].into_iter().chain(a.checked_sub(b).filter(|&c| c > 0)).try_for_each(|j| self.power(j).map(drop))?;
            self.powers_of_a_depth(&[i])?;
        }
        Ok(self.powers[&i].clone())
    }

    /// Powers of one depth from those above, which are at hand.
    fn powers_of_a_depth(&mut self, some: &[usize]) -> Result<()> {
        let mut operands = Vec::with_capacity(some.len());
        for &i in some {
            let (a, b) = factors(i);
            let ta = self.power(a)?;
            let tb = self.power_at(b, self.engine.level(&ta))?;
            operands.push((ta, tb));
        }
        // Doubled before it is rescaled, so that the rounding is not.
        let twice: Vec<PairSum<'_, E::Value>> = (some.iter().zip(&operands))
            .map(|(&i, (a, b))| PairSum { pairs: vec![(a, b), (a, b)], constant: if i.is_multiple_of(2) { -1.0 } else { 0.0 } })
            .collect();
        let products = self.engine.multiply_sums(&twice, self.gadgets)?;
        drop(twice);
        for (&i, twice) in some.iter().zip(products) {
            let (a, b) = factors(i);
            let value = if a == b {
                twice
            } else {
                let difference = self.power_at(a - b, self.engine.level(&twice))?;
                self.engine.sub(twice, &difference)?
            };
            self.powers.insert(i, value);
        }
        Ok(())
    }

    /// `T_i` dropped to a level, once for all who ask.
    fn power_at(&mut self, i: usize, level: Level) -> Result<E::Value> {
        let power = self.power(i)?;
        if self.engine.level(&power) == level {
            return Ok(power);
        }
        if let Some(v) = self.lowered.get(&(i, level)) {
            return Ok(v.clone());
        }
        let value = self.engine.drop_to(&power, level)?;
        self.lowered.insert((i, level), value.clone());
        Ok(value)
    }

    fn top(&self) -> Level {
        self.engine.level(&self.powers[&1])
    }

    /// Cuts `sum_i c_i T_i`, of two terms at least and of no more than two to the power of the levels to spend.
    fn cut(&self, c: &[f64], spend: usize) -> Node {
        debug_assert!((2..=1 << spend).contains(&c.len()));
        let mut node = Node { rest: c.to_vec(), ..Node::default() };
        let rest = &mut node.rest;
        while rest.len() > 2 && !(rest.len() <= self.leaf && deepest(rest) < spend) {
            let half = 1 << (log2_ceil(rest.len()) - 1);
            // rest = q T_half + r with T_{half+j} = 2 T_half T_j - T_{half-j}.
            let mut quotient = rest.split_off(half);
            for (j, q) in quotient.iter_mut().enumerate().skip(1) {
                rest[half - j] -= *q;
                *q *= 2.0;
            }
            while rest.len() > 1 && rest.last() == Some(&0.0) {
                rest.pop();
            }
            match quotient[..] {
                [constant] => node.single = Some((half, constant)),
                _ => node.quotients.push((half, self.cut(&quotient, spend - 1))),
            }
        }
        node
    }

    /// The values of some nodes, at one level: what their sums are made of first, of all of them where the engine takes many at once, else
    /// of one after the other.
    fn evaluate(&mut self, nodes: &[&Node], at: Level) -> Result<Vec<E::Value>> {
        let above = Level(at.0 + 1);
        let children: Vec<&Node> = nodes.iter().flat_map(|n| n.quotients.iter().map(|(_, q)| q)).collect();
        let mut quotients = Vec::with_capacity(children.len());
        let most = if self.together { children.len().max(1) } else { 1 };
        for some in children.chunks(most) {
            quotients.extend(self.evaluate(some, above)?);
        }
        let mut quotients = quotients.into_iter();
        // Each node's products, and what stands beside them.
        let mut products: Vec<Vec<(E::Value, E::Value)>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let with_power = node.quotients.iter().zip(&mut quotients);
            products.push(with_power.map(|((half, _), q)| Ok((q, self.power_at(*half, above)?))).collect::<Result<_>>()?);
        }
        // A constant that no leaf has.
        let alone = |node: &Node| if node.has_leaf() { 0.0 } else { node.rest[0] };
        let sums = nodes.iter().zip(&products).filter(|(_, pairs)| !pairs.is_empty());
        let some: Vec<PairSum<'_, E::Value>> =
            sums.map(|(node, p)| PairSum { pairs: p.iter().map(|(q, t)| (q, t)).collect(), constant: alone(node) }).collect();
        let mut multiplied = self.engine.multiply_sums(&some, self.gadgets)?.into_iter();
        drop(some);
        let multiplied: Vec<Option<E::Value>> =
            products.into_iter().map(|p| if p.is_empty() { None } else { multiplied.next() }).collect();
        let mut terms: Vec<Terms<E::Value>> = Vec::new();
        for (node, product) in nodes.iter().zip(&multiplied) {
            if let Some((i, factor)) = node.single {
                let constant = if product.is_none() { alone(node) } else { 0.0 };
                terms.push(Terms { values: vec![self.power(i)?], coefficients: vec![factor], constant });
            }
            if node.has_leaf() {
                terms.push(self.leaf(&node.rest)?);
            }
        }
        let sums: Vec<WeightedSum<'_, E::Value>> = terms.iter().map(Terms::sum).collect();
        let mut weighted = self.engine.weighted_sums(&sums, at)?.into_iter();
        let mut values = Vec::with_capacity(nodes.len());
        for (node, product) in nodes.iter().zip(multiplied) {
            let mut sum = product;
            let beside = usize::from(node.single.is_some()) + usize::from(node.has_leaf());
            for term in weighted.by_ref().take(beside) {
                sum = Some(match sum {
                    Some(sum) => self.engine.add(sum, &term)?,
                    None => term,
                });
            }
            values.push(sum.ok_or(CircuitError::Nothing { operation: "polynomial" })?);
        }
        Ok(values)
    }

    /// A sum of powers at hand, brought to the level of the deepest.
    fn leaf(&mut self, c: &[f64]) -> Result<Terms<E::Value>> {
        let level = below(self.top(), deepest(c), "polynomial")?;
        let terms: Vec<usize> = (1..c.len()).filter(|&i| c[i] != 0.0).collect();
        let mut values = terms.iter().map(|&i| self.power_at(i, level)).collect::<Result<Vec<_>>>()?;
        let mut coefficients: Vec<f64> = terms.iter().map(|&i| c[i]).collect();
        if values.is_empty() {
            values.push(self.powers[&1].clone());
            coefficients.push(0.0);
        }
        Ok(Terms { values, coefficients, constant: c[0] })
    }

    /// Makes the powers that nodes need, those of one depth at once.
    fn make_powers(&mut self, root: &Node) -> Result<()> {
        let mut wanted = BTreeSet::new();
        root.powers(&mut wanted);
        // What they are made of.
        let mut open: Vec<usize> = wanted.iter().copied().collect();
        while let Some(i) = open.pop() {
            if i > 1 {
                let (a, b) = factors(i);
                open.extend([a, b, a - b].into_iter().filter(|&j| j > 0 && wanted.insert(j)));
            }
        }
        let mut depths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for i in wanted.into_iter().filter(|&i| i > 1) {
            depths.entry(log2_ceil(i)).or_default().push(i);
        }
        depths.into_values().try_for_each(|some| self.powers_of_a_depth(&some))
    }
}

/// A part of a polynomial: `q_1 T_h1 + q_2 T_h2 + ... + constant T_i + rest`.
#[derive(Debug, Default)]
struct Node {
    /// h and q.
    quotients: Vec<(usize, Node)>,
    /// i and the constant.
    single: Option<(usize, f64)>,
    rest: Vec<f64>,
}

impl Node {
    /// Whether the rest is more than a constant beside something.
    fn has_leaf(&self) -> bool {
        self.rest.len() > 1 || (self.quotients.is_empty() && self.single.is_none())
    }

    /// The powers that it needs.
    fn powers(&self, wanted: &mut BTreeSet<usize>) {
        wanted.extend((1..self.rest.len()).filter(|&i| self.rest[i] != 0.0));
        wanted.extend(self.single.map(|(i, _)| i));
        for (half, quotient) in &self.quotients {
            wanted.insert(*half);
            quotient.powers(wanted);
        }
    }
}

/// A sum of values at one level that are held for it.
struct Terms<V> {
    values: Vec<V>,
    coefficients: Vec<f64>,
    constant: f64,
}

impl<V> Terms<V> {
    fn sum(&self) -> WeightedSum<'_, V> {
        WeightedSum { values: self.values.iter().collect(), coefficients: self.coefficients.clone(), constant: self.constant }
    }
}

/// What `T_i` is made of: `2 T_a T_b = T_i + T_(a-b)`, a square where i is even, else with a the largest power of two.
fn factors(i: usize) -> (usize, usize) {
    let a = if i.is_multiple_of(2) { i / 2 } else { 1 << (log2_ceil(i) - 1) };
    (a, i - a)
}

/// How many levels below y the deepest of the powers in a sum stands.
fn deepest(c: &[f64]) -> usize {
    (1..c.len()).rev().find(|&i| c[i] != 0.0).map_or(0, log2_ceil)
}

/// The middle of an interval and half its length; a length of 2 but for rounding is 2, since scaling x takes a level.
fn middle_and_half([a, b]: [f64; 2]) -> (f64, f64) {
    let half = (b - a) / 2.0;
    ((a + b) / 2.0, if (half - 1.0).abs() <= 1e-12 { 1.0 } else { half })
}

fn log2_ceil(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::super::{ClearEngine, TraceEngine, clear::ClearValue, trace::TraceValue};
    use super::*;

    const UNIT: [f64; 2] = [-1.0, 1.0];

    /// Coefficients that do not cancel when they are split.
    fn uneven(degree: usize) -> Vec<f64> {
        (0..=degree).map(|i| ((i * 7 + 3) % 11) as f64 / 11.0 - 0.4 + if i == degree { 1.0 } else { 0.0 }).collect()
    }

    fn points() -> Vec<f64> {
        (0..64).map(|i| -1.0 + 2.0 * f64::from(i) / 63.0).collect()
    }

    #[test]
    fn every_degree_gives_the_right_values_at_the_least_depth() {
        for degree in (1..=40).chain([59, 63, 64, 100, 127]) {
            for interval in [[-1.0, 1.0], [-3.0, 3.0], [-0.5, 1.5], [-1.0, 6.0]] {
                let (middle, half) = middle_and_half(interval);
                let p = Chebyshev::new(uneven(degree), interval).unwrap();
                assert_eq!(p.depth(), log2_ceil(degree + 1) + usize::from(half != 1.0));
                let xs: Vec<f64> = points().iter().map(|x| x * half + middle).collect();
                let x = ClearValue::new(vec![xs.clone()], Level(p.depth()));
                let y = p.apply(&ClearEngine, &x, &Gadgets::default()).unwrap();
                assert_eq!(y.level, Level(0), "degree {degree}");
                for (x, y) in xs.iter().zip(&y.shards[0]) {
                    assert!((p.value(*x) - y).abs() < 1e-9, "degree {degree} at {x}: {} {y}", p.value(*x));
                }
            }
        }
    }

    #[test]
    fn sparse_polynomials_and_constants_among_the_parts() {
        for (c, n) in
            [(vec![0.0, 0.0, 1.0], 3), (vec![0.5, 0.0, 0.0, 0.0, 2.0], 5), (vec![0.0, 1.0, 0.0, -0.3, 0.0, 0.1, 0.0, 0.7], 8)]
        {
            let p = Chebyshev::new(c, UNIT).unwrap();
            assert_eq!(p.degree(), n - 1);
            let y = p.apply(&ClearEngine, &ClearValue::new(vec![points()], Level(p.depth())), &Gadgets::default()).unwrap();
            for (x, y) in points().iter().zip(&y.shards[0]) {
                assert!((p.value(*x) - y).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn monomials_and_interpolants_agree_with_their_definitions() {
        let p = Chebyshev::from_monomial(&[1.0, -2.0, 0.5, 3.0], [-1.0, 3.0]).unwrap();
        for x in points() {
            let x = 2.0 * x + 1.0;
            assert!((p.value(x) - (1.0 - 2.0 * x + 0.5 * x * x + 3.0 * x * x * x)).abs() < 1e-12);
        }
        let p = Chebyshev::interpolate(f64::exp, 15, [-1.5, 1.5]).unwrap();
        assert!(points().iter().all(|x| (p.value(1.5 * x) - (1.5 * x).exp()).abs() < 1e-11));
        let p = Chebyshev::interpolate(f64::exp, 15, [-1.0, 2.0]).unwrap().scaled(2.0, 1.0).unwrap();
        assert!(points().iter().map(|x| 1.5 * x + 0.5).all(|x| (p.value(x) - 2.0 * x.exp() - 1.0).abs() < 1e-10));
    }

    #[test]
    fn magnitudes_are_bounds_and_close() {
        for degree in [1, 2, 7, 63] {
            let p = Chebyshev::interpolate(|x| x.max(0.0) - 0.3, degree, [-2.0, 5.0]).unwrap();
            let most = (0..=100_000).map(|i| p.value(-2.0 + 7e-5 * f64::from(i)).abs()).fold(0.0, f64::max);
            assert!(most <= p.magnitude() && p.magnitude() <= 1.0025 * most, "{degree}: {most} {}", p.magnitude());
        }
    }

    #[test]
    fn products_of_a_node_share_a_relinearization_and_leaves_come_down_at_once() {
        let gadgets = Gadgets::best(&crate::ckks::presets::by_name("insecure-toy").unwrap()).unwrap();
        let counts = |degree: usize| {
            let engine = TraceEngine::default();
            let p = Chebyshev::new(uneven(degree), UNIT).unwrap();
            p.apply(&engine, &TraceValue { shards: 1, level: Level(p.depth()) }, &gadgets).unwrap();
            engine.counts()
        };
        // Key switches grow like the square root of the degree.
        for (degree, switches, rescales) in [(15, 7, 16), (31, 10, 25), (63, 15, 35), (127, 20, 51)] {
            let c = counts(degree);
            println!("degree {degree}: {} {}", c.key_switches, c.rescales);
            assert!(c.key_switches <= switches && c.rescales <= rescales, "degree {degree}: {c:?}");
            // A relinearization is one division, rescale included; the other rescales stand alone.
            assert_eq!((c.merged, c.mod_downs, c.mod_ups), (c.key_switches, c.key_switches, c.key_switches));
        }
    }

    #[test]
    fn refuses_what_it_cannot_evaluate() {
        assert!(Chebyshev::new(vec![1.0], UNIT).is_err());
        assert!(Chebyshev::new(vec![1.0, f64::NAN], UNIT).is_err());
        for interval in [[0.0, 0.0], [1.0, -1.0], [0.0, f64::INFINITY], [f64::NAN, 1.0], [0.0, 1e-320]] {
            assert!(Chebyshev::new(vec![1.0, 1.0], interval).is_err());
        }
        let p = Chebyshev::new(vec![1.0; 8], UNIT).unwrap();
        let shallow = ClearValue::new(vec![points()], Level(2));
        let error = p.apply(&ClearEngine, &shallow, &Gadgets::default()).unwrap_err();
        assert!(matches!(error, CircuitError::LevelsExhausted { needed: 3, have: 2, .. }), "{error}");
    }
}
