// Sums of products, reduced once. Workgroups of one piece of the shared operand (a key, a ciphertext) and of different shards
// follow each other, so that its words come from the cache: x = output shard, y = piece of the limb, z = limb.

@group(0) @binding(2) var<storage, read> operands: array<u32>;
@group(0) @binding(3) var<storage, read> factors: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

const ROWS: u32 = 8u;

/// out = (sum x a, sum x b) 2^-32 over the digits x of a shard, the pairs (a, b) being a key's. `operands` are the digits.
/// args: 0 degree, 1 limbs, 2 limbs of the key, 3 digits, then pairs from word 8 on (global limb id, limb of the key), then the
/// key's number of each digit.
@compute @workgroup_size(256)
fn key_inner_product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let degree = args[0];
    let limbs = args[1];
    let key_limbs = args[2];
    let digits = args[3];
    let at = 256u * group.y + thread;
    if (at >= degree) { return; }
    let pair = ROWS + 2u * group.z;
    let m = moduli[args[pair]];
    let key_limb = args[pair + 1u];
    let numbers = ROWS + 2u * limbs;
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    for (var k = 0u; k < digits; k += 1u) {
        if (room == 0u) {
            first = fold(first, 2u * m.q);
            second = fold(second, 2u * m.q);
            room = FOLDED_TERMS;
        }
        room -= 1u;
        let x = operands[((group.x * digits + k) * limbs + group.z) * degree + at];
        let key = (2u * args[numbers + k] * key_limbs + key_limb) * degree + at;
        first = mac(first, x, factors[key]);
        second = mac(second, x, factors[key + key_limbs * degree]);
    }
    let write = (2u * group.x * limbs + group.z) * degree + at;
    out[write] = redc(first, m);
    out[write + limbs * degree] = redc(second, m);
}

/// out = (sum x a, sum x b) 2^-32 over plaintexts x and ciphertexts (a, b). `operands` are the ciphertexts, `factors` the plaintexts.
/// args: 0 degree, 1 limbs, 2 outputs, then the global limb ids from word 8 on, then pairs (first term, terms) for each output,
/// then pairs (plaintext, shard) for each term.
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
    var room = TERMS;
    var first = zero_sum();
    var second = zero_sum();
    for (; term < end; term += 2u) {
        if (room == 0u) {
            first = fold(first, 2u * m.q);
            second = fold(second, 2u * m.q);
            room = FOLDED_TERMS;
        }
        room -= 1u;
        let x = factors[(args[term] * limbs + group.z) * degree + at];
        let ct = (2u * args[term + 1u] * limbs + group.z) * degree + at;
        first = mac(first, x, operands[ct]);
        second = mac(second, x, operands[ct + limbs * degree]);
    }
    let write = (2u * group.x * limbs + group.z) * degree + at;
    out[write] = redc(first, m);
    out[write + limbs * degree] = redc(second, m);
}
