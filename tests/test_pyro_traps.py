"""Regression tests of how Pyro bites (pyro-ppl 1.9.2): each trap is shown, and that the library keeps out of it.

The trap of RenyiELBO under subsampling, and its zero gradients, are in test_objectives.py.
"""

import subprocess
import sys
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import guides, models


def test_without_pyro_module_stock_svi_trains_nothing() -> None:
    """Why every `forward` opens with `pyro.module`."""

    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x, silent = torch.randn(10), Silent()
    with pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SVI(model, silent, pyro.optim.Adam({"lr": 0.1}), loss=Trace_ELBO()).step(x)
    assert silent.loc.item() == 1.0
    lvm.fit(model, silent, x, epochs=1, batch_size=10, learning_rate=0.1)  # fit needs no such statement
    assert silent.loc.item() != 1.0


def test_two_pairs_collide_in_the_global_store_unless_scoped() -> None:
    """Stock SVI takes the first pair's parameters for the second's, whose names are the same."""

    def pair() -> tuple[nn.Module, nn.Module]:
        return models.ProbabilisticPCA(3, 2), guides.LinearNormal(3, 2)

    x, (first, second) = torch.randn(10, 3), (pair(), pair())
    before = second[0].bias.clone()
    with pyro.get_param_store().scope():
        for programs in (first, second):
            SVI(*programs, pyro.optim.Adam({"lr": 0.1}), loss=Trace_ELBO()).step(x)
    assert torch.equal(second[0].bias, before), "the trap: no gradient reached the second pair"
    for programs in (first, second):
        with pyro.get_param_store().scope():
            SVI(*programs, pyro.optim.Adam({"lr": 0.1}), loss=Trace_ELBO()).step(x)
    assert not torch.equal(second[0].bias, before)


def test_plates_of_different_sizes_raise_nothing_in_pyro() -> None:
    """Why one helper makes every data plate."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.randn(10)
    Trace_ELBO().loss(model, guide, x)
    with pytest.raises(ValueError, match="share one"):
        lvm.objectives.IWAE(2).loss(model, guide, x)


def test_importing_the_library_leaves_validation_on() -> None:
    """As `import zuko` would not: it switches Pyro's validation off."""
    code = (
        "import pyro_lvm, pyro, torch\n"
        "assert torch.distributions.Distribution._validate_args\n"
        "import pyro.distributions as dist\n"
        "try:\n    dist.Normal(0.0, torch.tensor(-1.0))\n"
        "except ValueError:\n    print('refused')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout == "refused\n", out.stderr


def test_fit_checks_the_first_batch_whatever_the_validation_flag() -> None:
    """A process whose validation is off (as after `import zuko`) still gets its mistakes told, and keeps its flag."""
    model = models.VAE(lvm.priors.StandardNormal(2), lvm.likelihoods.Bernoulli(nn.Linear(2, 3)))
    guide = guides.Amortized(lvm.posteriors.DiagonalNormal(nn.Linear(3, 4)))
    pyro.enable_validation(False)
    try:
        with pytest.raises(ValueError, match="zeros and ones"):
            lvm.fit(model, guide, torch.rand(70, 3), epochs=1)
        assert not torch.distributions.Distribution._validate_args
    finally:
        pyro.enable_validation(True)


def test_torchs_wishart_calls_regular_draws_singular() -> None:
    """Why there is one of our own; when this fails, torch's may serve."""
    with pytest.warns(UserWarning, match="Singular sample"):
        torch.distributions.Wishart(torch.tensor(50.0), torch.eye(2).expand(3, 2, 2)).rsample()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lvm.distributions.Wishart(torch.tensor(50.0), torch.eye(2).expand(3, 2, 2)).rsample()
