"""Draws from a diffusion of 1000 steps of 8 × 8 digits: all steps, and 50 of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Row, Spread
from benchmarks.settings import Settings
from pyro_lvm import diffusion, likelihoods, models, networks

STEPS, DIGITS, LEVELS = 1000, 64, 17
BARS = {"all 1000 steps": 10.0, "DDIM, 50 steps": 1.0}  # seconds


def measure(settings: Settings) -> Result:
    """Both ways to sample with both networks; weights take no part in how long it takes."""
    tasks: dict[str, Callable[[], Tensor]] = {}
    sizes: dict[str, int] = {}
    for name, net in nets().items():
        model = diffusion_of(net)
        sizes[name] = sum(p.numel() for p in net.parameters())
        tasks[f"{name}: all 1000 steps"] = lambda model=model: model.sample(DIGITS)  # type: ignore[misc]
        tasks[f"{name}: DDIM, 50 steps"] = lambda model=model: diffusion.DDIM(50)(model, DIGITS)  # type: ignore[misc]
    result = Result(f"{DIGITS} digits of 8 × 8 from a diffusion of {STEPS} steps: seconds")
    for task, seconds in in_turns(tasks, settings.rounds(5)).items():
        name, sampler = task.split(": ")
        spread = Spread.of(seconds)
        row: Row = {"network": name, "parameters": f"{sizes[name]:,}", "sampler": sampler, "seconds": spread}
        result.rows.append(row)
        result.bars.append(Bar(f"{task}: seconds", spread, BARS[sampler], at_least=False))
    result.notes.append("Networks in their default sizes, uncompiled; on all cores.")
    return result


def nets() -> dict[str, nn.Module]:
    """The two networks, of levels."""
    torch.manual_seed(0)
    out = (8, 8, LEVELS)
    return {"`networks.TimeMLP`": networks.TimeMLP((8, 8), out), "`networks.UNet`": networks.UNet((8, 8), 1, out)}


def diffusion_of(net: nn.Module) -> models.Diffusion:
    """As the zoo's `ddpm`."""
    schedule = diffusion.LinearSchedule(STEPS)
    process = diffusion.ForwardProcess((8, 8), schedule, STEPS, centre=8.0, spread=8.0)
    denoiser = diffusion.LevelDenoiser(net, process, LEVELS)
    reverse = diffusion.Reverse(denoiser, (8, 8), schedule, diffusion.Start(), diffusion.SmallVariance())
    return models.Diffusion(process, reverse, likelihoods.DiscretizedNormal(process, reverse, LEVELS))
