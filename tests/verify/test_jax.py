"""check_jax on objects that follow the conventions of JAX's libraries, where JAX is installed."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp  # noqa: E402

from npflow.verify import check_jax  # noqa: E402

X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


@jax.tree_util.register_pytree_node_class
class Scale:
    """As distrax does."""

    def __init__(self, scale):
        self.scale = scale

    def forward_and_log_det(self, x):
        return x * self.scale, jnp.log(jnp.abs(self.scale)) + 0 * x

    def inverse_and_log_det(self, y):
        return y / self.scale, -jnp.log(jnp.abs(self.scale)) + 0 * y

    def tree_flatten(self):
        return (self.scale,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


class OfOneRow:
    """As flowjax does."""

    def transform_and_log_det(self, x, condition=None):
        return jnp.exp(x), jnp.sum(x)

    def inverse_and_log_det(self, y, condition=None):
        return jnp.log(y), -jnp.sum(jnp.log(y))


class Wrong(OfOneRow):
    def inverse_and_log_det(self, y, condition=None):
        return jnp.log(y), jnp.sum(jnp.log(y))


def test_batches():
    report = check_jax(Scale(jnp.array([1.0, -2.0, 3.0])), X)
    assert report.passed, report
    assert not jax.config.jax_enable_x64


def test_rows():
    assert check_jax(OfOneRow(), X).passed
    assert "inverse" in check_jax(Wrong(), X).cause


def test_two_functions():
    report = check_jax(
        lambda x: (jnp.sinh(x), jnp.sum(jnp.log(jnp.cosh(x)), 1)),
        X,
        inverse=lambda y: (jnp.arcsinh(y), -0.5 * jnp.sum(jnp.log1p(y**2), 1)),
    )
    assert report.passed, report


def test_what_looks_at_values_is_not_compiled():
    report = check_jax(lambda x: (2 * x if x[0, 0] < 100 else x, jnp.full(len(x), 3 * jnp.log(2.0))), X)
    assert report.passed, report


def test_flowjax_is_moved():
    bijections = pytest.importorskip("flowjax.bijections", reason="needs flowjax")
    report = check_jax(bijections.Affine(jnp.zeros(3), jnp.ones(3)), X)
    assert report.passed, report
    assert report["where parameters start"].passed
