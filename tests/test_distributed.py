"""Several processes: the same training as one, one writer, and an end together whatever happens to one of them."""

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn
from torch import distributed as group

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.fit import draws
from pyro_lvm.fit.draws import WholeDraws
from pyro_lvm.processes import OneProcess, ProcessLost, Share
from pyro_lvm.programs import data_plate

D, M, N = 6, 2, 203  # a multiple neither of the batch nor of the processes

Pair = tuple[Any, Any]


def vae(seed: int = 0) -> Pair:
    torch.manual_seed(seed)
    return (
        models.VAE(priors.StandardNormal(M), likelihoods.Normal(networks.MLP(M, D, (16,)))),
        guides.Amortized(posteriors.DiagonalNormal(networks.MLP(D, 2 * M, (16,)))),
    )


def mixture(seed: int = 0) -> Pair:
    torch.manual_seed(seed)
    model = models.BayesianGaussianMixture(D, 3)
    return model, guides.NormalWishart(model)


class SharedMean(nn.Module):
    """x = z W + m with a mean that all data share: a latent outside the data's plate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(M, D))

    def forward(self, x: Tensor | None = None, *, size: int | None = None) -> None:
        pyro.module("model", self)
        mean = pyro.sample("mean", dist.Normal(torch.zeros(D), 3.0).to_event(1))
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(M), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight + mean, 0.5).to_event(1), obs=x)


class MeanAndCode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.randn(D)), nn.Parameter(torch.zeros(D) - 2)
        self.encode = nn.Linear(D, M)

    def forward(self, x: Tensor, *, size: int | None = None) -> None:
        pyro.module("guide", self)
        pyro.sample("mean", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(self.encode(x), 0.5).to_event(1))


def shared_mean(seed: int = 0) -> Pair:
    torch.manual_seed(seed)
    return SharedMean(), MeanAndCode()


def weights(pair: Pair) -> list[Tensor]:
    return [t.detach().clone() for program in pair for t in program.state_dict().values()]


def furthest(a: Pair, b: Pair) -> float:
    return max(float((p - q).abs().max()) for p, q in zip(weights(a), weights(b), strict=True))


def same_history(a: lvm.FitResult, b: lvm.FitResult, rel: float) -> bool:
    return [list(row) for row in a.history] == [list(row) for row in b.history] and all(
        row[name] == pytest.approx(other[name], rel=rel)
        for row, other in zip(a.history, b.history, strict=True)
        for name in row
        if name != "seconds"
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(5))


# The same training as one process

CASES: dict[str, tuple[Callable[[], Pair], dict[str, Any]]] = {
    "elbo": (vae, {}),
    "iwae": (vae, {"objective": objectives.IWAE(5)}),
    "dreg": (vae, {"objective": objectives.IWAE(5, gradient="dreg")}),
    "one after another": (vae, {"objective": objectives.IWAE(3, vectorize_particles=False)}),
    "wake-sleep": (vae, {"objective": objectives.WakeSleep(2)}),
    "a free bit": (vae, {"objective": objectives.ELBO(free_bits=0.3, analytic_kl=True)}),
    "capacity": (vae, {"objective": objectives.Capacity(kl=1.0)}),
    "schedule": (vae, {"objective": objectives.ELBO(beta=objectives.Linear(0.0, 1.0, epochs=5))}),
    "pyro's own": (vae, {"objective": Trace_ELBO()}),
    "global latents": (mixture, {"objective": TraceEnum_ELBO(max_plate_nesting=1)}),
    "global latents, sampled": (mixture, {"objective": objectives.ELBO(2)}),
    "global latents, weighed": (shared_mean, {"objective": objectives.IWAE(5)}),
    "clipping and plateau": (vae, {"gradient_clip": 0.1, "scheduler": "ReduceLROnPlateau"}),
    "no validation": (vae, {"validation": None}),
    "momentum": (vae, {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}}),
}


LONGER = ("dreg", "a free bit", "capacity", "global latents, sampled", "no validation", "momentum")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONGER)) for n in CASES])
def test_two_processes_train_as_one_does(name: str, x: Tensor) -> None:
    make, given = CASES[name]
    settings = {"validation": x[:71], "epochs": 8, "batch_size": 32, "learning_rate": 0.01} | given  # 56 steps
    alone, together = make(), make()
    expected = lvm.fit(*alone, x, **settings)
    result = lvm.fit(*together, x, devices=2, **settings)
    assert furthest(alone, make()) > 1e-3
    assert furthest(alone, together) < 1e-10
    assert same_history(result, expected, 1e-9)


def test_in_single_precision(x: Tensor) -> None:
    pairs = [tuple(program.float() for program in vae()) for _ in range(2)]
    settings = {"objective": objectives.IWAE(5), "validation": x[:71], "epochs": 8, "batch_size": 32}
    results = [lvm.fit(*pair, x, devices=n, **settings) for n, pair in enumerate(pairs, start=1)]  # type: ignore[arg-type]
    assert furthest(*pairs) < 1e-6
    assert same_history(*results, 1e-5)


def test_batches_with_fewer_rows_than_processes(x: Tensor) -> None:
    """Batches of 2, 2 and 1 for three processes, and one datum to validate by."""
    pairs = [vae(), vae()]
    settings = {"validation": x[:1], "epochs": 10, "batch_size": 2, "learning_rate": 0.01}
    results = [lvm.fit(*pair, x[:5], devices=n, **settings) for n, pair in zip((1, 3), pairs, strict=True)]
    assert furthest(*pairs) < 1e-10
    assert same_history(*results, 1e-9)


def test_an_infinite_row_that_another_process_has_does_not_count_twice() -> None:
    shares = [Share(0, 1, 2, 1), Share(1, 2, 2, 1), Share(1, 2, 2, 0)]
    assert sum(share.counted for share in shares) == 2
    for total in range(1, 40):
        for size in range(1, 9):
            process = [_share_of(rank, size, total) for rank in range(size)]
            rows = [row for share in process for row in range(share.start, share.start + share.counted)]
            assert rows == list(range(total))
            assert max(share.counted for share in process) - min(share.counted for share in process) <= 1
            assert all(share.length >= 1 and share.stop <= total for share in process)


def _share_of(rank: int, size: int, total: int) -> Share:
    from pyro_lvm.processes import _share

    return _share(rank, size, total)


def test_early_stopping_stops_all_at_once(x: Tensor) -> None:
    pairs = [vae(), vae()]
    settings = {"validation": x[20:], "epochs": 300, "batch_size": 20, "early_stopping": 3, "learning_rate": 0.05}
    results = [lvm.fit(*pair, x[:20], devices=n, **settings) for n, pair in enumerate(pairs, start=1)]
    assert results[0].stopped_early
    assert results[1].stopped_early
    assert results[0].best_epoch == results[1].best_epoch == len(results[1].history) - 3
    assert furthest(*pairs) < 1e-9


def test_data_drawn_anew_are_drawn_alike(x: Tensor) -> None:
    pairs = [vae(), vae()]
    drawn = data.DynamicBinarisation(x.sigmoid())
    results = [lvm.fit(*p, drawn, devices=n, epochs=3, batch_size=32) for n, p in enumerate(pairs, start=1)]
    assert furthest(*pairs) < 1e-10
    assert same_history(*results, 1e-9)


def test_data_that_are_read_ahead_count_by_their_own_batch(x: Tensor, tmp_path: Path) -> None:
    """Two batches are read before they are used: the last of an epoch, a smaller one, weighs no other."""
    np.save(tmp_path / "x.npy", x.float().numpy())
    pairs = [vae(), vae()]
    settings = {"epochs": 3, "batch_size": 50, "compile": False}
    results = [
        lvm.fit(*pair, data.MappedDataset(tmp_path / "x.npy"), devices=n, **settings)  # type: ignore[arg-type]
        for n, pair in enumerate(pairs, start=1)
    ]
    assert furthest(*pairs) < 1e-10
    assert same_history(*results, 1e-9)


def test_an_objective_that_looks_at_the_whole_batch_is_not_captured(
    x: Tensor, caplog: pytest.LogCaptureFixture, no_compiler: None
) -> None:
    """A bound of fewest nats compares a mean over the batch, which the processes have to ask each other for."""
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 32, "objective": objectives.ELBO(free_bits=0.1)}
    pairs = [vae(), vae()]
    results = [lvm.fit(*pair, x, devices=n, compile=n == 2, **settings) for n, pair in enumerate(pairs, start=1)]
    assert "the processes of the run exchange numbers in the middle of it" in caplog.text
    assert results[1].history["train"] == pytest.approx(results[0].history["train"], rel=0.05)  # with other draws


def test_a_bound_of_data_alone_is_captured(x: Tensor, caplog: pytest.LogCaptureFixture, no_compiler: None) -> None:
    pairs = [vae(), vae()]
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 32}
    with caplog.at_level(logging.INFO, logger="pyro_lvm"):
        results = [lvm.fit(*pair, x, devices=n, compile=n == 2, **settings) for n, pair in enumerate(pairs, start=1)]
    assert "compiled the loss" in caplog.text
    assert "not compiled" not in caplog.text
    assert results[1].history["train"] == pytest.approx(results[0].history["train"], rel=0.05)  # with other draws


def test_parameters_that_a_step_does_not_use_stay_where_they_are(x: Tensor) -> None:
    class Idle(models.VAE):
        def __init__(self) -> None:
            super().__init__(priors.StandardNormal(M), likelihoods.Normal(networks.MLP(M, D, (4,))))
            self.idle = nn.Parameter(torch.ones(3))

    torch.manual_seed(0)
    pair = Idle(), vae()[1]
    lvm.fit(*pair, x, devices=2, epochs=1, optimizer="AdamW", learning_rate=0.1)
    assert torch.equal(pair[0].idle, torch.ones(3))  # and not decayed


def test_buffers_are_the_leaders(x: Tensor) -> None:
    """Running statistics are of a process's own data: all have the leader's at the end of an epoch."""

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.BatchNorm1d(D), nn.Linear(D, 2 * M))

        def forward(self, x: Tensor) -> Tensor:
            if group.is_initialized() and not self.training:
                means: list[Any] = [None] * group.get_world_size()
                group.all_gather_object(means, self.layers[0].running_mean.sum().item())
                assert means[0] == means[1] != 0
            return self.layers(x)

    torch.manual_seed(0)
    pair = vae()[0], guides.Amortized(posteriors.DiagonalNormal(Normalised()))
    lvm.fit(*pair, x[:64], devices=2, epochs=2, batch_size=32)


def test_many_processes_draw_each_for_themselves(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the training is the same in distribution: with many draws, nearly the same."""
    monkeypatch.setattr(draws, "ALIKE", 1)
    pairs, results = [vae(), vae(), vae()], []
    settings = {"validation": x, "epochs": 10, "batch_size": 32, "objective": objectives.ELBO(40)}
    for n, pair in zip((1, 2, 2), pairs, strict=True):
        results.append(lvm.fit(*pair, x, devices=n, learning_rate=0.01, **settings))  # type: ignore[arg-type]
    assert furthest(pairs[0], pairs[1]) > 1e-6
    assert furthest(pairs[1], pairs[2]) == 0  # the seed decides
    assert results[1].history[-1]["validation"] == pytest.approx(results[0].history[-1]["validation"], rel=0.01)


