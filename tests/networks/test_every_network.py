"""Every network, on every device. A new network is tested once it is listed in `NETWORKS`."""

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from helpers import assert_agrees

from npflow import networks, to_device
from npflow.autodiff import Layout, tree, value_and_grad
from npflow.networks import MADE, MLP, Beside, ConvNet, MaskedConvNet, ResNet
from npflow.networks.mlp import ACTIVATIONS

NETWORKS = {f"MLP {activation}": MLP((5, 7), activation) for activation in ACTIVATIONS}
NETWORKS["MLP squashed"] = MLP((5,), "tanh", squash_inputs=True)
NETWORKS["MADE"] = MADE((8, 5), "tanh", "reversed")
NETWORKS["ConvNet"] = ConvNet((5, 4), (3, 1, 5))
NETWORKS["ResNet"] = ResNet(channels=5, blocks=2)
NETWORKS["MaskedConvNet"] = MaskedConvNet(3, blocks=1, kernel=3, head=(5,))
NETWORKS["Beside"] = Beside(log_scale=MLP((4,), "tanh"), shift=MLP((5, 3), "relu"))
ROWS, IMAGES = (6, 3), (2, 3, 2, 3)
SHAPES = dict.fromkeys(NETWORKS, (ROWS, IMAGES)) | {"MADE": (ROWS,)}
SHAPES |= dict.fromkeys(("ConvNet", "ResNet", "MaskedConvNet"), (IMAGES,))


def test_every_network_is_listed():
    listed = {type(network).__name__ for network in NETWORKS.values()}
    assert listed == set(networks.__all__) - {"Network"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name, shapes in SHAPES.items() for shape in shapes],
)
def test_on_a_device_it_equals_the_host_and_transfers_nothing(name, shape, dtype, device):
    network, rng = NETWORKS[name], np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    params = network.init(rng, x, outputs=6)
    layout = Layout(params)
    params = layout.unpack(layout.pack(params) + 0.1 * rng.standard_normal(layout.size).astype(dtype), params)

    def everything(params, x):
        value, gradient = value_and_grad(lambda p: anp.sum(anp.sin(network.apply(p["network"], p["x"]))))(
            {"network": params, "x": x}
        )
        return network.apply(params, x), value, [leaf for _, leaf in tree.items(gradient)]

    arguments = to_device((params, x), device.name)
    everything(*arguments)  # the first call sends masks
    with stand_in.counted() as transfers:
        there = everything(*arguments)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, there, everything(params, x))
