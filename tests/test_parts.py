"""Programs, networks, densities and the parts between them."""

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyro_lvm as lvm
from pyro_lvm import distributions, guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.programs import data_plate, pair
from pyro_lvm.sizes import check_sizes, checked_shape

# Programs


def test_data_plate_scales_and_counts() -> None:
    x = torch.zeros(4, 3)
    with data_plate(x, None) as rows:
        assert len(rows) == 4
    plate = data_plate(x, 100)

    def program() -> None:
        with plate:
            pyro.sample("z", dist.Normal(0, 1))

    site = pyro.poutine.trace(program).get_trace().nodes["z"]
    assert site["scale"] == 25.0
    assert site["value"].shape == (4,)
    assert data_plate(None, 7).size == 7
    with pytest.raises(ValueError, match="'x' and 'size' are both None"):
        data_plate(None, None)
    with pytest.raises(ValueError, match=r"'size'.*is 3, but 'x' holds 4"):
        data_plate(x, 3)


def test_minibatch_plate_draws_no_permutation() -> None:
    """Pyro's own subsample would permute the whole data set at every step."""
    torch.manual_seed(0)
    with data_plate(torch.zeros(4, 3), 10**9):
        pass
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "model",
    [
        models.ProbabilisticPCA((2, 3), 2),
        models.GaussianMixture((2, 3), 4),
        models.GaussianMixture((2, 3), 4, "diag"),
        models.BayesianGaussianMixture((2, 3), 4),
    ],
)
def test_models_sample_without_a_trace_in_pyro(model: Any) -> None:
    assert model.sample(5).shape == (5, 2, 3)
    assert len(pyro.get_param_store()) == 0
    with pytest.raises(ValueError, match="'n'"):
        model.sample(0)


def test_a_sample_has_the_models_moments() -> None:
    model = models.ProbabilisticPCA(3, 2, mean=1.5, noise_scale=0.5)
    x, weight = model.sample(200_000), model.weight.detach()
    covariance = weight @ weight.T + 0.25 * torch.eye(3)
    standard_error = covariance.diagonal().sqrt() / 200_000**0.5
    assert ((x.mean(0) - 1.5).abs() < 4 * standard_error).all()
    assert ((x.T.cov() - covariance).abs() < 5 * covariance.diagonal().max() * (2 / 200_000) ** 0.5).all()


def test_pyro_modules_with_bare_parameters_are_refused() -> None:
    class Odd(pyro.nn.PyroModule):
        def forward(self, x: Tensor) -> None:
            scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, scale))

    _, guide = pair(lambda x: None, Odd())
    with pytest.raises(TypeError, match="make it an attribute"):
        guide(torch.zeros(3))
    assert len(pyro.get_param_store()) == 0


def test_bare_parameters_of_one_name_are_shared_by_a_pair_and_by_no_other() -> None:
    def model(x: Tensor) -> Tensor:
        return pyro.param("shared", torch.tensor(1.0))

    def guide(x: Tensor) -> Tensor:
        return pyro.param("shared", torch.tensor(2.0))

    def stranger(x: Tensor) -> Tensor:
        return pyro.param("shared", torch.tensor(3.0))

    m, g = pair(model, guide)
    assert m(torch.zeros(1)) == g(torch.zeros(1)) == 1.0
    assert pair(model, stranger)[1](torch.zeros(1)) == 1.0
    assert pair(lambda x: None, stranger)[1](torch.zeros(1)) == 3.0


# Sizes


