"""Objectives: bounds on the log evidence, each read from one table of log-weights."""

from pyro_lvm.objectives.capacity import Capacity
from pyro_lvm.objectives.denoising import HybridDenoising, SimpleDenoising
from pyro_lvm.objectives.elbo import ELBO
from pyro_lvm.objectives.importance_weighted import ImportanceWeighted
from pyro_lvm.objectives.iwae import IWAE
from pyro_lvm.objectives.multiply_weighted import CIWAE, MIWAE, PIWAE
from pyro_lvm.objectives.objective import Objective
from pyro_lvm.objectives.renyi import CUBO, Renyi
from pyro_lvm.objectives.schedules import Cyclical, Linear, Schedule, Sigmoid
from pyro_lvm.objectives.table import Site, Table
from pyro_lvm.objectives.uncertainty import UncertaintyAutoencoder
from pyro_lvm.objectives.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "Capacity",
    "Cyclical",
    "HybridDenoising",
    "ImportanceWeighted",
    "Linear",
    "Objective",
    "Renyi",
    "ReweightedWakeSleep",
    "Schedule",
    "Sigmoid",
    "SimpleDenoising",
    "Site",
    "Table",
    "UncertaintyAutoencoder",
    "WakeSleep",
]
