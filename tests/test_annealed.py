"""Annealed importance sampling: brackets around known evidence, unbiased weights, transitions that leave f_β alone."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from linear_gaussian import Hierarchy, HierarchyGuide, LooseGuide, log_evidence, ppca
from torch import Tensor

from pyro_lvm import exact, models, objectives
from pyro_lvm.evidence import Bracket, annealed_importance_sampling
from pyro_lvm.evidence.hmc import Unconstrained, transition
from pyro_lvm.programs import Program, data_plate

SHAPE, RATE = 3.0, 2.0


def rates(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
    """z ~ Gamma(3, 2), two x | z ~ Exponential(z): the evidence is a ratio of two gamma functions."""
    with data_plate(x, size):
        z = pyro.sample("z", dist.Gamma(SHAPE, RATE))  # (B,)
        return pyro.sample("x", dist.Exponential(z.unsqueeze(-1).expand(*z.shape, 2)).to_event(1), obs=x)


def rates_evidence(x: Tensor) -> Tensor:
    n, total = x.shape[-1], x.sum(-1)
    constant = SHAPE * math.log(RATE) + math.lgamma(SHAPE + n) - math.lgamma(SHAPE)
    return constant - (SHAPE + n) * (RATE + total).log()


def shares(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
    """z ~ Dirichlet, x | z a count of each of three kinds: a simplex is moved with a dimension less."""
    with data_plate(x, size):
        z = pyro.sample("z", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))  # (B, 3)
        return pyro.sample("x", dist.Multinomial(10, z, validate_args=False), obs=x)


def nested(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
    """A level for each datum and one for each of its three steps, in a plate of their own: all is normal."""
    with data_plate(x, size):
        level = pyro.sample("level", dist.Normal(1.0, 1.0))  # (B,)
        with pyro.plate("steps", 3, dim=-2):
            step = pyro.sample("step", dist.Normal(level, 0.7))  # (3, B)
        mean = step.movedim(-2, -1)  # (B, 3)
        return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def nested_evidence(x: Tensor) -> Tensor:
    covariance = torch.ones(3, 3) + (0.49 + 1) * torch.eye(3)
    return dist.MultivariateNormal(torch.ones(3), covariance).log_prob(x)


def assert_brackets(bracket: Bracket, evidence: Tensor, width: float = 0.05) -> None:
    """3 standard errors of the mean over the data, and no wider than `width` nats."""
    assert bracket.upper_is_bound
    assert bracket.mean_lower < evidence.mean() + 3 * bracket.mean_lower_standard_error
    assert bracket.mean_upper > evidence.mean() - 3 * bracket.mean_upper_standard_error
    assert abs(bracket.width) < width


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("ppca", "prior"),
        ("ppca", "guide"),
        pytest.param("hierarchy", "prior", marks=pytest.mark.slow),
        pytest.param("hierarchy", "guide", marks=pytest.mark.slow),
    ],
)
def test_bounds_in_their_order(name: str, start: str) -> None:
    """ELBO ≤ IWAE_5 ≤ IWAE_50 ≤ IWAE_500 ≤ log p(x) ≤ AIS upper, and AIS lower ≤ log p(x), on one set of data."""
    if name == "ppca":
        model = ppca()
        guide = LooseGuide(model)
    else:
        model = Hierarchy()
        guide = HierarchyGuide(model)
    # From its prior the hierarchy's correlated latents take longer trajectories than anything else here.
    path = {"temperatures": 200 if start == "prior" else 100, "leapfrog_steps": 3}
    if (name, start) == ("hierarchy", "prior"):
        path["leapfrog_steps"] = 10
    bracket = annealed_importance_sampling(model, guide=guide if start == "guide" else None, size=100, seed=0, **path)
    x = bracket.x
    evidence = log_evidence(model, x) if name == "ppca" else model.log_evidence(x)
    assert_brackets(bracket, evidence)
    bounds, errors = [], []
    for K in (1, 5, 50, 500):
        repeats = torch.tensor([-objectives.IWAE(K).loss(model, guide, x) / len(x) for _ in range(8)])
        bounds.append(repeats.mean())
        errors.append(repeats.std() / 8**0.5)
    bounds.append(evidence.mean())
    errors.append(torch.zeros(()))
    for i in range(4):
        assert bounds[i] < bounds[i + 1] + 3 * (errors[i] ** 2 + errors[i + 1] ** 2).sqrt()
    assert bounds[-1] < bracket.mean_upper + 3 * bracket.mean_upper_standard_error
    assert bounds[0] < bracket.mean_lower - 10 * bracket.mean_lower_standard_error, "the guide is loose"


OTHERS = [(rates, rates_evidence), (nested, nested_evidence)]
OTHER_IDS = ["positive latent", "latents in two plates"]


@pytest.mark.parametrize(("model", "evidence"), OTHERS, ids=OTHER_IDS)
def test_other_latents_are_bracketed(model: Any, evidence: Any) -> None:
    bracket = annealed_importance_sampling(model, size=100, temperatures=80, leapfrog_steps=5, seed=0)
    assert_brackets(bracket, evidence(bracket.x))


def test_latents_on_a_simplex() -> None:
    """The Dirichlet-multinomial in closed form."""
    bracket = annealed_importance_sampling(shares, size=80, temperatures=30, leapfrog_steps=5, seed=0)
    assert_brackets(bracket, dist.DirichletMultinomial(torch.tensor([1.0, 2.0, 3.0]), 10).log_prob(bracket.x))


@pytest.mark.parametrize(("model", "evidence"), OTHERS, ids=OTHER_IDS)
def test_weights_are_unbiased_on_a_coarse_path(model: Any, evidence: Any) -> None:
    """E[w] = p(x) with three temperatures, where log w varies much and an error cannot hide.

    The data are one datum many times, so that the mean is over chains that know nothing of each other.
    """
    x = model(size=1).expand(400, -1)
    settings = {"temperatures": [0.0, 0.2, 0.6, 1.0], "chains": 20, "leapfrog_steps": 3, "seed": 1}
    ratio = (annealed_importance_sampling(model, x, **settings).lower - evidence(x)).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.05
    assert abs(ratio.mean() - 1) < 3 * error


@pytest.mark.parametrize(("model", "evidence"), OTHERS, ids=OTHER_IDS)
def test_reverse_weights_are_unbiased(model: Any, evidence: Any) -> None:
    """E[p(x) / w'] = 1 over data, their exact draws and the chains: one chain for each, so that all are independent.

    On a path fine enough for 1/w' to have a variance: from a broad prior, coarse ones have tails like the harmonic
    mean's.
    """
    settings = {"temperatures": 20, "chains": 1, "leapfrog_steps": 3, "seed": 1}
    bracket = annealed_importance_sampling(model, size=2000, **settings)
    ratio = (evidence(bracket.x) - bracket.upper).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.08
    assert abs(ratio.mean() - 1) < 3 * error


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_transitions_leave_a_normal_alone(beta: float) -> None:
    """f_β of probabilistic PCA is the posterior at a noise variance of σ²/β; steps are long enough to be refused."""
    model, n, steps = ppca(), 4000, 10
    x = model.sample(1).expand(n, -1)
    with torch.no_grad():
        density = Unconstrained((Program(model), None), x)
        mean, covariance = exact.posterior(x[:1], model.weight, model.bias, model.noise_scale.square() / beta)
        state = density.state(torch.zeros(n, 2))  # far from invariant: it has to get there as well
        accepted = []
        for i in range(40 + steps):
            size = torch.full((n,), 0.55 / beta**0.3)
            state, probability = transition(density, state, beta, size, leapfrog_steps=3)
            accepted.append(probability.mean())
            if i == 39:
                before = state
    assert 0.5 < torch.stack(accepted).mean() < 0.95
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (state.u - mean).T, upper=False)  # (2, n)
    # errors of a mean, a variance and a covariance over n independent chains: 1, √2 and 1, over √n
    gate = 4 / n**0.5
    assert (white.mean(1).abs() < gate).all()
    assert ((white @ white.T / n - torch.eye(2)).abs() < 2**0.5 * gate).all()
    assert (before.u != state.u).any(1).double().mean() > 0.99
    torch.testing.assert_close(density.state(state.u).log_density(beta), state.log_density(beta))


def test_leapfrog_conserves_energy_to_second_order() -> None:
    """Halving the steps of a trajectory divides the error of its energy by four."""
    model = ppca()
    density = Unconstrained((Program(model), None), model.sample(1).expand(2000, -1))
    with torch.no_grad():
        state = density.state(density.draw())
        missing = []
        for steps in (20, 40):
            torch.manual_seed(1)  # the same momenta and the same jitter
            _, accepted = transition(density, state, 0.7, torch.full((2000,), 2.0 / steps), steps)
            missing.append(1 - accepted.mean())
    assert 3.5 < missing[0] / missing[1] < 4.5


def test_densities_in_unconstrained_space_integrate_to_the_evidence() -> None:
    """∫ f_1(u) du = p(x) and ∫ f_0(u) du = 1 on a grid: the Jacobian is there, once."""
    x = rates(size=1)
    u = torch.linspace(-12, 6, 4001)
    density = Unconstrained((Program(rates), None), x.expand(len(u), -1))
    with torch.no_grad():
        state = density.state(u.unsqueeze(-1))
    du = float(u[1] - u[0])
    assert float(state.log_density(0.0).exp().sum() * du) == pytest.approx(1, rel=1e-6)
    assert float(state.log_density(1.0).exp().sum() * du) == pytest.approx(float(rates_evidence(x).exp()), rel=1e-6)


def test_gradients_are_those_of_the_density() -> None:
    x = nested(size=3)
    density = Unconstrained((Program(nested), None), x)
    u = density.draw()
    assert u.shape == (3, 4)
    numeric = torch.zeros_like(u)
    for j in range(4):
        shift = torch.zeros_like(u)
        shift[:, j] = 1e-5
        up, down = (density.state(u + sign * shift).log_density(0.4) for sign in (1, -1))
        numeric[:, j] = (up - down) / 2e-5
    torch.testing.assert_close(density.gradient(u, 0.4), numeric, rtol=1e-6, atol=1e-6)


def test_given_latents_are_where_reverse_chains_start() -> None:
    """Latents handed over stand in the chains as they are, inner plates and all, and give a bound."""
    n = 60
    trace = poutine.trace(nested).get_trace(size=n)
    x = trace.nodes["_RETURN"]["value"]
    latents = {name: trace.nodes[name]["value"] for name in ("level", "step")}
    assert latents["step"].shape == (3, n)
    settings = {"temperatures": 60, "leapfrog_steps": 5, "seed": 0}
    assert_brackets(annealed_importance_sampling(nested, x, latents=latents, **settings), nested_evidence(x), 0.1)
    density = Unconstrained((Program(nested), None), x)
    u = density.pack(density.by_datum(latents, n))
    torch.testing.assert_close(u[:, density.places["step"].columns], latents["step"].T)
    given = poutine.condition(nested, {**latents, "x": x})
    expected = poutine.trace(given).get_trace(size=n)
    expected.compute_log_prob()
    joint = sum(expected.nodes[name]["unscaled_log_prob"].reshape(-1, n).sum(0) for name in ("level", "step", "x"))
    torch.testing.assert_close(density.state(u).log_density(1.0), joint)


def test_data_without_latents_get_an_estimate_that_says_so() -> None:
    model = ppca()
    x = model.sample(50)
    bracket = annealed_importance_sampling(model, x, temperatures=50, leapfrog_steps=5, seed=0)
    assert not bracket.upper_is_bound
    assert "no bound" in repr(bracket)
    assert abs(bracket.mean_upper - log_evidence(model, x).mean()) < 0.15
    assert bracket.mean_lower < log_evidence(model, x).mean() + 3 * bracket.mean_lower_standard_error


def test_one_step_from_the_exact_posterior_is_exact() -> None:
    """w = p(x) for every draw of the exact guide, on any path, forwards and backwards."""
    model = ppca()
    guide = LooseGuide(model, spread=1.0)
    for temperatures in (1, [0.0, 0.5, 1.0]):
        settings = {"temperatures": temperatures, "chains": 3, "leapfrog_steps": 2, "seed": 0}
        bracket = annealed_importance_sampling(model, guide=guide, size=7, **settings)
        evidence = log_evidence(model, bracket.x)
        torch.testing.assert_close(bracket.lower, evidence, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bracket.upper, evidence, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bracket.ess, torch.full((7,), 3.0))


def test_chunks_change_nothing_but_the_draws() -> None:
    """A chain at a time, several for a datum, several data at a time; each estimate within its errors."""
    model = ppca()
    x = model.sample(2)
    for max_bytes in (1, 30_000, 2**28):
        bracket = annealed_importance_sampling(
            model, x, LooseGuide(model), temperatures=4, chains=5, leapfrog_steps=1, max_bytes=max_bytes, seed=0
        )
        assert bracket.lower.shape == bracket.acceptance.shape == bracket.ess.shape == (2,)
        gap = (bracket.lower - log_evidence(model, x)).abs()
        assert (gap < 6 * bracket.lower_standard_error + 0.1).all()
        assert bool((bracket.ess <= 5 + 1e-9).all())


def test_memory_stays_within_its_bound() -> None:
    rows = []

    def model(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(1000), 1.0).to_event(1))
            rows.append(len(z))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    limit = 20_000_000
    x = torch.zeros(3, 1000)
    annealed_importance_sampling(model, x, temperatures=1, chains=30, leapfrog_steps=1, max_bytes=limit, seed=0)
    # One row's densities and gradient are made of 20 vectors at least, so 125 rows at once would break the bound.
    assert 10 < max(rows) < limit / (20 * 1000 * 8)
    assert max(rows) < 3 * 30, "the chains of all data do not fit"


def test_one_datum_and_one_chain() -> None:
    model = ppca()
    bracket = annealed_importance_sampling(model, model.sample(1), temperatures=20, leapfrog_steps=5)
    assert bracket.lower.shape == (1,)
    single = annealed_importance_sampling(model, size=1, temperatures=20, chains=1, leapfrog_steps=5)
    assert single.lower_standard_error.isnan().all()
    assert single.lower.isfinite().all()
    assert single.upper.isfinite().all()


def test_seed_repeats_and_everything_is_left_as_it_was() -> None:
    model = ppca()
    x = model.sample(4)
    model.weight.requires_grad_(True)
    model.bias.requires_grad_(False)
    state = torch.get_rng_state()
    settings = {"temperatures": 4, "leapfrog_steps": 2}
    first = annealed_importance_sampling(model, x, LooseGuide(model), seed=3, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    second = annealed_importance_sampling(model, x, LooseGuide(model), seed=3, **settings)
    assert torch.equal(first.lower, second.lower)
    assert torch.equal(first.upper, second.upper)
    assert not torch.equal(first.lower, annealed_importance_sampling(model, x, LooseGuide(model), **settings).lower)
    assert model.weight.grad is None
    assert model.weight.requires_grad
    assert not model.bias.requires_grad
    assert not first.lower.requires_grad
    assert len(pyro.get_param_store()) == 0
    assert torch.is_grad_enabled()
    assert pyro.settings.get("validate_distributions_pyro")


def test_diverging_trajectories_are_refused() -> None:
    """Steps far too long send chains to infinity; they stay where they were, with finite densities."""
    x = rates(size=50)
    density = Unconstrained((Program(rates), None), x)
    with torch.no_grad(), pyro.validation_enabled(False):
        state = density.state(density.draw())
        moved, accepted = transition(density, state, 1.0, torch.full((50,), 1e3), 10)
    assert (accepted == 0).all()
    assert torch.equal(moved.u, state.u)
    assert moved.log_weight.isfinite().all()


def test_float32_programs() -> None:
    torch.set_default_dtype(torch.float32)
    try:
        model = ppca()
        settings = {"temperatures": 50, "leapfrog_steps": 5, "seed": 0}
        bracket = annealed_importance_sampling(model, guide=LooseGuide(model), size=80, **settings)
        assert bracket.x.dtype == torch.float32
        assert bracket.lower.dtype == torch.float64
        assert_brackets(bracket, log_evidence(model, bracket.x))
    finally:
        torch.set_default_dtype(torch.float64)


def test_result_says_how_good_it_is() -> None:
    model = ppca()
    bracket = annealed_importance_sampling(model, size=6, temperatures=5, chains=8, leapfrog_steps=2, seed=0)
    assert (bracket.chains, bracket.temperatures) == (8, 5)
    assert bracket.mean_lower_standard_error == pytest.approx(
        float(bracket.lower_standard_error.square().sum()) ** 0.5 / 6
    )
    assert bracket.mean_upper_standard_error == pytest.approx(
        float(bracket.upper_standard_error.square().sum()) ** 0.5 / 6
    )
    assert bracket.width == bracket.mean_upper - bracket.mean_lower
    text = repr(bracket)
    assert "\n" not in text
    assert "nats" in text
    assert f"{bracket.mean_lower:.4f}" in text
    assert "no bound" not in text
    assert ((bracket.acceptance > 0) & (bracket.acceptance <= 1)).all()


def test_standard_errors_hold() -> None:
    """The share of lower estimates within one and two standard errors is the normal's, where chains are many."""
    model = ppca()
    x = model.sample(200)
    bracket = annealed_importance_sampling(
        model, x, LooseGuide(model), temperatures=10, chains=100, leapfrog_steps=3, seed=0
    )
    z = ((bracket.lower - log_evidence(model, x)) / bracket.lower_standard_error).abs()
    # binomial errors of the shares of 200: 0.033 and 0.015
    assert abs(float((z < 1).double().mean()) - 0.683) < 0.1
    assert abs(float((z < 2).double().mean()) - 0.954) < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperatures": 0}, "'temperatures' is a number of steps"),
        ({"temperatures": [0.0, 0.5]}, "'temperatures'.*exactly 0 to exactly 1"),
        ({"temperatures": [0.0, 0.5, 0.5, 1.0]}, "'temperatures'.*increases"),
        ({"temperatures": [1.0]}, "'temperatures'"),
        ({"chains": 0}, "'chains'.*at least 1, not 0"),
        ({"leapfrog_steps": 0}, "'leapfrog_steps'.*at least 1, not 0"),
        ({"size": 3}, "'size'.*'x'.*one of the two"),
        ({"x": None}, "'size' says how many"),
        ({"x": None, "size": 3, "latents": {}}, "'latents' are left out"),
        ({"x": torch.zeros(0, 4)}, "'x'"),
        ({"latents": {"y": torch.zeros(5, 2)}}, "'latents' must hold the model's latents 'z', but it holds 'y'"),
        ({"latents": {"z": torch.zeros(5, 3)}}, r"'z' of shape \(5, 3\).*\(5, 2\)"),
    ],
)
def test_bad_requests_are_refused(settings: dict[str, Any], message: str) -> None:
    model = ppca()
    with pytest.raises(ValueError, match=message) as caught:
        annealed_importance_sampling(model, **{"x": model.sample(5)} | settings)
    assert "\n" not in str(caught.value)


def test_latents_that_cannot_be_annealed_are_refused() -> None:
    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    mixture = models.BayesianGaussianMixture(2, 1)
    with pytest.raises(ValueError, match="latent 'z' is discrete"):
        annealed_importance_sampling(discrete, torch.zeros(4), temperatures=2)
    with pytest.raises(ValueError, match="shared by all data"):
        annealed_importance_sampling(mixture, torch.randn(4, 2), temperatures=2)

    def circle(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ProjectedNormal(torch.zeros(2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="no bijection"):
        annealed_importance_sampling(circle, torch.zeros(4, 2), temperatures=2)


def test_a_model_that_does_not_return_its_data_cannot_be_simulated() -> None:
    def silent(x: Tensor | None = None, *, size: int | None = None) -> None:
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="does not return the value of its data site"):
        annealed_importance_sampling(silent, size=3, temperatures=2)
    assert annealed_importance_sampling(silent, torch.zeros(3), temperatures=2, seed=0).lower.shape == (3,)


def test_nan_weights_never_pass() -> None:
    model = ppca()
    x = model.sample(3)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError):
        annealed_importance_sampling(model, x, temperatures=2)
