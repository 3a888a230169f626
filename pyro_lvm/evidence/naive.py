"""The log-likelihood of data by naive Monte Carlo: from the prior, as if nothing were known of the posterior."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_lvm.evidence.log_likelihood import LogLikelihood, estimate
from pyro_lvm.processes import OneProcess
from pyro_lvm.programs import Program

__all__ = ["naive_log_likelihood"]


def naive_log_likelihood(
    model: Callable[..., Any],
    x: Tensor,
    num_particles: int = 5000,
    *,
    max_bytes: int = 256 * 2**20,
    seed: int | None = None,
    vectorize_particles: bool = True,
    progress: bool = True,
) -> LogLikelihood:
    r"""$\log \hat p(x_n) = \log \frac1K \sum_k p(x_n \mid z_k)$, $z_k \sim p(z)$.

    Needs no guide, and is `log_likelihood` with the prior in a guide's place. The mean of $p(x \mid z)$ is right, but
    few draws from the prior come near a datum's posterior: the number K that a given error takes grows exponentially
    with KL(p(z | x) ‖ p(z)), the nats a datum says about its latents, and so with their number. Short of it the
    estimate lies far below log p(x) as a rule; a high k-hat or an `ess` near 1 gives that away.

    Latents that all data share are drawn from the prior too: the result is then the log prior predictive of each datum.
    Exactly K draws are made for every datum, in chunks over data and draws.

    Args:
        model: the program, zoo or your own.
        x: data, (N, *data_shape).
        num_particles: K.
        max_bytes: bound on the memory for one chunk's intermediate values; parameters, x and the N results not counted,
            and K log-weights per datum of a chunk, 8 bytes each.
        seed: makes the draws repeatable and leaves the caller's random state alone; drawn from it where left out.
        vectorize_particles: False runs the program once per draw, for a program that cannot take a dimension of
            particles on the left of its latents.
        progress: show a bar on a terminal.

    Returns:
        The estimates with their errors, (N,), nats per datum; the weights of which `ess` and `khat` speak are
        $p(x_n \mid z_k)$.

    Raises:
        ValueError: for data that are empty, not finite or outside the likelihood's support; fewer than 1 particle; a
            program without a data plate over x, or that subsamples it itself.
        FloatingPointError: where a log-weight is NaN.

    References:
        Grosse, Ghahramani & Adams (2015), Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo.
        Chatterjee & Diaconis (2018), The Sample Size Required in Importance Sampling.

    Example:
        >>> import torch
        >>> from pyro_lvm import exact, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> x = model.sample(8)
        >>> ll = naive_log_likelihood(model, x, num_particles=1000)
        >>> evidence = exact.log_evidence(x, model.weight, model.bias, model.noise_scale.square())
        >>> bool((ll - evidence).abs().max() < 4 * ll.standard_error.max()), bool(ll.ess.min() > 50)
        (True, True)
    """
    programs = (Program(model), None)
    return estimate(programs, x, num_particles, max_bytes, seed, vectorize_particles, "auto", progress, OneProcess())
