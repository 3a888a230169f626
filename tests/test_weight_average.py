"""The average of the weights that a run visits: by hand, with every part of `fit` that it passes through."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import D, N, after, rows, same, vae, weights
from torch import Tensor

import pyro_lvm as lvm
from pyro_lvm.cli import main
from pyro_lvm.fit.compiled_step import CompiledStep, ReplayFailed
from pyro_lvm.fit.weight_average import WeightAverage

USUAL: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 16,
    "learning_rate": 0.02,
    "weight_average": 0.8,
    "progress": False,
}  # 4 steps an epoch


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(5))


class Recorded(torch.optim.SGD):
    """Keeps the weights after every step."""

    def __init__(self, parameters: Any, lr: float, to: list[Tensor]) -> None:
        super().__init__(parameters, lr=lr, momentum=0.9)
        self.to = to

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.to.append(vector(self.param_groups[0]["params"]))
        return result


def vector(parameters: Any) -> Tensor:
    return torch.nn.utils.parameters_to_vector(parameters).detach().clone()


def by_hand(visited: list[Tensor], decay: float) -> Tensor:
    n = torch.arange(len(visited))
    share = decay ** (len(visited) - 1 - n.double())
    return (share / share.sum()) @ torch.stack(visited)


def trained(*programs: torch.nn.Module) -> Tensor:
    return vector(p for program in programs for p in program.parameters())


def test_a_run_ends_with_the_average_of_what_it_visits_and_is_judged_by_it(x: Tensor, tmp_path: Path):
    visited: list[Tensor] = []
    plainly: list[Tensor] = []
    pair, plain, other = vae(), vae(), vae()
    seen: list[Tensor] = []
    own = USUAL | {"optimizer": Recorded, "optimizer_options": {"to": visited}, "validation": x[:20]}
    result = lvm.fit(*pair, x, run_dir=tmp_path / "run", on_epoch=lambda row: bool(seen.append(trained(*pair))), **own)
    lvm.fit(*plain, x, **own | {"weight_average": None, "optimizer_options": {"to": plainly}})
    assert len(visited) == 20
    assert same(visited, plainly), "training itself goes on from the weights, not from their average"
    for epoch, found in enumerate(seen):  # between epochs the programs have it too
        torch.testing.assert_close(found, by_hand(visited[: 4 * (epoch + 1)], 0.8), rtol=1e-12, atol=1e-14)
    assert torch.equal(trained(*pair), seen[-1])
    assert same(weights(*lvm.load(tmp_path / "run")), weights(*pair))  # type: ignore[arg-type]
    # The validation bound is that of the average: a run of one epoch that starts there and stands still has it.
    torch.nn.utils.vector_to_parameters(seen[-1], [p for program in other for p in program.parameters()])
    still = lvm.fit(*other, x, epochs=1, batch_size=16, learning_rate=1e-300, optimizer="SGD", validation=x[:20])
    assert still.history[-1]["validation"] == pytest.approx(result.history[-1]["validation"], rel=1e-12)


def test_the_best_epoch_is_the_best_averages(x: Tensor):
    pair, seen = vae(), list[Tensor]()
    settings = USUAL | {"epochs": 30, "learning_rate": 0.3, "optimizer": "SGD", "early_stopping": 2}
    result = lvm.fit(*pair, x, validation=x[:20], on_epoch=lambda _: bool(seen.append(trained(*pair))), **settings)
    assert result.best_epoch < len(result.history)
    assert result.best_epoch == 1 + max(range(len(seen)), key=result.history["validation"].__getitem__)
    assert torch.equal(trained(*pair), seen[result.best_epoch - 1])


@pytest.mark.parametrize("compile", [False, True])
def test_a_stopped_run_ends_as_one_that_was_not(compile: bool, x: Tensor, tmp_path: Path, no_compiler: None):
    settings = USUAL | {"validation": x[:20], "compile": compile, "early_stopping": 9}
    whole, again = vae(), vae(seed=1)
    expected = lvm.fit(*whole, x, **settings)
    lvm.fit(*vae(), x, run_dir=tmp_path / "run", on_epoch=after(2), **settings)
    result = lvm.fit(*again, x, run_dir=tmp_path / "run", resume=True, **settings)
    assert same(weights(*again), weights(*whole))
    assert rows(result) == rows(expected)
    with pytest.raises(ValueError, match=r"'weight_average' is 0\.9, but 0\.8 in the run"):
        lvm.fit(*again, x, run_dir=tmp_path / "run", resume=True, **settings | {"weight_average": 0.9})


def test_compiled_and_in_two_processes_it_is_the_same(x: Tensor, no_compiler: None):
    plain, compiled, together = vae(), vae(), vae()
    lvm.fit(*plain, x, **USUAL)
    lvm.fit(*compiled, x, compile=True, **USUAL)
    lvm.fit(*together, x, devices=2, **USUAL)
    for pair in (compiled, together):
        torch.testing.assert_close(trained(*pair), trained(*plain), rtol=1e-8, atol=1e-10)


def test_an_epoch_that_is_run_again_is_averaged_once(x: Tensor, no_compiler: None, monkeypatch: pytest.MonkeyPatch):
    plain, failing, checks = vae(), vae(), []

    def check(self: CompiledStep) -> None:
        checks.append(self)
        if len(checks) == 3:
            raise ReplayFailed("a weight is not finite")

    lvm.fit(*plain, x, **USUAL)
    monkeypatch.setattr(CompiledStep, "check", check)
    lvm.fit(*failing, x, compile=True, **USUAL)
    assert len(checks) == 3
    torch.testing.assert_close(trained(*failing), trained(*plain), rtol=1e-8, atol=1e-10)


def test_weights_of_half_precision_have_an_average_of_single(x: Tensor):
    w = torch.ones(1, dtype=torch.bfloat16)
    average = WeightAverage([w], 0.999)
    for n in range(1000):
        w.fill_(1 + n / 128)  # bfloat16 holds eight bits: the average would stand still
        average.update()
    share = 0.999 ** torch.arange(999, -1, -1).double()
    visited = (1 + torch.arange(1000) / 128).bfloat16().double()
    average.write()
    assert w.item() == pytest.approx(float(share @ visited / share.sum()), rel=2**-8)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_a_decay_outside_the_unit_interval_is_refused(decay: float, x: Tensor):
    with pytest.raises(ValueError, match=r"'weight_average' must lie between 0 and 1, such as 0\.999, not"):
        lvm.fit(*vae(), x, weight_average=decay)


def test_the_command_line_has_it(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["train", "ppca", "--weight-average", "2", "--run-dir", str(tmp_path / "run")]) != 0
    assert "'weight_average' must lie between 0 and 1" in capsys.readouterr().err
