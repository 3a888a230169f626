"""The engine: the one training loop, for any model, guide and objective."""

import inspect
import json
import logging
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pyro
import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is there, but not declared as exported
from torch.nn.utils import get_total_norm

from pyro_lvm.data.checks import check_choice
from pyro_lvm.data.dataset import Split
from pyro_lvm.nonfinite import NonFiniteError, locate, locate_gradient
from pyro_lvm.objectives import ELBO, Objective, Table
from pyro_lvm.objectives.schedules import Schedule
from pyro_lvm.objectives.table import run
from pyro_lvm.preflight import as_programs_data, check_pair, convert, in_batches
from pyro_lvm.programs import Program, pair
from pyro_lvm.progress import progress_bar
from pyro_lvm.run_folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["FitResult", "History", "NonFiniteError", "fit"]

_log = logging.getLogger("pyro_lvm")

_SMALL_STEP = 50_000_000  # parameters times batch: about 0.3 GFLOP a step


class History(Sequence[dict[str, float]]):
    """One row per epoch; `history[-1]` is the last row, `history["train"]` a column.

    Columns, in nats per datum but for the first and the last three: `epoch` from 1; `train`, the objective's bound,
    its mean over the epoch's steps with the weights of each; `validation`, the bound that early stopping compares
    (higher is better): the same, but an annealed one as it is at the end, and an upper bound's lower one; then, on the
    validation data (some of the training data without any), `elbo`, the evidence lower bound whatever the objective,
    and its parts: `reconstruction`, E[log p(x | z)], and `kl_<site>`, each latent's divergence E[log q − log p];
    `bits_per_dimension` of discrete data, −validation (or −train) / (D log 2); `learning_rate`; `seconds` since the
    start, without those between a stop and what resumed the run.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def append(self, row: dict[str, float]) -> None:
        """Adds an epoch."""
        self._rows.append(row)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    @overload
    def __getitem__(self, key: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, key: str) -> list[float]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, float]]: ...
    def __getitem__(self, key: int | str | slice) -> dict[str, float] | list[float] | list[dict[str, float]]:
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"the history has no column {key!r}; it has {', '.join(self.columns)}.")
            return [row.get(key, math.nan) for row in self._rows]
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)


@dataclass
class FitResult:
    """What a run of `fit` leaves behind.

    Attributes:
        model, guide: the programs that were given, trained in place.
        history: one row per epoch; see `History`.
        best_epoch: the epoch, from 1, whose weights the programs have: the best by validation where training may stop
            early, else the last.
        stopped_early: whether the validation objective ended the run.
        seconds: the run's.
        run_dir: where it was written, or None.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    history: History = field(default_factory=History)
    best_epoch: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    run_dir: Path | None = None


