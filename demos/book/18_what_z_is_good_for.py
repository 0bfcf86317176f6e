# %% [markdown]
# # 18. What z is good for: attributes, interpolation, translation
#
# **A flow gives every image a code $z$ as long as the image itself, and calls it noise. What can one do with
# such a code?** Add to it, mix it, or hand it to another flow. All three are encode, calculate, decode. This
# chapter derives when they work.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from npflow import datasets, fit, latent, plots
from npflow.autodiff import Layout
from npflow.layers import AffineCoupling, Chain, Permutation
from npflow.models import glow, real_nvp
from npflow.networks import MLP
from npflow.training import Adam, WarmupCosine
from npflow.verify import check_functions

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, COUPLINGS = (5, 1) if os.environ.get("NPFLOW_QUICK") else (600, 8)

# %% [markdown]
# ## A flow of digits
#
# The digits have $8 \times 8$ pixels of 17 levels. Each pixel gets uniform noise of the width of one level
# (chapter 19). A fifth of the digits is held out, and only those are shown. Training uses twenty noisy copies
# of each image, so that it cannot learn the noise by heart.

# %%
digits = load_digits()
images, labels = (
    np.repeat(digits.data, 20, axis=0),
    np.repeat(digits.target, 20),
)  # each under 20 draws of the noise
images = ((images + rng.random(images.shape)) / 17).astype(np.float32)
x, label, test, test_label = images[:28_740], labels[:28_740], images[28_740::20], labels[28_740::20]


def trained(flow, x, rate, context=None):
    """Parameters of a flow after training on x."""
    first = [x[:1000]] if context is None else [x[:1000], context[:1000]]
    params = flow.init(np.random.default_rng(1), *first)
    optimizer = Adam(WarmupCosine(rate, steps=STEPS))
    params, _ = fit(
        flow, params, x, context, rng=rng, steps=STEPS, optimizer=optimizer, clip_norm=50.0, progress=False
    )
    return params


flow = real_nvp(features=64, couplings=COUPLINGS, network=MLP((64,), "tanh"))
params = trained(flow, x, 2e-3)
z = flow.encode(params, test)
error = np.abs(flow.decode(params, z) - test).max()
print(f"x -> z -> x: largest error {error:.1e} of the grey scale")

# %% [markdown]
# Nothing is lost on the way. So what an edit of $z$ does not touch stays as it was in $x$. A model whose code
# is shorter than the image, such as a VAE, cannot say that.

# %% [markdown]
# ## Attributes: add a vector
#
# Take images with an attribute and images without it. The attribute vector is the difference of their means
# in $z$:
#
# $$v = \bar z_{\text{with}} - \bar z_{\text{without}}, \qquad x' = f^{-1}\big(f(x) + t\, v\big).$$
#
# When is that right? Suppose $z$ is normal in both sets, with means $\mu_1$, $\mu_0$ and the *same*
# covariance $\Sigma$. Then
#
# $$z \sim \mathcal N(\mu_0, \Sigma)
# \quad\Longrightarrow\quad z + (\mu_1 - \mu_0) \sim \mathcal N(\mu_1, \Sigma):$$
#
# at $t = 1$ images without the attribute become images with it, distributed as they should be. In $x$ this is
# false, however many images there are: two sets of images are not shifted copies of each other. In $z$ it is
# an approximation, and training for likelihood does not aim at it. So look at the result.

# %%
print(inspect.getsource(latent.attribute_vector).split('"""')[-1])
print(inspect.getsource(latent.add_attribute).splitlines()[-1])

# %%
threes, eights = x[label == 3], x[label == 8]
vector = latent.attribute_vector(flow, params, eights, threes)
start = test[test_label == 3][:6]
strengths = (-0.5, 0, 0.5, 1, 1.5)
moved = np.stack([latent.add_attribute(flow, params, start, vector, strength) for strength in strengths])
in_pixels = np.stack(
    [start + strength * (eights.mean(axis=0) - threes.mean(axis=0)) for strength in strengths]
)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, (title, made) in zip(axes, {"the vector added to z": moved, "added to pixels": in_pixels}.items()):
    plots.images(made.reshape(len(strengths), len(start), 8, 8, 1), ax, levels=2, title=title)
    ax.set(yticks=9 * np.arange(len(strengths)) + 3.5, yticklabels=strengths, ylabel="strength: from 3 to 8")
for name, made in (("in z", moved[3]), ("in pixels", in_pixels[3])):
    print(f"strength 1, {name:9}: mean log p {flow.log_prob(params, made).mean():8.1f} nats")
print(f"the threes themselves  : mean log p {flow.log_prob(params, start).mean():8.1f} nats")

