"""Help, listings, and the commands that read a run folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_calls import Call
from matplotlib.image import imread

import pyro_lvm as lvm
from pyro_lvm import verify, workflow, zoo
from pyro_lvm.cli.commands import COMMANDS
from pyro_lvm.cli.tables import print_numbers
from pyro_lvm.report import Number


def test_help_of_all(call: Call) -> None:
    called = call("--help")
    assert called.status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in called.out
    assert called.out == call("-h").out
    assert call("--version").out == f"pyro-lvm {lvm.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each(name: str, call: Call) -> None:
    called = call(name, "--help")
    assert called.status == 0
    assert called.err == ""
    assert called.out.startswith(f"usage: pyro-lvm {name}")


@pytest.mark.parametrize("name", zoo.names())
def test_help_of_a_recipe_has_every_setting_with_its_default(
    name: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    called = call("train", name, "--help")
    assert called.status == 0
    assert zoo.recipe(name).summary in called.out
    for title, settings in workflow.settings(name).items():
        assert f"\n{title} settings:" in called.out
        for setting in settings:
            option = f"--{setting.replace('_', '-')}"
            (line,) = (row for row in called.out.splitlines() if row.strip().startswith((f"{option} ", f"{option},")))
            after = called.out[called.out.index(line) :].split("\n  --", 1)[0]
            words = after.split("(type:")[0].split()
            assert len(words) >= 4, f"{option} has no help"
            assert "default:" in after


def test_the_defaults_in_the_help_are_the_recipes(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    training = zoo.build("vae", workflow.load_data())[2].training
    for line in call("train", "vae", "--help").out.splitlines():
        for name in ("epochs", "early-stopping", "batch-size"):
            if line.startswith(f"  --{name} "):
                assert line.endswith(f"default: {training[name.replace('-', '_')]})")


def test_list_has_every_recipe(call: Call) -> None:
    lines = call("list").out.splitlines()
    assert lines[1].split() == ["name", "prior", "posterior", "likelihood", "objective", "reference"]
    for name, line in zip(zoo.names(), lines[2:], strict=True):
        recipe = zoo.recipe(name)
        assert line.startswith(f"{name} ")
        for text in (recipe.prior, recipe.posterior, recipe.likelihood, recipe.bound, recipe.reference):
            assert text in line


def test_listing_is_quick() -> None:
    code = "import sys; from pyro_lvm.cli import main; main(['list']); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"arviz", "matplotlib", "torchvision", "xarray"} & set(result.stderr.split())


def test_plain_tables_have_no_frames_and_take_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [Number("a [bold]", 1.0, "nats", "E[log q − log p]", 0.5), Number("none", float("nan"), "", "x" * 300)]
    print_numbers("title", numbers)
    out = capsys.readouterr().out
    assert "a [bold]" in out
    assert "1.00 ± 0.50  nats  E[log q − log p]" in out
    assert "n/a" in out
    assert "x" * 300 in out
    assert "│" not in out


def test_evaluate(call: Call, trained: Path, tmp_path: Path, no_report: None) -> None:
    before = (trained / "evaluation.json").read_text()
    run = shutil.copytree(trained, tmp_path / "run")
    again = call("evaluate", run, "--num-particles", 30, "--limit", 8)
    assert again.status == 0, again.err
    numbers = json.loads((run / "evaluation.json").read_text())["numbers"]
    assert numbers == json.loads(before)["numbers"]  # from the folder alone, the same to the last bit
    other = call("evaluate", run, "--split", "validation", "--num-particles", 20, "--limit", 8)
    assert "validation ELBO" in other.out
    assert "by 20 weighted draws" in other.out


def test_sample(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("sample", trained).out == f"{trained}/samples.png\n"
    assert imread(trained / "samples.png").ndim == 3
    state = torch.get_rng_state()
    assert call("sample", trained, "-n", 5, "--output", tmp_path / "x.npy", "--seed", 3).status == 0
    assert call("sample", trained, "-n", 5, "--output", tmp_path / "x.npz", "--seed", 3).status == 0
    assert torch.equal(torch.get_rng_state(), state)
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (5, 8, 8)
    assert set(np.unique(x)) <= set(range(17))
    assert (x == np.load(tmp_path / "x.npz")["train"]).all()
    assert lvm.data.load(tmp_path / "x.npz").shape == (8, 8)


def test_report(call: Call, trained: Path) -> None:
    before = (trained / "report.html").read_bytes()
    (trained / "report.html").unlink()
    assert call("report", trained).out == f"{trained}/report.html\n"
    assert (trained / "report.html").read_bytes() == before


def test_verify_fails_where_a_comparison_does(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [SimpleNamespace(passed=True), SimpleNamespace(passed=False)]
    monkeypatch.setattr(verify, "print_table", lambda comparisons: print(len(comparisons)))
    monkeypatch.setattr(verify, "verify", lambda: results)
    assert (call("verify").status, call("verify").out) == (1, "2\n")
    monkeypatch.setattr(verify, "verify", lambda: results[:1])
    assert call("verify").status == 0
