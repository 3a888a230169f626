from pathlib import Path
from typing import Any

import diagnosed_pairs as pairs
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm import guides, models
from pyro_lvm.diagnostics import drawing, posterior
from pyro_lvm.evidence.khat import is_arviz_1
from pyro_lvm.exact import linear_gaussian

NEW = is_arviz_1()


def az() -> Any:
    import arviz

    return arviz


def names(idata: Any) -> set[str]:
    return set(idata.children) if NEW else set(idata.groups())


@pytest.fixture
def ppca() -> tuple[models.ProbabilisticPCA, guides.ExactPPCA, Tensor]:
    model = models.ProbabilisticPCA((2, 3), latent_dim=2)
    model.weight.data.normal_()
    return model, guides.ExactPPCA(model), model.sample(5)


def test_draws_have_the_moments_of_the_exact_posterior(ppca: Any) -> None:
    model, guide, x = ppca
    z = posterior(model, guide, x, draws=1000, seed=0)["posterior"]["z"].values.reshape(-1, 5, 2)
    with torch.no_grad():
        mean, covariance = linear_gaussian.posterior(x.flatten(1), model.weight, model.bias, model.noise_scale.square())
    variances = covariance.diagonal().numpy()
    errors = (z.mean(0) - mean.numpy()) / np.sqrt(variances / len(z))
    assert np.abs(errors).max() < 4  # of 10 standard normals: 1 run in 1500 by chance
    centred = z - mean.numpy()
    products = np.einsum("kbi,kbj->kbij", centred, centred)
    errors = (products.mean(0) - covariance.numpy()) / (products.std(0) / np.sqrt(len(z)))
    assert np.abs(errors).max() < 4


def test_log_weights_under_the_exact_posterior_are_the_evidence_draw_by_draw(ppca: Any) -> None:
    model, guide, x = ppca
    idata = posterior(model, guide, x, draws=50, seed=0)
    log_weight = idata["sample_stats"]["log_weight"]
    assert log_weight.dims == ("chain", "draw", "datum")
    with torch.no_grad():
        exact = linear_gaussian.log_evidence(x.flatten(1), model.weight, model.bias, model.noise_scale.square())
    np.testing.assert_allclose(log_weight.values, np.broadcast_to(exact.numpy(), (4, 50, 5)), rtol=1e-10)


def test_log_likelihood_is_that_of_the_draws_beside_it(ppca: Any) -> None:
    model, guide, x = ppca
    idata = posterior(model, guide, x, draws=20, seed=0)
    z = torch.from_numpy(idata["posterior"]["z"].values)
    mean = (z @ model.weight.T + model.bias).unflatten(-1, (2, 3))
    expected = dist.Normal(mean, model.noise_scale).to_event(2).log_prob(x)
    np.testing.assert_allclose(idata["log_likelihood"]["x"].values, expected.detach().numpy(), rtol=1e-10)


def test_the_predictive_groups_have_the_moments_of_their_distributions(ppca: Any) -> None:
    model, guide, x = ppca
    idata = posterior(model, guide, x, draws=2000, chains=1, seed=0)
    with torch.no_grad():
        mean, covariance = linear_gaussian.posterior(x.flatten(1), model.weight, model.bias, model.noise_scale.square())
        W, noise = model.weight, model.noise_scale.square()
        after = mean @ W.T + model.bias, (W @ covariance @ W.T).diagonal() + noise
        before = model.bias.detach().expand(5, 6), (W @ W.T).diagonal() + noise
    for group, (centre, variance) in (("posterior_predictive", after), ("prior_predictive", before)):
        drawn = idata[group]["x"].values.reshape(2000, 5, 6)
        errors = (drawn.mean(0) - centre.numpy()) / np.sqrt(variance.numpy() / 2000)
        assert np.abs(errors).max() < 4.2, group
        errors = (drawn.var(0) / variance.numpy() - 1) / np.sqrt(2 / 2000)
        assert np.abs(errors).max() < 4.5, group


