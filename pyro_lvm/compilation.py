"""Compiled objectives: the loss of a pair and its gradient, captured once and replayed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_lvm.capture import ProductChoices, Replayer, plain_attributes, same_but_for_rounding
from pyro_lvm.objectives import Objective
from pyro_lvm.programs import Pair, pair, parameters_of, tensors_of

__all__ = ["CompiledLoss", "CompiledObjective", "check_compile", "compile"]

Gradients = Sequence[Tensor | None]


class CompiledLoss:
    """A loss and its gradient by replaying a captured graph; see `pyro_lvm.capture.Replayer`.

    Args:
        loss: a scalar of a batch.
        programs, objective: what it runs.
        parameters: what it is differentiated by.
        is_worth_it: of a batch, whether there will be enough of its shape.
        arithmetic: the precision of the programs' arithmetic, where it is lower than that of their parameters.
    """

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        programs: Pair,
        objective: Any,
        parameters: list[nn.Parameter],
        *,
        is_worth_it: Callable[[Tensor], bool] = lambda x: True,
        arithmetic: torch.dtype = torch.float64,
    ) -> None:
        self._arithmetic = arithmetic
        self._loss, self._objective, self._parameters = loss, objective, parameters
        self._has_state = isinstance(objective, Objective)
        if self._has_state:  # a graph that is replayed on a GPU reads nothing elsewhere
            device = parameters[0].device
            objective.load_state_dict({name: value.to(device) for name, value in objective.state.items()})
        self._fixed = tensors_of(programs)
        self._names: list[str] = []  # of the objective's state, as the results have it
        self._used: list[bool] = []  # parameters that have a gradient
        self._choices = ProductChoices()
        self._replayer = Replayer(
            self._run, self._tensors, self._choices, agree=self._agree, is_worth_it=is_worth_it, what="the loss"
        )
        self._parts = parts_of(programs, objective)
        self._plain = plain_attributes(self._parts)

    def __call__(self, x: Tensor) -> tuple[Tensor, Gradients]:
        """The loss, and its gradient by every parameter, None for one that has no part in it."""
        loss, *results = self._replayer(x)
        if self._names:
            count = len(self._names)
            self._objective.state = dict(zip(self._names, results[:count], strict=True))
            results = results[count:]
        gradients = iter(results)
        of_all = [next(gradients) if used else None for used in self._used]
        return loss, [_laid_out_as(p, g) for p, g in zip(self._parameters, of_all, strict=True)]

    @property
    def failure(self) -> str | None:
        """Why the programs run as they are; None while they need not."""
        return self._replayer.failure

    def state(self) -> dict[str, Any]:
        """How far the capture has come and what it chose, for a checkpoint."""
        return {"products": dict(self._choices.made), **self._replayer.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a state: what was replayed then is replayed from now on."""
        self._choices.made.update(state["products"])
        self._replayer.load(state)

    def look_for_changes(self) -> None:
        """Captures anew if a number or a word among the programs' or the objective's attributes has changed."""
        now = plain_attributes(self._parts)
        if now != self._plain:
            self._plain = now
            self._replayer.forget()

    def _tensors(self) -> list[Tensor]:
        return [*self._fixed, *self._objective.state.values()] if self._has_state else self._fixed

    def _run(self, x: Tensor) -> list[Tensor]:
        """Loss, state and gradients, by the programs; the objective's state stays as it was."""
        before = dict(self._objective.state) if self._has_state else {}
        try:
            loss = self._loss(x)
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
            after = dict(self._objective.state) if self._has_state else {}
        finally:
            if self._has_state:
                self._objective.state = before
        self._names, self._used = list(after), [gradient is not None for gradient in gradients]
        return [loss.detach(), *after.values(), *(gradient for gradient in gradients if gradient is not None)]

    def _agree(self, replayed: Sequence[Tensor], own: Sequence[Tensor]) -> bool:
        """The loss and the state each, and the gradients together: a single one may be nothing but rounding."""
        first = 1 + len(self._names)
        pairs = zip(replayed[:first], own[:first], strict=True)
        alone = all(same_but_for_rounding([a], [b], self._arithmetic) for a, b in pairs)
        return alone and same_but_for_rounding(replayed[first:], own[first:], self._arithmetic)


