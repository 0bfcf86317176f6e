"""An answer to each exercise: what stands in the place of each ``...`` of its page, in order."""

PER_ROW = "* np.ones_like({}[:, 0])"
HALF = "{0}[:, : {0}.shape[1] // 2], {0}[:, {0}.shape[1] // 2 :]"

SOLUTIONS = {
    "volume": ("np.log(np.abs(np.linalg.det(A)))",),
    "density": (
        "np.log(x)",
        "np.sum(-(z**2) / 2 - np.log(2 * np.pi) / 2, axis=1)",
        "-np.sum(np.log(x), axis=1)",
    ),
    "importance": (
        "log_density - log_prior + log_det",
        "largest + np.log(np.mean(w))",
        "np.sum(w) ** 2 / (len(w) * np.sum(w**2))",
    ),
    "bound": (
        "log_normal(epsilon) - np.sum(log_std, axis=1)[:, None] - log_det",
        "log_likelihood + log_normal(z) - log_q",
        "largest[:, 0] + np.log(np.mean(w, axis=1))",
    ),
    "translation": ("np.linalg.solve(L_A, (x - mean_A).T).T", "z @ L_B.T + mean_B"),
    "trace": (
        "np.sum(v * product(t, x, v), axis=1)",
        "log_det + h * trace",
        "x + h * velocity(t, x)",
    ),
    "chain": (
        """x
        log_det = 0
        for layer, own in zip(self.layers, params):
            z, one = layer.forward(own, z)
            log_det = log_det + one""",
        "log_det",
        """z
        log_det = 0
        for layer, own in reversed(list(zip(self.layers, params))):
            x, one = layer.inverse(own, x)
            log_det = log_det + one""",
        "log_det",
    ),
    "triangle": (
        "x @ L.T",
        'np.sum(params["log_diagonal"]) * np.ones_like(x[:, 0])',
        "np.linalg.solve(L, z.T).T",
        '-np.sum(params["log_diagonal"]) * np.ones_like(z[:, 0])',
    ),
    "affine": (
        '(x - params["mean"]) * np.exp(-params["log_std"])',
        '-np.sum(params["log_std"]) * np.ones_like(x[:, 0])',
        'z * np.exp(params["log_std"]) + params["mean"]',
        'np.sum(params["log_std"]) * np.ones_like(z[:, 0])',
    ),
    "act_norm": (
        "-np.log(np.std(x, axis=(0, 1, 2)))",
        "-np.mean(x, axis=(0, 1, 2)) / np.std(x, axis=(0, 1, 2))",
        'x * np.exp(params["log_scale"]) + params["bias"]',
        'x.shape[1] * x.shape[2] * np.sum(params["log_scale"]) * np.ones_like(x[:, 0, 0, 0])',
        '(z - params["bias"]) * np.exp(-params["log_scale"])',
        '-z.shape[1] * z.shape[2] * np.sum(params["log_scale"]) * np.ones_like(z[:, 0, 0, 0])',
    ),
    "additive_coupling": (
        """np.split(x, 2, axis=1)
        z = np.concatenate([z[0], z[1] + self.network.apply(params, z[0])], axis=1)""",
        "np.zeros_like(x[:, 0])",
        """np.split(z, 2, axis=1)
        x = np.concatenate([x[0], x[1] - self.network.apply(params, x[0])], axis=1)""",
        "np.zeros_like(z[:, 0])",
    ),
    "coupling": (
        """x
        a, b = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        outputs = self.network.apply(params, a)
        raw, shift = outputs[:, : a.shape[1]], outputs[:, a.shape[1] :]
        log_scale = 2 * np.tanh(raw / 2)
        z = np.concatenate([a, b * np.exp(log_scale) + shift], axis=1)""",
        "np.sum(log_scale, axis=1)",
        """z
        a, b = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        outputs = self.network.apply(params, a)
        raw, shift = outputs[:, : a.shape[1]], outputs[:, a.shape[1] :]
        log_scale = 2 * np.tanh(raw / 2)
        x = np.concatenate([a, (b - shift) * np.exp(-log_scale)], axis=1)""",
        "-np.sum(log_scale, axis=1)",
    ),
    "conv1x1": (
        'x @ (L @ U)[params["permutation"]]',
        'x.shape[1] * x.shape[2] * np.sum(params["log_scale"]) * np.ones_like(x[:, 0, 0, 0])',
        'z @ np.linalg.inv((L @ U)[params["permutation"]])',
        '-z.shape[1] * z.shape[2] * np.sum(params["log_scale"]) * np.ones_like(z[:, 0, 0, 0])',
    ),
    "squeeze": (
        """np.reshape(x, (n, H // 2, 2, W // 2, 2, C))
        z = np.transpose(z, (0, 1, 3, 5, 2, 4))
        z = np.reshape(z, (n, H // 2, W // 2, 4 * C))""",
        "np.zeros_like(x[:, 0, 0, 0])",
        """np.reshape(z, (n, h, w, channels // 4, 2, 2))
        x = np.transpose(x, (0, 1, 4, 2, 5, 3))
        x = np.reshape(x, (n, 2 * h, 2 * w, channels // 4))""",
        "np.zeros_like(z[:, 0, 0, 0])",
    ),
    "split": (
        """x
        changed, log_det = self.layer.forward(params, x[..., half:])
        z = np.concatenate([x[..., :half], changed], axis=-1)""",
        "log_det",
        """z
        changed, log_det = self.layer.inverse(params, z[..., half:])
        x = np.concatenate([z[..., :half], changed], axis=-1)""",
        "log_det",
    ),
    "autoregressive": (
        """x
        log_scale, shift = self.numbers(params, x)
        z = x * np.exp(log_scale) + shift""",
        "np.sum(log_scale, axis=1)",
        """z
        for _ in range(z.shape[1]):
            log_scale, shift = self.numbers(params, x)
            x = (z - shift) * np.exp(-log_scale)""",
        "-np.sum(self.numbers(params, x)[0], axis=1)",
    ),
    "causal_mask": (
        """np.ones((places, channels, channels))
    i, j = np.arange(channels)[:, None], np.arange(channels)
    mask[-1] = i < j if kind == "A" else i <= j""",
    ),
    "planar": (
        "np.dot(x, w) + b",
        "x + u * np.tanh(a)[:, None]",
        "np.log(1 + (product - 1) * (1 - np.tanh(a) ** 2))",
        "root(np.dot(z, w) + b, product)",
        "z - u * np.tanh(a)[:, None]",
        "-np.log(1 + (product - 1) * (1 - np.tanh(a) ** 2))",
    ),
    "gaussianize": (
        """x
        logit, log_slope = logistic_mixture(x, **params)
        z = normal_of_logit(logit)""",
        "np.sum(log_slope + log_normal_slope(z, logit), axis=1)",
        """z
        logit = logit_of_normal(z)
        x = mixture_quantile(logit, **params)
        _, log_slope = logistic_mixture(x, **params)""",
        "-np.sum(log_slope + log_normal_slope(z, logit), axis=1)",
    ),
    "spline": (
        """x
        w, h = x1 - x0, y1 - y0
        s, t = h / w, (inside - x0) / w
        u = 1 - t
        D = s + (d0 + d1 - 2 * s) * t * u
        z = np.where(outside, x, y0 + h * (s * t**2 + d0 * t * u) / D)""",
        "np.where(outside, 0, np.log(s**2 * (d1 * t**2 + 2 * s * t * u + d0 * u**2) / D**2))",
        """z
        w, h, y = x1 - x0, y1 - y0, inside - y0
        s = h / w
        A = h * (s - d0) + y * (d0 + d1 - 2 * s)
        B = h * d0 - y * (d0 + d1 - 2 * s)
        C = -s * y
        t = 2 * C / (-B - np.sqrt(B**2 - 4 * A * C))
        u = 1 - t
        D = s + (d0 + d1 - 2 * s) * t * u
        x = np.where(outside, z, x0 + t * w)""",
        "np.where(outside, 0, -np.log(s**2 * (d1 * t**2 + 2 * s * t * u + d0 * u**2) / D**2))",
    ),
    "conditional": (
        """self.network.init(
            rng,
            np.concatenate([x[:, : x.shape[1] // 2], context], axis=1),
            outputs=x.shape[1] // 2,
        )""",
        """x
        a, b = np.split(x, 2, axis=1)
        shift = self.network.apply(params, np.concatenate([a, context], axis=1))
        z = np.concatenate([a, b + shift], axis=1)""",
        "np.zeros_like(x[:, 0])",
        """z
        a, b = np.split(z, 2, axis=1)
        shift = self.network.apply(params, np.concatenate([a, context], axis=1))
        x = np.concatenate([a, b - shift], axis=1)""",
        "np.zeros_like(z[:, 0])",
    ),
    "pair": (
        "l / 2 + np.arcsinh(np.sinh(l / 2) * np.cosh(v / 2))",
        "w + v / 2",
        "w - v / 2",
        "np.log(slope(a) + slope(b)) - np.log(2 * slope(l))",
    ),
    "dequantization": (
        "(x + u) / levels",
        "log_prob(y) - x.shape[1] * np.log(levels)",
        "-log_P / (x.shape[1] * np.log(2))",
    ),
}

