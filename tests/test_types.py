"""Public functions, and the methods that users call, are annotated; mypy checks them where `.ci/run` calls it."""

import importlib
import inspect
import re

import pytest

ROOMS = ("", ".layers", ".networks", ".models", ".priors", ".training", ".verify", ".datasets", ".plots")
ROOMS += (".latent", ".autodiff", ".estimators", ".exercises")
METHODS = {
    "Flow": ("init", "log_prob", "sample", "sample_and_log_prob", "encode", "decode", "loss", "losses"),
    "Dequantized": ("init", "log_prob", "bits_per_dim", "sample", "encode", "decode"),
    "Completion": ("init", "log_prob", "bits_per_dim", "answers", "complete", "known"),
    "VAE": ("init", "elbo", "log_prob", "sample", "sample_posterior", "encode", "decode"),
    "PixelCNN": ("init", "log_prob", "bits_per_dim", "sample", "complete"),
    "Prior": ("init", "log_prob", "sample"),
    "Layer": ("init", "forward", "inverse", "log_det"),
    "Composite": ("trace", "trace_inverse"),
    "Network": ("init", "apply"),
    "ImportanceSample": ("mean", "resample"),
    "Report": ("raise_if_failed", "as_dict", "log_det_error"),
    "FlowDensity": ("fit", "score_samples", "score", "sample", "transform", "inverse_transform"),
    "FlowClassifier": ("fit", "predict", "predict_proba", "score_samples"),
}


def public():
    """Every public function of npflow, and the methods above, by name."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"npflow{room}")
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                found[name] = thing
            for method in METHODS.get(name, ()):
                found[f"{name}.{method}"] = getattr(thing, method)
    return found


PUBLIC = public()


def test_all_methods_are_found():
    assert sum(map(len, METHODS.values())) == sum("." in name for name in PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_arguments_and_result_are_annotated(name):
    signature = inspect.signature(PUBLIC[name])
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    bare = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.kind not in free and parameter.name != "self"
    ]
    assert not bare
    assert signature.return_annotation is not signature.empty


# What docstrings call what annotations cannot name, or name otherwise.
WORDS = {"tree": "Any", "callable": "Callable", "self": "Flow(Density|Classifier)"}


def results_of(docstring):
    """The type of each result that a docstring describes: ``mean, log_std : ndarray, shape (n,)`` is two of ndarray."""
    section = re.search(r"^Returns\n-+\n(.*?)(\n\n\w+\n---|\Z)", docstring, re.DOTALL | re.MULTILINE)
    for line in section[1].splitlines() if section else ():
        if line and not line.startswith(" "):
            names, _, kind = line.rpartition(" : ")
            yield from [re.match(r"[\w.]+", kind)[0].rpartition(".")[2]] * len(names.split(","))


@pytest.mark.parametrize("name", PUBLIC)
def test_the_annotated_result_is_that_of_the_docstring(name):
    annotation = inspect.formatannotation(inspect.signature(PUBLIC[name]).return_annotation)
    stated = [WORDS.get(kind, kind) for kind in results_of(inspect.getdoc(PUBLIC[name]))]
    if len(stated) > 1:
        assert re.fullmatch(
            r"tuple\[{}\]".format(", ".join(rf"[\w.]*\b{kind}" for kind in stated)), annotation
        )
    elif stated:
        assert re.match(rf"'?[\w.]*\b{stated[0]}\b", annotation)
    else:
        assert annotation in ("None", "dict")
