"""New data from a trained pair."""

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_lvm.objectives.table import run
from pyro_lvm.preflight import as_tensor
from pyro_lvm.programs import pair


def sample_predictive(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, n: int) -> Tensor:
    r"""Draws n new data, $x \sim \int p(x \mid \theta)\, q(\theta)\, d\theta$, with θ the latents that all data share.

    Without such latents it is the prior predictive, `model.sample(n)`. With them, that would draw the parameters from
    their prior, as if nothing had been learned; here each datum comes from its own draw of the guide's.

    Args:
        model: a program that accepts `size`.
        guide: its guide.
        x: some data, (at least 1, *data_shape), for the guide to run on.
        n: number of data to draw.

    Returns:
        (n, *data_shape).

    Raises:
        ValueError: where `n` < 1, or the model cannot run without data.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> mixture = models.BayesianGaussianMixture(2, components=3)
        >>> sample_predictive(mixture, guides.NormalWishart(mixture), torch.zeros(1, 2), 5).shape
        torch.Size([5, 2])
    """
    if n < 1:
        raise ValueError(f"'n' is the number of data to draw and must be at least 1, not {n}.")
    programs = pair(model, guide)
    x = as_tensor(x, "x", programs)[:1]
    with torch.no_grad():
        with torch.random.fork_rng():
            shared = run(*programs, (x,), {}).global_latents
        if not shared:
            drawn: Tensor = programs[0](size=n)
            return drawn
        return torch.cat([_from_one_draw(programs, x, shared) for _ in range(n)])


def _from_one_draw(programs: Any, x: Tensor, shared: list[str]) -> Tensor:
    model, guide = programs
    sites = poutine.trace(guide).get_trace(x).nodes
    drawn: Tensor = poutine.condition(model, data={name: sites[name]["value"] for name in shared})(size=1)
    return drawn