# Right answers that are written in another way.
OTHERS = {
    "triangle": (
        "np.dot(x, L.T)",
        "np.log(np.prod(np.diag(L))) * np.ones_like(x[:, 0])",
        "np.dot(z, np.linalg.inv(L).T)",
        "-np.log(np.prod(np.diag(L))) * np.ones_like(z[:, 0])",
    ),
    "squeeze": (
        "np.concatenate([x[:, a::2, b::2, c:c + 1] for c in range(C) for a in (0, 1) for b in (0, 1)], axis=3)",
        *SOLUTIONS["squeeze"][1:],
    ),
    "autoregressive": (
        *SOLUTIONS["autoregressive"][:2],
        """z
        found = []
        for i in range(z.shape[1]):
            known = np.concatenate([*found, np.zeros_like(z[:, i:])], axis=1)
            log_scale, shift = self.numbers(params, known)
            found.append((z[:, i : i + 1] - shift[:, i : i + 1]) * np.exp(-log_scale[:, i : i + 1]))
        x = np.concatenate(found, axis=1)""",
        "-np.sum(self.numbers(params, x)[0], axis=1)",
    ),
}

# Typical wrong answers: the exercise, what to replace in the right one, by what, and words of the hint.
DET, LOG_STD = "np.log(np.abs(np.linalg.det(A)))", '-np.sum(params["log_std"]) * np.ones_like(x[:, 0])'
LOG_SCALES, DIAGONAL = "= np.sum(log_scale, axis=1)", '= np.sum(params["log_diagonal"])'
H_W = "x.shape[1] * x.shape[2] * "
OF_THE_SECOND_HALF = """x
        a, b = np.split(x, 2, axis=1)
        raw, shift = np.split(self.network.apply(params, b), 2, axis=1)
        log_scale = 2 * np.tanh(raw / 2)
        z = np.concatenate([a * np.exp(log_scale) + shift, b], axis=1)"""
