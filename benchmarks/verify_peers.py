"""Verify's verdict on the transforms of other libraries, beside the truth.

    pip install -e '.[peers-torch]'      # in one environment
    pip install -e '.[peers-jax]'        # in another one
    python benchmarks/verify_peers.py [--only WORDS]

Each transform that can be built is checked by `check_torch` or `check_jax`, with nothing said about it. The truth is
computed apart from npflow, at the parameters that the transform starts with and at moved ones. It is the library's own
Jacobian in float64 with NumPy's determinant, the two directions one after the other, rows alone and among others, two
calls, and dtypes. A wrong
transform is found when the check fails, and missed when it passes or decides nothing. A right one is accused when it
fails. The bars: none accused, none missed, and at most 5 % of the right ones not decided. The known bugs among them, see
KNOWN, must be found.
"""

import argparse
import collections
import json
import statistics
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4  # what is further off is wrong
KNOWN = (
    ("pyro", "Sylvester"),
    ("tfp", "Softfloor"),
    ("FrEIA", "LearnedElementwiseScaling"),
    ("FrEIA", "HaarDownsampling"),
)


def truth_of(room, library, make, x, context, rng):
    """What is wrong with a transform, as a set of words; empty where it is right."""
    wrong, decided = set(), False
    for dtype in ("float64", "float32"):
        for move in (False, True) if dtype == "float64" and room.moves(library) else (False,):
            try:
                room.seed(0)
                one = room.Truth(library, make, move, rng, dtype)
                found = _wrong(
                    one, x.astype(dtype), None if context is None else context.astype(dtype), dtype
                )
            except Exception as error:
                found = (
                    {f"unknown: {type(error).__name__}: {str(error)[:80]}"} if dtype == "float64" else set()
                )
                if not (move or dtype == "float32"):
                    wrong |= {"no float64"}
                    continue
            decided |= dtype == "float64" and not any("unknown" in word for word in found)
            wrong |= found
    return {word for word in wrong if not (decided and ("unknown" in word or word == "no float64"))}


def _wrong(one, x, context, dtype):
    wrong, loose = set(), TOLERANCE if dtype == "float64" else 3e-3
    if one.call("forward", x.copy(), context)[0].size < x.size:  # from a surface: the inverse has a Jacobian
        x, one.swapped = one.call("forward", x, context)[0], True
    given, few = x.copy(), slice(0, 8)
    one.call("forward", x, context)  # a first call that sets parameters
    z, log_det, kind = one.call("forward", x, context)
    if not one.fits:
        wrong.add("shape of log-det")
    if not np.array_equal(x, given):
        wrong.add("input overwritten")
        x = given.copy()
    again = one.call("forward", x.copy(), context)
    if not (
        np.array_equal(z, again[0], equal_nan=True) and np.array_equal(log_det, again[1], equal_nan=True)
    ):
        return wrong | {"random"}
    if str(z.dtype) != dtype or (kind != dtype and np.ptp(log_det) > 0):
        wrong.add(f"{dtype} not kept")
    alone = one.call("forward", x[:1].copy(), None if context is None else context[:1])
    off = max(np.abs(alone[0] - z[:1]).max(), np.abs(alone[1] - log_det[:1]).max())
    if not off <= loose:  # nan too: the spread of a batch of one row
        return wrong | {"rows influence each other"}
    matrices = None
    if dtype == "float64":
        matrices = one.jacobian(x[few].copy(), None if context is None else context[few])
        if not np.isfinite(matrices).all():
            return wrong | {"unknown: Jacobian not finite"}
        true = np.min([np.abs(log_det[few] - found).max() for found in _log_dets(matrices)])
        if not true <= TOLERANCE * (1 + np.abs(log_det[few]).max()):
            wrong.add("log-det")
    try:
        kept = z.copy()
        back, other, kind = one.call("inverse", z, context)
    except Exception as error:
        if type(error).__name__ in ("NotImplementedError", "InverseNotAvailable", "KeyError"):
            return wrong
        return wrong | {"inverse raises"}
    if not np.array_equal(z, kept, equal_nan=True):
        wrong.add("input overwritten")
    condition = 1.0 if matrices is None or z[0].size != x[0].size else np.max(np.linalg.cond(matrices))
    if dtype == "float64" and condition < 1e8:
        if not np.abs(back.reshape(x.shape) - x).max() <= TOLERANCE:
            wrong.add("inverse")
        if not np.abs(other + log_det).max() <= TOLERANCE * (1 + np.abs(log_det).max()):
            wrong.add("log-det of inverse")
    if str(back.dtype) != dtype or (kind != dtype and np.ptp(other) > 0):
        wrong.add(f"{dtype} not kept")
    return wrong


