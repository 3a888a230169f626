"""Low-rank normals and flows as posteriors: densities, gradients, exact gaps on probabilistic PCA, a banana."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

import pyro_lvm as lvm
from pyro_lvm import exact, guides, models, objectives, posteriors
from pyro_lvm.posteriors import (
    HouseholderFlow,
    HouseholderSylvester,
    InverseAutoregressive,
    LowRankNormal,
    OrthogonalSylvester,
    PlanarFlow,
    TriangularSylvester,
)

D, F = 4, 5  # values of a datum, features

Make = Callable[[int, int], nn.Module]  # inputs, M


def net(inputs: int = D) -> nn.Module:
    return nn.Linear(inputs, F)


FLOWS: dict[str, Make] = {
    "householder": lambda inputs, M: HouseholderFlow(net(inputs), F, M, reflections=M),
    "planar": lambda inputs, M: PlanarFlow(net(inputs), F, M, flows=6),
    "orthogonal": lambda inputs, M: OrthogonalSylvester(net(inputs), F, M, flows=4, width=M),
    "slim": lambda inputs, M: OrthogonalSylvester(net(inputs), F, M, flows=4, width=max(1, M // 2)),
    "reflected": lambda inputs, M: HouseholderSylvester(net(inputs), F, M, flows=4, reflections=M),
    "triangular": lambda inputs, M: TriangularSylvester(net(inputs), F, M, flows=4),
    "autoregressive": lambda inputs, M: InverseAutoregressive(net(inputs), F, M, 2, (16,), context=4),
}
NORMALS: dict[str, Make] = {
    "diagonal": lambda inputs, M: posteriors.DiagonalNormal(nn.Linear(inputs, 2 * M)),
    "full": lambda inputs, M: posteriors.FullNormal(nn.Linear(inputs, M + M * (M + 1) // 2)),
    "low-rank": lambda inputs, M: LowRankNormal(net(inputs), F, M, rank=1),
    "low-rank, M": lambda inputs, M: LowRankNormal(net(inputs), F, M, rank=M),
}
EVERY = {**FLOWS, "low-rank": NORMALS["low-rank"]}

every_flow = pytest.mark.parametrize("name", FLOWS)
every_posterior = pytest.mark.parametrize("name", EVERY)


def bent(posterior: Any, scale: float = 1.5) -> Any:
    """The posterior with numbers far from its start's, so that nothing about it is nearly normal."""
    with torch.no_grad():
        for module in posterior.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(scale * torch.randn_like(module.weight) / module.in_features**0.5)
                module.bias.copy_(0.5 * torch.randn_like(module.bias))
        if hasattr(posterior, "head"):  # the normal it starts from of order 1
            M = posterior.latent_dim
            posterior.head.weight[: 2 * M] *= 0.3
            posterior.head.bias[M : 2 * M] += 0.5
    return posterior


def external(posterior: Any, x: Tensor, particles: int = 3) -> Tensor:
    z: Tensor = posterior(x).sample((particles,))
    return z.clone()


# Densities


@every_posterior
def test_shapes_and_leading_dimensions(name: str) -> None:
    posterior = bent(EVERY[name](D, 3))
    x = torch.randn(2, 6, D)
    q = posterior(x)
    assert (q.batch_shape, q.event_shape) == ((2, 6), (3,))
    assert q.has_rsample
    z = q.rsample((4,))
    assert z.shape == (4, 2, 6, 3)
    torch.testing.assert_close(posterior(x[1, 5]).log_prob(z[:, 1, 5]), q.log_prob(z)[:, 1, 5], rtol=1e-8, atol=1e-8)
    wide = q.expand((5, 2, 6))
    assert wide.rsample().shape == (5, 2, 6, 3)
    assert wide.log_prob(z[0]).shape == (5, 2, 6)
    single = EVERY[name](D, 3).float()(x.float())
    assert single.log_prob(single.rsample()).dtype == torch.float32


