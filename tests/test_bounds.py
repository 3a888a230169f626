"""Values of the objectives: what a table says, where they lie about the log evidence, and that training agrees on them.

Gates: four standard errors of means; 1e-10 and less for what is computed twice in float64.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from linear_gaussian import Hierarchy, HierarchyGuide, LooseGuide, log_evidence, ppca, subsampling
from objectives_oracle import LINE, LINE_X, expected_log_mean, leaves, line, normal_rows
from pyro.infer import SVI
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyro_lvm as lvm
from pyro_lvm import guides, models
from pyro_lvm.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    Capacity,
    Cyclical,
    Linear,
    Renyi,
    ReweightedWakeSleep,
    Sigmoid,
    UncertaintyAutoencoder,
    WakeSleep,
)
from pyro_lvm.objectives.table import Table, run
from pyro_lvm.programs import data_plate

D, M, N = 4, 2, 6
F = 2.5  # the factor of size over batch, of `poutine.scale`


class DiagonalGuide(nn.Module):
    """q(z | x) = N(A x, 0.8²)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(M, D) / D)
        self.log_scale = nn.Parameter(torch.tensor([0.8, 1.1]).log())

    def posterior(self, x: Tensor) -> Any:
        return dist.Normal(x @ self.a.T, self.log_scale.exp()).to_event(1)

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        pyro.module("guide", self)
        with data_plate(x, size):
            pyro.sample("z", self.posterior(x))


@pytest.fixture
def model() -> models.ProbabilisticPCA:
    return ppca(D, M)


@pytest.fixture
def x(model: models.ProbabilisticPCA) -> Tensor:
    return model.sample(N)


# A formula for every value, from the draws of a table with the same seed: log p(x | z), log p(z) and log q(z | x) are
# computed here, (K, N) each.


class Draws:
    def __init__(self, table: Table, model: models.ProbabilisticPCA, guide: DiagonalGuide, x: Tensor) -> None:
        z = table.sites["z"].value.detach()
        self.seen = dist.Normal(z @ model.weight.T + model.bias, model.noise_scale).log_prob(x).sum(-1).detach()
        self.priors = dist.Normal(0.0, 1.0).log_prob(z)  # (K, N, M)
        q = dist.Normal(x @ guide.a.T, guide.log_scale.exp())
        self.inferred = q.log_prob(z).detach()
        self.kl = (self.inferred - self.priors).sum(-1)
        self.closed = kl_divergence(q, dist.Normal(0.0, 1.0)).detach()  # (N, M)
        self.log_w = self.seen - self.kl

    def log_mean(self, power: float = 1.0) -> Tensor:
        return ((power * self.log_w).exp().mean(0)).log() / power