# Draws

FLOW = dist.transforms.affine_autoregressive(2, hidden_dims=(8,)).double()
DENSITIES: dict[str, Callable[[int], Any]] = {
    "normal": lambda n: dist.Normal(torch.zeros(n, 3), 1.0).to_event(1),
    "normal of a scalar": lambda n: dist.Normal(0.0, 1.0),
    "expanded": lambda n: dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "low rank": lambda n: dist.LowRankMultivariateNormal(torch.zeros(n, 3), torch.ones(n, 3, 2), torch.ones(n, 3)),
    "laplace": lambda n: dist.Laplace(torch.zeros(n), 1.0),
    "exponential": lambda n: dist.Exponential(torch.ones(n)),
    "cauchy": lambda n: dist.Cauchy(torch.zeros(n), 1.0),
    "gumbel": lambda n: dist.Gumbel(torch.zeros(n), 1.0),
    "uniform": lambda n: dist.Uniform(torch.zeros(n, 2), 1.0).to_event(1),
    "bernoulli": lambda n: dist.Bernoulli(torch.full((n, 4), 0.4)).to_event(1),
    "categorical": lambda n: dist.Categorical(torch.full((n, 4), 0.25)),
    "several codes": lambda n: dist.OneHotCategorical(torch.full((n, 3, 4), 0.25)).to_event(1),
    "relaxed": lambda n: dist.RelaxedOneHotCategorical(torch.tensor(0.5), torch.full((n, 4), 0.25)),
    "counts": lambda n: dist.Multinomial(5, torch.full((n, 4), 0.25)),
    "geometric": lambda n: dist.Geometric(torch.full((n,), 0.3)),
    "mixture": lambda n: dist.MixtureSameFamily(
        dist.Categorical(torch.full((n, 2), 0.5)), dist.Normal(torch.zeros(n, 2, 3), 1.0).to_event(1)
    ),
    "log-normal": lambda n: dist.LogNormal(torch.zeros(n), 1.0),
    "flow": lambda n: dist.TransformedDistribution(dist.Normal(torch.zeros(n, 2), 1.0).to_event(1), [FLOW]),
}


