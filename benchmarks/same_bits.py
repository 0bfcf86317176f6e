"""Two checkouts of npflow beside each other: whether they compute the same numbers, bit for bit.

A change that is about names, files or speed alone must not change a number. What is compared: of every recipe, small, in
float32 and float64, parameters, losses, gradients by the tape and by programs, training, densities and samples; every
layer of `npflow.verify.cases`; checkpoints that the other checkout wrote, loaded and resumed by both; distillation,
arithmetic on z, and data sets.

Each checkout is measured in a process of its own, the other one first, on one thread of BLAS. Where public names differ
between the two, an adapter below calls whichever is there. What fails in either counts as a difference.

    python benchmarks/same_bits.py ../other/npflow
    python benchmarks/same_bits.py ../other/npflow --only glow/float32 layer/Spline
"""

import argparse
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import npflow
from npflow import datasets, latent, layers, models, networks, priors
from npflow.autodiff import Layout, record, tree, value_and_grad
from npflow.training import Adam, WarmupCosine, distill, kl_divergence

FEATURES, SHAPE, LEVELS, CONTEXT = 4, (8, 8, 1), 17, 2
ROWS, HELD_OUT, BATCH = 100, 30, 40  # so that an epoch ends with a smaller batch
MANY = 40_000  # rows, enough for a program of a chunk
LARGE = 8192  # rows of a batch, enough for slices
DTYPES = (np.float32, np.float64)
MEANS = ((-1.0, 0.0, 1.0, 2.0), (1.0, 0.5, 0.0, -0.5))
SHOWN = 4  # differences of a group
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def rng(seed=0):
    """A generator of its own for each result, so that none depends on those before it."""
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- models, and what differs between checkouts


def behind_logit(layer):
    """The layer of `image_glow`, which in older checkouts has no `Logit` in front."""
    has_one = isinstance(layer.layers[0], layers.Logit)
    return layer if has_one else layers.Chain([layers.Logit(), *layer.layers])


def image_glow(**beside):
    """Glow on images, behind a `Logit`."""
    flow = models.image_glow(SHAPE, 2, 1, networks.ConvNet((8, 8)), **beside)
    return replace(flow, layer=behind_logit(flow.layer))


def call(method, params, x, context=None, **options):
    """A method of a model by the names of what it takes, as their order is not the same in all checkouts."""
    given = {"rng": rng(), "x": x, "context": context, "n": ROWS, "rows": 4, "draws": 3, "samples": 3}
    names = inspect.signature(method).parameters
    return method(params, **{name: value for name, value in (given | options).items() if name in names})


def start(model, x, context, dtype):
    """Where `fit` starts; a model of integers is told the dtype, others see it."""
    options = {} if context is None else {"context": context}
    if x.dtype.kind == "u":
        options["dtype"] = dtype
    return model.init(rng(1), x, **options)


def of_rows(name, *args, **options):
    """What builds a flow over rows, from the options that are common to recipes."""
    return partial(getattr(models, name), FEATURES, *args, **options)


def of_images(build, *args):
    """What builds a flow over integers, from the options that are common to recipes."""
    return lambda **beside: npflow.Dequantized(build(*args, **beside), LEVELS)


