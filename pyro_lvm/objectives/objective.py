"""What all objectives share: Pyro's interface around a bound that is read from the table."""

import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.elbo import ELBO as PyroELBO
from torch import Tensor

from pyro_lvm.objectives.table import Structure, Table, run, structure


class Objective(PyroELBO):
    """A bound on the log evidence to maximise, abstract; its negative is the loss, as everywhere in Pyro.

    Drops into `pyro_lvm.fit`, `pyro.infer.SVI(model, guide, optimiser, loss=objective)` and `objective(model, guide)`.
    The loss is summed over the batch with plate scales and `poutine.scale` applied, and its *value* is always minus
    the bound, whatever surrogate the gradient comes from.

    What an objective learns or counts as it trains (the time of a schedule, a multiplier, a moving average) is its
    state, which a checkpoint holds: `state_dict`, `load_state_dict`. `fit` starts with a fresh state.

    Args:
        num_particles: K, draws from the guide per datum.
        vectorize_particles: all particles in one run of the programs, in a dimension on the left of their plates;
            `False` runs them one after another, for programs that cannot take it.
        max_plate_nesting: number of nested plates in the programs; found by running them once where left out.

    Raises:
        ValueError: where `num_particles` < 1.

    Example:
        An objective of your own is one function of the table:

        >>> from pyro_lvm import guides, models
        >>> class Median(Objective):
        ...     def bound(self, table):
        ...         return table.log_weight().median(0).values.sum()
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(4, latent_dim=2)
        >>> Median(5).loss(model, guides.LinearNormal(4, latent_dim=2), torch.zeros(3, 4)) > 0
        True
    """

    is_upper_bound = False  # one that is has its value as the loss, not the negative
    is_bound = True  # else what is climbed says nothing of log p(x)

    def __init__(
        self,
        num_particles: int = 1,
        *,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        if not isinstance(num_particles, int) or num_particles < 1:
            raise ValueError(f"'num_particles' is a number of draws and must be at least 1, not {num_particles!r}.")
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        self.max_plate_nesting = max_plate_nesting
        self.state: dict[str, Tensor] = {}  # replaced, or changed entry by entry; its tensors are never written to
        self._found: tuple[Any, Any, Structure] | None = None  # model, guide, their structure

    @abstractmethod
    def bound(self, table: Table) -> Tensor:
        """The bound as a scalar whose gradient is the estimator's: nats, summed over data, scaled."""

    def judge(self, table: Table) -> Tensor:
        """What validation reports and early stopping compares: the bound, as it is once training has changed it."""
        return self.bound(table)

    def advance(self, epochs: float) -> None:
        """Tells the objective that training has gone on by so many epochs; `fit` does so after every step."""

    def restart(self) -> None:
        """Forgets the state; `fit` does so before it starts."""
        self.state = {}

    def state_dict(self) -> dict[str, Tensor]:
        """The state, for a checkpoint; nothing for an objective that does not change."""
        return {name: value.clone() for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes up the state of a checkpoint."""
        self.state = {name: value.clone() for name, value in state.items()}

    def table(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Table:
        """The table this objective reads for these arguments of the programs."""
        return self._run(model, guide, args, kwargs)

    def _run(self, model: Any, guide: Any, args: Any, kwargs: Any, **reading: Any) -> Table:
        """The table, with what `pyro_lvm.objectives.table.run` is asked for besides."""
        nesting = 0
        if self.num_particles > 1 and self.vectorize_particles:
            given = self.max_plate_nesting != float("inf")
            nesting = int(self.max_plate_nesting) if given else self._structure(model, guide, args, kwargs).nesting
        return run(
            model,
            guide,
            args,
            kwargs,
            num_particles=self.num_particles,
            nesting=nesting,
            vectorize=self.vectorize_particles,
            **reading,
        )

    def _structure(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Structure:
        # Remembered for one pair: an objective may serve another one next, with other plates.
        found = self._found
        if found is None or found[0]() is not model or found[1]() is not guide:
            found = weakref.ref(model), weakref.ref(guide), structure(model, guide, args, kwargs)
            self._found = found
        return found[2]

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound, to call `backward` on."""
        return -self.bound(self.table(model, guide, *args, **kwargs))

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Minus the bound, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Minus the bound; adds its gradient to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("objectives read a table, not a trace: see `table`.")


def valued(value: Tensor, surrogate: Tensor) -> Tensor:
    """A number equal to `value` whose gradient is that of value + surrogate."""
    return value + (surrogate - surrogate.detach())
