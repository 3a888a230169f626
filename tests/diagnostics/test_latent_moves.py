"""Moves in the latent space: paths, traversals, interpolation, attributes and the grid, where each is known."""

from typing import Any

import diagnosed_pairs as pairs
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyro_lvm import exact, guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.diagnostics import (
    Share,
    attribute_success,
    attribute_vector,
    interpolate,
    manifold,
    paths,
    plot_attribute,
    plot_interpolation,
    plot_manifold,
    plot_traversals,
    traverse,
)

STEPS = (-2.0, 0.0, 0.5, 3.0)
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # a few roundings of numbers of order one in double precision


def ppca(features: int = 6, latent_dim: int = 3) -> tuple[models.ProbabilisticPCA, guides.ExactPPCA, Tensor]:
    model = models.ProbabilisticPCA(features, latent_dim)
    model.weight.data.normal_()
    model.bias.data.normal_()
    return model, guides.ExactPPCA(model), model.sample(40)


def mean_latent(model: models.ProbabilisticPCA, x: Tensor) -> Tensor:
    mean, _ = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    return mean.detach()


def decoded(model: models.ProbabilisticPCA, z: Tensor) -> Tensor:
    return (z @ model.weight.T + model.bias).detach()


# Paths


def angles(z: Tensor) -> Tensor:
    """Between neighbours on the way, (S - 1, ...)."""
    u = z / z.norm(dim=-1, keepdim=True)
    return 2 * torch.atan2((u[1:] - u[:-1]).norm(dim=-1), (u[1:] + u[:-1]).norm(dim=-1))


def test_great_circles_turn_at_constant_speed_and_norms_go_evenly() -> None:
    start, end = 3 * torch.randn(5, 4), torch.randn(5, 4)
    t = torch.linspace(0, 1, 9)
    z = paths.spherical(start, end, t)
    torch.testing.assert_close(z[0], start)
    torch.testing.assert_close(z[-1], end)
    whole = torch.nn.functional.cosine_similarity(start, end).acos()
    torch.testing.assert_close(angles(z), (whole / 8).expand(8, 5), **EXACT)
    between = start.norm(dim=-1) + t[:, None] * (end.norm(dim=-1) - start.norm(dim=-1))
    torch.testing.assert_close(z.norm(dim=-1), between, **EXACT)


def test_a_quarter_turn_in_closed_form() -> None:
    t = torch.linspace(0, 1, 7)
    z = paths.spherical(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0]), t)
    turn = t * torch.pi / 2
    torch.testing.assert_close(z, 2 * torch.stack([turn.cos(), torch.zeros(7), turn.sin()], -1), **EXACT)


def test_whites_formula_where_norms_are_equal() -> None:
    start = torch.nn.functional.normalize(torch.randn(8), dim=0) * 2.5
    end = torch.nn.functional.normalize(torch.randn(8), dim=0) * 2.5
    t = torch.rand(5)
    omega = (start @ end / 2.5**2).acos()
    white = torch.outer(((1 - t) * omega).sin(), start) + torch.outer((t * omega).sin(), end)
    torch.testing.assert_close(paths.spherical(start, end, t), white / omega.sin(), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e-9, 1e-5])
def test_ends_close_together_lose_no_digits(dtype: torch.dtype, distance: float) -> None:
    start = torch.tensor([1.0, 0.0], dtype=dtype)
    end = torch.tensor([1.0, distance], dtype=dtype)
    z = paths.spherical(start, end, torch.tensor([0.0, 0.25, 1.0]))
    # On so short a circle the path is straight, to third order.
    torch.testing.assert_close(z[:, 1], torch.tensor([0.0, 0.25, 1.0], dtype=dtype) * distance, rtol=1e-5, atol=0.0)


def test_ends_nearly_opposite_stay_on_the_sphere() -> None:
    angle = torch.tensor(torch.pi - 1e-5)
    z = paths.spherical(torch.tensor([1.0, 0.0]), torch.stack([angle.cos(), angle.sin()]), torch.linspace(0, 1, 5))
    # The sum of the ends, 1e-5 long, is known to 1e-16: to 1e-11 of itself.
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(5), rtol=1e-9, atol=0.0)