METHODS = {
    npflow.Flow: "log_prob encode decode sample sample_and_log_prob",
    npflow.Dequantized: "log_prob bits_per_dim encode decode sample reconstruction_error",
    models.PixelCNN: "log_prob bits_per_dim logits sample complete",
    models.VAE: "log_prob elbo encode decode sample",
}
RESNET = networks.ResNet(4, 1)
CONDITIONAL = {
    "nice": of_rows("nice", 2),
    "real_nvp": of_rows("real_nvp", 2),
    "real_nvp by masks": of_rows("real_nvp", 2, masks=("odd", "even")),
    "glow": of_rows("glow", 2),
    "maf": of_rows("maf", 2),
    "iaf": of_rows("iaf", 2),
    "neural_spline": of_rows("neural_spline", 1),
    "neural_spline, autoregressive": of_rows("neural_spline", 1, "autoregressive"),
    "image_glow": of_images(image_glow),
    "image_real_nvp": of_images(models.image_real_nvp, SHAPE, 2, RESNET),
    "image_nice": of_images(models.image_nice, SHAPE, 2, RESNET),
    "pixelcnn": partial(models.PixelCNN, SHAPE, LEVELS, networks.MaskedConvNet(4, 1, 3, (8,))),
}
UNCONDITIONAL = {
    "gaussianization": of_rows("gaussianization", 2),
    "planar": of_rows("planar", 2),
    "sylvester": of_rows("sylvester", 2),
    "residual_flow": of_rows("residual_flow", 2, (8,)),
    "mintnet": of_images(models.mintnet, SHAPE, 2, 1, 2),
    "vae": partial(models.VAE, FEATURES, 2),
    "trained normal": of_rows("maf", 1, prior=priors.Normal(FEATURES, trained=True)),
    "logistic": of_rows("maf", 1, prior=priors.Logistic(FEATURES)),
    "mixture": of_rows("maf", 1, prior=priors.GaussianMixture(MEANS, (0.5, 1.5))),
    "trained mixture": of_rows("maf", 1, prior=priors.GaussianMixture(MEANS, (0.5, 1.5), trained=True)),
}


# ---------------------------------------------------------------- what is measured: pairs of a name and a function


def data(model, rows, dtype, context_features, seed=0):
    """Rows for a model, and their context or None: skewed and correlated numbers, or images of integers."""
    draw = rng(seed)
    if isinstance(model, (npflow.Dequantized, models.PixelCNN)):
        x = draw.integers(LEVELS, size=(rows, *SHAPE), dtype=np.uint8)
    else:
        x = draw.standard_normal((rows, FEATURES))
        x[:, 1] += 0.5 * x[:, 0] ** 2
        x = (2 * x + 1).astype(dtype)
    context = draw.standard_normal((rows, context_features)).astype(dtype) if context_features else None
    return x, context


def moved(params, seed=2):
    """Parameters moved by noise, so that no coupling is the identity."""
    layout = Layout(params)
    noise = 0.05 * rng(seed).standard_normal(layout.size)
    return layout.unpack(layout.pack(params) + noise.astype(layout.dtype), params)


def fitted(model, params, x, context=None, **options):
    """What `fit` returns, but for the seconds."""
    options = {"batch_size": BATCH, "steps": 5, "progress": False, **options}
    return course(*npflow.fit(model, params, x, context, rng=rng(3), **options))


def course(params, history):
    """A run as a tree of arrays."""
    names = ("loss", "learning_rate", "gradient_norm", "validation_step", "validation_loss")
    return {"params": params, "history": {name: np.array(getattr(history, name)) for name in names}}


def of_model(build, dtype, context_features, shared, own):
    """A model: from `init` to samples, and back from a checkpoint."""
    model = build(context_features=context_features) if context_features else build()
    x, context = data(model, ROWS, dtype, context_features)
    held_out, context_held_out = data(model, HELD_OUT, dtype, context_features, seed=1)
    arrays = (x,) if context is None else (x, context)
    begin = start(model, x, context, dtype)
    params = moved(begin)
    batch = (*arrays, *model.noise(rng(4), ROWS, dtype))
    again = (*(array[::-1].copy() for array in arrays), *model.noise(rng(5), ROWS, dtype))
    yield "init", lambda: begin
    yield "loss", lambda: model.loss(params, *batch)
    yield "gradient by the tape", lambda: value_and_grad(model.loss)(params, *batch)
    yield "gradient by a program", lambda: record(model.loss, params, *batch)(params, *again)

    options = {"clip_norm": 0.5, "optimizer": Adam(WarmupCosine(1e-2, 6, 2))}
    if dtype is np.float64:
        options = {"average": 0.9, "validation": held_out, "validation_context": context_held_out}
    for recorded in (True, False):
        yield f"fit, record={recorded}", partial(fitted, model, begin, *arrays, record=recorded, **options)
    yield from of_methods(model, params, x, context)
    yield from of_checkpoint(model, begin, arrays, shared, own)


