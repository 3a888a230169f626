"""Runs that survive: a run that is stopped, however it is, ends as if it had not been."""

import csv
import errno
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import safetensors
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors
from pyro_lvm.checkpoint import read_checkpoint, write_checkpoint
from pyro_lvm.run_folder import RunFolder

D, M, N = 5, 2, 60


def vae(seed: int = 0, likelihood: str = "normal") -> tuple[models.VAE, guides.Amortized]:
    torch.manual_seed(seed)
    net = networks.MLP(M, D, (8,))
    decoder = likelihoods.Bernoulli(net) if likelihood == "bernoulli" else likelihoods.Normal(net)
    return (
        models.VAE(priors.StandardNormal(M), decoder),
        guides.Amortized(posteriors.DiagonalNormal(networks.MLP(D, 2 * M, (8,)))),
    )


def weights(*programs: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for program in programs for t in program.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def rows(result: lvm.FitResult) -> list[dict[str, float]]:
    """The history but for the clock's column."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]


def checkpoints(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("checkpoint-*"))


def after(epochs: int) -> Callable[[dict[str, float]], bool]:
    return lambda row: row["epoch"] == epochs


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written at every epoch."""
    monkeypatch.setattr("pyro_lvm.run_folder.SECONDS_BETWEEN_WEIGHTS", 0.0)


# Bitwise

SETTINGS: dict[str, dict[str, Any]] = {
    **{
        name: {"optimizer": name}
        for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "Rprop", "RMSprop", "ASGD")
    },
    "momentum": {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9, "nesterov": True}},
    "amsgrad": {"optimizer_options": {"amsgrad": True, "fused": False}},
    "LBFGS": {"optimizer": "LBFGS", "learning_rate": 1e-3, "batch_size": N},
    "cosine": {"scheduler": "CosineAnnealingLR"},
    "one cycle": {"scheduler": "OneCycleLR", "scheduler_options": {"max_lr": 0.02, "total_steps": 10}},
    "milestones": {"scheduler": "MultiStepLR", "scheduler_options": {"milestones": [2, 5]}},
    "plateau": {"scheduler": "ReduceLROnPlateau", "scheduler_options": {"patience": 0, "threshold": 1e9}},
    "a function's scheduler": {"scheduler": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: 0.9**e)},
    "early stopping": {"early_stopping": 2, "optimizer": "SGD", "learning_rate": 0.3},
    "patient": {"early_stopping": 9, "optimizer": "SGD", "learning_rate": 0.3},
    "clipping": {"gradient_clip": 0.1},
    "schedule": {"objective": objectives.ELBO(beta=objectives.Cyclical(0.0, 1.0, epochs=7))},
    "capacity": {"objective": objectives.Capacity(kl=0.5)},
    "iwae": {"objective": objectives.IWAE(4)},
    "cubo": {"objective": objectives.CUBO(2, 4)},
    "wake-sleep": {"objective": objectives.WakeSleep(2)},
    "pyro's own": {"objective": pyro.infer.Trace_ELBO()},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stopped_run_ends_with_the_weights_and_history_of_one_that_was_not(
    name: str, x: Tensor, tmp_path: Path
) -> None:
    settings = {"validation": x[:20], "epochs": 10, "batch_size": 16, "learning_rate": 0.02} | SETTINGS[name]
    whole, stopped, again = vae(), vae(), vae(seed=1)  # the last is made anew, with other weights
    expected = lvm.fit(*whole, x, **settings)
    lvm.fit(*stopped, x, run_dir=tmp_path / "run", on_epoch=after(4), **settings)
    torch.rand(7)
    result = lvm.fit(*again, x, run_dir=tmp_path / "run", resume=True, **settings)
    assert same(weights(*again), weights(*whole))
    assert rows(result) == rows(expected)
    assert (result.best_epoch, result.stopped_early) == (expected.best_epoch, expected.stopped_early)
    assert result.history["seconds"] == sorted(result.history["seconds"])
    assert same(weights(*lvm.load(tmp_path / "run")), weights(*whole))  # type: ignore[arg-type]
    with (tmp_path / "run" / "history.csv").open() as lines:
        written = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    assert written == list(result.history)


