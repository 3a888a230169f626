"""Priors: densities integrate to one, draws agree with them, gradients reach everything, and pairs train with them.

Integrals are midpoint sums over z = sinh(u), u in [-7, 7], which reaches to 548 for the flows' long tails; their error,
seen by doubling the number of points, is 6e-4 for the spline's steps and below 1e-5 for all others.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from scipy.stats import chisquare
from torch import Tensor, nn

import pyro_lvm as lvm
import pyro_lvm.networks.made
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.distributions.mixture import NormalMixture, PickedMixture
from pyro_lvm.priors.prior import Prior
from pyro_lvm.programs import pair as as_pair
from pyro_lvm.programs import parameters_of

D = 6  # data


def encoder(latent_dim: int) -> nn.Module:
    return networks.MLP(D, 2 * latent_dim, (8,), nn.Tanh)


def diagonal(latent_dim: int) -> nn.Module:
    return posteriors.DiagonalNormal(encoder(latent_dim))


def full(latent_dim: int) -> nn.Module:
    return posteriors.FullNormal(networks.MLP(D, latent_dim * (latent_dim + 3) // 2, (8,), nn.Tanh))


class Sinh(dist.transforms.Transform):
    """z = sinh(x)."""

    domain = codomain = dist.constraints.real
    bijective, sign = True, 1

    def _call(self, x: Tensor) -> Tensor:
        return x.sinh()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.asinh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.cosh().log()


class Skewed(lvm.Part):
    """A posterior that is no normal, by an invertible map of its own for every datum."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.net = encoder(latent_dim)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        mu, raw = self.net(x).chunk(2, -1)
        maps = [Sinh(), dist.transforms.AffineTransform(mu, raw.exp())]
        return dist.TransformedDistribution(dist.Normal(raw, 0.5).to_event(1), maps)


PRIORS: dict[str, Callable[[int], Prior]] = {
    "mixture": lambda M: priors.MixtureOfGaussians(M, components=7),
    "vamp": lambda M: priors.VampPrior(diagonal(M), D, components=9),
    "vamp, learned weights": lambda M: priors.VampPrior(diagonal(M), D, components=9, weights="learned"),
    "vamp, full": lambda M: priors.VampPrior(full(M), D, components=9),
    "vamp, skewed": lambda M: priors.VampPrior(Skewed(M), D, components=9, minimum=-2.0, maximum=3.0),
    "gtm": lambda M: priors.GTM(M, points=3, hidden_features=(8,)),
    "gtm-vamp": lambda M: priors.GTMVamp(diagonal(M), D, points=3, hidden_features=(8,)),
    "real_nvp": lambda M: priors.Flow(M, "real_nvp", hidden_features=(8, 8)),
    "neural_spline": lambda M: priors.Flow(M, "neural_spline", hidden_features=(8, 8)),
    "masked_autoregressive": lambda M: priors.Flow(M, "masked_autoregressive", hidden_features=(8, 8)),
    "autoregressive": lambda M: priors.Autoregressive(M, hidden_features=(8, 8)),
    "autoregressive mixture": lambda M: priors.Autoregressive(M, components=4, hidden_features=(8, 8)),
    "resampled": lambda M: priors.Resampled(M, hidden_features=(8, 8)),
    "resampled, 3 tries": lambda M: priors.Resampled(M, hidden_features=(8, 8), truncation=3),
}
SHARED = tuple(name for name in PRIORS if "vamp" in name)
each = pytest.mark.parametrize("name", PRIORS)


def perturbed(name: str, latent_dim: int, size: float | None = None) -> Prior:
    torch.manual_seed(1)
    prior = PRIORS[name](latent_dim)
    if size is None:  # flows move further with their weights: to densities too steep for the grid
        size = 0.15 if isinstance(prior, priors.Flow) else 0.4
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += size * torch.randn_like(parameter)
    return prior.eval()


