"""What a richer prior or posterior costs: a step of training against the standard normal and the diagonal one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.settings import Settings
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.programs import pair, parameters_of

LATENT, BATCH, HIDDEN = 40, 128, (300, 300)
PLAIN, VAMP, SYLVESTER = (
    "standard normal, diagonal normal",
    "VampPrior, K = 500",
    "orthogonal Sylvester, 4 flows, M' = 16",
)
STEPS = 3  # a turn
BARS = {VAMP: 2.0, SYLVESTER: 2.5}


def measure(settings: Settings) -> Result:
    """Loss, gradient and update of the same autoencoder with one part exchanged, on binary and on grey images."""
    rounds = settings.rounds(15)
    result = Result(f"A training step with {LATENT} latents and {BATCH} data, hidden layers of 300 and 300: ms")
    for shape, levels in (((28, 28), 2), ((8, 8), 17)):
        steps = {name: step(*pair, shape, levels, settings.compile) for name, pair in pairs(shape, levels).items()}
        for _ in range(3):  # the batches before the capture, and the one that holds it against the programs
            for take in steps.values():
                take()
        times = in_turns(
            {name: lambda take=take: [take() for _ in range(STEPS)] for name, take in steps.items()}, rounds
        )
        data = f"{shape[0]} × {shape[1]}, {levels} levels"
        for name, seconds in times.items():
            row = {"data": data, "parts": name, "ms a step": Spread.of(1e3 * s / STEPS for s in seconds)}
            if name != PLAIN:
                ratio = ratios(seconds, times[PLAIN])
                row["its time / the plain one's"] = ratio
                result.bars.append(Bar(f"{data}: {name}, time / the plain one's", ratio, BARS[name], at_least=False))
            result.rows.append(row)
        result.notes.append(f"{data}: {of_products(shape, levels)}.")
    return result


def pairs(shape: tuple[int, int], levels: int) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Model and guide of each."""
    made = {}
    for name in (PLAIN, VAMP, SYLVESTER):
        torch.manual_seed(0)
        if levels == 2:
            decoder: nn.Module = likelihoods.Bernoulli(networks.MLP(LATENT, shape, HIDDEN))
        else:
            decoder = likelihoods.Categorical(networks.MLP(LATENT, (*shape, levels), HIDDEN), levels)
        posterior: nn.Module = posteriors.DiagonalNormal(networks.MLP(shape, 2 * LATENT, HIDDEN, spread=levels - 1.0))
        if name == SYLVESTER:
            net = nn.Sequential(networks.MLP(shape, HIDDEN[-1], HIDDEN[:-1], spread=levels - 1.0), nn.ReLU())
            posterior = posteriors.OrthogonalSylvester(net, HIDDEN[-1], LATENT, flows=4, width=16)
        prior: nn.Module = priors.StandardNormal(LATENT)
        if name == VAMP:
            prior = priors.VampPrior(posterior, shape, components=500, maximum=levels - 1.0)
        made[name] = models.VAE(prior, decoder), guides.Amortized(posterior)
    return made


def step(model: nn.Module, guide: nn.Module, shape: tuple[int, int], levels: int, compile: bool) -> Callable[[], None]:
    """A step of training."""
    x: Tensor = torch.randint(levels, (BATCH, *shape), generator=torch.Generator().manual_seed(0)).float()
    objective: Any = objectives.ELBO()
    loss = lvm.compile(objective, model, guide) if compile else None
    optimizer = torch.optim.Adam(parameters_of(pair(model, guide)), fused=True)

    def take() -> None:
        optimizer.zero_grad()
        if loss is None:
            objective.differentiable_loss(model, guide, x).backward()
        else:
            loss.loss_and_grads(x)
        optimizer.step()

    return take


def of_products(shape: tuple[int, int], levels: int) -> str:
    """What the ratios were if a step were the networks' products and nothing else."""
    D = shape[0] * shape[1]
    encoder = D * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * 2 * LATENT
    decoder = LATENT * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * D * (1 if levels == 2 else levels)
    # Forward, and the gradients of weights and inputs: data need no gradient, pseudo-inputs do.
    plain = BATCH * (3 * encoder - D * HIDDEN[0] + 3 * decoder)
    vamp = 500 * 3 * encoder
    sylvester = BATCH * 3 * HIDDEN[1] * 4 * (LATENT * 16 + 16 * 16 + 3 * 16)  # the layer that gives the flows' numbers
    return (
        f"of the networks' products alone the ratio is {(plain + vamp) / plain:.2f} with 500 pseudo-inputs and "
        f"{(plain + sylvester) / plain:.2f} with the flows' numbers"
    )
