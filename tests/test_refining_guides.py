"""Guides that do more than encode, on probabilistic PCA, where evidence, posterior and best normals are known."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.infer
import pyro.optim
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import exact, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.objectives.table import run
from pyro_lvm.programs import pair, parameters_of

D, M, N, SIGMA = 4, 2, 12, 0.7
DATA = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def decoder(hidden: tuple[int, ...] = ()) -> likelihoods.Normal:
    """Affine without hidden layers: then the model is probabilistic PCA."""
    return likelihoods.Normal(networks.MLP(M, D, hidden, nn.Tanh), SIGMA)


def encoder(features: int = D, latent_dim: int = M, hidden: tuple[int, ...] = (6,)) -> posteriors.DiagonalNormal:
    return posteriors.DiagonalNormal(networks.MLP(features, 2 * latent_dim, hidden, nn.Tanh))


def auxiliary_vae(hidden: tuple[int, ...] = (), a: int = M) -> models.AuxiliaryVAE:
    return models.AuxiliaryVAE(priors.StandardNormal(M), decoder(hidden), encoder(D + M, a))


def vae(hidden: tuple[int, ...] = ()) -> models.VAE:
    return models.VAE(priors.StandardNormal(M), decoder(hidden))


Pair = tuple[Any, Any]


def auxiliary(hidden: tuple[int, ...] = ()) -> Pair:
    return auxiliary_vae(hidden, 3), guides.Auxiliary(encoder(D, 3), encoder(D + 3))


def semi_amortized(hidden: tuple[int, ...] = ()) -> Pair:
    model = vae(hidden)
    return model, guides.SemiAmortized(model, encoder(), steps=3, step_size=0.03)


def local(hidden: tuple[int, ...] = ()) -> Pair:
    guide = guides.Local(N, D, M)
    guide.start_from(DATA)
    return vae(hidden), guide


def hamiltonian(hidden: tuple[int, ...] = ()) -> Pair:
    model = auxiliary_vae(hidden)
    return model, guides.Hamiltonian(model, encoder(), steps=3, step_size=0.1)


PAIRS: dict[str, Callable[..., Pair]] = {
    "auxiliary": auxiliary,
    "semi-amortized": semi_amortized,
    "local": local,
    "hamiltonian": hamiltonian,
}
every_pair = pytest.mark.parametrize("name", PAIRS)


def affine(model: Any) -> tuple[Tensor, Tensor]:
    layer = model.decoder.net.layers[0]
    return layer.weight.detach(), layer.bias.detach()


def log_evidence(model: Any, x: Tensor) -> Tensor:
    return exact.log_evidence(x, *affine(model), SIGMA**2)


def elbo(model: Any, guide: Any, x: Tensor, K: int = 20_000) -> tuple[Tensor, Tensor]:
    """Every datum's ELBO and its standard error."""
    with torch.no_grad():
        log_w = run(*pair(model, guide), (x,), {}, num_particles=K, nesting=1).log_weight()
    return log_w.mean(0), log_w.std(0) / K**0.5


def train(model: Any, guide: Any, parameters: Any, steps: int, rate: float, objective: Any = None) -> None:
    objective = objective or objectives.ELBO(16)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    programs = pair(model, guide)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.differentiable_loss(*programs, DATA).backward()
        optimizer.step()
        schedule.step()


# Evidence


@every_pair
def test_weights_estimate_the_evidence_and_bound_it(name: str) -> None:
    model, guide = PAIRS[name]()
    x = DATA[:6]
    # Guides as they are made may be narrower than the posterior, and their weights have no variance then.
    of_decoder = {id(p) for p in model.decoder.parameters()}
    train(model, guide, [p for p in parameters_of(pair(model, guide)) if id(p) not in of_decoder], 100, 0.05)
    exactly = log_evidence(model, x)
    estimate = lvm.log_likelihood(model, guide, x, 40_000, seed=0, compile=False, progress=False)
    assert estimate.khat.max() < 0.7
    assert ((estimate - exactly).abs() < 4 * estimate.standard_error).all()
    bound, error = elbo(model, guide, x)
    assert (bound + 4 * error < exactly).all()


