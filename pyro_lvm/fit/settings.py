"""What settings of `fit` stand for: the optimiser, the scheduler, the device and its precision."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyro_lvm.data.checks import check_choice
from pyro_lvm.processes import Processes
from pyro_lvm.programs import Program

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["make_fabric", "make_optimizer", "make_scheduler", "plain", "scheduler_options"]


def make_optimizer(parameters: list[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for; Adam and AdamW fused."""
    given = settings["optimizer"]
    cls = _named_class(given, torch.optim, torch.optim.Optimizer, "optimizer") if isinstance(given, str) else given
    options = dict(settings["optimizer_options"] or {})
    if cls in (torch.optim.Adam, torch.optim.AdamW):
        options = {"fused": True} | options
    try:
        return cls(parameters, lr=settings["learning_rate"], **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'optimizer_options' do not suit {cls.__name__}: {error}") from error


def make_scheduler(optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> Any:
    """The scheduler of the learning rate, or None."""
    given = settings["scheduler"]
    if given is None:
        return None
    if callable(given):
        return given(optimizer)
    schedulers = torch.optim.lr_scheduler
    cls = _named_class(given, schedulers, (schedulers.LRScheduler, schedulers.ReduceLROnPlateau), "scheduler")
    try:
        return cls(optimizer, **scheduler_options(cls, settings))
    except (TypeError, ValueError) as error:
        raise ValueError(f"'scheduler_options' do not suit {cls.__name__}: {error}") from error


def scheduler_options(cls: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's options, with those that `fit` knows better than the caller."""
    usual = {"T_max": settings["epochs"]} if cls is torch.optim.lr_scheduler.CosineAnnealingLR else {}
    return usual | dict(settings["scheduler_options"] or {})


def _named_class(name: str, module: Any, base: Any, argument: str) -> Any:
    names = [n for n, cls in vars(module).items() if isinstance(cls, type) and issubclass(cls, base)]
    check_choice(name, sorted(names), argument)
    return getattr(module, name)


def make_fabric(settings: Mapping[str, Any], programs: tuple[Program, Program], processes: Processes) -> "Fabric":
    """Lightning Fabric for the accelerator and the precision asked for, on this process's device."""
    from lightning_fabric import Fabric  # here, because it takes more than a second to import

    precision: Any = settings["precision"] or _precision(programs)
    several: dict[str, Any] = {}
    if processes.size > 1:
        from pyro_lvm.fit.replicas import Replicas

        several = {"strategy": Replicas(processes), "num_nodes": max(1, processes.size // processes.on_host)}
    try:
        fabric = Fabric(accelerator=settings["accelerator"], devices=processes.on_host, precision=precision, **several)
        if several:
            fabric.launch()
        return fabric
    except (ValueError, RuntimeError, TypeError) as error:
        on = f" on {processes.on_host} devices" if several else ""
        raise ValueError(
            f"'accelerator' = {settings['accelerator']!r} with 'precision' = {precision!r} cannot be had{on}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _precision(programs: tuple[Program, Program]) -> str:
    double = any(program.reference().dtype == torch.float64 for program in programs if program.reference().numel())
    return "64-true" if double else "32-true"


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a JSON file can hold; the rest by name."""
    skipped = ("model", "guide", "data", "validation", "run_config", "on_epoch", "resume", "overwrite")
    kept = {name: value for name, value in settings.items() if name not in skipped}
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str, dict)) else repr(value)
        for name, value in kept.items()
    }
