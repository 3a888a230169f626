"""Sylvester flows as posteriors."""

from abc import ABC

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.posteriors.heads import Headed, flow
from pyro_lvm.sizes import check_sizes
from pyro_lvm.transforms import SylvesterTransform, orthogonal_matrix, orthonormal

# Keeps 1 + h' r r̃ away from 0 where tanh has reached 1 in floating point.
_LARGEST_DIAGONAL = 0.999


class Sylvester(Headed, ABC):
    """A diagonal normal after Sylvester flows whose R, R̃ and b are given by the encoder, abstract.

    Args:
        net, features, latent_dim: as in `Headed`.
        flows: how many.
        width: M'.
        numbers: how many numbers Q takes, for all flows together.
    """

    def __init__(
        self, net: nn.Module, features: int, latent_dim: int, flows: int, width: int, numbers: int = 0
    ) -> None:
        check_sizes(flows=flows)
        self.flows, self.width = flows, width
        super().__init__(net, features, latent_dim, flows * width * (width + 3) + numbers)

    def flow(self, mu: Tensor, sigma: Tensor, triangles: Tensor, qs: tuple[Tensor, ...]) -> TorchDistribution:
        """The distribution of z, given the numbers of R, R̃ and b (..., flows · M' (M' + 3)) and Q of every flow."""
        rows = triangles.unflatten(-1, (self.flows, self.width + 3, self.width))  # (..., F, M' + 3, M')
        # One square matrix has both: R above its diagonal, the transposed R̃ below it.
        square, diagonals, bias = rows.tensor_split((self.width, self.width + 2), dim=-2)
        diagonals = torch.diag_embed(_LARGEST_DIAGONAL * diagonals.tanh())  # (..., F, 2, M', M')
        r = square.triu(1) + diagonals[..., 0, :, :]
        r_tilde = square.mT.triu(1) + diagonals[..., 1, :, :]
        numbers = zip(qs, r.unbind(-3), r_tilde.unbind(-3), bias.squeeze(-2).unbind(-2), strict=True)
        return flow(mu, sigma, [SylvesterTransform(*parts, cache_size=1) for parts in numbers])

    def split(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of R, R̃ and b, and those of Q."""
        triangles, q = rest.tensor_split((self.flows * self.width * (self.width + 3),), dim=-1)
        return triangles, q


class OrthogonalSylvester(Sylvester):
    r"""A diagonal normal after Sylvester flows, $z \leftarrow z + Q R \tanh(\tilde R Q^\top z + b)$, Q of M' columns.

    The columns of Q are made orthonormal by `pyro_lvm.transforms.orthonormal`, for all flows at once. All numbers are
    given by the encoder: $2M + F (M M' + M'^2 + 3M')$ for F flows. To begin with, the flows change little, and their
    columns lie along different axes. Its own draws are scored without an inversion; any other z takes one, sequential
    over M'.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        flows: F.
        width: M', up to M.

    Raises:
        ValueError: where M' > M, a size is below 1, or the network gives another number of features.

    References:
        van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> posterior = OrthogonalSylvester(nn.Linear(5, 8), features=8, latent_dim=3, flows=4, width=2)
        >>> posterior(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, flows: int = 4, width: int = 16) -> None:
        if not 1 <= width <= latent_dim:
            raise ValueError(
                f"'width' is how many orthonormal columns Q has and must lie between 1 and 'latent_dim' = "
                f"{latent_dim}, not {width}."
            )
        super().__init__(net, features, latent_dim, flows, width, numbers=flows * latent_dim * width)
        with torch.no_grad():
            axes = torch.stack([torch.eye(latent_dim).roll(f * width, dims=0)[:, :width] for f in range(flows)])
            self.head.bias[-axes.numel() :] += axes.flatten()

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        mu, sigma, rest = self.read(self.encoded(x))
        triangles, raw = self.split(rest)
        q = orthonormal(raw.unflatten(-1, (self.flows, self.latent_dim, self.width)))  # (..., F, M, M')
        return self.flow(mu, sigma, triangles, q.unbind(-3))


class HouseholderSylvester(Sylvester):
    r"""A diagonal normal after Sylvester flows, $z \leftarrow z + Q R \tanh(\tilde R Q^\top z + b)$, Q of reflections.

    Q is M×M, a product of T Householder reflections. All numbers are given by the encoder:
    $2M + F (M^2 + 3M + T M)$ for F flows.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        flows: F.
        reflections: T, of each flow.

    Raises:
        ValueError: where a size is below 1, or the network gives another number of features.

    References:
        van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> posterior = HouseholderSylvester(nn.Linear(5, 8), features=8, latent_dim=3, flows=4, reflections=3)
        >>> posterior(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, flows: int, reflections: int) -> None:
        check_sizes(reflections=reflections)
        super().__init__(net, features, latent_dim, flows, latent_dim, numbers=flows * reflections * latent_dim)
        self.reflections = reflections

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        mu, sigma, rest = self.read(self.encoded(x))
        triangles, v = self.split(rest)
        q = orthogonal_matrix(v.unflatten(-1, (self.flows, self.reflections, self.latent_dim)))  # (..., F, M, M)
        return self.flow(mu, sigma, triangles, q.unbind(-3))


class TriangularSylvester(Sylvester):
    r"""A diagonal normal after Sylvester flows, $z \leftarrow z + Q R \tanh(\tilde R Q^\top z + b)$, Q a permutation.

    Q alternates the identity and the reversal of the coordinates. All other numbers are given by the encoder:
    $2M + F (M^2 + 3M)$ for F flows.

    Args:
        net: from (..., *data_shape) to features (..., features).
        features: how many features the network gives.
        latent_dim: M.
        flows: F.

    Raises:
        ValueError: where a size is below 1, or the network gives another number of features.

    References:
        van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> posterior = TriangularSylvester(nn.Linear(5, 8), features=8, latent_dim=3, flows=4)
        >>> posterior(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, features: int, latent_dim: int, flows: int) -> None:
        super().__init__(net, features, latent_dim, flows, latent_dim)

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        mu, sigma, rest = self.read(self.encoded(x))
        same = torch.eye(self.latent_dim, dtype=mu.dtype, device=mu.device)
        qs = (same, same.flip(0))
        return self.flow(mu, sigma, rest, tuple(qs[f % 2] for f in range(self.flows)))
