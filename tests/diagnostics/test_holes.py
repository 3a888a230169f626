"""Holes of known mass."""

from math import erf
from typing import Any

import diagnosed_pairs as pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import data, guides, models, zoo
from pyro_lvm.diagnostics import holes, plot_holes

LOW, HIGH, WIDTH = 0.2, 1.0, 0.02
MASS = 0.5 * (erf(HIGH / 2**0.5) - erf(LOW / 2**0.5))


def normal_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def narrow_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, WIDTH).to_event(1))


def with_a_hole(N: int) -> Tensor:
    """Draws from the standard normal without what lies between the ends of the hole."""
    x = torch.randn(3 * N, 1)
    return x[(x[:, 0] < LOW) | (x[:, 0] > HIGH)][:N]


def exact_mass(alpha: float) -> float:
    """(P(A) − Q(A)) / (1 − Q(A)) of the density that these codes come from, its edges smoothed by the guide's width."""
    grid = torch.linspace(-6, 6, 12_001)
    p = dist.Normal(0.0, 1.0).log_prob(grid).exp()
    # q(z) = ∫ N(z | x, s²) p(x) dx outside the hole: the normal N(0, 1 + s²) less what the hole would have given.
    total = 1 + WIDTH**2
    middle, spread = grid / total, WIDTH / total**0.5
    inside = dist.Normal(middle, spread).cdf(torch.tensor(HIGH)) - dist.Normal(middle, spread).cdf(torch.tensor(LOW))
    q = dist.Normal(0.0, total**0.5).log_prob(grid).exp() * (1 - inside) / (1 - MASS)
    order = q.argsort()
    below = (q[order].cumsum(0) / q.sum()) < alpha
    in_p = float((p[order][below]).sum() / p.sum())
    return (in_p - alpha) / (1 - alpha)


@pytest.mark.parametrize("alpha", [0.02, 0.1])
def test_a_hole_cut_in_the_prior_has_its_mass(alpha: float) -> None:
    found = holes(normal_model, narrow_guide, with_a_hole(1500), alpha=alpha, prior_draws=3000, seed=0)
    exact = exact_mass(alpha)
    assert abs(exact - MASS) < 0.03  # but for its smoothed edges
    assert found.prior.mass == pytest.approx(exact, abs=4 * found.prior.standard_error)
    # The error is at least that of a share of 3000 draws, and not many times as much.
    binomial = (MASS * (1 - MASS) / 3000) ** 0.5
    assert binomial / 2 < found.prior.standard_error < 5 * binomial
    assert found.coverage == pytest.approx(1 - found.prior.mass)
    # All codes lie where the prior puts its mass.
    assert found.posterior is not None
    assert found.posterior.mass < 4 * found.posterior.standard_error
    print(f"alpha {alpha}: hole of mass {MASS:.4f}, {exact:.4f} with smoothed edges, found {found.prior!r}")


def test_none_is_found_where_there_is_none_though_data_are_few() -> None:
    """Twenty dimensions have room between 300 data: a threshold from draws that own a component would call it holes."""
    x = (1 - WIDTH**2) ** 0.5 * torch.randn(300, 20)
    found = holes(normal_model, narrow_guide, x, prior_draws=1000, seed=0)
    assert abs(found.prior.mass) < 4 * found.prior.standard_error
    assert found.posterior is not None
    assert abs(found.posterior.mass) < 4 * found.posterior.standard_error


def test_codes_outside_of_the_prior() -> None:
    """Codes N(0, 2²) under a prior N(0, 1): 1 − α of the prior lies within t, and 2 P(|2ε| > t) of the codes do not."""
    found = holes(normal_model, narrow_guide, 2 * torch.randn(2000, 1), seed=0)
    t = dist.Normal(0.0, 1.0).icdf(torch.tensor(0.975))
    exact = (2 * (1 - dist.Normal(0.0, (4 + WIDTH**2) ** 0.5).cdf(t)) - 0.05) / 0.95
    assert found.posterior is not None
    assert found.posterior.mass == pytest.approx(float(exact), abs=4 * found.posterior.standard_error)
    assert found.prior.mass < 0  # the prior keeps to the middle of the codes


