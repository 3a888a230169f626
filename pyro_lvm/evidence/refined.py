"""Draws from the posterior that importance weighting makes of a guide's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.evidence.log_likelihood import datum_log_weight
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import Site, run, structure
from pyro_lvm.preflight import as_tensor, check_pair
from pyro_lvm.programs import Program, pair
from pyro_lvm.progress import progress_bar

__all__ = ["sample_refined"]


def sample_refined(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    draws: int = 1,
    num_particles: int = 50,
    *,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> dict[str, Tensor]:
    r"""Draws from $q_{IW}(z \mid x)$: one of K particles $z_k \sim q(z \mid x)$, with probability $w_k / \sum_j w_j$.

    $w_k = p(x, z_k) / q(z_k \mid x)$. Importance weighting refines the guide's posterior: K = 1 gives q itself, and the
    draws come to be the posterior's as K grows, with a bias of order 1/K. The bound of the importance-weighted
    autoencoder with K particles, $E \log \frac1K \sum_k w_k$, is the ELBO of the refined posterior: of the one given
    K − 1 of the particles, in the mean over these; the ELBO of $q_{IW}$ itself, which forgets them, is no less.
    Every draw has K particles of its own, so draws are independent.

    Args:
        model, guide: the pair, zoo or your own.
        x: data, (N, *data_shape).
        draws: number of draws for each datum.
        num_particles: K.
        max_bytes: bound on the memory for one chunk's intermediate values.
        seed: makes the draws repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the programs once per particle, for programs that cannot take a dimension of
            particles on the left of their latents.
        progress: show a bar on a terminal.

    Returns:
        By latent site, (draws, *plates, *event), the last plate the data's: (draws, N, *event) for most. All latents of
        a datum come from the same particle, and so have their joint distribution.

    Raises:
        ValueError: for fewer than 1 draw or particle; for latents that all data share, whose weight is not a datum's;
            and whatever `log_likelihood` refuses.
        FloatingPointError: where a weight is NaN or infinite, or all of a datum's are zero.

    References:
        Cremer, Morris & Duvenaud (2017), Reinterpreting Importance-Weighted Autoencoders. Burda, Grosse & Salakhutdinov
        (2015), Importance Weighted Autoencoders.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> refined = sample_refined(model, guides.LinearNormal(5, latent_dim=2), torch.randn(8, 5), draws=10)
        >>> refined["z"].shape
        torch.Size([10, 8, 2])
    """
    for name, value in (("draws", draws), ("num_particles", num_particles)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"'{name}' is a number of draws and must be at least 1, not {value!r}.")
    programs = pair(model, guide)
    x = as_tensor(x, "x", programs)

    def evaluate(rows: Tensor) -> Tensor:
        return datum_log_weight(run(*programs, (rows,), {}), rows)

    check_pair(programs, x, "x", evaluate)
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        found = structure(*programs, (x[:1],), {})
        if found.global_latents:
            names = ", ".join(f"'{name}'" for name in found.global_latents)
            raise ValueError(
                f"all data share the latents {names}, so a datum has no weights of its own: 'sample_refined' takes "
                "pairs whose latents all belong to single data."
            )
        particles = max(1, max_bytes // bytes_per_row(evaluate, x))
        K = min(num_particles, particles) if vectorize_particles else 1
        # Several draws in one run only where each has all its particles there.
        S = min(draws, particles // K) if vectorize_particles and num_particles == K else 1
        batches = x.split(min(len(x), max(1, particles // (S * K))))
        chunks = []
        with progress_bar("refined draws", len(x) * draws, progress) as advance:
            for batch in batches:
                parts = []
                for start in range(0, draws, S):
                    s = min(S, draws - start)
                    parts.append(_draw(programs, batch, s, num_particles, K, found.nesting))
                    advance(len(batch) * s, "")
                chunks.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        joined = {name: torch.cat([chunk[name] for chunk in chunks], dim=found.nesting) for name in chunks[0]}
        # The plates a site is not in have been 1 so far.
        table = run(*programs, (x[:1],), {})
        return {site.name: _own_plates(joined[site.name], site) for site in table.latents}


def _draw(
    programs: tuple[Program, Program], x: Tensor, draws: int, num_particles: int, at_once: int, nesting: int
) -> dict[str, Tensor]:
    """Refined draws of all latents, (draws, *all plates, *event), from particles in runs of `at_once` for each draw."""
    chosen: dict[str, Tensor] = {}
    total, left = torch.tensor(-torch.inf), num_particles
    while left:
        k = min(at_once, left)
        table = run(*programs, (x,), {}, num_particles=draws * k, nesting=nesting)
        log_w = datum_log_weight(table, x).double().reshape(draws, k, len(x))
        if bool((log_w.isnan() | (log_w == torch.inf)).any()):
            raise FloatingPointError(
                "a log-weight is NaN or infinite: the weights of model or guide are not finite, or a density overflows."
            )
        # The largest of log w + Gumbel noise is chosen with probability w / Σ w.
        gumbel = -torch.empty_like(log_w).exponential_().log()
        index = (log_w + gumbel).argmax(1)  # (draws, B)
        candidates = {site.name: _chosen(site, index, nesting) for site in table.latents}
        # One is chosen among the particles of this run, and stays with the probability of its run among those so far.
        here = log_w.logsumexp(1)
        total = torch.logaddexp(total.to(here), here)
        taken = torch.rand_like(here).log() < here - total
        for name, value in candidates.items():
            mask = taken.reshape(draws, *(1,) * (nesting - 1), len(x), *(1,) * (value.dim() - nesting - 1))
            chosen[name] = torch.where(mask, value, chosen[name]) if name in chosen else value
        left -= k
    if bool((total == -torch.inf).any()):
        raise FloatingPointError(
            "all weights of a datum are zero: the guide puts no draw where the model's density is positive."
        )
    return chosen


def _chosen(site: Site, index: Tensor, nesting: int) -> Tensor:
    """The values of the particles of these numbers (draws, B), (draws, *plates, *event)."""
    draws, B = index.shape
    event = site.value.shape[1 + nesting :]
    value = site.value.reshape(draws, -1, *site.value.shape[1:])  # (draws, k, *plates, *event)
    where = index.reshape(draws, 1, *(1,) * (nesting - 1), B, *(1,) * len(event))
    return value.gather(1, where.expand(draws, 1, *value.shape[2:])).squeeze(1)


def _own_plates(values: Tensor, site: Site) -> Tensor:
    """Values (draws, *all plates, *event) without the plates to the left of the site's own."""
    depth = max(-dim for _, dim in site.plates)
    return values.flatten(0, values.dim() - site.event_dim - depth - 1)