@cache
def cells(name: str, latent_dim: int) -> tuple[Prior, Tensor, Tensor]:
    """A perturbed prior, the probabilities of the cells of a grid, and their edges."""
    prior = perturbed(name, latent_dim)
    points, per_cell = (20_000, 250) if latent_dim == 1 else (600, 10)
    u = -7 + 14 / points * (torch.arange(points) + 0.5)
    z = torch.cartesian_prod(*[u.sinh()] * latent_dim).reshape(-1, latent_dim)
    with torch.no_grad():
        p = torch.cat([prior.log_prob(part) for part in z.split(50_000)]).exp()
    p = p * ((1 + z.square()).sqrt() * 14 / points).prod(-1)  # dz = cosh(u) du
    count = points // per_cell
    return prior, p.reshape((count, per_cell) * latent_dim), torch.linspace(-7, 7, count + 1).sinh()


# Densities


@pytest.mark.parametrize("latent_dim", [1, 2])
@each
def test_density_integrates_to_one(name: str, latent_dim: int) -> None:
    _, p, _ = cells(name, latent_dim)
    assert p.sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("latent_dim", [1, 2])
@each
def test_draws_come_from_the_density(name: str, latent_dim: int) -> None:
    prior, p, edges = cells(name, latent_dim)
    expected = p.sum(tuple(range(1, 2 * latent_dim, 2)))  # the dimensions within cells
    torch.manual_seed(2)
    n = 100_000
    z = prior.sample((n,))
    count = len(edges) - 1
    index = (torch.bucketize(z, edges) - 1).clamp(0, count - 1)  # cells at the edge take what is beyond
    flat = sum(index[:, m] * count ** (latent_dim - 1 - m) for m in range(latent_dim))
    observed, expected = torch.bincount(flat, minlength=count**latent_dim).double(), n * expected.flatten()
    kept = expected >= 20
    observed = torch.cat((observed[kept], observed[~kept].sum()[None]))
    expected = torch.cat((expected[kept], n - expected[kept].sum()[None]))
    if expected[-1] < 5:  # too few for the test's limit
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
    assert len(expected) > 8
    assert chisquare(observed, expected).pvalue > 0.001


@each
def test_any_number_of_leading_dimensions_and_either_precision(name: str) -> None:
    prior = perturbed(name, 3)
    z = prior.sample((4, 5))
    expected = torch.stack([prior.log_prob(row) for row in z.reshape(-1, 3)]).reshape(4, 5)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prior().expand((5,)).log_prob(z), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prior().expand((2, 1)).log_prob(z[0]), expected[0].expand(2, 5), rtol=1e-10, atol=1e-10)
    drawn = prior().expand((6,)).sample((2,))
    assert drawn.shape == (2, 6, 3)
    assert len(torch.unique(drawn)) == drawn.numel()
    assert prior().event_shape == (3,)
    assert prior().batch_shape == ()
    single = prior.float()
    assert single.sample((2,)).dtype == torch.float32
    # 20 roundings of numbers up to about 10
    torch.testing.assert_close(single.log_prob(z.float()).double(), expected, rtol=20 * 1.2e-7, atol=20 * 1.2e-6)
    assert single.log_prob(z.float()).dtype == torch.float32


@each
def test_gradients_reach_every_parameter_and_the_latents(name: str) -> None:
    prior = perturbed(name, 3).train()
    z = torch.randn(50, 3, requires_grad=True)
    prior.log_prob(z).sum().backward()
    for parameter_name, parameter in prior.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    assert (z.grad.abs() > 0).all()


@each
def test_density_does_not_touch_the_random_state_and_is_the_same_again(name: str) -> None:
    prior, z = perturbed(name, 2), torch.randn(5, 2)
    state = torch.get_rng_state()
    first, second = prior.log_prob(z), prior.log_prob(z)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)


# Mixtures


