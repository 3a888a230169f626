"""The table and the bounds read from it, against exact answers on probabilistic PCA and on small discrete models."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from linear_gaussian import LooseGuide, log_evidence, ppca, subsampling
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_lvm import exact, guides, models, objectives
from pyro_lvm.objectives.table import run, structure

D, M, N = 4, 2, 12


@pytest.fixture
def model() -> models.ProbabilisticPCA:
    return ppca(D, M)


@pytest.fixture
def x(model: models.ProbabilisticPCA) -> Tensor:
    return model.sample(N)


def bounds(objective: objectives.Objective, programs: tuple[Any, Any], x: Tensor, repeats: int, **kw: Any) -> Tensor:
    return torch.tensor([-objective.loss(*programs, x, **kw) for _ in range(repeats)])


# Exactness


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.IWAE(1), objectives.ELBO(7), objectives.IWAE(7)])
@pytest.mark.parametrize("size", [None, 5 * N])
def test_oracle_guide_gives_the_evidence_with_zero_variance(
    objective: objectives.Objective, size: int | None, model: models.ProbabilisticPCA, x: Tensor
) -> None:
    scale = 1 if size is None else size / N
    values = bounds(objective, (model, guides.ExactPPCA(model)), x, repeats=5, size=size)
    # rounding: sums of about 10² float64 terms
    torch.testing.assert_close(values, (scale * log_evidence(model, x).sum()).expand(5), rtol=1e-11, atol=1e-10)


def scaled(model: Any, guide: Any, scale: float) -> tuple[Any, Any]:
    return poutine.scale(model, scale), poutine.scale(guide, scale)


@pytest.mark.parametrize(
    "setting",
    [
        "plain",
        "minibatch",
        "subsample",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("scale", "minibatch of 1")),
    ],
)
def test_iwae_lies_between_elbo_and_evidence_and_grows(setting: str, model: models.ProbabilisticPCA, x: Tensor) -> None:
    guide, kw, factor = LooseGuide(model), dict[str, Any](), 1.0
    programs: tuple[Any, Any] = (model, guide)
    evidence = log_evidence(model, x)
    if setting == "minibatch":
        kw["size"] = 10 * N
        factor = 10.0
    elif setting == "minibatch of 1":
        x, evidence = x[:1], evidence[:1]
        kw["size"] = 7
        factor = 7.0
    elif setting == "subsample":
        programs = subsampling(model, guide, batch=5)
    elif setting == "scale":
        programs, factor = scaled(model, guide, 0.3), 0.3
    exact_value = factor * evidence.sum()
    means, errors = [], []
    for K in (1, 5, 50, 500):
        values = bounds(objectives.IWAE(K), programs, x, 400 if K < 500 else 200, **kw)
        means.append(values.mean())
        errors.append(values.std() / len(values) ** 0.5)
    elbo = bounds(objectives.ELBO(), programs, x, 400, **kw)
    assert abs(means[0] - elbo.mean()) < 4 * (errors[0] ** 2 + elbo.var() / len(elbo)).sqrt()
    for low, high, e1, e2 in zip(means[:-1], means[1:], errors[:-1], errors[1:], strict=True):
        assert low < high + 3 * (e1**2 + e2**2).sqrt()
    assert means[0] + 3 * errors[0] < exact_value, "the guide must be loose for the sandwich to mean anything"
    assert means[-1] < exact_value + 3 * errors[-1]
    assert (exact_value - means[-1]) < 0.1 * (exact_value - means[0]) + 3 * errors[-1], "the gap closes with K"


def test_pyros_renyi_elbo_is_no_bound_under_subsampling(model: models.ProbabilisticPCA, x: Tensor) -> None:
    """The trap our IWAE avoids: a plate scale inside the logarithm of the mean."""
    programs = subsampling(model, LooseGuide(model), batch=1)
    renyi = RenyiELBO(alpha=0, num_particles=50, vectorize_particles=True)
    values = torch.tensor([-renyi.loss(*programs, x) for _ in range(300)])
    ours = bounds(objectives.IWAE(50), programs, x, 300)
    evidence = log_evidence(model, x).sum()
    assert values.mean() - 5 * values.std() / 300**0.5 > evidence
    assert ours.mean() - 3 * ours.std() / 300**0.5 < evidence


def test_gap_equals_the_divergence_in_closed_form(model: models.ProbabilisticPCA, x: Tensor) -> None:
    guide = LooseGuide(model)
    q = guide.posterior(x)
    mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    kl = exact.kl_normal(q.loc, q.covariance_matrix, mean, covariance).sum()
    for objective in (objectives.ELBO(500), objectives.ELBO(500, analytic_kl=True)):
        values = bounds(objective, (model, guide), x, 100)
        assert abs(log_evidence(model, x).sum() - values.mean() - kl) < 4 * values.std() / 10


def test_elbo_equals_pyros(model: models.ProbabilisticPCA, x: Tensor) -> None:
    guide = LooseGuide(model)
    for ours, pyros in (
        (objectives.ELBO(), Trace_ELBO()),
        (objectives.ELBO(6), Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1)),
    ):
        torch.manual_seed(1)
        value = ours.loss(model, guide, x)
        torch.manual_seed(1)
        assert value == pytest.approx(pyros.loss(model, guide, x), rel=1e-12)


def test_analytic_divergence_equals_pyros_mean_field(model: models.ProbabilisticPCA, x: Tensor) -> None:
    guide = guides.LinearNormal(D, M, "diagonal")

    def pyro_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(guide.mean(x), guide.scale_tril().diagonal()).to_event(1))

    torch.manual_seed(1)
    ours = objectives.ELBO(analytic_kl=True).loss(model, pyro_guide, x)
    torch.manual_seed(1)
    assert ours == pytest.approx(TraceMeanField_ELBO().loss(model, pyro_guide, x), rel=1e-12)


@pytest.mark.slow
def test_particles_one_after_another_give_the_same_bound(model: models.ProbabilisticPCA, x: Tensor) -> None:
    guide = LooseGuide(model)
    for cls in (objectives.ELBO, objectives.IWAE):
        at_once = bounds(cls(20), (model, guide), x, 200)
        in_turn = bounds(cls(20, vectorize_particles=False), (model, guide), x, 200)
        error = ((at_once.var() + in_turn.var()) / 200).sqrt()
        assert abs(at_once.mean() - in_turn.mean()) < 4 * error
    table = objectives.ELBO(3, vectorize_particles=False, analytic_kl=True).table(model, guide, x)
    assert table.sites["z"].log_q.shape == (3, N)
    assert table.sites["z"].kl is not None


# Plates


def nested_pair(steps: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """z in the data plate, x in a plate of `steps` inside it, at dim −2."""

    def model(x: Tensor) -> None:  # x: (steps, B)
        data, inner = pyro.plate("data", x.shape[1], dim=-1), pyro.plate("steps", steps, dim=-2)
        with data:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with inner:
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", x.shape[1], dim=-1):
            pyro.sample("z", dist.Normal(x.mean(0), 1.0))

    return model, guide


def test_inner_plate_is_summed_inside_the_weight() -> None:
    steps, x = 3, torch.randn(3, 5)
    # x | z given z ~ N(0, 1): jointly normal over the steps of a datum
    covariance = 0.25 * torch.eye(steps) + 1.0
    evidence = dist.MultivariateNormal(torch.zeros(steps), covariance).log_prob(x.T).sum()
    model, guide = nested_pair(steps)
    assert structure(model, guide, (x,), {}).nesting == 2
    table = run(model, guide, (x,), {}, num_particles=4, nesting=2)
    assert table.log_weight().shape == (4, 1, 5)
    values = bounds(objectives.IWAE(2000), (model, guide), x, 50)
    assert abs(values.mean() - evidence) < 4 * values.std() / 50**0.5 + 0.02


def test_stacked_plates_around_everything_have_weights_of_their_own() -> None:
    x = torch.randn(3, 5)

    def model(x: Tensor) -> None:
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    table = run(model, guide, (x,), {}, num_particles=4, nesting=2)
    assert table.log_weight().shape == (4, 3, 5)
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x).sum()
    assert objectives.IWAE(4).loss(model, guide, x) == pytest.approx(-evidence.item(), rel=1e-12)


def test_mask_leaves_a_datum_out(model: models.ProbabilisticPCA, x: Tensor) -> None:
    mask = torch.arange(N) < 4

    def masked(program: Any) -> Any:
        return poutine.mask(program, mask=mask)

    guide = guides.ExactPPCA(model)
    value = -objectives.IWAE(3).loss(masked(model), masked(guide), x)
    assert value == pytest.approx(log_evidence(model, x)[:4].sum().item(), rel=1e-11)


def test_tensor_scale_weighs_data(model: models.ProbabilisticPCA, x: Tensor) -> None:
    weights = torch.rand(N)
    programs = poutine.scale(model, weights), poutine.scale(guides.ExactPPCA(model), weights)
    expected = (weights * log_evidence(model, x)).sum().item()
    for objective in (objectives.ELBO(2), objectives.IWAE(4)):
        assert -objective.loss(*programs, x) == pytest.approx(expected, rel=1e-11)


def test_closed_form_is_used_only_where_parents_are_drawn_first() -> None:
    """q(a) q(b | a) against p(b) p(a | b): the divergence of a given b is no expectation over b's draws."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            a = pyro.sample("a", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 2, 0.8))
            pyro.sample("b", dist.Normal(a / 2, 0.6))

    x = torch.randn(6)
    table = run(model, guide, (x,), {}, with_kl=True)
    assert table.sites["a"].kl is None
    assert table.sites["b"].kl is not None
    sampled = bounds(objectives.ELBO(500), (model, guide), x, 200)
    analytic = bounds(objectives.ELBO(500, analytic_kl=True), (model, guide), x, 200)
    assert abs(sampled.mean() - analytic.mean()) < 4 * ((sampled.var() + analytic.var()) / 200).sqrt()


