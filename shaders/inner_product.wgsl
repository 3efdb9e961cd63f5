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
    /// First word of the digits.
    operand: u32,
    /// Whether own limbs are read from `own`; its first word, and words from one of its shards to the next.
    reads_own: u32,
    own: u32,
    own_stride: u32,
    /// First word of the output.
    output: u32,
    /// First word of `added`; words from one of its shards to the next, 0 where nothing is added; words from what is added to the
    /// first half to what is added to the second, 0 where nothing is.
    added: u32,
    added_stride: u32,
    added_second: u32,
    /// First word of `plus`; words from one of its shards to the next, 0 where nothing is added; words between its halves.
    plus: u32,
    plus_stride: u32,
    plus_second: u32,
    /// Of several rotations: whether they are summed, and words from one to the next of the operands, own limbs, what is added, and
    /// the output.
    rotations: u32,
    sums: u32,
    operand_rotation: u32,
    own_rotation: u32,
    added_rotation: u32,
    output_rotation: u32,
    /// Of products with plaintexts: shards, sums, and log2 of how many words a word of a plaintext stands for.
    shards: u32,
    products: u32,
    log_repeat: u32,
    rows: array<KeyProductRow>,
}

/// Of a limb of the extended basis; the last three columns are of digits, of rotations and of products instead.
struct KeyProductRow {
    prime: u32,
    key_limb: u32,
    /// The digit that the limb belongs to plus one, or 0, and the limb of `own`.
    owner: u32,
    own_limb: u32,
    /// The limb of `added` plus one, or 0, and what it is multiplied by, in Montgomery form.
    added_limb: u32,
    added_factor: u32,
    /// The key's number of the digit that has the row's number.
    key_digit: u32,
    /// The Galois element of the rotation that has the row's number; 0 for the one by nothing that has no key.
    galois: u32,
    /// The plaintext of rotation r in sum s plus one, or 0, in row r PRODUCTS + s.
    plaintext: u32,
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
@group(0) @binding(7) var<storage, read> plus: array<u32>;
@group(0) @binding(8) var<storage, read> key_1: array<u32>;
@group(0) @binding(9) var<storage, read> key_2: array<u32>;
@group(0) @binding(10) var<storage, read> key_3: array<u32>;
@group(0) @binding(11) var<storage, read> key_4: array<u32>;
@group(0) @binding(12) var<storage, read> key_5: array<u32>;
@group(0) @binding(13) var<storage, read> key_6: array<u32>;
@group(0) @binding(14) var<storage, read> key_7: array<u32>;

/// Keys of several rotations that one dispatch reads.
const KEYS: u32 = 8u;
/// Sums of products with plaintexts that one dispatch makes.
const PRODUCTS: u32 = 8u;
/// A sum that starts from a residue times 2^32 has room for four terms less.
const RAISED: u32 = 4u;

/// Two sums, and how many more products each has room for.
struct Pair {
    first: Sum,
    second: Sum,
    room: u32,
}

/// Makes room for a product.
fn with_room(s: Pair, q: u32) -> Pair {
    if (s.room != 0u) { return Pair(s.first, s.second, s.room - 1u); }
    return Pair(fold(s.first, 2u * q), fold(s.second, 2u * q), FOLDED_TERMS - 1u);
}

/// The word of `X -> X^galois` that stands at `at`: automorphism.wgsl. It is one of the same block of 2^k words for every k, so that
/// reads stay as close together as writes.
fn permuted(at: u32, galois: u32) -> u32 {
    let shift = 32u - key_args.log_degree;
    let exponent = galois * (2u * (reverseBits(at) >> shift) + 1u) & ((2u << key_args.log_degree) - 1u);
    return reverseBits(exponent >> 1u) >> shift;
}

/// A word of a digit of a shard.
fn digit_word(shard: u32, digit: u32, rotation: u32, limb: u32, row: KeyProductRow, place: u32) -> u32 {
    if (key_args.reads_own != 0u && row.owner == digit + 1u) {
        let at = key_args.own + rotation * key_args.own_rotation + shard * key_args.own_stride;
        return own[at + (row.own_limb << key_args.log_degree) + place];
    }
    let at = key_args.operand + rotation * key_args.operand_rotation;
    return operands[at + (((shard * key_args.digits + digit) * key_args.limb_count + limb) << key_args.log_degree) + place];
}

/// Where the first half of a key's digit has a word.
fn key_at(digit: u32, row: KeyProductRow, place: u32) -> u32 {
    let pair = key_args.rows[digit].key_digit - key_args.bound_digit;
    return ((2u * pair * key_args.key_limbs + row.key_limb) << key_args.log_degree) + place;
}

/// Adds what is added before the permutation.
fn add_added(s: Pair, shard: u32, rotation: u32, row: KeyProductRow, place: u32, q: u32) -> Pair {
    if (key_args.added_stride == 0u || row.added_limb == 0u) { return s; }
    let at = key_args.added + rotation * key_args.added_rotation + shard * key_args.added_stride
        + ((row.added_limb - 1u) << key_args.log_degree) + place;
    var t = with_room(s, q);
    t.first = mac(t.first, added[at], row.added_factor);
    if (key_args.added_second != 0u) {
        t.second = mac(t.second, added[at + key_args.added_second], row.added_factor);
    }
    return t;
}

fn finish(s: Pair, shard: u32, write: u32, half: u32, at: u32, m: Modulus) {
    var first = redc(s.first, m);
    var second = redc(s.second, m);
    if (key_args.adds != 0u) {
        first = add_mod(first, out[write], m.q);
        second = add_mod(second, out[write + half], m.q);
    }
    if (key_args.plus_stride != 0u) {
        let more = key_args.plus + shard * key_args.plus_stride + at;
        first = add_mod(first, plus[more], m.q);
        second = add_mod(second, plus[more + key_args.plus_second], m.q);
    }
    out[write] = first;
    out[write + half] = second;
}

/// out = sigma(a + sum x k, b + sum x l) 2^-32 + plus over the digits x of a shard, the pairs (k, l) being a key's, (a, b) what is
/// added. `operands` are the digits; a digit's own limbs may be read from where the digits were made of, `own`.
@compute @workgroup_size(THREADS)
fn key_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = THREADS * group.y + thread;
    if (at >= 1u << key_args.log_degree) { return; }
    let row = key_args.rows[group.z];
    let m = moduli[row.prime];
    let place = permuted(at, key_args.rows[0].galois);
    let half = key_args.limb_count << key_args.log_degree;
    let in_limb = (group.z << key_args.log_degree) + at;
    let write = key_args.output + 2u * group.x * half + in_limb;
    var s = Pair(zero_sum(), zero_sum(), TERMS);
    for (var k = key_args.first_digit; k < key_args.end_digit; k += 1u) {
        let x = digit_word(group.x, k, 0u, group.z, row, place);
        let key = key_at(k, row, place);
        s = with_room(s, m.q);
        s.first = mac(s.first, x, factors[key]);
        s.second = mac(s.second, x, factors[key + (key_args.key_limbs << key_args.log_degree)]);
    }
    s = add_added(s, group.x, 0u, row, place, m.q);
    finish(s, group.x, write, half, in_limb, m);
}

