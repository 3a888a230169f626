"""What diffusions are trained on besides their bound: squared errors of the noise, all steps alike."""

from typing import Any, final

from torch import Tensor

from pyro_lvm.objectives.objective import Objective
from pyro_lvm.objectives.table import Recorded, Table


@final
class SimpleDenoising(Objective):
    r"""$-\frac1T \left(\sum_{t=2}^T E\|\varepsilon - \hat\varepsilon_\theta(z_t, t)\|^2 - \log p(x \mid z_1)\right)$.

    The bound of `models.Diffusion` with its steps weighed alike, which makes much of noisy ones and draws better
    samples. It bounds nothing: the history of `fit` has the true `elbo` beside it. The last step to the data keeps one
    step's part, so that a decoder's own parameters are trained too; a learned schedule is not, the errors would vanish
    if it added no noise.

    Args:
        num_particles: K.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for a model that does not record `"noise_error"`.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, equation 14.

    Example:
        >>> import torch
        >>> from pyro_lvm import data, zoo
        >>> digits = data.load("digits")
        >>> model, guide, recipe = zoo.build("ddpm", digits, seed=0)
        >>> _ = torch.manual_seed(0)
        >>> loss = SimpleDenoising().loss(model, guide, digits.test[:100]) / 100
        >>> 0 < loss < 64  # of 64 values; untrained, it has Bayes' rule for each value by itself
        True
    """

    is_bound = False

    def bound(self, table: Table) -> Tensor:
        """Minus the loss, summed over data, scaled."""
        return mean_over_steps(table, "SimpleDenoising")


@final
class HybridDenoising(Objective):
    r"""The simple loss and $\lambda \sum_{t=2}^T \mathrm{KL}(q(z_{t-1} \mid z_t, x) \| p_\theta(z_{t-1} \mid z_t))$.

    For reverse processes with a learned variance, which the simple loss leaves alone: the divergence's gradient reaches
    the variance only, the mean is held in it.

    Args:
        weight: λ > 0.
        num_particles, vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for a λ that is not positive, and for a model that does not record `"variance_divergence"`.

    References:
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, equation 16.

    Example:
        >>> HybridDenoising(weight=0.0)
        Traceback (most recent call last):
        ValueError: 'weight' is the divergence's part of the loss and must be positive and finite, not 0.0.
    """

    is_bound = False

    def __init__(self, weight: float = 0.001, num_particles: int = 1, **settings: Any) -> None:
        super().__init__(num_particles, **settings)
        if not 0 < weight < float("inf"):
            raise ValueError(
                f"'weight' is the divergence's part of the loss and must be positive and finite, not {weight}."
            )
        self.weight = weight

    def bound(self, table: Table) -> Tensor:
        """Minus the loss, summed over data, scaled."""
        divergence = recorded(table, "variance_divergence", "HybridDenoising")
        return mean_over_steps(table, "HybridDenoising") - self.weight * divergence.total()


def mean_over_steps(table: Table, objective: str) -> Tensor:
    """Minus the simple loss, summed over data, scaled."""
    error = recorded(table, "noise_error", objective)
    data = [site for site in table.sites.values() if not site.is_latent]
    value = sum((site.scale_p * site.log_p).mean(0).sum() for site in data) - error.total()
    return value / (1 + error.inner_scale)


def recorded(table: Table, name: str, objective: str) -> Recorded:
    """What the model records by that name."""
    if name not in table.recorded:
        there = ", ".join(f"'{known}'" for known in table.recorded) or "nothing"
        learned = " (with a learned variance)" if name == "variance_divergence" else ""
        raise ValueError(
            f"{objective} reads '{name}', which models.Diffusion records{learned}, and this model records {there}."
        )
    return table.recorded[name]
