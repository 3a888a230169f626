"""Densities the field needs and PyTorch and Pyro lack, one file each."""

import pyro_lvm.distributions.divergences  # noqa: F401  # importing registers them
from pyro_lvm.distributions.indexed_normal import IndexedNormal, component_log_prob
from pyro_lvm.distributions.one_hot import OneHotCategorical, StraightThrough
from pyro_lvm.distributions.reshaped import reshaped
from pyro_lvm.distributions.wishart import Wishart

__all__ = ["IndexedNormal", "OneHotCategorical", "StraightThrough", "Wishart", "component_log_prob", "reshaped"]
