// From integers held as f64 to residues (src/ckks/encoder/residues.rs), in integers alone: the mantissa is shifted to where the
// exponent says, and its two words are reduced together.

struct Reduce {
    degree: u32,
    limb_count: u32,
    /// Coefficients stored of each polynomial: all, or the first half of a real vector's, whose second half is m_(N-k) = -m_k
    /// with m_(N/2) = 0.
    stored: u32,
    limbs: array<ReduceLimb>,
}

/// 2^32 f and 2^64 f, where f is 1, or 2^32 for residues in Montgomery form.
struct ReduceLimb {
    prime: u32,
    low: u32,
    high: u32,
}

@group(0) @binding(0) var<storage, read> args: Reduce;
@group(0) @binding(2) var<storage, read> coefficients: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

/// The exponent field of 2^52: a mantissa with this exponent is not shifted.
const UNSHIFTED: u32 = 1075u;

/// Integers |x| < 2^53. x = coefficient, y = limb, z = polynomial.
@compute @workgroup_size(THREADS)
fn reduce(@builtin(global_invocation_id) id: vec3<u32>) {
    let degree = args.degree;
    if (id.x >= degree) { return; }
    let stored = args.stored;
    let mirrored = id.x >= stored;
    let source = select(id.x, degree - id.x, mirrored);
    let limb = args.limbs[id.y];
    let m = moduli[limb.prime];
    var word = 0u;
    // With half of the coefficients stored, the middle one is its own mirror image and 0.
    if (source < stored) {
        let bits = coefficients[id.z * stored + source];
        let exponent = (bits.y >> 20u) & 0x7ffu;
        if (exponent != 0u) {
            var h = (bits.y & 0xfffffu) | 0x100000u;
            var l = bits.x;
            // In 0..53 for nonzero integers.
            let shift = UNSHIFTED - exponent;
            if (shift >= 32u) {
                l = h >> (shift - 32u);
                h = 0u;
            } else if (shift > 0u) {
                l = (l >> shift) | (h << (32u - shift));
                h = h >> shift;
            }
            word = redc(mac(mac(zero_sum(), l, limb.low), h, limb.high), m);
            if (((bits.y >> 31u) != 0u) != mirrored) {
                word = reduce_once(m.q - word, m.q);
            }
        }
    }
    out[(id.z * args.limb_count + id.y) * degree + id.x] = word;
}
