"""A run in progress: what changes as it goes on, an epoch of it, and the state a checkpoint holds."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is there, but not declared as exported

from pyro_lvm.compilation import CompiledLoss
from pyro_lvm.data.dataset import Split
from pyro_lvm.data.fingerprint import fingerprint
from pyro_lvm.data.prefetch import batches
from pyro_lvm.fit.checks import check_alike, data_plates
from pyro_lvm.fit.compiled_step import CompiledStep, ReplayFailed
from pyro_lvm.fit.draws import Draws
from pyro_lvm.fit.evaluation import Evaluation, EvaluationFailed
from pyro_lvm.fit.history import FitResult
from pyro_lvm.fit.identity import check_same, describe
from pyro_lvm.fit.randomness import OwnRandomness
from pyro_lvm.fit.settings import make_optimizer, make_scheduler, scheduler_options
from pyro_lvm.fit.signals import Signals, Stopped
from pyro_lvm.fit.step import PerDatumLoss, Step, StepFailed
from pyro_lvm.fit.update import Update
from pyro_lvm.fit.weight_average import WeightAverage
from pyro_lvm.nonfinite import Fault, NonFiniteError, locate, locate_gradient
from pyro_lvm.objectives import Objective, Table
from pyro_lvm.objectives.whole_batch import sharing
from pyro_lvm.preflight import convert
from pyro_lvm.processes import Processes, Share
from pyro_lvm.programs import Program, parameters_of
from pyro_lvm.threads import threads

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run"]

_log = logging.getLogger("pyro_lvm")

_SMALL_STEP = 20_000_000  # parameters times batch and particles: about 0.1 GFLOP a step
_REPAID = 5000  # steps: compiling takes some 5 to 10 s, and saves 2 ms a step or more


class Run:
    """A run in progress: programs, optimiser, and the weights to go back to."""

    def __init__(
        self,
        fabric: "Fabric",
        programs: tuple[Program, Program],
        objective: Any,
        data: Split,
        validation: Split | None,
        settings: dict[str, Any],
        randomness: OwnRandomness,
        discrete: bool,
        table: Table | None,
        processes: Processes,
    ) -> None:
        self._settings, self._randomness, self._processes = settings, randomness, processes
        self._draws = Draws(processes, data_plates(table))
        self._bits = 1 / (prod(data.shape[1:]) * math.log(2)) if discrete else None
        self.fabric, self.programs, self.objective = fabric, programs, objective
        self.batch_size: int = settings["batch_size"]
        module = PerDatumLoss(programs, objective)
        module.train()
        parameters = parameters_of(programs)
        self.optimizer = make_optimizer(parameters, settings)
        self.scheduler = make_scheduler(self.optimizer, settings)
        self.module, self._fabric_optimizer = fabric.setup(module, self.optimizer)
        self.parameters = parameters
        # Once, after the set-up, which may have moved the programs and changed their precision.
        self.data = convert(data, programs) if isinstance(data, Tensor) else data
        self.validation = convert(validation, programs) if isinstance(validation, Tensor) else validation
        update = Update(fabric, self.module, self._fabric_optimizer, parameters, settings["gradient_clip"], processes)
        self._plain_step = Step(update)
        self._compiled = self._make_compiled(update, module)
        if self._compiled is not None:
            self._draws = Draws(processes, data_plates(table), alike=False)  # it sees no draws in a captured graph
        self._evaluation = Evaluation(
            programs,
            objective,
            self.data if self.validation is None else self.validation,
            # Without validation data a part of the training data shows the divergences well enough.
            rows=8 * self.batch_size if self.validation is None else None,
            has_validation=self.validation is not None,
            size=len(self.data),
            has_table=table is not None,
            seed=settings["seed"],
            processes=processes,
            draws=self._draws,
        )
        # A small step loses more to waiting for other threads than it gains from them, and on a busy machine it waits
        # longest; the rule knows sizes only, so that the same run takes the same path everywhere.
        rows = self.batch_size * getattr(objective, "num_particles", 1)
        multiplications = sum(p.numel() for p in parameters) * rows
        self._num_threads = 1 if multiplications < _SMALL_STEP else torch.get_num_threads()
        self._tensors = dict((*module.named_parameters(), *module.named_buffers()))
        if processes.size > 1:
            check_alike(self._identity | {"epochs": settings["epochs"]}, processes)
        processes.copy_from_leader(self._tensors.values())
        decay = settings["weight_average"]
        self._average = None if decay is None else WeightAverage(parameters, decay)
        # Weights that are kept are never written to, so that the best ones and a checkpoint can be these. Between
        # epochs the programs have the good ones; those visited, which steps go on from, are others with an average.
        self._visited = self._good = self._weights()
        self._best: list[Tensor] | None = None
        self._start = time.perf_counter()

    def _make_compiled(self, update: Update, module: PerDatumLoss) -> CompiledStep | None:
        """The compiled step, where that is asked for, can be and repays the seconds that it takes."""
        B, epochs, compile = self.batch_size, self._settings["epochs"], self._settings["compile"]
        full, steps = self._processes.share(B).length, epochs * (len(self.data) // B)
        # Forked processes share what the compiler keeps in memory, so that several are compiled only if asked to be.
        worth_it = compile == "auto" and steps >= _REPAID and self._processes.size == 1
        if not (compile is True or worth_it):
            return None
        reason = None
        if self._plain_step.asks_for_losses:
            reason = f"{type(self.optimizer).__name__} asks for several losses a step"
        if self.fabric.strategy.precision.precision == "16-mixed":
            reason = "the loss is scaled, for the precision '16-mixed'"
        if reason is not None:
            _log.warning("the programs run as they are, and the loss is not compiled: %s.", reason)
            return None

        def per_datum_loss(x: Tensor) -> Tensor:
            # Fabric's wrapper of the module wants to call `backward` itself.
            with pyro.validation_enabled(False), self.fabric.autocast():
                loss: Tensor = module(x, len(self.data))
            return loss

        loss = CompiledLoss(
            per_datum_loss,
            self.programs,
            self.objective,
            self.parameters,
            # By sizes, and not by the clock: the same run takes the same path everywhere.
            is_worth_it=lambda x: compile is True or (steps if len(x) == full else epochs) >= _REPAID,
            arithmetic=torch.bfloat16 if "bf16" in self.fabric.strategy.precision.precision else torch.float64,
        )
        return CompiledStep(update, loss)

    def epoch(self, epoch: int, signals: Signals) -> dict[str, float]:
        """One pass over the data; its row of the history."""
        self._randomness.load(self._processes.from_leader(self._randomness.state()))
        if self._compiled is None:
            return self._attempt(epoch, signals)
        self._compiled.begin()
        begun = {"random": self._randomness.state(), **self._step_state()}
        try:
            return self._attempt(epoch, signals)
        except ReplayFailed as failed:
            _log.warning("%s in a replayed step: the epoch is run again, and the run goes on uncompiled.", failed)
            self._compiled = None
            self._load_step_state(begun)
            self._randomness.load(begun["random"])
            return self._attempt(epoch, signals)

    def _attempt(self, epoch: int, signals: Signals) -> dict[str, float]:
        with self._randomness, threads(self._num_threads), sharing(self._processes.mean):
            try:
                return self._epoch(epoch, signals)
            except BaseException:
                self._restore(self._good)
                raise

    def _epoch(self, epoch: int, signals: Signals) -> dict[str, float]:
        total, N, step = 0.0, len(self.data), 0
        sign = 1 if isinstance(self.objective, Objective) and self.objective.is_upper_bound else -1  # of bound and loss
        take_step: Step | CompiledStep = self._compiled or self._plain_step
        if self._average is not None:
            self._restore(self._visited)
        order = torch.randperm(N)
        self._draws.begin()
        shares = (self._processes.share(min(self.batch_size, N - start)) for start in range(0, N, self.batch_size))
        with batches(self.data, self._own_rows(order)) as parts:
            for step, share in enumerate(shares):
                batch = self._fetch(parts, share)
                self._processes.work_on(share)
                with self._draws.of_latents(share):
                    try:
                        total += take_step(batch, N) * share.total
                    except StepFailed as failed:
                        what, fault = self._agreed_fault(failed, batch)
                        raise self._error(what, fault, epoch, step) from failed
                if self._average is not None:
                    self._average.update()
                if isinstance(self.objective, Objective):
                    self.objective.advance(share.total / N)
                if self._processes.agree_to_stop(signals.received is not None):
                    raise Stopped
        if self._compiled is not None:
            self._compiled.check()
        self._processes.copy_from_leader(self._tensors.values())  # the same but for buffers such as running statistics
        visited = None
        if self._average is not None:
            visited = self._weights()
            self._average.write()
        row = {"epoch": float(epoch + 1), "train": sign * total / N}
        try:
            row |= self._evaluation(self.module)
        except EvaluationFailed as failed:
            raise self._error(str(failed), self._fault(failed.batch), epoch, step) from failed
        if self._bits is not None:
            row["bits_per_dimension"] = -row.get("validation", row["train"]) * self._bits
        row |= {
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._start,
        }
        row = self._processes.from_leader(row)
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(-row.get("validation", row["train"]))
        elif self.scheduler is not None:
            self.scheduler.step()
        self._good = self._weights()
        self._visited = self._good if visited is None else visited
        return row

    def _own_rows(self, order: Tensor) -> Iterator[Tensor]:
        """This process's share of the rows of each batch."""
        return (self._processes.share(len(rows)).of(rows) for rows in order.split(self.batch_size))

    def _fetch(self, parts: Iterator[Tensor], share: Share) -> Tensor:
        """This process's share of the next batch, and no more of it."""
        if isinstance(self.data, Tensor):
            return next(parts)
        with self._draws.of_data(share):
            return convert(next(parts), self.programs)

    def _agreed_fault(self, failed: StepFailed, batch: Tensor) -> tuple[str, Fault | None]:
        """What failed in a step and where, which all processes give alike: that of the first that has it."""
        what = self._processes.first(str(failed) if failed.is_own else None) or str(failed)
        fault = self._processes.first(self._fault(batch))
        if fault is None and failed.of_gradient:
            fault = self._processes.first(locate_gradient(self.programs, batch, **self._size()))
        return what, fault

    def _fault(self, batch: Tensor) -> Fault | None:
        """Where a value of a batch is not finite, looked for with the same draws again."""
        try:
            with torch.no_grad():
                return locate(self.programs, batch, **self._size())
        except LinAlgError:  # what failed was the factorisation, and the message says which
            return None

    def _size(self) -> dict[str, Any]:
        return {"size": len(self.data)} if self.programs[0].accepts_size else {}

    def _error(self, what: str, fault: Fault | None, epoch: int, step: int) -> NonFiniteError:
        where = "no single site could be blamed" if fault is None else f"{fault}"
        return NonFiniteError(
            f"training stopped at epoch {epoch + 1}, step {step + 1}: {what}; {where}. The programs have the last "
            "good weights again, a finished epoch's; try a smaller learning_rate, gradient_clip, or look at the site.",
            epoch=epoch,
            step=step,
            site=None if fault is None else fault.site,
            layer=None if fault is None else fault.layer,
        )

    def keep_as_best(self) -> None:
        """Remembers the present weights as those to end with."""
        self._best = self._good

    def state(self, result: FitResult) -> dict[str, Any]:
        """All that the next epochs depend on, as it is after the last one; nothing in it changes later."""
        best = None if self._best is None else dict(zip(self._tensors, self._best, strict=True))
        return {
            "settings": self._identity,
            "history": result.history[:],
            "best_epoch": result.best_epoch,
            "weights": dict(zip(self._tensors, self._visited, strict=True)),
            "best_weights": best,
            **self._step_state(),
            "scheduler": None if self.scheduler is None else _copy(self.scheduler.state_dict()),
            "precision": _copy(self.fabric.strategy.precision.state_dict()),
            "random": self._randomness.state(),
            "compiled": None if self._compiled is None else self._compiled.state(),
        }

    def _step_state(self) -> dict[str, Any]:
        """What steps change besides the weights."""
        return {
            "optimizer": _copy(self.optimizer.state_dict()),
            "objective": self.objective.state_dict() if isinstance(self.objective, Objective) else {},
            "average": None if self._average is None else self._average.state(),
        }

    def _load_step_state(self, state: Mapping[str, Any]) -> None:
        self._fabric_optimizer.load_state_dict(state["optimizer"])
        optimised = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, saved in state["optimizer"]["state"].items():
            own = self.optimizer.state[optimised[index]]
            # PyTorch has put them on the right device, but in the parameter's precision, which need not be theirs.
            own |= {n: v.to(own[n].device) for n, v in saved.items() if isinstance(v, Tensor)}
        if isinstance(self.objective, Objective):
            device = self.fabric.device
            self.objective.load_state_dict({name: value.to(device) for name, value in state["objective"].items()})
        if self._average is not None:
            self._average.load(state["average"])

    def check_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises where a state is of a run with other settings, programs or data."""
        check_same(self._identity, state["settings"], path)

    def load(self, state: Mapping[str, Any], result: FitResult) -> None:
        """Takes up a state, with its history."""
        self._restore(list(state["weights"].values()))
        self._visited = self._weights()
        if state["best_weights"] is not None:
            best = zip(state["best_weights"].values(), self._visited, strict=True)
            self._best = [saved.to(like.device) for saved, like in best]
        self._load_step_state(state)
        if self._average is not None and state["history"]:
            self._average.write()
        self._good = self._weights()
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self._compiled is not None and state["compiled"] is not None:
            self._compiled.load(state["compiled"])
        else:  # it had given up, or was too short
            self._compiled = None
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self._randomness.load(state["random"])
        for row in state["history"]:
            result.history.append(row)
            self._start = time.perf_counter() - row["seconds"]
        result.best_epoch, patience = state["best_epoch"], self._settings["early_stopping"]
        result.stopped_early = patience is not None and len(result.history) - result.best_epoch >= patience

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """The settings, programs and data that a run must have in common with the one it continues, for JSON."""
        numbers = ("batch_size", "learning_rate", "gradient_clip", "weight_average", "early_stopping", "seed")
        identity = {name: self._settings[name] for name in (*numbers, "optimizer_options", "compile")} | {
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "scheduler_options": scheduler_options(type(self.scheduler), self._settings),
            "precision": self.fabric.strategy.precision.precision,
            "objective": describe(self.objective),
            "parameters": {n: f"{tuple(t.shape)} {t.dtype}" for n, t in self._tensors.items()},
            "data": fingerprint(self.data),
            "validation": None if self.validation is None else fingerprint(self.validation),
        }
        return dict(json.loads(json.dumps(identity, default=repr)))  # as a file holds it: lists for tuples

    def finish(self, result: FitResult) -> None:
        """Leaves the programs with the weights to end with, and without gradients."""
        if self._best is not None and result.best_epoch != len(result.history):
            self._restore(self._best)
        for parameter in self.parameters:
            parameter.grad = None
        self.module.eval()
        result.seconds = time.perf_counter() - self._start

    def _weights(self) -> list[Tensor]:
        return [t.detach().clone() for t in self._tensors.values()]

    def _restore(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self._tensors.values()), weights)


def _copy(value: Any) -> Any:
    """A state with tensors of its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(v) for key, v in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, (list, tuple)) else value
