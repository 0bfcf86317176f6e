"""Bijectors of the JAX libraries that verify_peers.py checks: how each is built, and called for the truth."""

import importlib.util
import os

# One thread each: many small calls wait for others longer than they compute.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

jax.config.update("jax_disable_most_optimizations", True)  # most of the time goes into compiling
D, DTYPE = 4, "float32"
NAMES = {"flowjax": "flowjax", "distrax": "distrax", "numpyro": "numpyro", "tfp": "tensorflow_probability"}
INSTALLED = {name: importlib.util.find_spec(module) is not None for name, module in NAMES.items()}


def cases():
    """Yield the library, a name, a function that builds the bijector, the kind of its rows, and the width of a context."""
    for name, of in (("flowjax", flowjax), ("distrax", distrax), ("numpyro", numpyro), ("tfp", tfp)):
        if INSTALLED[name]:
            for made, (make, kind, *width) in of().items():
                yield name, made, make, kind, width[0] if width else 0


def flowjax():
    import flowjax.bijections as fb
    import flowjax.flows as ff
    from flowjax.distributions import Normal

    key, base = jr.key(0), lambda: Normal(jnp.zeros(D))
    spline = lambda: fb.RationalQuadraticSpline(knots=6, interval=3)
    layers = {"flow_layers": 1, "nn_width": 12}
    return {
        "Affine": (lambda: fb.Affine(jnp.arange(4.0), jnp.array([0.5, 1, 2, 3])), "real"),
        "Loc": (lambda: fb.Loc(jnp.arange(4.0)), "real"),
        "Scale": (lambda: fb.Scale(jnp.array([0.5, 1, 2, 3])), "real"),
        "TriangularAffine": (
            lambda: fb.TriangularAffine(jnp.ones(D), jnp.eye(D) + jnp.tril(jnp.ones((D, D)))),
            "real",
        ),
        "TriangularAffine upper": (
            lambda: fb.TriangularAffine(jnp.ones(D), jnp.eye(D) + jnp.triu(jnp.ones((D, D))), lower=False),
            "real",
        ),
        "AdditiveCondition": (
            lambda: fb.AdditiveCondition(lambda c: jnp.sin(c[:1]) * jnp.ones(D), (D,), (3,)),
            "real",
            3,
        ),
        "Exp": (lambda: fb.Exp((D,)), "real"),
        "Exp of scalars": (lambda: fb.Exp(), "scalar"),
        "Power": (lambda: fb.Power(2.0, (D,)), "positive"),
        "Sigmoid": (lambda: fb.Sigmoid((D,)), "real"),
        "SoftPlus": (lambda: fb.SoftPlus((D,)), "real"),
        "Tanh": (lambda: fb.Tanh((D,)), "real"),
        "LeakyTanh": (lambda: fb.LeakyTanh(2.0, (D,)), "real"),
        "Identity": (lambda: fb.Identity((D,)), "real"),
        "Permute": (lambda: fb.Permute(jnp.array([2, 0, 3, 1])), "real"),
        "Flip": (lambda: fb.Flip((D,)), "real"),
        "Householder": (lambda: fb.Householder(jnp.arange(1.0, 5.0)), "real"),
        "DiscreteCosine": (lambda: fb.DiscreteCosine((D,)), "real"),
        "RationalQuadraticSpline": (lambda: fb.Vmap(spline(), axis_size=D), "real"),
        "Planar": (lambda: fb.Planar(key, dim=D), "real"),
        "Planar leaky": (lambda: fb.Planar(key, dim=D, negative_slope=0.1), "real"),
        "Planar with condition": (
            lambda: fb.Planar(key, dim=D, cond_dim=3, width_size=8, depth=1),
            "real",
            3,
        ),
        "Coupling": (
            lambda: fb.Coupling(
                key, transformer=fb.Affine(), untransformed_dim=2, dim=D, nn_width=12, nn_depth=1
            ),
            "real",
        ),
        "Coupling of splines": (
            lambda: fb.Coupling(
                key, transformer=spline(), untransformed_dim=2, dim=D, nn_width=12, nn_depth=1
            ),
            "real",
        ),
        "MaskedAutoregressive": (
            lambda: fb.MaskedAutoregressive(key, transformer=fb.Affine(), dim=D, nn_width=12, nn_depth=1),
            "real",
        ),
        "MaskedAutoregressive with condition": (
            lambda: fb.MaskedAutoregressive(
                key, transformer=fb.Affine(), dim=D, cond_dim=3, nn_width=12, nn_depth=1
            ),
            "real",
            3,
        ),
        "MaskedAutoregressive of splines": (
            lambda: fb.MaskedAutoregressive(key, transformer=spline(), dim=D, nn_width=12, nn_depth=1),
            "real",
        ),
        "BlockAutoregressiveNetwork": (
            lambda: fb.BlockAutoregressiveNetwork(key, dim=D, depth=1, block_dim=4),
            "real",
        ),
        "Chain": (lambda: fb.Chain([fb.Affine(jnp.ones(D)), fb.Tanh((D,))]), "real"),
        "Concatenate": (lambda: fb.Concatenate([fb.Exp((2,)), fb.Tanh((2,))]), "real"),
        "Stack": (lambda: fb.Stack([fb.Exp(), fb.Tanh(), fb.SoftPlus(), fb.Affine(1.0, 2.0)]), "real"),
        "Invert": (lambda: fb.Invert(fb.Affine(jnp.ones(D), 2 * jnp.ones(D))), "real"),
        "Invert Tanh": (lambda: fb.Invert(fb.Tanh((D,))), "signed unit"),
        "Indexed": (lambda: fb.Indexed(fb.Exp((2,)), slice(1, 3), (D,)), "real"),
        "Reshape": (lambda: fb.Reshape(fb.Affine(jnp.ones((2, 2)), 2 * jnp.ones((2, 2))), (D,)), "real"),
        "Sandwich": (
            lambda: fb.Sandwich(fb.Affine(jnp.ones(D), 2 * jnp.ones(D)), fb.LeakyTanh(2.0, (D,))),
            "real",
        ),
        "coupling flow": (lambda: ff.coupling_flow(key, base_dist=base(), **layers).bijection, "real"),
        "masked autoregressive flow": (
            lambda: ff.masked_autoregressive_flow(key, base_dist=base(), **layers).bijection,
            "real",
        ),
        "planar flow": (
            lambda: ff.planar_flow(key, base_dist=base(), flow_layers=2, invert=False).bijection,
            "real",
        ),
        "planar flow leaky": (
            lambda: ff.planar_flow(key, base_dist=base(), flow_layers=2, negative_slope=0.1).bijection,
            "real",
        ),
        "triangular spline flow": (
            lambda: ff.triangular_spline_flow(key, base_dist=base(), flow_layers=1).bijection,
            "real",
        ),
        "block neural autoregressive flow": (
            lambda: (
                ff.block_neural_autoregressive_flow(
                    key, base_dist=base(), nn_block_dim=4, invert=False
                ).bijection
            ),
            "real",
        ),
    }


