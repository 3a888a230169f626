"""The commands: each takes what follows its name, prints, and returns the exit status."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pyro_lvm import workflow, zoo
from pyro_lvm.cli.options import Parser, Setting, UsageError, read, read_config
from pyro_lvm.cli.tables import print_markdown, print_numbers, print_table
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.fit import fit
from pyro_lvm.launching import alone, leads
from pyro_lvm.workflow import Run

__all__ = ["COMMANDS", "Command"]

_FILES = {
    "config.json": "the settings; `pyro-lvm train --config` makes the run again from it",
    "history.csv": "the bounds and divergences of every epoch",
    "model.safetensors": "the weights; `pyro_lvm.load` makes model and guide of them",
    "evaluation.json": "the numbers above",
    "posterior.nc": "draws for ArviZ",
    "report.html": "settings, numbers, learning curves, samples, reconstructions and latents, for a browser",
}
_CHECKPOINT = "where `pyro-lvm resume` goes on from, for more epochs, say"


def list_recipes(argv: Sequence[str]) -> int:
    """Show the recipes of the zoo."""
    Parser("pyro-lvm list", "Show the recipes of the zoo, to be given to `pyro-lvm train`.").parse(argv)
    recipes = [zoo.recipe(name) for name in zoo.names()]
    columns = dict.fromkeys(("name", "prior", "posterior", "likelihood", "objective", "reference"), True)
    rows = [(r.name, r.prior, r.posterior, r.likelihood, r.bound, r.reference) for r in recipes]
    print_table("Recipes", columns | {"name": False}, rows)
    return 0


def train(argv: Sequence[str], prog: str = "pyro-lvm train") -> int:
    """Train a recipe, evaluate it and write a report."""
    config_file = _option(argv, "--config")
    config = None if config_file is None else read_config(config_file)
    name, rest = _recipe(argv, config, prog)
    if name is None:
        return 0
    helping = "--help" in rest or "-h" in rest
    parser = _train_parser(zoo.recipe(name), prog if prog.endswith("demo") else f"{prog} {name}", helping)
    settings = {n: v for n, v in (config or {}).items() if n not in ("recipe", "versions")}
    given = parser.parse(rest, settings)
    del given["config"]
    if leads():
        print(f"Training {name} ...", flush=True)
    return _conclude(workflow.train(name, **given))


def resume(argv: Sequence[str]) -> int:
    """Continue a run that was stopped, evaluate it and write a report."""
    given = _parse_for_run(
        "resume", workflow.resume, argv, "Its settings are those it began with. See docs/runs.md.", skip="path"
    )
    if leads():
        print(f"Resuming {given['RUN']} ...", flush=True)
    return _conclude(workflow.resume(given.pop("RUN"), **given))


def evaluate(argv: Sequence[str]) -> int:
    """Measure a run again, from its folder."""
    given = _parse_for_run(
        "evaluate", workflow.evaluate, argv, "Rewrites evaluation.json, posterior.nc and report.html."
    )
    return _measure(workflow.open_run(given.pop("RUN")), **given)


def sample(argv: Sequence[str]) -> int:
    """Draw data from a run's model, into a picture or a file of numbers."""
    given = _parse_for_run("sample", workflow.sample, argv)
    print(workflow.sample(workflow.open_run(given.pop("RUN")), **given))
    return 0


def report(argv: Sequence[str]) -> int:
    """Write a run's report.html again, or one page about several runs."""
    parser = Parser(
        "pyro-lvm report",
        "Write a run's report.html again, evaluating the run first where it has no numbers. Of several runs, write one "
        "page that sets them side by side, with a table that sorts.",
    )
    parser.usage = f"{parser.prog} RUN [RUN ...] [options]"
    parser.add_argument("RUN", nargs="+", help="A run's folder, or those of several runs of one data set.")
    where = "The page about several runs; comparison.html where left out."
    parser.add_settings("settings", [Setting("output", str | None, None, where)])
    given = parser.parse(argv)
    if len(given["RUN"]) > 1:
        from pyro_lvm import comparison  # here, since a run's own report does not need it

        print(comparison.write_page(comparison.compare(given["RUN"]), given["output"] or "comparison.html"))
        return 0
    if given["output"] is not None:
        raise UsageError("'--output' is for the page about several runs: a run's own report lies in its folder.")
    run = workflow.open_run(given["RUN"][0])
    numbers = run.path / "evaluation.json"
    if numbers.is_file():
        print(workflow.write_run_report(run, workflow.Evaluation.read(numbers)))
        return 0
    return _conclude(run)