def vectors(components: int = 50, latent_dim: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    mu, sigma = 2 * torch.randn(components, latent_dim), torch.empty(components, latent_dim).uniform_(0.001, 1.0)
    return mu, sigma, torch.randn(components).log_softmax(-1)


def by_differences(mu: Tensor, sigma: Tensor, log_weights: Tensor) -> dist.TorchDistribution:
    return dist.MixtureSameFamily(dist.Categorical(logits=log_weights), dist.Normal(mu, sigma).to_event(1))


def test_products_of_matrices_are_exact_enough_in_single_precision() -> None:
    mu, sigma, log_weights = (t.float() for t in vectors())
    z = mu[:20] + sigma[:20] * torch.randn(20, 40).float()
    expected = by_differences(mu.double(), sigma.double(), log_weights.double()).log_prob(z.double())
    found = NormalMixture(mu, sigma, log_weights).log_prob(z)
    # Rounded once, at the end; some μ²/σ² are 10^7, and in single precision would be off by nats.
    torch.testing.assert_close(found.double(), expected, rtol=1.2e-7, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(NormalMixture(mu, sigma, log_weights).log_prob(z), found)


def test_gradients_of_a_mixture_are_those_of_its_density() -> None:
    mu, sigma, log_weights = (t.requires_grad_() for t in vectors(3, 2))
    z = torch.randn(4, 2, requires_grad=True)
    inputs = (z, mu, sigma, log_weights)
    assert torch.autograd.gradcheck(lambda z, *rest: NormalMixture(*rest).log_prob(z), inputs)
    found = torch.autograd.grad(NormalMixture(mu, sigma, log_weights.log_softmax(-1)).log_prob(z).sum(), inputs)
    expected = torch.autograd.grad(by_differences(mu, sigma, log_weights).log_prob(z).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_a_mixture_is_over_whole_vectors() -> None:
    prior = priors.MixtureOfGaussians(2, components=2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[-3.0, -3.0], [3.0, 3.0]]))
    at_a_mean, between = prior.log_prob(torch.tensor([[3.0, 3.0], [-3.0, 3.0]]))
    # (z − μ)²/2σ² = 36 / (2 · 0.25) from either component; a mixture of each dimension has as much there as anywhere.
    assert (at_a_mean - between).item() == pytest.approx(72 - torch.tensor(2.0).log().item(), abs=1e-9)


def test_a_mixture_starts_as_wide_as_the_standard_normal() -> None:
    z = priors.MixtureOfGaussians(1, components=10_000).sample((10_000,))
    # Standard errors: the means' are 0.01, twice; of the variance, √2 of it.
    assert abs(z.mean()) < 4 * 0.02
    assert abs(z.var() - 1) < 4 * 0.02 * 2**0.5


@pytest.mark.parametrize("name", ["mixture", "gtm", "vamp", "vamp, full"])
def test_responsibilities_are_bayes_rule(name: str) -> None:
    prior, z = perturbed(name, 2), torch.randn(3, 4, 2)
    found = prior.component(z)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 4))
    distribution = prior()
    one_by_one = []
    for k in range(found.shape[-1]):
        if isinstance(distribution, NormalMixture):
            q = dist.Normal(distribution.mu[k], distribution.sigma[k]).to_event(1)
        else:
            q = distribution.pick(torch.tensor(k))
        one_by_one.append(distribution.log_weights[k].exp() * q.log_prob(z).exp())
    torch.testing.assert_close(found, torch.stack(one_by_one, -1) / prior.log_prob(z).exp().unsqueeze(-1))


def test_a_gtm_reads_means_and_log_variances_from_its_network() -> None:
    prior, z = perturbed("gtm", 2), torch.randn(5, 2)
    means, log_variances = prior.net(prior.grid).split(2, -1)
    normals = dist.MultivariateNormal(means, covariance_matrix=torch.diag_embed(log_variances.exp()))
    expected = dist.MixtureSameFamily(dist.Categorical(logits=prior.logits), normals).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-10, atol=0)


def test_grid_is_a_cartesian_product() -> None:
    grid = priors.GTM(2, grid_dim=3, points=4).grid
    axis = [-1, -1 / 3, 1 / 3, 1]
    torch.testing.assert_close(grid, torch.tensor([[a, b, c] for a in axis for b in axis for c in axis]))
    assert priors.GTM(2, grid_dim=1, points=5).grid.shape == (5, 1)


# The posteriors' own mixture


@pytest.mark.parametrize("make", [diagonal, full, Skewed])
def test_vamp_is_the_mean_of_posteriors(make: Callable[[int], nn.Module]) -> None:
    posterior = make(2)
    prior = priors.VampPrior(posterior, D, components=5)
    z = torch.randn(7, 2).abs() + 3
    expected = torch.stack([posterior(u).log_prob(z).exp() for u in prior.pseudo_inputs]).mean(0).log()
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-10, atol=1e-10)
    quick = isinstance(prior(), NormalMixture)
    assert quick == (make is diagonal)


