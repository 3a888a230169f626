"""What the number of steps costs a diffusion in training: nothing, as a datum meets one of them at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from benchmarks.interleaving import in_turns
from benchmarks.results import Bar, Result, Row, Spread, ratios
from benchmarks.settings import Settings
from pyro_lvm import diffusion, guides, likelihoods, models, networks, objectives
from pyro_lvm.evidence.memory import AllocatedBytes
from pyro_lvm.programs import pair, parameters_of

STEPS, BATCH = (10, 1000), 128
AT_ONCE = 5  # steps of training a turn
BAR = 1.1


def measure(settings: Settings) -> Result:
    """Loss, gradient and update on the bound, of chains of few and of many steps with the same network."""
    result = Result(f"A training step of a diffusion of 8 × 8 digits, {BATCH} data: milliseconds and megabytes")
    takes = {T: step(*pair_of(T)) for T in STEPS}
    for _ in range(3):
        for take in takes.values():
            take()
    memory = {T: allocated(take) for T, take in takes.items()}
    tasks = {str(T): lambda take=take: [take() for _ in range(AT_ONCE)] for T, take in takes.items()}
    times = in_turns(tasks, settings.rounds(15))
    for T in STEPS:
        row: Row = {"steps T": T, "ms a step": Spread.of(1e3 * s / AT_ONCE for s in times[str(T)])}
        row["MB allocated in a step"] = memory[T] / 1e6
        result.rows.append(row)
    few, many = STEPS
    ratio = ratios(times[str(many)], times[str(few)])
    result.bars.append(Bar(f"time at T = {many} / at T = {few}", ratio, BAR, at_least=False))
    result.bars.append(
        Bar(f"memory at T = {many} / at T = {few}", Spread.of([memory[many] / memory[few]]), BAR, at_least=False)
    )
    result.notes.append("`networks.TimeMLP` in its default size, uncompiled; memory is all that operations return.")
    return result


def pair_of(steps: int) -> tuple[nn.Module, nn.Module]:
    """Model and guide of so many steps."""
    torch.manual_seed(0)
    schedule = diffusion.CosineSchedule(steps)
    process = diffusion.ForwardProcess((8, 8), schedule, steps, centre=8.0, spread=8.0)
    net = networks.TimeMLP((8, 8))
    reverse = diffusion.Reverse(net, (8, 8), schedule, diffusion.Epsilon(), diffusion.SmallVariance())
    model = models.Diffusion(process, reverse, likelihoods.NoisedLevels(process, 17))
    return model, guides.SubsampledDiffusion(process)


def step(model: nn.Module, guide: nn.Module) -> Callable[[], None]:
    """One step of training on the same batch."""
    x: Tensor = lvm.data.load("digits").train[:BATCH].float()
    loss = objectives.ELBO(analytic_kl=True)
    programs = pair(model, guide)
    optimizer = torch.optim.Adam(parameters_of(programs), 1e-4)

    def take() -> None:
        optimizer.zero_grad()
        loss.differentiable_loss(*programs, x, size=1000).backward()
        optimizer.step()

    return take


def allocated(take: Callable[[], None]) -> int:
    """Bytes of everything that the operations of a step return."""
    with AllocatedBytes() as mode:
        take()
    return mode.total
