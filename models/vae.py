"""The variational autoencoder's generative program."""

import pyro
from torch import Tensor, nn

from pyro_lvm.programs import Model, data_plate


class VAE(Model):
    r"""$p(x, z) = p(z)\, p(x \mid z)$ with a prior and a decoder of your choice.

    Args:
        prior: () to the distribution of z, one of `pyro_lvm.priors`.
        decoder: z (..., M) to the distribution of x, one of `pyro_lvm.likelihoods`; latents of several dimensions, such
            as codes, come to it as one vector.

    Sites:
        `"z"` (B, M) or (B, V, C), `"x"` (B, *data_shape).

    References:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes. Rezende, Mohamed & Wierstra (2014), Stochastic
        Backpropagation and Approximate Inference in Deep Generative Models.

    Example:
        >>> import torch
        >>> from pyro_lvm import likelihoods, networks, priors
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(networks.MLP(2, (4, 4), (8,))))
        >>> model.sample(3).shape
        torch.Size([3, 4, 4])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.prior, self.decoder = prior, decoder

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            prior = self.prior()
            z = pyro.sample("z", prior).flatten(-prior.event_dim)  # (B, M)
            return pyro.sample("x", self.decoder(z), obs=x)  # (B, *data_shape)
