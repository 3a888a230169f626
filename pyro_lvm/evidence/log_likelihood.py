"""The log-likelihood of data by importance sampling from the guide."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from math import log, prod
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_lvm.capture import ProductChoices, Replayer
from pyro_lvm.compilation import check_compile
from pyro_lvm.evidence.estimates import Estimates, of_each_datum
from pyro_lvm.evidence.khat import pareto_khat
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.launching import launching
from pyro_lvm.objectives.table import Table, run, structure
from pyro_lvm.preflight import as_programs_data, check_pair, convert
from pyro_lvm.processes import Processes
from pyro_lvm.programs import Pair, pair, tensors_of
from pyro_lvm.progress import progress_bar

__all__ = ["LogLikelihood", "log_likelihood"]

_REPAID = 5e10  # bytes of intermediate values: some 10 s of work, of which replaying saves a third or more


class LogLikelihood(Estimates):
    """Estimates of log p(x), one per datum, (N,), nats: a tensor that knows how good it is.

    Attributes:
        mean: their mean, nats per datum.
        standard_error: of each estimate, (N,), nats: the Monte Carlo error, by the delta method.
        mean_standard_error: the Monte Carlo error of the mean, nats per datum.
        sampling_error: the error of the mean as one over the population the data come from, nats per datum.
        ess: effective number of the draws, (N,), between 1 and `num_particles`.
        khat: shape of the weights' tail, (N,), by Pareto-smoothed importance sampling; above 0.7 the estimate and its
            error are not to be trusted. NaN with fewer than 25 draws.
        bits_per_dimension: −mean / (D log 2), for discrete data of D values.
        num_particles, features: K, D.
        is_discrete: whether the likelihood of the data is a probability, and not a density.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> ll = log_likelihood(model, guides.LinearNormal(5, latent_dim=2), torch.zeros(8, 5), num_particles=100)
        >>> ll.shape, ll.khat.shape, bool(ll.mean < 0), bool(ll.mean_standard_error < 0.1)
        (torch.Size([8]), torch.Size([8]), True, True)
    """

    standard_error: Tensor
    mean_standard_error: Tensor
    ess: Tensor
    khat: Tensor
    num_particles: int
    features: int
    is_discrete: bool

    def __repr__(self) -> str:  # type: ignore[override]
        return (
            f"LogLikelihood({len(self)} data, mean {self.mean():.4f} ± {self.mean_standard_error:.4f} nats, "
            f"{self.num_particles} particles, worst k-hat {self.khat.max():.2f})"
        )


def log_likelihood(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    num_particles: int = 5000,
    *,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    vectorize_particles: bool = True,
    devices: int = 1,
    compile: bool | Literal["auto"] = "auto",
    progress: bool = True,
) -> LogLikelihood:
    r"""$\log \hat p(x_n) = \log \frac1K \sum_k \frac{p(x_n, z_k)}{q(z_k \mid x_n)}$, $z_k \sim q(\cdot \mid x_n)$.

    A lower bound in expectation, within the returned standard error of log p(x) where k-hat is below 0.7. For programs
    with latents that all data share, these are drawn from the guide as from a posterior, without a weight: the result
    is then the log posterior predictive of x.

    Exactly K draws are made for every datum, in chunks over data and draws.

    Args:
        model, guide: the pair, zoo or your own.
        x: data, (N, *data_shape).
        num_particles: K; 512 at least for numbers to report.
        max_bytes: bound on the memory for one chunk's intermediate values; parameters, x and the N results not counted,
            and K log-weights per datum of a chunk, 8 bytes each.
        seed: makes the draws repeatable, for one number of processes, and leaves the caller's random state alone; drawn
            from it where left out.
        vectorize_particles: False runs the programs once per draw, for programs that cannot take a dimension of
            particles on the left of their latents.
        devices: processes that have a share of the data each, forked from this one; under `torchrun` it is all that
            this has started, each of which must make the call and gets the whole result. See docs/distributed.md.
        compile: replay a captured graph, with the same draws; "auto" does where there are enough chunks to repay it.
            See docs/compilation.md.
        progress: show a bar on a terminal.

    Raises:
        ValueError: for data that are empty, not finite or outside the likelihood's support; fewer than 1 particle;
            programs without a data plate over x, or that subsample it themselves, or whose log-weights are themselves
            estimates, as a diffusion's are.
        FloatingPointError: where a log-weight is NaN.
        ProcessLost: where a process was killed.

    References:
        Burda, Grosse & Salakhutdinov (2015), Importance Weighted Autoencoders. Vehtari et al. (2024), Pareto Smoothed
        Importance Sampling.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> ll = log_likelihood(model, guides.ExactPPCA(model), torch.randn(10, 5), num_particles=100)
        >>> ll.shape, bool(ll.standard_error.max() < 1e-5), bool(ll.ess.min() > 99.9)
        (torch.Size([10]), True, True)
    """
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(f"'devices' is a number of processes and must be at least 1, not {devices!r}.")
    check_compile(compile)
    programs = pair(model, guide)
    with launching(devices) as launch:
        result: LogLikelihood = launch(
            lambda processes: estimate(
                programs, x, num_particles, max_bytes, seed, vectorize_particles, compile, progress, processes
            )
        )
    return result


def estimate(
    programs: Pair,
    x: Tensor,
    num_particles: int,
    max_bytes: int,
    seed: int | None,
    vectorize_particles: bool,
    compile: bool | Literal["auto"],
    progress: bool,
    processes: Processes,
) -> LogLikelihood:
    """The log-likelihood by importance sampling from a pair's guide, or from its model's prior in place of one."""
    if not isinstance(num_particles, int) or num_particles < 1:
        raise ValueError(f"'num_particles' is a number of draws and must be at least 1, not {num_particles!r}.")
    everything = as_programs_data(x, "x", programs)
    N, share = len(everything), processes.share(len(everything))
    x = convert(everything[share.start : share.stop], programs)
    is_discrete = check_pair(
        programs,
        everything if isinstance(everything, Tensor) else x,  # what is in memory is looked at whole
        "x",
        lambda rows: datum_log_weight(run(*programs, (rows,), {}), rows),
    )
    seed = _own_seed(seed, processes)
    draws = torch.random.fork_rng() if seed is not None else nullcontext()
    with draws, torch.no_grad():
        if seed is not None:
            torch.manual_seed(seed)
        nesting = structure(*programs, (x[:1],), {}).nesting
        bytes_per_pair = bytes_per_row(lambda rows: datum_log_weight(run(*programs, (rows,), {}), rows), x)
        pairs = max(1, max_bytes // bytes_per_pair)
        # A chunk is many draws for few data, which are encoded once; but latents that all data share are drawn anew for
        # every chunk of data, and so are drawn for as many data as possible.
        if not vectorize_particles:
            K, B = 1, min(pairs, len(x))
        elif run(*programs, (x[:1],), {}).global_latents:
            B = min(pairs, len(x))
            K = min(num_particles, max(1, pairs // B))
        else:
            K = min(num_particles, pairs)
            B = min(max(1, pairs // K), len(x))
        weigh = _Weigh(programs, num_particles, K, nesting)
        # Forked processes share what the compiler keeps in memory, so that several are compiled only if asked to be.
        repays = processes.size == 1 and num_particles * len(x) * bytes_per_pair >= _REPAID
        if compile is True or (compile == "auto" and repays):
            weigh.replay(B)
        # Results have their memory from the start: small tensors made between large ones, and kept, would break up what
        # the large ones leave behind, and memory would grow from chunk to chunk.
        columns = torch.zeros(4, N, dtype=torch.float64, device=x.device)
        variance, done = torch.zeros((), dtype=torch.float64, device=x.device), share.start
        with progress_bar("log-likelihood", len(x), progress and processes.leads) as advance:
            for rows in x[: share.counted].split(B) if share.counted else ():
                *parts, part_variance = _read(weigh(rows))
                for column, part in zip(columns, parts, strict=True):
                    column[done : done + len(rows)] = part
                variance += part_variance
                done += len(rows)
                advance(len(rows), "")
    processes.add(columns)  # exact: all but one of the numbers added are 0
    processes.add(variance)
    values, error, ess, khat = columns.unbind()
    result = values.as_subclass(LogLikelihood)
    result.standard_error, result.ess, result.khat = error, ess, khat
    result.mean_standard_error = variance.sqrt() / N
    result.num_particles, result.features, result.is_discrete = num_particles, prod(x.shape[1:]), is_discrete
    return result


def _own_seed(seed: int | None, processes: Processes) -> int | None:
    """A seed for each of several processes, so that their draws have nothing to do with one another's."""
    if processes.size == 1:
        return seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    seeds: list[int] = torch.randint(2**62, (processes.size,), generator=generator, device="cpu").tolist()
    return processes.from_leader(seeds)[processes.rank]


