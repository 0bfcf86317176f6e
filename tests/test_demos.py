"""The demos run with `--quick` and write their pictures and their summary; how well they learn is not tested."""

import itertools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

DEMOS = Path(__file__).parent.parent / "demos"
README = DEMOS.parent / "README.md"
PICTURES = runpy.run_path(str(DEMOS.parent / "benchmarks" / "readme.py"))

CHECKS = {}  # a check for each demo, beside those of all


def shows(name):
    """Add the check of a demo: a function of its folder, its summary and what it printed."""
    return lambda check: CHECKS.setdefault(name, check)


def run(name, folder, *arguments, **env):
    """Run a demo in a folder."""
    command = [sys.executable, str(DEMOS / f"{name}.py"), "--out", str(folder), *arguments]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads only slow small arrays down
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | one_thread | env
    )


@shows("affine")
def affine_learns_the_maximum_likelihood_values(out, summary, printed):
    assert summary["error"]["mu"] < 1e-3
    assert summary["error"]["sigma"] < 1e-3
    assert summary["error"]["mu"] > 0  # learned, not copied


@shows("moons")
def moons_computes_the_entropy_and_measures_both_priors(out, summary, printed):
    assert summary["entropy"] == pytest.approx(0.2892, abs=1e-4)
    assert summary["true_nll"] == pytest.approx(summary["entropy"], abs=4 * 0.0073)  # a mean of 10,000 points
    assert f"a loss of\n{summary['true_nll']:.3f} on these test points" in README.read_text()
    assert set(summary["priors"]) == {"normal", "mixture"}
    for row in summary["priors"].values():
        assert np.isfinite(row["test_nll"])
        assert row["test_nll"] > summary["entropy"]
        assert row["seconds"] > 0
        assert row["steps"] > 0


@shows("families")
def families_scores_each_on_densities_with_their_entropies_and_one_on_two_moons_beside_classics(
    out, summary, printed
):
    assert summary["densities"]["moons"]["entropy"] == pytest.approx(0.2892, abs=1e-4)
    for density in summary["densities"].values():
        assert {"affine", "Glow"} <= set(density["families"])
        for row in density["families"].values():
            assert row["above_true"] > 5 * row["standard_error"] > 0
            assert row["test_nll"] == pytest.approx(density["true_nll"] + row["above_true"], abs=1e-5)
            assert row["seconds"] > 0
    moons = summary["moons"]
    assert moons["family"] in summary["densities"]["moons"]["families"]
    assert len(moons["models"]) == 3
    assert all(row["above_true"] > 0 for row in moons["models"].values())
    assert "20 Gaussians" in printed


@shows("gaussianization")
def gaussianization_gains_by_steps_and_by_training(out, summary, printed):
    assert summary["entropy"] == pytest.approx(0.2892, abs=1e-4)
    rows = [*summary["iterative"].values(), summary["trained"]]
    for worse, better in itertools.pairwise(rows):
        assert better["above_true"] < worse["above_true"] - 10 * worse["standard_error"]
    for row in rows:
        assert row["test_nll"] == pytest.approx(summary["true_nll"] + row["above_true"], abs=1e-5)
        assert row["above_true"] > 5 * row["standard_error"] > 0
        assert row["seconds"] > 0


@shows("verify_jacobians")
def verify_jacobians_passes_every_layer_and_fails_the_wrong_formula(out, summary, printed):
    assert summary["passed"] is True
    assert summary["wrong_formula"]["passed"] is False
    assert all(errors["autograd"] < 1e-9 for errors in summary["layers"].values())
    assert "it is taken from the wrong values" in printed