def test_a_run_may_be_stopped_after_any_epoch_and_any_number_of_times(x: Tensor, tmp_path: Path) -> None:
    settings = {"validation": x[:20], "epochs": 6, "batch_size": 16, "early_stopping": 2, "learning_rate": 0.1}
    whole = vae()
    expected = lvm.fit(*whole, x, **settings)
    for epoch in range(1, len(expected.history) + 1):
        again = vae(seed=epoch - 1)  # only the first matters
        result = lvm.fit(*again, x, run_dir=tmp_path / "run", resume=True, on_epoch=after(epoch), **settings)
        assert rows(result) == rows(expected)[:epoch]
    assert same(weights(*again), weights(*whole))
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == len(expected.history) + 1


def test_single_precision_under_a_double_default(x: Tensor, tmp_path: Path) -> None:
    """What an optimiser keeps in another precision than its parameters' comes back in that."""
    runs = []
    for resume in (False, True):
        pair = tuple(program.float() for program in vae())
        for stop in (3, 8) if resume else (8,):
            folder = {"run_dir": tmp_path / "run", "resume": True} if resume else {}
            lvm.fit(*pair, x, epochs=8, batch_size=16, optimizer="NAdam", on_epoch=after(stop), **folder)
        runs.append(weights(*pair))
    assert same(*runs)


def test_buffers_and_data_drawn_anew_survive(tmp_path: Path) -> None:
    class Normalised(nn.Module):
        """A network with running statistics."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Linear(8, 2 * M))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    def pair(seed: int) -> tuple[models.VAE, guides.Amortized]:
        model, _ = vae(seed, "bernoulli")
        return model, guides.Amortized(posteriors.DiagonalNormal(Normalised()))

    drawn = data.DynamicBinarisation(torch.full((N, D), 0.4))
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 15}
    whole, stopped, again = pair(0), pair(0), pair(1)
    expected = lvm.fit(*whole, drawn, **settings)
    lvm.fit(*stopped, drawn, run_dir=tmp_path / "run", on_epoch=after(3), **settings)
    result = lvm.fit(*again, drawn, run_dir=tmp_path / "run", resume=True, **settings)
    assert same(weights(*again), weights(*whole))
    assert rows(result) == rows(expected)


def test_bare_parameters_of_functions_survive(x: Tensor, tmp_path: Path) -> None:
    def pair() -> tuple[Any, Any]:
        def model(x: Tensor) -> None:
            scale = pyro.param("scale", torch.tensor(3.0), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z.unsqueeze(-1), scale).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            slope = pyro.param("slope", lambda: torch.randn(()))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(slope * x.mean(-1), 0.5))

        return model, guide

    expected = lvm.fit(*pair(), x, epochs=6, batch_size=20)
    lvm.fit(*pair(), x, epochs=6, batch_size=20, run_dir=tmp_path / "run", on_epoch=after(2))
    result = lvm.fit(*pair(), x, epochs=6, batch_size=20, run_dir=tmp_path / "run", resume=True)
    assert rows(result) == rows(expected)


def test_the_callers_random_state_is_not_touched(x: Tensor, tmp_path: Path) -> None:
    lvm.fit(*vae(), x, epochs=4, batch_size=20, run_dir=tmp_path / "run", on_epoch=after(2))
    pair = vae()
    before = torch.get_rng_state()
    lvm.fit(*pair, x, epochs=4, batch_size=20, run_dir=tmp_path / "run", resume=True)
    assert torch.equal(torch.get_rng_state(), before)


# Killed


def test_a_kill_before_old_checkpoints_went_leaves_no_more_of_them(x: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=folder)
    (folder / "checkpoint-1.safetensors").write_bytes((folder / "checkpoint-0.safetensors").read_bytes())
    assert checkpoints(folder) == [f"checkpoint-{epoch}.safetensors" for epoch in (0, 1, 3)]
    lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=folder, resume=True)
    assert checkpoints(folder) == [f"checkpoint-{epoch}.safetensors" for epoch in (1, 3)]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import pyro_lvm as lvm
from pyro_lvm import guides, models, objectives, run_folder
from lightning_fabric import Fabric  # before forking, which takes a copy of what is imported

runs, seed, folder, how = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
if how == "graph":
    import torch._inductor.config
    torch._inductor.config.cpp.cxx = ("no-such-compiler",)
torch.set_default_dtype(torch.float64)
run_folder.SECONDS_BETWEEN_WEIGHTS = 0.0  # as much writing as can be
x = torch.randn(40, 5, generator=torch.Generator().manual_seed(5))

def train(path):
    torch.manual_seed(os.getpid())
    model, guide = models.ProbabilisticPCA(5, 2), guides.LinearNormal(5, 2)
    for part in (model, guide):  # the same at every start, whichever process it is
        for i, p in enumerate(part.parameters()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    objective = objectives.ELBO(beta=objectives.Linear(0.0, 1.0, epochs=9))
    lvm.fit(model, guide, x, objective=objective, validation=x[:20], epochs=25, batch_size=20, early_stopping=20,
            scheduler="ExponentialLR", scheduler_options={"gamma": 0.9}, run_dir=path, resume=True,
            compile=how != "eager")

def child(path):
    pid = os.fork()
    if pid == 0:
        try:
            train(path)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid

def seconds(path):
    start = time.monotonic()
    assert os.waitpid(child(path), 0)[1] == 0
    return time.monotonic() - start

whole = min(seconds(folder / name) for name in ("whole", "again", "and again"))  # the least that others left it
random.seed(seed)
kills = writing = 0
for run in range(runs):
    path = folder / str(run)
    while True:
        pid = child(path)
        time.sleep(random.uniform(0.0, whole))
        os.kill(pid, signal.SIGKILL)  # a zombie if it has ended
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0, f"run {run} failed"
            break
        kills += 1
        writing += path.is_dir() and any(path.glob(".*.tmp"))
print(kills, writing)
"""


