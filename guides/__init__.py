"""Inference programs, one file each; imported as `pyro_lvm.guides`."""

if __name__ != "pyro_lvm.guides":
    raise ImportError("this folder is the package pyro_lvm.guides: import it by that name.")

from pyro_lvm.guides.amortized import Amortized
from pyro_lvm.guides.auxiliary import Auxiliary
from pyro_lvm.guides.bottom_up import BottomUp
from pyro_lvm.guides.exact_ppca import ExactPPCA
from pyro_lvm.guides.forward_corruption import ForwardCorruption
from pyro_lvm.guides.forward_diffusion import ForwardDiffusion
from pyro_lvm.guides.hamiltonian import Hamiltonian
from pyro_lvm.guides.linear_normal import LinearNormal
from pyro_lvm.guides.local import Local
from pyro_lvm.guides.normal_wishart import NormalWishart
from pyro_lvm.guides.responsibilities import Responsibilities
from pyro_lvm.guides.self_supervised import SelfSupervised
from pyro_lvm.guides.semi_amortized import SemiAmortized
from pyro_lvm.guides.subsampled_diffusion import SubsampledDiffusion
from pyro_lvm.guides.top_down import TopDown

__all__ = [
    "Amortized",
    "Auxiliary",
    "BottomUp",
    "ExactPPCA",
    "ForwardCorruption",
    "ForwardDiffusion",
    "Hamiltonian",
    "LinearNormal",
    "Local",
    "NormalWishart",
    "Responsibilities",
    "SelfSupervised",
    "SemiAmortized",
    "SubsampledDiffusion",
    "TopDown",
]