def test_dimensions_are_named(ppca: Any) -> None:
    idata = posterior(*ppca, draws=7, chains=3, seed=0)
    assert names(idata) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "sample_stats",
        "prior",
        "prior_predictive",
        "observed_data",
    }
    pictures = {"datum": 5, "x_dim_0": 2, "x_dim_1": 3}
    assert dict(idata["posterior"]["z"].sizes) == {"chain": 3, "draw": 7, "datum": 5, "z_dim": 2}
    assert dict(idata["posterior_predictive"]["x"].sizes) == {"chain": 3, "draw": 7, **pictures}
    assert dict(idata["prior"]["z"].sizes) == {"chain": 1, "draw": 7, "datum": 5, "z_dim": 2}
    assert dict(idata["prior_predictive"]["x"].sizes) == {"chain": 1, "draw": 7, **pictures}
    assert dict(idata["observed_data"]["x"].sizes) == pictures
    np.testing.assert_array_equal(idata["observed_data"]["x"].values, ppca[2].numpy())
    np.testing.assert_array_equal(idata["posterior"]["z"].coords["datum"].values, np.arange(5))


def bayesian_mixture() -> tuple[nn.Module, nn.Module, Tensor]:
    model = models.BayesianGaussianMixture(2, components=3, degrees_of_freedom=10.0, weight_concentration=2.0)
    x = model.sample(6)
    return model, guides.NormalWishart(model), x


def test_latents_shared_by_all_data_have_no_datum() -> None:
    idata = posterior(*bayesian_mixture(), draws=5, chains=2, seed=0)
    shapes = {name: values.sizes for name, values in idata["posterior"].data_vars.items()}
    assert shapes["weights"] == {"chain": 2, "draw": 5, "weights_dim": 3}
    assert shapes["means"] == {"chain": 2, "draw": 5, "means_dim_0": 3, "means_dim_1": 2}
    assert tuple(shapes["precisions"].values()) == (2, 5, 3, 2, 2)
    assert shapes["z"] == {"chain": 2, "draw": 5, "datum": 6}
    assert np.issubdtype(idata["posterior"]["z"].dtype, np.integer)
    assert idata["sample_stats"]["log_weight"].dims == ("chain", "draw")  # the batch has one weight
    assert idata["prior"]["means"].sizes == {"chain": 1, "draw": 5, "means_dim_0": 3, "means_dim_1": 2}


def test_assignments_follow_the_responsibilities() -> None:
    model = models.GaussianMixture(2, components=3)
    x = model.sample(4)
    z = posterior(model, guides.Responsibilities(model), x, draws=2000, chains=1, seed=0)["posterior"]["z"].values
    p = model.log_joint(x).softmax(-1).detach().numpy()
    shares = np.stack([(z[0] == c).mean(0) for c in range(3)], -1)
    assert np.abs((shares - p) / np.sqrt(p * (1 - p) / 2000 + 1e-6)).max() < 4


@pytest.mark.parametrize(
    ("model", "guide", "width"),
    [
        (pairs.global_mean_model, pairs.global_mean_guide, 2),
        (pairs.PixelModel(), pairs.PixelGuide(), 3),
        (pairs.unplated_model, pairs.unplated_guide, 2),
    ],
)
def test_programs_that_accept_only_x(model: Any, guide: Any, width: int) -> None:
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(1), dtype=torch.get_default_dtype())
    if isinstance(model, nn.Module):
        model, guide, x = model.double(), guide.double(), x.double()
    idata = posterior(model, guide, x, draws=6, chains=2, seed=0)
    sizes = {name: dict(values.sizes) for name, values in idata["posterior"].data_vars.items()}
    log_p = idata["log_likelihood"]["x"]
    if model is pairs.global_mean_model:
        assert sizes == {
            "mean": {"chain": 2, "draw": 6, "mean_dim": 2},
            "z": {"chain": 2, "draw": 6, "datum": 4, "z_dim": 2},
        }
    elif model is pairs.unplated_model:
        assert sizes == {"z": {"chain": 2, "draw": 6, "z_dim_0": 4, "z_dim_1": 2}}
        assert log_p.dims == ("chain", "draw")
    else:
        assert sizes == {"z": {"chain": 2, "draw": 6, "datum": 4}}
        assert dict(log_p.sizes) == {"chain": 2, "draw": 6, "datum": 4, "pixels": 3}
        assert idata["sample_stats"]["log_weight"].dims == ("chain", "draw", "datum")
    prior = idata["prior_predictive"]["x"]
    assert prior.shape == (1, 6, *x.shape)
    assert (prior.values != x.numpy()).all()  # drawn anew


