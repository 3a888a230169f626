"""One number against an exact one, and how trained pairs are measured."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm import data, objectives, zoo


@dataclass(frozen=True)
class Comparison:
    """One number held against an exact one.

    Attributes:
        name: what is compared.
        measured, exact: the two numbers.
        at_least, at_most: where measured − exact has to lie.
        why: where the gate comes from.
        unit: of both numbers.
    """

    name: str
    measured: float
    exact: float
    at_least: float
    at_most: float
    why: str
    unit: str = "nats per datum"

    @property
    def difference(self) -> float:
        """measured − exact."""
        return self.measured - self.exact

    @property
    def passed(self) -> bool:
        """Whether the difference lies in the gate; NaN does not."""
        return self.at_least <= self.difference <= self.at_most


def double_precision(name: str, dataset: data.Dataset, seed: int, **settings: Any) -> tuple[Any, Any, zoo.Recipe]:
    """A recipe's pair, and the recipe."""
    model, guide, recipe = zoo.build(name, dataset, seed=seed, **settings)
    return model.double(), guide.double(), recipe


def elbo(model: Any, guide: Any, x: Tensor, seed: int) -> tuple[float, float]:
    """The ELBO and its standard error from 200 draws, nats per datum."""
    objective = objectives.ELBO()  # all sampled: close to the exact posterior its draws hardly vary
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        draws = torch.tensor([-objective.loss(model, guide, x) / len(x) for _ in range(200)])
    return float(draws.mean()), float(draws.std()) / len(draws) ** 0.5