def test_sizes_are_whole_and_positive_and_a_number_is_the_shape_of_a_vector() -> None:
    assert checked_shape(3, "shape") == (3,)
    assert checked_shape(torch.Size([2, 3]), "shape") == checked_shape([2, 3], "shape") == (2, 3)
    check_sizes(one=1, array=np.int64(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^'b' must be at least 1, not 0\.$"):
        check_sizes(a=1, b=0)
    with pytest.raises(ValueError, match=r"^'a' must be a whole number, not 2\.0\.$"):
        check_sizes(a=2.0)  # type: ignore[arg-type]
    for wrong in ((2, 0), (2, -1), (2.0,), None):
        with pytest.raises(ValueError, match=r"^'shape' must hold sizes, whole numbers of at least 1, not \("):
            checked_shape(wrong, "shape")  # type: ignore[arg-type]


# Networks


def test_mlp_takes_leading_dimensions_and_rescales() -> None:
    net = networks.MLP((2, 3), (4, 5), (7,), centre=8.0, spread=4.0)
    x = torch.randn(6, 2, 2, 3)
    out = net(x)
    assert out.shape == (6, 2, 4, 5)
    by_hand = net.layers((x.reshape(12, 6) - 8) / 4).reshape(6, 2, 4, 5)
    torch.testing.assert_close(out, by_hand)
    half = networks.MLP(3, 2, (), centre=8.0, spread=4.0, rescaled=2)
    shifted = torch.tensor([[0.0, 4.0, 5.0]])
    torch.testing.assert_close(half(shifted), half.layers(torch.tensor([[-2.0, -1.0, 5.0]])))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(..., 2, 3\), but was given \(3, 2\)"):
        net(torch.zeros(3, 2))
    for kw in (
        {"in_shape": 0},
        {"out_shape": (3, 0)},
        {"hidden_features": (0,)},
        {"spread": 0.0},
        {"rescaled": 9},
        {"rescaled": -1},
    ):
        with pytest.raises(ValueError, match=f"'{next(iter(kw))}'"):
            networks.MLP(**{"in_shape": 2, "out_shape": 2, **kw})  # type: ignore[arg-type]


def test_gated_layers_let_one_half_through_the_other() -> None:
    net = networks.MLP(3, 2, (5, 4), nn.GLU)
    x = torch.randn(6, 3)
    h = x
    for layer, width in ((net.layers[0], 5), (net.layers[2], 4)):
        a, b = (h @ layer.weight.T + layer.bias).split(width, dim=-1)
        h = a * b.sigmoid()
    torch.testing.assert_close(net(x), h @ net.layers[4].weight.T + net.layers[4].bias)


# Likelihoods and posteriors


def test_discrete_likelihoods_sum_to_one() -> None:
    z = torch.randn(3, 2)
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 3)  # all 27 data of 3 values with 3 levels
    p = likelihoods.Categorical(nn.Linear(2, 9), levels=3)(z)
    assert p.event_shape == (3,)
    torch.testing.assert_close(p.log_prob(every[:, None]).logsumexp(0), torch.zeros(3), atol=1e-12, rtol=0)
    every = torch.cartesian_prod(*[torch.arange(2.0)] * 3)
    p = likelihoods.Bernoulli(nn.Linear(2, 3))(z)
    torch.testing.assert_close(p.log_prob(every[:, None]).logsumexp(0), torch.zeros(3), atol=1e-12, rtol=0)


def test_flat_and_shaped_networks_are_one_likelihood() -> None:
    net, z, x = nn.Linear(2, 6 * 4), torch.randn(5, 2), torch.randint(4, (5, 2, 3)).double()
    shaped = likelihoods.Categorical(net, 4, shape=(2, 3))(z)
    flat = likelihoods.Categorical(net, 4)(z)
    torch.testing.assert_close(shaped.log_prob(x), flat.log_prob(x.flatten(1)))
    whole = likelihoods.Categorical(nn.Sequential(net, nn.Unflatten(-1, (2, 3, 4))), 4)(z)
    torch.testing.assert_close(shaped.log_prob(x), whole.log_prob(x))


@pytest.mark.parametrize("scale", [0.7, "shared", "per_dimension", "predicted"])
def test_normal_likelihood_has_the_stated_density(scale: Any) -> None:
    net = nn.Linear(2, 12 if scale == "predicted" else 6)
    part = likelihoods.Normal(net, scale, shape=(2, 3), centre=1.0, spread=3.0)
    z, x = torch.randn(5, 2), torch.randn(5, 2, 3)
    out = net(z)
    mean = 1 + 3 * out[:, :6]
    sigma: Any = 0.7
    if scale == "predicted":
        sigma = 3 * (nn.functional.softplus(out[:, 6:]) + 1e-3)
    elif scale != 0.7:
        sigma = 3 * (nn.functional.softplus(part.raw_scale).expand(2, 3).flatten() + 1e-3)
    expected = dist.Normal(mean, sigma).log_prob(x.flatten(1)).sum(1)
    torch.testing.assert_close(part(z).log_prob(x), expected)


def test_half_variance_makes_the_squared_error() -> None:
    net = nn.Linear(2, 4)
    z, x = torch.randn(5, 2), torch.randn(5, 4)
    p = likelihoods.Normal(net, 0.5**0.5)(z)
    torch.testing.assert_close(-p.log_prob(x), (x - net(z)).square().sum(-1) + 2 * math.log(math.pi))


def test_full_normal_is_the_stated_normal_with_any_leading_dimensions() -> None:
    part = posteriors.FullNormal(nn.Linear(4, 3 + 6))
    q = part(torch.randn(2, 5, 4))
    assert (q.batch_shape, q.event_shape) == ((2, 5), (3,))
    assert (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (q.scale_tril.triu(1) == 0).all()
    draws = q.rsample((40_000,))[:, 0, 0]
    standard_error = (q.variance[0, 0] / 40_000).sqrt()
    assert ((draws.mean(0) - q.mean[0, 0]).abs() < 4 * standard_error).all()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: likelihoods.Categorical(nn.Linear(2, 4), levels=1), "'levels'"),
        (lambda: likelihoods.Categorical(nn.Linear(2, 4), levels=3)(torch.zeros(1, 2)), "no multiple of 'levels' = 3"),
        (lambda: likelihoods.Normal(nn.Linear(2, 4), scale=0.0), "'scale'"),
        (lambda: likelihoods.Normal(nn.Linear(2, 4), scale="learned"), "'scale' must be"),
        (lambda: likelihoods.Normal(nn.Linear(2, 4), scale="per_dimension"), "'shape'"),
        (lambda: likelihoods.Normal(nn.Linear(2, 3), scale="predicted")(torch.zeros(1, 2)), "odd number"),
        (lambda: likelihoods.Bernoulli(nn.Linear(2, 4), shape=(5,))(torch.zeros(1, 2)), "cannot be given the shape"),
        (lambda: posteriors.DiagonalNormal(nn.Linear(2, 3))(torch.zeros(1, 2)), "2M values"),
        (lambda: posteriors.FullNormal(nn.Linear(2, 4))(torch.zeros(1, 2)), "it gives 4"),
        (lambda: priors.StandardNormal(0), "'latent_dim'"),
        (lambda: models.ProbabilisticPCA(3, 4), "'latent_dim'"),
        (lambda: models.ProbabilisticPCA(3, 2, noise_scale=0), "'noise_scale'"),
        (lambda: models.GaussianMixture(3, 0), "'components'"),
        (lambda: models.GaussianMixture(3, 2, "round"), "'covariance_type'"),  # type: ignore[arg-type]
        (lambda: models.GaussianMixture(3, 2, covariance_floor=0), "'covariance_floor'"),
        (lambda: models.BayesianGaussianMixture(3, 2, degrees_of_freedom=2), "'degrees_of_freedom'"),
        (lambda: models.BayesianGaussianMixture(3, 2, scale=-1), "'scale'"),
        (lambda: guides.LinearNormal(3, 2, "round"), "'covariance'"),  # type: ignore[arg-type]
        (lambda: guides.LinearNormal(3, 2, spread=0), "'spread'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(build: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build()
    assert "\n" not in str(error.value)


# Densities of our own


def normal_wishart_pair() -> tuple[distributions.Wishart, distributions.Wishart]:
    a, b = torch.randn(2, 2, 3, 3)
    lower = [torch.linalg.cholesky(m @ m.mT + torch.eye(3)) for m in (a, b)]
    return (
        distributions.Wishart(torch.tensor([5.0, 6.0]), lower[0]),
        distributions.Wishart(torch.tensor([4.0, 9.5]), lower[1]),
    )


def test_wishart_density_equals_torchs() -> None:
    q, _ = normal_wishart_pair()
    theirs = torch.distributions.Wishart(q.df, scale_tril=q.scale_tril)
    draws = q.sample((7,))
    torch.testing.assert_close(q.log_prob(draws), theirs.log_prob(draws))


def test_wishart_draws_have_its_moments_and_gradients() -> None:
    q, _ = normal_wishart_pair()
    draws = q.sample((100_000,))
    error = draws.std(0) / 100_000**0.5
    assert ((draws.mean(0) - q.mean).abs() < 4.5 * error).all()
    # d E[tr Λ] / dν = tr V, through the draws
    df = q.df.clone().requires_grad_()
    trace = distributions.Wishart(df, q.scale_tril).rsample((100_000,)).diagonal(dim1=-2, dim2=-1).sum(-1)
    (gradient,) = torch.autograd.grad(trace.mean(0).sum(), df)
    expected = (q.scale_tril @ q.scale_tril.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0)  # Monte Carlo: 1/√100 000 times about 2


def test_wishart_divergence_equals_its_estimate() -> None:
    q, p = normal_wishart_pair()
    draws = q.sample((100_000,))
    ratio = q.log_prob(draws) - p.log_prob(draws)
    assert ((ratio.mean(0) - kl_divergence(q, p)).abs() < 4 * ratio.std(0) / 100_000**0.5).all()
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(2), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="'df'"):
        distributions.Wishart(torch.tensor(2.0), torch.eye(3))


def test_indexed_normal_equals_the_multivariate_normals_it_picks() -> None:
    means, lower = (
        torch.randn(4, 3),
        torch.linalg.cholesky(torch.randn(4, 3, 3).pow(2).diag_embed().sum(1) + torch.eye(3)),
    )
    x, z = torch.randn(6, 3), torch.randint(4, (6,))
    expected = dist.MultivariateNormal(means[z], scale_tril=lower[z])
    ours = distributions.IndexedNormal(z, means, lower)
    torch.testing.assert_close(ours.log_prob(x), expected.log_prob(x))
    torch.manual_seed(1)
    draws = ours.sample((5,))
    torch.manual_seed(1)
    torch.testing.assert_close(draws, expected.sample((5,)))
    # enumerated: one index on the left stands for all
    every = distributions.IndexedNormal(torch.arange(4)[:, None], means, lower).log_prob(x)
    one_by_one = torch.stack([dist.MultivariateNormal(m, scale_tril=l).log_prob(x) for m, l in zip(means, lower)])  # noqa: B905, E741
    torch.testing.assert_close(every, one_by_one)
    # particles: parameters with batch (K, 1)
    many = distributions.IndexedNormal(z.expand(2, 6), means.expand(2, 1, 4, 3), lower.expand(2, 1, 4, 3, 3))
    torch.testing.assert_close(many.log_prob(x), expected.log_prob(x).expand(2, 6))
    assert many.batch_shape == (2, 6)


def test_divergence_of_a_full_from_a_diagonal_normal() -> None:
    q = dist.MultivariateNormal(torch.randn(5, 3), scale_tril=torch.eye(3) + 0.5 * torch.ones(3, 3).tril(-1))
    p = dist.Normal(torch.randn(3), torch.rand(3) + 0.5)
    as_full = dist.MultivariateNormal(p.loc, covariance_matrix=p.variance.diag_embed())
    torch.testing.assert_close(kl_divergence(q, p.to_event(1)), kl_divergence(q, as_full))


# Mixtures


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_starts_where_it_is_told_and_has_that_density(kind: Any) -> None:
    from sklearn.mixture import GaussianMixture

    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    theirs = GaussianMixture(2, covariance_type=kind, random_state=0).fit(x.numpy())
    model = models.GaussianMixture(3, 2, kind)
    model.start_from(*(torch.as_tensor(a) for a in (theirs.weights_, theirs.means_, theirs.covariances_)))
    log_density = model.log_joint(x).logsumexp(-1).detach()
    torch.testing.assert_close(log_density, torch.as_tensor(theirs.score_samples(x.numpy())), rtol=1e-6, atol=1e-6)
    responsibilities = model.log_joint(x).softmax(-1).detach()
    torch.testing.assert_close(responsibilities, torch.as_tensor(theirs.predict_proba(x.numpy())), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_no_covariance_falls_below_the_floor(kind: Any) -> None:
    model = models.GaussianMixture(3, 2, kind, covariance_floor=0.25)
    with torch.no_grad():
        model.raw_scales.fill_(-30.0)
    smallest = model.scales if kind in ("diag", "spherical") else torch.linalg.svdvals(model.scales)
    assert (smallest.square() > 0.25 - 1e-9).all()


def test_bayesian_mixture_of_one_component_is_the_normal_wishart() -> None:
    """With the exact posterior as its guide every draw of the ELBO is the log evidence in closed form."""
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    model = models.BayesianGaussianMixture(2, 1, mean=0.5, mean_precision=0.3, scale=1.5)
    guide = guides.NormalWishart(model)
    V = model.degrees_of_freedom * model.prior_covariance
    exact_model = lvm.exact.BayesianGaussianMixture(
        1,
        mean_prior=model.prior_mean,
        mean_precision_prior=0.3,
        degrees_of_freedom_prior=model.degrees_of_freedom,
        covariance_prior=V,
    ).fit(x)
    guide.start_from(
        exact_model.weight_concentration_,
        exact_model.means_,
        exact_model.mean_precision_,
        exact_model.degrees_of_freedom_,
        exact_model.covariances_,
    )
    evidence = lvm.exact.log_marginal_likelihood_normal_wishart(x, model.prior_mean, 0.3, model.degrees_of_freedom, V)
    values = torch.tensor([-lvm.objectives.ELBO().loss(model, guide, x) for _ in range(5)])
    torch.testing.assert_close(values, evidence.expand(5), rtol=1e-9, atol=0)


def test_bayesian_mixtures_joint_is_its_likelihood() -> None:
    model = models.BayesianGaussianMixture((1, 2), 3)
    x = torch.randn(5, 1, 2)
    trace = pyro.poutine.trace(model).get_trace(x)
    weights, means, precisions = (trace.nodes[name]["value"] for name in ("weights", "means", "precisions"))
    expected = torch.stack(
        [dist.MultivariateNormal(m, precision_matrix=P).log_prob(x.flatten(1)) for m, P in zip(means, precisions)],  # noqa: B905
        -1,
    )
    torch.testing.assert_close(model.log_joint(x, weights, means, precisions), weights.log() + expected)
    particles = model.log_joint(x, weights.expand(4, 1, 3), means.expand(4, 1, 3, 2), precisions.expand(4, 1, 3, 2, 2))
    torch.testing.assert_close(particles, (weights.log() + expected).expand(4, 5, 3))
