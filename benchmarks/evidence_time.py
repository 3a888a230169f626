"""The log-likelihood of MNIST's test digits with K = 5000 draws each, against Pythae's `get_nll`."""

from statistics import median

import torch
from torch import Tensor

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
OURS, PYTHAE = "`log_likelihood`", "Pythae's `get_nll`"
DATA = {OURS: 2000, PYTHAE: 20}  # a turn: ours captures its graph anew in each, which many data have to repay


def measure(settings: Settings) -> Result:
    """Turns over some test digits each, of a pair that was trained for three epochs."""
    rounds = settings.rounds(5)
    x, what = mnist.train()
    problem, weights = mnist.VAE, trained_weights(x)
    digits, _ = mnist.test(10_000)
    model, guide = ours.zoo_pair(problem, weights)
    data = {name: number // 20 if settings.quick else number for name, number in DATA.items()}

    def run_ours() -> Tensor:
        return lvm.log_likelihood(model, guide, digits[: data[OURS]], K, progress=False, compile=settings.compile)

    tasks = {OURS: run_ours}
    if installed("pythae"):
        from benchmarks.contenders.pythae_vae import pythae_vae

        vae = pythae_vae(problem, weights).eval()

        def run_pythae() -> Tensor:
            with torch.no_grad():  # which is left to its user
                # The mean of +log p(x), for its name.
                return torch.as_tensor(vae.get_nll(digits[: data[PYTHAE]], n_samples=K))

        tasks[PYTHAE] = run_pythae
        check_same_estimates(run_ours()[: data[PYTHAE]].mean().item(), run_pythae().item())
    times = in_turns(tasks, rounds, warm_up=0)
    each = {name: [t / data[name] for t in seconds] for name, seconds in times.items()}
    sizes = f"{problem.features}-{problem.hidden}-{problem.latent_dim}"
    result = Result(f"log p(x) with K = {K} of a VAE {sizes}: ms a datum")
    for name, seconds in each.items():
        minutes = median(seconds) * 10_000 / 60
        row = {"contender": name, "data a turn": f"{data[name]:,}", "ms a datum": Spread.of(1e3 * t for t in seconds)}
        result.rows.append(row | {"minutes for 10,000 data": minutes})
        if name != OURS:
            result.rows[-1]["its time / ours"] = ratios(seconds, each[OURS])
    if PYTHAE in each:
        speedup = ratios(each[PYTHAE], each[OURS])
        result.bars.append(Bar(f"K = {K} evaluation: time of Pythae's `get_nll` / ours", speedup, 5, at_least=True))
    flops, rate = 2 * K * problem.hidden * (problem.latent_dim + problem.features), matrix_rate()
    result.notes += [
        f"Data: {what}, {rounds} turns; ours captures its graph anew in each.",
        f"Floor: {flops / 1e9:.2f} GFLOP to decode the draws of a datum, {1e3 * flops / rate:.3g} ms at the machine's "
        f"best rate, {rate / 1e9:.0f} GFLOP/s.",
    ]
    return result


def trained_weights(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights after three epochs, so that the weights of the importance sampling are not absurd."""
    training = HandWrittenTraining(mnist.VAE, mnist.VAE.weights(), x, num_threads=torch.get_num_threads())
    training.run(3 * mnist.VAE.steps)
    return training.module.state_dict()


def check_same_estimates(own: float, other: float) -> None:
    """Raises unless two mean log-likelihoods agree within half a nat, a fraction of what either is off by."""
    if not abs(own - other) < 0.5:
        raise RuntimeError(f"the two estimates of log p(x) differ by {abs(own - other)} nats: they are of two models.")
