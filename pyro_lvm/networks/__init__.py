"""Networks: building blocks that take any number of leading dimensions, because particles add one on the left."""

from pyro_lvm.networks.made import MADE
from pyro_lvm.networks.mlp import MLP

__all__ = ["MADE", "MLP"]
