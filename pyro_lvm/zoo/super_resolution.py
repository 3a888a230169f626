"""Diffusions of data given a smaller version of them."""

from math import log
from typing import Any

from pyro_lvm import guides, likelihoods, models, networks, objectives, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.diffusion import Downscaled, ForwardProcess, LinearLogSNR, Reverse, SmallVariance, Velocity
from pyro_lvm.zoo.recipe_parts import data_range, levels_of, some_of
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "diffusion-superres",
    prior="mixture over small versions, diffusion given them",
    posterior="forward diffusion",
    likelihood="levels from their noised values",
    bound="ELBO",
    reference="Saharia et al. (2021), Image Super-Resolution via Iterative Refinement",
    evidence="bound",
)
def diffusion_superres(
    dataset: Dataset, factor: int = 2, components: int = 50, steps: int = 1000, width: int = 256, blocks: int = 3
) -> Made:
    """A diffusion of a datum given a smaller version of it, which a mixture models.

    Args:
        dataset: of levels.
        factor: side of a block of the datum that is one value of the smaller version.
        components: of the mixture, K, which start at training data: as many as there are, at most.
        steps: of the diffusion, T.
        width: of the network's hidden layers.
        blocks: of the network.
    """
    levels, (centre, spread) = levels_of(dataset, "diffusion-superres"), data_range(dataset)
    downscale = networks.Downscale(dataset.shape, factor)
    start = downscale(some_of(dataset, components))
    coarse = priors.MixtureOfLevels(downscale.out_shape, levels, len(start))
    coarse.start_from(start)
    # At the first time the noise is a sixth of the distance between levels: the decoder tells them apart.
    noise = (2 / (levels - 1) / 6) ** 2
    schedule = LinearLogSNR(log((1 - noise) / noise), -6.0)
    process = ForwardProcess(dataset.shape, schedule, steps, centre, spread)
    net = networks.TimeMLP(dataset.shape, None, width, blocks, condition_shape=downscale.out_shape)
    reverse = Reverse(net, dataset.shape, schedule, Velocity(), SmallVariance())
    condition = Downscaled(downscale, coarse, centre, spread)
    decoder = likelihoods.NoisedLevels(process, levels)
    model = models.SuperResolution(models.Diffusion(process, reverse, decoder, condition))
    return Made(model, guides.SubsampledDiffusion(process), objectives.ELBO(analytic_kl=True), _training(dataset))


def _training(dataset: Dataset) -> dict[str, Any]:
    """Settings that suit a network of all times: weights that are averaged over steps."""
    training = {"epochs": 500, "batch_size": min(64, len(dataset.train)), "learning_rate": 1e-3, "weight_average": 0.99}
    if dataset.validation is not None:
        training["early_stopping"] = 40
    return training