def distrax():
    import distrax as dx

    matrix = jnp.eye(D) + 0.3 * jnp.sin(jnp.arange(16.0)).reshape(D, D)
    mask = jnp.array([True, False, True, False])
    shift = lambda params: dx.Block(dx.ScalarAffine(params[..., 0], log_scale=params[..., 1]), 1)
    conditioner = lambda x: jnp.stack([jnp.sin(x + x[..., :1]), 0.3 * jnp.cos(x + x[..., 2:3])], axis=-1)
    inner = lambda params: dx.ScalarAffine(params[..., 0], log_scale=params[..., 1])
    half = lambda x: jnp.stack([jnp.sin(x), 0.3 * jnp.cos(x)], axis=-1)
    spline = jnp.sin(jnp.arange(4.0 * 13)).reshape(D, 13)
    return {
        "ScalarAffine": (lambda: dx.ScalarAffine(1.0, 2.0), "real"),
        "ScalarAffine log scale": (lambda: dx.ScalarAffine(1.0, log_scale=0.7), "real"),
        "ScalarAffine vector": (
            lambda: dx.ScalarAffine(jnp.arange(4.0), jnp.array([0.5, -1, 2, -3])),
            "real",
        ),
        "Shift": (lambda: dx.Shift(jnp.arange(4.0)), "real"),
        "Block": (lambda: dx.Block(dx.ScalarAffine(1.0, 2.0), 1), "real"),
        "DiagLinear": (lambda: dx.DiagLinear(jnp.array([0.5, -1, 2, -3])), "real"),
        "DiagPlusLowRankLinear": (
            lambda: dx.DiagPlusLowRankLinear(jnp.array([1.0, 2, 3, 4]), matrix[:, :2], matrix[:, 2:]),
            "real",
        ),
        "TriangularLinear": (lambda: dx.TriangularLinear(matrix), "real"),
        "TriangularLinear upper": (lambda: dx.TriangularLinear(matrix, is_lower=False), "real"),
        "UnconstrainedAffine": (lambda: dx.UnconstrainedAffine(matrix, jnp.ones(D)), "real"),
        "LowerUpperTriangularAffine": (lambda: dx.LowerUpperTriangularAffine(matrix, jnp.ones(D)), "real"),
        "Sigmoid": (lambda: dx.Sigmoid(), "real"),
        "Tanh": (lambda: dx.Tanh(), "real"),
        "GumbelCDF": (lambda: dx.GumbelCDF(), "real"),
        "Lambda": (lambda: dx.Lambda(jnp.exp, jnp.log), "real"),
        "Inverse": (lambda: dx.Inverse(dx.ScalarAffine(1.0, 2.0)), "real"),
        "Inverse Sigmoid": (lambda: dx.Inverse(dx.Sigmoid()), "unit"),
        "Chain": (lambda: dx.Chain([dx.Block(dx.Tanh(), 1), dx.TriangularLinear(matrix)]), "real"),
        "RationalQuadraticSpline": (lambda: dx.RationalQuadraticSpline(spline, -2.0, 2.0), "real"),
        "RationalQuadraticSpline identity": (
            lambda: dx.RationalQuadraticSpline(spline, -2.0, 2.0, boundary_slopes="identity"),
            "real",
        ),
        "RationalQuadraticSpline circular": (
            lambda: dx.RationalQuadraticSpline(spline, -2.0, 2.0, boundary_slopes="circular"),
            "signed unit",
        ),
        "MaskedCoupling": (lambda: dx.MaskedCoupling(mask, conditioner, inner), "real"),
        "SplitCoupling": (lambda: dx.SplitCoupling(2, 1, half, shift), "real"),
        "SplitCoupling swapped": (lambda: dx.SplitCoupling(2, 1, half, shift, swap=True), "real"),
    }


