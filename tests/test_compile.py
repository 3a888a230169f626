"""Compiled objectives against the programs as they are: the same draws, so the same loss and gradient but for rounding.

Gates: 1e-10, relative, for float64; most graphs run without PyTorch's compiler, whose machine code a few tests cover.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.util
import pytest
import torch
import torch._inductor.config
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors, programs
from pyro_lvm.capture import ProductChoices, products
from pyro_lvm.capture.draws import draws_apart
from pyro_lvm.capture.lowering import replay
from pyro_lvm.capture.tracing import trace
from pyro_lvm.programs import data_plate

D, M, N = 6, 2, 12


def vae(**settings: Any) -> tuple[nn.Module, nn.Module]:
    decoder = likelihoods.Bernoulli(networks.MLP(M, D, [8], nn.Tanh))
    encoder = networks.MLP(D, 2 * M, [8], nn.Tanh)
    return models.VAE(priors.StandardNormal(M), decoder), guides.Amortized(posteriors.DiagonalNormal(encoder))


def discrete() -> tuple[nn.Module, nn.Module]:
    decoder = likelihoods.Bernoulli(networks.MLP(6, D, [8], nn.Tanh))
    encoder = networks.MLP(D, 6, [8], nn.Tanh)
    return models.VAE(priors.OneHot(2, 3), decoder), guides.Amortized(posteriors.OneHot(encoder, 3))


def batches(number: int) -> list[Tensor]:
    return [(torch.rand(N // 2, D) < 0.4).double() for _ in range(number)]


def trained(
    model: Any, guide: Any, objective: Any, data: list[Tensor], make: Callable[..., Callable[..., Any]]
) -> list[list[Tensor]]:
    """The losses and gradients of a few steps of training."""
    torch.manual_seed(1)
    if isinstance(objective, objectives.Objective):
        objective.restart()
    loss_and_grads = make(objective, model, guide)
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    results = []
    for x in data:
        optimizer.zero_grad()
        loss = loss_and_grads(x)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        results.append([torch.as_tensor(loss), *gradients])
        optimizer.step()
        if isinstance(objective, objectives.Objective):
            objective.advance(0.5)
    return results


def eagerly(objective: Any, model: Any, guide: Any) -> Callable[[Tensor], Any]:
    # Pyro's own objectives run programs that keep to themselves only as the library runs them.
    own = lvm.programs.pair(model, guide)
    return lambda x: objective.loss_and_grads(*own, x, size=N)


def compiled(objective: Any, model: Any, guide: Any) -> Callable[[Tensor], Any]:
    found = lvm.compile(objective, model, guide)
    return lambda x: found.loss_and_grads(x, size=N)


OBJECTIVES = {
    "elbo": (vae, lambda: objectives.ELBO(2)),
    "analytic": (vae, lambda: objectives.ELBO(analytic_kl=True)),
    "warm-up": (vae, lambda: objectives.ELBO(beta=objectives.Linear(0.1, 1.0, epochs=2))),
    "free bits": (vae, lambda: objectives.ELBO(free_bits=0.05, beta=objectives.Linear(0.1, 1.0, epochs=2))),
    "capacity": (vae, lambda: objectives.Capacity(kl=0.1)),
    "iwae": (vae, lambda: objectives.IWAE(4)),
    "stl": (vae, lambda: objectives.IWAE(4, gradient="stl")),
    "dreg": (vae, lambda: objectives.IWAE(4, gradient="dreg")),
    "ciwae": (vae, lambda: objectives.CIWAE(4, beta=0.5)),
    "renyi": (vae, lambda: objectives.Renyi(0.5, 4)),
    "cubo": (vae, lambda: objectives.CUBO(2, 4)),
    "wake-sleep": (vae, lambda: objectives.ReweightedWakeSleep(4)),
    "sleep": (vae, lambda: objectives.WakeSleep()),
    "one by one": (vae, lambda: objectives.IWAE(3, vectorize_particles=False)),
    "score": (discrete, lambda: objectives.ELBO(3)),
    "vimco": (discrete, lambda: objectives.IWAE(3)),
}


LONGER = ("one by one", "stl", "ciwae", "renyi", "warm-up")  # much like others


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONGER)) for n in OBJECTIVES])
def test_training_is_the_same_compiled(name: str, no_compiler: None):
    pair, objective = OBJECTIVES[name]
    data = batches(7)
    torch.manual_seed(0)
    expected = trained(*pair(), objective(), data, eagerly)
    torch.manual_seed(0)
    model, guide = pair()
    found = lvm.compile(made := objective(), model, guide)
    results = trained(model, guide, made, data, lambda *_: lambda x: found.loss_and_grads(x, size=N))
    assert found.failure is None
    for step, (a, b) in enumerate(zip(results, expected, strict=True)):
        for u, v in zip(a, b, strict=True):
            torch.testing.assert_close(u, v, rtol=1e-10, atol=1e-10, msg=f"at step {step}")


@pytest.mark.parametrize("name", ["iwae", pytest.param("capacity", marks=pytest.mark.slow)])
def test_training_is_the_same_as_machine_code(name: str):
    pair, objective = OBJECTIVES[name]
    data = batches(6)
    torch.manual_seed(0)
    expected = trained(*pair(), objective(), data, eagerly)
    torch.manual_seed(0)
    results = trained(*pair(), objective(), data, compiled)
    for a, b in zip(results, expected, strict=True):
        for u, v in zip(a, b, strict=True):
            torch.testing.assert_close(u, v, rtol=1e-10, atol=1e-10)


def test_replays_do_not_run_the_programs(no_compiler: None):
    model, guide = vae()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    loss = lvm.compile(objectives.ELBO(), model, guide)
    for x in batches(4):
        loss(x)
    before = len(calls)
    for x in batches(4):
        loss(x)
    assert len(calls) == before


def test_every_shape_has_its_own_graph(no_compiler: None):
    model, guide = vae()
    loss, objective = lvm.compile(objectives.IWAE(3), model, guide), objectives.IWAE(3)
    for _ in range(4):
        for rows in (5, 3):
            x = batches(1)[0][:rows]
            state = torch.get_rng_state()
            value = loss(x, size=N).item()
            torch.set_rng_state(state)
            assert value == pytest.approx(objective.loss(model, guide, x, size=N), rel=1e-12)


def test_the_loss_can_be_weighed_and_its_gradient_added_up(no_compiler: None):
    model, guide = vae()
    loss = lvm.compile(objectives.ELBO(), model, guide)
    parameters = [*model.parameters(), *guide.parameters()]
    for x in batches(5):
        state = torch.get_rng_state()
        expected = torch.autograd.grad(objectives.ELBO().differentiable_loss(model, guide, x), parameters)
        torch.set_rng_state(state)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        (3 * loss(x)).backward()
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, 1 + 3 * gradient)
        with torch.no_grad():
            assert not loss(x).requires_grad


def test_a_number_among_the_attributes_may_change(no_compiler: None):
    encoder = networks.MLP(D, 6, [8], nn.Tanh)
    model = models.VAE(priors.OneHot(2, 3), likelihoods.Bernoulli(networks.MLP(6, D, [8], nn.Tanh)))
    posterior = posteriors.GumbelSoftmax(encoder, 3, 1.0)
    guide = guides.Amortized(posterior)
    loss, objective = lvm.compile(objectives.ELBO(), model, guide), objectives.ELBO()
    for temperature in (1.0, 0.3):
        posterior.temperature = temperature
        for x in batches(5):
            state = torch.get_rng_state()
            value = loss(x).item()
            torch.set_rng_state(state)
            assert value == pytest.approx(objective.loss(model, guide, x), rel=1e-12)


def with_rejection() -> Callable[..., Any]:
    """A guide that draws again until it likes what it has drawn."""

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(M))
        with pyro.plate("data", len(x)):
            noise = torch.randn(M)
            while noise.sum() < 0:
                noise = torch.randn(M)
            pyro.sample("z", dist.Normal(noise, scale.exp()).to_event(1))

    return guide


def with_counter() -> Callable[..., Any]:
    count = [0]

    def guide(x: Tensor) -> None:
        count[0] += 1
        scale = pyro.param("scale", torch.ones(M))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(M), scale.exp() * count[0]).to_event(1))

    return guide


def with_numpy() -> Callable[..., Any]:
    rng = np.random.default_rng(0)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(M))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.as_tensor(rng.normal(size=M)), scale.exp()).to_event(1))

    return guide


def with_buffer() -> nn.Module:
    encoder = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4), nn.Linear(4, 2 * M))
    return guides.Amortized(posteriors.DiagonalNormal(encoder))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_rejection, "decide by the value of a tensor"),
        (with_counter, "do not do the same at every call"),
        (with_numpy, "do not do the same at every call"),
        (with_buffer, "change a buffer"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_is(
    make: Callable[..., Any], reason: str, no_compiler: None, caplog: pytest.LogCaptureFixture
):
    model, data = vae()[0], batches(9)
    torch.manual_seed(0)
    objective, guide = objectives.ELBO(), make()
    own = lvm.programs.pair(model, guide)
    expected = [objective.loss_and_grads(*own, x) for x in data]
    torch.manual_seed(0)
    guide = make()
    loss = lvm.compile(objective, model, guide)
    if make is with_counter:  # it is first run once to see its parameters
        expected = expected[1:]
    with caplog.at_level(logging.WARNING, logger="pyro_lvm"):
        found = [loss(x).item() for x in data]
    assert loss.failure is not None
    assert reason in loss.failure
    assert len([r for r in caplog.records if "not compiled" in r.message]) == 1
    if make is with_buffer:
        assert found == pytest.approx(expected, rel=1e-12)


def test_without_a_compiler_the_graph_itself_runs(no_compiler: None, caplog: pytest.LogCaptureFixture):
    model, guide = vae()
    loss = lvm.compile(objectives.ELBO(), model, guide)
    with caplog.at_level(logging.WARNING, logger="pyro_lvm"):
        for x in batches(4):
            loss(x)
    assert loss.failure is None
    assert [record.message for record in caplog.records if "no C++ compiler" in record.message]


def test_nothing_global_is_left_changed(no_compiler: None):
    isnan = pyro.util.torch_isnan
    model, guide = vae()
    loss = lvm.compile(TraceMeanField_ELBO(), model, guide)
    torch.manual_seed(3)
    drawn = [loss(x).item() for x in batches(4)]
    after = torch.rand(())
    assert pyro.util.torch_isnan is isnan
    assert dict(pyro.get_param_store()) == {}
    assert torch.distributions.Distribution._validate_args
    torch.manual_seed(3)
    data = batches(4)
    assert drawn[0] == pytest.approx(TraceMeanField_ELBO().differentiable_loss(model, guide, data[0]).item(), rel=1e-12)
    assert after.isfinite()


def test_an_objective_without_a_differentiable_loss_is_refused():
    with pytest.raises(ValueError, match="'objective' must have a differentiable_loss"):
        lvm.compile(object(), *vae())


def test_a_pair_without_parameters_is_refused():
    model, guide = (program.requires_grad_(False).eval() for program in vae())
    with pytest.raises(ValueError, match="neither 'model' nor 'guide' has a parameter to train"):
        lvm.compile(objectives.ELBO(), model, guide)(batches(1)[0])


# Matrix products


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("compiler", [False, True])
def test_products_by_onednn_are_the_same(transposed: bool, compiler: bool, request: pytest.FixtureRequest):
    if not compiler:
        request.getfixturevalue("no_compiler")
    a, b, bias = torch.randn(8, 5).float(), torch.randn(5, 7).float(), torch.randn(7).float()
    if transposed:
        a, b = torch.randn(5, 8).float().t(), torch.randn(7, 5).float().t()

    def function() -> list[Tensor]:
        return [torch.addmm(bias, a, b).tanh(), a @ b, (a @ b).t() @ a]

    expected = function()
    choices = ProductChoices()
    choices._prefers_onednn = lambda node: True  # type: ignore[method-assign]  # as on a processor that it is quicker on
    run = replay(function, [a, b, bias], choices)
    for found, right in zip(run([a, b, bias]), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


def test_a_product_is_timed_once_and_its_choice_kept(monkeypatch: pytest.MonkeyPatch, no_compiler: None):
    timed = []

    def quickest(*arguments: Any) -> tuple[float, float]:
        timed.append(arguments)
        return 2.0, 1.0

    monkeypatch.setattr(products, "_quickest", quickest)
    a, b = torch.randn(8, 5).float(), torch.randn(5, 8).float()
    choices = ProductChoices()
    replay(lambda: [a @ b, a @ b, b @ a], [a, b], choices)
    assert len(timed) == 2
    assert choices.made == {
        "8x5 (5, 1), 5x8 (8, 1), 1 threads": True,
        "5x8 (8, 1), 8x5 (5, 1), 1 threads": True,
    }
    replay(lambda: [a @ b, b @ a], [a, b], choices)
    assert len(timed) == 2


def test_products_are_timed_in_their_own_precision(no_compiler: None):
    assert torch.get_default_dtype() == torch.float64
    a, choices = torch.randn(8, 8).float(), ProductChoices()
    run = replay(lambda: [a @ a], [a], choices)
    assert len(choices.made) == 1
    torch.testing.assert_close(run([a])[0], a @ a)


def test_double_products_stay_where_they_are(no_compiler: None):
    a = torch.randn(8, 8)
    choices = ProductChoices()
    replay(lambda: [a @ a], [a], choices)
    assert choices.made == {}


def test_the_quicker_product_is_found():
    a, b = torch.randn(4, 4), torch.randn(4, 4)

    def slow(a: Tensor, b: Tensor) -> None:
        for _ in range(200):
            torch.mm(a, b)

    first, second = products._quickest(torch.mm, slow, a, b)
    assert second > 10 * first > 0


# User programs


def test_a_users_program_without_size_is_compiled(no_compiler: None):
    def model(x: Tensor) -> None:
        location = pyro.param("location", torch.zeros(D))
        with data_plate(x, None):
            z = pyro.sample("z", dist.Normal(location, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(D), constraint=dist.constraints.positive)
        with data_plate(x, None):
            pyro.sample("z", dist.Normal(x, scale).to_event(1))

    loss = lvm.compile(objectives.ELBO(), model, guide)
    own = lvm.programs.pair(model, guide)
    for _ in range(5):
        x = torch.randn(4, D)
        state = torch.get_rng_state()
        value = loss(x)
        torch.set_rng_state(state)
        expected = objectives.ELBO().differentiable_loss(*own, x)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        value.backward()
        for program in own:
            for parameter in program.parameters():
                gradient = parameter.grad
                parameter.grad = None
                assert gradient is not None
                torch.testing.assert_close(
                    gradient, torch.autograd.grad(expected, parameter, retain_graph=True)[0], rtol=1e-10, atol=1e-10
                )
    assert loss.failure is None


# Evidence


@pytest.mark.parametrize("settings", [{}, {"max_bytes": 20_000}, {"vectorize_particles": False}])
def test_the_evidence_is_the_same_replayed(settings: dict[str, Any], no_compiler: None, caplog: Any):
    model, guide = vae()
    x = torch.cat(batches(5))
    plain = lvm.log_likelihood(model, guide, x, 40, seed=0, compile=False, **settings)
    with caplog.at_level(logging.INFO, logger="pyro_lvm"):
        found = lvm.log_likelihood(model, guide, x, 40, seed=0, compile=True, **settings)
    compiled = [record.message for record in caplog.records if "compiled the evidence" in record.message]
    assert bool(compiled) == bool(settings)  # without any it is one chunk
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.khat, plain.khat, rtol=1e-6, atol=1e-8)


def test_the_evidence_of_much_data_is_replayed_by_itself(no_compiler: None, monkeypatch: Any, caplog: Any):
    module = sys.modules["pyro_lvm.evidence.log_likelihood"]
    monkeypatch.setattr(module, "bytes_per_row", lambda function, x: 100)
    monkeypatch.setattr(module, "_REPAID", 30 * 10 * 100)
    model, guide = vae()
    with caplog.at_level(logging.INFO, logger="pyro_lvm"):
        for rows, expected in ((9, False), (10, True)):
            caplog.clear()
            lvm.log_likelihood(model, guide, torch.cat(batches(5))[:rows], 30, max_bytes=3000, seed=0)
            assert any("compiled the evidence" in record.message for record in caplog.records) == expected


def test_the_evidence_takes_no_other_word_for_compile():
    with pytest.raises(ValueError, match="'compile' must be 'auto', True or False, not 'yes'"):
        lvm.log_likelihood(*vae(), torch.zeros(2, D), 10, compile="yes")  # type: ignore[arg-type]


# Samples


def test_many_samples_are_drawn_in_parts_and_replayed(monkeypatch: pytest.MonkeyPatch, no_compiler: None):
    model = vae()[0]
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(programs, "_AT_ONCE", 10)
    monkeypatch.setattr(programs, "_REPAID", 10_000)
    torch.manual_seed(4)
    expected = model.sample(95)
    assert len(calls) == 11  # one to see what data share
    monkeypatch.setattr(programs, "_REPAID", 0)
    torch.manual_seed(4)
    assert torch.equal(model.sample(95), expected)
    assert len(calls) == 11 + 5  # the look, one as it is, one to capture from, the capture, one to compare with
    assert expected.shape == (95, D)


def test_samples_that_share_a_latent_are_drawn_together(monkeypatch: pytest.MonkeyPatch):
    class Shared(programs.Model):
        def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Any:
            location = pyro.sample("location", dist.Normal(0.0, 100.0))
            with data_plate(x, size):
                return pyro.sample("x", dist.Normal(location, 1e-3), obs=x)

    monkeypatch.setattr(programs, "_AT_ONCE", 10)
    assert Shared().sample(100).std() < 1


def test_samples_have_the_right_mean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "_AT_ONCE", 100)
    monkeypatch.setattr(programs, "_REPAID", 0)
    model = models.ProbabilisticPCA(3, latent_dim=2)
    x = model.sample(20_000)
    covariance = model.weight @ model.weight.T + model.noise_scale.square() * torch.eye(3)
    error = (covariance.diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - model.bias).abs() < 4.5 * error).all()


def test_the_compiler_keeps_the_order_of_draws():
    """Left to itself it puts the small and the quick ones first."""
    a = torch.randn(64, 64)

    def function() -> list[Tensor]:
        standard = dist.Normal(torch.zeros(64, 64), torch.ones(64, 64))
        first, _unused = standard.sample(), standard.sample()
        share = torch.rand(1, 1)
        second = standard.expand((2, 64, 64)).rsample()
        of_an_input = torch.normal(a, 1.0)
        return [(a @ first * share).sin() + second.sum(0) @ a, (second * share).sum(), of_an_input + torch.rand(64)]

    before = torch.get_rng_state()
    run = replay(function, [a], ProductChoices())
    assert torch.equal(torch.get_rng_state(), before)
    expected, after = function(), torch.get_rng_state()
    torch.set_rng_state(before)
    for found, right in zip(run([a]), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10)
    assert torch.equal(torch.get_rng_state(), after)


def test_what_is_made_with_draws_before_the_compiled_part_is_nothing_else():
    a = torch.randn(3)
    graph = trace(lambda: [a * torch.randn(3) + torch.arange(3.0)], [a])
    before, after = draws_apart(graph)
    assert [node.op for node in before.graph.nodes] == ["call_function", "output"]
    torch.manual_seed(1)
    draws = before()
    torch.manual_seed(1)
    assert torch.equal(after(a, *draws)[0], graph(a)[0])