def test_vamp_takes_posteriors_of_any_kind() -> None:
    class OnTheSphere(lvm.Part):
        def __init__(self) -> None:
            super().__init__()
            self.net = networks.MLP(D, 3, (8,))

        def forward(self, x: Tensor) -> dist.TorchDistribution:
            return dist.ProjectedNormal(self.net(x))

    prior = priors.VampPrior(OnTheSphere(), D, components=5)
    z = prior.sample((10,))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(10))
    assert prior.log_prob(z).shape == (10,)
    with pytest.raises(ValueError, match="value argument"):
        prior.log_prob(2 * z)
    codes = priors.VampPrior(posteriors.OneHot(networks.MLP(D, 6, (8,)), 3), D, components=5)
    assert codes.sample((10,)).shape == (10, 2, 3)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    assert codes.log_prob(torch.eye(3)[pairs]).exp().sum().item() == pytest.approx(1)


def test_pseudo_inputs_start_where_they_are_put_and_stay_in_the_range() -> None:
    prior = priors.VampPrior(diagonal(2), (2, 3), components=50, minimum=-1.0, maximum=4.0)
    assert ((prior.pseudo_inputs > -1) & (prior.pseudo_inputs < 4)).all()
    x = torch.empty(50, 2, 3).uniform_(-0.9, 3.9)
    prior.start_from(x)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), x)
    ends = torch.tensor([-1.0, 4.0]).repeat(150).reshape(50, 2, 3)
    prior.start_from(ends.float())
    torch.testing.assert_close((prior.pseudo_inputs - ends).abs(), torch.full_like(ends, 0.05))
    prior.pseudo_inputs.sum().backward()
    assert (prior.raw_inputs.grad > 0.04).all()


class Known(lvm.Part):
    """q(z | x) = N(z | 2 x, 0.3²): no parameters, so the aggregated posterior of given data is known."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(2 * x, torch.full_like(x, 0.3)).to_event(1)


def ring() -> tuple[Tensor, Tensor, Tensor]:
    """Eight data on a ring, a grid over their latents, and the aggregated posterior's probabilities on it."""
    angles = torch.arange(8) * torch.pi / 4
    x = 0.8 * torch.stack((angles.cos(), angles.sin()), -1)
    axis = torch.arange(-35, 36) * 0.1  # a step of σ / 3, for which the sum of a normal is exact to 1e-10
    z = torch.cartesian_prod(axis, axis)
    q = Known()(x.unsqueeze(1)).log_prob(z).exp().mean(0)
    return x, z, 0.01 * q