FORMULAS: dict[str, tuple[Callable[[int], Any], Callable[[Draws, int], Tensor]]] = {
    "ELBO": (ELBO, lambda d, K: d.log_w.mean(0).sum()),
    "analytic": (lambda K: ELBO(K, analytic_kl=True), lambda d, K: d.seen.mean(0).sum() - d.closed.sum()),
    "beta": (lambda K: ELBO(K, beta=3.0), lambda d, K: (d.seen - 3 * d.kl).mean(0).sum()),
    "beta 0": (lambda K: ELBO(K, beta=0.0), lambda d, K: d.seen.mean(0).sum()),
    "schedule": (lambda K: ELBO(K, beta=Linear(0.5, 1.0, 4)), lambda d, K: (d.seen - 0.5 * d.kl).mean(0).sum()),
    "free bits": (
        lambda K: ELBO(K, free_bits=0.4),
        lambda d, K: (
            d.seen.mean(0).sum() - N * (d.inferred - d.priors).mean((0, 1)).clamp(min=0.4).sum()  # per dimension
        ),
    ),
    "free bits, analytic": (
        lambda K: ELBO(K, free_bits=0.4, analytic_kl=True, beta=2.0),
        lambda d, K: d.seen.mean(0).sum() - 2 * N * d.closed.mean(0).clamp(min=0.4).sum(),
    ),
    "free bits by layer": (
        lambda K: ELBO(K, free_bits=5.0, free_bits_per="layer"),
        lambda d, K: d.seen.mean(0).sum() - N * d.kl.mean().clamp(min=5.0),
    ),
    "Capacity": (lambda K: Capacity(0.3, num_particles=K), lambda d, K: d.log_w.mean(0).sum()),
    "Capacity of the reconstruction": (
        lambda K: Capacity(reconstruction=3.0, num_particles=K, analytic_kl=True),
        lambda d, K: d.seen.mean(0).sum() - d.closed.sum(),
    ),
    "UncertaintyAutoencoder": (
        lambda K: UncertaintyAutoencoder(K, entropy=1.7),
        lambda d, K: d.seen.mean(0).sum() + N * 1.7,
    ),
    "IWAE": (IWAE, lambda d, K: d.log_mean().sum()),
    "stl": (lambda K: IWAE(K, gradient="stl"), lambda d, K: d.log_mean().sum()),
    "dreg": (lambda K: IWAE(K, gradient="dreg"), lambda d, K: d.log_mean().sum()),
    "CIWAE": (lambda K: CIWAE(K, 0.3), lambda d, K: (0.3 * d.log_w.mean(0) + 0.7 * d.log_mean()).sum()),
    "MIWAE": (
        lambda K: MIWAE(K, 2 if K > 1 else 1),
        lambda d, K: torch.stack([w.exp().mean(0).log() for w in d.log_w.chunk(2 if K > 1 else 1)]).mean(0).sum(),
    ),
    "PIWAE": (lambda K: PIWAE(K, 2 if K > 1 else 1), lambda d, K: d.log_mean().sum()),
    "Renyi": (lambda K: Renyi(0.5, K), lambda d, K: d.log_mean(0.5).sum()),
    "Renyi from above": (lambda K: Renyi(-1.0, K), lambda d, K: d.log_mean(2.0).sum()),
    "CUBO": (lambda K: CUBO(2.0, K), lambda d, K: -d.log_mean(2.0).sum()),  # its loss is the bound
    "CUBO with a scale": (lambda K: CUBO(1.5, K, log_scale=-4.0), lambda d, K: -d.log_mean(1.5).sum()),
    "WakeSleep": (WakeSleep, lambda d, K: d.log_w.mean(0).sum()),
    "ReweightedWakeSleep": (ReweightedWakeSleep, lambda d, K: d.log_mean().sum()),
    "asleep": (lambda K: ReweightedWakeSleep(K, "both"), lambda d, K: d.log_mean().sum()),
}


@pytest.mark.parametrize("setting", ["plain", "size", "scale"])
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_value_is_the_bound(name: str, K: int, setting: str, model: models.ProbabilisticPCA, x: Tensor) -> None:
    make, formula = FORMULAS[name]
    guide = DiagonalGuide()
    size = {"size": int(F * N)} if setting == "size" else {}
    programs = (model, guide) if setting != "scale" else (poutine.scale(model, F), poutine.scale(guide, F))
    factor = 1.0 if setting == "plain" else F
    objective = make(K)
    torch.manual_seed(7)
    table = objective.table(*programs, x, **size)
    expected = -factor * formula(Draws(table, model, guide, x), K).item()
    torch.manual_seed(7)
    assert make(K).loss(*programs, x, **size) == pytest.approx(expected, rel=1e-11)
    torch.manual_seed(7)
    assert make(K).differentiable_loss(*programs, x, **size).item() == pytest.approx(expected, rel=1e-11)
    torch.manual_seed(7)
    assert make(K).loss_and_grads(*programs, x, **size) == pytest.approx(expected, rel=1e-11)
    if not isinstance(objective, (WakeSleep, ReweightedWakeSleep, PIWAE)):  # which run the programs several times
        torch.manual_seed(7)
        gradient_on = make(K).bound(make(K).table(*programs, x, **size))
        assert (1 if objective.is_upper_bound else -1) * gradient_on.item() == pytest.approx(expected, rel=1e-11)
    if not make(K).vectorize_particles or K == 1:
        return
    in_turn = make(K)
    in_turn.vectorize_particles = False
    torch.manual_seed(7)
    table = in_turn.table(*programs, x, **size)
    expected = -factor * formula(Draws(table, model, guide, x), K).item()
    torch.manual_seed(7)
    assert in_turn.loss(*programs, x, **size) == pytest.approx(expected, rel=1e-11)