# %% [markdown]
# ## What else is in the vector
#
# The two sets may differ in more than the attribute. Let $a_1, \dots, a_K$ be all attributes of an image, and
# $a_1$, which is 1 or 0, the one to change. Suppose that on average $z$ is linear in them,
#
# $$E[z \mid a] = m + a_1 b_1 + \dots + a_K b_K .$$
#
# Take the means with $a_1 = 1$ and with $a_1 = 0$, and subtract:
#
# $$v = b_1 + \sum_{k > 1} b_k \,\big(E[a_k \mid a_1 = 1] - E[a_k \mid a_1 = 0]\big).$$
#
# The vector contains every attribute that is correlated with the first one. If the attributes are known, a linear
# regression of $z$ on all of them gives $b_1$ alone. Here is a set in which most eights are bold and most threes
# thin. An edit should make eights of the threes, and not add ink beyond that. (`demos/faces.py` does this with
# smiles and glasses.)

# %%
ink = x.mean(axis=1)
three_or_eight = np.isin(label, (3, 8))
bold = ink > np.median(ink[three_or_eight])
chosen = three_or_eight & ((bold == (label == 8)) | (rng.random(len(x)) < 0.1))
print(f"bold in the set: {bold[chosen & (label == 8)].mean():.0%} of eights, "
      f"{bold[chosen & (label == 3)].mean():.0%} of threes")  # fmt: skip
codes = flow.encode(params, x[chosen])
known = np.stack([label[chosen] == 8, ink[chosen], np.ones(chosen.sum())], axis=1).astype(np.float32)
by_least_squares = np.linalg.lstsq(known, codes, rcond=None)[0][0]
by_means = latent.attribute_vector(flow, params, x[chosen & (label == 8)], x[chosen & (label == 3)])
unseen = test[test_label == 3]
print(f"mean grey of the threes: {unseen.mean():.3f}")
for name, direction in (("the difference of means", by_means), ("least squares", by_least_squares)):
    print(f"moved by {name}: {latent.add_attribute(flow, params, unseen, direction).mean():.3f}")

# %% [markdown]
# ## An edit is a flow
#
# $x \mapsto x'$ encodes, shifts and decodes. All three are invertible, so the edit is too: its inverse
# subtracts $v$. By the product rule of chapter 3
#
# $$\log\left|\det \frac{\partial x'}{\partial x}\right|
# = \log|\det J_f(x)| + 0 + \log|\det J_{f^{-1}}(z + v)|
# = \log|\det J_f(x)| - \log|\det J_f(x')|.$$
#
# The two terms are taken at different points, so they do not cancel, unless the map in between is the
# identity. `check_functions` holds this formula against the numerical Jacobian of the edit:

# %%
layer = Chain([AffineCoupling(MLP((16,), "tanh")), Permutation()] * 2)
rows = rng.standard_normal((16, 4))
start = layer.init(rng, rows)
layout = Layout(start)  # a new coupling is the identity: move its parameters
drawn = layout.unpack(layout.pack(start) + 0.3 * rng.standard_normal(layout.size), start)
shift = np.array([1.0, -0.5, 0.3, 0.8])


def edit(x, strength=1.0):
    """Encode, add a vector, decode; and the log-determinant of all three together."""
    z, log_det = layer.forward(drawn, x)
    edited, log_det_back = layer.inverse(drawn, z + (strength * shift).astype(x.dtype))
    return edited, log_det + log_det_back


def undo(x):
    return edit(x, -1.0)


report = check_functions(edit, undo, rows, name="an edit")
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of an edit, 4 features")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## Interpolation: go round, not through
#
# The straight line from $z_a$ to $z_b$ is $(1 - t)\, z_a + t\, z_b$. How long are the vectors on it? For a
# standard normal $z$ with $D$ components
#
# $$E\,|z|^2 = D, \qquad \operatorname{Var}|z|^2 = 2 D,$$
#
# since $z_i^2$ has mean 1 and variance 2. So $|z|^2 = D \pm \sqrt{2 D}$: in many dimensions all samples lie
# near a sphere of radius $\sqrt D$. For two independent samples the point on the line is normal with variance
# $(1 - t)^2 + t^2$, which is $\tfrac12$ in the middle. There $|z|^2 \approx D / 2$: between samples, but
# where no sample ever is. A great circle keeps to the sphere. With the angle $\omega$ between $z_a$ and $z_b$
#
# $$z(t) = \frac{\sin((1 - t)\, \omega)}{\sin \omega}\, z_a + \frac{\sin(t\, \omega)}{\sin \omega}\, z_b.$$
#
# Independent samples in many dimensions are nearly orthogonal, as $z_a \cdot z_b$ has mean 0 and standard
# deviation $\sqrt D$. Then $\omega = \pi / 2$, the weights are $\cos(t \pi / 2)$ and $\sin(t \pi / 2)$, and
# their squares add up to 1: every point on the way is itself a standard normal sample.