def test_the_aggregated_posterior_is_the_best_prior() -> None:
    x, z, q = ring()
    entropy = -(q * (q / 0.01).log()).sum().item()

    def cross_entropy(prior: Prior) -> Tensor:
        return -(q * prior.log_prob(z)).sum()

    def trained(prior: Prior) -> float:
        optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
        for _ in range(250):
            optimizer.zero_grad()
            loss = cross_entropy(prior)
            loss.backward()
            optimizer.step()
        return loss.item()

    vamps, mixtures = [], []
    for components in (1, 2, 4, 8):
        vamp = priors.VampPrior(Known(), 2, components=components, minimum=-1.0, maximum=1.0)
        vamp.start_from(x[:: 8 // components])
        if components == 8:
            assert cross_entropy(vamp).item() == pytest.approx(entropy, abs=1e-9)
        else:
            vamps.append(trained(vamp))
        torch.manual_seed(0)
        mixtures.append(trained(priors.MixtureOfGaussians(2, components=components)))
    assert vamps[0] > vamps[1] > vamps[2] > entropy
    assert mixtures[0] > mixtures[1] > mixtures[2] > mixtures[3] > entropy
    assert mixtures[3] - entropy < 0.1 * (mixtures[0] - entropy)


# Single priors


def test_latents_depend_on_those_before_them_only() -> None:
    net = networks.made.MADE(5, outputs=3, hidden_features=(7, 9), activation=nn.Tanh)
    jacobian = torch.autograd.functional.jacobian(net, torch.randn(5))  # (5, 3, 5)
    depends = (jacobian != 0).any(1)
    assert torch.equal(depends, torch.ones(5, 5).tril(-1).bool())


@pytest.mark.parametrize("flow", ["real_nvp", "neural_spline", "masked_autoregressive"])
def test_flow_log_det_agrees_with_autograd_at_large_weights(flow: str) -> None:
    torch.manual_seed(3)
    prior = priors.Flow(4, flow, hidden_features=(8, 8))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += torch.randn_like(parameter)
    transform, z = prior.transform(), torch.randn(4)
    jacobian = torch.autograd.functional.jacobian(transform, z)
    base = dist.Normal(torch.zeros(4), 1.0).to_event(1)
    expected = base.log_prob(transform(z)) + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-8, atol=0)  # of a determinant of size e^276


@pytest.mark.parametrize("flow", ["real_nvp", "neural_spline", "masked_autoregressive"])
def test_flow_of_one_latent_starts_at_the_standard_normal(flow: str) -> None:
    z = torch.randn(5, 1)
    torch.testing.assert_close(priors.Flow(1, flow).log_prob(z), priors.StandardNormal(1)().log_prob(z))


def test_one_try_is_the_standard_normal() -> None:
    prior, z = priors.Resampled(2, truncation=1), torch.randn(5, 2)
    torch.testing.assert_close(prior.log_prob(z), priors.StandardNormal(2)().log_prob(z))
    assert prior.sample((3,)).shape == (3, 2)


def test_a_prior_that_accepts_everything_or_nothing_is_finite() -> None:
    prior = priors.Resampled(2).float()
    z = torch.randn(5, 2).float()
    for bias in (-200.0, 200.0):
        with torch.no_grad():
            prior.net.layers[-1].bias.fill_(bias)
        log_p = prior.log_prob(z)
        torch.testing.assert_close(log_p, priors.StandardNormal(2).float()().log_prob(z), rtol=1e-2, atol=0)
        assert all(g.isfinite().all() for g in torch.autograd.grad(log_p.sum(), list(prior.parameters())))


def test_bias_of_the_resampled_prior_in_training_is_as_stated() -> None:
    prior = perturbed("resampled", 2, size=1.5)
    z = torch.zeros(1, 2)
    exact = prior.log_prob(z).item()
    prior.train()
    fresh = torch.stack([prior.log_prob(z).detach() for _ in range(1000)])
    with torch.no_grad():
        a = prior.net(torch.randn(100_000, 2)).sigmoid()
    bias = a.var() / (2 * 4096 * a.mean() ** 2)
    error = 4 * fresh.std() / 1000**0.5 + 1e-3  # what the fixed points are off by
    assert abs(fresh.mean() - exact - bias) < error
    assert fresh.std().item() == pytest.approx((2 * bias).sqrt().item(), rel=0.15)  # so much is known of it
    with torch.no_grad():  # no gradient, no training
        assert prior.log_prob(z).item() == exact


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.MixtureOfGaussians(0), "'latent_dim' .* at least 1, not 0"),
        (lambda: priors.MixtureOfGaussians(2, components=0), "'components' .* at least 1, not 0"),
        (lambda: priors.VampPrior(diagonal(2), D, components=0), "'components' .* at least 1, not 0"),
        (lambda: priors.VampPrior(diagonal(2), (4, 0)), "'data_shape' .* at least 1, not \\(4, 0\\)"),
        (lambda: priors.VampPrior(diagonal(2), D, weights="free"), "'weights' must be 'uniform' or 'learned'"),
        (lambda: priors.VampPrior(diagonal(2), D, minimum=1.0), "'minimum' and 'maximum' .* not 1.0 and 1.0"),
        (lambda: priors.VampPrior(diagonal(2), D, maximum=float("inf")), "'minimum' and 'maximum' .* finite"),
        (lambda: priors.VampPrior(diagonal(2), D, components=3).start_from(torch.zeros(3, 5)), r"all, not \(3, 5\)"),
        (
            lambda: priors.VampPrior(diagonal(2), D, components=3).start_from(torch.full((3, D), 16.0)),
            "'x' holds 16, which is outside the range of the pseudo-inputs, 0 to 1",
        ),
        (lambda: priors.GTM(0), "'latent_dim' .* at least 1, not 0"),
        (lambda: priors.GTM(2, grid_dim=0), "'grid_dim' .* at least 1, not 0"),
        (lambda: priors.GTM(2, points=1), "'points' .* at least 2, not 1"),
        (lambda: priors.GTMVamp(diagonal(2), D, points=0), "'points' .* at least 2, not 0"),
        (lambda: priors.GTMVamp(diagonal(2), D, minimum=2.0), "'minimum' and 'maximum'"),
        (lambda: priors.Flow(0), "'latent_dim' .* at least 1, not 0"),
        (lambda: priors.Flow(2, "planar"), "'flow' must be one of 'real_nvp', .* not 'planar'"),
        (lambda: priors.Flow(2, transforms=0), "'transforms' .* at least 1, not 0"),
        (lambda: priors.Flow(2, hidden_features=(8, 0)), "'hidden_features' .* at least 1, not 0"),
        (lambda: priors.Autoregressive(0), "'latent_dim' .* at least 1, not 0"),
        (lambda: priors.Autoregressive(2, components=0), "'components' .* at least 1, not 0"),
        (lambda: priors.Resampled(0), "'latent_dim' .* at least 1, not 0"),
        (lambda: priors.Resampled(2, truncation=0), "'truncation' .* at least 1, not 0"),
        (lambda: networks.made.MADE(0), "'features' must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@each
def test_latents_of_another_dimension_are_refused(name: str) -> None:
    prior = PRIORS[name](2)
    with pytest.raises(ValueError, match=r"'z' must have shape \(\.\.\., 2\).* not \(5, 3\)"):
        prior.log_prob(torch.zeros(5, 3))


# Pairs


def pair(name: str, latent_dim: int = 3) -> tuple[models.VAE, guides.Amortized]:
    prior = PRIORS[name](latent_dim)
    posterior = prior.posterior if name in SHARED else diagonal(latent_dim)
    decoder = likelihoods.Bernoulli(networks.MLP(latent_dim, D, (8,), nn.Tanh))
    return models.VAE(prior, decoder), guides.Amortized(posterior)


def bits(rows: int) -> Tensor:
    return (torch.rand(rows, D) < 0.4).double()


@each
def test_every_prior_trains_in_fit_and_under_stock_svi(name: str) -> None:
    x = data.load("digits").train[:100].flatten(1)[:, :: 64 // D][:, :D].double() / 16
    x = (x > 0.5).double()
    before, (model, guide) = {}, pair(name)
    parameters = parameters_of(as_pair(model, guide))
    for parameter in parameters:
        before[id(parameter)] = parameter.detach().clone()
    result = lvm.fit(model, guide, x, epochs=2, batch_size=20, learning_rate=1e-2, progress=False)
    assert torch.tensor([row["train"] for row in result.history]).isfinite().all()
    moved = [not torch.equal(before[id(p)], p) for p in parameters]
    assert all(moved)
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(15)]
    assert torch.tensor(losses).isfinite().all()
    assert sum(losses[-3:]) < sum(losses[:3])


@each
def test_no_closed_form_is_taken_for_these_priors(name: str) -> None:
    model, guide = (program.eval() for program in pair(name))
    x, values = bits(5), []
    for analytic in (False, True):
        torch.manual_seed(4)
        values.append(objectives.ELBO(3, analytic_kl=analytic).loss(model, guide, x))
    assert values[0] == values[1]


COMPILED = ("vamp", "real_nvp", "resampled")  # the rest is like


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in COMPILED)) for n in PRIORS])
def test_training_with_every_prior_compiles(name: str, no_compiler: None) -> None:
    model, guide = pair(name)
    loss, objective = lvm.compile(objectives.IWAE(2), model, guide), objectives.IWAE(2)
    for _ in range(4):
        x = bits(5)
        state = torch.get_rng_state()
        found = loss(x)
        torch.set_rng_state(state)
        expected = objective.differentiable_loss(*as_pair(model, guide), x)
        assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    assert loss.failure is None


