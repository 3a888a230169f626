from typing import Any

import diagnosed_pairs as pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import guides, models
from pyro_lvm.diagnostics import active_units
from pyro_lvm.exact import linear_gaussian


def dead_ppca() -> tuple[models.ProbabilisticPCA, guides.ExactPPCA, Tensor]:
    """Units 1 and 3 do not reach the data: their posterior is the prior."""
    model = models.ProbabilisticPCA(6, latent_dim=4)
    model.weight.data.normal_()
    model.weight.data[:, [1, 3]] = 0.0
    return model, guides.ExactPPCA(model), model.sample(400)


def test_dead_units_are_counted_and_variances_are_exact() -> None:
    model, guide, x = dead_ppca()
    result = active_units(model, guide, x, num_particles=2)
    assert result is not None
    mean, _ = linear_gaussian.posterior(x, model.weight, model.bias, model.noise_scale.square())
    torch.testing.assert_close(result.variances["z"], mean.var(0).detach())
    assert result.active["z"].tolist() == [True, False, True, False]
    assert (result.count, result.total) == (2, 4)


def sampled(x: Tensor) -> None:
    """Unit 0 follows the data, unit 1 does not; the density, transformed, does not tell its mean."""
    with pyro.plate("data", len(x)):
        base = dist.Normal(torch.stack([x[:, 0], torch.zeros(len(x))], -1), 1.0)
        shift = dist.transforms.AffineTransform(1.0, 1.0)
        pyro.sample("z", dist.TransformedDistribution(base, [shift]).to_event(1))


def sampled_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_the_noise_of_an_estimated_mean_is_subtracted() -> None:
    x = torch.randn(2000, 2)
    result = active_units(sampled_model, sampled, x, num_particles=8, seed=0)
    assert result is not None
    variances = result.variances["z"]
    assert abs(variances[0] - x[:, 0].var()) < 4 * (2 / 2000) ** 0.5 * (1 + 1 / 8)
    assert variances[1] < 4 * (2 / 2000) ** 0.5 / 8  # uncorrected it were 1/8, above the threshold
    assert result.variances["z"].shape == (2,)


def test_data_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, x = dead_ppca()
    whole = active_units(model, guide, x, num_particles=2)
    monkeypatch.setattr("pyro_lvm.diagnostics.collapse._NUMBERS_AT_ONCE", 4 * 2 * 30)
    parts = active_units(model, guide, x, num_particles=2)
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(whole.variances["z"], parts.variances["z"])


def test_discrete_and_shared_latents_have_no_count() -> None:
    model = models.GaussianMixture(2, components=3)
    assert active_units(model, guides.Responsibilities(model), model.sample(5)) is None


def test_shared_latents_are_not_counted() -> None:
    result = active_units(pairs.global_mean_model, pairs.global_mean_guide, torch.randn(50, 2), seed=0)
    assert result is not None
    assert set(result.variances) == {"z"}


def test_state_is_left_alone() -> None:
    model, guide, x = dead_ppca()
    before = torch.get_rng_state()
    active_units(model, guide, x, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize(
    ("arguments", "match"), [({"threshold": -1.0}, "'threshold'"), ({"num_particles": 1}, "'num_particles'")]
)
def test_wrong_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        active_units(*dead_ppca(), **arguments)


def test_one_datum_has_no_variance() -> None:
    model, guide, x = dead_ppca()
    with pytest.raises(ValueError, match="two data"):
        active_units(model, guide, x[:1])
