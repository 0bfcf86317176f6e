"""Networks: functions with parameters that condition layers. They need no inverse."""

from npflow.networks.convnet import ConvNet, ResNet
from npflow.networks.made import MADE
from npflow.networks.mlp import MLP
from npflow.networks.network import Beside, Network
from npflow.networks.pixelcnn import MaskedConvNet

__all__ = ["MADE", "MLP", "Beside", "ConvNet", "MaskedConvNet", "Network", "ResNet"]
