"""Generative programs, one file each; imported as `pyro_lvm.models`."""

if __name__ != "pyro_lvm.models":
    raise ImportError("this folder is the package pyro_lvm.models: import it by that name.")

from pyro_lvm.models.auxiliary_vae import AuxiliaryVAE
from pyro_lvm.models.bayesian_mixture import BayesianGaussianMixture
from pyro_lvm.models.diffusion import ContinuousDiffusion, Diffusion
from pyro_lvm.models.diffusion_chain import DiffusionChain
from pyro_lvm.models.discrete_diffusion import DiscreteDiffusion
from pyro_lvm.models.gaussian_mixture import GaussianMixture
from pyro_lvm.models.hierarchical import Hierarchical
from pyro_lvm.models.ppca import ProbabilisticPCA
from pyro_lvm.models.self_supervised import SelfSupervised
from pyro_lvm.models.super_resolution import SuperResolution
from pyro_lvm.models.vae import VAE

__all__ = [
    "VAE",
    "AuxiliaryVAE",
    "BayesianGaussianMixture",
    "ContinuousDiffusion",
    "Diffusion",
    "DiffusionChain",
    "DiscreteDiffusion",
    "GaussianMixture",
    "Hierarchical",
    "ProbabilisticPCA",
    "SelfSupervised",
    "SuperResolution",
]
