"""Diffusions: latents of the data's own shape, which a forward process without parameters turns to noise."""

from math import prod

from pyro_lvm import guides, likelihoods, models, networks
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.diffusion import (
    ConstantSchedule,
    CosineSchedule,
    ForwardProcess,
    LearnedSchedule,
    LearnedVariance,
    LevelDenoiser,
    LinearSchedule,
    NormalStep,
    Reverse,
    SmallVariance,
    Start,
)
from pyro_lvm.objectives import ELBO, HybridDenoising, SimpleDenoising
from pyro_lvm.zoo.recipe_parts import (
    Activation,
    Networks,
    averaged_training,
    data_range,
    levels_of,
    log_snr_below_levels,
    usual_training,
)
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "ddgm",
    prior="diffusion of few steps",
    posterior="forward diffusion",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Sohl-Dickstein et al. (2015), Deep Unsupervised Learning using Nonequilibrium Thermodynamics",
)
def ddgm(
    dataset: Dataset,
    hidden_features: tuple[int, ...] = (256, 256),
    activation: Activation = "tanh",
    steps: int = 5,
    beta: float = 0.5,
) -> Made:
    """A chain of few noised versions of a datum, a network for each step back.

    Args:
        dataset: any; its levels decide the likelihood.
        hidden_features: widths of the hidden layers of every network.
        activation: between them, "tanh", "relu" or "gated".
        steps: number of steps of the chain, T.
        beta: how much of the variance each step makes anew.
    """
    (centre, spread), shape = data_range(dataset), dataset.shape
    process = ForwardProcess(shape, ConstantSchedule(steps, beta), steps, centre, spread)
    nets = Networks(dataset, prod(shape), hidden_features, activation)
    transitions = [NormalStep(nets.between(shape, (2, *shape)), shape) for _ in range(steps - 1)]
    model = models.DiffusionChain(process, transitions, nets.decoder())
    return Made(model, guides.ForwardDiffusion(process), ELBO(analytic_kl=True), usual_training(dataset))


@entry(
    "ddpm",
    prior="diffusion, 1000 linear steps",
    posterior="forward diffusion",
    likelihood="discretised normal",
    bound="simple loss",
    reference="Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models",
    evidence="bound",
)
def ddpm(dataset: Dataset, steps: int = 1000, width: int = 256, blocks: int = 3) -> Made:
    """A diffusion of many steps that is trained to tell the noise, all steps alike, by a network of levels.

    Args:
        dataset: of levels.
        steps: T, more than 20.
        width: of the network's hidden layers.
        blocks: of the network.
    """
    levels, schedule = levels_of(dataset, "ddpm"), LinearSchedule(steps)
    process = ForwardProcess(dataset.shape, schedule, steps, *data_range(dataset))
    net = networks.TimeMLP(dataset.shape, (*dataset.shape, levels), width, blocks)
    reverse = Reverse(LevelDenoiser(net, process, levels), dataset.shape, schedule, Start(), SmallVariance())
    model = models.Diffusion(process, reverse, likelihoods.DiscretizedNormal(process, reverse, levels))
    training = averaged_training(dataset, 300, patience=20)
    return Made(model, guides.SubsampledDiffusion(process), SimpleDenoising(), training)


@entry(
    "ddpm-cosine",
    prior="diffusion, 1000 cosine steps",
    posterior="forward diffusion",
    likelihood="discretised normal",
    bound="hybrid loss",
    reference="Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models",
    evidence="bound",
)
def ddpm_cosine(dataset: Dataset, steps: int = 1000, width: int = 256, blocks: int = 3) -> Made:
    """A diffusion whose noise comes evenly and whose reverse variances are learned, by a network of levels.

    Args:
        dataset: of levels.
        steps: number of steps of the chain, T.
        width: of the network's hidden layers.
        blocks: of the network.
    """
    levels, schedule = levels_of(dataset, "ddpm-cosine"), CosineSchedule(steps)
    process = ForwardProcess(dataset.shape, schedule, steps, *data_range(dataset))
    net = networks.TimeMLP(dataset.shape, (*dataset.shape, levels + 1), width, blocks)
    reverse = Reverse(LevelDenoiser(net, process, levels), dataset.shape, schedule, Start(), LearnedVariance())
    model = models.Diffusion(process, reverse, likelihoods.DiscretizedNormal(process, reverse, levels))
    training = averaged_training(dataset, 300, patience=20)
    return Made(model, guides.SubsampledDiffusion(process), HybridDenoising(), training)


@entry(
    "vdm",
    prior="diffusion in continuous time",
    posterior="forward diffusion, learned noise",
    likelihood="levels from their noised values",
    bound="ELBO",
    reference="Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models",
    evidence="bound",
)
def vdm(dataset: Dataset, width: int = 256, blocks: int = 3, sampling_steps: int = 250) -> Made:
    """A diffusion in continuous time that is trained on its bound, schedule and all, by a network of levels.

    Args:
        dataset: of levels.
        width: of the network's hidden layers.
        blocks: of the network.
        sampling_steps: of how many steps a draw is made.
    """
    levels = levels_of(dataset, "vdm")
    schedule = LearnedSchedule(high=log_snr_below_levels(levels), low=-6.0)
    process = ForwardProcess(dataset.shape, schedule, None, *data_range(dataset))
    net = networks.TimeMLP(dataset.shape, (*dataset.shape, levels), width, blocks)
    reverse = Reverse(LevelDenoiser(net, process, levels), dataset.shape, schedule, Start(), SmallVariance())
    model = models.ContinuousDiffusion(process, reverse, likelihoods.NoisedLevels(process, levels), sampling_steps)
    training = averaged_training(dataset, 300, patience=20)
    return Made(model, guides.SubsampledDiffusion(process), ELBO(analytic_kl=True), training)