@pytest.mark.parametrize("name", ["semi-amortized", "hamiltonian"])
def test_refinement_narrows_the_gap_of_a_poor_encoder(name: str) -> None:
    """The encoder, left as it was made, knows next to nothing; what refines it is trained, the model is not."""
    model, guide = PAIRS[name]()
    if name == "hamiltonian":
        train(model, guide, [*model.reverse.parameters(), guide.log_step_size, guide.log_momentum_scale], 150, 0.04)
    else:
        train(model, guide, [guide.log_step_size], 50, 0.1)
    exactly = log_evidence(model, DATA).sum()
    alone = models.VAE(model.prior, model.decoder), guides.Amortized(guide.posterior)
    gaps, errors = [], []
    for programs in (alone, (model, guide)):
        bound, error = elbo(*programs, DATA)
        gaps.append(exactly - bound.sum())
        errors.append(error.square().sum().sqrt())
    assert gaps[1] > 4 * errors[1]
    assert gaps[1] + 4 * (errors[0] + errors[1]) < 0.7 * gaps[0]


@pytest.mark.parametrize(
    ("gradient", "K"),
    [pytest.param("stl", 1, marks=pytest.mark.slow), ("dreg", 3)],  # the first is biased for more particles
)
@pytest.mark.parametrize("name", ["semi-amortized", "hamiltonian", "auxiliary"])
def test_gradient_estimators_of_the_bound_agree(name: str, gradient: str, K: int) -> None:
    """In expectation, along a random direction of the guide's parameters; 80 runs of each."""
    model, guide = PAIRS[name]()
    shared = {id(p) for p in model.parameters()}
    parameters = [p for p in guide.parameters() if id(p) not in shared]
    directions = [torch.randn_like(p) for p in parameters]
    x, means, errors = DATA[:1].expand(100, D), [], []
    for way in ("standard", gradient):
        objective, values = objectives.IWAE(K, gradient=way), []  # type: ignore[arg-type]
        programs = pair(model, guide)
        for seed in range(80):
            torch.manual_seed(seed + 1000 * (way == "standard"))
            found = torch.autograd.grad(objective.differentiable_loss(*programs, x), parameters)
            values.append(sum((g * d).sum() for g, d in zip(found, directions, strict=True)))
        sample = torch.stack([torch.as_tensor(v) for v in values])
        means.append(sample.mean())
        errors.append(sample.std() / len(sample) ** 0.5)
    assert (means[0] - means[1]).abs() < 4 * math.hypot(*errors)


# Everything a pair has to do


@every_pair
def test_gradients_are_those_of_finite_differences_and_reach_every_parameter(name: str) -> None:
    model, guide = PAIRS[name]((5,))
    parameters = parameters_of(pair(model, guide))
    objective, programs = objectives.ELBO(4), pair(model, guide)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return objective.differentiable_loss(*programs, DATA)

    gradients = torch.autograd.grad(loss(), parameters)
    assert all((g != 0).any() for g in gradients)
    directions = [torch.randn_like(p) for p in parameters]
    h, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(sign * h * d)
        with torch.no_grad():
            ends.append(loss())
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(sign * h * d)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    torch.testing.assert_close(torch.as_tensor(slope), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=0)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_pairs_train_by_fit(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        model, guide = PAIRS[name]((5,))
        x = DATA.to(dtype)
        before, error = elbo(model, guide, x, 1000)
        for objective in (objectives.IWAE(4), objectives.ELBO()):  # the first alone would widen q
            settings = {"epochs": 30, "batch_size": 5, "learning_rate": 0.03, "compile": False, "progress": False}
            lvm.fit(model, guide, x, objective=objective, **settings)
        after, error_after = elbo(model, guide, x, 1000)
        assert (after - before).sum() > 4 * torch.cat([error, error_after]).norm()
        assert all(p.dtype == dtype for p in (*model.parameters(), *guide.parameters()))
        assert model.sample(5).shape == (5, D)
    finally:
        torch.set_default_dtype(torch.float64)


@every_pair
def test_pairs_train_under_stock_svi(name: str) -> None:
    with pyro.get_param_store().scope():
        model, guide = PAIRS[name]()
        start = {n: p.detach().clone() for n, p in (*model.named_parameters(), *guide.named_parameters())}
        for particles in (1, 3):
            loss = pyro.infer.Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=1)
            svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss)
            losses = [svi.step(DATA) / N for _ in range(5)]
            assert all(math.isfinite(value) for value in losses)
        moved = dict((*model.named_parameters(), *guide.named_parameters()))
        assert all((moved[n] != p).any() for n, p in start.items())