@pytest.mark.parametrize("particles", [None, 3])
@pytest.mark.parametrize("name", DENSITIES)
def test_shares_are_drawn_as_the_whole_batch_is(name: str, particles: int | None) -> None:
    total = 20

    def program(n: int) -> Tensor:
        with pyro.plate("data", n, dim=-1):
            return pyro.sample("z", DENSITIES[name](n))

    def drawn(share: Share) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        with WholeDraws(share, ["data"]):
            if particles is None:
                return program(share.length), torch.rand(1)
            with pyro.plate("particles", particles, dim=-2):
                return program(share.length), torch.rand(1)

    whole, after = drawn(Share(0, total, total, total))
    parts = [drawn(_share_of(rank, 3, total)) for rank in range(3)]
    torch.testing.assert_close(torch.cat([z for z, _ in parts], 0 if particles is None else 1), whole, rtol=0, atol=0)
    assert all(torch.equal(state, after) for _, state in parts)


def test_only_what_is_in_the_datas_plate_is_shared() -> None:
    """A plate of another name may have as many elements as the share."""
    share = Share(5, 10, 10, 5)
    draws = []
    for context in (WholeDraws(share, ["data"]), WholeDraws(Share(0, 10, 10, 10), ["data"])):
        torch.manual_seed(0)
        with context, pyro.plate("components", 5):
            draws.append(pyro.sample("m", dist.Normal(0.0, 1.0)))
    assert torch.equal(*draws)


