"""Gradients of the objectives: means of 40,000 draws against exact ones, by a χ² test of `LEVEL` = 1e-4 each."""

import math
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from objectives_oracle import (
    CHAIN,
    CHAIN_GUIDE,
    CHAIN_MODEL,
    CHAIN_X,
    CODE,
    CODE_GUIDE,
    CODE_MODEL,
    CODE_X,
    LEVEL,
    LINE,
    LINE_X,
    MIXED,
    MIXED_GUIDE,
    MIXED_MODEL,
    NORMAL_GUIDE,
    NORMAL_MODEL,
    PLANE,
    PLANE_X,
    ROWS,
    Nodes,
    Numbers,
    agree,
    chain,
    chain_rows,
    code,
    code_rows,
    drawn_gradients,
    enumerated,
    exact_gradient,
    expected_log_mean,
    expected_share,
    false_alarm,
    flat_gradients,
    grid,
    leaves,
    line,
    mixed,
    mixed_rows,
    normal,
    normal_rows,
)
from torch import Tensor, nn

from pyro_lvm import models, objectives
from pyro_lvm.objectives import CIWAE, CUBO, ELBO, IWAE, MIWAE, PIWAE, Capacity, Renyi, ReweightedWakeSleep, WakeSleep
from pyro_lvm.objectives.score import without_each

FREE = ("weight", "bias", "log_sigma", "offset", "log_scale")  # at one x, the guide's slope has its offset's gradient
MODEL, GUIDE = ("weight", "bias", "log_sigma"), ("offset", "log_scale")


def parts(numbers: Numbers, x: Tensor) -> tuple[Tensor, Tensor]:
    """E_q[log p(x | z)] and the divergence of every dimension, (M,), in closed form."""
    m, s = numbers["slope"] @ x + numbers["offset"], numbers["log_scale"].exp()
    W, variance = numbers["weight"], (2 * numbers["log_sigma"]).exp()
    square = (x - W @ m - numbers["bias"]).square().sum() + (W.square() @ s.square()).sum()
    reconstruction = -0.5 * (square / variance + len(x) * (variance.log() + math.log(2 * math.pi)))
    return reconstruction, 0.5 * (m.square() + s.square() - 1) - s.log()


# The oracle itself


def test_the_grid_s_expectations_agree_with_sums_over_every_pair_and_tuple() -> None:
    numbers = leaves(LINE)
    nodes = line(numbers, LINE_X)
    assert expected_log_mean(nodes, 1).item() == pytest.approx((nodes.probability * nodes.log_w).sum().item())
    coarse = Nodes(nodes.probability[::10] / nodes.probability[::10].sum(), *(nodes.log_w[::10],) * 3)
    pairs = torch.logaddexp(coarse.log_w[:, None], coarse.log_w) - math.log(2)
    expected = coarse.probability @ pairs @ coarse.probability
    assert expected_log_mean(nodes, 2).item() == pytest.approx(expected.item(), abs=1e-9)
    names = MODEL + GUIDE
    found, wanted = (exact_gradient(e, numbers, names) for e in (expected_log_mean(nodes, 2), expected))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    codes = code(leaves(CODE), CODE_X)
    for K in (1, 2, 3, 5):
        every = enumerated(codes, K, lambda log_w: log_w.logsumexp(0) - math.log(len(log_w)))
        assert expected_log_mean(codes, K).item() == pytest.approx(every.item(), rel=1e-11)
    share = enumerated(codes, 3, lambda log_w: (log_w.softmax(0) * log_w).sum(0))
    assert expected_share(codes, 3, codes.log_w.detach()).item() == pytest.approx(share.item(), rel=1e-11)


# ELBO and what weighs its parts


