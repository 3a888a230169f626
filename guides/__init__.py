"""Inference programs, one file each; imported as `pyro_lvm.guides`."""

if __name__ != "pyro_lvm.guides":
    raise ImportError("this folder is the package pyro_lvm.guides: import it by that name.")

from pyro_lvm.guides.amortized import Amortized
from pyro_lvm.guides.exact_ppca import ExactPPCA
from pyro_lvm.guides.linear_normal import LinearNormal
from pyro_lvm.guides.normal_wishart import NormalWishart
from pyro_lvm.guides.responsibilities import Responsibilities

__all__ = ["Amortized", "ExactPPCA", "LinearNormal", "NormalWishart", "Responsibilities"]
