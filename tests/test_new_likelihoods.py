"""Discretised logistics and the continuous Bernoulli: against sums, quadrature, 50-digit arithmetic and draws."""

import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.data.checks import DataError
from pyro_lvm.distributions import ContinuousBernoulli, DiscretizedLogistic, DiscretizedLogisticMixture

PRECISION = {torch.float32: 1e-6, torch.float64: 1e-12}  # of a sum of probabilities, and of an integral
SIGNIFICANCE = 1e-3  # of chi-square tests of draws


def exact_logistic(level: int, loc: float, scale: float, levels: int) -> float:
    """log p(k) as the difference of distribution functions, in arithmetic precise enough for it."""
    with localcontext() as context:
        context.prec = 700  # e^−1325, the least of what is subtracted, has 575 zeros

        def cdf(y: Decimal) -> Decimal:
            return 1 / (1 + (-(y - Decimal(loc)) / Decimal(scale)).exp())

        upper = Decimal(1) if level == levels - 1 else cdf(Decimal(level) + Decimal("0.5"))
        lower = Decimal(0) if level == 0 else cdf(Decimal(level) - Decimal("0.5"))
        context.prec = 30
        return float((upper - lower).ln())


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_probabilities_of_all_levels_sum_to_one(dtype: torch.dtype, levels: int) -> None:
    loc = torch.linspace(-0.7, 1.3, 21, dtype=dtype)[:, None] * levels
    scale = torch.logspace(-12, 6, 19, dtype=dtype)
    every = torch.arange(levels, dtype=dtype)[:, None, None]
    total = DiscretizedLogistic(loc, scale, levels).log_prob(every).double().exp().sum(0)
    assert (total - 1).abs().max() < PRECISION[dtype]
    logits, locs = torch.randn(3, dtype=dtype), loc + torch.tensor([0.0, 1.0, 7.0], dtype=dtype)
    mixture = DiscretizedLogisticMixture(logits, locs, torch.tensor([1e-8, 0.3, 20.0], dtype=dtype), levels)
    assert (mixture.log_prob(every[..., 0]).double().exp().sum(0) - 1).abs().max() < PRECISION[dtype]


@pytest.mark.parametrize("scale", [0.01, 0.3, 4.0, 1e5])
def test_log_probability_is_that_of_the_difference_also_far_in_the_tails(scale: float) -> None:
    levels, loc = 17, 3.25
    ours = DiscretizedLogistic(torch.tensor(loc), torch.tensor(scale), levels).log_prob(torch.arange(17.0))
    theirs = torch.tensor([exact_logistic(k, loc, scale, levels) for k in range(levels)])
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_no_level_is_impossible_and_every_gradient_is_finite_in_single_precision() -> None:
    loc = torch.tensor([-1e6, 0.0, 100.5, 255.0, 1e6], dtype=torch.float32)[:, None].requires_grad_()
    scale = torch.tensor([1e-38, 1e-20, 1e-6, 1.0, 1e30], dtype=torch.float32).requires_grad_()
    log_p = DiscretizedLogistic(loc, scale, 256).log_prob(torch.arange(256.0, dtype=torch.float32)[:, None, None])
    assert log_p.isfinite().all()
    log_p.sum().backward()
    assert loc.grad is not None
    assert scale.grad is not None
    assert loc.grad.isfinite().all()
    assert scale.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    loc = (3 * torch.randn(4, 2) + 2).requires_grad_()
    scale, logits = (0.1 + torch.rand(4, 2)).requires_grad_(), torch.randn(4, 2, requires_grad=True)
    x = torch.tensor([0.0, 2.0, 3.0, 4.0])
    torch.autograd.gradcheck(lambda m, s: DiscretizedLogistic(m, s, 5).log_prob(x[:, None]), (loc, scale))
    torch.autograd.gradcheck(lambda w, m, s: DiscretizedLogisticMixture(w, m, s, 5).log_prob(x), (logits, loc, scale))


