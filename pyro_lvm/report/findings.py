"""The drawings of a diagnosis: what latents say, where the prior is empty, which estimates hold, how ranks fall."""

from collections.abc import Callable
from html import escape
from typing import Any

from torch import Tensor

from pyro_lvm import diagnostics
from pyro_lvm.diagnostics.figures import COLOURS, axes, is_image
from pyro_lvm.report.diagnosis import Diagnosis, Verdict
from pyro_lvm.report.number import shown
from pyro_lvm.report.page import Picture, measured, table

_WAYS = 4  # pairs of data between which one goes
_MARKS = {True: "good", False: "bad", None: "unknown"}


def answer(verdict: Verdict) -> str:
    """The word, marked by whether it is as hoped, as HTML."""
    return f'<span class="verdict {_MARKS[verdict.is_good]}">{escape(verdict.answer)}</span>'


def verdicts(diagnosis: Diagnosis) -> str:
    """The answers as a table; what is as hoped and what is not is said by a word as well as by colour."""
    rows = [
        (
            escape(verdict.question),
            answer(verdict),
            escape(verdict.number.name) if verdict.answer != "unknown" else "",
            measured(verdict.number.text, verdict.number.unit) if verdict.answer != "unknown" else "–",
            escape(f"{verdict.number.meaning} {verdict.detail}".strip()),
        )
        for verdict in diagnosis.verdicts
    ]
    return table(
        "What the run is worth, in words, with the number behind each",
        ("Question", "Answer", "By", "Value", "What it means"),
        rows,
    )


def evidence(diagnosis: Diagnosis) -> list[Picture]:
    """How the k-hats of the data lie."""
    if isinstance(diagnosis.weights, str):
        return []
    khat = diagnosis.weights.khat.double()
    khat = khat[khat.isfinite()]
    if len(khat) == 0:
        return []
    ax = axes(None, 4.8, 3.4)
    ax.hist(khat.numpy(), bins=30, color=COLOURS[0])
    ax.axvline(0.7, color=COLOURS[1], linestyle="--", label="0.7, the last to be trusted")
    ax.set_xlabel("Pareto k-hat of a datum's importance weights")
    ax.set_ylabel("number of data")
    ax.legend(frameon=False)
    above = float((khat > 0.7).double().mean())
    return [
        Picture(
            ax,
            f"Histogram of the k-hat of {len(khat)} data, from {shown(float(khat.min()))} to "
            f"{shown(float(khat.max()))}, {above:.0%} of them above 0.7.",
            "How heavy the tail of each datum's importance weights is. Beyond 0.7 the estimate of its log-likelihood "
            "converges too slowly for its error to be known.",
        )
    ]


def collapse(diagnosis: Diagnosis) -> list[Picture]:
    """What each unit and level says of the data, and what that is made of."""
    drawn = []
    if not isinstance(diagnosis.divergences, str) and diagnosis.divergences.levels:
        words = "; ".join(f"{name} {shown(level.mean)}" for name, level in diagnosis.divergences.levels.items())
        drawn.append(
            Picture(
                diagnostics.plot_units(diagnosis.divergences, ax=axes(None, 4.8, 3.4)),
                f"Bars of the KL of every unit of the latents in nats per datum; of whole levels: {words}.",
                "What each unit of a latent says about a datum; at 0 it has collapsed.",
            )
        )
    if not isinstance(diagnosis.surgery, str):
        parts = diagnosis.surgery.parts
        words = "; ".join(f"{name} {shown(part.mean)}" for name, part in parts.items())
        drawn.append(
            Picture(
                diagnostics.plot_surgery(diagnosis.surgery, ax=axes(None, 4.8, 3.4)),
                f"Bar of what the KL to the prior is made of, in nats per datum: {words}.",
                f"What the divergence pays for. Information is at most log N = {shown(diagnosis.surgery.ceiling)} nats "
                "here; the rest is how far all posteriors together are from the prior.",
            )
        )
    return drawn


def holes(diagnosis: Diagnosis) -> list[Picture]:
    """Densities of prior draws under the aggregated posterior."""
    if isinstance(diagnosis.holes, str):
        return []
    prior = diagnosis.holes.prior
    return [
        Picture(
            diagnostics.plot_holes(diagnosis.holes),
            f"Draws from the prior beside those of the aggregated posterior; {shown(prior.mass)} ± "
            f"{shown(prior.standard_error)} of the prior's mass lies in holes.",
            "Where draws from the prior fall, and where data are encoded.",
        )
    ]


def calibration(diagnosis: Diagnosis) -> list[Picture]:
    """How the ranks of simulated latents fall."""
    if isinstance(diagnosis.calibration, str):
        return []
    return [
        Picture(
            diagnostics.plot_ranks(diagnosis.calibration),
            f"Distribution of ranks of {diagnosis.calibration.simulations} simulated latents among draws of the guide, "
            f"against the uniform one; p-value {shown(diagnosis.calibration.p_value)}.",
            "Latents and data are drawn from the model, and the latents ranked among draws of the guide given the "
            "data: an exact posterior's ranks are uniform.",
        )
    ]


def moves(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, levels: int | None) -> list[Picture]:
    """What a datum becomes as a latent moves, and on the way to another."""
    if not is_image(tuple(x.shape[1:])):
        return []
    ways = min(_WAYS, len(x) // 2)
    return [
        Picture(
            diagnostics.plot_traversals(model, guide, x, levels=levels),
            "Rows of pictures: what the first datum becomes as a unit of its latent moves across its prior.",
            "The most active units, one a row, from the lower to the upper end of the prior; the others stay.",
        ),
        Picture(
            diagnostics.plot_interpolation(model, guide, x[:ways], x[ways : 2 * ways], levels=levels),
            f"{ways} rows of pictures, each from one datum to another on a line between their latents.",
            "From datum to datum on a straight line between the means of their posteriors.",
        ),
    ]
