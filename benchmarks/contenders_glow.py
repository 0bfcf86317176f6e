"""One training step in several libraries: the multi-scale Glow of images, and Adam.

Each class is the same model: levels of steps of [ActNorm, Conv1x1, AffineCoupling with a network of three
convolutions]. Half of the channels are split off after each level, with a learned prior. All compute in
float32, with Adam at a rate of 1e-5, since only the time matters here. All load the same parameters and data.
Run as a program, this module serves one of them.
"""

import math
import sys

import contenders_moons as moons
import numpy as np
from contender import Contender, save_arrays, serve

RATE, BETA1, BETA2, EPSILON = 1e-5, 0.9, 0.999, 1e-8
LIMIT = 2.0


def glow(model):
    """The flow that the other classes write out."""
    import npflow

    network = npflow.networks.ConvNet((model["channels"],) * 2)
    flow = npflow.models.image_glow(tuple(model["shape"]), model["levels"], model["steps"], network)
    return moons.without(flow, "Logit", "Units")


class Npflow(moons.Npflow):
    """The steps of `npflow.fit` itself."""

    glow, rate = staticmethod(glow), RATE


class Reversible(Npflow):
    """The same with reversible training."""

    name, options = "npflow, reversible", (("reversible", True),)


class Torch(Contender):
    """PyTorch eager, channels first in memory (its default), with the default options of its Adam."""

    name, module = "PyTorch eager", "torch"
    last, fused = False, None

    def __init__(self, arrays, model, device):
        import torch

        self.torch, self.version, self.model = torch, torch.__version__, model
        self.params, self.fixed = {}, {}
        for path, array in arrays.items():
            if not path.startswith("layer/"):
                continue
            if path.endswith("weight"):  # height, width, inputs, outputs
                array = self.laid_out(torch.tensor(array.transpose(3, 2, 0, 1).copy()))
            elif array.dtype == np.float32 and array.ndim == 1:  # one number a channel
                array = torch.tensor(array).reshape(-1, 1, 1)
            else:
                array = torch.tensor(array)
            (self.params if array.dtype == torch.float32 else self.fixed)[path] = array
        for value in self.params.values():
            value.requires_grad_(True)
        self.optimizer = torch.optim.Adam(
            self.params.values(), RATE, (BETA1, BETA2), EPSILON, fused=self.fused
        )

    def laid_out(self, x):
        return x.contiguous(memory_format=self.torch.channels_last) if self.last else x

    def send(self, batch):
        return self.laid_out(self.torch.tensor(batch.transpose(0, 3, 1, 2).copy()))

    def network(self, path, x, layers):
        torch, p = self.torch, self.params
        for number in range(layers):
            here = f"{path}/{number}"
            weight, bias, padding = p[f"{here}/weight"], p[f"{here}/bias"], p[f"{here}/weight"].shape[-1] // 2
            if number < layers - 1:
                x = torch.relu(torch.nn.functional.conv2d(x, weight, bias.flatten(), padding=padding))
            else:
                x = torch.nn.functional.conv2d(x, weight, padding=padding) * weight[0].numel() ** -0.5
                x = (x + bias) * torch.exp(3 * p[f"{here}/log_scale"])
        return x

    def couple(self, path, kept, changed, layers):
        torch = self.torch
        raw, shift = self.network(path, kept, layers).chunk(2, 1)
        log_scale = LIMIT * torch.tanh(raw / LIMIT)
        return changed * torch.exp(log_scale) + shift, log_scale.sum((1, 2, 3))

    def level(self, path, x, level):
        """Energy and log-det of the level at a path and, by recursion, of the levels inside it."""
        torch, p = self.torch, self.params
        x = self.laid_out(torch.nn.functional.pixel_unshuffle(x, 2))
        channels, pixels, total = x.shape[1], x.shape[2] * x.shape[3], x.new_zeros(len(x))
        below, eye = torch.tril(torch.ones(channels, channels), -1), torch.eye(channels)
        for index in range(1, 3 * self.model["steps"] + 1, 3):
            here = f"{path}/{index}"
            x = x * torch.exp(p[f"{here}/log_scale"]) + p[f"{here}/bias"]
            total = total + pixels * p[f"{here}/log_scale"].sum()

            here = f"{path}/{index + 1}"
            s = self.fixed[f"{here}/sign"] * torch.exp(p[f"{here}/log_scale"].flatten())
            lower, upper = p[f"{here}/lower"] * below + eye, p[f"{here}/upper"] * below.T + torch.diag(s)
            weight = (lower @ upper)[self.fixed[f"{here}/permutation"].long()]
            x = torch.nn.functional.conv2d(x, weight.T[:, :, None, None])
            total = total + pixels * p[f"{here}/log_scale"].sum()

            kept, changed = x.chunk(2, 1)
            changed, log_det = self.couple(f"{path}/{index + 2}", kept, changed, layers=3)
            x, total = torch.cat([kept, changed], 1), total + log_det
        if level == self.model["levels"]:
            return 0.5 * (x * x).sum((1, 2, 3)), total
        index = 3 * self.model["steps"] + 1
        first, rest = x.chunk(2, 1)
        first, log_det = self.couple(f"{path}/{index}", rest, first, layers=1)
        energy, log_det_inside = self.level(f"{path}/{index + 1}", rest, level + 1)
        return energy + 0.5 * (first * first).sum((1, 2, 3)), total + log_det + log_det_inside

    def step(self, batch):
        self.optimizer.zero_grad()
        energy, log_det = self.level("layer", batch, level=1)
        loss = (energy - log_det).mean() + 0.5 * math.log(2 * math.pi) * batch[0].numel()
        loss.backward()
        self.optimizer.step()
        self.latest = loss.detach()


class TorchFused(Torch):
    """The same with Adam as one kernel, which is not PyTorch's default on a CPU."""

    name, fused = "with fused Adam", True


class TorchLast(Torch):
    """PyTorch eager, channels last in memory."""

    name, last = "PyTorch eager, channels last", True


class TorchLastFused(TorchLast):
    """The same with Adam as one kernel."""

    name, fused = "channels last, with fused Adam", True


CONTENDERS = {
    contender.__name__: contender
    for contender in (Npflow, Reversible, Torch, TorchFused, TorchLast, TorchLastFused)
}


def save(file, model, rows):
    """Write the parameters of a new flow plus noise, and `rows` images of noise, for all to load."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, *model["shape"]), dtype=np.float32)
    save_arrays(file, x, glow(model).init(rng, x), rng, scale=1e-3)


if __name__ == "__main__":
    serve(CONTENDERS, *sys.argv[1:])