@every_posterior
def test_the_density_integrates_to_one(name: str) -> None:
    """Over a grid, at points that the posterior has not drawn."""
    posterior = bent(EVERY[name](D, 2), scale=0.7)
    x = torch.randn(2, D)
    with torch.no_grad():
        q = posterior(x)
        draws = q.sample((20_000,))
        centre, spread = draws.mean(0), draws.std(0)
        masses = []
        for points in (300, 450):
            ticks = torch.linspace(-9, 9, points)
            grid = torch.cartesian_prod(ticks, ticks).unsqueeze(1) * spread + centre  # (points², 2, 2)
            cell = (ticks[1] - ticks[0]) ** 2 * spread.prod(-1)
            masses.append(q.log_prob(grid).exp().sum(0) * cell)
    error = (masses[1] - masses[0]).abs()  # the coarser grid's, which is larger than the finer one's
    assert (error < 0.01).all()
    assert ((masses[1] - 1).abs() < 2 * error + 1e-4).all(), masses


@every_posterior
def test_draws_come_from_the_density(name: str) -> None:
    """E[exp(f(z) − log q(z))] over draws is f's integral: one, for a normal that is narrower than q somewhere."""
    posterior = bent(EVERY[name](D, 2), scale=0.5)
    x = torch.randn(3, D)
    with torch.no_grad():
        q = posterior(x)
        draws = q.sample((50_000,))
        peak = draws[0]
        f = dist.Normal(peak, 0.2 * draws.std(0)).to_event(1)
        weights = (f.log_prob(draws) - q.log_prob(draws)).exp()
    error = weights.std(0) / 50_000**0.5
    assert ((weights.mean(0) - 1).abs() < 4 * error).all()
    assert (error < 0.1).all()


def test_low_rank_is_the_normal_of_its_covariance() -> None:
    posterior = bent(LowRankNormal(net(), F, 3, rank=2))
    x = torch.randn(6, D)
    mu, sigma, rest = posterior.read(posterior.encoded(x))
    factor = rest.reshape(6, 3, 2)
    covariance = factor @ factor.mT + torch.diag_embed(sigma.square())
    z = torch.randn(4, 6, 3)
    expected = dist.MultivariateNormal(mu, covariance_matrix=covariance).log_prob(z)
    torch.testing.assert_close(posterior(x).log_prob(z), expected, rtol=1e-9, atol=1e-9)


# Own draws and points from elsewhere


@every_flow
@pytest.mark.parametrize("expanded", [False, True])
def test_own_draws_are_scored_without_an_inversion(name: str, expanded: bool) -> None:
    posterior = bent(FLOWS[name](D, 3))
    q = posterior(torch.randn(6, D))
    q = q.expand((4, 6)) if expanded else q
    z = q.rsample()
    y = z
    for transform in reversed(q.transforms):
        assert transform.inv(y) is transform.inv(y)  # an inversion would make a new one every time
        y = transform.inv(y)
    by_hand = q.base_dist.log_prob(y)
    for transform in q.transforms:
        by_hand = by_hand - transform.log_abs_det_jacobian(y.clone(), y)
        y = transform(y.clone())
    torch.testing.assert_close(q.log_prob(z), by_hand, rtol=1e-9, atol=1e-9)


