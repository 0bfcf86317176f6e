"""Random state as plain data."""

import json

import numpy as np
import pytest

from npflow import InputError
from npflow.training.random_state import from_plain, to_plain

KINDS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_survives_json(kind):
    rng = np.random.Generator(kind(3))
    rng.standard_normal(5)
    plain = json.loads(json.dumps(to_plain(rng.bit_generator.state)))
    expected = rng.permutation(100)
    other = np.random.Generator(kind(4))
    other.bit_generator.state = from_plain(plain, other)
    assert np.array_equal(other.permutation(100), expected)


def test_another_kind_of_generator_is_refused():
    plain = to_plain(np.random.default_rng(0).bit_generator.state)
    with pytest.raises(InputError, match=r"expected a generator of the kind .* PCG64, got MT19937"):
        from_plain(plain, np.random.Generator(np.random.MT19937(0)))
