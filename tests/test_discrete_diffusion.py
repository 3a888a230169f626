"""Discrete diffusion against products of matrices, Bayes' rule, and sums over all chains.

Gates: 1e-12 where both sides are exact; three standard errors where one is a mean of draws.
"""

from typing import Any

import pytest
import torch
from pyro.distributions import Categorical
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyro_lvm as lvm
from pyro_lvm import data, guides, models, objectives
from pyro_lvm.diffusion import (
    AbsorbingCorruption,
    Corruption,
    DiscreteReverse,
    NormalCorruption,
    UniformCorruption,
    cosine_survival,
    linear_survival,
)

EXACT = {"rtol": 0.0, "atol": 1e-12}
L, T = 4, 6
SURVIVAL = (0.9, 0.7, 0.55, 0.2, 0.05, 0.0)

CORRUPTIONS: dict[str, Any] = {
    "uniform": lambda: UniformCorruption(L, SURVIVAL),
    "absorbing": lambda: AbsorbingCorruption(L, SURVIVAL),
    "normal": lambda: NormalCorruption(L, (0.3, 0.5, 1.0, 3.0, 10.0, 30.0)),
}


def matrix(name: str, t: int) -> Tensor:
    """Q_t written down, from the definition in the paper."""
    if name == "normal":
        spread = (0.3, 0.5, 1.0, 3.0, 10.0, 30.0)[t - 1]
        n = torch.arange(1 - L, L)
        total = torch.exp(-4 * n**2 / ((L - 1) ** 2 * spread)).sum()
        Q = (
            torch.tensor(
                [
                    [torch.exp(torch.tensor(-4 * (a - b) ** 2 / ((L - 1) ** 2 * spread))) for b in range(L)]
                    for a in range(L)
                ]
            )
            / total
        )
        for a in range(L):
            Q[a, a] = 1 - (Q[a].sum() - Q[a, a])
        return Q
    alpha = SURVIVAL[t - 1] / (1.0, *SURVIVAL)[t - 1]
    if name == "uniform":
        return alpha * torch.eye(L) + (1 - alpha) / L
    Q = alpha * torch.eye(L + 1)
    Q[:, L] += 1 - alpha
    return Q


def product(name: str, t: int) -> Tensor:
    Q = torch.eye(L + (name == "absorbing"))
    for s in range(1, t + 1):
        Q = Q @ matrix(name, s)
    return Q


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_closed_forms_are_products_of_matrices(name: str) -> None:
    corruption: Corruption = CORRUPTIONS[name]()
    S = corruption.states
    p = torch.rand(3, L)  # of any sum
    for t in range(T + 1):
        Q = product(name, t)
        torch.testing.assert_close(corruption.push(p, torch.tensor(t)), p @ Q[:L], **EXACT)
        if t:
            pulled = corruption.pull(torch.arange(S)[:, None], torch.tensor(t))[:, 0]
            torch.testing.assert_close(pulled, matrix(name, t).T, **EXACT)
    if name != "normal":  # which comes to the uniform distribution in the limit only
        torch.testing.assert_close(corruption.stationary().exp().expand(L, S), product(name, T)[:L], **EXACT)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_bridge_is_bayes_rule(name: str) -> None:
    corruption: Corruption = CORRUPTIONS[name]()
    S = corruption.states
    times = torch.arange(2, T + 1)  # a batch of times at once, (T − 1,)
    x, z_t = torch.cartesian_prod(torch.arange(L), torch.arange(S)).unbind(-1)
    found = corruption.bridge(x.expand(T - 1, -1), z_t.expand(T - 1, -1), times).softmax(-1)  # (T − 1, L·S, S)
    for i, t in enumerate(range(2, T + 1)):
        joint = product(name, t - 1)[x] * matrix(name, t)[:, z_t].T  # q(z_{t−1} | x) q(z_t | z_{t−1})
        possible = joint.sum(-1) > 0
        expected = joint / joint.sum(-1, keepdim=True)
        torch.testing.assert_close(found[i][possible], expected[possible], **EXACT)


