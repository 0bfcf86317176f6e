"""The page to step through a flow, in Chromium: clicked, slid, and compared with npflow.

The browser is driven by its own driver, over HTTP, which needs no library beside the standard one.
"""

import json
import re
import shutil
import subprocess
import urllib.request

import numpy as np
import pytest
from helpers import perturbed, rows

from npflow import Flow
from npflow.autodiff import value_and_grad
from npflow.layers import ActNorm
from npflow.models import glow
from npflow.networks import MLP
from npflow.plots import step_page
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

PROGRAMS = [
    next(filter(None, map(shutil.which, names)), None)
    for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
]
pytestmark = pytest.mark.skipif(
    None in PROGRAMS, reason="no Chromium and its driver: apt-get install chromium chromium-driver"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of a reference, by the standard of WebDriver
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine
KEYS = {
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "ArrowLeft": "\ue012",
    "Home": "\ue011",
    "End": "\ue010",
}


class Browser:
    """A session of headless Chromium."""

    def __init__(self):
        chromium, driver = PROGRAMS
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        ports = (re.search(r"started successfully on port (\d+)", line) for line in self.driver.stdout)
        self.address = f"http://127.0.0.1:{next(filter(None, ports))[1]}/session"
        options = {"binary": chromium, "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.post("", capabilities={"alwaysMatch": wanted})["sessionId"]
        self.address += f"/{session}"

    def post(self, command, **body):
        """The answer to a command."""
        request = urllib.request.Request(self.address + command, json.dumps(body).encode(), method="POST")
        with LOCAL.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def close(self):
        """End the browser and its driver."""
        with LOCAL.open(urllib.request.Request(self.address, method="DELETE"), timeout=60):
            pass
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()

    def open(self, path, width=1280, height=900, theme="light"):
        """Show a page at a size of the window, in a theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        for command, parameters in (("setDeviceMetricsOverride", size), ("setEmulatedMedia", media)):
            self.post("/goog/cdp/execute", cmd=f"Emulation.{command}", params=parameters)
        self.post("/url", url=path.as_uri())

    def run(self, script):
        """What a script returns."""
        return self.post("/execute/sync", script=script, args=[])

    def text(self, selector):
        """The text of an element."""
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent")

    def numbers(self, selector):
        """The numbers of an element, which are separated by commas."""
        return [float(number) for number in self.text(selector).split(",")]

    def click(self, selector, left=None, top=None):
        """Click the middle of an element, or a place in it."""
        found = self.post("/element", using="css selector", value=selector)
        box = f"const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        width, height = self.run(f"{box} return [box.width, box.height]")
        x, y = (0, 0) if left is None else (left - width / 2, top - height / 2)
        steps = [
            {
                "type": "pointerMove",
                "origin": {ELEMENT: found[ELEMENT]},
                "x": round(x),
                "y": round(y),
                "duration": 0,
            },
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self.post("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": steps}])

    def press(self, key):
        """Press a key."""
        steps = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
        self.post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": steps}])

    def complaints(self):
        """What the console has shown since the last call."""
        return self.post("/se/log", type="browser")


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A Glow in the plane, its parameters, its points and its page."""
    flow, x = glow(2, steps=2, network=MLP((9,), "tanh")), rows(40, 2)
    params = perturbed(flow, x)
    return flow, params, x, step_page(flow, params, x, tmp_path_factory.mktemp("pages") / "plane.html")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A conditional Glow in five dimensions, its parameters, its points, their classes and its page."""
    flow, x, labels = (
        glow(5, steps=1, network=MLP((4,), "tanh"), context_features=2),
        rows(30, 5),
        np.arange(30) % 2,
    )
    params = perturbed(flow, x, labels)
    return (
        flow,
        params,
        x,
        step_page(flow, params, x, tmp_path_factory.mktemp("pages") / "space.html", labels),
    )


def six(array):
    """Numbers as they are printed, to six digits."""
    return [float(f"{value:.6g}") for value in np.ravel(array).tolist()]


def click_point(browser, row):
    """Click a point where the picture shows it; return the row that the page has chosen."""
    left, top = browser.run(f"return pointAt(view(), get('plot').clientWidth, {row})")
    browser.click("#plot", left + 1, top + 1)  # the border is a pixel wide
    return browser.run("return state.row")


def test_ten_clicked_points_have_the_numbers_of_the_library_at_every_layer(browser, plane):
    flow, params, x, path = plane
    browser.open(path)
    traced = flow.layer.trace(params["layer"], x)
    inputs = [x, *(step.output for step in traced)]
    totals = np.cumsum([step.log_det for step in traced], axis=0)
    log_prob, last = flow.log_prob(params, x), len(traced)
    gaps = np.linalg.norm(x[:, None] - x, axis=-1) + 10 * np.eye(len(x))
    inside = np.all(np.abs(x - np.median(x, axis=0)) < 1.5, axis=1)
    alone = [row for row in np.argsort(-gaps.min(axis=1)) if inside[row]][:10]
    assert len(alone) == 10
    for row in alone:
        browser.run("go(0)")
        assert click_point(browser, row) == row
        assert browser.text("#point h2").startswith(f"Point {row}")
        assert browser.numbers("#value-x") == six(x[row])
        assert browser.numbers("#value-z") == six(inputs[-1][row])
        assert browser.numbers("#value-log-prob") == browser.numbers("#total") == six(log_prob[row])
        prior = flow.prior.log_prob({}, inputs[-1][row : row + 1])
        assert browser.numbers("#prior") == six(prior)
        for k, layer in enumerate(flow.layer.layers):
            browser.press("ArrowRight")
            assert browser.run("return state.t") == k + 1
            assert type(layer).__name__ in browser.text("#layer h2")
            assert browser.numbers("#log-det") == six(traced[k].log_det[row])
            shown = browser.run(
                "return [...document.querySelectorAll('#matrix td')].map((cell) => cell.textContent)"
            )
            forward = lambda x, layer=layer, k=k: layer.forward(params["layer"][k], x)[0]
            assert [float(entry) for entry in shown] == six(by_autograd(forward, inputs[k])[row])
            if k + 1 < last:
                assert browser.numbers("#value-now") == six(traced[k].output[row])
            line = browser.run(
                "return [...document.querySelectorAll('#layers tr.now td')].map((cell) => cell.textContent)"
            )
            assert [float(number) for number in line[1:]] == six([traced[k].log_det[row], totals[k, row]])
    assert browser.complaints() == []


def test_the_slider_says_what_is_interpolated(browser, plane):
    flow, params, x, path = plane
    browser.open(path)
    slide = (
        "get('slider').value = {}; get('slider').dispatchEvent(new Event('input'));"
        "return get('between').textContent"
    )
    traced = flow.layer.trace(params["layer"], x)
    assert browser.run(slide.format(1)) == ""
    place = browser.run("return pointAt(view(), 100, 3)")
    assert browser.run(slide.format(2)) == ""
    assert browser.run(slide.format(1.5)) == "interpolated"
    assert browser.text("#place") == "in 1 ActNorm"
    assert browser.numbers("#value-now") == six(traced[1].output[0])  # the layer's, not one between
    browser.click("#back")
    assert browser.run("return [state.t, get('between').textContent]") == [1, ""]
    assert browser.run("return pointAt(view(), 100, 3)") == place
    browser.run("go(7)")
    assert browser.text("#place") == "at z, after 6 Conv1x1"
    assert browser.run("return get('on').disabled")
    assert browser.complaints() == []


def test_the_keyboard_goes_through_layers_and_points(browser, plane):
    browser.open(plane[-1])
    browser.click("#plot", 3, 3)
    start = browser.run("return state.row")
    for key, expected in (
        ("ArrowUp", [0, start + 1]),
        ("ArrowDown", [0, start]),
        ("ArrowRight", [1, start]),
        ("ArrowLeft", [0, start]),
        ("End", [7, start]),
        ("Home", [0, start]),
    ):
        browser.press(key)
        assert browser.run("return [state.t, state.row]") == expected
    assert browser.complaints() == []


def shown_value(browser, name):
    """The value of a line of the program, where it is shown."""
    return browser.run(
        "const line = data.program.lines.findIndex((one) => one[1].startsWith(arguments[0]));".replace(
            "arguments[0]", json.dumps(f"{name} = ")
        )
        + "return document.querySelector(`[data-line='${line}'] .value`).textContent"
    )


def test_the_program_shows_the_values_and_gradients_of_a_marked_point(browser, plane):
    flow, params, x, path = plane
    browser.open(path)
    browser.run("go(3)")
    for number, row in enumerate(browser.run("return data.marked")[:3]):
        browser.click(f"#marks button:nth-of-type({number + 1})")
        assert browser.run("return state.row") == row
        _, gradient = value_and_grad(flow.loss)(params, x[row : row + 1])
        bias = gradient["layer"][2][0]["bias"]  # nine numbers
        listed, least, largest = re.fullmatch(
            r"(.*), \.\.\. least (.*), largest (.*)", shown_value(browser, "grad_layer02_0_bias")
        ).groups()
        assert [float(number) for number in listed.split(",")] == six(bias[:8])
        assert [float(least), float(largest)] == six([bias.min(), bias.max()])
        z_b = flow.layer.trace(params["layer"], x)[2].output[row, 1]
        np.testing.assert_allclose(float(shown_value(browser, "layer02_coupling_z_b")), z_b, rtol=1e-5)
    other = next(row for row in range(len(x)) if row not in browser.run("return data.marked"))
    browser.run(f"choose({other})")
    assert "is not marked" in browser.text("#whose")
    assert shown_value(browser, "layer02_coupling_z_b") == ""
    visible = "return [...document.querySelectorAll('details')].filter((one) => !one.hidden).length"
    few = browser.run(visible)
    browser.click("#all")
    assert browser.run(visible) > few
    assert browser.complaints() == []


def test_more_dimensions_have_a_heat_map_and_a_choice_of_components(browser, space):
    flow, params, x, path = space
    browser.open(path)
    browser.run("go(3); choose(4)")
    cells = browser.run("return [...document.querySelectorAll('#matrix td')].map((cell) => cell.textContent)")
    context = np.eye(2)[np.arange(30) % 2]
    into = flow.layer.trace(params["layer"], x, context)[1].output
    forward = lambda x: flow.layer.layers[2].forward(params["layer"][2], x, context)[0]
    assert [float(cell) for cell in cells] == six(by_autograd(forward, into)[4])
    assert not browser.run("return document.querySelector('#layer svg')")
    before = browser.run("return pointAt(view(), 100, 4)")
    browser.run(
        "const select = document.querySelector('#axes select'); select.value = 3;"
        "select.dispatchEvent(new Event('change'))"
    )
    assert browser.run("return pointAt(view(), 100, 4)") != before
    assert browser.numbers("#value-context") == [1, 0]
    assert browser.complaints() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_phone_and_a_dark_theme(browser, plane, space, width, theme):
    colors = set()
    for path in (plane[-1], space[-1]):
        browser.open(path, width, 844, theme)
        for t in (0, 3, 7):
            browser.run(f"go({t})")
            assert browser.run("return document.documentElement.scrollWidth") <= width
        colors.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert colors == {{"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[theme]}
    browser.open(plane[-1], width, 844, theme)
    row = int(np.argmin(np.linalg.norm(plane[2] - np.median(plane[2], axis=0), axis=1)))
    assert click_point(browser, row) == row
    assert browser.complaints() == []


@pytest.mark.parametrize(("points", "unit"), [([[1, 2], [3, 5]], 1e-150), ([[1, 2]], 1e17)])
def test_points_in_any_unit_are_drawn(browser, tmp_path, points, unit):
    """toFixed takes at most 100 digits, and around 1e17 the next tick is the same number."""
    flow, x = Flow(ActNorm(), Normal(2)), np.array(points) * unit
    params = {"layer": {"bias": np.zeros(2), "log_scale": np.zeros(2)}, "prior": {}}
    browser.open(step_page(flow, params, x, tmp_path / "page.html"))
    assert browser.numbers("#value-x") == six(x[0])
    browser.press("ArrowRight")
    assert browser.numbers("#value-z") == six(x[0])
    assert browser.complaints() == []


def test_a_jacobian_that_is_not_finite_has_no_parallelogram(browser, tmp_path):
    flow, x = Flow(ActNorm(), Normal(2)), rows(4, 2)
    params = {"layer": {"bias": np.zeros(2), "log_scale": np.array([800.0, 0.0])}, "prior": {}}
    browser.open(step_page(flow, params, x, tmp_path / "page.html"))
    browser.press("ArrowRight")
    assert browser.text("#matrix td") == "inf"
    assert not browser.run("return document.querySelector('#layer svg')")
    assert browser.complaints() == []
