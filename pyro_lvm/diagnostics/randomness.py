"""Seeds that end with the call they were given to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Inside, PyTorch's generators start from `seed`; afterwards they are where they were. None does nothing."""
    if seed is None:
        yield
        return
    # Only accelerators in use are seeded: `torch.manual_seed` would leave a seed waiting for one that starts later.
    accelerated = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if accelerated else []):
        torch.default_generator.manual_seed(seed)
        if accelerated:
            torch.cuda.manual_seed_all(seed)
        yield
