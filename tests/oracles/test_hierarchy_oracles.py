"""Hierarchies against linear-Gaussian chains, whose evidence and posteriors are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_lvm import guides, levels, likelihoods, models, objectives, priors
from pyro_lvm.exact import LinearGaussianChain
from pyro_lvm.objectives.table import run
from pyro_lvm.posteriors.scales import _MINIMUM_SCALE

NOISE, FEATURES, WIDTH = 0.6, 6, 2


def chain(depth: int) -> LinearGaussianChain:
    """Orthogonal columns of equal length at every level, which make the exact conditionals diagonal."""
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(FEATURES if i == 0 else WIDTH, WIDTH, generator=generator) for i in range(depth)]
    weights = [(1.5 if i == 0 else 1.2) * torch.linalg.qr(w).Q for i, w in enumerate(draws)]
    biases = [torch.randn(len(w), generator=generator) for w in weights]
    return LinearGaussianChain(weights, biases, [NOISE**2, *(0.5 + 0.1 * i for i in range(1, depth))])


def joint(exact: LinearGaussianChain) -> tuple[Tensor, Tensor, list[slice]]:
    """Mean and covariance of (x, z_1, ..., z_L) by one linear map of all noises, and where each stands."""
    sizes = [len(w) for w in exact.weights] + [exact.weights[-1].shape[1]]
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    places = [slice(a, b) for a, b in pairwise(starts)]
    # v = B v + c + noise, so that v = (1 − B)⁻¹ (c + noise)
    B, c, variances = torch.zeros(starts[-1], starts[-1]), torch.zeros(starts[-1]), torch.ones(starts[-1])
    for i, (weight, bias, variance) in enumerate(zip(exact.weights, exact.biases, exact.variances, strict=True)):
        B[places[i], places[i + 1]], c[places[i]], variances[places[i]] = weight, bias, variance
    inverse = (torch.eye(len(c)) - B).inverse()
    return inverse @ c, inverse @ torch.diag(variances) @ inverse.mT, places


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_evidence_and_conditionals_of_a_chain_are_those_of_its_joint_normal(depth: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [5, 2, 3, 2, 1][: depth + 1]
    exact = LinearGaussianChain(
        [torch.randn(a, b, generator=generator) for a, b in pairwise(sizes)],
        [torch.randn(a, generator=generator) for a in sizes[:-1]],
        [0.3, 0.8, 1.3, 0.5][:depth],
    )
    mean, covariance, places = joint(exact)
    draw = MultivariateNormal(mean, covariance).sample((4,))
    x = draw[:, places[0]]
    expected = MultivariateNormal(mean[places[0]], covariance[places[0], places[0]]).log_prob(x)
    torch.testing.assert_close(exact.log_evidence(x), expected, rtol=1e-10, atol=1e-10)
    for level in range(1, depth + 1):
        above = draw[:, places[level + 1]] if level < depth else None
        loc, cov = exact.conditional(level, x, above)
        order = torch.arange(len(mean))
        given = torch.cat([order[places[0]], *([order[places[level + 1]]] if level < depth else [])])
        own = order[places[level]]
        gain = torch.linalg.solve(covariance[given][:, given], covariance[given][:, own]).mT
        expected_loc = mean[own] + (draw[:, given] - mean[given]) @ gain.mT
        torch.testing.assert_close(loc, expected_loc, rtol=1e-9, atol=1e-9)
        expected_cov = covariance[own][:, own] - gain @ covariance[given][:, own]
        torch.testing.assert_close(cov, expected_cov, rtol=1e-9, atol=1e-9)


def affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def as_program(exact: LinearGaussianChain) -> models.Hierarchical:
    """The chain as levels with affine networks, whose scales do not depend on what they read."""
    own = []
    for weight, bias, variance in zip(exact.weights[1:], exact.biases[1:], exact.variances[1:], strict=True):
        raw = torch.full_like(bias, math.log(math.expm1(variance**0.5 - _MINIMUM_SCALE)))
        own.append(levels.MarkovLevel(affine(torch.cat([weight, 0 * weight]), torch.cat([bias, raw]))))
    decoder = likelihoods.Normal(affine(exact.weights[0], exact.biases[0]), NOISE)
    return models.Hierarchical([*own, levels.TopLevel(priors.StandardNormal(WIDTH), nn.Identity())], decoder)


def linear_guide(model: models.Hierarchical) -> guides.TopDown:
    """A path that hands the data on, and affine heads that read them and the state above."""
    depth = len(model.levels)
    path = [nn.Linear(FEATURES, WIDTH), *(nn.Linear(WIDTH, WIDTH) for _ in range(depth - 1))]
    heads = [nn.Linear(2 * WIDTH, 2 * WIDTH) for _ in range(depth - 1)] + [nn.Linear(WIDTH, 2 * WIDTH)]
    return guides.TopDown(model.levels, path, heads)


def exact_guide(exact: LinearGaussianChain, model: models.Hierarchical) -> guides.TopDown:
    """The heads at the exact conditionals, read off by their values at a few points."""
    guide, depth = linear_guide(model), len(model.levels)
    W = exact.weights[0]
    zeros, eye = torch.zeros(1, WIDTH), torch.eye(WIDTH)
    steps = [affine(W.mT, torch.zeros(WIDTH)), *(affine(eye, torch.zeros(WIDTH)) for _ in range(depth - 1))]
    guide.path = nn.ModuleList(steps)
    back = W @ torch.linalg.inv(W.mT @ W)  # a datum for which the path gives a vector r
    for number, head in enumerate(guide.heads, 1):
        top = number == depth

        def shift(r: Tensor, z: Tensor, number: int = number, top: bool = top) -> Tensor:
            mean, _ = exact.conditional(number, r @ back.mT, None if top else z)
            return mean - (0.0 if top else z @ exact.weights[number].mT + exact.biases[number])

        bias = shift(zeros, zeros)[0]
        columns = [(shift(eye, zeros.expand(WIDTH, -1)) - bias).mT]
        if not top:
            columns.append((shift(zeros.expand(WIDTH, -1), eye) - bias).mT)
        _, covariance = exact.conditional(number, zeros @ back.mT, None if top else zeros)
        ratio = (covariance.diagonal() / (1.0 if top else exact.variances[number])).log()  # below 0, above −7
        raw = 7.0 * torch.atanh(ratio / 7.0)
        weight = torch.cat(columns, 1)
        with torch.no_grad():
            head.weight.copy_(torch.cat([weight, 0 * weight]))
            head.bias.copy_(torch.cat([bias, raw]))
    return guide


@pytest.mark.parametrize("depth", [2, 4])
def test_a_linear_top_down_guide_holds_the_exact_posterior(depth: int) -> None:
    """Its log-weights are then log p(x), every one of them, and the divergences those of the mathematics."""
    exact = chain(depth)
    model = as_program(exact)
    guide, x = exact_guide(exact, model), model.sample(20)
    table = run(model, guide, (x,), {}, num_particles=5, nesting=1, with_kl=True)
    evidence = exact.log_evidence(x)
    torch.testing.assert_close(table.log_weight(), evidence.expand(5, -1), rtol=0, atol=1e-9)
    for site in table.latents:
        number = int(site.name[2:])
        above = table.sites[f"z_{number + 1}"].value if number < depth else None
        mean, covariance = exact.conditional(number, x, above)
        prior_mean = 0.0 if above is None else above @ exact.weights[number].mT + exact.biases[number]
        variance = 1.0 if above is None else exact.variances[number]
        delta, ratio = mean - prior_mean, covariance.diagonal() / variance
        kl = 0.5 * (delta**2 / variance + ratio - ratio.log() - 1).sum(-1)
        assert site.kl is not None
        torch.testing.assert_close(site.kl, kl.expand_as(site.kl), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "steps", "learning_rate"), [(2, 250, 0.1), pytest.param(4, 600, 0.05, marks=pytest.mark.slow)]
)
def test_training_a_linear_top_down_guide_closes_the_gap(depth: int, steps: int, learning_rate: float) -> None:
    """To 0.02 nats from a random start, the estimate's own error below a tenth of that."""
    exact = chain(depth)
    model = as_program(exact)
    guide, x = linear_guide(model), model.sample(512)
    parameters = [*guide.path.parameters(), *guide.heads.parameters()]
    optimizer = torch.optim.Adam(parameters, learning_rate, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    objective = objectives.ELBO(analytic_kl=True)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.differentiable_loss(model, guide, x[torch.randint(512, (256,))]).div(256).backward()
        optimizer.step()
        scheduler.step()
    table = run(model, guide, (x,), {}, num_particles=64, nesting=1)
    differences = table.log_weight() - exact.log_evidence(x)  # (K, N)
    gap, error = -differences.mean().item(), differences.mean(1).std().item() / 8
    print(f"{depth} levels: gap {gap:.4f} ± {error:.4f} nats")
    assert error < 0.002
    assert gap < 0.02
