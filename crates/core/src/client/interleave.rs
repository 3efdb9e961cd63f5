//! Several pictures in one run, where one leaves slots free: slot s of picture i becomes slot `count * s + i`.

/// Slot vectors of several values, one for each picture, as those of one value that holds them all:
/// `[picture][shard][slot]` to `[shard][slot]`. Where fewer are given than there is room for, they are repeated: zeros
/// may be a picture that the network cannot bear.
pub fn interleave(inputs: &[Vec<Vec<f64>>], count: usize) -> Vec<Vec<f64>> {
    let shards = inputs.first().map_or(0, Vec::len);
    let shard = |s: usize| {
        let slots = inputs[0][s].len();
        (0..slots * count).map(|at| inputs[at % count % inputs.len()][s][at / count]).collect()
    };
    (0..shards).map(shard).collect()
}

/// The slot vectors of one picture, of those that [`interleave`] put together.
pub fn part(shards: &[Vec<f64>], input: usize, count: usize) -> Vec<Vec<f64>> {
    shards.iter().map(|shard| shard.iter().skip(input).step_by(count).copied().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_a_picture_hold_one_of_the_others() {
        let pictures = [1.0, 2.0, 3.0].map(|v| vec![vec![v, 10.0 * v]]);
        let all = interleave(&pictures, 4);
        assert_eq!(all, [[1.0, 2.0, 3.0, 1.0, 10.0, 20.0, 30.0, 10.0]]);
        assert_eq!(part(&all, 3, 4), pictures[0]);
    }
}
