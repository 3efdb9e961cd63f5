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
// args: 0 log2 degree, 1 log2 of the tile, 2 log2 of the words of a row in the tile, 3 log2 of the words between rows in the limb,
// 4 first word of the source, 5 and 6 words from one polynomial to the next in source and output, 7 rounds, then up to three
// rounds in order, four words each: (log2 of the stride in the tile, first stage k of the network, stages of it that are
// left out, -), 20 whether this is the end of the transform, 21 whether the source is the output (a tile is read whole before
// it is written, by one workgroup alone), then from word 32 on eight words for each limb: (limb of the source, limb of the
// output, global limb id, factor c, its Shoup companion, c w, its Shoup companion, -), where w is the inverse transform's last
// twiddle.
//
// `forward_divide` ends a forward transform of u with the tail of a division with rounding, out = kept keep - u tail; for
// rotations it also adds a first half and permutes the words (automorphism.wgsl). Its rows: (limb of the source, limb of the
// output, global limb id, limb of `kept` plus one or 0 where there is none, keep, its companion, tail, its companion). More
// args: 22 words from one polynomial of `kept` to the next, 23 polynomials of a rotation (0: no rotations), 24 where the
// inverses of the rotations' Galois elements stand, 25 words from one shard of `added` to the next, 26 the first polynomial's
// place among those of all rotations, 27 first word of the output, 28 first word of `added`.

@group(0) @binding(2) var<storage, read> twiddles: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> src: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<storage, read> kept: array<u32>;
@group(0) @binding(6) var<storage, read> added: array<u32>;

const ROUNDS: u32 = 8u;
const ROWS: u32 = 32u;
const TILE: u32 = 4096u;
const THREADS: u32 = 256u;

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

/// A word of the tile in the limb.
fn in_limb(i: u32, tile: u32) -> u32 {
    let log_row = args[2];
    return ((i >> log_row) << args[3]) + (tile << log_row) + (i & ((1u << log_row) - 1u));
}

/// One limb's tile, transformed in workgroup memory. x = tile, y = limb, z = polynomial.
fn transform(group: vec3<u32>, thread: u32, inverse: bool) {
    let degree = 1u << args[0];
    let tile = 1u << args[1];
    let row = ROWS + 8u * group.y;
    let in_place = args[21] != 0u;
    var read = args[4] + group.z * args[5] + args[row] * degree;
    if (in_place) {
        read = group.z * args[6] + args[row + 1u] * degree;
    }
    let q = moduli[args[row + 2u]].q;
    table = args[row + 2u] * degree;
    let rounds = args[7];
    let working = thread < tile / 16u;
    var v: Words;
    for (var round = 0u; round < rounds; round += 1u) {
        let log_stride = args[ROUNDS + 4u * round];
        let stage = args[ROUNDS + 4u * round + 1u];
        let first = args[ROUNDS + 4u * round + 2u];
        let base = ((thread >> log_stride) << (log_stride + 4u)) + (thread & ((1u << log_stride) - 1u));
        let t = (1u << stage) + (in_limb(base, group.x) >> (args[0] - stage));
        if (working) {
            for (var i = 0u; i < 16u; i += 1u) {
                let at = base + (i << log_stride);
                if (round > 0u) {
                    v[i] = words[place(at)];
                } else if (in_place) {
                    v[i] = out[read + in_limb(at, group.x)];
                } else {
                    v[i] = src[read + in_limb(at, group.x)];
                }
            }
            if (inverse) {
                let sum = vec2<u32>(args[row + 3u], args[row + 4u]);
                let difference = vec2<u32>(args[row + 5u], args[row + 6u]);
                inverse_network(&v, first, t, Last(args[20] != 0u && stage == 0u, sum, difference), q);
            } else {
                forward_network(&v, first, t, q);
            }
            // A thread writes where it has read, and nobody else has.
            for (var i = 0u; i < 16u; i += 1u) {
                words[place(base + (i << log_stride))] = v[i];
            }
        }
        workgroupBarrier();
    }
}

/// Writes the tile.
fn store(group: vec3<u32>, thread: u32, reduced: bool) {
    let row = ROWS + 8u * group.y;
    let write = group.z * args[6] + (args[row + 1u] << args[0]);
    let q = moduli[args[row + 2u]].q;
    for (var i = thread; i < 1u << args[1]; i += THREADS) {
        var word = words[place(i)];
        if (reduced) {
            word = reduce_once(reduce_twice(word, q), q);
        }
        out[write + in_limb(i, group.x)] = word;
    }
}

/// Forward, coefficients in [0, q) to values in [0, q), or to [0, 4q) between two dispatches.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    transform(group, thread, false);
    store(group, thread, args[20] != 0u);
}

/// Inverse times N^-1 and a factor, values in [0, q) to coefficients in [0, q), or to [0, 2q) between two dispatches.
@compute @workgroup_size(256)
fn inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    transform(group, thread, true);
    store(group, thread, false);
}

/// The end of a forward transform and what follows it in a division with rounding, and in a rotation.
@compute @workgroup_size(256)
fn forward_divide(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    transform(group, thread, false);
    let row = ROWS + 8u * group.y;
    let q = moduli[args[row + 2u]].q;
    let position = args[row + 3u];
    let keep = vec2<u32>(args[row + 4u], args[row + 5u]);
    let tail = vec2<u32>(args[row + 6u], args[row + 7u]);
    let kept_at = group.z * args[22] + ((max(position, 1u) - 1u) << args[0]);
    let write = args[27] + group.z * args[6] + (args[row + 1u] << args[0]);
    let rotating = args[23] != 0u;
    let poly = args[26] + group.z;
    let in_rotation = poly % max(args[23], 1u);
    let first_half = rotating && in_rotation % 2u == 0u;
    let added_at = args[28] + in_rotation / 2u * args[25] + (args[row + 1u] << args[0]);
    var galois = 1u;
    if (rotating) {
        galois = args[args[24] + poly / args[23]];
    }
    let shift = 32u - args[0];
    for (var i = thread; i < 1u << args[1]; i += THREADS) {
        let at = in_limb(i, group.x);
        // Any word below 4q: Shoup products take it as it is.
        var word = 0u;
        if (position != 0u) {
            word = mul_shoup(kept[kept_at + at], keep, q);
        }
        word = sub_mod(word, mul_shoup(words[place(i)], tail, q), q);
        if (first_half) {
            word = add_mod(word, added[added_at + at], q);
        }
        var to = at;
        if (rotating) {
            let exponent = galois * (2u * (reverseBits(at) >> shift) + 1u) & ((2u << args[0]) - 1u);
            to = reverseBits(exponent >> 1u) >> shift;
        }
        out[write + to] = word;
    }
}
