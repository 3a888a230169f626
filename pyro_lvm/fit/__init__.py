"""The engine: one training loop, for any model, guide and objective.

`loop.py` is what users call; `run.py` is a run in progress, with what a checkpoint holds; `step.py` is one step of it;
the other files are a concern each.
"""

from pyro_lvm.fit.history import FitResult, History
from pyro_lvm.fit.loop import fit
from pyro_lvm.nonfinite import NonFiniteError

__all__ = ["FitResult", "History", "NonFiniteError", "fit"]
