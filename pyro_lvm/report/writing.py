"""The report of a run."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_lvm.diagnostics.curves import BOUND
from pyro_lvm.diagnostics.drawing import Sampler
from pyro_lvm.diagnostics.figures import is_image
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.report import exhibits, findings
from pyro_lvm.report.diagnosis import Diagnosis, diagnose_run
from pyro_lvm.report.number import Number, shown
from pyro_lvm.report.page import (
    Picture,
    Section,
    guarded,
    measured,
    page,
    paragraph,
    plain_style,
    replacing,
    table,
)
from pyro_lvm.report.run_data import RunData, first_data, shown_split, splits

_ROWS = 12  # of the history's table

_REFERENCES = (
    (
        "Bound on log p(x)",
        "E over q(z | x) of log p(x, z) − log q(z | x), a mean over the data of a split, in nats per datum; in "
        "expectation never above the log-likelihood. Where the settings name another objective, the curves show that. "
        "Kingma & Welling (2014), Auto-Encoding Variational Bayes.",
    ),
    (
        "KL of a latent",
        "The part of the bound that pays for the posterior's distance from the prior, KL(q(z | x) ‖ p(z)), a mean over "
        "data, in nats per datum.",
    ),
    (
        "Log-likelihood by importance sampling",
        "log (1/K) Σ p(x, z_k) / q(z_k | x) with K draws z_k from q(z | x), a mean over data; it rises to "
        "log p(x) with K. Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders.",
    ),
    (
        "Standard error",
        "The number behind ±: one standard error of the estimate over its random draws, not over test sets.",
    ),
    (
        "Bits per dimension",
        "Minus the log-likelihood of a datum in nats, divided by log 2 and by the number of its values; for "
        "discrete data.",
    ),
    (
        "Principal axes",
        "Latents of more than two units are shown along the two directions in which they vary most.",
    ),
)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    settings: Mapping[str, object],
    numbers: Sequence[Number],
    history: Sequence[Mapping[str, float]],
    model: Callable[..., Any],
    guide: Callable[..., Any],
    dataset: RunData,
    objective: str = BOUND,
    seed: int = 0,
) -> Path:
    r"""Writes what a run gave as one HTML page that needs no network and no scripts.

    The page holds the numbers with their meaning, learning curves (bounds and KL of each latent, nats per datum),
    samples $x \sim p(x)$ beside data, reconstructions (the mean or mode of $p(x \mid z)$, $z \sim q(z \mid x)$),
    the latents by label, the settings, and how each number was computed. What is drawn comes from the test split, or
    from the first there is of validation and training; only its first 1000 data are read. The same arguments give the
    same bytes. A drawing that fails does not cost the others: its error stands in its place.

    Args:
        path: of the file; folders that are missing are made, an older file is replaced once the new one is whole.
        title: of the page.
        settings: of the run, by name; values are shown as text, dictionaries inside entry by entry.
        numbers: the results.
        history: a row per epoch: `epoch`, `train`, and optionally `validation`, `kl_<site>`, `seconds`,
            `learning_rate`; may be empty.
        model, guide: the trained pair.
        dataset: as `pyro_lvm.data.load` gives it.
        objective: what the history's `train` and `validation` are called, where they are no bounds.
        seed: of everything that is drawn; the caller's random state is left alone.

    Returns:
        The path.

    Raises:
        OSError: where the file cannot be written; nothing has been computed then.
        ValueError: where no split of the data set has data.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=2)
        >>> x = model.sample(50)
        >>> dataset = SimpleNamespace(
        ...     name="draws", train=x, validation=None, test=None, labels={}, levels=None, shape=(3,)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_report(
        ...         f"{folder}/report.html",
        ...         title="A run",
        ...         settings={"epochs": 0},
        ...         numbers=[Number("data", 50, "", "How many data there are.")],
        ...         history=[],
        ...         model=model,
        ...         guide=guides.ExactPPCA(model),
        ...         dataset=dataset,
        ...     )
        ...     file.read_text(encoding="utf-8").count("<img")
        8
    """
    with replacing(Path(path)) as temporary:
        split = shown_split(dataset)
        with seeded(seed), plain_style():
            found = diagnose_run(model, guide, dataset, seed=seed)
            sections = [
                Section("verdicts", "Verdicts", findings.verdicts(found)),
                _numbers(numbers),
                _learning(history, objective),
                *_drawings(model, guide, dataset, split),
                *_findings(found),
                _settings(settings),
                _how(split, seed),
            ]
        temporary.write_text(page(title, _subtitle(dataset), sections), encoding="utf-8")
    return Path(path)


def _subtitle(dataset: RunData) -> str:
    sizes = ", ".join(f"{len(split)} for {name}" for name, split in splits(dataset).items())
    levels = "real numbers" if dataset.levels is None else f"each one of {dataset.levels} levels"
    shape = " × ".join(map(str, dataset.shape)) or "1"
    return f"Data: {dataset.name}; {sizes}; a datum has {shape} values, {levels}."


def _numbers(numbers: Sequence[Number]) -> Section:
    rows = [(escape(n.name), measured(n.text, n.unit), escape(n.meaning)) for n in numbers]
    body = (
        table("Results of the run", ("Quantity", "Value", "What it means"), rows)
        if rows
        else paragraph("No numbers were given.")
    )
    return Section("numbers", "Numbers", body)


def _learning(history: Sequence[Mapping[str, float]], objective: str) -> Section:
    if not history:
        return Section("learning", "Learning curves", paragraph("No training was recorded."))
    keys = list(dict.fromkeys(key for row in history for key in row))
    kept = sorted({*range(0, len(history), -(-len(history) // _ROWS)), len(history) - 1})
    rows = [["" if history[i].get(key) is None else shown(history[i][key]) for key in keys] for i in kept]
    every = "Every epoch" if len(kept) == len(history) else f"{len(kept)} of {len(history)} epochs"
    numbers = table(f"{every}; train and validation: {objective}; KL in nats per datum", keys, rows)
    body = guarded(lambda: exhibits.learning_curves(history, objective))
    return Section(
        "learning", "Learning curves", f"{body}<details><summary>The curves as a table</summary>{numbers}</details>"
    )


def _drawings(model: Callable[..., Any], guide: Callable[..., Any], dataset: RunData, split: str) -> list[Section]:
    x = first_data(splits(dataset)[split], exhibits.POINTS)
    known = dataset.labels.get(split)
    labels: Tensor | None = None if known is None else known[: len(x)]
    few = x[: exhibits.PICTURES] if is_image(tuple(x.shape[1:])) else x
    levels = dataset.levels

    def latents() -> list[Picture]:
        return exhibits.latents(Sampler(model, guide, x), labels, split)

    def moves() -> list[Picture]:
        return findings.moves(model, guide, few, levels)

    none = paragraph("No latent belongs to a single datum.")
    return [
        Section("samples", "Samples", guarded(lambda: exhibits.samples(Sampler(model, guide, few), levels, split))),
        Section(
            "reconstructions",
            "Reconstructions",
            guarded(lambda: exhibits.reconstructions(Sampler(model, guide, few), levels, split)),
        ),
        Section("latents", "Latent space", (guarded(latents) or none) + guarded(moves)),
    ]


def _findings(found: Diagnosis) -> list[Section]:
    """What the diagnosis drew; where a measure is not defined, its verdict has said why."""
    sections = [
        ("evidence", "Evidence, datum by datum", findings.evidence),
        ("information", "Collapse and information", findings.collapse),
        ("holes", "Holes", findings.holes),
        ("calibration", "Calibration", findings.calibration),
    ]
    drawn = [Section(name, heading, guarded(partial(draw, found))) for name, heading, draw in sections]
    return [section for section in drawn if section.body]


def _settings(settings: Mapping[str, object]) -> Section:
    rows = [(escape(name), escape(value)) for name, value in _flat(settings)]
    body = table("Settings of the run", ("Setting", "Value"), rows) if rows else paragraph("No settings were given.")
    return Section("settings", "Settings", body)


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _how(split: str, seed: int) -> Section:
    drawn = (
        "What is drawn",
        f"Data are the first of the {split} split in its own order, not a choice; random draws start from seed {seed}. "
        "Samples are latents drawn from the model's prior, and data given them.",
    )
    items = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in (*_REFERENCES, drawn))
    return Section("how", "How the numbers were computed", f"<dl>{items}</dl>")
