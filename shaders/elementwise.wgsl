// Word-by-word kernels. A thread makes one word of every polynomial it stands for: x = word, y = limb, z = polynomial.
// Kernels named `_assign` change selected polynomials of the output in place; the others write all.

struct Elementwise {
    degree: u32,
    limb_count: u32,
    /// First word of the output, and words from one of its selected polynomials to the next.
    output: u32,
    output_stride: u32,
    /// Polynomials of b, and the place of the first one here among all that take them in turn. Of constants: how many polynomials in a
    /// row add the same ones.
    b_polys: u32,
    first: u32,
    /// Of a division where nothing is dropped: first word of a, and limbs of one of its polynomials.
    a: u32,
    a_limbs: u32,
    limbs: array<ElementwiseLimb>,
}

struct ElementwiseLimb {
    prime: u32,
    constant: u32,
    constant_shoup: u32,
    /// Of a division: the limb of a plus one, or 0 where there is none.
    a_limb: u32,
}

@group(0) @binding(0) var<storage, read> args: Elementwise;
@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

fn modulus(limb: u32) -> Modulus {
    return moduli[args.limbs[limb].prime];
}

fn constant(limb: u32) -> vec2<u32> {
    return vec2<u32>(args.limbs[limb].constant, args.limbs[limb].constant_shoup);
}

/// First word of a limb of a polynomial.
fn limb_at(poly: u32, limb: u32) -> u32 {
    return (poly * args.limb_count + limb) * args.degree;
}

/// First word of a limb of a selected polynomial of the output.
fn selected_at(rank: u32, limb: u32) -> u32 {
    return args.output + rank * args.output_stride + limb * args.degree;
}

/// out = a + b.
@compute @workgroup_size(THREADS)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = add_mod(a[at], b[at], modulus(id.y).q);
}

/// out += b, the i-th selected polynomial with polynomial i mod (polynomials of b) of b.
@compute @workgroup_size(THREADS)
fn add_assign(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = selected_at(id.z, id.y) + id.x;
    out[at] = add_mod(out[at], b[limb_at((args.first + id.z) % args.b_polys, id.y) + id.x], modulus(id.y).q);
}

/// out = a - b.
@compute @workgroup_size(THREADS)
fn sub(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = sub_mod(a[at], b[at], modulus(id.y).q);
}

/// out = -a.
@compute @workgroup_size(THREADS)
fn negate(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    let q = modulus(id.y).q;
    out[at] = reduce_once(q - a[at], q);
}

/// out += c on the selected polynomials; c is `[run of polynomials][limb]`.
@compute @workgroup_size(THREADS)
fn add_constant_assign(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = selected_at(id.z, id.y) + id.x;
    let row = (args.first + id.z) / args.b_polys * args.limb_count + id.y;
    out[at] = add_mod(out[at], constant(row).x, modulus(id.y).q);
}

/// out = a c.
@compute @workgroup_size(THREADS)
fn mul_constant(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = mul_shoup(a[at], constant(id.y), modulus(id.y).q);
}

/// out = a b 2^-32, b in Montgomery form: shard i by polynomial i mod (polynomials of b).
@compute @workgroup_size(THREADS)
fn mul_plain(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let at = limb_at(id.z, id.y) + id.x;
    out[at] = mul_mont(a[at], b[limb_at((args.first + id.z) / 2u % args.b_polys, id.y) + id.x], modulus(id.y));
}

/// out = a keep, limbs rearranged: a division where nothing is dropped.
@compute @workgroup_size(THREADS)
fn multiply_kept(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= args.degree) { return; }
    let position = args.limbs[id.y].a_limb;
    var word = 0u;
    if (position != 0u) {
        word = mul_shoup(a[args.a + (id.z * args.a_limbs + position - 1u) * args.degree + id.x], constant(id.y), modulus(id.y).q);
    }
    out[args.output + limb_at(id.z, id.y) + id.x] = word;
}