# %%
def great_circle(a, b, shares):
    """Points on the great circle from the rows of a to those of b, shape (shares, n, components)."""
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    angle = np.arccos(np.clip(cosine, -1, 1))[:, None]
    return np.stack(
        [(np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle) for t in shares]
    ).astype(a.dtype)


a, b = (flow.prior.sample(params["prior"], rng, 2000, dtype=np.float32) for _ in range(2))
shares = np.linspace(0, 1, 21)
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, color, way in (
    ("straight line", "#D55E00", np.stack([(1 - t) * a + t * b for t in shares])),
    ("great circle", "#0072B2", great_circle(a, b, shares)),
):
    squares = np.sum(way**2, axis=2)
    ax.plot(shares, squares.mean(axis=1), color=color, label=name)
    ax.fill_between(shares, *np.quantile(squares, (0.05, 0.95), axis=1), color=color, alpha=0.2, linewidth=0)
    print(f"{name}: |z|^2 in the middle {squares[10].mean():.1f}, at the ends {squares[0].mean():.1f}")
ax.axhline(64, color="0.5", linestyle=":", label="D = 64")
ax.set(xlabel="share of b", ylabel="|z|^2, mean and middle 90 %", title="Through the ball, or round it")
ax.legend()

# %% [markdown]
# `latent.interpolate` takes the straight line. Decode both ways, and mix pixels for comparison: halfway
# between pixels lie two pale digits.

# %%
pairs = ((0, 6), (1, 4), (7, 9), (3, 5))
left, right = (np.stack([test[test_label == pair[side]][1] for pair in pairs]) for side in (0, 1))
shares = np.linspace(0, 1, 7)
circle = great_circle(flow.encode(params, left), flow.encode(params, right), shares)
ways = {
    "straight line in z": latent.interpolate(flow, params, left, right, shares),
    "great circle in z": np.stack([flow.decode(params, z) for z in circle]),
    "pixels": np.stack([(1 - t) * left + t * right for t in shares]),
}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.5), layout="constrained")
for ax, (title, made) in zip(axes, ways.items()):
    plots.images(made.swapaxes(0, 1).reshape(len(pairs), len(shares), 8, 8, 1), ax, levels=2, title=title)

# %% [markdown]
# The code of a *real* image need not lie near the sphere, if the flow fits badly. The first ends of the
# pairs, in a space where $\sqrt D = 8$:

# %%
print("|z| of the first digits of the pairs:", np.round(np.linalg.norm(circle[0], axis=1), 1))

# %% [markdown]
# ## Translation: encode by one flow, decode by another
#
# Let $f$ be a flow of data $A$, and $g$ a flow of data $B$, with the same prior. Translate by
#
# $$y = g^{-1}(f(x)).$$
#
# If $x$ is distributed as $A$, then $f(x)$ is distributed as the prior, and $y$ as $B$. No pair of an $x$
# with its $y$ was ever shown. That is also the limit of it. Let $R$ be any rotation. $R\, z$ is as normal as
# $z$, so
#
# $$y = g^{-1}(R\, f(x))$$
#
# is distributed as $B$ just as well. **The distributions determine where the whole cloud goes, not where a
# point goes.** Which $y$ an $x$ becomes is decided by architecture and training. In one dimension both flows
# are increasing, there is no rotation but a sign, and the $10\,\%$ quantile of $A$ goes to the $10\,\%$
# quantile of $B$.

# %%
print("".join(inspect.getsource(latent.translate).partition("    flow_a")[1:]))

# %%
sources = {
    "moons": datasets.moons(4000, rng=rng).astype(np.float32),
    "pinwheel": datasets.pinwheel(4000, rng=rng).astype(np.float32),
}
flows = {}
for name, points in sources.items():
    small = glow(features=2, steps=COUPLINGS, network=MLP((32, 32), "tanh"))
    flows[name] = small, trained(small, points, 5e-3)
moons = sources["moons"][:2000]
color = moons[:, 0]  # every point keeps it
z = flows["moons"][0].encode(flows["moons"][1], moons)
translated = latent.translate(moons, flows["moons"], flows["pinwheel"])
turned = flows["pinwheel"][0].decode(flows["pinwheel"][1], z @ np.array([[0, 1], [-1, 0]], np.float32))
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
for ax, (title, points) in zip(
    axes,
    {"x: moons": moons, "z": z, "y: pinwheel": translated, "y, z turned by 90 degrees": turned}.items(),
):
    box = ((-1.5, 2.5), (-2, 2)) if title == "x: moons" else ((-4, 4), (-4, 4))
    plots.samples(points, ax, title=title, c=color, cmap="cividis", limits=box)
