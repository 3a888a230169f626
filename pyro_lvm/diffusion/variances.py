"""The variance of a reverse step from time t to s."""

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.forward import step_variance

__all__ = ["LargeVariance", "LearnedVariance", "ReverseVariance", "SmallVariance"]


class ReverseVariance(Part):
    """The log-variance of p(z_s | z_t), abstract.

    Attributes:
        outputs: how many numbers it takes of a network for every value of a datum.
    """

    outputs = 0

    @abstractmethod
    def log_variance(self, log_snr_s: Tensor, log_snr_t: Tensor, raw: Tensor | None) -> Tensor:
        """log σ², to broadcast against data, from ℓ at both times, (..., 1, …, 1), and the network's numbers."""


@final
class SmallVariance(ReverseVariance):
    r"""$\tilde\beta_t = \beta_t (1 - \bar\alpha_s) / (1 - \bar\alpha_t)$, that of q(z_s | z_t, x).

    Right for data that are a single point: the least variance the best step can have. The divergence of a step is then
    a squared error alone.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> SmallVariance().log_variance(torch.tensor(2.0), torch.tensor(0.0), None).exp()
        tensor(0.1031)
    """

    def log_variance(self, log_snr_s: Tensor, log_snr_t: Tensor, raw: Tensor | None) -> Tensor:
        """log β̃."""
        return torch.log(-torch.expm1(log_snr_t - log_snr_s)) + logsigmoid(-log_snr_s)


@final
class LargeVariance(ReverseVariance):
    r"""$\beta_t = 1 - \bar\alpha_t / \bar\alpha_s$, that of q(z_t | z_s).

    Right for data that are standard normal: the largest variance the best step can have.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models.

    Example:
        >>> LargeVariance().log_variance(torch.tensor(2.0), torch.tensor(0.0), None).exp()
        tensor(0.4323)
    """

    def log_variance(self, log_snr_s: Tensor, log_snr_t: Tensor, raw: Tensor | None) -> Tensor:
        """log β."""
        return step_variance(log_snr_s, log_snr_t).log()


@final
class LearnedVariance(ReverseVariance):
    r"""$\log \sigma^2 = w \log \beta_t + (1 - w) \log \tilde\beta_t$ with $w = (1 + f)/2$ by the network.

    The network gives (..., 2, *data_shape): what its parameterisation asks for, and f, both value by
    value.

    References:
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models.

    Example:
        >>> LearnedVariance().log_variance(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(1.0)).exp()
        tensor(0.4323)
    """

    outputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = SmallVariance(), LargeVariance()

    def log_variance(self, log_snr_s: Tensor, log_snr_t: Tensor, raw: Tensor | None) -> Tensor:
        """log σ²."""
        assert raw is not None
        least = self.small.log_variance(log_snr_s, log_snr_t, None)
        most = self.large.log_variance(log_snr_s, log_snr_t, None)
        return least + (1 + raw) / 2 * (most - least)
