// 64-bit products where the adapter has 64-bit integers. In registers only: a `u64` in a buffer is not portable.

/// floor(a b / 2^32).
fn mulhi(a: u32, b: u32) -> u32 {
    return u32((u64(a) * u64(b)) >> 32u);
}

/// A sum of 64-bit products.
alias Sum = u64;

fn zero_sum() -> Sum {
    return u64(0u);
}

/// x 2^32.
fn raised(x: u32) -> Sum {
    return u64(x) << 32u;
}

/// s + a b mod 2^64.
fn mac(s: Sum, a: u32, b: u32) -> Sum {
    return s + u64(a) * u64(b);
}

fn low(s: Sum) -> u32 {
    return u32(s & u64(0xffffffffu));
}

fn high(s: Sum) -> u32 {
    return u32(s >> 32u);
}

/// Takes bound 2^32 from a sum that is not below it; sums below 2 bound 2^32.
fn fold(s: Sum, bound: u32) -> Sum {
    let h = high(s);
    return (u64(min(h, h - bound)) << 32u) | u64(low(s));
}
