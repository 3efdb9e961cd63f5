//! Small dense linear algebra: Householder least squares, elimination with pivoting, Cholesky factors.

use super::lanes::dot;

/// Columns whose remaining norm is below this part of their own are taken for dependent.
const DEPENDENT: f64 = 1e-13;

/// The x that minimises `|A x - y|`, by Householder reflections; A is `rows x columns`, column by column, `rows >= columns`.
/// None if its columns are dependent in f64. Golub and Van Loan, section 5.3.
pub(super) fn solve_least_squares(mut columns: Vec<Vec<f64>>, mut y: Vec<f64>) -> Option<Vec<f64>> {
    let n = columns.len();
    let mut diagonal = vec![0.0; n];
    for k in 0..n {
        let (head, tail) = columns.split_at_mut(k + 1);
        let v = &mut head[k];
        let whole = norm(v);
        let rest = norm(&v[k..]);
        if rest.is_nan() || rest <= DEPENDENT * whole {
            return None;
        }
        let pivot = if v[k] > 0.0 { -rest } else { rest };
        diagonal[k] = pivot;
        v[k] -= pivot;
        // H = I - 2 v v^T / |v|^2 maps the column to its pivot.
        let square = dot(&v[k..], &v[k..]);
        for other in tail.iter_mut().chain(std::iter::once(&mut y)) {
            let factor = 2.0 * dot(&v[k..], &other[k..]) / square;
            other[k..].iter_mut().zip(&v[k..]).for_each(|(o, a)| *o -= factor * a);
        }
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| columns[j][k] * x[j]).sum();
        x[k] = (y[k] - known) / diagonal[k];
    }
    Some(x)
}

fn norm(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}

/// Solves the square system of rows `a` by elimination with scaled partial pivoting and one step of refinement.
pub(super) fn solve_square(a: &[Vec<f64>], y: &[f64]) -> Option<Vec<f64>> {
    let n = a.len();
    let mut lu: Vec<Vec<f64>> = a.to_vec();
    let scale: Vec<f64> = lu.iter().map(|r| r.iter().fold(0.0, |m: f64, v| m.max(v.abs()))).collect();
    let mut order: Vec<usize> = (0..n).collect();
    for k in 0..n {
        let score = |i: usize| lu[order[i]][k].abs() / scale[order[i]];
        let pivot = (k..n).max_by(|&i, &j| score(i).total_cmp(&score(j)))?;
        order.swap(k, pivot);
        let top = lu[order[k]].clone();
        if top[k] == 0.0 || !top[k].is_finite() {
            return None;
        }
        for &row in &order[k + 1..] {
            let factor = lu[row][k] / top[k];
            lu[row][k] = factor;
            for j in k + 1..n {
                lu[row][j] -= factor * top[j];
            }
        }
    }
    let substitute = |y: &[f64]| {
        let mut x: Vec<f64> = order.iter().map(|&row| y[row]).collect();
        for k in 0..n {
            x[k] -= (0..k).map(|j| lu[order[k]][j] * x[j]).sum::<f64>();
        }
        for k in (0..n).rev() {
            x[k] -= (k + 1..n).map(|j| lu[order[k]][j] * x[j]).sum::<f64>();
            x[k] /= lu[order[k]][k];
        }
        x
    };
    let mut x = substitute(y);
    let residual: Vec<f64> = a.iter().zip(y).map(|(r, y)| y - r.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>()).collect();
    x.iter_mut().zip(substitute(&residual)).for_each(|(x, d)| *x += d);
    x.iter().all(|v| v.is_finite()).then_some(x)
}

/// The lower triangular L with `L L^T = A`, from the rows of A's lower triangle, in their place. None unless A is positive
/// definite in f64.
pub(crate) fn cholesky(mut rows: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for i in 0..rows.len() {
        let (above, row) = rows.split_at_mut(i);
        let row = &mut row[0];
        for (j, other) in above.iter().enumerate() {
            let known = dot(&row[..j], &other[..j]);
            row[j] = (row[j] - known) / other[j];
        }
        let square = row[i] - dot(&row[..i], &row[..i]);
        if square.is_nan() || square <= DEPENDENT * row[i] {
            return None;
        }
        row[i] = square.sqrt();
    }
    Some(rows)
}

/// The x with `L L^T x = y`.
pub(crate) fn solve_cholesky(factor: &[Vec<f64>], mut y: Vec<f64>) -> Vec<f64> {
    for (i, row) in factor.iter().enumerate() {
        let known = dot(&row[..i], &y[..i]);
        y[i] = (y[i] - known) / row[i];
    }
    for (i, row) in factor.iter().enumerate().rev() {
        y[i] /= row[i];
        let last = y[i];
        y[..i].iter_mut().zip(row).for_each(|(y, a)| *y -= last * a);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_factors_multiply_to_the_matrix_and_solve_it() {
        let a = [[4.0, 2.0, -1.0], [2.0, 5.0, 0.5], [-1.0, 0.5, 3.0]];
        let lower = || a.iter().enumerate().map(|(i, row)| row[..=i].to_vec()).collect::<Vec<_>>();
        let factor = cholesky(lower()).unwrap();
        for i in 0..3 {
            for j in 0..=i {
                let product: f64 = (0..=j).map(|k| factor[i][k] * factor[j][k]).sum();
                assert!((product - a[i][j]).abs() < 1e-14);
            }
        }
        let x = [1.5, -2.0, 0.25];
        let y = a.iter().map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum()).collect();
        solve_cholesky(&factor, y).iter().zip(x).for_each(|(found, x)| assert!((found - x).abs() < 1e-14));
        assert_eq!(cholesky(vec![vec![1.0], vec![1.0, 1.0]]), None, "singular");
        assert_eq!(cholesky(vec![vec![1.0], vec![2.0, 1.0]]), None, "indefinite");
    }

    #[test]
    fn square_systems_are_solved() {
        let a = vec![vec![0.0, 2.0, 1.0], vec![1.0, -1.0, 3.0], vec![4.0, 0.5, -2.0]];
        let x = [1.5, -2.0, 0.25];
        let y: Vec<f64> = a.iter().map(|r| r.iter().zip(x).map(|(a, x)| a * x).sum()).collect();
        for (found, x) in solve_square(&a, &y).unwrap().iter().zip(x) {
            assert!((found - x).abs() < 1e-14);
        }
        assert_eq!(solve_square(&[vec![1.0, 2.0], vec![2.0, 4.0]], &[1.0, 2.0]), None);
    }

    #[test]
    fn least_squares_leaves_a_residual_orthogonal_to_the_columns() {
        let columns: Vec<Vec<f64>> = (0..4).map(|k| (0..30).map(|i| (f64::from(i) / 30.0 - 0.3).powi(k)).collect()).collect();
        let y: Vec<f64> = (0..30).map(|i| f64::from(i * i % 17)).collect();
        let x = solve_least_squares(columns.clone(), y.clone()).unwrap();
        let residual: Vec<f64> = (0..30).map(|i| y[i] - columns.iter().zip(&x).map(|(c, x)| c[i] * x).sum::<f64>()).collect();
        for c in &columns {
            assert!(c.iter().zip(&residual).map(|(a, b)| a * b).sum::<f64>().abs() < 1e-10);
        }
        let twice = vec![columns[1].clone(), columns[1].clone()];
        assert_eq!(solve_least_squares(twice, y), None);
    }
}
