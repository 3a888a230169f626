"""The gap decomposition: against closed forms where the posterior is normal, against quadrature where it is bent."""

import math
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Hierarchy, HierarchyGuide, LooseGuide, inner_plates, log_evidence, ppca
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import exact, guides, models
from pyro_lvm.evidence import Estimate, Gaps, gaps
from pyro_lvm.evidence.local import Flow, FullNormal, Latents, log_joint
from pyro_lvm.programs import Model, data_plate, pair


class Diagonal(nn.Module):
    """A normal of its own for each datum, off the posterior by a known amount."""

    def __init__(self, model: models.ProbabilisticPCA) -> None:
        super().__init__()
        self.model, self.scale = model, nn.Parameter(torch.tensor([0.2, 0.4]))

    def mean(self, x: Tensor) -> Tensor:
        mean, _ = exact.posterior(x, self.model.weight, self.model.bias, self.model.noise_scale.square())
        return mean + torch.linspace(-0.4, 0.4, len(x)).unsqueeze(-1)

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(self.mean(x), self.scale).to_event(1))


def posterior(model: models.ProbabilisticPCA, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return exact.posterior(x, model.weight, model.bias, model.noise_scale.square())


def close(estimate: Estimate, values: Tensor) -> None:
    """Every datum within 4.5 of its standard errors, or within what the optimisation leaves, 0.003 nats."""
    assert ((estimate.values - values).abs() < 4.5 * estimate.standard_error + 0.003).all()


@pytest.fixture(scope="module")
def ppca_gaps() -> tuple[Any, ...]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = ppca()
    x = model.sample(8)
    guide = Diagonal(model)
    return model, guide, x, gaps(model, guide, x, num_particles=4000, steps=130, draws_per_step=8, seed=0)


def test_gaps_of_a_diagonal_guide_have_closed_forms(ppca_gaps: tuple[Any, ...]) -> None:
    model, guide, x, found = ppca_gaps
    m, S = posterior(model, x)
    with torch.no_grad():
        whole = exact.kl_normal(guide.mean(x), guide.scale.square().diag().expand(8, 2, 2), m, S.expand(8, 2, 2))
    # The best diagonal normal has the posterior's mean and the variances 1 / (S⁻¹)_ii, where tr(S⁻¹ D) = M.
    best = (0.5 * (S.inverse().diagonal().log().sum() + S.logdet())).expand(8)
    assert best[0] > 0.05, "a gap to be seen"
    for name, gap in (("same family", best), ("full normal", 0 * best), ("flow", 0 * best)):
        close(found.approximation[name], gap)
        close(found.amortisation[name], whole - gap)
        assert found.approximation[name].mean == pytest.approx(gap.mean().item(), abs=0.02)
        assert found.amortisation[name].mean == pytest.approx((whole - gap).mean().item(), abs=0.02)
    close(found.inference, whole)


def test_evidence_and_bounds_are_the_exact_ones(ppca_gaps: tuple[Any, ...]) -> None:
    model, _, x, found = ppca_gaps
    close(found.log_likelihood, log_evidence(model, x))
    assert (found.khat < 0.7).all()
    assert found.log_likelihood.standard_error.max() < 0.02
    # A normal at a normal posterior has the evidence for every draw's log-weight, but for what Adam leaves.
    torch.testing.assert_close(found.optimised["full normal"].values, log_evidence(model, x), rtol=0, atol=1e-3)
    assert found.optimised["full normal"].standard_error.max() < 1e-3


def test_gaps_add_up(ppca_gaps: tuple[Any, ...]) -> None:
    *_, found = ppca_gaps
    for name in found.optimised:
        total = found.approximation[name].values + found.amortisation[name].values
        torch.testing.assert_close(total, found.inference.values, rtol=1e-10, atol=1e-10)
        assert (found.amortisation[name].values > -4.5 * found.amortisation[name].standard_error).all()


def test_stated_errors_hold() -> None:
    """What repeated runs differ by is what each says of itself."""
    model = ppca()
    x, guide = model.sample(6), LooseGuide(model, 1.5)
    # Hardly any steps: what is left to vary is the evaluation.
    runs = [gaps(model, guide, x, num_particles=200, steps=1, draws_per_step=1, learning_rate=1e-9) for _ in range(16)]
    for pick in (
        lambda g: g.log_likelihood,
        lambda g: g.elbo,
        lambda g: g.inference,
        lambda g: g.approximation["same family"],
    ):
        estimates = [pick(run) for run in runs]
        seen = torch.stack([each.values for each in estimates]).var(0).mean().sqrt()
        stated = torch.stack([each.standard_error for each in estimates]).square().mean().sqrt()
        assert 0.75 < float(seen / stated) < 1.3  # 6 x 15 degrees of freedom: 7 %, and the tails
        means = torch.tensor([each.mean for each in estimates]).std()
        assert 0.6 < float(means) / estimates[0].mean_standard_error < 1.5
    # The families start where the guide is, with the guide's noise: their difference is no noise at all.
    assert runs[0].amortisation["same family"].standard_error.max() < 1e-6


def test_a_full_normal_guide_is_its_own_family() -> None:
    model = ppca()
    x, guide = model.sample(4), LooseGuide(model, 2.0)
    found = gaps(model, guide, x, num_particles=1000, steps=100, draws_per_step=8, seed=0)
    whole = torch.full((4,), 2 * (0.5 * 4 - 0.5 - math.log(2)))  # KL(N(m, 4 S) ‖ N(m, S)), M = 2
    for name in found.optimised:
        close(found.amortisation[name], whole)
        close(found.approximation[name], torch.zeros(4))


class Factorised(nn.Module):
    """Both layers of the hierarchy apart."""

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z_2", dist.Normal(torch.zeros(len(x), 2), 0.7).to_event(1))
            pyro.sample("z_1", dist.Normal(torch.zeros(len(x), 3), 0.5).to_event(1))


@pytest.mark.slow
def test_two_layers_are_one_posterior() -> None:
    model = Hierarchy()
    x = model.sample(4)
    with torch.no_grad():
        precision = torch.zeros(5, 5)  # of (z_1, z_2) given x
        precision[:3, :3] = model.W.T @ model.W / model.sigma**2 + torch.eye(3) / model.s**2
        precision[:3, 3:] = -model.A / model.s**2
        precision[3:, :3] = precision[:3, 3:].T
        precision[3:, 3:] = torch.eye(2) + model.A.T @ model.A / model.s**2
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    found = gaps(model, Factorised(), x, num_particles=1000, steps=250, draws_per_step=8, seed=0)
    close(found.log_likelihood, model.log_evidence(x))
    close(found.approximation["same family"], best.expand(4))
    close(found.approximation["full normal"], torch.zeros(4))
    close(found.approximation["flow"], torch.zeros(4))


class Banana(Model):
    """z ~ N(0, I_2), x | z ~ N(z_1 + z_2², 0.4²): the posterior is bent, and normal along z_1 given z_2."""

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z[..., :1] + z[..., 1:].square(), 0.4).to_event(1), obs=x)


