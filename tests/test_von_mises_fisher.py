"""Von Mises-Fisher densities against closed forms, and what all densities on spheres have to be.

Gates: statistical ones are in standard errors, stated at each test; the numerical ones are what the docstrings promise.
"""

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.autograd import grad
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.capture.tracing import trace
from pyro_lvm.configuration import configuration, rebuild
from pyro_lvm.diagnostics.sphere import plot_sphere
from pyro_lvm.distributions import HypersphericalUniform, PowerSpherical, VonMisesFisher
from pyro_lvm.distributions.bessel import bessel_terms
from pyro_lvm.distributions.von_mises_fisher import angle_quantile

FAMILIES = [VonMisesFisher, PowerSpherical]
POSTERIORS = [posteriors.VonMisesFisher, posteriors.PowerSpherical]
DTYPES = [torch.float64, torch.float32]

# Bessel functions


@pytest.fixture(scope="module")
def exact() -> dict[tuple[int, float], tuple[Any, ...]]:
    """log partition, log peak, A, KL, A' and log C, in 40 digits after the cancellation of ten."""
    table = {}
    with mpmath.workdps(50):
        for m in (2, 3, 4, 7, 10, 33, 50, 100, 333, 1000):
            for k in (1e-3, 0.03, 0.5, 2.0, 10.0, 30.0, 100.0, 330.0, 1e3, 1e4, 1e5):
                v, kappa = mpmath.mpf(m) / 2 - 1, mpmath.mpf(float(np.float32(k)))
                bessel = mpmath.besseli(v, kappa)
                a = mpmath.besseli(v + 1, kappa) / bessel
                log_c = v * mpmath.log(kappa) - (v + 1) * mpmath.log(2 * mpmath.pi) - mpmath.log(bessel)
                area = mpmath.log(2) + (v + 1) * mpmath.log(mpmath.pi) - mpmath.loggamma(v + 1)
                g = -log_c - area
                table[m, k] = (g, kappa - g, a, kappa * a - g, 1 - a * a - (m - 1) / kappa * a, log_c)
    return table


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_bessel_functions_and_their_derivatives_against_mpmath(
    exact: dict[tuple[int, float], tuple[Any, ...]], dtype: torch.dtype, gate: float
):
    """Relative to their own size each, where it is 1e-9 (small κ) as well as where it is 1e5."""
    for (m, k), (g, peak, a, kl, slope, _) in exact.items():
        kappa = torch.tensor(float(np.float32(k)), dtype=dtype, requires_grad=True)
        terms = bessel_terms(kappa, m)
        slopes = [grad(term, kappa, retain_graph=True)[0] for term in terms]
        found = [float(t.detach()) for t in (*terms, *slopes)]
        expected = [g, peak, a, kl, a, 1 - a, slope, mpmath.mpf(kappa.item()) * slope]
        errors = [float(abs(x / y - 1)) for x, y in zip(found, expected, strict=True)]
        assert max(errors) < gate, (m, k, errors)


def test_log_normaliser_against_mpmath(exact: dict[tuple[int, float], tuple[Any, ...]]):
    """Of the density itself, at its mode; the gate is relative to the number or to 1, as it passes through 0."""
    for (m, k), (*_, log_c) in exact.items():
        for dtype, gate in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
            mu = torch.eye(m, dtype=dtype)[0]
            kappa = torch.tensor(float(np.float32(k)), dtype=dtype)
            log_peak = VonMisesFisher(mu, kappa).log_prob(mu)
            expected = float(log_c + mpmath.mpf(float(kappa)))
            # Terms of the size of the sphere's log area cancel in it.
            size = max(1.0, abs(expected), abs(float(HypersphericalUniform(m).entropy())))
            assert abs(float(log_peak) - expected) < gate * size, (m, k, dtype)


def test_bessel_functions_at_zero_are_the_uniform_density_s():
    kappa = torch.zeros(1, requires_grad=True)
    for m in (2, 3, 50, 1000):
        terms = bessel_terms(kappa, m)
        assert [t.item() for t in terms] == [0, 0, 0, 0]
        assert grad(terms.resultant.sum(), kappa)[0].item() == pytest.approx(1 / m, rel=1e-9)


def test_second_derivatives_of_the_divergence_are_those_of_its_first():
    for m in (2, 3, 60):
        kappa = torch.tensor([0.3, 2.0, 50.0, 700.0], requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda k, m=m: bessel_terms(k, m).divergence, kappa, atol=1e-8, rtol=1e-5)