@every_flow
def test_points_from_elsewhere_are_scored_as_own_draws_are(name: str) -> None:
    posterior = bent(FLOWS[name](D, 3))
    parameters = list(posterior.parameters())
    x = torch.randn(6, D)
    q = posterior(x)
    z = q.rsample((4,))
    log_q = q.log_prob(z)
    torch.testing.assert_close(q.log_prob(z.detach().clone()), log_q, rtol=1e-8, atol=1e-8)
    # The total derivative through the draw, against its two parts: through the point, and at the point held fixed.
    own = torch.autograd.grad(log_q.sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    other = torch.autograd.grad(posterior(x).log_prob(z.view_as(z)).sum(), parameters, allow_unused=True)
    for a, b in zip(own, other, strict=True):  # of sums over 24 points: their largest entry is what rounding goes by
        assert (a - b).abs().max() <= 1e-8 * max(1.0, b.abs().max().item())


@every_flow
def test_gradients_of_a_fixed_draw_s_density(name: str) -> None:
    """The score: what `sample` gives is a constant, whose origin is not."""
    posterior = bent(FLOWS[name](D, 3))
    q = posterior(torch.randn(6, D))
    z = q.sample()
    found, expected = (
        torch.autograd.grad(q.log_prob(point).sum(), list(posterior.parameters()), retain_graph=True, allow_unused=True)
        for point in (z, z.clone())
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@every_flow
def test_the_gradient_of_log_q_by_finite_differences(name: str) -> None:
    posterior = bent(FLOWS[name](D, 2), scale=1.0)
    posterior.net = nn.Identity()
    h = torch.randn(2, F, requires_grad=True)
    z = external(posterior, h, particles=2).requires_grad_()
    assert gradcheck(lambda z, h: posterior(h).log_prob(z), (z, h), atol=1e-5, rtol=1e-5)


@every_flow
def test_gradients_reach_every_parameter(name: str) -> None:
    posterior = FLOWS[name](D, 3)
    x = torch.randn(20, D)
    q = posterior(x)
    z = q.rsample((5,))
    (q.log_prob(z) + (z - 1).square().sum(-1) + z.prod(-1)).sum().backward()
    for parameter_name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [n for n in EVERY if n != "householder"])
def test_training_starts_nearly_as_a_diagonal_normal_would(name: str) -> None:
    posterior = EVERY[name](D, 3)
    x = torch.randn(50, D)
    with torch.no_grad():
        mu, sigma, _ = posterior.read(posterior.encoded(x))  # type: ignore[operator]
        q, diagonal = posterior(x), dist.Normal(mu, sigma).to_event(1)
        z = q.sample((1000,))
        divergence = (q.log_prob(z) - diagonal.log_prob(z)).mean()
    assert 0 < divergence < 0.1


@pytest.mark.parametrize("reflections", [2, 4])
def test_an_even_number_of_reflections_starts_as_the_diagonal_normal(reflections: int) -> None:
    posterior = HouseholderFlow(net(), F, 3, reflections)
    x, z = torch.randn(6, D), torch.randn(6, 3)
    mu, sigma, _ = posterior.read(posterior.encoded(x))
    torch.testing.assert_close(posterior(x).log_prob(z), dist.Normal(mu, sigma).to_event(1).log_prob(z))


# Objectives


def rotated() -> models.ProbabilisticPCA:
    """A model whose posterior has a correlation of −0.9; its parameters are held."""
    model = models.ProbabilisticPCA(D, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 1.8], [1.0, 1.2], [-1.0, -0.8], [0.5, 0.9]]))
        model.log_noise_scale.fill_(math.log(0.7))
    return model


@pytest.mark.parametrize(
    ("name", "gradient"),
    [("triangular", "dreg"), ("autoregressive", "dreg")]
    + [
        pytest.param(name, gradient, marks=pytest.mark.slow)
        for name, gradient in [
            ("triangular", "stl"),
            ("autoregressive", "stl"),
            ("orthogonal", "stl"),
            ("orthogonal", "dreg"),
            ("planar", "stl"),
            ("planar", "dreg"),
            ("householder", "dreg"),
        ]
    ],
)
def test_gradients_through_a_second_run_agree_with_the_plain_ones(name: str, gradient: Any) -> None:
    """Means of 100 gradients along five directions, within 4 standard errors; STL has the ELBO's for one particle."""
    model, posterior = rotated(), bent(FLOWS[name](D, 2), scale=0.7)
    guide, x = guides.Amortized(posterior), model.sample(1).expand(100, D)
    parameters = list(guide.parameters())
    K = 1 if gradient == "stl" else 3
    directions = [[torch.randn_like(p) for p in parameters] for _ in range(5)]

    def drawn(objective: Any) -> Tensor:
        rows = []
        for _ in range(100):
            loss = objective.differentiable_loss(model, guide, x) / len(x)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            along = [sum((d * g).sum() for d, g in zip(way, gradients, strict=True)) for way in directions]
            rows.append(torch.stack(along))  # type: ignore[arg-type]
        return torch.stack(rows)

    plain, other = drawn(objectives.IWAE(K)), drawn(objectives.IWAE(K, gradient=gradient))
    error = ((plain.var(0) + other.var(0)) / 100).sqrt()
    assert ((plain.mean(0) - other.mean(0)).abs() < 4 * error).all()
    assert (plain.mean(0).abs() > 8 * error).any()  # a gradient without one of its parts would not pass


