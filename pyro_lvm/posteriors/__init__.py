"""Posteriors q(z | x): encoders, modules that take x (..., *data_shape) and return a distribution over z (..., M)."""

from pyro_lvm.posteriors.diagonal_normal import DiagonalNormal
from pyro_lvm.posteriors.full_normal import FullNormal
from pyro_lvm.posteriors.one_hot import GumbelSoftmax, OneHot
from pyro_lvm.posteriors.spherical import PowerSpherical, VonMisesFisher

__all__ = ["DiagonalNormal", "FullNormal", "GumbelSoftmax", "OneHot", "PowerSpherical", "VonMisesFisher"]
