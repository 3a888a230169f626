"""Densities made distributions by rounding down: against integrals over the cells, and their bound in closed form.

Gates: 1e-5 for quadrature, whose error on the grid used, of a spline's kinks, is below half of that; five standard
errors for estimates.
"""

from math import log, pi

import torch
from torch import Tensor
from torch.distributions import Normal

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, objectives, posteriors, priors

LEVELS = 4


def pair(prior: torch.nn.Module, shape: tuple[int, ...]) -> tuple[models.VAE, guides.Amortized]:
    return models.VAE(prior, likelihoods.Floor(shape, LEVELS)), guides.Amortized(posteriors.Dequantized(shape))


def test_a_normal_rounded_down_has_its_probabilities_and_its_bound() -> None:
    torch.manual_seed(0)
    prior = priors.Rescaled(priors.StandardNormal(2), 2)
    prior.start_from(torch.tensor([[-0.4, 1.1], [2.6, 2.7]]))
    c, s = torch.tensor([1.1, 1.9]), torch.tensor([1.5, 0.8])
    model, guide = pair(prior, (2,))
    every = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    cells = (Normal(c, s).cdf(every + 1) - Normal(c, s).cdf(every)).log().sum(-1)
    low, high = torch.where(every == 0, -torch.inf, every), torch.where(every == 3, torch.inf, every + 1)
    exact = (Normal(c, s).cdf(high) - Normal(c, s).cdf(low)).log().sum(-1)
    assert abs(exact.exp().sum() - 1) < 1e-12

    # What draws say of the model: outer levels reach to infinity.
    n = 200_000
    drawn = model.sample(n)
    frequency = (drawn @ torch.tensor([4.0, 1.0])).long().bincount(minlength=16) / n
    error = (exact.exp() * (1 - exact.exp()) / n).sqrt()
    assert ((frequency - exact.exp()).abs() < 5 * error).all()

    # What the bound tends to: the cells alone, less where a level reaches further.
    ll = lvm.log_likelihood(model, guide, every, 20_000, seed=0)
    assert ((ll - cells).abs() < 5 * ll.standard_error).all()
    assert (cells <= exact + 1e-12).all()
    inside = ((every == 1) | (every == 2)).all(1)
    torch.testing.assert_close(cells[inside], exact[inside], rtol=0, atol=1e-12)

    # E[((x + u − c) / s)²] = ((x + ½ − c)² + 1/12) / s²
    square = ((every + 0.5 - c) ** 2 + 1 / 12) / s**2
    elbo = (-0.5 * square - s.log() - 0.5 * log(2 * pi)).sum(-1)
    assert (elbo < cells).all()
    torch.manual_seed(1)
    losses = torch.tensor([-objectives.ELBO(500).loss(model, guide, every) for _ in range(20)])
    assert abs(losses.mean() - elbo.sum()) < 5 * losses.std() / len(losses) ** 0.5


def test_a_flow_rounded_down_sums_to_one_and_importance_weights_tighten_its_bound() -> None:
    torch.manual_seed(3)
    flow = priors.Flow(1, "neural_spline", transforms=2)
    prior = priors.Rescaled(flow, 1)
    prior.start_from(torch.tensor([[0.5], [3.5]]))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0, 1.5)
    model, guide = pair(prior, (1,))
    step = 1 / 4000
    z = torch.arange(-40, 44, step)[:, None] + step / 2
    with torch.no_grad():
        mass = prior.log_prob(z).exp() * step
    decoder = model.decoder(z)
    x = torch.arange(4.0)[:, None]
    exact = torch.stack([(mass * decoder.log_prob(level.expand_as(z)).exp()).sum() for level in x]).log()
    assert abs(exact.exp().sum() - 1) < 1e-5

    def bound(K: int) -> Tensor:
        runs = lvm.log_likelihood(model, guide, x.repeat(2000 // K, 1), K, seed=0) + 0
        return runs.reshape(-1, 4).mean(0)

    one, ten = bound(1), bound(10)
    assert (one < exact).all()
    assert one.sum() < ten.sum() < exact.sum()
    ll = lvm.log_likelihood(model, guide, x, 20_000, seed=0)
    assert ((ll - exact)[1:3].abs() < 5 * ll.standard_error[1:3] + 1e-5).all()
    assert (ll - 5 * ll.standard_error < exact).all()


def test_no_draw_is_rounded_into_the_next_cell() -> None:
    torch.manual_seed(0)
    low = torch.full(
        (1000, 3), 2.0**22, dtype=torch.float32
    )  # numbers there are a half apart: a quarter of sums is rounded up
    q = posteriors.Dequantized(3)(low)
    z = q.rsample()
    assert (z < low + 1).all()
    assert (z > low).any()
    assert (q.log_prob(z) == 0).all()
    assert (likelihoods.Floor(3, 2**23)(z).log_prob(low) == 0).all()
