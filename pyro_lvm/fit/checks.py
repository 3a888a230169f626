"""What is checked before a run begins: its settings, its data, and that the programs belong together."""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_lvm.compilation import check_compile
from pyro_lvm.data.dataset import Split
from pyro_lvm.objectives.table import Table, run
from pyro_lvm.preflight import check_pair, convert
from pyro_lvm.processes import Processes
from pyro_lvm.programs import Program

__all__ = ["check_alike", "check_batches", "check_programs", "check_settings", "check_shareable", "data_plates"]


def _table_or_none(programs: tuple[Program, Program], data: Split) -> Table | None:
    """The table of a few data, or None for a pair that has none: latents that only the model has are enumerated."""
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        try:
            return run(*programs, (convert(data[:2], programs),), {})
        except ValueError:
            return None


def check_programs(
    programs: tuple[Program, Program],
    data: Split,
    validation: Split | None,
    batch_size: int,
    objective: Any,
    progress: bool,
) -> tuple[bool, Table | None]:
    """Raises where something does not fit; says whether the data are discrete, and what the pair's table is like."""

    def loss(batch: Tensor) -> Tensor:
        return torch.as_tensor(objective.loss(*programs, batch))

    discrete = check_pair(programs, data, "data", loss, progress=progress)
    if validation is not None:
        check_pair(programs, validation, "validation", loss, progress=progress)
    table = _table_or_none(programs, data)
    if table is not None and table.global_latents and not programs[0].accepts_size and batch_size < len(data):
        raise ValueError(
            f"all data share the latent '{table.global_latents[0]}', but the model accepts no 'size', so a minibatch "
            f"would count its prior once for every {batch_size} data: give the programs the argument 'size' (see "
            f"pyro_lvm.programs.data_plate), or set batch_size={len(data)}."
        )
    return discrete, table


def check_batches(data: Split, validation: Split | None, batch_size: int, early_stopping: int | None) -> None:
    """Raises where the data, the batches and the validation data do not fit together."""
    if batch_size > len(data):
        raise ValueError(
            f"'batch_size' = {batch_size} is larger than the data, which are {len(data)}: set it to that or less."
        )
    if validation is not None and tuple(validation.shape[1:]) != tuple(data.shape[1:]):
        raise ValueError(
            f"'validation' holds data of shape {tuple(validation.shape[1:])}, 'data' of {tuple(data.shape[1:])}: they "
            "must be of one kind."
        )
    if validation is None and early_stopping is not None:
        raise ValueError("'early_stopping' judges by validation data: give 'validation' too.")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises for a setting out of range, and for settings that contradict each other."""
    for name in ("epochs", "batch_size", "early_stopping", "devices"):
        value = settings[name]
        if not (value is None and name == "early_stopping") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"'{name}' must be a whole number of at least 1, not {value!r}.")
    for name in ("learning_rate", "gradient_clip"):
        value = settings[name]
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"'{name}' must be positive and finite, not {value!r}.")
    decay = settings["weight_average"]
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"'weight_average' must lie between 0 and 1, such as 0.999, not {decay!r}.")
    check_compile(settings["compile"])
    for name in ("resume", "overwrite"):
        if settings[name] and settings["run_dir"] is None:
            raise ValueError(f"'{name}' = True is about the run in a folder: give 'run_dir' too.")
    if settings["resume"] and settings["overwrite"]:
        raise ValueError("'resume' and 'overwrite' cannot both be True: one continues the run that the other replaces.")


def data_plates(table: Table | None) -> list[str]:
    """Names of the plates that all data are in; the zoo's where a pair has no table to see them in."""
    if table is None:
        return ["data"]
    around = [site.plates for site in table.sites.values() if not site.is_latent]
    return [name for name, _ in frozenset.intersection(*around)]


def check_shareable(table: Table | None, processes: Processes) -> None:
    """Raises where the shares of a batch would not add up to the batch."""
    if processes.size == 1 or table is None:
        return
    for site in table.latents:
        if site.baseline and not site.is_reparameterised:
            raise ValueError(
                f"the baseline of '{site.name}' learns from the rewards of whole batches, of which several processes "
                "have a share each: train on one device, or leave the baseline to the other particles (num_particles > "
                "1 and no 'baseline' in the guide)."
            )


def check_alike(identity: Mapping[str, Any], processes: Processes) -> None:
    """Raises where the processes of a run have not been given the same."""
    for rank, other in enumerate(processes.gather(dict(identity))):
        for name, value in identity.items():
            if other.get(name) != value:
                raise ValueError(
                    f"'{name}' is {value!r} in process {processes.rank} of the run, but {other.get(name)!r} in process "
                    f"{rank}: all must be given the same."
                )
