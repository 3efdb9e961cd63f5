// Negacyclic NTT, in the order of src/math/ntt_table.rs: Harvey's lazy butterflies with Shoup constants (arXiv:1205.2926).
//
// A dispatch does up to twelve stages on tiles of up to 4096 words: the first dispatch of a long forward transform on tiles of
// whole columns (rows a power of two apart, a few neighbouring words of each), the second on neighbouring words. Within a
// tile a thread holds sixteen words in registers for up to four stages, a round; between rounds the words go through
// workgroup memory. A round of r < 4 stages is the end of one of four: its sixteen words are 2^(4-r) neighbouring blocks.
//
// With the first stage of the full network being stage k of the transform, a network on the words p, p + stride, ... has
// twiddle index t = 2^k + floor(p 2^k / N) at its first stage, and t 2^s + g for group g of its stage s.
//
// A pipeline is made for one degree, one of its dispatches, and one direction: what is the same in all its workgroups are the
// constants below, so that shifts and offsets are part of the instructions. The places of a thread's sixteen words are its
// base plus a multiple of the stride, in bits that the base has not: in_limb(base + x) = in_limb(base) + in_limb(x), and the
// same for `place` with exclusive or, where the second part is known in advance.
//
// A first dispatch may convert few limbs as it reads them, so that what is converted is not written before.
//
// `forward_divide` ends a forward transform of u with the tail of a division with rounding, out = kept keep - u tail; for
// rotations it also adds a first half and permutes the words (automorphism.wgsl), for others constants.

struct Transform {
    /// First word of the source, and words from one polynomial to the next.
    source: u32,
    source_stride: u32,
    output_stride: u32,
    // The others are of `forward_divide`.
    output: u32,
    /// First word of what is divided, and words from one polynomial to the next.
    kept_first: u32,
    kept_stride: u32,
    /// Polynomials of a rotation, 0 where nothing is rotated; the place of the first one here among those of all rotations.
    rotation_polys: u32,
    first: u32,
    /// First word of `added`, and words from one of its shards to the next.
    added: u32,
    added_stride: u32,
    /// Polynomials in a row whose first halves add the same constants, 0 where there are none; limbs.
    constant_polys: u32,
    limb_count: u32,
    rows: array<TransformRow>,
}

/// Of a limb; the last two columns are of rotations, and of runs of constants and their limbs, instead.
struct TransformRow {
    /// Where the limb is read and written, in limbs of a polynomial.
    source: u32,
    output: u32,
    prime: u32,
    /// The limb of `kept` plus one, or 0 where there is none.
    kept: u32,
    /// Two factors with their Shoup companions. Inverse transform: c and c w, what the last butterfly multiplies its sum and its
    /// difference by, where w is the last twiddle. Division: keep and tail.
    x: u32,
    x_shoup: u32,
    y: u32,
    y_shoup: u32,
    /// A conversion of few limbs: minus their product in the target, and for each the factor in the target and, in the first row, the
    /// reciprocal (base_convert.wgsl).
    product: u32,
    factor_0: u32,
    factor_1: u32,
    factor_2: u32,
    factor_3: u32,
    factor_4: u32,
    factor_5: u32,
    reciprocal_0: u32,
    reciprocal_1: u32,
    reciprocal_2: u32,
    reciprocal_3: u32,
    reciprocal_4: u32,
    reciprocal_5: u32,
    /// The inverse of the Galois element of the rotation that has the row's number.
    galois_inverse: u32,
    constant: u32,
}

@group(0) @binding(0) var<storage, read> args: Transform;
@group(0) @binding(2) var<storage, read> twiddles: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> src: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<storage, read> kept: array<u32>;
@group(0) @binding(6) var<storage, read> added: array<u32>;

