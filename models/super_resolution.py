"""Super-resolution: a diffusion of data given a smaller version of them."""

import pyro
from torch import Tensor

from pyro_lvm.diffusion import Ancestral, Downscaled, Sampler
from pyro_lvm.models.diffusion import Diffusion
from pyro_lvm.programs import Model, data_plate


class SuperResolution(Model):
    r"""$p(y)\, p_\theta(x \mid y)$ with $y = d(x)$, a small version of x, and a diffusion of x given y.

    Where x is given, so is y, and it is observed as d(x). The bound is one on $\log p(y) + \log p(x \mid y)$ at y =
    d(x), which for discrete data is at most log p(x), a sum over all y of which this is one term: a real number of bits
    per dimension, that of p(x | y) being the sites "x" and "z" alone. Nothing forces a draw given y to be one that d
    makes y of; what the diffusion has not learned of that, the bound lacks.

    Args:
        diffusion: of x given y, its `condition` a `Downscaled`.

    Sites:
        `"y"` (B, *downscale.out_shape), observed where x is, and those of `models.Diffusion`. The guide is that of the
        diffusion, `guides.SubsampledDiffusion`, without a condition.

    Raises:
        ValueError: for a diffusion that is conditioned on something else.

    References:
        Saharia et al. (2021), Image Super-Resolution via Iterative Refinement. Ho et al. (2022), Cascaded Diffusion
        Models for High Fidelity Image Generation.

    Example:
        >>> import torch
        >>> from pyro_lvm import diffusion, likelihoods, networks, priors
        >>> _ = torch.manual_seed(0)
        >>> schedule = diffusion.LinearLogSNR(8.0, -5.0)
        >>> process = diffusion.ForwardProcess((4, 4), schedule, steps=20, centre=1.0)
        >>> net = networks.TimeMLP((4, 4), hidden_features=8, condition_shape=(2, 2))
        >>> reverse = diffusion.Reverse(net, (4, 4), schedule, diffusion.Velocity(), diffusion.SmallVariance())
        >>> condition = Downscaled(networks.Downscale((4, 4), 2), priors.MixtureOfLevels((2, 2), 3, 5), centre=1.0)
        >>> decoder = likelihoods.NoisedLevels(process, levels=3)
        >>> model = SuperResolution(Diffusion(process, reverse, decoder, condition))
        >>> model.super_resolve(torch.zeros(7, 2, 2)).shape, model.sample(5).shape
        (torch.Size([7, 4, 4]), torch.Size([5, 4, 4]))
    """

    def __init__(self, diffusion: Diffusion) -> None:
        super().__init__()
        if not isinstance(diffusion.condition, Downscaled):
            raise ValueError(
                f"'diffusion' must be conditioned on a Downscaled version of its data, not on {diffusion.condition}."
            )
        self.diffusion = diffusion

    @property
    def condition(self) -> Downscaled:
        """What the diffusion is conditioned on."""
        condition = self.diffusion.condition
        assert isinstance(condition, Downscaled)
        return condition

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("model", self)
        condition = self.condition
        with data_plate(x, size):
            y = pyro.sample("y", condition.coarse(), obs=None if x is None else condition.downscale(x))
            return self.diffusion.of_each(x, condition.of(y))

    def super_resolve(self, y: Tensor, sampler: Sampler | None = None) -> Tensor:
        """Draws x given y, (n, *data_shape).

        Args:
            y: small versions, (n, *downscale.out_shape), in the data's levels.
            sampler: one of `pyro_lvm.diffusion`'s; all steps where left out.

        Raises:
            ValueError: for small versions of another shape.
        """
        shape = self.condition.shape
        if tuple(y.shape[1:]) != shape or y.dim() != len(shape) + 1:
            raise ValueError(f"'y' must have shape (n, {', '.join(map(str, shape))}), not {tuple(y.shape)}.")
        return (sampler or Ancestral())(self.diffusion, len(y), given=self.condition.of(y))
