"""Every test starts in float64, seeded, validated, on one thread, with an empty parameter store, and leaves it so."""

from collections.abc import Iterator

import matplotlib
import pyro
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)  # two xdist workers on two cores


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    pyro.enable_validation(True)
    torch.manual_seed(0)
    pyro.clear_param_store()
    yield
    assert torch.get_default_dtype() == torch.float64, "the default dtype was left changed"
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """A machine without a C++ compiler, as far as PyTorch can find out."""
    import torch._inductor.config  # here, because it takes long to import

    from pyro_lvm.capture import lowering

    lowering._has_compiler.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield
    lowering._has_compiler.cache_clear()