def test_data_that_depend_on_data_are_drawn_one_after_the_other() -> None:
    idata = posterior(pairs.two_data_model, pairs.two_data_guide, torch.randn(3, 2), draws=20, seed=0)
    for group in ("posterior_predictive", "prior_predictive"):
        first, second = (idata[group][name].values for name in ("first", "second"))
        assert np.abs(second - first).max() < 0.06
        assert first.std() > 0.5
    assert set(idata["log_likelihood"].data_vars) == {"first", "second"}


def test_programs_that_take_one_draw_at_a_time_are_run_so_with_a_warning() -> None:
    x = torch.randn(3, 2)
    with pytest.warns(UserWarning, match="run once for every draw"):
        idata = posterior(pairs.one_draw_model, pairs.one_draw_guide, x, draws=4, chains=2, seed=0)
    assert idata["posterior"]["z"].shape == (2, 4, 3, 2)
    z = torch.from_numpy(idata["posterior"]["z"].values)
    expected = dist.Normal(z, 1.0).to_event(1).log_prob(x)
    np.testing.assert_allclose(idata["log_likelihood"]["x"].values, expected.numpy())


def test_a_prior_that_cannot_be_sampled_is_left_out_with_a_warning() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(x.mean(), 1.0))

    with pytest.warns(UserWarning, match="prior cannot be sampled"):
        idata = posterior(model, guide, torch.randn(5), draws=4, seed=0)
    assert "prior" not in names(idata)
    assert "posterior_predictive" in names(idata)


def test_draws_from_the_prior_are_as_many_as_asked_for(ppca: Any) -> None:
    idata, without = (posterior(*ppca, draws=20, chains=2, prior_draws=n, seed=0) for n in (3, 0))
    assert idata["prior"]["z"].shape == (1, 3, 5, 2)
    assert idata["prior_predictive"]["x"].shape == (1, 3, 5, 2, 3)
    assert idata["posterior"]["z"].shape == (2, 20, 5, 2)
    assert names(idata) - names(without) == {"prior", "prior_predictive"}


def test_chunks_change_nothing_but_memory(ppca: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, x = ppca
    monkeypatch.setattr(drawing, "_NUMBERS_PER_RUN", 7 * (5 * 2 + x.numel()))  # 7 draws a run
    idata = posterior(model, guide, x, draws=11, chains=2, seed=0)
    z = idata["posterior"]["z"].values
    assert z.shape == (2, 11, 5, 2)
    assert len(np.unique(z)) == z.size  # every draw is one of its own
    log_weight = idata["sample_stats"]["log_weight"].values
    np.testing.assert_allclose(log_weight, np.broadcast_to(log_weight[0, 0], (2, 11, 5)), rtol=1e-9)


def test_a_minibatch_has_the_weights_it_has_as_a_whole(ppca: Any) -> None:
    model, guide, x = ppca
    whole = posterior(model, guide, x, draws=3, seed=0)
    part = posterior(model, guide, x, draws=3, seed=0, size=1000)
    for group in ("posterior", "sample_stats", "log_likelihood", "prior_predictive"):
        assert whole[group].equals(part[group]) if not NEW else whole[group].ds.equals(part[group].ds), group


def test_the_callers_state_is_left_alone(ppca: Any) -> None:
    model, guide = pairs.vae()
    model.train()
    guide.decoy = nn.Dropout()  # its mode must come back too
    guide.decoy.eval()
    x = model.sample(3)
    pyro.param("mine", torch.ones(1))
    before, validation = torch.get_rng_state(), pyro.distributions.is_validation_enabled()
    first = posterior(model, guide, x, draws=3, chains=2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert pyro.distributions.is_validation_enabled() == validation
    assert torch.get_default_dtype() == torch.float64
    assert model.training
    assert guide.posterior.training
    assert not guide.decoy.training
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters())
    again = posterior(model, guide, x, draws=3, chains=2, seed=5)
    np.testing.assert_array_equal(first["prior_predictive"]["x"].values, again["prior_predictive"]["x"].values)
    other = posterior(model, guide, x, draws=3, chains=2)
    assert not torch.equal(torch.get_rng_state(), before)
    assert (other["posterior"]["z"].values != first["posterior"]["z"].values).all()


def test_dropout_and_batch_statistics_are_off() -> None:
    model, _ = pairs.vae()

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(-2), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3))

        def forward(self, x: Tensor) -> None:
            pyro.module("guide", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(self.net(x)).to_event(1))

    guide, x = Guide(), model.sample(4).double()
    z = posterior(model, guide, x, draws=3, chains=2, seed=0)["posterior"]["z"].values
    np.testing.assert_allclose(z, np.broadcast_to(z[0, 0], z.shape))
    assert int(guide.net[1].num_batches_tracked) == 0