@pytest.mark.parametrize("dtype", PRECISION)
def test_draws_of_levels_have_their_probabilities(dtype: torch.dtype) -> None:
    n, every = 100_000, torch.arange(7, dtype=dtype)
    loc, scale = torch.tensor([0.2, 3.4, 8.0], dtype=dtype), torch.tensor([0.6, 1.1, 2.0], dtype=dtype)
    single = DiscretizedLogistic(loc, scale, 7)
    mixture = DiscretizedLogisticMixture(torch.tensor([0.5, -0.5, 0.0], dtype=dtype), loc, scale, 7)
    for p, draws in ((single, single.sample((n,))), (mixture, mixture.sample((n,)).unsqueeze(-1))):
        expected = p.log_prob(every.reshape(7, *(1,) * len(p.batch_shape))).double().exp().reshape(7, -1)
        for column, probabilities in zip(draws.T, expected.T, strict=True):
            counts = column.long().bincount(minlength=7)
            assert (
                stats.chisquare(counts.numpy(), (n * probabilities / probabilities.sum()).numpy()).pvalue > SIGNIFICANCE
            )


def test_mixture_of_one_is_its_component_and_mixtures_are_sums() -> None:
    logits, loc, scale = torch.randn(4, 3), 3 * torch.randn(4, 3) + 3, 0.1 + torch.rand(4, 3)
    every = torch.arange(6.0)[:, None]
    one = DiscretizedLogisticMixture(logits[:, :1], loc[:, :1], scale[:, :1], 6)
    torch.testing.assert_close(one.log_prob(every), DiscretizedLogistic(loc[:, 0], scale[:, 0], 6).log_prob(every))
    mixture = DiscretizedLogisticMixture(logits, loc, scale, 6).log_prob(every)
    parts = DiscretizedLogistic(loc, scale, 6).log_prob(every.unsqueeze(-1)).exp()
    torch.testing.assert_close(mixture.exp(), (logits.softmax(-1) * parts).sum(-1))


# The continuous Bernoulli

LOGITS = (-1e4, -100.0, -20.0, -1.0, -0.021, -0.019, -1e-3, 0.0, 1e-8, 0.019, 0.021, 1.0, 5.0, 17.0, 100.0, 1e4)


def exact_log_density(eta: float, x: float) -> float:
    with localcontext() as context:
        context.prec = 60
        e = Decimal(eta)
        log_z = Decimal(0) if not e else (((-abs(e)).exp() - 1) / -abs(e)).ln()
        return float(-abs(e) * (Decimal(x) if eta < 0 else 1 - Decimal(x)) - log_z)


@pytest.mark.parametrize("dtype", PRECISION)
def test_density_is_exact_for_every_logit(dtype: torch.dtype) -> None:
    for x in (0.0, 0.25, 1.0):
        ours = ContinuousBernoulli(torch.tensor(LOGITS, dtype=dtype)).log_prob(torch.tensor(x, dtype=dtype))
        theirs = torch.tensor([exact_log_density(torch.tensor(eta, dtype=dtype).item(), x) for eta in LOGITS])
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(ours.double(), theirs, rtol=8 * eps, atol=16 * eps)  # a few roundings


def test_pytorchs_own_is_still_wrong() -> None:
    """Once it is right, ours can go."""
    theirs = torch.distributions.ContinuousBernoulli(logits=torch.tensor(100.0, dtype=torch.float32))
    assert abs(theirs.log_prob(torch.tensor(1.0, dtype=torch.float32)).item() - math.log(100)) > 1


def test_mean_and_gradient_of_the_normaliser_agree() -> None:
    """d log p(x) / dη = x − E[x], also across the switch to the series."""
    for dtype, gate in ((torch.float32, 2e-5), (torch.float64, 1e-6)):  # eps / 0.02; the mean's series, 0.02³ / 720
        eta = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
        p = ContinuousBernoulli(eta)
        (gradient,) = torch.autograd.grad(p.log_prob(torch.tensor(0.25, dtype=dtype)).sum(), eta)
        torch.testing.assert_close(gradient, 0.25 - p.mean.detach(), rtol=0, atol=gate)


