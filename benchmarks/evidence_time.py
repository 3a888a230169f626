"""The log-likelihood of MNIST's test digits with K = 5000 draws each, against Pythae's `get_nll`."""

from statistics import median

import torch

import pyro_lvm as lvm
from benchmarks import mnist
from benchmarks.contenders import ours
from benchmarks.contenders.contender import installed
from benchmarks.contenders.hand_written import HandWrittenTraining
from benchmarks.interleaving import in_turns
from benchmarks.machine import matrix_rate
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.settings import Settings

K = 5000
DATA = 20  # a turn
OURS, PYTHAE = "`log_likelihood`", "Pythae's `get_nll`"


def measure(settings: Settings) -> Result:
    """Turns over 20 data at a time, 200 in all, of a pair that was trained for three epochs."""
    rounds = settings.rounds(10)
    x, what = mnist.train()
    problem, weights = mnist.VAE, trained_weights(x)
    blocks, _ = mnist.test((1 + rounds) * DATA)
    model, guide = ours.zoo_pair(problem, weights)
    estimates: dict[str, list[float]] = {OURS: [], PYTHAE: []}

    def run_ours() -> None:
        block = blocks.split(DATA)[len(estimates[OURS])]
        estimates[OURS].append(lvm.log_likelihood(model, guide, block, K, progress=False).mean.item())

    tasks = {OURS: run_ours}
    if installed("pythae"):
        from benchmarks.contenders.pythae_vae import pythae_vae

        vae = pythae_vae(problem, weights).eval()

        def run_pythae() -> None:
            block = blocks.split(DATA)[len(estimates[PYTHAE])]
            with torch.no_grad():  # which is left to its user
                estimates[PYTHAE].append(float(vae.get_nll(block, n_samples=K)))  # the mean of +log p(x), for its name

        tasks[PYTHAE] = run_pythae
    times = in_turns(tasks, rounds)
    sizes = f"{problem.features}-{problem.hidden}-{problem.latent_dim}"
    result = Result(f"log p(x) with K = {K} of a VAE {sizes}: ms a datum")
    for name, seconds in times.items():
        spread = Spread.of(1e3 * t / DATA for t in seconds)
        minutes = median(seconds) / DATA * 10_000 / 60
        result.rows.append({"contender": name, "ms a datum": spread, "minutes for 10,000 data": minutes})
        if name != OURS:
            result.rows[-1]["its time / ours"] = ratios(seconds, times[OURS])
    if PYTHAE in times:
        check_same_estimates(estimates[OURS], estimates[PYTHAE])
        speedup = ratios(times[PYTHAE], times[OURS])
        result.bars.append(Bar(f"K = {K} evaluation: time of Pythae's `get_nll` / ours", speedup, 5, at_least=True))
    flops, rate = 2 * K * problem.hidden * (problem.latent_dim + problem.features), matrix_rate()
    result.notes += [
        f"Data: {what}, {rounds} turns of {DATA}.",
        f"Floor: {flops / 1e9:.2f} GFLOP to decode the draws of a datum, {1e3 * flops / rate:.3g} ms at the machine's "
        f"best rate, {rate / 1e9:.0f} GFLOP/s.",
    ]
    return result


def trained_weights(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights after three epochs, so that the weights of the importance sampling are not absurd."""
    training = HandWrittenTraining(mnist.VAE, mnist.VAE.weights(), x, num_threads=torch.get_num_threads())
    training.run(3 * mnist.VAE.steps)
    return training.module.state_dict()


def check_same_estimates(own: list[float], others: list[float]) -> None:
    """Raises unless two lists of mean log-likelihoods agree within half a nat, a fraction of what either is off by."""
    worst = max(abs(a - b) for a, b in zip(own, others, strict=True))
    if not worst < 0.5:
        raise RuntimeError(f"the two estimates of log p(x) differ by {worst} nats: they are of two models.")
