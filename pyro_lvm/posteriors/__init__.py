"""Posteriors q(z | x): encoders, modules that take x (..., *data_shape) and return a distribution over z (..., M)."""

from pyro_lvm.posteriors.dequantized import Dequantized
from pyro_lvm.posteriors.diagonal_normal import DiagonalNormal
from pyro_lvm.posteriors.full_normal import FullNormal
from pyro_lvm.posteriors.householder_flow import HouseholderFlow
from pyro_lvm.posteriors.inverse_autoregressive import InverseAutoregressive
from pyro_lvm.posteriors.low_rank_normal import LowRankNormal
from pyro_lvm.posteriors.one_hot import GumbelSoftmax, OneHot
from pyro_lvm.posteriors.planar_flow import PlanarFlow
from pyro_lvm.posteriors.spherical import PowerSpherical, VonMisesFisher
from pyro_lvm.posteriors.sylvester import HouseholderSylvester, OrthogonalSylvester, TriangularSylvester

__all__ = [
    "Dequantized",
    "DiagonalNormal",
    "FullNormal",
    "GumbelSoftmax",
    "HouseholderFlow",
    "HouseholderSylvester",
    "InverseAutoregressive",
    "LowRankNormal",
    "OneHot",
    "OrthogonalSylvester",
    "PlanarFlow",
    "PowerSpherical",
    "TriangularSylvester",
    "VonMisesFisher",
]
