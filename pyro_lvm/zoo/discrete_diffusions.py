"""Discrete diffusion: levels that jump at random, as latents of the data's own shape."""

from typing import Literal

import torch

from pyro_lvm import guides, models, networks, objectives
from pyro_lvm.data.checks import check_choice
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.diffusion import (
    AbsorbingCorruption,
    Corruption,
    DiscreteReverse,
    NormalCorruption,
    UniformCorruption,
    cosine_survival,
    linear_survival,
)
from pyro_lvm.zoo.recipe_parts import averaged_training, levels_of
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "d3pm",
    prior="discrete diffusion, 1000 steps",
    posterior="forward corruption",
    likelihood="categorical over levels",
    bound="ELBO",
    reference="Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces",
    evidence="bound",
)
def d3pm(
    dataset: Dataset,
    corruption: Literal["absorbing", "uniform", "normal"] = "absorbing",
    steps: int = 1000,
    width: int = 256,
    blocks: int = 3,
) -> Made:
    """A diffusion of the levels themselves, two of binary data or more, which are masked or jump at random.

    Args:
        dataset: discrete, with `levels`.
        corruption: what happens to a value, "absorbing" (it is masked), "uniform" (it becomes any level) or "normal"
            (it moves to a near one).
        steps: of the diffusion, T.
        width: of the network's hidden layers.
        blocks: of the network.
    """
    levels = levels_of(dataset, "d3pm")
    process = _corruption(corruption, levels, steps)
    net = networks.TimeMLP((*dataset.shape, process.states), (*dataset.shape, levels), width, blocks)
    model = models.DiscreteDiffusion(DiscreteReverse(net, process, dataset.shape))
    training = averaged_training(dataset, 300, patience=20)
    return Made(model, guides.ForwardCorruption(process), objectives.ELBO(analytic_kl=True), training)


def _corruption(name: str, levels: int, steps: int) -> Corruption:
    check_choice(name, ("absorbing", "uniform", "normal"), "corruption")
    if name == "normal":
        # From 0.02 to 1 at T = 1000, and as much in all at any T.
        return NormalCorruption(levels, (torch.linspace(20, 1000, steps, dtype=torch.float64) / steps).tolist())
    if name == "uniform":
        return UniformCorruption(levels, cosine_survival(steps))
    return AbsorbingCorruption(levels, linear_survival(steps))