def test_linear_goes_straight() -> None:
    start, end = torch.randn(3, 2), torch.randn(3, 2)
    z = paths.linear(start, end, torch.tensor([0.0, 0.3, 1.0]))
    torch.testing.assert_close(z, torch.stack([start, 0.7 * start + 0.3 * end, end]))


@pytest.mark.parametrize(
    ("start", "end", "match"),
    [
        (torch.zeros(3), torch.ones(3), "'start' and 'end' must have a direction"),
        (torch.ones(3), -2 * torch.ones(3), "opposite"),
        (torch.ones(3), torch.ones(2), r"one shape.*\(3,\).*\(2,\)"),
    ],
)
def test_paths_that_are_none(start: Tensor, end: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        paths.spherical(start, end, torch.tensor([0.5]))


# Traversals


def test_a_step_adds_the_units_column() -> None:
    model, guide, x = ppca()
    found = traverse(model, guide, x[:1], steps=STEPS)
    z = mean_latent(model, x[0])
    for d in range(3):
        for s, step in enumerate(STEPS):
            moved = z.clone()
            moved[d] = step
            torch.testing.assert_close(found[d, s], decoded(model, moved), **EXACT)
    some = traverse(model, guide, x[:1], steps=STEPS, units=[2, 0])
    torch.testing.assert_close(some, found[[2, 0]])


class Normals(nn.Module):
    """Two latents of normals that are not standard, both read by the data; `x` is all it accepts."""

    def __init__(self, link: float) -> None:
        super().__init__()
        self.link = link  # from the first latent to the mean of the second

    def forward(self, x: Tensor) -> None:
        with pyro.plate("people", len(x)):
            a = pyro.sample("a", dist.Normal(torch.tensor([2.0, -1.0]), 3.0).to_event(1))
            b = pyro.sample("b", dist.Normal(self.link * a.sum(-1, keepdim=True) + 1.0, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat([a, b], -1), 1.0).to_event(1), obs=x)


def normals_guide(x: Tensor) -> None:
    with pyro.plate("people", len(x)):
        pyro.sample("a", dist.Normal(x[:, :2] / 2, 0.3).to_event(1))
        pyro.sample("b", dist.Normal(x[:, 2:] / 3, 0.3).to_event(1))


@pytest.mark.parametrize("link", [0.0, 0.7])
def test_steps_are_the_priors_and_what_lies_below_follows(link: float) -> None:
    x = torch.tensor([[1.0, 2.0, 6.0]])  # a = (0.5, 1), b = 2
    found = traverse(Normals(link), normals_guide, x, site="a", steps=STEPS)
    for s, step in enumerate(STEPS):
        a = 2.0 + 3.0 * step
        torch.testing.assert_close(found[0, s], torch.tensor([a, 1.0, 2.0 + link * (a - 0.5)]), **EXACT)
        a = -1.0 + 3.0 * step
        torch.testing.assert_close(found[1, s], torch.tensor([0.5, a, 2.0 + link * (a - 1.0)]), **EXACT)
    # The prior of the second is the one given the first, which stays.
    found = traverse(Normals(link), normals_guide, x, site="b", steps=STEPS)
    expected = torch.tensor([[0.5, 1.0, link * 1.5 + 1.0 + 0.5 * step] for step in STEPS])
    torch.testing.assert_close(found[0], expected, **EXACT)


def test_other_priors_are_traversed_by_their_quantiles() -> None:
    prior = priors.MixtureOfGaussians(2, components=1)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[4.0, 0.0]]))
        prior.log_scales.fill_(np.log(2.0))
    model = models.VAE(prior, likelihoods.Normal(nn.Identity(), 1.0))
    guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP(2, 4, (4,))))
    found = traverse(model, guide, torch.zeros(1, 2), steps=(-1.0, 0.0, 2.0), seed=0)
    for s, step in enumerate((-1.0, 0.0, 2.0)):
        p, density = dist.Normal(0.0, 1.0).cdf(torch.tensor(step)), dist.Normal(4.0, 2.0)
        error = (p * (1 - p) / 10_000).sqrt() / density.log_prob(torch.tensor(4.0 + 2 * step)).exp()
        assert abs(found[0, s, 0] - (4.0 + 2.0 * step)) < 4.5 * error


