"""The one place where zuko is imported: its import switches off argument validation, PyTorch's and with it Pyro's.

What the library needs of zuko it takes from here, and late: `import pyro_lvm` does not load it.
"""

from torch.distributions import Distribution

_validate_args = Distribution._validate_args

from zuko.flows import MAF, NSF  # noqa: E402
from zuko.flows.autoregressive import MaskedAutoregressiveTransform  # noqa: E402
from zuko.transforms import (  # noqa: E402
    ComposedTransform,
    CouplingTransform,
    DependentTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
)

# As it was before, on or off. That distributions without `arg_constraints` now have none, zuko's own rely on.
Distribution.set_default_validate_args(_validate_args)

__all__ = [
    "MAF",
    "NSF",
    "ComposedTransform",
    "CouplingTransform",
    "DependentTransform",
    "MaskedAutoregressiveTransform",
    "MonotonicAffineTransform",
    "MonotonicRQSTransform",
]
