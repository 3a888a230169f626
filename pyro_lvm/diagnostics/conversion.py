"""A pair's draws as an ArviZ object."""

import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, final

import numpy as np
from torch import Tensor

from pyro_lvm.diagnostics.drawing import Draws, Sampler, Variable, checked
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.evidence.khat import is_arviz_1


def posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    draws: int = 500,
    chains: int = 4,
    *,
    prior_draws: int | None = None,
    seed: int | None = None,
    size: int | None = None,
) -> Any:
    r"""Draws from the approximate posterior $q(z \mid x)$, and what to hold them against, as an ArviZ object.

    An `InferenceData` with ArviZ 0.x and an `xarray.DataTree` with ArviZ 1.x; groups and names are the same:

    - `posterior`: latents $z \sim q(z \mid x)$. The draws are independent, so chains differ by chance alone and their
      effective sample size is their number: an $\hat R$ of 1 says nothing about how close q is to the posterior.
    - `posterior_predictive`: data drawn anew, $x' \sim p(x' \mid z)$, given these latents.
    - `log_likelihood`: $\log p(x \mid z)$ of each observed site, nats. For latents that belong to one datum it is
      conditional on them, and `az.loo` of it leaves a datum out of the likelihood but not out of its own latents.
    - `sample_stats`: `log_weight`, $\log p(x, z) - \log q(z \mid x)$, nats, per datum and not scaled by plates; for
      programs with latents that all data share, one number for the whole batch. Where q is the exact posterior, it
      is log p(x), draw by draw. Left out where log-weights are themselves estimates, as a diffusion's are.
    - `prior`, `prior_predictive`: one chain of `prior_draws` ancestral draws from the model, of as many data as `x`
      holds. Left out with a warning where the model's prior cannot be sampled.
    - `observed_data`: x.

    Dimensions are (chain, draw, datum, *others). "datum" is the plate of the data, other plates keep their names; the
    dimensions of a value are `z_dim` for a vector, `x_dim_0`, `x_dim_1`, ... for an array. Latents shared by all data
    have no "datum". Discrete assignments are integers.

    The programs run on many draws at once, in a dimension on the left of their latents, in chunks that bound the
    memory of a run; those that cannot take it run once a draw, and a warning says so. The result itself holds about
    (chains + 1) · draws · B · (D + M) numbers.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: the data to condition on, (B, *data_shape).
        draws: number of draws in each chain.
        chains: number of chains; ArviZ's statistics need 2 or more for some things, and 4 for none.
        prior_draws: number of draws from the model's prior, as many as `draws` where left out; 0 leaves them out. A
            draw of a diffusion takes all of its steps.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        size: number of data in the whole set, where `x` is a part of it; no number in the result depends on it unless
            the programs use it themselves.

    Returns:
        The ArviZ object; `to_netcdf` and back keeps every bit.

    Raises:
        ValueError: where `draws` or `chains` < 1, `prior_draws` < 0, `x` is no batch of data, or the programs do not
            fit one another.

    References:
        Kumar, Carroll, Hartikainen & Martin (2019), ArviZ: a unified library for exploratory analysis of Bayesian
        models in Python. Yao, Vehtari, Simpson & Gelman (2018), Yes, but Did It Work?: Evaluating Variational
        Inference.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> idata = posterior(model, guides.ExactPPCA(model), torch.zeros(3, 5), draws=10, chains=2, seed=0)
        >>> dict(idata["posterior"]["z"].sizes)
        {'chain': 2, 'draw': 10, 'datum': 3, 'z_dim': 2}
    """
    for name, number in (("draws", draws), ("chains", chains)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"'{name}' is a number of draws or chains and must be at least 1, not {number!r}.")
    if prior_draws is not None and (not isinstance(prior_draws, int) or prior_draws < 0):
        raise ValueError(f"'prior_draws' is a number of draws and must be 0 or more, not {prior_draws!r}.")
    x = checked(model, guide, x)
    with seeded(seed):
        sampler = Sampler(model, guide, x, size=size)
        drawn = (sampler.posterior(K) for K in sampler.chunks(chains * draws))
        groups = posterior_groups(sampler, (chains, draws), drawn)
        if prior_draws != 0:
            groups |= prior_groups(sampler, draws if prior_draws is None else prior_draws)
    return arviz_object(groups | {"observed_data": observed_group(sampler)})


