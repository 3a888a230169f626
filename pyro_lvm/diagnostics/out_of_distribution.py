"""Whether a model notices data of another kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.auroc import AUROC, auroc
from pyro_lvm.diagnostics.complexity import complexity
from pyro_lvm.diagnostics.drawing import undisturbed
from pyro_lvm.diagnostics.figures import array, axes, draw_shares
from pyro_lvm.diagnostics.regret import likelihood_regret, own_latents
from pyro_lvm.evidence import log_likelihood, lower_bound
from pyro_lvm.evidence.estimates import Estimates
from pyro_lvm.objectives.table import run
from pyro_lvm.preflight import as_tensor
from pyro_lvm.programs import Program, pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES = {
    "likelihood": "−log p(x) (nats)",
    "bound": "−bound on log p(x) (nats)",
    "likelihood regret": "likelihood regret (nats)",
    "complexity-corrected": "−log p(x) − compressed length (nats)",
}


@final
@dataclass(frozen=True)
class Score:
    """A number for each datum that should be high where it is of another kind, and how well it tells.

    Attributes:
        inside, outside: of data of the model's kind and of another, (N,) and (N',), nats.
        auroc: the probability that it is higher for one of the other kind; below 1/2 it points the wrong way.
    """

    inside: Tensor
    outside: Tensor
    auroc: AUROC


@final
@dataclass(frozen=True)
class OutOfDistribution:
    """Scores by name, `"likelihood"`, `"likelihood regret"` and `"complexity-corrected"`; see `out_of_distribution`.

    Attributes:
        scores: those that are defined for the pair and the data; `"bound"` in place of the likelihood where no more is
            known.
        undefined: why others are not, in a sentence each.
    """

    scores: dict[str, Score]
    undefined: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = [f"  {name:<22} AUROC {score.auroc}" for name, score in self.scores.items()]
        rows += [f"  {name:<22} {reason}" for name, reason in self.undefined.items()]
        return "\n".join(["OutOfDistribution(", *rows, ")"])


def out_of_distribution(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x_in: Tensor,
    x_out: Tensor,
    *,
    num_particles: int = 100,
    steps: int = 100,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> OutOfDistribution:
    r"""Does a score of single data tell data of another kind from the model's own? Three scores, an AUROC each.

    - **likelihood**, $-\log \hat p(x)$ by importance sampling; the evidence lower bound where log-weights are
      themselves estimates, as a diffusion's are. Known to fail: simple data can be likelier than the model's own.
    - **likelihood regret**, what the datum's own posterior would gain over the encoder's; see `likelihood_regret`. For
      guides whose latents are reparameterised and independent given x.
    - **complexity-corrected**, $-\log \hat p(x) - L(x)$, with L(x) the datum's length after compression; see
      `complexity`. For data of up to 256 whole numbers, whose likelihood is a probability.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x_in: data of the kind it was trained on, but others, (N, *data_shape), N ≥ 2.
        x_out: data of another kind, of the same shape and in the same units, (N', *data_shape), N' ≥ 2.
        num_particles: draws from the guide for each datum, for the likelihood and for the regret.
        steps: of the optimisation of each datum's posterior.
        seed: makes the result repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the programs once per draw, for programs that cannot take a dimension of
            particles on the left of their latents.
        progress: show bars on a terminal.

    Returns:
        Scores of all data, and AUROCs with DeLong's standard errors.

    Raises:
        ValueError: where the sets hold fewer than two data or are of different shapes, or the likelihood scores them
            as outside its support; and whatever `log_likelihood` refuses.

    References:
        Nalisnick et al. (2019), Do Deep Generative Models Know What They Don't Know? Xiao, Yan & Amit (2020),
        Likelihood Regret: An Out-of-Distribution Detection Score For Variational Auto-encoder. Serrà et al. (2020),
        Input complexity and out-of-distribution detection with likelihood-based generative models.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=1)
        >>> x = model.sample(40)
        >>> found = out_of_distribution(model, guides.ExactPPCA(model), x[:20], x[20:] + 3, seed=0)
        >>> found.scores["likelihood"].auroc.value > 0.9, list(found.undefined)
        (True, ['complexity-corrected'])
    """
    programs = pair(model, guide)
    data = as_tensor(x_in, "x_in", programs), as_tensor(x_out, "x_out", programs)
    for name, x in zip(("x_in", "x_out"), data, strict=True):
        if len(x) < 2 or x.shape[1:] != data[0].shape[1:]:
            raise ValueError(
                f"'{name}' must hold at least two data, of one shape with those of the other set, but 'x_in' has shape "
                f"{tuple(data[0].shape)} and 'x_out' {tuple(data[1].shape)}."
            )
    more: dict[str, Any] = {"seed": seed, "vectorize_particles": vectorize_particles, "progress": progress}
    scores, undefined = {}, {}
    with torch.random.fork_rng(), undisturbed(*programs):
        reason = run(*programs, (data[0][:2],), {}).without_weights
    estimate: Callable[..., Estimates] = log_likelihood if reason is None else lower_bound
    likelihoods = [estimate(model, guide, x, num_particles, **more) for x in data]
    surprise = [-torch.as_tensor(values.as_subclass(Tensor)) for values in likelihoods]
    scores["likelihood" if reason is None else "bound"] = _score(surprise)
    no_regret = f"the pair has no exact log-weight: {reason}." if reason else _why_no_regret(programs, data[0])
    if no_regret is None:
        try:
            parts = [
                likelihood_regret(model, guide, x, steps=steps, num_particles=max(2, num_particles), **more)
                for x in data
            ]
            scores["likelihood regret"] = _score([part.values for part in parts])
        except FloatingPointError as error:  # a density that ends where its parameters say does not take free ones
            no_regret = str(error)
    if no_regret is not None:
        undefined["likelihood regret"] = no_regret
    try:
        lengths = [complexity(x) for x in data] if likelihoods[0].is_discrete else None
    except ValueError as error:
        lengths, undefined["complexity-corrected"] = None, str(error)
    if lengths is not None:
        scores["complexity-corrected"] = _score([s - length for s, length in zip(surprise, lengths, strict=True)])
    elif "complexity-corrected" not in undefined:
        undefined["complexity-corrected"] = "the likelihood is a density, which no length can be taken from."
    return OutOfDistribution(scores, undefined)


def _score(values: list[Tensor]) -> Score:
    inside, outside = values
    return Score(inside, outside, auroc(inside, outside))


def _why_no_regret(programs: tuple[Program, Program], x: Tensor) -> str | None:
    """Why a datum has no posterior of its own to be optimised, in a sentence; None where it has."""
    try:
        with torch.random.fork_rng(), torch.no_grad():
            own_latents(programs, x[:2])
    except ValueError as error:
        return str(error)
    return None


def plot_out_of_distribution(
    found: OutOfDistribution, score: str = "likelihood", *, ax: "Axes | None" = None
) -> "Axes":
    """Draws one score of both kinds of data as histograms; what lies right is to be of another kind.

    Args:
        found: what `out_of_distribution` returns.
        score: its name.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes.

    Raises:
        ValueError: where there is no such score.

    Example:
        >>> score = Score(torch.zeros(3), torch.ones(3), auroc(torch.zeros(3), torch.ones(3)))
        >>> plot_out_of_distribution(OutOfDistribution({"likelihood": score})).get_xlabel()
        '−log p(x) (nats)'
    """
    if score not in found.scores:
        raise ValueError(f"'score' must be one of {', '.join(map(repr, found.scores))}, not {score!r}.")
    ax = axes(ax, 6.4, 3.6)
    shown = found.scores[score]
    rows = [array(shown.inside), array(shown.outside)]
    every = np.concatenate(rows)
    # Single data far out would shrink all the rest.
    low, high = np.quantile(every, [0.005, 0.995])
    bins = np.linspace(low, high if high > low else low + 1, 41).tolist()
    for i, (row, name) in enumerate(zip(rows, ("the model's kind", "another kind"), strict=True)):
        draw_shares(ax, row, bins, name, i)
    ax.set_xlabel(_AXES[score])
    ax.set_ylabel("share of the data")
    ax.legend(title=f"AUROC {shown.auroc}", frameon=False, fontsize="small")
    return ax
