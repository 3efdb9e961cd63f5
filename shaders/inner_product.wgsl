// Sums of products, reduced once. Workgroups of one piece of the shared operand (a key, a ciphertext) and of different shards
// follow each other, so that its words come from the cache: x = output shard, y = piece of the limb, z = limb.

struct KeyProduct {
    log_degree: u32,
    limb_count: u32,
    /// Limbs of a polynomial of the key.
    key_limbs: u32,
    /// The digits summed here, of those of a shard.
    first_digit: u32,
    end_digit: u32,
    digits: u32,
    /// Whether to add to the output.
    adds: u32,
    /// The first digit of the key that is bound.
    bound_digit: u32,
    /// Whether own limbs are read from `own`; its first word, and words from one of its shards to the next.
    reads_own: u32,
    own: u32,
    own_stride: u32,
    /// The inverse of the Galois element, or 1.
    galois_inverse: u32,
    output: u32,
    /// First word of `added`; words from one of its shards to the next, 0 where nothing is added; words from what is added to the
    /// first half to what is added to the second, 0 where nothing is.
    added: u32,
    added_stride: u32,
    added_second: u32,
    rows: array<KeyProductRow>,
}

/// Of a limb of the extended basis; the last column is of digits instead.
struct KeyProductRow {
    prime: u32,
    key_limb: u32,
    /// The digit that the limb belongs to plus one, or 0, and the limb of `own`.
    owner: u32,
    own_limb: u32,
    /// The key's number of the digit that has the row's number.
    key_digit: u32,
}

struct PlainProduct {
    degree: u32,
    limb_count: u32,
    /// Whether to add to the output.
    adds: u32,
    /// log2 of how many words a word of a plaintext stands for.
    log_repeat: u32,
    rows: array<PlainProductRow>,
}

/// Three lists side by side, each as long as it is: limbs, outputs, terms.
struct PlainProductRow {
    prime: u32,
    /// Of an output.
    first_term: u32,
    terms: u32,
    /// Of a term.
    plaintext: u32,
    shard: u32,
}

@group(0) @binding(0) var<storage, read> key_args: KeyProduct;
@group(0) @binding(0) var<storage, read> plain_args: PlainProduct;
@group(0) @binding(2) var<storage, read> operands: array<u32>;
@group(0) @binding(3) var<storage, read> factors: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<storage, read> own: array<u32>;
@group(0) @binding(6) var<storage, read> added: array<u32>;

/// A sum that starts from a residue times 2^32 has room for four terms less.
const RAISED: u32 = 4u;

/// out = (sum x a, sum x b) 2^-32 over the digits x of a shard, the pairs (a, b) being a key's. `operands` are the digits; a
/// digit's own limbs may be read from where the digits were made of, `own`. With a rotation, `added` is added to the first
/// half and the words are permuted (automorphism.wgsl).
@compute @workgroup_size(THREADS)
fn key_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let log_degree = key_args.log_degree;
    let limbs = key_args.limb_count;
    let key_limbs = key_args.key_limbs;
    let all_digits = key_args.digits;
    let at = THREADS * group.y + thread;
    if (at >= 1u << log_degree) { return; }
    let row = key_args.rows[group.z];
    let m = moduli[row.prime];
    let owner = select(0u, row.owner, key_args.reads_own != 0u);
    let own_at = key_args.own + group.x * key_args.own_stride + (row.own_limb << log_degree) + at;
    // A word keeps its place among those of its block of 2^k for every k under an automorphism's permutation: writes stay
    // as close together as reads.
    let shift = 32u - log_degree;
    let exponent = key_args.galois_inverse * (2u * (reverseBits(at) >> shift) + 1u) & ((2u << log_degree) - 1u);
    let write = key_args.output + ((2u * group.x * limbs + group.z) << log_degree) + (reverseBits(exponent >> 1u) >> shift);
    let half = limbs << log_degree;
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    if (key_args.adds != 0u) {
        first = raised(out[write]);
        second = raised(out[write + half]);
        room -= RAISED;
    }
    for (var k = key_args.first_digit; k < key_args.end_digit; k += 1u) {
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
        let key = ((2u * (key_args.rows[k].key_digit - key_args.bound_digit) * key_limbs + row.key_limb) << log_degree) + at;
        first = mac(first, x, factors[key]);
        second = mac(second, x, factors[key + (key_limbs << log_degree)]);
    }
    var word = redc(first, m);
    if (key_args.added_stride != 0u) {
        word = add_mod(word, added[key_args.added + group.x * key_args.added_stride + (group.z << log_degree) + at], m.q);
    }
    out[write] = word;
    word = redc(second, m);
    if (key_args.added_stride != 0u && key_args.added_second != 0u) {
        word = add_mod(word, added[key_args.added + group.x * key_args.added_stride + key_args.added_second + (group.z << log_degree) + at], m.q);
    }
    out[write + half] = word;
}

/// out = (sum x a, sum x b) 2^-32 over plaintexts x and ciphertexts (a, b). `operands` are the ciphertexts, `factors` the plaintexts.
@compute @workgroup_size(THREADS)
fn plain_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let degree = plain_args.degree;
    let limbs = plain_args.limb_count;
    let at = THREADS * group.y + thread;
    if (at >= degree) { return; }
    let m = moduli[plain_args.rows[group.z].prime];
    var term = plain_args.rows[group.x].first_term;
    let end = term + plain_args.rows[group.x].terms;
    let write = (2u * group.x * limbs + group.z) * degree + at;
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    if (plain_args.adds != 0u) {
        first = raised(out[write]);
        second = raised(out[write + limbs * degree]);
        room -= RAISED;
    }
    for (; term < end; term += 1u) {
        if (room == 0u) {
            first = fold(first, 2u * m.q);
            second = fold(second, 2u * m.q);
            room = FOLDED_TERMS;
        }
        room -= 1u;
        let x = factors[(plain_args.rows[term].plaintext * limbs + group.z) * (degree >> plain_args.log_repeat) + (at >> plain_args.log_repeat)];
        let ct = (2u * plain_args.rows[term].shard * limbs + group.z) * degree + at;
        first = mac(first, x, operands[ct]);
        second = mac(second, x, operands[ct + limbs * degree]);
    }
    out[write] = redc(first, m);
    out[write + limbs * degree] = redc(second, m);
}