@every_pair
def test_stock_bound_is_ours(name: str) -> None:
    model, guide = PAIRS[name]()
    with pyro.get_param_store().scope(), torch.no_grad():
        theirs = torch.tensor([-pyro.infer.Trace_ELBO().loss(model, guide, DATA) for _ in range(200)])
    ours, error = elbo(model, guide, DATA, 2000)
    assert (theirs.mean() - ours.sum()).abs() < 4 * (theirs.var() / 200 + error.square().sum()).sqrt()


@every_pair
def test_size_scales_all_sites(name: str) -> None:
    """A minibatch of a set of 36 has three times the loss of the 12."""
    model, guide = PAIRS[name]()
    losses = []
    for size in (N, 3 * N):
        torch.manual_seed(0)
        losses.append(objectives.ELBO(2).loss(*pair(model, guide), DATA, size=size))
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-12)


@every_pair
def test_posterior_is_drawn_for_arviz(name: str) -> None:
    model, guide = PAIRS[name]()
    idata = lvm.posterior(model, guide, DATA[:3], draws=20, chains=2, seed=0)
    assert dict(idata["posterior"]["z"].sizes) == {"chain": 2, "draw": 20, "datum": 3, "z_dim": 2}
    assert idata["posterior_predictive"]["x"].shape == (2, 20, 3, D)
    assert idata["prior_predictive"]["x"].shape[-1] == D


