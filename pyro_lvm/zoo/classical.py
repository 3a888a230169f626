"""Models with an exact answer: probabilistic PCA and mixtures of Gaussians."""

import warnings
from typing import Literal

import pyro.infer

from pyro_lvm import exact, guides, models, objectives
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import annealed_training, draw_seed, some_of, spread_of
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "ppca",
    prior="standard normal",
    posterior="linear normal",
    likelihood="normal, one scale",
    bound="ELBO",
    reference="Tipping & Bishop (1999), Probabilistic Principal Component Analysis",
)
def ppca(dataset: Dataset, latent_dim: int = 16, covariance: Literal["full", "diagonal"] = "full") -> Made:
    """Probabilistic PCA with a linear encoder, whose bound is exact where its covariance is full.

    Args:
        dataset: any; discrete values are taken as real numbers.
        latent_dim: number of latent dimensions, M.
        covariance: of the linear guide, "full" or "diagonal".
    """
    x = some_of(dataset).flatten(1)
    mean, spread = float(x.mean()), spread_of(x)
    model = models.ProbabilisticPCA(dataset.shape, latent_dim, mean=mean, noise_scale=spread)
    guide = guides.LinearNormal(dataset.shape, latent_dim, covariance, centre=mean, spread=spread)
    training = annealed_training(dataset, epochs=1000, batch_size=250, learning_rate=0.04)
    return Made(model, guide, objectives.ELBO(analytic_kl=True), training)


@entry(
    "gmm",
    prior="categorical",
    posterior="exact responsibilities",
    likelihood="normal, a covariance a component",
    bound="log-likelihood (assignment enumerated)",
    reference="Bishop (2006), Pattern Recognition and Machine Learning, 9.2",
)
def gmm(
    dataset: Dataset,
    components: int = 10,
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "diag",
    relative_floor: float = 1e-2,
) -> Made:
    """Mixture of Gaussians, its assignment summed out, from a k-means++ start.

    Args:
        dataset: any; discrete values are taken as real numbers.
        components: number of components, C.
        covariance_type: "full", "tied", "diag" or "spherical".
        relative_floor: smallest variance of a component, as a fraction of the data's variance.
    """
    x = some_of(dataset).flatten(1)
    floor = relative_floor * spread_of(x) ** 2
    model = models.GaussianMixture(dataset.shape, components, covariance_type, covariance_floor=floor)
    start = exact.GaussianMixture(components, covariance_type, covariance_floor=floor, random_state=draw_seed())
    model.start_from(*start.start(x))
    objective = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    training = annealed_training(dataset, epochs=200, batch_size=100, learning_rate=0.02)
    return Made(model, guides.Responsibilities(model), objective, training)


@entry(
    "gmm-bayes",
    prior="Dirichlet, normal-Wishart, categorical",
    posterior="Dirichlet, normal-Wishart, exact responsibilities",
    likelihood="normal, a full covariance a component",
    bound="ELBO (assignment enumerated)",
    reference="Bishop (2006), Pattern Recognition and Machine Learning, 10.2",
)
def gmm_bayes(
    dataset: Dataset, components: int = 5, weight_concentration: float = 1.0, relative_scale: float = 0.15
) -> Made:
    """Mixture of Gaussians with a posterior over its weights, means and precisions.

    Args:
        dataset: any; discrete values are taken as real numbers.
        components: number of components, C.
        weight_concentration: of the Dirichlet prior, for each component; below 1 few components are favoured.
        relative_scale: standard deviation expected within a component, as a fraction of the data's; a large one makes
            one component explain images best.
    """
    x = some_of(dataset).flatten(1)
    mean, spread = float(x.mean()), spread_of(x)
    model = models.BayesianGaussianMixture(
        dataset.shape, components, weight_concentration, mean=mean, mean_precision=0.1, scale=relative_scale * spread
    )
    guide = guides.NormalWishart(model)
    start = exact.BayesianGaussianMixture(
        components,
        weight_concentration_prior=weight_concentration,
        mean_prior=model.prior_mean,
        mean_precision_prior=model.mean_precision,
        degrees_of_freedom_prior=model.degrees_of_freedom,
        covariance_prior=model.degrees_of_freedom * model.prior_covariance,
        max_iter=0,
        random_state=draw_seed(),
    )
    from sklearn.exceptions import ConvergenceWarning  # here, since it takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # no iteration is asked for, just the start
        start.fit(x)
    guide.start_from(
        start.weight_concentration_, start.means_, start.mean_precision_, start.degrees_of_freedom_, start.covariances_
    )
    training = annealed_training(dataset, epochs=200, batch_size=100, learning_rate=0.05)
    return Made(model, guide, pyro.infer.TraceEnum_ELBO(max_plate_nesting=1), training)
