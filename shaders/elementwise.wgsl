// Word-by-word kernels. A thread makes one word of every polynomial it stands for: x = word, y = limb, z = polynomial.
//
// args: 0 degree, 1 limbs, 2..6 selection (first, stride, count, polynomials of b), then a row of four words for each limb
// from word 8 on: (global limb id, constant, its Shoup companion, unused). `divide_tail` has rows of eight.

@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

const ROWS: u32 = 8u;
const NOT_SELECTED: u32 = 0xffffffffu;

fn modulus(limb: u32) -> Modulus {
    return moduli[args[ROWS + 4u * limb]];
}

fn constant(limb: u32) -> vec2<u32> {
    return vec2<u32>(args[ROWS + 4u * limb + 1u], args[ROWS + 4u * limb + 2u]);
}

/// First word of a limb of a polynomial.
fn limb_at(poly: u32, limb: u32) -> u32 {
    return (poly * args[1] + limb) * args[0];
}

/// The rank of a polynomial in the selection.
fn selected(poly: u32) -> u32 {
    let stride = args[3];
    let d = poly - args[2];
    let rank = d / max(stride, 1u);
    let fits = poly >= args[2] && rank < args[4] && (stride == 0u || d % max(stride, 1u) == 0u);
    return select(NOT_SELECTED, rank, fits);
}

/// out = a + b on the selected polynomials, the i-th with polynomial i mod (polynomials of b) of b; out = a on the others.
@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    let rank = selected(id.z);
    var word = a[at];
    if (rank != NOT_SELECTED) {
        word = add_mod(word, b[limb_at(rank % args[5], id.y) + id.x], modulus(id.y).q);
    }
    out[at] = word;
}

/// out = a - b.
@compute @workgroup_size(256)
fn sub(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = sub_mod(a[at], b[at], modulus(id.y).q);
}

/// out = -a.
@compute @workgroup_size(256)
fn negate(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    let q = modulus(id.y).q;
    out[at] = reduce_once(q - a[at], q);
}

/// out = a + c on the selected polynomials, a on the others.
@compute @workgroup_size(256)
fn add_constant(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    var word = a[at];
    if (selected(id.z) != NOT_SELECTED) {
        word = add_mod(word, constant(id.y).x, modulus(id.y).q);
    }
    out[at] = word;
}

/// out = a c.
@compute @workgroup_size(256)
fn mul_constant(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = mul_shoup(a[at], constant(id.y), modulus(id.y).q);
}

/// out = a b 2^-32, b in Montgomery form: shard i by polynomial i mod (polynomials of b).
@compute @workgroup_size(256)
fn mul_plain(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = mul_mont(a[at], b[limb_at(id.z / 2u % args[5], id.y) + id.x], modulus(id.y));
}

/// out = (a0 b0, a0 b1 + a1 b0, a1 b1); z = shard.
@compute @workgroup_size(256)
fn tensor(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let m = modulus(id.y);
    let first = limb_at(2u * id.z, id.y) + id.x;
    let second = limb_at(2u * id.z + 1u, id.y) + id.x;
    // Into Montgomery form, in [0, 2q): two products with values below q sum to less than 4 q^2.
    let r = vec2<u32>(m.r, m.r_shoup);
    let a0 = mul_shoup_lazy(a[first], r, m.q);
    let a1 = mul_shoup_lazy(a[second], r, m.q);
    let b0 = b[first];
    let b1 = b[second];
    out[limb_at(3u * id.z, id.y) + id.x] = mul_mont(a0, b0, m);
    out[limb_at(3u * id.z + 1u, id.y) + id.x] = redc(mac(mac(zero_sum(), a0, b1), a1, b0), m);
    out[limb_at(3u * id.z + 2u, id.y) + id.x] = mul_mont(a1, b1, m);
}

/// out = a keep - b tail: the tail of a division with rounding. args: 1 limbs of b and out, 2 limbs of a; rows of eight words:
/// (global limb id, limb of a plus one or 0 where there is none, keep, its Shoup companion, tail, its Shoup companion, -, -).
@compute @workgroup_size(256)
fn divide_tail(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let row = ROWS + 8u * id.y;
    let q = moduli[args[row]].q;
    let at = limb_at(id.z, id.y) + id.x;
    let position = args[row + 1u];
    var kept = 0u;
    if (position != 0u) {
        kept = mul_shoup(a[(id.z * args[2] + position - 1u) * args[0] + id.x], vec2<u32>(args[row + 2u], args[row + 3u]), q);
    }
    out[at] = sub_mod(kept, mul_shoup(b[at], vec2<u32>(args[row + 4u], args[row + 5u]), q), q);
}