/// log2 of the degree.
override LOG_N: u32 = 16u;
/// log2 of the tile.
override LOG_TILE: u32 = 12u;
/// log2 of the words of a row in the tile.
override LOG_ROW: u32 = 12u;
/// log2 of the words between rows in the limb.
override LOG_BETWEEN: u32 = 0u;
/// 1 where this is the end of the transform.
override ENDS: u32 = 1u;
/// 1 where the source is the output: a tile is read whole before it is written, by one workgroup alone.
override IN_PLACE: u32 = 1u;
/// Limbs that are converted as they are read; 0 where they are read as they are.
override CONVERTS: u32 = 0u;
/// Rounds, up to three; of each log2 of the stride in the tile, the first stage of its network, and the stages of it left out.
override ROUNDS: u32 = 2u;
override STRIDE_0: u32 = 4u;
override STAGE_0: u32 = 8u;
override SKIPPED_0: u32 = 0u;
override STRIDE_1: u32 = 0u;
override STAGE_1: u32 = 12u;
override SKIPPED_1: u32 = 0u;
override STRIDE_2: u32 = 0u;
override STAGE_2: u32 = 12u;
override SKIPPED_2: u32 = 0u;

/// Words of the largest tile.
const TILE: u32 = 4096u;

var<workgroup> words: array<u32, TILE>;

alias Words = array<u32, 16>;

/// Where the limb's twiddles start.
var<private> table: u32;

/// What the last stage of an inverse transform multiplies by.
struct Last {
    last: bool,
    sum: vec2<u32>,
    difference: vec2<u32>,
}

/// A word's place in workgroup memory: neighbours and words at even strides fall into different banks.
fn place(i: u32) -> u32 {
    return i ^ ((i >> 5u) & 31u);
}

fn twiddle(t: u32, stage: u32, group: u32) -> vec2<u32> {
    return twiddles[table + (t << stage) + group];
}

/// (a + b w, a - b w): [0, 4q) to [0, 4q).
fn cooley_tukey(v: ptr<function, Words>, i: u32, j: u32, w: vec2<u32>, q: u32) {
    let x = reduce_twice((*v)[i], q);
    let t = mul_shoup_lazy((*v)[j], w, q);
    (*v)[i] = x + t;
    (*v)[j] = x + 2u * q - t;
}

/// (a + b, (a - b) w): [0, 2q) to [0, 2q).
fn gentleman_sande(v: ptr<function, Words>, i: u32, j: u32, w: vec2<u32>, q: u32) {
    let x = (*v)[i];
    let y = (*v)[j];
    (*v)[i] = reduce_twice(x + y, q);
    (*v)[j] = mul_shoup_lazy(x + 2u * q - y, w, q);
}

/// The last butterfly of the inverse, with the final factor: ((a + b) c, (a - b) w c), [0, 2q) to [0, q).
fn finish(v: ptr<function, Words>, i: u32, j: u32, last: Last, q: u32) {
    let x = (*v)[i];
    let y = (*v)[j];
    (*v)[i] = mul_shoup(x + y, last.sum, q);
    (*v)[j] = mul_shoup(x + 2u * q - y, last.difference, q);
}

