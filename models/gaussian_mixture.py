"""The mixture of Gaussians with parameters to learn."""

from collections.abc import Sequence
from math import prod
from typing import Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.distributions import IndexedNormal, component_log_prob, reshaped
from pyro_lvm.programs import Model, data_plate

CovarianceType = Literal["full", "tied", "diag", "spherical"]


class GaussianMixture(Model):
    r"""$z \sim \mathrm{Categorical}(\pi)$, $x \mid z \sim \mathcal N(\mu_z, \Sigma_z)$.

    The assignment is marked for enumeration: `pyro.infer.TraceEnum_ELBO` sums it out, and with any guide that
    enumerates it too, or none, its loss is −log p(x) itself.

    Args:
        shape: shape of a datum, D values in all (an int D is the shape (D,)).
        components: C.
        covariance_type: `"full"`, `"tied"` (one full matrix for all), `"diag"` or `"spherical"`.
        covariance_floor: no eigenvalue of a covariance falls below it, in the data's units squared.

    Sites:
        `"z"` (B,), the component, an integer; `"x"` (B, *shape).

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, 9.2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = GaussianMixture(2, components=3)
        >>> model.log_joint(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        components: int,
        covariance_type: CovarianceType = "full",
        covariance_floor: float = 1e-6,
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"'components' must be at least 1, not {components}.")
        if covariance_type not in get_args(CovarianceType):
            raise ValueError(f"'covariance_type' must be one of {get_args(CovarianceType)}, not {covariance_type!r}.")
        if not covariance_floor > 0:
            raise ValueError(f"'covariance_floor' is a variance and must be positive, not {covariance_floor}.")
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.components, self.covariance_type = components, covariance_type
        self.covariance_floor = covariance_floor
        features = prod(self.shape)
        sizes = {
            "full": (components, features, features),
            "tied": (1, features, features),
            "diag": (components, features),
            "spherical": (components, 1),
        }
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.raw_scales = nn.Parameter(torch.zeros(sizes[covariance_type]))

    @property
    def weights(self) -> Tensor:
        """π, (C,)."""
        return self.logits.softmax(-1)

    @property
    def scales(self) -> Tensor:
        """Cholesky factors (C or 1, D, D), or standard deviations (C, D) or (C, 1), in the data's units."""
        if self.covariance_type in ("diag", "spherical"):
            return (softplus(self.raw_scales).square() + self.covariance_floor).sqrt()
        lower = self.raw_scales.tril(-1) + torch.diag_embed(softplus(self.raw_scales.diagonal(dim1=-2, dim2=-1)))
        floor = self.covariance_floor * torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        return torch.linalg.cholesky(lower @ lower.mT + floor)

    def start_from(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Sets the parameters, for instance to where an EM algorithm starts or ends.

        Args:
            weights: (C,).
            means: (C, D).
            covariances: in scikit-learn's shapes: (C, D, D), (D, D), (C, D) or (C,) by covariance type.
        """
        with torch.no_grad():
            self.logits.copy_(weights.log())
            self.means.copy_(means)
            covariances = covariances.to(self.means).reshape(self.raw_scales.shape)
            tiny = 1e-4 * self.covariance_floor  # the floor itself is minus infinity before the softplus
            if self.covariance_type in ("diag", "spherical"):
                self.raw_scales.copy_(_softplus_inverse((covariances - self.covariance_floor).clamp_min(tiny).sqrt()))
            else:
                values, vectors = torch.linalg.eigh(covariances)
                above = (values - self.covariance_floor).clamp_min(tiny)
                lower = torch.linalg.cholesky(vectors @ torch.diag_embed(above) @ vectors.mT)
                diagonal = _softplus_inverse(lower.diagonal(dim1=-2, dim2=-1))
                self.raw_scales.copy_(lower.tril(-1) + torch.diag_embed(diagonal))

    def component(self, z: Tensor) -> TorchDistribution:
        """p(x | z), for integers z of any shape."""
        scales = self.scales
        if self.covariance_type in ("diag", "spherical"):
            scale = scales[z].expand(*z.shape, self.means.shape[-1])
            return reshaped(dist.Normal(self.means[z], scale).to_event(1), self.shape)
        scales = scales.expand(self.components, *scales.shape[1:])
        return reshaped(IndexedNormal(z, self.means, scales), self.shape)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z = c) for every component c: (..., *shape) to (..., C), nats."""
        x = x.to(self.means.dtype)
        if self.covariance_type in ("diag", "spherical"):
            components = torch.arange(self.components, device=x.device)
            log_density = self.component(components).log_prob(x.unsqueeze(-len(self.shape) - 1))
        else:
            scales = self.scales.expand(self.components, *self.scales.shape[1:])
            log_density = component_log_prob(x.flatten(-len(self.shape)), self.means, scales)
        return self.logits.log_softmax(-1) + log_density

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        with data_plate(x, size):
            z = pyro.sample("z", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"})
            return pyro.sample("x", self.component(z), obs=x)  # (B, *shape)


def _softplus_inverse(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
