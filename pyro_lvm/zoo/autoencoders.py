"""The variational autoencoder, with a likelihood for every kind of data."""

from math import prod
from typing import Literal

from torch import nn

from pyro_lvm import likelihoods, networks, objectives
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import autoencoder, categorical, data_range
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "vae",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="ELBO",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
)
def vae(dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256)) -> Made:
    """Variational autoencoder for discrete images, a categorical distribution over the levels of every pixel.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
    """
    decoder = categorical(dataset, "vae", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))


@entry(
    "vae-bernoulli",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="Bernoulli",
    bound="ELBO",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
)
def vae_bernoulli(dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256)) -> Made:
    """Variational autoencoder for binary data.

    Args:
        dataset: of zeros and ones; binarise others, as `data.load("digits", binarise="static")` does.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
    """
    if dataset.levels != 2:
        raise DataError(
            f"the recipe 'vae-bernoulli' is for zeros and ones, but '{dataset.name}' has {dataset.levels or 'real'} "
            f"values: load it with binarise='static', 'dynamic' or 'threshold', or use 'vae'"
        )
    decoder = likelihoods.Bernoulli(networks.MLP(latent_dim, dataset.shape, hidden_features, nn.Tanh))
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))


@entry(
    "vae-gaussian",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="normal, learned scale",
    bound="ELBO",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
)
def vae_gaussian(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    scale: Literal["shared", "per_dimension", "predicted"] | float = "shared",
) -> Made:
    """Variational autoencoder for real data; its log-likelihood is a density's, in the data's units.

    Args:
        dataset: any; discrete values are taken as real numbers.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        scale: of the likelihood: a number, "shared", "per_dimension" or "predicted".
    """
    features = (2 if scale == "predicted" else 1) * prod(dataset.shape)
    centre, spread = data_range(dataset)
    net = networks.MLP(latent_dim, features, hidden_features, nn.Tanh)
    decoder = likelihoods.Normal(net, scale, dataset.shape, centre=centre, spread=spread)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))
