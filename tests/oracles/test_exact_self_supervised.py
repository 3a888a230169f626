"""The self-supervised autoencoder where everything can be summed: binary data of four values, and codes for latents.

Gates: 1e-12 for sums; five standard errors for estimates, all of a seeded draw; 1e-3 for a chi-square test's p-value.
"""

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors

SHAPE, C_1, C_2 = (2, 2), 3, 2  # of x; categories of z_1 and of z_2
EVERY_X = torch.tensor(list(product([0.0, 1.0], repeat=4))).reshape(16, *SHAPE)
CODES_1, CODES_2 = torch.eye(C_1), torch.eye(C_2)


@pytest.fixture
def pair() -> tuple[models.SelfSupervised, guides.SelfSupervised]:
    torch.manual_seed(0)
    down = networks.Downscale(SHAPE, 2)  # to one value: 1 where two of the four or more are
    model = models.SelfSupervised(
        down,
        priors.OneHot(1, C_2),
        coarse=likelihoods.Bernoulli(networks.MLP(C_2, (1, 1), ())),
        detail=posteriors.OneHot(networks.MLP(1 + C_2, C_1, (4,), nn.Tanh), C_1),
        decoder=likelihoods.Bernoulli(networks.MLP(1 + C_1, SHAPE, (4,), nn.Tanh)),
    )
    coarse = posteriors.OneHot(networks.MLP((1, 1), C_2, ()), C_2)
    guide = guides.SelfSupervised(down, coarse, posteriors.OneHot(networks.MLP(SHAPE, C_1, ()), C_1))
    with torch.no_grad():
        for program, spread in ((model, 1.5), (guide, 0.5)):
            for parameter in program.parameters():
                parameter.normal_(0, spread)
    return model, guide


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    return torch.where(x == 1, logits.sigmoid(), (-logits).sigmoid()).log()


def joint(model: models.SelfSupervised, x: Tensor, y: float) -> Tensor:
    """log p(z_2, y, z_1, x) for every pair of codes, (C_2, C_1), from the networks' numbers alone."""
    log_p = torch.empty(C_2, C_1)
    prior = model.prior.logits.reshape(-1).log_softmax(-1)
    for (a, code_2), (b, code_1) in product(enumerate(CODES_2), enumerate(CODES_1)):
        small = bernoulli(model.coarse.net(code_2), torch.full((1, 1), y)).sum()
        detail = model.detail.net(torch.cat([torch.tensor([y]), code_2])).log_softmax(-1)[b]
        log_p[a, b] = (
            prior[a] + small + detail + bernoulli(model.decoder.net(torch.cat([torch.tensor([y]), code_1])), x).sum()
        )
    return log_p


def majority(x: Tensor) -> float:
    return float(x.sum() >= 2)


def test_the_bound_is_one_on_the_sum_over_all_small_versions(
    pair: tuple[models.SelfSupervised, guides.SelfSupervised],
) -> None:
    model, guide = pair
    with torch.no_grad():
        of_both = torch.stack(
            [torch.stack([joint(model, x, y).logsumexp((0, 1)) for y in (0.0, 1.0)]) for x in EVERY_X]
        )
        exact = of_both.logsumexp(1)  # log p(x)
        observed = torch.stack([joint(model, x, majority(x)).logsumexp((0, 1)) for x in EVERY_X])  # log p(x, d(x))
        elbos = []
        for x in EVERY_X:
            q_2 = guide.coarse.net(torch.full((1, 1), majority(x))).log_softmax(-1)
            q_1 = guide.fine.net(x).log_softmax(-1)
            log_q = q_2[:, None] + q_1
            elbos.append((log_q.exp() * (joint(model, x, majority(x)) - log_q)).sum())
        elbo = torch.stack(elbos)
    assert abs(exact.exp().sum() - 1) < 1e-12
    assert (elbo < observed).all()
    assert (observed < exact).all()

    ll = lvm.log_likelihood(model, guide, EVERY_X, num_particles=4000, seed=0)
    assert ((ll - observed).abs() < 5 * ll.standard_error + 1e-12).all()
    assert (ll.standard_error < 0.1).all()  # so that a wrong sum would be seen: the terms differ by nats
    with torch.no_grad():
        torch.manual_seed(1)
        draws = torch.tensor([-objectives.ELBO(200).loss(model, guide, EVERY_X) for _ in range(10)])
    assert abs(draws.mean() - elbo.sum()) < 5 * draws.std() / len(draws) ** 0.5


def test_large_pictures_have_the_models_probabilities_given_the_small_one(
    pair: tuple[models.SelfSupervised, guides.SelfSupervised],
) -> None:
    model, guide = pair
    n, y = 20_000, 1.0
    with torch.no_grad():
        for parameter, values in zip(guide.coarse.parameters(), ([[4.0], [0.0]], [-2.0, 0.0]), strict=True):
            parameter.copy_(
                torch.tensor(values)
            )  # far apart for the two small versions, so that a mistaken one is seen
        # p(x | y) with q(z_2 | y): the codes of z_2 weighed by it, in place of what p(z_2, y) says
        q_2 = guide.coarse.net(torch.full((1, 1), y)).softmax(-1)
        given = [joint(model, x, y) for x in EVERY_X]
        of_code = torch.stack(given).exp().sum(2)  # (16, C_2), p(x, y, z_2)
        resolved = (of_code / of_code.sum(0)) @ q_2
        small = torch.stack([torch.stack([joint(model, x, v) for x in EVERY_X]) for v in (0.0, 1.0)]).exp().sum(3)
        varied = (small / small.sum((0, 1))).sum(0) @ q_2
    x = EVERY_X[[-1]]  # all ones, whose small version is 1
    torch.manual_seed(0)
    for draws, expected in (
        (guide.super_resolve(model, torch.full((1, 1, 1), y), n), resolved),
        (guide.vary(model, x, n), varied),
    ):
        assert draws.shape == (n, 1, *SHAPE)
        number = (draws.flatten(1) * torch.tensor([8.0, 4.0, 2.0, 1.0])).sum(1).long()
        assert chisquare(number.bincount(minlength=16).numpy(), (n * expected).numpy()).pvalue > 1e-3
