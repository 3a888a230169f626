"""The variational autoencoder with an auxiliary variable, for guides that draw more than the latents."""

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm.programs import Model, data_plate


class AuxiliaryVAE(Model):
    r"""$p(x, z, a) = p(z)\, p(x \mid z)\, r(a \mid x, z)$.

    The auxiliary variable a is drawn last and integrates out: data and latents are those of the autoencoder without it,
    whatever r is. It gives guides room for a draw of their own, $q(z, a \mid x)$, such as a mixture's component or a
    momentum, whose $q(z \mid x) = \int q(z, a \mid x)\, da$ has no density that could be written down. The bound on
    log p(x) is then lower by $\mathrm{KL}(q(a \mid x, z) \,\|\, r(a \mid x, z))$: r is trained to guess a draw of the
    guide's from where it led.

    Args:
        prior: () to the distribution of z, one of `pyro_lvm.priors`.
        decoder: z (..., M) to the distribution of x, one of `pyro_lvm.likelihoods`.
        reverse: r, from x and z as one vector (..., D + M), see `joined`, to the distribution of a, one of
            `pyro_lvm.posteriors`.

    Sites:
        `"z"` (B, M), `"x"` (B, *data_shape), `"a"` (B, A).

    References:
        Maaløe, Sønderby, Sønderby & Winther (2016), Auxiliary Deep Generative Models. Salimans, Kingma & Welling
        (2015), Markov Chain Monte Carlo and Variational Inference: Bridging the Gap.

    Example:
        >>> from pyro_lvm import likelihoods, networks, posteriors, priors
        >>> _ = torch.manual_seed(0)
        >>> decoder = likelihoods.Bernoulli(networks.MLP(2, (4, 4), (8,)))
        >>> reverse = posteriors.DiagonalNormal(networks.MLP(16 + 2, 2 * 3, (8,)))
        >>> AuxiliaryVAE(priors.StandardNormal(2), decoder, reverse).sample(5).shape
        torch.Size([5, 4, 4])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, reverse: nn.Module) -> None:
        super().__init__()
        self.prior, self.decoder, self.reverse = prior, decoder, reverse

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z), without the auxiliary variable, (..., B), for x (B, *data_shape) and z (..., B, M)."""
        prior: Tensor = self.prior().log_prob(z)
        return prior + self.decoder(z).log_prob(x)

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            z = pyro.sample("z", self.prior())  # (B, M)
            likelihood = self.decoder(z)
            drawn = pyro.sample("x", likelihood, obs=x)  # (B, *data_shape)
            pyro.sample("a", self.reverse(joined(drawn, z, likelihood.event_dim)))  # (B, A)
            return drawn


def joined(x: Tensor, other: Tensor, event_dim: int) -> Tensor:
    """A datum and a vector beside it as one vector: what networks of both take.

    Args:
        x: (..., *data_shape).
        other: (..., M).
        event_dim: number of dimensions of a datum.

    Returns:
        (..., D + M), in the precision of `other`.

    Example:
        >>> joined(torch.zeros(5, 4, 4), torch.zeros(7, 5, 2), 2).shape
        torch.Size([7, 5, 18])
    """
    flat = x.flatten(-event_dim).to(other.dtype)
    batch = torch.broadcast_shapes(flat.shape[:-1], other.shape[:-1])
    return torch.cat([flat.expand(*batch, -1), other.expand(*batch, -1)], dim=-1)