/// Stages `first..4` of the forward network.
fn forward_network(v: ptr<function, Words>, first: u32, t: u32, q: u32) {
    var w: vec2<u32>;
    if (first <= 0u) {
        w = twiddle(t, 0u, 0u);
        cooley_tukey(v, 0, 8, w, q);
        cooley_tukey(v, 1, 9, w, q);
        cooley_tukey(v, 2, 10, w, q);
        cooley_tukey(v, 3, 11, w, q);
        cooley_tukey(v, 4, 12, w, q);
        cooley_tukey(v, 5, 13, w, q);
        cooley_tukey(v, 6, 14, w, q);
        cooley_tukey(v, 7, 15, w, q);
    }
    if (first <= 1u) {
        w = twiddle(t, 1u, 0u);
        cooley_tukey(v, 0, 4, w, q);
        cooley_tukey(v, 1, 5, w, q);
        cooley_tukey(v, 2, 6, w, q);
        cooley_tukey(v, 3, 7, w, q);
        w = twiddle(t, 1u, 1u);
        cooley_tukey(v, 8, 12, w, q);
        cooley_tukey(v, 9, 13, w, q);
        cooley_tukey(v, 10, 14, w, q);
        cooley_tukey(v, 11, 15, w, q);
    }
    if (first <= 2u) {
        w = twiddle(t, 2u, 0u);
        cooley_tukey(v, 0, 2, w, q);
        cooley_tukey(v, 1, 3, w, q);
        w = twiddle(t, 2u, 1u);
        cooley_tukey(v, 4, 6, w, q);
        cooley_tukey(v, 5, 7, w, q);
        w = twiddle(t, 2u, 2u);
        cooley_tukey(v, 8, 10, w, q);
        cooley_tukey(v, 9, 11, w, q);
        w = twiddle(t, 2u, 3u);
        cooley_tukey(v, 12, 14, w, q);
        cooley_tukey(v, 13, 15, w, q);
    }
    w = twiddle(t, 3u, 0u);
    cooley_tukey(v, 0, 1, w, q);
    w = twiddle(t, 3u, 1u);
    cooley_tukey(v, 2, 3, w, q);
    w = twiddle(t, 3u, 2u);
    cooley_tukey(v, 4, 5, w, q);
    w = twiddle(t, 3u, 3u);
    cooley_tukey(v, 6, 7, w, q);
    w = twiddle(t, 3u, 4u);
    cooley_tukey(v, 8, 9, w, q);
    w = twiddle(t, 3u, 5u);
    cooley_tukey(v, 10, 11, w, q);
    w = twiddle(t, 3u, 6u);
    cooley_tukey(v, 12, 13, w, q);
    w = twiddle(t, 3u, 7u);
    cooley_tukey(v, 14, 15, w, q);
}

/// Stages `first..4` of the network, last stage first, inverted.
fn inverse_network(v: ptr<function, Words>, first: u32, t: u32, last: Last, q: u32) {
    var w: vec2<u32>;
    w = twiddle(t, 3u, 0u);
    gentleman_sande(v, 0, 1, w, q);
    w = twiddle(t, 3u, 1u);
    gentleman_sande(v, 2, 3, w, q);
    w = twiddle(t, 3u, 2u);
    gentleman_sande(v, 4, 5, w, q);
    w = twiddle(t, 3u, 3u);
    gentleman_sande(v, 6, 7, w, q);
    w = twiddle(t, 3u, 4u);
    gentleman_sande(v, 8, 9, w, q);
    w = twiddle(t, 3u, 5u);
    gentleman_sande(v, 10, 11, w, q);
    w = twiddle(t, 3u, 6u);
    gentleman_sande(v, 12, 13, w, q);
    w = twiddle(t, 3u, 7u);
    gentleman_sande(v, 14, 15, w, q);
    if (first <= 2u) {
        w = twiddle(t, 2u, 0u);
        gentleman_sande(v, 0, 2, w, q);
        gentleman_sande(v, 1, 3, w, q);
        w = twiddle(t, 2u, 1u);
        gentleman_sande(v, 4, 6, w, q);
        gentleman_sande(v, 5, 7, w, q);
        w = twiddle(t, 2u, 2u);
        gentleman_sande(v, 8, 10, w, q);
        gentleman_sande(v, 9, 11, w, q);
        w = twiddle(t, 2u, 3u);
        gentleman_sande(v, 12, 14, w, q);
        gentleman_sande(v, 13, 15, w, q);
    }
    if (first <= 1u) {
        w = twiddle(t, 1u, 0u);
        gentleman_sande(v, 0, 4, w, q);
        gentleman_sande(v, 1, 5, w, q);
        gentleman_sande(v, 2, 6, w, q);
        gentleman_sande(v, 3, 7, w, q);
        w = twiddle(t, 1u, 1u);
        gentleman_sande(v, 8, 12, w, q);
        gentleman_sande(v, 9, 13, w, q);
        gentleman_sande(v, 10, 14, w, q);
        gentleman_sande(v, 11, 15, w, q);
    }
    if (first == 0u) {
        if (last.last) {
            finish(v, 0, 8, last, q);
            finish(v, 1, 9, last, q);
            finish(v, 2, 10, last, q);
            finish(v, 3, 11, last, q);
            finish(v, 4, 12, last, q);
            finish(v, 5, 13, last, q);
            finish(v, 6, 14, last, q);
            finish(v, 7, 15, last, q);
        } else {
            w = twiddle(t, 0u, 0u);
            gentleman_sande(v, 0, 8, w, q);
            gentleman_sande(v, 1, 9, w, q);
            gentleman_sande(v, 2, 10, w, q);
            gentleman_sande(v, 3, 11, w, q);
            gentleman_sande(v, 4, 12, w, q);
            gentleman_sande(v, 5, 13, w, q);
            gentleman_sande(v, 6, 14, w, q);
            gentleman_sande(v, 7, 15, w, q);
        }
    }
}

