"""Networks: building blocks that take any number of leading dimensions, because particles add one on the left."""

from pyro_lvm.networks.convolutional import (
    ConvolutionalBlock,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ConvolutionalNet,
    Upsampling,
)
from pyro_lvm.networks.downscale import Downscale
from pyro_lvm.networks.fourier import FourierFeatures, TimeEmbedding
from pyro_lvm.networks.made import MADE
from pyro_lvm.networks.mlp import MLP
from pyro_lvm.networks.residual import ResidualBlock
from pyro_lvm.networks.time_mlp import TimeMLP
from pyro_lvm.networks.unet import UNet

__all__ = [
    "MADE",
    "MLP",
    "ConvolutionalBlock",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalNet",
    "Downscale",
    "FourierFeatures",
    "ResidualBlock",
    "TimeEmbedding",
    "TimeMLP",
    "UNet",
    "Upsampling",
]