# One writer


def test_the_folder_is_written_once_and_goes_on_with_any_number_of_processes(x: Tensor, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation": x[:71], "batch_size": 32, "learning_rate": 0.01}
    whole, calls = vae(), []
    expected = lvm.fit(*whole, x, epochs=6, run_dir=tmp_path / "one", **settings)
    for epochs, devices in ((2, 2), (4, 1), (6, 3)):
        pair = vae(seed=epochs - 2)  # only the first matters
        result = lvm.fit(
            *pair, x, epochs=epochs, devices=devices, run_dir=tmp_path / "run", resume=True,
            on_epoch=lambda row: calls.append(row["epoch"]), **settings,
        )  # fmt: skip
    assert furthest(pair, whole) < 1e-10
    assert same_history(result, expected, 1e-9)
    assert calls == [1, 2, 3, 4, 5, 6]
    names = {file.name for file in (tmp_path / "one").iterdir()}
    assert names - {file.name for file in (tmp_path / "run").iterdir()} <= {"checkpoint-0.safetensors"}
    assert furthest(lvm.load(tmp_path / "run"), whole) < 1e-10
    with pytest.raises(FileExistsError, match="is not empty"):
        lvm.fit(*vae(), x, devices=2, run_dir=tmp_path / "run", **settings)


def test_on_epoch_is_the_leaders_and_alone(x: Tensor, tmp_path: Path) -> None:
    seen = []

    def look(row: dict[str, float]) -> bool:
        (tmp_path / str(os.getpid())).touch()
        other = vae(1)
        lvm.fit(*other, x[:64], epochs=1, devices=2)  # a run of its own, by this process
        seen.append(float(lvm.log_likelihood(*other, x[:9], 50, seed=0).mean))
        return row["epoch"] == 2

    result = lvm.fit(*vae(), x, devices=2, epochs=5, batch_size=64, on_epoch=look)
    assert [file.name for file in tmp_path.iterdir()] == [str(os.getpid())]
    assert len(seen) == 2
    assert len(result.history) == 2


def test_nothing_global_is_left_changed(x: Tensor) -> None:
    torch.manual_seed(4)
    threads, environment, state = torch.get_num_threads(), dict(os.environ), torch.get_rng_state()
    lvm.fit(*vae(), x, devices=2, epochs=1)
    pair = vae()
    state = torch.get_rng_state()
    lvm.log_likelihood(*pair, x[:8], 30, seed=0, devices=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), dict(os.environ)) == (threads, environment)
    assert not group.is_initialized()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no process is left


