"""Runs side by side: what was measured of each, what was not and why, and what kind of model it is."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor

from pyro_lvm import diagnostics, guides, models, workflow
from pyro_lvm.data.dataset import SplitName
from pyro_lvm.diagnostics.drawing import Sampler
from pyro_lvm.evidence import log_likelihood
from pyro_lvm.objectives.table import run as run_table
from pyro_lvm.preflight import as_tensor, in_batches
from pyro_lvm.programs import pair, parameters_of
from pyro_lvm.progress import progress_bar
from pyro_lvm.report import Column, Number, diagnose_run, write_comparison
from pyro_lvm.run_folder import RunFolder
from pyro_lvm.workflow import Evaluation, Run

__all__ = ["Compared", "Comparison", "compare", "write_page"]

SAMPLES = 64  # data drawn for the time it takes
SHOWN = 36  # data drawn for a page

_ROUNDS = 5  # of the runs, in turn: a machine that slows down meanwhile slows all
_SLOW = 2.0  # seconds; what takes longer is timed once
_ROWS = 256
_OF_THE_EVIDENCE = ("evidence", "evidence is", "bits per dimension", "likelihood")

T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """A run's column.

    Attributes:
        path: its folder.
        recipe: its name.
        numbers: what was measured, by what it is called, with units.
        words: what kind of model it is, "yes" and "no" and the like.
        missing: why a number or a word is not there, by its name.
    """

    path: str
    recipe: str
    numbers: dict[str, Number] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The columns, and what they are of.

    Attributes:
        data: the data set's name.
        split: of which the numbers are.
        size: how many data of it.
        runs: a column each.
    """

    data: str
    split: str
    size: int
    runs: list[Compared]

    ROWS = (
        "evidence",
        "evidence is",
        "bits per dimension",
        "reconstruction error",
        "sampling time",
        "latent size",
        "parameters",
        "training time",
        "epochs",
        "likelihood",
        "invertible",
        "bottleneck",
    )

    @property
    def title(self) -> str:
        """What the numbers are of."""
        return f"{self.data}: {self.size} {self.split} data"

    @property
    def titles(self) -> list[str]:
        """A name for each column: the recipe's, with the folder's where several runs are of one."""
        recipes, folders = [run.recipe for run in self.runs], [Path(run.path).name for run in self.runs]
        titles = []
        for run, folder in zip(self.runs, folders, strict=True):
            where = folder if folders.count(folder) == 1 else run.path
            titles.append(run.recipe if recipes.count(run.recipe) == 1 else f"{run.recipe} ({where})")
        return titles

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table as text: a name, and a cell for every run; "–" where there is nothing."""
        found = []
        for name in self.ROWS:
            numbers = [run.numbers.get(name) for run in self.runs]
            units = [n.unit for n in numbers if n is not None and n.unit and n.unit not in name]
            cells = [
                run.words.get(name, "–" if n is None else n.text) for run, n in zip(self.runs, numbers, strict=True)
            ]
            found.append((", ".join([name, *units[:1]]), *cells))
        return found

    @property
    def notes(self) -> list[str]:
        """Why cells are empty, a sentence for every reason."""
        reasons: dict[str, list[str]] = {}
        for title, run in zip(self.titles, self.runs, strict=True):
            for name, reason in run.missing.items():
                reasons.setdefault(f"{title}: {reason}", []).append(name)
        return [f"– {', '.join(names)} of {reason}" for reason, names in reasons.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything as values that JSON has; a number that is not finite becomes null."""
        runs: list[dict[str, Any]] = [asdict(run) for run in self.runs]
        for run in runs:
            for number in run["numbers"].values():
                for key, value in number.items():
                    if isinstance(value, float) and not math.isfinite(value):
                        number[key] = None
        return {"data": self.data, "split": self.split, "size": self.size, "runs": runs}


