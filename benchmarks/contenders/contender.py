"""What a contender has to offer."""

from abc import ABC, abstractmethod
from importlib.util import find_spec

from torch import Tensor


class Contender(ABC):
    """One way to train the autoencoder, abstract.

    Attributes:
        family: whose it is; of the variants of a family, the fastest one counts.
        variant: how it is run; empty where there is only one.
    """

    family: str
    variant: str = ""

    @property
    def name(self) -> str:
        """Family and variant."""
        return f"{self.family}, {self.variant}" if self.variant else self.family

    @abstractmethod
    def run(self, steps: int) -> None:
        """Takes so many optimiser steps on freshly shuffled data, and returns when they are done."""

    @abstractmethod
    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x) of data (B, D) and latents (B, M) at the present weights, (B,), nats.

        What shows that all contenders compute the same thing.
        """


def in_words(num_threads: int) -> str:
    """One thread, two threads."""
    return f"{num_threads} thread{'s' if num_threads > 1 else ''}"


def installed(*packages: str) -> bool:
    """Whether all of these can be imported."""
    return all(find_spec(package) is not None for package in packages)