def compare(argv: Sequence[str]) -> int:
    """Set runs of one data set side by side."""
    from pyro_lvm import comparison  # here, since no other command needs it

    what = "What was measured and what kind of model it is; sampling is timed now. See docs/comparing.md."
    parser = Parser("pyro-lvm compare", f"Set runs of one data set side by side. {what}")
    parser.usage = f"{parser.prog} RUN RUN ... [options]"
    parser.add_argument("RUN", nargs="+", help="Runs' folders.")
    form = Setting("format", Literal["table", "markdown", "json"], "table", "Of the output.")
    parser.add_settings("settings", [*read(comparison.compare, skip=["runs"]), form])
    given = parser.parse(argv)
    form_, runs = given.pop("format"), given.pop("RUN")
    compared = comparison.compare(runs, **given)
    if form_ == "json":
        print(json.dumps(compared.as_json(), indent=2, ensure_ascii=False))
        return 0
    columns = ["number", *compared.titles]
    if form_ == "markdown":
        print_markdown(columns, compared.rows)
    else:
        print_table(compared.title, dict.fromkeys(columns, True), compared.rows)
    for note in compared.notes:
        print(f"\n{note}")
    return 0


def verify(argv: Sequence[str]) -> int:
    """Hold trained recipes against exact answers on this machine."""
    from pyro_lvm import verify as checks  # here, since no other command needs it

    parser = Parser(
        "pyro-lvm verify", "Hold trained recipes against exact answers; the exit status is 1 if one differs."
    )
    parser.add_settings("settings", read(checks.verify))
    comparisons = checks.verify(**parser.parse(argv))
    checks.print_table(comparisons)
    return 0 if all(comparison.passed for comparison in comparisons) else 1


def demo(argv: Sequence[str]) -> int:
    """Train a variational autoencoder on handwritten digits, in about half a minute."""
    if "--help" not in argv and "-h" not in argv:
        print(
            "A variational autoencoder of 8×8 handwritten digits: the same as `pyro-lvm train vae --data digits`.\n"
            "It takes about half a minute on two cores.\n",
            flush=True,
        )
    return train(["vae", "--data", "digits", *argv], prog="pyro-lvm demo")


@dataclass(frozen=True)
class Command:
    """A command's function, and how it is called."""

    run: Callable[[Sequence[str]], int]
    usage: str

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]


COMMANDS = {
    "list": Command(list_recipes, ""),
    "train": Command(train, "NAME [options]"),
    "resume": Command(resume, "RUN [options]"),
    "evaluate": Command(evaluate, "RUN [options]"),
    "sample": Command(sample, "RUN [options]"),
    "report": Command(report, "RUN [RUN ...]"),
    "compare": Command(compare, "RUN RUN ... [options]"),
    "verify": Command(verify, "[options]"),
    "demo": Command(demo, "[options]"),
}


def _recipe(argv: Sequence[str], config: Mapping[str, Any] | None, prog: str) -> tuple[str | None, list[str]]:
    """The recipe's name, which the file of settings may hold, and the arguments behind it; None after general help."""
    named = None if config is None else config.get("recipe")
    if argv and not argv[0].startswith("-"):
        if named not in (None, argv[0]):
            raise UsageError(f"'--config' holds a run of the recipe {named!r}, not of {argv[0]!r}.")
        return argv[0], list(argv[1:])
    if named is not None:
        return str(named), list(argv)
    if "--help" in argv or "-h" in argv:
        _print_train_help(prog)
        return None, []
    raise UsageError(f"name the recipe first: `{prog} NAME [options]`; `pyro-lvm list` shows the names.")


def _print_train_help(prog: str) -> None:
    summaries = "\n".join(f"  {name:<16}{zoo.recipe(name).summary}" for name in zoo.names())
    print(
        f"usage: {prog} NAME [options]\n       {prog} --config FILE [options]\n\n"
        "Train a recipe of the zoo, evaluate it and write a report, into a new run folder.\n\n"
        f"recipes:\n{summaries}\n\n"
        f"`{prog} NAME --help` lists the settings of a recipe, its data, training and evaluation.\n"
        "`--config FILE` takes settings from a JSON or YAML file, such as a run's config.json."
    )