def numpyro():
    import numpyro.distributions as nd
    import numpyro.distributions.transforms as nt

    tril = jnp.eye(D) + 0.3 * jnp.tril(jnp.ones((D, D)), -1)
    return {
        "Affine": (lambda: nt.AffineTransform(1.0, 2.0), "real"),
        "Affine vector": (lambda: nt.AffineTransform(jnp.arange(4.0), jnp.array([0.5, -1, 2, -3])), "real"),
        "Exp": (lambda: nt.ExpTransform(), "real"),
        "Identity": (lambda: nt.IdentityTransform(), "real"),
        "Power 2": (lambda: nt.PowerTransform(2.0), "positive"),
        "Power -1": (lambda: nt.PowerTransform(-1.0), "positive"),
        "Sigmoid": (lambda: nt.SigmoidTransform(), "real"),
        "Softplus": (lambda: nt.SoftplusTransform(), "real"),
        "Ordered": (lambda: nt.OrderedTransform(), "real"),
        "LowerCholeskyAffine": (lambda: nt.LowerCholeskyAffine(jnp.ones(D), tril), "real"),
        "Permute": (lambda: nt.PermuteTransform(jnp.array([2, 0, 3, 1])), "real"),
        "Reshape": (lambda: nt.ReshapeTransform((2, 2), (D,)), "real"),
        "Independent": (lambda: nt.IndependentTransform(nt.ExpTransform(), 1), "real"),
        "Compose": (
            lambda: nt.ComposeTransform([nt.AffineTransform(0.5, -2.0), nt.SigmoidTransform()]),
            "real",
        ),
        "StickBreaking": (lambda: nt.StickBreakingTransform(), "real"),
        "CorrCholesky": (lambda: nt.CorrCholeskyTransform(), "three"),
        "CorrCholesky of 4": (lambda: nt.CorrCholeskyTransform(), "six"),
        "LowerCholesky": (lambda: nt.LowerCholeskyTransform(), "six"),
        "ScaledUnitLowerCholesky": (lambda: nt.ScaledUnitLowerCholeskyTransform(), "six"),
        "SoftplusLowerCholesky": (lambda: nt.SoftplusLowerCholeskyTransform(), "six"),
        "SimplexToOrdered": (lambda: nt.SimplexToOrderedTransform(0.5), "simplex"),
        "ZeroSum": (lambda: nt.ZeroSumTransform(1), "three"),
        "RecursiveLinear": (lambda: nt.RecursiveLinearTransform(0.5 * jnp.eye(3) + 0.1), "matrix"),
        "Haar": (lambda: nt.HaarTransform(), "real"),
        "DiscreteCosine": (lambda: nt.DiscreteCosineTransform(), "real"),
        "DiscreteCosine smooth": (lambda: nt.DiscreteCosineTransform(smooth=1.0), "real"),
        "L1Ball": (lambda: nt.L1BallTransform(), "real"),
        "Log": (lambda: nt.ExpTransform().inv, "positive"),
        "Logit": (lambda: nt.SigmoidTransform().inv, "unit"),
        "Softplus inverted": (lambda: nt.SoftplusTransform().inv, "positive"),
        "biject_to interval": (lambda: nd.biject_to(nd.constraints.interval(-1.0, 3.0)), "real"),
        "biject_to positive ordered": (lambda: nd.biject_to(nd.constraints.positive_ordered_vector), "real"),
        "biject_to less than": (lambda: nd.biject_to(nd.constraints.less_than(1.0)), "real"),
    }


