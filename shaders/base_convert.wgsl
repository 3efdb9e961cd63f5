// Base conversion in coefficient domain (docs/arithmetic.md, "Base conversion"), several conversions in one dispatch.
//
// A thread makes up to eight target limbs of one coefficient: a read of a source word serves all of them. The quotient, an
// exact integer, is found again by each thread; that costs one product in nine. The eight sums are named and every index into
// them is fixed: an array indexed by a loop ends in memory on some compilers, at five times the time.
//
// `convert_divide` takes each result from a kept limb, which is a division with rounding in coefficient domain, and scales the
// difference for the conversion that follows: what is divided only to be cut into digits is transformed once less.

struct Convert {
    degree: u32,
    /// Words from one polynomial to the next.
    source_stride: u32,
    output_stride: u32,
    next_stride: u32,
    /// In fours, so that they are read at once. One for each block of targets: (first source limb, source limbs, target limbs, where
    /// its tables start). Tables: eight of (q, q^-1 mod 2^32, limb of the output, limb that is kept), one for each target; then three
    /// for each term, the quotient's first: (the source limb's reciprocal, -, -, -) and the term's factor for each target. Where digits
    /// follow, eight of (factor, its Shoup companion, limb of `next`, -) more, one for each target.
    rows: array<vec4<u32>>,
}

@group(0) @binding(0) var<storage, read> args: Convert;
@group(0) @binding(2) var<storage, read> scaled: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> next: array<u32>;

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
    let low = args.rows[at];
    let high = args.rows[at + 1u];
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
        fold(s.a, 2u * args.rows[targets].x),
        fold(s.b, 2u * args.rows[targets + 1u].x),
        fold(s.c, 2u * args.rows[targets + 2u].x),
        fold(s.d, 2u * args.rows[targets + 3u].x),
        fold(s.e, 2u * args.rows[targets + 4u].x),
        fold(s.f, 2u * args.rows[targets + 5u].x),
        fold(s.g, 2u * args.rows[targets + 6u].x),
        fold(s.h, 2u * args.rows[targets + 7u].x),
    );
}

/// The sums of a block's targets, of the coefficient whose first limb's word is `first`.
fn sums_of(block: vec4<u32>, first: u32, degree: u32) -> Sums {
    let terms = block.y;
    let targets = block.w;
    var term = targets + BLOCK;

    var estimate = 1u << (QUOTIENT_BITS - 1u);
    for (var i = 0u; i < terms; i += 1u) {
        estimate += mulhi(4u * scaled[first + i * degree], args.rows[term + 3u + 3u * i].x);
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
    return sums;
}

fn write(s: Sum, row: vec4<u32>, at: u32, degree: u32) {
    out[at + row.z * degree] = redc(s, Modulus(row.x, row.y, 0u, 0u));
}

/// x = coefficient, y = block of targets, z = polynomial.
@compute @workgroup_size(THREADS)
fn convert(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let block = args.rows[id.y];
    let sums = sums_of(block, id.z * args.source_stride + block.x * degree + id.x, degree);
    let targets = block.w;
    let at = id.z * args.output_stride + id.x;
    // Rows past the last target repeat it.
    write(sums.a, args.rows[targets], at, degree);
    if (block.z > 1u) { write(sums.b, args.rows[targets + 1u], at, degree); }
    if (block.z > 2u) { write(sums.c, args.rows[targets + 2u], at, degree); }
    if (block.z > 3u) { write(sums.d, args.rows[targets + 3u], at, degree); }
    if (block.z > 4u) { write(sums.e, args.rows[targets + 4u], at, degree); }
    if (block.z > 5u) { write(sums.f, args.rows[targets + 5u], at, degree); }
    if (block.z > 6u) { write(sums.g, args.rows[targets + 6u], at, degree); }
    if (block.z > 7u) { write(sums.h, args.rows[targets + 7u], at, degree); }
}

/// What a word of the difference is told: places of the coefficient in each buffer.
struct Places {
    source: u32,
    output: u32,
    next: u32,
    degree: u32,
}

/// kept - s, to its digit and, scaled, to the next conversion's source.
fn subtract(s: Sum, row: vec4<u32>, digit: vec4<u32>, at: Places) {
    let word = sub_mod(scaled[at.source + row.w * at.degree], redc(s, Modulus(row.x, row.y, 0u, 0u)), row.x);
    out[at.output + row.z * at.degree] = word;
    next[at.next + digit.z * at.degree] = mul_shoup(word, digit.xy, row.x);
}

/// The same grid as `convert`.
@compute @workgroup_size(THREADS)
fn convert_divide(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let block = args.rows[id.y];
    let source = id.z * args.source_stride + id.x;
    let sums = sums_of(block, source + block.x * degree, degree);
    let targets = block.w;
    let digits = targets + BLOCK + 3u * (block.y + 1u);
    let at = Places(source, id.z * args.output_stride + id.x, id.z * args.next_stride + id.x, degree);
    subtract(sums.a, args.rows[targets], args.rows[digits], at);
    if (block.z > 1u) { subtract(sums.b, args.rows[targets + 1u], args.rows[digits + 1u], at); }
    if (block.z > 2u) { subtract(sums.c, args.rows[targets + 2u], args.rows[digits + 2u], at); }
    if (block.z > 3u) { subtract(sums.d, args.rows[targets + 3u], args.rows[digits + 3u], at); }
    if (block.z > 4u) { subtract(sums.e, args.rows[targets + 4u], args.rows[digits + 4u], at); }
    if (block.z > 5u) { subtract(sums.f, args.rows[targets + 5u], args.rows[digits + 5u], at); }
    if (block.z > 6u) { subtract(sums.g, args.rows[targets + 6u], args.rows[digits + 6u], at); }
    if (block.z > 7u) { subtract(sums.h, args.rows[targets + 7u], args.rows[digits + 7u], at); }
}
