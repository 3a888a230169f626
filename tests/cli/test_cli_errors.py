"""Every error is one line on stderr that names what was wrong, with status 2."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from cli_calls import SMALL, Call, after_epoch

import pyro_lvm as lvm
from pyro_lvm import workflow


def assert_error(call: Call, *argv: object, says: str) -> None:
    called = call(*argv)
    assert called.status == 2
    assert called.err.startswith("pyro-lvm: error: ")
    assert called.err.count("\n") == 1
    assert called.err.endswith("\n")
    assert says in called.err, called.err
    assert "Traceback" not in called.out + called.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("", "name a command: list, train"),
        ("trian vae", "no command 'trian': did you mean 'train'?"),
        ("--versoin", "no option '--versoin': did you mean '--version'?"),
        ("train", "name the recipe first"),
        ("train --epochs 3 vae", "name the recipe first"),
        ("train vea", "no recipe 'vea': did you mean 'vae'?"),
        ("train vae --latnt-dim 3", "no option '--latnt-dim': did you mean '--latent-dim'?"),
        ("train vae --latnt_dim=3", "no option '--latnt-dim': did you mean '--latent-dim'?"),
        ("train vae --latent 3", "no option '--latent': did you mean '--latent-dim'?"),
        ("train vae --objective x", "no option '--objective'"),
        ("train vae extra", "unrecognized arguments: extra"),
        ("train vae --data digitz", "did you mean 'digits'?"),
        ("train vae --data mnist --data-root /nowhere", "set --data-root or"),
        ("train vae --binarise statc", "or 'threshold' or null, not 'statc': did you mean 'static'?"),
        ("train vae --latent-dim two", "'--latent-dim' must be a whole number, not 'two'."),
        ("train vae --latent-dim", "--latent-dim: expected one argument"),
        ("train vae --hidden-features 3 x", "'--hidden-features' must be a whole number, any number of them"),
        ("train vae --early-stopping 2.5", "'--early-stopping' must be a whole number or null, not '2.5'."),
        ("train vae --epochs 0", "'epochs'"),
        ("train vae --learning-rate=-1", "'learning_rate'"),
        ("train vae --batch-size 5000", "'batch_size' = 5000 is larger than the data"),
        ("train vae --evaluation-limit 1", "at least 2"),
        ("train vae --evaluation-particles 0", "at least 1"),
        ("train vae-bernoulli", "load it with --binarise static"),
        ("train vae --data nowhere.npy", "'nowhere.npy' must be a file"),
        ("train vae --config nowhere.json", "'--config' = 'nowhere.json' cannot be read: No such file or directory."),
        ("train vae --config", "--config: expected one argument"),
        ("evaluate", "required: RUN"),
        ("evaluate nowhere", "'nowhere' is no run folder"),
        ("sample nowhere", "'nowhere' is no run folder"),
        ("report nowhere", "'nowhere' is no run folder"),
        ("list --all", "no option '--all'"),
    ],
)  # fmt: skip
def test_what_was_typed(argv: str, says: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(call, *argv.split(), says=says)
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_what_fit_finds_out_later(call: Call, tmp_path: Path) -> None:
    assert_error(call, "train", "vae", "--optimizer", "Adaam", "--run-dir", tmp_path / "a", says="did you mean 'Adam'?")
    assert_error(call, "train", "vae", "--accelerator", "abacus", "--run-dir", tmp_path / "b", says="abacus")


def test_a_mistake_of_ours_says_how_to_see_more(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("deep\ninside")

    monkeypatch.setattr(lvm.data, "load", broken)
    assert_error(call, "train", "vae", says="KeyError: 'deep\\ninside' (--debug shows where)")


@pytest.mark.parametrize("argv", ["--debug train vae --epochs 0", "train vae --epochs 0 --debug"])
def test_debug_shows_the_traceback(argv: str, call: Call) -> None:
    with pytest.raises(ValueError, match="'epochs'"):
        call(*argv.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "neither JSON nor YAML"),
        ("[1, 2]", "must hold names and values"),
        ("", "must hold names and values"),
        ('{"latnt_dim": 3}', "'latnt_dim', which is no setting here: did you mean 'latent_dim'?"),
        ('{"latent_dim": "x"}', "'--latent-dim' must be a whole number, not 'x'."),
        ('{"latent_dim": null}', "must be a whole number, not null"),
        ('{"hidden_features": 3}', "'hidden_features' in '--config' must be a list, not 3."),
        ('{"recipe": "iwae"}', "'--config' holds a run of the recipe 'iwae', not of 'vae'."),
    ],
)
def test_files_of_settings(content: str, says: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(content)
    assert_error(call, "train", "vae", "--config", tmp_path / "settings.json", says=says)


def test_settings_of_a_binary_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(b"\xff\xfe\x00")
    assert_error(call, "train", "vae", "--config", tmp_path / "settings.json", says="neither JSON nor YAML")
    assert_error(call, "train", "vae", "--config", tmp_path, says="cannot be read")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((20, 4), np.nan), "nan"),
        (np.zeros((0, 4)), "at least one number"),
        (np.array([{"a": 1}] * 4), "Python objects"),
    ],
)
def test_data(values: np.ndarray, says: str, call: Call, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", values, allow_pickle=True)
    assert_error(call, "train", "vae-gaussian", "--data", tmp_path / "data.npy", says=says)


def test_a_malformed_file_of_data(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data.npy").write_bytes(b"not numpy's")
    assert_error(call, "train", "vae", "--data", tmp_path / "data.npy", says="malformed")
    (tmp_path / "data.csv").write_text("1,2\n3\n")
    assert_error(call, "train", "ppca", "--data", tmp_path / "data.csv", says="row 2 has 1")


def test_run_folders_that_cannot_be_written(call: Call, trained: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.iterdir()}
    assert_error(call, "train", "vae", "--run-dir", trained, says="is not empty")
    assert {file: file.stat().st_mtime_ns for file in trained.iterdir()} == before
    (tmp_path / "file").write_text("")
    assert_error(call, "train", "vae", "--run-dir", tmp_path / "file", says="a file is in the way")
    assert_error(call, "train", "vae", "--run-dir", "/proc/nowhere/run", says="cannot be made")


def test_damaged_runs(call: Call, trained: Path, tmp_path: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    (tmp_path / "config.json").write_text("{")
    assert_error(call, "evaluate", tmp_path, says="is damaged")
    (tmp_path / "config.json").write_text('{"epochs": 3}')
    assert_error(call, "evaluate", tmp_path, says="is no run of a recipe")
    (tmp_path / "config.json").write_text(json.dumps(config | {"latent_dims": 3}))
    assert_error(call, "evaluate", tmp_path, says="no setting 'latent_dims': did you mean 'latent_dim'?")
    (tmp_path / "config.json").write_text(json.dumps(config | {"data": "/nowhere.npy"}))
    assert_error(call, "evaluate", tmp_path, says="'/nowhere.npy' must be a file")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_error(call, "evaluate", tmp_path, says="no saved pair")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert_error(call, "sample", tmp_path, says="damaged")
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    (tmp_path / "evaluation.json").write_text('{"numbers": 3}')
    assert_error(call, "report", tmp_path, says="run `pyro-lvm evaluate` again")


def test_evaluations_and_samples(call: Call, trained: Path, tmp_path: Path, pixels: Path, no_report: None) -> None:
    assert_error(call, "evaluate", trained, "--split", "tst", says="did you mean 'test'?")
    assert_error(call, "evaluate", trained, "--num-particles", 0, says="at least 1")
    assert_error(call, "evaluate", trained, "--limit", 1, says="at least 2")
    assert_error(call, "sample", trained, "-n", 0, says="at least 1")
    assert_error(call, "sample", trained, "--output", "samples.jpg", says="must end in one of .png, .npy, .npz")
    assert_error(call, "sample", trained, "--output", "/nowhere/samples.npy", says="'/nowhere/samples.npy'")
    assert call("train", "vae", "--data", pixels, "--test", 0, "--run-dir", tmp_path / "run", *SMALL).status == 0
    assert_error(
        call,
        "evaluate",
        tmp_path / "run",
        "--split",
        "test",
        says="has no 'test' split: it has validation, train.",
    )


def test_numbers_that_are_not_finite_stop_the_training_and_leave_good_weights(call: Call, tmp_path: Path) -> None:
    argv = ("train", "vae-gaussian", "--learning-rate", "1e30", "--optimizer", "SGD", "--run-dir", tmp_path / "run")
    assert_error(call, *argv, says="training stopped at epoch 1, step ")
    assert_error(call, *argv[:-1], tmp_path / "again", says="site '")
    weights = safetensors.torch.load_file(tmp_path / "run/model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    assert call("sample", tmp_path / "run", "-n", 2, "--output", tmp_path / "x.npy").status == 0


def test_stopping_a_training_keeps_what_there_is(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    after_epoch(2, interrupted, monkeypatch)
    called = call("train", "vae", "--hidden-features", 8, "--run-dir", tmp_path / "run")
    assert called.status == 130
    assert called.err.count("\n") == 1
    assert f"pyro-lvm: stopped after 2 epochs: '{tmp_path}/run' holds" in called.err
    assert call("sample", tmp_path / "run", "-n", 2, "--output", tmp_path / "x.npy").status == 0


def test_stopping_elsewhere(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "log_likelihood", interrupted)
    called = call("evaluate", trained)
    assert called.status == 130
    assert f"`pyro-lvm evaluate {trained}` measures them" in called.err
    monkeypatch.setattr(lvm.data, "load", interrupted)
    called = call("train", "vae")
    assert (called.status, called.err) == (130, "pyro-lvm: stopped; nothing was saved.\n")


def test_errors_and_status_of_the_process() -> None:
    code = "from pyro_lvm.cli import main; raise SystemExit(main())"
    result = subprocess.run([sys.executable, "-c", code, "train", "vea"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "pyro-lvm: error: there is no recipe 'vea': did you mean 'vae'?\n"
