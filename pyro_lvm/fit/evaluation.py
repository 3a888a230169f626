"""What a row of the history says of the weights as they are: the validation bound, the ELBO and its parts."""

import math
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is there, but not declared as exported

from pyro_lvm.data.dataset import Split, rows_at_once
from pyro_lvm.fit.draws import Draws
from pyro_lvm.objectives import Objective, Table
from pyro_lvm.objectives.table import run
from pyro_lvm.preflight import convert
from pyro_lvm.processes import Processes
from pyro_lvm.programs import Program

__all__ = ["Evaluation", "EvaluationFailed"]


class EvaluationFailed(Exception):
    """A value is not finite, or a factorisation failed, on a batch."""

    def __init__(self, what: str, batch: Tensor) -> None:
        super().__init__(what)
        self.batch = batch


class Evaluation:
    """Evaluates a pair after an epoch, with the same random numbers at every one.

    Args:
        programs, objective: what is trained.
        data: the validation data, or the training data without any.
        rows: how many of them to use, the first ones; all where None.
        has_validation: whether they are the former.
        size: the number of training data, which the programs' plates stand for: what they share counts 1/N a datum.
        has_table: whether the pair has one, also for an objective that reads none.
        seed: of the random numbers.
        processes: which have a share of every batch each.
        draws: how they draw.
    """

    def __init__(
        self,
        programs: tuple[Program, Program],
        objective: Any,
        data: Split,
        *,
        rows: int | None,
        has_validation: bool,
        size: int,
        has_table: bool,
        seed: int,
        processes: Processes,
        draws: Draws,
    ) -> None:
        self._processes, self._draws = processes, draws
        self._programs, self._objective, self._data, self._rows = programs, objective, data, rows
        self._has_validation, self._has_table, self._size, self._seed = has_validation, has_table, size, seed

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """The columns of a row, nats per datum.

        Raises:
            EvaluationFailed: where a value is not finite.
        """
        row: dict[str, float] = {}
        N, rows = (
            min(len(self._data), self._rows or len(self._data)),
            min(512, rows_at_once(self._data.shape), self._size),
        )
        module.eval()
        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            torch.manual_seed(self._seed)
            for start in range(0, N, rows):
                share = self._processes.share(min(rows, N - start))
                with self._draws.of_data(share):
                    batch = convert(self._data[start + share.start : start + share.stop], self._programs)
                self._processes.work_on(share)
                with self._draws.of_latents(share):
                    try:
                        values = self._judge(batch)
                    except LinAlgError as error:
                        raise EvaluationFailed(str(error).splitlines()[0], batch) from error
                for name, value in values.items():
                    if not math.isfinite(value):
                        raise EvaluationFailed(f"'{name}' is {value} after it", batch)
                    row[name] = row.get(name, 0.0) + value * share.counted / N
        module.train()
        return self._processes.total(row)

    def _judge(self, batch: Tensor) -> dict[str, float]:
        """The bound, if there are validation data, and the divergences of a batch, nats per datum."""
        size = {"size": self._size} if self._programs[0].accepts_size else {}
        table, values = self._table(batch, size), dict[str, float]()
        if self._has_validation:
            if isinstance(self._objective, Objective) and table is not None:
                bound = self._objective.judge(table).item()
            else:
                bound = -self._objective.loss(*self._programs, batch, **size)
            values["validation"] = bound / (self._size if size else len(batch))
        if table is not None:
            kls = {
                f"kl_{name}": total / (self._size if name in table.global_latents else len(batch))
                for name, total in table.divergences().items()
            }
            reconstruction = table.reconstruction() / len(batch)
            values |= {"elbo": reconstruction - sum(kls.values()), "reconstruction": reconstruction} | kls
        return values

    def _table(self, batch: Tensor, size: dict[str, Any]) -> Table | None:
        if isinstance(self._objective, Objective):
            return self._objective.table(*self._programs, batch, **size)
        return run(*self._programs, (batch,), size) if self._has_table else None
