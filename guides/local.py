"""One posterior for each datum and no encoder."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.capture import being_captured
from pyro_lvm.configuration import Part
from pyro_lvm.posteriors.scales import positive
from pyro_lvm.programs import data_plate
from pyro_lvm.sizes import check_sizes, checked_shape

_ODD = 0x1E3779B97F4A7C15  # spreads the bits of a number


class Local(Part):
    r"""$q(z_n \mid x_n) = \mathcal N(z_n \mid \mu_n, \mathrm{diag}(\sigma_n^2))$ with parameters of each datum's own.

    What an encoder amortises: the best diagonal normals there are for the data at hand, and none for others. A datum is
    known by its values in single precision, so that minibatches come in any order; data that are equal share a
    posterior. `start_from` has to be given all data first.

    Gradients are dense, zeros for the data that are not in the batch: an optimiser with a momentum goes on moving
    those. New data, for validation too, raise.

    Args:
        num_data: N.
        data_shape: shape of a datum (an int D is the shape (D,)).
        latent_dim: M.

    Sites:
        `"z"` (B, M).

    Raises:
        ValueError: where a number is not positive, or a datum is not one of those given to `start_from`.

    References:
        Hoffman, Blei, Wang & Paisley (2013), Stochastic Variational Inference: local variational parameters.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(20, 5)
        >>> guide = Local(num_data=20, data_shape=5, latent_dim=2)
        >>> guide.start_from(x)
        >>> guide.rows(x[[3, 17]]).tolist(), guide(x[[3, 17]]).shape
        ([3, 17], torch.Size([2, 2]))
    """

    data: Tensor
    fingerprints: Tensor
    order: Tensor
    weights: Tensor

    def __init__(self, num_data: int, data_shape: int | Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_sizes(num_data=num_data, latent_dim=latent_dim)
        shape = checked_shape(data_shape, "data_shape")
        if not shape:
            raise ValueError("'data_shape' must hold at least one size, not (): a datum is known by its values.")
        self.loc = nn.Parameter(torch.zeros(num_data, latent_dim))
        self.raw_scale = nn.Parameter(torch.full((num_data, latent_dim), 0.5413))  # softplus gives 1
        self.register_buffer("data", torch.full((num_data, *shape), torch.nan))
        self.register_buffer("fingerprints", torch.zeros(num_data, dtype=torch.int64))  # sorted
        self.register_buffer("order", torch.zeros(num_data, dtype=torch.int64))  # whose they are
        generator = torch.Generator().manual_seed(0)
        weights = torch.randint(-(2**62), 2**62, shape, generator=generator, device="cpu")
        self.register_buffer("weights", 2 * weights + 1)

    def start_from(self, x: Tensor) -> None:
        """Takes note of all data, (N, *data_shape), the n-th of which the n-th posterior belongs to.

        Raises:
            ValueError: where their number or shape is another, or they are not finite.
        """
        if x.shape != self.data.shape:
            raise ValueError(
                f"'x' must hold all the data, of shape {tuple(self.data.shape)}, but has {tuple(x.shape)}: make the "
                "guide with that 'num_data' and 'data_shape'."
            )
        if not bool(x.isfinite().all()):
            raise ValueError("'x' must be finite for data to be known by their values.")
        self.data.copy_(x)
        fingerprints, order = self._fingerprint(self.data).sort(stable=True)
        self.fingerprints.copy_(fingerprints)
        self.order.copy_(order)

    def rows(self, x: Tensor) -> Tensor:
        """Which of the data these are, (B,): the first of equal ones.

        Raises:
            ValueError: for one that is none of them.
        """
        rows, known = self._look_up(x)
        self._check(known)
        return rows

    def _check(self, known: Tensor) -> None:
        if bool(known.all()):
            return
        if bool(self.data.isnan().any()):
            raise ValueError("this guide has not been given its data: call its start_from(x) with all of them.")
        raise ValueError(
            f"the datum at {int((~known).nonzero()[0])} is none of the {len(self.data)} that this guide has a "
            "posterior for, those given to start_from: use guides.Amortized for data that are not known before."
        )

    def _look_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(self.data)
        place = torch.searchsorted(self.fingerprints, self._fingerprint(x)).clamp_max(len(self.data) - 1)
        rows = self.order[place]
        return rows, (self.data[rows].float() == x.float()).flatten(1).all(-1)

    def _fingerprint(self, x: Tensor) -> Tensor:
        """A hash of each datum's values, the same in every precision that holds them, (B,)."""
        x = torch.where(x == 0, 0.0, x).float()  # the two zeros are equal and have other bits
        bits = x.contiguous().view(torch.int32).long() * _ODD
        bits = bits ^ (bits >> 32)
        return (bits * self.weights).flatten(1).sum(-1)

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        rows, known = self._look_up(x)
        if not being_captured():
            self._check(known)
        # In a captured step no value can be looked at: there a datum that is not known makes the loss NaN.
        loc = torch.where(known.unsqueeze(-1), self.loc[rows], torch.nan)
        scale = positive(self.raw_scale[rows])
        with data_plate(x, size):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))  # (B, M)
