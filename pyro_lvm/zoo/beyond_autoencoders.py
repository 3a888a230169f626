"""Models that lead to the data by other ways than one latent vector: through a small version, or one to one."""

from math import prod

from torch import nn

from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import data_range, levels_of, some_of, usual_training
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "self-vae",
    prior="standard normal, then a normal given a small version",
    posterior="diagonal normals, of the small version and of the datum",
    likelihood="Bernoulli or mixture of discretised logistics, of the small version and of the datum",
    bound="ELBO",
    reference="Gatopoulos & Tomczak (2020), Self-Supervised Variational Auto-Encoders",
)
def self_vae(
    dataset: Dataset,
    latent_dim: int = 16,
    coarse_dim: int = 8,
    hidden_features: tuple[int, ...] = (128,),
    factor: int = 2,
    components: int = 3,
) -> Made:
    """Draws a small version of the datum first, then the datum; makes large pictures of small ones.

    Args:
        dataset: discrete, with `levels`.
        latent_dim: number of dimensions of the latent that adds detail, z_1.
        coarse_dim: number of dimensions of the latent behind the small version, z_2.
        hidden_features: widths of the hidden layers of all networks.
        factor: side of the blocks whose means make the small version.
        components: of the mixture of logistics of a value, where there are more than two levels.
    """
    levels = levels_of(dataset, "self-vae")
    centre, spread = data_range(dataset)
    downscale = networks.Downscale(dataset.shape, factor)
    small, features = downscale.out_shape, prod(downscale.out_shape)

    def net(inputs: int | tuple[int, ...], outputs: int | tuple[int, ...], rescaled: int = 0) -> networks.MLP:
        return networks.MLP(inputs, outputs, hidden_features, nn.Tanh, centre, spread, rescaled)

    def likelihood(inputs: int, shape: tuple[int, ...], rescaled: int = 0) -> nn.Module:
        if levels == 2:
            return likelihoods.Bernoulli(net(inputs, shape, rescaled))
        # It knows that levels have an order. Without that, what a small version says of them takes more data to learn.
        return likelihoods.DiscretizedLogisticMixture(
            net(inputs, (*shape, 3 * components), rescaled), levels, components
        )

    model = models.SelfSupervised(
        downscale,
        priors.StandardNormal(coarse_dim),
        coarse=likelihood(coarse_dim, small),
        detail=posteriors.DiagonalNormal(net(features + coarse_dim, 2 * latent_dim, features)),
        decoder=likelihood(features + latent_dim, dataset.shape, features),
    )
    guide = guides.SelfSupervised(
        downscale,
        coarse=posteriors.DiagonalNormal(net(small, 2 * coarse_dim, features)),
        fine=posteriors.DiagonalNormal(net(dataset.shape, 2 * latent_dim, prod(dataset.shape))),
    )
    return Made(model, guide, objectives.ELBO(analytic_kl=True), usual_training(dataset))


@entry(
    "flow-realnvp",
    prior="RealNVP of the datum and noise",
    posterior="the datum and uniform noise",
    likelihood="the latent, rounded down",
    bound="ELBO",
    reference="Dinh et al. (2017), Density Estimation Using Real NVP; Theis et al. (2016), on dequantisation",
)
def flow_realnvp(dataset: Dataset, transforms: int = 8, hidden_features: tuple[int, ...] = (64, 64)) -> Made:
    """A flow on the data themselves, uniformly dequantised: a latent for every value, and nothing lost on the way.

    Args:
        dataset: discrete, with `levels`: the noise fills the gaps between these.
        transforms: number of coupling layers.
        hidden_features: widths of each layer's network.
    """
    levels, features = levels_of(dataset, "flow-realnvp"), prod(dataset.shape)
    prior = priors.Rescaled(priors.Flow(features, "real_nvp", transforms, hidden_features), features)
    posterior = posteriors.Dequantized(dataset.shape)
    prior.start_from(posterior(some_of(dataset)).sample())
    model = models.VAE(prior, likelihoods.Floor(dataset.shape, levels))
    training = usual_training(dataset) | {"optimizer": "AdamW", "optimizer_options": {"weight_decay": 1.0}}
    return Made(model, guides.Amortized(posterior), objectives.ELBO(), training)
