"""A run from recipe to report: what the command line does, as functions to call from Python."""

import difflib
import inspect
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm import data as datasets
from pyro_lvm import diagnostics, zoo
from pyro_lvm.data.binarisation import Binarisation
from pyro_lvm.data.dataset import Dataset, SplitName
from pyro_lvm.data.files import SUFFIXES
from pyro_lvm.diagnostics.curves import BOUND
from pyro_lvm.evidence import log_likelihood, lower_bound
from pyro_lvm.evidence.estimates import Estimates
from pyro_lvm.fit import NonFiniteError, fit
from pyro_lvm.objectives import ELBO, Objective, Table
from pyro_lvm.objectives.table import run as run_table
from pyro_lvm.preflight import as_tensor, in_batches
from pyro_lvm.programs import Program, pair
from pyro_lvm.report import Number, write_report
from pyro_lvm.run_folder import RunFolder
from pyro_lvm.saving import load, write_atomically

__all__ = [
    "EVALUATION_SETTINGS",
    "TRAINING_SKIPS",
    "Evaluation",
    "Run",
    "evaluate",
    "load_data",
    "open_run",
    "resume",
    "sample",
    "settings",
    "train",
    "write_evaluation",
    "write_posterior",
    "write_run_report",
]

#: What `fit` takes that is not a setting of a run: made by `train`, or no part of what makes the weights.
TRAINING_SKIPS = (
    *("model", "guide", "data", "objective", "validation", "run_dir", "run_config", "on_epoch", "progress"),
    *("resume", "overwrite"),
)

#: The evaluation's settings by the names they have among a run's, where `num_particles` may be the recipe's own.
EVALUATION_SETTINGS = {"evaluation_particles": "num_particles", "evaluation_limit": "limit"}

_PASSES = 8  # over the data, for a bound's mean and its Monte Carlo error
_ROWS = 512
_NATS = "nats per datum"
_What = tuple[str, str, str]  # a number's name, unit and meaning
_POSTERIOR_BYTES = 16 * 2**20
_POSTERIOR_DATA = 64
_PRIOR_DRAWS_OF_CHAINS = 10


