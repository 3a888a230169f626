"""The entries of the zoo: what one is, and how it is found and made."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from pyro_lvm.data.dataset import Dataset
from pyro_lvm.sizes import check_sizes

__all__ = ["Evidence", "Made", "Recipe", "build", "entry", "names", "recipe"]

Evidence = Literal["log-likelihood", "bound"]


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
        evidence: what there is to judge it by: the "log-likelihood", by importance sampling, or the "bound" alone, for
            pairs whose log-weights are themselves estimates.
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
    evidence: Evidence = "log-likelihood"
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
    found = recipe(name)
    for setting in settings:
        if setting not in found.settings:
            near = difflib.get_close_matches(setting, found.settings, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(found.settings)}"
            raise ValueError(f"the recipe {name!r} has no setting {setting!r}: {hint}")
        if setting in ("latent_dim", "auxiliary_dim", "components", "num_particles", "variables"):
            check_sizes(**{setting: settings[setting]})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = found.make(dataset, **settings)
    filled = Recipe(**{**vars(found), "objective": made.objective, "training": made.training})
    return made.model, made.guide, filled


def entry(
    name: str,
    *,
    prior: str,
    posterior: str,
    likelihood: str,
    bound: str,
    reference: str,
    evidence: Evidence = "log-likelihood",
) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Makes a function from a data set to `Made` an entry, which the table describes in these words."""

    def register(make: Callable[..., Made]) -> Callable[..., Made]:
        _RECIPES[name] = Recipe(name, prior, posterior, likelihood, bound, reference, make, evidence)
        return make

    return register