def sphere_pair() -> tuple[nn.Module, nn.Module]:
    """A decoder that shows the point itself."""
    model = models.VAE(priors.HypersphericalUniform(3), likelihoods.Normal(nn.Identity(), 1.0))
    return model, guides.Amortized(posteriors.VonMisesFisher(networks.MLP(4, 4, (8,))))


def test_on_a_sphere_points_stay_on_it() -> None:
    model, guide = sphere_pair()
    model.decoder = likelihoods.Normal(Padded(), 1.0)
    x = torch.randn(1, 4)
    found = traverse(model, guide, x, steps=(-2.0, 0.0, 1.0), seed=0)[..., :3]
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 3), **EXACT)
    # A coordinate is uniform between −1 and 1 on S² (Archimedes); its quantile p is 2p − 1.
    for s, step in enumerate((-2.0, 0.0, 1.0)):
        p = dist.Normal(0.0, 1.0).cdf(torch.tensor(step))
        for unit in range(3):
            assert abs(found[unit, s, unit] - (2 * p - 1)) < 4.5 * 2 * (p * (1 - p) / 10_000).sqrt()
    # On the great circle through the axis, the ratio of the other coordinates stays.
    mean = guide.posterior(x).mean_direction[0].detach()
    torch.testing.assert_close(found[0, :, 1] / found[0, :, 2], (mean[1] / mean[2]).expand(3), rtol=1e-8, atol=1e-8)


class Padded(nn.Module):
    """Three coordinates and a zero, so that data have another size than latents."""

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.pad(z, (0, 1))


# Interpolation


def test_decoded_means_of_a_linear_model_lie_on_a_line() -> None:
    model, guide, x = ppca()
    found = interpolate(model, guide, x[:3], x[3:6], steps=5)
    start, end = (decoded(model, mean_latent(model, part)) for part in (x[:3], x[3:6]))
    for s, t in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        torch.testing.assert_close(found[:, s], (1 - t) * start + t * end, **EXACT)


def test_the_path_is_that_of_the_latents() -> None:
    model, guide, x = ppca()
    found = interpolate(model, guide, x[:3], x[3:6], steps=4, path=paths.spherical)
    z = paths.spherical(mean_latent(model, x[:3]), mean_latent(model, x[3:6]), torch.linspace(0, 1, 4))
    torch.testing.assert_close(found, decoded(model, z).transpose(0, 1), **EXACT)


def test_on_a_sphere_the_geodesic_is_taken_and_a_chord_refused() -> None:
    model, guide = sphere_pair()
    model.decoder = likelihoods.Normal(Padded(), 1.0)
    x = torch.randn(6, 4)
    found = interpolate(model, guide, x[:3], x[3:], steps=6)[..., :3]
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 6), **EXACT)
    turned = angles(found.transpose(0, 1))
    torch.testing.assert_close(turned, turned[:1].expand_as(turned), **EXACT)
    with pytest.raises(ValueError, match=r"'path' leaves the sphere that 'z' lies on"):
        interpolate(model, guide, x[:3], x[3:], path=paths.linear)