/// A word of the tile in the limb, but for the tile's own place.
fn in_limb(i: u32) -> u32 {
    return ((i >> LOG_ROW) << LOG_BETWEEN) + (i & ((1u << LOG_ROW) - 1u));
}

/// The first of a thread's words in a round.
fn base_of(thread: u32, stride: u32) -> u32 {
    return ((thread >> stride) << (stride + 4u)) + (thread & ((1u << stride) - 1u));
}

fn source(at: u32) -> u32 {
    if (IN_PLACE != 0u) {
        return out[at];
    }
    if (CONVERTS != 0u) {
        return converted(at);
    }
    return src[at];
}

/// What is the same for all words that are converted to a limb.
struct Conversion {
    product: u32,
    modulus: Modulus,
    factors: vec4<u32>,
    more_factors: vec2<u32>,
    reciprocals: vec4<u32>,
    more_reciprocals: vec2<u32>,
}
var<private> conversion: Conversion;

/// The coefficient of a conversion of CONVERTS limbs, of which `at` is the first one's.
fn converted(at: u32) -> u32 {
    let c = conversion;
    let x = src[at];
    var rest = vec4<u32>();
    var last = 0u;
    var estimate = (1u << 25u) + mulhi(4u * x, c.reciprocals.x);
    if (CONVERTS > 1u) {
        rest.x = src[at + (1u << LOG_N)];
        estimate += mulhi(4u * rest.x, c.reciprocals.y);
    }
    if (CONVERTS > 2u) {
        rest.y = src[at + (2u << LOG_N)];
        estimate += mulhi(4u * rest.y, c.reciprocals.z);
    }
    if (CONVERTS > 3u) {
        rest.z = src[at + (3u << LOG_N)];
        estimate += mulhi(4u * rest.z, c.reciprocals.w);
    }
    if (CONVERTS > 4u) {
        rest.w = src[at + (4u << LOG_N)];
        estimate += mulhi(4u * rest.w, c.more_reciprocals.x);
    }
    if (CONVERTS > 5u) {
        last = src[at + (5u << LOG_N)];
        estimate += mulhi(4u * last, c.more_reciprocals.y);
    }
    var sum = mac(zero_sum(), estimate >> 26u, c.product);
    sum = mac(sum, x, c.factors.x);
    if (CONVERTS > 1u) { sum = mac(sum, rest.x, c.factors.y); }
    if (CONVERTS > 2u) { sum = mac(sum, rest.y, c.factors.z); }
    if (CONVERTS > 3u) { sum = mac(sum, rest.z, c.factors.w); }
    if (CONVERTS > 4u) { sum = mac(sum, rest.w, c.more_factors.x); }
    if (CONVERTS > 5u) { sum = mac(sum, last, c.more_factors.y); }
    return redc(sum, conversion.modulus);
}

