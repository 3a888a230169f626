"""What is checked before programs meet data: each failure is one sentence, and nothing has been changed by then."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.constraints import sphere
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_lvm.data.arrays import as_split
from pyro_lvm.data.checks import DataError
from pyro_lvm.data.dataset import Split, StreamedDataset, rows_at_once
from pyro_lvm.nonfinite import locate
from pyro_lvm.programs import Model, Pair
from pyro_lvm.progress import progress_bar

__all__ = ["as_programs_data", "as_tensor", "check_pair", "in_batches"]


def as_programs_data(x: Any, name: str, programs: Pair) -> Split:
    """Data as the programs can take them: a tensor with their device and precision, or a split computed as it is used.

    Raises:
        DataError: where they are empty, not finite, or no array of real numbers.
    """
    split = as_split(x, name)
    return convert(split, programs) if isinstance(split, Tensor) else split


def as_tensor(x: Any, name: str, programs: Pair) -> Tensor:
    """The same, all in memory."""
    split = as_split(x, name)
    return convert(split if isinstance(split, Tensor) else split[:], programs)


def convert(x: Tensor, programs: Pair) -> Tensor:
    """A batch in the programs' device and precision."""
    references = [program.reference() for program in programs if program is not None]
    like = next((reference for reference in references if reference.numel()), torch.empty(0))
    # The zoo's networks work on real numbers; a user's program may well look integers up in a table.
    to_real = x.is_floating_point() or isinstance(programs[0].original, Model)
    return x.to(device=like.device, dtype=like.dtype if to_real else x.dtype)


def in_batches(x: Split, rows: int, programs: Pair) -> Any:
    """The data from first to last, `rows` at a time."""
    for start in range(0, len(x), rows):
        yield convert(x[start : start + rows], programs)


def check_pair(
    programs: Pair, x: Split, name: str, evaluate: Callable[[Tensor], Tensor], *, progress: bool = False
) -> bool:
    """Runs the pair on a first batch with all of Pyro's checks on, and holds all data against the likelihood's support.

    The caller's random state stays as it was.

    Args:
        evaluate: what will be computed, of a batch.
        progress: show a bar on a terminal while a split too large for memory is read, which is done once.

    Returns:
        Whether the data are discrete: observed as they are, by a likelihood over separate values.

    Raises:
        DataError: for a value outside the support, or data whose shape the programs do not take.
        ValueError: for programs that do not belong together.
        FloatingPointError: where the programs give NaN.
    """
    batch = convert(x[:64], programs)
    with torch.random.fork_rng(), torch.no_grad():
        state = torch.get_rng_state()
        try:
            with pyro.validation_enabled(False):
                support = _support(programs, batch)
                if support is not None:
                    _check_all(programs, x, name, support, progress and isinstance(x, StreamedDataset))
                torch.set_rng_state(state)
                values = evaluate(batch)
                if bool(values.isnan().any()):
                    torch.set_rng_state(state)
                    raise FloatingPointError(f"the programs give NaN as they are: {locate(programs, batch)}.")
            with pyro.validation_enabled(True):
                evaluate(batch)
            return support is not None and bool(support[1].is_discrete)
        except (RuntimeError, IndexError) as error:
            raise DataError(_does_not_fit(batch, name, error)) from error
        except ValueError as error:
            if _first_line(error) == str(error):
                raise
            raise ValueError(_first_line(error)) from error


