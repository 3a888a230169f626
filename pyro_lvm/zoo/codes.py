"""Autoencoders with a discrete code."""

from typing import Literal

from torch import nn

from pyro_lvm import guides, models, networks, objectives, posteriors, priors
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import categorical, data_range, usual_training
from pyro_lvm.zoo.registry import Made, entry


@entry(
    "vae-discrete",
    prior="categorical codes, learned",
    posterior="categorical codes",
    likelihood="categorical over levels",
    bound="ELBO",
    reference="Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax; Mnih & Rezende (2016)",
)
def vae_discrete(
    dataset: Dataset,
    variables: int = 20,
    categories: int = 10,
    hidden_features: tuple[int, ...] = (256, 256),
    gradient: Literal["gumbel", "score"] = "gumbel",
    temperature: float = 1.0,
    num_particles: int = 8,
) -> Made:
    """Variational autoencoder with a discrete code, trained through Gumbel-softmax draws or by the score function.

    Args:
        dataset: discrete, with `levels`.
        variables: number of variables of the code, V.
        categories: number of categories of each, C.
        hidden_features: widths of the hidden layers of encoder and decoder.
        gradient: of the encoder, "gumbel" (through draws; biased) or "score" (unbiased, the other draws as baseline).
        temperature: of the relaxation.
        num_particles: draws a datum by the score function; one through draws.
    """
    (centre, spread), code = data_range(dataset), variables * categories
    decoder = categorical(dataset, "vae-discrete", code, hidden_features)
    model = models.VAE(priors.OneHot(variables, categories), decoder)
    encoder = networks.MLP(dataset.shape, code, hidden_features, nn.Tanh, centre=centre, spread=spread)
    if gradient == "gumbel":
        posterior: nn.Module = posteriors.GumbelSoftmax(encoder, categories, temperature)
        objective = objectives.ELBO(analytic_kl=True)
    elif gradient == "score":
        posterior = posteriors.OneHot(encoder, categories)
        objective = objectives.ELBO(max(2, num_particles), analytic_kl=True)
    else:
        raise ValueError(f"'gradient' must be 'gumbel' or 'score', not {gradient!r}.")
    return Made(model, guides.Amortized(posterior), objective, usual_training(dataset))
