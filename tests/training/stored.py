"""Checkpoints of small flows, and how tests damage them."""

import json

import numpy as np
from helpers import moved, rows

from npflow import Flow, save
from npflow.layers import AffineCoupling, Chain, Conv1x1, Inverse, Permutation
from npflow.models import glow
from npflow.networks import MLP, Beside
from npflow.priors import GaussianMixture, Normal

small = MLP((4,), "tanh")

FLOWS = {
    "glow": glow(2, steps=2, network=small),
    "nested": Flow(
        Chain([Inverse(Chain([Permutation(), Conv1x1()])), AffineCoupling(Beside(small, small))]), Normal(4)
    ),
    "trained prior": Flow(AffineCoupling(small), Normal(2, trained=True)),
    "mixture": Flow(
        AffineCoupling(small, transformed="first", log_scale_limit=1.5),
        GaussianMixture(((0.0, 1.0), (1.0, 0.0)), (1.0, 2.0), trained=True),
    ),
    "image": Flow(Chain([Conv1x1(), AffineCoupling(small)]), Normal((2, 3, 4))),
}


def make(flow, dtype=np.float64):
    x = rows(10, *flow.prior.event_shape, dtype=dtype)
    return moved(flow.init(np.random.default_rng(0), x)), x


def saved(path, name="glow"):
    """A checkpoint of a flow at `path`."""
    save(path, FLOWS[name], make(FLOWS[name])[0])
    return path


def with_contents(path, change, savez=np.savez):
    """Change the entries of a checkpoint."""
    with np.load(path) as file:
        contents = dict(file)
    change(contents)
    savez(path, **contents)


def rewrite(path, change):
    """Change the description in a checkpoint."""

    def change_description(contents):
        description = json.loads(str(contents["description"]))
        change(description)
        contents["description"] = np.array(json.dumps(description))

    with_contents(path, change_description)
