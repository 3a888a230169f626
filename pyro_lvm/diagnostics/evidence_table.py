"""How far the evidence can be trusted, and zoo entries compared by it."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.reading import arviz, dataset
from pyro_lvm.evidence import LogLikelihood
from pyro_lvm.evidence.khat import is_arviz_1, pareto_khat

_ENOUGH = 25  # draws that a tail can be fitted to


def khat(idata: Any) -> Tensor:
    r"""Pareto k-hat of each datum's importance weights $p(x, z)/q(z \mid x)$: how far q is from the posterior.

    Below 0.5 all is well, above 0.7 neither q nor estimates made with its weights are to be trusted; −∞ where all
    weights are equal, as for the exact posterior.

    Args:
        idata: from `posterior`.

    Returns:
        (B,), of one number where data share latents.

    Raises:
        ValueError: where there are no log-weights, or fewer than 25 draws.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling. Yao, Vehtari, Simpson &
        Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference.

    Example:
        >>> from pyro_lvm import diagnostics, guides, models
        >>> _ = torch.manual_seed(0)
        >>> model, x = models.ProbabilisticPCA(5, latent_dim=2), torch.zeros(2, 5)
        >>> khat(diagnostics.posterior(model, guides.ExactPPCA(model), x, seed=0))
        tensor([-inf, -inf])
    """
    statistics = dataset(idata, "sample_stats")
    if "log_weight" not in statistics:
        raise ValueError(
            "'idata' has no 'log_weight' in its group 'sample_stats': its draws are of no approximation, or its "
            "log-weights are themselves estimates."
        )
    values = statistics["log_weight"].transpose("chain", "draw", ...).values
    log_weight = torch.from_numpy(values.reshape(values.shape[0] * values.shape[1], -1))  # (K, B)
    if len(log_weight) < _ENOUGH:
        raise ValueError(
            f"'idata' has {len(log_weight)} draws, and the tail of weights takes {_ENOUGH}: give more 'draws'."
        )
    return pareto_khat(log_weight)


def compare_evidence(estimates: Mapping[str, LogLikelihood]) -> Any:
    r"""Compares models by log p(x) of the same held-out data, in a table as `arviz.compare` gives.

    `arviz.loo` leaves a datum out of what the others say of shared parameters. A datum's own latents see it all the
    same, so that the conditional likelihood $p(x \mid z)$ that it would take says nothing about models such as these:
    what does is $p(x) = \int p(x, z)\, dz$ of data that nothing was trained on.

    Columns, in nats and summed over the data, as ArviZ has them:

    - `rank`, `elpd`, $\sum_n \log p(x_n)$, and `elpd_diff`, how far it lies below the best;
    - `weight` in the mixture of the models that predicts the data best, by stacking;
    - `se`, `dse`: standard errors of `elpd` and of `elpd_diff`, as of data drawn from a population;
    - `mc_error`, `mc_error_diff`: the Monte Carlo errors of the same two, of estimates with draws of their own;
    - `khat`: the worst datum's; above 0.7 an entry is not to be trusted.

    Args:
        estimates: by name, what `log_likelihood` gave for each model, on the same data in the same order.

    Returns:
        A `pandas.DataFrame`, best first.

    Raises:
        ValueError: for fewer than two models; for estimates of other numbers or kinds of data; for bounds.

    References:
        Vehtari, Gelman & Gabry (2017), Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and
        WAIC. Yao, Vehtari, Simpson & Gelman (2018), Using Stacking to Average Bayesian Predictive Distributions.

    Example:
        >>> from pyro_lvm import evidence, guides, models
        >>> _ = torch.manual_seed(0)
        >>> true = models.ProbabilisticPCA(5, latent_dim=2)
        >>> other, x = models.ProbabilisticPCA(5, latent_dim=1, noise_scale=3.0), true.sample(100)
        >>> table = compare_evidence(
        ...     {
        ...         name: evidence.log_likelihood(model, guides.ExactPPCA(model), x, num_particles=30)
        ...         for name, model in (("other", other), ("true", true))
        ...     }
        ... )
        >>> list(table.index), table["weight"].round(2).tolist()
        (['true', 'other'], [1.0, 0.0])
    """
    import pandas

    _check(estimates)
    values = {name: ll.as_subclass(Tensor).cpu().double().numpy() for name, ll in estimates.items()}
    best = max(values, key=lambda name: float(values[name].sum()))
    weights = _stacking(values)
    n = len(values[best])
    error = {name: n * float(ll.mean_standard_error) for name, ll in estimates.items()}
    rows = {
        name: {
            "elpd": own.sum(),
            "elpd_diff": (values[best] - own).sum(),
            "weight": weights[name],
            "se": own.std() * n**0.5,
            "dse": (values[best] - own).std() * n**0.5,
            "mc_error": error[name],
            "mc_error_diff": 0.0 if name == best else (error[name] ** 2 + error[best] ** 2) ** 0.5,
            "khat": float(estimates[name].khat.max()),
        }
        for name, own in values.items()
    }
    table = pandas.DataFrame.from_dict(rows, orient="index").sort_values("elpd", ascending=False)
    table.insert(0, "rank", range(len(table)))
    return table


def _check(estimates: Mapping[str, LogLikelihood]) -> None:
    if len(estimates) < 2:
        raise ValueError(f"'estimates' must hold at least two models to compare, but holds {len(estimates)}.")
    for name, ll in estimates.items():
        if not isinstance(ll, LogLikelihood):
            raise ValueError(
                f"'estimates' must hold what `log_likelihood` gives, but '{name}' is a {type(ll).__name__}: bounds "
                "with gaps of their own do not compare."
            )
    (first, one), *others = estimates.items()
    for name, ll in others:
        for what, a, b in (
            ("number of data", len(one), len(ll)),
            ("number of values of a datum", one.features, ll.features),
            ("probabilities (True) or densities (False)", one.is_discrete, ll.is_discrete),
        ):
            if a != b:
                raise ValueError(
                    f"'estimates' must be of the same data, but the {what} is {a} for '{first}' and {b} for '{name}'."
                )


def _stacking(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Weights by ArviZ's stacking."""
    # It exponentiates; what a datum gives all models alike changes no weight, and keeps that from under- and overflow.
    highest = np.max(list(values.values()), axis=0)
    entries = {name: _as_elpd(own - highest) for name, own in values.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.23 takes of pandas what is to go
        unrounded = {"round_to": "none"} if is_arviz_1() else {}
        table = arviz().compare(entries, method="stacking", **unrounded)
    return {name: float(table["weight"][name]) for name in values}


def _as_elpd(values: np.ndarray) -> Any:
    """Log-densities of single data as what ArviZ compares."""
    import xarray

    by_datum = xarray.DataArray(values, dims=("datum",))
    nothing = xarray.zeros_like(by_datum)
    total, error, n = float(values.sum()), float(values.std() * len(values) ** 0.5), len(values)
    if is_arviz_1():
        from arviz_stats.utils import ELPDDataLOO

        return ELPDDataLOO(
            elpd=total,
            se=error,
            p=0.0,
            n_samples=n,
            n_data_points=n,
            scale="log",
            warning=False,
            good_k=0.7,
            elpd_i=by_datum,
            pareto_k=nothing,
        )
    index = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale", "pareto_k", "good_k"]
    return arviz().stats.ELPDData([total, error, 0.0, n, n, False, by_datum, "log", nothing, 0.7], index=index)