@shows("museum")
def museum_names_the_cause_of_every_bug_and_passes_every_right_formula(out, summary, printed):
    names = {
        "scaling, backwards": "inverse has the opposite sign",
        "numerical inverse": "inverse has the opposite sign",
        "autoregressive, backwards": "inverse has the opposite sign",
        "a flow of layers, sampling": "inverse has the opposite sign",
        "spline behind a cache": "inverse has the opposite sign",
        "inverse behind a cache": "inverse(forward(x)) is not x, off by up to 0.0",
        "halves joined another way": "are halves taken and joined in the same way in both?",
        "planar, condition missed": "the two directions are not each other's inverse",
        "H W forgotten": "lacks the factor H W = 2",
        "summed over one axis": "one number for each row, got (32, 1, 2)",
        "two shapes, broadcast": "one number for each row, got (32, 32)",
        "summed over the batch": "a sum over it?",
        "overwritten, not added": "inverse leaves out that of layer 1 (AffineCoupling)",
        "Sylvester, in rows": "differently in each row: it is taken from the wrong values",
        "abs forgotten": "abs is missing under the log",
        "leaky ReLU, one side": "of 64 rows, and off by 0.121 nats in the others: a branch for some values is wrong",
        "spline, outside": "not finite in 16 of 64 rows (it raised ValueError",
        "tanh, far out": "the log_det of forward is -inf in float32",
    }
    assert set(summary) == set(names)
    for name, words in names.items():
        assert (name, summary[name]["wrong"], summary[name]["right"]) == (name, "failed", "passed")
        assert words in summary[name]["cause"]
    assert "off by 0.000 through the cache, by 0.028 with a copy of z" in printed


@shows("read_the_gradient")
def read_the_gradient_shows_a_formula_for_each_derivative_and_steps_through_them(out, summary, printed):
    assert summary["same_bits_as_autograd"] is True
    assert summary["along_a_direction"]["difference"] < 1e-9
    assert summary["workspace_bytes"] < summary["without_reuse_bytes"] / 2
    assert "grad_coupling_h = np.dot(grad_coupling_apply, layer_1_weight.T" in printed
    assert "(Pdb) (256, 1)" in printed  # the shape that the debugger printed


@shows("tabular")
def tabular_measures_every_estimator_on_every_table(out, summary, printed):
    assert set(summary) == {"digits", "breast_cancer", "wine"}
    for rows in summary.values():
        assert set(rows) >= {"kernel density", "mixture", "NICE", "RealNVP", "Glow", "MAF", "spline coupling"}
        for row in rows.values():
            assert np.isfinite([row["train_nll"], row["validation_nll"], row["test_nll"]]).all()
            assert row["standard_error"] > 0
            assert row["seconds"] > 0
    # A mixture is better than independent normal features, which have 1.42 nats each.
    assert summary["breast_cancer"]["mixture"]["test_nll"] < 30 * 1.42
    assert "bandwidth" in printed
    assert (out / "digits.png").exists()


@shows("vae_or_flow")
def vae_or_flow_has_a_likelihood_where_there_is_one_and_judges_all_by_their_samples(out, summary, printed):
    kinds, data = (
        ("flow", "VAE", "autoregressive", "GAN", "diffusion"),
        ("moons", "eight Gaussians", "digits"),
    )
    models = dict(summary["models"])
    truth = models.pop("digits training images")
    assert set(models) == {f"{name} {kind}" for name in data for kind in kinds}
    assert 0.4 < truth["told_apart"] < 0.6
    assert truth["coverage"] > 0.9
    assert truth["classes"] == pytest.approx(10, abs=0.1)
    assert summary["entropies"]["moons"] == pytest.approx(0.2892, abs=1e-4)
    for name, row in models.items():
        assert ("log_prob" in row) == (not name.endswith("GAN"))
        assert 0.4 < row["told_apart"] <= 1
        if name.endswith("VAE"):
            assert row["elbo"] < row["log_prob"]
        if "log_prob" in row and not name.startswith("digits"):
            entropy = summary["entropies"][name.rsplit(maxsplit=1)[0]]
            assert row["log_prob"] < -entropy + 3 * row["standard_error"]
    assert "told apart at best 50 %" in printed
    assert {path.stem for path in out.glob("*.png")} == {"planes", "digits"}


