"""Bits of security of every preset, by the lattice estimator (Albrecht, Player, Scott 2015; github.com/malb/lattice-estimator).

    python3 -m venv v && v/bin/pip install passagemath-standard-no-symbolics passagemath-symbolics     # or any Sage
    git clone https://github.com/malb/lattice-estimator && git -C lattice-estimator checkout 27a581b
    cipherlens params list --json > sets.json
    PYTHONPATH=lattice-estimator v/bin/python docs/security/estimate.py sets.json docs/security/estimates.json

Dense ternary secret, as many samples as the attacker likes: usvp and, with `--every`, for the presets bdd (N <= 2^15) and dual hybrid attacks too (many minutes each; they are
within 0.3 bits of usvp or above it), each with the cost of lattice reduction as in MATZOV 2022 (the estimator's default and the guidelines' classical model), as in Becker, Ducas, Gama, Laarhoven 2016, and with quantum
sieving as in Laarhoven, Mosca, van de Pol 2015 (the model in which the guidelines' quantum caps are 128 bits).

Sparse secret (weight 32, the key that leads to it): the estimator's own search over the guessed dimensions does not end in a finite cost, so it
is done here: hybrid primal (Howgrave-Graham 2007) and hybrid dual (Espitau, Joux, Kharchenko 2020; Cheon, Hhan, Hong, Son 2019), with and without
meet in the middle, over a grid of guessed coordinates (and weights among them), refined around the least.

Results are kept in the JSON file as they come, and a second run does only what is missing. Takes an hour or two on one core.
"""

import json
import math
import sys
import time
from functools import partial

from estimator import LWE, ND, RC
from estimator.cost import Cost
from estimator.lwe_dual import DH
from estimator.lwe_guess import exhaustive_search, mitm
from estimator.lwe_primal import primal_hybrid

SIGMA = 3.19
MODELS = {"matzov": RC.MATZOV, "bdgl16": RC.BDGL16, "quantum": RC.LaaMosPol14}
# The caps of `SECURITY_CAPS_128` and `QUANTUM_CAPS_128`, as rows of their own.
CAPS = {12: (106, 101), 13: (214, 203), 14: (430, 409), 15: (868, 825), 16: (1747, 1663), 17: (3523, 3348)}
# The points that `SECURITY_ESTIMATES_16` lies between.
POINTS = [(16, q) for q in (1550, 1600, 1650, 1700, 1720, 1747)]
# Rows of `SPARSE_CAPS_128` and more: (log N, log q).
SPARSE = [(16, 109), (16, 200), (15, 120)]
WEIGHT = 32


def bits(cost):
    rop = cost["rop"]
    return float(math.inf) if rop == float("inf") else float(math.log2(rop))


def integer(log_q):
    """An integer of that many bits (the estimator wants one)."""
    whole = int(log_q)
    return int(2 ** (log_q - whole) * 2**52) << (whole - 52) if whole > 52 else int(2**log_q)


def dense(log_n, log_q, model, every):
    params = LWE.Parameters(n=2**log_n, q=integer(log_q), Xs=ND.Uniform(-1, 1), Xe=ND.DiscreteGaussian(SIGMA))
    attacks = {"usvp": LWE.primal_usvp}
    if every:
        attacks["dual_hybrid"] = LWE.dual_hybrid
    if every and log_n <= 15:
        attacks["bdd"] = LWE.primal_bdd
    return {name: round(bits(attack(params, red_cost_model=MODELS[model])), 1) for name, attack in attacks.items()}


def least(cost, grid, refine):
    """The least of cost over a grid, refined: (bits, argument)."""
    seen = {}

    def at(x):
        if x not in seen:
            try:
                seen[x] = cost(*x)
            except Exception as error:  # the estimator raises for shapes that make no attack
                print("   ", x, error, file=sys.stderr)
                seen[x] = math.inf
        return seen[x]

    best = min(grid, key=at)
    while True:
        better = min([best, *refine(best)], key=at)
        if better == best:
            return at(best), best
        best = better


