"""Objectives: bounds on the log evidence, each read from one table of log-weights."""

from pyro_lvm.objectives.elbo import ELBO
from pyro_lvm.objectives.iwae import IWAE
from pyro_lvm.objectives.objective import Objective
from pyro_lvm.objectives.table import Site, Table

__all__ = ["ELBO", "IWAE", "Objective", "Site", "Table"]