@shows("vae_flows")
def vae_flows_compares_the_same_images_under_each_model(out, summary, printed):
    assert {"plain", "IAF posterior", "planar posterior", "flow prior", "both"} <= set(summary["models"])
    for name, row in summary["models"].items():
        assert row["elbo"]["mean"] < row["bound"]["mean"]
        for kind in ("elbo", "bound"):
            assert len(row[kind]["gain_of_each_split"]) == summary["splits"]
            if name != "plain":
                assert row[kind]["standard_error"] > 0
    for estimates in summary["estimates"].values():
        assert np.isfinite(estimates).all()
    assert {path.stem for path in out.glob("*.png")} == {"gains", "codes", "posteriors"}


@shows("super_resolution")
def super_resolution_gives_answers_that_keep_what_is_given(out, summary, printed):
    assert summary["shrinks_to_given"] < 1e-6
    assert summary["photographs_shrink_to_given"] < 1e-5
    assert summary["half_kept"] < 1e-6
    digits, photographs = summary["bits_per_dim"].values()
    assert set(digits) == {"whole digit", "given 4 x 4 pixels", "given the upper half"}
    for table in (digits, photographs):
        for row in list(table.values())[1:]:
            assert row["less"] > row["less_standard_error"] > 0
    quality = summary["quality"]
    assert quality["true digit"]["right"] > 0.95
    assert quality["mean of eight answers"]["squared_error"] < quality["answer"]["squared_error"]
    assert {path.stem for path in out.glob("*.png")} == {
        "details",
        "answers",
        "halves",
        "photographs",
        "bits",
    }


@shows("latent_arithmetic")
def latent_arithmetic_adds_mixes_and_carries_over(out, summary, printed):
    assert summary["judge_accuracy"] > 0.95
    for shares in summary["attributes"].values():
        assert shares["0.0"] < 0.1 < 0.5 < shares["1.0"]  # the flow is still almost linear
    for row in summary["log_likelihoods_as_target"].values():
        assert np.isfinite(list(row.values())).all()
    assert summary["moons_to_circles"]["there_and_back"] < 1e-2
    assert summary["log_volumes"]["principal components"] < summary["log_volumes"]["pixels"]
    assert "3s classified 8" in printed
    assert len(list(out.glob("*.png"))) == 5


@shows("faces")
def faces_measures_the_smile_and_what_else_moves(out, summary, printed):
    ways = {"in z", "in z, by least squares", "in pixels", "by two flows", "drawn smiling"}
    assert set(summary["edits"]) == ways
    for name, row in summary["edits"].items():
        assert np.isfinite(list(row.values())).all()
        assert (row["error at the mouth"] == 0) == (name == "drawn smiling")
    assert summary["edits"]["drawn smiling"]["smile, mean"] > 0.5  # measured by a regression on few faces
    assert summary["bits_per_dim"] > summary["bits_of_the_noise"] == pytest.approx(4.369, abs=1e-3)
    together = summary["from a set where smiles and glasses go together"]
    assert abs(together["least squares"]["glasses"]) < together["difference of means"]["glasses"]
    assert {path.stem for path in out.glob("*.png")} == {"faces", "edited", "strength", "together"}


@shows("translate")
def translate_measures_what_arrives_and_what_is_kept(out, summary, printed):
    digits = summary["digits"]
    assert set(digits) > {"one conditional flow", "two flows from one", "two flows", "the nearest B"}
    assert digits["the nearest B"]["arrived"] > 0.9 < digits["any B"]["arrived"]
    assert digits["the nearest B"]["moved"] < digits["any B"]["moved"]
    faces = summary["faces"]["ways"]
    assert faces["drawn with glasses"]["error at glasses"] == 0
    assert faces["drawn with glasses"]["arrived"] > 0.5  # measured by a regression on few faces
    assert summary["photographs"] == {}  # which the quick form has none of
    assert {path.stem for path in out.glob("*.png")} == {"digits", "faces"}
    assert "arrived" in printed