def test_density_against_scipy():
    for m in (2, 3, 10, 60):
        mu, z = normalize(torch.randn(m), dim=-1), normalize(torch.randn(40, m), dim=-1)
        for k in (0.1, 5.0, 300.0):
            expected = stats.vonmises_fisher(mu.numpy(), k)
            q = VonMisesFisher(mu, torch.tensor(k))
            np.testing.assert_allclose(q.log_prob(z).numpy(), expected.logpdf(z.numpy()), rtol=1e-9)
            assert q.entropy().item() == pytest.approx(expected.entropy(), rel=1e-8)


# The angle


def angles_on_a_grid(m: int, k: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles, and their distribution function by the trapezium rule, to about 1e-9."""
    mode = math.acos(2 * k / (m - 2 + math.hypot(m - 2, 2 * k))) if k or m > 2 else 0.0
    width = 14 / math.sqrt(max(k * math.cos(mode) + (m - 2) / max(math.sin(mode), 1e-9) ** 2, 0.5))
    theta = np.linspace(max(0, mode - width), min(math.pi, mode + 2 * width), 400_001)
    with np.errstate(divide="ignore"):
        log_sine = np.log(np.abs(np.sin(theta))) if m > 2 else 0.0
    log_p = (m - 2) * log_sine - 2 * k * np.sin(theta / 2) ** 2
    p = np.exp(log_p - log_p.max())
    total = np.concatenate(([0], np.cumsum((p[1:] + p[:-1]) / 2)))
    return theta, total / total[-1]


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float64, 1e-8), (torch.float32, 3e-5)])
def test_quantile_inverts_the_distribution_function(dtype: torch.dtype, gate: float):
    """Gate: the trapezium rule's error, and single precision's with a power of up to 1000."""
    share = torch.cat((torch.linspace(0, 1, 1001, dtype=dtype), 10 ** -torch.arange(2, 7, dtype=dtype)))
    for m in (2, 3, 4, 5, 20, 100, 1000):
        for k in (0.0, 1e-3, 0.1, 1.0, 10.0, 100.0, 1e3, 1e5):
            theta = angle_quantile(share, torch.tensor(k, dtype=dtype), m)
            found = np.interp(theta.double().numpy(), *angles_on_a_grid(m, k))
            assert np.abs(found - share.double().numpy()).max() < gate, (m, k)


def test_slope_of_the_quantile_against_finite_differences():
    """Gate: 1e-5 of the largest slope, from steps of 1e-4 κ: an error of their square and of 1e-10 / 1e-4."""
    share = torch.linspace(0.001, 0.999, 201)
    for m in (2, 3, 10, 100, 1000):
        for k in (0.1, 1.0, 10.0, 100.0, 1e4):
            kappa = torch.full_like(share, k, requires_grad=True)
            (slope,) = grad(angle_quantile(share, kappa, m).sum(), kappa)
            above, below = (angle_quantile(share, torch.tensor(k * (1 + sign * 1e-4)), m) for sign in (1, -1))
            difference = (above - below) / (2e-4 * k)
            assert (slope - difference).abs().max() < 1e-5 * slope.abs().max(), (m, k)


@pytest.mark.parametrize("each", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_mean_cosine_and_its_derivative_against_closed_forms(each: int):
    """20,000 or 200,000 draws each for 72 pairs of m and κ, so 144 standard scores.

    By chance 0.4 of them are beyond 3 standard errors: more than 3 are, or one beyond 4.5, in one of a thousand runs.
    The sums of their squares lie within the central 99.8 % of their chi-square distributions.
    """
    replicates = 200
    scores: dict[tuple[str, int, float], float] = {}
    for m in (2, 3, 5, 10, 20, 50, 100, 500):
        for k in (0.1, 1.0, 2.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4):
            kappa = torch.full((replicates,), k, requires_grad=True)
            means = angle_quantile(torch.rand(each, replicates), kappa, m).cos().mean(0)
            (slopes,) = grad(means.sum(), kappa)
            with mpmath.workdps(30):
                a = mpmath.besseli(m / 2, k) / mpmath.besseli(m / 2 - 1, k)
                expected = {"mean": a, "slope": 1 - a * a - (m - 1) / k * a}
            for name, values in (("mean", means.detach()), ("slope", slopes)):
                error = (values.mean() - float(expected[name])) / (values.std() / replicates**0.5)
                scores[name, m, k] = error.item()
    z = np.array(list(scores.values())).reshape(-1, 2)
    assert (np.abs(z) > 3).sum() <= 3, scores
    assert np.abs(z).max() < 4.5, scores
    for squares in (z**2).sum(0):
        assert 1e-3 < stats.chi2(len(z)).cdf(squares) < 1 - 1e-3, scores


@pytest.mark.parametrize("m", [2, 3, 10, 100])
def test_cosines_of_draws_have_their_distribution(m: int):
    """Kolmogorov-Smirnov, 20,000 draws for each of four κ; gate: 1e-4 / 16 for each of the 16."""
    mu = normalize(torch.randn(m), dim=-1)
    for k in (0.1, 3.0, 50.0, 1e4):
        theta, cumulative = angles_on_a_grid(m, k)
        w = VonMisesFisher(mu, torch.tensor(k)).sample((20_000,)) @ mu
        found = stats.kstest(w.clamp(-1, 1).acos().numpy(), lambda t, x=theta, f=cumulative: np.interp(t, x, f))
        assert found.pvalue > 1e-4 / 16, (m, k, found)


# Densities on spheres


def directions(m: int) -> Tensor:
    """Mean directions (5, m) with the poles of the construction among them: e_1, −e_1 and those beside them."""
    first = torch.eye(m)[0]
    near = normalize(first + 1e-7 * torch.randn(m), dim=-1)
    return torch.stack((first, -first, near, -near, normalize(torch.randn(m), dim=-1)))


def moments(q: Any, m: int) -> tuple[Tensor, Tensor]:
    """The means of w and w², w = μᵀz."""
    mean = (q.mean * q.mean_direction).sum(-1)
    if isinstance(q, VonMisesFisher):
        return mean, 1 - (m - 1) * mean / q.concentration
    alpha, beta = q.concentration + (m - 1) / 2, (m - 1) / 2
    return mean, mean**2 + 4 * alpha * beta / ((alpha + beta) ** 2 * (alpha + beta + 1))


def assert_within(values: Tensor, expected: Tensor, errors: float) -> None:
    """The mean over the first dimension, in standard errors of it."""
    values = values.detach()
    error = values.std(0) / len(values) ** 0.5
    off = (values.mean(0) - expected.detach()).abs() / (error + 1e-12)
    assert off.max() < errors, off


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("m", [2, 3, 10])
def test_draws_are_symmetric_around_the_mean_direction(family: Any, m: int):
    """First and second moments of 40,000 draws, five directions each; gate 5 standard errors for up to 600 numbers."""
    mu = directions(m)
    q = family(mu, torch.tensor([0.5, 2.0, 10.0, 50.0, 300.0]))
    z = q.sample((40_000,))
    assert q.support.check(z).all()
    first, second = moments(q, m)
    assert_within(z, first.unsqueeze(-1) * mu, 5)
    outer = mu.unsqueeze(-1) * mu.unsqueeze(-2)
    across = ((1 - second) / (m - 1))[..., None, None]  # the variance of a component orthogonal to μ
    expected = across * torch.eye(m) + (second[..., None, None] - across) * outer
    assert_within(z.unsqueeze(-1) * z.unsqueeze(-2), expected, 5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("m", [2, 3, 10])
def test_gradients_through_draws_are_those_of_the_moments(family: Any, m: int):
    """E cᵀz = E[w] cᵀμ and E (cᵀz)², differentiated by hand with respect to μ (along the sphere) and κ.

    200 replicates of 500 draws; gate 5 standard errors for 220 numbers at most.
    """
    c, mu, replicates = torch.randn(m), directions(m), 200
    kappa = torch.tensor([0.5, 2.0, 10.0, 50.0, 300.0])
    vector = mu.expand(replicates, 5, m).clone().requires_grad_()
    spread = kappa.expand(replicates, 5).clone().requires_grad_()
    z = family(normalize(vector, dim=-1), spread).rsample((500,))
    flat = mu.clone().requires_grad_()
    narrow = kappa.clone().requires_grad_()
    q = family(normalize(flat, dim=-1), narrow)
    first, second = moments(q, m)
    along = (normalize(flat, dim=-1) * c).sum(-1)
    across = (1 - second) / (m - 1)
    for found, expected in (
        ((z @ c).mean(0), first * along),
        ((z @ c).square().mean(0), across * c.square().sum() + (second - across) * along.square()),
    ):
        exact = grad(expected.sum(), (flat, narrow), retain_graph=True)
        for values, wanted in zip(grad(found.sum(), (vector, spread), retain_graph=True), exact, strict=True):
            assert_within(values, wanted, 5)


def cells(family: Any, m: int) -> tuple[Any, Tensor, Tensor]:
    """A density, and on a fine grid of the circle or the sphere its log density's points and their areas."""
    mu = normalize(torch.tensor([0.3, -0.8, 0.5][:m]), dim=-1)
    q = family(mu, torch.tensor(4.0))
    if m == 2:
        angle = (torch.arange(20_000) + 0.5) * 2 * math.pi / 20_000 - math.pi
        return q, torch.stack((angle.cos(), angle.sin()), -1), torch.full((20_000,), 2 * math.pi / 20_000)
    height, angle = (torch.arange(400) + 0.5) / 200 - 1, (torch.arange(800) + 0.5) * 2 * math.pi / 800 - math.pi
    height, angle = (t.flatten() for t in torch.meshgrid(height, angle, indexing="ij"))
    radius = (1 - height**2).sqrt()
    return (
        q,
        torch.stack((radius * angle.cos(), radius * angle.sin(), height), -1),
        torch.full((320_000,), 4 * math.pi / 320_000),
    )


def binned(z: Tensor) -> Tensor:
    """Cells of equal area: 50 arcs of the circle, 10 · 10 fields of the sphere."""
    angle = torch.atan2(z[..., 1], z[..., 0]) / (2 * math.pi) + 0.5
    if z.shape[-1] == 2:
        return (50 * angle).long().clamp(0, 49)
    return (5 * (z[..., 2] + 1)).long().clamp(0, 9) * 10 + (10 * angle).long().clamp(0, 9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("m", [2, 3])
def test_density_integrates_to_one_and_draws_follow_it(family: Any, m: int):
    """Gates: 1e-5 for the midpoint rule; chi-square of 100,000 draws at a level of 1e-4."""
    q, points, areas = cells(family, m)
    p = q.log_prob(points).exp() * areas
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    index = binned(points)
    expected = torch.zeros(int(index.max()) + 1).index_add(0, index, p) * 100_000
    observed = torch.bincount(binned(q.sample((100_000,))), minlength=len(expected))
    large = expected > 5
    expected = torch.cat((expected[large], expected[~large].sum(0, keepdim=True)))
    observed = torch.cat((observed[large], observed[~large].sum(0, keepdim=True)))
    kept = expected > 5
    expected, observed = expected[kept], observed[kept]
    statistic = ((observed - expected).square() / expected).sum()
    assert stats.chi2(len(expected) - 1).sf(statistic.item()) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [2, 3, 10, 200, 1000])
def test_no_value_and_no_gradient_is_infinite(family: Any, dtype: torch.dtype, m: int):
    """Over all κ, at μ and opposite to it, and for μ at the poles of the construction."""
    mu = directions(m).to(dtype)[:, None].requires_grad_()
    kappa = torch.tensor([0, 1e-3, 0.1, 1, 10, 100, 1e3, 1e4, 1e5], dtype=dtype, requires_grad=True)
    q = family(mu, kappa)
    z = q.rsample((max(4, 2000 // m),))
    assert q.support.check(z).all()
    assert z.dtype == dtype
    results = {
        "draws": z @ torch.randn(m, dtype=dtype),
        "density of draws": q.log_prob(z),
        "at the mode": q.log_prob(mu.detach()),
        "opposite to it": q.log_prob(-mu.detach()),
        "entropy": q.entropy(),
        "divergence": kl_divergence(q, HypersphericalUniform(m, dtype=dtype)),
        "mean": q.mean.sum(-1),
    }
    for name, values in results.items():
        assert values.isfinite().all(), name
        assert values.dtype == dtype, name
        for gradient in grad(values.sum(), (mu, kappa), retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_divergence_and_entropy_agree_with_draws(family: Any):
    """20,000 draws for each of 12; gate 4.5 standard errors."""
    for m in (2, 3, 50):
        q = family(directions(m)[0], torch.tensor([0.1, 2.0, 30.0, 1e4]))
        p = HypersphericalUniform(m)
        z = q.sample((20_000,))
        assert_within(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p), 4.5)
        assert_within(-q.log_prob(z), q.entropy(), 4.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_larger_batches_are_the_same_density(family: Any):
    mu, kappa = directions(3), torch.tensor(7.0, requires_grad=True)
    q = family(mu, kappa)
    wide = q.expand((4, 5))
    assert (q.batch_shape, q.event_shape, wide.batch_shape) == ((5,), (3,), (4, 5))
    assert wide.rsample((2,)).shape == (2, 4, 5, 3)
    assert wide.mean_direction.shape == wide.mean.shape == (4, 5, 3)
    assert wide.concentration.shape == wide.entropy().shape == (4, 5)
    assert wide.expand((6, 4, 5)).log_prob(mu[0]).shape == (6, 4, 5)
    assert kl_divergence(wide, HypersphericalUniform(3)).shape == (4, 5)
    assert kl_divergence(q, HypersphericalUniform(3).expand((6, 1))).shape == (6, 5)
    z = q.sample((4,))
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z), rtol=0, atol=0)
    (wide.log_prob(wide.rsample()).sum()).backward()
    assert kappa.grad is not None
    with torch.no_grad():
        assert not q.rsample().requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_parameters_are_named(family: Any):
    mu = torch.tensor([0.6, 0.8])
    with pytest.raises(ValueError, match=r"'mean_direction'.*norm 2:"):
        family(torch.stack((mu, 2 * mu)), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"'mean_direction'.*norm nan"):
        family(mu * math.nan, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"'concentration'.*-1"):
        family(mu, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"'concentration'.*inf"):
        family(mu, torch.tensor(math.inf))
    with pytest.raises(ValueError, match="at least 2 coordinates"):
        family(torch.ones(5, 1), torch.tensor(1.0))
    with pytest.raises(ValueError, match="different spheres: of 2 and of 3"):
        kl_divergence(family(mu, torch.tensor(1.0)), HypersphericalUniform(3))
    with pytest.raises(ValueError, match="within the support"):
        family(mu, torch.tensor(1.0)).log_prob(torch.ones(2))
    assert family(mu, torch.tensor(0.0)).log_prob(mu).item() == pytest.approx(-math.log(2 * math.pi))


# The uniform density


def test_uniform_draws_have_no_direction():
    """First and second moments of 40,000 draws; gate 4.5 standard errors."""
    for m in (2, 3, 10):
        p = HypersphericalUniform(m).expand((2,))
        z = p.sample((40_000,))
        assert p.support.check(z).all()
        assert_within(z, torch.zeros(2, m), 4.5)
        assert_within(z.unsqueeze(-1) * z.unsqueeze(-2), torch.eye(m) / m, 4.5)
        assert p.log_prob(z).shape == (40_000, 2)
        torch.testing.assert_close(p.entropy(), -p.log_prob(z[0]))
    assert HypersphericalUniform(3).entropy().item() == pytest.approx(math.log(4 * math.pi))
    assert priors.HypersphericalUniform(4).float()().sample().dtype == torch.float32
    for make in (HypersphericalUniform, priors.HypersphericalUniform):
        with pytest.raises(ValueError, match="at least 2, not 1"):
            make(1)


# Posteriors


def pair(posterior: Any, latent_dim: int = 3) -> tuple[nn.Module, nn.Module]:
    decoder = likelihoods.Bernoulli(networks.MLP(latent_dim, 6, (16,)))
    model = models.VAE(priors.HypersphericalUniform(latent_dim), decoder)
    return model, guides.Amortized(posterior(networks.MLP(6, latent_dim + 1, (16,))))


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_posterior_without_a_direction_has_one_and_finite_gradients(posterior: Any, dtype: torch.dtype):
    out = torch.tensor([[0, 0, 0, -1e4], [1e-20, 0, 0, 1e4], [1e-3, 2, 3, 0]], dtype=dtype, requires_grad=True)
    q = posterior(nn.Identity())(out)
    z = q.rsample((5,))
    assert q.support.check(z).all()
    assert (q.concentration >= 1).all()
    torch.testing.assert_close(q.mean_direction[2], normalize(out[2, :3], dim=-1))
    (gradient,) = grad((z.sum() + q.log_prob(z).sum()), out)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_posterior_says_how_many_values_it_needs(posterior: Any):
    with pytest.raises(ValueError, match=r"M \+ 1 values.*it gives 2"):
        posterior(nn.Identity())(torch.zeros(7, 2))
    assert posterior(nn.Identity())(torch.ones(4, 7, 6)).event_shape == (5,)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_bounds_with_and_without_the_divergence_agree(posterior: Any):
    """The means of 40 estimates of 200 particles each; gate 4 standard errors."""
    torch.manual_seed(3)
    model, guide = pair(posterior)
    x = (torch.rand(4, 6) < 0.4).double()
    with torch.no_grad():
        losses = {
            analytic: torch.stack(
                [objectives.ELBO(200, analytic_kl=analytic).differentiable_loss(model, guide, x) for _ in range(40)]
            )
            for analytic in (True, False)
        }
    error = sum(v.var() / len(v) for v in losses.values()) ** 0.5
    assert (losses[True].mean() - losses[False].mean()).abs() < 4 * error


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_step_can_be_captured(posterior: Any):
    """The graph of loss and gradients gives the same numbers on the same draws, to 1e-12."""
    model, guide = pair(posterior)
    x = (torch.rand(12, 6) < 0.4).double()
    parameters = [*model.parameters(), *guide.parameters()]

    objective = objectives.ELBO(3, analytic_kl=True)

    def step() -> list[Tensor]:
        loss = objective.differentiable_loss(model, guide, x)
        return [loss, *grad(loss, parameters)]

    step()  # at its first run an objective finds out what the programs are made of
    graph = trace(step, [x, *parameters])
    torch.manual_seed(1)
    expected = step()
    torch.manual_seed(1)
    found = graph(x, *parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_training_learns_directions(posterior: Any):
    """Data made from an angle: the bound passes that of a code that says nothing, six fair coins, by a fifth."""
    angle = 2 * math.pi * torch.rand(128)
    x = (torch.stack([(angle - i).cos() for i in range(6)], -1) > 0).double()
    torch.manual_seed(0)
    model, guide = pair(posterior, 2)
    result = lvm.fit(model, guide, x, epochs=60, batch_size=32, learning_rate=0.02, compile=False)
    assert result.history[-1]["elbo"] > -0.8 * 6 * math.log(2)
    again = rebuild(configuration({"guide": guide}))["guide"]
    again.load_state_dict(guide.state_dict())
    torch.testing.assert_close(again.posterior(x).mean, guide.posterior(x).mean, rtol=0, atol=0)


# The picture


def test_every_point_is_drawn_once():
    z = normalize(torch.randn(60, 3), dim=-1)
    for labels, handles in ((None, 0), (torch.arange(60) % 3, 3), (z[:, 0], 0)):
        views = plot_sphere(z, labels)
        assert sum(len(points.get_offsets()) for view in views for points in view.collections) == 60
        legend = views[1].get_legend()
        assert (0 if legend is None else len(legend.get_texts())) == handles
        views[0].figure.canvas.draw()
    again = plot_sphere(z, ax=views)
    assert again[0] is views[0]


def test_what_cannot_be_drawn_on_a_sphere_is_refused():
    z = normalize(torch.randn(6, 3), dim=-1)
    with pytest.raises(ValueError, match="three dimensions"):
        plot_sphere(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"norm 2"):
        plot_sphere(2 * z)
    with pytest.raises(ValueError, match="'labels'"):
        plot_sphere(z, torch.zeros(5))
    from matplotlib.figure import Figure

    flat = Figure().add_subplot()
    with pytest.raises(ValueError, match="projection='3d'"):
        plot_sphere(z, ax=(flat, flat))


@pytest.mark.parametrize("on_sphere", [False, True])
def test_a_density_on_the_sphere_and_one_on_all_of_space_are_not_compared(on_sphere: bool) -> None:
    net = networks.MLP(4, 4 if on_sphere else 6, (8,))
    posterior = posteriors.VonMisesFisher(net) if on_sphere else posteriors.DiagonalNormal(net)
    prior = priors.StandardNormal(3) if on_sphere else priors.HypersphericalUniform(3)
    model = models.VAE(prior, likelihoods.Normal(networks.MLP(3, 4, (8,))))
    with pytest.raises(ValueError, match="the two cannot be compared") as error:
        lvm.fit(model, guides.Amortized(posterior), torch.randn(20, 4), epochs=1, batch_size=10)
    words = ("is over the unit sphere, but the model's is over all of space", "is over all of space, but the model's")
    assert words[not on_sphere] in str(error.value)


def test_a_vampprior_on_the_sphere_is_compared() -> None:
    posterior = posteriors.VonMisesFisher(networks.MLP(4, 4, (8,)))
    prior = priors.VampPrior(posterior, 4, components=3)
    model = models.VAE(prior, likelihoods.Normal(networks.MLP(3, 4, (8,))))
    result = lvm.fit(model, guides.Amortized(posterior), torch.rand(20, 4), epochs=2, batch_size=10)
    assert math.isfinite(result.history[-1]["train"])
