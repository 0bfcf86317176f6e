"""One training step in several libraries: a ten-step Glow on two moons, and Adam.

Each class is the same model: ten steps of [ActNorm, AffineCoupling with one MLP, Conv1x1], leaky ReLUs,
float32, Adam with a rate of 1e-3. All load the same parameters and data. Run as a program, this module serves
one of them to `side_by_side`, which gives the orders.
"""

import sys
import time

import numpy as np
from contender import Contender, save_arrays, serve

STEPS, LIMIT, SLOPE = 10, 2.0, 0.01
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def glow(hidden):
    """The flow that the other classes write out; `hidden` is the widths of each coupling's network."""
    import npflow

    flow = npflow.models.glow(features=2, steps=STEPS, network=npflow.networks.MLP(tuple(hidden)))
    return without(flow, "Units")


def without(flow, *names):
    """A flow without its layers of some classes, which an older checkout may lack."""
    import npflow

    left_out = tuple(getattr(npflow.layers, name) for name in names if hasattr(npflow.layers, name))
    layers = [layer for layer in flow.layer.layers if not isinstance(layer, left_out)]
    return npflow.Flow(npflow.layers.Chain(layers), flow.prior)


# ---------------------------------------------------------------- npflow


class InOrder(np.random.Generator):
    """A generator that leaves rows in their order, so that all libraries see the same batches."""

    def permutation(self, n):
        return np.arange(n)


class Npflow(Contender):
    """The steps of `npflow.fit` itself: one call makes them all.

    `fit` calls the learning-rate schedule once a step. The schedule takes the next batch of the orders, so the
    time between two batches is that of one whole step of `fit`. This uses no internals of npflow, so it can
    measure another checkout, too.
    """

    name = module = "npflow"
    glow, rate = staticmethod(glow), RATE
    options = ()  # more of `fit`, as pairs
    finds_gpu = "npflow.autodiff.gpu.devices.find_device('cuda')"

    def __init__(self, arrays, model, device):
        import npflow

        self.version, self.device = npflow.__version__, device
        if device == "cuda":
            import cupy

            self.cupy = cupy
            self.version += f" with CuPy {cupy.__version__}"
            self.gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        self.flow = self.glow(model)
        self.params = parameters(self.flow, arrays)

    def fit(self, batches, steps, learning_rate):
        """The history of a call of `fit` that goes through the batches in their order."""
        import npflow

        _, history = npflow.fit(
            self.flow,
            self.params,
            np.concatenate(batches),
            rng=InOrder(np.random.PCG64(0)),
            steps=steps,
            batch_size=len(batches[0]),
            optimizer=npflow.training.Adam(learning_rate, BETA1, BETA2, EPSILON),
            device=self.device,
            progress=False,
            **dict(self.options),
        )
        return history

    def prepare(self, batches):
        clock, times = time.perf_counter(), []

        def rate(step):
            times.append(time.perf_counter() - clock)
            return self.rate

        self.batches, self.history = batches, self.fit(batches, len(batches), rate)
        return times[0]  # until the first gradient

    def first_losses(self, batches):
        return self.history.loss

    def make_steps(self, batches):
        def rate(step):
            if next(batches, None) is None:
                raise SystemExit  # there are no more orders
            return self.rate

        self.fit(self.batches, 10**9, rate)

    def wait(self):
        if self.gpu:
            self.cupy.cuda.Device().synchronize()


def parameters(flow, arrays):
    """The flow's tree of parameters, each leaf the array of its path."""
    from npflow.autodiff import tree

    template = flow.init(np.random.default_rng(0), arrays["x"][:64])
    return tree.build(lambda path, _: arrays[path], template)


# ---------------------------------------------------------------- PyTorch