def fit(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    data: Any,
    *,
    objective: Any = None,
    validation: Any = None,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimizer: str | type[torch.optim.Optimizer] = "Adam",
    optimizer_options: Mapping[str, Any] | None = None,
    scheduler: str | Callable[[torch.optim.Optimizer], Any] | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    gradient_clip: float | None = None,
    early_stopping: int | None = None,
    seed: int = 0,
    compile: bool | Literal["auto"] = "auto",
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str | None = None,
    progress: bool = True,
    run_config: Mapping[str, Any] | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> FitResult:
    r"""Trains a pair by stochastic gradient ascent, $\max_{\theta, \phi} \frac1N \sum_n \mathcal L(x_n)$.

    The programs are trained in place. Nothing else is: Pyro's parameter store, its validation flags, PyTorch's default
    precision and random state are as before. The same seed gives the same weights, whatever else the process does.

    Args:
        model, guide: the programs, of the zoo or your own; yours may accept `x` only.
        data: the training data: a tensor or array (N, *data_shape), or a torch Dataset of tensors or (tensor, label).
        objective: one of `pyro_lvm.objectives`, or a Pyro ELBO with a `differentiable_loss`; `ELBO()` where left out.
            Its state (the time of a schedule, a multiplier) starts afresh, and is left as the run ends with it.
        validation: data held out, to report and to stop early by.
        epochs: passes over the data.
        batch_size: data per step; the last step of an epoch takes what is left.
        learning_rate: of the optimiser.
        optimizer: a class of `torch.optim`, or its name; Adam and AdamW run fused.
        optimizer_options: further arguments of it.
        scheduler: a class of `torch.optim.lr_scheduler` by name, or a function of the optimiser; stepped once an epoch,
            `ReduceLROnPlateau` with the validation loss.
        scheduler_options: further arguments of it.
        gradient_clip: largest Euclidean norm of the gradient, of the loss per datum.
        early_stopping: epochs without a better validation objective after which to stop; the best weights are restored.
        seed: of every random choice of the run.
        compile: "auto" and False run the programs as they are.
        run_dir: a new or empty folder for `config.json`, written first, `history.csv`, written every epoch, and
            `model.safetensors` and a checkpoint, written when the run ends, also by an error, Ctrl-C or SIGTERM, and
            every 5 s until then; see docs/runs.md.
        resume: continue the run in `run_dir` from its newest checkpoint, to the same weights as without the stop; start
            it where there is none. The settings must be those it began with, but for `epochs`, which may grow.
        overwrite: replace the run that `run_dir` holds.
        accelerator: what to train on, as in Lightning Fabric: "auto", "cpu", "cuda", "mps".
        devices: how many of them; one.
        precision: as in Lightning Fabric: "32-true", "64-true", "bf16-mixed" ...; the programs' own where left out.
        progress: show a bar on a terminal.
        run_config: what `config.json` is to hold; these settings where left out.
        on_epoch: called with every row of the history; a true result ends the run.

    Raises:
        DataError: for data that are empty, not finite, outside the likelihood's support or of the wrong shape.
        ValueError: for settings out of range, programs that do not belong together, and settings, programs or data
            that are not those of the run to resume.
        OSError: where `run_dir` cannot be written, holds something already, or is being written by another run.
        NonFiniteError: where a loss or gradient is not finite; the programs have the last finished epoch's weights, or
            the best epoch's where training may stop early.

    References:
        Hoffman et al. (2013), Stochastic Variational Inference.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model, guide = models.ProbabilisticPCA(5, latent_dim=2), guides.LinearNormal(5, latent_dim=2)
        >>> result = fit(model, guide, torch.randn(100, 5), epochs=3)
        >>> len(result.history), list(result.history[-1])
        (3, ['epoch', 'train', 'elbo', 'reconstruction', 'kl_z', 'learning_rate', 'seconds'])
    """
    settings = dict(locals())
    _check_settings(settings)
    programs = pair(model, guide)
    objective = ELBO() if objective is None else objective
    if not callable(getattr(objective, "differentiable_loss", None)):
        raise ValueError(
            f"'objective' must be a Pyro ELBO with a differentiable_loss, which {type(objective).__name__} is not: use "
            "one of pyro_lvm.objectives (IWAE in place of RenyiELBO)."
        )
    training = as_programs_data(data, "data", programs)
    held_out = None if validation is None else as_programs_data(validation, "validation", programs)
    _check_batches(training, held_out, batch_size, early_stopping)
    if isinstance(objective, Objective):
        objective.restart()
    randomness = _OwnRandomness(seed)
    with randomness:
        discrete, has_table = _check_programs(programs, training, held_out, batch_size, objective)
    fabric = _fabric(settings, programs)
    run_ = _Run(fabric, programs, objective, training, held_out, settings, randomness, discrete, has_table)
    result = FitResult(model, guide)
    with ExitStack() as stack:
        folder, signals = None, _Signals()
        if run_dir is not None:
            config = run_config or _plain(settings)
            result.run_dir = path = Path(run_dir)
            opened = RunFolder.reopen(path, config) if resume else RunFolder.create(path, config, overwrite=overwrite)
            folder = stack.enter_context(opened)
            _begin_or_resume(run_, result, folder, epochs)
            stack.enter_context(signals)
        try:
            with progress_bar("fit", epochs, progress) as advance:
                _train(run_, result, epochs, early_stopping, folder, on_epoch, advance, signals)
        except _Stopped:
            pass  # whatever was received is told when all is saved
        except BaseException:
            run_.finish(result)
            if folder is not None:
                with folder.forgiving():  # what went wrong first is the news
                    folder.write(model, guide)
            raise
        run_.finish(result)
        if folder is not None:
            folder.finish(model, guide)
    signals.tell(
        f"stopped after {len(result.history)} epochs: fit(..., run_dir='{result.run_dir}', resume=True) goes on, or "
        f"`pyro-lvm resume {result.run_dir}` where a recipe was trained."
    )
    return result


def _begin_or_resume(run_: "_Run", result: FitResult, folder: RunFolder, epochs: int) -> None:
    state = folder.newest_checkpoint()
    if state is None:
        folder.begin(run_.state(result))
        return
    run_.check_same(state, folder.path)
    if len(state["history"]) > epochs:
        raise ValueError(
            f"'epochs' = {epochs} are fewer than the {len(state['history'])} that the run in '{folder.path}' has done: "
            "give as many or more."
        )
    run_.load(state, result)
    folder.go_on(state["history"], epochs)


def _train(
    run_: "_Run",
    result: FitResult,
    epochs: int,
    patience: int | None,
    folder: RunFolder | None,
    on_epoch: Callable[[dict[str, float]], object] | None,
    advance: Callable[[int, str], None],
    signals: "_Signals",
) -> None:
    history = result.history
    advance(len(history), "")
    for epoch in range(len(history), epochs):
        if result.stopped_early:
            break
        row = run_.epoch(epoch, signals)
        history.append(row)
        if patience is None:
            result.best_epoch = epoch + 1
        else:
            if epoch == 0 or _judged(row) > _judged(history[result.best_epoch - 1]):
                result.best_epoch = epoch + 1
                run_.keep_as_best()
            result.stopped_early = epoch + 1 - result.best_epoch >= patience
        if folder is not None:
            folder.remember(run_.state(result))
            with folder.forgiving():
                folder.write_epoch(row)
                folder.write_if_due(result.model, result.guide)
        advance(1, " ".join(f"{name} {row[name]:.3f}" for name in ("train", "validation") if name in row))
        if on_epoch is not None and on_epoch(row):
            break


def _judged(row: Mapping[str, float]) -> float:
    return row.get("validation", row["train"])


class _Stopped(BaseException):
    """Between two steps, a signal to stop was found to have been received."""


class _Signals:
    """While it is entered, in the main thread, Ctrl-C and SIGTERM wait for the end of a step; a second one does not."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # ignored, as under nohup, or another library's
                    self._before[number] = handler
                    signal.signal(number, self._receive)

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def check(self) -> None:
        """Raises if a signal was received."""
        if self._received is not None:
            raise _Stopped

    def tell(self, message: str) -> None:
        """Raises what a received signal stands for, if there was one."""
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if self._received == signal.SIGTERM:
            _log.warning(message)  # an exit status has no words
            raise SystemExit(128 + signal.SIGTERM)

    def _receive(self, number: int, frame: object) -> None:
        self._received = number
        self.__exit__()


class _Pair(nn.Module):
    """The loss of a batch per datum, as a module for Fabric to set up."""

    def __init__(self, programs: tuple[Program, Program], objective: Any) -> None:
        super().__init__()
        self.holders = nn.ModuleList(program.module() for program in programs)
        self._programs, self._objective = programs, objective

    def forward(self, x: Tensor, size: int) -> Tensor:
        """Minus the bound, nats per datum, the batch standing for a data set of `size`."""
        if self._programs[0].accepts_size:
            loss: Tensor = self._objective.differentiable_loss(*self._programs, x, size=size)
            return loss / size
        loss = self._objective.differentiable_loss(*self._programs, x)
        return loss / len(x)


class _OwnRandomness:
    """PyTorch's random state as the run's own while it works; outside, as in `on_epoch`, it is the caller's."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._inside = _random_state()
        self._outside = self._inside

    def state(self) -> list[Tensor]:
        """The run's, of the CPU and of every accelerator in use."""
        return self._inside

    def load(self, state: list[Tensor]) -> None:
        """Takes up a state; one of other accelerators than there are now goes on with what they have in common."""
        self._inside = [*state[: len(self._inside)], *self._inside[len(state) :]]

    def __enter__(self) -> None:
        self._outside = _random_state()
        _set_random_state(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = _random_state()
        _set_random_state(self._outside)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _random_state() -> list[Tensor]:
    """Of the CPU and of every accelerator in use."""
    accelerators = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *accelerators]


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


class _Run:
    """A run in progress: programs, optimiser, and the weights to go back to."""

    def __init__(
        self,
        fabric: "Fabric",
        programs: tuple[Program, Program],
        objective: Any,
        data: Split,
        validation: Split | None,
        settings: dict[str, Any],
        randomness: "_OwnRandomness",
        discrete: bool,
        has_table: bool,
    ) -> None:
        self._settings, self._randomness, self._has_table = settings, randomness, has_table
        self._bits = 1 / (prod(data.shape[1:]) * math.log(2)) if discrete else None
        self.fabric, self.programs, self.objective = fabric, programs, objective
        self.batch_size, self.seed, self.gradient_clip = (
            settings["batch_size"],
            settings["seed"],
            settings["gradient_clip"],
        )
        module = _Pair(programs, objective)
        module.train()
        parameters = list({id(p): p for program in programs for p in program.parameters() if p.requires_grad}.values())
        if not parameters:
            raise ValueError("neither 'model' nor 'guide' has a parameter to train.")
        self.optimizer = _optimizer(parameters, settings)
        closure = inspect.signature(self.optimizer.step).parameters["closure"]
        self._asks_for_losses = closure.default is inspect.Parameter.empty  # as LBFGS does
        self.scheduler = _scheduler(self.optimizer, settings)
        self.module, self._fabric_optimizer = fabric.setup(module, self.optimizer)
        self.parameters = parameters
        # Once, after the set-up, which may have moved the programs and changed their precision.
        self.data = convert(data, programs) if isinstance(data, Tensor) else data
        self.validation = convert(validation, programs) if isinstance(validation, Tensor) else validation
        # A small step loses more to waiting for other threads than it gains from them, and on a busy machine it waits
        # longest; the rule knows sizes only, so that the same run takes the same path everywhere.
        multiplications = sum(p.numel() for p in parameters) * self.batch_size
        self._num_threads = 1 if multiplications < _SMALL_STEP else torch.get_num_threads()
        self._tensors = dict((*module.named_parameters(), *module.named_buffers()))
        # Weights that are kept are never written to, so that the best ones and a checkpoint can be these.
        self._good = self._weights()
        self._best: list[Tensor] | None = None
        self._start = time.perf_counter()

    def epoch(self, epoch: int, signals: "_Signals") -> dict[str, float]:
        """One pass over the data; its row of the history."""
        with self._randomness, _threads(self._num_threads):
            try:
                return self._epoch(epoch, signals)
            except BaseException:
                self._restore(self._good)
                raise

    def _epoch(self, epoch: int, signals: "_Signals") -> dict[str, float]:
        total, N, step = 0.0, len(self.data), 0
        sign = 1 if isinstance(self.objective, Objective) and self.objective.is_upper_bound else -1  # of bound and loss
        order = torch.randperm(N)
        for step, start in enumerate(range(0, N, self.batch_size)):
            rows = order[start : start + self.batch_size]
            if isinstance(self.data, Tensor):
                batch = self.data[rows.to(self.data.device)]
            else:
                batch = convert(self.data[rows], self.programs)
            total += self._step(batch, N, epoch, step) * len(rows)
            if isinstance(self.objective, Objective):
                self.objective.advance(len(rows) / N)
            signals.check()
        row = {"epoch": float(epoch + 1), "train": sign * total / N}
        row |= self._evaluate(epoch, step)
        if self._bits is not None:
            row["bits_per_dimension"] = -row.get("validation", row["train"]) * self._bits
        row |= {
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._start,
        }
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(-row.get("validation", row["train"]))
        elif self.scheduler is not None:
            self.scheduler.step()
        self._good = self._weights()
        return row

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
            "weights": dict(zip(self._tensors, self._good, strict=True)),
            "best_weights": best,
            "optimizer": _copy(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else _copy(self.scheduler.state_dict()),
            "objective": self.objective.state_dict() if isinstance(self.objective, Objective) else {},
            "precision": _copy(self.fabric.strategy.precision.state_dict()),
            "random": self._randomness.state(),
        }

    def check_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises where a state is of a run with other settings, programs or data."""
        for name, value in self._identity.items():
            before = state["settings"].get(name)
            if name == "parameters" and value != before:
                different = sorted(n for n in {**value, **before} if value.get(n) != before.get(n))
                raise ValueError(
                    f"'model' or 'guide' is not what the run in '{path}' trained: they differ in {different[:3]}; give "
                    "the same programs, or another 'run_dir'."
                )
            if value != before:
                raise ValueError(
                    f"'{name}' is {_words(value)}, but {_words(before)} in the run in '{path}': give what it began "
                    "with, or another 'run_dir'."
                )

    def load(self, state: Mapping[str, Any], result: FitResult) -> None:
        """Takes up a state, with its history."""
        self._restore(list(state["weights"].values()))
        self._good = self._weights()
        if state["best_weights"] is not None:
            best = zip(state["best_weights"].values(), self._good, strict=True)
            self._best = [saved.to(like.device) for saved, like in best]
        self._fabric_optimizer.load_state_dict(state["optimizer"])
        optimised = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, saved in state["optimizer"]["state"].items():
            own = self.optimizer.state[optimised[index]]
            # PyTorch has put them on the right device, but in the parameter's precision, which need not be theirs.
            own |= {n: v.to(own[n].device) for n, v in saved.items() if isinstance(v, Tensor)}
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if isinstance(self.objective, Objective):
            device = self.fabric.device
            self.objective.load_state_dict({name: value.to(device) for name, value in state["objective"].items()})
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
        same = ("batch_size", "learning_rate", "optimizer_options", "gradient_clip", "early_stopping", "seed")
        identity = {name: self._settings[name] for name in same} | {
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "scheduler_options": _scheduler_options(type(self.scheduler), self._settings),
            "precision": self.fabric.strategy.precision.precision,
            "objective": _described(self.objective),
            "parameters": {n: f"{tuple(t.shape)} {t.dtype}" for n, t in self._tensors.items()},
            "data": _fingerprint(self.data),
            "validation": None if self.validation is None else _fingerprint(self.validation),
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

    def _step(self, batch: Tensor, size: int, epoch: int, step: int) -> float:
        state = _random_state()

        def loss_and_gradient() -> Tensor:
            _set_random_state(state)  # an optimiser that asks several times is to see one function
            return self._loss_and_gradient(batch, size, epoch, step, state)

        if self._asks_for_losses:
            return float(self._fabric_optimizer.step(loss_and_gradient))
        loss = loss_and_gradient()
        self._fabric_optimizer.step()
        return loss.item()

    def _loss_and_gradient(self, batch: Tensor, size: int, epoch: int, step: int, state: list[Tensor]) -> Tensor:
        """The loss, its gradient left on the parameters; a fault is looked for with the same draws again."""
        self._fabric_optimizer.zero_grad()
        try:
            # Pyro's own checks have passed on the first batch; the loss and the gradients are checked at every step.
            with pyro.validation_enabled(False):
                loss: Tensor = self.module(batch, size)
        except LinAlgError as error:
            _set_random_state(state)
            raise self._fault(str(error).splitlines()[0], batch, epoch, step, gradient=False) from error
        if not math.isfinite(loss.item()):
            _set_random_state(state)
            raise self._fault(f"the loss is {loss.item()}", batch, epoch, step, gradient=False)
        self.fabric.backward(loss)
        if self.gradient_clip is not None:
            norm = self.fabric.clip_gradients(
                self.module, self._fabric_optimizer, max_norm=self.gradient_clip, error_if_nonfinite=False
            )
        else:
            norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if norm is not None and not math.isfinite(norm.item()):
            _set_random_state(state)
            raise self._fault("a gradient is not finite", batch, epoch, step, gradient=True)
        return loss.detach()

    def _fault(self, what: str, batch: Tensor, epoch: int, step: int, *, gradient: bool) -> NonFiniteError:
        size = {"size": len(self.data)} if self.programs[0].accepts_size else {}
        try:
            with torch.no_grad():
                fault = locate(self.programs, batch, **size)
        except LinAlgError:  # what failed was the factorisation, and the message says which
            fault = None
        if fault is None and gradient:
            fault = locate_gradient(self.programs, batch, **size)
        where = "no single site could be blamed" if fault is None else f"{fault}"
        return NonFiniteError(
            f"training stopped at epoch {epoch + 1}, step {step + 1}: {what}; {where}. The programs have the last "
            "good weights again, a finished epoch's; try a smaller learning_rate, gradient_clip, or look at the site.",
            epoch=epoch,
            step=step,
            site=None if fault is None else fault.site,
            layer=None if fault is None else fault.layer,
        )

    def _evaluate(self, epoch: int, step: int) -> dict[str, float]:
        """The validation bound, and each latent's divergence, with the same random numbers at every epoch."""
        # Without validation data a part of the training data shows the divergences well enough.
        data = self.data[: 16 * self.batch_size] if self.validation is None else self.validation
        row: dict[str, float] = {}
        self.module.eval()
        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            torch.manual_seed(self.seed)
            for batch in in_batches(data, min(512, len(self.data)), self.programs):
                try:
                    values = self._judge(batch)
                except LinAlgError as error:
                    raise self._fault(str(error).splitlines()[0], batch, epoch, step, gradient=False) from error
                for name, value in values.items():
                    if not math.isfinite(value):
                        raise self._fault(f"'{name}' is {value} after it", batch, epoch, step, gradient=False)
                    row[name] = row.get(name, 0.0) + value * len(batch) / len(data)
        self.module.train()
        return row

    def _judge(self, batch: Tensor) -> dict[str, float]:
        """The bound, if there are validation data, and the divergences of a batch, nats per datum."""
        # With `size` the batch stands for all training data: what they share counts 1/N a datum.
        size = {"size": len(self.data)} if self.programs[0].accepts_size else {}
        table, values = self._table(batch, size), dict[str, float]()
        if self.validation is not None:
            if isinstance(self.objective, Objective) and table is not None:
                bound = self.objective.judge(table).item()
            else:
                bound = -self.objective.loss(*self.programs, batch, **size)
            values["validation"] = bound / (len(self.data) if size else len(batch))
        if table is not None:
            kls = {
                f"kl_{name}": total / (len(self.data) if name in table.global_latents else len(batch))
                for name, total in table.divergences().items()
            }
            reconstruction = table.reconstruction() / len(batch)
            values |= {"elbo": reconstruction - sum(kls.values()), "reconstruction": reconstruction} | kls
        return values

    def _table(self, batch: Tensor, size: dict[str, Any]) -> Table | None:
        if isinstance(self.objective, Objective):
            return self.objective.table(*self.programs, batch, **size)
        return run(*self.programs, (batch,), size) if self._has_table else None

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


def _described(objective: Any) -> str:
    """An objective's class and settings."""
    plain = (bool, int, float, str, Schedule)
    # Pyro's: the first it finds out by itself, the others change no loss.
    skipped = ("max_plate_nesting", "strict_enumeration_warning", "ignore_jit_warnings", "tail_adaptive_beta")
    found = sorted(vars(objective).items())  # what is private comes first, and goes where a public name is the same
    values = {name.lstrip("_"): v for name, v in found if isinstance(v, plain) and name not in skipped}
    return f"{type(objective).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(values.items()))})"


def _fingerprint(data: Split) -> str:
    """The data's size and shape, and of those in memory a checksum."""
    words = f"{len(data)} of shape {tuple(data.shape[1:])}"
    if not isinstance(data, Tensor):
        return words
    content: Any = data.cpu().contiguous().view(torch.uint8).numpy()
    return f"{words}, checksum {zlib.crc32(content):08x}"


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table_or_none(programs: tuple[Program, Program], data: Split) -> Table | None:
    """The table of a few data, or None for a pair that has none: latents that only the model has are enumerated."""
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        try:
            return run(*programs, (convert(data[:2], programs),), {})
        except ValueError:
            return None


def _check_programs(
    programs: tuple[Program, Program], data: Split, validation: Split | None, batch_size: int, objective: Any
) -> tuple[bool, bool]:
    """Raises where something does not fit; says whether the data are discrete, and whether the pair has a table."""

    def loss(batch: Tensor) -> Tensor:
        return torch.as_tensor(objective.loss(*programs, batch))

    discrete = check_pair(programs, data, "data", loss)
    if validation is not None:
        check_pair(programs, validation, "validation", loss)
    table = _table_or_none(programs, data)
    if table is not None and table.global_latents and not programs[0].accepts_size and batch_size < len(data):
        raise ValueError(
            f"all data share the latent '{table.global_latents[0]}', but the model accepts no 'size', so a minibatch "
            f"would count its prior once for every {batch_size} data: give the programs the argument 'size' (see "
            f"pyro_lvm.programs.data_plate), or set batch_size={len(data)}."
        )
    return discrete, table is not None


def _check_batches(data: Split, validation: Split | None, batch_size: int, early_stopping: int | None) -> None:
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


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name in ("epochs", "batch_size", "early_stopping", "devices"):
        value = settings[name]
        if not (value is None and name == "early_stopping") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"'{name}' must be a whole number of at least 1, not {value!r}.")
    for name in ("learning_rate", "gradient_clip"):
        value = settings[name]
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"'{name}' must be positive and finite, not {value!r}.")
    if settings["compile"] not in ("auto", False):
        raise ValueError("'compile' = True is not available yet: leave it 'auto', which runs the programs as they are.")
    for name in ("resume", "overwrite"):
        if settings[name] and settings["run_dir"] is None:
            raise ValueError(f"'{name}' = True is about the run in a folder: give 'run_dir' too.")
    if settings["resume"] and settings["overwrite"]:
        raise ValueError("'resume' and 'overwrite' cannot both be True: one continues the run that the other replaces.")
    if settings["devices"] != 1:
        raise ValueError("'devices' > 1 is not available yet: train on one.")


