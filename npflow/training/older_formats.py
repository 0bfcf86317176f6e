"""The formats of checkpoints, and how one of an older format is converted while it is read.

In format 1, Adam's m and v have the factors 1 - beta. In 1 and 2, the bias of an ActNorm is in units of x, and a Units
has no centers. In 1 to 3, a VAE has no Units, and a conditional model none for its context.
"""

import numpy as np

from npflow.autodiff import Layout
from npflow.errors import InputError

FORMATS = tuple(f"npflow checkpoint {number}" for number in (1, 2, 3, 4))
FORMAT = FORMATS[-1]  # the one that is written


def check_format(name):
    """Raise `InputError` unless `name` is that of a format."""
    if name not in FORMATS:
        raise InputError(f"expected the format {FORMAT!r}, got {name!r}")


def convert_units(name, architecture, params, model):
    """Add the constants that each `Units` lacks to parameters, in place; they change nothing."""
    if name in FORMATS[:2] and "Units" in classes(architecture):
        for units in dicts_of({"exponent"}, params):
            units["center"] = np.zeros(np.shape(units["exponent"]), np.int64)
    if name in FORMATS[:3]:
        if classes(architecture)[0] == "VAE":
            params["norm"] = [no_units(len(params["norm"]["bias"])), params["norm"]]
        features = getattr(getattr(model, "flow", model), "context_features", 0)
        if features:
            params.setdefault("context", no_units(features))


def no_units(columns):
    """The constants of a `Units` that leaves columns as they are."""
    # Views of one number: a file may state any number of columns.
    return {
        "exponent": np.broadcast_to(np.zeros((), np.int16), columns),
        "center": np.broadcast_to(np.zeros((), np.int64), columns),
    }


def convert_act_norms(name, architecture, params, arrays):
    """Turn z = (x + bias) exp(log_scale) into z = x exp(log_scale) + bias, in place: in parameters and a run's arrays.

    The bias is multiplied by exp(log_scale), so its gradient, of which Adam's moments are means, is divided by it.
    """
    if name not in FORMATS[:2]:
        return
    there = sum(one in ("ActNorm", "VAE") for one in classes(architecture))  # a VAE has one
    if len(_act_norms(params)) != there:
        raise InputError(
            "expected an ActNorm for each bias and log_scale of a checkpoint of an older format, got others: "
            "a layer of your own that has the same parameters cannot be told from one"
        )
    trees = {
        name: Layout(params).unpack(array, params) for name, array in arrays.items() if "history:" not in name
    }
    scales = [np.exp(norm["log_scale"]) for norm in _act_norms(trees.get("vector", params))]
    for name, branch in {"params": params, **trees}.items():
        for norm, scale in zip(_act_norms(branch), scales):
            if name.startswith("moment:"):
                norm["bias"] /= scale ** (2 if name == "moment:v" else 1)
            else:
                norm["bias"] *= np.exp(norm["log_scale"])


def _act_norms(params):
    """The parameters of each ActNorm."""
    return dicts_of({"bias", "log_scale"}, params)


def dicts_of(keys, params):
    """A list of the dicts of these keys in a tree."""
    if isinstance(params, dict):
        if params.keys() == keys:
            return [params]
        params = params.values()
    elif not isinstance(params, (list, tuple)):
        return []
    return [found for branch in params for found in dicts_of(keys, branch)]


def convert_moments(name, moments, optimizer):
    """Take the factors 1 - beta out of the moments of `Adam`, in place."""
    if name == FORMATS[0]:
        moments["m"] /= 1 - optimizer.beta1
        moments["v"] /= 1 - optimizer.beta2


def classes(description):
    """The class of each object in a description, in its order."""
    if isinstance(description, list):
        return [name for one in description for name in classes(one)]
    if isinstance(description, dict):
        return [description.get("class"), *classes(list(description.values()))]
    return []
