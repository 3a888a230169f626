"""The mixture of Gaussians with a prior over its parameters."""

from collections.abc import Sequence
from math import prod

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.distributions import IndexedNormal, Wishart, component_log_prob, reshaped
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
        `"weights"` (C,), `"precisions"` (C, D, D), `"means"` (C, D), outside the data plate;
        `"z"` (B,), `"x"` (B, *shape).

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
        x = x.flatten(-len(self.shape)).to(means.dtype)  # (B, D)
        return weights.log() + component_log_prob(x, means, _scale_tril(precisions))

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
            component = IndexedNormal(z, means, _scale_tril(precisions))
            return pyro.sample("x", reshaped(component, self.shape), obs=x)  # (B, *shape)


def _scale_tril(precisions: Tensor) -> Tensor:
    """Cholesky factors of the covariances, (..., D, D)."""
    # Λ = U Uᵀ with U upper triangular gives Λ⁻¹ = U⁻ᵀ U⁻¹, lower triangular first; flipping makes `cholesky` find U.
    upper = torch.linalg.cholesky(precisions.flip((-2, -1))).flip((-2, -1))
    identity = torch.eye(precisions.shape[-1], dtype=precisions.dtype, device=precisions.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True).mT