def of_methods(model, params, x, context):
    """The methods of a model, and arithmetic on z where there is one."""
    shape = (ROWS, 2) if isinstance(model, models.VAE) else x.shape
    z = rng(6).standard_normal(shape).astype(Layout(params).dtype)
    for name in METHODS[type(model)].split():
        yield name, partial(call, getattr(model, name), params, x, context, z=z)
    if not isinstance(model, models.VAE):
        yield "sample, cooler", partial(call, model.sample, params, x, context, temperature=0.7)
    if isinstance(model, (npflow.Flow, npflow.Dequantized)):
        yield from of_latent(model, params, x, context)


def of_latent(flow, params, x, context):
    """Arithmetic on z, between the first rows and the last ones."""
    a, b = x[:10], x[-10:]
    one = None if context is None else context[0]
    beside, target = {"context_a": one, "context_b": one}, moved(params, seed=3)
    sides = [(flow, side) if one is None else (flow, side, one) for side in (params, target)]
    vector = latent.attribute_vector(flow, params, a, b, **beside)
    yield "attribute_vector", lambda: vector
    yield "add_attribute", lambda: latent.add_attribute(flow, params, a, vector, 0.5, context=one)
    yield "interpolate", lambda: latent.interpolate(flow, params, a, b, (0, 0.3, 1), **beside)
    if not any(tree.items(params.get("prior", {}))):  # both sides have to have one prior
        yield "translate", lambda: latent.translate(a, *sides)


def of_checkpoint(model, begin, arrays, shared, own):
    """A checkpoint, which the first checkout writes: loaded, and its run resumed from a copy."""
    if not shared.exists():
        fitted(model, begin, *arrays, checkpoint=shared)
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shared, own)
    yield "loaded", lambda: npflow.load(shared).params
    yield "loaded, the same model", lambda: npflow.load(shared).flow == model
    yield "resumed", partial(fitted, model, begin, *arrays, checkpoint=own, steps=9)


def of_much(build, dtype):
    """Rows enough for chunks and programs, batches large enough for slices, steps enough to clear faded moments."""
    flow = build()
    x, _ = data(flow, MANY, dtype, 0)
    begin = start(flow, x, None, dtype)
    params = moved(begin)
    yield "log_prob", lambda: flow.log_prob(params, x)
    yield "sample_and_log_prob", lambda: flow.sample_and_log_prob(params, rng=rng(), n=MANY)
    yield "fit by slices", partial(fitted, flow, begin, x[: 2 * LARGE], batch_size=LARGE, steps=3)
    adam = Adam(WarmupCosine(1e-2, 70, 10), beta1=0.8, beta2=0.99, epsilon=1e-6)
    yield "fit, a whole schedule", partial(fitted, flow, begin, x[:ROWS], steps=70, optimizer=adam)


def of_distillation(dtype, context_features):
    """A student that learns a teacher's density, and how far it is from it."""
    beside = {"context_features": context_features} if context_features else {}
    teacher, student = CONDITIONAL["maf"](**beside), CONDITIONAL["iaf"](**beside)
    x, context = data(teacher, ROWS, dtype, context_features)
    teacher_params, begin = moved(start(teacher, x, context, dtype)), start(student, x, context, dtype)
    sides, options = (student, begin, teacher, teacher_params), {"batch_size": BATCH, "progress": False}
    for recorded in (True, False):
        run = partial(distill, *sides, context, rng=rng(), steps=5, record=recorded, **options)
        yield f"distill, record={recorded}", lambda run=run: course(*run())
    yield "kl_divergence", lambda: kl_divergence(*sides, rng=rng(), n=ROWS, context=context)


def registry():
    """The layers of the checkout, by name."""
    from npflow.verify.cases import CASES

    return CASES


