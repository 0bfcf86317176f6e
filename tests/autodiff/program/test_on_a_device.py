"""Programs of a device's arrays: the source calls the device's module, and nothing crosses over.

Every layer's and every recipe's is held against the host's in `tests/autodiff/test_every_program.py`.
"""

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from helpers import assert_agrees

from npflow import to_device
from npflow.autodiff.gpu.devices import constant, find_device
from npflow.autodiff.program import record
from npflow.autodiff.program.recorder import _agree
from npflow.errors import InputError

rng = np.random.default_rng(0)
PARAMS = {"w": rng.standard_normal((3, 2)), "order": np.array([1, 0])}
X = rng.standard_normal((4, 3))
MASK = rng.standard_normal((4, 3)) > 0  # too irregular for a line of the source to make it


def loss(params, x):
    """Of each kind of line: ufuncs, products, reductions, indices, joins, casts, constants."""
    x = anp.where(constant(MASK, like=x), x, 0.5 * x)
    h = anp.dot(x, params["w"])[:, params["order"]]
    h = anp.concatenate([anp.tanh(h), anp.maximum(h, anp.zeros_like(h))], axis=1)
    h = h * anp.greater(h, 0.1).astype(h.dtype) + anp.array([h[0, 0], h[1, 1], h[0, 1], h[1, 0]])
    return anp.sum(anp.mean(h, axis=0) ** 2) + anp.max(h)


def test_each_line_calls_the_module_of_the_device(device):
    params, x = to_device((PARAMS, X), device.name)
    source = record(loss, params, x).source
    assert f"\nimport {device.alias}\n" in source
    body = source.split('"""The value, ')[1]
    for call in ("dot", "tanh", "concatenate", "greater", "where"):
        assert f"{device.alias}.{call}(" in body
    assert "np." not in body


def test_the_results_are_the_hosts_and_stay_on_the_device(device):
    there = to_device((PARAMS, X), device.name)
    program, on_host = record(loss, *there), record(loss, PARAMS, X)
    for factor in (1.0, -0.5):
        arguments = (PARAMS | {"w": factor * PARAMS["w"]}, factor * X)
        on_device = to_device(arguments, device.name)
        program(*on_device)  # the constant, which is another array, is compared the first time
        with stand_in.counted() as transfers:
            results = program(*on_device)
        assert transfers == stand_in.Transfers(0, 0)
        assert_agrees(device, results, on_host(*arguments))


def test_a_value_is_the_callers_own(device):
    params, x = to_device((PARAMS, X), device.name)
    program = record(loss, params, x)
    results = program(params, x)
    kept = [device.fetch(result) for result in results]
    program(params, 2 * x)
    assert_agrees(device, list(results), kept)
    program = record(lambda params, x: anp.exp(x)[0] + x[0], params, x, gradient=False)
    result = program(params, x)
    kept = device.fetch(result)
    program(params, 2 * x)
    assert_agrees(device, result, kept)


def test_arrays_of_two_devices_cannot_be_recorded_together(device):
    params, x = to_device((PARAMS, X), device.name)
    with pytest.raises(
        InputError, match=f"expected all arrays on one device, got {device} at 'params/.*cpu at 'x'"
    ):
        record(loss, params, X)
    with pytest.raises(InputError, match=f"got cpu at 'params/.*{device} at 'x'"):
        record(loss, PARAMS, x)


def test_a_program_refuses_arrays_from_elsewhere(device):
    params, x = to_device((PARAMS, X), device.name)
    with pytest.raises(
        InputError, match=f"expected 'x' on {device}, where .* runs, got it on cpu; see npflow.to_dev"
    ):
        record(loss, params, x)(params, X)
    with pytest.raises(InputError, match=f"expected 'w' on cpu, where .* runs, got it on {device}"):
        record(loss, PARAMS, X)(PARAMS | {"w": params["w"]}, X)
    with pytest.raises(InputError, match="expected 'order' to be the constant of the recording"):
        record(loss, params, x)(params | {"order": device.send(np.array([0, 1]))}, x)


def test_a_branch_on_a_devices_array_is_refused_with_its_line(device):
    def branching(params, x):
        return anp.sum(x) if x[0, 0] > 0 else anp.sum(x * x)

    params, x = to_device((PARAMS, X), device.name)
    with pytest.raises(InputError, match=r"a branch on the value of an array.*if x\[0, 0\] > 0"):
        record(branching, params, x)


def test_where_rounding_may_differ_results_agree_up_to_it_and_no_further():
    x = rng.standard_normal((5, 5)).astype(np.float32)
    x[0, 0] = np.nan
    assert _agree(x, x * np.float32(1 + 1e-6))
    assert not _agree(x, x * np.float32(1 + 1e-2))
    assert not _agree(x, np.nan_to_num(x))
    assert _agree(np.array([1, 2]), np.array([1, 2]))
    assert not _agree(np.array([1, 2]), np.array([1, 3]))


def test_an_index_of_the_hosts_is_sent_once_not_at_each_run():
    def picked(params, x):
        return anp.sum(x[:, [0, 2]] ** 2) + anp.sum(params["w"][[2, 0, 0], [1, 0, 0]] * 3.0)

    there = to_device((PARAMS, X), "strict")
    program = record(picked, *there)
    program(*there)
    with stand_in.counted() as transfers:
        program(*there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(find_device("strict"), program(*there), record(picked, PARAMS, X)(PARAMS, X))
