r"""Discrete diffusion: levels that jump at random, from step to step, until nothing of the datum is left.

Every value of a datum moves by itself: $q(z_t = b \mid z_{t-1} = a) = Q_t[a, b]$. The reverse process reads all values
at once, with a network that says what each of them may have been.
"""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import cast, final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.diffusion.moments import step_of
from pyro_lvm.diffusion.schedules import squared_cosine
from pyro_lvm.sizes import check_sizes, checked_levels, checked_shape

__all__ = [
    "AbsorbingCorruption",
    "Corruption",
    "DiscreteReverse",
    "NormalCorruption",
    "UniformCorruption",
    "cosine_survival",
    "linear_survival",
]


class Corruption(Part):
    r"""The forward process of discrete diffusion over levels 0 to L − 1, abstract: $Q_1, \dots, Q_T$.

    Two products of a vector with a matrix are all that anything needs of it, and a corruption that has a closed form
    for them never forms a matrix: `push`, from a distribution over levels to that over states t steps later, and
    `pull`, from a state to how likely it is from every state one step before.

    A process may have more states S than there are levels, the levels being the first ones. Values come as (..., D), of
    any number of leading dimensions, and times as (...), whole numbers that broadcast against these.

    Attributes:
        levels: L.
        steps: T.
        states: S.
    """

    levels: int
    steps: int
    states: int

    @abstractmethod
    def push(self, p: Tensor, t: Tensor) -> Tensor:
        r"""$\sum_c p_c\, q(z_t = \cdot \mid x = c)$ for t ≥ 0: from (..., D, L), of any sum, to (..., D, S)."""

    @abstractmethod
    def pull(self, z_t: Tensor, t: Tensor) -> Tensor:
        r"""$q(z_t \mid z_{t-1} = \cdot)$ for t ≥ 1: from states (..., D) to (..., D, S)."""

    def marginal(self, x: Tensor, t: Tensor) -> Tensor:
        """log q(z_t | x) of levels (..., D) at times (...), (..., D, S), nats."""
        return log_of(self.push(one_hot(x, self.levels, self.reference.dtype), t))

    def bridge(self, x: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        r"""$\log q(z_{t-1} \mid z_t, x)$ up to a constant, $\log Q_t[\cdot, z_t] + \log q(z_{t-1} = \cdot \mid x)$.

        Args:
            x: levels, (..., D).
            z_t: states, (..., D).
            t: times (...), 1 or more.

        Returns:
            (..., D, S), nats.
        """
        return log_of(self.pull(z_t, t)) + self.marginal(x, t - 1)

    def step_at(self, u: Tensor) -> Tensor:
        """The step from 2 to T that a number u in [0, 1) stands for, each as often as any other, (...), int64."""
        return step_of(u, self.steps).long()

    @property
    def reference(self) -> Tensor:
        """A tensor with the corruption's device and precision."""
        return next(self.buffers())

    def stationary(self) -> Tensor:
        """log p(z_T), what is left of any datum, (S,), nats."""
        return torch.full((self.levels,), 1.0 / self.levels).to(self.reference).log()


class _Survival(Corruption):
    r"""A corruption that leaves a value alone or replaces it whatever it was, abstract: $\bar\alpha_t$ says how often.

    Args:
        levels: L.
        survival: ᾱ_1 … ᾱ_T, the shares of the values that are still the datum's own; falling, and 0 at the last step.
    """

    kept: Tensor
    moved: Tensor

    def __init__(self, levels: int, survival: Sequence[float]) -> None:
        super().__init__()
        values = torch.tensor([1.0, *_checked_survival(survival)], dtype=torch.float64)  # (T + 1,), from step 0
        self.levels, self.steps = checked_levels(levels), len(survival)
        like = torch.get_default_dtype()
        moved = torch.cat([torch.zeros(1, dtype=torch.float64), 1 - values[1:] / values[:-1]])
        # Made from the arguments: nothing to be saved.
        self.register_buffer("kept", values.to(like), persistent=False)
        self.register_buffer("moved", moved.to(like), persistent=False)


@final
class UniformCorruption(_Survival):
    r"""$Q_t = \alpha_t I + (1 - \alpha_t)\, 1 1^\top / L$: now and then a value is drawn anew, all levels alike.

    Args:
        levels: L.
        survival: $\bar\alpha_t = \prod_{s \le t} \alpha_s$ for t = 1 … T, from below 1 down to 0; `cosine_survival(T)`.

    Raises:
        ValueError: where L < 2, T < 1, or the survival does not fall within [0, 1) and end at 0.

    References:
        Hoogeboom et al. (2021), Argmax Flows and Multinomial Diffusion. Austin et al. (2021), Structured Denoising
        Diffusion Models in Discrete State-Spaces.

    Example:
        >>> corruption = UniformCorruption(4, linear_survival(2))
        >>> corruption.marginal(torch.tensor([3]), torch.tensor(1)).exp()
        tensor([[0.1250, 0.1250, 0.1250, 0.6250]])
    """

    def __init__(self, levels: int, survival: Sequence[float]) -> None:
        super().__init__(levels, survival)
        self.states = levels

    def push(self, p: Tensor, t: Tensor) -> Tensor:
        r"""$\bar\alpha_t\, p + (1 - \bar\alpha_t) \sum_c p_c / L$, (..., D, L)."""
        kept = self.kept[t][..., None, None]
        return kept * p + (1 - kept) * p.mean(-1, keepdim=True)

    def pull(self, z_t: Tensor, t: Tensor) -> Tensor:
        r"""$\alpha_t 1[a = z_t] + (1 - \alpha_t) / L$ of every a, (..., D, L)."""
        moved = self.moved[t][..., None, None]
        return (1 - moved) * one_hot(z_t, self.states, moved.dtype) + moved / self.levels


@final
class AbsorbingCorruption(_Survival):
    r"""A value stays what it is until it is masked, and then it stays masked: state L is the mask.

    $Q_t[a, a] = \alpha_t$ and $Q_t[a, L] = 1 - \alpha_t$ for levels a; $Q_t[L, L] = 1$. What is not masked is known.

    Args:
        levels: L.
        survival: $\bar\alpha_t = \prod_{s \le t} \alpha_s$ for t = 1 … T, from below 1 down to 0: the shares that are
            not masked; `linear_survival(T)`.

    Raises:
        ValueError: where L < 2, T < 1, or the survival does not fall within [0, 1) and end at 0.

    References:
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces.

    Example:
        >>> corruption = AbsorbingCorruption(2, linear_survival(4))
        >>> corruption.push(torch.tensor([[1.0, 0.0]]), torch.tensor(1))
        tensor([[0.7500, 0.0000, 0.2500]])
    """

    def __init__(self, levels: int, survival: Sequence[float]) -> None:
        super().__init__(levels, survival)
        self.states = levels + 1

    def push(self, p: Tensor, t: Tensor) -> Tensor:
        r"""$\bar\alpha_t\, p$ and, of the mask, $(1 - \bar\alpha_t) \sum_c p_c$, (..., D, L + 1)."""
        kept = self.kept[t][..., None, None]
        return torch.cat([kept * p, (1 - kept) * p.sum(-1, keepdim=True)], dim=-1)

    def pull(self, z_t: Tensor, t: Tensor) -> Tensor:
        r"""$\alpha_t 1[a = z_t] + (1 - \alpha_t) 1[z_t = L]$ of levels a, $1[z_t = L]$ of the mask, (..., D, L + 1)."""
        moved = self.moved[t][..., None, None]
        at = one_hot(z_t, self.states, moved.dtype)  # (..., D, L + 1)
        levels, masked = at[..., :-1], at[..., -1:]
        return torch.cat([(1 - moved) * levels + moved * masked, masked.expand_as(moved * masked)], dim=-1)

    def stationary(self) -> Tensor:
        """Everything is masked, (L + 1,), nats."""
        return log_of(one_hot(torch.tensor(self.levels), self.states, self.kept.dtype).to(self.kept))


@final
class NormalCorruption(Corruption):
    r"""Levels move to near ones: $Q_t[a, b] \propto e^{-4 (a - b)^2 / ((L - 1)^2 \beta_t)}$, for ordered levels.

    The proportion's constant, the sum over all distances, is the same in every row, and what is missing in a row stays
    where it is: $Q_t$ is symmetric and its products come to the uniform distribution. What is left of a datum after T
    steps is paid for in the bound. It has no closed form of a product
    over steps: T matrices of L × L are kept, and a product is one of a vector per value with a matrix per datum.

    Args:
        levels: L.
        spreads: β_1 … β_T > 0; from 0.02 to 1 in equal steps in the paper, at T = 1000.

    Raises:
        ValueError: where L < 2, T < 1, or a spread is not positive and finite.

    References:
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces, appendix A.2.3.

    Example:
        >>> corruption = NormalCorruption(4, [1.0] * 60)
        >>> corruption.pull(torch.tensor([0]), torch.tensor(1))
        tensor([[0.6882, 0.2413, 0.0636, 0.0069]])
    """

    one_step: Tensor
    product: Tensor

    def __init__(self, levels: int, spreads: Sequence[float]) -> None:
        super().__init__()
        check_sizes(levels=checked_levels(levels), steps=len(spreads))
        for t, spread in enumerate(spreads, 1):
            if not 0 < spread < float("inf"):
                raise ValueError(f"'spreads' must be positive and finite, but that of step {t} is {spread!r}.")
        self.levels, self.states, self.steps = levels, levels, len(spreads)
        distance = torch.arange(1.0 - levels, levels, dtype=torch.float64)
        level = torch.arange(levels)
        one_step, product = [torch.eye(levels, dtype=torch.float64)], [torch.eye(levels, dtype=torch.float64)]
        for spread in spreads:
            share = (-4 * distance.square() / ((levels - 1) ** 2 * spread)).softmax(0)  # of every distance
            Q = share[level[:, None] - level + levels - 1].fill_diagonal_(0.0)
            Q = Q + torch.diag(1 - Q.sum(-1))
            one_step.append(Q)
            product.append(product[-1] @ Q)
        like = torch.get_default_dtype()
        self.register_buffer("one_step", torch.stack(one_step).to(like), persistent=False)  # (T + 1, L, L)
        self.register_buffer("product", torch.stack(product).to(like), persistent=False)

    def push(self, p: Tensor, t: Tensor) -> Tensor:
        r"""$p\, Q_1 \cdots Q_t$, (..., D, L)."""
        return p @ self.product[t]

    def pull(self, z_t: Tensor, t: Tensor) -> Tensor:
        r"""$Q_t[\cdot, z_t]$, which is its row as well, (..., D, L)."""
        batch = torch.broadcast_shapes(z_t.shape[:-1], t.shape)
        z_t, t = z_t.expand(*batch, -1), t.expand(batch)
        return self.one_step[t[..., None], z_t]


@final
class DiscreteReverse(Part):
    r"""$p_\theta(z_{t-1} \mid z_t) = \prod_d \sum_c q(z_{t-1,d} \mid z_{t,d}, x_d = c)\, \tilde p_\theta(x_d = c \mid
    z_t)$, what undoes a corruption.

    The network f is not asked what its own input says of a value, which is known: $\tilde p_\theta(x_d = c \mid z_t)
    \propto q(z_{t,d} \mid x_d = c)\, e^{f_{dc}(z_t, t)}$. It has to say what the other values tell, and a value that
    cannot have been c, such as one that is not masked, never is. The sum is then proportional to $Q_t[z_{t-1,d},
    z_{t,d}] \sum_c q(z_{t-1,d} \mid x_d = c)\, \mathrm{softmax}_c f_{dc}$, equation 4 of the paper.

    At t = 1 it is the likelihood p(x | z_1), over levels.

    Args:
        net: f, from states as one-hot vectors (..., *data_shape, S) and times t/T (...) to (..., *data_shape, L).
        corruption: q.
        data_shape: shape of a datum.

    References:
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces.

    Example:
        >>> from pyro_lvm.networks import TimeMLP
        >>> _ = torch.manual_seed(0)
        >>> corruption = AbsorbingCorruption(3, linear_survival(5))
        >>> reverse = DiscreteReverse(TimeMLP((6, 4), (6, 3), hidden_features=8), corruption, 6)
        >>> reverse(torch.zeros(7, 6).long(), torch.full((7,), 2)).sample().shape
        torch.Size([7, 6])
    """

    def __init__(self, net: nn.Module, corruption: Corruption, data_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.net, self.corruption = net, corruption
        self.data_shape = checked_shape(data_shape, "data_shape")

    def forward(self, z_t: Tensor, t: Tensor) -> TorchDistribution:
        """p(z_{t−1} | z_t), of states or, at t = 1, of levels; event shape (*data_shape).

        Args:
            z_t: states, (..., *data_shape).
            t: times (...), whole numbers of 1 or more; where one of them is 1, all must be.
        """
        return self.over_states(self.logits(z_t, t))

    def likelihood(self, z_1: Tensor) -> TorchDistribution:
        """p(x | z_1), of levels; event shape (*data_shape)."""
        t = torch.ones(z_1.shape[: z_1.dim() - len(self.data_shape)], dtype=torch.long, device=z_1.device)
        return self.over_states(self.logits(z_1, t)[..., : self.corruption.levels])

    def logits(self, z_t: Tensor, t: Tensor) -> Tensor:
        """log p(z_{t−1} | z_t) up to a constant, (..., D, S), nats."""
        shape, corruption = self.data_shape, self.corruption
        if tuple(z_t.shape[z_t.dim() - len(shape) :]) != shape:
            raise ValueError(
                f"'z_t' must have shape (..., {', '.join(map(str, shape))}), as the data have, not {tuple(z_t.shape)}."
            )
        dtype = corruption.reference.dtype
        scores = self.net(one_hot(z_t, corruption.states, dtype), t.to(dtype) / corruption.steps)  # (..., *shape, L)
        guess = scores.flatten(-len(shape) - 1, -2).softmax(-1)  # (..., D, L)
        return log_of(corruption.pull(z_t.flatten(-len(shape)), t)) + log_of(corruption.push(guess, t - 1))

    def over_states(self, logits: Tensor) -> TorchDistribution:
        """The distribution of values (..., *data_shape) with these logits (..., D, S or L)."""
        shaped = logits.unflatten(-2, self.data_shape)
        return cast(TorchDistribution, dist.Categorical(logits=shaped).to_event(len(self.data_shape)))


def linear_survival(steps: int) -> tuple[float, ...]:
    r"""$\bar\alpha_t = 1 - t / T$: at every step as many values are lost.

    Raises:
        ValueError: where T < 1.

    Example:
        >>> linear_survival(4)
        (0.75, 0.5, 0.25, 0.0)
    """
    check_sizes(steps=steps)
    return tuple(1 - t / steps for t in range(1, steps + 1))


def cosine_survival(steps: int, offset: float = 0.008) -> tuple[float, ...]:
    r"""$\bar\alpha_t = \cos^2(\frac{t/T + o}{1 + o} \frac\pi2) / \cos^2(\frac{o}{1 + o} \frac\pi2)$, slow at both ends.

    Args:
        steps: T.
        offset: o ≥ 0, makes the first steps larger.

    Raises:
        ValueError: where T < 1, or `offset` is negative or infinite.

    References:
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models. Hoogeboom et al. (2021), Argmax
        Flows and Multinomial Diffusion.

    Example:
        >>> [round(value, 2) for value in cosine_survival(4)]
        [0.85, 0.49, 0.14, 0.0]
    """
    signal = squared_cosine(steps, offset)
    return (*(value / signal[0] for value in signal[1:-1]), 0.0)


def one_hot(values: Tensor, states: int, dtype: torch.dtype) -> Tensor:
    """Values (...) as one-hot vectors (..., S); PyTorch's own looks at the values, which a captured step cannot."""
    return (values.unsqueeze(-1) == torch.arange(states, device=values.device)).to(dtype)


def log_of(p: Tensor) -> Tensor:
    """log p, for what is impossible so low that nothing is left of it, but finite: 0 · log 0 has a value then."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _checked_survival(survival: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(value) for value in survival)
    check_sizes(steps=len(values))
    for t, value in enumerate(values, 1):
        if not 0 <= value < 1 or (value == 0) != (t == len(values)):
            raise ValueError(
                f"'survival' must lie between 0 and 1, and be 0 at the last step and there alone, where nothing of the "
                f"datum is left, but at step {t} of {len(values)} it is {value:.6g}."
            )
    for t, (before, after) in enumerate(pairwise(values), 2):
        if not after < before:
            raise ValueError(
                f"'survival' must fall from step to step, but at step {t} of {len(values)} it goes from {before:.6g} "
                f"to {after:.6g}."
            )
    return values
