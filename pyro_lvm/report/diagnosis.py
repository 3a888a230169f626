"""What a run is worth, in words, each with the number behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import nan
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor

from pyro_lvm import diagnostics
from pyro_lvm.diagnostics.calibration import check_weights
from pyro_lvm.evidence import LogLikelihood, log_likelihood, lower_bound
from pyro_lvm.report.number import Number
from pyro_lvm.report.run_data import RunData, first_data, shown_split, splits

__all__ = ["Diagnosis", "Verdict", "diagnose", "diagnose_run"]

_DATA = 500  # looked at, of each split
_PARTICLES = 500  # behind a datum's k-hat
_PASSES = 10  # behind a datum's bound
_SIMULATIONS, _DRAWS = 200, 99  # of the calibration
_ALIVE = 0.1  # nats per datum: a level that says less has collapsed
_HOLES = 0.05  # of the prior's mass
_KHAT = 0.7
_UNSURE, _SURE = 0.01, 0.0001  # p-values
_ERRORS = 3.0  # standard errors; less than so many are no difference

Answer = Literal["yes", "partly", "no", "unknown"]
T = TypeVar("T")


@final
@dataclass(frozen=True)
class Verdict:
    """An answer to a question that one has about a model, and what it rests on.

    Attributes:
        question: such as "Collapsed?".
        answer: "unknown" where what it needs is not defined for the pair, or could not be measured.
        number: what was measured; its `meaning` says where the answer's limits lie.
        good: the answer one hopes for.
        detail: what is to be said of this pair alone; may be empty.
    """

    question: str
    answer: Answer
    number: Number
    good: Answer = "no"
    detail: str = ""

    @property
    def is_good(self) -> bool | None:
        """Whether it is as hoped; None where that is not known."""
        return None if self.answer == "unknown" else self.answer == self.good


@final
@dataclass(frozen=True)
class Diagnosis:
    """Measures of a pair on data it was not trained on; a text where one is not defined, which says why.

    Attributes:
        verdicts: the questions, in order.
        divergences: of each level and unit from its prior.
        active: units that move with the data; None where no latent of a datum is continuous.
        surgery: the parts of the divergence.
        holes: of the prior.
        weights: importance-weighted estimates, with a k-hat for each datum.
        calibration: ranks of what was simulated among draws of the guide.
    """

    verdicts: list[Verdict]
    divergences: diagnostics.UnitDivergences | str
    active: diagnostics.ActiveUnits | str | None
    surgery: diagnostics.Surgery | str
    holes: diagnostics.Holes | str
    weights: LogLikelihood | str
    calibration: diagnostics.Calibration | str


def diagnose(
    model: Callable[..., Any], guide: Callable[..., Any], train: Tensor, held_out: Tensor | None, *, seed: int = 0
) -> Diagnosis:
    """Measures a trained pair: collapse, holes, importance weights, overfitting, calibration.

    Args:
        model, guide: the pair.
        train: the data it was trained on, (N, *data_shape); the first 500 are looked at.
        held_out: data it was not trained on, likewise; None where there are none.
        seed: of all draws; the caller's random state is left alone.

    Returns:
        The measures, with verdicts. What is not defined for the pair, such as importance weights of a diffusion, is a
        sentence in its place.

    References:
        Those of the measures; the thresholds are ours, and each verdict's number says which.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> found = diagnose(model, guides.ExactPPCA(model), model.sample(300), model.sample(300))
        >>> {verdict.question: verdict.answer for verdict in found.verdicts}["Calibrated?"]
        'yes'
    """
    x = train[:_DATA] if held_out is None else held_out[:_DATA]
    quiet: dict[str, Any] = {"seed": seed, "progress": False}
    divergences = _attempt(lambda: diagnostics.unit_divergences(model, guide, x, seed=seed))
    active = _attempt(lambda: diagnostics.active_units(model, guide, x, seed=seed))
    holes = _attempt(lambda: diagnostics.holes(model, guide, x, **quiet))
    weights = _attempt(lambda: log_likelihood(model, guide, x, _PARTICLES, **quiet))
    calibration = _attempt(lambda: _calibrated(model, guide, x[:2], seed))
    verdicts = [
        _collapse(divergences, active),
        _holes(holes),
        _evidence(weights),
        _overfitting(model, guide, train[:_DATA], None if held_out is None else x, seed),
        _calibration(calibration),
    ]
    surgery = _attempt(lambda: diagnostics.surgery(model, guide, x, **quiet))
    return Diagnosis(verdicts, divergences, active, surgery, holes, weights, calibration)


def diagnose_run(model: Callable[..., Any], guide: Callable[..., Any], dataset: RunData, *, seed: int = 0) -> Diagnosis:
    """`diagnose`, on the splits of a data set: of the test data where there are some, else of the validation data.

    Args:
        model, guide: the pair, trained on the data set's training data.
        dataset: as `pyro_lvm.data.load` gives it.
        seed: of all draws; the caller's random state is left alone.

    Raises:
        ValueError: where no split has data.
    """
    present, split = splits(dataset), shown_split(dataset)
    train = first_data(present.get("train", present[split]), _DATA)
    held_out = None if split == "train" else first_data(present[split], _DATA)
    return diagnose(model, guide, train, held_out, seed=seed)


def _attempt(measure: Callable[[], T]) -> T | str:
    """What a measure gives, or the sentence by which it says why it gives nothing."""
    try:
        return measure()
    except (ValueError, NotImplementedError, FloatingPointError, RuntimeError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)


def _calibrated(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, seed: int) -> diagnostics.Calibration:
    check_weights(model, guide, x)
    return diagnostics.simulation_based_calibration(model, guide, _SIMULATIONS, _DRAWS, seed=seed, progress=False)


def _unknown(question: str, reason: str, good: Answer = "no") -> Verdict:
    return Verdict(question, "unknown", Number("–", nan, "", reason), good)


def _collapse(divergences: diagnostics.UnitDivergences | str, active: diagnostics.ActiveUnits | str | None) -> Verdict:
    question = "Collapsed?"
    if isinstance(divergences, str) or not divergences.levels:
        return _unknown(question, divergences if isinstance(divergences, str) else "No latent belongs to a datum.")
    levels = divergences.levels
    least = min(levels, key=lambda name: levels[name].mean)
    dead = [name for name, level in levels.items() if level.mean < _ALIVE]
    idle = not isinstance(active, diagnostics.ActiveUnits) or active.count == active.total
    answer: Answer = ("yes" if len(dead) == len(levels) else "partly") if dead else "no" if idle else "partly"
    units = (
        f"{active.count} of {active.total} units move with the data."
        if isinstance(active, diagnostics.ActiveUnits)
        else ""
    )
    meaning = (
        f"KL of the level that says the least about the data, ± the error of drawing other data; below {_ALIVE} it has "
        "collapsed."
    )
    number = Number(f"KL of {least}", levels[least].mean, "nats per datum", meaning, levels[least].sampling_error)
    return Verdict(question, answer, number, detail=units)


def _holes(holes: diagnostics.Holes | str) -> Verdict:
    question = "Holes in the prior?"
    if isinstance(holes, str):
        return _unknown(question, holes)
    mass, error = holes.prior.mass, holes.prior.standard_error
    found = mass > _ERRORS * error
    answer: Answer = "yes" if found and mass > _HOLES else "partly" if found else "no"
    meaning = (
        f"Mass of the prior where next to no datum is encoded; above {_HOLES:.0%} and {_ERRORS:g} standard errors, "
        "draws from the model come from where it was not trained. With few data, small holes are not seen."
    )
    return Verdict(question, answer, Number("mass in holes", mass, "of the prior", meaning, error))


def _evidence(weights: LogLikelihood | str) -> Verdict:
    question = "Is the log-likelihood to be trusted?"
    if isinstance(weights, str):
        return _unknown(question, weights, "yes")
    khat = weights.khat.double()
    exact = not bool(khat.isfinite().any())
    share = 0.0 if exact else float((khat > _KHAT).double().mean())
    answer: Answer = "yes" if share < 0.01 else "partly" if share < 0.5 else "no"
    meaning = (
        f"Share of the data whose {_PARTICLES} importance weights have a k-hat above {_KHAT}, ± the error of drawing "
        "other data: their estimates are too low rather than too high, by more than the errors say."
    )
    error = (share * (1 - share) / len(khat)) ** 0.5 or None
    detail = "The weights of a datum are all the same: the posterior is exact." if exact else ""
    return Verdict(question, answer, Number("k-hat above 0.7", share, "of the data", meaning, error), "yes", detail)


def _overfitting(
    model: Callable[..., Any], guide: Callable[..., Any], train: Tensor, held_out: Tensor | None, seed: int
) -> Verdict:
    question = "Overfitted?"
    if held_out is None:
        return _unknown(question, "There are no data that the pair was not trained on.")
    bounds = [_attempt(partial(lower_bound, model, guide, x, _PASSES, seed=seed)) for x in (train, held_out)]
    if any(isinstance(bound, str) for bound in bounds):
        return _unknown(question, next(bound for bound in bounds if isinstance(bound, str)))
    own, other = (torch.as_tensor(bound).double() for bound in bounds)
    gap = float(own.mean() - other.mean())
    error = float((own.var() / len(own) + other.var() / len(other)).sqrt())
    found = gap > _ERRORS * error
    answer: Answer = "no" if not found else "yes" if gap > 0.05 * abs(float(other.mean())) else "partly"
    meaning = (
        "ELBO of training data less that of others, ± the error of drawing other data; above 5 % of the ELBO, the "
        "model knows its training data by heart in part."
    )
    number = Number("gap of the ELBO", gap, "nats per datum", meaning, error)
    return Verdict(question, answer, number, detail=f"{len(own)} training data and {len(other)} others were looked at.")


def _calibration(calibration: diagnostics.Calibration | str) -> Verdict:
    question = "Calibrated?"
    if isinstance(calibration, str):
        return _unknown(question, calibration, "yes")
    p = calibration.p_value
    answer: Answer = "yes" if p > _UNSURE else "partly" if p > _SURE else "no"
    meaning = (
        f"p-value that ranks of {calibration.simulations} simulated latents among draws of the guide are uniform, as "
        f"those of an exact posterior are; below {_UNSURE}, the guide's posteriors are not those of the model."
    )
    return Verdict(question, answer, Number("p-value", p, "", meaning), "yes")
