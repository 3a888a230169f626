"""The autoencoder trained on other bounds than the evidence lower bound."""

from pyro_lvm import objectives
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import autoencoder, categorical
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "iwae",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="IWAE",
    reference="Burda, Grosse & Salakhutdinov (2015), Importance Weighted Autoencoders",
)
def iwae(
    dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256), num_particles: int = 10
) -> Made:
    """The autoencoder `vae` trained on the importance-weighted bound.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        num_particles: draws a datum in the bound, K.
    """
    decoder = categorical(dataset, "iwae", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.IWAE(num_particles))


@entry(
    "iwae-dreg",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="IWAE",
    reference="Tucker et al. (2018), Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
)
def iwae_dreg(
    dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256), num_particles: int = 10
) -> Made:
    """The autoencoder `iwae` with the doubly reparameterised gradient, whose signal for the encoder grows with K.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        num_particles: draws a datum in the bound, K.
    """
    decoder = categorical(dataset, "iwae-dreg", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.IWAE(num_particles, gradient="dreg"))


@entry(
    "beta-vae",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="β-ELBO",
    reference="Higgins et al. (2017), β-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
)
def beta_vae(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    beta: float = 2.0,
    warm_up: float = 20.0,
) -> Made:
    """The autoencoder `vae` with its divergence weighed by β, which rises from 0 as training starts.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        beta: weight of the divergence at the end of the warm-up, β; 1 is the evidence lower bound.
        warm_up: epochs until β is reached; 0 begins with it.
    """
    decoder = categorical(dataset, "beta-vae", latent_dim, hidden_features)
    weight = objectives.Linear(0.0, beta, warm_up) if warm_up else beta
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True, beta=weight))


@entry(
    "vae-free-bits",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="ELBO with free bits",
    reference="Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow",
)
def vae_free_bits(
    dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256), free_bits: float = 0.5
) -> Made:
    """The autoencoder `vae` with some divergence free of charge in every latent dimension, so that none collapses.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        free_bits: nats per datum and latent dimension, λ.
    """
    decoder = categorical(dataset, "vae-free-bits", latent_dim, hidden_features)
    objective = objectives.ELBO(analytic_kl=True, free_bits=free_bits)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objective)


@entry(
    "vae-capacity",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="ELBO, its divergence at a limit",
    reference="Rezende & Viola (2018), Taming VAEs",
)
def vae_capacity(
    dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256), kl: float = 12.0
) -> Made:
    """The autoencoder `vae` with the best reconstruction that so many nats of information allow.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        kl: the most divergence a datum, nats, λ.
    """
    decoder = categorical(dataset, "vae-capacity", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.Capacity(kl, analytic_kl=True))


@entry(
    "cubo",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="IWAE, the guide by CUBO",
    reference="Dieng et al. (2017), Variational Inference via χ Upper Bound Minimization",
)
def cubo(
    dataset: Dataset,
    latent_dim: int = 16,
    hidden_features: tuple[int, ...] = (256, 256),
    power: float = 2.0,
    num_particles: int = 10,
) -> Made:
    """An autoencoder whose guide descends an upper bound, which makes it cover the posterior rather than a mode.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        power: of the weights in the upper bound, above 1.
        num_particles: draws a datum in the bounds, K.
    """
    decoder = categorical(dataset, "cubo", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.CUBO(power, num_particles))


@entry(
    "wake-sleep",
    prior="standard normal",
    posterior="diagonal normal",
    likelihood="categorical over levels",
    bound="ELBO, the guide by dreams",
    reference="Hinton et al. (1995), The Wake-Sleep Algorithm for Unsupervised Neural Networks",
)
def wake_sleep(
    dataset: Dataset, latent_dim: int = 16, hidden_features: tuple[int, ...] = (256, 256), num_particles: int = 1
) -> Made:
    """An autoencoder whose guide learns from what the model dreams, with no gradient through draws.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of latent dimensions, M.
        hidden_features: widths of the hidden layers of encoder and decoder.
        num_particles: draws a datum in the wake phase, K.
    """
    decoder = categorical(dataset, "wake-sleep", latent_dim, hidden_features)
    return autoencoder(dataset, decoder, latent_dim, hidden_features, objectives.WakeSleep(num_particles))
