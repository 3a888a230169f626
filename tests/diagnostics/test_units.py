from math import log

import diagnosed_pairs as pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm import data, guides, likelihoods, models, priors, zoo
from pyro_lvm.diagnostics import active_units, plot_units, unit_divergences

SCALES = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.5, 0.0, 0.7])  # of the decoder's columns: three units are dead


class Mean(nn.Module):
    """μ = W z, of orthogonal columns w_d of length SCALES."""

    def __init__(self) -> None:
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(12, 8))
        self.weight = nn.Parameter(basis * SCALES.to(basis))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T


class Exact(nn.Module):
    """What the exact posterior's head reads: independent units of variance 1 / (1 + |w_d|²)."""

    def __init__(self, mean: Mean) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        precision = 1 + self.mean.weight.square().sum(0)
        return dist.Normal(x @ self.mean.weight / precision, precision.rsqrt()).to_event(1)


def with_dead_units() -> tuple[models.VAE, guides.Amortized, Tensor]:
    mean = Mean()
    model = models.VAE(priors.StandardNormal(8), likelihoods.Normal(mean, scale=1.0))
    return model, guides.Amortized(Exact(mean)), model.sample(2000)


def test_three_dead_units_of_eight() -> None:
    model, guide, x = with_dead_units()
    counted = active_units(model, guide, x, seed=0)
    assert counted is not None
    assert (counted.count, counted.total) == (5, 8)
    assert counted.active["z"].tolist() == (SCALES > 0).tolist()
    found = unit_divergences(model, guide, x, seed=0)
    units = found.units["z"]
    assert units is not None
    # E KL = (σ² + Var μ − 1 − log σ²) / 2 with σ² = 1 / (1 + w²) and Var μ = 1 − σ²: log(1 + w²) / 2. Its deviation
    # over data is that of μ² / 2, Var μ / √2.
    variance = 1 / (1 + SCALES.double().square())
    gate = 4.5 * (1 - variance) / (2 * len(x)) ** 0.5
    assert ((units - 0.5 * (1 + SCALES.double().square()).log()).abs() <= gate + 1e-12).all()
    assert units[SCALES == 0].abs().max() < 1e-12
    assert found.total == pytest.approx(units.sum().item())
    assert found.levels["z"].standard_error.max() < 1e-12  # a closed form
    print(f"active units {counted.count} of {counted.total}; KL by unit {[round(u, 3) for u in units.tolist()]}")


def two_levels(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z_1 = pyro.sample("z_1", dist.Normal(z_2, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z_1, 1.0).to_event(1), obs=x)


def downwards(x: Tensor) -> None:
    """The level below differs from its prior by a shift of (1, 0) and a scale of (1, 1/2)."""
    with pyro.plate("data", len(x)):
        z_2 = pyro.sample("z_2", dist.Normal(x, 1.0).to_event(1))
        pyro.sample("z_1", dist.Normal(z_2 + torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5])).to_event(1))


def upwards(x: Tensor) -> None:
    """The same joint posterior, drawn from the data upwards: no divergence has a closed form then."""
    with pyro.plate("data", len(x)):
        s = torch.tensor([1.0, 0.5])
        shifted = x + torch.tensor([1.0, 0.0])
        z_1 = pyro.sample("z_1", dist.Normal(shifted, (1 + s**2).sqrt()).to_event(1))
        share = 1 / (1 + s**2)
        pyro.sample("z_2", dist.Normal(x + share * (z_1 - shifted), (1 - share).sqrt()).to_event(1))


def test_levels_and_their_units() -> None:
    x = torch.randn(50, 2)
    below = torch.tensor([0.5, log(2) - 0.375])
    found = unit_divergences(two_levels, downwards, x, seed=0)
    torch.testing.assert_close(found.units["z_1"], below)
    torch.testing.assert_close(found.units["z_2"], x.square().mean(0) / 2)
    torch.testing.assert_close(found.levels["z_2"].values, x.square().sum(1) / 2)
    # The total is the same, though its parts are others: the parts hang on who is drawn first.
    again = unit_divergences(two_levels, upwards, x, num_particles=400, seed=0)
    error = sum(level.mean_standard_error**2 for level in again.levels.values()) ** 0.5
    assert again.total == pytest.approx(found.total, abs=4 * 2**0.5 * error)
    for name, level in again.levels.items():
        units = again.units[name]
        assert units is not None
        assert units.sum().item() == pytest.approx(level.mean)


def test_units_of_plates_and_assignments_and_spheres() -> None:
    assert unit_divergences(pairs.PixelModel(), pairs.PixelGuide(), torch.randn(8, 3)).units["z"].shape == ()
    model = models.GaussianMixture(2, components=3)
    x = model.sample(30)
    guide = guides.Responsibilities(model)
    found = unit_divergences(model, guide, x, num_particles=500, seed=0)
    log_q = model.log_joint(x).log_softmax(-1)
    exact = (log_q.exp() * (log_q - model.weights.log())).sum(-1)
    assert ((found.levels["z"].values - exact).abs() < 5 * found.levels["z"].standard_error + 1e-9).all()
    model, guide, _ = zoo.build("vae-vmf", data.load("digits"))
    sphere = unit_divergences(model, guide, data.load("digits").train[:10], seed=0)
    assert sphere.units["z"] is None
    assert sphere.total > 0


def test_shared_latents_are_left_out_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(40, 2)
    assert set(unit_divergences(pairs.global_mean_model, pairs.global_mean_guide, x).levels) == {"z"}
    model, guide, x = with_dead_units()
    whole = unit_divergences(model, guide, x[:50])
    monkeypatch.setattr("pyro_lvm.diagnostics.units._BYTES", 30_000)
    parts = unit_divergences(model, guide, x[:50])
    torch.testing.assert_close(whole.units["z"], parts.units["z"])
    torch.testing.assert_close(whole.levels["z"].values, parts.levels["z"].values)


def test_state_is_left_alone_and_arguments_are_checked() -> None:
    x = torch.randn(6, 2)
    before = torch.get_rng_state()
    unit_divergences(two_levels, upwards, x, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not pyro.get_param_store().keys()
    with pytest.raises(ValueError, match="'num_particles'"):
        unit_divergences(two_levels, upwards, x, num_particles=1)
    with pytest.raises(ValueError, match="itself an estimate"):
        unit_divergences(*zoo.build("vae-diffusion-prior", data.load("digits"))[:2], data.load("digits").train[:4])


def test_bars_are_the_units() -> None:
    found = unit_divergences(two_levels, downwards, torch.randn(50, 2), seed=0)
    ax = plot_units(found)
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(found.total)
    assert len(ax.patches) == 4
    assert "nats per datum" in ax.get_ylabel()