@pytest.mark.parametrize("dtype", PRECISION)
def test_draws_have_the_distribution_function(dtype: torch.dtype) -> None:
    n, eta = 50_000, torch.tensor([-100.0, -3.0, -0.01, 0.0, 0.015, 0.5, 20.0], dtype=dtype)
    draws = ContinuousBernoulli(eta).sample((n,)).double()
    assert ((draws >= 0) & (draws <= 1)).all()
    for x, e in zip(draws.T, eta.double().tolist(), strict=True):
        cdf = (lambda t: t) if e == 0 else (lambda t, e=e: torch.special.expm1(e * t) / math.expm1(e))
        counts = torch.histc(cdf(x), 20, 0.0, 1.0)
        assert stats.chisquare(counts.numpy()).pvalue > SIGNIFICANCE


def test_gradient_through_a_draw_moves_the_mean() -> None:
    """d E[x] / dη is the variance, 1/12 at η = 0."""
    for e in (-3.0, 0.0, 0.019, 0.5, 20.0):
        eta = torch.full((100_000,), e, requires_grad=True)
        (gradient,) = torch.autograd.grad(ContinuousBernoulli(eta).rsample().sum(), eta)
        variance = 1 / 12 if e == 0 else 1 / e**2 - math.exp(e) / math.expm1(e) ** 2
        assert abs(gradient.mean() - variance) < 4 * gradient.std() / len(gradient) ** 0.5


# The parts


def parts(scale: Any = "shared") -> dict[str, nn.Module]:
    return {
        "logistic": likelihoods.DiscretizedLogistic(nn.Linear(2, 6), 5, scale, (2, 3)),
        "mixture": likelihoods.DiscretizedLogisticMixture(nn.Linear(2, 6 * 9), 5, 3, (2, 3)),
        "continuous": likelihoods.ContinuousBernoulli(nn.Linear(2, 6), (2, 3)),
    }


@pytest.mark.parametrize("name", parts())
def test_parts_take_particles_draw_their_support_and_train_every_parameter(name: str) -> None:
    part = parts()[name]
    z = torch.randn(7, 5, 2)
    p = part(z)
    assert (p.batch_shape, p.event_shape) == ((7, 5), (2, 3))
    x = p.sample()
    assert p.support.check(x).all()
    larger = p.expand((4, 7, 5))
    torch.testing.assert_close(larger.log_prob(x), p.log_prob(x).expand(4, 7, 5))
    assert larger.sample().shape == (4, 7, 5, 2, 3)
    torch.testing.assert_close(part(z[2]).log_prob(x[2]), p.log_prob(x)[2])
    p.log_prob(x).sum().backward()
    assert all(w.grad is not None and (w.grad != 0).any() for w in part.parameters())


@pytest.mark.parametrize("scale", [0.3, "shared", "per_dimension", "predicted"])
def test_discretised_logistic_part_has_the_stated_location_and_scale(scale: Any) -> None:
    net = nn.Linear(2, 12 if scale == "predicted" else 6)
    part = likelihoods.DiscretizedLogistic(net, 9, scale, (2, 3))
    z, x = torch.randn(5, 2), torch.randint(9, (5, 2, 3)).double()
    out = net(z)
    s: Any = 0.3
    if scale == "predicted":
        s = nn.functional.softplus(out[:, 6:] - 1.5077) + 1e-3
    elif scale != 0.3:
        assert part.raw_scale.shape == (() if scale == "shared" else (2, 3))
        s = math.log1p(math.exp(-1.5077)) + 1e-3
    # In units in which level k is at −1 + k/4, and a bin is 1/4 wide.
    centre, x_flat = out[:, :6], x.flatten(1)
    upper = torch.where(x_flat == 8, 1.0, ((x_flat / 4 - 1 + 0.125 - centre) / s).sigmoid())
    lower = torch.where(x_flat == 0, 0.0, ((x_flat / 4 - 1 - 0.125 - centre) / s).sigmoid())
    torch.testing.assert_close(part(z).log_prob(x), (upper - lower).log().sum(-1), rtol=1e-9, atol=1e-9)


