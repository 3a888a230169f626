"""Parts of diffusions, and their programs under Pyro's own objectives and the library's."""

import math
from typing import Any

import pyro
import pytest
import scipy.stats
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import data, distributions, evidence, guides, likelihoods, models, objectives
from pyro_lvm.configuration import Part
from pyro_lvm.diffusion import (
    ConstantSchedule,
    CosineSchedule,
    Epsilon,
    ForwardProcess,
    LargeVariance,
    LearnedSchedule,
    LearnedVariance,
    LevelDenoiser,
    LinearLogSNR,
    LinearSchedule,
    NoiseSchedule,
    NormalStep,
    Parameterisation,
    Reverse,
    SmallVariance,
    Start,
    Velocity,
)


class Small(Part):
    """A network for tests, of z and t."""

    def __init__(self, shape: tuple[int, ...], numbers: int = 1) -> None:
        super().__init__()
        self.out = shape if numbers == 1 else (numbers, *shape)
        self.shape, self.layer = shape, nn.Linear(math.prod(shape) + 1, math.prod(self.out))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        flat = z.flatten(-len(self.shape))
        return self.layer(torch.cat([flat, t.unsqueeze(-1).expand(*flat.shape[:-1], 1)], -1)).unflatten(-1, self.out)


def pair(steps: int | None = 20, variance: Any = None) -> tuple[nn.Module, nn.Module]:
    """Of 2 × 3 pictures of five levels."""
    schedule: NoiseSchedule = LearnedSchedule(6.0, -6.0) if steps is None else CosineSchedule(steps)
    process = ForwardProcess((2, 3), schedule, steps, centre=2.0, spread=2.0)
    net = Small((2, 3), 2 if variance else 1)
    reverse = Reverse(net, (2, 3), schedule, Epsilon(), variance or SmallVariance())
    decoder = likelihoods.NoisedLevels(process, 5)
    cls = models.ContinuousDiffusion if steps is None else models.Diffusion
    return cls(process, reverse, decoder), guides.SubsampledDiffusion(process)


def levels(n: int) -> Tensor:
    return torch.randint(0, 5, (n, 2, 3)).double()


@pytest.mark.parametrize(
    "make", [lambda: LinearSchedule(50), lambda: CosineSchedule(50), LinearLogSNR, LearnedSchedule]
)
def test_slopes_are_derivatives(make: Any) -> None:
    schedule = make()
    t = torch.rand(20) * 0.98 + 0.01
    if isinstance(schedule, LearnedSchedule):
        with torch.no_grad():
            for parameter in schedule.parameters():
                parameter += torch.randn(parameter.shape)
    step = 1e-6
    slope = (schedule.log_snr(t + step) - schedule.log_snr(t - step)) / (2 * step)
    assert torch.allclose(schedule.slope(t), slope, rtol=1e-5)
    assert bool((slope < 0).all())