def killed_runs(tmp_path: Path, runs: int, seed: int, how: str = "eager") -> tuple[int, int]:
    """Kills runs at random times until they end; the kills, and those while a file was being written."""
    argv = [sys.executable, "-c", KILLS, str(runs), str(seed), str(tmp_path), how]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = safetensors.torch.load_file(tmp_path / "whole" / "model.safetensors")
    columns = [row.rsplit(",", 1)[0] for row in (tmp_path / "whole" / "history.csv").read_text().splitlines()]
    for run in range(runs):
        found = safetensors.torch.load_file(tmp_path / str(run) / "model.safetensors")
        assert found.keys() == expected.keys()
        assert same(list(found.values()), list(expected.values())), f"run {run}"
        lines = (tmp_path / str(run) / "history.csv").read_text().splitlines()
        assert [row.rsplit(",", 1)[0] for row in lines] == columns
        assert not list((tmp_path / str(run)).glob(".*.tmp"))
        assert checkpoints(tmp_path / str(run)) == ["checkpoint-24.safetensors", "checkpoint-25.safetensors"]
    kills, writing = map(int, done.stdout.split())
    return kills, writing


def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path) -> None:
    kills, writing = killed_runs(tmp_path, runs=20, seed=0)
    assert kills >= 20
    assert writing >= 1, "no kill fell into a writing"


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    kills, writing = killed_runs(tmp_path, runs=200, seed=1)
    assert kills >= 200
    assert writing >= 20


# Stopped by a signal


class Loud(torch.optim.Adam):
    """Sends the process a signal in its eighth step."""

    def __init__(self, parameters: Any, lr: float, number: int) -> None:
        super().__init__(parameters, lr=lr)
        self.number, self.steps = number, 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        if self.steps == 8:
            os.kill(os.getpid(), self.number)
        return super().step(closure)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_finishes_the_step_saves_the_last_epoch_and_says_how_to_continue(
    number: int, error: type[BaseException], x: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, pair, whole, again, two = tmp_path / "run", vae(), vae(), vae(seed=1), vae()
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    # Three steps an epoch: it comes in the third epoch's second.
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 20, "optimizer": Loud}
    with caplog.at_level(logging.WARNING, "pyro_lvm"), pytest.raises(error) as stopped:
        lvm.fit(*pair, x, run_dir=folder, optimizer_options={"number": number}, **settings)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    said = [*caplog.messages, str(stopped.value)]
    assert f"stopped after 2 epochs: fit(..., run_dir='{folder}', resume=True) goes on" in said[0]
    assert error is KeyboardInterrupt or said[1:] == ["143"]
    assert checkpoints(folder) == ["checkpoint-0.safetensors", "checkpoint-2.safetensors"]
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    lvm.fit(*two, x, optimizer_options={"number": 0}, **settings | {"epochs": 2})
    assert same(weights(*pair), weights(*two))
    assert same(weights(*lvm.load(folder)), weights(*two))  # type: ignore[arg-type]

    state = read_checkpoint(folder / "checkpoint-2.safetensors")
    state["settings"]["optimizer_options"] = {"number": 0}  # quiet from now on
    write_checkpoint(folder / "checkpoint-2.safetensors", state)
    expected = lvm.fit(*whole, x, optimizer_options={"number": 0}, **settings)
    result = lvm.fit(*again, x, run_dir=folder, resume=True, optimizer_options={"number": 0}, **settings)
    assert rows(result) == rows(expected)
    assert same(weights(*again), weights(*whole))


