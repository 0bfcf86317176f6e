"""Runs that the tests of the commands share."""

import pytest

from npflow.cli import main


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of small runs of 20 steps: of a flow, a conditional flow, and a model that is not a flow."""
    folder = tmp_path_factory.mktemp("runs")
    nice = ["nice", "--couplings", "2", "--channels", "4", "--blocks", "1"]
    pixelcnn = ["pixelcnn", "--features", "4", "--blocks", "1"]
    models = {"flow": nice, "conditional": [*nice, "--conditional"], "pixelcnn": pixelcnn}
    for name, model in models.items():
        assert main(["train", *model, "--steps", "20", "--out", str(folder / name)]) == 0
    return folder
