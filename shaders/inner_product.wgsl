// Sums of products, reduced once. Workgroups of one piece of the shared operand (a key, a ciphertext) and of different shards
// follow each other, so that its words come from the cache: x = output shard, y = piece of the limb, z = limb.

@group(0) @binding(2) var<storage, read> operands: array<u32>;
@group(0) @binding(3) var<storage, read> factors: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<storage, read> own: array<u32>;
@group(0) @binding(6) var<storage, read> added: array<u32>;

const ROWS: u32 = 16u;
/// A sum that starts from a residue times 2^32 has room for four terms less.
const RAISED: u32 = 4u;

/// out = (sum x a, sum x b) 2^-32 over the digits x of a shard, the pairs (a, b) being a key's. `operands` are the digits; a
/// digit's own limbs may be read from where the digits were made of, `own`. With a rotation, `added` is added to the first
/// half and the words are permuted (automorphism.wgsl).
///
/// args: 0 log2 degree, 1 limbs, 2 limbs of the key, 3 first digit and 4 end of the digits summed here, 5 digits of a shard, 6 whether
/// to add to the output, 7 first digit of the key that is bound, 8 whether own limbs are read from `own`, 9 its first word, 10 words
/// from one of its shards to the next, 11 the inverse of the Galois element, or 1, 12 words from one shard of `added` to the
/// next, 0 where nothing is added, 13 first word of the output, 14 first word of `added`, 15 words from what is
/// added to the first half to what is added to the second, 0 where nothing is; then rows of four from word 16 on (global limb id, limb of the key, digit that the limb
/// belongs to plus one or 0, limb of `own`), then the key's number of each digit.
@compute @workgroup_size(256)
fn key_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let log_degree = args[0];
    let limbs = args[1];
    let key_limbs = args[2];
    let all_digits = args[5];
    let at = 256u * group.y + thread;
    if (at >= 1u << log_degree) { return; }
    let row = ROWS + 4u * group.z;
    let m = moduli[args[row]];
    let key_limb = args[row + 1u];
    let owner = select(0u, args[row + 2u], args[8] != 0u);
    let own_at = args[9] + group.x * args[10] + (args[row + 3u] << log_degree) + at;
    let numbers = ROWS + 4u * limbs;
    // A word keeps its place among those of its block of 2^k for every k under an automorphism's permutation: writes stay
    // as close together as reads.
    let shift = 32u - log_degree;
    let exponent = args[11] * (2u * (reverseBits(at) >> shift) + 1u) & ((2u << log_degree) - 1u);
    let write = args[13] + ((2u * group.x * limbs + group.z) << log_degree) + (reverseBits(exponent >> 1u) >> shift);
    let half = limbs << log_degree;
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    if (args[6] != 0u) {
        first = raised(out[write]);
        second = raised(out[write + half]);
        room -= RAISED;
    }
    for (var k = args[3]; k < args[4]; k += 1u) {
        if (room == 0u) {
            first = fold(first, 2u * m.q);
            second = fold(second, 2u * m.q);
            room = FOLDED_TERMS;
        }
        room -= 1u;
        var x = 0u;
        if (owner == k + 1u) {
            x = own[own_at];
        } else {
            x = operands[(((group.x * all_digits + k) * limbs + group.z) << log_degree) + at];
        }
        let key = ((2u * (args[numbers + k] - args[7]) * key_limbs + key_limb) << log_degree) + at;
        first = mac(first, x, factors[key]);
        second = mac(second, x, factors[key + (key_limbs << log_degree)]);
    }
    var word = redc(first, m);
    if (args[12] != 0u) {
        word = add_mod(word, added[args[14] + group.x * args[12] + (group.z << log_degree) + at], m.q);
    }
    out[write] = word;
    word = redc(second, m);
    if (args[12] != 0u && args[15] != 0u) {
        word = add_mod(word, added[args[14] + group.x * args[12] + args[15] + (group.z << log_degree) + at], m.q);
    }
    out[write + half] = word;
}

/// out = (sum x a, sum x b) 2^-32 over plaintexts x and ciphertexts (a, b). `operands` are the ciphertexts, `factors` the plaintexts.
/// args: 0 degree, 1 limbs, 2 outputs, 3 whether to add to the output, 4 log2 of how many words a word of a plaintext stands for,
/// then the global limb ids from word 16 on, then pairs (first term, terms) for each output, then pairs (plaintext, shard) for
/// each term.
@compute @workgroup_size(256)
fn plain_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let degree = args[0];
    let limbs = args[1];
    let at = 256u * group.y + thread;
    if (at >= degree) { return; }
    let m = moduli[args[ROWS + group.z]];
    let output_row = ROWS + limbs + 2u * group.x;
    var term = ROWS + limbs + 2u * (args[2] + args[output_row]);
    let end = term + 2u * args[output_row + 1u];
    let write = (2u * group.x * limbs + group.z) * degree + at;
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    if (args[3] != 0u) {
        first = raised(out[write]);
        second = raised(out[write + limbs * degree]);
        room -= RAISED;
    }
    for (; term < end; term += 2u) {
        if (room == 0u) {
            first = fold(first, 2u * m.q);
            second = fold(second, 2u * m.q);
            room = FOLDED_TERMS;
        }
        room -= 1u;
        let x = factors[(args[term] * limbs + group.z) * (degree >> args[4]) + (at >> args[4])];
        let ct = (2u * args[term + 1u] * limbs + group.z) * degree + at;
        first = mac(first, x, operands[ct]);
        second = mac(second, x, operands[ct + limbs * degree]);
    }
    out[write] = redc(first, m);
    out[write + limbs * degree] = redc(second, m);
}