def test_mixture_part_has_the_stated_components_flat_or_shaped() -> None:
    net, z = nn.Linear(2, 6 * 9), torch.randn(5, 2)
    x = torch.randint(5, (5, 6)).double()
    logits, loc, raw = net(z).unflatten(-1, (6, 9)).chunk(3, dim=-1)
    points = torch.tensor([-2 / 3, 0.0, 2 / 3])
    scale = 2 * (nn.functional.softplus(raw - 1.5077) + 1e-3)
    expected = DiscretizedLogisticMixture(logits, 2 * (loc + points + 1), scale, 5).log_prob(x).sum(-1)
    for shape in (None, (6,)):
        part = likelihoods.DiscretizedLogisticMixture(net, 5, 3, shape)
        torch.testing.assert_close(part(z).log_prob(x), expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("logistic", 5.0, "whole numbers from 0 to 4"),
        ("logistic", 0.5, "whole numbers from 0 to 4"),
        ("mixture", -1.0, "whole numbers from 0 to 4"),
        ("continuous", 1.5, "numbers from 0 to 1"),
    ],
)
def test_data_outside_the_support_are_named_in_one_sentence(name: str, value: float, words: str) -> None:
    model = models.VAE(priors.StandardNormal(2), parts()[name])
    guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP((2, 3), 4, (4,))))
    data = torch.ones(20, 2, 3)
    data[11, 1, 2] = value
    with pytest.raises(DataError, match=rf"'data' holds {value:g} at \[11, 1, 2\], outside.*{words}") as error:
        lvm.fit(model, guide, data, epochs=1, batch_size=10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", parts())
def test_pairs_train_and_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    try:
        model = models.VAE(priors.StandardNormal(2), parts()[name])
        guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP((2, 3), 4, (4,))))
        x = model.sample(32)
        result = lvm.fit(model, guide, x, epochs=2, batch_size=16, compile=False, progress=False)
        assert math.isfinite(result.history[-1]["train"])
        lvm.save(tmp_path, model, guide)
        again = lvm.load(tmp_path)
        values = [lvm.log_likelihood(*pair, x, 5, seed=0, progress=False) + 0 for pair in ((model, guide), again)]
        assert torch.equal(*values)
    finally:
        torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize("name", parts())
def test_parts_can_be_captured(name: str, no_compiler: None) -> None:
    model = models.VAE(priors.StandardNormal(2), parts()[name])
    guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP((2, 3), 4, (4,))))
    x = model.sample(6)
    assert_captured(model, guide, x)


def assert_captured(model: nn.Module, guide: nn.Module, x: Tensor) -> None:
    compiled, objective = lvm.compile(lvm.objectives.ELBO(2), model, guide), lvm.objectives.ELBO(2)
    for seed in range(4):
        torch.manual_seed(seed)
        found = compiled(x).item()
        torch.manual_seed(seed)
        assert found == pytest.approx(objective.loss(model, guide, x), rel=1e-10)
    assert compiled.failure is None


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: likelihoods.DiscretizedLogistic(nn.Linear(2, 4), 1), "'levels'"),
        (lambda: likelihoods.DiscretizedLogistic(nn.Linear(2, 4), 3, 0.0), "'scale'"),
        (lambda: likelihoods.DiscretizedLogistic(nn.Linear(2, 4), 3, "own"), "'scale' must be"),
        (lambda: likelihoods.DiscretizedLogistic(nn.Linear(2, 4), 3, "per_dimension"), "'shape'"),
        (lambda: likelihoods.DiscretizedLogistic(nn.Linear(2, 3), 3, "predicted")(torch.zeros(1, 2)), "odd"),
        (lambda: likelihoods.DiscretizedLogisticMixture(nn.Linear(2, 4), 3, 0), "'components'"),
        (
            lambda: likelihoods.DiscretizedLogisticMixture(nn.Linear(2, 4), 3, 2)(torch.zeros(1, 2)),
            "no multiple of 3 · 'components' = 6",
        ),
        (lambda: DiscretizedLogistic(torch.zeros(()), torch.ones(()), 1), "'levels'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(build: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build()
    assert "\n" not in str(error.value)