@pytest.mark.parametrize("pair", ["ppca", "mixture"])
def test_netcdf_keeps_every_bit(pair: str, ppca: Any, tmp_path: Path) -> None:
    idata = posterior(*(ppca if pair == "ppca" else bayesian_mixture()), draws=5, seed=0)
    file = tmp_path / "draws.nc"
    if NEW:
        import xarray

        idata.to_netcdf(file, engine="h5netcdf")
        back = xarray.open_datatree(file, engine="h5netcdf")
    else:
        idata.to_netcdf(str(file), engine="h5netcdf")
        back = az().from_netcdf(str(file), engine="h5netcdf")
    assert names(back) == names(idata)
    for group in names(idata):
        for name, values in idata[group].data_vars.items():
            read = back[group][name]
            assert read.dims == values.dims
            assert read.dtype == values.dtype
            assert read.values.tobytes() == values.values.tobytes(), (group, name)
    back.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:arviz", "ignore:Passing a dict or None as alias_mapping")
def test_arviz_reads_the_result(ppca: Any) -> None:
    model, guide, _ = ppca
    model.weight.data.mul_(0.2)  # latents that single data hardly move, as leaving them out in turn requires
    idata = posterior(model, guide, model.sample(5), draws=200, seed=0)
    summary = az().summary(idata, var_names=["z"])
    assert len(summary) == 10
    assert (summary["r_hat"].astype(float) < 1.05).all()  # independent draws
    loo = az().loo(idata)
    assert np.isfinite(loo.elpd if NEW else loo.elpd_loo)
    if NEW:
        az().plot_ppc_dist(idata, num_samples=5)
    else:
        az().plot_ppc(idata, num_pp_samples=5, random_seed=0)
    import matplotlib.pyplot as plt

    plt.close("all")


def test_arviz_reads_discrete_data() -> None:
    model, guide = pairs.vae()
    idata = posterior(model, guide, model.sample(4), draws=100, seed=0)
    assert np.issubdtype(idata["posterior_predictive"]["x"].dtype, np.integer)
    assert np.isfinite(float(az().loo(idata).p if NEW else az().loo(idata).p_loo))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"draws": 0}, "'draws'"), ({"chains": 0}, "'chains'"), ({"prior_draws": -1}, "'prior_draws'")],
)
def test_wrong_numbers(wrong: dict[str, int], match: str, ppca: Any) -> None:
    with pytest.raises(ValueError, match=match):
        posterior(*ppca, **wrong)


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.zeros(0, 2, 3), [1.0]])
def test_wrong_data(x: Any, ppca: Any) -> None:
    with pytest.raises(ValueError, match="'x'") as error:
        posterior(*ppca[:2], x)
    assert "\n" not in str(error.value)
