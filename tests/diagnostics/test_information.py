"""Information and surgery, where their values are known."""

from math import log
from typing import Any

import diagnosed_pairs as pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import data, guides, models, priors, zoo
from pyro_lvm.diagnostics import mutual_information, plot_surgery, surgery
from pyro_lvm.diagnostics.aggregated import AggregatedPosterior

MIXING = torch.tensor([[1.0, 0.4], [-0.3, 0.8]])  # A
NOISE = torch.tensor([[0.9, 0.8], [0.8, 1.2]])  # S
SPREAD = torch.tensor([[1.0, 0.3], [0.3, 0.7]])  # covariance of the data


def gaussian_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def gaussian_guide(x: Tensor) -> None:
    """q(z | x) = N(A x, S): with normal data, q(z) = N(0, A Σ Aᵀ + S)."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x @ MIXING.T.to(x), NOISE.to(x)))


def gaussian_data(N: int) -> Tensor:
    return torch.randn(N, 2) @ torch.linalg.cholesky(SPREAD.double()).T


def codes() -> dist.MultivariateNormal:
    return dist.MultivariateNormal(torch.zeros(2), (MIXING @ SPREAD @ MIXING.T + NOISE).double())


def exact_information() -> float:
    return 0.5 * float(torch.logdet(codes().covariance_matrix) - torch.logdet(NOISE.double()))


def exact_correlation() -> float:
    covariance = codes().covariance_matrix
    return 0.5 * float(covariance.diagonal().log().sum() - torch.logdet(covariance))


def test_information_of_a_linear_gaussian_encoder_is_bracketed() -> None:
    found = mutual_information(gaussian_model, gaussian_guide, gaussian_data(800), seed=0)
    truth = exact_information()
    # Both bounds hold in expectation over data; 4 of their standard errors over data.
    assert found.lower.mean < truth + 4 * found.lower.sampling_error
    assert found.upper.mean > truth - 4 * found.upper.sampling_error
    # The bracket closes with N: its width is (1 + χ²) / N to first order, 1 + χ² = E[q(z | x) / q(z)], the product of
    # 1 / (1 − ρ²) over the canonical correlations ρ, which is exp(2 I).
    width = found.upper.mean - found.lower.mean
    assert 0 < width < 3 * torch.tensor(2 * truth).exp() / 800
    assert found.ceiling == pytest.approx(log(800))
    print(f"information: exact {truth:.4f}, lower {found.lower!r}, upper {found.upper!r}")


def test_surgery_of_a_linear_gaussian_encoder() -> None:
    found = surgery(gaussian_model, gaussian_guide, gaussian_data(800), seed=0)
    q, noise = codes(), dist.MultivariateNormal(torch.zeros(2), NOISE.double())
    variances = q.covariance_matrix.diagonal()
    prior = dist.Normal(0.0, 1.5)
    cross = 0.5 * (variances / 1.5**2 + log(2 * torch.pi * 1.5**2)).sum()
    each = torch.distributions.kl_divergence(dist.Normal(0.0, variances.sqrt()), prior)
    exact: dict[str, Any] = {
        "information": exact_information(),
        "cross_entropy": cross,
        "entropy": noise.entropy(),
        "regulariser": cross - noise.entropy(),
        "marginal": cross - q.entropy(),
        "total_correlation": exact_correlation(),
        "dimensions": each.sum(),
    }
    bias = float(torch.tensor(2 * exact_information()).exp() / 800)  # of order (1 + χ²) / 2N; see above
    for name, value in exact.items():
        part = getattr(found, name)
        error = (part.sampling_error**2 + part.mean_standard_error**2) ** 0.5
        assert part.mean == pytest.approx(float(value), abs=4 * error + bias), name
    assert found.by_dimension is not None
    torch.testing.assert_close(found.by_dimension, each, atol=4 * found.dimensions.sampling_error + bias, rtol=0)
    print(f"total correlation: exact {exact_correlation():.4f}, {found.total_correlation!r}")


def test_the_information_on_which_of_three_data_is_exact() -> None:
    x = torch.tensor([[-2.0], [0.0], [0.5]])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 0.5 + x[:, 0].abs()))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)

    found = mutual_information(model, guide, x, num_particles=40_000, seed=0)
    grid = torch.linspace(-30, 30, 200_001)
    log_q = dist.Normal(x, 0.5 + x.abs()).log_prob(grid)  # (3, G)
    for estimate, mixtures in (
        (found.lower, [log_q.logsumexp(0) - log(3)] * 3),
        (found.upper, [torch.cat([log_q[:n], log_q[n + 1 :]]).logsumexp(0) - log(2) for n in range(3)]),
    ):
        for n, mixture in enumerate(mixtures):
            density, difference = log_q[n].exp(), log_q[n] - mixture
            exact = torch.trapezoid(density * difference, grid)
            error = ((torch.trapezoid(density * difference.square(), grid) - exact**2) / 40_000).sqrt()
            assert abs(estimate.values[n] - exact) < 4 * error
            assert estimate.standard_error[n] == pytest.approx(float(error), rel=0.1)


@pytest.mark.parametrize("name", ["vae", "vae-full-normal", "vae-iaf", "vae-mog", "vae-vmf", "vae-discrete", "gmm"])
def test_terms_sum_to_the_regulariser(name: str) -> None:
    digits = data.load("digits")
    torch.set_default_dtype(torch.float32)
    try:
        model, guide, _ = zoo.build(name, digits)
        with torch.no_grad():
            for parameter in [*model.parameters(), *guide.parameters()]:
                parameter.add_(0.05 * torch.randn_like(parameter))
        found = surgery(model, guide, digits.train[:60], num_particles=2, seed=0)
    finally:
        torch.set_default_dtype(torch.float64)
    total = found.regulariser.mean
    assert abs(total - (found.information.mean + found.marginal.mean)) < 1e-6
    assert abs(total - (found.cross_entropy.mean - found.entropy.mean)) < 1e-6
    assert abs(total - sum(part.mean for part in found.parts.values())) < 1e-6
    assert found.information.mean < found.ceiling
    known = {"vae": 3, "vae-full-normal": 3, "vae-discrete": 3, "gmm": 3}
    assert len(found.parts) == known.get(name, 2)
    assert (found.total_correlation is None) == (name in ("vae-iaf", "vae-vmf"))
    if found.dimensions is not None and found.by_dimension is not None:
        assert abs(found.by_dimension.sum() - found.dimensions.mean) < 1e-6


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_densities_are_the_sums_they_stand_for(covariance: str) -> None:
    guide = guides.LinearNormal(3, latent_dim=2, covariance=covariance)
    for parameter in guide.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    model, x = models.ProbabilisticPCA(3, latent_dim=2), torch.randn(7, 3)
    aggregated = AggregatedPosterior(model, guide, x)
    for points in (aggregated.draws(3), aggregated.prior(5)):
        z, found = points.values["z"], aggregated.density(points)
        mean, scale_tril = guide.mean(x).detach(), guide.scale_tril().detach()
        log_q = dist.MultivariateNormal(mean, scale_tril=scale_tril).log_prob(z[:, None])  # (S, 7)
        torch.testing.assert_close(found.log_q[:, 0], log_q.logsumexp(1) - log(7))
        each = dist.Normal(mean, (scale_tril @ scale_tril.T).diagonal().sqrt()).log_prob(z[:, None])
        torch.testing.assert_close(found.by_dimension, each.logsumexp(1) - log(7))
        torch.testing.assert_close(points.log_p[:, 0], dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
        if points.owner is None:
            torch.testing.assert_close(found.by_others, found.log_q)
            continue
        assert points.owner.tolist() == list(range(7)) * 3
        others = log_q.masked_fill(points.owner[:, None] == torch.arange(7), -torch.inf)
        torch.testing.assert_close(found.by_others[:, 0], others.logsumexp(1) - log(6))
        own = log_q.gather(1, points.owner[:, None])
        torch.testing.assert_close(points.log_q, own)
        given = model.noise_scale.detach()
        noise = dist.Normal(z @ model.weight.detach().T + model.bias.detach(), given)
        torch.testing.assert_close(points.reconstruction, noise.log_prob(x[points.owner]).sum(-1))


def test_the_regulariser_is_the_bounds_own() -> None:
    model, guide = pairs.vae()
    x = torch.randint(3, (200, 4, 4)).double()
    found = surgery(model, guide, x, num_particles=50, seed=0)
    q = guide.posterior(x)
    exact = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(3), 1.0).to_event(1))
    assert ((found.regulariser.values - exact).abs() < 5 * found.regulariser.standard_error).all()
    assert found.entropy.mean == pytest.approx(q.entropy().mean().item(), abs=5 * found.entropy.mean_standard_error)


def test_hierarchies_count_jointly_and_level_by_level() -> None:
    """z_2 ~ N(x, 1), z_1 | z_2 ~ N(z_2, 1): z_1 adds nothing to what z_2 says of x."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(torch.zeros(()), 2**0.5))
            z_1 = pyro.sample("z_1", dist.Normal(z_2, 1.0))
            pyro.sample("x", dist.Normal(z_1, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(x, 1.0))
            pyro.sample("z_1", dist.Normal(z_2, 1.0))

    x = torch.randn(1000)
    found = mutual_information(model, guide, x, seed=0)
    assert list(found.by_site) == ["z_2", "z_1"]
    truth = 0.5 * log(2)
    assert found.by_site["z_2"].mean == pytest.approx(truth, abs=4 * found.lower.sampling_error)
    assert found.by_site["z_1"].values.abs().max() < 1e-9  # its factor is the same for all data
    torch.testing.assert_close(sum(part.values for part in found.by_site.values()), found.lower.values)
    cut = surgery(model, guide, x, seed=0)
    # q(z) is the prior here.
    assert cut.marginal.mean == pytest.approx(0.0, abs=4 * cut.marginal.sampling_error + 2 / 1000)
    assert cut.total_correlation is None


def test_blocks_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian_data(30)

    def terms() -> Tensor:
        torch.manual_seed(0)
        aggregated = AggregatedPosterior(gaussian_model, gaussian_guide, x)
        points = aggregated._points([c[:, :30] for c in aggregated._drawn(x, 3)], from_prior=False)
        density = aggregated.density(points)
        assert density.by_dimension is not None
        return torch.cat([density.log_q, density.by_others, density.by_dimension], 1)

    whole = terms()
    monkeypatch.setattr("pyro_lvm.diagnostics.aggregated._COLUMNS", 7)
    monkeypatch.setattr("pyro_lvm.diagnostics.aggregated._BYTES", 4000)
    torch.testing.assert_close(terms(), whole)


def test_memory_is_bounded_and_draws_stay_with_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.diagnostics.aggregated._BYTES", 4000)
    aggregated = AggregatedPosterior(gaussian_model, gaussian_guide, 100 * gaussian_data(20))
    points = aggregated.draws(5)
    assert points.owner is not None
    far = points.values["z"] - (aggregated.x @ MIXING.T.double())[points.owner]
    assert far.abs().max() < 6  # a datum's draws are around its own mean, hundreds apart from others'


def test_programs_that_take_one_draw_at_a_time() -> None:
    x = torch.randn(6, 2)
    with pytest.warns(UserWarning, match="once for every draw"):
        found = surgery(pairs.one_draw_model, pairs.one_draw_guide, x, num_particles=2, seed=0)
    assert abs(found.regulariser.mean - found.information.mean - found.marginal.mean) < 1e-9
    assert found.total_correlation is not None


def test_data_in_an_outer_plate() -> None:
    found = surgery(pairs.PixelModel(), pairs.PixelGuide(), torch.randn(8, 3), num_particles=2, seed=0)
    assert len(found.regulariser.values) == 8
    assert abs(found.regulariser.mean - found.information.mean - found.marginal.mean) < 1e-9


def test_shared_latents_are_held() -> None:
    found = mutual_information(pairs.global_mean_model, pairs.global_mean_guide, torch.randn(400, 2), seed=0)
    assert list(found.by_site) == ["z"]
    # q(z | x, mean) = N((x + mean) / 2, 0.49): two dimensions with ρ² = 0.25 / (0.25 + 0.49).
    assert found.lower.mean == pytest.approx(log(1 + 0.25 / 0.49), abs=5 * found.lower.sampling_error)
    assert not pyro.get_param_store().keys()


def auxiliary() -> tuple[Any, Any]:
    model, guide, _ = zoo.build("vae-auxiliary", data.load("digits"))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model, guide


def point_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x / 2, event_dim=1))