def test_a_signal_that_is_ignored_is_ignored(x: Tensor, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings: dict[str, Any] = {"optimizer": Loud, "optimizer_options": {"number": signal.SIGTERM}}
    try:
        assert len(lvm.fit(*vae(), x, epochs=4, batch_size=20, run_dir=tmp_path / "run", **settings).history) == 4
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


LONG = """
import sys
import torch
import pyro_lvm as lvm
from pyro_lvm import guides, models

lvm.fit(models.ProbabilisticPCA(5, 2), guides.LinearNormal(5, 2), torch.randn(40, 5), epochs=10**9, batch_size=20,
        compile=False, run_dir=sys.argv[1],
        on_epoch=lambda row: print("training", flush=True) if row["epoch"] == 1 else None)
"""


def test_the_process_exits_as_one_that_was_terminated_and_the_lock_goes_with_it(x: Tensor, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LONG, str(tmp_path / "run")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "training\n"
        with pytest.raises(FileExistsError, match="is being written by another run"):
            lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run", resume=True)
        other.terminate()
        _, said = other.communicate()
    assert other.returncode == 143
    assert said.startswith("stopped after ")
    assert said.count("\n") == 1
    lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run", overwrite=True)


def test_a_signal_in_the_last_epoch_is_told_when_all_is_saved(x: Tensor, tmp_path: Path) -> None:
    pair, whole = vae(), vae()
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after 3 epochs"):
        lvm.fit(*pair, x, epochs=3, batch_size=20, run_dir=tmp_path / "run", on_epoch=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    lvm.fit(*whole, x, epochs=3, batch_size=20)
    assert same(weights(*lvm.load(tmp_path / "run")), weights(*whole))  # type: ignore[arg-type]


def test_a_second_signal_does_not_wait(x: Tensor, tmp_path: Path) -> None:
    def insist(row: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it waited")

    with pytest.raises(KeyboardInterrupt):
        lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=tmp_path / "run", on_epoch=insist)
    assert "checkpoint-1.safetensors" in checkpoints(tmp_path / "run")


def test_in_another_thread_signals_are_left_alone(x: Tensor, tmp_path: Path) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def train() -> None:
        lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run", on_epoch=look)

    def look(row: dict[str, float]) -> None:
        seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_an_epoch_that_ends_early_leaves_the_weights_of_the_last_one(x: Tensor, tmp_path: Path) -> None:
    class Fails(objectives.ELBO):
        steps = 0

        def advance(self, epochs: float) -> None:
            self.steps += 1
            if self.steps == 5:
                raise RuntimeError("of the user's own")

    pair, two = vae(), vae()
    with pytest.raises(RuntimeError, match="of the user's own"):
        lvm.fit(*pair, x, objective=Fails(), epochs=9, batch_size=30, run_dir=tmp_path / "run")
    lvm.fit(*two, x, epochs=2, batch_size=30)
    assert same(weights(*pair), weights(*two))
    assert "checkpoint-2.safetensors" in checkpoints(tmp_path / "run")


# What it refuses


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batch_size": 10}, "'batch_size' is 10, but 20 in the run in"),
        ({"learning_rate": 0.1}, "'learning_rate' is 0.1, but 0.001 in"),
        ({"optimizer": "SGD"}, "'optimizer' is SGD, but Adam in"),
        ({"optimizer_options": {"betas": (0.5, 0.9)}}, r"'optimizer_options' is .*\[0.5, 0.9\].* but null in"),
        ({"scheduler": "ExponentialLR", "scheduler_options": {"gamma": 0.9}}, "'scheduler' is ExponentialLR, but null"),
        ({"gradient_clip": 1.0}, "'gradient_clip'"),
        ({"early_stopping": 3}, "'early_stopping'"),
        ({"seed": 1}, "'seed' is 1, but 0"),
        ({"precision": "bf16-mixed"}, "'precision' is bf16-mixed, but 64-true"),
        ({"objective": objectives.IWAE(5)}, r"'objective' is IWAE\(gradient='standard', num_particles=5.*, but ELBO\("),
        ({"objective": objectives.ELBO(3)}, r"'objective' is ELBO\(.*num_particles=3"),
        ({"objective": objectives.ELBO(beta=objectives.Linear(0, 1, 5))}, r"'objective' is ELBO\(.*beta=Linear\("),
        ({"validation": torch.zeros(9, D)}, "'validation' is 9 of shape"),
        ({"data": torch.ones(N, D)}, rf"'data' is {N} of shape \({D},\), checksum .* but {N} of shape"),
        ({"data": torch.ones(N + 1, D)}, f"'data' is {N + 1} of shape"),
        ({"epochs": 3}, "'epochs' = 3 are fewer than the 4"),
    ],
)
def test_other_settings_or_data_are_refused_by_name(
    settings: dict[str, Any], match: str, x: Tensor, tmp_path: Path
) -> None:
    folder, (model, guide) = tmp_path / "run", vae()
    lvm.fit(model, guide, x, validation=x[:20], epochs=6, batch_size=20, run_dir=folder, on_epoch=after(4))
    given = {"model": model, "guide": guide, "data": x, "validation": x[:20], "epochs": 6, "batch_size": 20} | settings
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match=match) as error:
        lvm.fit(**given, run_dir=folder, resume=True)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_other_programs_are_refused_by_the_names_of_their_parameters(x: Tensor, tmp_path: Path) -> None:
    model, guide = vae()
    lvm.fit(model, guide, x, epochs=2, batch_size=20, run_dir=tmp_path / "run")
    wider = guides.Amortized(posteriors.DiagonalNormal(networks.MLP(D, 2 * M, (9,))))
    for pair in ((models.ProbabilisticPCA(D, M), guide), (model, wider), (model, guides.LinearNormal(D, M))):
        with pytest.raises(ValueError, match=r"'model' or 'guide' is not what the run in .* differ in \['holders\."):
            lvm.fit(*pair, x, epochs=2, batch_size=20, run_dir=tmp_path / "run", resume=True)


