"""Densities the field needs and PyTorch and Pyro lack, one file each."""

from pyro_lvm.distributions.reshaped import reshaped
from pyro_lvm.distributions.wishart import Wishart

__all__ = ["Wishart", "reshaped"]