def tfp():
    import tensorflow_probability.substrates.jax as tfp

    tb = tfp.bijectors
    # Arrays are made with each bijector, in the precision that is then on.
    tril = lambda: jnp.eye(D) + 0.3 * jnp.tril(jnp.ones((D, D)), -1)
    widths = lambda: jax.nn.softmax(jnp.sin(jnp.arange(4.0 * 5).reshape(D, 5))) * 4
    heights = lambda: jax.nn.softmax(jnp.cos(jnp.arange(4.0 * 5).reshape(D, 5))) * 4
    slopes = lambda: jax.nn.softplus(jnp.sin(jnp.arange(4.0 * 4).reshape(D, 4)))
    affine = lambda x, width: (
        jnp.sin(x[..., :1]) * jnp.ones(width),
        0.3 * jnp.cos(x[..., :1]) * jnp.ones(width),
    )
    return {
        "Ascending": (lambda: tb.Ascending(), "real"),
        "CholeskyOuterProduct": (
            lambda: tb.Chain([tb.CholeskyOuterProduct(), tb.FillScaleTriL(tb.Exp(), None)]),
            "six",
        ),
        "CholeskyToInvCholesky": (
            lambda: tb.Chain([tb.CholeskyToInvCholesky(), tb.FillScaleTriL(tb.Exp(), None)]),
            "six",
        ),
        "CorrelationCholesky": (lambda: tb.CorrelationCholesky(), "three"),
        "Cumsum": (lambda: tb.Cumsum(), "real"),
        "Exp": (lambda: tb.Exp(), "real"),
        "Log": (lambda: tb.Log(), "positive"),
        "Expm1": (lambda: tb.Expm1(), "real"),
        "Log1p": (lambda: tb.Log1p(), "positive"),
        "FillScaleTriL": (lambda: tb.FillScaleTriL(tb.Exp(), None), "six"),
        "FillTriangular": (lambda: tb.FillTriangular(), "six"),
        "FrechetCDF": (lambda: tb.FrechetCDF(), "positive"),
        "GeneralizedPareto": (lambda: tb.GeneralizedPareto(0.0, 1.0, 0.3), "real"),
        "GeneralizedExtremeValueCDF": (lambda: tb.GeneralizedExtremeValueCDF(0.0, 1.0, 0.3), "signed unit"),
        "GompertzCDF": (lambda: tb.GompertzCDF(0.5, 1.0), "unit"),
        "GumbelCDF": (lambda: tb.GumbelCDF(), "real"),
        "Householder": (lambda: tb.Householder(jnp.ones(D) / 2), "real"),
        "Identity": (lambda: tb.Identity(), "real"),
        "Inline": (
            lambda: tb.Inline(
                jnp.exp, jnp.log, forward_log_det_jacobian_fn=lambda x: x, forward_min_event_ndims=0
            ),
            "real",
        ),
        "Invert": (lambda: tb.Invert(tb.Exp()), "positive"),
        "IteratedSigmoidCentered": (lambda: tb.IteratedSigmoidCentered(), "real"),
        "KumaraswamyCDF": (lambda: tb.KumaraswamyCDF(2.0, 3.0), "unit"),
        "LambertWTail": (lambda: tb.LambertWTail(0.0, 1.0, 0.3), "real"),
        "MaskedAutoregressiveFlow": (
            lambda: tb.MaskedAutoregressiveFlow(
                lambda x: (
                    (jnp.concatenate([jnp.zeros_like(x[..., :1]), jnp.cumsum(jnp.sin(x), -1)[..., :-1]], -1),)
                    * 2
                )
            ),
            "real",
        ),
        "ScaleMatvecLinearOperator": (
            lambda: tb.ScaleMatvecLinearOperator(tfp.tf2jax.linalg.LinearOperatorLowerTriangular(tril())),
            "real",
        ),
        "MoyalCDF": (lambda: tb.MoyalCDF(), "real"),
        "NormalCDF": (lambda: tb.NormalCDF(), "real"),
        "Permute": (lambda: tb.Permute(jnp.array([2, 0, 3, 1])), "real"),
        "Power": (lambda: tb.Power(3.0), "positive"),
        "PowerTransform": (lambda: tb.PowerTransform(0.3), "positive"),
        "RationalQuadraticSpline": (
            lambda: tb.RationalQuadraticSpline(widths(), heights(), slopes(), -2.0),
            "signed unit",
        ),
        "RayleighCDF": (lambda: tb.RayleighCDF(), "positive"),
        "RealNVP": (lambda: tb.RealNVP(2, shift_and_log_scale_fn=affine), "real"),
        "Reciprocal": (lambda: tb.Reciprocal(), "positive"),
        "Reshape": (lambda: tb.Reshape([2, 2], [4]), "real"),
        "Scale": (lambda: tb.Scale(2.0), "real"),
        "Scale log": (lambda: tb.Scale(log_scale=0.7), "real"),
        "ScaleMatvecDiag": (lambda: tb.ScaleMatvecDiag(jnp.array([0.5, 1, -2, 3])), "real"),
        "ScaleMatvecTriL": (lambda: tb.ScaleMatvecTriL(tril()), "real"),
        "ScaleMatvecTriL adjoint": (lambda: tb.ScaleMatvecTriL(tril(), adjoint=True), "real"),
        "ScaleMatvecLU": (lambda: tb.ScaleMatvecLU(tril() + tril().T, jnp.array([2, 0, 3, 1])), "real"),
        "Shift": (lambda: tb.Shift(1.0), "real"),
        "ShiftedGompertzCDF": (lambda: tb.ShiftedGompertzCDF(0.5, 1.0), "positive"),
        "Sigmoid": (lambda: tb.Sigmoid(), "real"),
        "Sigmoid bounded": (lambda: tb.Sigmoid(-1.0, 3.0), "real"),
        "Sinh": (lambda: tb.Sinh(), "real"),
        "SinhArcsinh": (lambda: tb.SinhArcsinh(0.3, 1.2), "real"),
        "SoftClip": (lambda: tb.SoftClip(-1.0, 1.0), "real"),
        "Softfloor": (lambda: tb.Softfloor(0.5), "real"),
        "SoftmaxCentered": (lambda: tb.SoftmaxCentered(), "real"),
        "Softplus": (lambda: tb.Softplus(), "real"),
        "Softplus hinge": (lambda: tb.Softplus(0.5, low=1.0), "real"),
        "Softsign": (lambda: tb.Softsign(), "real"),
        "Square": (lambda: tb.Square(), "positive"),
        "Tanh": (lambda: tb.Tanh(), "real"),
        "TransformDiagonal": (lambda: tb.TransformDiagonal(tb.Exp()), "matrix"),
        "Transpose": (lambda: tb.Transpose(perm=[1, 0]), "matrix"),
        "UnitVector": (lambda: tb.UnitVector(), "real"),
        "WeibullCDF": (lambda: tb.WeibullCDF(1.0, 1.5), "positive"),
        "Chain": (lambda: tb.Chain([tb.Tanh(), tb.ScaleMatvecTriL(tril())]), "real"),
        "Blockwise": (lambda: tb.Blockwise([tb.Exp(), tb.Tanh()], [2, 2]), "real"),
        "Chain Ascending": (lambda: tb.Chain([tb.Exp(), tb.Ascending()]), "real"),
    }


