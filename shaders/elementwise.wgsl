// Word-by-word kernels. A thread makes one word of every polynomial it stands for: x = word, y = limb, z = polynomial.
//
// args: 0 degree, 1 limbs, 2 first word of the output, 3 words from one of its polynomials to the next, 4 polynomials of b,
// 5 number of the first polynomial, then from word 8 on a row of four words for each limb: (global limb id, constant, its
// Shoup companion, -). Kernels named `_assign` change selected polynomials of the output in place; the others write all.

@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

const ROWS: u32 = 8u;

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

/// First word of a limb of a selected polynomial of the output.
fn selected_at(rank: u32, limb: u32) -> u32 {
    return args[2] + rank * args[3] + limb * args[0];
}

/// out = a + b.
@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = add_mod(a[at], b[at], modulus(id.y).q);
}

/// out += b, the i-th selected polynomial with polynomial i mod (polynomials of b) of b.
@compute @workgroup_size(256)
fn add_assign(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = selected_at(id.z, id.y) + id.x;
    out[at] = add_mod(out[at], b[limb_at((args[5] + id.z) % args[4], id.y) + id.x], modulus(id.y).q);
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

/// out += c on the selected polynomials.
@compute @workgroup_size(256)
fn add_constant_assign(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let at = selected_at(id.z, id.y) + id.x;
    out[at] = add_mod(out[at], constant(id.y).x, modulus(id.y).q);
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
    out[at] = mul_mont(a[at], b[limb_at((args[5] + id.z) / 2u % args[4], id.y) + id.x], modulus(id.y));
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

/// out = a keep, limbs rearranged: a division where nothing is dropped. args: 2 limbs of a, 3 first word of the output, 4 first word
/// of a; rows: (global limb id, keep, its Shoup companion, limb of a plus one or 0 where there is none).
@compute @workgroup_size(256)
fn multiply_kept(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args[0]) { return; }
    let position = args[ROWS + 4u * id.y + 3u];
    var word = 0u;
    if (position != 0u) {
        word = mul_shoup(a[args[4] + (id.z * args[2] + position - 1u) * args[0] + id.x], constant(id.y), modulus(id.y).q);
    }
    out[args[3] + limb_at(id.z, id.y) + id.x] = word;
}