class Standard(nn.Module):
    def __init__(self, M: int, scale: float = 0.8) -> None:
        super().__init__()
        self.M, self.scale = M, scale

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), self.M), self.scale).to_event(1))


def test_a_flow_bends_where_a_normal_does_not() -> None:
    x = torch.tensor([[-1.0], [0.0], [0.5]])
    grid = torch.linspace(-7, 7, 1401)
    z = torch.cartesian_prod(grid, grid)  # far finer than the density: the rule's error is nothing beside the noise
    model = Banana()
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    likelihood = dist.Normal(z[:, 0] + z[:, 1].square(), 0.4).log_prob(x)  # (3, grid)
    evidence = (prior + likelihood).logsumexp(-1) + 2 * (grid[1] - grid[0]).log()
    found = gaps(model, Standard(2), x, num_particles=2000, steps=180, draws_per_step=8, seed=0)
    error = found.log_likelihood.standard_error
    assert ((found.log_likelihood.values - evidence).abs() < 4.5 * error).all()
    assert error.max() < 0.05
    normal, flow = found.approximation["full normal"], found.approximation["flow"]
    assert (normal.values > 0.15).all()
    assert (flow.values + 4 * flow.standard_error < 0.5 * normal.values).all()
    assert flow.mean < 0.2 * normal.mean
    assert (flow.values > -4.5 * flow.standard_error).all()


