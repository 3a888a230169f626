"""The exact posterior of a mixture's assignments as a guide."""

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyro_lvm.configuration import Part
from pyro_lvm.models.gaussian_mixture import GaussianMixture
from pyro_lvm.programs import data_plate


class Responsibilities(Part):
    r"""$q(z = c \mid x) = p(z = c \mid x) = \pi_c \mathcal N(x \mid \mu_c, \Sigma_c) / p(x)$.

    Reads the model's own parameters: every log-weight is log p(x), whichever component is drawn.

    Args:
        model: the mixture whose assignments it infers.

    Sites:
        `"z"` (B,), an integer.

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, 9.2.

    Example:
        >>> import torch
        >>> from pyro_lvm import models
        >>> _ = torch.manual_seed(0)
        >>> guide = Responsibilities(models.GaussianMixture(2, components=3))
        >>> guide(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, model: GaussianMixture) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            return pyro.sample("z", dist.Categorical(logits=self.model.log_joint(x)), infer={"enumerate": "parallel"})
