"""`pyro-lvm resume`, and what `train --overwrite` and a stop leave."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from cli_calls import SMALL, Call, after_epoch
from safetensors.torch import load_file

from pyro_lvm import workflow
from pyro_lvm.run_folder import RunFolder

OWN = ("--latent-dim", "4", "--hidden-features", "16")


def test_a_stopped_run_goes_on_to_the_same_weights_and_is_evaluated(
    trained: Path, call: Call, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        after_epoch(1, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        called = call("train", "vae", *OWN, "--run-dir", run, *SMALL)
    assert called.status == 130
    assert called.err.count("\n") == 1
    assert f"stopped after 1 epochs: '{run}' holds" in called.err
    assert f"`pyro-lvm resume {run}` goes on." in called.err
    assert not (run / "evaluation.json").exists()

    called = call("resume", run)
    assert called.status == 0, called.err
    assert called.err == ""
    assert "test ELBO" in called.out
    assert "checkpoint-2.safetensors" in called.out
    assert ".lock" not in called.out
    one, other = (load_file(folder / "model.safetensors") for folder in (trained, run))
    assert one.keys() == other.keys()
    assert all(bool((one[name] == other[name]).all()) for name in one)
    numbers = [json.loads((folder / "evaluation.json").read_text())["numbers"] for folder in (trained, run)]
    assert numbers[0][:-1] == numbers[1][:-1]  # the last is the time it took
    assert json.loads((run / "config.json").read_text()) == json.loads((trained / "config.json").read_text())


def test_a_terminated_training_exits_with_its_status(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_epoch(1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    assert call("train", "vae", *OWN, "--run-dir", tmp_path / "run", *SMALL).status == 143
    assert len(RunFolder(tmp_path / "run").history()) == 1


def test_a_finished_run_is_evaluated_again_or_trained_for_longer(
    trained: Path, call: Call, tmp_path: Path, no_report: None
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    assert call("resume", run).status == 0
    assert [row["epoch"] for row in RunFolder(run).history()] == [1.0, 2.0]
    assert call("resume", run, "--epochs", 3).status == 0
    assert [row["epoch"] for row in RunFolder(run).history()] == [1.0, 2.0, 3.0]
    assert RunFolder(run).config()["epochs"] == 3
    whole = tmp_path / "whole"
    assert call("train", "vae", *OWN, "--run-dir", whole, *SMALL, "--epochs", 3).status == 0
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, run))
    assert all(bool((one[name] == other[name]).all()) for name in one)
    assert workflow.open_run(run).config["epochs"] == 3


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("resume",), "required: RUN"),
        (("resume", "nowhere"), "'nowhere' is no run folder"),
        (("resume", "{run}", "--epochs", "1"), "'epochs' = 1 are fewer than the 2"),
        (("resume", "{run}", "--epoch", "3"), "no option '--epoch': did you mean '--epochs'?"),
        (("resume", "{run}", "--epochs", "many"), "'--epochs' must be a whole number or null, not 'many'."),
        (("resume", "{other}"), "'learning_rate' is 0.5, but 0.001"),
        (("resume", "{bare}"), "holds no checkpoint to resume from"),
        (("resume", "{damaged}"), "cannot be resumed, for no checkpoint is whole"),
        (("train", "vae", "--run-dir", "{run}"), "name a new folder, or give --overwrite."),
    ],
)
def test_errors_are_one_line(argv: tuple[str, ...], says: str, call: Call, trained: Path, tmp_path: Path) -> None:
    folders = {name: str(shutil.copytree(trained, tmp_path / name)) for name in ("run", "other", "bare", "damaged")}
    config = RunFolder(trained).config()
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"learning_rate": 0.5}))
    for file in (tmp_path / "bare").glob("checkpoint-*"):
        file.unlink()
    for file in (tmp_path / "damaged").glob("checkpoint-*"):
        file.write_bytes(file.read_bytes()[:-1])
    called = call(*(word.format(**folders) for word in argv))
    assert called.status == 2
    assert called.err.startswith("pyro-lvm: error: ")
    assert called.err.count("\n") == 1
    assert says in called.err, called.err


def test_overwrite(call: Call, trained: Path, tmp_path: Path, no_report: None) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    called = call("train", "ppca", "--run-dir", run, "--overwrite", "--latent-dim", 2, *SMALL)
    assert called.status == 0, called.err
    assert RunFolder(run).config()["recipe"] == "ppca"
    assert "overwrite" not in RunFolder(run).config()
