"""Levels of hierarchies: p(z_l | z_{>l}) as a function of the state above, and the state that those below read.

A state is one vector for each datum, whatever is in it: levels of maps lay them out as such, so that levels of
different kinds and sizes fit on one another, and what is put side by side is put together with `torch.cat`.
"""

from pyro_lvm.levels.convolutional import ConvolutionalLevel
from pyro_lvm.levels.dense import DenseLevel
from pyro_lvm.levels.level import Level
from pyro_lvm.levels.markov import MarkovLevel
from pyro_lvm.levels.top import TopLevel

__all__ = ["ConvolutionalLevel", "DenseLevel", "Level", "MarkovLevel", "TopLevel"]