def of_registry():
    """Whether there are layers: which these are may differ."""
    yield "layers", lambda: bool(registry())


def of_layer(name, case):
    """Both directions of a layer, and a gradient through each in all that it is given."""
    if name == "image_glow":
        case = replace(case, layer=behind_logit(case.layer))
    for dtype in DTYPES:
        x = case.batch(rng(), dtype=dtype)
        params = moved(case.layer.init(rng(1), x))
        z, _ = case.layer.forward(params, x)
        of_array, of_log_det = (rng(6).standard_normal(size).astype(dtype) for size in (z.shape, len(z)))
        for name, array in (("forward", x), ("inverse", z)):
            direction = getattr(case.layer, name)

            def weighted(given, direction=direction, of_array=of_array, of_log_det=of_log_det):
                out, log_det = direction(given["params"], given["array"])
                return (out * of_array.reshape(out.shape)).sum() + (log_det * of_log_det).sum()

            given = {"params": params, "array": array}
            yield f"{name}, {dtype.__name__}", partial(direction, params, array)
            yield f"gradient of {name}, {dtype.__name__}", partial(value_and_grad(weighted), given)


def of_data():
    """Samplers, densities and tables."""
    for name, draw in datasets.TOY.items():
        yield f"draw {name}", partial(draw, 200, rng=rng())
    for name, density in datasets.DENSITIES.items():
        yield f"sample {name}", partial(density.sample, 200, rng=rng())
        yield f"log_prob {name}", partial(density.log_prob, datasets.TOY[name](200, rng=rng(1)))
    yield "wine", lambda: tuple(datasets.tabular("wine", rng=rng()))


def groups(folder):
    """All that is measured, by name: functions that give pairs of the name of a result and what computes it."""
    found, checkpoints = {"data": of_data, "registry": of_registry}, folder.parent / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    for dtype in DTYPES:
        kind = dtype.__name__
        for name, build in (CONDITIONAL | UNCONDITIONAL).items():
            for count, label in ((0, ""), (CONTEXT, "/context"))[: 2 if name in CONDITIONAL else 1]:
                file = f"{name} {kind} {count}.npz"
                paths = checkpoints / file, folder / "copies" / file
                found[f"{name}/{kind}{label}"] = partial(of_model, build, dtype, count, *paths)
        for name in ("glow", "real_nvp"):
            found[f"{name}/{kind}/much"] = partial(of_much, CONDITIONAL[name], dtype)
        found[f"distill/{kind}"] = partial(of_distillation, dtype, 0)
        found[f"distill/{kind}/context"] = partial(of_distillation, dtype, CONTEXT)
    with suppress(Exception):  # which is the result of the group "registry"
        found |= {f"layer/{name}": partial(of_layer, name, case) for name, case in registry().items()}
    return found


def measure(folder, only):
    """Write all results of the npflow that is imported here to ``results.npz``, as ``group::result/leaf``.

    What fails is there too: its error, as ``group::result``.
    """
    if not Path(npflow.__file__).is_relative_to(os.environ["PYTHONPATH"]):
        sys.exit(f"expected npflow from {os.environ['PYTHONPATH']}, got {npflow.__file__}")
    arrays = {}
    for group, results in groups(folder).items():
        if not group.startswith(only):
            continue
        name = "set up"
        try:
            for name, compute in results():
                try:
                    leaves = {f"{group}::{name}/{path}": leaf for path, leaf in tree.items(compute())}
                except Exception as error:
                    leaves = {f"{group}::{name}": f"{type(error).__name__}: {error}"}
                arrays |= {path: np.asarray(leaf) for path, leaf in leaves.items() if leaf is not None}
        except Exception as error:
            arrays[f"{group}::after {name}"] = np.array(f"{type(error).__name__}: {error}")
    np.savez(folder / "results.npz", **arrays)


# ---------------------------------------------------------------- comparison