def test_settings_that_contradict_are_refused(x: Tensor, tmp_path: Path) -> None:
    for settings, match in (
        ({"resume": True}, "'resume' = True is about the run in a folder: give 'run_dir'"),
        ({"overwrite": True}, "'overwrite' = True is about"),
        ({"resume": True, "overwrite": True, "run_dir": tmp_path / "run"}, "cannot both be True"),
    ):
        with pytest.raises(ValueError, match=match):
            lvm.fit(*vae(), x, **settings)  # type: ignore[arg-type]


def test_a_folder_without_a_checkpoint_is_begun_or_refused(x: Tensor, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 20, "resume": True}
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "config.json").write_text("{}")  # all that a run had written
    (tmp_path / "killed" / ".checkpoint-0.safetensors.abc.tmp").write_text("half a chec")
    for name in ("absent", "empty", "killed"):
        assert len(lvm.fit(*vae(), x, run_dir=tmp_path / name, **settings).history) == 2
        assert not list((tmp_path / name).glob(".*.tmp"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("")
    with pytest.raises(ValueError, match="holds no checkpoint to resume from"):
        lvm.fit(*vae(), x, run_dir=tmp_path / "mine", **settings)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="a file is in the way"):
        lvm.fit(*vae(), x, run_dir=tmp_path / "file", **settings)


# Finished runs


def test_a_finished_run_is_returned_at_once(x: Tensor, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation": x[:20], "batch_size": 20, "run_dir": tmp_path / "run"}
    settings |= {"early_stopping": 2, "optimizer": "SGD", "learning_rate": 0.3, "epochs": 99}
    whole, again = vae(), vae(seed=1)
    expected = lvm.fit(*whole, x, **settings)
    assert expected.stopped_early
    assert expected.best_epoch < len(expected.history)
    for epochs in (99, 200):  # what has stopped early stays so
        result = lvm.fit(*again, x, **settings | {"resume": True, "epochs": epochs}, on_epoch=lambda row: 1 / 0)
        assert list(result.history) == list(expected.history)
        assert (result.best_epoch, result.stopped_early) == (expected.best_epoch, True)
        assert result.run_dir == tmp_path / "run"
        assert same(weights(*again), weights(*whole))


def test_epochs_may_grow(x: Tensor, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation": x[:20], "batch_size": 20, "early_stopping": 50}
    whole, again = vae(), vae()
    expected = lvm.fit(*whole, x, epochs=9, **settings)
    lvm.fit(*again, x, epochs=4, run_dir=tmp_path / "run", **settings)
    result = lvm.fit(*again, x, epochs=9, run_dir=tmp_path / "run", resume=True, **settings)
    assert rows(result) == rows(expected)
    assert same(weights(*again), weights(*whole))
    assert RunFolder(tmp_path / "run").config()["epochs"] == 9
    lvm.fit(*vae(), x, epochs=4, batch_size=20, scheduler="CosineAnnealingLR", run_dir=tmp_path / "cosine")
    with pytest.raises(ValueError, match=r"'scheduler_options' is .*\"T_max\": 9.* but .*\"T_max\": 4"):
        lvm.fit(
            *vae(), x, epochs=9, batch_size=20, scheduler="CosineAnnealingLR", run_dir=tmp_path / "cosine", resume=True
        )


# Damage


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


def edited(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"best_epoch", b"best_epocH"))


def foreign(file: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3)}, file)


