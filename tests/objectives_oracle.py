"""Pairs with a copy of every parameter for each row of data, and exact expectations of what objectives read from them.

R rows that hold one datum are R independent draws of a gradient in one backward pass. The expectation of a bound over K
draws comes from a grid over one draw, by Frullani's integral log s = ∫ (exp(−t) − exp(−t s)) dt / t: with t = exp(u),

    E[log Σ_k v_k] = ∫ (exp(−e^u) − E[exp(−e^u v)]^K) du,

so that any K costs the same, and the trapezoid rule converges exponentially in its step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import one_hot

LEVEL = 1e-4  # probability that a right estimator fails a test: of about 100 tests, 1 % that any does
ROWS = 40_000

Numbers = dict[str, Tensor]  # the parameters of one row, by name


class Rows(nn.Module, ABC):
    """A program over rows of data with parameters of their own, abstract."""

    def __init__(self, numbers: Numbers, rows: int) -> None:
        super().__init__()
        for name, value in numbers.items():
            self.register_parameter(name, nn.Parameter(value.detach().expand(rows, *value.shape).clone()))

    @abstractmethod
    def forward(self, x: Tensor) -> None:
        """Runs the program."""


# x | z ~ N(W z + b, σ² I), z ~ N(0, I_M); q(z | x) = N(A x + a, s²)


class NormalModel(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        M = self.weight.shape[-1]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(M), 1.0).to_event(1))
            mean = (self.weight @ z.unsqueeze(-1)).squeeze(-1) + self.bias
            pyro.sample("x", dist.Normal(mean, self.log_sigma.exp().unsqueeze(-1)).to_event(1), obs=x)


class NormalGuide(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            mean = (self.slope @ x.unsqueeze(-1)).squeeze(-1) + self.offset
            pyro.sample("z", dist.Normal(mean, self.log_scale.exp()).to_event(1))


LINE: Numbers = {
    "weight": torch.tensor([[0.9], [-0.6]], dtype=torch.float64),
    "bias": torch.tensor([0.3, -0.2], dtype=torch.float64),
    "log_sigma": torch.tensor(0.7, dtype=torch.float64).log(),
    "slope": torch.tensor([[0.2, -0.1]], dtype=torch.float64),
    "offset": torch.tensor([0.5], dtype=torch.float64),
    "log_scale": torch.tensor([0.9], dtype=torch.float64).log(),
}
LINE_X = torch.tensor([0.8, -1.1], dtype=torch.float64)

PLANE: Numbers = {
    "weight": torch.tensor([[0.9, 0.2], [-0.6, 0.5], [0.1, -0.8]], dtype=torch.float64),
    "bias": torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64),
    "log_sigma": torch.tensor(0.7, dtype=torch.float64).log(),
    "slope": torch.tensor([[0.2, -0.1, 0.3], [0.1, 0.2, -0.2]], dtype=torch.float64),
    "offset": torch.tensor([0.5, -0.4], dtype=torch.float64),
    "log_scale": torch.tensor([0.9, 1.0], dtype=torch.float64).log(),
}
PLANE_X = torch.tensor([0.8, -1.1, 0.6], dtype=torch.float64)

NORMAL_MODEL, NORMAL_GUIDE = ("weight", "bias", "log_sigma"), ("slope", "offset", "log_scale")

# z_2 ~ N(0, 1), z_1 | z_2 ~ N(c z_2, s²), x | z_1 ~ N(w z_1, σ²); q(z_2) q(z_1 | z_2), x a constant


class ChainModel(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(0.0, 1.0))
            z_1 = pyro.sample("z_1", dist.Normal(self.coupling * z_2, 0.8))
            pyro.sample("x", dist.Normal(self.weight * z_1, 0.7), obs=x)


class ChainGuide(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(self.top, self.top_scale.exp()))
            z_1_mean = self.bottom + self.regression * z_2
            pyro.sample("z_1", dist.Normal(z_1_mean, self.bottom_scale.exp()))


CHAIN: Numbers = {
    "coupling": torch.tensor(0.7, dtype=torch.float64),
    "weight": torch.tensor(0.9, dtype=torch.float64),
    "top": torch.tensor(0.3, dtype=torch.float64),
    "top_scale": torch.tensor(1.1, dtype=torch.float64).log(),
    "bottom": torch.tensor(0.6, dtype=torch.float64),
    "regression": torch.tensor(0.4, dtype=torch.float64),
    "bottom_scale": torch.tensor(0.75, dtype=torch.float64).log(),
}
CHAIN_X = torch.tensor(1.2, dtype=torch.float64)
CHAIN_MODEL = ("coupling", "weight")
CHAIN_GUIDE = ("top", "top_scale", "bottom", "regression", "bottom_scale")

# c ~ Categorical, x | c ~ N(m_c, 1); q(c) free


class CodeModel(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.prior))
            mean = (one_hot(c, self.means.shape[-1]) * self.means).sum(-1)
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


class CodeGuide(Rows):
    def __init__(self, numbers: Numbers, rows: int, baseline: dict[str, Any] | None = None) -> None:
        super().__init__(numbers, rows)
        self.infer = {} if baseline is None else {"baseline": baseline}

    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=self.logits), infer=self.infer)


CODE: Numbers = {
    "prior": torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64),
    "means": torch.tensor([-1.5, 0.2, 1.4], dtype=torch.float64),
    "logits": torch.tensor([0.4, 0.1, -0.6], dtype=torch.float64),
}
CODE_X = torch.tensor(0.9, dtype=torch.float64)
CODE_MODEL, CODE_GUIDE = ("prior", "means"), ("logits",)

# The same with y | c ~ N(m_c, 1) between: x | y ~ N(w y, 0.7²); q(c) q(y | c)


class MixedModel(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.prior))
            mean = (one_hot(c, self.means.shape[-1]) * self.means).sum(-1)
            y = pyro.sample("y", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(self.weight * y, 0.7), obs=x)


class MixedGuide(Rows):
    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.logits))
            mean = (one_hot(c, self.centres.shape[-1]) * self.centres).sum(-1)
            pyro.sample("y", dist.Normal(mean, self.log_scale.exp()))


MIXED: Numbers = CODE | {
    "weight": torch.tensor(0.9, dtype=torch.float64),
    "centres": torch.tensor([-0.8, 0.6, 1.2], dtype=torch.float64),
    "log_scale": torch.tensor(0.8, dtype=torch.float64).log(),
}
MIXED_MODEL, MIXED_GUIDE = ("prior", "means", "weight"), ("logits", "centres", "log_scale")


def normal_rows(numbers: Numbers, x: Tensor, rows: int = ROWS) -> tuple[Rows, Rows, Tensor]:
    model = NormalModel({name: numbers[name] for name in NORMAL_MODEL}, rows)
    guide = NormalGuide({name: numbers[name] for name in NORMAL_GUIDE}, rows)
    return model, guide, x.expand(rows, *x.shape).clone()


def chain_rows(rows: int = ROWS) -> tuple[Rows, Rows, Tensor]:
    model = ChainModel({name: CHAIN[name] for name in CHAIN_MODEL}, rows)
    return model, ChainGuide({name: CHAIN[name] for name in CHAIN_GUIDE}, rows), CHAIN_X.expand(rows).clone()


def code_rows(rows: int = ROWS, baseline: dict[str, Any] | None = None) -> tuple[Rows, Rows, Tensor]:
    model = CodeModel({name: CODE[name] for name in CODE_MODEL}, rows)
    return model, CodeGuide({"logits": CODE["logits"]}, rows, baseline), CODE_X.expand(rows).clone()


def mixed_rows(rows: int = ROWS) -> tuple[Rows, Rows, Tensor]:
    model = MixedModel({name: MIXED[name] for name in MIXED_MODEL}, rows)
    return model, MixedGuide({name: MIXED[name] for name in MIXED_GUIDE}, rows), CODE_X.expand(rows).clone()


@dataclass(frozen=True)
class Nodes:
    """A grid over the guide's draws for one datum.

    Attributes:
        probability: of each node, (n,), sums to 1; a gradient reaches it where the draws are discrete.
        log_w: log-weights, (n,), whose gradient passes through the draws.
        log_p, log_q: at draws held fixed.
    """

    probability: Tensor
    log_w: Tensor
    log_p: Tensor
    log_q: Tensor


def line(numbers: Numbers, x: Tensor) -> Nodes:
    """The grid of `NormalModel` and `NormalGuide` with M = 1."""
    mean, scale = (numbers["slope"] @ x + numbers["offset"])[0], numbers["log_scale"].exp()[0]
    epsilon, probability = grid(0.01, 10.0)

    def densities(z: Tensor) -> tuple[Tensor, Tensor]:
        seen = dist.Normal(z.unsqueeze(-1) * numbers["weight"][:, 0] + numbers["bias"], numbers["log_sigma"].exp())
        return normal(z, 0.0, 1.0) + seen.log_prob(x).sum(-1), normal(z, mean, scale)

    return through(densities, mean + scale * epsilon, probability)


def chain(numbers: Numbers, x: Tensor) -> Nodes:
    """The grid of `ChainModel` and `ChainGuide`."""
    epsilon, probability = grid(0.125, 8.0)
    n = len(epsilon)
    z_2 = (numbers["top"] + numbers["top_scale"].exp() * epsilon).repeat_interleave(n)
    z_1 = numbers["bottom"] + numbers["regression"] * z_2 + numbers["bottom_scale"].exp() * epsilon.repeat(n)

    def densities(z: Tensor) -> tuple[Tensor, Tensor]:
        top, bottom = z
        log_p = normal(top, 0.0, 1.0) + normal(bottom, numbers["coupling"] * top, 0.8)
        log_q = normal(top, numbers["top"], numbers["top_scale"].exp())
        log_q = log_q + normal(bottom, numbers["bottom"] + numbers["regression"] * top, numbers["bottom_scale"].exp())
        return log_p + normal(x, numbers["weight"] * bottom, 0.7), log_q

    return through(densities, torch.stack([z_2, z_1]), torch.outer(probability, probability).flatten())


def code(numbers: Numbers, x: Tensor) -> Nodes:
    """All values of `CodeModel`'s latent."""
    log_q = numbers["logits"].log_softmax(-1)
    log_p = numbers["prior"].log_softmax(-1) + normal(x, numbers["means"], 1.0)
    return Nodes(log_q.exp(), log_p - log_q, log_p, log_q)