def test_a_fresh_process_reads_the_same_and_shares_the_same(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    try:
        x, expected = DATA[:2].float(), {}
        for name, make in PAIRS.items():
            model, guide = make((5,))
            lvm.save(tmp_path / f"{name}.safetensors", model, guide)
            expected[name] = (lvm.log_likelihood(model, guide, x, 10, seed=0, progress=False) + 0).tolist()
    finally:
        torch.set_default_dtype(torch.float64)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, json, pathlib, torch, pyro_lvm as lvm\n"
        "folder, found = pathlib.Path(sys.argv[1]), {}\n"
        "x = torch.load(folder / 'x.pt')\n"
        "for path in folder.glob('*.safetensors'):\n"
        "    model, guide = lvm.load(path)\n"
        "    shares = getattr(guide, 'model', None) is model\n"
        "    found[path.stem] = (lvm.log_likelihood(model, guide, x, 10, seed=0) + 0).tolist(), shares\n"
        "print(json.dumps(found))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for name, (values, shares) in json.loads(out.stdout.splitlines()[-1]).items():
        assert values == pytest.approx(expected.pop(name), rel=1e-5)  # single precision
        assert shares == (name in ("semi-amortized", "hamiltonian"))
    assert not expected


@every_pair
@pytest.mark.parametrize("objective", ["elbo", pytest.param("dreg", marks=pytest.mark.slow)])
def test_steps_can_be_captured(name: str, objective: str, no_compiler: None) -> None:
    model, guide = PAIRS[name]((5,))
    made = objectives.ELBO(2) if objective == "elbo" else objectives.IWAE(3, gradient="dreg")
    compiled, programs = lvm.compile(made, model, guide), pair(model, guide)
    parameters = parameters_of(pair(model, guide))
    for seed in range(4):
        x = DATA[seed : seed + 6]
        torch.manual_seed(seed)
        found = compiled(x)
        ours = torch.autograd.grad(found, parameters)
        torch.manual_seed(seed)
        loss = made.differentiable_loss(*programs, x)
        theirs = torch.autograd.grad(loss, parameters)
        torch.testing.assert_close(found, loss, rtol=1e-10, atol=0)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert compiled.failure is None


@every_pair
def test_guides_leave_nothing_behind(name: str) -> None:
    """Without gradients they run as with them, on as many random numbers; the trace has their sites only."""
    model, guide = PAIRS[name]((5,))
    _, program = pair(model, guide)
    torch.manual_seed(0)
    with torch.no_grad():
        without = program(DATA)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with_gradient = program(DATA)
    assert torch.equal(without, with_gradient)
    assert torch.equal(state, torch.get_rng_state())
    assert with_gradient.requires_grad
    assert len(pyro.get_param_store()) == 0
    sites = {n for n, site in poutine.trace(program).get_trace(DATA).nodes.items() if site["type"] == "sample"}
    latents = {"auxiliary": {"a", "z"}, "hamiltonian": {"trajectory", "a", "z"}}.get(name, {"z"})
    assert sites - {"data"} == latents


# The auxiliary variable


def test_an_auxiliary_variable_that_tells_nothing_changes_no_weight() -> None:
    """With r(a | x, z) = q(a | x) and q(z | a, x) = q(z | x) each weight is the plain autoencoder's."""
    model, guide = auxiliary()
    with torch.no_grad():
        for net, blind in ((model.reverse.net, slice(D, D + M)), (guide.posterior.net, slice(D, D + 3))):
            net.layers[0].weight[:, blind] = 0.0
        for mine, other in zip(model.reverse.net.layers, guide.auxiliary.net.layers, strict=True):
            if isinstance(mine, nn.Linear):
                other.weight.copy_(mine.weight[:, : other.in_features])
                other.bias.copy_(mine.bias)
    table = run(*pair(model, guide), (DATA,), {}, num_particles=7, nesting=1)
    z = table.sites["z"]
    plain = model.log_joint(DATA, z.value) - z.log_q
    torch.testing.assert_close(table.log_weight(), plain, rtol=1e-12, atol=1e-12)


def test_a_mixture_of_two_modes_is_within_reach() -> None:
    """x = |z| + noise has a posterior of two modes, which no single normal has: the bound passes the best normal's."""

    class Magnitude(lvm.Part):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

        def forward(self, z: Tensor) -> Tensor:
            return (z.square() + 1e-4).sqrt() + 0.0 * self.anchor

    likelihood = likelihoods.Normal(Magnitude(), 0.2)
    grid, x = torch.linspace(-8, 8, 4001), torch.tensor([[1.0]])
    prior = priors.StandardNormal(1)
    joint = prior().log_prob(grid[:, None, None]) + likelihood(grid[:, None, None]).log_prob(x)  # (grid, B)
    evidence = joint.logsumexp(0) + math.log(16 / 4000)
    model = models.AuxiliaryVAE(prior, likelihood, posteriors.DiagonalNormal(networks.MLP(2, 2, (16,), nn.Tanh)))
    component = posteriors.DiagonalNormal(networks.MLP(1, 2, (8,), nn.Tanh))
    guide = guides.Auxiliary(component, posteriors.DiagonalNormal(networks.MLP(2, 2, (16,), nn.Tanh)))
    # From two modes on: z near 1.2 tanh(20a), and a's mean guessed as 0.8 tanh(3z). From one, no gradient leads to two.
    for net, slope, height in ((guide.posterior.net, 20.0, 1.2), (model.reverse.net, 3.0, 0.8)):
        first, _, last = net.layers
        with torch.no_grad():
            first.weight[0], first.bias[0] = torch.tensor([0.0, slope]), 0.0
            last.weight[0], last.weight[0, 0], last.bias[0] = 0.0, height, 0.0
    with torch.no_grad():
        for parameter in component.parameters():
            parameter.mul_(0.1)
    learned = [*guide.parameters(), *model.reverse.parameters()]
    optimizer, programs, objective = torch.optim.Adam(learned, lr=0.01), pair(model, guide), objectives.ELBO(16)
    for _ in range(400):
        optimizer.zero_grad()
        objective.differentiable_loss(*programs, x).backward()
        optimizer.step()
    bound, error = elbo(model, guide, x)
    # One mode alone, the best a normal can do with modes 10 noise scales apart, is at least log 2 below the evidence.
    assert (bound - 4 * error > evidence - math.log(2) + 0.05).all()
    assert (bound - 4 * error < evidence).all()


# Semi-amortised


def precision(weight: Tensor) -> Tensor:
    return weight.T @ weight / SIGMA**2 + torch.eye(M)


def test_a_step_is_the_one_derived_by_hand() -> None:
    model = vae()
    guide = guides.SemiAmortized(model, encoder(), steps=1, step_size=0.03)
    weight, bias = affine(model)
    mean, _ = exact.posterior(DATA, weight, bias, SIGMA**2)
    start = guide.posterior(DATA).base_dist
    offset = start.scale * guide.signs[0]
    mu, log_sigma = guide.refined(DATA)
    Lambda = precision(weight)
    torch.testing.assert_close(mu, start.loc + 0.03 * (mean - start.loc) @ Lambda, rtol=1e-10, atol=1e-12)
    slope = 1 - offset * (offset @ Lambda)
    torch.testing.assert_close(log_sigma, start.scale.log() + 0.03 * slope, rtol=1e-10, atol=1e-12)


def test_many_steps_reach_the_best_diagonal_normal() -> None:
    model = vae()
    with torch.no_grad():  # orthogonal columns: the posterior is a diagonal normal, and the signs have no say
        model.decoder.net.layers[0].weight.copy_(torch.linalg.qr(torch.randn(D, M))[0])
    guide = guides.SemiAmortized(model, encoder(), steps=150, step_size=0.2)
    mean, covariance = exact.posterior(DATA, *affine(model), SIGMA**2)
    with torch.no_grad():
        mu, log_sigma = guide.refined(DATA)
    torch.testing.assert_close(mu, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_sigma.exp().square(), covariance.diagonal().expand(N, M), rtol=0, atol=1e-8)


def test_probabilistic_pca_itself_can_be_refined() -> None:
    model = models.ProbabilisticPCA(D, M)
    guide = guides.SemiAmortized(model, encoder(), steps=2)
    settings = {"epochs": 2, "batch_size": 6, "compile": False, "progress": False}
    lvm.fit(model, guide, DATA, **settings)
    with pyro.plate("particles", 3, dim=-2), poutine.scale(scale=2.0):
        assert guide(DATA).shape == (3, N, M)


# Hamiltonian


def test_leapfrog_preserves_volume_and_can_be_undone() -> None:
    """Also with large weights and long steps, where the path is far from the flow's."""
    model, guide = hamiltonian((16,))
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(3.0)
        guide.log_step_size.copy_(torch.tensor([0.3, 0.15]).log())
    x, start = DATA[0], torch.randn(2 * M)

    def move(u: Tensor) -> Tensor:
        return torch.cat(guide.leapfrog(x, *u.chunk(2, dim=-1)), dim=-1)

    for _ in range(5):
        start = torch.randn(2 * M)
        jacobian = torch.autograd.functional.jacobian(move, start)
        assert (jacobian - torch.eye(2 * M)).abs().max() > 0.1
        assert jacobian.det().abs().log().abs() < 1e-10
    z, v = torch.randn(7, N, M), torch.randn(7, N, M)
    back = guide.leapfrog(DATA, *guide.leapfrog(DATA, z, v), backwards=True)
    torch.testing.assert_close(back, (z, v), rtol=0, atol=1e-9)


def test_energy_is_kept_to_second_order() -> None:
    """A path of fixed length in twice the steps errs a quarter as much, the mark of leapfrog."""
    model, _ = hamiltonian((8,))
    z, v, errors = torch.randn(N, M), torch.randn(N, M), []
    for steps in (20, 40):
        guide = guides.Hamiltonian(model, encoder(), steps, 1.0 / steps)
        z_, v_ = guide.leapfrog(DATA, z, v)
        energy = [0.5 * b.square().sum(-1) - model.log_joint(DATA, a) for a, b in ((z, v), (z_, v_))]
        errors.append((energy[1] - energy[0]).abs().mean())
    assert 3.6 < errors[0] / errors[1] < 4.4  # 4 but for the fourth order, 10 %


def test_a_trajectory_has_the_density_of_its_start_whoever_asks() -> None:
    model, guide = hamiltonian((5,))
    _, program = pair(model, guide)
    site: Any = poutine.trace(program).get_trace(DATA).nodes["trajectory"]
    known = site["fn"].log_prob(site["value"])
    found = site["fn"].log_prob(site["value"].clone())
    torch.testing.assert_close(found, known, rtol=1e-10, atol=1e-10)


# Local


def test_local_optimum_is_the_best_diagonal_normal() -> None:
    """Its gradient vanishes there, within 4 standard errors, and nowhere near; training arrives."""
    model, guide = local()
    with torch.no_grad():
        # Columns that correlate, so that the best diagonal normal is not the posterior.
        model.decoder.net.layers[0].weight.copy_(torch.tensor([[1.0, 0.9], [0.9, 1.0], [0.8, 0.5], [0.4, 0.9]]))
    weight, bias = affine(model)
    mean, covariance = exact.posterior(DATA, weight, bias, SIGMA**2)
    variance = 1 / precision(weight).diagonal()
    parameters = [guide.loc, guide.raw_scale]

    def significance() -> Tensor:
        programs, objective = pair(model, guide), objectives.ELBO(100)
        rows = [
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(objective.differentiable_loss(*programs, DATA), parameters)]
            )
            for _ in range(100)
        ]
        sample = torch.stack(rows)
        return (sample.mean(0) / (sample.std(0) / 100**0.5)).abs()

    def place(scale: Tensor) -> None:
        with torch.no_grad():
            guide.loc.copy_(mean)
            guide.raw_scale.copy_(torch.expm1(scale - 1e-4).log().expand(N, M))

    place(variance.sqrt())
    assert significance().max() < 4.5  # the largest of 48
    place(covariance.diagonal().sqrt())  # the marginals' scale: wider
    assert significance()[N * M :].min() > 10
    with torch.no_grad():
        guide.loc.zero_()
        guide.raw_scale.fill_(0.5413)
    train(model, guide, parameters, 1000, 0.03)
    q_covariance = (nn.functional.softplus(guide.raw_scale.detach()) + 1e-4).square().diag_embed()
    gap = exact.kl_normal(guide.loc.detach(), q_covariance, mean, covariance).mean()
    least = exact.kl_normal(mean, variance.diag_embed().expand(N, M, M), mean, covariance).mean()
    # Adam's last steps are 3e-4 long and their noise adds its square over the variance, some 1e-5; stated: 1e-3.
    assert 0 <= gap - least < 1e-3