# Ends


def test_a_number_that_is_not_finite_ends_all_with_one_message(x: Tensor) -> None:
    x = x.clone()
    x[150] = 1e200
    messages = []
    for devices in (1, 2):
        pair = vae()
        before = weights(pair)
        with pytest.raises(lvm.NonFiniteError) as error:
            lvm.fit(*pair, x, devices=devices, epochs=3, batch_size=32)
        assert error.value.site == "z"
        assert all(torch.equal(p, q) for p, q in zip(weights(pair), before, strict=True))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_an_infinite_validation_bound_ends_all(x: Tensor) -> None:
    far = x[:9].clone()
    far[8] = 1e200  # of the second process
    with pytest.raises(lvm.NonFiniteError, match="'validation' is -inf after it"):
        lvm.fit(
            models.ProbabilisticPCA(D, M), guides.LinearNormal(D, M), x, validation=far, devices=2, epochs=3,
        )  # fmt: skip


class Faulty(nn.Module):
    """A guide that does something of its own in the second process, once a file is there."""

    def __init__(self, fault: Callable[[], object], when: Path) -> None:
        super().__init__()
        self.guide, self.fault, self.when = vae()[1], fault, when

    def forward(self, x: Tensor, *, size: int | None = None) -> Any:
        if group.is_initialized() and group.get_rank() == 1 and self.when.exists():
            self.fault()
        return self.guide(x, size=size)


def complain() -> None:
    raise LookupError("no such word")


def test_an_error_of_one_process_is_raised_by_the_others(x: Tensor, tmp_path: Path) -> None:
    (tmp_path / "now").touch()
    start = time.monotonic()
    with pytest.raises(LookupError, match="no such word") as error:
        lvm.fit(vae()[0], Faulty(complain, tmp_path / "now"), x, devices=3, epochs=3)
    assert "in complain" in str(error.value.__cause__)  # where it happened
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("devices", [2, 4])
def test_a_killed_process_ends_the_run_which_goes_on_to_the_same_weights(
    devices: int, x: Tensor, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"validation": x[:71], "epochs": 6, "batch_size": 32, "learning_rate": 0.01}
    now, died = tmp_path / "now", tmp_path / "died"

    def die() -> None:
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    whole, pair = vae(), (vae()[0], Faulty(die, now))
    expected = lvm.fit(*whole, x, **settings)
    with pytest.raises(ProcessLost, match=r"process 1 of the run \(.*\) was killed by SIGKILL: 3 epochs.*resume=True"):
        lvm.fit(
            *pair, x, devices=devices, run_dir=tmp_path / "run", on_epoch=lambda row: row["epoch"] == 3 and now.touch(),
            **settings,
        )  # fmt: skip
    assert time.time() - died.stat().st_mtime < 8  # less than others are waited for: they ended by themselves
    now.unlink()
    assert (tmp_path / "run" / "checkpoint-3.safetensors").is_file()
    pair = vae(1)[0], Faulty(die, now)
    result = lvm.fit(*pair, x, devices=2, run_dir=tmp_path / "run", resume=True, **settings)
    assert same_history(result, expected, 1e-9)
    assert furthest(pair, whole) < 1e-10


