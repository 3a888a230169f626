"""The autoencoder with other posteriors than the diagonal normal."""

from typing import cast

import torch
from torch import nn

from pyro_lvm import guides, models, objectives, posteriors, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import Activation, Networks, usual_training
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "vae-full-normal",
    prior="standard normal",
    posterior="normal, full covariance",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
)
def vae_full_normal(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
) -> Made:
    """An autoencoder whose posterior has a full covariance matrix, amortised.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net = nets.encoder(latent_dim + latent_dim * (latent_dim + 1) // 2)
    # As flows do, it starts near a diagonal normal: the sum of so many covariances would drown the means.
    rows, columns = torch.tril_indices(latent_dim, latent_dim)
    beside_the_diagonal = latent_dim + (rows != columns).nonzero().squeeze(-1)
    last = cast(nn.Linear, net.layers[-1])
    with torch.no_grad():
        last.weight[beside_the_diagonal] *= 0.1
        last.bias[beside_the_diagonal] *= 0.1
    return nets.made(priors.StandardNormal(latent_dim), posteriors.FullNormal(net))


@entry(
    "vae-householder",
    prior="standard normal",
    posterior="Householder flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Tomczak & Welling (2016), Improving Variational Auto-Encoders Using Householder Flow",
)
def vae_householder(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    reflections: int = 8,
) -> Made:
    """An autoencoder whose posterior is a diagonal normal, rotated by amortised reflections.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        reflections: how many of them.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.HouseholderFlow(net, features, latent_dim, reflections)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-sylvester-o",
    prior="standard normal",
    posterior="orthogonal Sylvester flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference",
)
def vae_sylvester_o(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    flows: int = 4,
    width: int = 8,
) -> Made:
    """An autoencoder with a Sylvester flow through an amortised orthogonal basis of a subspace.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        flows: how many transformations.
        width: dimension of the subspace, M' ≤ M.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.OrthogonalSylvester(net, features, latent_dim, flows, width)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-sylvester-h",
    prior="standard normal",
    posterior="Householder Sylvester flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference",
)
def vae_sylvester_h(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    flows: int = 4,
    reflections: int = 4,
) -> Made:
    """An autoencoder with a Sylvester flow whose basis is a product of amortised reflections.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        flows: how many transformations.
        reflections: in the basis of each.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.HouseholderSylvester(net, features, latent_dim, flows, reflections)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-sylvester-t",
    prior="standard normal",
    posterior="triangular Sylvester flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="van den Berg et al. (2018), Sylvester Normalizing Flows for Variational Inference",
)
def vae_sylvester_t(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    flows: int = 4,
) -> Made:
    """An autoencoder with a Sylvester flow whose basis is the identity and its reversal in turns.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        flows: how many transformations.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.TriangularSylvester(net, features, latent_dim, flows)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-planar",
    prior="standard normal",
    posterior="planar flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Rezende & Mohamed (2015), Variational Inference with Normalizing Flows",
)
def vae_planar(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    flows: int = 8,
) -> Made:
    """An autoencoder with an amortised planar flow.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        flows: how many transformations.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.PlanarFlow(net, features, latent_dim, flows)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-iaf",
    prior="standard normal",
    posterior="inverse autoregressive flow",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow",
)
def vae_iaf(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    flows: int = 2,
) -> Made:
    """An autoencoder with an inverse autoregressive flow that sees a context from the encoder.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        flows: how many transformations.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    net, features = nets.features()
    posterior = posteriors.InverseAutoregressive(net, features, latent_dim, flows)
    return nets.made(priors.StandardNormal(latent_dim), posterior)


@entry(
    "vae-vmf",
    prior="uniform on the sphere",
    posterior="von Mises-Fisher",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Davidson et al. (2018), Hyperspherical Variational Auto-Encoders",
)
def vae_vmf(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
) -> Made:
    """An autoencoder whose latents are directions, with a von Mises-Fisher posterior.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.HypersphericalUniform(latent_dim)
    return nets.made(prior, posteriors.VonMisesFisher(nets.encoder(latent_dim + 1)))


@entry(
    "vae-power-spherical",
    prior="uniform on the sphere",
    posterior="power spherical",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="De Cao & Aziz (2020), The Power Spherical Distribution",
)
def vae_power_spherical(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
) -> Made:
    """An autoencoder whose latents are directions, with a power spherical posterior.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.HypersphericalUniform(latent_dim)
    return nets.made(prior, posteriors.PowerSpherical(nets.encoder(latent_dim + 1)))


@entry(
    "vae-auxiliary",
    prior="standard normal",
    posterior="diagonal normal given an auxiliary variable",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Maaløe et al. (2016), Auxiliary Deep Generative Models",
)
def vae_auxiliary(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    auxiliary_dim: int = 8,
) -> Made:
    """An autoencoder whose posterior is a mixture over an auxiliary variable that the guide draws first.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of all networks.
        activation: between them, "tanh", "relu" or "gated".
        auxiliary_dim: dimensions of the auxiliary variable, A.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    auxiliary = posteriors.DiagonalNormal(nets.encoder(2 * auxiliary_dim))
    posterior = posteriors.DiagonalNormal(nets.encoder_of_both(auxiliary_dim, 2 * latent_dim))
    model = nets.auxiliary_model(auxiliary_dim)
    return Made(model, guides.Auxiliary(auxiliary, posterior), objectives.ELBO(), usual_training(dataset))


@entry(
    "vae-semi-amortised",
    prior="standard normal",
    posterior="diagonal normal, refined by gradient steps",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Kim et al. (2018), Semi-Amortized Variational Autoencoders",
)
def vae_semi_amortised(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    steps: int = 3,
) -> Made:
    """An autoencoder whose encoder is followed by gradient steps on the datum's own posterior.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        steps: gradient steps for each datum.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    model = models.VAE(priors.StandardNormal(latent_dim), nets.decoder())
    guide = guides.SemiAmortized(model, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), steps)
    return Made(model, guide, objectives.ELBO(analytic_kl=True), usual_training(dataset))


@entry(
    "vae-hmc",
    prior="standard normal",
    posterior="diagonal normal, moved by Hamiltonian dynamics",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Salimans et al. (2015), Markov Chain Monte Carlo and Variational Inference: Bridging the Gap",
)
def vae_hmc(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    steps: int = 3,
) -> Made:
    """An autoencoder whose encoder's draws are moved along the model's gradient by leapfrog steps.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of all networks.
        activation: between them, "tanh", "relu" or "gated".
        steps: leapfrog steps.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    model = nets.auxiliary_model(latent_dim)
    guide = guides.Hamiltonian(model, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), steps)
    return Made(model, guide, objectives.ELBO(), usual_training(dataset))