class CompiledObjective:
    r"""An objective of one pair, captured and replayed: what `objective(model, guide)` is, in less time.

    `compiled(x)` is the loss, minus the bound in nats, summed over the batch and scaled as the objective does; its
    `backward` adds the gradient to the parameters. The draws are those that the objective would make.

    The first two batches of a shape go through the programs as they are; capturing takes seconds and is done for every
    shape. Numbers and words among the attributes of the modules and of the objective may change between calls; what a
    program reads elsewhere in Python is taken to stay as it is. Where the programs cannot be captured, they run as they
    are, and the log says why.

    Args:
        objective: one of `pyro_lvm.objectives`, or a Pyro ELBO with a `differentiable_loss`.
        model, guide: the pair, zoo or your own.

    Raises:
        ValueError: for an objective without a `differentiable_loss`, and, when it is called, for a pair that has no
            parameter to train.

    References:
        Ansel et al. (2024), PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
        Compilation: the compiler that the graph goes to.
    """

    def __init__(self, objective: Any, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        if not callable(getattr(objective, "differentiable_loss", None)):
            raise ValueError(
                f"'objective' must have a differentiable_loss, which {type(objective).__name__} has not: use one of "
                "pyro_lvm.objectives."
            )
        self._objective, self._programs = objective, pair(model, guide)
        self._losses: dict[int | None, CompiledLoss] = {}  # by size, which a graph has as a constant
        self._parameters: list[nn.Parameter] = []

    def __call__(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """The loss of a batch, to call `backward` on.

        Args:
            x: (B, *data_shape).
            size: of the data set it is a batch of; B where left out.
        """
        if not torch.is_grad_enabled():
            return self._loss(x, size)
        loss, gradients = self._compiled(x, size)(x)
        found: Tensor = _WithGradient.apply(loss, gradients, *self._parameters)
        return found

    def loss_and_grads(self, x: Tensor, *, size: int | None = None) -> float:
        """The loss of a batch; adds its gradient to the parameters', as Pyro's objectives do."""
        loss, gradients = self._compiled(x, size)(x)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss.item()

    @property
    def failure(self) -> str | None:
        """Why the programs run as they are; None while they need not."""
        return next((loss.failure for loss in self._losses.values() if loss.failure), None)

    def _compiled(self, x: Tensor, size: int | None) -> CompiledLoss:
        compiled = self._losses.get(size)
        if compiled is not None:
            compiled.look_for_changes()
            return compiled
        # A function's own `pyro.param` statements make their parameters when they first run.
        with torch.random.fork_rng():
            state = self._objective.state_dict() if isinstance(self._objective, Objective) else {}
            self._loss(x, size)
            if isinstance(self._objective, Objective):
                self._objective.load_state_dict(state)
        self._parameters = parameters_of(self._programs)
        compiled = CompiledLoss(lambda x: self._loss(x, size), self._programs, self._objective, self._parameters)
        return self._losses.setdefault(size, compiled)

    def _loss(self, x: Tensor, size: int | None) -> Tensor:
        arguments = {} if size is None else {"size": size}
        loss: Tensor = self._objective.differentiable_loss(*self._programs, x, **arguments)
        return loss


def check_compile(compile: object) -> None:
    """Refuses another word than `fit` and `log_likelihood` know for whether to compile."""
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f"'compile' must be 'auto', True or False, not {compile!r}.")


def compile(objective: Any, model: Callable[..., Any], guide: Callable[..., Any]) -> CompiledObjective:
    """Compiles an objective for a pair, for training loops of your own; `fit` does so by itself.

    See `CompiledObjective` for what it takes, gives and raises.

    Example:
        >>> from pyro_lvm import guides, models, objectives
        >>> _ = torch.manual_seed(0)
        >>> model, guide = models.ProbabilisticPCA(5, latent_dim=2), guides.LinearNormal(5, latent_dim=2)
        >>> loss = compile(objectives.ELBO(), model, guide)
        >>> optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()])
        >>> x = torch.randn(100, 5)
        >>> for batch in x.split(50):
        ...     optimizer.zero_grad()
        ...     loss(batch, size=100).backward()
        ...     optimizer.step()
        >>> all(p.grad is not None for p in model.parameters())
        True
    """
    return CompiledObjective(objective, model, guide)


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient with its numbers in memory in the order of the parameter's, which fused optimisers take for granted.

    `backward` sees to that by itself. A convolution of maps with their channels last gives another order.
    """
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Gradients, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if gradient is None else weight * gradient for gradient in ctx.gradients)


def parts_of(programs: Pair, *others: Any) -> list[Any]:
    """The objects whose plain attributes a capture has made constants of."""
    originals = [program.original for program in programs if program is not None]
    modules = [m for part in (*originals, *others) if isinstance(part, nn.Module) for m in part.modules()]
    return [*modules, *(part for part in (*originals, *others) if not isinstance(part, nn.Module))]
