"""The likelihood of values between 0 and 1."""

from collections.abc import Sequence

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm import distributions
from pyro_lvm.configuration import Part
from pyro_lvm.likelihoods.shapes import checked, shaped


class ContinuousBernoulli(Part):
    r"""$p(x \mid z) = \prod_d e^{\eta_d(z) x_d} / Z(\eta_d(z))$, for values from 0 to 1, such as grey levels.

    What a Bernoulli likelihood would be of such values but for its normaliser; see
    `pyro_lvm.distributions.ContinuousBernoulli`.

    Args:
        net: η, from (..., M) to the logits, (..., *shape) or flat.
        shape: shape of a datum; the network's output's where left out.

    References:
        Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli: Fixing a Pervasive Error in Variational
        Autoencoders.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p = ContinuousBernoulli(nn.Linear(2, 6), shape=(2, 3))(torch.zeros(5, 2))
        >>> p.log_prob(torch.full((5, 2, 3), 0.25)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.shape = net, checked(shape)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x | z), batch shape z.shape[:-1]."""
        logits = shaped(self.net(z), z, self.shape, ())  # (..., *shape)
        return distributions.ContinuousBernoulli(logits).to_event(logits.dim() - z.dim() + 1)
