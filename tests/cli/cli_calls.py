"""What a call of the command line gave, and settings that make a run short."""

from collections.abc import Callable
from dataclasses import dataclass

SMALL = ("--epochs", "2", "--evaluation-particles", "30", "--evaluation-limit", "8")


@dataclass
class Called:
    status: int
    out: str
    err: str


Call = Callable[..., Called]
