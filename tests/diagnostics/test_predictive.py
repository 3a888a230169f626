"""New data: from the prior predictive, or, with latents that all data share, from the guide's."""

import pytest
import torch

from pyro_lvm import exact, guides, models
from pyro_lvm.diagnostics import active_units, posterior, sample_predictive


def test_shared_latents_come_from_the_guide() -> None:
    """With the exact posterior of one component it is a Student's t, whose moments are known."""
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)) * 0.5 + 7
    model = models.BayesianGaussianMixture(1, 1)
    guide = guides.NormalWishart(model)
    ascent = exact.BayesianGaussianMixture(
        1, mean_prior=model.prior_mean, degrees_of_freedom_prior=model.degrees_of_freedom,
        covariance_prior=model.degrees_of_freedom * model.prior_covariance,
    ).fit(x)  # fmt: skip
    guide.start_from(
        ascent.weight_concentration_,
        ascent.means_,
        ascent.mean_precision_,
        ascent.degrees_of_freedom_,
        ascent.covariances_,
    )
    drawn = sample_predictive(model, guide, x, 1500)
    assert drawn.shape == (1500, 1)
    assert abs(float(drawn.mean() - ascent.means_)) < 4 * float(drawn.std()) / 1500**0.5
    # the prior predictive is centred at 0, seven of the data's units away
    assert abs(float(model.sample(500).mean())) < 1


def test_without_shared_latents_it_is_the_models_own() -> None:
    model = models.ProbabilisticPCA(3, 2)
    guide = guides.LinearNormal(3, 2)
    torch.manual_seed(1)
    ours = sample_predictive(model, guide, torch.zeros(1, 3), 6)
    torch.manual_seed(1)
    assert torch.equal(ours, model.sample(6))
    with pytest.raises(ValueError, match="'n'"):
        sample_predictive(model, guide, torch.zeros(1, 3), 0)


def test_arrays_are_taken_as_tensors_are() -> None:
    model, guide = models.ProbabilisticPCA(3, 2), guides.LinearNormal(3, 2)
    x = torch.randn(20, 3)
    idata = posterior(model, guide, x.numpy(), draws=3, chains=1, seed=0)
    expected = posterior(model, guide, x, draws=3, chains=1, seed=0)
    assert (idata["posterior"]["z"].to_numpy() == expected["posterior"]["z"].to_numpy()).all()
    assert active_units(model, guide, x.numpy(), seed=0) is not None
    assert sample_predictive(model, guide, x.numpy(), 2).shape == (2, 3)
