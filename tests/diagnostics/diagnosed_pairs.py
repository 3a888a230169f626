"""Pairs written by users, in the ways that users write them."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm import guides, likelihoods, models, networks, posteriors, priors


def vae(shape: tuple[int, ...] = (4, 4), latent_dim: int = 3, levels: int = 3) -> tuple[nn.Module, nn.Module]:
    decoder = likelihoods.Categorical(networks.MLP(latent_dim, (*shape, levels), (16,)), levels)
    encoder = posteriors.DiagonalNormal(networks.MLP(shape, 2 * latent_dim, (16,)))
    return models.VAE(priors.StandardNormal(latent_dim), decoder), guides.Amortized(encoder)


def global_mean_model(x: Tensor) -> None:
    """A latent shared by all data and one for each; only `x` is accepted; the plate has a name of its own."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("people", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def global_mean_guide(x: Tensor) -> None:
    location = pyro.param("location", torch.zeros(2))
    mean = pyro.sample("mean", dist.Normal(location, 0.5).to_event(1))
    with pyro.plate("people", len(x)):
        pyro.sample("z", dist.Normal(0.5 * (x + mean), 0.7).to_event(1))


class PixelModel(PyroModule[nn.Module]):
    """A plate of pixels inside that of data."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))  # (B, 1)
            with pyro.plate("pixels", x.shape[1], dim=-1):
                return pyro.sample("x", dist.Normal(z, self.scale), obs=x)


class PixelGuide(PyroModule[nn.Module]):
    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            return pyro.sample("z", dist.Normal(self.linear(x), 1.0))  # (B, 1)


def one_draw_model(x: Tensor) -> None:
    """A program that cannot take several draws at once: it counts on the shape of its latent."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        assert z.shape == (len(x), 2)
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def one_draw_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))


def unplated_model(x: Tensor) -> None:
    """Independence left undeclared."""
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=x)


def unplated_guide(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(2))


def two_data_model(x: Tensor) -> None:
    """The second thing observed depends on the first."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        first = pyro.sample("first", dist.Normal(10 * z, 1.0), obs=x[:, 0])
        pyro.sample("second", dist.Normal(first, 0.01), obs=x[:, 1])


def two_data_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, 0] / 10, 0.1))