fn load(v: ptr<function, Words>, at: u32, stride: u32) {
    (*v)[0] = source(at + in_limb(0u << stride));
    (*v)[1] = source(at + in_limb(1u << stride));
    (*v)[2] = source(at + in_limb(2u << stride));
    (*v)[3] = source(at + in_limb(3u << stride));
    (*v)[4] = source(at + in_limb(4u << stride));
    (*v)[5] = source(at + in_limb(5u << stride));
    (*v)[6] = source(at + in_limb(6u << stride));
    (*v)[7] = source(at + in_limb(7u << stride));
    (*v)[8] = source(at + in_limb(8u << stride));
    (*v)[9] = source(at + in_limb(9u << stride));
    (*v)[10] = source(at + in_limb(10u << stride));
    (*v)[11] = source(at + in_limb(11u << stride));
    (*v)[12] = source(at + in_limb(12u << stride));
    (*v)[13] = source(at + in_limb(13u << stride));
    (*v)[14] = source(at + in_limb(14u << stride));
    (*v)[15] = source(at + in_limb(15u << stride));
}

fn store(v: ptr<function, Words>, at: u32, stride: u32) {
    out[at + in_limb(0u << stride)] = (*v)[0];
    out[at + in_limb(1u << stride)] = (*v)[1];
    out[at + in_limb(2u << stride)] = (*v)[2];
    out[at + in_limb(3u << stride)] = (*v)[3];
    out[at + in_limb(4u << stride)] = (*v)[4];
    out[at + in_limb(5u << stride)] = (*v)[5];
    out[at + in_limb(6u << stride)] = (*v)[6];
    out[at + in_limb(7u << stride)] = (*v)[7];
    out[at + in_limb(8u << stride)] = (*v)[8];
    out[at + in_limb(9u << stride)] = (*v)[9];
    out[at + in_limb(10u << stride)] = (*v)[10];
    out[at + in_limb(11u << stride)] = (*v)[11];
    out[at + in_limb(12u << stride)] = (*v)[12];
    out[at + in_limb(13u << stride)] = (*v)[13];
    out[at + in_limb(14u << stride)] = (*v)[14];
    out[at + in_limb(15u << stride)] = (*v)[15];
}

fn take(v: ptr<function, Words>, base: u32, stride: u32) {
    let at = place(base) & (TILE - 1u);
    (*v)[0] = words[at ^ place(0u << stride)];
    (*v)[1] = words[at ^ place(1u << stride)];
    (*v)[2] = words[at ^ place(2u << stride)];
    (*v)[3] = words[at ^ place(3u << stride)];
    (*v)[4] = words[at ^ place(4u << stride)];
    (*v)[5] = words[at ^ place(5u << stride)];
    (*v)[6] = words[at ^ place(6u << stride)];
    (*v)[7] = words[at ^ place(7u << stride)];
    (*v)[8] = words[at ^ place(8u << stride)];
    (*v)[9] = words[at ^ place(9u << stride)];
    (*v)[10] = words[at ^ place(10u << stride)];
    (*v)[11] = words[at ^ place(11u << stride)];
    (*v)[12] = words[at ^ place(12u << stride)];
    (*v)[13] = words[at ^ place(13u << stride)];
    (*v)[14] = words[at ^ place(14u << stride)];
    (*v)[15] = words[at ^ place(15u << stride)];
}

fn put(v: ptr<function, Words>, base: u32, stride: u32) {
    let at = place(base) & (TILE - 1u);
    words[at ^ place(0u << stride)] = (*v)[0];
    words[at ^ place(1u << stride)] = (*v)[1];
    words[at ^ place(2u << stride)] = (*v)[2];
    words[at ^ place(3u << stride)] = (*v)[3];
    words[at ^ place(4u << stride)] = (*v)[4];
    words[at ^ place(5u << stride)] = (*v)[5];
    words[at ^ place(6u << stride)] = (*v)[6];
    words[at ^ place(7u << stride)] = (*v)[7];
    words[at ^ place(8u << stride)] = (*v)[8];
    words[at ^ place(9u << stride)] = (*v)[9];
    words[at ^ place(10u << stride)] = (*v)[10];
    words[at ^ place(11u << stride)] = (*v)[11];
    words[at ^ place(12u << stride)] = (*v)[12];
    words[at ^ place(13u << stride)] = (*v)[13];
    words[at ^ place(14u << stride)] = (*v)[14];
    words[at ^ place(15u << stride)] = (*v)[15];
}

