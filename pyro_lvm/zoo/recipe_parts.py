"""What recipes are made of: parts that suit a data set, and settings for `fit`."""

from dataclasses import dataclass
from math import ceil, log, prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.data.checks import DataError, check_choice
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.objectives import Objective
from pyro_lvm.sizes import checked_shape
from pyro_lvm.zoo.registry import Made

Activation = Literal["tanh", "relu", "gated"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gated": nn.GLU}


@dataclass(frozen=True)
class Networks:
    """Encoders and decoders of one size for a data set of any kind.

    Attributes:
        dataset: decides the likelihood: Bernoulli for two levels, categorical for more, normal for real values.
        latent_dim: of the latent the decoder takes, M.
        hidden_features: widths of the hidden layers.
        activation: between them.

    Raises:
        ValueError: for another activation, and where a hidden layer is to be read and there is none.
    """

    dataset: Dataset
    latent_dim: int
    hidden_features: tuple[int, ...]
    activation: Activation

    def __post_init__(self) -> None:
        check_choice(self.activation, _ACTIVATIONS, "activation")

    def encoder(self, outputs: int) -> networks.MLP:
        """A network from a datum to so many numbers."""
        return self._from_datum(outputs, self.hidden_features)

    def encoder_of_both(self, other: int, outputs: int) -> networks.MLP:
        """A network from a datum and a vector beside it, as `models.auxiliary_vae.joined` puts them into one."""
        (centre, spread), features = data_range(self.dataset), prod(self.dataset.shape)
        return networks.MLP(
            features + other,
            outputs,
            self.hidden_features,
            _ACTIVATIONS[self.activation],
            centre=centre,
            spread=spread,
            rescaled=features,
        )

    def between(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> networks.MLP:
        """A network between latents."""
        return networks.MLP(in_shape, out_shape, self.hidden_features, _ACTIVATIONS[self.activation])

    def features(self) -> tuple[nn.Module, int]:
        """An encoder's last hidden layer, for posteriors that read many numbers from it, and its width."""
        if not self.hidden_features:
            raise ValueError("'hidden_features' must hold a width: this posterior reads the last hidden layer.")
        *hidden, last = checked_shape(self.hidden_features, "hidden_features")
        gates = 2 if self.activation == "gated" else 1
        net = self._from_datum(gates * last, tuple(hidden))
        return nn.Sequential(net, _ACTIVATIONS[self.activation]()), last

    def decoder(self) -> nn.Module:
        """The likelihood of a datum."""
        shape, levels = self.dataset.shape, self.dataset.levels
        if levels is None:
            centre, spread = data_range(self.dataset)
            return likelihoods.Normal(self._from_latent(prod(shape)), "shared", shape, centre=centre, spread=spread)
        if levels == 2:
            return likelihoods.Bernoulli(self._from_latent(shape))
        return likelihoods.Categorical(self._from_latent((*shape, levels)), levels)

    def auxiliary_model(self, auxiliary_dim: int) -> models.AuxiliaryVAE:
        """The autoencoder with a standard normal prior, and a network that guesses the guide's auxiliary variable."""
        reverse = posteriors.DiagonalNormal(self.encoder_of_both(self.latent_dim, 2 * auxiliary_dim))
        return models.AuxiliaryVAE(priors.StandardNormal(self.latent_dim), self.decoder(), reverse)

    def made(self, prior: nn.Module, posterior: nn.Module, warm_up: float = 0.0) -> Made:
        """The autoencoder of a prior and a posterior, trained on the evidence lower bound, its β from 0 for a while."""
        model, guide = models.VAE(prior, self.decoder()), guides.Amortized(posterior)
        beta, training = warmed_up(self.dataset, warm_up)
        return Made(model, guide, objectives.ELBO(analytic_kl=True, beta=beta), training)

    def _from_datum(self, outputs: int, hidden_features: tuple[int, ...]) -> networks.MLP:
        centre, spread = data_range(self.dataset)
        activation = _ACTIVATIONS[self.activation]
        return networks.MLP(self.dataset.shape, outputs, hidden_features, activation, centre=centre, spread=spread)

    def _from_latent(self, outputs: int | tuple[int, ...]) -> networks.MLP:
        return networks.MLP(self.latent_dim, outputs, self.hidden_features, _ACTIVATIONS[self.activation])


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


def warmed_up(dataset: Dataset, warm_up: float) -> tuple[float | objectives.Linear, dict[str, Any]]:
    """The weight β of divergences that comes from 0 to 1 in so many epochs, and settings that go with it."""
    training = usual_training(dataset)
    if "early_stopping" in training:  # until it is over, the bound that validation judges by may well fall
        training["early_stopping"] += ceil(warm_up)
    return objectives.Linear(0.0, 1.0, warm_up) if warm_up else 1.0, training


def averaged_training(dataset: Dataset, epochs: int, patience: int) -> dict[str, Any]:
    """Settings that suit a network of all times of a diffusion: weights that are averaged over steps."""
    training = usual_training(dataset) | {"epochs": epochs, "weight_average": 0.99}
    return training | ({"early_stopping": patience} if "early_stopping" in training else {})


def log_snr_below_levels(levels: int) -> float:
    """The log signal-to-noise ratio where the noise is a sixth of the distance of levels in [−1, 1].

    A decoder tells the levels apart there.
    """
    noise = (2 / (levels - 1) / 6) ** 2
    return log((1 - noise) / noise)


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


def limits(dataset: Dataset) -> tuple[float, float]:
    """The least and the largest value of the data."""
    if dataset.levels is not None:
        return 0.0, dataset.levels - 1.0
    x = some_of(dataset)
    return float(x.min()), float(x.max())


def some_of(dataset: Dataset, number: int = 10_000) -> Tensor:
    """The first training data, enough of them to see their range where left out, (N, *shape), float64."""
    return dataset.train[:number].double()


def spread_of(x: Tensor) -> float:
    """The root mean square distance from the overall mean, in the data's units; 1 for data that are all the same."""
    return float(x.std(correction=0)) or 1.0


def draw_seed() -> int:
    """A seed for scikit-learn's vocabulary from PyTorch's random state."""
    return int(torch.randint(2**31 - 1, ()))
