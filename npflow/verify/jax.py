"""`check_jax`: bijectors of JAX, whichever library they come from."""

import contextlib
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np

from npflow.verify.peers import Peer, checker, convention_of

CHUNK = 64  # rows that a transform is compiled for


@checker
def check_jax(transform, x, *, inverse=None, context=None, move=True, name=None, **known):
    """Hold a bijector of JAX against its numerical Jacobian, and against JAX's own.

    Parameters
    ----------
    transform : object
        A bijector of flowjax, distrax, numpyro or TensorFlow Probability on JAX, or one that follows their conventions:
        ``forward_and_log_det`` and ``inverse_and_log_det``; ``transform_and_log_det`` of one row; ``log_abs_det_jacobian(x,
        y)``; or ``forward_log_det_jacobian(x, event_ndims)``. Or a function that returns an array and its log-det.
    move : bool
        Whether to look at parameters away from where they are too: moved by noise, and with random signs. An error hides
        where a layer starts as the identity. The float arrays of a module of Equinox, such as a bijection of flowjax, are
        parameters, those of another library's object are not.

    Notes
    -----
    Copies are called, in float64 (within ``jax.enable_x64``) and float32, on fresh arrays, which no cache knows.
    Log-dets for each element are summed over a row, with a note.

    Examples
    --------
    >>> import numpy as np
    >>> from flowjax.bijections import Affine
    >>> from npflow.verify import check_jax
    >>> check_jax(Affine(1.0, np.full(3, 2.0)), np.random.default_rng(0).normal(size=(8, 3))).passed
    True
    """
    peer = Jax(transform, inverse, np.asarray(x), None if context is None else np.asarray(context))
    return peer.check(name or getattr(transform, "__name__", type(transform).__name__), move, **known)


class Jax(Peer):
    """A transform of JAX, compiled once for a number of rows. A map of one row, such as flowjax's, is mapped over rows."""

    kind = jax.Array

    @property
    def pure(self):
        return _is_tree(self.given[0])

    def array(self, array):
        return array  # compiled functions make their own arrays of NumPy's

    def fresh(self, array):
        return jnp.array(array)

    @contextlib.contextmanager
    def calling(self, dtype):
        """In a precision, and without the log of what raises outside of its domain."""
        log = logging.getLogger("jax._src.callback")
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            with jax.enable_x64(dtype == np.float64):
                yield
        finally:
            log.setLevel(level)

    def cast_to(self, dtype):
        def cast(path, array):
            with self.calling(dtype):
                return jnp.array(array, dtype if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype)

        return cast

    def remade(self, value, of):
        if isinstance(value, tuple):
            return tuple(self.remade(one, of) for one in value)
        if not _is_tree(value):
            return super().remade(value, of)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: of(jax.tree_util.keystr(path), leaf) if isinstance(leaf, jax.Array) else leaf,
            value,
        )

    def arrays(self, value):
        return [
            leaf for leaf in jax.tree_util.tree_leaves(value) if isinstance(leaf, (jax.Array, np.ndarray))
        ]

    def trains(self, value):
        transform = value[0]
        if not any(parent.__module__.startswith("equinox") for parent in type(transform).__mro__):
            return set()
        fixed = lambda node: type(node).__name__ == "NonTrainable"  # of paramax
        found, _ = jax.tree_util.tree_flatten_with_path(transform, is_leaf=fixed)
        return {
            jax.tree_util.keystr(path)
            for path, leaf in found
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
        }

    def conventions(self, version):
        transform, inverse = version
        found = _convention(transform)
        other = (transform, "inverse") if inverse is None else (inverse, "forward")
        return found._replace(
            forward=_compiled(transform, "forward"),
            inverse=None if inverse is None and found.inverse is None else _compiled(*other),
        )

    def like(self, leaf, array):
        """A parameter in the dtype of another one."""
        with self.calling(np.dtype(leaf.dtype)):
            return jnp.array(array, leaf.dtype)

    def exact(self, function, rows):
        """One forward derivative for each input, or one backward pass for each output, for all rows at once."""
        n, width = len(rows), int(np.prod(rows.shape[1:]))

        def along(direction):
            tangent = jnp.broadcast_to(direction.reshape(rows.shape[1:]), rows.shape)
            return jax.jvp(function, (rows,), (tangent,))[1].reshape(n, -1)

        try:
            return jnp.stack([along(one) for one in jnp.eye(width, dtype=rows.dtype)], axis=2)
        except TypeError:  # a derivative that is known backwards alone
            y, back = jax.vjp(function, rows)
            seeds = jnp.eye(int(np.prod(y.shape[1:])), dtype=y.dtype)
            found = [
                back(jnp.broadcast_to(one.reshape(y.shape[1:]), y.shape))[0].reshape(n, -1) for one in seeds
            ]
            return jnp.stack(found, axis=1)

    def gradients(self, version, dtype):
        with self.calling(dtype):
            x, context = self.batch(dtype)
            leaves, structure = jax.tree_util.tree_flatten_with_path(version[0])
            names = [jax.tree_util.keystr(path) for path, _ in leaves]
            moving = [index for index, name in enumerate(names) if name in self.trained]

            def total(arrays):
                values = [leaf for _, leaf in leaves]
                for index, array in zip(moving, arrays):
                    values[index] = array
                transform = jax.tree_util.tree_unflatten(structure, values)
                y, log_det = self.conventions((transform, version[1])).forward(x, context)
                return jnp.sum(y) + jnp.sum(log_det)

            found = jax.grad(total)([leaves[index][1] for index in moving])
        for index, gradient in zip(moving, found):
            yield names[index], np.asarray(gradient)


