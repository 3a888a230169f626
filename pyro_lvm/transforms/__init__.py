"""Bijections that zuko and Pyro lack or get wrong, one file each."""

from pyro_lvm.transforms.autoregressive import AutoregressiveTransform, autoregressive
from pyro_lvm.transforms.bijection import Bijection
from pyro_lvm.transforms.householder import HouseholderTransform, orthogonal_matrix
from pyro_lvm.transforms.orthonormal import orthonormal
from pyro_lvm.transforms.planar import PlanarTransform
from pyro_lvm.transforms.sylvester import SylvesterTransform

__all__ = [
    "AutoregressiveTransform",
    "Bijection",
    "HouseholderTransform",
    "PlanarTransform",
    "SylvesterTransform",
    "autoregressive",
    "orthogonal_matrix",
    "orthonormal",
]
