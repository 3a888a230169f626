"""The VampPrior: the guide's own posteriors of learned data."""

from collections.abc import Sequence
from math import isfinite
from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.distributions.mixture import Mixture, mixture
from pyro_lvm.priors.mixture_prior import MixturePrior
from pyro_lvm.sizes import check_sizes, checked_shape

# How far inside the range a pseudo-input starts that is put on its bounds, as a share of it: on the bounds themselves
# the sigmoid has no gradient.
_INSIDE = 0.01


@final
class VampPrior(MixturePrior):
    r"""$p(z) = \sum_k w_k\, q(z \mid u_k)$ with learned pseudo-inputs $u_k$, the variational mixture of posteriors.

    The posterior is the guide's own, the same module: a gradient reaches it from both programs, and a saved pair shares
    it again. The pseudo-inputs are $\mathrm{minimum} + (\mathrm{maximum} - \mathrm{minimum})\, \sigma(v_k)$ with free
    numbers $v_k$ that start at random; `start_from` starts them at data.

    A step costs one pass of the encoder over K pseudo-inputs more, whatever the number of particles.

    Args:
        posterior: x (..., *data_shape) to the distribution of z, the one of `pyro_lvm.posteriors` that the guide has.
            Of diagonal normals the densities come from one product of matrices; any other is asked for its `log_prob`.
        data_shape: shape of a datum.
        components: K.
        weights: `"uniform"`, 1/K, or `"learned"`.
        minimum, maximum: the data's range, in their units; for `levels` grey levels 0 and levels − 1.

    Shapes:
        () to a distribution with the posterior's event shape, (M,).

    Raises:
        ValueError: where a size is less than 1, the range is empty or infinite, or `weights` is another word.

    References:
        Tomczak & Welling (2018), VAE with a VampPrior.

    Example:
        >>> from pyro_lvm import guides, likelihoods, models, networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> posterior = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,)))
        >>> prior = VampPrior(posterior, (4, 4), components=10)
        >>> model = models.VAE(prior, likelihoods.Bernoulli(networks.MLP(3, (4, 4), (8,))))
        >>> guide = guides.Amortized(posterior)
        >>> prior.start_from(torch.rand(10, 4, 4).round())
        >>> prior.pseudo_inputs.shape, prior.sample((7,)).shape
        (torch.Size([10, 4, 4]), torch.Size([7, 3]))
    """

    logits: Tensor

    def __init__(
        self,
        posterior: nn.Module,
        data_shape: int | Sequence[int],
        components: int = 500,
        weights: str = "uniform",
        minimum: float = 0.0,
        maximum: float = 1.0,
    ) -> None:
        super().__init__()
        shape = checked_shape(data_shape, "data_shape")
        check_sizes(components=components)
        check_range(minimum, maximum)
        if weights not in ("uniform", "learned"):
            raise ValueError(f"'weights' must be 'uniform' or 'learned', not {weights!r}.")
        self.posterior, self.minimum, self.maximum = posterior, minimum, maximum
        self.raw_inputs = nn.Parameter(torch.randn(components, *shape))
        if weights == "learned":
            self.logits = nn.Parameter(torch.zeros(components))
        else:
            self.register_buffer("logits", torch.zeros(components))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (K, *data_shape), in the data's units."""
        return self.minimum + (self.maximum - self.minimum) * self.raw_inputs.sigmoid()

    def start_from(self, x: Tensor) -> None:
        """Puts the pseudo-inputs at data; what lies on the bounds of the range is moved 1 % of it inside.

        Args:
            x: (K, *data_shape), values between minimum and maximum.

        Raises:
            ValueError: for data of another number or shape, or outside the range.
        """
        if x.shape != self.raw_inputs.shape:
            raise ValueError(
                f"'x' must hold one datum for each pseudo-input, of shape {tuple(self.raw_inputs.shape)} in all, not "
                f"{tuple(x.shape)}."
            )
        outside = (x < self.minimum) | (x > self.maximum) | x.isnan()
        if outside.any():
            raise ValueError(
                f"'x' holds {x[outside][0].item():.6g}, which is outside the range of the pseudo-inputs, "
                f"{self.minimum:g} to {self.maximum:g}: give 'minimum' and 'maximum' of your data."
            )
        with torch.no_grad():
            share = (x.to(self.raw_inputs) - self.minimum) / (self.maximum - self.minimum)
            self.raw_inputs.copy_(share.clamp(_INSIDE, 1 - _INSIDE).logit())

    def forward(self) -> Mixture:
        """The distribution of z, event shape (M,)."""
        u = self.pseudo_inputs
        return mixture(self.posterior(u), lambda k: self.posterior(u[k]), self.logits.log_softmax(-1))


def check_range(minimum: float, maximum: float) -> None:
    """Refuses a range without an inside, or without an end."""
    if not (isfinite(minimum) and isfinite(maximum) and minimum < maximum):
        raise ValueError(
            f"'minimum' and 'maximum' are the data's range: the first must be smaller and both finite, not {minimum} "
            f"and {maximum}."
        )
