//! Products of constants: matrices, and sums over named axes.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, Reason, common, positions, product, repeating, strides};

/// Multiplications that cost as much of the budget as one element.
const WORK: usize = 256;

/// The bounds of a product: elements made, multiplications done.
fn afford(size: usize, terms: usize, budget: &mut Budget) -> Result<(), Reason> {
    budget.take(size.saturating_add(size.saturating_mul(terms) / WORK))
}

fn single(a: &Constant, b: &Constant) -> bool {
    a.is_single() || b.is_single()
}

/// Matrices of the last two axes, one for each coordinate of the others.
pub(super) fn matmul(a: &Constant, b: &Constant, budget: &mut Budget) -> Result<Constant, Reason> {
    if a.dims.is_empty() || b.dims.is_empty() {
        return Err("a single number is no matrix".into());
    }
    // A vector is one row or one column, and that axis goes again.
    let left = if let [n] = a.dims[..] { vec![1, n] } else { a.dims.clone() };
    let right = if let [n] = b.dims[..] { vec![n, 1] } else { b.dims.clone() };
    let ((la, left), (ra, right)) = (left.split_at(left.len() - 2), right.split_at(right.len() - 2));
    let (rows, terms, columns) = (left[0], left[1], right[1]);
    if right[0] != terms {
        return Err(format!("{:?} and {:?} cannot be multiplied", a.dims, b.dims));
    }
    let lead = common(la, ra)?;
    let size = [product(&lead), Some(rows), Some(columns)].into_iter().try_fold(1usize, |n, d| n.checked_mul(d?));
    let size = size.ok_or("a shape overflows")?;
    afford(size, terms, budget)?;
    let (x, y) = (a.real(), b.real());
    let mut values = Vec::with_capacity(size);
    for (i, j) in positions(&lead, repeating(la, &lead)?).zip(positions(&lead, repeating(ra, &lead)?)) {
        let (x, y) = (&x[i * rows * terms..], &y[j * terms * columns..]);
        for row in 0..rows {
            let mut sums = vec![0.0; columns];
            for k in 0..terms {
                let v = x[row * terms + k];
                sums.iter_mut().zip(&y[k * columns..]).for_each(|(sum, y)| *sum += v * y);
            }
            values.extend(sums);
        }
    }
    let mut dims = lead;
    dims.extend((a.dims.len() > 1).then_some(rows));
    dims.extend((b.dims.len() > 1).then_some(columns));
    Ok(Constant::floating(dims, values.into_iter(), single(a, b)))
}

/// `alpha a b + beta c`.
pub(super) fn gemm(
    a: &Constant,
    b: &Constant,
    c: Option<&Constant>,
    attributes: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Constant, Reason> {
    let turned = |x: &Constant, name: &str, budget: &mut Budget| match attributes.int(name, 0) {
        0 => Ok(x.clone()),
        _ => x.transposed(&[1, 0], budget),
    };
    let (a, b) = (turned(a, "transA", budget)?, turned(b, "transB", budget)?);
    let ab = matmul(&a, &b, budget)?;
    let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
    let added: Vec<usize> = match c {
        Some(c) => positions(&ab.dims, repeating(&c.dims, &ab.dims)?).collect(),
        None => Vec::new(),
    };
    let value = |i: usize| alpha * ab.at(i) + c.map_or(0.0, |c| beta * c.at(added[i]));
    Ok(Constant::floating(ab.dims.clone(), (0..ab.len()).map(value), ab.is_single()))
}

/// A sum over the axes that the result does not have, as in `oi,ikl->okl`; none where axes have no names ("...").
pub(super) fn einsum(equation: &str, operands: &[&Constant], budget: &mut Budget) -> Result<Option<Constant>, Reason> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = equation.split_once("->").map_or((equation.as_str(), None), |(a, b)| (a, Some(b)));
    let inputs: Vec<Vec<char>> = inputs.split(',').map(|i| i.chars().collect()).collect();
    if equation.contains('.') || operands.is_empty() {
        return Ok(None);
    }
    let fits = inputs.len() == operands.len() && inputs.iter().zip(operands).all(|(i, o)| i.len() == o.dims.len());
    let mut names: Vec<char> = inputs.concat();
    names.sort_unstable();
    let output: Vec<char> = match output {
        Some(output) => output.chars().collect(),
        // Without a result, the names that come once, in alphabetical order.
        None => names.iter().copied().filter(|n| names.iter().filter(|m| *m == n).count() == 1).collect(),
    };
    names.dedup();
    if (1..output.len()).any(|i| output[..i].contains(&output[i])) {
        return Ok(None);
    }
    if !fits || output.iter().any(|o| !names.contains(o)) {
        return Err(format!("{equation:?} does not fit its operands"));
    }
    // First the axes of the result, then those summed over.
    let mut order = output.clone();
    order.extend(names.iter().filter(|n| !output.contains(n)));
    let mut dims = vec![1; order.len()];
    let mut steps = vec![vec![0; order.len()]; operands.len()];
    for ((input, operand), steps) in inputs.iter().zip(operands).zip(&mut steps) {
        for ((name, extent), step) in input.iter().zip(&operand.dims).zip(strides(&operand.dims)) {
            let at = order.iter().position(|o| o == name).ok_or("an axis has no name")?;
            if dims[at] != 1 && *extent != 1 && dims[at] != *extent {
                return Err(format!("{equation:?}: the axis {name} has {} and {extent} elements", dims[at]));
            }
            if *extent != 1 {
                dims[at] = *extent;
                steps[at] += step;
            }
        }
    }
    let (kept, summed) = dims.split_at(output.len());
    let (size, terms) = (product(kept).ok_or("a shape overflows")?, product(summed).ok_or("a shape overflows")?);
    afford(size, terms, budget)?;
    let mut places: Vec<_> = steps.into_iter().map(|steps| positions(&dims, steps)).collect();
    let mut term = || places.iter_mut().zip(operands).map(|(p, o)| o.at(p.next().unwrap_or(0))).product::<f64>();
    let values: Vec<f64> = (0..size).map(|_| (0..terms).map(|_| term()).sum()).collect();
    let single = operands.iter().any(|o| o.is_single());
    Ok(Some(Constant::floating(kept.to_vec(), values.into_iter(), single)))
}
