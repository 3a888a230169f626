"""Posteriors on a sphere, for the prior `HypersphericalUniform`."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm import distributions
from pyro_lvm.configuration import Part

__all__ = ["PowerSpherical", "VonMisesFisher"]

# Below κ = 1 the density is all but uniform (KL < 1/(2M) nats) and the direction has hardly a gradient, so that a datum
# whose code got there would stay.
_MINIMUM_CONCENTRATION = 1.0

# A shorter vector would multiply its gradient by more than a million.
_SHORTEST = 1e-6


class VonMisesFisher(Part):
    r"""$q(z \mid x) \propto e^{\kappa(x)\, \mu(x)^\top z}$ on the sphere, $\|\mu\| = 1$, κ = 1 + softplus.

    Args:
        net: from (..., *data_shape) to (..., M + 1): a vector along μ, then the raw κ.

    Raises:
        ValueError: where the network gives less than three values.

    References:
        Davidson et al. (2018), Hyperspherical Variational Auto-Encoders.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> q = VonMisesFisher(nn.Linear(5, 3 + 1))(torch.zeros(7, 5))
        >>> q.event_shape, q.rsample().shape
        (torch.Size([3]), torch.Size([7, 3]))
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        return distributions.VonMisesFisher(*_direction_and_concentration(self.net(x)))


class PowerSpherical(Part):
    r"""$q(z \mid x) \propto (1 + \mu(x)^\top z)^{\kappa(x)}$ on the sphere, $\|\mu\| = 1$, κ = 1 + softplus.

    Args:
        net: from (..., *data_shape) to (..., M + 1): a vector along μ, then the raw κ.

    Raises:
        ValueError: where the network gives less than three values.

    References:
        De Cao & Aziz (2020), The Power Spherical Distribution.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> PowerSpherical(nn.Linear(5, 3 + 1))(torch.zeros(7, 5)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (M,)."""
        return distributions.PowerSpherical(*_direction_and_concentration(self.net(x)))


def _direction_and_concentration(out: Tensor) -> tuple[Tensor, Tensor]:
    """μ (..., M), the first axis where there is no direction, and κ (...)."""
    if out.shape[-1] < 3:
        raise ValueError(
            "a density on a sphere needs M + 1 values from its network, a direction of M ≥ 2 coordinates and a "
            f"concentration; it gives {out.shape[-1]}."
        )
    vector, raw = out[..., :-1], out[..., -1]
    is_short = torch.linalg.vector_norm(vector, dim=-1, keepdim=True) < _SHORTEST
    first_axis = (torch.arange(vector.shape[-1], device=vector.device) == 0).to(vector.dtype)
    vector = torch.where(is_short, first_axis, vector)
    mu = vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return mu, _MINIMUM_CONCENTRATION + softplus(raw)