# Gradients


def average_gradient(
    objective: Any, programs: Any, x: Tensor, parameter: nn.Parameter, n: int
) -> tuple[Tensor, Tensor]:
    draws = []
    for _ in range(n):
        parameter.grad = None
        objective.differentiable_loss(*programs, x).backward()
        draws.append(parameter.grad.clone())  # type: ignore[union-attr]
    stacked = torch.stack(draws)
    return stacked.mean(0), stacked.std(0) / n**0.5


class Coin(nn.Module):
    """z ~ Bernoulli, x | z normal; the guide's probabilities are free."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.8, 1.2]))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2 * z - 1, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(logits=self.logits), infer={"enumerate": "parallel"})

    def log_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log w and log q for z = 0 and z = 1, (2, 3)."""
        z = torch.tensor([[0.0], [1.0]]).expand(2, 3)
        log_q = dist.Bernoulli(logits=self.logits).log_prob(z)
        return dist.Bernoulli(0.4).log_prob(z) + dist.Normal(2 * z - 1, 1.0).log_prob(x) - log_q, log_q


@pytest.mark.parametrize("K", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_score_gradient_of_elbo_equals_the_enumerated_one(K: int) -> None:
    coin, x = Coin(), torch.tensor([0.5, -1.0, 0.2])
    log_w, log_q = coin.log_weights(x)
    (exact_gradient,) = torch.autograd.grad(-(log_q.exp() * log_w).sum(), coin.logits)
    mean, error = average_gradient(objectives.ELBO(K), (coin.model, coin.guide), x, coin.logits, 4000)
    assert ((mean - exact_gradient).abs() < 4 * error).all()
    assert (exact_gradient.abs() > 8 * error).any(), "zero must be told from the truth"


@pytest.mark.parametrize("K", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_score_gradient_of_iwae_equals_the_enumerated_one(K: int) -> None:
    coin, x = Coin(), torch.tensor([0.5, -1.0, 0.2])
    log_w, log_q = coin.log_weights(x)
    total = torch.zeros(3)
    for draws in torch.cartesian_prod(*[torch.arange(2)] * K).reshape(-1, K):  # every outcome of K draws
        probability = log_q[draws].sum(0).exp()
        total = total + probability * (log_w[draws].logsumexp(0) - math.log(K))
    (exact_gradient,) = torch.autograd.grad(-total.sum(), coin.logits)
    mean, error = average_gradient(objectives.IWAE(K), (coin.model, coin.guide), x, coin.logits, 4000)
    assert ((mean - exact_gradient).abs() < 4 * error).all()
    assert (exact_gradient.abs() > 8 * error).any()


def test_pyros_renyi_elbo_gives_discrete_guides_no_gradient() -> None:
    coin, x = Coin(), torch.tensor([0.5, -1.0, 0.2])
    with pyro.get_param_store().scope():

        def guide(x: Tensor) -> None:
            logits = pyro.param("logits", coin.logits.detach().clone())
            with pyro.plate("data", 3):
                pyro.sample("z", dist.Bernoulli(logits=logits))

        RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, strict_enumeration_warning=False).loss_and_grads(
            coin.model, guide, x
        )
        gradient = pyro.param("logits").grad
    assert gradient is None or bool((gradient == 0).all())


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.ELBO(analytic_kl=True), objectives.ELBO(4)])
def test_gradient_equals_the_exact_one_on_ppca(
    objective: objectives.Objective, model: models.ProbabilisticPCA, x: Tensor
) -> None:
    guide = guides.LinearNormal(D, M)
    model.requires_grad_(False).eval()
    mean, covariance = exact.posterior(x, model.weight, model.bias, model.noise_scale.square())
    scale_tril = guide.scale_tril()
    kl = exact.kl_normal(guide.mean(x), scale_tril @ scale_tril.T, mean, covariance).sum()
    (exact_gradient,) = torch.autograd.grad(kl, guide.linear.weight)  # −ELBO is KL − log p(x)
    average, error = average_gradient(objective, (model, guide), x, guide.linear.weight, 2000)
    assert ((average - exact_gradient).abs() < 4.5 * error).all()  # 8 numbers


