"""The zoo's pair, and its training by `fit`."""

from collections.abc import Callable

import pyro.poutine as poutine
import torch
from torch import Tensor

import pyro_lvm as lvm
from benchmarks.problem import LEARNING_RATE, Problem, Weights, load
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.programs import pair

NAME = "ours"


def zoo_pair(problem: Problem, weights: Weights) -> tuple[models.VAE, guides.Amortized]:
    """Model and guide with these weights."""
    D, H, M = problem.features, problem.hidden, problem.latent_dim
    decoder, encoder = networks.MLP(M, D, (H,)), networks.MLP(D, 2 * M, (H,))
    for name, network in (("decoder", decoder), ("encoder", encoder)):
        load(network.layers, name, weights)
    model = models.VAE(priors.StandardNormal(M), likelihoods.Bernoulli(decoder))
    return model, guides.Amortized(posteriors.DiagonalNormal(encoder))


def objective(problem: Problem) -> objectives.Objective:
    """The ELBO, or the importance-weighted bound."""
    return objectives.ELBO() if problem.particles == 1 else objectives.IWAE(problem.particles)


def train(
    problem: Problem,
    weights: Weights,
    x: Tensor,
    epochs: int,
    compile: bool,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> None:
    """Trains the pair as a user does."""
    model, guide = zoo_pair(problem, weights)
    lvm.fit(
        model,
        guide,
        x,
        objective=objective(problem),
        epochs=epochs,
        batch_size=problem.batch,
        learning_rate=LEARNING_RATE,
        compile=compile,
        accelerator="cpu",
        progress=False,
        on_epoch=on_epoch,
    )


def log_weight(model: models.VAE, guide: guides.Amortized, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) − log q(z | x) of the zoo's programs, (B,)."""
    scores = []
    with torch.no_grad():
        for program in pair(model, guide):
            trace = poutine.trace(poutine.condition(program, {"z": z})).get_trace(x)
            trace.compute_log_prob()
            scores.append(sum(trace.nodes[site]["log_prob"] for site in ("z", "x") if site in trace.nodes))
    return scores[0] - scores[1]