def test_latents_that_are_not_real_are_made_so() -> None:
    """A Gamma prior and a Poisson count: the posterior is a Gamma, in the guide's family; a flow comes near it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("rate", dist.Gamma(torch.ones(len(x)) * 3, 2.0))

    x = torch.tensor([0.0, 1.0, 4.0])
    found = gaps(model, guide, x, num_particles=2000, steps=130, draws_per_step=8, seed=0)
    evidence = dist.GammaPoisson(2.0, 1.0).log_prob(x)
    close(found.log_likelihood, evidence)
    close(found.approximation["same family"], torch.zeros(3))
    # Of a Gamma(a, b) on the logarithm's scale the best normal has variance 1/a, whatever b, and comes this close.
    a = 2 + x
    best = a.lgamma() - a * a.log() + a - 0.5 * (2 * math.pi / a).log()
    close(found.approximation["full normal"], best)
    assert best[0] > 4 * found.approximation["full normal"].standard_error[0]
    flow = found.approximation["flow"]
    assert (flow.values < 0.01 + 4.5 * flow.standard_error).all()
    q = dist.Gamma(torch.tensor(3.0), torch.tensor(2.0))
    whole = torch.distributions.kl_divergence(q, dist.Gamma(2 + x, torch.tensor(2.0)))
    close(found.inference, whole)


def test_inner_plates_belong_to_their_datum() -> None:
    x = torch.randn(3, 2)
    evidence = dist.MultivariateNormal(torch.zeros(2), torch.ones(2, 2) + 0.5 * torch.eye(2)).log_prob(x)
    precision = torch.tensor([[9.0, -4.0, -4.0], [-4.0, 8.0, 0.0], [-4.0, 0.0, 8.0]])
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    found = gaps(*inner_plates(), x, num_particles=1000, steps=100, draws_per_step=8, seed=0)
    close(found.log_likelihood, evidence)
    close(found.approximation["same family"], best.expand(3))
    close(found.approximation["full normal"], torch.zeros(3))


@pytest.mark.parametrize("M", [1, 2, 5])
def test_log_determinant_of_the_flow_at_large_weights(M: int) -> None:
    B, K = 3, 4
    _, guide = pair(models.ProbabilisticPCA(6, M), Standard(M))
    latents = Latents(guide, torch.randn(B, 6), 1)
    flow = Flow(FullNormal(latents, torch.randn(B, M), torch.randn(B, M, M).tril(-1) + torch.eye(M)))
    for parameter in flow.parameters:
        parameter.normal_(0, 2)
    z = {"z": 3 * torch.randn(K, B, M)}
    u, _ = latents.coordinates(z)

    def noise(u: Tensor) -> Tensor:  # one point of each datum
        v, _ = flow._normal.standardise(u.unsqueeze(0), constant=True)
        return flow.transform(constant=True)(v)[0]

    log_q = flow.log_prob(z)
    for k in range(K):
        jacobian = torch.autograd.functional.jacobian(noise, u[k])  # (B, M, B, M)
        log_det = torch.stack([jacobian[b, :, b].slogdet().logabsdet for b in range(B)])
        expected = dist.Normal(0.0, 1.0).log_prob(noise(u[k])).sum(-1) + log_det
        torch.testing.assert_close(log_q[k], expected, rtol=1e-8, atol=1e-8)
    v = torch.randn(5, B, M)
    torch.testing.assert_close(flow.transform().inv(flow.transform()(v)), v, rtol=1e-6, atol=1e-6)


def test_flow_draws_have_its_density() -> None:
    """In one dimension, far from the start: the density integrates to one, and to the draws' distribution function."""
    _, guide = pair(models.ProbabilisticPCA(6, 1), Standard(1))
    latents = Latents(guide, torch.randn(2, 6), 1)
    flow = Flow(FullNormal(latents, torch.zeros(2, 1), 0.5 * torch.ones(2, 1, 1)))
    for parameter in flow.parameters:
        parameter.normal_(0, 1.0)
    draws, n = flow.rsample(4000)["z"], 4000
    span = draws.amax((0, 2)) - draws.amin((0, 2))
    steps = torch.linspace(-1, 2, 30_001).unsqueeze(-1) * span + draws.amin((0, 2))  # (grid, 2)
    mass = flow.log_prob({"z": steps.unsqueeze(-1)}).exp() * (steps[1] - steps[0])
    torch.testing.assert_close(mass.sum(0), torch.ones(2), rtol=0, atol=2e-3)  # of the rule, at the splines' knots
    for b in range(2):
        index = torch.searchsorted(steps[:, b].contiguous(), draws[:, b, 0].sort().values.contiguous())
        distance = (mass[:, b].cumsum(0)[index] - torch.arange(n) / n).abs().max()
        assert distance < 2 / n**0.5 + 2e-3  # Kolmogorov-Smirnov: exceeded once in 1500