def kept(log_n):
    """Guessed coordinates that leave 2^11 to N/2 unknowns to the lattice."""
    return [2**log_n - 2**k for k in range(11, log_n)]


def closer(log_n, zeta):
    """The same, a sixth fewer or more left."""
    n = 2**log_n
    return [n - int((n - zeta) * f) for f in (0.84, 1.19) if 1024 < (n - zeta) * f < n]


def sparse_primal(log_n, log_q):
    n = 2**log_n
    params = LWE.Parameters(n=n, q=integer(log_q), Xs=ND.SparseTernary(WEIGHT // 2, WEIGHT // 2, n), Xe=ND.DiscreteGaussian(SIGMA))
    cost = lambda zeta: bits(primal_hybrid(params, zeta=zeta, mitm=True, babai=True, red_cost_model=RC.MATZOV))
    return least(cost, [(z,) for z in kept(log_n)], lambda x: [(z,) for z in closer(log_n, x[0])])


def sparse_dual(log_n, log_q, solver):
    n = 2**log_n
    params = LWE.Parameters(n=n, q=integer(log_q), Xs=ND.SparseTernary(WEIGHT // 2, WEIGHT // 2, n), Xe=ND.DiscreteGaussian(SIGMA)).normalize()
    # What the estimator's own search does first: which costs are repeated where the attack is.
    Cost.register_impermanent(rop=True, mem=False, red=True, beta=False, delta=False, m=True, d=False, zeta=False, t=False, h1=False)

    def cost(zeta, h1):
        return bits(DH.optimize_blocksize(solver, params, zeta=zeta, h1=h1, red_cost_model=RC.MATZOV))

    def step(x):
        return [(z, h) for z in [x[0], *closer(log_n, x[0])] for h in (x[1] - 1, x[1], x[1] + 1) if 0 <= h < WEIGHT]

    return least(cost, [(z, h) for z in kept(log_n) for h in range(0, WEIGHT - 4, 4)], step)


SPARSE_ATTACKS = {
    "primal_hybrid_mitm": sparse_primal,
    "dual_hybrid": partial(sparse_dual, solver=exhaustive_search),
    "dual_hybrid_mitm": partial(sparse_dual, solver=mitm),
}


def main(sets, out, *flags):
    try:
        with open(out) as file:
            results = json.load(file)
    except FileNotFoundError:
        results = {"estimator": "27a581b", "sigma": SIGMA, "dense": {}, "sparse": {}}

    def run(table, key, job):
        row = results[table].setdefault(key, {})
        for name, attack in job.items():
            if name in row:
                continue
            start = time.time()
            row[name] = attack()
            print(f"{table} {key} {name}: {row[name]} ({time.time() - start:.0f} s)", file=sys.stderr, flush=True)
            with open(out, "w") as file:
                json.dump(results, file, indent=1, sort_keys=True)
                file.write("\n")

    with open(sets) as file:
        presets = [p for p in json.load(file)["presets"] if not p["insecure"]]
    own = {(p["log_n"], round(p["log_qp"], 1)) for p in presets}
    caps = {(n, float(cap)) for n, pair in CAPS.items() for cap in pair}
    for log_n, log_q in sorted(own | caps | {(n, float(q)) for n, q in POINTS}):
        every = "--every" in flags and (log_n, log_q) in own
        run("dense", f"{log_n} {log_q}", {model: partial(dense, log_n, log_q, model, every) for model in MODELS})
    moduli = {(p["log_n"], round(p["sparse_secret"]["log_modulus"], 1)) for p in presets if p.get("sparse_secret")}
    for log_n, log_q in sorted(moduli | {(n, float(q)) for n, q in SPARSE}):
        attacks = {name: (lambda a=a: [round(x, 1) if isinstance(x, float) else x for x in a(log_n, log_q)]) for name, a in SPARSE_ATTACKS.items()}
        run("sparse", f"{log_n} {log_q}", attacks)


if __name__ == "__main__":
    main(*sys.argv[1:])
