"""Damaged, mutated and crafted checkpoints: whether each one is refused in a sentence, within limits of memory and time.

Three kinds of files are loaded: small and large checkpoints with single bits flipped, at random and in every header; those
whose description or arrays are mutated; and descriptions crafted to make `load` allocate or run without end. Runs are
also resumed from mutated states. A file is refused where `InputError` is raised. A flipped bit may also load the same
contents, as one in a time stamp does. Everything else counts as bad: other contents, other errors, the death of the
process, more than a gigabyte, more than five seconds of the processor.

    python benchmarks/fuzz_checkpoints.py
    python benchmarks/fuzz_checkpoints.py --flips 50 --mutations 200 --states 50 --no-headers
"""

import argparse
import copy
import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import npflow
from npflow import Dequantized, Flow, InputError, fit, load, models
from npflow.autodiff import tree
from npflow.description import KNOWN
from npflow.layers import AffineCoupling, Chain, Logit, MaskedConvolution, Planar, Rotation
from npflow.networks import MADE, MLP, ConvNet, MaskedConvNet
from npflow.priors import GaussianMixture, Normal

GIGABYTE, SECONDS = 2**30, 5.0
SIZES = (10**4, 10**5, 10**6, 10**9, 10**12, 10**30)
ODD = (
    -1,
    0,
    1,
    2,
    3,
    2.5,
    1e308,
    float("nan"),
    float("inf"),
    True,
    None,
    "x",
    "",
    [],
    {},
    [1, 2],
    {"class": "Model"},
)
SMALL = MLP((5,), "tanh")


# ---------------------------------------------------------------- checkpoints to start from


def bases(folder, names=None):
    """Checkpoints of runs of architectures, all or some, at paths in a folder, with the call that goes on with each."""
    image, small_conv = (4, 4, 1), ConvNet((3,), (3, 1))
    flows = {
        "glow": (models.glow(2, steps=1, network=SMALL), (2,)),
        "maf": (models.maf(3, steps=2, network=MADE((6,))), (3,)),
        "gaussianization": (models.gaussianization(2, steps=1, components=3), (2,)),
        "spline": (models.neural_spline(2, steps=1, network=SMALL), (2,)),
        "mixture": (
            Flow(AffineCoupling(SMALL), GaussianMixture([[0, 1], [1, 0]], [1, 2], trained=True)),
            (2,),
        ),
        "images": (models.image_glow(image, levels=2, steps=1, network=small_conv), image),
        "mintnet": (Flow(Chain([Logit(), MaskedConvolution(2)]), Normal(image)), image),
        "rotation": (Flow(Chain([Rotation(2), AffineCoupling(SMALL)]), Normal(4)), (4,)),
        "conditional": (Flow(AffineCoupling(SMALL), Normal(2), context_features=3), (2,)),
        "vae": (models.VAE(3, 2, SMALL, SMALL), (3,)),
        "vae with flows": (
            models.VAE(
                *(3, 2, SMALL, SMALL),
                posterior=Chain([Planar()]),
                prior=Flow(AffineCoupling(SMALL), Normal(2)),
                context_features=2,
            ),
            (3,),
        ),
        "pixelcnn": (models.PixelCNN(image, 4, MaskedConvNet(4, 1, 3, (4,))), image),
        "dequantized": (Dequantized(models.image_nice(image, couplings=2, network=small_conv), 2**16), image),
    }
    rng = np.random.default_rng(0)
    found = {}
    for name in flows if names is None else names:
        model, shape = flows[name]
        integers = name in ("pixelcnn", "dequantized")
        x = rng.integers(4, size=(40, *shape)) if integers else rng.uniform(0.1, 0.9, (40, *shape))
        context = rng.normal(size=(40, 3)).astype(np.float32) if name == "conditional" else None
        x = x if integers else x.astype(np.float32)
        arrays = (x,) if context is None else (x, context)
        params = model.init(rng, *arrays)
        options = {
            "batch_size": 16,
            "average": 0.9 if len(found) % 2 else None,
            "progress": False,
            "record": False,
        }
        if context is None:
            options["validation"] = x[:8]

        def go_on(path, steps, model=model, params=params, arrays=arrays, options=options):
            return fit(
                model, params, *arrays, rng=np.random.default_rng(1), steps=steps, checkpoint=path, **options
            )

        path = Path(folder) / f"{name}.npz"
        go_on(path, 7)
        found[name] = (path, go_on)
    return found


