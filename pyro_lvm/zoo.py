"""The zoo: named recipes, from a data set to a pair, an objective and training settings."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import pyro.infer
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from pyro_lvm import exact, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.objectives import Objective

__all__ = ["Recipe", "build", "names", "recipe"]


@dataclass(frozen=True)
class Made:
    """What a recipe makes of a data set."""

    model: nn.Module
    guide: nn.Module
    objective: Any
    training: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """An entry of the zoo.

    Attributes:
        name: what `build` and the command line call it.
        prior, posterior, likelihood, bound: in a few words each.
        reference: author, year, title.
        make: the function from a data set and its own settings to the pair.
        objective: what `fit` is to maximise; set by `build`.
        training: settings for `fit`, by its own names; set by `build`.
    """

    name: str
    prior: str
    posterior: str
    likelihood: str
    bound: str
    reference: str
    make: Callable[..., Made]
    objective: Any = None
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the recipe's description."""
        return (inspect.getdoc(self.make) or "").splitlines()[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's own settings and their defaults."""
        parameters = list(inspect.signature(self.make).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


_RECIPES: dict[str, Recipe] = {}


def names() -> list[str]:
    """The names of all entries, in the order of the table.

    Example:
        >>> names()[:2]
        ['ppca', 'gmm']
    """
    return list(_RECIPES)


def recipe(name: str) -> Recipe:
    """The entry of that name.

    Raises:
        ValueError: for an unknown name, with the nearest one.

    Example:
        >>> recipe("vae").prior
        'standard normal'
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no recipe {name!r}: {hint or 'the zoo has ' + ', '.join(_RECIPES)}")
    return _RECIPES[name]


def build(name: str, dataset: Dataset, *, seed: int = 0, **settings: Any) -> tuple[nn.Module, nn.Module, Recipe]:
    """Makes an entry's model and guide for a data set.

    Args:
        name: of the entry.
        dataset: from `pyro_lvm.data.load`; its shape, levels and range decide the networks' and the likelihood's.
        seed: of the initial weights; the caller's random state stays as it was.
        settings: the recipe's own, such as `latent_dim`.

    Returns:
        Model, guide, and the recipe with its objective and its settings for `fit`:
        `fit(model, guide, dataset.train, objective=recipe.objective, **recipe.training)`.

    Raises:
        ValueError: for an unknown name or setting, with the nearest one, and for data the entry is not for.

    Example:
        >>> from pyro_lvm import data
        >>> model, guide, made = build("vae", data.load("digits"), latent_dim=4)
        >>> model.sample(2).shape
        torch.Size([2, 8, 8])
    """
    entry = recipe(name)
    for setting in settings:
        if setting not in entry.settings:
            near = difflib.get_close_matches(setting, entry.settings, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(entry.settings)}"
            raise ValueError(f"the recipe {name!r} has no setting {setting!r}: {hint}")
        if setting in ("latent_dim", "components", "num_particles", "variables") and not settings[setting] >= 1:
            raise ValueError(f"'{setting}' must be at least 1, not {settings[setting]!r}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = entry.make(dataset, **settings)
    filled = Recipe(**{**vars(entry), "objective": made.objective, "training": made.training})
    return made.model, made.guide, filled


def _entry(
    name: str, *, prior: str, posterior: str, likelihood: str, bound: str, reference: str
) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    def register(make: Callable[..., Made]) -> Callable[..., Made]:
        _RECIPES[name] = Recipe(name, prior, posterior, likelihood, bound, reference, make)
        return make

    return register


@_entry(
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
    x = _some_of(dataset).flatten(1)
    mean, spread = float(x.mean()), _spread(x)
    model = models.ProbabilisticPCA(dataset.shape, latent_dim, mean=mean, noise_scale=spread)
    guide = guides.LinearNormal(dataset.shape, latent_dim, covariance, centre=mean, spread=spread)
    training = _annealed(dataset, epochs=1000, batch_size=250, learning_rate=0.04)
    return Made(model, guide, objectives.ELBO(analytic_kl=True), training)


@_entry(
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
    x = _some_of(dataset).flatten(1)
    floor = relative_floor * _spread(x) ** 2
    model = models.GaussianMixture(dataset.shape, components, covariance_type, covariance_floor=floor)
    start = exact.GaussianMixture(components, covariance_type, covariance_floor=floor, random_state=_draw_seed())
    model.start_from(*start.start(x))
    objective = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    training = _annealed(dataset, epochs=200, batch_size=100, learning_rate=0.02)
    return Made(model, guides.Responsibilities(model), objective, training)


@_entry(
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
    x = _some_of(dataset).flatten(1)
    mean, spread = float(x.mean()), _spread(x)
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
        random_state=_draw_seed(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # no iteration is asked for, just the start
        start.fit(x)
    guide.start_from(
        start.weight_concentration_, start.means_, start.mean_precision_, start.degrees_of_freedom_, start.covariances_
    )
    training = _annealed(dataset, epochs=200, batch_size=100, learning_rate=0.05)
    return Made(model, guide, pyro.infer.TraceEnum_ELBO(max_plate_nesting=1), training)


@_entry(
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
    decoder = _categorical(dataset, "vae", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))


@_entry(
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
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))


@_entry(
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
    centre, spread = _range(dataset)
    net = networks.MLP(latent_dim, features, hidden_features, nn.Tanh)
    decoder = likelihoods.Normal(net, scale, dataset.shape, centre=centre, spread=spread)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True))


@_entry(
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
    decoder = _categorical(dataset, "iwae", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.IWAE(num_particles))


@_entry(
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
    decoder = _categorical(dataset, "iwae-dreg", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.IWAE(num_particles, gradient="dreg"))


@_entry(
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
    decoder = _categorical(dataset, "beta-vae", latent_dim, hidden_features)
    weight = objectives.Linear(0.0, beta, warm_up) if warm_up else beta
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.ELBO(analytic_kl=True, beta=weight))


@_entry(
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
    decoder = _categorical(dataset, "vae-free-bits", latent_dim, hidden_features)
    objective = objectives.ELBO(analytic_kl=True, free_bits=free_bits)
    return _vae(dataset, decoder, latent_dim, hidden_features, objective)


@_entry(
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
    decoder = _categorical(dataset, "vae-capacity", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.Capacity(kl, analytic_kl=True))


@_entry(
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
    decoder = _categorical(dataset, "cubo", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.CUBO(power, num_particles))


@_entry(
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
    decoder = _categorical(dataset, "wake-sleep", latent_dim, hidden_features)
    return _vae(dataset, decoder, latent_dim, hidden_features, objectives.WakeSleep(num_particles))


@_entry(
    "vae-discrete",
    prior="categorical codes, learned",
    posterior="categorical codes",
    likelihood="categorical over levels",
    bound="ELBO",
    reference="Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax; Mnih & Rezende (2016)",
)
def vae_discrete(
    dataset: Dataset,
    variables: int = 20,
    categories: int = 10,
    hidden_features: tuple[int, ...] = (256, 256),
    gradient: Literal["gumbel", "score"] = "gumbel",
    temperature: float = 1.0,
    num_particles: int = 8,
) -> Made:
    """Variational autoencoder with a discrete code, trained through Gumbel-softmax draws or by the score function.

    Args:
        dataset: discrete, with `levels`.
        variables: number of variables of the code, V.
        categories: number of categories of each, C.
        hidden_features: widths of the hidden layers of encoder and decoder.
        gradient: of the encoder, "gumbel" (through draws; biased) or "score" (unbiased, the other draws as baseline).
        temperature: of the relaxation.
        num_particles: draws a datum by the score function; one through draws.
    """
    (centre, spread), code = _range(dataset), variables * categories
    decoder = _categorical(dataset, "vae-discrete", code, hidden_features)
    model = models.VAE(priors.OneHot(variables, categories), decoder)
    encoder = networks.MLP(dataset.shape, code, hidden_features, nn.Tanh, centre=centre, spread=spread)
    if gradient == "gumbel":
        posterior: nn.Module = posteriors.GumbelSoftmax(encoder, categories, temperature)
        objective = objectives.ELBO(analytic_kl=True)
    elif gradient == "score":
        posterior = posteriors.OneHot(encoder, categories)
        objective = objectives.ELBO(max(2, num_particles), analytic_kl=True)
    else:
        raise ValueError(f"'gradient' must be 'gumbel' or 'score', not {gradient!r}.")
    return Made(model, guides.Amortized(posterior), objective, _usual(dataset))


def _vae(
    dataset: Dataset, decoder: nn.Module, latent_dim: int, hidden_features: tuple[int, ...], objective: Objective
) -> Made:
    centre, spread = _range(dataset)
    encoder = networks.MLP(dataset.shape, 2 * latent_dim, hidden_features, nn.Tanh, centre=centre, spread=spread)
    model = models.VAE(priors.StandardNormal(latent_dim), decoder)
    guide = guides.Amortized(posteriors.DiagonalNormal(encoder))
    return Made(model, guide, objective, _usual(dataset))


def _usual(dataset: Dataset) -> dict[str, Any]:
    """Settings that suit an autoencoder."""
    training = {"epochs": 300, "batch_size": min(64, len(dataset.train)), "learning_rate": 1e-3}
    if dataset.validation is not None:
        training["early_stopping"] = 40
    return training


def _categorical(dataset: Dataset, name: str, latent_dim: int, hidden_features: tuple[int, ...]) -> nn.Module:
    levels = _levels(dataset, name)
    return likelihoods.Categorical(networks.MLP(latent_dim, (*dataset.shape, levels), hidden_features, nn.Tanh), levels)


def _levels(dataset: Dataset, name: str) -> int:
    if dataset.levels is None:
        raise DataError(
            f"the recipe {name!r} is for discrete values, but '{dataset.name}' has real ones: use 'vae-gaussian', or "
            "state their number with data.load(..., levels=...)."
        )
    return dataset.levels


def _annealed(dataset: Dataset, epochs: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    """Settings that end at rest: what converges to a known optimum needs a step that goes to 0."""
    batch_size = min(batch_size, len(dataset.train))
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "scheduler": "CosineAnnealingLR",
    }


def _range(dataset: Dataset) -> tuple[float, float]:
    """Centre and spread that bring the data to about [−1, 1]."""
    if dataset.levels is not None:
        half = (dataset.levels - 1) / 2
        return half, half
    x = _some_of(dataset)
    return float(x.mean()), _spread(x)


def _some_of(dataset: Dataset) -> Tensor:
    """Enough of the training data to see their range, (N, *shape), float64."""
    return dataset.train[:10_000].double()


def _spread(x: Tensor) -> float:
    """The root mean square distance from the overall mean, in the data's units; 1 for data that are all the same."""
    return float(x.std(correction=0)) or 1.0


def _draw_seed() -> int:
    """A seed for scikit-learn's vocabulary from PyTorch's random state."""
    return int(torch.randint(2**31 - 1, ()))