def _option(argv: Sequence[str], option: str) -> str | None:
    """The value of an option that must be known before the others can be."""
    value = None
    for i, token in enumerate(argv):
        if token == option and i + 1 < len(argv):
            value = argv[i + 1]
        elif token.startswith(f"{option}="):
            value = token.partition("=")[2]
    return value


def _train_parser(recipe: zoo.Recipe, prog: str, helping: bool) -> Parser:
    description = f"{recipe.summary} {recipe.reference}. Options win over --config, and that over the defaults."
    parser = Parser(prog, description)
    parser.add_argument(
        "--config", type=str, metavar="FILE", help="A JSON or YAML file of settings, such as a run's config.json."
    )
    parser.add_settings(
        "run",
        [
            Setting("run_dir", str | None, None, "A new or empty folder; runs/<recipe>-<data>-<time> where left out."),
            Setting("overwrite", bool, False, "Replace the run that --run-dir holds."),
            Setting("progress", bool, True, "Show a bar on a terminal."),
        ],
    )
    parser.add_settings(
        "recipe settings", read(recipe.make, skip=[next(iter(inspect.signature(recipe.make).parameters))])
    )
    parser.add_settings("data settings", read(workflow.load_data))
    usual = _usual_training(recipe.name) if helping else None
    # Not given, they are the recipe's, which may depend on the data: known only when these are loaded.
    training = read(fit, skip=workflow.TRAINING_SKIPS, defaults=usual)
    parser.add_settings("training settings", training, optional=not helping)
    parser.add_settings("evaluation settings", read(workflow.evaluate, names=workflow.EVALUATION_SETTINGS))
    return parser


def _usual_training(name: str) -> Mapping[str, Any]:
    """A recipe's settings for `fit`, to show as defaults: those for small binary pictures, which every recipe takes."""
    pictures = torch.arange(1000.0 * 64).reshape(1000, 8, 8).remainder(7).clamp(max=1)
    _, _, recipe = zoo.build(name, Dataset("pictures", train=pictures, validation=pictures[:100], levels=2))
    return recipe.training


def _parse_for_run(
    command: str, function: Callable[..., Any], argv: Sequence[str], more: str = "", skip: str = "run"
) -> dict[str, Any]:
    """The arguments of a function whose first, by the name `skip`, is a run."""
    parser = Parser(f"pyro-lvm {command}", f"{(inspect.getdoc(function) or '').splitlines()[0]} {more}")
    _add_run(parser)
    parser.add_settings("settings", read(function, skip=[skip]))
    return parser.parse(argv)


def _add_run(parser: Parser) -> None:
    parser.usage = f"{parser.prog} RUN [options]"
    parser.add_argument("RUN", help="A run's folder.")


def _conclude(run: Run) -> int:
    if not leads():
        return 0
    particles, limit = (run.config[name] for name in workflow.EVALUATION_SETTINGS)
    with alone():  # where a launcher has started several processes, the others are done
        return _measure(run, num_particles=particles, limit=limit)


def _measure(run: Run, **settings: Any) -> int:
    """Evaluates a run, prints the numbers and writes what a run folder holds besides the weights."""
    try:
        evaluation = workflow.evaluate(run, **settings)
        for note in evaluation.notes:
            print(note)
        print_numbers(f"{run.title}: {evaluation.size} {evaluation.split} data", evaluation.numbers)
        workflow.write_evaluation(run, evaluation)
        _, size = workflow.write_posterior(run, evaluation)
        workflow.write_run_report(run, evaluation)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped in the evaluation: '{run.path}' holds the weights; `pyro-lvm evaluate {run.path}` measures them."
        ) from None
    print(f"\n{run.path}")
    for name in sorted(file.name for file in run.path.iterdir() if not file.name.startswith(".")):
        more = f" (of the first {size} {evaluation.split} data)" if name == "posterior.nc" else ""
        what = _CHECKPOINT if name.startswith("checkpoint-") else _FILES.get(name, "")
        print(f"  {name:<28}{_size(run.path / name):>9}  {what}{more}".rstrip())
    return 0


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{size / 2**10:.1f} kB"