# Where the bounds lie


def mean(objective: Any, programs: tuple[Any, Any], x: Tensor, repeats: int, **kw: Any) -> tuple[float, float]:
    """Of the bound, with its standard error."""
    sign = 1 if objective.is_upper_bound else -1
    values = torch.tensor([sign * objective.loss(*programs, x, **kw) for _ in range(repeats)])
    return values.mean().item(), (values.std() / repeats**0.5).item()


def below(low: tuple[float, float], high: tuple[float, float]) -> None:
    assert low[0] < high[0] + 4 * math.hypot(low[1], high[1])


def replicated(objective: Any, programs: tuple[Any, Any], x: Tensor, factor: float, **kw: Any) -> tuple[float, float]:
    """Mean and standard error of the bound from many copies of the data in one batch."""
    copies = max(20, 120_000 // (objective.num_particles * len(x)))
    data = x.repeat(copies, 1)
    if "size" in kw:
        kw["size"] = round(factor * len(data))
    with torch.no_grad():
        table = objective.table(*programs, data, **kw)
        log_w, bound = table.log_weight(), objective.bound(table).item()
    values = factor * (log_w.mean(0) if isinstance(objective, ELBO) else objective.per_datum(log_w))
    assert bound == pytest.approx(values.sum().item(), rel=1e-10)
    if len(values) == len(data):
        values = values.reshape(copies, len(x)).sum(-1)
    return bound / copies, values.std().item() * len(values) ** 0.5 / copies


SETTINGS = ["plain", "minibatch", "minibatch of 1", "subsample", "scale", "hierarchy", "hierarchy, minibatch"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_bound_has_its_place(setting: str) -> None:
    kw, factor = dict[str, Any](), 1.0
    if setting.startswith("hierarchy"):
        chain = Hierarchy()
        x = chain.sample(N)
        programs: tuple[Any, Any] = chain, HierarchyGuide(chain, spread=1.4)
        evidence = chain.log_evidence(x).sum().item()
    else:
        model = ppca(D, M)
        x = model.sample(1 if setting == "minibatch of 1" else N)
        guide = LooseGuide(model, spread=1.5)
        programs = model, guide
        evidence = log_evidence(model, x).sum().item()
        if setting == "scale":
            programs, factor = (poutine.scale(model, 0.3), poutine.scale(guide, 0.3)), 0.3
    if "minibatch" in setting:
        kw["size"], factor = True, 7.0
    top = ((1.0 if setting == "subsample" else factor) * evidence, 0.0)

    def at(objective: Any) -> tuple[float, float]:
        if setting == "subsample":
            batch = max(20, 120_000 // (objective.num_particles * N)) * 2  # of three times as many
            return replicated(objective, subsampling(model, guide, batch), x, 3.0)
        return replicated(objective, programs, x, factor, **kw)

    elbo, *iwae = at(ELBO()), at(IWAE(1)), at(IWAE(5)), at(IWAE(50)), at(IWAE(500))
    assert abs(elbo[0] - iwae[0][0]) < 4 * math.hypot(elbo[1], iwae[0][1])
    assert elbo[0] + 4 * elbo[1] < iwae[1][0], "the guide must be loose for the places to mean anything"
    for low, high in zip([elbo, *iwae], [*iwae[1:], top, top], strict=True):
        below(low, high)
    assert top[0] - iwae[3][0] < 0.1 * (top[0] - elbo[0]) + 4 * iwae[3][1], "the gap closes with K"
    for combined in (at(CIWAE(50, 0.4)), at(MIWAE(50, 10))):
        below(elbo, combined)
        below(combined, iwae[2])
    below(at(MIWAE(50, 10)), iwae[1])  # both have the mean of IWAE(5)
    below(iwae[1], at(MIWAE(50, 10)))
    ladder = [at(Renyi(alpha, 50)) for alpha in (3.0, 1.5, 0.5, 0.0, -1.0)]
    for low, high in pairwise(ladder):
        below(low, high)
    below(elbo, ladder[2])
    below(ladder[2], top)
    below(top, at(CUBO(2.0, 2000)))
    below(at(CUBO(1.5, 2000)), at(CUBO(3.0, 2000)))


@pytest.mark.parametrize("K", [1, 5, 50])
def test_bounds_have_their_expectations_by_quadrature(K: int) -> None:
    rows = 200_000 // K
    model, guide, x = normal_rows(LINE, LINE_X, rows)
    nodes = line(leaves(LINE), LINE_X)
    for objective, expected in (
        (IWAE(K), expected_log_mean(nodes, K)),
        (Renyi(0.5, K), expected_log_mean(nodes, K, 0.5)),
        (Renyi(-1.0, K), expected_log_mean(nodes, K, 2.0)),
        (CUBO(3.0, K), expected_log_mean(nodes, K, 3.0)),
        (CIWAE(K, 0.25), 0.25 * expected_log_mean(nodes, 1) + 0.75 * expected_log_mean(nodes, K)),
    ):
        with torch.no_grad():
            values = objective.per_datum(objective.table(model, guide, x).log_weight())
        assert abs(values.mean() - expected) < 4 * values.std() / rows**0.5


def test_the_weights_of_a_stack_of_plates_have_a_bound_each() -> None:
    x = torch.randn(3, 5)

    def model(x: Tensor) -> None:
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", 2, dim=-3):
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.stack([x, -x]))

    def guide(x: Tensor) -> None:
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            pyro.sample("z", dist.Normal(0.2 * x, 0.9))

    # two observations of a datum: jointly normal, of covariance I + 1
    joint = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1)
    evidence = (joint.log_prob(torch.stack([x, -x], -1)).sum().item(), 0.0)
    found = [mean(o, (model, guide), x, 300) for o in (ELBO(), IWAE(5), IWAE(300))]
    for low, high in zip(found, [*found[1:], evidence], strict=True):
        below(low, high)
    assert evidence[0] - found[2][0] < 0.05 * (evidence[0] - found[0][0])
    for objective in (IWAE(4), MIWAE(4, 2), CIWAE(4), Renyi(0.5, 4), CUBO(2.0, 4)):
        table = objective.table(model, guide, x)
        assert table.log_weight().shape == (4, 1, 3, 5)
        assert objective.bound(table).item() == pytest.approx(objective.per_datum(table.log_weight()).sum().item())


def test_uncertainty_autoencoder_bounds_the_information_of_a_linear_channel(model: models.ProbabilisticPCA) -> None:
    """x ~ N(0, I), z = A x + noise: I(x; z) = ½ log det(I + A Aᵀ / s²), and x | z is normal too."""
    A, s = torch.randn(M, D), 0.5
    information = 0.5 * torch.logdet(torch.eye(M) + A @ A.T / s**2).item()
    entropy = 0.5 * D * math.log(2 * math.pi * math.e)
    gain = A.T @ torch.linalg.inv(A @ A.T + s**2 * torch.eye(M))
    left = torch.eye(D) - gain @ A

    def channel(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ A.T, s).to_event(1))

    def decoder(gain: Tensor, covariance: Tensor) -> Callable[[Tensor], None]:
        def program(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(M), 1.0).to_event(1))
                pyro.sample("x", dist.MultivariateNormal(z @ gain.T, covariance_matrix=covariance), obs=x)

        return program

    objective, n = UncertaintyAutoencoder(entropy=entropy), 100_000
    for factor, covariance in ((1.0, left), (0.8, left), (1.0, 1.5 * left), (1.0, torch.eye(D))):
        x = torch.randn(n, D)
        table = objective.table(decoder(factor * gain, covariance), channel, x)
        values = table.sites["x"].log_p[0] + entropy
        assert objective.bound(table).item() == pytest.approx(values.sum().item(), rel=1e-11)
        error = (values.std() / n**0.5).item()
        if factor == 1.0 and covariance is left:
            assert abs(values.mean().item() - information) < 4 * error
        else:
            assert values.mean().item() < information - 4 * error


