"""The mixture of Gaussians with a prior over its parameters."""

from collections.abc import Sequence
from math import log, pi, prod

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from pyro_lvm.distributions import Wishart, reshaped
from pyro_lvm.programs import Model, data_plate


class BayesianGaussianMixture(Model):
    r"""A mixture of Gaussians whose weights, means and precisions are latent, shared by all data.

    $\pi \sim \mathrm{Dirichlet}(\alpha_0)$, $\Lambda_c \sim \mathrm{Wishart}(\nu_0, (\nu_0 S_0)^{-1})$,
    $\mu_c \mid \Lambda_c \sim \mathcal N(m_0, (\beta_0 \Lambda_c)^{-1})$, $z \sim \mathrm{Categorical}(\pi)$,
    $x \mid z \sim \mathcal N(\mu_z, \Lambda_z^{-1})$, with $S_0 = s_0^2 I$, so that $E[\Lambda] = S_0^{-1}$.

    Args:
        shape: shape of a datum, D values in all (an int D is the shape (D,)).
        components: C.
        weight_concentration: α₀ of each component; below 1 it favours few components, 1 / C where left out.
        mean: m₀, the same in every dimension, in the data's units.
        mean_precision: β₀, in data.
        degrees_of_freedom: ν₀ > D − 1; D + 2 where left out.
        scale: s₀, the standard deviation expected within a component, in the data's units.

    Sites:
        `"weights"` (C,), `"precisions"` (C, D, D), `"means"` (C, D), all outside the data plate; `"z"` (B,), `"x"` (B, *shape).

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, 10.2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> BayesianGaussianMixture(2, components=3).sample(5).shape
        torch.Size([5, 2])
    """

    prior_mean: Tensor
    prior_covariance: Tensor

    def __init__(
        self,
        shape: int | Sequence[int],
        components: int,
        weight_concentration: float | None = None,
        mean: float = 0.0,
        mean_precision: float = 1.0,
        degrees_of_freedom: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.components, self.features = components, prod(self.shape)
        self.weight_concentration = 1 / components if weight_concentration is None else weight_concentration
        self.mean_precision = mean_precision
        self.degrees_of_freedom = self.features + 2.0 if degrees_of_freedom is None else degrees_of_freedom
        for name, value in (
            ("components", components),
            ("weight_concentration", self.weight_concentration),
            ("mean_precision", mean_precision),
            ("scale", scale),
        ):
            if not value > 0:
                raise ValueError(f"'{name}' must be positive, not {value}.")
        if not self.degrees_of_freedom > self.features - 1:
            raise ValueError(
                f"'degrees_of_freedom' must be larger than the number of values of a datum less one, "
                f"{self.features - 1}, not {self.degrees_of_freedom}."
            )
        self.register_buffer("prior_mean", torch.full((self.features,), float(mean)))
        self.register_buffer("prior_covariance", scale**2 * torch.eye(self.features))

    def log_joint(self, x: Tensor, weights: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
        """log p(x, z = c | weights, means, precisions) for every component c, (..., B, C), nats.

        Args:
            x: (B, *shape).
            weights, means, precisions: (C,), (C, D), (C, D, D), or with leading dimensions (..., 1) where the 1 stands
                for the data plate.
        """
        if means.dim() == 2:
            means, precisions = means.unsqueeze(0), precisions.unsqueeze(0)  # (1, C, D), (1, C, D, D)
        factor = torch.linalg.cholesky(precisions).squeeze(-4)  # (..., C, D, D)
        x = x.flatten(-len(self.shape)).to(means.dtype).unsqueeze(-2)  # (B, 1, D)
        centred = (x - means).transpose(-3, -2)  # (..., C, B, D)
        quadratic = (centred @ factor).square().sum(-1).transpose(-2, -1)  # (..., B, C)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1).unsqueeze(-2)  # (..., 1, C)
        return weights.log() + 0.5 * (log_det - quadratic - self.features * log(2 * pi))

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        concentration = self.prior_mean.new_full((self.components,), self.weight_concentration)
        degrees_of_freedom = self.prior_mean.new_full((self.components,), self.degrees_of_freedom)
        scale_tril = torch.linalg.cholesky(self.prior_covariance.inverse() / self.degrees_of_freedom)
        weights = pyro.sample("weights", dist.Dirichlet(concentration))
        precisions = pyro.sample("precisions", Wishart(degrees_of_freedom, scale_tril).to_event(1))
        means = pyro.sample(
            "means",
            dist.MultivariateNormal(self.prior_mean, precision_matrix=self.mean_precision * precisions).to_event(1),
        )
        with data_plate(x, size):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            component = dist.MultivariateNormal(
                Vindex(means)[..., z, :], precision_matrix=Vindex(precisions)[..., z, :, :]
            )
            return pyro.sample("x", reshaped(component, self.shape), obs=x)  # (B, *shape)