def test_a_discrete_latent_has_no_part_in_other_data_that_share_a_latent() -> None:
    """The score of z_n given β is rewarded with datum n's terms alone: its noise does not grow with the data."""

    def model(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(z + shift, 1.0), obs=x)

    def spread(n: int) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(n, requires_grad=True)

        def guide(x: Tensor) -> None:
            pyro.sample("shift", dist.Normal(0.2, 0.5))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Bernoulli(logits=logits))

        x = torch.linspace(-1.0, 2.0, 300)[:n]
        draws = []
        for _ in range(400):
            (gradient,) = torch.autograd.grad(objectives.ELBO(2).differentiable_loss(model, guide, x), logits)
            draws.append(gradient[:5])
        stacked = torch.stack(draws)
        z, q = torch.tensor([0.0, 1.0]), torch.full((2,), 0.5)
        worth = -((x[:5, None] - z - 0.2) ** 2) / 2 + torch.tensor([0.7, 0.3]).log() - q.log()  # up to a constant
        exact_gradient = -0.25 * (worth[:, 1] - worth[:, 0])  # d q(1) / d logit = 1/4; the entropy's slope is 0 here
        error = stacked.std(0) / 400**0.5
        assert ((stacked.mean(0) - exact_gradient).abs() < 4.5 * error).all()
        return stacked.std(0), error

    assert bool((spread(300)[0] < 1.5 * spread(5)[0]).all())


