// Sums over several ciphertexts, word by word: each is read once, and nothing is written in between. x = word, y = limb.

struct Summation {
    degree: u32,
    limb_count: u32,
    /// Parts or pairs summed here.
    terms: u32,
    /// Whether to add to the output.
    adds: u32,
    /// First word of the output.
    output: u32,
    /// Of several sums at once: how many, and words from one to the next.
    sums: u32,
    sum_stride: u32,
    /// `[sum][term][limb]`.
    rows: array<SummationRow>,
}

/// A limb of a term.
struct SummationRow {
    prime: u32,
    /// Of a part, its constant in Montgomery form. Of a pair, how often it is summed, in Montgomery form, and the Shoup companion.
    factor: u32,
    factor_shoup: u32,
    /// Of a pair among several sums: its ciphertexts, and whether it is the last of its sum.
    first: u32,
    second: u32,
    ends: u32,
}

@group(0) @binding(0) var<storage, read> args: Summation;
@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read> c: array<u32>;
@group(0) @binding(5) var<storage, read> d: array<u32>;
@group(0) @binding(6) var<storage, read> e: array<u32>;
@group(0) @binding(7) var<storage, read_write> out: array<u32>;
@group(0) @binding(8) var<storage, read> f: array<u32>;
@group(0) @binding(9) var<storage, read> g: array<u32>;
@group(0) @binding(10) var<storage, read> h: array<u32>;
@group(0) @binding(11) var<storage, read> i: array<u32>;
@group(0) @binding(12) var<storage, read> j: array<u32>;
@group(0) @binding(13) var<storage, read> k: array<u32>;
@group(0) @binding(14) var<storage, read> l: array<u32>;

/// Parts and pairs of one dispatch, as many as there are bindings for.
const PARTS: u32 = 5u;
const PAIRS: u32 = 2u;
/// Ciphertexts of one dispatch that makes several sums.
const OPERANDS: u32 = 12u;

fn factor(term: u32, limb: u32) -> u32 {
    return args.rows[term * args.limb_count + limb].factor;
}

/// out = sum of parts times constants: a c_0 + b c_1 + ...; z = polynomial. No more products than a sum has room for.
@compute @workgroup_size(THREADS)
fn linear_combination(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = (id.z * args.limb_count + id.y) * args.degree + id.x;
    var sum = zero_sum();
    if (args.adds != 0u) {
        sum = raised(out[args.output + at]);
    }
    sum = mac(sum, a[at], factor(0u, id.y));
    if (args.terms > 1u) { sum = mac(sum, b[at], factor(1u, id.y)); }
    if (args.terms > 2u) { sum = mac(sum, c[at], factor(2u, id.y)); }
    if (args.terms > 3u) { sum = mac(sum, d[at], factor(3u, id.y)); }
    if (args.terms > 4u) { sum = mac(sum, e[at], factor(4u, id.y)); }
    out[args.output + at] = redc(sum, moduli[args.rows[id.y].prime]);
}

struct Product {
    low: Sum,
    middle: Sum,
    high: Sum,
}

/// Adds (x0 y0, x0 y1 + x1 y0, x1 y1) as often as the term says.
fn add_product(s: Product, x: vec2<u32>, y: vec2<u32>, term: u32, limb: u32, q: u32) -> Product {
    let row = args.rows[term * args.limb_count + limb];
    let times = vec2<u32>(row.factor, row.factor_shoup);
    // Below 2q: two products of one pair, and two pairs, sum to less than 8 q^2 < 2 q 2^32.
    let x0 = mul_shoup_lazy(x.x, times, q);
    let x1 = mul_shoup_lazy(x.y, times, q);
    return Product(mac(s.low, x0, y.x), mac(mac(s.middle, x0, y.y), x1, y.x), mac(s.high, x1, y.y));
}

/// out = sum of products (x0 y0, x0 y1 + x1 y0, x1 y1) of a with b and of c with d; z = shard.
@compute @workgroup_size(THREADS)
fn tensor_sum(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let m = moduli[args.rows[id.y].prime];
    let half = args.limb_count * degree;
    let at = 2u * id.z * half + id.y * degree + id.x;
    let write = args.output + 3u * id.z * half + id.y * degree + id.x;
    var s = Product(zero_sum(), zero_sum(), zero_sum());
    if (args.adds != 0u) {
        s = Product(raised(out[write]), raised(out[write + half]), raised(out[write + 2u * half]));
    }
    s = add_product(s, vec2<u32>(a[at], a[at + half]), vec2<u32>(b[at], b[at + half]), 0u, id.y, m.q);
    if (args.terms > 1u) {
        s = add_product(s, vec2<u32>(c[at], c[at + half]), vec2<u32>(d[at], d[at + half]), 1u, id.y, m.q);
    }
    out[write] = redc(s.low, m);
    out[write + half] = redc(s.middle, m);
    out[write + 2u * half] = redc(s.high, m);
}