def switched_model(x: Tensor) -> None:
    """A component and a normal of each datum."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.5])))
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(torch.stack([10.0 * c, z], -1), 1.0).to_event(1), obs=x)


def switched_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Categorical(logits=torch.stack([-x[:, 0], x[:, 0]], -1)))
        pyro.sample("z", dist.Normal(x[:, 1], 1.0))


def test_separate_values_change_in_the_middle() -> None:
    x = torch.tensor([[-3.0, 0.0], [4.0, 8.0]])  # c = 0 and 1
    found = interpolate(switched_model, switched_guide, x[:1], x[1:], steps=5)
    torch.testing.assert_close(found[0], torch.tensor([[0.0, 0], [0, 2], [10, 4], [10, 6], [10, 8]]))


# Attributes


def test_vector_of_known_class_means() -> None:
    model, guide, x = ppca()
    has = torch.arange(40) % 3 == 0
    vector = attribute_vector(model, guide, x, has)["z"]
    # Posterior means are linear in x: theirs is that of the mean.
    means = [mean_latent(model, x[mask].mean(0)) for mask in (has, ~has)]
    torch.testing.assert_close(vector, means[0] - means[1], **EXACT)


def test_vector_of_a_simulated_attribute_is_the_latents_own() -> None:
    """With next to no noise in the data the latents are known, and with them the difference of the classes."""
    model, guide, _ = ppca()
    model.log_noise_scale.data.fill_(np.log(1e-6))
    has = torch.arange(400) % 2 == 0
    z = torch.randn(400, 3) + has[:, None] * torch.tensor([2.0, 0.0, -1.0])
    vector = attribute_vector(model, guide, decoded(model, z), has)["z"]
    torch.testing.assert_close(vector, z[has].mean(0) - z[~has].mean(0), rtol=1e-8, atol=1e-8)
    error = (4 / 400) ** 0.5
    assert ((vector - torch.tensor([2.0, 0.0, -1.0])).abs() < 4.5 * error).all()


class Threshold:
    """What scikit-learn asks of a classifier; an attribute is a first value above a fixed number."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def get_params(self, deep: bool = True) -> dict[str, float]:
        return {"at": self.at}

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Threshold":
        self.fitted_ = True
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        assert self.fitted_
        return X[:, 0] > self.at


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_success_is_counted_as_it_is(strength: float) -> None:
    model, guide, x = ppca(latent_dim=1)
    x = torch.cat([x, model.sample(160)])
    has = x[:, 1] > model.bias[1].item()
    train, test = slice(0, 100), slice(100, 200)
    at = model.bias[0].item() + 0.2
    judge = Threshold(at)
    found = attribute_success(
        model, guide, x[train], has[train], x[test], has[test], strength=strength, classifier=judge
    )
    z = mean_latent(model, x[test][~has[test]])
    v = mean_latent(model, x[train][has[train]].mean(0)) - mean_latent(model, x[train][~has[train]].mean(0))
    torch.testing.assert_close(found.vector["z"], v, **EXACT)
    n = len(z)
    before = int((decoded(model, z)[:, 0] > at).sum())
    after = int((decoded(model, z + strength * v)[:, 0] > at).sum())
    assert found.before == Share(before, n)
    assert found.after == Share(after, n)
    assert found.before != found.after
    right = int(((x[test][:, 0] > at) == has[test]).sum())
    assert found.accuracy == Share(right, 100)
    p = right / 100
    assert found.accuracy.standard_error == pytest.approx((p * (1 - p) / 100) ** 0.5)
    assert not hasattr(judge, "fitted_")  # a clone was fitted


def test_all_move_to_a_class_that_is_far_away() -> None:
    """Two clusters 20 standard deviations apart: neighbours in the data tell them apart, and every move succeeds."""
    model, guide, x = ppca()
    has = torch.arange(40) % 2 == 0
    x = x + 40 * has[:, None] * model.weight[:, 0].detach() / model.weight[:, 0].norm().item()
    found = attribute_success(model, guide, x[:20], has[:20], x[20:], has[20:])
    assert (found.before.value, found.after.value, found.accuracy.value) == (0.0, 1.0, 1.0)
    assert str(found.after) == "1.000 ± 0.000 of 10"


def test_moved_points_are_put_back_onto_the_sphere() -> None:
    model, guide = sphere_pair()
    model.decoder = likelihoods.Normal(Padded(), 1.0)
    x = torch.randn(20, 4)
    vector = attribute_vector(model, guide, x, torch.arange(20) % 2 == 0)
    z = guide.posterior(x[:3]).mean_direction.detach()
    image = plot_attribute(model, guide, x[:3].unsqueeze(-1).flatten(1), vector, strengths=(2.0,)).get_lines()
    moved = torch.nn.functional.normalize(z + 2.0 * vector["z"], dim=-1)
    np.testing.assert_allclose(image[0].get_ydata()[:3], moved[0])


