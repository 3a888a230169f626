"""Likelihood regret: what a datum's own posterior would gain over the encoder's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.evidence.gaps import Estimate
from pyro_lvm.evidence.local import Family, GuideFamily, Latents, check_settings, log_joint, maximise
from pyro_lvm.evidence.log_likelihood import datum_log_weight
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import run, structure
from pyro_lvm.preflight import as_tensor, check_pair
from pyro_lvm.programs import Constant, Program, pair
from pyro_lvm.progress import progress_bar

_BYTES = 2**28  # intermediate values of one run of the programs


def likelihood_regret(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    steps: int = 100,
    draws_per_step: int = 8,
    learning_rate: float = 0.1,
    num_particles: int = 100,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> Estimate:
    r"""$\mathrm{LR}(x) = \max_\phi L(x; q_\phi) - L(x; q(z \mid x))$, nats: large where the encoder met none alike.

    L(x; q) = E_q[log p(x, z) − log q(z)], and q_φ is of the guide's family, its parameters φ free for each datum and
    optimised from the guide's own. It is the amortisation gap of single data, with `gaps`' optimisation, but for its
    other families. How large it comes out depends on `steps`: it is a score to be compared at one number of them.

    Args:
        model, guide: the pair, zoo or your own; the guide's latents reparameterised and independent given the data.
        x: data, (N, *data_shape).
        steps, draws_per_step, learning_rate: of the optimisation, by Adam in units of q's width; the learning rate goes
            to 0 along a cosine.
        num_particles: fresh draws of each q for each datum, of the same noise for both, at least 2.
        seed: makes the result repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the model once per draw, for programs that cannot take a dimension of particles
            on the left of their latents; slow.
        progress: show a bar on a terminal.

    Raises:
        ValueError: for settings out of range; latents that all data share; a guide whose latents hang on one another's
            draws, are not reparameterised, or are not of distributions made of parameters alone; and whatever
            `log_likelihood` refuses.

    References:
        Xiao, Yan & Amit (2020), Likelihood Regret: An Out-of-Distribution Detection Score For Variational Auto-encoder.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(3, latent_dim=1)
        >>> regret = likelihood_regret(model, guides.ExactPPCA(model), model.sample(4), seed=0)
        >>> regret.values.abs().max() < 1e-4  # nothing is better than the posterior
        tensor(True)
    """
    check_settings(num_particles, steps, draws_per_step, learning_rate)
    programs = pair(model, guide)
    x = as_tensor(x, "x", programs)
    check_pair(programs, x, "x", lambda rows: datum_log_weight(run(*programs, (rows,), {}), rows))
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    with torch.random.fork_rng(), torch.no_grad(), Constant(programs[0]):
        torch.manual_seed(seed)

        def task(rows: Tensor) -> tuple[Latents, Callable[..., Tensor]]:
            latents = own_latents(programs, rows)
            return latents, partial(log_joint, programs[0], rows, latents, vectorize=vectorize_particles)

        def one_draw(rows: Tensor) -> None:
            latents, log_p = task(rows)
            log_p(GuideFamily(latents).rsample(1))

        # Gradients keep what is computed, and take about as much again.
        per_draw = bytes_per_row(one_draw, x)
        batches = x.split(max(1, _BYTES // (2 * per_draw * draws_per_step)))
        K, parts = max(1, _BYTES // (per_draw * len(batches[0]))), []
        with progress_bar("likelihood regret", steps * len(batches), progress) as advance:
            for rows in batches:
                latents, log_p = task(rows)
                own = maximise(
                    GuideFamily(latents),
                    log_p,
                    steps=steps,
                    draws=draws_per_step,
                    learning_rate=learning_rate,
                    advance=advance,
                )
                parts.append(_difference(own, GuideFamily(latents), log_p, num_particles, K))
    gain = torch.cat(parts, dim=1)
    if bool(gain.isnan().any() | gain.isinf().any()):
        raise FloatingPointError(
            "a log-weight is NaN or infinite: the optimisation of a datum's own q went astray (try a smaller "
            "'learning_rate'), or the model's density is not finite where q puts its draws."
        )
    return Estimate(gain.mean(0), gain.std(0) / num_particles**0.5)


def own_latents(programs: tuple[Program, Program], x: Tensor) -> Latents:
    """The latents of some data, each with parameters that can be freed datum by datum.

    Raises:
        ValueError: where they cannot.
    """
    found = structure(*programs, (x[:1],), {})
    if found.global_latents:
        names = ", ".join(f"'{name}'" for name in found.global_latents)
        raise ValueError(f"all data share the latents {names}, so a datum has no regret of its own.")
    latents = Latents(programs[1], x, found.nesting)
    for name, fn in latents.fns.items():
        if fn.support.is_discrete:
            raise ValueError(f"the guide's latent '{name}' is discrete, so that no gradient moves its draws.")
    return latents


def _difference(
    own: Family, amortised: Family, log_p: Callable[..., Tensor], num_particles: int, at_once: int
) -> Tensor:
    """log p(x, z) − log q(z) of the one less that of the other, draw by draw of the same noise, (K, B)."""
    differences, left = [], num_particles
    while left:
        k = min(at_once, left)
        seed, terms = int(torch.randint(2**62, ())), []
        for family in (own, amortised):
            torch.manual_seed(seed)
            draws = family.rsample(k)
            terms.append(log_p(draws).double() - family.log_prob(draws).double())
        differences.append(terms[0] - terms[1])
        left -= k
    return torch.cat(differences)
