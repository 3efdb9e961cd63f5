// X -> X^g in the NTT domain: a permutation of the words of a limb. Index i holds the value at the root of exponent
// 2 brv(i) + 1, so out[i] = in[j] with 2 brv(j) + 1 = g (2 brv(i) + 1) mod 2N.
//
// args: 0 degree, 1 log2 degree, 2 Galois element, 3 first word of the source, 4 words from one source polynomial to the next,
// 5 words from one output polynomial to the next, then pairs from word 8 on: (limb of the source, limb of the output).

@group(0) @binding(2) var<storage, read> src: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const ROWS: u32 = 8u;

/// x = word, y = pair, z = polynomial.
@compute @workgroup_size(256)
fn permute(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args[0];
    if (id.x >= degree) { return; }
    let shift = 32u - args[1];
    let exponent = args[2] * (2u * (reverseBits(id.x) >> shift) + 1u) & (2u * degree - 1u);
    let source = reverseBits(exponent >> 1u) >> shift;
    let pair = ROWS + 2u * id.y;
    let read = args[3] + id.z * args[4] + args[pair] * degree;
    let write = id.z * args[5] + args[pair + 1u] * degree;
    out[write + id.x] = src[read + source];
}