@dataclass(frozen=True)
class Run:
    """A run's folder and what it trained.

    Attributes:
        path: the folder.
        config: its settings, as in `config.json`.
        recipe: the entry of the zoo, with its objective.
        dataset: the data.
        model, guide: the pair, with the run's weights.
    """

    path: Path
    config: dict[str, Any]
    recipe: zoo.Recipe
    dataset: Dataset
    model: nn.Module
    guide: nn.Module

    @property
    def title(self) -> str:
        """The recipe and its data in words."""
        return f"{self.recipe.name} on {self.dataset.name}"

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch."""
        return RunFolder(self.path).history()

    @property
    def climbs_a_bound(self) -> bool:
        """Whether what the history holds is a bound on log p(x), or one with weights and limits."""
        return not isinstance(self.recipe.objective, Objective) or self.recipe.objective.is_bound


@dataclass(frozen=True)
class Evaluation:
    """A run's numbers.

    Attributes:
        split: the data they are of.
        size: how many of them.
        num_particles: draws per datum behind the log-likelihood.
        seed: of the draws.
        numbers: what was measured, with units.
        notes: what a reader must know besides, a sentence each.
    """

    split: str
    size: int
    num_particles: int
    seed: int
    numbers: list[Number]
    notes: list[str]

    @staticmethod
    def read(path: Path) -> "Evaluation":
        """What `write_evaluation` wrote.

        Raises:
            ValueError: where the file is damaged.
        """
        try:
            fields = json.loads(path.read_text())
            numbers = [Number(**number) for number in fields.pop("numbers")]
            numbers = [replace(n, value=math.nan) if n.value is None else n for n in numbers]
            return Evaluation(numbers=numbers, **fields)
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"'{path}' is damaged ({error}): run `pyro-lvm evaluate` again.") from error


def load_data(
    data: str = "digits",
    *,
    data_root: str | None = None,
    download: bool = False,
    binarise: Binarisation | None = None,
    data_seed: int = 0,
    validation: int | float | None = None,
    test: int | float | None = None,
    levels: int | None = None,
) -> Dataset:
    """Loads a data set by name or from a file: `pyro_lvm.data.load` with the names that a run's settings have.

    Args:
        data: a name (digits, mnist, fashion-mnist, omniglot-28, cifar10), or a .npy, .npz or .csv file.
        data_root: folder of data files; else the environment variable PYRO_LVM_DATA, else one in the user's cache.
        download: fetch a named set whose files are missing.
        binarise: "static", one Bernoulli draw of every pixel; "dynamic", training pixels drawn anew at every use;
            "threshold", one from one half upwards; null, values as they are.
        data_seed: of the draws and shuffles that make the splits.
        validation: size of the validation split, a count or a fraction of the training part; 0: none; null: the set's.
        test: size of the test split, likewise; for your own data only.
        levels: number of discrete levels; for your own data only, inferred where left out.

    Raises:
        DataError: where they cannot be had.

    Example:
        >>> load_data("digits", binarise="static").name
        'digits-static'
    """
    return datasets.load(
        data,
        root=data_root,
        download=download,
        binarise=binarise,
        seed=data_seed,
        validation=validation,
        test=test,
        levels=levels,
    )


def settings(recipe: str) -> dict[str, dict[str, Any]]:
    """Everything that can be set about a run of a recipe: by group, names and defaults.

    Example:
        >>> settings("vae")["recipe"]["latent_dim"], settings("vae")["training"]["gradient_clip"]
        (16, None)
    """
    evaluation = _defaults(evaluate)
    return {
        "recipe": zoo.recipe(recipe).settings,
        "data": _defaults(load_data),
        "training": {name: value for name, value in _defaults(fit).items() if name not in TRAINING_SKIPS},
        "evaluation": {name: evaluation[its] for name, its in EVALUATION_SETTINGS.items()},
    }


def train(
    recipe: str, *, run_dir: str | Path | None = None, overwrite: bool = False, progress: bool = True, **given: Any
) -> Run:
    """Trains a recipe into a run folder.

    Args:
        recipe: its name.
        run_dir: a new or empty folder; `runs/<recipe>-<data>-<time>` where left out.
        overwrite: replace the run that `run_dir` holds.
        progress: show a bar on a terminal.
        given: settings of the data (see `load_data`), of the recipe, of `fit`, and of the evaluation, by the names
            that `settings(recipe)` lists. What `fit` is not given here comes from the recipe.

    Returns:
        The run, its folder holding `config.json`, `history.csv`, `model.safetensors` and checkpoints.

    Raises:
        ValueError: for an unknown recipe or setting, with the nearest one, and for settings or data that do not fit.
        NonFiniteError: where training met a number that is not finite; the folder has the last good weights.
        KeyboardInterrupt: saying what was saved.
    """
    groups = _sorted_into_groups(recipe, given)
    groups["data"] = _with_absolute_paths(groups["data"])
    dataset = load_data(**groups["data"])
    seed = groups["training"].get("seed", settings(recipe)["training"]["seed"])
    model, guide, made = zoo.build(recipe, dataset, seed=seed, **groups["recipe"])
    training = settings(recipe)["training"] | dict(made.training) | groups["training"]
    config = _config(recipe, groups | {"training": training})
    _check_evaluation(*(config[name] for name in EVALUATION_SETTINGS))  # now, and not when the training is over
    path = _new_folder(made, dataset) if run_dir is None else Path(run_dir)
    run = Run(path, config, made, dataset, model, guide)
    _fit(run, training, overwrite=overwrite, progress=progress)
    return run


def resume(path: str | Path, epochs: int | None = None, devices: int | None = None, progress: bool = True) -> Run:
    """Continues a run from its newest checkpoint, to the same weights as without the stop.

    Args:
        path: its folder.
        epochs: passes over the data in all, where they are to be more than the run's settings say.
        devices: how many to train on, where others than the run's settings say; the weights are the same.
        progress: show a bar on a terminal.

    Returns:
        The run.

    Raises:
        ValueError: where the folder holds no run of a recipe, no whole checkpoint, or one of other settings or data.
        DataError: where its data are no longer there.
        NonFiniteError, KeyboardInterrupt: as `train`.
    """
    path = Path(path)
    others = {name: value for name, value in (("epochs", epochs), ("devices", devices)) if value is not None}
    config = _recipes_config(path) | others
    groups = _groups_of(config)
    dataset = load_data(**groups["data"])
    model, guide, recipe = zoo.build(config["recipe"], dataset, seed=config["seed"], **groups["recipe"])
    run = Run(path, config, recipe, dataset, model, guide)
    _fit(run, groups["training"], resume=True, progress=progress)
    return run


def _fit(run: Run, training: Mapping[str, Any], **how: Any) -> None:
    try:
        fit(
            run.model,
            run.guide,
            run.dataset.train,
            objective=run.recipe.objective,
            validation=run.dataset.validation,
            run_dir=run.path,
            run_config=run.config,
            **training,
            **how,
        )
    except NonFiniteError as error:
        kept = f"{error} '{run.path}' holds them too."
        raise NonFiniteError(kept, error.epoch, error.step, error.site, error.layer) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_was_saved(run)) from None


def open_run(path: str | Path) -> Run:
    """Opens a run from its folder alone: its weights, and its data as the folder's settings describe them.

    Raises:
        ValueError: where the folder holds no run of a recipe, or it is damaged.
        DataError: where its data are no longer there.
    """
    path = Path(path)
    config = _recipes_config(path)
    groups = _groups_of(config)
    dataset = load_data(**groups["data"])
    _, _, recipe = zoo.build(config["recipe"], dataset, **groups["recipe"])
    model, guide = load(path)
    assert isinstance(model, nn.Module)  # a recipe's are
    assert isinstance(guide, nn.Module)
    return Run(path, config, recipe, dataset, model.eval(), guide.eval())


def evaluate(
    run: Run, num_particles: int = 1000, *, split: SplitName | None = None, limit: int | None = None, seed: int = 0
) -> Evaluation:
    """Measures a run: bounds, log-likelihood, divergences, active units.

    Args:
        run: from `train` or `open_run`.
        num_particles: draws from the guide per datum behind the log-likelihood.
        split: "test", "validation" or "train"; null, the first of these that there is.
        limit: how many of the split's data to use, from the first; null, all.
        seed: of the draws.

    Raises:
        ValueError: for a split that the data do not have, and for numbers below 1.
    """
    _check_evaluation(num_particles, limit)
    chosen, notes = _split(run.dataset, split)
    programs = pair(run.model, run.guide)
    x = as_tensor(run.dataset.splits[chosen][:limit], chosen, programs)
    with torch.random.fork_rng(), torch.no_grad():
        table = run_table(*programs, (x[:1],), {})
    rows = run.history
    numbers = [
        *_bounds(run, programs, x, chosen, seed),
        *_log_likelihoods(run, table, x, chosen, num_particles, seed),
        *_active_units(run, table, x, seed),
    ]
    if rows:
        numbers.append(
            Number("training time", rows[-1]["seconds"], "s", f"Of {len(rows)} epochs, without the evaluation.")
        )
    return Evaluation(chosen, len(x), num_particles, seed, numbers, notes)


def write_evaluation(run: Run, evaluation: Evaluation) -> Path:
    """Writes the numbers to the run's `evaluation.json`; a number that is not finite becomes null."""
    fields = asdict(evaluation)
    for number in fields["numbers"]:
        for key, value in number.items():
            if isinstance(value, float) and not math.isfinite(value):
                number[key] = None
    path = run.path / "evaluation.json"
    write_atomically(path, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def write_posterior(run: Run, evaluation: Evaluation) -> tuple[Path, int]:
    """Writes draws from the posterior of the evaluation's first data to the run's `posterior.nc`, for ArviZ.

    Returns:
        The file, below 20 MB, and the number of data it is of.
    """
    x = run.dataset.splits[evaluation.split][:_POSTERIOR_DATA]
    draws, size = _affordable(run, x)
    # A draw from the prior of a diffusion takes all of its steps: a few of them say enough.
    prior_draws = min(draws, _PRIOR_DRAWS_OF_CHAINS) if run.recipe.evidence == "bound" else draws
    idata = diagnostics.posterior(
        run.model, run.guide, x[:size], draws, 4, prior_draws=prior_draws, seed=evaluation.seed
    )
    path = run.path / "posterior.nc"
    idata.to_netcdf(str(path))
    return path, size


def write_run_report(run: Run, evaluation: Evaluation) -> Path:
    """Writes the run's `report.html`."""
    path = run.path / "report.html"
    write_report(
        path,
        title=run.title,
        settings={name: value for name, value in run.config.items() if name != "versions"},
        numbers=evaluation.numbers,
        history=run.history,
        model=run.model,
        guide=run.guide,
        dataset=run.dataset,
        objective=BOUND if run.climbs_a_bound else f"minus the {run.recipe.bound} (a datum)",
        seed=evaluation.seed,
    )
    return path


def sample(run: Run, n: int = 64, *, output: str | Path | None = None, seed: int = 0) -> Path:
    """Draws data from a run's model, into a picture or a file of numbers.

    Args:
        run: from `train` or `open_run`.
        n: number of data.
        output: a .png picture, or .npy or .npz numbers (the latter as `data.load` reads them); `samples.png` in the run
            folder where left out.
        seed: of the draws.

    Returns:
        The file.

    Raises:
        ValueError: for another kind of file, or `n` < 1.
    """
    path = run.path / "samples.png" if output is None else Path(output)
    suffixes = (".png", ".npy", ".npz")
    if path.suffix not in suffixes:
        raise ValueError(f"'output' = '{path}' must end in one of {', '.join(suffixes)}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = diagnostics.sample_predictive(run.model, run.guide, run.dataset.train[:1], n)  # (n, *data_shape)
    if path.suffix == ".png":
        shown = diagnostics.plot_samples(x, shape=run.dataset.shape, levels=run.dataset.levels)
        figure: Any = shown.figure  # a whole one, having been made here
        figure.savefig(path, dpi=150)
    else:
        import numpy as np

        values = x.cpu().numpy()
        if path.suffix == ".npy":
            np.save(path, values)
        else:
            np.savez_compressed(path, train=values)
    return path


def _recipes_config(path: Path) -> dict[str, Any]:
    config = RunFolder(path).config()
    if "recipe" not in config:
        raise ValueError(f"'{path}' is no run of a recipe: its config.json names none.")
    return config


def _groups_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return _sorted_into_groups(config["recipe"], {n: v for n, v in config.items() if n not in ("recipe", "versions")})


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def _sorted_into_groups(recipe: str, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings by the group they belong to.

    Raises:
        ValueError: for an unknown one, with the nearest.
    """
    known = settings(recipe)
    names = [name for group in known.values() for name in group]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
            raise ValueError(f"a run of {recipe!r} has no setting {name!r}: {hint}")
    # A file of settings has no tuples.
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return {title: {n: values[n] for n in group if n in values} for title, group in known.items()}


def _with_absolute_paths(data: dict[str, Any]) -> dict[str, Any]:
    """The data settings so that they mean the same in whatever folder they are read again."""
    data = dict(data)
    for name in ("data", "data_root"):
        value = data.get(name)
        if value is not None and (name == "data_root" or Path(value).suffix.lower() in SUFFIXES):
            path = Path(value).expanduser()
            if path.exists():
                data[name] = str(path.resolve())
    return data


def _config(recipe: str, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that makes the run again, defaults included, as `config.json` holds it."""
    config: dict[str, Any] = {"recipe": recipe}
    for title, usual in settings(recipe).items():
        config |= usual | dict(groups[title])
    packages = ("pyro-lvm", "torch", "pyro-ppl", "numpy")
    config["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return dict(json.loads(json.dumps(config)))  # as it will be read again: lists for tuples


def _check_evaluation(num_particles: int, limit: int | None) -> None:
    if num_particles < 1:
        raise ValueError(f"'num_particles' is a number of draws and must be at least 1, not {num_particles}.")
    if limit is not None and limit < 2:
        raise ValueError(f"'limit' is a number of data and must be at least 2, not {limit}.")


def _new_folder(recipe: zoo.Recipe, dataset: Dataset) -> Path:
    base = Path("runs") / f"{recipe.name}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100))]
    return next((path for path in candidates if not path.exists()), base)


def _what_was_saved(run: Run) -> str:
    if not (run.path / "model.safetensors").is_file():
        return "stopped before training; nothing was saved."
    epochs = len(run.history)
    return (
        f"stopped after {epochs} epochs: '{run.path}' holds the settings, the history and the weights so far; "
        f"`pyro-lvm resume {run.path}` goes on."
    )


def _split(dataset: Dataset, wanted: str | None) -> tuple[SplitName, list[str]]:
    order: tuple[SplitName, ...] = ("test", "validation", "train")
    there = [name for name in order if name in dataset.splits]
    if wanted is None:
        notes = (
            [] if there[0] == "test" else [f"These data have no test split: the numbers are of the {there[0]} split."]
        )
        return there[0], notes
    if wanted not in there:
        raise ValueError(f"'{dataset.name}' has no {wanted!r} split: it has {', '.join(there)}.")
    return next(name for name in there if name == wanted), []


def _bounds(run: Run, programs: tuple[Program, Program], x: Tensor, split: str, seed: int) -> list[Number]:
    """The recipe's bound, the ELBO where that is another, and each latent's divergence."""
    passes: list[dict[_What, float]] = []
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for _ in range(_PASSES):
            values: dict[_What, float] = {}
            for batch in in_batches(x, _ROWS, programs):
                for what, value in _measures(run, programs, batch, split):
                    values[what] = values.get(what, 0.0) + value * len(batch) / len(x)
            passes.append(values)
    numbers = []
    for name, unit, meaning in passes[0]:
        draws = torch.tensor([values[name, unit, meaning] for values in passes], dtype=torch.float64)
        mean, error = draws.mean(), draws.std() / len(draws) ** 0.5
        numbers.append(Number(name, float(mean), unit, meaning, _error(error, mean)))
    return numbers


def _error(error: Tensor, value: Tensor) -> float | None:
    """A standard error, or None where it is that of rounding alone: the value is exact."""
    return float(error) if float(error) > 1e-6 * abs(float(value)) else None


def _measures(run: Run, programs: tuple[Program, Program], batch: Tensor, split: str) -> Iterator[tuple[_What, float]]:
    """One pass's estimates from a batch that stands for the training set: what data share counts as it did there."""
    size = max(len(run.dataset.train), len(batch))
    objective, meaning = run.recipe.objective, "Lower bound on the mean of log p(x); higher is better."
    if isinstance(objective, Objective):
        table = objective.table(*programs, batch, size=size)
        bound = objective.judge(table).item()
        if run.recipe.bound != "ELBO":
            yield (f"{split} ELBO", _NATS, meaning), ELBO().bound(table).item() / size
    else:
        table = run_table(*programs, (batch,), {"size": size})
        bound = -objective.loss(*programs, batch, size=size)
    if not run.climbs_a_bound:
        unit, meaning = "a datum", "What training makes small, a loss that is no bound; lower is better."
        yield (f"{split} {run.recipe.bound}", unit, meaning), -bound / size
    else:
        yield (f"{split} {run.recipe.bound}", _NATS, meaning), bound / size
    what = "E[log q − log p], what the latent says about the data; 0 where it has collapsed."
    for name, total in table.divergences().items():
        yield (f"KL of {name}", _NATS, what), total / (size if name in table.global_latents else len(batch))


def _log_likelihoods(run: Run, table: Table, x: Tensor, split: str, particles: int, seed: int) -> list[Number]:
    if table.without_weights is not None:
        bound = lower_bound(run.model, run.guide, x, num_particles=particles, seed=seed)
        meaning = f"Lower bound on the mean of log p(x) by {particles} draws a datum, ± their error; higher is better."
        none = Number("worst k-hat", math.nan, "", "Not defined: the pair has a bound, and no importance weights.")
        return [*_estimate(bound, f"{split} lower bound", meaning, split, "the lower bound"), none]
    ll = log_likelihood(run.model, run.guide, x, num_particles=particles, seed=seed)
    what = "log posterior predictive" if table.global_latents else "log-likelihood"
    meaning = (
        f"Estimate of the mean of log p(x) by {particles} weighted draws a datum, ± their error; higher is better."
    )
    return [*_estimate(ll, f"{split} {what}", meaning, split, "the log-likelihood"), _worst_khat(ll.khat)]


def _estimate(found: Estimates, name: str, meaning: str, split: str, what: str) -> list[Number]:
    """An estimate in nats, and in bits per dimension where the data are discrete."""
    error = _error(found.mean_standard_error, found.mean)
    numbers = [Number(name, float(found.mean), _NATS, meaning, error)]
    if found.is_discrete:
        value, per_nat = float(found.bits_per_dimension), 1 / (found.features * math.log(2))
        meaning = f"Minus {what}, spread over a datum's {found.features} values; lower is better."
        bits = None if error is None else error * per_nat
        numbers.append(Number(f"{split} bits per dimension", value, "bits", meaning, bits))
    return numbers


def _worst_khat(khat: Tensor) -> Number:
    worst = float(khat.max())
    if math.isnan(worst):
        return Number("worst k-hat", math.nan, "", "Not known: it takes 25 draws a datum at least.")
    if math.isinf(worst):
        return Number("worst k-hat", math.nan, "", "Not defined: a datum's importance weights are all the same.")
    above = float((khat > 0.7).double().mean())
    meaning = f"Tail of the importance weights; above 0.7, as for {above:.1%} of the data, not to be trusted."
    return Number("worst k-hat", worst, "", meaning)


def _active_units(run: Run, table: Table, x: Tensor, seed: int) -> list[Number]:
    # Latents of a diffusion of data lie in a plate of times inside the data's; those that have one as a prior do not.
    if any(dim < -1 for site in table.latents for _, dim in site.plates):
        return [Number("active units", math.nan, "", "Not counted: latents are noised data, or seen at one time each.")]
    units = diagnostics.active_units(run.model, run.guide, x, seed=seed)
    if units is None:
        return [Number("active units", math.nan, "", "Not defined: no latent of a datum is continuous.")]
    meaning = f"Latent dimensions whose posterior mean moves with the data, by a variance above {units.threshold:g}."
    return [Number("active units", units.count, f"of {units.total}", meaning)]


def _affordable(run: Run, x: Tensor) -> tuple[int, int]:
    """Draws a chain and data for a file of draws below the limit on its size."""
    one, two = (_bytes_of_a_draw(run, x[:n]) for n in (1, 2))
    per_datum = max(1, two - one)
    shared = max(0, one - per_datum)  # latents that all data share are held once a draw
    draws = max(1, min(100, _POSTERIOR_BYTES // (2 * (shared + per_datum))))
    return draws, max(1, min(len(x), (_POSTERIOR_BYTES // draws - shared) // per_datum))


def _bytes_of_a_draw(run: Run, x: Tensor) -> int:
    """Bytes that one draw in each of four chains adds to the file."""
    idata = diagnostics.posterior(run.model, run.guide, x, 1, 4, seed=0)
    return sum(int(idata[name].nbytes) for name in _groups(idata))


def _groups(idata: Any) -> list[str]:
    """The names of the groups of an ArviZ object, of version 0.x or 1.x."""
    names = idata.groups() if callable(idata.groups) else idata.groups
    return [name.strip("/") for name in names if name != "/"]