@pytest.mark.parametrize(
    ("has", "match"),
    [
        (torch.arange(40), "must be a boolean for each"),
        (torch.ones(39, dtype=torch.bool), "must be a boolean for each"),
        (torch.ones(40, dtype=torch.bool), "true of some data and false of others"),
        (torch.zeros(40, dtype=torch.bool), "true of some data and false of others"),
    ],
)
def test_attributes_that_are_none(has: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=f"'has' .*{match}|'has' {match}"):
        attribute_vector(*ppca(), has)


# The grid of two latents


def test_the_grid_is_at_the_priors_quantiles() -> None:
    model, guide, x = ppca(latent_dim=2)
    grid = manifold(model, guide, x, size=5)
    quantiles = dist.Normal(0.0, 1.0).icdf(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(grid.across, quantiles, **EXACT)
    torch.testing.assert_close(grid.up, quantiles, **EXACT)
    for i in range(5):
        for j in range(5):
            z = torch.stack([quantiles[j], quantiles[i]])
            torch.testing.assert_close(grid.x[i, j], decoded(model, z), **EXACT)


def test_other_priors_take_the_range_of_the_aggregated_posterior() -> None:
    model, guide, x = ppca(latent_dim=2)
    own = models.VAE(priors.MixtureOfGaussians(2), likelihoods.Normal(model_mean(model), 1.0))
    grid = manifold(own, guide, x, size=3)
    z = mean_latent(model, x)
    ends = z.quantile(torch.tensor([0.01, 0.99]), dim=0)
    torch.testing.assert_close(grid.across[[0, 2]], ends[:, 0], **EXACT)
    torch.testing.assert_close(grid.up[1], ends[:, 1].mean(), **EXACT)


def model_mean(model: models.ProbabilisticPCA) -> nn.Module:
    linear = nn.Linear(2, 6)
    linear.weight.data, linear.bias.data = model.weight.data, model.bias.data
    return linear


def test_the_top_of_the_picture_is_the_largest_value() -> None:
    model = models.ProbabilisticPCA((2, 3), latent_dim=2)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 1] = 1.0  # the first pixel shows the second latent
    x = model.sample(5)
    ax = plot_manifold(model, guides.ExactPPCA(model), x, size=3)
    canvas = ax.images[0].get_array()
    np.testing.assert_allclose(canvas[1::3, 1][:3], dist.Normal(0.0, 1.0).icdf(torch.tensor([5 / 6, 0.5, 1 / 6])))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0.97", "0.00", "−0.97"]
    assert ax.get_xlabel().startswith("z₁")
    assert ax.get_ylabel().startswith("z₂")


# Every kind of pair


@pytest.mark.parametrize(
    ("model", "guide", "shape"),
    [
        (pairs.global_mean_model, pairs.global_mean_guide, (2,)),
        (pairs.PixelModel(), pairs.PixelGuide(), (3,)),
        (pairs.one_draw_model, pairs.one_draw_guide, (2,)),
        (*pairs.vae(), (4, 4)),
    ],
    ids=["shared latent", "plate of pixels", "one draw", "vae"],
)
@pytest.mark.filterwarnings("ignore:the programs are run once for every draw")
def test_any_pair_and_nothing_is_left_changed(model: Any, guide: Any, shape: tuple[int, ...]) -> None:
    x = torch.zeros(6, *shape)
    x[3:] = 1.0
    before = torch.get_rng_state()
    site = "z"
    assert traverse(model, guide, x[:1], site=site, units=[0], seed=0).shape == (1, 7, *shape)
    assert interpolate(model, guide, x[:2], x[3:5], steps=3, seed=0).shape == (2, 3, *shape)
    assert torch.isfinite(attribute_vector(model, guide, x, x.flatten(1)[:, 0] > 0, seed=0)[site]).all()
    ax = plot_traversals(model, guide, x, rows=2, seed=0)
    assert ax.get_xlabel()
    assert torch.equal(torch.get_rng_state(), before)
    assert not pyro.get_param_store().keys()
    if isinstance(model, nn.Module):
        assert model.training


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, x = ppca()
    whole = interpolate(model, guide, x[:5], x[5:10], steps=6), traverse(model, guide, x[:1])
    monkeypatch.setattr("pyro_lvm.diagnostics.centres._NUMBERS_PER_RUN", 20)
    parts = interpolate(model, guide, x[:5], x[5:10], steps=6), traverse(model, guide, x[:1])
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_most_active_units_come_first() -> None:
    model, guide, x = ppca()
    model.weight.data[:, 1] = 0.0
    ax = plot_traversals(model, guide, x, rows=3)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    variances = mean_latent(model, x).var(0)
    order = variances.argsort(descending=True)
    assert names == [f"{d + 1} ({variances[d]:.2f})" for d in order.tolist()]
    assert names[-1] == "2 (0.00)"


