"""The self-supervised autoencoder: a small version of the data first, then the data."""

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm.models.auxiliary_vae import joined
from pyro_lvm.networks import Downscale
from pyro_lvm.programs import Model, data_plate


class SelfSupervised(Model):
    r"""$p(z_2)\, p(y \mid z_2)\, p(z_1 \mid y, z_2)\, p(x \mid y, z_1)$ with $y = d(x)$, a small version of x.

    $z_2$ says what is coarse, $z_1$ what the small picture leaves open. Where x is given, so is y, and it is observed
    as d(x): it is a function of the data, hence data, and needs no draw and no posterior. What is bounded from below is
    then $\log p(x, y = d(x)) \le \log p(x)$: of discrete data, p(x) is a sum over all y, of which this is one term. Of
    real data the two would be densities over different spaces, and it would bound nothing. Where x is not given, y is
    drawn, and nothing forces x to be a picture that d makes y of: what the model has not learned of that, the bound
    lacks.

    Args:
        downscale: d.
        prior: () to the distribution of z_2, one of `pyro_lvm.priors`.
        coarse: z_2 (..., M_2) to the distribution of y, one of `pyro_lvm.likelihoods`.
        detail: y and z_2 as one vector (..., D_y + M_2), see `pyro_lvm.models.auxiliary_vae.joined`, to the
            distribution of z_1, one of `pyro_lvm.posteriors`.
        decoder: y and z_1 as one vector (..., D_y + M_1) to the distribution of x, one of `pyro_lvm.likelihoods`.

    Sites:
        `"z_2"` (B, M_2), `"y"` (B, *downscale.out_shape), `"z_1"` (B, M_1), `"x"` (B, *data_shape).

    References:
        Gatopoulos & Tomczak (2020), Self-Supervised Variational Auto-Encoders.

    Example:
        >>> from pyro_lvm import likelihoods, networks, posteriors, priors
        >>> _ = torch.manual_seed(0)
        >>> model = SelfSupervised(
        ...     Downscale((4, 4), 2),
        ...     priors.StandardNormal(2),
        ...     coarse=likelihoods.Bernoulli(networks.MLP(2, (2, 2), (8,))),
        ...     detail=posteriors.DiagonalNormal(networks.MLP(4 + 2, 2 * 3, (8,))),
        ...     decoder=likelihoods.Bernoulli(networks.MLP(4 + 3, (4, 4), (8,))),
        ... )
        >>> model.sample(5).shape
        torch.Size([5, 4, 4])
    """

    def __init__(
        self, downscale: Downscale, prior: nn.Module, coarse: nn.Module, detail: nn.Module, decoder: nn.Module
    ) -> None:
        super().__init__()
        self.downscale, self.prior = downscale, prior
        self.coarse, self.detail, self.decoder = coarse, detail, decoder

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            prior = self.prior()
            z_2 = pyro.sample("z_2", prior).flatten(-prior.event_dim)  # (B, M_2)
            y = pyro.sample("y", self.coarse(z_2), obs=None if x is None else self.downscale(x))
            detail = self.detail(joined(y, z_2, self._event_dim))
            z_1 = pyro.sample("z_1", detail).flatten(-detail.event_dim)  # (B, M_1)
            return pyro.sample("x", self.decoder(joined(y, z_1, self._event_dim)), obs=x)  # (B, *data_shape)

    def enlarge(self, y: Tensor, z_2: Tensor) -> Tensor:
        """Draws x given y and z_2, (..., *data_shape): z_1 from p(z_1 | y, z_2), then x from p(x | y, z_1).

        Args:
            y: small versions, (..., *downscale.out_shape).
            z_2: (..., M_2); leading dimensions broadcast against y's.
        """
        with torch.no_grad():
            detail = self.detail(joined(y, z_2, self._event_dim))
            z_1 = detail.sample().flatten(-detail.event_dim)
            x: Tensor = self.decoder(joined(y, z_1, self._event_dim)).sample()
            return x

    @property
    def _event_dim(self) -> int:
        return len(self.downscale.out_shape)
