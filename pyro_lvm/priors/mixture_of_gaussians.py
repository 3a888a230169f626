"""The mixture of Gaussians as a prior."""

from math import log
from typing import final

import torch
from torch import nn

from pyro_lvm.distributions.mixture import Mixture, NormalMixture
from pyro_lvm.priors.mixture_prior import MixturePrior
from pyro_lvm.sizes import check_sizes

_START = 0.5  # σ; the means make up for the rest of the standard normal's variance


@final
class MixtureOfGaussians(MixturePrior):
    r"""$p(z) = \sum_k w_k \prod_m \mathcal N(z_m \mid \mu_{km}, \sigma_{km}^2)$, with learned weights.

    The means start at random, so that the mixture is spread like the standard normal.

    Args:
        latent_dim: M.
        components: K.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: where a size is less than 1.

    References:
        Dilokthanakul et al. (2016), Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders.
        Tomczak & Welling (2018), VAE with a VampPrior.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = MixtureOfGaussians(2, components=5)
        >>> z = prior.sample((7,))
        >>> prior.log_prob(z).shape, prior.component(z).shape
        (torch.Size([7]), torch.Size([7, 5]))
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim, components=components)
        self.means = nn.Parameter((1 - _START**2) ** 0.5 * torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.full((components, latent_dim), log(_START)))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self) -> Mixture:
        """The distribution of z, event shape (M,)."""
        return NormalMixture(self.means, self.log_scales.exp(), self.logits.log_softmax(-1))
