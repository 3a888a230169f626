"""What likelihoods with a location and a scale share: where the scale comes from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.shapes import checked, shaped


class Scaled(Part, ABC):
    """A likelihood of a location and a scale for every value, abstract.

    Args:
        net: from (..., M) to the locations, (..., *shape) or flat.
        scale: a positive number fixes it; `"shared"` learns one number; `"per_dimension"` one for every value and needs
            `shape`; `"predicted"` lets the network give it too, as the second half of its last dimension (with `shape`,
            of its flat output).
        shape: shape of a datum; the network's output's where left out.
        start: where a learned raw scale starts.
    """

    def __init__(self, net: nn.Module, scale: float | str, shape: Sequence[int] | None, start: float) -> None:
        super().__init__()
        self.net, self.scale, self.shape = net, scale, checked(shape)
        if isinstance(scale, (int, float)):
            if not 0 < scale < float("inf"):
                raise ValueError(f"'scale' is the likelihood's and must be positive and finite, not {scale}.")
        elif scale == "per_dimension" and shape is None:
            raise ValueError("'scale' = 'per_dimension' learns a scale for every value: give the data's 'shape' too.")
        elif scale not in ("shared", "per_dimension", "predicted"):
            raise ValueError(f"'scale' must be a number, 'shared', 'per_dimension' or 'predicted', not {scale!r}.")
        if scale in ("shared", "per_dimension"):
            sizes = () if scale == "shared" or self.shape is None else self.shape
            self.raw_scale = nn.Parameter(torch.full(sizes, start))

    @abstractmethod
    def positive(self, raw: Tensor) -> Tensor:
        """A scale from a free number."""

    def read(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Locations as the network gives them, (..., *shape), and scales that broadcast against them."""
        out = self.net(z)
        if self.scale == "predicted":
            if out.shape[-1] % 2:
                raise ValueError(
                    f"'scale' = 'predicted' needs a network that gives twice as many numbers as a datum has, for "
                    f"locations and scales; the last dimension of its output is {out.shape[-1]}, an odd number."
                )
            out, raw = out.chunk(2, dim=-1)
            scale = self.positive(shaped(raw, z, self.shape, ()))
        elif isinstance(self.scale, (int, float)):
            scale = out.new_tensor(float(self.scale))
        else:
            scale = self.positive(self.raw_scale)
        return shaped(out, z, self.shape, ()), scale