fn network(v: ptr<function, Words>, at: u32, stage: u32, skipped: u32, last: Last, inverse: bool, q: u32) {
    let t = (1u << stage) + (at >> (LOG_N - stage));
    if (inverse) {
        inverse_network(v, skipped, t, Last(ENDS != 0u && stage == 0u, last.sum, last.difference), q);
    } else {
        forward_network(v, skipped, t, q);
    }
}

/// The rounds of one limb's tile but for writing what the last leaves in `v`. x = tile, y = limb, z = polynomial.
fn transform(v: ptr<function, Words>, group: vec3<u32>, thread: u32, inverse: bool) {
    let row = args.rows[group.y];
    var read = 0u;
    if (IN_PLACE != 0u) {
        read = group.z * args.output_stride + (row.output << LOG_N);
    } else {
        read = args.source + group.z * args.source_stride + (row.source << LOG_N);
    }
    let q = moduli[row.prime].q;
    table = row.prime << LOG_N;
    if (CONVERTS != 0u) {
        let first = args.rows[0];
        conversion.product = row.product;
        conversion.modulus = moduli[row.prime];
        conversion.factors = vec4<u32>(row.factor_0, row.factor_1, row.factor_2, row.factor_3);
        conversion.more_factors = vec2<u32>(row.factor_4, row.factor_5);
        conversion.more_reciprocals = vec2<u32>(first.reciprocal_4, first.reciprocal_5);
        conversion.reciprocals = vec4<u32>(first.reciprocal_0, first.reciprocal_1, first.reciprocal_2, first.reciprocal_3);
    }
    var last: Last;
    if (inverse) {
        last.sum = vec2<u32>(row.x, row.x_shoup);
        last.difference = vec2<u32>(row.y, row.y_shoup);
    }
    let tile = group.x << LOG_ROW;
    // Fewer threads than a workgroup has where the tile is small.
    let working = thread < (1u << LOG_TILE) / 16u;
    var base = base_of(thread, STRIDE_0);
    if (working) {
        load(v, read + tile + in_limb(base), STRIDE_0);
        network(v, tile + in_limb(base), STAGE_0, SKIPPED_0, last, inverse, q);
    }
    if (ROUNDS > 1u) {
        if (working) {
            put(v, base, STRIDE_0);
        }
        workgroupBarrier();
        base = base_of(thread, STRIDE_1);
        if (working) {
            take(v, base, STRIDE_1);
            network(v, tile + in_limb(base), STAGE_1, SKIPPED_1, last, inverse, q);
        }
    }
    if (ROUNDS > 2u) {
        // A thread writes where it has read, and nobody else has.
        if (working) {
            put(v, base, STRIDE_1);
        }
        workgroupBarrier();
        base = base_of(thread, STRIDE_2);
        if (working) {
            take(v, base, STRIDE_2);
            network(v, tile + in_limb(base), STAGE_2, SKIPPED_2, last, inverse, q);
        }
    }
}

/// The stride of the last round.
fn last_stride() -> u32 {
    return select(select(STRIDE_2, STRIDE_1, ROUNDS == 2u), STRIDE_0, ROUNDS == 1u);
}

/// Writes word `thread + k THREADS` of the tile.
fn copy_word(thread: u32, k: u32, write: u32) {
    if (LOG_TILE == 12u || thread + k * THREADS < 1u << LOG_TILE) {
        out[write + in_limb(thread) + in_limb(k * THREADS)] = words[(place(thread) & (TILE - 1u)) ^ place(k * THREADS)];
    }
}

