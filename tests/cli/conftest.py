"""Runs that the tests of the commands share."""

import pytest

from npflow.cli import main


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of small runs of 20 steps: of flows, conditional or given a part of the image, and a model that is no flow."""
    folder = tmp_path_factory.mktemp("runs")
    nice = ["nice", "--couplings", "2", "--channels", "4", "--blocks", "1"]
    pixelcnn = ["pixelcnn", "--features", "4", "--blocks", "1"]
    of_parts = ["--steps-per-halving", "1"], ["--levels", "1", "--steps-per-level", "1"]
    upscale, complete = (
        [name, "--channels", "4", *more] for name, more in zip(("upscale", "complete"), of_parts)
    )
    models = {"upscale": upscale, "complete": complete}
    models |= {"flow": nice, "conditional": [*nice, "--conditional"], "pixelcnn": pixelcnn}
    for name, model in models.items():
        assert main(["train", *model, "--steps", "20", "--out", str(folder / name)]) == 0
    return folder
