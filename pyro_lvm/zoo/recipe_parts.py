"""What recipes are made of: parts that suit a data set, and settings for `fit`."""

from typing import Any

import torch
from torch import Tensor, nn

from pyro_lvm import guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.objectives import Objective
from pyro_lvm.zoo.registry import Made


def autoencoder(
    dataset: Dataset, decoder: nn.Module, latent_dim: int, hidden_features: tuple[int, ...], objective: Objective
) -> Made:
    """The pair with a standard normal prior and a diagonal normal posterior."""
    centre, spread = data_range(dataset)
    encoder = networks.MLP(dataset.shape, 2 * latent_dim, hidden_features, nn.Tanh, centre=centre, spread=spread)
    model = models.VAE(priors.StandardNormal(latent_dim), decoder)
    guide = guides.Amortized(posteriors.DiagonalNormal(encoder))
    return Made(model, guide, objective, usual_training(dataset))


def usual_training(dataset: Dataset) -> dict[str, Any]:
    """Settings that suit an autoencoder."""
    training = {"epochs": 300, "batch_size": min(64, len(dataset.train)), "learning_rate": 1e-3}
    if dataset.validation is not None:
        training["early_stopping"] = 40
    return training


def categorical(dataset: Dataset, name: str, latent_dim: int, hidden_features: tuple[int, ...]) -> nn.Module:
    """A categorical distribution over the levels of every value."""
    levels = levels_of(dataset, name)
    return likelihoods.Categorical(networks.MLP(latent_dim, (*dataset.shape, levels), hidden_features, nn.Tanh), levels)


def levels_of(dataset: Dataset, name: str) -> int:
    """The number of the data's levels, for a recipe that needs them discrete."""
    if dataset.levels is None:
        raise DataError(
            f"the recipe {name!r} is for discrete values, but '{dataset.name}' has real ones: use 'vae-gaussian', or "
            "state their number with data.load(..., levels=...)."
        )
    return dataset.levels


def annealed_training(dataset: Dataset, epochs: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    """Settings that end at rest: what converges to a known optimum needs a step that goes to 0."""
    batch_size = min(batch_size, len(dataset.train))
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "scheduler": "CosineAnnealingLR",
    }


def data_range(dataset: Dataset) -> tuple[float, float]:
    """Centre and spread that bring the data to about [−1, 1]."""
    if dataset.levels is not None:
        half = (dataset.levels - 1) / 2
        return half, half
    x = some_of(dataset)
    return float(x.mean()), spread_of(x)


def some_of(dataset: Dataset) -> Tensor:
    """Enough of the training data to see their range, (N, *shape), float64."""
    return dataset.train[:10_000].double()


def spread_of(x: Tensor) -> float:
    """The root mean square distance from the overall mean, in the data's units; 1 for data that are all the same."""
    return float(x.std(correction=0)) or 1.0


def draw_seed() -> int:
    """A seed for scikit-learn's vocabulary from PyTorch's random state."""
    return int(torch.randint(2**31 - 1, ()))