/// Writes the tile: from registers where neighbouring threads hold neighbouring words, else through workgroup memory.
fn finish_tile(v: ptr<function, Words>, group: vec3<u32>, thread: u32, reduced: bool, q: u32) {
    let write = group.z * args.output_stride + (args.rows[group.y].output << LOG_N) + (group.x << LOG_ROW);
    let stride = last_stride();
    let base = base_of(thread, stride);
    let working = thread < (1u << LOG_TILE) / 16u;
    if (reduced) {
        (*v)[0] = reduce_once(reduce_twice((*v)[0], q), q);
        (*v)[1] = reduce_once(reduce_twice((*v)[1], q), q);
        (*v)[2] = reduce_once(reduce_twice((*v)[2], q), q);
        (*v)[3] = reduce_once(reduce_twice((*v)[3], q), q);
        (*v)[4] = reduce_once(reduce_twice((*v)[4], q), q);
        (*v)[5] = reduce_once(reduce_twice((*v)[5], q), q);
        (*v)[6] = reduce_once(reduce_twice((*v)[6], q), q);
        (*v)[7] = reduce_once(reduce_twice((*v)[7], q), q);
        (*v)[8] = reduce_once(reduce_twice((*v)[8], q), q);
        (*v)[9] = reduce_once(reduce_twice((*v)[9], q), q);
        (*v)[10] = reduce_once(reduce_twice((*v)[10], q), q);
        (*v)[11] = reduce_once(reduce_twice((*v)[11], q), q);
        (*v)[12] = reduce_once(reduce_twice((*v)[12], q), q);
        (*v)[13] = reduce_once(reduce_twice((*v)[13], q), q);
        (*v)[14] = reduce_once(reduce_twice((*v)[14], q), q);
        (*v)[15] = reduce_once(reduce_twice((*v)[15], q), q);
    }
    if (stride >= 3u) {
        if (working) {
            store(v, write + in_limb(base), stride);
        }
        return;
    }
    // With one round nothing has been read from there; else a thread writes where it has read, and nobody else has.
    if (working) {
        put(v, base, stride);
    }
    workgroupBarrier();
    copy_word(thread, 0u, write);
    copy_word(thread, 1u, write);
    copy_word(thread, 2u, write);
    copy_word(thread, 3u, write);
    copy_word(thread, 4u, write);
    copy_word(thread, 5u, write);
    copy_word(thread, 6u, write);
    copy_word(thread, 7u, write);
    copy_word(thread, 8u, write);
    copy_word(thread, 9u, write);
    copy_word(thread, 10u, write);
    copy_word(thread, 11u, write);
    copy_word(thread, 12u, write);
    copy_word(thread, 13u, write);
    copy_word(thread, 14u, write);
    copy_word(thread, 15u, write);
}

/// Forward, coefficients in [0, q) to values in [0, q), or to [0, 4q) between two dispatches.
@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var v: Words;
    transform(&v, group, thread, false);
    finish_tile(&v, group, thread, ENDS != 0u, moduli[args.rows[group.y].prime].q);
}

/// Inverse times N^-1 and a factor, values in [0, q) to coefficients in [0, q), or to [0, 2q) between two dispatches.
@compute @workgroup_size(THREADS)
fn inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var v: Words;
    transform(&v, group, thread, true);
    finish_tile(&v, group, thread, false, 0u);
}

/// A call's tail: what is the same for all words of a tile.
struct Tail {
    /// Where limbs start.
    kept: u32,
    added: u32,
    write: u32,
    /// The limb is one of those divided, and a first half is added.
    keeps: bool,
    adds: bool,
    keep: vec2<u32>,
    tail: vec2<u32>,
    constant: u32,
    /// The inverse of the Galois element, 0 where nothing is rotated.
    galois: u32,
    q: u32,
}

/// Whether the tile has a word `i`.
fn in_tile(i: u32) -> bool {
    return LOG_TILE == 12u || i < 1u << LOG_TILE;
}

/// What the word is the remainder of, or 0.
fn kept_word(i: u32, t: Tail) -> u32 {
    if (!t.keeps || !in_tile(i)) { return 0u; }
    return kept[t.kept + in_limb(i)];
}