@pytest.mark.parametrize("name", ["orthogonal", "autoregressive"])
def test_wake_sleep(name: str) -> None:
    """The sleep phase scores draws of the model's, the wake phase its own, held fixed."""
    model, guide = rotated(), guides.Amortized(FLOWS[name](D, 2))
    x = model.sample(64)
    for objective in (objectives.WakeSleep(), objectives.ReweightedWakeSleep(4)):
        guide.zero_grad()
        assert math.isfinite(objective.loss_and_grads(model, guide, x))
        gradients = [p.grad for p in guide.parameters() if p.grad is not None]
        assert len(gradients) == len(list(guide.parameters()))
        assert all(bool(g.isfinite().all()) for g in gradients)


# Exact gaps


def log_joint(model: models.ProbabilisticPCA, x: Tensor, z: Tensor) -> Tensor:
    seen = dist.Normal(z @ model.weight.T + model.bias, model.noise_scale).to_event(1).log_prob(x)
    return seen + model.prior().log_prob(z)


def fitted(posterior: Any, log_p: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int, rate: float) -> Any:
    """Adam on the ELBO of 8 particles at two learning rates, the second a tenth of the first for half as long."""
    for learning_rate, number in ((rate, steps), (rate / 10, steps // 2)):
        optimizer = torch.optim.Adam(posterior.parameters(), lr=learning_rate)
        for _ in range(number):
            q = posterior(x)
            z = q.rsample((8,))
            loss = (q.log_prob(z) - log_p(x, z)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return posterior


def gap(model: models.ProbabilisticPCA, posterior: Any, x: Tensor) -> tuple[float, float]:
    """log p(x) − ELBO through the library's own objective, a datum's mean, and its standard error."""
    with torch.no_grad():
        evidence = exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square()).mean()
        guide = guides.Amortized(posterior)
        losses = torch.tensor([objectives.ELBO(50).loss(model, guide, x) / len(x) for _ in range(10)])
    return (evidence + losses.mean()).item(), (losses.std() / 10**0.5).item()


@pytest.mark.parametrize(
    "name",
    ["householder", "autoregressive", "diagonal"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("orthogonal", "reflected", "triangular", "planar", "low-rank", "low-rank, M", "full")
    ],
)
def test_gap_on_a_rotated_posterior(name: str) -> None:
    model = rotated().requires_grad_(False)
    model.eval()
    x = model.sample(128)
    posterior = fitted((FLOWS | NORMALS)[name](D, 2), lambda x, z: log_joint(model, x, z), x, steps=400, rate=0.03)
    found, error = gap(model, posterior, x)
    if name == "diagonal":
        # The best one has the precision's diagonal: the gap is ½ (Σ log P_dd − log |P|).
        _, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
        precision = covariance.inverse()
        best = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
        assert best > 0.8
        assert best - 4 * error < found < best + 4 * error + 0.02, f"{found:.4f} ± {error:.4f}, best {best:.4f}"
    else:
        assert -4 * error < found <= 0.02, f"{found:.4f} ± {error:.4f}"


def log_banana(x: Tensor, z: Tensor) -> Tensor:
    """z_1 ~ N(0, 1), z_2 | z_1 ~ N(z_1², 0.5²)."""
    first, second = z.unbind(-1)
    return dist.Normal(0.0, 1.0).log_prob(first) + dist.Normal(first.square(), 0.5).log_prob(second)


def divergence_from_the_banana(name: str, steps: int) -> float:
    x = torch.ones(16, 1)  # the same for all: 16 · 8 draws a step
    posterior = fitted((FLOWS | NORMALS)[name](1, 2), log_banana, x, steps, rate=0.02)
    with torch.no_grad():
        q = posterior(x)
        z = q.sample((3000,))
        return (q.log_prob(z) - log_banana(x, z)).mean().item()


@pytest.mark.parametrize(
    "names",
    [
        ("triangular", "autoregressive"),
        pytest.param(("orthogonal", "reflected", "planar"), marks=pytest.mark.slow),
    ],
)
def test_flows_bend_and_normals_do_not(names: tuple[str, ...]) -> None:
    """KL(q ‖ banana): half of the best normal's at most; 48,000 draws leave 0.005 of it."""
    found = {which: divergence_from_the_banana(which, 250) for which in ("full", "householder", *names)}
    told = ", ".join(f"{which} {value:.3f}" for which, value in found.items())
    print(told)
    assert all(found[name] < min(found["full"], found["householder"]) / 2 for name in names), told
    assert abs(found["full"] - found["householder"]) < 0.05, told  # the same normals


# The library around them


QUICK = ("householder", "slim", "autoregressive")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in FLOWS])
def test_training_is_the_same_compiled(name: str, no_compiler: None) -> None:
    compare_compiled(name, objectives.ELBO(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_training_with_inversions_is_the_same_compiled(name: str, no_compiler: None) -> None:
    compare_compiled(name, objectives.IWAE(2, gradient="dreg"))


def compare_compiled(name: str, objective: Any) -> None:
    model, guide = rotated(), guides.Amortized(FLOWS[name](D, 2))
    parameters = [*model.parameters(), *guide.parameters()]
    compiled = lvm.compile(objective, model, guide)
    for _ in range(4):
        x, state = model.sample(6), torch.get_rng_state()
        expected = torch.autograd.grad(objective.differentiable_loss(model, guide, x), parameters, allow_unused=True)
        torch.set_rng_state(state)
        for parameter in parameters:
            parameter.grad = None
        compiled.loss_and_grads(x)
        for parameter, gradient in zip(parameters, expected, strict=True):
            if gradient is not None:
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-8)
    assert compiled.failure is None


@every_posterior
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, guide = rotated(), guides.Amortized(bent(EVERY[name](D, 2)))
    lvm.save(tmp_path / "pair.safetensors", model, guide)
    loaded: Any = lvm.load(tmp_path / "pair.safetensors")[1]
    x, z = torch.randn(5, D), torch.randn(5, 2)
    torch.testing.assert_close(loaded.posterior(x).log_prob(z), guide.posterior(x).log_prob(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OrthogonalSylvester(net(), F, 3, 4, width=4), "'width'.*between 1 and 'latent_dim' = 3, not 4"),
        (lambda: OrthogonalSylvester(net(), F, 3, flows=0, width=2), "'flows' must be at least 1, not 0"),
        (lambda: HouseholderSylvester(net(), F, 3, 4, reflections=0), "'reflections' must be at least 1, not 0"),
        (lambda: TriangularSylvester(net(), F, 3, flows=-1), "'flows' must be at least 1, not -1"),
        (lambda: PlanarFlow(net(), F, 3, flows=0), "'flows' must be at least 1, not 0"),
        (lambda: HouseholderFlow(net(), F, 3, reflections=0), "'reflections' must be at least 1, not 0"),
        (lambda: InverseAutoregressive(net(), F, 3, flows=0), "'flows' must be at least 1, not 0"),
        (lambda: InverseAutoregressive(net(), F, 3, context=0), "'context' must be at least 1, not 0"),
        (lambda: InverseAutoregressive(net(), F, 3, 1, (8, 0)), "'hidden_features' must be at least 1, not 0"),
        (lambda: LowRankNormal(net(), F, 3, rank=4), "'rank' must lie between 1 and 'latent_dim' = 3, not 4"),
        (lambda: LowRankNormal(net(), F, 3, rank=0), "'rank' must lie between 1 and 'latent_dim' = 3, not 0"),
        (lambda: LowRankNormal(net(), 0, 3, rank=1), "'features' must be at least 1, not 0"),
        (lambda: PlanarFlow(net(), F, 0, 2), "'latent_dim' must be at least 1, not 0"),
        (lambda: PlanarFlow(net(), F + 1, 3, 2)(torch.zeros(2, D)), "'features' is how many.*: 5, not 6"),
    ],
)
def test_bad_input_is_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1
