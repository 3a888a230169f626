"""Generative programs, one file each; imported as `pyro_lvm.models`."""

if __name__ != "pyro_lvm.models":
    raise ImportError("this folder is the package pyro_lvm.models: import it by that name.")

from pyro_lvm.models.auxiliary_vae import AuxiliaryVAE
from pyro_lvm.models.bayesian_mixture import BayesianGaussianMixture
from pyro_lvm.models.gaussian_mixture import GaussianMixture
from pyro_lvm.models.ppca import ProbabilisticPCA
from pyro_lvm.models.vae import VAE

__all__ = ["VAE", "AuxiliaryVAE", "BayesianGaussianMixture", "GaussianMixture", "ProbabilisticPCA"]
