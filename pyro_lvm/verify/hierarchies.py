"""A hierarchy with affine levels, against the linear-Gaussian chain that it is."""

from collections.abc import Callable, Iterator
from math import expm1, log
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm import evidence, levels, likelihoods, models, priors
from pyro_lvm.exact import LinearGaussianChain
from pyro_lvm.posteriors.scales import positive
from pyro_lvm.programs import data_plate
from pyro_lvm.verify.comparison import Comparison

_NOISE, _FEATURES, _WIDTH = 0.6, 6, 2


def hierarchies(seed: int) -> Iterator[Comparison]:
    """Two levels, with the exact conditionals as guide, and with wider ones."""
    chain = _chain()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _as_program(chain)
        x = model.sample(200)
    truth = float(chain.log_evidence(x).mean())
    right = evidence.log_likelihood(model, _guide(chain, 1.0), x, 10, seed=seed, progress=False)
    why = "rounding: every weight is the evidence"
    yield Comparison("hierarchy: evidence by its posterior", float(right.mean()), truth, -1e-9, 1e-9, why)
    wide = evidence.log_likelihood(model, _guide(chain, 1.5), x, 2000, seed=seed, progress=False)
    error = float(wide.mean_standard_error)
    low = -4 * error - 0.5 * float(wide.standard_error.square().mean())
    why = "4 standard errors, and the bias of a logarithm below"
    name = "hierarchy: evidence by a wider guide, 2000 draws"
    yield Comparison(name, float(wide.mean()), truth, low, 4 * error, why)


def _chain() -> LinearGaussianChain:
    generator = torch.Generator().manual_seed(1)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    weights, biases = [draw(_FEATURES, _WIDTH), draw(_WIDTH, _WIDTH)], [draw(_FEATURES), draw(_WIDTH)]
    return LinearGaussianChain(weights, biases, [_NOISE**2, 0.6])


def _as_program(chain: LinearGaussianChain) -> models.Hierarchical:
    """The chain as levels with affine networks, whose scales do not depend on what they read."""
    weight, bias = chain.weights[1], chain.biases[1]
    smallest = float(positive(torch.tensor(-torch.inf)))
    raw = torch.full_like(bias, log(expm1(chain.variances[1] ** 0.5 - smallest)))
    level = levels.MarkovLevel(_affine(torch.cat([weight, 0 * weight]), torch.cat([bias, raw])))
    top = levels.TopLevel(priors.StandardNormal(_WIDTH), nn.Identity())
    decoder = likelihoods.Normal(_affine(chain.weights[0], chain.biases[0]), _NOISE)
    return models.Hierarchical([level, top], decoder).double()


def _affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _guide(chain: LinearGaussianChain, factor: float) -> Callable[..., Any]:
    """The exact conditionals from the top down, their scales multiplied."""

    def guide(x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            above = None
            for level in (2, 1):
                mean, covariance = chain.conditional(level, x, above)
                q = dist.MultivariateNormal(mean, covariance_matrix=factor**2 * covariance)
                above = pyro.sample(f"z_{level}", q)

    return guide
