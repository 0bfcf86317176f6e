"""Figures: the drawn values equal the input, and invalid input is refused."""

import matplotlib
import numpy as np
import pytest
from helpers import rows

from npflow import plots
from npflow.errors import InputError
from npflow.layers import AffineCoupling
from npflow.networks import MLP
from npflow.training import History
from npflow.verify import check, check_functions


@pytest.fixture(autouse=True)
def figures():
    """pyplot without a screen; all figures are closed after the test."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield plt
    plt.close("all")


@pytest.fixture
def ax(figures):
    return figures.subplots(layout="constrained")[1]


@pytest.fixture
def x():
    return 2 + 3 * rows(50, 2)


def standard_normal(x):
    return -np.sum(x**2, axis=1) / 2 - np.log(2 * np.pi)


def a_run(steps=1500, spike=1e3):
    step = np.arange(steps)
    loss = 0.35 + 2 * np.exp(-step / 150) + 0.1 * np.random.default_rng(0).normal(size=steps)
    loss[1] = spike
    validation_step = list(range(50, steps + 1, 50))
    return History(loss=loss.tolist(), validation_step=validation_step, validation_loss=loss[49::50].tolist())


DRAWINGS = {
    "samples": lambda ax: plots.samples(np.ones((3, 2)), ax),
    "density": lambda ax: plots.density(standard_normal, ax, resolution=20),
    "grid": lambda ax: plots.grid(lambda x: x, ax, resolution=5),
    "jacobian": lambda ax: plots.jacobian(np.eye(3), ax),
    "history": lambda ax: plots.history(a_run(), ax),
    "spectrum": lambda ax: plots.spectrum(np.linspace(-1, 2, 9), ax),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
class TestEveryDrawing:
    def test_returns_the_axes_given(self, draw, ax, figures):
        assert draw(ax) is ax
        assert len(figures.get_fignums()) == 1
        ax.figure.canvas.draw()

    def test_makes_axes_of_its_own(self, draw, figures):
        ax = draw(None)
        assert isinstance(ax, matplotlib.axes.Axes)
        assert ax.figure.get_layout_engine() is not None
        assert figures.get_fignums() == [ax.figure.number]

    def test_refuses_other_objects_as_axes(self, draw):
        with pytest.raises(InputError, match="expected ax to be matplotlib axes, got a str"):
            draw("here")


@pytest.mark.parametrize("draw", [DRAWINGS["density"], DRAWINGS["jacobian"]])
def test_a_colour_bar_has_the_height_of_its_axes_and_is_inside_the_figure(draw):
    ax = draw(None)
    ax.figure.canvas.draw()
    (bar,) = ax.child_axes
    box, bar_box = ax.get_window_extent(), bar.get_window_extent()
    assert (bar_box.y0, bar_box.y1) == pytest.approx((box.y0, box.y1), abs=1)
    whole = bar.get_tightbbox()
    assert whole.x0 > box.x1
    assert whole.x1 <= ax.figure.bbox.x1 + 1


def test_npflow_gives_its_own_figures_its_style_and_changes_no_setting_of_matplotlib(figures):
    before = dict(matplotlib.rcParams)
    plots.samples(np.ones((3, 2)))
    (ax,) = plots.steps([np.eye(2)]).flat
    assert dict(matplotlib.rcParams) == before
    assert ax.figure.dpi == plots.STYLE["figure.dpi"]
    assert not ax.spines["top"].get_visible()
    with figures.rc_context():
        figures.style.use(plots.STYLE)  # every setting is one of Matplotlib's
        (line,) = figures.subplots()[1].plot([1, 2])
        assert line.get_color() == "#0072B2"


class TestSamples:
    def test_draws_the_points(self, ax, x):
        plots.samples(x, ax, limits=((-1, 2), (-3, 4)), title="data")
        (points,) = ax.collections
        np.testing.assert_array_equal(points.get_offsets(), x)
        assert ax.get_xlim() == (-1, 2)
        assert ax.get_ylim() == (-3, 4)
        assert ax.get_title() == "data"
        assert ax.get_aspect() == 1

    @pytest.mark.parametrize("option", [{"color": "red"}, {"c": "red"}])
    def test_takes_scatter_options(self, ax, x, option):
        plots.samples(x, ax, s=7, **option)
        (points,) = ax.collections
        assert points.get_sizes() == [7]
        assert tuple(points.get_facecolor()[0, :3]) == (1, 0, 0)

    @pytest.mark.parametrize("bad", [np.ones((5, 3)), np.ones(2), np.full((5, 2), np.nan), [["a", "b"]]])
    def test_invalid_points_are_not_drawn(self, ax, bad):
        with pytest.raises(InputError, match=r"^expected x "):
            plots.samples(bad, ax)
        assert not ax.collections

    @pytest.mark.parametrize("bad", [1, ((0, 1), (1, 0)), ((0, 1), (0, np.inf)), (0, 1), ((0, 1), (0, 1, 2))])
    def test_bad_limits(self, ax, x, bad):
        with pytest.raises(InputError, match=r"expected limits as \(\(left, right\), \(bottom, top\)\)"):
            plots.samples(x, ax, limits=bad)
        assert not ax.collections


class TestSteps:
    def test_points_keep_their_colour_in_all_panels(self, x):
        axes = plots.steps([x, -x, 100 * x], names=["data", "0 (ActNorm)", "1 (AffineCoupling)"], columns=2)
        assert axes.shape == (2, 2)
        panels = [ax.collections[0] for ax in axes.flat[:3]]
        for points, expected in zip(panels, [x, -x, 100 * x]):
            np.testing.assert_array_equal(points.get_offsets(), expected)
            np.testing.assert_array_equal(points.get_array(), panels[0].get_array())
        offset = x - x.mean(axis=0)
        np.testing.assert_allclose(panels[0].get_array(), np.arctan2(offset[:, 1], offset[:, 0]))
        assert [ax.get_title() for ax in axes.flat[:3]] == ["data", "0 (ActNorm)", "1 (AffineCoupling)"]
        assert not axes[1, 1].axison

    def test_every_panel_has_its_own_limits(self, x):
        axes = plots.steps([x, 100 * x])
        axes[0, 0].figure.canvas.draw()
        widths = [np.ptp(ax.get_xlim()) for ax in axes.flat]
        assert widths[1] == pytest.approx(100 * widths[0], rel=0.2)

    def test_returns_the_axes_given(self, figures, x):
        axes = figures.subplots(1, 3)[1]
        assert plots.steps([x, x], axes) is axes

    def test_titles_do_not_overlap(self, x):
        names = [f"{index} (SomeLayerWithAnUncommonlyLongName)" for index in range(8)]
        axes = plots.steps([x] * 8, names=names)
        axes[0, 0].figure.canvas.draw()
        boxes = [ax.title.get_window_extent() for ax in axes.flat]
        assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)

    def test_bad_input(self, figures, x):
        with pytest.raises(InputError, match="expected at least one array of points, got none"):
            plots.steps([])
        with pytest.raises(InputError, match=r"expected arrays\[1\] with rows of 2 features, got rows of 3"):
            plots.steps([x, np.ones((50, 3))])
        with pytest.raises(InputError, match=r"50 rows, got 49 in arrays\[1\]"):
            plots.steps([x, x[1:]])
        with pytest.raises(InputError, match="expected a name for each of 2 arrays, got 1"):
            plots.steps([x, x], names=["data"])
        with pytest.raises(InputError, match="expected columns to be at least 1, got 0"):
            plots.steps([x, x], columns=0)
        assert not figures.get_fignums()
        with pytest.raises(InputError, match="expected axes for each of 2 arrays, got 1"):
            plots.steps([x, x], figures.subplots()[1])


class TestDensity:
    LIMITS = ((-4, 4), (-5, 3.5))

    def test_draws_the_density(self, ax):
        plots.density(standard_normal, ax, limits=self.LIMITS, resolution=80)
        (image,) = ax.images
        assert image.get_extent() == [-4, 4, -5, 3.5]
        drawn = image.get_array()
        assert drawn.shape == (80, 80)
        # Pixel [i, j] is centred at x = -4 + 0.1 (j + 1/2), y = -5 + 0.10625 (i + 1/2): the y axis goes up.
        center = np.array([[-4 + 0.1 * 20.5, -5 + 0.10625 * 70.5]])
        assert drawn[70, 20] == pytest.approx(np.exp(standard_normal(center))[0], rel=1e-12)
        assert image.origin == "lower"
        assert ax.child_axes[0].get_ylabel() == "density"

    def test_contours_enclose_their_share(self, ax):
        """{p >= t} of a standard normal is the disc of squared radius -2 log(2 pi t); its mass 1 - 2 pi t."""
        plots.density(standard_normal, ax, limits=self.LIMITS, contours=6)
        (contours,) = (c for c in ax.collections if hasattr(c, "levels"))
        shares = 1 - 2 * np.pi * np.array(contours.levels)
        np.testing.assert_allclose(shares, [0.99, 0.9, 0.75, 0.5, 0.25, 0.1], atol=0.02)
        for path, share in zip(contours.get_paths(), shares):
            radius = np.hypot(*path.vertices.T)
            np.testing.assert_allclose(radius, np.sqrt(-2 * np.log(1 - share)), rtol=0.01)

    def test_labels_are_at_their_levels_and_do_not_overlap(self, ax):
        plots.density(standard_normal, ax, limits=self.LIMITS, contours=6)
        (bar,) = ax.child_axes
        ax.figure.canvas.draw()
        labels = {text.get_text(): text for text in bar.texts}
        assert list(labels) == ["mass\ninside", "99%", "90%", "75%", "50%", "25%", "10%"]
        assert labels["50%"].get_position()[1] == pytest.approx(0.5, abs=0.02)
        boxes = [text.get_window_extent() for text in bar.texts]
        assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)

    @pytest.mark.parametrize("std", [0.1, 0.3])
    def test_labels_of_close_levels_do_not_overlap(self, ax, std):
        """A narrow peak has a twentieth of the mass, so almost all levels are near 0."""

        def peak_on_plain(x):
            narrow = standard_normal(x / std) - 2 * np.log(std) + np.log(0.05)
            return np.logaddexp(narrow, standard_normal(x) + np.log(0.95))

        plots.density(peak_on_plain, ax, limits=self.LIMITS, contours=6)
        ax.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.child_axes[0].texts]
        assert len(boxes) == 7
        assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)

    def test_the_number_of_contours(self, ax):
        plots.density(standard_normal, ax, limits=self.LIMITS, contours=2)
        assert [text.get_text() for text in ax.child_axes[0].texts] == ["mass\ninside", "90%", "50%"]

    def test_a_contour_outside_the_limits_is_left_out(self, ax):
        """The square of half-width 1 contains 47 % of a standard normal."""
        plots.density(standard_normal, ax, limits=((-1, 1), (-1, 1)), contours=6)
        assert [text.get_text() for text in ax.child_axes[0].texts] == ["mass\ninside", "25%", "10%"]

    def test_without_a_bar_the_contours_stay(self, ax):
        plots.density(standard_normal, ax, limits=self.LIMITS, bar=False)
        assert not ax.child_axes
        (contours,) = (c for c in ax.collections if hasattr(c, "levels"))
        assert len(contours.levels) == 3

    def test_loops_that_would_look_like_points_are_left_out(self, ax):
        """A second peak holds a hundredth of the mass, in a circle of radius 0.06 of axes 8 wide."""

        def two_peaks(x):
            speck = standard_normal((x - [2, 2]) / 0.02) - 2 * np.log(0.02) + np.log(0.01)
            return np.logaddexp(standard_normal(x) + np.log(0.99), speck)

        plots.density(two_peaks, ax, limits=((-4, 4), (-4, 4)), resolution=400)
        (contours,) = (c for c in ax.collections if hasattr(c, "levels"))
        loops = [np.hypot(*path.vertices.T) for path in contours.get_paths()]
        assert len(loops) == 3
        for radius in loops:
            np.testing.assert_allclose(radius, radius.mean(), rtol=0.02)

    @pytest.mark.parametrize("log_density", [-np.log(4), -np.inf])
    def test_a_flat_density_has_no_contours(self, ax, log_density):
        plots.density(lambda x: np.full(len(x), log_density), ax, limits=((-1, 1), (-1, 1)))
        assert not ax.collections
        assert not ax.child_axes[0].texts

    def test_bad_input(self, ax):
        with pytest.raises(
            InputError, match=r"log_prob to return an array of shape \(400,\), got \(400, 1\)"
        ):
            plots.density(lambda x: x[:, :1], ax, resolution=20)
        with pytest.raises(InputError, match="expected log densities below infinity, got nan"):
            plots.density(lambda x: np.full(len(x), np.nan), ax, resolution=20)
        with pytest.raises(InputError, match="expected log densities below infinity, got inf"):
            plots.density(lambda x: np.full(len(x), np.inf), ax, resolution=20)
        with pytest.raises(InputError, match="expected contours to be at most 6, got 7"):
            plots.density(standard_normal, ax, contours=7)
        with pytest.raises(InputError, match="expected resolution to be at least 2, got 1"):
            plots.density(standard_normal, ax, resolution=1)
        assert not ax.images


class TestGrid:
    def test_the_identity_leaves_it_straight(self, ax):
        plots.grid(lambda x: x, ax, limits=((-1, 1), (0, 3)), lines=5, resolution=11)
        horizontals, verticals = (np.array(c.get_segments()) for c in ax.collections)
        assert horizontals.shape == verticals.shape == (5, 11, 2)
        for line, y in zip(horizontals, np.linspace(0, 3, 5)):
            np.testing.assert_array_equal(line[:, 1], y)
            np.testing.assert_array_equal(line[:, 0], np.linspace(-1, 1, 11))
        for line, at in zip(verticals, np.linspace(-1, 1, 5)):
            np.testing.assert_array_equal(line[:, 0], at)
            np.testing.assert_array_equal(line[:, 1], np.linspace(0, 3, 11))

    def test_a_map_deforms_it(self, ax):
        plots.grid(lambda x: np.stack([x[:, 1], np.exp(x[:, 0])], axis=1), ax, lines=3, resolution=4)
        horizontals, verticals = (np.array(c.get_segments()) for c in ax.collections)
        np.testing.assert_array_equal(horizontals[2, :, 0], 2)
        np.testing.assert_allclose(verticals[0, :, 1], np.exp(-2))
        left, right = ax.get_xlim()
        bottom, top = ax.get_ylim()
        assert left <= -2 < 2 <= right
        assert bottom <= np.exp(-2) < np.exp(2) <= top

    def test_its_two_families_have_labels_and_colours(self, ax):
        plots.grid(lambda x: x, ax)
        assert [c.get_label() for c in ax.collections] == ["horizontals", "verticals"]
        thin, wide = ax.collections
        assert not np.allclose(thin.get_color()[0], wide.get_color()[0])
        assert thin.get_linewidth() < wide.get_linewidth()
        assert thin.get_zorder() > wide.get_zorder()  # so that both are seen on the same line

    def test_bad_input(self, ax):
        with pytest.raises(InputError, match="expected what map returned with rows of 2 features"):
            plots.grid(lambda x: x[:, :1], ax)
        with pytest.raises(InputError, match="expected map to return 63 points, got 62"):
            plots.grid(lambda x: x[1:], ax, lines=21, resolution=3)
        with pytest.raises(InputError, match="expected what map returned to be finite, got inf in row 0"):
            plots.grid(lambda x: x + np.inf, ax)
        with pytest.raises(InputError, match="expected lines to be at least 2, got 1"):
            plots.grid(lambda x: x, ax, lines=1)
        assert not ax.collections


class TestJacobian:
    @pytest.mark.parametrize("size", [1, 2, 8, 48])
    def test_draws_the_matrix(self, ax, size):
        matrix = np.random.default_rng(0).normal(size=(size, size))
        plots.jacobian(matrix, ax, title="MAF")
        (image,) = ax.images
        np.testing.assert_array_equal(image.get_array(), matrix)
        assert image.get_clim() == (-abs(matrix).max(), abs(matrix).max())
        assert image.origin == "upper"
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("input", "output", "MAF")
        assert len(ax.texts) == (size**2 if size <= 8 else 0)

    def test_writes_each_number_into_its_cell(self, ax):
        plots.jacobian(np.array([[1.0, -2.345], [-0.001, 1e4]]), ax)
        ax.figure.canvas.draw()
        written = {text.get_position(): text.get_text() for text in ax.texts}
        assert written == {(0, 0): "1.00", (1, 0): "-2.35", (0, 1): "0.00", (1, 1): "10000.00"}

    def test_numbers_stay_in_their_cells(self, figures):
        axes = figures.subplots(1, 2, layout="constrained", squeeze=False)[1]
        for ax in axes.flat:
            plots.jacobian(-12.345 * np.ones((8, 8)), ax)
        axes[0, 0].figure.canvas.draw()
        for ax in axes.flat:
            cell = ax.get_window_extent().width / 8
            assert max(text.get_window_extent().width for text in ax.texts) < cell

    def test_numbers_are_readable_on_their_cells(self, ax):
        plots.jacobian(np.array([[-1.0, 0.0], [0.1, 1.0]]), ax)
        assert [text.get_color() for text in ax.texts] == ["white", "black", "black", "white"]

    def test_limit(self, ax):
        plots.jacobian(np.eye(2, dtype=np.float32), ax, limit=5)
        assert ax.images[0].get_clim() == (-5, 5)

    def test_zeros_are_white(self, ax):
        plots.jacobian(np.zeros((2, 2)), ax)
        assert min(ax.images[0].to_rgba(0.0)) > 0.95

    def test_bad_input(self, ax):
        with pytest.raises(InputError, match=r"expected the Jacobian as a square matrix, got shape \(2, 3\)"):
            plots.jacobian(np.ones((2, 3)), ax)
        with pytest.raises(
            InputError, match=r"expected the Jacobian as a square matrix, got shape \(2, 2, 2\)"
        ):
            plots.jacobian(np.ones((2, 2, 2)), ax)
        with pytest.raises(InputError, match="expected the Jacobian to be finite, got nan in row 0"):
            plots.jacobian(np.full((2, 2), np.nan), ax)
        with pytest.raises(InputError, match="expected limit to be a finite number above 0"):
            plots.jacobian(np.eye(2), ax, limit=0)
        assert not ax.images


class TestHistory:
    def test_draws_the_run(self, ax):
        run = a_run()
        plots.history(run, ax)
        each, median, validation = ax.lines
        np.testing.assert_array_equal(each.get_xdata(), np.arange(1, 1501))
        np.testing.assert_array_equal(each.get_ydata(), run.loss)
        np.testing.assert_array_equal(validation.get_xdata(), run.validation_step)
        np.testing.assert_array_equal(validation.get_ydata(), run.validation_loss)
        assert median.get_ydata()[700] == np.median(run.loss[675:726])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "negative log-likelihood [nats]")

    def test_a_spike_does_not_flatten_the_rest(self, ax):
        run = a_run(spike=1e3)
        plots.history(run, ax)
        low, high = ax.get_ylim()
        assert low < min(run.loss)
        assert 2 < high < 5
        assert "each step (up to 1000)" in ax.get_legend_handles_labels()[1]

    def test_a_run_without_a_spike_is_shown_whole(self, ax):
        run = History(loss=np.linspace(3, 1, 200).tolist())
        plots.history(run, ax)
        low, high = ax.get_ylim()
        assert low < 1 < 3 < high
        assert ax.get_legend_handles_labels()[1][0] == "each step"

    @pytest.mark.parametrize("limit", [-4.0, 0.3, 20.0])
    def test_the_limit_is_inside_the_axes(self, ax, limit):
        plots.history(a_run(), ax, limit=limit, limit_label="maximum likelihood")
        line = ax.lines[-1]
        assert (line.get_linestyle(), line.get_label()) == ("--", "maximum likelihood")
        np.testing.assert_array_equal(line.get_ydata(), limit)
        low, high = ax.get_ylim()
        assert low < limit < high

    @pytest.mark.parametrize("loss", [[3.0], [3.0, 2.0], [1.0] * 100])
    def test_short_and_flat_runs(self, ax, loss):
        plots.history(History(loss=loss), ax)
        ax.figure.canvas.draw()
        low, high = ax.get_ylim()
        assert low < min(loss) <= max(loss) < high
        assert "validation" not in ax.get_legend_handles_labels()[1]

    def test_an_infinite_validation_loss_is_left_out(self, ax):
        plots.history(History(loss=[3.0, 2.0], validation_step=[1, 2], validation_loss=[np.inf, 2.5]), ax)
        ax.figure.canvas.draw()
        assert np.isfinite(ax.get_ylim()).all()

    def test_a_history_has_a_plot_method(self, ax):
        assert a_run().plot(ax, limit=0.3) is ax
        assert len(ax.lines) == 4

    def test_bad_input(self, ax):
        with pytest.raises(InputError, match=r"expected an npflow.training.History, got a list"):
            plots.history([1.0, 2.0], ax)
        with pytest.raises(
            InputError, match="expected a History with a finite loss, got 0 steps without one"
        ):
            plots.history(History(), ax)
        with pytest.raises(InputError, match="for each of 1 validation steps, got 0"):
            plots.history(History(loss=[1.0], validation_step=[1]), ax)
        with pytest.raises(InputError, match="expected limit to be a number, got 'low'"):
            plots.history(a_run(), ax, limit="low")
        assert not ax.lines


class TestSpectrum:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_draws_the_spreads_in_descending_order(self, ax, dtype):
        plots.spectrum(np.array([0.5, -1.0, 2.0, 0.0], dtype), ax, title="NICE")
        (line,) = ax.lines
        np.testing.assert_allclose(line.get_ydata(), np.exp([1.0, 0.0, -0.5, -2.0]), rtol=1e-6)
        assert line.get_xdata().tolist() == [1, 2, 3, 4]
        assert ax.get_yscale() == "log"
        assert ax.get_title() == "NICE"

    def test_the_scales_of_an_image_are_one_spectrum(self, ax):
        plots.spectrum(np.zeros((2, 2, 3)), ax)
        assert len(ax.lines[0].get_xdata()) == 12

    @pytest.mark.parametrize("option", [{"color": "red"}, {"c": "red"}])
    def test_takes_plot_options_and_draws_several(self, ax, option):
        plots.spectrum(np.zeros(3), ax)
        plots.spectrum(np.ones(3), ax, label="other", **option)
        assert [line.get_color() for line in ax.lines] == ["#0072B2", "red"]
        assert ax.lines[1].get_label() == "other"

    @pytest.mark.parametrize(
        ("bad", "sentence"),
        [
            (np.zeros(0), "at least one"),
            (np.arange(3) * 1j, "in float32 or float64, got complex"),
            (np.array([0.0, np.inf]), "to be finite, got inf"),
        ],
    )
    def test_bad_input(self, ax, bad, sentence):
        with pytest.raises(InputError, match=f"expected log_scale .*{sentence}"):
            plots.spectrum(bad, ax)
        assert not ax.lines


def test_the_jacobians_of_a_report_are_drawn_side_by_side_with_their_log_dets(figures):
    layer = AffineCoupling(MLP((4,), "tanh"))
    report = check(layer, rows(4, 4))
    axes = plots.jacobians(report)
    assert axes.shape == (2, 2)
    for row, direction in zip(axes, ("forward", "inverse")):
        found = report.jacobians[direction]
        np.testing.assert_array_equal(row[0].images[0].get_array(), found.numerical)
        np.testing.assert_array_equal(row[1].images[0].get_array(), found.exact)
        assert row[0].images[0].get_clim() == row[1].images[0].get_clim()
        assert f"{found.log_abs_det:.9f}" in row[0].get_title()
        assert f"{found.log_det:.9f}" in row[1].get_title()
    given = figures.subplots(2, 2)[1]
    assert plots.jacobians(report, given) is given


def test_axes_without_a_jacobian_say_so(figures):
    functions = (lambda x: (x, np.zeros(len(x))),) * 2
    axes = plots.jacobians(check_functions(*functions, rows(4, 3)))
    assert axes[0, 0].axison
    assert not axes[0, 1].axison
    assert "none to show" in axes[0, 1].get_title()


def test_arrays_on_a_device_are_drawn_like_those_on_the_host(figures, device):
    x = rows(20, 2)
    x_there = device.send(x)
    drawn = plots.samples(x_there).collections[0].get_offsets()
    np.testing.assert_array_equal(drawn, x)
    panel = np.ravel(plots.steps([x_there, device.send(2 * x)]))[0]
    np.testing.assert_array_equal(panel.collections[0].get_offsets(), x)
    np.testing.assert_array_equal(plots.spectrum(device.send(np.zeros(3))).lines[0].get_ydata(), np.ones(3))

    def images(send):
        density = plots.density(lambda points: send(-np.sum(points**2, axis=1)), resolution=20)
        grid = plots.grid(lambda points: send(2 * points), resolution=20)
        return density.images[0].get_array(), grid.collections[0].get_segments()

    for there, here in zip(images(device.send), images(np.asarray), strict=True):
        np.testing.assert_array_equal(there, here)


# ---------------------------------------------------------------- images


def test_images_are_side_by_side_with_a_line_between_them(ax):
    x = np.arange(2 * 4 * 3).reshape(2, 4, 3, 1) % 17
    assert plots.images(x, ax, levels=17, columns=2, title="two") is ax
    drawn = ax.images[0].get_array()
    assert drawn.shape == (4, 7)
    np.testing.assert_allclose(drawn[:, :3], x[0, ..., 0] / 16)
    np.testing.assert_allclose(drawn[:, 4:], x[1, ..., 0] / 16)
    assert drawn.mask[:, 3].all()
    assert ax.get_title() == "two"


def test_colour_images_are_transparent_where_there_is_no_image(ax):
    x = np.random.default_rng(0).integers(256, size=(3, 2, 2, 3), dtype=np.uint8)
    drawn = plots.images(x, ax).images[0].get_array()  # two rows of two, one place empty
    assert drawn.shape == (5, 5, 4)
    np.testing.assert_allclose(drawn[:2, 3:, :3], x[1] / 255)
    np.testing.assert_array_equal(drawn[3:, 3:], 0)
    np.testing.assert_array_equal(drawn[2, :, 3], 0)
    assert drawn[:2, :2, 3].all()


def test_a_table_of_images_keeps_its_rows_and_values_beyond_the_levels_are_clipped(ax):
    x = np.linspace(-1, 2, 2 * 3 * 4).reshape(2, 3, 2, 2, 1)
    drawn = plots.images(x, ax, levels=2).images[0].get_array()
    assert drawn.shape == (5, 8)
    assert (drawn.min(), drawn.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 4, 2), (0, 4, 4, 1), (1, 2, 3, 4, 5, 1)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="expected images of shape"):
        plots.images(np.zeros(shape))
    with pytest.raises(InputError, match="expected no columns for a table of 2 columns, got 3"):
        plots.images(np.zeros((2, 2, 4, 4, 1)), columns=3)