def test_value_is_the_bound_whatever_the_surrogate(model: models.ProbabilisticPCA, x: Tensor) -> None:
    coin, y = Coin(), torch.tensor([0.5, -1.0, 0.2])
    for programs, data in (((model, LooseGuide(model)), x), ((coin.model, coin.guide), y)):
        for K in (1, 4):
            torch.manual_seed(3)
            table = objectives.IWAE(K).table(*programs, data)
            log_w = sum(site.log_p - site.log_q for site in table.sites.values())
            torch.manual_seed(3)
            assert objectives.ELBO(K).loss(*programs, data) == pytest.approx(-log_w.mean(0).sum().item(), rel=1e-12)
            torch.manual_seed(3)
            expected = -(log_w.logsumexp(0) - math.log(K)).sum().item()
            assert objectives.IWAE(K).loss(*programs, data) == pytest.approx(expected, rel=1e-12)


# Pyro's interface


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.ELBO(analytic_kl=True), objectives.IWAE(5)])
def test_stock_svi_and_module_interface_train(objective: objectives.Objective, x: Tensor) -> None:
    model, guide = models.ProbabilisticPCA(D, M), guides.LinearNormal(D, M)
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=objective)
        losses = [svi.step(x) for _ in range(150)]
    assert all((p != b).any() for p, b in zip((*model.parameters(), *guide.parameters()), before, strict=True))
    assert sum(losses[-10:]) < sum(losses[:10])
    with pyro.get_param_store().scope():
        module = objective(model, guide)
        module(x).backward()
    assert all(p.grad is not None for p in module.parameters())


