"""Compiled training: the same weights as uncompiled training but for rounding, and the same bits when it is resumed.

Most graphs run without PyTorch's compiler: what is tested here is the engine around them.
"""

import logging
import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config
from test_resume import D, N, after, killed_runs, rows, same, vae, weights
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.fit import run
from pyro_lvm.fit.fused_adam import FusedAdam
from pyro_lvm.programs import data_plate


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(5))


SETTINGS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "AdamW": {"optimizer": "AdamW", "optimizer_options": {"weight_decay": 0.1}},
    "amsgrad": {"optimizer_options": {"amsgrad": True}},
    "not fused": {"optimizer_options": {"fused": False}},
    "momentum": {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}},
    "clipping": {"gradient_clip": 0.1},
    "cosine": {"scheduler": "CosineAnnealingLR"},
    "early stopping": {"early_stopping": 2, "optimizer": "SGD", "learning_rate": 0.3},
    "schedule": {"objective": objectives.ELBO(beta=objectives.Cyclical(0.0, 1.0, epochs=7))},
    "capacity": {"objective": objectives.Capacity(kl=0.5)},
    "iwae": {"objective": objectives.IWAE(4)},
    "one step an epoch": {"batch_size": N},
}
USUAL: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 0.02,
    "progress": False,
}  # 3 full batches and 12