def test_flow_starts_as_the_normal() -> None:
    model, guide = pair(models.ProbabilisticPCA(6, 3), Standard(3))
    x = torch.randn(2, 6)
    latents = Latents(guide, x, 1)
    normal = FullNormal(latents, torch.randn(2, 3), torch.randn(2, 3, 3).tril(-1) + torch.eye(3))
    z = {"z": 2 * torch.randn(7, 2, 3)}
    torch.testing.assert_close(Flow(normal).log_prob(z), normal.log_prob(z))
    expected = dist.MultivariateNormal(normal.mean, scale_tril=normal.scale_tril).log_prob(z["z"])
    torch.testing.assert_close(normal.log_prob(z), expected)
    one_by_one = log_joint(model, x, latents, z, vectorize=False)
    torch.testing.assert_close(log_joint(model, x, latents, z, vectorize=True), one_by_one)


def test_a_flow_of_one_dimension() -> None:
    """z ~ N(0, 1), x | z ~ N(z³, 1): skewed or flat-topped, the splines follow."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z**3, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.5))

    x, z = torch.tensor([0.0, 1.0]), torch.linspace(-6, 6, 5001)
    evidence = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**3, 0.5).log_prob(x[:, None])).logsumexp(1)
    found = gaps(model, guide, x, num_particles=2000, steps=130, draws_per_step=8, seed=0)
    close(found.log_likelihood, evidence + (z[1] - z[0]).log())
    normal, flow = found.approximation["full normal"].values, found.approximation["flow"].values
    assert (flow < 0.35 * normal).all()


def test_chunks_and_single_draws_give_the_same_gaps() -> None:
    model = ppca(features=3, latent_dim=1)
    x, guide = model.sample(3), LooseGuide(model, 1.5)
    settings: dict[str, Any] = {"num_particles": 20, "steps": 30, "draws_per_step": 4}
    whole = 0.5 * 1.5**2 - 0.5 - math.log(1.5)
    rows = []

    class Watch(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] == "z":
                rows.append(msg["value"].numel())

    largest = []
    for max_bytes in (1, 2**28):
        rows.clear()
        with Watch():
            found = gaps(model, guide, x, **settings, max_bytes=max_bytes, seed=1)
        largest.append(max(rows))
        close(found.inference, torch.full((3,), whole))
        close(found.approximation["full normal"], torch.zeros(3))
    assert largest[0] < largest[1]
    slow = gaps(model, guide, x, **settings | {"num_particles": 10, "steps": 10}, vectorize_particles=False, seed=1)
    close(slow.inference, torch.full((3,), whole))


def test_nothing_of_the_caller_is_changed() -> None:
    model = ppca()
    x, guide = model.sample(3), Diagonal(model)
    guide.scale.requires_grad_(False)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    state = torch.get_rng_state()
    settings: dict[str, Any] = {"num_particles": 20, "steps": 3, "draws_per_step": 2}
    first = gaps(model, guide, x, **settings, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    again = gaps(model, guide, x, **settings, seed=5)
    assert torch.equal(first.elbo.values, again.elbo.values)
    assert torch.equal(first.approximation["flow"].values, again.approximation["flow"].values)
    gaps(model, guide, x, **settings)
    assert not torch.equal(torch.get_rng_state(), state)
    after = [*model.parameters(), *guide.parameters()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    assert [p.requires_grad for p in after] == [p is not guide.scale for p in after]
    assert not first.elbo.values.requires_grad
    assert torch.is_grad_enabled()
    assert len(pyro.get_param_store()) == 0
    assert torch.distributions.Distribution._validate_args


def test_result_is_read_as_a_table() -> None:
    one, two = (Estimate(torch.tensor([v, v + 2]), torch.tensor([0.03, 0.04])) for v in (0.5, 3.0))
    found = Gaps(one, torch.zeros(2), one, one, {"flow": one}, {"flow": two}, {"flow": one}, 10)
    assert one.mean_standard_error == pytest.approx(0.025)
    assert one.sampling_error == pytest.approx(1.0)
    (row,) = found.table()
    assert row["family"] == "flow"
    assert row["approximation"] == 4.0
    assert row["approximation_standard_error"] == pytest.approx(0.025)
    assert row["approximation_sampling_error"] == pytest.approx(1.0)
    assert "nats per datum" in repr(found)
    assert "4.0000 ± 0.0250 (± 1.0000)" in str(found)


def test_bad_requests_are_refused() -> None:
    model, hierarchy = ppca(), Hierarchy()
    x, guide = model.sample(3), LooseGuide(model)
    quick = partial(gaps, num_particles=10, steps=1)
    for name, value in (("num_particles", 1), ("steps", 0), ("draws_per_step", 0), ("learning_rate", 0.0)):
        with pytest.raises(ValueError, match=f"'{name}'"):
            gaps(model, guide, x, **{name: value})
    with pytest.raises(ValueError, match="'z_1' hangs on the draw of another latent"):
        quick(hierarchy, HierarchyGuide(hierarchy), x)
    mixture = models.BayesianGaussianMixture(2, 2)
    with pytest.raises(ValueError, match="all data share the latents"):
        quick(mixture, guides.NormalWishart(mixture), torch.randn(4, 2))
    mixture = models.GaussianMixture(2, components=3)
    with pytest.raises(ValueError, match=r"'z', of type Categorical, is not reparameterised"):
        quick(mixture, guides.Responsibilities(mixture), torch.randn(4, 2))

    def flow(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            base = dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
            bent = dist.transforms.AffineTransform(torch.ones(2), 2 * torch.ones(2), event_dim=1)
            pyro.sample("z", dist.TransformedDistribution(base, [bent]))

    with pytest.raises(ValueError, match="'z', of type TransformedDistribution, is not made of parameters"):
        quick(model, flow, x)

    def thresholded(x: Tensor) -> None:  # hangs on a draw in a way that has no gradient
        with data_plate(x, None):
            z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(len(x), 2), 0.7).to_event(1))
            up = (z_2.sum(-1, keepdim=True) > 0).double()
            pyro.sample("z_1", dist.Normal(up.expand(*up.shape[:-1], 3), 0.5).to_event(1))

    with pytest.raises(ValueError, match="'z_1' hangs on"):
        quick(hierarchy, thresholded, x)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError):
        quick(model, guides.LinearNormal(4, 2), x)


def test_gaps_of_the_guide_agree_with_the_log_likelihood(ppca_gaps: tuple[Any, ...]) -> None:
    model, _, x, found = ppca_gaps
    ll = lvm.log_likelihood(model, LooseGuide(model, 1.2), x, 2000, seed=0)
    error = (ll.standard_error.square() + found.log_likelihood.standard_error.square()).sqrt()
    assert ((ll - found.log_likelihood.values).abs() < 4.5 * error).all()
