"""The self-supervised autoencoder's guide, and what it draws beside posteriors."""

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm import models
from pyro_lvm.configuration import Part
from pyro_lvm.networks import Downscale
from pyro_lvm.programs import data_plate
from pyro_lvm.sizes import check_sizes


class SelfSupervised(Part):
    r"""$q(z_2 \mid y)\, q(z_1 \mid x)$ with $y = d(x)$: what a small version says, and what the datum adds.

    The posterior of z_2 sees y alone, so it is there where nothing but a small version is: with it the model makes
    large pictures of small ones. That of z_1 sees x, and thereby y.

    Args:
        downscale: d, the model's.
        coarse: y (..., *downscale.out_shape) to the distribution of z_2, one of `pyro_lvm.posteriors`.
        fine: x (..., *data_shape) to the distribution of z_1, one of `pyro_lvm.posteriors`.

    Sites:
        `"z_2"` (B, M_2), `"z_1"` (B, M_1): those of `models.SelfSupervised`.

    References:
        Gatopoulos & Tomczak (2020), Self-Supervised Variational Auto-Encoders.

    Example:
        >>> from pyro_lvm import networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> coarse = posteriors.DiagonalNormal(networks.MLP((2, 2), 2 * 2, (8,)))
        >>> fine = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,)))
        >>> SelfSupervised(Downscale((4, 4), 2), coarse, fine)(torch.zeros(5, 4, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, downscale: Downscale, coarse: nn.Module, fine: nn.Module) -> None:
        super().__init__()
        self.downscale, self.coarse, self.fine = downscale, coarse, fine

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            pyro.sample("z_2", self.coarse(self.downscale(x)))  # (B, M_2)
            return pyro.sample("z_1", self.fine(x))  # (B, M_1)

    def super_resolve(self, model: models.SelfSupervised, y: Tensor, n: int = 1) -> Tensor:
        r"""Large pictures of small ones: $z_2 \sim q(z_2 \mid y)$, and $z_1$ and x from the model given y and $z_2$.

        Args:
            model: the guide's.
            y: small versions, (B, *downscale.out_shape), of the data's levels.
            n: how many of each.

        Returns:
            (n, B, *data_shape).

        Raises:
            ValueError: where y has another shape, holds a value that is no level, or `n` < 1.
        """
        with torch.no_grad():
            z_2 = self._draw_coarse(model, y, n)
            return model.enlarge(y, z_2)

    def vary(self, model: models.SelfSupervised, x: Tensor, n: int = 1) -> Tensor:
        r"""New data like given ones: $z_2 \sim q(z_2 \mid d(x))$, and all else from the model.

        What stays is what z_2 says of x; another small version is drawn from p(y | z_2), and another picture of it.

        Args:
            model: the guide's.
            x: data, (B, *data_shape).
            n: how many of each.

        Returns:
            (n, B, *data_shape).

        Raises:
            ValueError: where x has another shape, or `n` < 1.
        """
        with torch.no_grad():
            z_2 = self._draw_coarse(model, self.downscale(x), n)
            return model.enlarge(model.coarse(z_2).sample(), z_2)

    def _draw_coarse(self, model: models.SelfSupervised, y: Tensor, n: int) -> Tensor:
        check_sizes(n=n)
        shape = self.downscale.out_shape
        if tuple(y.shape[1:]) != shape:
            raise ValueError(
                f"'y' holds small versions of data, (B, {', '.join(map(str, shape))}), not {tuple(y.shape)}."
            )
        posterior = self.coarse(y)
        z_2: Tensor = posterior.sample((n,)).flatten(-posterior.event_dim)  # (n, B, M_2)
        support = model.coarse(z_2[:1]).support
        if not bool(support.check(y).all()):
            raise ValueError("'y' holds a value that is none of the data's levels: round it to them.")
        return z_2