@pytest.mark.parametrize(
    ("function", "pair", "match"),
    [
        (surgery, auxiliary, "hangs on the datum itself"),
        (surgery, lambda: zoo.build("vae-diffusion-prior", data.load("digits"))[:2], "is itself an estimate"),
        (mutual_information, lambda: zoo.build("vae-hmc", data.load("digits"))[:2], "is a point"),
        (mutual_information, lambda: zoo.build("flow-realnvp", data.load("digits"))[:2], "cannot score draws"),
        (mutual_information, lambda: zoo.build("ddpm", data.load("digits"))[:2], "subsampled"),
    ],
)
def test_pairs_without_such_a_number_are_refused(function: Any, pair: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        function(*pair(), data.load("digits").train[:4].double(), seed=0)


def test_wrong_arguments() -> None:
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match="'num_particles'"):
        surgery(gaussian_model, gaussian_guide, x, num_particles=1)
    with pytest.raises(ValueError, match="at least two data"):
        mutual_information(gaussian_model, gaussian_guide, x[:1])
    with pytest.raises(ValueError, match="is a point"):
        mutual_information(gaussian_model, point_guide, x)


def test_state_is_left_alone() -> None:
    model, guide = pairs.vae()
    x = torch.randint(3, (20, 4, 4)).double()
    before = torch.get_rng_state()
    first = surgery(model, guide, x, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert torch.equal(first.marginal.values, surgery(model, guide, x, seed=3).marginal.values)
    assert not pyro.get_param_store().keys()


def test_surgery_is_drawn_as_it_is() -> None:
    model = models.ProbabilisticPCA(3, latent_dim=2)
    guide, x = guides.ExactPPCA(model), model.sample(40)
    found = surgery(model, guide, x, seed=0)
    ax = plot_surgery({"one": found, "$two": found})
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(2 * found.regulariser.mean)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", r"\$two"]
    assert "nats per datum" in ax.get_xlabel()
    with pytest.raises(ValueError, match="'found'"):
        plot_surgery({})


def test_mixture_priors_have_no_dimensions_of_their_own() -> None:
    """A prior that is no product: the total correlation is known, what dimensions differ by is not."""
    prior = priors.MixtureOfGaussians(2, components=3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    found = surgery(model, gaussian_guide, gaussian_data(50), seed=0)
    assert found.total_correlation is not None
    assert found.dimensions is None
    assert list(found.parts) == ["information I(n; z)", "KL(q(z) ‖ p(z))"]