@shows("pixelcnn")
def pixelcnn_counts_bits_and_what_is_out_of_sight(out, summary, printed):
    assert summary["uniform_bits"] == pytest.approx(np.log2(17))
    assert set(summary["bits"]) == {"train", "validation", "test"}
    for row in summary["bits"].values():
        assert 0 < row["bits_per_dim"] < summary["uniform_bits"]  # it has begun to learn
        assert row["standard_error"] > 0
    # 156 of 15 x 15 pixels are before row 10, column 6, and one 3 x 3 kernel sees four of them. Ten blocks see all
    # but those further to the right than up, 7 + 6 + ... + 1 pixels. A large kernel sees some of these.
    sight = summary["out_of_sight"]
    assert sight["3 x 3 and 0 blocks"] == 156 - 4
    assert sight["3 x 3 and 10 blocks"] == 28
    assert sight["7 x 7 and 3 blocks"] < sight["3 x 3 and 3 blocks"]
    assert summary["called_as_asked"]["test"] > 0.95
    assert {path.stem for path in out.glob("*.png")} == {
        *("masks", "sight", "history", "bits", "samples", "completions")
    }
    assert "independent pixels" in printed


@shows("digits")
def digits_counts_the_bits_of_every_model_of_images_with_and_without_the_class(out, summary, printed):
    assert summary["uniform_bits"] == pytest.approx(np.log2(17))
    assert set(summary["models"]) == {"independent pixels", "NICE", "RealNVP", "Glow", "MintNet", "PixelCNN"}
    for name, rows in summary["models"].items():
        assert set(rows) == {"any digit", "given the class"} - (
            {"given the class"} if name == "MintNet" else set()
        )
        for row in rows.values():
            assert 0 < row["test"] < 4.5  # a new model is no better than uniform
            assert row["standard_error"] > 0
            assert (name == "independent pixels") or row["parameters"] > 0
    independent = summary["models"]["independent pixels"]
    assert independent["given the class"]["test"] < independent["any digit"]["test"] < 2.5
    assert summary["judge_accuracy"] > 0.95
    for shares in summary["attributes"].values():
        assert shares["0.0"] < 0.1 < 0.5 < shares["1.0"]  # the flow is still almost linear
    assert {path.stem for path in out.glob("*.png")} == {"bits", "samples", "attributes", "interpolation"}
    assert "given the class" in printed


@shows("cifar10")
def cifar10_takes_z_apart_by_levels_whose_bits_add_up(out, summary, printed):
    assert summary["data"] == "patches"
    bits = summary["bits_per_dim"]
    levels = summary["levels"].values()
    assert sum(level["numbers"] for level in levels) == 8 * 8 * 3
    assert summary["joined_again"] is True
    total = 8 + sum(level["bits_per_dim"] for level in levels) + summary["log_det_bits"]
    assert total == pytest.approx(bits["test"], abs=1e-4)
    assert 0 < bits["test"] < summary["uniform_bits"]  # it has begun to learn
    assert summary["reconstruction"]["changed_numbers"] == 0
    assert summary["reconstruction"]["largest_error"] < 0.01
    spread = list(summary["spread_of_samples"].values())
    assert spread == sorted(spread)  # by temperature
    assert {path.stem for path in out.glob("*.png")} == {
        *("history", "samples", "there_and_back", "interpolation", "levels")
    }
    assert "there and back" in printed


@shows("mintnet")
def mintnet_is_triangular_and_its_iteration_converges(out, summary, printed):
    assert summary["bits"]["test"]["bits_per_dim"] < summary["uniform_bits"] - 1  # it has begun to learn
    assert summary["bits"]["test"]["standard_error"] > 0
    triangular = summary["triangular"]
    assert triangular["above_the_diagonal"] == triangular["below_the_diagonal"] == 0
    assert triangular["smallest_on_the_diagonals"] > 0
    by_alpha = summary["convergence"]["steps_to_1e-10_by_alpha"]
    assert set(by_alpha) == {"0.5", "0.8", "1", "1.2", "1.5"}
    assert by_alpha["1"] < by_alpha["0.8"]
    by_layer = summary["convergence"]["steps_to_1e-10_by_layer"]
    assert len(by_layer) == 8
    assert max(by_layer.values()) < 30
    assert summary["reconstruction"]["double"] < 1e-10 < summary["reconstruction"]["single"] < 1e-2
    assert "there and back in double precision" in printed
    pictures = {"history", "samples", "jacobians", "convergence", "reconstruction"}
    assert {path.stem for path in out.glob("*.png")} == pictures