def compare(
    runs: Sequence[str | Path],
    *,
    num_particles: int | None = None,
    split: SplitName | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Sets runs of one data set side by side.

    The evidence is taken from a run's evaluation where it has one and nothing else is asked for, and is measured where
    it has not. Sampling is timed now, the runs in turn. What cannot be measured is left out, with the reason.

    Args:
        runs: their folders.
        num_particles: draws a datum behind the log-likelihoods, measured anew; null, what the runs were evaluated with.
        split: "test", "validation" or "train", measured anew; null, what the runs were evaluated on.
        limit: how many of the split's data to use, from the first, measured anew; null, as the runs were evaluated.
        seed: of the draws.
        progress: show a bar on a terminal.

    Returns:
        The comparison.

    Raises:
        ValueError: for no run or a folder twice, a folder that holds no run of a recipe, runs of several data sets, or
            evaluations of different data where no `split` or `limit` makes them the same.
        DataError: where the data are no longer there.
    """
    paths = [Path(path) for path in runs]
    _check_paths(paths)
    opened = [_opened(path) for path in paths]
    usable = [run for run in opened if isinstance(run, Run)]
    if not usable:
        raise ValueError(
            "none of the runs has weights yet, so there is nothing to compare: train or resume them first."
        )
    _check_data(usable)
    anew = {"num_particles": num_particles, "limit": limit, "split": split}
    evaluations = [_attempt(_evaluated, run, anew, seed) for run in usable]
    found = [evaluation for evaluation in evaluations if isinstance(evaluation, Evaluation)]
    _check_evaluations(usable, evaluations)
    split_, size = (found[0].split, found[0].size) if found else ("test", 0)
    with progress_bar("comparing", 2 * len(usable), progress) as advance:
        columns = []
        for run, evaluation in zip(usable, evaluations, strict=True):
            columns.append(_column(run, evaluation, split_, size, seed))
            advance(1, run.recipe.name)
        seconds = _sampling_seconds(usable, seed, lambda: advance(1, "drawing"))
    for column, taken in zip(columns, seconds, strict=True):
        if isinstance(taken, str):
            column.missing["sampling time"] = taken
        else:
            meaning = f"Wall-clock seconds to draw {SAMPLES} data, the median of the rounds."
            column.numbers["sampling time"] = Number("sampling time", taken, f"s for {SAMPLES}", meaning)
    measured = iter(columns)
    every = [next(measured) if isinstance(run, Run) else run for run in opened]
    return Comparison(usable[0].dataset.name, split_, size, every)


def write_page(
    compared: Comparison, path: str | Path = "comparison.html", *, seed: int = 0, progress: bool = True
) -> Path:
    """Writes a comparison as an HTML page: tables that sort, of what each run is worth and of what was measured, the
    evidence, learning curves and samples.

    Args:
        compared: from `compare`.
        path: of the page.
        seed: of the diagnoses and the samples.
        progress: show a bar on a terminal.

    Returns:
        The path.

    Raises:
        OSError: where it cannot be written.
    """
    path = Path(path)
    opened = [None if "all" in run.missing else workflow.open_run(run.path) for run in compared.runs]
    known = [run for run in opened if run is not None]
    columns = []
    with progress_bar("diagnosing", len(opened), progress) as advance:
        for title, measured, run in zip(compared.titles, compared.runs, opened, strict=True):
            columns.append(_page_column(title, measured, run, path.parent, seed))
            advance(1, title)
    of_losses = [
        f"– learning curve of {title}: it makes a {run.recipe.bound} small, no bound."
        for title, run in zip(compared.titles, opened, strict=True)
        if run is not None and not run.climbs_a_bound
    ]
    return write_comparison(
        path,
        title=f"{len(compared.runs)} runs on {compared.data}",
        subtitle=f"Numbers are of {compared.size} {compared.split} data where nothing else is said.",
        headings=compared.ROWS,
        runs=columns,
        evidence="evidence",
        notes=[*compared.notes, *of_losses],
        levels=known[0].dataset.levels if known else None,
    )


def _page_column(title: str, measured: Compared, run: Run | None, folder: Path, seed: int) -> Column:
    own = Path(measured.path) / "report.html"
    link = os.path.relpath(own, folder) if own.is_file() else None
    if run is None:
        return Column(title, link=link)
    samples = _attempt(_samples, run, SHOWN, seed)
    return Column(
        title,
        measured.numbers,
        measured.words,
        run.history if run.climbs_a_bound else [],
        diagnose_run(run.model, run.guide, run.dataset, seed=seed).verdicts,
        None if isinstance(samples, str) else samples,
        link,
    )


def _check_paths(paths: list[Path]) -> None:
    if not paths:
        raise ValueError("'runs' names no run: give the folders of two or more.")
    real = [path.resolve() for path in paths]
    for path, resolved in zip(paths, real, strict=True):
        if real.count(resolved) > 1:
            raise ValueError(f"'{path}' is named twice: a run is compared with others.")


def _opened(path: Path) -> Run | Compared:
    """The run, or a column of nothing but the reason where it has no weights yet."""
    config = RunFolder(path).config()  # a folder that is none of a run is an error; one without weights is a column
    if "recipe" not in config:
        raise ValueError(f"'{path}' is no run of a recipe: its config.json names none.")
    try:
        return workflow.open_run(path)
    except FileNotFoundError:
        reason = "it has no weights yet: train it, or `pyro-lvm resume` it."
        return Compared(str(path), str(config["recipe"]), missing={"all": reason})


def _check_data(runs: list[Run]) -> None:
    """Refuses runs of several data sets: log-likelihoods of different data say nothing of the models."""
    names = {run.dataset.name: run.path for run in runs}
    if len(names) > 1:
        of = ", ".join(f"'{name}' ('{path}')" for name, path in names.items())
        raise ValueError(f"the runs are of several data sets, {of}: compare those of one.")
    first = runs[0]
    for run in runs[1:]:
        for name, one in first.dataset.splits.items():
            other = run.dataset.splits.get(name)
            both = isinstance(one, Tensor) and isinstance(other, Tensor)
            if name == "train" and both:
                continue  # as many as there are, shuffled or not: no number is of them unless asked for
            same = torch.equal(one, other) if both else other is not None and len(one) == len(other)  # type: ignore[arg-type]
            if not same:
                raise ValueError(
                    f"'{first.path}' and '{run.path}' have different {name} splits of '{first.dataset.name}': compare "
                    "runs of the same 'data_seed', 'validation' and 'test'."
                )


def _evaluated(run: Run, anew: dict[str, Any], seed: int) -> Evaluation:
    """What the run's folder holds, or, where that is nothing or something else is asked for, what is measured now."""
    file = run.path / "evaluation.json"
    if file.is_file() and all(value is None for value in anew.values()):
        return Evaluation.read(file)
    particles, limit = (run.config[name] for name in workflow.EVALUATION_SETTINGS)
    particles = particles if anew["num_particles"] is None else anew["num_particles"]
    limit = limit if anew["limit"] is None else anew["limit"]
    return workflow.evaluate(run, particles, split=anew["split"], limit=limit, seed=seed)


def _check_evaluations(runs: list[Run], evaluations: Sequence[Evaluation | str]) -> None:
    found = [(r, e) for r, e in zip(runs, evaluations, strict=True) if isinstance(e, Evaluation)]
    if len({(e.split, e.size) for _, e in found}) > 1:
        of = ", ".join(f"'{run.path}' on {e.size} {e.split} data" for run, e in found)
        raise ValueError(
            f"the runs were evaluated on different data, {of}: give 'split' and 'limit' to measure all on one."
        )


def _attempt(function: Callable[..., T], *arguments: Any) -> T | str:
    """What a measurement gives, or why it gives nothing; what is no matter of the pair is raised."""
    try:
        return function(*arguments)
    except (ValueError, NotImplementedError, FloatingPointError, RuntimeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def _column(run: Run, evaluation: Evaluation | str, split: str, size: int, seed: int) -> Compared:
    column = Compared(str(run.path), run.recipe.name)
    programs = pair(run.model, run.guide)
    x = as_tensor(run.dataset.splits[split][: size or _ROWS], split, programs)
    if isinstance(evaluation, str):
        column.missing.update(dict.fromkeys(_OF_THE_EVIDENCE, evaluation))
    else:
        _add_evidence(column, run, evaluation, x)
    error = _attempt(_reconstruction_error, run, x, seed)
    if isinstance(error, str):
        column.missing["reconstruction error"] = error
    else:
        meaning = "Root mean square distance of a datum's values from what the model makes of a draw of their latents."
        column.numbers["reconstruction error"] = Number("reconstruction error", error, "data's units", meaning)
    parameters = sum(parameter.numel() for parameter in parameters_of(programs))
    column.numbers["parameters"] = Number("parameters", parameters, "", "Numbers that are trained, of model and guide.")
    rows = run.history
    if rows:
        meaning = "Wall-clock seconds of all epochs, on the machine and beside the work of their time."
        column.numbers["training time"] = Number("training time", rows[-1]["seconds"], "s", meaning)
        column.numbers["epochs"] = Number("epochs", len(rows), "", f"Of at most {run.config['epochs']}.")
        column.words["epochs"] = f"{len(rows)} of at most {run.config['epochs']}"
    else:
        column.missing.update(dict.fromkeys(("training time", "epochs"), "its folder has no history."))
    _add_words(column, run, x[:_ROWS], seed)
    return column


def _add_evidence(column: Compared, run: Run, evaluation: Evaluation, x: Tensor) -> None:
    """What is known of log p(x), the best first, and what it is."""
    kinds = {"log-likelihood": "log-likelihood", "log posterior predictive": "log posterior predictive"}
    kinds |= {"lower bound": "lower bound", "ELBO": "lower bound"}
    by_name = {number.name: number for number in evaluation.numbers}
    kind = next((k for k in kinds if f"{evaluation.split} {k}" in by_name), None)
    if kind is None:
        column.missing.update(dict.fromkeys(_OF_THE_EVIDENCE[:-1], "its evaluation has none."))
        return
    number = by_name[f"{evaluation.split} {kind}"]
    what = kinds[kind]
    if isinstance(run.model, models.ProbabilisticPCA):  # a closed form, whatever guide it was trained with
        number = _exactly(run.model, x, number)
    if number.standard_error is None and what == "log-likelihood":
        what += ", exact"
    elif what == "log-likelihood":
        what += f", {evaluation.num_particles} draws"
    bits = by_name.get(f"{evaluation.split} bits per dimension")
    if bits is None:
        column.missing["bits per dimension"] = "it is a density of real numbers, which has none."
        what += ", a density"
    else:
        column.numbers["bits per dimension"] = bits
    column.numbers["evidence"] = number
    column.words["evidence is"] = what
    column.words["likelihood"] = "exact" if what.startswith("log-likelihood, exact") else "bounded"


def _exactly(model: models.ProbabilisticPCA, x: Tensor, number: Number) -> Number:
    value = float(log_likelihood(model, guides.ExactPPCA(model), x, 1, progress=False).mean)
    return replace(number, value=value, meaning="The mean of log p(x), in closed form.", standard_error=None)


def _reconstruction_error(run: Run, x: Tensor, seed: int) -> float:
    squares, programs = 0.0, pair(run.model, run.guide)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in in_batches(x, _ROWS, programs):
            sampler = Sampler(run.model, run.guide, batch)
            if sampler.data_site is None:
                raise ValueError("the model observes no site that has the data's shape.")
            _, again = sampler.posterior(1)
            centre, _ = sampler.centres(again, sampler.data_site)  # (1, B, *data_shape)
            squares += float((batch - centre[0]).double().square().sum())
    return (squares / x.numel()) ** 0.5


def _add_words(column: Compared, run: Run, x: Tensor, seed: int) -> None:
    """The latents' number, and what can be said of the pair without measuring."""
    programs = pair(run.model, run.guide)
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        table = run_table(*programs, (x,), {})
    given = [site for site in table.sites.values() if not site.is_latent and site.value.shape[-x.dim() :] == x.shape]
    # What lies in a plate inside the data's, as a diffusion's subsampled times do, is not all there is of it.
    around = frozenset.intersection(*(site.plates for site in given)) if given else table.common_plates
    whole = [site for site in table.latents if site.name not in table.global_latents and site.plates <= around]
    size = sum(site.value.numel() for site in whole) // len(x)
    features = x[0].numel()
    meaning = (
        f"Numbers that the guide draws for a datum, which has {features}; of a diffusion whose times are subsampled, "
        "those of the first and the last time."
    )
    column.numbers["latent size"] = Number("latent size", size, "", meaning)
    # Where the latents leave nothing open, they are the datum in other coordinates.
    certain = bool(given) and all(bool((site.log_p == 0).all()) for site in given)
    column.words["invertible"] = "yes" if certain else "no"
    column.words["bottleneck"] = "yes" if size < features else "no"


def _sampling_seconds(runs: list[Run], seed: int, advance: Callable[[], None]) -> list[float | str]:
    """Of each run, the median time to draw data, or why it draws none; the runs take turns."""
    times: list[list[float] | str] = []
    for run in runs:  # first draws, which pay for what is made once, count only where one takes long
        first = _attempt(_draw, run, seed)
        times.append(first if isinstance(first, str) else [first])
        advance()
    for turn in range(_ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            if not isinstance(taken, str) and taken[0] < _SLOW:
                taken.append(_draw(run, seed + turn))
    return [taken if isinstance(taken, str) else median(taken[1:] or taken) for taken in times]


def _draw(run: Run, seed: int) -> float:
    """Seconds to draw some data."""
    start = time.perf_counter()
    _samples(run, SAMPLES, seed)
    return time.perf_counter() - start


def _samples(run: Run, n: int, seed: int) -> Tensor:
    """Data drawn from the model, (n, *data_shape)."""
    x = as_tensor(run.dataset.train[:1], "train", pair(run.model, run.guide))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diagnostics.sample_predictive(run.model, run.guide, x, n)