def _log_dets(matrices):
    """log|det| in each convention that a library may follow."""
    outputs, inputs = matrices.shape[1:]
    if outputs == inputs:
        return [np.linalg.slogdet(matrices)[1]]
    found = [np.linalg.slogdet(np.swapaxes(matrices, 1, 2) @ matrices)[1] / 2]
    chosen = []
    for output in range(outputs):
        if np.linalg.matrix_rank(matrices[0][[*chosen, output]], tol=1e-9) > len(chosen):
            chosen.append(output)
    return [*found, np.linalg.slogdet(matrices[:, chosen[:inputs]])[1]] if len(chosen) >= inputs else found


# ---------------------------------------------------------------- the table


def rows(kind, rng):
    """64 rows of a kind, or 32 images."""
    normal = lambda *shape: rng.standard_normal(shape)
    made = {
        "real": lambda: normal(64, 4),
        "unit": lambda: rng.uniform(0.02, 0.98, (64, 4)),
        "signed unit": lambda: rng.uniform(-0.95, 0.95, (64, 4)),
        "positive": lambda: np.exp(0.7 * normal(64, 4)),
        "angle": lambda: rng.uniform(0.1, 3.0, (64, 4)),
        "scalar": lambda: normal(64),
        "image": lambda: normal(32, 2, 4, 4),
        "image 4": lambda: normal(32, 4, 2, 2),
        "image 8": lambda: normal(32, 8, 2, 2),
        "matrix": lambda: normal(64, 3, 3),
        "three": lambda: normal(64, 3),
        "six": lambda: normal(64, 6),
        "simplex": lambda: rng.dirichlet(np.full(4, 3.0), 64),
    }
    return made[kind]()


def judged(room, library, name, make, kind, width):
    """What came of one transform."""
    rng = np.random.default_rng(0)
    x = rows(kind, rng)
    context = rng.standard_normal((len(x), width)) if width else None
    result = {"library": library, "name": name}
    try:
        room.seed(0)
        transform = make()  # as a user does, in float32
    except Exception as error:
        return result | {"outcome": "not built", "reason": f"{type(error).__name__}: {str(error)[:200]}"}
    wrong = truth_of(room, library, make, x, context, rng)
    start = time.process_time()  # of one thread: what else the machine does is not counted
    try:
        report = room.check(transform, x, context, room.DTYPE, name)
        verdict, cause, notes = report.verdict, report.cause, report.notes
    except Exception as error:
        verdict, notes = "raised", traceback.format_exc().splitlines()[-6:]
        cause = f"{type(error).__name__}: {str(error)[:300]}"
    result |= {
        "seconds": time.process_time() - start,
        "verdict": verdict,
        "cause": cause,
        "truth": sorted(wrong),
    }
    if any("unknown" in word or word == "no float64" for word in wrong):
        outcome = "no truth"
    elif wrong:
        outcome = "wrong found" if verdict == "failed" else "missed"
    else:
        outcome = {"passed": "right passed", "failed": "accused"}.get(verdict, "not decided")
    return result | {"outcome": outcome, "notes": list(notes), "shape": list(x.shape)}


OUTCOMES = ("right passed", "wrong found", "accused", "missed", "not decided", "no truth", "not built")


def main():
    """Check every transform of the installed libraries, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="libraries or parts of names")
    parser.add_argument("--json", type=Path, help="where to write every outcome")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rooms = []
    if find_spec("torch"):
        import transforms_torch

        rooms.append(transforms_torch)
    if find_spec("jax"):
        import transforms_jax

        rooms.append(transforms_jax)
    results = []
    for room in rooms:
        for library, name, make, kind, width in room.cases():
            if arguments.only and not any(
                word in (library, name) or word in f"{library} {name}" for word in arguments.only
            ):
                continue
            result = judged(room, library, name, make, kind, width)
            results.append(result)
            if result["outcome"] not in ("right passed",):
                words = (
                    f"{', '.join(result.get('truth', []))}; {result.get('cause', result.get('reason', ''))}"
                )
                print(f"{library} {name}: {result['outcome']}: {words}"[:400], flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))
    show(results)


def show(results):
    """Print the table and whether the bars are met."""
    print(f"\n{'':20}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES))
    libraries = list(dict.fromkeys(result["library"] for result in results))
    for library in [*libraries, "together"]:
        count = collections.Counter(r["outcome"] for r in results if library in (r["library"], "together"))
        print(f"{library:20}" + "".join(f"{count[outcome]:14}" for outcome in OUTCOMES))
    right = sum(r["outcome"] in ("right passed", "accused", "not decided") for r in results)
    count = collections.Counter(r["outcome"] for r in results)
    print(f"\nnot decided: {count['not decided']} of {right} right ones (bar: 5 %)")
    seconds = [r["seconds"] for r in results if "seconds" in r and np.prod(r["shape"][1:], initial=1) == 4]
    if seconds:
        print(f"median check at D = 4: {statistics.median(seconds):.2f} s of the processor")
    for library, name in KNOWN:
        for result in results:
            if (result["library"], result["name"]) == (library, name):
                print(f"{library} {name}: {result['outcome']}")


if __name__ == "__main__":
    main()