class Torch(Contender):
    """PyTorch eager, with the default options of its Adam."""

    name, module, fused = "PyTorch eager", "torch", None
    finds_gpu = "torch.cuda.get_device_name()"

    def __init__(self, arrays, model, device):
        import torch

        self.torch, self.version = torch, torch.__version__
        self.device, self.hidden_layers = device, len(model)
        if device == "cuda":
            self.gpu = torch.cuda.get_device_name()
        self.params, self.fixed = {}, {}
        for path, array in arrays.items():
            if path.startswith("layer/"):
                (self.params if array.dtype == np.float32 else self.fixed)[path] = self.send(array)
        for value in self.params.values():
            value.requires_grad_(True)
        self.below = torch.tril(torch.ones(2, 2, device=device), -1)
        self.eye = torch.eye(2, device=device)
        self.optimizer = torch.optim.Adam(
            self.params.values(), RATE, (BETA1, BETA2), EPSILON, fused=self.fused
        )

    def send(self, batch):
        return self.torch.tensor(batch, device=self.device)

    def nll(self, x):
        torch, p = self.torch, self.params
        total = x.new_zeros(len(x))
        for index in range(0, 3 * STEPS, 3):
            path = f"layer/{index}"
            x = x * torch.exp(p[f"{path}/log_scale"]) + p[f"{path}/bias"]
            total = total + p[f"{path}/log_scale"].sum()

            path = f"layer/{index + 1}"
            kept, changed = x[:, :1], x[:, 1:]
            h = kept
            for number in range(self.hidden_layers):
                h = torch.addmm(p[f"{path}/{number}/bias"], h, p[f"{path}/{number}/weight"])
                h = torch.nn.functional.leaky_relu(h, SLOPE)
            number = self.hidden_layers
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

    def step(self, batch):
        self.optimizer.zero_grad()
        loss = self.nll(batch)
        loss.backward()
        self.optimizer.step()
        self.latest = loss.detach()

    def wait(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()


class TorchFused(Torch):
    """The same with Adam as one kernel, which is not PyTorch's default on a CPU."""

    name, fused = "with fused Adam", True


# ---------------------------------------------------------------- JAX


class Jax(Contender):
    """The whole step with Adam in one jax.jit, with donated buffers, on JAX's default device."""

    name, module = "jax.jit", "jax"

    def __init__(self, arrays, model, device):
        import jax
        import jax.numpy as jnp

        self.jax, self.version, self.hidden_layers = jax, jax.__version__, len(model)
        self.params = {
            path: jnp.asarray(array)
            for path, array in arrays.items()
            if path.startswith("layer/") and array.dtype == np.float32
        }
        self.fixed = {path: array for path, array in arrays.items() if array.dtype != np.float32}
        zeros = lambda: jax.tree.map(jnp.zeros_like, self.params)
        self.state, self.latest = (zeros(), zeros(), jnp.zeros((), jnp.float32)), None
        self.jitted = jax.jit(self.training_step, donate_argnums=(0, 1))

    def nll(self, p, x):
        import jax.numpy as jnp

        total = jnp.zeros(len(x), x.dtype)
        below, eye = jnp.tri(2, k=-1, dtype=x.dtype), jnp.eye(2, dtype=x.dtype)
        for index in range(0, 3 * STEPS, 3):
            path = f"layer/{index}"
            x = x * jnp.exp(p[f"{path}/log_scale"]) + p[f"{path}/bias"]
            total = total + p[f"{path}/log_scale"].sum()

            path = f"layer/{index + 1}"
            kept, changed = x[:, :1], x[:, 1:]
            h = kept
            for number in range(self.hidden_layers):
                h = h @ p[f"{path}/{number}/weight"] + p[f"{path}/{number}/bias"]
                h = self.jax.nn.leaky_relu(h, SLOPE)
            number = self.hidden_layers
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

    def prepare(self, batches):
        clock = time.perf_counter()
        self.jitted.lower(self.params, self.state, batches[0]).compile()
        return time.perf_counter() - clock

    def step(self, batch):
        self.params, self.state, self.latest = self.jitted(self.params, self.state, batch)

    def wait(self):
        self.jax.block_until_ready(self.latest)


CONTENDERS = {contender.__name__: contender for contender in (Npflow, Torch, TorchFused, Jax)}


def save(file, hidden, rows):
    """Write the parameters of a new flow plus noise, and `rows` points of data, for all to load."""
    import npflow

    rng = np.random.default_rng(0)
    x = npflow.datasets.moons(rows, rng=rng).astype(np.float32)
    # 0.02 at a width of 64, less in a wider network: there Adam's first steps change the loss so much that
    # with more noise the libraries' different rounding would show.
    save_arrays(file, x, glow(hidden).init(rng, x[:1000]), rng, scale=1.28 / max(hidden))


if __name__ == "__main__":
    serve(CONTENDERS, *sys.argv[1:])