class Net(nn.Module):
    """Scores of every value given all and the time, of large random weights."""

    def __init__(self, shape: tuple[int, ...], states: int, levels: int) -> None:
        super().__init__()
        D = torch.Size(shape).numel()
        self.shape, self.levels = shape, levels
        self.hidden, self.out = nn.Linear(D * states + 1, 16), nn.Linear(16, D * levels)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        flat = z.flatten(-len(self.shape) - 1)
        h = torch.cat([flat, t.expand(flat.shape[:-1]).unsqueeze(-1)], dim=-1)
        return 3 * self.out((3 * self.hidden(h)).tanh()).unflatten(-1, (*self.shape, self.levels))


SHORT: dict[str, Any] = {
    "uniform": lambda: UniformCorruption(3, (0.7, 0.3, 0.0)),
    "absorbing": lambda: AbsorbingCorruption(3, (0.7, 0.3, 0.0)),
    "normal": lambda: NormalCorruption(3, (0.5, 1.0, 5.0)),
}


def made(name: str, shape: tuple[int, ...] = (2,)) -> tuple[models.DiscreteDiffusion, guides.ForwardCorruption]:
    corruption = SHORT[name]()
    reverse = DiscreteReverse(Net(shape, corruption.states, corruption.levels), corruption, shape)
    return models.DiscreteDiffusion(reverse), guides.ForwardCorruption(corruption)


def everything(states: int) -> Tensor:
    """All states of a datum of two values, (S², 2)."""
    return torch.cartesian_prod(torch.arange(states), torch.arange(states))


@torch.no_grad()
def enumerated(model: models.DiscreteDiffusion) -> tuple[Tensor, Tensor]:
    """log p(x) and the bound of every x, (L²,) each, by sums over all chains z_1, z_2, z_3 of two values."""
    reverse, corruption = model.reverse, model.reverse.corruption
    z, x = everything(corruption.states), everything(corruption.levels)
    n, at = len(z), [torch.full((len(z),), t) for t in range(4)]
    end = model.end().log_prob(z)  # log p(z_3), (n,)
    steps = [reverse(z, at[t]).log_prob(z[:, None]).T for t in (2, 3)]  # [z_t, z_{t−1}]
    decoded = reverse.likelihood(z).log_prob(x[:, None]).T  # [z_1, x]
    log_p = end
    for step in (steps[1], steps[0], decoded):
        log_p = (log_p[:, None] + step).logsumexp(0)

    def of(logits: Tensor) -> Tensor:  # q of all z, for each datum: (L², n)
        log_q = logits.log_softmax(-1)
        return log_q[:, 0][:, z[:, 0]] + log_q[:, 1][:, z[:, 1]]

    def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    data = len(x)
    bound = (of(corruption.marginal(x, torch.tensor(1))).exp() * decoded.T).sum(-1)
    bound = bound - kl(of(corruption.marginal(x, torch.tensor(3))), end)
    for t in (2, 3):
        share = of(corruption.marginal(x, torch.tensor(t))).exp()
        for i in range(n):
            bridge = of(corruption.bridge(x, z[i].expand(data, -1), torch.tensor(t)))
            bound = bound - share[:, i] * kl(bridge, steps[t - 2][i])
    return log_p, bound


@pytest.mark.parametrize("name", SHORT)
def test_the_estimate_s_mean_is_the_bound_by_enumeration(name: str) -> None:
    model, guide = made(name)
    log_p, bound = enumerated(model)
    assert log_p.logsumexp(0).item() == pytest.approx(0.0, abs=1e-12)
    assert bool((bound <= log_p + 1e-12).all())
    assert bool((bound < log_p - 0.01).any())
    x = everything(3).double()
    for analytic_kl in (True, False):
        objective = objectives.ELBO(4000, analytic_kl=analytic_kl)
        with torch.no_grad():
            torch.manual_seed(1)
            draws = objective.table(model, guide, x).bound().reshape(4000, 9)
            torch.manual_seed(1)
            loss = objective.loss(model, guide, x, size=90)
        error = draws.std(0) / len(draws) ** 0.5
        assert bool(((draws.mean(0) - bound).abs() < 3.5 * error).all())  # of all nine data
        error = draws.mean(1).std() / len(draws) ** 0.5
        assert (draws.mean() - bound.mean()).abs() < 3 * error
        assert loss == pytest.approx(-10 * draws.mean(0).sum().item(), rel=1e-12)  # a minibatch of ninety