LONGER = ("AdamW", "amsgrad", "not fused", "cosine")  # much like others


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONGER)) for n in SETTINGS])
def test_compiled_training_is_uncompiled_training(name: str, x: Tensor, no_compiler: None):
    settings = USUAL | {"validation": x[:20]} | SETTINGS[name]
    plain, compiled = vae(), vae()
    expected = lvm.fit(*plain, x, compile=False, **settings)
    result = lvm.fit(*compiled, x, compile=True, **settings)
    for a, b in zip(weights(*compiled), weights(*plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    for a, b in zip(rows(result), rows(expected), strict=True):
        assert a == pytest.approx(b, rel=1e-8)
    assert result.best_epoch == expected.best_epoch


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        pytest.param("Adam", 1, marks=pytest.mark.slow),
        ("Adam", 4),
        pytest.param("schedule", 4, marks=pytest.mark.slow),
        ("capacity", 1),
        pytest.param("early stopping", 3, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_run_is_resumed_to_the_bit(name: str, epochs: int, x: Tensor, tmp_path: Path, no_compiler: None):
    settings = USUAL | {"validation": x[:20], "compile": True} | SETTINGS[name]
    whole, stopped, again = vae(), vae(), vae(seed=1)
    expected = lvm.fit(*whole, x, **settings)
    lvm.fit(*stopped, x, run_dir=tmp_path / "run", on_epoch=after(epochs), **settings)
    result = lvm.fit(*again, x, run_dir=tmp_path / "run", resume=True, **settings)
    assert same(weights(*again), weights(*whole))
    assert rows(result) == rows(expected)


@pytest.mark.slow
def test_machine_code_trains_the_same_and_is_resumed_to_the_bit(x: Tensor, tmp_path: Path):
    torch.set_default_dtype(torch.float32)
    try:
        settings = USUAL | {"batch_size": 20, "objective": objectives.IWAE(3)}
        plain, whole, stopped, again = vae(), vae(), vae(), vae(seed=1)
        lvm.fit(*plain, x.float(), compile=False, **settings)
        expected = lvm.fit(*whole, x.float(), compile=True, **settings)
        lvm.fit(*stopped, x.float(), compile=True, run_dir=tmp_path / "run", on_epoch=after(3), **settings)
        result = lvm.fit(*again, x.float(), compile=True, run_dir=tmp_path / "run", resume=True, **settings)
    finally:
        torch.set_default_dtype(torch.float64)
    assert same(weights(*again), weights(*whole))
    assert rows(result) == rows(expected)
    for a, b in zip(weights(*whole), weights(*plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path):
    kills, _ = killed_runs(tmp_path, runs=2, seed=0, how="graph")
    assert kills >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_machine_code_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path: Path):
    kills, _ = killed_runs(tmp_path, runs=20, seed=2, how="machine code")
    assert kills >= 20


# How long a run has to be


@pytest.mark.parametrize(("epochs", "compiled"), [(3, False), (4, True)])
def test_only_a_long_run_is_compiled_by_itself(
    epochs: int, compiled: bool, x: Tensor, no_compiler: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    monkeypatch.setattr(run, "_REPAID", 12)  # full batches: three an epoch
    with caplog.at_level(logging.INFO, logger="pyro_lvm"):
        lvm.fit(*vae(), x, **USUAL | {"epochs": epochs})
    lines = [record.message for record in caplog.records if "compiled the loss" in record.message]
    assert len(lines) == compiled, "the last batch of an epoch is another shape, and there are few of it"
    assert all("batches of 16" in line for line in lines)


def test_what_compile_may_be(x: Tensor, tmp_path: Path, no_compiler: None):
    with pytest.raises(ValueError, match="'compile' must be 'auto', True or False, not 'yes'"):
        lvm.fit(*vae(), x, compile="yes")  # type: ignore[arg-type]
    lvm.fit(*vae(), x, compile=True, run_dir=tmp_path / "run", **USUAL)
    with pytest.raises(ValueError, match="'compile' is false, but true in the run"):
        lvm.fit(*vae(), x, compile=False, run_dir=tmp_path / "run", resume=True, **USUAL)


def test_an_optimiser_that_asks_for_losses_is_not_compiled(x: Tensor, caplog: pytest.LogCaptureFixture):
    settings: dict[str, Any] = {"optimizer": "LBFGS", "learning_rate": 1e-3, "batch_size": N, "epochs": 3}
    plain, compiled = vae(), vae()
    lvm.fit(*plain, x, compile=False, **settings)
    with caplog.at_level(logging.WARNING, logger="pyro_lvm"):
        lvm.fit(*compiled, x, compile=True, **settings)
    assert same(weights(*compiled), weights(*plain))
    assert [r.message for r in caplog.records] == [
        "the programs run as they are, and the loss is not compiled: LBFGS asks for several losses a step."
    ]


# What goes wrong is found


class Fragile(nn.Module):
    """A likelihood that has no value once its scale has come down to a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.scale, self.limit = nn.Parameter(torch.tensor(1.0)), limit

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> Any:
        pyro.module("model", self)
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            scale = self.scale + 0.0 * (self.scale - self.limit).sqrt()
            return pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        pyro.module("guide", self)
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(self.slope * x, 0.1).to_event(1))


@pytest.mark.parametrize("batch_size", [16, N])
def test_a_loss_without_a_value_is_blamed_on_the_right_step(batch_size: int, x: Tensor, no_compiler: None):
    faults, left = [], []
    for compile in (False, True):
        torch.manual_seed(0)
        programs = Fragile(0.5), Plain()
        settings = USUAL | {"epochs": 60, "batch_size": batch_size, "compile": compile}
        with pytest.raises(lvm.NonFiniteError) as caught:
            lvm.fit(*programs, x, **settings)
        faults.append(caught.value)
        left.append(weights(*programs))
    assert faults[0].epoch > 3
    assert str(faults[1]) == str(faults[0])
    assert (faults[1].epoch, faults[1].step, faults[1].site) == (faults[0].epoch, faults[0].step, faults[0].site)
    for a, b in zip(*left, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_factorisation_that_fails_is_blamed_on_the_right_step(x: Tensor, no_compiler: None):
    class Shrinking(Plain):  # on its way from 1 to 1/2 it passes what a factorisation needs
        def forward(self, x: Tensor, *, size: int | None = None) -> None:
            pyro.module("guide", self)
            with data_plate(x, size):
                factor = torch.linalg.cholesky((self.slope - 0.8) * torch.eye(2))
                pyro.sample("z", dist.Normal(self.slope * x + 0.0 * factor.sum(), 0.1).to_event(1))

    faults = []
    for compile in (False, True):
        torch.manual_seed(0)
        with pytest.raises(lvm.NonFiniteError, match="cholesky") as caught:
            lvm.fit(Fragile(0.0), Shrinking(), x, **USUAL | {"epochs": 60, "compile": compile})
        faults.append(caught.value)
    assert faults[0].epoch * 4 + faults[0].step > 4  # after the capture
    assert str(faults[0]) == str(faults[1])


class Spike(torch.autograd.Function):
    """The identity, whose gradient has no value for the last batch of the sixth epoch, which starts with a mark."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return torch.where(x[0, 0] > 50, gradient * math.nan, gradient), None


def test_a_gradient_without_a_value_is_found_by_the_end_of_the_epoch(x: Tensor, no_compiler: None):
    class Spiked(Plain):
        def forward(self, x: Tensor, *, size: int | None = None) -> None:
            pyro.module("guide", self)
            with data_plate(x, size):
                pyro.sample("z", dist.Normal(Spike.apply(self.slope, x) * x, 0.1).to_event(1))

    model, guide, marked = Fragile(0.0), Spiked(), x.clone()

    def mark(row: dict[str, float]) -> None:  # data change under a run: only the last step's gradient tells
        marked[:, 0] = 100.0 if row["epoch"] == 5 else marked[:, 0]

    with pytest.raises(lvm.NonFiniteError, match="epoch 6, step 1: a gradient is not finite"):
        lvm.fit(model, guide, marked, on_epoch=mark, compile=True, **USUAL | {"batch_size": N})
    assert all(p.isfinite().all() for p in (*model.parameters(), *guide.parameters()))


def test_an_attribute_that_changes_between_epochs_is_seen(
    x: Tensor, no_compiler: None, caplog: pytest.LogCaptureFixture
):
    binary = (x > 0).double()

    def trained(compile: bool, changes: int) -> list[Tensor]:
        torch.manual_seed(0)
        model = models.VAE(priors.OneHot(2, 3), likelihoods.Bernoulli(networks.MLP(6, D, (8,))))
        posterior = posteriors.GumbelSoftmax(networks.MLP(D, 6, (8,)), 3, 1.0)
        guide = guides.Amortized(posterior)

        def cool(row: dict[str, float]) -> None:
            posterior.temperature = 0.9 ** min(row["epoch"], changes)

        lvm.fit(model, guide, binary, compile=compile, on_epoch=cool, **USUAL | {"batch_size": 12})
        return weights(model, guide)

    for changes in (2, 8):
        caplog.clear()
        for a, b in zip(trained(True, changes), trained(False, changes), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        assert ("keeps changing" in caplog.text) == (changes == 8)  # then it is no longer worth the captures


@pytest.mark.parametrize("machine_code", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_compiled_run_in_mixed_precision(machine_code: bool, x: Tensor, request: Any, caplog: Any):
    if not machine_code:
        request.getfixturevalue("no_compiler")
    found = []
    for compile in (False, True):
        programs = vae()
        for program in programs:
            program.float()
        result = lvm.fit(*programs, x.float(), precision="bf16-mixed", compile=compile, **USUAL | {"epochs": 20})
        found.append(result.history["train"])
    assert "not compiled" not in caplog.text
    assert found[1] == pytest.approx(found[0], rel=0.02)  # bfloat16 has 8 bits, and its roundings lead elsewhere


# The optimiser


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"weight_decay": 0.1, "maximize": True}])
def test_the_update_is_the_optimisers_own(make: Any, options: dict[str, Any]):
    shapes = [(3, 4), (5,), ()]
    own, plain = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))

    def made(parameters: list[nn.Parameter]) -> Any:
        # Two groups, as a user's scheduler may have them.
        groups = [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.01}]
        return make(groups, fused=True, **options)

    optimizers, update = (made(own), made(plain)), None
    for step in range(6):
        gradients = [torch.randn(shape) for shape in shapes]
        for p, g in zip(plain, gradients, strict=True):
            p.grad = g.clone()
        optimizers[1].step()
        if step in (0, 3):  # eager steps between, as for a last batch
            for p, g in zip(own, gradients, strict=True):
                p.grad = g.clone()
            optimizers[0].step()
        else:
            update = update or FusedAdam(optimizers[0])
            update.step(gradients)
        assert same([p.detach() for p in own], [p.detach() for p in plain])
    states = [o.state_dict()["state"] for o in optimizers]
    for index, state in states[1].items():
        assert all(torch.equal(states[0][index][name], value) for name, value in state.items())


def test_other_optimisers_are_left_alone():
    p = [nn.Parameter(torch.ones(2))]
    assert not FusedAdam.serves(torch.optim.SGD(p, lr=0.1))
    assert not FusedAdam.serves(torch.optim.Adam(p, fused=False))
    assert FusedAdam.serves(torch.optim.Adam(p, fused=True))
    hooked = torch.optim.Adam(p, fused=True)
    hooked.register_step_post_hook(lambda *_: None)
    assert not FusedAdam.serves(hooked)