@final
class Group:
    """Arrays that fill as draws come, with the names of their dimensions.

    Args:
        variables: how the sites' values lie in memory.
        shape: (chains, draws); None for data, which have none.
    """

    def __init__(self, variables: dict[str, Variable], shape: tuple[int, int] | None) -> None:
        self.variables, self.shape = variables, shape
        self.attributes: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.dims: dict[str, tuple[str, ...]] = {}
        self._filled: dict[str, int] = {}

    def add(self, name: str, values: Tensor, variable: Variable) -> None:
        """The next draws (K, *dims) of a variable."""
        rows = values.detach().cpu().numpy()
        plates = tuple(plate.name for plate in variable.plates)
        own = variable.own[: rows.ndim - len(plates) - (self.shape is not None)]
        if self.shape is None:
            self.arrays[name], self.dims[name] = rows, plates + own
            return
        if name not in self.arrays:
            self.arrays[name] = np.empty((self.shape[0] * self.shape[1], *rows.shape[1:]), rows.dtype)
            self.dims[name] = ("chain", "draw", *plates, *own)
        start = self._filled.get(name, 0)
        self.arrays[name][start : start + len(rows)] = rows
        self._filled[name] = start + len(rows)

    def dataset(self) -> Any:
        """The arrays as an `xarray.Dataset`, its coordinates counting from 0."""
        import xarray  # here, since it takes half a second to import

        arrays = {
            name: array if self.shape is None else array.reshape(*self.shape, *array.shape[1:])
            for name, array in self.arrays.items()
        }
        sizes = {d: n for name, array in arrays.items() for d, n in zip(self.dims[name], array.shape, strict=True)}
        return xarray.Dataset(
            {name: (self.dims[name], array) for name, array in arrays.items()},
            coords={dim: np.arange(n) for dim, n in sizes.items()},
            attrs={
                "inference_library": "pyro-lvm",
                "inference_library_version": version("pyro-lvm"),
                **self.attributes,
            },
        )


def posterior_groups(
    sampler: Sampler, shape: tuple[int, int], drawn_in_parts: Iterable[tuple[Draws, Draws]]
) -> dict[str, Group]:
    """The groups that hold (chains, draws) from a posterior, from latents with their table and data drawn anew."""
    names = ("posterior", "posterior_predictive", "log_likelihood", "sample_stats")
    groups = {name: Group(sampler.variables, shape) for name in names}
    for drawn, again in drawn_in_parts:
        assert drawn.table is not None
        K = drawn.table.num_particles
        for name, values in drawn.values.items():
            groups["posterior"].add(name, values, sampler.variables[name])
        for name, values in again.values.items():
            groups["posterior_predictive"].add(name, values, sampler.variables[name])
        for name in sampler.observed:
            variable = sampler.variables[name]
            log_p = drawn.table.sites[name].log_p  # (K, *plates), or (1, *plates) where it depends on no latent
            aligned = variable.align(log_p)
            groups["log_likelihood"].add(name, aligned.expand(K, *aligned.shape[1:]), variable)
        if drawn.table.without_weights is None:
            log_weight = sampler.log_weight.align(drawn.table.log_weight())
            groups["sample_stats"].add("log_weight", log_weight, sampler.log_weight)
    return groups


def observed_group(sampler: Sampler) -> Group:
    """The data."""
    observed = Group(sampler.variables, None)
    for name, value in sampler.observed.items():
        observed.add(name, value, sampler.variables[name])
    return observed


def prior_groups(sampler: Sampler, draws: int) -> dict[str, Group]:
    """The groups of draws from the model alone; none where its prior cannot be sampled."""
    groups = {name: Group(sampler.variables, (1, draws)) for name in ("prior", "prior_predictive")}
    try:
        for K in sampler.chunks(draws, of_prior=True):
            for name, values in sampler.prior(K).values.items():
                variable = sampler.variables[name]
                groups["prior" if variable.is_latent else "prior_predictive"].add(name, values, variable)
    except NotImplementedError as error:
        warnings.warn(f"the model's prior cannot be sampled ({error}): its groups are left out", stacklevel=3)
        return {}
    return groups


def arviz_object(groups: dict[str, Group]) -> Any:
    """The groups as what the installed ArviZ takes."""
    datasets = {name: group.dataset() for name, group in groups.items() if group.arrays}
    if is_arviz_1():
        import xarray

        return xarray.DataTree.from_dict({f"/{name}": dataset for name, dataset in datasets.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces its own refactoring when imported
        from arviz import InferenceData  # here, since it takes two seconds to import
    return InferenceData(**datasets)
