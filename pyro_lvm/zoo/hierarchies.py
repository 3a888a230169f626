"""Hierarchies of latents: how the upper levels collapse, and what keeps them alive."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.levels import ConvolutionalLevel, DenseLevel, Level, MarkovLevel, TopLevel
from pyro_lvm.sizes import check_sizes, checked_shape
from pyro_lvm.zoo.recipe_parts import Networks, data_range, usual_training, warmed_up
from pyro_lvm.zoo.registry import Made, entry

_COMPONENTS = 5  # of the mixture of discretised logistic variables that stands for a pixel of many levels


@entry(
    "hvae-bottom-up",
    prior="chain of 2 latents",
    posterior="diagonal normals, bottom-up",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO",
    reference="Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders",
)
def hvae_bottom_up(
    dataset: Dataset,
    latent_dims: tuple[int, ...] = (16, 4),
    hidden_features: tuple[int, ...] = (256, 256),
    link_features: tuple[int, ...] = (16, 16),
) -> Made:
    """A chain of latents whose guide goes upwards, and whose upper level collapses: kept to show it.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dims: number of dimensions of each level's latent, from the data upwards.
        hidden_features: widths of the hidden layers of encoder and decoder.
        link_features: widths of the hidden layers between two latents, upwards and downwards.
    """
    dims = _dims(latent_dims)
    nets = Networks(dataset, dims[0], hidden_features, "tanh")
    encoders = [nets.encoder(2 * dims[0])]
    encoders += [networks.MLP(below, 2 * own, link_features, nn.Tanh) for below, own in pairwise(dims)]
    guide = guides.BottomUp([posteriors.DiagonalNormal(net) for net in encoders])
    model = models.Hierarchical(_chain(dims, link_features), nets.decoder())
    return Made(model, guide, objectives.ELBO(analytic_kl=True), usual_training(dataset))


@entry(
    "hvae-top-down",
    prior="hierarchy of 2 latents",
    posterior="diagonal normals, top-down",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO with free bits",
    reference="Sønderby et al. (2016), Ladder Variational Autoencoders",
)
def hvae_top_down(
    dataset: Dataset,
    latent_dims: tuple[int, ...] = (16, 8),
    features: int = 256,
    blocks: int = 1,
    warm_up: float = 0.0,
    free_bits: float = 1.0,
) -> Made:
    """Two levels whose guide goes down with the model and shares its networks, so that the upper one stays alive.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dims: number of dimensions of each level's latent, from the data upwards.
        features: width of the state that goes down, and of the path that goes up.
        blocks: number of residual blocks a level.
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it.
        free_bits: nats per datum and level that cost nothing, λ.
    """
    return _ladder(dataset, latent_dims, features, blocks, warm_up, free_bits)


@entry(
    "ladder-dense",
    prior="hierarchy of 5 latents",
    posterior="diagonal normals, top-down",
    likelihood="Bernoulli, categorical or normal, by the data",
    bound="ELBO with free bits",
    reference="Sønderby et al. (2016), Ladder Variational Autoencoders",
)
def ladder_dense(
    dataset: Dataset,
    latent_dims: tuple[int, ...] = (16, 8, 8, 4, 4),
    features: int = 128,
    blocks: int = 1,
    warm_up: float = 50.0,
    free_bits: float = 0.5,
) -> Made:
    """Five levels of vectors, each with a way of its own to the data, and a guide that goes down with them.

    Args:
        dataset: any; its levels decide the likelihood.
        latent_dims: number of dimensions of each level's latent, from the data upwards.
        features: width of the state that goes down, and of the path that goes up.
        blocks: number of residual blocks a level.
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it.
        free_bits: nats per datum and level that cost nothing, λ.
    """
    return _ladder(dataset, latent_dims, features, blocks, warm_up, free_bits)


@entry(
    "ladder-conv",
    prior="hierarchy of 12 latents, maps of two sizes",
    posterior="diagonal normals, top-down",
    likelihood="Bernoulli, discretised logistic mixture or normal, by the data",
    bound="ELBO with free bits",
    reference="Vahdat & Kautz (2020), NVAE: A Deep Hierarchical Variational Autoencoder",
)
def ladder_conv(
    dataset: Dataset,
    levels_per_size: tuple[int, ...] = (6, 6),
    latent_channels: int = 2,
    channels: int = 16,
    blocks: int = 1,
    warm_up: float = 20.0,
    free_bits: float = 0.1,
) -> Made:
    """Twelve levels of maps, half of them of half the pictures' height and width, the upper half of a quarter.

    Args:
        dataset: of pictures whose height and width halve evenly as often as there are sizes: 28 → 14 → 7, 8 → 4 → 2.
        levels_per_size: number of levels whose maps have half the pictures' size, a quarter of it, and so on.
        latent_channels: maps of each level's latent.
        channels: maps of the state that goes down, and of the path that goes up.
        blocks: number of residual blocks a level.
        warm_up: epochs in which the divergence comes to its full weight; 0 begins with it.
        free_bits: nats per datum and level that cost nothing, λ.
    """
    check_sizes(latent_channels=latent_channels, channels=channels, blocks=blocks)
    sizes = _sizes(dataset, checked_shape(levels_per_size, "levels_per_size"))
    states, (centre, spread) = [(channels, *size) for size in sizes], data_range(dataset)
    # What a level reads is as large as its latent, what it hands down as large as the latent below.
    below = [states[0], *states[:-1]]
    levels = [ConvolutionalLevel(own, latent_channels, to, blocks) for own, to in zip(states, below, strict=True)][:-1]
    top_shape = (latent_channels, *sizes[-1])
    top = TopLevel(
        priors.StandardNormal(prod(top_shape)), networks.ConvolutionalNet(top_shape, below[-1], channels, blocks)
    )
    decoder = _picture_decoder(dataset, states[0], channels, blocks)
    model = models.Hierarchical([*levels, top], decoder)
    first = networks.ConvolutionalEncoder(dataset.shape, states[0], channels, blocks, centre=centre, spread=spread)
    path = [first, *(_step(one, other, blocks) for one, other in pairwise(states))]

    def head(read: int, size: tuple[int, int]) -> nn.Module:
        return networks.ConvolutionalNet((read, *size), (2 * latent_channels, *size), channels, blocks)

    heads = [*(head(2 * channels, size) for size in sizes[:-1]), head(channels, sizes[-1])]
    return _made(dataset, model, guides.TopDown(model.levels, path, heads), warm_up, free_bits)


def _ladder(
    dataset: Dataset, latent_dims: tuple[int, ...], features: int, blocks: int, warm_up: float, free_bits: float
) -> Made:
    """Levels of vectors with skips, and a guide whose path is as wide as their state."""
    check_sizes(features=features, blocks=blocks)
    dims, (centre, spread) = _dims(latent_dims), data_range(dataset)
    levels = [DenseLevel(features, dim, blocks) for dim in dims[:-1]]
    top = TopLevel(priors.StandardNormal(dims[-1]), networks.MLP(dims[-1], features, ()))
    model = models.Hierarchical([*levels, top], Networks(dataset, features, (), "relu").decoder())
    first = networks.MLP(dataset.shape, features, (features,), nn.SiLU, centre=centre, spread=spread)
    path = [first, *(_blocks(features, blocks) for _ in dims[1:])]
    heads = [networks.MLP(2 * features, 2 * dim, (features,), nn.SiLU) for dim in dims[:-1]]
    heads.append(networks.MLP(features, 2 * dims[-1], (features,), nn.SiLU))
    return _made(dataset, model, guides.TopDown(model.levels, path, heads), warm_up, free_bits)


def _made(dataset: Dataset, model: nn.Module, guide: nn.Module, warm_up: float, free_bits: float) -> Made:
    """The pair, trained on the bound with free bits a level, its β from 0 for a while, and its weights averaged.

    Without free bits one of two levels may die, the lower as well as the upper.
    """
    beta, training = warmed_up(dataset, warm_up)
    objective = objectives.ELBO(analytic_kl=True, beta=beta, free_bits=free_bits, free_bits_per="layer")
    return Made(model, guide, objective, training | {"weight_average": 0.99})


def _chain(latent_dims: tuple[int, ...], link_features: tuple[int, ...]) -> list[Level]:
    """Levels that read the one above them alone."""
    nets = [networks.MLP(above, 2 * own, link_features, nn.Tanh) for own, above in pairwise(latent_dims)]
    return [*map(MarkovLevel, nets), TopLevel(priors.StandardNormal(latent_dims[-1]), nn.Identity())]


def _dims(latent_dims: Sequence[int]) -> tuple[int, ...]:
    """The levels' dimensions, if there is a level.

    Raises:
        ValueError: where there is none, or one has no dimension.
    """
    dims = checked_shape(latent_dims, "latent_dims")
    if not dims:
        raise ValueError("'latent_dims' must hold the dimensions of at least one level, and is empty.")
    return dims


def _blocks(features: int, blocks: int) -> nn.Module:
    return nn.Sequential(*(networks.ResidualBlock(features) for _ in range(blocks)))


def _step(one: tuple[int, int, int], other: tuple[int, int, int], blocks: int) -> nn.Module:
    """From maps on the way up to the next, of the same size or a smaller one."""
    if one != other:
        return networks.ConvolutionalNet(one, other, one[0], blocks)
    stack = (networks.ConvolutionalBlock(one[0]) for _ in range(blocks))
    return nn.Sequential(nn.Unflatten(-1, one), *stack, nn.Flatten(-3))


def _picture_decoder(dataset: Dataset, shape: tuple[int, int, int], channels: int, blocks: int) -> nn.Module:
    """The likelihood of a picture, read from maps."""

    def net(outputs: int) -> nn.Module:
        return networks.ConvolutionalDecoder(shape, dataset.shape, outputs, channels, blocks)

    if dataset.levels is None:
        centre, spread = data_range(dataset)
        return likelihoods.Normal(net(1), "shared", dataset.shape, centre=centre, spread=spread)
    if dataset.levels == 2:
        return likelihoods.Bernoulli(net(1))
    return likelihoods.DiscretizedLogisticMixture(net(3 * _COMPONENTS), dataset.levels, _COMPONENTS)


def _sizes(dataset: Dataset, levels_per_size: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width of every level's maps, from the data upwards.

    Raises:
        ValueError: where there is no level.
        DataError: for data that are no pictures, or whose size does not halve evenly so many times.
    """
    if not levels_per_size:
        raise ValueError("'levels_per_size' must hold the number of levels of at least one size, and is empty.")
    if len(dataset.shape) not in (2, 3):
        raise DataError(
            f"the recipe 'ladder-conv' is for pictures, (height, width) or (channels, height, width), but "
            f"'{dataset.name}' has data of shape {dataset.shape}: use 'ladder-dense'."
        )
    height, width = dataset.shape[-2:]
    times = len(levels_per_size)
    if height % 2**times or width % 2**times:
        raise DataError(
            f"the recipe 'ladder-conv' halves the pictures' size {times} times, for each of 'levels_per_size', but "
            f"{height} by {width}, the size of '{dataset.name}', does not halve evenly so often: give fewer sizes, or "
            "pad the pictures."
        )
    return [(height >> i, width >> i) for i, number in enumerate(levels_per_size, 1) for _ in range(number)]
