"""Diffusions of data given a smaller version of them."""

from pyro_lvm import guides, likelihoods, models, networks, objectives, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.diffusion import (
    Downscaled,
    ForwardProcess,
    LevelDenoiser,
    LinearLogSNR,
    Reverse,
    SmallVariance,
    Start,
)
from pyro_lvm.zoo.recipe_parts import averaged_training, data_range, levels_of, log_snr_below_levels, some_of
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
    schedule = LinearLogSNR(log_snr_below_levels(levels), -6.0)
    process = ForwardProcess(dataset.shape, schedule, steps, centre, spread)
    net = networks.TimeMLP(dataset.shape, (*dataset.shape, levels), width, blocks, downscale.out_shape)
    reverse = Reverse(LevelDenoiser(net, process, levels), dataset.shape, schedule, Start(), SmallVariance())
    condition = Downscaled(downscale, coarse, centre, spread)
    decoder = likelihoods.NoisedLevels(process, levels)
    model = models.SuperResolution(models.Diffusion(process, reverse, decoder, condition))
    training = averaged_training(dataset, 300, patience=20)
    return Made(model, guides.SubsampledDiffusion(process), objectives.ELBO(analytic_kl=True), training)