SCRIPT = """
import os, sys
import torch
import pyro_lvm as lvm
from pyro_lvm import guides, models, objectives

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
x = torch.randn(203, 5)
torch.manual_seed(int(os.environ.get("RANK", 0)))  # every process begins with other weights
model, guide = models.ProbabilisticPCA(5, 2), guides.LinearNormal(5, 2)
"""

FIT = """
result = lvm.fit(model, guide, x, validation=x[:71], objective=objectives.IWAE(5), epochs=8, batch_size=32, **settings)
ll = lvm.log_likelihood(model, guides.ExactPPCA(model), x[:31], 50, seed=0)
sys.stdout.write(f"weights {sum(p.sum().item() for p in model.parameters()):.12f} epochs {len(result.history)} "
                 f"validation {result.history[-1]['validation']:.12f} ll {ll.mean():.12f}\\n")
"""


def script(tmp_path: Path, settings: str, *launcher: str, body: str = FIT) -> tuple[int, str, str]:
    file = tmp_path / "train.py"
    file.write_text(SCRIPT + f"settings = dict({settings})\n" + textwrap.dedent(body))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, str(file)], env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.slow
def test_a_plain_script_and_torchrun_give_what_one_process_gives(tmp_path: Path) -> None:
    """Without a guard around its main part; under torchrun every process has the result."""
    again = "model, guide = (p.__class__(5, 2) for p in (model, guide))\n"
    torchs = """
    rank = int(os.environ["RANK"])
    for given, word in (({"data": x + rank}, "data"), ({"data": x, "batch_size": 32 + rank}, "batch_size")):
        try:
            lvm.fit(model, guide, **given)
        except ValueError as error:
            assert f"'{word}' is" in str(error) and "all must be given the same" in str(error), error
        else:
            raise AssertionError("nothing was noticed")
    try:
        lvm.fit(model, guide, x, devices=3)
    except ValueError as error:
        assert "the launcher has started 2 processes" in str(error), error
    lvm.fit(model, guide, x, epochs=1)  # and after errors that all had, all is well
    sys.stdout.write("fine\\n")
    """
    plain = script(
        tmp_path, "devices=1", body=FIT + "torch.manual_seed(0)\n" + again + "settings = {'devices': 2}" + FIT
    )
    launched = script(tmp_path, "", *TORCHRUN, body=FIT + textwrap.dedent(torchs))
    assert (plain[0], launched[0]) == (0, 0), (plain, launched)
    lines = [line for _, out, _ in (plain, launched) for line in out.splitlines() if "weights" in line]
    assert len(lines) == 4
    numbers = [[float(number) for number in re.findall(r"[-\d.]+", line)] for line in lines]
    for other in numbers[1:]:
        assert other == pytest.approx(numbers[0], rel=1e-9)
    assert launched[1].count("fine") == 2, launched


@pytest.mark.slow
def test_a_process_of_torchrun_that_is_killed(tmp_path: Path) -> None:
    body = f"""
    import pathlib, signal
    run = pathlib.Path({str(tmp_path)!r}) / "run"
    class Dying(guides.LinearNormal):
        def forward(self, x, *, size=None):
            if os.environ["RANK"] == "1" and (run / "history.csv").exists() and not (run / "resumed").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x, size=size)
    torch.manual_seed(0)
    lvm.fit(model, Dying(5, 2), x, epochs=400, batch_size=32, run_dir=run)
    """
    start = time.monotonic()
    status, _, err = script(tmp_path, "", *TORCHRUN, body=body)
    assert status != 0
    assert re.search(r"process 0 of 2 has lost the connection.*: \d+ epochs: fit\(.*resume=True", err), err
    assert time.monotonic() - start < 60
    state = list((tmp_path / "run").glob("checkpoint-*"))
    assert max(int(file.name.split("-")[1].split(".")[0]) for file in state) >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("which", ["leader", "other"])
