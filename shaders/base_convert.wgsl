// Base conversion in coefficient domain (docs/arithmetic.md, "Base conversion"), several conversions in one dispatch.
//
// A thread makes up to eight target limbs of one coefficient: a read of a source word serves all of them. The quotient, an
// exact integer, is found again by each thread; that costs one product in nine.
//
// args: 0 degree, 1 words from one source polynomial to the next, 2 words from one output polynomial to the next, then eight
// words for each block of targets from word 8 on: (first source limb, source limbs, target limbs, word of the reciprocals,
// word of the targets, word of the matrix, -, -). Reciprocals: one for each source limb. Targets: pairs (global limb id, limb
// of the output). Matrix: for each term (the quotient's first) a row of eight, one for each target.

@group(0) @binding(2) var<storage, read> scaled: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const ROWS: u32 = 8u;
const BLOCK: u32 = 8u;
const QUOTIENT_BITS: u32 = 26u;

/// x = coefficient, y = block of targets, z = polynomial.
@compute @workgroup_size(256)
fn convert(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args[0];
    if (id.x >= degree) { return; }
    let job = ROWS + 8u * id.y;
    let first = id.z * args[1] + args[job] * degree + id.x;
    let terms = args[job + 1u];
    let targets = args[job + 2u];
    let reciprocals = args[job + 3u];
    let target_rows = args[job + 4u];
    var matrix_row = args[job + 5u];

    var estimate = 1u << (QUOTIENT_BITS - 1u);
    for (var i = 0u; i < terms; i += 1u) {
        estimate += mulhi(4u * scaled[first + i * degree], args[reciprocals + i]);
    }
    let quotient = estimate >> QUOTIENT_BITS;

    var bound: array<u32, 8>;
    var sums: array<Sum, 8>;
    for (var t = 0u; t < BLOCK; t += 1u) {
        // Rows past the last target repeat it; their sums are not written.
        bound[t] = 2u * moduli[args[target_rows + 2u * min(t, targets - 1u)]].q;
        sums[t] = mac(zero_sum(), quotient, args[matrix_row + t]);
    }
    var room = TERMS - 1u;
    for (var i = 0u; i < terms; i += 1u) {
        matrix_row += BLOCK;
        let word = scaled[first + i * degree];
        if (room == 0u) {
            for (var t = 0u; t < BLOCK; t += 1u) {
                sums[t] = fold(sums[t], bound[t]);
            }
            room = FOLDED_TERMS;
        }
        room -= 1u;
        for (var t = 0u; t < BLOCK; t += 1u) {
            sums[t] = mac(sums[t], word, args[matrix_row + t]);
        }
    }
    for (var t = 0u; t < targets; t += 1u) {
        let target_row = target_rows + 2u * t;
        out[id.z * args[2] + args[target_row + 1u] * degree + id.x] = redc(sums[t], moduli[args[target_row]]);
    }
}