def _support(programs: Pair, batch: Tensor) -> tuple[str, Any, int] | None:
    """Site, support and number of event dimensions of the likelihood of the data themselves, if there is one."""
    model, guide = programs
    posterior = None if guide is None else poutine.trace(guide).get_trace(batch)
    drawn = model if posterior is None else poutine.replay(model, trace=posterior)
    with poutine.trace() as tracer:
        try:
            drawn(batch)
        finally:  # where the model fails, latents that are not its own are the likeliest reason
            if posterior is not None:
                _check_latents(tracer.trace.nodes, posterior.nodes)
    for name, site in tracer.trace.nodes.items():
        if site["type"] == "sample" and site["is_observed"] and site["value"] is batch:
            fn: Any = site["fn"]
            shape = fn.batch_shape + fn.event_shape
            # Pyro lets a density over fewer dimensions stand for more of them, so what broadcasts is fine.
            if any(s not in (1, n) for s, n in zip(shape[::-1], batch.shape[::-1], strict=False)):
                raise DataError(
                    f"the data have shape {tuple(batch.shape[1:])} each, but the likelihood '{name}' gives "
                    f"{tuple(fn.event_shape)}: build the model for the data's shape, or reshape the data."
                )
            support = _support_of(fn)
            return None if support is None else (name, support, support.event_dim)
    return None


def _support_of(fn: Any) -> Any:
    """Its support without what makes several dimensions or components of it; None where it states none."""
    try:
        support = fn.support
    except (AttributeError, NotImplementedError):
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _check_latents(model: dict[str, Any], guide: dict[str, Any]) -> None:
    """Guide and model have to have densities of the same thing, for their ratio to mean one."""
    for name, site in guide.items():
        if site["type"] != "sample" or name not in model or model[name]["type"] != "sample" or site_is_subsample(site):
            continue
        # One over a sphere and one over the space around it are no ratio, though each has a value for every draw.
        spheres = [_support_of(of["fn"]) is sphere for of in (site, model[name])]
        if spheres[0] != spheres[1]:
            where = ("the unit sphere", "all of space")
            raise ValueError(
                f"the guide's density of '{name}' is over {where[spheres[1]]}, but the model's is over "
                f"{where[spheres[0]]}: the two cannot be compared. On the sphere use "
                "priors.HypersphericalUniform with posteriors.VonMisesFisher or PowerSpherical."
            )
        shapes = [tuple(of["fn"].event_shape) for of in (site, model[name])]
        if len(shapes[0]) == len(shapes[1]) and shapes[0] != shapes[1]:
            raise ValueError(
                f"the guide's latent '{name}' has shape {shapes[0]}, but the model's has {shapes[1]}: build posterior, "
                "prior and decoder for the same one."
            )


def _check_all(programs: Pair, x: Split, name: str, support: tuple[str, Any, int], progress: bool) -> None:
    start = 0
    with progress_bar(f"checking {name}", len(x), progress) as advance:
        for part in in_batches(x, rows_at_once(x.shape), programs):
            _check_support(part, support, name, start)
            start += len(part)
            advance(len(part), "")


def _check_support(part: Tensor, support: tuple[str, Any, int], name: str, start: int) -> None:
    site, constraint, event_dim = support
    if event_dim:  # values are judged together: leave it to Pyro's own check of the first batch
        return
    wrong = ~constraint.check(part)
    if bool(wrong.any()):
        index = [int(i) for i in wrong.nonzero()[0]]
        value = part[tuple(index)].item()
        index[0] += start
        raise DataError(
            f"'{name}' holds {value:g} at {index}, outside the support of the likelihood '{site}', {_words(constraint)}"
            ": choose a likelihood for such values, or rescale, round or binarise them (data.load(..., binarise=...))."
        )


def _words(constraint: Any) -> str:
    text = str(constraint)
    if text.startswith("IntegerInterval"):
        return f"whole numbers from {int(constraint.lower_bound)} to {int(constraint.upper_bound)}"
    words = {
        "Boolean()": "zeros and ones",
        "Interval(lower_bound=0.0, upper_bound=1.0)": "numbers from 0 to 1",
        "Real()": "real numbers",
    }
    return words.get(text, text)


def _does_not_fit(batch: Tensor, name: str, error: Exception) -> str:
    return (
        f"'{name}', of shape {tuple(batch.shape[1:])} and type {batch.dtype} each, does not go through the programs: "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    """What it says: the rest is what Pyro adds to whatever a program raises, the shapes of the whole trace."""
    return str(error).partition("\n")[0] or f"{type(error).__name__} without a message"