back = latent.translate(translated, flows["pinwheel"], flows["moons"])
print(f"moons -> pinwheel -> moons: largest error {np.abs(back - moons).max():.1e}")

# %% [markdown]
# The way back is exact, without any loss for cycles: $f^{-1}(g(g^{-1}(f(x)))) = x$.
#
# ## What arrives, and what is kept
#
# So two things have to be measured: whether $y$ belongs to $B$, and whether it still is this $x$. Threes become
# eights in two ways: by two flows, each trained on one class, and by one conditional flow of both, whose context $c$
# is the class (chapter 17),
#
# $$y = f^{-1}(f(x; c = 3);\, c = 8).$$
#
# The conditional flow has the same networks for both classes, which see $c$ beside $x$. So it treats what the
# classes have in common in the same way. A judge, a classifier by five nearest neighbours, says whether $y$ is an
# eight. As an example of what should be kept we take the slant of a digit: the slope of column against row over
# the ink.

# %%
both, eight = x[three_or_eight], (label[three_or_eight] == 8)
one = real_nvp(features=64, couplings=COUPLINGS, network=MLP((64,), "tanh"), context_features=1)
one_params = trained(one, both, 2e-3, eight[:, None].astype(np.float32))
sides = {
    "two flows": [(flow, trained(flow, both[eight == side], 2e-3)) for side in (False, True)],
    "conditional flow": [(one, one_params, np.float32([side])) for side in (0, 1)],
}
judge = KNeighborsClassifier(5).fit(both, eight)


def slant(x):
    """The slope of column against row, over the ink of each digit."""
    grey = np.clip(x, 0, 1).reshape(-1, 8, 8)
    row, column = np.mgrid[:8, :8]
    mean = lambda values: np.sum(grey * values, axis=(1, 2)) / grey.sum(axis=(1, 2))
    return (mean(row * column) - mean(row) * mean(column)) / (mean(row * row) - mean(row) ** 2)


carried = {"threes": unseen[:8]}
for name, (of_threes, of_eights) in sides.items():
    y = latent.translate(unseen, of_threes, of_eights)
    carried[name] = y[:8]
    print(f"{name:16}: {judge.predict(y).mean():.0%} are eights, pixels move by {np.abs(y - unseen).mean():.3f}, "
          f"slants correlate {np.corrcoef(slant(unseen), slant(y))[0, 1]:+.2f}")  # fmt: skip
figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
plots.images(np.stack([*carried.values()]).reshape(3, 8, 8, 8, 1), ax, levels=2)
ax.set_yticks(9 * np.arange(3) + 3.5, labels=list(carried))

# %% [markdown]
# Two flows nearly always arrive, as the second decodes every z as an eight. The conditional flow arrives less
# often, and keeps more. So neither number says much without the other. `demos/translate.py` measures both with
# larger flows, on digits, faces and photographs.

# %% [markdown]
# ## What can go wrong
#
# The edit above has a density, and a formula that takes both log-determinants at the same point says that it
# keeps volumes:


# %%
def at_one_point(x, strength=1.0):
    """An edit that subtracts the log-determinant of the encoder at x, where that at x' belongs."""
    edited, _ = edit(x, strength)
    _, log_det = layer.forward(drawn, x)
    return edited, log_det - log_det


report = check_functions(at_one_point, lambda x: at_one_point(x, -1.0), rows, name="an edit")
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# And two flows with different priors translate into nothing: what is likely for one is unlikely for the
# other. `latent.translate` refuses.

# %% [markdown]
# ## Exercises
#
# 1. Let $z$ have different covariances $\Sigma_0$ and $\Sigma_1$ in the two sets. Which affine map takes one
#    normal density to the other? Is it the only one?
# 2. In a data set three in four eights are bold, and one in four threes. How much of the vector of boldness is in
#    the vector from three to eight? What can a regression do if all eights are bold and no three is?
# 3. Show that $E[z_a \cdot z_b] = 0$ and $\operatorname{Var}[z_a \cdot z_b] = D$ for independent standard
#    normal vectors.
# 4. Translate with one conditional flow at two contexts (chapter 17). Why does it tend to keep more of $x$
#    than two separate flows?
# 5. `npflow exercise translation` writes a page to complete; `npflow exercise translation FILE` marks it.