@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("analytic_kl", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_elbo(beta: float, analytic_kl: bool, K: int) -> None:
    numbers = leaves(PLANE)
    reconstruction, kl = parts(numbers, PLANE_X)
    objective = ELBO(K, analytic_kl=analytic_kl, beta=beta)
    draws = drawn_gradients(objective, *normal_rows(PLANE, PLANE_X), FREE)
    agree(draws, exact_gradient(beta * kl.sum() - reconstruction, numbers, FREE))


@pytest.mark.parametrize("K", [1, 4])
def test_uncertainty_autoencoder(K: int) -> None:
    numbers = leaves(PLANE)
    draws = drawn_gradients(objectives.UncertaintyAutoencoder(K), *normal_rows(PLANE, PLANE_X), FREE)
    agree(draws, exact_gradient(-parts(numbers, PLANE_X)[0], numbers, FREE))


@pytest.mark.parametrize("constraint", [{"kl": 0.5}, {"reconstruction": 2.0}])
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_capacity_has_its_lagrangian_s(constraint: dict[str, float], analytic_kl: bool) -> None:
    numbers = leaves(PLANE)
    reconstruction, kl = parts(numbers, PLANE_X)
    mu = 2.5
    objective = Capacity(**constraint, analytic_kl=analytic_kl)
    objective.load_state_dict({"log_multiplier": torch.tensor(mu).log(), "excess": torch.tensor(0.0)})
    draws = drawn_gradients(objective, *normal_rows(PLANE, PLANE_X), FREE)
    lagrangian = mu * kl.sum() - reconstruction if "kl" in constraint else kl.sum() - mu * reconstruction
    agree(draws, exact_gradient(lagrangian, numbers, FREE))


@pytest.mark.parametrize("analytic_kl", [False, True])
@pytest.mark.parametrize("place", ["below both", "between", "above both"])
def test_free_bits_by_dimension(place: str, analytic_kl: bool) -> None:
    numbers = leaves(PLANE)
    reconstruction, kl = parts(numbers, PLANE_X)
    low, high = kl.min().item(), kl.max().item()
    assert low > 0.01
    assert high > 2 * low
    free_bits = {"below both": low / 2, "between": (low + high) / 2, "above both": 2 * high}[place]
    objective = ELBO(analytic_kl=analytic_kl, free_bits=free_bits)
    draws = drawn_gradients(objective, *normal_rows(PLANE, PLANE_X), FREE)
    agree(draws, exact_gradient(kl.clamp(min=free_bits).sum() - reconstruction, numbers, FREE))


def test_the_gradient_of_a_divergence_within_its_free_bits_is_zero() -> None:
    model, guide, x = normal_rows(PLANE, PLANE_X, rows=3)
    torch.manual_seed(5)
    free = drawn_gradients(ELBO(analytic_kl=True, free_bits=100.0), model, guide, x, FREE)
    torch.manual_seed(5)
    torch.testing.assert_close(free, drawn_gradients(ELBO(beta=0.0), model, guide, x, FREE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_free_bits_by_layer(analytic_kl: bool) -> None:
    numbers = leaves(CHAIN)
    epsilon, probability = grid(0.125, 8.0)
    z_2 = numbers["top"] + numbers["top_scale"].exp() * epsilon
    top_scale, scale = numbers["top_scale"].exp(), numbers["bottom_scale"].exp()
    top = 0.5 * (numbers["top"].square() + top_scale.square() - 1) - top_scale.log()
    mean = numbers["bottom"] + numbers["regression"] * z_2
    away = (mean - numbers["coupling"] * z_2).square() + scale.square()
    bottom = (probability * (0.5 * (away / 0.64 - 1) - scale.log() + math.log(0.8))).sum()
    w = numbers["weight"]
    seen = (probability * ((CHAIN_X - w * mean).square() + w.square() * scale.square())).sum()
    assert top < 0.15 < bottom
    names = CHAIN_MODEL + CHAIN_GUIDE
    objective = ELBO(analytic_kl=analytic_kl, free_bits=0.15, free_bits_per="layer")
    draws = drawn_gradients(objective, *chain_rows(), names)
    agree(draws, exact_gradient(bottom + 0.5 * seen / 0.49, numbers, names))


# Bounds of K weights


@pytest.mark.parametrize("K", [1, 2, 8])
@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_iwae(gradient: Any, K: int) -> None:
    numbers = leaves(LINE)
    draws = drawn_gradients(IWAE(K, gradient=gradient), *normal_rows(LINE, LINE_X), FREE)
    agree(draws, exact_gradient(-expected_log_mean(line(numbers, LINE_X), K), numbers, FREE))


@pytest.mark.parametrize("K", [1, 2, 8])
@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_iwae_of_a_hierarchy(gradient: Any, K: int) -> None:
    numbers, names = leaves(CHAIN), CHAIN_MODEL + CHAIN_GUIDE
    draws = drawn_gradients(IWAE(K, gradient=gradient), *chain_rows(), names)
    agree(draws, exact_gradient(-expected_log_mean(chain(numbers, CHAIN_X), K), numbers, names))


@pytest.mark.parametrize("gradient", ["standard", "stl", "dreg"])
def test_iwae_of_particles_one_after_another(gradient: Any) -> None:
    numbers, names = leaves(CHAIN), CHAIN_MODEL + CHAIN_GUIDE
    draws = drawn_gradients(IWAE(4, gradient=gradient, vectorize_particles=False), *chain_rows(), names)
    expected = exact_gradient(-expected_log_mean(chain(numbers, CHAIN_X), 4), numbers, names)
    if gradient == "stl":
        assert false_alarm(draws, expected) < 1e-12
    else:
        agree(draws, expected)


def test_iwae_of_latents_in_an_inner_plate() -> None:
    """Two z of a datum, under one weight: the estimator through the draws against the standard one."""
    R = ROWS

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_scale = nn.Parameter(torch.full((R,), 0.4)), nn.Parameter(torch.full((R,), -0.1))

        def forward(self, x: Tensor) -> None:
            pyro.module("guide", self)
            with pyro.plate("data", R, dim=-1), pyro.plate("steps", 2, dim=-2):
                pyro.sample("z", dist.Normal(self.mean * x, self.log_scale.exp()))

    def model(x: Tensor) -> None:
        with pyro.plate("data", R, dim=-1):
            with pyro.plate("steps", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))  # (K, 2, R)
            pyro.sample("x", dist.Normal(z.sum(-2, keepdim=True), 0.6), obs=x)

    guide, x, found = Guide(), torch.full((R,), 0.7), {}
    for gradient in ("standard", "dreg"):
        guide.zero_grad()
        objective = IWAE(4, gradient=gradient)  # type: ignore[arg-type]
        objective.differentiable_loss(model, guide, x).backward()
        assert objective.table(model, guide, x).log_weight().shape == (4, 1, R)
        found[gradient] = flat_gradients(dict(guide.named_parameters()), ("mean", "log_scale"))
    agree(found["standard"] - found["dreg"], torch.zeros(2))  # independent draws of one mean
    assert false_alarm(found["dreg"], torch.zeros(2)) < 1e-12


@pytest.mark.parametrize("K", [1, 2, 8])
def test_sticking_the_landing_is_unbiased_for_one_draw_only(K: int) -> None:
    numbers, names = leaves(LINE), GUIDE
    rows = normal_rows(LINE, LINE_X)
    draws = drawn_gradients(IWAE(K, gradient="stl"), *rows, FREE)
    expected = exact_gradient(-expected_log_mean(line(numbers, LINE_X), K), numbers, FREE)
    models_own = sum(numbers[name].numel() for name in MODEL)
    agree(draws[:, :models_own], expected[:models_own])  # the model's is unbiased for every K
    if K == 1:
        agree(draws, expected)
    else:
        # What it does estimate: the bound's gradient without −Σ w̃_k ∇ log q(z_k).
        nodes = line(numbers, LINE_X)
        score = exact_gradient(expected_share(nodes, K, nodes.log_q), numbers, names)
        agree(draws[:, models_own:], expected[models_own:] - score)
        assert false_alarm(draws[:, models_own:], expected[models_own:]) < 1e-12


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
@pytest.mark.parametrize("K", [1, 5])
def test_estimators_through_the_draws_vanish_at_the_exact_posterior(gradient: Any, K: int) -> None:
    W, variance = LINE["weight"], (2 * LINE["log_sigma"]).exp()
    precision = 1 + W.square().sum() / variance
    slope = W.T / variance / precision
    exact_guide = {"slope": slope, "offset": -slope @ LINE["bias"], "log_scale": -0.5 * precision.log().reshape(1)}
    rows = normal_rows(LINE | exact_guide, LINE_X, rows=100)
    draws = drawn_gradients(IWAE(K, gradient=gradient), *rows, NORMAL_GUIDE)
    assert draws.abs().max() < 1e-12  # numbers of order 1, in float64
    assert drawn_gradients(IWAE(K), *rows, NORMAL_GUIDE).abs().max() > 0.1


def test_signal_to_noise_of_dreg_grows_with_the_particles_and_falls_for_the_standard_gradient() -> None:
    numbers = leaves(LINE)
    nodes, rows = line(numbers, LINE_X), normal_rows(LINE, LINE_X, rows=4000)
    found: dict[str, list[float]] = {"standard": [], "dreg": []}
    for K in (1, 4, 64, 256):
        signal = exact_gradient(expected_log_mean(nodes, K), numbers, GUIDE).norm()
        for gradient, ratios in found.items():
            draws = drawn_gradients(IWAE(K, gradient=gradient), *rows, GUIDE)  # type: ignore[arg-type]
            ratios.append((signal / draws.var(0).sum().sqrt()).item())
    standard, dreg = found["standard"], found["dreg"]
    assert all(a > b for a, b in pairwise(standard))
    assert all(a < b for a, b in pairwise(dreg))
    # K^(−1/2) and K^(1/2) (Rainforth et al. 2018, Tucker et al. 2018): from 64 to 256 by 2, with what 4,000 draws leave
    assert standard[2] / standard[3] == pytest.approx(2, rel=0.15)
    assert dreg[3] / dreg[2] == pytest.approx(2, rel=0.15)


def test_variances_are_ordered() -> None:
    def variance(objective: Any, numbers: Numbers) -> float:
        return drawn_gradients(objective, *normal_rows(numbers, LINE_X, rows=10_000), GUIDE).var(0).sum().item()

    # near the posterior, whose scale is 0.54
    near = LINE | {"log_scale": torch.tensor([0.6]).log(), "slope": torch.zeros(1, 2), "offset": torch.tensor([0.45])}
    assert variance(IWAE(1, gradient="stl"), near) < 0.5 * variance(ELBO(), near)
    for K in (4, 32):
        assert variance(IWAE(K, gradient="dreg"), LINE) < 0.8 * variance(IWAE(K), LINE)
    assert variance(ELBO(8), LINE) == pytest.approx(variance(ELBO(), LINE) / 8, rel=0.15)
    assert variance(ELBO(analytic_kl=True), LINE) < variance(ELBO(), LINE)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_ciwae(beta: float) -> None:
    numbers = leaves(LINE)
    nodes = line(numbers, LINE_X)
    expected = -beta * expected_log_mean(nodes, 1) - (1 - beta) * expected_log_mean(nodes, 4)
    draws = drawn_gradients(CIWAE(4, beta), *normal_rows(LINE, LINE_X), FREE)
    agree(draws, exact_gradient(expected, numbers, FREE))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_miwae(groups: int) -> None:
    numbers = leaves(LINE)
    draws = drawn_gradients(MIWAE(6, groups), *normal_rows(LINE, LINE_X), FREE)
    agree(draws, exact_gradient(-expected_log_mean(line(numbers, LINE_X), 6 // groups), numbers, FREE))


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("pair", ["line", "chain", "code"])
def test_piwae_has_the_model_s_of_iwae_and_the_guide_s_of_miwae(pair: str, groups: int) -> None:
    setting: dict[str, tuple[Any, ...]] = {
        "line": (normal_rows(LINE, LINE_X), LINE, line, LINE_X, MODEL, GUIDE),
        "chain": (chain_rows(), CHAIN, chain, CHAIN_X, CHAIN_MODEL, CHAIN_GUIDE),
        "code": (code_rows(), CODE, code, CODE_X, CODE_MODEL, CODE_GUIDE),
    }
    rows, numbers, nodes_of, x, models_own, guides_own = setting[pair]
    numbers = leaves(numbers)
    nodes = nodes_of(numbers, x)
    draws = drawn_gradients(PIWAE(6, groups), *rows, models_own + guides_own)
    models_gradient = exact_gradient(-expected_log_mean(nodes, 6), numbers, models_own)
    guides_gradient = exact_gradient(-expected_log_mean(nodes, 6 // groups), numbers, guides_own)
    agree(draws, torch.cat([models_gradient, guides_gradient]))
    agree(draws[:, : len(models_gradient)], models_gradient)
    agree(draws[:, len(models_gradient) :], guides_gradient)


@pytest.mark.parametrize("pair", ["line", "shared"])
def test_piwae_s_two_gradients_are_iwae_s_and_miwae_s_draw_by_draw(pair: str) -> None:
    if pair == "line":
        model, guide, x = normal_rows(LINE, LINE_X, rows=3)
    else:
        model, guide, x = SharedModel(), SharedGuide(), SHARED_X

    def gradient(objective: Any, program: nn.Module) -> list[Tensor]:
        model.zero_grad()
        guide.zero_grad()
        objective.differentiable_loss(model, guide, x).backward()
        return [p.grad for p in program.parameters() if p.grad is not None]

    torch.manual_seed(6)
    ours = gradient(PIWAE(6, 3), model)
    torch.manual_seed(6)
    torch.testing.assert_close(ours, gradient(IWAE(6), model), rtol=1e-11, atol=1e-12)
    torch.manual_seed(6)
    ours = gradient(PIWAE(6, 3), guide)
    torch.manual_seed(6)
    IWAE(6).loss(model, guide, x)  # the model's draws come first
    torch.testing.assert_close(ours, gradient(MIWAE(6, 3), guide), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("K", [1, 5])
def test_renyi(K: int, alpha: float) -> None:
    numbers = leaves(LINE)
    draws = drawn_gradients(Renyi(alpha, K), *normal_rows(LINE, LINE_X), FREE)
    agree(draws, exact_gradient(-expected_log_mean(line(numbers, LINE_X), K, 1 - alpha), numbers, FREE))


def log_moment(numbers: Numbers, x: Tensor, n: float) -> Tensor:
    """log E_q[w^n] in closed form: the integral over z of exp of a quadratic form."""
    m, s = numbers["slope"] @ x + numbers["offset"], numbers["log_scale"].exp()
    W, variance = numbers["weight"], (2 * numbers["log_sigma"]).exp()
    D, M = W.shape
    y = x - numbers["bias"]
    precision = n * (torch.eye(M) + W.T @ W / variance) - (n - 1) * torch.diag(s**-2)
    linear = n * W.T @ y / variance - (n - 1) * m / s.square()
    constant = -0.5 * n * (y.square().sum() / variance + D * variance.log() + (D + M) * math.log(2 * math.pi))
    constant = constant + (n - 1) * (0.5 * (m / s).square().sum() + s.log().sum() + 0.5 * M * math.log(2 * math.pi))
    quadratic = 0.5 * linear @ torch.linalg.solve(precision, linear) - 0.5 * torch.logdet(precision)
    return constant + quadratic + 0.5 * M * math.log(2 * math.pi)


@pytest.mark.parametrize("n", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("K", [1, 5])
def test_cubo_with_a_scale_has_the_exact_gradient_of_its_power(K: int, n: float) -> None:
    numbers, c = leaves(PLANE), -4.0
    draws = drawn_gradients(CUBO(n, K, log_scale=c), *normal_rows(PLANE, PLANE_X), GUIDE)
    upper = log_moment(numbers, PLANE_X, n) / n
    agree(draws, exact_gradient((n * (upper - c)).exp() / n, numbers, GUIDE))


@pytest.mark.parametrize("log_scale", [None, -3.0])
def test_cubo_s_model_climbs_the_importance_weighted_bound(log_scale: float | None) -> None:
    numbers = leaves(LINE)
    draws = drawn_gradients(CUBO(2.0, 5, log_scale=log_scale), *normal_rows(LINE, LINE_X), MODEL)
    agree(draws, exact_gradient(-expected_log_mean(line(numbers, LINE_X), 5), numbers, MODEL))


@pytest.mark.parametrize("K", [1, 5, 200])
def test_cubo_without_a_scale_counts_every_datum_the_same(K: int) -> None:
    numbers = leaves(LINE)
    nodes = line(numbers, LINE_X)
    draws = drawn_gradients(CUBO(2.0, K), *normal_rows(LINE, LINE_X, ROWS if K < 200 else 4000), GUIDE)
    agree_or_zero = agree if K > 1 else lambda d, e: None
    expected = -0.5 * exact_gradient(expected_share(nodes, K, nodes.log_q, power=2.0), numbers, GUIDE)
    agree_or_zero(draws, expected)
    if K == 1:  # a single draw weighs 1, whatever it is, and the score has mean zero
        assert expected.abs().max() < 1e-9
        assert false_alarm(draws, torch.zeros(len(GUIDE))) > LEVEL
    upper = log_moment(numbers, LINE_X, 2.0) / 2
    limit = exact_gradient(upper, numbers, GUIDE)
    if K == 200:  # a bias of order 1/K
        assert (expected - limit).norm() < 0.05 * limit.norm()


# Wake-sleep


def dream_loss(numbers: Numbers) -> Tensor:
    """−E_{p(x, z)}[log q(z | x)] in closed form, the model held constant."""
    W, b, variance = (numbers[name].detach() for name in NORMAL_MODEL)
    variance = (2 * variance).exp()
    A, a, s = numbers["slope"], numbers["offset"], numbers["log_scale"].exp()
    left = torch.eye(len(a)) - A @ W  # z − A x − a = (I − A W) z − (A b + a) − σ A ε
    square = (left @ left.T + variance * A @ A.T).diagonal() + (A @ b + a).square()
    return (0.5 * square / s.square() + s.log()).sum()


@pytest.mark.parametrize("K", [1, 3])
def test_wake_sleep(K: int) -> None:
    numbers, names = leaves(PLANE), NORMAL_MODEL + NORMAL_GUIDE
    draws = drawn_gradients(WakeSleep(K), *normal_rows(PLANE, PLANE_X), names)
    reconstruction, _ = parts(numbers, PLANE_X)
    awake = exact_gradient(-reconstruction, numbers, NORMAL_MODEL)
    asleep = exact_gradient(dream_loss(numbers), numbers, NORMAL_GUIDE)
    agree(draws, torch.cat([awake, asleep]))
    agree(draws[:, len(awake) :], asleep)


def test_wake_sleep_of_a_code() -> None:
    numbers = leaves(CODE)
    nodes = code(numbers, CODE_X)
    draws = drawn_gradients(WakeSleep(2), *code_rows(), CODE_MODEL + CODE_GUIDE)
    awake = exact_gradient(-(nodes.probability.detach() * nodes.log_p).sum(), numbers, CODE_MODEL)
    prior = CODE["prior"].softmax(-1)
    asleep = exact_gradient(-(prior * numbers["logits"].log_softmax(-1)).sum(), numbers, CODE_GUIDE)
    agree(draws, torch.cat([awake, asleep]))


def test_deterministic_sites_are_no_data_to_dream_of() -> None:
    slope, x = nn.Parameter(torch.tensor(0.3)), torch.randn(ROWS)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = pyro.deterministic("mean", 0.8 * z)
            pyro.sample("x", dist.Normal(mean, 0.6), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    WakeSleep().differentiable_loss(model, guide, x).backward()
    # −E[log q] has the gradient E[(s x − z) x] = s (0.8² + 0.6²) − 0.8, of a standard deviation below 2
    assert slope.grad is not None
    assert slope.grad.item() / ROWS == pytest.approx(0.3 - 0.8, abs=4 * 2 / ROWS**0.5)


@pytest.mark.parametrize("phi", ["wake", "sleep", "both"])
@pytest.mark.parametrize("K", [2, 10])
def test_reweighted_wake_sleep(K: int, phi: Any) -> None:
    numbers, names = leaves(LINE), NORMAL_MODEL + NORMAL_GUIDE
    nodes = line(numbers, LINE_X)
    draws = drawn_gradients(ReweightedWakeSleep(K, phi), *normal_rows(LINE, LINE_X), names)
    models_gradient = exact_gradient(-expected_log_mean(nodes, K), numbers, NORMAL_MODEL)
    awake = exact_gradient(-expected_share(nodes, K, nodes.log_q), numbers, NORMAL_GUIDE)
    asleep = exact_gradient(dream_loss(numbers), numbers, NORMAL_GUIDE)
    guides_gradient = {"wake": awake, "sleep": asleep, "both": awake + asleep}[phi]
    agree(draws, torch.cat([models_gradient, guides_gradient]))
    agree(draws[:, len(models_gradient) :], guides_gradient)


def test_reweighted_wake_sleep_tends_to_the_posterior_s_own_gradient() -> None:
    numbers = leaves(LINE)
    W, variance = LINE["weight"], (2 * LINE["log_sigma"]).exp()
    precision = 1 + W.square().sum() / variance
    mean = W.T @ (LINE_X - LINE["bias"]) / variance / precision
    m, s = numbers["slope"] @ LINE_X + numbers["offset"], numbers["log_scale"].exp()
    limit = exact_gradient((0.5 * ((mean - m).square() + 1 / precision) / s.square() + s.log()).sum(), numbers, GUIDE)
    K, rows = 500, 2000
    draws = drawn_gradients(ReweightedWakeSleep(K), *normal_rows(LINE, LINE_X, rows), GUIDE)
    nodes = line(numbers, LINE_X)
    bias = exact_gradient(-expected_share(nodes, K, nodes.log_q), numbers, GUIDE) - limit
    assert bias.norm() < 0.01 * limit.norm()
    agree(draws, limit + bias)


# Discrete latents


@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_elbo_of_a_code(analytic_kl: bool, K: int) -> None:
    numbers, names = leaves(CODE), CODE_MODEL + CODE_GUIDE
    nodes = code(numbers, CODE_X)
    draws = drawn_gradients(ELBO(K, analytic_kl=analytic_kl), *code_rows(), names)
    agree(draws, exact_gradient(-(nodes.probability * nodes.log_w).sum(), numbers, names))


@pytest.mark.parametrize("K", [1, 4])
def test_weighed_parts_of_a_code(K: int) -> None:
    numbers, names = leaves(CODE), CODE_MODEL + CODE_GUIDE
    nodes = code(numbers, CODE_X)
    kl = (nodes.probability * (nodes.log_q - numbers["prior"].log_softmax(-1))).sum()
    reconstruction = (nodes.probability * nodes.log_w).sum() + kl
    capacity = Capacity(0.01, num_particles=K)
    capacity.load_state_dict({"log_multiplier": torch.tensor(3.0).log(), "excess": torch.tensor(0.0)})
    for objective, loss in (
        (ELBO(K, beta=2.5), 2.5 * kl - reconstruction),
        (capacity, 3 * kl - reconstruction),
        (objectives.UncertaintyAutoencoder(K), -reconstruction),
        (ELBO(K, free_bits=5.0, free_bits_per="layer"), -reconstruction),
    ):
        agree(drawn_gradients(objective, *code_rows(), names), exact_gradient(loss, numbers, names))


@pytest.mark.parametrize(
    "baseline",
    [
        {"use_decaying_avg_baseline": True},
        {"use_decaying_avg_baseline": True, "baseline_beta": 0.5},
        {"baseline_value": torch.tensor(-2.0, dtype=torch.float64)},
        {"use_decaying_avg_baseline": True, "baseline_value": torch.tensor(0.3, dtype=torch.float64)},
    ],
)
@pytest.mark.parametrize("K", [1, 4])
def test_baselines_that_are_asked_for_leave_the_gradient_s_mean(K: int, baseline: dict[str, Any]) -> None:
    numbers, names = leaves(CODE), CODE_MODEL + CODE_GUIDE
    nodes = code(numbers, CODE_X)
    objective, rows = ELBO(K), code_rows(baseline=baseline)
    for _ in range(10):
        draws = drawn_gradients(objective, *rows, names)
    agree(draws, exact_gradient(-(nodes.probability * nodes.log_w).sum(), numbers, names))
    if baseline.get("use_decaying_avg_baseline"):
        beta = baseline.get("baseline_beta", 0.9)
        expected = (1 - beta**10) * (nodes.probability * nodes.log_w).sum().item()
        (average,) = objective.state_dict().values()
        assert average.item() == pytest.approx(expected, abs=0.02)  # 40,000 draws of a standard deviation below 1


def test_a_baseline_of_a_network_lowers_the_variance_and_learns_the_reward() -> None:
    numbers, names = leaves(CODE), CODE_GUIDE
    nodes = code(numbers, CODE_X)
    network = nn.Linear(1, 1)
    options = {"nn_baseline": network, "nn_baseline_input": torch.ones(ROWS, 1)}
    rows = code_rows(baseline=options)
    expected = exact_gradient(-(nodes.probability * nodes.log_w).sum(), numbers, names)
    before = drawn_gradients(ELBO(), *rows, names)
    agree(before, expected)
    reward = (nodes.probability * nodes.log_w).sum().item()
    level = network(torch.ones(1)).item()
    assert network.bias.grad is not None
    assert network.bias.grad.item() / ROWS == pytest.approx(2 * (level - reward), abs=0.05)  # of the squared error
    with torch.no_grad():
        network.weight.fill_(0.0)
        network.bias.fill_(reward)
    after = drawn_gradients(ELBO(), *rows, names)
    agree(after, expected)
    bare = code_rows(baseline={"baseline_value": torch.zeros(())})
    assert after.var(0).sum() < 0.5 * drawn_gradients(ELBO(), *bare, names).var(0).sum()


def log_mean(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) - math.log(len(log_w))


DISCRETE: list[tuple[Any, Any]] = [
    *((IWAE(K), log_mean) for K in (1, 2, 3, 5)),
    (IWAE(3, vectorize_particles=False), log_mean),
    (CIWAE(3, 0.4), lambda w: 0.4 * w.mean(0) + 0.6 * log_mean(w)),
    (MIWAE(4, 2), lambda w: 0.5 * (log_mean(w[:2]) + log_mean(w[2:]))),
    (Renyi(0.5, 3), lambda w: 2 * log_mean(0.5 * w)),
    (Renyi(-1.0, 3), lambda w: 0.5 * log_mean(2 * w)),
]


@pytest.mark.parametrize(("objective", "bound"), DISCRETE)
def test_bounds_of_a_code_against_every_outcome(objective: Any, bound: Any) -> None:
    numbers, names = leaves(CODE), CODE_MODEL + CODE_GUIDE
    expected = enumerated(code(numbers, CODE_X), objective.num_particles, bound)
    agree(drawn_gradients(objective, *code_rows(), names), exact_gradient(-expected, numbers, names))


@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("name", ["ELBO", "IWAE"])
def test_a_code_and_a_number_that_depends_on_it(name: str, K: int) -> None:
    numbers, names = leaves(MIXED), MIXED_MODEL + MIXED_GUIDE
    nodes = mixed(numbers, CODE_X)
    draws = drawn_gradients(getattr(objectives, name)(K), *mixed_rows(), names)
    agree(draws, exact_gradient(-expected_log_mean(nodes, K if name == "IWAE" else 1), numbers, names))


def test_vimco_s_baseline_lowers_the_variance() -> None:
    model, guide, x = code_rows()
    ours = drawn_gradients(IWAE(5), model, guide, x, CODE_GUIDE)
    table = IWAE(5).table(model, guide, x)
    log_w = table.log_weight()
    bound = log_mean(log_w)
    surrogate = bound + (table.sites["c"].log_q * bound.detach()).sum(0)
    guide.zero_grad()
    surrogate.sum().backward()
    bare = -flat_gradients(dict(guide.named_parameters()), CODE_GUIDE)
    numbers = leaves(CODE)
    expected = exact_gradient(-expected_log_mean(code(numbers, CODE_X), 5), numbers, CODE_GUIDE)
    agree(bare, expected)
    assert ours.var(0).sum() < 0.2 * bare.var(0).sum()


def test_vimco_s_baseline_does_not_see_its_own_particle() -> None:
    log_w = torch.randn(5, 3)
    other = log_w.clone()
    other[2] += 3.0
    changed = (without_each(log_w, log_mean) - without_each(other, log_mean)).abs().sum(-1)
    assert changed[2] == 0
    assert (changed[[0, 1, 3, 4]] > 0).all()


# Scales


ALL: dict[str, Any] = {
    "ELBO": lambda: ELBO(3),
    "analytic": lambda: ELBO(3, analytic_kl=True, beta=2.0),
    "free bits": lambda: ELBO(3, free_bits=0.2),
    "free bits by layer": lambda: ELBO(3, free_bits=0.2, free_bits_per="layer"),
    "Capacity": lambda: Capacity(0.3, num_particles=3),
    "UncertaintyAutoencoder": lambda: objectives.UncertaintyAutoencoder(3, entropy=1.3),
    "IWAE": lambda: IWAE(4),
    "stl": lambda: IWAE(4, gradient="stl"),
    "dreg": lambda: IWAE(4, gradient="dreg"),
    "CIWAE": lambda: CIWAE(4, 0.3),
    "MIWAE": lambda: MIWAE(4, 2),
    "PIWAE": lambda: PIWAE(4, 2),
    "Renyi": lambda: Renyi(0.5, 4),
    "CUBO": lambda: CUBO(2.0, 4),
    "CUBO with a scale": lambda: CUBO(2.0, 4, log_scale=-3.0),
    "WakeSleep": lambda: WakeSleep(2),
    "ReweightedWakeSleep": lambda: ReweightedWakeSleep(4, "both"),
}


@pytest.mark.parametrize("name", ALL)
def test_scales_multiply_value_and_gradient(name: str) -> None:
    model, guide, x = normal_rows(PLANE, PLANE_X, rows=6)
    names = NORMAL_MODEL + NORMAL_GUIDE
    weights = torch.rand(6) + 0.5
    for scale in (3.0, weights):
        if name.startswith("free bits") and isinstance(scale, Tensor):
            continue  # the mean over data that a group's bits are compared with is then another one
        torch.manual_seed(3)
        one = ALL[name]().loss(model, guide, x)
        torch.manual_seed(3)
        plain = drawn_gradients(ALL[name](), model, guide, x, names)
        programs = poutine.scale(model, scale), poutine.scale(guide, scale)
        parameters = dict(model.named_parameters()) | dict(guide.named_parameters())
        for parameter in parameters.values():
            parameter.grad = None
        torch.manual_seed(3)
        loss = ALL[name]().differentiable_loss(*programs, x)
        loss.backward()
        factor = scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale
        torch.testing.assert_close(flat_gradients(parameters, names), factor * plain, rtol=1e-10, atol=1e-12)
        if not isinstance(scale, Tensor):
            assert loss.item() == pytest.approx(scale * one, rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_a_minibatch_of_one_stands_for_the_whole(name: str) -> None:
    torch.manual_seed(1)
    model, guide = models.ProbabilisticPCA(3, 2), DiagonalGuide()
    x = torch.randn(1, 3)
    found = []
    for size in (None, 9):
        model.zero_grad()
        guide.zero_grad()
        torch.manual_seed(3)
        loss = ALL[name]().differentiable_loss(model, guide, x, size=size)
        loss.backward()
        found.append(torch.cat([loss.detach().reshape(1), *(p.grad.flatten() for p in (*model.parameters(), guide.a))]))
    torch.testing.assert_close(found[1], 9 * found[0], rtol=1e-11, atol=1e-12)


class DiagonalGuide(nn.Module):
    """q(z | x) = N(A x, 0.9²), by whatever plate its model has."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, 3) / 3)

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        from pyro_lvm.programs import data_plate

        pyro.module("guide", self)
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(x @ self.a.T, 0.9).to_event(1))


def test_bare_parameters_are_held_where_modules_are() -> None:
    """A guide and a model of `pyro.param` statements: DReG and PIWAE as with modules."""
    x = torch.randn(7)

    def model(x: Tensor) -> None:
        weight = pyro.param("weight", torch.tensor(0.8))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(weight * z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.4))
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, scale))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.8))

        def forward(self, x: Tensor) -> None:
            pyro.module("model", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(self.weight * z, 0.5), obs=x)

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope, self.log_scale = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(0.7).log())

        def forward(self, x: Tensor) -> None:
            pyro.module("guide", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.slope * x, self.log_scale.exp()))

    for make in (ALL["dreg"], ALL["stl"], ALL["PIWAE"], ALL["IWAE"]):
        with pyro.get_param_store().scope():
            store = pyro.get_param_store()
            pyro.param("weight", torch.tensor(0.8))
            torch.manual_seed(2)
            bare_loss = make().loss_and_grads(model, guide, x)
            bare = [store._params[name].grad for name in ("weight", "slope", "scale")]
        modules = Model(), Guide()
        torch.manual_seed(2)
        assert make().loss_and_grads(*modules, x) == pytest.approx(bare_loss, rel=1e-12)
        own = [modules[0].weight.grad, modules[1].slope.grad, modules[1].log_scale.grad]
        torch.testing.assert_close(bare, own, rtol=1e-10, atol=1e-12)


# What data share: an ELBO over it, with the bound over the rest


class SharedModel(nn.Module):
    """β ~ N(m, 1) or ±1, z_n ~ N(0, 1), x_n ~ N(z_n + c β, 0.6²)."""

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.c, self.binary = nn.Parameter(torch.tensor(0.8)), binary
        self.centre = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        if self.binary:
            beta = 2 * pyro.sample("beta", dist.Bernoulli(0.4)) - 1
        else:
            beta = pyro.sample("beta", dist.Normal(self.centre, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + self.c * beta, 0.6), obs=x)


class SharedGuide(nn.Module):
    """q(β) q(z_n | x_n, β)."""

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.binary = binary
        self.m, self.log_s = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(0.7).log())
        self.slope, self.on_beta = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-0.9))
        self.log_scale = nn.Parameter(torch.tensor(0.8).log())

    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        if self.binary:
            beta = 2 * pyro.sample("beta", dist.Bernoulli(logits=self.m)) - 1
        else:
            beta = pyro.sample("beta", dist.Normal(self.m, self.log_s.exp()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x + self.on_beta * beta, self.log_scale.exp()))


SHARED = ("c", "m", "slope", "on_beta", "log_scale")
SHARED_X = torch.tensor([0.5, -1.2, 1.9], dtype=torch.float64)


def shared_bound(numbers: Numbers, K: int, binary: bool) -> Tensor:
    """E over β of log p(β) − log q(β) + Σ_n IWAE_K(x_n | β)."""
    epsilon, weights = grid(0.02, 9.0)
    if binary:
        log_q = torch.stack([-numbers["m"], numbers["m"]]).sigmoid().log()
        log_p, betas = torch.tensor([0.6, 0.4]).log(), torch.tensor([-1.0, 1.0])
        probability = log_q.exp()
    else:
        nodes, probability = grid(0.4, 6.0)  # smooth in β: 31 points are exact to 1e-9
        betas = numbers["m"] + numbers["log_s"].exp() * nodes
        log_q, log_p = normal(betas, numbers["m"], numbers["log_s"].exp()), normal(betas, numbers["centre"], 1.0)
    total = (probability * (log_p - log_q)).sum()
    scale = numbers["log_scale"].exp()
    for share, beta in zip(probability, betas, strict=True):
        for x in SHARED_X:
            mean = numbers["slope"] * x + numbers["on_beta"] * beta
            z = mean + scale * epsilon
            log_w = normal(z, 0.0, 1.0) + normal(x, z + numbers["c"] * beta, 0.6) - normal(z, mean, scale)
            total = total + share * expected_log_mean(Nodes(weights, log_w, log_w, log_w), K)
    return total


@pytest.mark.parametrize(
    ("objective", "binary"),
    [
        (ELBO(3), True),
        pytest.param(IWAE(1), True, marks=pytest.mark.slow),
        pytest.param(IWAE(3), False, marks=pytest.mark.slow),
        (IWAE(3), True),
        pytest.param(IWAE(1, gradient="stl"), False, marks=pytest.mark.slow),
        (IWAE(3, gradient="dreg"), False),
        pytest.param(IWAE(3, gradient="dreg", vectorize_particles=False), False, marks=pytest.mark.slow),
        pytest.param(PIWAE(4, 2), False, marks=pytest.mark.slow),
    ],
)
def test_gradient_of_a_latent_that_data_share(objective: Any, binary: bool) -> None:
    model, guide = SharedModel(binary), SharedGuide(binary)
    parameters = dict(model.named_parameters()) | dict(guide.named_parameters())
    names = SHARED if binary else ("centre", *SHARED, "log_s")
    numbers = leaves({name: parameter.detach() for name, parameter in parameters.items()})
    K = 1 if isinstance(objective, ELBO) else objective.num_particles
    expected = exact_gradient(-shared_bound(numbers, K, binary), numbers, names)
    if isinstance(objective, PIWAE):  # the guide's is of groups
        expected[2:] = exact_gradient(-shared_bound(numbers, K // objective.groups, binary), numbers, names[2:])
    rows = []
    for _ in range(700 if objective.vectorize_particles else 300):
        for parameter in parameters.values():
            parameter.grad = None
        objective.differentiable_loss(model, guide, SHARED_X).backward()
        rows.append(torch.stack([parameters[name].grad for name in names]))  # type: ignore[misc]
    agree(torch.stack(rows), expected)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
@pytest.mark.parametrize("K", [1, 4])
def test_a_parameter_that_is_a_density_s_own_gets_no_score(K: int, gradient: Any) -> None:
    """Outside all plates a distribution has the guide's parameter as it is, not a view of it."""
    m = nn.Parameter(torch.tensor(0.4))

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = m

        def forward(self, x: Tensor) -> None:
            pyro.sample("beta", dist.Normal(self.m, torch.tensor(0.7)))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.3 * x, 0.8))

    def model(x: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(beta, 1.0))
            pyro.sample("x", dist.Normal(z, 0.6), obs=x)

    objective, guide = IWAE(K, gradient=gradient), Guide()
    torch.manual_seed(8)
    with torch.no_grad():
        table = objective.table(model, guide, SHARED_X)
    beta, z = table.sites["beta"].value.reshape(()), table.sites["z"].value  # (K, 3)
    share = table.without_global_latents().log_weight().softmax(0)
    expected = -beta + (beta - 0.4) / 0.49 + (share * (z - beta)).sum()  # ∂ of log p(β) − log q(β) + Σ_n log w_n
    torch.manual_seed(8)
    objective.differentiable_loss(model, guide, SHARED_X).backward()
    assert m.grad is not None
    assert m.grad.item() == pytest.approx(-expected.item(), rel=1e-11)
