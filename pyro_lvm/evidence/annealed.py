"""Annealed importance sampling, forwards and backwards: the evidence between two bounds."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, log
from typing import Any, cast

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Categorical

from pyro_lvm.evidence.hmc import State, Unconstrained, transition
from pyro_lvm.evidence.log_likelihood import log_mean
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.preflight import as_tensor, check_pair
from pyro_lvm.programs import Constant, Pair, Program, pair
from pyro_lvm.progress import Advance, progress_bar

__all__ = ["Bracket", "annealed_importance_sampling", "simulated"]

_STEEPNESS = 4.0  # δ of the sigmoidal schedule, as Grosse et al. and Wu et al. have it

# The pilot run that finds the step sizes.
_PILOT_CHAINS = 4
_PILOT_TRANSITIONS = 60  # at least, over all temperatures, after the warm-up
_WARM_UP = 30
# In many dimensions 0.65 would be cheapest (Beskos et al., 2013), with little lost up to 0.9 (Betancourt et al., 2014).
# In a few, steps accepted so rarely are as long as the leapfrog is stable, and chains in the tails get stuck.
_TARGET_ACCEPTANCE = 0.9
_FIRST_SIZE = 0.1
_WARM_UP_GAIN, _GAIN = 1.0, 0.3  # of the logarithm of a step size, by the acceptance above the target

_MIXING = 10  # transitions of the reverse chains at the posterior, before they set off: all start from one exact draw


@dataclass(frozen=True, eq=False, repr=False)
class Bracket:
    r"""The evidence of each datum from below and from above.

    Whether `upper` is a bound hangs on where the reverse chains started, which `upper_is_bound` says. Started from
    exact posterior draws, $E[\text{upper}] \ge \log p(x)$. Started from the forward chains' own ends, as for data whose
    latents nobody knows, it is an estimate only: chains that miss a mode of the posterior miss it both ways, and lower
    and upper can then agree far below log p(x).

    Attributes:
        lower, upper: (N,), nats.
        lower_standard_error, upper_standard_error: Monte Carlo errors over the chains, by the delta method, (N,), nats;
            NaN for a single chain. What a datum's reverse chains still share of the one exact draw they all start from
            is not in them.
        x: the data, (N, *data_shape), simulated or as given.
        upper_is_bound: whether `upper` is a stochastic upper bound.
        acceptance: share of the transitions of a datum's chains that were accepted, (N,).
        ess: effective number of the forward chains, (N,), between 1 and `chains`.
        chains: forwards, and as many backwards.
        temperatures: steps of the path from f_0 to the posterior.
    """

    lower: Tensor
    upper: Tensor
    lower_standard_error: Tensor
    upper_standard_error: Tensor
    x: Tensor
    upper_is_bound: bool
    acceptance: Tensor
    ess: Tensor
    chains: int
    temperatures: int

    @property
    def mean_lower(self) -> Tensor:
        """Nats per datum."""
        return self.lower.mean()

    @property
    def mean_upper(self) -> Tensor:
        """Nats per datum."""
        return self.upper.mean()

    @property
    def mean_lower_standard_error(self) -> Tensor:
        """The Monte Carlo error of `mean_lower`, nats per datum: the data's chains are independent."""
        return self.lower_standard_error.square().sum().sqrt() / len(self.lower)

    @property
    def mean_upper_standard_error(self) -> Tensor:
        """The Monte Carlo error of `mean_upper`, nats per datum."""
        return self.upper_standard_error.square().sum().sqrt() / len(self.upper)

    @property
    def width(self) -> Tensor:
        """`mean_upper` − `mean_lower`, nats per datum."""
        return self.mean_upper - self.mean_lower

    def __repr__(self) -> str:
        kind = "" if self.upper_is_bound else " (an estimate, no bound)"
        return (
            f"Bracket({len(self.lower)} data, mean lower {self.mean_lower:.4f} ± {self.mean_lower_standard_error:.4f}, "
            f"upper {self.mean_upper:.4f} ± {self.mean_upper_standard_error:.4f} nats{kind}, {self.chains} chains, "
            f"{self.temperatures} temperatures, acceptance {self.acceptance.mean():.2f})"
        )