@pytest.mark.parametrize("name", SHORT)
def test_samples_are_of_the_enumerated_distribution(name: str) -> None:
    model, _ = made(name)
    log_p, _ = enumerated(model)
    n = 20_000
    draws = model.sample(n)
    counts = torch.bincount((3 * draws[:, 0] + draws[:, 1]).long(), minlength=9)
    expected = n * log_p.exp()
    kept = expected > 5
    merged = [torch.cat([v[kept], v[~kept].sum().reshape(1)]) for v in (counts.double(), expected)]
    merged = [v[:-1] if merged[1][-1] < 1e-3 else v for v in merged]
    assert chisquare(*(v.numpy() for v in merged)).pvalue > 1e-3


class Known(nn.Module):
    """The best scores of a single value: what it is before anything of it is seen."""

    def __init__(self, p: Tensor) -> None:
        super().__init__()
        self.log_p = nn.Parameter(p.log())

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.log_p.expand(*z.shape[:-1], -1)


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_the_bound_is_the_evidence_where_the_reverse_process_is_exact(name: str) -> None:
    corruption = SHORT[name]()
    p = torch.tensor([0.1, 0.2, 0.7])
    model = models.DiscreteDiffusion(DiscreteReverse(Known(p), corruption, 1))
    x = torch.arange(3.0).unsqueeze(-1)
    z, log_q = torch.arange(corruption.states).unsqueeze(-1), corruption.marginal
    bound = torch.zeros(3)
    for i in range(3):  # the mean over all draws, step by step
        of = [log_q(x[i], torch.tensor(t))[0].exp() for t in range(4)]
        bound[i] = (of[1] * model.reverse.likelihood(z).log_prob(x[i])).sum()
        for t in (2, 3):
            for state in z[of[t] > 1e-9]:
                q = Categorical(logits=corruption.bridge(x[i], state, torch.tensor(t)))
                bound[i] -= of[t][state[0]] * kl_divergence(q, model.reverse(state, torch.tensor(t)).base_dist).sum()
    torch.testing.assert_close(bound, p.log(), **EXACT)  # z_T says nothing of x


def test_a_chain_of_one_or_two_steps_and_many_particles() -> None:
    for steps in (1, 2):
        corruption = UniformCorruption(3, linear_survival(steps))
        model = models.DiscreteDiffusion(DiscreteReverse(Net((2, 2), 3, 3), corruption, (2, 2)))
        x = torch.randint(3, (5, 2, 2)).double()
        table = objectives.ELBO(7, analytic_kl=True).table(model, guides.ForwardCorruption(corruption), x)
        assert table.bound().mean(0).squeeze().shape == (5,)
        assert ("z_s" in table.sites) == (steps > 1)
        assert model.sample(4).shape == (4, 2, 2)


def test_wrong_corruptions_are_refused() -> None:
    for make in (UniformCorruption, AbsorbingCorruption):
        for survival, match in (
            ((), "'steps' must be at least 1"),
            ((0.5, 1.2, 0.0), "between 0 and 1.* at step 2 of 3 it is 1.2"),
            ((0.5, -0.1, 0.0), "at step 2 of 3 it is -0.1"),
            ((0.9, 0.5), "at step 2 of 2 it is 0.5"),
            ((0.5, 0.6, 0.0), "must fall .* at step 2 of 3 it goes from 0.5 to 0.6"),
        ):
            with pytest.raises(ValueError, match=match):
                make(3, survival)
        with pytest.raises(ValueError, match=r"'levels' .* at least 2: 1"):
            make(1, (0.5, 0.0))
    with pytest.raises(ValueError, match="'spreads' must be positive and finite, but that of step 2"):
        NormalCorruption(3, (1.0, -1.0))
    for survival in (linear_survival, cosine_survival):
        with pytest.raises(ValueError, match="'steps' must be at least 1"):
            survival(0)


def test_data_outside_the_levels_are_refused() -> None:
    model, guide = made("uniform")
    with pytest.raises(data.DataError, match=r"holds 3 at .* whole numbers from 0 to 2"):
        lvm.fit(model, guide, torch.tensor([[0.0, 3.0], [1.0, 2.0]]), epochs=1, batch_size=2)


def test_what_needs_exact_weights_refuses_it() -> None:
    model, guide = made("absorbing")
    with pytest.raises(ValueError, match="lower_bound"):
        lvm.log_likelihood(model, guide, torch.zeros(3, 2), num_particles=5)