fn key_word(key: u32, at: u32) -> u32 {
    switch key {
        case 0u: { return factors[at]; }
        case 1u: { return key_1[at]; }
        case 2u: { return key_2[at]; }
        case 3u: { return key_3[at]; }
        case 4u: { return key_4[at]; }
        case 5u: { return key_5[at]; }
        case 6u: { return key_6[at]; }
        default: { return key_7[at]; }
    }
}

/// The same for several rotations and a key of each: of the same digits, each to its own output, or each of digits of its own, all
/// added up. z = limb, and where they are not added up rotation, the faster one: digits then come from the cache.
@compute @workgroup_size(THREADS)
fn key_inner_products(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = THREADS * group.y + thread;
    if (at >= 1u << key_args.log_degree) { return; }
    let summed = key_args.sums != 0u;
    let limb = select(group.z / key_args.rotations, group.z, summed);
    let first = select(group.z % key_args.rotations, 0u, summed);
    let end = select(first + 1u, key_args.rotations, summed);
    let row = key_args.rows[limb];
    let m = moduli[row.prime];
    let half = key_args.limb_count << key_args.log_degree;
    let in_limb = (limb << key_args.log_degree) + at;
    let write = key_args.output + first * key_args.output_rotation + 2u * group.x * half + in_limb;
    var s = Pair(zero_sum(), zero_sum(), TERMS);
    for (var r = first; r < end; r += 1u) {
        let place = permuted(at, key_args.rows[r].galois);
        for (var k = key_args.first_digit; k < key_args.end_digit; k += 1u) {
            let x = digit_word(group.x, k, r, limb, row, place);
            let key = key_at(k, row, place);
            s = with_room(s, m.q);
            s.first = mac(s.first, x, key_word(r, key));
            s.second = mac(s.second, x, key_word(r, key + (key_args.key_limbs << key_args.log_degree)));
        }
        s = add_added(s, group.x, r, row, place, m.q);
    }
    finish(s, group.x, write, half, in_limb, m);
}