def mixed(numbers: Numbers, x: Tensor) -> Nodes:
    """The grid of `MixedModel` and `MixedGuide`."""
    epsilon, probability = grid(0.02, 9.0)
    log_q_c, log_p_c = (numbers[name].log_softmax(-1).unsqueeze(-1) for name in ("logits", "prior"))  # (C, 1)
    centres, means, scale = numbers["centres"].unsqueeze(-1), numbers["means"].unsqueeze(-1), numbers["log_scale"].exp()

    def densities(y: Tensor) -> tuple[Tensor, Tensor]:
        log_p = log_p_c + normal(y, means, 1.0) + normal(x, numbers["weight"] * y, 0.7)
        return log_p.flatten(), (log_q_c + normal(y, centres, scale)).flatten()

    return through(densities, centres + scale * epsilon, (log_q_c.exp() * probability).flatten())


def through(densities: Any, z: Tensor, probability: Tensor) -> Nodes:
    log_p, log_q = densities(z)
    return Nodes(probability, log_p - log_q, *densities(z.detach()))


def normal(z: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return -0.5 * ((z - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def grid(step: float, end: float) -> tuple[Tensor, Tensor]:
    """Values of a standard normal, equally spaced, and their probabilities."""
    epsilon = torch.arange(-end, end + step / 2, step, dtype=torch.float64)
    return epsilon, (-0.5 * epsilon.square()).softmax(0)


# Exact expectations


def expected_log_mean(nodes: Nodes, K: int, power: float = 1.0) -> Tensor:
    r"""$E[\frac1r \log \frac1K \sum_k w_k^r]$."""
    log_v = power * nodes.log_w
    top = log_v.max().detach()
    u, phi, _ = _transform(log_v - top, nodes.probability)
    total = ((-u.exp()).exp() - phi**K).sum() * (u[1] - u[0])  # E[log Σ_k v_k]
    return (total + top - math.log(K)) / power


def expected_share(nodes: Nodes, K: int, values: Tensor, power: float = 1.0) -> Tensor:
    r"""$E[\sum_k f(z_k)\, w_k^r / \sum_j w_j^r]$ with the draws' own probabilities constant; f on the grid, (n,)."""
    log_v = (power * nodes.log_w).detach()
    u, phi, kernel = _transform(log_v - log_v.max(), nodes.probability.detach())
    weighed = kernel @ (nodes.probability.detach() * (log_v - log_v.max()).exp() * values)
    return K * (u.exp() * weighed * phi ** (K - 1)).sum() * (u[1] - u[0])


def _transform(log_v: Tensor, probability: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points u, E[exp(−e^u v)] there, and exp(−e^u v) on the grid."""
    u = torch.arange(-36.0, 100.0, 0.25, dtype=torch.float64)
    kernel = (-(u.exp().unsqueeze(-1) * log_v.exp())).exp()  # (u, n)
    return u, kernel @ probability, kernel


def enumerated(nodes: Nodes, K: int, bound: Any) -> Tensor:
    """E[bound of K log-weights (K, 1)] over every outcome of K draws of a discrete latent."""
    n = len(nodes.log_w)
    tuples = torch.cartesian_prod(*[torch.arange(n)] * K).reshape(-1, K)  # (n^K, K)
    return (nodes.probability[tuples].prod(-1) * bound(nodes.log_w[tuples].T)).sum()


# Gates


def leaves(numbers: Numbers) -> Numbers:
    return {name: value.clone().requires_grad_() for name, value in numbers.items()}


def exact_gradient(loss: Tensor, numbers: Numbers, names: Sequence[str]) -> Tensor:
    """Flat, (P,); zeros for what the loss does not depend on."""
    gradients = torch.autograd.grad(loss, [numbers[name] for name in names], allow_unused=True, retain_graph=True)
    return torch.cat(
        [(torch.zeros_like(numbers[n]) if g is None else g).flatten() for n, g in zip(names, gradients, strict=True)]
    )


def drawn_gradients(objective: Any, model: Rows, guide: Rows, x: Tensor, names: Sequence[str]) -> Tensor:
    """The loss's gradient, row by row, (R, P)."""
    parameters = dict(model.named_parameters()) | dict(guide.named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    loss = objective.differentiable_loss(model, guide, x)
    loss.backward()
    return flat_gradients(parameters, names)


def flat_gradients(parameters: dict[str, nn.Parameter], names: Sequence[str]) -> Tensor:
    rows = [parameters[name] for name in names]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(len(p), -1) for p in rows], 1)


def false_alarm(draws: Tensor, expected: Tensor) -> float:
    """Probability of a mean of draws (R, P) as far from `expected` as it is, in the metric of their covariance.

    Numbers that are functions of others (a weight's gradient at one datum, of the bias's) leave directions without
    variance; in these the draws must be as expected to 1e-6.
    """
    spread = draws.std(0)
    unit = torch.where(spread > 1e-10, spread, 1.0)
    away = (draws.mean(0) - expected) / unit
    values, vectors = torch.linalg.eigh(torch.cov((draws / unit).T).reshape(len(unit), len(unit)))
    moving = values > 1e-9
    along = vectors.T @ away
    if (along[~moving].abs() > 1e-6).any():
        return 0.0
    statistic = len(draws) * (along[moving].square() / values[moving]).sum().item()
    return float(stats.chi2.sf(statistic, int(moving.sum()))) if moving.any() else 1.0


def agree(draws: Tensor, expected: Tensor) -> None:
    """The mean of draws (R, P) is as expected, by a χ² test at `LEVEL`, and zero could be told from it."""
    assert false_alarm(draws, expected) > LEVEL
    assert expected.abs().max() == 0 or false_alarm(draws, torch.zeros_like(expected)) < 1e-12, "the test has no power"