def measured(checkout, folder, only):
    """The results of a checkout, by group and name; None where its process failed, which has said why."""
    folder.mkdir()
    clock = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(checkout), **dict.fromkeys(THREADS, "1")}
    command = [sys.executable, __file__, "--measure", str(folder), "--only", *only]
    failed = subprocess.run(command, env=environment).returncode
    print(f"{checkout}: {time.perf_counter() - clock:.0f} s", flush=True)
    if failed:
        return None
    found = {}
    with np.load(folder / "results.npz") as archive:
        for key in archive.files:
            group, name = key.split("::")
            found.setdefault(group, {})[name] = archive[key]
    return found


def is_error(array):
    """Whether a result is the sentence of an error."""
    return array is not None and array.dtype.kind == "U"


def difference(mine, theirs):
    """How far two results are apart, and how they differ in words; None where they are the same to the bit."""
    sides = ("this", mine), ("other", theirs)
    errors = [f"{side} fails with {array}" for side, array in sides if is_error(array)]
    if errors:
        return np.inf, ", ".join(errors)
    if mine is None or theirs is None:
        return -1.0, f"only in {'the other' if mine is None else 'this'} checkout"
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        kinds = [f"{array.dtype} of shape {array.shape}" for array in (mine, theirs)]
        return np.inf, f"this is {kinds[0]}, other {kinds[1]}"
    if mine.tobytes() == theirs.tobytes():
        return None
    if np.array_equal(mine, theirs):
        return 0.0, "equal but for the sign of zeros"
    if np.array_equal(mine, theirs, equal_nan=True):
        return 0.0, "equal but for the bits of nan, or the sign of zeros"
    apart = (mine != theirs) & ((mine == mine) | (theirs == theirs))
    with np.errstate(invalid="ignore"):  # nan on one side alone is infinitely far
        far = np.abs(mine[apart].astype(np.float64) - theirs[apart].astype(np.float64))
    largest = np.max(np.where(np.isnan(far), np.inf, far))
    return largest, f"{len(far)} of {mine.size} numbers differ, by at most {largest:.1e}"


def compare(mine, theirs):
    """Print a line for each group, and below it how it differs, the largest differences first; return how many do."""
    differ = 0
    print(f"\n{'':42}{'arrays':>6}")
    for group in mine | theirs:
        if group not in mine or group not in theirs:
            side = "this" if group in mine else "the other"
            print(f"{group:42}{'':6}  not compared: only in {side} checkout")
            continue
        pair = mine[group], theirs[group]
        failed = {name for results in pair for name, array in results.items() if is_error(array)}
        names = [name for name in pair[0] | pair[1] if name in failed or name.split("/")[0] not in failed]
        found = {name: difference(*(results.get(name) for results in pair)) for name in names}
        found = {name: how for name, how in found.items() if how is not None}
        print(f"{group:42}{len(names):6}  {f'different: {len(found)}' if found else 'same'}")
        largest = sorted(found, key=lambda name: found[name][0], reverse=True)
        for name in largest[:SHOWN]:
            print(f"    {name}: {found[name][1]}")
        if len(found) > SHOWN:
            print(f"    and {len(found) - SHOWN} more")
        differ += bool(found)
    print(f"\n{len(mine | theirs)} groups, {differ or 'none'} different")
    return differ


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout, the older one of the two")
    parser.add_argument("--only", nargs="*", default=[""], help="how the names begin that are compared")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, tuple(options.only))
        return
    if options.other is None or not (options.other / "npflow").is_dir():
        parser.error(f"expected a folder with a checkout of npflow, got {options.other}")
    with tempfile.TemporaryDirectory() as folder:
        sides = {"other": options.other.resolve(), "this": Path(__file__).resolve().parents[1]}
        found = {name: measured(path, Path(folder) / name, options.only) for name, path in sides.items()}
    if None in found.values() or not (found["this"] | found["other"]):
        sys.exit("different: one could not be measured, or there is nothing of that name")
    sys.exit(1 if compare(found["this"], found["other"]) else 0)


if __name__ == "__main__":
    main()