def another_format(file: Path) -> None:
    safetensors.torch.save_file({}, file, {"format": "pyro-lvm checkpoint 7", "sha256": "", "state": "{}"})


def pickled(file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, file)


@pytest.mark.parametrize("damage", [cut, emptied, changed, edited, foreign, another_format, pickled])
@pytest.mark.usefixtures("every_epoch")
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    damage: Callable[[Path], None], x: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, whole, again = tmp_path / "run", vae(), vae(seed=1)
    expected = lvm.fit(*whole, x, epochs=6, batch_size=20)
    lvm.fit(*vae(), x, epochs=6, batch_size=20, run_dir=folder, on_epoch=after(4))
    assert checkpoints(folder) == ["checkpoint-3.safetensors", "checkpoint-4.safetensors"]
    damage(folder / "checkpoint-4.safetensors")
    with caplog.at_level(logging.WARNING, "pyro_lvm"):
        result = lvm.fit(*again, x, epochs=6, batch_size=20, run_dir=folder, resume=True)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"'{folder}/checkpoint-4.safetensors' is ")
    assert caplog.messages[0].endswith(" It is left out.")
    assert rows(result) == rows(expected)
    assert same(weights(*again), weights(*whole))
    assert checkpoints(folder) == ["checkpoint-5.safetensors", "checkpoint-6.safetensors"]
    for file in folder.glob("checkpoint-*"):
        damage(file)
    with pytest.raises(ValueError, match=r"cannot be resumed, for no checkpoint is whole: .*checkpoint-6.*overwrite"):
        lvm.fit(*vae(), x, epochs=6, batch_size=20, run_dir=folder, resume=True)