@pytest.mark.parametrize("variance", [SmallVariance(), LargeVariance()])
def test_reverse_means_are_those_of_the_papers(variance: Any) -> None:
    """μ_θ = (z_t − β_t/√(1 − ᾱ_t) ε̂)/√α_t, whichever of ε, x and v the network gives."""
    betas = torch.linspace(1e-3, 0.2, 100)
    alphas_bar = (1 - betas).cumprod(0)
    schedule, i = LinearSchedule(100, 1e-3, 0.2), 40
    z, noise = torch.randn(7, 4), torch.randn(7, 4)
    alpha_bar, alpha, beta = alphas_bar[i - 1], 1 - betas[i - 1], betas[i - 1]
    start = (z - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * start
    mean = (z - beta / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()
    small = beta * (1 - alphas_bar[i - 2]) / (1 - alpha_bar)

    class Gives(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            return self.value

    ways: tuple[tuple[Parameterisation, Tensor], ...] = (
        (Epsilon(), noise),
        (Start(), start),
        (Velocity(), velocity),
    )
    for way, out in ways:
        reverse = Reverse(Gives(out), 4, schedule, way, variance)
        p = reverse(z, torch.tensor((i - 1) / 100), torch.tensor(i / 100))
        assert torch.allclose(p.mean, mean)
        assert torch.allclose(p.variance, beta if isinstance(variance, LargeVariance) else small)
        prediction = reverse.predict(z, torch.tensor(i / 100))
        assert torch.allclose(prediction.noise, noise)
        assert torch.allclose(prediction.start, start)


def test_stratified_draws_are_uniform_one_by_one_and_even_together() -> None:
    u = distributions.StratifiedUniform(torch.zeros(())).expand([3000, 5]).sample()
    assert all(scipy.stats.kstest(column.numpy(), "uniform").pvalue > 1e-3 for column in u.T)
    assert ((u * 5).floor().sort(-1).values == torch.arange(5)).all()


def test_discretised_normal_is_a_probability_and_stable_in_the_tails() -> None:
    k = torch.arange(17.0)
    loc, scale = torch.tensor([-30.0, 0.2, 8.4, 16.0, 90.0]), torch.tensor([0.05, 3.0, 0.4, 20.0, 0.01])
    log_p = distributions.DiscretizedNormal(loc, scale, 17).log_prob(k[:, None])  # (17, 5)
    assert torch.allclose(log_p.logsumexp(0), torch.zeros(5), atol=1e-12)
    edges = torch.cat([torch.tensor([-torch.inf]), k[1:] - 0.5, torch.tensor([torch.inf])])
    cdf = torch.as_tensor(scipy.stats.norm.cdf(edges[:, None], 8.4, 3.0))[:, 0]
    near = distributions.DiscretizedNormal(torch.tensor(8.4), torch.tensor(3.0), 17).log_prob(k)
    assert torch.allclose(near.exp(), cdf.diff())
    far = torch.tensor(1000.0, dtype=torch.float32, requires_grad=True)
    value = distributions.DiscretizedNormal(far, torch.tensor(0.5, dtype=torch.float32), 17).log_prob(k.float())
    value.sum().backward()
    assert bool(value.isfinite().all())
    assert far.grad is not None
    assert bool(far.grad.isfinite())
    draws = distributions.DiscretizedNormal(torch.tensor(8.4), torch.tensor(3.0), 17).sample((20_000,))
    counts = torch.bincount(draws.long(), minlength=17).double()
    assert scipy.stats.chisquare(counts.numpy(), 20_000 * cdf.diff().numpy()).pvalue > 1e-3


def test_noised_levels_are_bayes_rule() -> None:
    process = ForwardProcess(3, LinearLogSNR(2.0, -8.0), None, centre=2.0, spread=2.0)
    z = torch.tensor([-0.9, 0.1, 0.4])
    x = torch.arange(5.0)[:, None].expand(5, 3)
    log_q = process.marginal(process.scaled(x), torch.tensor(0.0)).base_dist.log_prob(z)  # (5, 3)
    p = likelihoods.NoisedLevels(process, 5)(z)
    assert torch.allclose(p.base_dist.logits, log_q.log_softmax(0).T)


@pytest.mark.parametrize("variance", [None, LearnedVariance()], ids=["small", "learned"])
def test_a_step_among_many_is_compiled(variance: Any, no_compiler: None) -> None:
    """Schedules of steps are read at one time for all data, and at each datum's own."""
    model, guide = pair(20, variance)
    objective = objectives.HybridDenoising() if variance else objectives.SimpleDenoising()
    compiled = lvm.compile(objective, model, guide)
    for _ in range(3):
        compiled.loss_and_grads(levels(8), size=100)
    assert compiled.failure is None


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_a_denoiser_of_levels_is_bayes_rule(t: float) -> None:
    """The mean over levels of what the network holds to be likely, times q(z_t | x)."""
    process = ForwardProcess(3, LinearLogSNR(4.0, -4.0), None, centre=2.0, spread=2.0)
    logits, z, time = torch.randn(3, 5), torch.randn(7, 2, 3), torch.tensor(t)
    x = process.scaled(torch.arange(5.0)[:, None, None, None].expand(5, 7, 2, 3))
    p = logits.softmax(-1).T[:, None, None] * process.marginal(x, time).base_dist.log_prob(z).exp()  # (5, 7, 2, 3)
    denoiser = LevelDenoiser(Known(logits), process, 5)
    torch.testing.assert_close(denoiser(z, time), (p * x).sum(0) / p.sum(0), rtol=1e-10, atol=1e-10)


def test_a_denoiser_of_levels_hands_on_what_is_for_the_variance() -> None:
    process = ForwardProcess((2, 3), LinearLogSNR(4.0, -4.0), None, centre=2.0, spread=2.0)
    logits, z, t = torch.randn(2, 3, 6), torch.randn(7, 2, 3), torch.tensor(0.5)
    both = LevelDenoiser(Known(logits), process, 5)(z, t)
    assert torch.equal(both[:, 0], LevelDenoiser(Known(logits[..., :5]), process, 5)(z, t))
    assert torch.equal(both[:, 1], logits[..., 5].expand(7, 2, 3))


class Known(Part):
    """What is likely whatever is seen."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.logits.expand(*z.shape, self.logits.shape[-1])


@pytest.mark.parametrize(("mine", "theirs"), [(False, Trace_ELBO), (True, TraceMeanField_ELBO)])
@pytest.mark.parametrize("particles", [1, 3])
def test_pyro_says_the_same_and_counts_minibatches(mine: bool, theirs: Any, particles: int) -> None:
    """Draw for draw, the stock estimators give the library's bound, whose scales are those of two nested plates."""
    model, guide = pair()
    x = levels(4)
    stock = theirs(num_particles=particles, vectorize_particles=True, max_plate_nesting=2)
    values = []
    for elbo in (objectives.ELBO(particles, analytic_kl=mine, max_plate_nesting=2), stock):
        torch.manual_seed(1)
        with pyro.get_param_store().scope():
            values.append(elbo.loss(model, guide, x, size=40))
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    torch.manual_seed(1)
    table = objectives.ELBO(particles, analytic_kl=mine, max_plate_nesting=2).table(model, guide, x, size=40)
    assert -values[0] == pytest.approx(float(10 * table.bound().detach().mean(0).sum()), rel=1e-9)
    assert table.sites["z_s"].scale_p == 10 * 19
    kls = table.divergences()
    assert table.reconstruction() - sum(kls.values()) == pytest.approx(-values[0] / 10, rel=1e-9)


def test_the_simple_loss_is_a_mean_of_squared_errors() -> None:
    """Against the formula, from the draws themselves; time is looked at where it is."""
    model, guide = pair()
    x = levels(50)
    table = objectives.SimpleDenoising().table(model, guide, x, size=500)
    step = 2 + (table.sites["moment"].value * 19).floor()
    log_snr = model.process.schedule.log_snr(step / 20)[0, 0, :, None, None]
    z_t = table.sites["z_t"].value[0, 0]
    scaled = (x - 2) / 2
    noise = (z_t - log_snr.sigmoid().sqrt() * scaled) / (-log_snr).sigmoid().sqrt()
    error = (model.reverse.net(z_t, step[0, 0] / 20).detach() - noise).square().sum((-1, -2))  # (50,)
    loss = (19 * error.sum() - table.sites["x"].log_p.detach().sum()) / 20
    assert float(-objectives.SimpleDenoising().bound(table).detach()) == pytest.approx(10 * float(loss))


def test_the_hybrid_loss_trains_variances_by_the_bound_and_means_by_the_simple_loss() -> None:
    model, guide = pair(variance=LearnedVariance())
    x, gradients = levels(50), []
    with torch.no_grad():
        model.reverse.net.layer.weight.mul_(0.3)
    for objective in (objectives.SimpleDenoising(), objectives.HybridDenoising(0.5), objectives.ELBO(analytic_kl=True)):
        torch.manual_seed(1)
        model.zero_grad()
        objective.differentiable_loss(model, guide, x).backward()
        gradients.append(model.reverse.net.layer.bias.grad.clone())
    simple, hybrid, bound = gradients
    assert torch.allclose(hybrid[:6], simple[:6])
    assert bool((simple[6:] == 0).all())
    assert torch.allclose(hybrid[6:], 0.5 * bound[6:])
    with pytest.raises(ValueError, match="with a learned variance"):
        objectives.HybridDenoising().loss(*pair(), x)


@pytest.mark.parametrize("steps", [20, None], ids=["steps", "continuous"])
def test_what_needs_weights_is_refused(steps: int | None) -> None:
    model, guide = pair(steps)
    x = levels(3)
    refusals = [
        lambda: lvm.log_likelihood(model, guide, x, 10),
        lambda: objectives.IWAE(5).loss(model, guide, x),
        lambda: objectives.Renyi(alpha=0.5, num_particles=5).loss(model, guide, x),
        lambda: objectives.CUBO(num_particles=5).loss(model, guide, x),
        lambda: objectives.ReweightedWakeSleep(5).loss(model, guide, x),
        lambda: evidence.gaps(model, guide, x, num_particles=10),
        lambda: evidence.annealed_importance_sampling(model, x, guide, chains=2, temperatures=2),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match="no exact log-weight"):
            refused()
    bound = evidence.lower_bound(model, guide, x, 20, seed=0)
    again = evidence.lower_bound(model, guide, x, 20, seed=0, max_bytes=1)
    assert bound.is_discrete
    assert bound.shape == again.shape == (3,)
    assert bool((bound + 0).isfinite().all())


def test_the_lower_bound_of_any_pair() -> None:
    """Of exact posteriors it is log p(x), of others less; in chunks over data and draws as without."""
    model = models.ProbabilisticPCA(5, latent_dim=2)
    x = model.sample(7)
    exact = lvm.log_likelihood(model, guides.ExactPPCA(model), x, 2).as_subclass(Tensor)
    for guide, at_most in ((guides.ExactPPCA(model), 0.0), (guides.LinearNormal(5, latent_dim=2), 100.0)):
        whole = evidence.lower_bound(model, guide, x, 300, seed=0)
        parts = evidence.lower_bound(model, guide, x, 300, seed=1, max_bytes=1_000_000)
        values, error = whole.as_subclass(Tensor), whole.standard_error
        apart = (error.square() + parts.standard_error.square()).sqrt()
        assert bool(((values - parts.as_subclass(Tensor)).abs() < 4 * apart).all())
        assert bool((values < exact + 4 * error).all())
        assert bool((values > exact - at_most - 4 * error).all())
        totals = (values.mean() - parts.mean()).abs() / whole.mean_standard_error
        assert totals < 4 * 2**0.5
    assert bool((values < exact).all())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearSchedule(0), "'steps' must be at least 1, not 0"),
        (lambda: ConstantSchedule(5, 1.0), "must lie between 0 and 1, without both, but that of step 1 of 5 is 1"),
        (lambda: LinearSchedule(20), "that of step 20 of 20 is 1"),
        (lambda: CosineSchedule(10, largest=1.5), "'largest'"),
        (lambda: LinearLogSNR(-3.0, 5.0), "must be monotone"),
        (lambda: LearnedSchedule(1.0, 1.0), "must be monotone"),
        (lambda: ForwardProcess(3, Wavy(), 10), "must be monotone, .* from step 5 to 6 of 10"),
        (lambda: ForwardProcess(3, LinearLogSNR(), 0), "'steps' must be at least 1"),
        (lambda: ForwardProcess(3, LinearLogSNR(), 10, spread=0.0), "'spread'"),
        (lambda: ForwardProcess((2, 3), LinearLogSNR(), 10).scaled(torch.zeros(4, 3, 2)), r"data of shape \(..., 2, 3"),
        (lambda: models.Diffusion(process_of(None), nn.Module(), nn.Module()), "use ContinuousDiffusion"),
        (lambda: models.ContinuousDiffusion(process_of(5), nn.Module(), nn.Module()), "use Diffusion"),
        (
            lambda: models.DiffusionChain(process_of(5), [], nn.Module()),
            "'transitions' must hold one fewer .* 4, not 0",
        ),
        (lambda: guides.ForwardDiffusion(process_of(None)), "give 'steps'"),
        (lambda: likelihoods.NoisedLevels(process_of(5), 1), "'levels'"),
        (lambda: LevelDenoiser(nn.Module(), process_of(5), 1), "'levels'"),
        (
            lambda: LevelDenoiser(Known(torch.zeros(3, 4)), process_of(5), 5)(torch.zeros(3), torch.tensor(0.5)),
            "'net' must give 5 logits a value, .*, not 4",
        ),
    ],
)
def test_bad_input_is_one_sentence(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_data_outside_the_levels_are_refused() -> None:
    with pytest.raises(data.DataError, match="'x' holds"):
        evidence.lower_bound(*pair(), levels(4) + 3, 2)


def test_a_network_of_another_shape_is_refused() -> None:
    reverse = Reverse(Small((2, 3)), (2, 3), LinearLogSNR(), Epsilon(), LearnedVariance())
    with pytest.raises(ValueError, match=r"must be \(2, 2, 3\): a learned variance takes the second half"):
        reverse.start(torch.zeros(4, 2, 3), torch.tensor(0.5))


class Wavy(NoiseSchedule):
    """It rises again after the middle."""

    def log_snr(self, t: Tensor) -> Tensor:
        return (t - 0.5).square()

    def slope(self, t: Tensor) -> Tensor:
        return 2 * (t - 0.5)


def process_of(steps: int | None) -> ForwardProcess:
    return ForwardProcess(3, LinearLogSNR(), steps)


def test_a_chain_of_networks_of_their_own_is_saved_whole(tmp_path: Any) -> None:
    process = ForwardProcess(3, ConstantSchedule(3, 0.5), 3)
    model = models.DiffusionChain(
        process,
        [NormalStep(lvm.networks.MLP(3, (2, 3), (4,)), 3) for _ in range(2)],
        lvm.likelihoods.Normal(lvm.networks.MLP(3, 3, (4,))),
    )
    guide = guides.ForwardDiffusion(process)
    lvm.save(tmp_path / "pair.safetensors", model, guide)
    again, guide_again = lvm.load(tmp_path / "pair.safetensors")
    assert again.process is guide_again.process
    x = torch.randn(4, 3)
    losses = []
    for m, g in ((model, guide), (again, guide_again)):
        torch.manual_seed(0)
        losses.append(objectives.ELBO(analytic_kl=True).loss(m, g, x))
    assert losses[0] == losses[1]
    assert lvm.log_likelihood(model, guide, x, 20).shape == (4,)