def test_data_are_known_in_any_order_number_and_precision() -> None:
    x = (torch.rand(500, 3, 5) < 0.5).double()
    x[400:] = torch.randn(100, 3, 5)
    x[7], x[9] = 0.0, -0.0
    x[450] = x[413]
    first = (x[:, None] == x).flatten(2).all(-1).double().argmax(0)  # of equal ones
    assert first[450] == 413
    guide = guides.Local(500, (3, 5), 2)
    guide.start_from(x)
    order = torch.randperm(500)
    expected = first[order]
    for version in (guide, guide.float(), guide.double()):
        assert torch.equal(version.rows(x[order]), expected)
        assert torch.equal(version.rows(x[order].float()), expected)
    with torch.no_grad():
        guide.loc.copy_(torch.arange(500.0)[:, None].expand(500, 2))
    site: Any = poutine.trace(pair(vae(), guide)[1]).get_trace(x[[44, 3]]).nodes["z"]
    assert site["fn"].base_dist.loc[:, 0].tolist() == [44.0, 3.0]


def test_binary_data_do_not_collide() -> None:
    """Zeros and ones differ in few bits: 2^16 data of 16 pixels are all told apart."""
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 16)
    guide = guides.Local(len(every), 16, 1)
    guide.start_from(every)
    assert guide.fingerprints.unique().numel() == len(every)
    assert (guide.fingerprints % 2**20).unique().numel() > 2**15  # all bits take part: 2^16 of 2^20 places
    assert torch.equal(guide.rows(every), torch.arange(len(every)))


