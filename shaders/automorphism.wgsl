// X -> X^g in the NTT domain: a permutation of the words of a limb. Index i holds the value at the root of exponent
// 2 brv(i) + 1, so out[i] = in[j] with 2 brv(j) + 1 = g (2 brv(i) + 1) mod 2N.

struct Permute {
    degree: u32,
    log_degree: u32,
    galois: u32,
    /// First word of the source, and words from one of its polynomials to the next.
    source: u32,
    source_stride: u32,
    /// Words from one output polynomial to the next.
    output_stride: u32,
    limbs: array<PermuteLimb>,
}

/// Where a limb is read and written, in limbs of a polynomial.
struct PermuteLimb {
    source: u32,
    output: u32,
}

@group(0) @binding(0) var<storage, read> args: Permute;
@group(0) @binding(2) var<storage, read> src: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

/// x = word, y = pair, z = polynomial.
@compute @workgroup_size(THREADS)
fn permute(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let shift = 32u - args.log_degree;
    let exponent = args.galois * (2u * (reverseBits(id.x) >> shift) + 1u) & (2u * degree - 1u);
    let source = reverseBits(exponent >> 1u) >> shift;
    let limb = args.limbs[id.y];
    let read = args.source + id.z * args.source_stride + limb.source * degree;
    let write = id.z * args.output_stride + limb.output * degree;
    out[write + id.x] = src[read + source];
}
