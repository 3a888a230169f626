"""Small versions of data, and the programs that go through them; exact sums are in tests/oracles."""

import re
from itertools import product
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors, zoo


def by_hand(x: Tensor, factor: int) -> Tensor:
    """Block by block, for one plane (H, W): whole numbers throughout, a half rounded up."""
    H, W = x.shape
    rows = range(0, H, factor)
    columns = range(0, W, factor)
    out = torch.empty(len(rows), len(columns))
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        block = [int(v) for v in x[row : row + factor, column : column + factor].flatten()]
        out[i, j] = (2 * sum(block) + len(block)) // (2 * len(block))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize(("shape", "factor"), [((8, 8), 2), ((6, 4), 2), ((2, 6, 9), 3), ((8,), 2), ((4, 4), 4)])
def test_a_small_version_is_the_rounded_mean_of_blocks(shape: tuple[int, ...], factor: int, dtype: torch.dtype) -> None:
    down = networks.Downscale(shape, factor)
    for levels in (2, 17, 256):
        x = torch.randint(levels, (4, 5, *shape)).to(dtype)
        small = down(x)
        assert small.dtype == dtype
        assert small.shape == (4, 5, *down.out_shape)
        planes = x.reshape(-1, *((1, *shape) if len(shape) == 1 else shape[-2:]))
        # of a vector, a block is a stretch, which is what is left of a square in a single row
        expected = torch.stack([by_hand(plane, factor) for plane in planes])
        assert torch.equal(small.double(), expected.reshape(small.shape))
        data.check_levels(small, levels, "y")


def test_the_small_version_is_observed_where_x_is_and_drawn_where_it_is_not() -> None:
    dataset = data.load("digits")
    model, guide, _ = zoo.build("self-vae", dataset, hidden_features=(8,))
    x = dataset.test[:5].double()
    sites = poutine.trace(poutine.replay(model, poutine.trace(guide).get_trace(x))).get_trace(x).nodes
    assert sites["y"]["is_observed"]
    assert torch.equal(sites["y"]["value"], model.downscale(x))
    assert not poutine.trace(model).get_trace(size=3).nodes["y"]["is_observed"]
    # posterior predictive draws have a small version of their own, which x goes by
    idata = lvm.posterior(model, guide, x, draws=3, chains=2, seed=0)
    assert idata.posterior_predictive["y"].shape == (2, 3, 5, 4, 4)


def test_any_prior_does_and_divergences_are_logged_level_by_level() -> None:
    torch.manual_seed(0)
    down = networks.Downscale((4, 4), 2)
    coarse = posteriors.DiagonalNormal(networks.MLP((2, 2), 2 * 2, (8,)))
    model = models.SelfSupervised(
        down,
        priors.VampPrior(coarse, (2, 2), components=3),
        coarse=likelihoods.Bernoulli(networks.MLP(2, (2, 2), (8,))),
        detail=posteriors.DiagonalNormal(networks.MLP(4 + 2, 2 * 3, (8,))),
        decoder=likelihoods.Bernoulli(networks.MLP(4 + 3, (4, 4), (8,))),
    )
    guide = guides.SelfSupervised(down, coarse, posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (8,))))
    x = (torch.rand(40, 4, 4) < 0.3).double()
    result = lvm.fit(model, guide, x, objective=objectives.ELBO(analytic_kl=True), epochs=2, batch_size=20)
    assert {"kl_z_1", "kl_z_2", "reconstruction"} <= set(result.history[-1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: networks.Downscale((4, 4), 1), "'factor' .* at least 2.* not 1"),
        (lambda: networks.Downscale((4, 0), 2), "'in_shape'"),
        (lambda: networks.Downscale((3, 4, 5), 2), "'factor' must divide the data's 4 by 5 values evenly, but is 2"),
        (lambda: networks.Downscale(7, 2), "'factor' must divide the data's 7 values evenly"),
        (lambda: networks.Downscale((4, 4), 2)(torch.zeros(5, 4, 3)), re.escape("(..., 4, 4), not (5, 4, 3)")),
        (lambda: pair()[1].super_resolve(pair()[0], torch.zeros(5, 3, 2)), re.escape("(B, 2, 2), not (5, 3, 2)")),
        (lambda: pair()[1].super_resolve(pair()[0], torch.full((5, 2, 2), 0.5)), "'y' holds a value that is none"),
        (lambda: pair()[1].vary(pair()[0], torch.zeros(5, 4, 4), n=0), "'n' must be at least 1"),
        (lambda: zoo.build("self-vae", data.from_arrays(torch.randn(50, 4, 4))), "'self-vae' is for discrete values"),
        (lambda: zoo.build("flow-realnvp", data.from_arrays(torch.randn(50, 3))), "'flow-realnvp' is for discrete"),
        (lambda: likelihoods.Floor((2, 2), 1), "'levels'"),
        (lambda: likelihoods.Floor((2, 2), 4)(torch.zeros(5, 3)), "'z' needs a number for each of the 4 values"),
        (lambda: posteriors.Dequantized((2, 2))(torch.zeros(5, 3)), "'x' must have shape"),
        (lambda: priors.Rescaled(priors.StandardNormal(2), 2).start_from(torch.zeros(9, 3)), "'z' must have shape"),
        (lambda: priors.Rescaled(priors.StandardNormal(2), 2).start_from(torch.zeros(9, 2)), "in dimension 0"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_in_one_sentence(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        wrong()
    assert "\n" not in str(refused.value)


def pair() -> tuple[models.SelfSupervised, guides.SelfSupervised]:
    down = networks.Downscale((4, 4), 2)
    model = models.SelfSupervised(
        down,
        priors.StandardNormal(2),
        coarse=likelihoods.Bernoulli(networks.MLP(2, (2, 2), ())),
        detail=posteriors.DiagonalNormal(networks.MLP(4 + 2, 2 * 3, ())),
        decoder=likelihoods.Bernoulli(networks.MLP(4 + 3, (4, 4), ())),
    )
    fine = posteriors.DiagonalNormal(networks.MLP((4, 4), 2 * 3, (), nn.Tanh))
    return model, guides.SelfSupervised(down, posteriors.DiagonalNormal(networks.MLP((2, 2), 4, ())), fine)
