"""A prior over discrete codes."""

import torch
from pyro.distributions import TorchDistribution
from torch import nn

from pyro_lvm.distributions import OneHotCategorical
from pyro_lvm.priors.prior import Prior


class OneHot(Prior):
    r"""$p(z) = \prod_v \prod_c \pi_{vc}^{z_{vc}}$: V categorical variables of C categories, with learned probabilities.

    Args:
        variables: V.
        categories: C.

    Shapes:
        () to a distribution with event shape (V, C).

    Raises:
        ValueError: for less than one variable, or two categories.

    Example:
        >>> prior = OneHot(variables=3, categories=4)()
        >>> z = torch.eye(4)[:3]
        >>> round(prior.log_prob(z).exp().item() * 4**3, 4)
        1.0
    """

    def __init__(self, variables: int, categories: int) -> None:
        super().__init__()
        if variables < 1 or categories < 2:
            raise ValueError(
                f"'variables' must be at least 1 and 'categories' at least 2, not {variables} and {categories}."
            )
        self.logits = nn.Parameter(torch.zeros(variables, categories))

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (V, C)."""
        return OneHotCategorical(logits=self.logits).to_event(1)
