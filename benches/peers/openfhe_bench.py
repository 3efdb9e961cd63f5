"""CKKS operations in OpenFHE at the size of `cipherlens bench ops`, for a table side by side.

usage: OMP_NUM_THREADS=T python openfhe_bench.py [REPETITIONS]        (pip install openfhe)

N = 2^16, hybrid key switching with 3 digits, 59-bit scale: 21 limbs of 60 bits (log Q about 1241), 7 special (420).
One JSON object on standard output, milliseconds, medians.
"""

import json
import os
import statistics
import sys
import time

import openfhe as fhe

repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
parameters = fhe.CCParamsCKKSRNS()
parameters.SetSecurityLevel(fhe.SecurityLevel.HEStd_128_classic)
parameters.SetRingDim(1 << 16)
parameters.SetBatchSize(1 << 15)
parameters.SetMultiplicativeDepth(20)
parameters.SetScalingModSize(59)
parameters.SetFirstModSize(60)
parameters.SetScalingTechnique(fhe.ScalingTechnique.FIXEDMANUAL)
parameters.SetKeySwitchTechnique(fhe.KeySwitchTechnique.HYBRID)
parameters.SetNumLargeDigits(3)
context = fhe.GenCryptoContext(parameters)
for feature in (fhe.PKESchemeFeature.PKE, fhe.PKESchemeFeature.KEYSWITCH, fhe.PKESchemeFeature.LEVELEDSHE):
    context.Enable(feature)
keys = context.KeyGen()
context.EvalMultKeyGen(keys.secretKey)
context.EvalRotateKeyGen(keys.secretKey, [1])

values = [((i * 7919) % 2001 - 1000) / 1000 for i in range(1 << 15)]
plain = context.MakeCKKSPackedPlaintext(values)
x = context.Encrypt(keys.publicKey, plain)
y = context.Encrypt(keys.publicKey, plain)


def median(name, operation):
    operation()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - start)
    result[name] = round(statistics.median(seconds) * 1e3, 2)


result = {"library": "OpenFHE " + fhe.__version__ if hasattr(fhe, "__version__") else "OpenFHE", "threads": os.environ.get("OMP_NUM_THREADS", "all")}
median("add", lambda: context.EvalAdd(x, y))
median("plaintext product", lambda: context.EvalMult(x, plain))
median("mul + relinearize", lambda: context.EvalMult(x, y))
product = context.EvalMult(x, y)
median("rescale", lambda: context.Rescale(product))
median("rotate", lambda: context.EvalRotate(x, 1))
digits = context.EvalFastRotationPrecompute(x)
median("hoisted rotation: digits", lambda: context.EvalFastRotationPrecompute(x))
median("hoisted rotation: each", lambda: context.EvalFastRotation(x, 1, context.GetCyclotomicOrder(), digits))
median("encode", lambda: context.MakeCKKSPackedPlaintext(values))
median("encrypt", lambda: context.Encrypt(keys.publicKey, plain))
print(json.dumps(result))
