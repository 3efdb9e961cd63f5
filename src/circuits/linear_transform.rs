//! A layer as a sparse block matrix over shards, cut into diagonals.

/// A linear map from `inputs` shards of `slots` values to `outputs` shards, given by its generalised diagonals:
///
/// `out[o][s] = sum over (i, r) of diagonal(o, i, r)[s] * in[i][(s + r) mod slots]`
///
/// which is what rotation by `r` (slot s receives slot s + r) and a slot-wise product compute. Diagonals are generated
/// on demand, never stored all at once.
pub trait SlotMatrix: Send + Sync + std::fmt::Debug {
    /// Input shards.
    fn inputs(&self) -> usize;
    /// Output shards.
    fn outputs(&self) -> usize;
    /// Slots of a shard.
    fn slots(&self) -> usize;
    /// The rotations, in `[0, slots)`, ascending, whose diagonal from input shard `input` to output shard `output` is
    /// not all zero.
    fn rotations(&self, output: usize, input: usize) -> &[u32];
    /// Writes the diagonal (`slots` values, every one of them) of a rotation listed by [`Self::rotations`].
    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]);
}