# What data share


class Shared(nn.Module):
    """β ~ N(0, 1), z_n ~ N(0, 1), x_n ~ N(z_n + β, 0.5²)."""

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + beta, 0.5), obs=x)


class SharedGuide(nn.Module):
    """q(β) = N(m, s²), q(z_n | x_n, β) = N(0.7 (x_n − β), 0.6²)."""

    def __init__(self, m: float = 0.2, s: float = 0.6) -> None:
        super().__init__()
        self.m, self.s = m, s

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        beta = pyro.sample("beta", dist.Normal(self.m, self.s))
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(0.7 * (x - beta), 0.6))


SHARED_X = torch.tensor([2.0, -1.6, 1.1, -2.3, 1.9], dtype=torch.float64)


def shared_evidence(x: Tensor) -> float:
    n = len(x)
    return dist.MultivariateNormal(torch.zeros(n), 1.25 * torch.eye(n) + 1).log_prob(x).item()


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("K", [1, 4])
def test_a_shared_latent_has_an_elbo_and_the_others_an_iwae(K: int, size: int | None, vectorize: bool) -> None:
    guide = SharedGuide()
    factor = 1.0 if size is None else size / 5
    for objective in (IWAE(K, vectorize_particles=vectorize), Renyi(0.5, K, vectorize_particles=vectorize)):
        torch.manual_seed(4)
        table = objective.table(Shared(), guide, SHARED_X, size=size)
        beta, z = table.sites["beta"].value.reshape(-1), table.sites["z"].value  # (1,), (K, 5)
        assert beta.shape == (1,)
        assert z.shape == (K, 5)
        log_w = (
            dist.Normal(0.0, 1.0).log_prob(z)
            + dist.Normal(z + beta, 0.5).log_prob(SHARED_X)
            - dist.Normal(0.7 * (SHARED_X - beta), 0.6).log_prob(z)
        )
        local = log_w.exp().mean(0).log() if isinstance(objective, IWAE) else 2 * (0.5 * log_w).exp().mean(0).log()
        shared = dist.Normal(0.0, 1.0).log_prob(beta) - dist.Normal(0.2, 0.6).log_prob(beta)
        expected = (shared + factor * local.sum()).item()
        torch.manual_seed(4)
        assert -objective.loss(Shared(), guide, SHARED_X, size=size) == pytest.approx(expected, rel=1e-11)


