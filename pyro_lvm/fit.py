"""The engine: the one training loop, for any model, guide and objective."""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from pyro_lvm.objectives.table import run
from pyro_lvm.preflight import as_programs_data, check_pair, convert, in_batches
from pyro_lvm.programs import Program, pair
from pyro_lvm.progress import progress_bar
from pyro_lvm.run_folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["FitResult", "History", "NonFiniteError", "fit"]

_SMALL_STEP = 50_000_000  # parameters times batch: about 0.3 GFLOP a step


class History(Sequence[dict[str, float]]):
    """One row per epoch; `history[-1]` is the last row, `history["train"]` a column.

    Columns, in nats per datum but for the first and the last three: `epoch` from 1; `train`, the objective's bound,
    its mean over the epoch's steps with the weights of each; `validation`, the bound that early stopping compares
    (higher is better): the same, but an annealed one as it is at the end, and an upper bound's lower one; then, on the
    validation data (some of the training data without any), `elbo`, the evidence lower bound whatever the objective,
    and its parts: `reconstruction`, E[log p(x | z)], and `kl_<site>`, each latent's divergence E[log q − log p];
    `bits_per_dimension` of discrete data, −validation (or −train) / (D log 2); `learning_rate`; `seconds` since the
    start.
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
            `model.safetensors`, written when the run ends, also by an error or Ctrl-C, and every 20 s until then.
        resume: not available yet.
        accelerator: what to train on, as in Lightning Fabric: "auto", "cpu", "cuda", "mps".
        devices: how many of them; one.
        precision: as in Lightning Fabric: "32-true", "64-true", "bf16-mixed" ...; the programs' own where left out.
        progress: show a bar on a terminal.
        run_config: what `config.json` is to hold; these settings where left out.
        on_epoch: called with every row of the history; a true result ends the run.

    Raises:
        DataError: for data that are empty, not finite, outside the likelihood's support or of the wrong shape.
        ValueError: for settings out of range, and for programs that do not belong together.
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
    folder = None if run_dir is None else RunFolder.create(Path(run_dir), run_config or _plain(settings))
    result = FitResult(model, guide, run_dir=None if folder is None else folder.path)
    try:
        with progress_bar("fit", epochs, progress) as advance:
            _train(run_, result, epochs, early_stopping, folder, on_epoch, advance)
    finally:
        run_.finish(result)
        if folder is not None:
            folder.write_programs(model, guide)
    return result


def _train(
    run_: "_Run",
    result: FitResult,
    epochs: int,
    patience: int | None,
    folder: RunFolder | None,
    on_epoch: Callable[[dict[str, float]], object] | None,
    advance: Callable[[int, str], None],
) -> None:
    best = -math.inf
    for epoch in range(epochs):
        row = run_.epoch(epoch)
        result.history.append(row)
        value = row.get("validation", row["train"])
        if patience is None:
            result.best_epoch = epoch + 1
        elif value > best:
            best, result.best_epoch = value, epoch + 1
            run_.keep_as_best()
        if folder is not None:
            folder.write_epoch(row)
            folder.write_programs_if_due(result.model, result.guide)
        advance(1, " ".join(f"{name} {row[name]:.3f}" for name in ("train", "validation") if name in row))
        if on_epoch is not None and on_epoch(row):
            break
        if patience is not None and epoch + 1 - result.best_epoch >= patience:
            result.stopped_early = True
            break


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
        self._randomness, self._has_table = randomness, has_table
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
        self._state = list({id(t): t for t in (*module.parameters(), *module.buffers())}.values())
        self._good = [t.detach().clone() for t in self._state]
        self._best: list[Tensor] | None = None
        self._start = time.perf_counter()

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the data; its row of the history."""
        with self._randomness, _threads(self._num_threads):
            try:
                return self._epoch(epoch)
            except NonFiniteError:
                self._restore(self._good)
                raise

    def _epoch(self, epoch: int) -> dict[str, float]:
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
        self._keep(self._good)
        return row

    def keep_as_best(self) -> None:
        """Remembers the present weights as those to end with."""
        if self._best is None:
            self._best = [t.clone() for t in self._good]
        else:
            self._keep(self._best)

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

    def _restore(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._state, weights)

    def _keep(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(weights, self._state)


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
    if settings["resume"]:
        raise ValueError("'resume' is not available yet: train anew into another 'run_dir'.")
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
    given, options = settings["scheduler"], dict(settings["scheduler_options"] or {})
    if given is None:
        return None
    if callable(given):
        return given(optimizer)
    schedulers = torch.optim.lr_scheduler
    cls = _named_class(given, schedulers, (schedulers.LRScheduler, schedulers.ReduceLROnPlateau), "scheduler")
    if cls is schedulers.CosineAnnealingLR:
        options = {"T_max": settings["epochs"]} | options
    try:
        return cls(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'scheduler_options' do not suit {cls.__name__}: {error}") from error


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
    skipped = ("model", "guide", "data", "validation", "run_config", "on_epoch")
    plain = {name: value for name, value in settings.items() if name not in skipped}
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str, dict)) else repr(value)
        for name, value in plain.items()
    }