def _is_tree(value):
    """Whether JAX knows the parts of an object."""
    return not jax.tree_util.all_leaves([value])


def _in_chunks(function):
    """A function of rows that is called with CHUNK of them, the last one several times: it is compiled for one shape."""

    def call(x, context):
        n = len(x)
        chunks = np.minimum(np.arange(-(-n // CHUNK) * CHUNK), n - 1).reshape(-1, CHUNK)
        results = [function(x[rows], None if context is None else context[rows]) for rows in chunks]
        if not isinstance(results[0], (tuple, list)):
            return results[0]
        return tuple(_together(parts, n) for parts in zip(*results))

    return call


def _together(parts, n):
    if jnp.shape(parts[0])[:1] != (CHUNK,):
        return parts[0]
    traced = any(isinstance(part, jax.core.Tracer) for part in parts)
    return (jnp if traced else np).concatenate(parts)[:n]


def _compiled(transform, direction):
    """A direction of a transform as a function of rows; copies of one structure share what is compiled."""
    leaves, structure = jax.tree_util.tree_flatten(transform)
    arrays = [leaf for leaf in leaves if isinstance(leaf, (jax.Array, np.ndarray))]
    rest = tuple(None if isinstance(leaf, (jax.Array, np.ndarray)) else leaf for leaf in leaves)

    def call(x, context):
        try:
            return _of_arrays(structure, rest, direction, arrays, x, context)
        except (jax.errors.ConcretizationTypeError, TypeError, ValueError):  # looks at values, or has no hash
            context = None if context is None else jnp.array(context)
            return getattr(_convention(transform), direction)(jnp.array(x), context)

    return _in_chunks(call)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _of_arrays(structure, rest, direction, arrays, x, context):
    arrays = iter(arrays)
    transform = structure.unflatten([next(arrays) if leaf is None else leaf for leaf in rest])
    return getattr(_convention(transform), direction)(x, context)


def _convention(transform):
    found = convention_of(transform, jnp.array)
    if hasattr(transform, "transform_and_log_det"):  # maps of one row
        mapped = lambda function: (
            lambda x, context: jax.vmap(function)(x, *([] if context is None else [context]))
        )
        return found._replace(
            forward=mapped(transform.transform_and_log_det), inverse=mapped(transform.inverse_and_log_det)
        )
    return found
