r"""What a network says of a noised datum $z_t = \sqrt{\bar\alpha_t}\, x + \sqrt{1 - \bar\alpha_t}\, \varepsilon$.

Any of x, ε and v gives the other two; which one a network is to predict decides where its errors count.
"""

from abc import abstractmethod
from typing import final

from torch import Tensor

from pyro_lvm.configuration import Part

__all__ = ["Epsilon", "Parameterisation", "Start", "Velocity"]


class Parameterisation(Part):
    """From a network's output to the datum and the noise that it stands for, abstract.

    Shapes:
        Outputs and z_t are (..., *data_shape), ℓ is (..., 1, …, 1); so are the results.
    """

    @abstractmethod
    def start(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """The datum x̂."""

    @abstractmethod
    def noise(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """The noise ε̂."""


@final
class Epsilon(Parameterisation):
    r"""The network gives the noise: $\hat x = (z_t - \sqrt{1 - \bar\alpha_t}\, \hat\varepsilon) / \sqrt{\bar\alpha_t}$.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> import torch
        >>> z_t, log_snr = torch.tensor([1.0]), torch.tensor([0.0])
        >>> Epsilon().start(torch.tensor([1.0]), z_t, log_snr)
        tensor([0.4142])
    """

    def start(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """x̂."""
        return (z_t - (-log_snr).sigmoid().sqrt() * out) * (1 + (-log_snr).exp()).sqrt()

    def noise(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """ε̂, the output itself."""
        return out


@final
class Start(Parameterisation):
    r"""The network gives the datum: $\hat\varepsilon = (z_t - \sqrt{\bar\alpha_t}\, \hat x) / \sqrt{1 - \bar\alpha_t}$.

    References:
        Salimans & Ho (2022), Progressive Distillation for Fast Sampling of Diffusion Models.

    Example:
        >>> import torch
        >>> z_t, log_snr = torch.tensor([1.0]), torch.tensor([0.0])
        >>> Start().noise(torch.tensor([1.0]), z_t, log_snr)
        tensor([0.4142])
    """

    def start(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """x̂, the output itself."""
        return out

    def noise(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """ε̂."""
        return (z_t - log_snr.sigmoid().sqrt() * out) * (1 + log_snr.exp()).sqrt()


@final
class Velocity(Parameterisation):
    r"""The network gives $v = \sqrt{\bar\alpha_t}\, \varepsilon - \sqrt{1 - \bar\alpha_t}\, x$, of one size always.

    $\hat x = \sqrt{\bar\alpha_t}\, z_t - \sqrt{1 - \bar\alpha_t}\, v$ and $\hat\varepsilon = \sqrt{1 - \bar\alpha_t}\,
    z_t + \sqrt{\bar\alpha_t}\, v$.

    References:
        Salimans & Ho (2022), Progressive Distillation for Fast Sampling of Diffusion Models.

    Example:
        >>> import torch
        >>> z_t, log_snr = torch.tensor([1.0]), torch.tensor([0.0])
        >>> Velocity().start(torch.tensor([1.0]), z_t, log_snr)
        tensor([0.])
    """

    def start(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """x̂."""
        return log_snr.sigmoid().sqrt() * z_t - (-log_snr).sigmoid().sqrt() * out

    def noise(self, out: Tensor, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """ε̂."""
        return (-log_snr).sigmoid().sqrt() * z_t + log_snr.sigmoid().sqrt() * out