def _optimizer(parameters: list[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    given = settings["optimizer"]
    cls = _named_class(given, torch.optim, torch.optim.Optimizer, "optimizer") if isinstance(given, str) else given
    options = dict(settings["optimizer_options"] or {})
    if cls in (torch.optim.Adam, torch.optim.AdamW):
        options = {"fused": True} | options
    try:
        return cls(parameters, lr=settings["learning_rate"], **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'optimizer_options' do not suit {cls.__name__}: {error}") from error


def _scheduler(optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> Any:
    given = settings["scheduler"]
    if given is None:
        return None
    if callable(given):
        return given(optimizer)
    schedulers = torch.optim.lr_scheduler
    cls = _named_class(given, schedulers, (schedulers.LRScheduler, schedulers.ReduceLROnPlateau), "scheduler")
    try:
        return cls(optimizer, **_scheduler_options(cls, settings))
    except (TypeError, ValueError) as error:
        raise ValueError(f"'scheduler_options' do not suit {cls.__name__}: {error}") from error


def _scheduler_options(cls: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    usual = {"T_max": settings["epochs"]} if cls is torch.optim.lr_scheduler.CosineAnnealingLR else {}
    return usual | dict(settings["scheduler_options"] or {})


def _named_class(name: str, module: Any, base: Any, argument: str) -> Any:
    names = [n for n, cls in vars(module).items() if isinstance(cls, type) and issubclass(cls, base)]
    check_choice(name, sorted(names), argument)
    return getattr(module, name)


def _fabric(settings: Mapping[str, Any], programs: tuple[Program, Program]) -> "Fabric":
    from lightning_fabric import Fabric  # here, because it takes more than a second to import

    precision: Any = settings["precision"] or _precision(programs)
    try:
        return Fabric(accelerator=settings["accelerator"], devices=settings["devices"], precision=precision)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"'accelerator' = {settings['accelerator']!r} with 'precision' = {precision!r} cannot be had: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _precision(programs: tuple[Program, Program]) -> str:
    double = any(program.reference().dtype == torch.float64 for program in programs if program.reference().numel())
    return "64-true" if double else "32-true"


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a JSON file can hold; the rest by name."""
    skipped = ("model", "guide", "data", "validation", "run_config", "on_epoch", "resume", "overwrite")
    plain = {name: value for name, value in settings.items() if name not in skipped}
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str, dict)) else repr(value)
        for name, value in plain.items()
    }