# ---------------------------------------------------------------- damage


def header_bytes(contents):
    """The places in an archive that are not the numbers of an entry."""
    places = []
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        end = archive.start_dir
        for entry in archive.infolist():
            start = entry.header_offset
            stop = start + 30 + sum(np.frombuffer(contents[start + 26 : start + 30], "<u2").tolist())
            header = 10 + int(np.frombuffer(contents[stop + 8 : stop + 10], "<u2")[0])
            places += range(start, stop + header)
    return [*places, *range(end, len(contents))]


def flipped(contents, bit):
    """The contents with one bit flipped."""
    damaged = bytearray(contents)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def parts_of(description, path=()):
    """The paths of all values in plain data."""
    yield path
    if not isinstance(description, (dict, list)):
        return
    for key, value in description.items() if isinstance(description, dict) else enumerate(description):
        yield from parts_of(value, (*path, key))


def mutate(rng, description):
    """Change one to three values of a description in place."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        paths = [path for path in parts_of(description) if path]
        path = rng.choice(paths)
        parent = description
        for key in path[:-1]:
            parent = parent[key]
        old, how = parent[path[-1]], rng.random()
        if isinstance(old, int) and how < 0.5:
            parent[path[-1]] = rng.choice(SIZES)
        elif path[-1] == "class" and how < 0.7:
            parent[path[-1]] = rng.choice(sorted(KNOWN))
        elif how < 0.2:
            del parent[path[-1]]
        elif isinstance(old, list) and how < 0.5:
            parent[path[-1]] = old * rng.choice((0, 2, 300))
        elif how < 0.7:
            parent[path[-1]] = rng.choice(ODD)
        elif how < 0.8:
            parent[path[-1]] = [old]
        else:
            other = description
            for key in rng.choice(paths):
                other = other[key]
            parent[path[-1]] = copy.deepcopy(other)


def mutated(rng, path, part=None):
    """The bytes of a checkpoint with a mutated description, or a part of it, and in one of three with mutated arrays."""
    with np.load(path) as file:
        arrays = dict(file)
    description = json.loads(str(arrays["description"]))
    what = rng.random()
    if what < 0.8:
        mutate(rng, description if part is None else description[part])
    if what > 0.7:
        names = sorted(name for name in arrays if name.startswith("run:" if part else ""))
        name, how = rng.choice(names), rng.randrange(6)
        array = arrays.pop(name)
        changes = (
            lambda: {},
            lambda: {name: array[:-1] if array.ndim else array},
            lambda: {
                name: np.zeros(rng.choice((0, 3, 1000)), array.dtype if array.dtype.kind != "U" else "U1")
            },
            lambda: {name: np.full(array.shape, rng.choice((-1, 2**40)), np.int64)},
            lambda: {rng.choice(("constant:x", "run:x", "run:moment:x", "run:best", "run:average")): array},
            lambda: {name: np.atleast_2d(array)},
        )
        arrays |= changes[how]()
    if "description" in arrays and what < 0.8:
        arrays["description"] = np.array(json.dumps(description))
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def crafted():
    """Small files whose descriptions are of huge architectures, by name."""

    def layer(name, **fields):
        return {"class": name} | fields

    def mlp(*hidden):
        return layer("MLP", hidden=list(hidden), activation="relu", squash_inputs=False)

    def coupling(network, transformed="second"):
        return layer("AffineCoupling", network=network, transformed=transformed, log_scale_limit=2.0)

    def chain(layers):
        return layer("Chain", layers=layers)

    def resnet(channels, blocks, kernel=3):
        return layer("ResNet", channels=channels, blocks=blocks, kernel=kernel, activation="relu")

    nested = layer("ActNorm")
    for _ in range(200):
        nested = layer("Inverse", layer=layer("Split", layer=chain([nested])))
    split = chain([layer("Split", layer=chain([layer("Reverse")]))] * 2000)
    made = layer("MADE", hidden=[10**9], activation="relu", order="reversed", squash_inputs=False)
    layers = {
        "mlp": coupling(mlp(10**9)),
        "mlp pair": coupling(mlp(10**5, 10**5)),
        "blocks": coupling(resnet(1, 10**9)),
        "many blocks": chain([coupling(resnet(1, 400))] * 2000),
        "channels": coupling(resnet(10**6, 1)),
        "kernel": coupling(resnet(1, 1, 10**6 + 1)),
        "convnet": coupling(layer("ConvNet", hidden=[10**6], kernels=[3, 3], activation="relu")),
        "odd": coupling(mlp(1), "odd"),
        "checkerboard": coupling(mlp(1), "checkerboard-odd"),
        "gaussianize": layer("Gaussianize", components=10**8),
        "made": layer(
            "MaskedAutoregressive", network=made, transformer=layer("ScaleShift", log_scale_limit=2.0)
        ),
        "masked convolution": layer("MaskedConvolution", filters=10**6, order="raster"),
        "rotation": layer("Rotation", reflections=1, start="pca"),
        "matrix": layer("Conv1x1"),
        "permutation": layer("Permutation"),
        "affine": layer("Affine"),
        "squeezes": chain([layer("Squeeze"), layer("Unsqueeze")] * 3000),
        "splits": split,
        "nested": nested,
        "actnorms": chain([layer("ActNorm")] * 5000),
        "none": layer("Reverse"),
    }
    shapes = ([4, 4, 2], [4], [10**5, 10**5, 2], [10**10], [10**30, 2, 2], [1, 1, 10**5], [2048, 2048, 4])
    made = {}
    for name, inner in layers.items():
        for shape in shapes:
            for trained in (False, True):
                for features in (0, 10**9):
                    prior = layer("Normal", event_shape=shape, trained=trained)
                    flow = layer("Flow", layer=inner, prior=prior, context_features=features)
                    made[f"{name} {shape} {trained} {features}"] = flow
    for features in (10**6, 10**9, 10**30):
        vae = layer(
            "VAE", features=features, latent=features, encoder=mlp(4), decoder=mlp(4), log_std_limit=5.0
        )
        made[f"vae {features}"] = vae
        for blocks, kernel in ((10**9, 3), (1, 10**9 + 1)):
            network = layer("MaskedConvNet", features=features, blocks=blocks, kernel=kernel, head=[4])
            pixels = layer(
                "PixelCNN", shape=[features, 4, 3], levels=features, network=network, context_features=9
            )
            made[f"pixelcnn {features} {blocks}"] = pixels
    for name in KNOWN:
        made[f"class {name}"] = {"class": name}
    return made


def file_of(flow, numbers=0):
    """The bytes of a checkpoint with a description, and some numbers as its parameters."""
    params = {"dict": {"layer": {"dict": {}}, "prior": {"dict": {}}}}
    if numbers:
        params["dict"]["layer"]["dict"]["a"] = {"shape": [numbers], "trained": True}
    text = json.dumps({"format": "npflow checkpoint 2", "flow": flow, "params": params, "run": {}})
    file = io.BytesIO()
    np.savez(file, description=np.array(text), params=np.zeros(numbers, np.float32))
    return file.getvalue()


# ---------------------------------------------------------------- within limits


class TooLong(BaseException):
    """A file took more than the time that it may take."""


def outcome(call, contents, path):
    """What a call makes of a file: "refused", its result, or what went wrong."""

    def too_long(*_):
        raise TooLong

    path.write_bytes(contents)
    signal.signal(signal.SIGPROF, too_long)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        result = said_by(call, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except TooLong:
        return "above five seconds"
    return result


def said_by(call, path):
    """The result of a call in a word, or its error."""
    try:
        return call(path)
    except InputError as error:
        while error is not None:
            if isinstance(error, MemoryError):
                return "above a gigabyte"
            error = error.__cause__ or error.__context__
        return "refused"
    except MemoryError:
        return "above a gigabyte"
    except TooLong:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"


def outcomes(call, files, at_once=100):
    """The outcome of a call for each file; some files at a time in a process of their own, which may take a gigabyte."""
    found = []
    for start in range(0, len(files), at_once):
        batch = files[start : start + at_once]
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            os.close(out)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + GIGABYTE
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with tempfile.TemporaryDirectory() as folder, os.fdopen(into, "wb") as pipe:
                for file in batch:
                    contents = file() if callable(file) else file
                    pickle.dump(outcome(call, contents, Path(folder) / "file.npz"), pipe)
                    pipe.flush()
            os._exit(0)
        os.close(into)
        results = []
        with os.fdopen(out, "rb") as pipe:
            while len(results) < len(batch):
                try:
                    results.append(pickle.load(pipe))
                except EOFError:  # it died of this file
                    results.append("the process died")
                    break
        os.waitpid(child, 0)
        found += results
        if len(results) < len(batch):
            found += outcomes(call, batch[len(results) :], at_once)
    return found


def loaded(path):
    """The word for a file that is loaded."""
    load(path)
    return "loaded"


def compared(good):
    """A call that compares a file with what another one holds."""
    whole = load(good)
    wanted = bytes_of(whole)

    def call(path):
        return "the same" if bytes_of(load(path)) == wanted else "loaded differently"

    return call


def bytes_of(checkpoint):
    """All that a checkpoint holds, as text."""
    leaves = [
        (path, leaf.shape, str(leaf.dtype), leaf.tobytes()) for path, leaf in tree.items(checkpoint.params)
    ]
    arrays = [(name, a.shape, str(a.dtype), a.tobytes()) for name, a in sorted(checkpoint.arrays.items())]
    return repr((leaves, arrays, checkpoint.run, checkpoint.format, checkpoint.flow))


def resumed(go_on):
    """A call that resumes a run for one step."""

    def call(path):
        go_on(path, 8)
        return "resumed"

    return call


# ---------------------------------------------------------------- the tables


def large_checkpoint(folder):
    """A checkpoint with large entries: 1,000 steps, 100,000 parameters."""
    x = npflow.datasets.moons(100, rng=np.random.default_rng(0)).astype(np.float32)
    flow = models.glow(2, steps=2, network=MLP((150, 150)))
    path = Path(folder) / "large.npz"
    options = {"steps": 1000, "batch_size": 8, "average": 0.9, "validation": x[:10], "progress": False}
    fit(
        flow,
        flow.init(np.random.default_rng(0), x),
        x,
        rng=np.random.default_rng(0),
        checkpoint=path,
        **options,
    )
    return path


def flip_outcomes(path, random_flips, headers=True, seed=0):
    """The outcomes of bits flipped at random, and of every bit of the headers."""
    contents, rng = path.read_bytes(), random.Random(seed)
    bits = [rng.randrange(8 * len(contents)) for _ in range(random_flips)]
    if headers:
        bits += [8 * byte + bit for byte in header_bytes(contents) for bit in range(8)]
    return outcomes(compared(path), [lambda bit=bit: flipped(contents, bit) for bit in bits], 500)


def mutation_outcomes(found, count, part=None, seed=0):
    """The outcomes of mutated checkpoints: loaded, or with a `part` of the description mutated resumed."""
    rng, results = random.Random(seed), []
    for number, (path, go_on) in enumerate(found.values()):
        share = count // len(found) + (number < count % len(found))
        files = [mutated(rng, path, part) for _ in range(share)]
        results += outcomes(resumed(go_on) if part else loaded, files)
    return results


def crafted_outcomes(count=None, seed=0):
    """The outcomes of crafted descriptions, all or some of them."""
    cases = list(crafted().values())
    cases = cases if count is None else random.Random(seed).sample(cases, count)
    return outcomes(loaded, [lambda flow=flow: file_of(flow, 3) for flow in cases])


BAD = ("loaded differently", "above", "the process died")


def is_bad(result):
    """Whether an outcome is one that may not be."""
    return result.startswith(BAD) or ":" in result


def main():
    """Print the tables; exit with 1 where an outcome is bad."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--states", type=int, default=600)
    parser.add_argument("--no-headers", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        found = bases(folder)
        large = large_checkpoint(folder)
        seed = options.seed
        for what, call in (
            ("flipped bits", lambda: flip_outcomes(large, options.flips, not options.no_headers, seed)),
            ("mutated checkpoints", lambda: mutation_outcomes(found, options.mutations, None, seed)),
            ("mutated states, resumed", lambda: mutation_outcomes(found, options.states, "run", seed)),
            ("crafted descriptions", crafted_outcomes),
        ):
            start = time.perf_counter()
            results = Counter(call())
            print(f"{what}: {sum(results.values()):,} in {time.perf_counter() - start:.0f} s")
            for result, count in results.most_common():
                print(f"    {count:7,}  {result}{'   BAD' if is_bad(result) else ''}")
            bad += sum(count for result, count in results.items() if is_bad(result))
    print(f"{bad} bad")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