@shows("residual_flow")
def residual_flow_estimates_log_dets_without_bias_and_finds_its_way_back(out, summary, printed):
    assert summary["plane"]["test_nll"] > summary["plane"]["true_nll"]
    four = summary["log_dets"]
    assert set(four) == {"exact", "spectral radius", "series", "Hutchinson", "roulette"}
    assert abs(four["series"]["8"]) < abs(four["series"]["1"])
    for row in [*four["roulette"].values(), four["Hutchinson"]["8"]]:
        assert abs(row["bias"] - (0 if "terms" in row else four["series"]["8"])) < 4 * row["standard_error"]
        assert row["deviation"] > 0
    exact, estimated = (summary["digits"][f"{name} log-dets"] for name in ("exact", "estimated"))
    assert exact["bits_per_dim"] == pytest.approx(estimated["bits_per_dim"], abs=0.02)
    assert summary["there_and_back"]["moons, double"] < 1e-12
    assert summary["there_and_back"]["digits, double"] < 1e-10
    memory = summary["memory"]
    assert len(set(memory["a constant w"].values())) == 1  # does not grow with the terms
    assert memory["all terms kept"]["16"] > 2 * memory["all terms kept"]["2"]
    assert "roulette, 1 and more" in printed
    assert {path.stem for path in out.glob("*.png")} == {"moons", "digits", "log_dets", "inverse"}


@shows("distillation")
def distillation_measures_both_divergences_and_how_much_faster_the_student_is(out, summary, printed):
    assert set(summary["moons"]) == {"distilled", "fitted to samples"}
    assert set(summary["features"]) == {"8", "64", "256"}
    for row in summary["features"].values():
        for name in ("student_teacher", "teacher_student", "data_teacher", "data_student"):
            mean, error = row[name]
            assert mean > -4 * error
            assert error > 0
    assert summary["features"]["256"]["times_faster"]["1"] > 3
    assert "KL(student||teacher)" in printed


@shows("reverse_kl")
def reverse_kl_estimates_log_z_with_its_error_and_loses_modes_from_a_bad_start(out, summary, printed):
    assert set(summary["modes"]) == {"moons", "eight_gaussians"} == set(summary["densities"])
    for row in summary["modes"].values():
        assert set(row) == {"without stages", "by stages"}
    for families in summary["densities"].values():
        assert set(families) == {"spline coupling", "RealNVP"}
        for row in families.values():
            assert 0 < row["effective_sample_size"] <= 1
            assert row["standard_error"] > 0
            assert row["seconds"] > 0
    regression = summary["regression"]
    assert len(regression["coefficients"]) == 6
    assert set(regression["evidence"]) == {"flow", "Laplace"}
    # The start of the flow is Laplace's approximation, whose weights are far from useless.
    difference = regression["evidence"]["flow"]["log_z"] - regression["evidence"]["Laplace"]["log_z"]
    errors = [row["standard_error"] for row in regression["evidence"].values()]
    assert abs(difference) < 5 * np.hypot(*errors)
    for row in regression["posterior"].values():
        assert (np.array(row["std"]) > 0).all()
    assert "effective sample size" in printed
    assert {path.stem for path in out.glob("*.png")} == {"modes", "densities", "regression"}