def test_enumeration_sums_the_assignment_out() -> None:
    mixture = models.GaussianMixture(2, 3)
    x = torch.randn(7, 2)
    exact_value = -mixture.log_joint(x).logsumexp(-1).sum().item()

    def empty(x: Tensor) -> None:
        pass

    for guide in (guides.Responsibilities(mixture), empty):
        assert TraceEnum_ELBO(max_plate_nesting=1).loss(mixture, guide, x) == pytest.approx(exact_value, rel=1e-11)


# Errors


@pytest.mark.parametrize("K", [0, -1, 1.5])
def test_particles_below_one_are_refused(K: Any) -> None:
    with pytest.raises(ValueError, match="'num_particles'"):
        objectives.IWAE(K)


def test_iwae_without_latents_of_a_datum_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(x.mean(), 0.3))

    with pytest.raises(ValueError, match=r"all data share the latent 'mean'.*Use ELBO"):
        objectives.IWAE(5).loss(model, guide, torch.randn(7))


def test_iwae_with_scales_that_differ_is_refused(model: models.ProbabilisticPCA, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"share one.*'z' 2, 1; 'x' 2"):
        objectives.IWAE(5).loss(poutine.scale(model, 2.0), LooseGuide(model), x)


def test_latents_in_one_program_only_are_refused(model: models.ProbabilisticPCA, x: Tensor) -> None:
    def empty(x: Tensor) -> None:
        pass

    def wordy(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(M), 1.0).to_event(1))
            pyro.sample("extra", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="the model's latent 'z' is not in the guide"):
        objectives.ELBO().loss(model, empty, x)
    with pytest.raises(ValueError, match="the guide's latent 'extra' is not one of the model's"):
        objectives.ELBO().loss(model, wordy, x)


def test_programs_that_cannot_be_vectorised_say_how() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.bmm(z[:, None], x.new_ones(len(x), 3, 2))[:, 0], 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    x = torch.randn(4, 2)
    with pytest.raises(RuntimeError, match="vectorize_particles=False"):
        objectives.IWAE(5).loss(model, guide, x)
    assert math.isfinite(objectives.IWAE(5, vectorize_particles=False).loss(model, guide, x))


def test_one_objective_serves_pairs_with_other_plates(model: models.ProbabilisticPCA, x: Tensor) -> None:
    objective = objectives.IWAE(4)
    nested, y = nested_pair(3), torch.randn(3, 5)
    for _ in range(2):
        assert objective.table(model, LooseGuide(model), x).log_weight().shape == (4, N)
        assert objective.table(*nested, y).log_weight().shape == (4, 1, 5)