def test_a_signal_to_any_process_stops_all_at_the_end_of_a_step(
    which: str, number: signal.Signals, x: Tensor, tmp_path: Path
) -> None:
    me = os.getpid()

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            others = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            os.kill(me if which == "leader" else int(others[-1]), number)

    settings: dict[str, Any] = {"batch_size": 32, "run_dir": tmp_path / "run", "devices": 2}
    whole, pair = vae(), vae()
    expected = lvm.fit(*whole, x, batch_size=32, epochs=5)
    signals = {signal.SIGTERM: SystemExit, signal.SIGINT: KeyboardInterrupt}
    with pytest.raises(signals[number], match=r"143|stopped after 3 epochs: fit"):
        lvm.fit(*pair, x, epochs=500, on_epoch=stop, **settings)
    assert (tmp_path / "run" / "checkpoint-3.safetensors").is_file()
    result = lvm.fit(*vae(1), x, epochs=5, resume=True, **settings | {"devices": 1})
    assert same_history(result, expected, 1e-9)


# What is refused


def test_a_baseline_that_learns_from_whole_batches_is_refused(x: Tensor) -> None:
    class Coin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, *, size: int | None = None) -> None:
            with data_plate(x, size):
                infer = {"baseline": {"use_decaying_avg_baseline": True}}
                pyro.sample("z", dist.Bernoulli(logits=self.logit), infer=infer)

    def model(x: Tensor, *, size: int | None = None) -> None:
        with data_plate(x, size):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), D]).to_event(1), obs=x)

    lvm.fit(model, Coin(), x, epochs=1)
    with pytest.raises(ValueError, match="the baseline of 'z' learns from the rewards of whole batches"):
        lvm.fit(model, Coin(), x, epochs=1, devices=2)


def test_what_cannot_be_forked_is_told_of_torchrun(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match=r"CUDA already.*torchrun --nproc-per-node=2"):
        lvm.fit(*vae(), x, devices=2, accelerator="cpu")
    with pytest.raises(ValueError, match="'devices'"):
        lvm.log_likelihood(*vae(), x, devices=0)


# Log-likelihood


def test_log_likelihood_is_the_same_by_any_number_of_processes(x: Tensor) -> None:
    torch.manual_seed(0)
    model = models.ProbabilisticPCA(D, M)
    exact, loose = guides.ExactPPCA(model), guides.ExactPPCA(models.ProbabilisticPCA(D, M))
    loose.model.load_state_dict({n: 1.1 * v for n, v in model.state_dict().items()})
    truth = lvm.log_likelihood(model, exact, x, 5, seed=0)
    for devices in (2, 3):
        ll = lvm.log_likelihood(model, exact, x, 5, seed=0, devices=devices)
        torch.testing.assert_close(ll.as_subclass(Tensor), truth.as_subclass(Tensor))
    few = lvm.log_likelihood(model, exact, x[:2], 30, seed=0, devices=3)  # one process has none
    torch.testing.assert_close(few.as_subclass(Tensor), truth[:2].as_subclass(Tensor))
    assert few.khat.shape == few.ess.shape == few.standard_error.shape == (2,)
    # the errors that are given are those that are met
    estimates = [lvm.log_likelihood(model, loose, x, 200, seed=i, devices=2) for i in range(6)]
    z = torch.stack([(ll.mean - truth.mean) / ll.mean_standard_error for ll in estimates])
    assert 0.3 < float(z.square().mean().sqrt()) < 2.2  # six standard normals, at 0.1 %
    alone = lvm.log_likelihood(model, loose, x, 200, seed=0)
    assert float(estimates[0].mean_standard_error / alone.mean_standard_error) == pytest.approx(1, abs=0.3)
    z = (estimates[0] - truth) / estimates[0].standard_error
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25
    twice = lvm.log_likelihood(model, loose, x[:1].expand(40, D), 200, seed=0, devices=2)
    assert not bool((twice[:20] == twice[20:]).any())  # draws of their own


def test_an_error_in_a_share_is_raised(x: Tensor) -> None:
    x = x.clone()
    x[N - 1] = torch.inf
    with pytest.raises(data.DataError):
        lvm.log_likelihood(*vae(), x, 10, devices=2)


def test_one_process_tells_nobody() -> None:
    one, tensor = OneProcess(), torch.ones(3)
    assert one.leads
    assert one.whole(tensor, []) is tensor
    assert one.share(7) == Share(0, 7, 7, 7)
    assert one.share(7).of(tensor) is tensor[:7] or torch.equal(one.share(7).of(tensor), tensor)
    assert one.gather(3) == [3]
    assert one.first(None) is None
