"""Prior and aggregated posterior told apart by a classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.aggregated import AggregatedPosterior
from pyro_lvm.diagnostics.auroc import AUROC, auroc
from pyro_lvm.diagnostics.drawing import checked
from pyro_lvm.diagnostics.randomness import seeded

_LEAST = 1e-6  # probability: a classifier that is certain is not to be believed to the last digit


@final
@dataclass(frozen=True)
class DensityRatio:
    """How well a classifier tells draws of the aggregated posterior from draws of the prior; see `density_ratio`.

    Attributes:
        auroc: of its probabilities: 1/2 where it tells nothing.
        kl: a lower bound, in expectation, on KL(q(z) ‖ p(z)), nats.
        kl_standard_error: its error over the draws.
        log_ratio_of_prior, log_ratio_of_posterior: the classifier's log q(z) / p(z) at draws it has not seen, (N,).
    """

    auroc: AUROC
    kl: float
    kl_standard_error: float
    log_ratio_of_prior: Tensor
    log_ratio_of_posterior: Tensor

    def __repr__(self) -> str:
        return (
            f"DensityRatio(AUROC {self.auroc}, KL(q(z) ‖ p(z)) at least {self.kl:.4f} ± {self.kl_standard_error:.4f} "
            f"nats, {len(self.log_ratio_of_prior)} draws of each)"
        )


def density_ratio(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    classifier: Any = None,
    *,
    folds: int = 5,
    seed: int | None = None,
) -> DensityRatio:
    r"""A check on the aggregated posterior that needs no densities: can a classifier tell it from the prior?

    One draw of q(z | x) for each of N data, and N from the prior; the classifier's log-odds T(z), of draws held out of
    its training, estimate log q(z) / p(z). For any T,

    $$\mathrm{KL}(q(z) \,\|\, p(z)) \ge E_{q(z)}[T(z)] - E_{p(z)}[e^{T(z)}] + 1,$$

    with equality for the true ratio: the estimate is too low by what the classifier misses, in expectation, never too
    high. Far from 0 it hangs on a few draws of the prior, and its error is not to be trusted beyond some nats. An AUROC
    of 1/2 says that this classifier with so many data finds no difference, not that there is none.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data, (N, *data_shape); several hundreds at least.
        classifier: any of scikit-learn with `predict_proba`, for all latents of a datum in a row of numbers; it is
            copied. Small boosted trees where left out, which find holes of any form; for few dimensions and smooth
            differences, logistic regression on squares and products is sharper.
        folds: of the cross-validation.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.

    Raises:
        ValueError: where `folds` < 2 or more than N, the prior cannot be sampled or is another one for every datum, or
            no latent belongs to single data.

    References:
        Mohamed & Lakshminarayanan (2016), Learning in Implicit Generative Models. Rosca, Lakshminarayanan & Mohamed
        (2018), Distribution Matching in Variational Inference. Nguyen, Wainwright & Jordan (2010), Estimating
        Divergence Functionals and the Likelihood Ratio by Convex Risk Minimization: the bound.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> found = density_ratio(model, guides.ExactPPCA(model), model.sample(300), seed=0)
        >>> abs(found.auroc.value - 0.5) < 4 * found.auroc.standard_error
        True
    """
    from sklearn.base import clone  # here, since scikit-learn takes a second to import
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    x = checked(model, guide, x)
    if not isinstance(folds, int) or not 2 <= folds <= len(x):
        raise ValueError(f"'folds' must be between 2 and the number of data, {len(x)}, not {folds!r}.")
    with seeded(seed):
        aggregated = AggregatedPosterior(model, guide, x)
        draws = [points.features(aggregated.names) for points in (aggregated.prior(len(x)), aggregated.draws(1))]
        state = int(torch.randint(2**31 - 1, ()))
    features, labels = torch.cat(draws).cpu().numpy(), np.repeat([0, 1], len(x))
    if classifier is None:
        classifier = HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=8, learning_rate=0.05, l2_regularization=5.0, random_state=state
        )
    splits = StratifiedKFold(folds, shuffle=True, random_state=state)
    shares = cross_val_predict(clone(classifier), features, labels, cv=splits, method="predict_proba")
    log_odds = torch.as_tensor(shares[:, 1]).double().clamp(_LEAST, 1 - _LEAST).logit()
    of_prior, of_posterior = log_odds[: len(x)], log_odds[len(x) :]
    weights = of_prior.exp()
    return DensityRatio(
        auroc(of_prior, of_posterior),
        float(of_posterior.mean() - weights.mean() + 1),
        float(((of_posterior.var() + weights.var()) / len(x)).sqrt()),
        of_prior,
        of_posterior,
    )
