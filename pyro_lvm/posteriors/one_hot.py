"""Posteriors over discrete codes."""

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.distributions import OneHotCategorical, StraightThrough


class OneHot(Part):
    r"""$q(z \mid x) = \prod_v \prod_c \pi_{vc}(x)^{z_{vc}}$ over V one-hot vectors of C categories.

    Its draws carry no gradient: objectives give it the score function's.

    Args:
        net: from (..., *data_shape) to (..., V · C): log π up to a constant, variable by variable.
        categories: C.

    Raises:
        ValueError: where the network gives no multiple of C.

    References:
        Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> OneHot(nn.Linear(5, 6), categories=3)(torch.zeros(7, 5)).event_shape
        torch.Size([2, 3])
    """

    def __init__(self, net: nn.Module, categories: int) -> None:
        super().__init__()
        self.net, self.categories = net, categories

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (V, C)."""
        return OneHotCategorical(logits=_by_category(self.net(x), self.categories)).to_event(1)


class GumbelSoftmax(Part):
    r"""$q(z \mid x) = \prod_v \prod_c \pi_{vc}(x)^{z_{vc}}$, with the gradient of a Gumbel-softmax relaxation.

    The draws are exact one-hot vectors, so bounds stay bounds; the gradient is biased, see
    `pyro_lvm.distributions.StraightThrough`.

    Args:
        net: from (..., *data_shape) to (..., V · C): log π up to a constant, variable by variable.
        categories: C.
        temperature: τ of the relaxation.

    Raises:
        ValueError: where the network gives no multiple of C, or the temperature is not positive.

    References:
        Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> GumbelSoftmax(nn.Linear(5, 6), categories=3)(torch.zeros(7, 5)).rsample().shape
        torch.Size([7, 2, 3])
    """

    def __init__(self, net: nn.Module, categories: int, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' must be positive, not {temperature!r}.")
        self.net, self.categories, self.temperature = net, categories, temperature

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z | x), event shape (V, C)."""
        return StraightThrough(self.temperature, _by_category(self.net(x), self.categories)).to_event(1)


def _by_category(out: Tensor, categories: int) -> Tensor:
    if out.shape[-1] % categories:
        raise ValueError(
            f"a code of variables with {categories} categories each needs a multiple of that from its network; it "
            f"gives {out.shape[-1]}."
        )
    return out.unflatten(-1, (-1, categories))