def test_pictures_are_named_and_drawn_into_the_axes_given() -> None:
    model, guide = pairs.vae()
    x = model.sample(8)
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_traversals(model, guide, x, levels=3, ax=ax) is ax
    assert [text.get_text() for text in ax.get_xticklabels()] == ["−3", "−2", "−1", "0", "1", "2", "3"]
    ends = plot_interpolation(model, guide, x[:2], x[2:4], steps=3, levels=3)
    np.testing.assert_array_equal(ends.images[0].get_array()[1:5, 1:5], x[0])
    np.testing.assert_array_equal(ends.images[0].get_array()[1:5, -5:-1], x[2])
    first = plot_attribute(model, guide, x[:2], {"z": torch.ones(3)}, levels=3)
    np.testing.assert_array_equal(first.images[0].get_array()[6:10, 1:5], x[1])
    for drawn in (ax, ends, first):
        assert drawn.get_xlabel()
        assert drawn.get_ylabel()
        assert drawn.images[0].get_interpolation() == "nearest"
        drawn.figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: traverse(*ppca()), r"'x' must be one datum"),
        (lambda: traverse(*_first(ppca()), site="w"), r"'site' must name one of .* z, not 'w'"),
        (
            lambda: traverse(Normals(0.0), normals_guide, torch.zeros(1, 3)),
            r"'site' must name one of .* a, b, not None",
        ),
        (lambda: traverse(*_first(ppca()), units=[3]), r"'units' must be numbers from 0 to 2"),
        (lambda: traverse(*_first(ppca()), steps=[]), "'steps'"),
        (lambda: traverse(*_first(ppca()), steps=[float("inf")]), "'steps'"),
        (lambda: plot_traversals(*ppca(), rows=0), "'rows'"),
        (lambda: plot_traversals(*ppca(), datum=40), "'datum'"),
        (lambda: interpolate(*ppca(), torch.zeros(3, 6)), "'end' must have the shape of 'start'"),
        (lambda: interpolate(*ppca(), torch.zeros(40, 6), steps=1), "'steps'"),
        (lambda: manifold(*ppca()), "'site' must be a latent of two units .* latent of 3 units"),
        (lambda: manifold(*ppca(latent_dim=2), size=0), "'size'"),
        (lambda: plot_manifold(*ppca(latent_dim=2)), "pictures or points in the plane"),
        (lambda: plot_attribute(*ppca(), {"z": torch.zeros(2)}), "'vector' must hold vectors"),
        (lambda: plot_attribute(*ppca(), {}), "'vector' must hold vectors"),
        (lambda: plot_attribute(*ppca(), {"z": torch.zeros(3)}, strengths=()), "'strengths'"),
        (lambda: traverse(pairs.unplated_model, pairs.unplated_guide, torch.zeros(1, 2)), "data are independent"),
        (lambda: traverse(*_mixture()), "no continuous latent"),
        (lambda: traverse(pairs.two_data_model, pairs.two_data_guide, torch.zeros(1, 2)), "of the shape of 'x'"),
    ],
)
def test_wrong_arguments(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def _first(pair: tuple[Any, Any, Tensor]) -> tuple[Any, Any, Tensor]:
    model, guide, x = pair
    return model, guide, x[:1]


def _mixture() -> tuple[Any, Any, Tensor]:
    model = models.GaussianMixture(2, components=3)
    return model, guides.Responsibilities(model), model.sample(1)