fn divide(i: u32, tile: u32, kept_word: u32, t: Tail) {
    if (!in_tile(i)) { return; }
    let at = tile + in_limb(i);
    // Any word below 4q: Shoup products take it as it is.
    var word = sub_mod(mul_shoup(kept_word, t.keep, t.q), mul_shoup(words[place(i) & (TILE - 1u)], t.tail, t.q), t.q);
    if (t.adds) {
        word = add_mod(word, added[t.added + in_limb(i)], t.q);
    }
    word = add_mod(word, t.constant, t.q);
    var to = at;
    if (t.galois != 0u) {
        let shift = 32u - LOG_N;
        let exponent = t.galois * (2u * (reverseBits(at) >> shift) + 1u) & ((2u << LOG_N) - 1u);
        to = reverseBits(exponent >> 1u) >> shift;
    }
    out[t.write + to] = word;
}

/// The end of a forward transform and what follows it in a division with rounding, and in a rotation.
@compute @workgroup_size(THREADS)
fn forward_divide(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var v: Words;
    transform(&v, group, thread, false);
    if (thread < (1u << LOG_TILE) / 16u) {
        put(&v, base_of(thread, last_stride()), last_stride());
    }
    let row = args.rows[group.y];
    let tile = group.x << LOG_ROW;
    let poly = args.first + group.z;
    let in_rotation = poly % max(args.rotation_polys, 1u);
    var t: Tail;
    t.q = moduli[row.prime].q;
    t.kept = args.kept_first + group.z * args.kept_stride + ((max(row.kept, 1u) - 1u) << LOG_N) + tile;
    t.added = args.added + in_rotation / 2u * args.added_stride + (row.output << LOG_N) + tile;
    t.write = args.output + group.z * args.output_stride + (row.output << LOG_N);
    t.keeps = row.kept != 0u;
    t.adds = args.rotation_polys != 0u && in_rotation % 2u == 0u;
    t.keep = vec2<u32>(row.x, row.x_shoup);
    t.tail = vec2<u32>(row.y, row.y_shoup);
    if (args.constant_polys != 0u && poly % 2u == 0u) {
        t.constant = args.rows[poly / args.constant_polys * args.limb_count + group.y].constant;
    }
    if (args.rotation_polys != 0u) {
        t.galois = args.rows[poly / args.rotation_polys].galois_inverse;
    }
    // All reads are on their way before the first is needed.
    v[0] = kept_word(thread + 0u, t);
    v[1] = kept_word(thread + 256u, t);
    v[2] = kept_word(thread + 512u, t);
    v[3] = kept_word(thread + 768u, t);
    v[4] = kept_word(thread + 1024u, t);
    v[5] = kept_word(thread + 1280u, t);
    v[6] = kept_word(thread + 1536u, t);
    v[7] = kept_word(thread + 1792u, t);
    v[8] = kept_word(thread + 2048u, t);
    v[9] = kept_word(thread + 2304u, t);
    v[10] = kept_word(thread + 2560u, t);
    v[11] = kept_word(thread + 2816u, t);
    v[12] = kept_word(thread + 3072u, t);
    v[13] = kept_word(thread + 3328u, t);
    v[14] = kept_word(thread + 3584u, t);
    v[15] = kept_word(thread + 3840u, t);
    workgroupBarrier();
    divide(thread + 0u, tile, v[0], t);
    divide(thread + 256u, tile, v[1], t);
    divide(thread + 512u, tile, v[2], t);
    divide(thread + 768u, tile, v[3], t);
    divide(thread + 1024u, tile, v[4], t);
    divide(thread + 1280u, tile, v[5], t);
    divide(thread + 1536u, tile, v[6], t);
    divide(thread + 1792u, tile, v[7], t);
    divide(thread + 2048u, tile, v[8], t);
    divide(thread + 2304u, tile, v[9], t);
    divide(thread + 2560u, tile, v[10], t);
    divide(thread + 2816u, tile, v[11], t);
    divide(thread + 3072u, tile, v[12], t);
    divide(thread + 3328u, tile, v[13], t);
    divide(thread + 3584u, tile, v[14], t);
    divide(thread + 3840u, tile, v[15], t);
}