@shows("flow_matching")
def flow_matching_has_exact_likelihoods_and_samples_by_steps(out, summary, printed):
    assert summary["entropy"] == pytest.approx(0.2892, abs=1e-4)
    assert set(summary["trained_by"]) == {"straight", "diffusion", "likelihood"}
    for row in summary["trained_by"].values():
        assert row["test_nll"] == pytest.approx(summary["true_nll"] + row["above_true"], abs=1e-4)
        assert row["above_true"] > 5 * row["standard_error"] > 0
    assert set(summary["samples_by_steps"]) == {"straight, Euler", "diffusion, Euler", "diffusion, DDPM"}
    for costs in summary["samples_by_steps"].values():
        assert len(costs) == 7
        assert np.isfinite(list(costs.values())).all()
    assert {path.stem for path in out.glob("*.png")} == {"paths", "steps", "densities"}


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("name", sorted(path.stem for path in DEMOS.glob("*.py")))
def test_a_demo_writes_pictures_and_a_summary_and_prints_a_table(
    name, tmp_path, monkeypatch, capsys, request
):
    # In this process, which has loaded what takes a third of a short demo: scikit-learn and matplotlib.
    from matplotlib import pyplot
    from matplotlib.image import imread

    monkeypatch.chdir(tmp_path)
    request.addfinalizer(matplotlib.rcdefaults)  # a demo sets the style
    monkeypatch.setattr(sys, "argv", [name, "--out", str(tmp_path), "--quick"])
    runpy.run_path(str(DEMOS / f"{name}.py"), run_name="__main__")
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    printed = capsys.readouterr().out
    pictures = list(tmp_path.glob("*.png"))
    assert pictures
    assert all(np.ptp(imread(picture)) > 0.5 for picture in pictures)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary
    assert len(printed.splitlines()) >= 4
    CHECKS[name](tmp_path, summary, printed)
    # A notebook shows the figures that a cell leaves open, if they have axes.
    assert figures
    assert all(figure.axes for figure in figures)
    if (DEMOS / f"{name}.png").exists():
        kept, now = PICTURES["kept"](DEMOS / f"{name}.png"), PICTURES["shows"](figures, summary)
        stale = f"demos/{name}.png is stale: {PICTURES['remedy'](DEMOS / f'{name}.png')}"
        assert kept["texts"] == now["texts"], stale
        assert kept["numbers"] == pytest.approx(now["numbers"], rel=1e-3, abs=1e-3), stale


@pytest.mark.parametrize("picture", sorted(DEMOS.glob("*.png")), ids=lambda path: path.stem)
def test_a_picture_was_drawn_by_the_code_of_today_and_names_no_date_or_machine(picture):
    from PIL import Image

    assert not PICTURES["stale"](picture), PICTURES["remedy"](picture)
    with Image.open(picture) as image:
        assert set(image.info) == {"Shows"}


def test_a_digest_changes_with_code_and_not_with_comments(tmp_path):
    picture, demo = tmp_path / "moons.png", tmp_path / "moons.py"

    def digest(text):
        demo.write_text(text)
        return PICTURES["digest"](picture)

    code = (DEMOS / "moons.py").read_text()
    today = digest(code)
    assert today == PICTURES["digest"](DEMOS / "moons.png")
    assert digest(code.replace("# ## Data", "# ## The data")) == today
    assert digest(code.replace("NOISE = 0.05", "NOISE = 0.06")) != today
    assert (
        digest(code + "\nplots.jacobian(np.eye(2))\n")
        != digest(code + "\nplots.spectrum(np.eye(2))\n")
        != today
    )


def test_the_cifar10_demo_refuses_a_damaged_archive(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"damaged")
    result = run("cifar10", tmp_path, NPFLOW_DATA=str(archive))
    assert result.returncode == 1
    assert result.stderr.startswith(f"{archive}: expected a .tar.gz, got")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--quick", "--path", "."], 1, "expected CIFAR-10 at ., got nothing there"),
        (["--minutes", "0"], 2, "expected --minutes above 0 and below 1000000, got 0"),
        (["--minutes", "inf"], 2, "expected --minutes above 0 and below 1000000, got inf"),
    ],
)
def test_the_cifar10_demo_refuses_a_path_without_it_and_no_time(arguments, status, sentence, tmp_path):
    result = run("cifar10", tmp_path, *arguments)
    assert result.returncode == status
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda path: path.stem)
def test_a_demo_is_made_of_cells_with_prose_between(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# %% [markdown]"
    assert sum(line == "# %% [markdown]" for line in lines) >= 3
    assert sum(line == "# %%" for line in lines) >= 3
