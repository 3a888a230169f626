"""The random state a run has to itself."""

import torch
from torch import Tensor

__all__ = ["OwnRandomness", "random_state", "set_random_state"]


class OwnRandomness:
    """PyTorch's random state as the run's own while it works; outside, as in `on_epoch`, it is the caller's."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._inside = random_state()
        self._outside = self._inside

    def state(self) -> list[Tensor]:
        """The run's, of the CPU and of the accelerator in use."""
        return self._inside

    def load(self, state: list[Tensor]) -> None:
        """Takes up a state; one with or without an accelerator goes on with what both have."""
        self._inside = [*state[: len(self._inside)], *self._inside[len(state) :]]

    def __enter__(self) -> None:
        self._outside = random_state()
        set_random_state(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = random_state()
        set_random_state(self._outside)


def random_state() -> list[Tensor]:
    """Of the CPU and of the accelerator in use, if there is one."""
    accelerator = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *accelerator]


def set_random_state(state: list[Tensor]) -> None:
    """Takes up what `random_state` gave."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])
