"""The autoencoder with other priors than the standard normal."""

from dataclasses import replace
from typing import Literal

from pyro_lvm import networks, posteriors, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.diffusion import ForwardProcess, LargeVariance, LinearLogSNR, Reverse, Velocity
from pyro_lvm.zoo.recipe_parts import Activation, Networks, limits, some_of
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "vae-mog",
    prior="mixture of Gaussians",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Dilokthanakul et al. (2016), Deep Unsupervised Clustering with Gaussian Mixture VAEs",
)
def vae_mog(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    components: int = 50,
) -> Made:
    """An autoencoder whose prior is a mixture of Gaussians with learned means, scales and weights.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        components: of the mixture, K.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.MixtureOfGaussians(latent_dim, components)
    return nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)


@entry(
    "vae-vamp",
    prior="VampPrior",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Tomczak & Welling (2018), VAE with a VampPrior",
)
def vae_vamp(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 100.0,
    components: int = 100,
    weights: Literal["uniform", "learned"] = "uniform",
) -> Made:
    """An autoencoder whose prior is the mixture of its own posteriors of learned pseudo-inputs.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        components: number of pseudo-inputs, K, which start at training data: as many as there are, at most.
        weights: of the components, "uniform" or "learned".
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    posterior = posteriors.DiagonalNormal(nets.encoder(2 * latent_dim))
    start = some_of(dataset, components)
    prior = priors.VampPrior(posterior, dataset.shape, len(start), weights, *limits(dataset))
    prior.start_from(start)
    return nets.made(prior, posterior, warm_up)


@entry(
    "vae-gtm",
    prior="generative topographic mapping",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Bishop, Svensén & Williams (1998), GTM: The Generative Topographic Mapping",
)
def vae_gtm(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    grid_dim: int = 2,
    points: int = 10,
) -> Made:
    """An autoencoder whose prior is a mixture of Gaussians at the images of a grid.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        grid_dim: dimensions of the grid, C.
        points: of the grid along each of them.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.GTM(latent_dim, grid_dim, points)
    return nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)


@entry(
    "vae-gtm-vamp",
    prior="posteriors of a grid of pseudo-inputs",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Tomczak & Welling (2018), VAE with a VampPrior; Bishop, Svensén & Williams (1998), GTM",
)
def vae_gtm_vamp(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    grid_dim: int = 2,
    points: int = 10,
) -> Made:
    """An autoencoder whose prior is the mixture of its own posteriors of pseudo-inputs that a network makes of a grid.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        grid_dim: dimensions of the grid, C.
        points: of the grid along each of them.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    posterior = posteriors.DiagonalNormal(nets.encoder(2 * latent_dim))
    low, high = limits(dataset)
    prior = priors.GTMVamp(posterior, dataset.shape, grid_dim, points, minimum=low, maximum=high)
    return nets.made(prior, posterior, warm_up)


@entry(
    "vae-flow-prior",
    prior="normalising flow",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Dinh et al. (2017), Density Estimation Using Real NVP; Chen et al. (2017), Variational Lossy AE",
)
def vae_flow_prior(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    flow: Literal["real_nvp", "neural_spline", "masked_autoregressive"] = "real_nvp",
    transforms: int = 4,
) -> Made:
    """An autoencoder whose prior is a normalising flow.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        flow: its family, "real_nvp", "neural_spline" or "masked_autoregressive".
        transforms: how many of them.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.Flow(latent_dim, flow, transforms)
    return nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)


@entry(
    "vae-ar-prior",
    prior="autoregressive",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Germain et al. (2015), MADE: Masked Autoencoder for Distribution Estimation",
)
def vae_ar_prior(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    components: int = 5,
) -> Made:
    """An autoencoder whose prior gives every latent dimension a mixture of normals given those before it.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        components: of the mixture of a dimension.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.Autoregressive(latent_dim, components)
    return nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)


@entry(
    "vae-lars",
    prior="resampled normal",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Bauer & Mnih (2019), Resampled Priors for Variational Autoencoders",
)
def vae_lars(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 50.0,
    truncation: int = 100,
) -> Made:
    """An autoencoder whose prior draws from a standard normal until a learned network accepts.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, and a prior that learns may
            then meet its posterior before either says anything of x.
        truncation: the most draws, T.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    prior = priors.Resampled(latent_dim, truncation=truncation)
    return nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)


@entry(
    "vae-diffusion-prior",
    prior="diffusion of the latents",
    posterior="diagonal normal",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Vahdat, Kreis & Kautz (2021), Score-based Generative Modeling in Latent Space",
    evidence="bound",
)
def vae_diffusion_prior(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    warm_up: float = 0.0,
    steps: int = 1000,
    width: int = 128,
    blocks: int = 2,
) -> Made:
    """An autoencoder whose prior is a diffusion of the latents, a standard normal to begin with.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        activation: between them, "tanh", "relu" or "gated".
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it, as one may where the prior
            is close to a standard normal at first.
        steps: of the diffusion, T.
        width: of the hidden layers of its network.
        blocks: of its network.
    """
    nets = Networks(dataset, latent_dim, hidden_features, activation)
    # With a log signal-to-noise ratio that falls evenly no step adds more to the bound's variance than others.
    schedule = LinearLogSNR(9.0, -9.0)
    net = networks.TimeMLP(latent_dim, hidden_features=width, blocks=blocks)
    net.last.weight.data *= 0.01
    net.last.bias.data *= 0.01
    reverse = Reverse(net, latent_dim, schedule, Velocity(), LargeVariance())
    prior = priors.Diffusion(ForwardProcess(latent_dim, schedule, steps), reverse)
    made = nets.made(prior, posteriors.DiagonalNormal(nets.encoder(2 * latent_dim)), warm_up)
    # The bound is estimated at one step of each latent: its gradients vary, and averages of the weights less so.
    return replace(made, training={**made.training, "weight_average": 0.99})
