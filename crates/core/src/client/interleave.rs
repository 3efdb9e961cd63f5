//! Several pictures in one run, where one leaves slots free: slot s of picture i becomes slot `count * s + i`.

/// Slot vectors of several values, one for each picture, as those of one value that holds them all: `[picture][shard][slot]` to
/// `[shard][slot]`. Pictures beyond those given are zero.
pub fn interleave(inputs: &[Vec<Vec<f64>>], count: usize) -> Vec<Vec<f64>> {
    let shards = inputs.first().map_or(0, Vec::len);
    let shard = |s: usize| {
        let slots = inputs[0][s].len();
        (0..slots * count).map(|at| inputs.get(at % count).map_or(0.0, |input| input[s][at / count])).collect()
    };
    (0..shards).map(shard).collect()
}

/// The slot vectors of one picture, of those that [`interleave`] put together.
pub fn part(shards: &[Vec<f64>], input: usize, count: usize) -> Vec<Vec<f64>> {
    shards.iter().map(|shard| shard.iter().skip(input).step_by(count).copied().collect()).collect()
}