def test_unused_codes_are_holes() -> None:
    """Three of ten equally likely categories are never used: 0.3 of the prior, to the bit, ties or not."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(10) / 10))
            pyro.sample("x", dist.Normal(z.to(x), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            logits = torch.full((len(x), 10), -100.0)
            pyro.sample("z", dist.Categorical(logits=logits.scatter(1, x.long()[:, None], 0.0)))

    found = holes(model, guide, torch.arange(7.0).repeat(20), prior_draws=3000, seed=0)
    unused = (found.prior_draws[:, 0] > 6).double().mean()
    assert found.prior.mass == pytest.approx(float(unused), abs=1e-12)
    assert float(unused) == pytest.approx(0.3, abs=4 * (0.21 / 3000) ** 0.5)


def hierarchy(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        z_1 = pyro.sample("z_1", dist.Normal(z_2, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z_1, 1.0).to_event(1), obs=x)


def downwards(x: Tensor) -> None:
    """The top has a hole, and the level below is the prior's own."""
    with pyro.plate("data", len(x)):
        z_2 = pyro.sample("z_2", dist.Normal(x, WIDTH).to_event(1))
        pyro.sample("z_1", dist.Normal(z_2, 1.0).to_event(1))


def test_levels_that_come_first_by_themselves() -> None:
    x = with_a_hole(1500)
    top = holes(hierarchy, downwards, x, latents=["z_2"], seed=0)
    assert top.prior.mass == pytest.approx(exact_mass(0.05), abs=4 * top.prior.standard_error)
    assert top.prior_draws.shape == (1500, 1)
    assert top.posterior is not None
    joint = holes(hierarchy, downwards, x, seed=0)
    assert joint.prior_draws.shape == (1500, 2)
    assert joint.prior.mass > 4 * joint.prior.standard_error
    with pytest.raises(ValueError, match="'latents' must be the first"):
        holes(hierarchy, downwards, x, latents=["z_1"])


@pytest.mark.parametrize("name", ["vae-iaf", "vae-vmf", "vae-diffusion-prior", "vae-discrete", "ladder-dense"])
def test_any_pair(name: str) -> None:
    model, guide, _ = zoo.build(name, data.load("digits"))
    found = holes(model, guide, data.load("digits").train[:40], prior_draws=20, seed=0)
    assert -0.1 < found.prior.mass <= 1
    assert (found.posterior is None) == (name == "vae-diffusion-prior")
    assert plot_holes(found).get_xlabel().endswith("log q(z) (nats)")


def test_more_draws_of_a_datum_are_not_more_data() -> None:
    x = with_a_hole(200)
    few, many = (holes(normal_model, narrow_guide, x, num_particles=K, prior_draws=4000, seed=0) for K in (1, 10))
    # Those of a datum lie close together. Taken for independent, they would halve the error.
    assert many.prior.standard_error > 0.8 * few.prior.standard_error


def test_state_and_arguments() -> None:
    model = models.ProbabilisticPCA(3, latent_dim=2)
    guide, x = guides.ExactPPCA(model), model.sample(30)
    before = torch.get_rng_state()
    holes(model, guide, x, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    arguments: list[tuple[dict[str, Any], str]] = [
        ({"alpha": 0.0}, "'alpha'"),
        ({"prior_draws": 0}, "'prior_draws'"),
        ({"num_particles": 0}, "'num_particles'"),
    ]
    for wrong, match in arguments:
        with pytest.raises(ValueError, match=match):
            holes(model, guide, x, **wrong)
    with pytest.raises(ValueError, match="less than one of them"):
        holes(model, guide, x, alpha=0.01)
    with pytest.raises(ValueError, match="cannot be sampled"):
        holes(unsampled, pairs.one_draw_guide, torch.randn(4, 2))


class Unsampled(dist.Normal):
    def sample(self, sample_shape: Any = ()) -> Tensor:
        raise NotImplementedError("only its density is known")

    rsample = sample


def unsampled(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", Unsampled(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_holes_of_two_latents_are_drawn_where_they_are() -> None:
    x = torch.randn(300, 2)
    found = holes(normal_model, narrow_guide, x[x[:, 0] < 0], seed=0)
    ax = plot_holes(found)
    marked = ax.collections[2].get_offsets()
    assert len(marked) == int((found.log_q_of_prior < found.threshold).sum())
    assert (marked[:, 0] > 0).mean() > 0.8
    assert ax.get_ylabel() == "z₂ (second of 2 latents)"