def test_damaged_checkpoints_later_than_the_one_gone_on_from_are_removed(x: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lvm.fit(*vae(), x, epochs=6, batch_size=20, run_dir=folder, on_epoch=after(2))
    (folder / "checkpoint-50.safetensors").write_bytes(b"damaged")
    lvm.fit(*vae(), x, epochs=6, batch_size=20, run_dir=folder, resume=True)
    assert checkpoints(folder) == ["checkpoint-2.safetensors", "checkpoint-6.safetensors"]


# A disk that is full or gone


@pytest.mark.usefixtures("every_epoch")
def test_a_full_disk_is_told_once_and_training_goes_on(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, whole, pair, again = tmp_path / "run", vae(), vae(), vae(seed=1)
    expected = lvm.fit(*whole, x, epochs=8, batch_size=20)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            monkeypatch.setattr(os, "fsync", full)
        if row["epoch"] == 5:
            assert checkpoints(folder) == ["checkpoint-1.safetensors", "checkpoint-2.safetensors"]
            read_checkpoint(folder / "checkpoint-2.safetensors")
            monkeypatch.setattr(os, "fsync", fsync)

    with caplog.at_level(logging.WARNING, "pyro_lvm"):
        result = lvm.fit(*pair, x, epochs=8, batch_size=20, run_dir=folder, on_epoch=fill)
    assert caplog.messages == [
        f"'run_dir' = '{folder}' cannot be written: No space left on device. What was saved before is whole, and this "
        "stops no run."
    ]
    assert rows(result) == rows(expected)
    assert same(weights(*pair), weights(*whole))
    assert len((folder / "history.csv").read_text().splitlines()) == 9
    assert not list(folder.glob(".*.tmp"))

    # To the end, it must not seem to have been saved.
    with pytest.raises(OSError, match=r"No space left on device\. The trained programs are in memory"):
        lvm.fit(
            *vae(),
            x,
            epochs=8,
            batch_size=20,
            run_dir=tmp_path / "other",
            on_epoch=lambda row: row["epoch"] == 5 and monkeypatch.setattr(os, "fsync", full),
        )
    monkeypatch.setattr(os, "fsync", fsync)
    assert rows(lvm.fit(*again, x, epochs=8, batch_size=20, run_dir=tmp_path / "other", resume=True)) == rows(expected)
    assert same(weights(*again), weights(*whole))


def test_a_full_disk_does_not_hide_what_ended_the_run(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(row: dict[str, float]) -> None:
        monkeypatch.setattr(os, "fsync", full)
        raise RuntimeError("of the user's own")

    with caplog.at_level(logging.WARNING, "pyro_lvm"), pytest.raises(RuntimeError, match="of the user's own"):
        lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=tmp_path / "run", on_epoch=fails)
    assert [message.count("cannot be written: No space left") for message in caplog.messages] == [1]
    assert checkpoints(tmp_path / "run") == ["checkpoint-0.safetensors"]
    read_checkpoint(tmp_path / "run" / "checkpoint-0.safetensors")


FULL = """
import resource, sys
import torch
import pyro_lvm as lvm
from pyro_lvm import guides, models, run_folder

run_folder.SECONDS_BETWEEN_WEIGHTS = 0.0
torch.manual_seed(0)
x = torch.randn(40, 5)
limit = lambda row: row["epoch"] == 2 and resource.setrlimit(resource.RLIMIT_FSIZE, (3000, -1)) is not None
lvm.fit(models.ProbabilisticPCA(5, 2), guides.LinearNormal(5, 2), x, epochs=5, batch_size=20, run_dir=sys.argv[1],
        on_epoch=limit)
"""


def test_a_file_that_may_grow_no_more_stops_the_run_at_its_end_in_one_sentence(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", FULL, str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("File too large. What was saved before is whole, and this stops no run.") == 1
    assert done.stderr.splitlines()[-1].startswith(f"OSError: 'run_dir' = '{tmp_path}/run' cannot be written: File too")
    assert checkpoints(tmp_path / "run") == ["checkpoint-1.safetensors", "checkpoint-2.safetensors"]
    assert len(read_checkpoint(tmp_path / "run" / "checkpoint-2.safetensors")["history"]) == 2
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run")
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    for folder, settings in (("run", {"resume": True}), ("run", {"overwrite": True}), ("other", {})):
        with pytest.raises(OSError, match=f"'run_dir' = '{tmp_path}/{folder}' cannot be written: Read-only file sys"):
            lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=tmp_path / folder, **settings)  # type: ignore[arg-type]


# One run a folder


def test_two_runs_cannot_write_one_folder(x: Tensor, tmp_path: Path) -> None:
    refused = []

    def second(row: dict[str, float]) -> None:
        for settings in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(FileExistsError, match=f"'run_dir' = '{tmp_path}/run' is being written by another run"):
                lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run", **settings)
            refused.append(row)

    lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "run", on_epoch=second)
    assert len(refused) == 4
    lvm.fit(*vae(), x, epochs=3, batch_size=20, run_dir=tmp_path / "run", resume=True)


def test_overwrite_replaces_a_run_and_nothing_else(x: Tensor, tmp_path: Path) -> None:
    folder, pair = tmp_path / "run", vae()
    lvm.fit(*vae(), x, epochs=9, batch_size=20, run_dir=folder, seed=1)
    (folder / "evaluation.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    result = lvm.fit(*pair, x, epochs=2, batch_size=20, run_dir=folder, overwrite=True)
    assert len(result.history) == 2
    assert RunFolder(folder).config()["seed"] == 0
    assert len(RunFolder(folder).history()) == 2
    assert same(weights(*lvm.load(folder)), weights(*pair))  # type: ignore[arg-type]
    names = {"config.json", "history.csv", "model.safetensors", "notes.txt", *checkpoints(folder)}
    assert {file.name for file in folder.iterdir()} == names | {".lock"}
    assert checkpoints(folder) == ["checkpoint-0.safetensors", "checkpoint-2.safetensors"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "history.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty and no run's folder, so 'overwrite' leaves it alone"):
        lvm.fit(*vae(), x, epochs=2, batch_size=20, run_dir=tmp_path / "home", overwrite=True)
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["history.csv"]


# When it writes


def test_writing_follows_the_clock_and_not_the_epochs(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    seen = []

    def tick(row: dict[str, float]) -> None:
        seen.append(checkpoints(tmp_path / "run")[-1])
        clock[0] += 2.0

    lvm.fit(*vae(), x, epochs=8, batch_size=20, run_dir=tmp_path / "run", on_epoch=tick)
    assert [name.split(".")[0] for name in seen] == [f"checkpoint-{i}" for i in (0, 0, 0, 4, 4, 4, 7, 7)]
    assert checkpoints(tmp_path / "run") == ["checkpoint-7.safetensors", "checkpoint-8.safetensors"]


# The file


def test_a_file_holds_values_exactly_and_nothing_that_is_executed(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    state = {
        "tensors": [torch.zeros(()), torch.empty(0, 3), shared.T, shared[0], torch.tensor([math.nan, -0.0, math.inf])],
        "types": {
            str(t): torch.ones(2, dtype=t)
            for t in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32)
        },
        "floats": [0.1 + 0.2, 5e-324, -0.0, math.inf, -math.inf, math.nan, 1e308],
        "others": (None, True, 2**70, "é", {3: (1, [2])}, {}, [], ()),
    }
    file = tmp_path / "state"
    write_checkpoint(file, state)
    again = read_checkpoint(file)
    assert repr(again) == repr(state)
    for was, now in zip(state["tensors"], again["tensors"], strict=True):
        assert (now.dtype, now.shape) == (was.dtype, was.shape)
        assert now.numpy().tobytes() == was.numpy().tobytes()
    with safetensors.safe_open(file, framework="pt") as opened:  # the whole format: JSON and numbers
        assert opened.metadata()["format"] == "pyro-lvm checkpoint 1"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_file_cannot_hold_is_named(x: Tensor, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold 'scheduler/own/1', which is a function"):
        write_checkpoint(tmp_path / "state", {"scheduler": {"own": [1, lambda: None]}})
    with pytest.raises(TypeError, match=r"cannot hold tensors of type torch\.complex128"):
        write_checkpoint(tmp_path / "state", {"x": torch.zeros(2, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []

    class Own(torch.optim.lr_scheduler.LRScheduler):
        def __init__(self, optimizer: Any) -> None:
            self.rule = abs
            super().__init__(optimizer)

        def get_lr(self) -> list[Any]:
            return [0.1]

    pair = vae()
    before = weights(*pair)
    with pytest.raises(TypeError, match="cannot hold 'scheduler/rule', which is a builtin_function"):
        lvm.fit(*pair, x, epochs=2, batch_size=20, scheduler=Own, run_dir=tmp_path / "run")
    assert same(weights(*pair), before)
