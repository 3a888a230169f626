"""Steps per second of ours and of the peers, on one problem: what the benchmarks of training share."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from benchmarks.contenders import ours
from benchmarks.contenders.contender import Contender, installed
from benchmarks.contenders.hand_written import HandWrittenTraining
from benchmarks.interleaving import Times, against_fit
from benchmarks.machine import best_rate, matrix_rate
from benchmarks.problem import Problem, Weights
from benchmarks.results import Bar, Result, Row, Spread, ratios

HAND_WRITTEN, STOCK, NUMPYRO, PYTHAE = "hand-written PyTorch", "stock Pyro SVI", "NumPyro", "Pythae"


@dataclass(frozen=True)
class Target:
    """A bar before it is measured.

    Args:
        family: the peer's.
        limit: the bar.
        speedup: whether it is a number that the peer's time over ours is to reach; else one that ours over the peer's
            is to stay below.
    """

    family: str
    limit: float
    speedup: bool


def compare(
    problem: Problem,
    x: Tensor,
    peers: Callable[[Problem, Weights, Tensor], list[Contender]],
    targets: list[Target],
    *,
    rounds: int,
    peer_steps: int,
    compile: bool,
) -> Result:
    """The table of one problem."""
    weights = problem.weights()
    contenders = peers(problem, weights, x)
    check_same_model(problem, weights, x, contenders)
    times, hopeless = against_fit(problem, weights, x, contenders, rounds, peer_steps, compile)
    mode = "compile=True" if compile else "compile=False"
    result = Result(f"{problem}: ms a step, `fit(..., {mode})` for ours, {rounds} rounds")
    result.rows = [_row(name, times) for name in times]
    best = fastest_of_family(times, contenders)
    for target in targets:
        if target.family in best:
            result.bars.append(_bar(problem, target, times, best[target.family]))
        else:
            result.notes.append(f"{target.family} is not installed, so its bars are not measured.")
    if hopeless:
        named = ", ".join(f"{name} ({1e3 * seconds:.3g} ms)" for name, seconds in hopeless.items())
        result.notes.append(
            f"Much slower than another of the family in the first round, not measured further: {named}."
        )
    result.notes.append(floor(problem))
    return result


def all_peers(problem: Problem, weights: Weights, x: Tensor) -> list[Contender]:
    """Everybody who is installed; PyTorch's once on one thread and once on all."""
    from benchmarks.contenders.stock_pyro import StockPyro  # here, as the benchmark of memory does without

    counts = thread_counts()
    contenders: list[Contender] = [StockPyro(problem, weights, x, count) for count in counts]
    contenders += [StockPyro(problem, weights, x, count, validation=False) for count in counts]
    contenders += fast_peers(problem, weights, x)
    if installed("pythae"):
        from benchmarks.contenders.pythae_vae import Pythae

        contenders += [Pythae(problem, weights, x, count) for count in counts]
    return contenders


def fast_peers(problem: Problem, weights: Weights, x: Tensor) -> list[Contender]:
    """Hand-written PyTorch and NumPyro."""
    contenders: list[Contender] = [HandWrittenTraining(problem, weights, x, count) for count in thread_counts()]
    if installed("jax", "numpyro"):
        from benchmarks.contenders.numpyro_svi import NumPyro

        contenders += [NumPyro(problem, weights, x, whole_epochs=whole) for whole in (False, True)]
    return contenders


def thread_counts() -> list[int]:
    """One thread and all threads."""
    return sorted({1, torch.get_num_threads()})


def check_same_model(problem: Problem, weights: Weights, x: Tensor, contenders: list[Contender]) -> None:
    """Raises unless everybody gives the same data and latents the same log p(x, z) − log q(z | x)."""
    few = x[:8]
    z = torch.randn(len(few), problem.latent_dim, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    expected = ours.log_weight(*ours.zoo_pair(problem, weights), few, z)  # hundreds of nats
    for contender in contenders:
        difference = (contender.log_weight(few, z) - expected).abs().max().item()
        if not difference < 1e-4 * expected.abs().max().item():  # float32, sums of up to a thousand terms
            raise RuntimeError(f"{contender.name} computes another model: log-weights differ by {difference} nats.")


def fastest_of_family(times: Times, contenders: list[Contender]) -> dict[str, str]:
    """The name of each family's fastest variant, of those measured."""
    best: dict[str, str] = {}
    for contender in contenders:
        if contender.name not in times:
            continue
        known = best.setdefault(contender.family, contender.name)
        if median(times[contender.name]) < median(times[known]):
            best[contender.family] = contender.name
    return best


def floor(problem: Problem) -> str:
    """What the step's matrix products take at the machine's best rates."""
    flops, rate = problem.flops(), matrix_rate()
    own = sum(2 * m * k * n / best_rate((m, k, n)) for m, k, n in problem.products())
    return (
        f"Floor: {flops / 1e9:.3f} GFLOP of matrix products a step, {1e3 * flops / rate:.3g} ms at this machine's "
        f"best rate, {rate / 1e9:.0f} GFLOP/s; {1e3 * own:.3g} ms at the best rates of the step's own products."
    )


def _row(name: str, times: Times) -> Row:
    peer, own = times[name], times[ours.NAME]
    row: Row = {"contender": name, "ms a step": Spread.of(1e3 * t for t in peer)}
    row["steps per second"] = 1 / median(peer)
    if name != ours.NAME:
        row |= {"its time / ours": ratios(peer, own), "ours / its time": ratios(own, peer)}
    return row


def _bar(problem: Problem, target: Target, times: Times, peer: str) -> Bar:
    own, other = times[ours.NAME], times[peer]
    if target.speedup:
        return Bar(f"{problem}: time of {peer} / ours", ratios(other, own), target.limit, at_least=True)
    return Bar(f"{problem}: our time / {peer}", ratios(own, other), target.limit, at_least=False)
