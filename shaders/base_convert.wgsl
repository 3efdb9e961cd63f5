// Base conversion in coefficient domain (docs/arithmetic.md, "Base conversion"), several conversions in one dispatch.
//
// A thread makes up to eight target limbs of one coefficient: a read of a source word serves all of them. The quotient, an
// exact integer, is found again by each thread; that costs one product in nine. The eight sums are named and every index into
// them is fixed: an array indexed by a loop ends in memory on some compilers, at five times the time.
//
// args, in fours: 0 (degree, words from one source polynomial to the next, words from one output polynomial to the next, -), then
// one for each block of targets: (first source limb, source limbs, target limbs, where its tables start). Tables: eight of
// (q, q^-1 mod 2^32, limb of the output, -), one for each target; then three for each term, the quotient's first:
// (the source limb's reciprocal, -, -, -) and the term's factor for each target.

/// The arguments; the same buffer as `args`.
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scaled: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const BLOCK: u32 = 8u;
const QUOTIENT_BITS: u32 = 26u;

struct Sums {
    a: Sum,
    b: Sum,
    c: Sum,
    d: Sum,
    e: Sum,
    f: Sum,
    g: Sum,
    h: Sum,
}

/// Adds the products of a word with the factors from row `at` on.
fn add_term(s: Sums, word: u32, at: u32) -> Sums {
    let low = rows[at];
    let high = rows[at + 1u];
    return Sums(
        mac(s.a, word, low.x),
        mac(s.b, word, low.y),
        mac(s.c, word, low.z),
        mac(s.d, word, low.w),
        mac(s.e, word, high.x),
        mac(s.f, word, high.y),
        mac(s.g, word, high.z),
        mac(s.h, word, high.w),
    );
}

/// Folds each sum by twice its target's prime.
fn fold_all(s: Sums, targets: u32) -> Sums {
    return Sums(
        fold(s.a, 2u * rows[targets].x),
        fold(s.b, 2u * rows[targets + 1u].x),
        fold(s.c, 2u * rows[targets + 2u].x),
        fold(s.d, 2u * rows[targets + 3u].x),
        fold(s.e, 2u * rows[targets + 4u].x),
        fold(s.f, 2u * rows[targets + 5u].x),
        fold(s.g, 2u * rows[targets + 6u].x),
        fold(s.h, 2u * rows[targets + 7u].x),
    );
}

fn write(s: Sum, row: vec4<u32>, at: u32, degree: u32) {
    out[at + row.z * degree] = redc(s, Modulus(row.x, row.y, 0u, 0u));
}

/// x = coefficient, y = block of targets, z = polynomial.
@compute @workgroup_size(256)
fn convert(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = rows[0];
    let degree = head.x;
    if (id.x >= degree) { return; }
    let block = rows[1u + id.y];
    let first = id.z * head.y + block.x * degree + id.x;
    let terms = block.y;
    let targets = block.w;
    var term = targets + BLOCK;

    var estimate = 1u << (QUOTIENT_BITS - 1u);
    for (var i = 0u; i < terms; i += 1u) {
        estimate += mulhi(4u * scaled[first + i * degree], rows[term + 3u + 3u * i].x);
    }

    let zero = zero_sum();
    var sums = add_term(Sums(zero, zero, zero, zero, zero, zero, zero, zero), estimate >> QUOTIENT_BITS, term + 1u);
    var i = 0u;
    // As many terms as fit a sum, the quotient's being one; then as many as fit a folded one.
    var end = min(terms, TERMS - 1u);
    loop {
        for (; i < end; i += 1u) {
            term += 3u;
            sums = add_term(sums, scaled[first + i * degree], term + 1u);
        }
        if (i >= terms) { break; }
        sums = fold_all(sums, targets);
        end = min(terms, i + FOLDED_TERMS);
    }

    let at = id.z * head.z + id.x;
    // Rows past the last target repeat it.
    write(sums.a, rows[targets], at, degree);
    if (block.z > 1u) { write(sums.b, rows[targets + 1u], at, degree); }
    if (block.z > 2u) { write(sums.c, rows[targets + 2u], at, degree); }
    if (block.z > 3u) { write(sums.d, rows[targets + 3u], at, degree); }
    if (block.z > 4u) { write(sums.e, rows[targets + 4u], at, degree); }
    if (block.z > 5u) { write(sums.f, rows[targets + 5u], at, degree); }
    if (block.z > 6u) { write(sums.g, rows[targets + 6u], at, degree); }
    if (block.z > 7u) { write(sums.h, rows[targets + 7u], at, degree); }
}
