"""The evidence lower bound of data, for pairs that have no more than a bound."""

from collections.abc import Callable
from contextlib import nullcontext
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from pyro_lvm.evidence.estimates import Estimates, of_each_datum
from pyro_lvm.evidence.memory import bytes_per_row
from pyro_lvm.objectives.table import Table, run, structure
from pyro_lvm.preflight import as_programs_data, check_pair, convert
from pyro_lvm.programs import pair
from pyro_lvm.progress import progress_bar

__all__ = ["LowerBound", "lower_bound"]


@final
class LowerBound(Estimates):
    """Evidence lower bounds, one per datum, (N,), nats: a tensor that knows how good it is; see `Estimates`.

    Attributes:
        mean: their mean, nats per datum.
        standard_error: of each bound, (N,), nats: the Monte Carlo error.
        mean_standard_error: the Monte Carlo error of the mean, nats per datum.
        sampling_error: the error of the mean as one over the population the data come from, nats per datum.
        bits_per_dimension: −mean / (D log 2), an upper bound, for discrete data of D values.
        num_particles, features: K, D.
        is_discrete: whether the likelihood of the data is a probability, and not a density.
    """

    def __repr__(self) -> str:  # type: ignore[override]
        return (
            f"LowerBound({len(self)} data, mean {self.mean():.4f} ± {self.mean_standard_error:.4f} nats, "
            f"{self.num_particles} particles)"
        )


def lower_bound(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    num_particles: int = 100,
    *,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> LowerBound:
    r"""$\mathcal L(x_n) = E_q[\log p(x_n, z) - \log q(z \mid x_n)]$, the mean of K draws $z_k \sim q(\cdot \mid x_n)$.

    For any pair, and all that is known of one whose log-weights are themselves estimates: a plate inside the data's
    that is subsampled, as a diffusion's time is, counts by its scale. Divergences are in closed form where there is
    one. For programs with latents that all data share, these are drawn from the guide as from a posterior: the result
    then bounds the log posterior predictive of x.

    Args:
        model, guide: the pair, zoo or your own.
        x: data, (N, *data_shape).
        num_particles: K.
        max_bytes: bound on the memory for one chunk's intermediate values; parameters, x and the N results not counted,
            and K numbers per datum of a chunk, 8 bytes each.
        seed: makes the draws repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the programs once per draw, for programs that cannot take a dimension of
            particles on the left of their latents.
        progress: show a bar on a terminal.

    Raises:
        ValueError: for data that are empty, not finite or outside the likelihood's support; fewer than 1 particle;
            programs without a data plate over x, or that subsample it themselves.
        FloatingPointError: where a bound is NaN.

    References:
        Jordan et al. (1999), An Introduction to Variational Methods for Graphical Models. Ho, Jain & Abbeel (2020),
        Denoising Diffusion Probabilistic Models.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> bound = lower_bound(model, guides.LinearNormal(5, latent_dim=2), torch.zeros(8, 5), num_particles=50)
        >>> bound.shape, bool(bound.mean < 0), bool(bound.mean_standard_error < 0.2)
        (torch.Size([8]), True, True)
    """
    if not isinstance(num_particles, int) or num_particles < 1:
        raise ValueError(f"'num_particles' is a number of draws and must be at least 1, not {num_particles!r}.")
    programs = pair(model, guide)
    everything = as_programs_data(x, "x", programs)

    def once(rows: Tensor) -> Tensor:
        return _datum_bound(run(*programs, (rows,), {}, with_kl=True), rows)

    is_discrete = check_pair(programs, everything, "x", once)
    draws = torch.random.fork_rng() if seed is not None else nullcontext()
    with draws, torch.no_grad():
        if seed is not None:
            torch.manual_seed(seed)
        first = convert(everything[:1], programs)
        nesting = structure(*programs, (first,), {}).nesting
        pairs = max(1, max_bytes // bytes_per_row(once, first))
        B = min(len(everything), pairs)
        K = min(num_particles, max(1, pairs // B)) if vectorize_particles else 1
        counts = [K] * (num_particles // K) + [num_particles % K] * (num_particles % K > 0)
        values, errors, totals = [], [], torch.zeros(num_particles, dtype=torch.float64, device=first.device)
        with progress_bar("lower bound", len(everything), progress) as advance:
            for start in range(0, len(everything), B):
                rows = convert(everything[start : start + B], programs)
                of_draws = torch.cat(
                    [
                        _datum_bound(
                            run(*programs, (rows,), {}, num_particles=k, nesting=nesting, with_kl=True), rows
                        ).expand(k, -1)
                        for k in counts
                    ]
                ).double()  # (K, B)
                if bool(of_draws.isnan().any()):
                    raise FloatingPointError("a bound is NaN: the weights of model or guide are not finite.")
                values.append(of_draws.mean(0))
                errors.append(_error_of_mean(of_draws))
                totals += of_draws.sum(1)
                advance(len(rows), "")
    result = torch.cat(values).as_subclass(LowerBound)
    result.standard_error = torch.cat(errors)
    # Of the sum over data draw by draw: right also where the data of a draw have something in common.
    result.mean_standard_error = _error_of_mean(totals) / len(everything)
    result.num_particles, result.features, result.is_discrete = num_particles, prod(first.shape[1:]), is_discrete
    return result


def _error_of_mean(draws: Tensor) -> Tensor:
    """Of K draws, (K, ...): (...); not known of a single one."""
    K = len(draws)
    return draws.std(0) / K**0.5 if K > 1 else torch.full_like(draws[0], torch.nan)


def _datum_bound(table: Table, x: Tensor) -> Tensor:
    """The bound of each datum, (K, B)."""
    return of_each_datum(table, x, Table.bound, "bound")