class _Weigh:
    """The log-weights of some data.

    Args:
        programs: the pair.
        num_particles: all draws for a datum.
        at_once: how many of them in one run of the programs.
        nesting: of their plates.
    """

    def __init__(self, programs: Pair, num_particles: int, at_once: int, nesting: int) -> None:
        self._programs, self._nesting = programs, nesting
        whole, rest = divmod(num_particles, at_once)
        self._counts = [at_once] * whole + [rest] * (rest > 0)
        self._runs: dict[int, Callable[[Tensor], Sequence[Tensor]]] = {k: partial(self._run, k) for k in self._counts}

    def replay(self, rows: int) -> None:
        """Replays a captured graph for chunks of so many data and as many draws as are made at once."""
        fixed, k = tensors_of(self._programs), self._counts[0]
        self._runs[k] = Replayer(
            self._runs[k],
            lambda: fixed,
            ProductChoices(),
            is_worth_it=lambda x: len(x) == rows,
            what=f"the evidence by {k} draws",
        )

    def __call__(self, x: Tensor) -> Tensor:
        """All of them, (K, B), float64."""
        log_w = torch.cat([self._runs[k](x)[0].double() for k in self._counts])
        _check(log_w)
        return log_w

    def _run(self, k: int, x: Tensor) -> list[Tensor]:
        table = run(*self._programs, (x,), {}, num_particles=k, nesting=self._nesting)
        return [datum_log_weight(table, x)]