/// Several sums of the same parts at once: each part is read once for all of them. z = polynomial.
@compute @workgroup_size(THREADS)
fn linear_combinations(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = (id.z * args.limb_count + id.y) * args.degree + id.x;
    let terms = args.terms;
    let x0 = a[at];
    var x1 = 0u;
    var x2 = 0u;
    var x3 = 0u;
    var x4 = 0u;
    var x5 = 0u;
    var x6 = 0u;
    var x7 = 0u;
    var x8 = 0u;
    var x9 = 0u;
    var x10 = 0u;
    var x11 = 0u;
    if (terms > 1u) { x1 = b[at]; }
    if (terms > 2u) { x2 = c[at]; }
    if (terms > 3u) { x3 = d[at]; }
    if (terms > 4u) { x4 = e[at]; }
    if (terms > 5u) { x5 = f[at]; }
    if (terms > 6u) { x6 = g[at]; }
    if (terms > 7u) { x7 = h[at]; }
    if (terms > 8u) { x8 = i[at]; }
    if (terms > 9u) { x9 = j[at]; }
    if (terms > 10u) { x10 = k[at]; }
    if (terms > 11u) { x11 = l[at]; }
    let m = moduli[args.rows[id.y].prime];
    var write = args.output + at;
    for (var s = 0u; s < args.sums; s += 1u) {
        let first = s * terms;
        var sum = zero_sum();
        if (args.adds != 0u) {
            sum = raised(out[write]);
        }
        sum = mac(sum, x0, factor(first, id.y));
        if (terms > 1u) { sum = mac(sum, x1, factor(first + 1u, id.y)); }
        if (terms > 2u) { sum = mac(sum, x2, factor(first + 2u, id.y)); }
        if (terms > 3u) { sum = mac(sum, x3, factor(first + 3u, id.y)); }
        if (terms > 4u) { sum = mac(sum, x4, factor(first + 4u, id.y)); }
        if (terms > 5u) { sum = mac(sum, x5, factor(first + 5u, id.y)); }
        if (terms > 6u) { sum = mac(sum, x6, factor(first + 6u, id.y)); }
        if (terms > 7u) { sum = mac(sum, x7, factor(first + 7u, id.y)); }
        if (terms > 8u) { sum = mac(sum, x8, factor(first + 8u, id.y)); }
        if (terms > 9u) { sum = mac(sum, x9, factor(first + 9u, id.y)); }
        if (terms > 10u) { sum = mac(sum, x10, factor(first + 10u, id.y)); }
        if (terms > 11u) { sum = mac(sum, x11, factor(first + 11u, id.y)); }
        out[write] = redc(sum, m);
        write += args.sum_stride;
    }
}

/// A word of a ciphertext; what several pairs read is in a cache then.
fn operand(number: u32, at: u32) -> u32 {
    switch number {
        case 0u: { return a[at]; }
        case 1u: { return b[at]; }
        case 2u: { return c[at]; }
        case 3u: { return d[at]; }
        case 4u: { return e[at]; }
        case 5u: { return f[at]; }
        case 6u: { return g[at]; }
        case 7u: { return h[at]; }
        case 8u: { return i[at]; }
        case 9u: { return j[at]; }
        case 10u: { return k[at]; }
        default: { return l[at]; }
    }
}

fn reduced(s: Product, m: Modulus) -> Product {
    return Product(raised(redc(s.low, m)), raised(redc(s.middle, m)), raised(redc(s.high, m)));
}

/// Several sums of products at once, of any pairs of up to twelve ciphertexts; z = shard.
@compute @workgroup_size(THREADS)
fn tensor_sums(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let m = moduli[args.rows[id.y].prime];
    let half = args.limb_count * degree;
    let at = 2u * id.z * half + id.y * degree + id.x;
    var write = args.output + 3u * id.z * half + id.y * degree + id.x;
    var s = Product(zero_sum(), zero_sum(), zero_sum());
    var held = 0u;
    for (var t = 0u; t < args.terms; t += 1u) {
        if (held == PAIRS) {
            s = reduced(s, m);
            held = 0u;
        }
        let row = args.rows[t * args.limb_count];
        let x = vec2<u32>(operand(row.first, at), operand(row.first, at + half));
        let y = vec2<u32>(operand(row.second, at), operand(row.second, at + half));
        s = add_product(s, x, y, t, id.y, m.q);
        held += 1u;
        if (row.ends != 0u) {
            out[write] = redc(s.low, m);
            out[write + half] = redc(s.middle, m);
            out[write + 2u * half] = redc(s.high, m);
            write += args.sum_stride;
            s = Product(zero_sum(), zero_sum(), zero_sum());
            held = 0u;
        }
    }
}