BITS = "-log_P / (x.shape[1] * np.log(2))"
WRONG = [
    ("volume", DET, "np.log(np.linalg.det(A))", "take np.abs before the logarithm"),
    ("volume", DET, "np.abs(np.linalg.det(A))", "Return its logarithm"),
    ("volume", DET, f"np.sum({DET})", "one number for each matrix"),
    ("volume", DET, "np.log2(np.abs(np.linalg.det(A)))", "in bits"),
    ("volume", DET, "np.log10(np.abs(np.linalg.det(A)))", "to the base of 10"),
    ("density", "-np.sum(np.log(x), axis=1)", "np.sum(np.log(x), axis=1)", "the log-det of z -> x"),
    ("density", "-np.sum(np.log(x), axis=1)", "0", "The log-det is missing"),
    ("density", "-np.sum(np.log(x), axis=1)", "-np.sum(np.log(x))", "not over all rows"),
    ("density", "-np.sum(np.log(x), axis=1)", "np.sum(1 / x, axis=1)", "the sum of their logarithms"),
    ("density", " - np.log(2 * np.pi) / 2", "", "-log(2 pi) / 2"),
    ("density", "-np.sum(np.log(x), axis=1)", "-np.log(x)", "Look at the shapes"),
    ("importance", "log_prior + log_det", "log_prior - log_det", "Subtract it from log prior(z)"),
    ("importance", "log_prior + log_det", "log_prior", "the density of z, not of x"),
    ("importance", "log_density - log_prior + log_det", "log_prior - log_det - log_density", "p~ over q"),
    ("importance", "largest + np.log(np.mean(w))", "np.log(np.mean(w))", "Add the largest log w"),
    ("importance", "np.mean(w)", "np.sum(w)", "not their sum"),
    ("importance", "(len(w) * np.sum(w**2))", "np.sum(w**2)", "Divide it by n"),
    ("importance", "largest + np.log(np.mean(w))", "np.mean(log_w)", "a lower bound"),
    ("importance", "largest + np.log(np.mean(w))", "np.log(np.mean(np.exp(log_w)))", "exp overflows"),
    ("bound", "None] - log_det", "None] + log_det", "Subtract it in log q"),
    ("bound", "None] - log_det", "None]", "The log-det of the flow is missing"),
    ("bound", "- np.sum(log_std", "+ np.sum(log_std", "Subtract log_std in log q"),
    ("bound", " - np.sum(log_std, axis=1)[:, None]", "", "The step from epsilon to z_0 is missing"),
    ("bound", "np.mean(w, axis=1)", "np.sum(w, axis=1)", "not their sum"),
    (
        "bound",
        "largest[:, 0] + np.log(np.mean(w, axis=1))",
        "np.mean(log_w, axis=1)",
        "Take the mean of w first",
    ),
    (
        "bound",
        "largest[:, 0] + np.log(np.mean(w, axis=1))",
        "np.log(np.mean(np.exp(log_w), axis=1))",
        "after the logarithm",
    ),
    ("bound", "largest[:, 0] +", "largest +", "Each row has one bound"),
    (
        "translation",
        "np.linalg.solve(L_A, (x - mean_A).T).T\n    y = z @ L_B.T + mean_B",
        "np.linalg.solve(L_B, (x - mean_B).T).T\n    y = z @ L_A.T + mean_A",
        "from B to A",
    ),
    (
        "translation",
        "np.linalg.solve(L_A, (x - mean_A).T).T",
        "(x - mean_A) @ np.linalg.inv(L_A)",
        "L^-1 x is",
    ),
    ("translation", "z @ L_B.T", "z @ L_B", "L z is `z @ L.T`"),
    ("translation", "z @ L_B.T + mean_B", "(z + mean_B) @ L_B.T", "multiplies by L first"),
    ("translation", "(x - mean_A)", "x", "the mean of A"),
    (
        "chain",
        "layer.forward(own, z)",
        "layer.forward(own, x)",
        "each other layer what the one before it gave",
    ),
    ("chain", "reversed(list(zip(self.layers, params)))", "zip(self.layers, params)", "reverse the list"),
    ("chain", "log_det = log_det + one", "log_det = one", "Add up the log-dets of all layers"),
    (
        "chain",
        "own, x)\n            log_det = log_det +",
        "own, x)\n            log_det = log_det -",
        "Add it as it is",
    ),
    ("triangle", "x @ L.T", "x @ L", "z = L x is `x @ L.T`"),
    ("triangle", "np.linalg.solve(L, z.T).T", "z @ np.linalg.inv(L)", "A row of a batch is a row vector"),
    ("triangle", "np.linalg.solve(L, z.T).T", "z @ L.T", "Undo the last step first"),
    ("triangle", DIAGONAL, "= np.sum(np.log(np.abs(L)))", "the product of the diagonal alone"),
    (
        "triangle",
        DIAGONAL,
        '= np.prod(np.exp(params["log_diagonal"]))',
        "the logarithms of the diagonal already",
    ),
    ("affine", LOG_STD, LOG_STD[1:], "Where log_std is large it shrinks space"),
    ("affine", '= np.sum(params["log_std"])', '= -np.sum(params["log_std"])', "minus that of forward"),
    ("affine", '+ params["mean"]', '- params["mean"]', "adds the mean last"),
    ("affine", 'exp(-params["log_std"])', 'exp(params["log_std"])', "term by term and sign by sign"),
    ("affine", LOG_STD, '-np.sum(params["log_std"])', "Each row needs a number"),
    ("affine", LOG_STD, '-params["log_std"] * np.ones_like(x)', "one number for each row is left"),
    ("affine", LOG_STD, "0 * x[:, 0]", "What stands on the diagonal"),
    ("affine", LOG_STD, f"{LOG_STD} + 1", "wrong by the same number in each row"),
    ("affine", LOG_STD, f"{LOG_STD} / 3", "a sum, not a mean"),
    ("affine", "* np.ones_like(x[:, 0])", "* np.ones(len(x))", "has the dtype of x"),
    ("affine", "import autograd.numpy as np", "import numpy as np", "Write `import autograd.numpy as np`"),
    ("affine", "z = (x -", "x -= 1; z = (x -", "not `x -= y`"),
    ("affine", "return z, log_det", "return z", "A direction ends with two arrays"),
    ("affine", '["mean"]', '["mu"]', "those that `init` returns"),
    ("affine", 'z * np.exp(params["log_std"])', "z * np.exp(log_std)", "Is each name defined above it"),
    ("affine", "= z * np.exp", "= 0 * float(z[0, 0]) + z * np.exp", "no float() of an entry"),
    ("act_norm", H_W, "", "stands H W times on the diagonal"),
    ("act_norm", H_W, "x.shape[1] * ", "stands H W times on the diagonal"),
    ("act_norm", H_W, "x.shape[2] * ", "stands H W times on the diagonal"),
    ("act_norm", H_W, f"len(x) * {H_W}", "not over the rows"),
    ("act_norm", "axis=(0, 1, 2)", "axis=0", "take mean and std over rows and pixels"),
    ("act_norm", "-np.log(np.std", "np.log(np.std", "Solve it for log_scale"),
    (
        "act_norm",
        "-np.mean(x, axis=(0, 1, 2)) / np.std(x, axis=(0, 1, 2))",
        "-np.mean(x, axis=(0, 1, 2))",
        "-mean / std",
    ),
    ("act_norm", '(z - params["bias"])', '(z + params["bias"])', "subtracts the bias first"),
    ("additive_coupling", "z[1] + self", "z[1] - self", "the network sees a alone"),
    ("additive_coupling", "x[1] - self", "x[1] + self", "The inverse subtracts it"),
    (
        "additive_coupling",
        "[x[0], x[1] - self.network.apply(params, x[0])]",
        "[x[1] - self.network.apply(params, x[0]), x[0]]",
        "a comes first, in z and in x",
    ),
    (
        "additive_coupling",
        "[z[0], z[1] + self.network.apply(params, z[0])]",
        "[z[0] + self.network.apply(params, z[1]), z[1]]",
        "The network sees a, the first half",
    ),
    ("additive_coupling", "np.zeros_like(x[:, 0])", "np.ones_like(x[:, 0])", "the logarithm of 1 is 0"),
    ("additive_coupling", "np.zeros_like(x[:, 0])", "np.zeros(len(x))", "has the dtype of x"),
    ("coupling", LOG_SCALES, "= np.sum(log_scale)", "Sum over axis=1 where the terms differ"),
    (
        "coupling",
        LOG_SCALES,
        "= np.sum(log_scale) * np.ones_like(x[:, 0])",
        "Each row has a log-det of its own",
    ),
    ("coupling", LOG_SCALES, "= -np.sum(log_scale, axis=1)", "positive where forward stretches space"),
    ("coupling", LOG_SCALES, "= np.sum(raw, axis=1)", "the bounded one"),
    ("coupling", LOG_SCALES, "= np.sum(np.log(log_scale), axis=1)", "A volume has no sign"),
    ("coupling", "raw, shift = outputs", "shift, raw = outputs", "raw is the first half"),
    ("coupling", "2 * np.tanh(raw / 2)", "np.tanh(raw)", "both numbers 2"),
    ("coupling", "2 * np.tanh(raw / 2)", "raw", "not raw itself"),
    ("coupling", "(b - shift) *", "(b + shift) *", "subtracts the shift first"),
    (
        "coupling",
        "np.exp(-log_scale)",
        "np.exp(-2 * np.tanh(shift / 2))",
        "Both come from a, cut as in forward",
    ),
    ("coupling", "self.network.apply(params, a)", "self.network.apply(params, b)", "the network sees a"),
    (
        "coupling",
        "[a, b * np.exp(log_scale) + shift]",
        "[b * np.exp(log_scale) + shift, a]",
        "a comes first, in z and in x",
    ),
    (
        "coupling",
        "[a, (b - shift) * np.exp(-log_scale)]",
        "[(b - shift) * np.exp(-log_scale), a]",
        "a comes first, in z",
    ),
    ("coupling", SOLUTIONS["coupling"][0], OF_THE_SECOND_HALF, "The network sees a, the first half"),
    ("conv1x1", H_W, "", "stands H W times on the diagonal"),
    ("conv1x1", H_W, "x.shape[1] * ", "stands H W times on the diagonal"),
    ("conv1x1", H_W, "x.shape[2] * ", "stands H W times on the diagonal"),
    ("conv1x1", '[params["permutation"]]', '[np.argsort(params["permutation"])]', "then its rows by"),
    (
        "conv1x1",
        f'{H_W}np.sum(params["log_scale"])',
        f"{H_W}np.log(np.linalg.det(L @ U))",
        "without its signs",
    ),
    (
        "conv1x1",
        'np.linalg.inv((L @ U)[params["permutation"]])',
        "np.linalg.inv(L @ U)",
        "permutation included",
    ),
    ("squeeze", "(0, 1, 3, 5, 2, 4)", "(0, 1, 3, 2, 4, 5)", "c changes slowest"),
    ("squeeze", "(0, 1, 4, 2, 5, 3)", "(0, 1, 3, 5, 2, 4)", "transposes it to row, i, a, j, b, c"),
    ("squeeze", "np.zeros_like(x[:, 0, 0, 0])", "np.ones_like(x[:, 0, 0, 0])", "each volume stays as it is"),
    ("split", "[x[..., :half], changed]", "[changed, x[..., :half]]", "a comes first, in z and in x"),
    ("split", "x[..., half:]", "x[..., :half]", "f takes the others"),
    ("split", "self.layer.inverse(", "self.layer.forward(", "applies the inverse of f"),
    ("split", "log_det = log_det", "log_det = 2 * log_det", "adds nothing"),
    ("autoregressive", "np.exp(-log_scale)", "np.exp(log_scale)", "times exp(-log_scale)"),
    ("autoregressive", "range(z.shape[1])", "range(z.shape[1] - 1)", "D rounds are needed"),
    ("autoregressive", "self.numbers(params, x)[0]", "self.numbers(params, z)[0]", "at the x that was found"),
    (
        "autoregressive",
        LOG_SCALES,
        "= np.sum(log_scale[:, 1:], axis=1) ** 2",
        "A term of the log-det is missing",
    ),
    ("causal_mask", "mask[-1]", "mask[0]", "Write to the last place alone"),
    ("causal_mask", "i < j if", "i <= j if", "Here a channel sees itself, or not"),
    ("causal_mask", "i < j if", "j < i if", "j sees the i before it"),
    ("causal_mask", "mask[-1] = i", "mask = i", "Return one number for each row"),
    ("planar", "log_det = np.log(1 + (product - 1)", "log_det = np.log(1 + product", "w.u is `product - 1`"),
    (
        "planar",
        "(1 - np.tanh(a) ** 2))\n        return z",
        "np.tanh(a))\n        return z",
        "takes the slope of tanh",
    ),
    ("planar", "root(np.dot(z, w) + b, product)", "np.dot(z, w) + b", "the a of x, not that of z"),
    ("planar", "np.dot(x, w) + b", "np.dot(x, w)", "a = w.x + b"),
    ("gaussianize", "z = normal_of_logit(logit)", "z = logit", "this logit to z by normal_of_logit"),
    ("gaussianize", "logit = logit_of_normal(z)", "logit = z", "this logit to x by mixture_quantile"),
    ("gaussianize", "log_slope + log_normal_slope(z, logit)", "log_slope", "Each component has two terms"),
    ("spline", "z = np.where(outside, x, y0 + h", "z = (y0 + h", "Outside [-bound, bound]"),
    (
        "spline",
        "= np.where(outside, 0, np.log(",
        "= np.sum(np.log(",
        "Return the log-slope of each component",
    ),
    (
        "spline",
        "np.where(outside, x, y0 + h * (s * t**2 + d0 * t * u) / D)",
        "y0 + h * (s * t**2 + d0 * t * u) / D",
        "Outside",
    ),
    ("spline", "inside - y0", "inside", "Check A, B and C"),
    ("spline", "C = -s * y", "C = s * y", "Check A, B and C"),
    ("spline", "(s * t**2 + d0", "(s * t**2 + d1", "d0 belongs to t u"),
    ("spline", "-B - np.sqrt", "-B + np.sqrt", "the sign of the root"),
    ("spline", "(d1 * t**2", "(d0 * t**2", "d1 belongs to t^2"),
    ("conditional", ", context]", "]", "returns one number for each component of b"),
    ("conditional", "params, x, context=None", "params, x", "Keep the argument context=None"),
    ("conditional", "np.concatenate([a, context], axis=1)", "a", "in all three methods"),
    ("conditional", "[a, context]", "[context, a]", "a first. Its output is added to b"),
    ("conditional", "b - shift", "b + shift", "The inverse subtracts it"),
    ("pair", "a = w + v / 2\n    b = w - v / 2", "a = w + v\n    b = w - v", "Then a - b is 2 v"),
    ("pair", "l / 2 + np.arcsinh(np.sinh(l / 2) * np.cosh(v / 2))", "l", "Around l in place of w"),
    (
        "pair",
        "np.log(slope(a) + slope(b)) - np.log(2 * slope(l))",
        "np.log(2 * slope(l)) - np.log(slope(a) + slope(b))",
        "not of the inverse",
    ),
    ("pair", "np.log(2 * slope(l))", "np.log(slope(l))", "The mean is half of a sum"),
    ("dequantization", "log_prob(y) - x", "log_prob(y) + x", "Subtract D log(levels)"),
    ("dequantization", " - x.shape[1] * np.log(levels)", "", "The change of variables is missing"),
    ("dequantization", "- x.shape[1] * np.log(levels)", "- np.log(levels)", "the term counts D times"),
    ("dequantization", "(x + u) / levels", "x / levels", "The noise is missing"),
    ("dequantization", "(x + u) / levels", "x + u", "log_prob takes numbers between 0 and 1"),
    ("dequantization", BITS, "-log_P / np.log(2)", "Divide by D"),
    ("dequantization", BITS, "-log_P / x.shape[1]", "divide by log(2)"),
    ("dequantization", BITS, BITS[1:], "bits are -log P(x)"),
    ("dequantization", BITS, f"np.sum({BITS})", "not over everything"),
    ("trace", "log_det + h * trace", "log_det - h * trace", "the log-det of the inverse"),
    ("trace", "log_det + h * trace", "log_det + trace", "multiply the trace by h"),
    ("trace", "log_det + h * trace", "h * trace", "log_det grows by h times"),
    ("trace", "x + h * velocity(t, x)", "x + velocity(t, x)", "A step of Euler's method is"),
    (
        "trace",
        "np.sum(v * product(t, x, v), axis=1)",
        "np.sum(product(t, x, v), axis=1)",
        "Multiply by v before",
    ),
    (
        "trace",
        "np.sum(v * product(t, x, v), axis=1)",
        "np.sum(v * product(t, x + h * velocity(t, x), v), axis=1)",
        "Take the trace before x moves",
    ),
]
