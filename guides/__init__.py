"""Inference programs, one file each; imported as `pyro_lvm.guides`."""

if __name__ != "pyro_lvm.guides":
    raise ImportError("this folder is the package pyro_lvm.guides: import it by that name.")

from pyro_lvm.guides.amortized import Amortized
from pyro_lvm.guides.auxiliary import Auxiliary
from pyro_lvm.guides.exact_ppca import ExactPPCA
from pyro_lvm.guides.hamiltonian import Hamiltonian
from pyro_lvm.guides.linear_normal import LinearNormal
from pyro_lvm.guides.local import Local
from pyro_lvm.guides.normal_wishart import NormalWishart
from pyro_lvm.guides.responsibilities import Responsibilities
from pyro_lvm.guides.semi_amortized import SemiAmortized

__all__ = [
    "Amortized",
    "Auxiliary",
    "ExactPPCA",
    "Hamiltonian",
    "LinearNormal",
    "Local",
    "NormalWishart",
    "Responsibilities",
    "SemiAmortized",
]
