"""One-hot vectors: a categorical whose log-probability sees the vector, and one whose draws carry a gradient."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


class OneHotCategorical(dist.OneHotCategorical):
    r"""$p(z) = \prod_c \pi_c^{z_c}$ over one-hot vectors z of C categories.

    PyTorch's own looks up which category it is; here $\log p(z) = \sum_c z_c \log \pi_c$ is a function of the vector,
    so that a gradient passes through a draw that carries one.

    Args:
        probs, logits: one of them, (..., C).

    Example:
        >>> z = torch.tensor([0.0, 1.0], requires_grad=True)
        >>> OneHotCategorical(probs=torch.tensor([0.25, 0.75])).log_prob(z).backward()
        >>> z.grad.exp()
        tensor([0.2500, 0.7500])
    """

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # PyTorch's own signature
        """Draws, (*sample_shape, ..., C)."""
        with torch.no_grad():
            # PyTorch's own `one_hot` looks at the values it is given, which a step that is being captured cannot.
            category = self._categorical.sample(sample_shape).unsqueeze(-1)  # (*sample_shape, ..., 1)
            return (category == torch.arange(self.logits.shape[-1], device=category.device)).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), (...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        # An impossible category has log π = −∞, which times 0 would be NaN.
        return (value * self.logits.clamp_min(torch.finfo(self.logits.dtype).min)).sum(-1)


class StraightThrough(OneHotCategorical):
    r"""A categorical over one-hot vectors whose draws pass on the gradient of their Gumbel-softmax relaxation.

    With Gumbel noise g, a draw is the one-hot vector of $\mathrm{argmax}_c (\log \pi_c + g_c)$, an exact draw; its
    gradient is that of $\mathrm{softmax}_c((\log \pi_c + g_c) / \tau)$: biased, less so at low temperatures, where its
    variance grows. A relaxed draw itself would lie outside the support, and what it gave would bound no evidence.

    Args:
        temperature: τ > 0.
        logits: log π up to a constant, (..., C).

    Raises:
        ValueError: for a temperature that is not positive.

    References:
        Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax. Maddison, Mnih & Teh (2017), The
        Concrete Distribution.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> z = StraightThrough(0.5, logits).rsample((2,))
        >>> z.tolist(), z.requires_grad
        ([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], True)
    """

    has_rsample = True
    has_enumerate_support = False  # enumerated, it would be the categorical itself
    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # as in every distribution

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None) -> None:
        if not temperature > 0:
            raise ValueError(f"'temperature' must be positive, not {temperature!r}.")
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StraightThrough":
        """The same distribution for a larger batch."""
        shape = torch.Size(batch_shape) + self.event_shape
        return StraightThrough(self.temperature, self.logits.expand(shape), validate_args=False)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # PyTorch's own default
        """One-hot vectors with the relaxation's gradient."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        noisy = logits - torch.empty_like(logits).exponential_().log()  # −log of an exponential is a Gumbel variable
        categories = torch.arange(noisy.shape[-1], device=noisy.device)
        hard = (noisy.detach().argmax(-1, keepdim=True) == categories).to(noisy.dtype)
        soft = (noisy / self.temperature).softmax(-1)
        return hard + (soft - soft.detach())

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """One-hot vectors."""
        with torch.no_grad():
            return self.rsample(sample_shape)