def test_bounds_with_a_shared_latent_stay_below_the_evidence_and_a_beta_a_particle_does_not() -> None:
    evidence = (shared_evidence(SHARED_X), 0.0)
    model, guide = Shared(), SharedGuide(0.0, 1.2)
    found = [mean(o, (model, guide), SHARED_X, 250) for o in (ELBO(), IWAE(5), IWAE(100))]
    for low, high in zip(found, [*found[1:], evidence], strict=True):
        below(low, high)
    assert found[2][0] + 4 * found[2][1] < evidence[0]
    # Independent particles: every datum averages over other β, and the sum over data leaves the evidence below.
    naive = []
    for _ in range(250):
        table = run(model, guide, (SHARED_X,), {}, num_particles=100, nesting=1)
        log_w = table.without_global_latents().log_weight()
        shared = table.sites["beta"].log_weight.mean()
        naive.append((log_w.logsumexp(0) - math.log(100)).sum() + shared)
    values = torch.stack(naive)
    assert values.mean() - 4 * values.std() / 250**0.5 > evidence[0]
    with pytest.raises(ValueError, match="needs one draw of 'beta' for all particles"):
        IWAE(100).bound(table)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_minibatches_of_data_that_share_a_latent_have_the_same_mean(batch: int) -> None:
    model, guide = Shared(), SharedGuide()
    full = mean(IWAE(5), (model, guide), SHARED_X, 1000)
    values = []
    for _ in range(225):
        for rows in torch.randperm(5)[: 5 - 5 % batch].split(batch):
            values.append(-IWAE(5).loss(model, guide, SHARED_X[rows], size=5))
    stacked = torch.tensor(values)
    below(full, (shared_evidence(SHARED_X), 0.0))
    # Minibatches of one permutation are not independent; their means are.
    per_pass = stacked.reshape(225, -1).mean(1)
    assert abs(per_pass.mean() - full[0]) < 4 * math.hypot(full[1], per_pass.std().item() / 15)