/// Adds a rotation's product with the plaintext of a sum, where it has one. `plus` are the plaintexts.
fn add_plain(s: Pair, product: u32, rotation: u32, limb: u32, at: u32, x: vec2<u32>) -> Pair {
    let plaintext = key_args.rows[rotation * PRODUCTS + product].plaintext;
    if (plaintext == 0u) { return s; }
    let degree = 1u << (key_args.log_degree - key_args.log_repeat);
    let w = plus[((plaintext - 1u) * key_args.limb_count + limb) * degree + (at >> key_args.log_repeat)];
    return Pair(mac(s.first, w, x.x), mac(s.second, w, x.y), s.room);
}

fn write_product(s: Pair, product: u32, shard: u32, limb: u32, at: u32, m: Modulus) {
    if (product >= key_args.products) { return; }
    let half = key_args.limb_count << key_args.log_degree;
    let write = key_args.output + 2u * (product * key_args.shards + shard) * half + (limb << key_args.log_degree) + at;
    var first = redc(s.first, m);
    var second = redc(s.second, m);
    if (key_args.adds != 0u) {
        first = add_mod(first, out[write], m.q);
        second = add_mod(second, out[write + half], m.q);
    }
    out[write] = first;
    out[write + half] = second;
}

/// Sums of products of plaintexts with rotations, which are made on the way and not written. Rotations are of the same digits, as
/// many as there are keys and one that has none; a sum has room for their products.
@compute @workgroup_size(THREADS)
fn rotated_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = THREADS * group.y + thread;
    if (at >= 1u << key_args.log_degree) { return; }
    let limb = group.z;
    let row = key_args.rows[limb];
    let m = moduli[row.prime];
    let none = Pair(zero_sum(), zero_sum(), TERMS);
    var a = none;
    var b = none;
    var c = none;
    var d = none;
    var e = none;
    var f = none;
    var g = none;
    var h = none;
    for (var r = 0u; r < key_args.rotations; r += 1u) {
        let galois = key_args.rows[r].galois;
        var s = none;
        if (galois == 0u) {
            if (row.added_limb != 0u) {
                let from_here = key_args.added + group.x * key_args.added_stride + ((row.added_limb - 1u) << key_args.log_degree) + at;
                s.first = mac(s.first, added[from_here], row.added_factor);
                s.second = mac(s.second, added[from_here + key_args.added_second], row.added_factor);
            }
        } else {
            let place = permuted(at, galois);
            for (var k = 0u; k < key_args.end_digit; k += 1u) {
                let x = operands[key_args.operand
                    + (((group.x * key_args.digits + k) * key_args.limb_count + limb) << key_args.log_degree) + place];
                let key = key_at(k, row, place);
                s = with_room(s, m.q);
                s.first = mac(s.first, x, key_word(r, key));
                s.second = mac(s.second, x, key_word(r, key + (key_args.key_limbs << key_args.log_degree)));
            }
            if (row.added_limb != 0u) {
                s = with_room(s, m.q);
                let from_there = key_args.added + group.x * key_args.added_stride
                    + ((row.added_limb - 1u) << key_args.log_degree) + place;
                s.first = mac(s.first, added[from_there], row.added_factor);
            }
        }
        let x = vec2<u32>(redc(s.first, m), redc(s.second, m));
        a = add_plain(a, 0u, r, limb, at, x);
        b = add_plain(b, 1u, r, limb, at, x);
        c = add_plain(c, 2u, r, limb, at, x);
        d = add_plain(d, 3u, r, limb, at, x);
        e = add_plain(e, 4u, r, limb, at, x);
        f = add_plain(f, 5u, r, limb, at, x);
        g = add_plain(g, 6u, r, limb, at, x);
        h = add_plain(h, 7u, r, limb, at, x);
    }
    write_product(a, 0u, group.x, limb, at, m);
    write_product(b, 1u, group.x, limb, at, m);
    write_product(c, 2u, group.x, limb, at, m);
    write_product(d, 3u, group.x, limb, at, m);
    write_product(e, 4u, group.x, limb, at, m);
    write_product(f, 5u, group.x, limb, at, m);
    write_product(g, 6u, group.x, limb, at, m);
    write_product(h, 7u, group.x, limb, at, m);
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
