"""A training step of a ten-step Glow on two moons: npflow beside PyTorch eager and jax.jit.

The same model in each (ten steps of [ActNorm, AffineCoupling with one MLP 1-64-64-64-2, Conv1x1], leaky ReLUs), the
same parameters, data and batches, float32, Adam with a rate of 1e-3. Each library runs in a process of its own, with the
threads that it takes by itself; the losses of the first steps have to agree before anything is timed. The rounds
are interleaved: a few steps of one, then of the next, and again, so that what else the machine does hits all alike. A
ratio is the median over the rounds of a library's median step divided by npflow's of the same round.

    pip install -e '.[benchmarks]'
    python benchmarks/moons.py --jax-python PATH/TO/A/PYTHON/WITH/JAX

Both libraries are optional; what is not installed is left out, with a word.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, HIDDEN, LIMIT, SLOPE = 10, (64, 64, 64), 2.0, 0.01
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
BATCHES = (64, 256, 1024)

# ---------------------------------------------------------------- npflow


class Npflow:
    """A step as `npflow.fit` makes it."""

    name, module = "npflow", "npflow"

    def __init__(self, arrays):
        import npflow
        from npflow.autodiff import Layout, tree
        from npflow.training import Adam

        self.npflow, self.version = npflow, npflow.__version__
        self.flow = npflow.models.glow(features=2, steps=STEPS, network=npflow.networks.MLP(HIDDEN))
        template = self.flow.init(np.random.default_rng(0), arrays["x"][:64])
        start = tree.build(lambda path, _: arrays[path], template)
        layout = Layout(start)
        self.vector = layout.pack(start)
        self.params = layout.unpack(self.vector, start)
        self.adam = Adam(RATE, BETA1, BETA2, EPSILON)
        self.state = self.adam.init(self.vector)
        self.gradient, self.step_number, self.losses = np.empty_like(self.vector), 0, None

    def prepare(self, batch):
        from npflow.autodiff.batches import ProgramGradient
        from npflow.autodiff.threads import available_cores, one_blas_thread

        self.one_blas_thread = one_blas_thread()
        self.one_blas_thread.__enter__()  # as fit does, for as long as it runs
        clock = time.perf_counter()
        self.loss = ProgramGradient(self.flow.nll, self.params, available_cores())
        self.loss(batch, self.gradient)
        return time.perf_counter() - clock

    def step(self, batch):
        self.step_number += 1
        loss = self.loss(batch, self.gradient)
        np.linalg.norm(self.gradient)  # fit looks at it at every step
        self.adam.update(self.state, self.vector, self.gradient, self.step_number)
        return float(loss)


# ---------------------------------------------------------------- PyTorch


class Torch:
    """PyTorch eager, with its own optimizer as it comes."""

    name, module, fused = "PyTorch eager", "torch", None

    def __init__(self, arrays):
        import torch

        self.torch, self.version = torch, torch.__version__
        tensor = lambda array: torch.tensor(np.array(array))
        self.params, self.fixed = {}, {}
        for path, array in arrays.items():
            if path.startswith("layer/"):
                (self.params if array.dtype == np.float32 else self.fixed)[path] = tensor(array)
        for value in self.params.values():
            value.requires_grad_(True)
        self.below = torch.tril(torch.ones(2, 2), -1)
        self.eye = torch.eye(2)
        self.optimizer = torch.optim.Adam(
            self.params.values(), RATE, (BETA1, BETA2), EPSILON, fused=self.fused
        )

    def nll(self, x):
        torch, p = self.torch, self.params
        total = torch.zeros(len(x))
        for index in range(0, 3 * STEPS, 3):
            path = f"layer/{index}"
            x = (x + p[f"{path}/bias"]) * torch.exp(p[f"{path}/log_scale"])
            total = total + p[f"{path}/log_scale"].sum()

            path = f"layer/{index + 1}"
            kept, changed = x[:, :1], x[:, 1:]
            h = kept
            for number in range(len(HIDDEN)):
                h = torch.addmm(p[f"{path}/{number}/bias"], h, p[f"{path}/{number}/weight"])
                h = torch.nn.functional.leaky_relu(h, SLOPE)
            number = len(HIDDEN)
            raw, shift = torch.addmm(p[f"{path}/{number}/bias"], h, p[f"{path}/{number}/weight"]).chunk(2, 1)
            log_scale = LIMIT * torch.tanh(raw / LIMIT)
            x = torch.cat([kept, changed * torch.exp(log_scale) + shift], 1)
            total = total + log_scale.sum(1)

            path = f"layer/{index + 2}"
            lower = p[f"{path}/lower"] * self.below + self.eye
            s = self.fixed[f"{path}/sign"] * torch.exp(p[f"{path}/log_scale"])
            upper = p[f"{path}/upper"] * self.below.T + torch.diag(s)
            x = x @ (lower @ upper)[self.fixed[f"{path}/permutation"].long()]
            total = total + p[f"{path}/log_scale"].sum()
        return -(total - 0.5 * (x * x).sum(1) - np.log(2 * np.pi)).mean()

    def prepare(self, batch):
        return 0.0

    def step(self, batch):
        self.optimizer.zero_grad()
        loss = self.nll(self.torch.from_numpy(batch))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class TorchFused(Torch):
    """The same with Adam as one kernel, which is not what PyTorch takes by itself on a CPU."""

    name, fused = "with fused Adam", True


# ---------------------------------------------------------------- JAX


class Jax:
    """The whole step, Adam included, in one jax.jit, its buffers donated."""

    name, module = "jax.jit", "jax"

    def __init__(self, arrays):
        import jax
        import jax.numpy as jnp

        self.jax, self.version = jax, jax.__version__
        self.params = {
            path: jnp.asarray(array)
            for path, array in arrays.items()
            if path.startswith("layer/") and array.dtype == np.float32
        }
        self.fixed = {path: array for path, array in arrays.items() if array.dtype != np.float32}
        zeros = lambda: jax.tree.map(jnp.zeros_like, self.params)
        self.state = (zeros(), zeros(), jnp.zeros((), jnp.float32))
        self.jitted = jax.jit(self.training_step, donate_argnums=(0, 1))

    def nll(self, p, x):
        import jax.numpy as jnp

        total = jnp.zeros(len(x), x.dtype)
        below, eye = jnp.tri(2, k=-1, dtype=x.dtype), jnp.eye(2, dtype=x.dtype)
        for index in range(0, 3 * STEPS, 3):
            path = f"layer/{index}"
            x = (x + p[f"{path}/bias"]) * jnp.exp(p[f"{path}/log_scale"])
            total = total + p[f"{path}/log_scale"].sum()

            path = f"layer/{index + 1}"
            kept, changed = x[:, :1], x[:, 1:]
            h = kept
            for number in range(len(HIDDEN)):
                h = h @ p[f"{path}/{number}/weight"] + p[f"{path}/{number}/bias"]
                h = self.jax.nn.leaky_relu(h, SLOPE)
            number = len(HIDDEN)
            raw, shift = jnp.split(h @ p[f"{path}/{number}/weight"] + p[f"{path}/{number}/bias"], 2, axis=1)
            log_scale = LIMIT * jnp.tanh(raw / LIMIT)
            x = jnp.concatenate([kept, changed * jnp.exp(log_scale) + shift], axis=1)
            total = total + log_scale.sum(axis=1)

            path = f"layer/{index + 2}"
            lower = p[f"{path}/lower"] * below + eye
            s = self.fixed[f"{path}/sign"].astype(np.float32) * jnp.exp(p[f"{path}/log_scale"])
            upper = p[f"{path}/upper"] * below.T + jnp.diag(s)
            x = x @ (lower @ upper)[self.fixed[f"{path}/permutation"]]
            total = total + p[f"{path}/log_scale"].sum()
        return -(total - 0.5 * (x * x).sum(axis=1) - np.float32(np.log(2 * np.pi))).mean()

    def training_step(self, params, state, x):
        jnp, each = self.jax.numpy, self.jax.tree.map
        loss, g = self.jax.value_and_grad(self.nll)(params, x)
        m, v, k = state
        k = k + 1
        m = each(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = each(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        rate = RATE * jnp.sqrt(1 - BETA2**k) / (1 - BETA1**k)
        floor = EPSILON * jnp.sqrt(1 - BETA2**k)
        params = each(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + floor), params, m, v)
        return params, (m, v, k), loss

    def prepare(self, batch):
        clock = time.perf_counter()
        self.jitted.lower(self.params, self.state, batch).compile()
        return time.perf_counter() - clock

    def step(self, batch):
        self.params, self.state, loss = self.jitted(self.params, self.state, batch)
        return float(loss)


CONTENDERS = {"npflow": Npflow, "torch": Torch, "torch_fused": TorchFused, "jax": Jax}

# ---------------------------------------------------------------- a process for each


def work(name, file):
    """Serve one library: a line of JSON in for each round, a line out."""
    with np.load(file) as archive:
        arrays = {path.replace("|", "/"): archive[path] for path in archive.files}
    contender, x = None, arrays["x"]
    for line in sys.stdin:
        order = json.loads(line)
        batches = [x[number * order["batch"] : (number + 1) * order["batch"]].copy() for number in range(4)]
        if order["do"] == "start":
            contender = CONTENDERS[name](arrays)
            seconds = contender.prepare(batches[0])
            losses = [contender.step(batch) for batch in batches]
            answer = {"version": contender.version, "losses": losses, "seconds": seconds}
        else:
            times = []
            for number in range(order["steps"]):
                clock = time.perf_counter()
                contender.step(batches[number % len(batches)])
                times.append(time.perf_counter() - clock)
            answer = {"median": float(np.median(times))}
        print(json.dumps(answer), flush=True)


class Worker:
    """A process that times one library."""

    def __init__(self, name, python, file):
        command = [python, __file__, "--serve", name, "--parameters", str(file)]
        self.name = CONTENDERS[name].name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self.name} ended: see above")
        return json.loads(answer)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def write_parameters(file):
    """Parameters away from where a flow starts, and data, for everyone to load."""
    import npflow
    from npflow.autodiff import tree

    rng = np.random.default_rng(0)
    x = npflow.datasets.moons(4 * max(BATCHES), rng=rng).astype(np.float32)
    flow = npflow.models.glow(features=2, steps=STEPS, network=npflow.networks.MLP(HIDDEN))
    arrays = {"x": x}
    for path, leaf in tree.items(flow.init(rng, x[:1000])):
        moved = tree.is_trained(leaf)
        noise = 0.02 * rng.standard_normal(leaf.shape).astype(np.float32) if moved else 0
        arrays[path] = (leaf + noise).astype(leaf.dtype)
    np.savez(file, **{path.replace("/", "|"): array for path, array in arrays.items()})


def has(python, module):
    """Whether there is such an interpreter, and it can import a module."""
    try:
        return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jax-python", default=sys.executable, help="an interpreter with JAX installed")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="an interpreter with PyTorch installed"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/moons.json"))
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--parameters", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        work(options.serve, options.parameters)
        return

    python_of = {"npflow": sys.executable, "torch": options.torch_python, "jax": options.jax_python}
    pythons = {name: python_of[contender.module] for name, contender in CONTENDERS.items()}
    names = [name for name, contender in CONTENDERS.items() if has(pythons[name], contender.module)]
    for name in [name for name in CONTENDERS if name not in names]:
        print(f"left out: {CONTENDERS[name].name}, as {pythons[name]} has no {CONTENDERS[name].module}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.npz"
        write_parameters(file)
        results = [measure(batch, names, pythons, file, options.rounds) for batch in BATCHES]

    print(f"\n{'batch':>6} {'':15} {'ms a step':>10} {'/ npflow':>9}   first step ready after")
    for result in results:
        for row in result["libraries"]:
            ratio = "" if row["name"] == "npflow" else f"{row['ratio']:9.2f}"
            print(
                f"{result['batch']:6} {row['name']:15} {1e3 * row['median']:10.2f} {ratio:>9}   {row['seconds']:.2f} s"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    print(f"\nwritten to {options.out}")


def measure(batch, names, pythons, file, rounds):
    """All libraries on one size of batch: a dict for the table."""
    workers = [Worker(name, pythons[name], file) for name in names]
    try:
        starts = [worker.ask(do="start", batch=batch) for worker in workers]
        for worker, start in zip(workers, starts):
            if not np.allclose(start["losses"], starts[0]["losses"], rtol=2e-4):
                raise SystemExit(
                    f"{worker.name} does not compute the same: {start['losses']}, {starts[0]['losses']}"
                )
        steps = max(10, 4000 // batch)
        medians = [[] for _ in workers]
        for _ in range(rounds):
            for worker, series in zip(workers, medians):
                series.append(worker.ask(do="time", batch=batch, steps=steps)["median"])
    finally:
        for worker in workers:
            worker.stop()
    ours = np.array(medians[0])
    rows = [
        {
            "name": worker.name,
            "version": start["version"],
            "median": float(np.median(series)),
            "ratio": float(np.median(np.array(series) / ours)),
            "seconds": start["seconds"],
        }
        for worker, start, series in zip(workers, starts, medians)
    ]
    return {
        "batch": batch,
        "rounds": rounds,
        "steps": steps,
        "first_losses": starts[0]["losses"],
        "libraries": rows,
    }


if __name__ == "__main__":
    main()
