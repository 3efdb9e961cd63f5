//! Galois elements of the ring of degree N: the odd g below 2N, each of which stands for the automorphism `X -> X^g`.

/// Whether it is one: odd and below 2N.
pub fn is_element(galois: u32, degree: usize) -> bool {
    !galois.is_multiple_of(2) && (galois as usize) < 2 * degree
}

/// The element of the rotation by `k` (slot i of the result is slot i + k of the input): `5^k mod 2N`.
pub fn rotation(k: i64, degree: usize) -> u32 {
    let modulus = 2 * degree as u64;
    let (mut result, mut base, mut e) = (1u64, 5u64, k.rem_euclid(degree as i64 / 2));
    while e > 0 {
        if e & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        e >>= 1;
    }
    result as u32
}

/// The element of complex conjugation: `2N - 1`.
pub fn conjugation(degree: usize) -> u32 {
    (2 * degree - 1) as u32
}

/// `galois^-1 mod 2N` for an odd element and a power of two, by Newton's iteration: each step doubles the bits that are right.
pub fn inverse(galois: u32, degree: usize) -> u32 {
    let mut x = galois;
    for _ in 0..5 {
        x = x.wrapping_mul(2u32.wrapping_sub(galois.wrapping_mul(x)));
    }
    x & (2 * degree as u32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_of_galois_elements() {
        for log_n in 4..=17 {
            let degree = 1usize << log_n;
            for galois in [1u32, 3, 5, 25, 2 * degree as u32 - 1, degree as u32 + 1] {
                let galois = galois % (2 * degree as u32);
                let product = u64::from(galois) * u64::from(inverse(galois, degree));
                assert_eq!(product % (2 * degree as u64), 1, "{galois} modulo {}", 2 * degree);
            }
        }
    }

    #[test]
    fn rotations_are_powers_of_five() {
        for degree in [16usize, 1 << 11, 1 << 17] {
            let (slots, modulus) = (degree as i64 / 2, 2 * degree as u32);
            let mut power = 1;
            for k in 0..100 {
                assert_eq!(rotation(k, degree), power, "{k}");
                assert_eq!(rotation(k - slots, degree), power, "{k}");
                assert_eq!(inverse(power, degree), rotation(-k, degree), "{k}");
                assert!(is_element(power, degree));
                power = power * 5 % modulus;
            }
            assert_eq!(inverse(conjugation(degree), degree), conjugation(degree));
            for none in [0, 2, modulus, modulus + 1, u32::MAX] {
                assert!(!is_element(none, degree), "{none}");
            }
        }
    }
}
