"""Sines and cosines of a number, by which a network sees it at several scales."""

from collections.abc import Sequence
from math import log, pi
from typing import final

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.sizes import check_sizes

_FINEST = 1000.0  # of an embedding's angles at t = 1; the coarsest is 1


@final
class FourierFeatures(Part):
    r"""$z \mapsto (z, \sin 2^k \pi z, \cos 2^k \pi z)$ for some k: what differs between near values.

    A network that is smooth cannot tell grey levels apart that differ by 2/255 of the range; with k = 7 and 8 it can.

    Args:
        exponents: the k, none or more; of z in [−1, 1] with L levels, up to log₂ L.

    Attributes:
        features: numbers for each value, 1 + 2 per exponent.

    Shapes:
        (...) to (..., features).

    References:
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models, appendix C.

    Example:
        >>> FourierFeatures((0, 1))(torch.tensor([0.125]))
        tensor([[0.1250, 0.3827, 0.9239, 0.7071, 0.7071]])
    """

    angles: Tensor

    def __init__(self, exponents: Sequence[int]) -> None:
        super().__init__()
        self.features = 1 + 2 * len(exponents)
        # Made from the arguments: nothing to be saved.
        self.register_buffer("angles", torch.tensor([pi * 2.0**k for k in exponents]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Maps (...) to (..., 1 + 2 K)."""
        angle = z.unsqueeze(-1) * self.angles.to(z.dtype)
        waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return torch.cat([z.unsqueeze(-1), waves], -1)


@final
class TimeEmbedding(Part):
    r"""A time and, beside it, what a draw is conditioned on, as a vector for the layers of a network.

    $e(t, c) = W_2 h(W_1 \phi(t) + b) + V c$ with $\phi(t) = (\sin \omega_k t, \cos \omega_k t)$, the angular
    frequencies $\omega_k$ from 1 to 1000 in equal ratios, and h the SiLU.

    Args:
        features: of the vector, E.
        condition_features: numbers in a condition; 0 where there is none.

    Shapes:
        t (...) in [0, 1] and c (..., condition_features) or None to (..., E); leading dimensions broadcast.

    Raises:
        ValueError: where `features` < 1.

    References:
        Vaswani et al. (2017), Attention Is All You Need. Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic
        Models.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> TimeEmbedding(32)(torch.rand(3, 1), None).shape
        torch.Size([3, 1, 32])
        >>> TimeEmbedding(32, 4)(torch.rand(()), torch.rand(5, 4)).shape
        torch.Size([5, 32])
    """

    frequencies: Tensor

    def __init__(self, features: int, condition_features: int = 0) -> None:
        super().__init__()
        check_sizes(features=features)
        self.register_buffer("frequencies", torch.linspace(0, log(_FINEST), 32).exp(), persistent=False)
        self.time = nn.Sequential(nn.Linear(64, features), nn.SiLU(), nn.Linear(features, features))
        self.condition = nn.Linear(condition_features, features, bias=False) if condition_features else None

    def forward(self, t: Tensor, c: Tensor | None) -> Tensor:
        """Maps (...) and (..., condition_features) to (..., E)."""
        angle = t.unsqueeze(-1) * self.frequencies
        e: Tensor = self.time(torch.cat([angle.sin(), angle.cos()], -1).to(self.frequencies.dtype))
        return e if self.condition is None or c is None else e + self.condition(c)
