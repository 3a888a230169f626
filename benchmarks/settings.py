"""What can be set for all benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        compile: whether `fit` compiles the programs.
        quick: two rounds of everything, to see that it works; the numbers mean little.
    """

    compile: bool = True
    quick: bool = False

    def rounds(self, usual: int) -> int:
        """How many rounds to measure where `usual` would be right."""
        return min(2, usual) if self.quick else usual
