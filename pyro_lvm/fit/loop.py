"""The one training loop, for any model, guide and objective."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import torch

from pyro_lvm.fit.checks import check_batches, check_programs, check_settings, check_shareable
from pyro_lvm.fit.history import FitResult
from pyro_lvm.fit.randomness import OwnRandomness
from pyro_lvm.fit.run import Run
from pyro_lvm.fit.settings import make_fabric, plain
from pyro_lvm.fit.signals import Signals, Stopped
from pyro_lvm.launching import alone, launching
from pyro_lvm.objectives import ELBO, Objective
from pyro_lvm.preflight import as_programs_data
from pyro_lvm.processes import Processes, ProcessLost
from pyro_lvm.programs import constants_are_meant, pair
from pyro_lvm.progress import progress_bar
from pyro_lvm.run_folder import RunFolder

__all__ = ["fit"]

_log = logging.getLogger("pyro_lvm")


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
    weight_average: float | None = None,
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
        data: the training data: a tensor or array (N, *data_shape), the path of a `.npy` file, a memory-mapped array,
            or a torch Dataset of tensors or (tensor, label). What is too large for memory is read as it is used.
        objective: one of `pyro_lvm.objectives`, or a Pyro ELBO with a `differentiable_loss`; `ELBO()` where left out.
            Its state (the time of a schedule, a multiplier) starts afresh, and is left as the run ends with it.
        validation: data held out, to report and to stop early by.
        epochs: passes over the data.
        batch_size: data per step, of all devices together; the last step of an epoch takes what is left.
        learning_rate: of the optimiser.
        optimizer: a class of `torch.optim`, or its name; Adam and AdamW run fused.
        optimizer_options: further arguments of it.
        scheduler: a class of `torch.optim.lr_scheduler` by name, or a function of the optimiser; stepped once an epoch,
            `ReduceLROnPlateau` with the validation loss.
        scheduler_options: further arguments of it.
        gradient_clip: largest Euclidean norm of the gradient, of the loss per datum.
        weight_average: d between 0 and 1: the programs are judged by, end with and are saved with an average of the
            weights after each step, whose share in it falls by d with every later step, so that it looks back over
            about 1 / (1 − d) steps. Training goes on from the weights themselves; buffers are not averaged.
        early_stopping: epochs without a better validation objective after which to stop; the best weights are restored.
        seed: of every random choice of the run.
        compile: capture a step's graph once and replay it, with the same draws: True does for every shape of batch,
            "auto" where there will be 5,000 batches of it or more, on one device. Programs that cannot be captured run
            as they are, with a line in the log that says why. See docs/compilation.md.
        run_dir: a new or empty folder for `config.json`, written first, `history.csv`, written every epoch, and
            `model.safetensors` and a checkpoint, written when the run ends, also by an error, Ctrl-C or SIGTERM, and
            every 5 s until then; see docs/runs.md.
        resume: continue the run in `run_dir` from its newest checkpoint, to the same weights as without the stop; start
            it where there is none. The settings must be those it began with, but for `epochs`, which may grow.
        overwrite: replace the run that `run_dir` holds.
        accelerator: what to train on, as in Lightning Fabric: "auto", "cpu", "cuda", "mps".
        devices: how many of them, with a process and a share of every batch each, and the same weights in the end. The
            processes are forked from this one; under `torchrun` they are those that it has started, on any number of
            hosts, each of which must make the call. See docs/distributed.md.
        precision: as in Lightning Fabric: "32-true", "64-true", "bf16-mixed" ...; the programs' own where left out.
        progress: show a bar on a terminal.
        run_config: what `config.json` is to hold; these settings where left out.
        on_epoch: called with every row of the history, by the first process; a true result ends the run.

    Raises:
        DataError: for data that are empty, not finite, outside the likelihood's support or of the wrong shape.
        ValueError: for settings out of range, programs that do not belong together, and settings, programs or data
            that are not those of the run to resume.
        OSError: where `run_dir` cannot be written, holds something already, or is being written by another run.
        NonFiniteError: where a loss or gradient is not finite; the programs have the last finished epoch's weights, or
            the best epoch's where training may stop early.
        ProcessLost: where another process was killed or is out of reach; the folder has the last finished epoch.

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
    check_settings(settings)
    programs = pair(model, guide)
    objective = ELBO() if objective is None else objective
    if not callable(getattr(objective, "differentiable_loss", None)):
        raise ValueError(
            f"'objective' must be a Pyro ELBO with a differentiable_loss, which {type(objective).__name__} is not: use "
            "one of pyro_lvm.objectives (IWAE in place of RenyiELBO)."
        )
    if devices > 1:
        import lightning_fabric  # noqa: F401  # before processes are forked, which have what is imported
    with constants_are_meant(), launching(devices) as launch:
        training = as_programs_data(data, "data", programs)
        held_out = None if validation is None else as_programs_data(validation, "validation", programs)
        check_batches(training, held_out, batch_size, early_stopping)
        if isinstance(objective, Objective):
            objective.restart()
        randomness = OwnRandomness(seed)
        with randomness:
            discrete, table = check_programs(programs, training, held_out, batch_size, objective, progress)

        def work(processes: Processes) -> FitResult:
            check_shareable(table, processes)
            fabric = make_fabric(settings, programs, processes)
            run_ = Run(
                fabric, programs, objective, training, held_out, settings, randomness, discrete, table, processes
            )
            return _fit(run_, settings, processes)

        result: FitResult = launch(work)
    return result


def _fit(run_: Run, settings: Mapping[str, Any], processes: Processes) -> FitResult:
    """The run, as one of its processes sees it; the leader writes the folder and calls `on_epoch`."""
    result = FitResult(settings["model"], settings["guide"])
    run_dir, leads = settings["run_dir"], processes.leads
    with ExitStack() as stack:
        folder, signals = None, Signals()
        if run_dir is not None:
            result.run_dir = path = Path(processes.from_leader(run_dir))
            if leads:
                config = settings["run_config"] or plain(settings)
                if settings["resume"]:
                    opened = RunFolder.reopen(path, config)
                else:
                    opened = RunFolder.create(path, config, overwrite=settings["overwrite"])
                folder = stack.enter_context(opened)
            _begin_or_resume(run_, result, folder, settings["epochs"], processes)
            stack.enter_context(signals)
        try:
            with progress_bar("fit", settings["epochs"], settings["progress"] and leads) as advance:
                _train(run_, result, settings, folder, advance, signals, processes)
        except Stopped:
            pass  # whatever was received is told when all is saved
        except BaseException as error:
            run_.finish(result)
            if folder is not None:
                with folder.forgiving():  # what went wrong first is the news
                    folder.write(result.model, result.guide)
            if isinstance(error, ProcessLost):
                message = f"{error}: {_advice(result)}"
                if leads:
                    _log.error(message)  # a launcher may end this process, too, before it can show the error
                raise ProcessLost(message) from error
            raise
        run_.finish(result)
        if folder is not None:
            folder.finish(result.model, result.guide)
        received = processes.first(signals.received)
    signals.tell(received, f"stopped after {_advice(result)}")
    return result


def _advice(result: FitResult) -> str:
    """How far a run that stopped has come, and how it goes on."""
    done = f"{len(result.history)} epochs"
    if result.run_dir is None:
        return f"{done} were done; with a 'run_dir' the run could go on from there."
    return (
        f"{done}: fit(..., run_dir='{result.run_dir}', resume=True) goes on, or `pyro-lvm resume {result.run_dir}` "
        "where a recipe was trained."
    )


def _begin_or_resume(run_: Run, result: FitResult, folder: RunFolder | None, epochs: int, processes: Processes) -> None:
    state = processes.from_leader(None if folder is None else folder.newest_checkpoint())
    if state is None:
        if folder is not None:
            folder.begin(run_.state(result))
        return
    path = cast(Path, result.run_dir)
    run_.check_same(state, path)
    if len(state["history"]) > epochs:
        raise ValueError(
            f"'epochs' = {epochs} are fewer than the {len(state['history'])} that the run in '{path}' has done: give "
            "as many or more."
        )
    run_.load(state, result)
    if folder is not None:
        folder.go_on(state["history"], epochs)


def _train(
    run_: Run,
    result: FitResult,
    settings: Mapping[str, Any],
    folder: RunFolder | None,
    advance: Callable[[int, str], None],
    signals: Signals,
    processes: Processes,
) -> None:
    history, patience, on_epoch = result.history, settings["early_stopping"], settings["on_epoch"]
    advance(len(history), "")
    for epoch in range(len(history), settings["epochs"]):
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
        with alone():
            enough = processes.leads and on_epoch is not None and bool(on_epoch(row))
        if processes.from_leader(enough):
            break


def _judged(row: Mapping[str, float]) -> float:
    return row.get("validation", row["train"])
