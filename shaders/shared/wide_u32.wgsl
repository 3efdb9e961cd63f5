// The same products in 32-bit integers, exactly: factors are split into halves of 16 bits.

/// floor(a b / 2^32).
fn mulhi(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    // Neither sum wraps: (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
    let middle = ah * bl + ((al * bl) >> 16u);
    let rest = al * bh + (middle & 0xffffu);
    return ah * bh + (middle >> 16u) + (rest >> 16u);
}

/// A sum of 64-bit products: (low word, high word).
alias Sum = vec2<u32>;

fn zero_sum() -> Sum {
    return vec2<u32>(0u, 0u);
}

/// x 2^32.
fn raised(x: u32) -> Sum {
    return vec2<u32>(0u, x);
}

/// s + a b mod 2^64.
fn mac(s: Sum, a: u32, b: u32) -> Sum {
    let l = s.x + a * b;
    return vec2<u32>(l, s.y + mulhi(a, b) + select(0u, 1u, l < s.x));
}

fn low(s: Sum) -> u32 {
    return s.x;
}

fn high(s: Sum) -> u32 {
    return s.y;
}

/// Takes bound 2^32 from a sum that is not below it; sums below 2 bound 2^32.
fn fold(s: Sum, bound: u32) -> Sum {
    return vec2<u32>(s.x, min(s.y, s.y - bound));
}
