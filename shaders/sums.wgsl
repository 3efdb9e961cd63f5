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
    /// `[term][limb]`.
    rows: array<SummationRow>,
}

/// A limb of a term.
struct SummationRow {
    prime: u32,
    /// Of a part, its constant in Montgomery form. Of a pair, how often it is summed, in Montgomery form, and the Shoup companion.
    factor: u32,
    factor_shoup: u32,
}

@group(0) @binding(0) var<storage, read> args: Summation;
@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read> c: array<u32>;
@group(0) @binding(5) var<storage, read> d: array<u32>;
@group(0) @binding(6) var<storage, read> e: array<u32>;
@group(0) @binding(7) var<storage, read_write> out: array<u32>;

/// Parts and pairs of one dispatch, as many as there are bindings for.
const PARTS: u32 = 5u;
const PAIRS: u32 = 2u;

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
