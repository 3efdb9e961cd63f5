"""How often a bootstrap fails: the multiple of q0 that raising the modulus adds is too large for the sine, in exact rationals.

    python3 docs/security/failure.py

A coefficient of the raised ciphertext is q0 I + (message), and I = round(Y) for Y a sum of h independent uniform variables on [-1/2, 1/2): `crates/core/src/ckks/overflow.rs`
says why, and computes the same in f64. It fails where |I| >= k. What is bounded is the number of failures expected, which is at least the probability
of one: no independence is used.
"""

from fractions import Fraction
from math import comb, factorial, floor, log2

WEIGHT, K, DEGREE = 32, 14, 2**16
# Ciphertexts raised: one; those of a ResNet-20 of 19 activations, each a bootstrap of one ciphertext (`cipherlens plan`); 10^9 such pictures.
CASES = [("a ciphertext", 1), ("a picture through ResNet-20, 19 ciphertexts", 19), ("a billion such pictures", 19 * 10**9)]


def tail(weight, k):
    """P(|Y| >= k - 1/2) = 2 P(S <= h/2 - k + 1/2), S the sum of h uniform variables on [0, 1]: inclusion and exclusion."""
    x = Fraction(weight, 2) - k + Fraction(1, 2)
    terms = ((-1) ** j * comb(weight, j) * (x - j) ** weight for j in range(floor(x) + 1))
    return 2 * sum(terms, Fraction(0)) / factorial(weight)


def bits(p):
    """log2 of a rational of any size."""
    return log2(p.numerator) - log2(p.denominator) if p else float("-inf")


if __name__ == "__main__":
    print(f"h = {WEIGHT}, |I| < {K}, N = {DEGREE}")
    for name, count in CASES:
        print(f"{name}: 2^{bits(count * DEGREE * tail(WEIGHT, K)):.2f}")
    for k in (13, 15, 16, 17):
        print(f"a ciphertext, were it |I| < {k}: 2^{bits(DEGREE * tail(WEIGHT, k)):.2f}")