def annealed_importance_sampling(
    model: Callable[..., Any],
    x: Tensor | None = None,
    guide: Callable[..., Any] | None = None,
    *,
    size: int | None = None,
    latents: Mapping[str, Tensor] | None = None,
    chains: int = 16,
    temperatures: int | Sequence[float] | Tensor = 200,
    leapfrog_steps: int = 10,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    progress: bool = True,
) -> Bracket:
    r"""Lower and upper bounds on log p(x) that close as the path between prior and posterior is cut finer.

    The path is $\log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log p(x, z)$, with $f_0$ the prior p(z) or the guide
    q(z | x). A forward chain draws $z_0 \sim f_0$ and goes from temperature to temperature by transitions that leave
    $f_{\beta_t}$ invariant. Its weight $w = \prod_t f_{\beta_t}(z_{t-1}) / f_{\beta_{t-1}}(z_{t-1})$ has the mean p(x).
    A reverse chain starts from an exact draw of the posterior, goes the same way back, and has a weight w'. Of K each,

    $$\text{lower} = \log \tfrac1K \sum_k w_k, \qquad \text{upper} = -\log \tfrac1K \sum_k 1 / w'_k, \qquad
    E[\text{lower}] \le \log p(x) \le E[\text{upper}].$$

    An exact draw is known for simulated data, the latents they were made of: leave `x` out and give `size`, or give `x`
    and its `latents`. For other data the reverse chains start from the forward chains' ends, chosen by weight: `upper`
    is then an estimate and no bound, and `upper_is_bound` is False.

    The transitions are Hamiltonian Monte Carlo in unconstrained space. A pilot run finds a step size for every datum
    and temperature, which is then held, so that the weights are unbiased whatever the pilot found. The parameters of
    both programs are constants here and get no gradient.

    Args:
        model: the program, zoo or your own.
        x: data, (N, *data_shape); None to draw `size` of them from the model.
        guide: where the chains start, the closer to the posterior the better; None for the prior.
        size: N, where the data are to be simulated.
        latents: what `x` was simulated from, for every latent of the model, shaped as the model draws it: (N, *event),
            or (*plates, N, *event) inside further plates.
        chains: K, forwards and backwards each.
        temperatures: number T of steps on a sigmoidal path, or the β themselves, increasing from 0 to 1.
        leapfrog_steps: per transition, each with one gradient.
        max_bytes: bound on the memory for one chunk's intermediate values; parameters, x and the results not counted.
        seed: makes the chains repeatable and leaves the caller's random state alone; drawn from it where left out.
        progress: show a bar on a terminal.

    Raises:
        ValueError: for latents that are discrete, shared by all data, or on a set that PyTorch has no bijection to; for
            data that are empty, not finite or outside the likelihood's support; for arguments that do not fit.
        FloatingPointError: where a weight is NaN or infinite.

    References:
        Neal (2001), Annealed Importance Sampling. Grosse, Ghahramani & Adams (2015), Sandwiching the Marginal
        Likelihood Using Bidirectional Monte Carlo. Wu, Burda, Salakhutdinov & Grosse (2017), On the Quantitative
        Analysis of Decoder-Based Generative Models.

    Example:
        >>> from pyro_lvm import exact, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> bracket = annealed_importance_sampling(model, size=20, temperatures=50, seed=0)
        >>> evidence = exact.log_evidence(bracket.x, model.weight, model.bias, model.noise_scale.square())
        >>> below, above = evidence.mean() - bracket.mean_lower, bracket.mean_upper - evidence.mean()
        >>> bool(below.abs() < 0.1), bool(above.abs() < 0.1), bracket.upper_is_bound
        (True, True, True)
    """
    for name, value in (("chains", chains), ("leapfrog_steps", leapfrog_steps)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"'{name}' is a number and must be at least 1, not {value!r}.")
    betas = _schedule(temperatures)
    if x is None and (latents is not None or not isinstance(size, int) or size < 1):
        raise ValueError(
            "without 'x' the data are simulated, latents and all: 'size' says how many and must be at least 1, not "
            f"{size!r}, and 'latents' are left out."
        )
    if x is not None and size is not None:
        raise ValueError("'size' is the number of data to simulate, and 'x' are data: give one of the two.")
    programs: Pair = (Program(model), None) if guide is None else pair(model, guide)
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(seed)
        stack.enter_context(torch.no_grad())
        for program in programs:
            if program is not None:
                stack.enter_context(Constant(program))
        if x is None:
            x, latents = simulated(programs[0], cast(int, size))
        x = as_tensor(x, "x", programs)
        check_pair(programs, x, "x", lambda rows: _start(programs, rows)[1].log_weight)
        if latents is not None:
            latents = Unconstrained(programs, x[:1]).by_datum(latents, len(x))
        # A trajectory that diverges, to be rejected, may meet parameters that Pyro would refuse.
        stack.enter_context(pyro.validation_enabled(False))
        rows = max(1, max_bytes // bytes_per_row(lambda rows: _gradient(programs, rows), x))
        at_once = min(chains, rows)
        runner = _Runner(programs, betas, leapfrog_steps, chains, at_once)
        chunks = x.split(max(1, rows // max(at_once, _PILOT_CHAINS)))
        results, start = [], 0
        with progress_bar("annealed importance sampling", len(chunks) * runner.transitions, progress) as advance:
            for part in chunks:
                own = None if latents is None else {n: value[start : start + len(part)] for n, value in latents.items()}
                results.append(runner(part, own, advance))
                start += len(part)
    lower, upper, lower_error, upper_error, acceptance, ess = (
        torch.cat(column) for column in zip(*results, strict=True)
    )
    return Bracket(
        lower=lower,
        upper=upper,
        lower_standard_error=lower_error,
        upper_standard_error=upper_error,
        x=x,
        upper_is_bound=latents is not None,
        acceptance=acceptance,
        ess=ess,
        chains=chains,
        temperatures=len(betas) - 1,
    )


class _Runner:
    """Anneals the chains of some data forwards and backwards."""

    def __init__(self, programs: Pair, betas: list[float], leapfrog_steps: int, chains: int, at_once: int) -> None:
        self.programs, self.betas, self.leapfrog_steps = programs, betas, leapfrog_steps
        self.steps = len(betas) - 1  # T
        self.groups = [min(at_once, chains - start) for start in range(0, chains, at_once)]
        self.repeats = ceil(_PILOT_TRANSITIONS / self.steps)  # of the pilot, at every temperature

    @property
    def transitions(self) -> int:
        """How many there are for each chunk of data."""
        return _WARM_UP + self.repeats * self.steps + len(self.groups) * (2 * self.steps + _MIXING)

    def __call__(self, x: Tensor, latents: Mapping[str, Tensor] | None, advance: Advance) -> tuple[Tensor, ...]:
        """Lower and upper bounds, their standard errors, acceptance and effective number of chains, (B,) each."""
        sizes = self._pilot(x, advance)
        forward = [self._forward(x, k, sizes, advance) for k in self.groups]
        log_w, ends, accepted = (torch.cat(column) for column in zip(*forward, strict=True))
        lower, lower_error, ess, _ = log_mean(_checked(log_w))
        if latents is None:
            # By weight, the chains' ends are as near to draws from the posterior as anything at hand.
            reached = log_w.isfinite().any(0)
            chosen = Categorical(logits=torch.where(reached, log_w, 0.0).T).sample((len(log_w),))  # (K, B)
            starts = ends.gather(0, chosen.unsqueeze(-1).expand_as(ends))
        else:
            starts = Unconstrained(self.programs, x).pack(latents).expand_as(ends)
        backward = [self._backward(x, u, sizes, advance) for u in starts.split(self.groups)]
        log_v, accepted_back = (torch.cat(column) for column in zip(*backward, strict=True))
        upper, upper_error, _, _ = log_mean(_checked(-log_v))
        return lower, -upper, lower_error, upper_error, torch.cat((accepted, accepted_back)).mean(0), ess

    def _pilot(self, x: Tensor, advance: Advance) -> Tensor:
        """Step sizes for every temperature but the first, where nothing moves, and every datum, (T + 1, B)."""
        density, state = _start(self.programs, _repeated(x, _PILOT_CHAINS))
        log_size = state.log_start.new_full((len(x),), log(_FIRST_SIZE))
        sizes = [log_size]
        for t in range(1, self.steps + 1):
            for gain in (_WARM_UP_GAIN,) * (_WARM_UP if t == 1 else 0) + (_GAIN,) * self.repeats:
                state, accepted = self._move(density, state, t, log_size.exp(), advance)
                log_size = log_size + gain * (accepted.mean(0) - _TARGET_ACCEPTANCE)
            sizes.append(log_size)
        return torch.stack(sizes).exp()

    def _forward(self, x: Tensor, k: int, sizes: Tensor, advance: Advance) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (k, B), where k chains ended (k, B, d), and their acceptance (k, B)."""
        density, state = _start(self.programs, _repeated(x, k))
        log_w = torch.zeros_like(state.log_weight, dtype=torch.float64)
        acceptance = torch.zeros_like(state.log_weight).unflatten(0, (k, -1))
        for t in range(1, self.steps + 1):
            log_w += (self.betas[t] - self.betas[t - 1]) * state.log_weight
            state, accepted = self._move(density, state, t, sizes[t], advance)
            acceptance += accepted / self.steps
        return log_w.unflatten(0, (k, -1)), state.u.unflatten(0, (k, -1)), acceptance

    def _backward(self, x: Tensor, u: Tensor, sizes: Tensor, advance: Advance) -> tuple[Tensor, Tensor]:
        """Log-weights (k, B) of chains that start from u, (k, B, d), at the posterior, and their acceptance (k, B)."""
        k = len(u)
        density = Unconstrained(self.programs, _repeated(x, k))
        state = density.state(u.flatten(0, 1))
        log_w = torch.zeros_like(state.log_weight, dtype=torch.float64)
        acceptance = torch.zeros_like(state.log_weight).unflatten(0, (k, -1))
        for _ in range(_MIXING):
            state, _ = self._move(density, state, self.steps, sizes[-1], advance)
        for t in range(self.steps, 0, -1):
            state, accepted = self._move(density, state, t, sizes[t], advance)
            log_w += (self.betas[t] - self.betas[t - 1]) * state.log_weight
            acceptance += accepted / self.steps
        return log_w.unflatten(0, (k, -1)), acceptance

    def _move(
        self, density: Unconstrained, state: State, t: int, sizes: Tensor, advance: Advance
    ) -> tuple[State, Tensor]:
        """One transition of all chains at a temperature, and the probabilities with which they moved, (k, B)."""
        chains = len(state.u) // len(sizes)
        state, accepted = transition(density, state, self.betas[t], sizes.repeat(chains), self.leapfrog_steps)
        advance(1, "")
        return state, accepted.unflatten(0, (chains, -1))


def _schedule(temperatures: int | Sequence[float] | Tensor) -> list[float]:
    """β from 0 to 1."""
    if isinstance(temperatures, int):
        if temperatures < 1:
            raise ValueError(f"'temperatures' is a number of steps and must be at least 1, not {temperatures}.")
        t = torch.linspace(-1, 1, temperatures + 1, dtype=torch.float64)
        s = (_STEEPNESS * t).sigmoid()
        return [0.0, *((s - s[0]) / (s[-1] - s[0]))[1:-1].tolist(), 1.0]
    betas = torch.as_tensor(temperatures, dtype=torch.float64)
    if betas.dim() != 1 or len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or not bool((betas.diff() > 0).all()):
        raise ValueError(
            "'temperatures' is a number of steps, or a sequence that increases from exactly 0 to exactly 1, not "
            f"{temperatures!r}."
        )
    return betas.tolist()


def simulated(model: Program, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Data from the model, and the latents they are made of."""
    with poutine.block():
        nodes: dict[str, Any] = prune_subsample_sites(poutine.trace(model).get_trace(size=size)).nodes
    x = nodes["_RETURN"]["value"]
    drawn = {name: n["value"] for name, n in nodes.items() if n["type"] == "sample" and not n["is_observed"]}
    latents = {name: value for name, value in drawn.items() if value is not x}
    if len(latents) == len(drawn):
        raise ValueError(
            "the model does not return the value of its data site, so simulated data cannot be told from latents: let "
            "it return what `pyro.sample('x', ..., obs=x)` gives, or simulate the data and give 'x' and 'latents'."
        )
    return x, latents


def _start(programs: Pair, x: Tensor) -> tuple[Unconstrained, State]:
    """One chain for each row of x, drawn from where annealing starts."""
    density = Unconstrained(programs, x)
    return density, density.state(density.draw())


def _gradient(programs: Pair, x: Tensor) -> None:
    """What takes the most memory at once."""
    density, state = _start(programs, x)
    density.gradient(state.u, 0.5)


def _repeated(x: Tensor, chains: int) -> Tensor:
    """The data once for every chain, (chains · B, *data_shape), chain by chain."""
    return x.expand(chains, *x.shape).flatten(0, 1)


def _checked(log_w: Tensor) -> Tensor:
    if bool((log_w.isnan() | (log_w == torch.inf)).any()):
        raise FloatingPointError(
            "a log-weight is NaN or infinite: the weights of model or guide are not finite, or a density overflows."
        )
    return log_w