def _check(log_w: Tensor) -> None:
    if bool((log_w.isnan() | (log_w == torch.inf)).any()):
        raise FloatingPointError(
            "a log-weight is NaN or infinite: the weights of model or guide are not finite, or a density overflows."
        )


def datum_log_weight(table: Table, x: Tensor) -> Tensor:
    """The log-weights of each datum, (K, B)."""

    def log_weight(local: Table) -> Tensor:
        local.check_weights("an estimate of the evidence")
        return local.log_weight()

    return of_each_datum(table, x, log_weight, "log-likelihood")


def _read(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Estimates, their standard errors, effective sample sizes, k-hats, and the variance of their sum, from (K, B)."""
    value, error, ess, share = log_mean(log_w)
    # Of the sum over data draw by draw: right also where all data share a draw's latents.
    K = len(share)
    variance = share.sum(1).var() * K if K > 1 else value.new_full((), torch.nan)
    return value, error, ess, pareto_khat(log_w), variance


def log_mean(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log (1/K) Σ w of (K, B) weights, with its standard errors, the effective sample sizes and the shares w / Σ w."""
    K = len(log_w)
    total = log_w.logsumexp(0)
    share = (log_w - total).exp().nan_to_num()  # a datum whose weights are all zero has no shares
    error = share.std(0) * K**0.5 if K > 1 else torch.full_like(total, torch.nan)
    ess = 1 / share.square().sum(0).clamp_min(1e-300)
    return total - log(K), error, torch.where(total.isfinite(), ess, 0.0), share
