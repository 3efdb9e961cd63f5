"""Bootstrapping in OpenFHE beside `cipherlens bench bootstrap`: N = 2^16, all 2^15 slots, 128 bits, uniform ternary secret.

usage: OMP_NUM_THREADS=T python openfhe_bootstrap.py [LEVELS_LEFT] [REPETITIONS]        (pip install openfhe)

Takes about 16 GB of memory. One JSON object on standard output: seconds, precision in bits, levels left.
"""

import json
import math
import os
import random
import sys
import time

import openfhe as fhe

levels_left = int(sys.argv[1]) if len(sys.argv) > 1 else 4
repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 1
slots, budget = 1 << 15, [3, 3]
secret = fhe.SecretKeyDist.UNIFORM_TERNARY
parameters = fhe.CCParamsCKKSRNS()
parameters.SetSecretKeyDist(secret)
parameters.SetSecurityLevel(fhe.SecurityLevel.HEStd_128_classic)
parameters.SetRingDim(1 << 16)
parameters.SetBatchSize(slots)
parameters.SetScalingModSize(54)
parameters.SetFirstModSize(60)
parameters.SetScalingTechnique(fhe.ScalingTechnique.FLEXIBLEAUTO)
parameters.SetKeySwitchTechnique(fhe.KeySwitchTechnique.HYBRID)
parameters.SetNumLargeDigits(5)
parameters.SetMultiplicativeDepth(levels_left + fhe.FHECKKSRNS.GetBootstrapDepth(budget, secret))
context = fhe.GenCryptoContext(parameters)
feature = fhe.PKESchemeFeature
for wanted in (feature.PKE, feature.KEYSWITCH, feature.LEVELEDSHE, feature.ADVANCEDSHE, feature.FHE):
    context.Enable(wanted)
context.EvalBootstrapSetup(budget, [0, 0], slots)
start = time.perf_counter()
keys = context.KeyGen()
context.EvalMultKeyGen(keys.secretKey)
context.EvalBootstrapKeyGen(keys.secretKey, slots)
keygen = time.perf_counter() - start

random.seed(1)
values = [random.uniform(-1, 1) for _ in range(slots)]
depth = parameters.GetMultiplicativeDepth()
plain = context.MakeCKKSPackedPlaintext(values, 1, depth - 1)
ciphertext = context.Encrypt(keys.publicKey, plain)
seconds, cpu = [], []
for _ in range(repetitions):
    start, busy = time.perf_counter(), time.process_time()
    fresh = context.EvalBootstrap(ciphertext)
    seconds.append(time.perf_counter() - start)
    cpu.append(time.process_time() - busy)
decrypted = context.Decrypt(fresh, keys.secretKey)
decrypted.SetLength(slots)
errors = [abs(a - b) for a, b in zip(values, decrypted.GetRealPackedValue())]
print(json.dumps({
    "library": "OpenFHE", "threads": os.environ.get("OMP_NUM_THREADS", "all"), "seconds": sorted(seconds)[len(seconds) // 2],
    "cpu_seconds": sorted(cpu)[len(cpu) // 2], "keygen_seconds": keygen, "levels_left": depth - fresh.GetLevel() - (fresh.GetNoiseScaleDeg() - 1),
    "precision_bits_mean": -math.log2(sum(errors) / len(errors)), "precision_bits_worst": -math.log2(max(errors)),
}))