# ---------------------------------------------------------------- the truth


def evaluated(library, bijector, x, context, direction):
    """The array and the log-det of a direction, as each library's documentation says to call it."""
    given = () if context is None else (context,)
    if library == "flowjax":
        name = {"forward": "transform_and_log_det", "inverse": "inverse_and_log_det"}[direction]
        return jax.vmap(getattr(bijector, name))(x, *given)
    if library == "distrax":
        return getattr(bijector, f"{direction}_and_log_det")(x)
    if library == "numpyro":
        if direction == "forward":
            y = bijector(x)
            return y, bijector.log_abs_det_jacobian(x, y)
        y = bijector.inv(x)
        return y, -bijector.log_abs_det_jacobian(y, x)
    y = getattr(bijector, direction)(x)
    least = getattr(bijector, f"{direction}_min_event_ndims")
    return y, getattr(bijector, f"{direction}_log_det_jacobian")(jnp.array(x), max(x.ndim - 1, least))


class Truth:
    """A bijector in float64 or float32, called with arrays of NumPy."""

    swapped, fits = False, True

    def __init__(self, library, make, move, rng, dtype):
        self.library, self.dtype = library, dtype
        with self.precision():
            cast = lambda leaf: jnp.array(leaf, dtype) if _is_float(leaf) else leaf
            noise = lambda leaf: (
                leaf + 0.3 * jnp.array(rng.standard_normal(leaf.shape), dtype) if _is_float(leaf) else leaf
            )
            self.bijector = jax.tree_util.tree_map(cast, make())
            if move and library == "flowjax":
                fixed = lambda node: type(node).__name__ == "NonTrainable"
                self.bijector = jax.tree_util.tree_map(noise, self.bijector, is_leaf=fixed)
        self.compiled = {}

    def precision(self):
        return jax.enable_x64(self.dtype == "float64")

    def function(self, direction):
        if self.swapped:
            direction = {"forward": "inverse", "inverse": "forward"}[direction]
        if direction not in self.compiled:
            plain = lambda x, context: evaluated(self.library, self.bijector, x, context, direction)
            self.compiled[direction] = compiled(plain)
        return self.compiled[direction]

    def call(self, direction, x, context):
        with self.precision():
            y, log_det = self.function(direction)(
                jnp.array(x), None if context is None else jnp.array(context)
            )
            n, log_det = len(x), np.asarray(log_det)
            kind = str(log_det.dtype)
            if log_det.shape == x.shape[1:] and log_det.shape != (n,):
                log_det = np.broadcast_to(log_det, x.shape)
            log_det = np.full(n, log_det.reshape(())) if log_det.size == 1 else log_det.reshape(n, -1).sum(1)
            return np.asarray(y), log_det, kind

    def jacobian(self, x, context):
        """JAX's own Jacobian, one row at a time."""
        with self.precision():
            function = self.function("forward")
            given = (None,) * len(x) if context is None else [jnp.array(row[None]) for row in context]
            forward = compiled(jax.jacfwd(lambda row, context: function(row[None], context)[0][0]))
            found = [forward(jnp.array(row), one) for row, one in zip(x, given)]
        return np.stack([np.asarray(one).reshape(-1, row.size) for one, row in zip(found, x)])


def compiled(function):
    """A function that is compiled, or called as it is where it looks at values."""
    fast = jax.jit(function)

    def call(*arguments):
        try:
            return fast(*arguments)
        except TypeError:
            return function(*arguments)

    return call


def _is_float(leaf):
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)


def moves(library):
    """Whether transforms of a library have parameters that are trained."""
    return library == "flowjax"


def check(bijector, x, context, dtype, name):
    from npflow.verify.jax import check_jax

    return check_jax(
        bijector, x.astype(dtype), context=None if context is None else context.astype(dtype), name=name
    )


def seed(number):
    """Nothing here draws from a global state."""