@pytest.mark.parametrize("name", ["mixture", "vamp", "vamp, full", "neural_spline", "autoregressive", "resampled"])
def test_gradient_of_the_elbo_agrees_with_finite_differences(name: str) -> None:
    """With the same random numbers before and after: what reaches an encoder through the prior is in it."""
    model, guide = pair(name, latent_dim=2)
    x, objective = bits(5), objectives.ELBO(3)
    parameters = parameters_of(as_pair(model, guide))

    def loss() -> Tensor:
        torch.manual_seed(5)
        return objective.differentiable_loss(model, guide, x)

    gradients = torch.autograd.grad(loss(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    step = 1e-6  # small enough to stay clear of kinks
    for one in [None, *range(len(parameters))]:  # all together, and each alone
        chosen = [d if one in (None, i) else 0.0 for i, d in enumerate(directions)]

        def moved(by: float, chosen: list[Any] = chosen) -> float:
            with torch.no_grad():
                for parameter, direction in zip(parameters, chosen, strict=True):
                    parameter += by * direction
            value = loss().item()
            with torch.no_grad():
                for parameter, direction in zip(parameters, chosen, strict=True):
                    parameter -= by * direction
            return value

        slope = (moved(step) - moved(-step)) / (2 * step)
        expected = sum((g * c).sum().item() for g, c in zip(gradients, chosen, strict=True) if not isinstance(c, float))
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_dregs_gradient_with_a_shared_encoder_is_unbiased() -> None:
    """Every element within 4 standard errors of the plain gradient's mean, 400 runs each of 50 copies of a datum."""
    model, guide = pair("vamp", latent_dim=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    x, parameters = bits(1).expand(50, D), parameters_of(as_pair(model, guide))
    means, variances = [], []
    for gradient in ("standard", "dreg"):
        objective = objectives.IWAE(3, gradient=gradient)
        rows = []
        for _ in range(400):
            loss = objective.differentiable_loss(model, guide, x)
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        means.append(torch.stack(rows).mean(0))
        variances.append(torch.stack(rows).var(0) / 400)
    error = (variances[0] + variances[1]).sqrt()
    assert ((means[0] - means[1]).abs() <= 4 * error + 1e-9).all()


def test_a_shared_encoder_is_counted_once_and_is_one_again_in_a_fresh_process(tmp_path: Path) -> None:
    model = models.VAE(
        priors.VampPrior(posterior := posteriors.DiagonalNormal(encoder(2)), D, components=4, weights="learned"),
        likelihoods.Bernoulli(networks.MLP(2, D, (8,))),
    ).float()
    guide = guides.Amortized(posterior)
    parameters = parameters_of(as_pair(model, guide))
    assert len(parameters) == len({id(p) for p in parameters}) == 4 + 4 + 2
    path = lvm.save(tmp_path, model, guide)
    x = torch.eye(D, dtype=torch.float32)
    code = (
        "import sys, torch, pyro_lvm as lvm\n"
        "model, guide = lvm.load(sys.argv[1])\n"
        f"x = torch.eye({D})\n"
        "values = lvm.log_likelihood(model, guide, x, 10, seed=0) + 0\n"
        "print(model.prior.posterior is guide.posterior, *values.tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    shared, *found = out.stdout.split()
    assert shared == "True"
    expected = lvm.log_likelihood(model, guide, x, 10, seed=0) + 0
    assert [float(f) for f in found] == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("name", [n for n in PRIORS if "skewed" not in n])
def test_every_prior_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    model, guide = pair(name)
    with torch.no_grad():
        for parameter in parameters_of(as_pair(model, guide)):
            parameter += 0.3 * torch.randn_like(parameter)
    model_, guide_ = lvm.load(lvm.save(tmp_path, model, guide))
    z = torch.randn(5, 3)
    assert torch.equal(model.prior.eval().log_prob(z), model_.prior.eval().log_prob(z))
    assert (getattr(model_.prior, "posterior", None) is guide_.posterior) == (name in SHARED)


def test_any_mixture_is_the_quick_one_where_it_can_be() -> None:
    mu, sigma, log_weights = vectors(6, 3)
    normals = dist.Normal(mu, sigma).to_event(1)
    slow = PickedMixture(normals, lambda k: dist.Normal(mu[k], sigma[k]).to_event(1), log_weights)
    z = torch.randn(4, 3)
    torch.testing.assert_close(
        slow.log_prob(z), NormalMixture(mu, sigma, log_weights).log_prob(z), rtol=1e-9, atol=1e-9
    )
    assert slow.expand((4,)).sample().shape == (4, 3)
