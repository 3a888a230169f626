"""The datum that a network of levels sees in noised ones."""

from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.process import ForwardProcess
from pyro_lvm.sizes import checked_levels

__all__ = ["LevelDenoiser"]


@final
class LevelDenoiser(Part):
    r"""$\hat x_d = \sum_k x_k\, p(x_d = k \mid z_t)$, $p(x_d = k \mid z_t) \propto \mathcal N(z_{td} \mid
    \sqrt{\bar\alpha_t}\, x_k, 1 - \bar\alpha_t)\, \mathrm{softmax}_k f_{dk}(z_t, t)$.

    Data that have L levels: the network says what a value may be by what it sees of the others, its own noised value is
    weighed by Bayes' rule, and the mean is what squared errors ask for. Where the noise is smaller than the distance of
    levels, the value is known without the network; a network of x̂ or ε̂ has to learn to round there. To be given to a
    `Reverse` with `Start()`.

    Args:
        net: from z_t (..., *data_shape) and t (...) to logits (..., *data_shape, L), and behind them one number more
            where the variance is learned; may take a condition besides.
        process: the forward process, with its schedule and the scale of the data.
        levels: L, data are 0, …, L − 1.

    Raises:
        ValueError: where `levels` < 2, or the network gives another number of logits.

    References:
        Dieleman et al. (2022), Continuous Diffusion for Categorical Data. Austin et al. (2021), Structured Denoising
        Diffusion Models in Discrete State-Spaces.

    Example:
        >>> import torch
        >>> from pyro_lvm.diffusion import LinearLogSNR
        >>> process = ForwardProcess(3, LinearLogSNR(10.0, -10.0), steps=None, centre=1.0, spread=1.0)
        >>> class Even(Part):
        ...     def forward(self, z, t):
        ...         return torch.zeros(*z.shape, 3)
        >>> denoiser = LevelDenoiser(Even(), process, levels=3)
        >>> z = torch.tensor([-0.9, 0.1, 1.1])
        >>> denoiser(z, torch.tensor(0.0)).round(decimals=3)  # little noise: the nearest levels
        tensor([-1.,  0.,  1.])
        >>> denoiser(z, torch.tensor(1.0)).abs().max() < 0.05  # nothing but noise: the mean of all
        tensor(True)
    """

    def __init__(self, net: nn.Module, process: ForwardProcess, levels: int) -> None:
        super().__init__()
        self.net, self.process, self.levels = net, process, checked_levels(levels)

    def forward(self, z: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """x̂ (..., *data_shape), in the process's units; (..., 2, *data_shape), the variance's number behind it."""
        out = self.net(z, t, *condition)
        if out.shape[-1] not in (self.levels, self.levels + 1):
            raise ValueError(
                f"'net' must give {self.levels} logits a value, one for each level, and one number more for a learned "
                f"variance, not {out.shape[-1]}."
            )
        of_levels = out[..., : self.levels] + self.process.log_levels(z, t, self.levels)  # (..., *data_shape, L)
        mean: Tensor = of_levels.softmax(-1) @ self.process.level_values(self.levels, of_levels)
        if out.shape[-1] == self.levels:
            return mean
        return torch.stack([mean, out[..., -1]], -1 - self.process.event_dim)
