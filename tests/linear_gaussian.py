"""Programs of known evidence and posterior: probabilistic PCA and a linear-Gaussian hierarchy, with loose guides.

A loose guide has the exact posterior's mean and twice its scale, so that its gap is known to be wide.
"""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm import exact, models
from pyro_lvm.programs import Model, data_plate


def ppca(features: int = 4, latent_dim: int = 2) -> models.ProbabilisticPCA:
    """A model with random weights and a noise scale of 0.7."""
    model = models.ProbabilisticPCA(features, latent_dim)
    with torch.no_grad():
        model.weight.copy_(torch.randn(features, latent_dim))
        model.log_noise_scale.fill_(math.log(0.7))
    return model


def log_evidence(model: models.ProbabilisticPCA, x: Tensor) -> Tensor:
    """log p(x) of each datum, (N,)."""
    with torch.no_grad():
        return exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square())


class LooseGuide(nn.Module):
    """The exact posterior's mean with `spread` times its scale."""

    def __init__(self, model: models.ProbabilisticPCA, spread: float = 2.0) -> None:
        super().__init__()
        self.model, self.spread = model, spread

    def posterior(self, x: Tensor) -> Any:
        model = self.model
        mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
        return dist.MultivariateNormal(mean, covariance_matrix=self.spread**2 * covariance)

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", self.posterior(x))


def subsampling(model: models.ProbabilisticPCA, guide: LooseGuide, batch: int) -> tuple[Any, Any]:
    """The pair as a Pyro user writes it, with a plate that draws its own minibatch."""

    def model_(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=batch) as rows:
            z = pyro.sample("z", model.prior())
            pyro.sample("x", dist.Normal(z @ model.weight.T + model.bias, model.noise_scale).to_event(1), obs=x[rows])

    def guide_(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=batch) as rows:
            pyro.sample("z", guide.posterior(x[rows]))

    return model_, guide_


def inner_plates() -> tuple[Any, Any]:
    """A level for each datum, and z and x in a plate of steps inside it, at dim −2; x is (B, steps)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", x.shape[1], dim=-2):
                z = pyro.sample("z", dist.Normal(level, 0.5))
                pyro.sample("x", dist.Normal(z, 0.5), obs=x.T)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("level", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", x.shape[1], dim=-2):
                pyro.sample("z", dist.Normal(x.T, 0.5))

    return model, guide


class Hierarchy(Model):
    """z_2 ~ N(0, I), z_1 | z_2 ~ N(A z_2, s² I), x | z_1 ~ N(W z_1 + b, σ² I): probabilistic PCA's big sister."""

    def __init__(self, features: int = 4, dims: tuple[int, int] = (3, 2)) -> None:
        super().__init__()
        self.features, self.dims = features, dims
        self.A = nn.Parameter(torch.randn(dims[0], dims[1]))
        self.W = nn.Parameter(torch.randn(features, dims[0]))
        self.b = nn.Parameter(torch.randn(features))
        self.s, self.sigma = 0.8, 0.7

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        pyro.module("model", self)
        with data_plate(x, size):
            z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(self.dims[1]), 1.0).to_event(1))
            z_1 = pyro.sample("z_1", dist.Normal(z_2 @ self.A.T, self.s).to_event(1))
            return pyro.sample("x", dist.Normal(z_1 @ self.W.T + self.b, self.sigma).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) of each datum, (N,)."""
        with torch.no_grad():
            top = self.W @ self.A  # x = top z_2 + W ε_1 + b + ε
            covariance = top @ top.T + self.s**2 * self.W @ self.W.T + self.sigma**2 * torch.eye(self.features)
            return dist.MultivariateNormal(self.b, covariance).log_prob(x)


class HierarchyGuide(nn.Module):
    """q(z_2 | x) q(z_1 | z_2, x), from the top down; exact where `spread` is 1."""

    def __init__(self, model: Hierarchy, spread: float = 1.6) -> None:
        super().__init__()
        self.model, self.spread = model, spread

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        model = self.model
        noise = model.s**2 * model.W @ model.W.T + model.sigma**2 * torch.eye(model.features)
        top = _regression(model.W @ model.A, noise)
        bottom = _regression(model.W, model.sigma**2 * torch.eye(model.features), prior_scale=model.s)
        with data_plate(x, size):
            mean, covariance = top(x - model.b)
            z_2 = pyro.sample("z_2", dist.MultivariateNormal(mean, covariance_matrix=self.spread**2 * covariance))
            prior_mean = z_2 @ model.A.T
            mean, covariance = bottom(x - model.b - prior_mean @ model.W.T)
            pyro.sample(
                "z_1", dist.MultivariateNormal(prior_mean + mean, covariance_matrix=self.spread**2 * covariance)
            )


def _regression(weight: Tensor, noise: Tensor, prior_scale: float = 1.0) -> Any:
    """The posterior of z ~ N(0, s² I) given weight z + N(0, noise), as a function of what was seen."""
    precision = weight.T @ torch.linalg.solve(noise, weight) + torch.eye(weight.shape[1]) / prior_scale**2
    covariance = precision.inverse()

    def posterior(seen: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.solve(noise, seen.unsqueeze(-1)).squeeze(-1) @ weight @ covariance, covariance

    return posterior