def test_two_shared_latents_one_given_the_other() -> None:
    def model(x: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(a, 0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(0.1, 0.5))
        pyro.sample("a", dist.Normal(0.8 * b, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.7 * x + 0.3 * b, 0.6))

    n = len(SHARED_X)
    covariance = 1.25 * torch.eye(n) + 1.25
    evidence = dist.MultivariateNormal(torch.zeros(n), covariance).log_prob(SHARED_X).item(), 0.0
    found = [mean(o, (model, guide), SHARED_X, 250) for o in (ELBO(), IWAE(5), IWAE(100))]
    for low, high in zip(found, [*found[1:], evidence], strict=True):
        below(low, high)
    table = IWAE(4).table(model, guide, SHARED_X)
    assert table.global_latents == ["a", "b"]


# Training


ALL: dict[str, Callable[[], Any]] = {name: lambda make=make: make(4) for name, (make, _) in FORMULAS.items()}


@pytest.mark.parametrize("name", [name for name in ALL if name != "schedule"])
def test_stock_svi_and_fit_take_the_same_path(name: str) -> None:
    """The same draws and the same order of data; Adam's ε is scaled, as Pyro's loss is a sum where fit's is a mean."""
    n, epochs = 20, 15
    torch.manual_seed(1)
    x = 2 * torch.randn(n, D)

    def programs() -> tuple[Any, Any]:
        torch.manual_seed(2)
        return models.ProbabilisticPCA(D, M), DiagonalGuide()

    seen: list[tuple[Tensor, Tensor, float]] = []
    objective = ALL[name]()
    ours = objective.differentiable_loss

    def recorded(model: Any, guide: Any, batch: Tensor, **kw: Any) -> Tensor:
        state, loss = torch.get_rng_state(), None
        loss = ours(model, guide, batch, **kw)
        if torch.is_grad_enabled():
            seen.append((state, batch, loss.item()))
        return loss

    objective.differentiable_loss = recorded
    pair = programs()
    options = {"optimizer_options": {"fused": False, "eps": 1e-8}}
    fitted = lvm.fit(*pair, x, objective=objective, epochs=epochs, batch_size=n, learning_rate=0.02, **options)
    assert len(seen) == epochs
    again = programs()
    with pyro.get_param_store().scope():
        svi = SVI(*again, pyro.optim.Adam({"lr": 0.02, "eps": 1e-8 * n}), loss=ALL[name]())
        losses = []
        for state, batch, _ in seen:
            torch.set_rng_state(state)
            losses.append(svi.step(batch, size=n))
    assert losses == pytest.approx([loss for _, _, loss in seen], rel=1e-8)
    sign = 1 if objective.is_upper_bound else -1
    assert [sign * n * value for value in fitted.history["train"]] == pytest.approx(losses, rel=1e-8)
    for a, b in zip((p for m in pair for p in m.parameters()), (p for m in again for p in m.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    start = programs()
    assert all((a != b).any() for a, b in zip(again[0].parameters(), start[0].parameters(), strict=True))
    assert all((a != b).any() for a, b in zip(again[1].parameters(), start[1].parameters(), strict=True))


@pytest.mark.parametrize("constraint", ["kl", "reconstruction"])
def test_capacity_meets_its_constraint(constraint: str) -> None:
    """On average over the last steps within 3 %: what the multiplier's own swing leaves."""
    torch.manual_seed(0)
    data = ppca(D, M).sample(200)
    torch.manual_seed(3)
    model, guide = models.ProbabilisticPCA(D, M), guides.LinearNormal(D, M)
    limit = 0.6 if constraint == "kl" else 4.0
    objective = Capacity(**{constraint: limit}, analytic_kl=True, num_particles=4, rate=0.05)
    optimiser = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=0.03)
    met = []
    for step in range(700):
        optimiser.zero_grad()
        objective.differentiable_loss(model, guide, data).backward()
        optimiser.step()
        if step >= 500:
            with torch.no_grad():
                table = objective.table(model, guide, data)
            met.append(table.divergences()["z"] / 200 if constraint == "kl" else -table.reconstruction() / 200)
    assert sum(met) / len(met) == pytest.approx(limit, rel=0.03)
    assert abs(math.log(objective.multiplier)) > 0.1  # 0 is the ELBO, which would miss it


def test_capacity_s_multiplier_goes_the_way_of_the_excess_and_stays_in_bounds(model: Any, x: Tensor) -> None:
    guide = DiagonalGuide()
    for limit, sign in ((0.01, 1), (50.0, -1)):
        objective = Capacity(kl=limit, rate=0.5, decay=0.0, analytic_kl=True)
        before = [objective.multiplier]
        for _ in range(5):
            objective.loss_and_grads(model, guide, x)
            before.append(objective.multiplier)
        # the excess is beyond ±1 nat or the clamp's: a step of 0.5 in log μ each
        steps = torch.tensor(before).log().diff()
        assert (sign * steps > 0).all()
        if sign < 0:
            torch.testing.assert_close(steps, torch.full((5,), -0.5))
        for _ in range(50):
            objective.loss_and_grads(model, guide, x)
        assert math.exp(-7.001) < objective.multiplier < math.exp(7.001)
        at_rest = objective.multiplier
        objective.loss(model, guide, x)
        assert objective.multiplier == at_rest  # a look at the loss moves nothing


@pytest.mark.parametrize(
    "make", [lambda: Capacity(0.3, num_particles=2), lambda: ELBO(beta=Linear(0.0, 1.0, 3)), lambda: ELBO(2)]
)
def test_the_state_round_trips_and_goes_on_the_same(make: Any, model: Any, x: Tensor) -> None:
    def train(objective: Any, guide: Any, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            losses.append(objective.loss_and_grads(model, guide, x))
            objective.advance(0.25)
        return losses

    torch.manual_seed(9)
    guide, whole = DiagonalGuide(), make()
    torch.manual_seed(10)
    expected = train(whole, guide, 10)
    first, second = make(), make()
    torch.manual_seed(10)
    found = train(first, guide, 4)
    state = first.state_dict()
    second.load_state_dict(state)
    train_state = {name: value.clone() for name, value in state.items()}
    random_state = torch.get_rng_state()
    train(first, guide, 3)  # the checkpoint is a copy: what goes on afterwards is not in it
    assert all(torch.equal(state[name], value) for name, value in train_state.items())
    torch.set_rng_state(random_state)
    assert found + train(second, guide, 6) == expected
    second.restart()
    state, fresh = second.state_dict(), make().state_dict()
    assert state.keys() == fresh.keys()
    assert all(torch.equal(state[name], value) for name, value in fresh.items())
    torch.manual_seed(10)
    assert train(second, guide, 10) == expected


def test_the_moving_average_of_a_baseline_is_in_the_state() -> None:
    logit = nn.Parameter(torch.tensor([0.3, -0.4]))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(2 * c, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            options = {"use_decaying_avg_baseline": True, "baseline_beta": 0.8}
            pyro.sample("c", dist.Bernoulli(logits=logit), infer={"baseline": options})

    objective, x = ELBO(), torch.tensor([0.5, 1.5])
    average = 0.0
    for _ in range(3):
        torch.manual_seed(1)
        value = -objective.loss_and_grads(model, guide, x) / 2  # the mean over data and particles
        average = 0.8 * average + 0.2 * value
    (kept,) = objective.state_dict().values()
    assert kept.item() == pytest.approx(average, rel=1e-12)
    objective.loss(model, guide, x)
    (after,) = objective.state_dict().values()
    assert torch.equal(after, kept)


# Schedules


def test_schedules_have_their_values() -> None:
    up, down = Linear(0.0, 1.0, epochs=10), Linear(4.0, 1.0, epochs=2)
    assert [up(t) for t in (0, 2.5, 10, 99)] == [0.0, 0.25, 1.0, 1.0]
    assert [down(t) for t in (0, 1, 2, 3)] == [4.0, 2.5, 1.0, 1.0]
    step = Sigmoid(0.5, 1.5, epochs=8, steepness=6.0)
    assert [step(t) for t in (0, 4, 8, 9)] == pytest.approx([0.5, 1.0, 1.5, 1.5], abs=1e-15)

    def logistic(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    low, high = logistic(-3.0), logistic(3.0)  # rescaled, so that it starts and ends where it says
    for t in (1.0, 3.0, 6.5):
        expected = 0.5 + (logistic(6 * (t / 8 - 0.5)) - low) / (high - low)
        assert step(t) == pytest.approx(expected, rel=1e-12)
    sudden = Sigmoid(0.0, 1.0, epochs=2, steepness=1e6)
    assert [sudden(0.99), sudden(1.01)] == pytest.approx([0.0, 1.0])
    cycles = Cyclical(0.0, 2.0, epochs=12, cycles=3, ramp=0.5)
    assert [cycles(t) for t in (0, 1, 2, 3, 4, 5, 8, 9, 11.9, 12, 50)] == pytest.approx(
        [0.0, 1.0, 2.0, 2.0, 0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 2.0]
    )
    assert Cyclical(0.0, 1.0, epochs=4, cycles=1, ramp=1.0)(2.0) == 0.5
    for schedule in (up, down, step, cycles):
        assert len({hash(schedule), hash(schedule)}) == 1  # a value, like a number
        assert all(
            min(schedule.start, schedule.end) <= schedule(t / 7) <= max(schedule.start, schedule.end) for t in range(90)
        )


def test_beta_advances_is_judged_at_its_end_and_restarts(model: Any, x: Tensor) -> None:
    guide = DiagonalGuide()
    objective = ELBO(3, beta=Linear(0.0, 2.0, epochs=4))

    def loss(objective: Any) -> float:
        torch.manual_seed(5)
        return objective.loss(model, guide, x)

    for epochs, beta in ((0.0, 0.0), (1.0, 0.5), (0.5, 0.75), (2.0, 1.75), (5.0, 2.0)):
        objective.advance(epochs)
        assert objective.beta == pytest.approx(beta, rel=1e-12)
        assert loss(objective) == pytest.approx(loss(ELBO(3, beta=beta)), rel=1e-12)
        torch.manual_seed(5)
        judged = objective.judge(objective.table(model, guide, x)).item()
        assert judged == pytest.approx(-loss(ELBO(3, beta=2.0)), rel=1e-12)
    fresh = ELBO(3, beta=Linear(0.0, 2.0, epochs=4))
    fresh.load_state_dict(objective.state_dict())
    assert fresh.beta == objective.beta == 2.0
    objective.restart()
    assert objective.beta == 0.0
    assert fresh.beta == 2.0
    fixed = ELBO(beta=0.5)
    fixed.advance(3.0)
    assert fixed.beta == 0.5
    assert fixed.state_dict() == {}
    for _ in range(1000):
        fresh.advance(1e-3)  # many small steps add up in double precision
    assert fresh.state_dict()["time"].item() == pytest.approx(9.5, rel=1e-12)


def test_cubo_is_judged_by_its_model_s_bound(model: Any, x: Tensor) -> None:
    guide = DiagonalGuide()
    objective = CUBO(2.0, 4)
    torch.manual_seed(5)
    judged = objective.judge(objective.table(model, guide, x)).item()
    torch.manual_seed(5)
    assert judged == pytest.approx(-IWAE(4).loss(model, guide, x), rel=1e-12)
    assert objective.is_upper_bound