def test_strangers_are_refused_in_one_sentence(no_compiler: None) -> None:
    guide, model = guides.Local(N, D, M), vae()
    with pytest.raises(ValueError, match=r"has not been given its data: call its start_from") as error:
        guide(DATA)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"'x' must hold all the data, of shape \(12, 4\), but has \(11, 4\)"):
        guide.start_from(DATA[1:])
    with pytest.raises(ValueError, match="'x' must be finite"):
        guide.start_from(DATA * torch.nan)
    guide.start_from(DATA)
    other = DATA.clone()
    other[8, 2] += 1e-3
    with pytest.raises(ValueError, match="the datum at 8 is none of the 12") as error:
        guide(other)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the datum at 8 is none of the 12"):
        lvm.fit(model, guide, DATA, validation=other, epochs=1, batch_size=6, compile=False, progress=False)
    compiled = lvm.compile(objectives.ELBO(), model, guide)
    for _ in range(4):
        assert compiled(DATA).isfinite()
    assert compiled(other).isnan()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: guides.SemiAmortized(vae(), encoder(), steps=0), "'steps'"),
        (lambda: guides.SemiAmortized(vae(), encoder(), step_size=0.0), "'step_size'"),
        (lambda: guides.SemiAmortized(auxiliary_vae(), encoder()), "'model' must have one latent.*'z', 'a'"),
        (lambda: guides.SemiAmortized(models.GaussianMixture(D, 2), encoder()), "'model' must have one latent"),
        (
            lambda: guides.SemiAmortized(vae(), posteriors.FullNormal(nn.Linear(D, 5)))(DATA),
            "'posterior' must give a diagonal normal",
        ),
        (lambda: guides.Hamiltonian(auxiliary_vae(), encoder(), steps=0), "'steps'"),
        (lambda: guides.Hamiltonian(auxiliary_vae(), encoder(), step_size=-1.0), "'step_size'"),
        (lambda: guides.Local(0, D, M), "'num_data'"),
        (lambda: guides.Local(5, (3, 0), M), "'data_shape'"),
        (lambda: guides.Local(5, D, 0), "'latent_dim'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(build: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build()
    assert "\n" not in str(error.value)
