"""Parts of diffusion models: schedules of noise, the forward process, and the reverse process that is learned.

A network for them is a module from z_t (..., *data_shape) and times t (...) in (0, 1], which broadcast against z_t's
leading dimensions, to (..., *data_shape).
"""

from pyro_lvm.diffusion.conditions import Condition, Label, guided
from pyro_lvm.diffusion.discrete import (
    AbsorbingCorruption,
    Corruption,
    DiscreteReverse,
    NormalCorruption,
    UniformCorruption,
    cosine_survival,
    linear_survival,
)
from pyro_lvm.diffusion.downscaled import Downscaled
from pyro_lvm.diffusion.forward import bridge, marginal, transition
from pyro_lvm.diffusion.level_denoiser import LevelDenoiser
from pyro_lvm.diffusion.parameterisations import Epsilon, Parameterisation, Start, Velocity
from pyro_lvm.diffusion.process import ForwardProcess
from pyro_lvm.diffusion.reverse import AtStep, NormalStep, Reverse
from pyro_lvm.diffusion.samplers import DDIM, Ancestral, Sampler, Strided
from pyro_lvm.diffusion.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LearnedSchedule,
    LinearLogSNR,
    LinearSchedule,
    NoiseSchedule,
)
from pyro_lvm.diffusion.variances import LargeVariance, LearnedVariance, ReverseVariance, SmallVariance

__all__ = [
    "DDIM",
    "AbsorbingCorruption",
    "Ancestral",
    "AtStep",
    "Condition",
    "ConstantSchedule",
    "Corruption",
    "CosineSchedule",
    "DiscreteReverse",
    "Downscaled",
    "Epsilon",
    "ForwardProcess",
    "Label",
    "LargeVariance",
    "LearnedSchedule",
    "LearnedVariance",
    "LevelDenoiser",
    "LinearLogSNR",
    "LinearSchedule",
    "NoiseSchedule",
    "NormalCorruption",
    "NormalStep",
    "Parameterisation",
    "Reverse",
    "ReverseVariance",
    "Sampler",
    "SmallVariance",
    "Start",
    "Strided",
    "UniformCorruption",
    "Velocity",
    "bridge",
    "cosine_survival",
    "guided",
    "linear_survival",
    "marginal",
    "transition",
]
